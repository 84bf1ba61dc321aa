export * as PortableEngine from "./PortableEngine.ts"
export * as PosixPlatform from "./PosixPlatform.ts"
