export * as WindowsDetached from "./WindowsDetached.ts"
export * as WindowsPlatform from "./WindowsPlatform.ts"
