export * as WindowsPlatform from "./WindowsPlatform.ts"
