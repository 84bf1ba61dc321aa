export * as PortableEngine from "./PortableEngine.ts"
export * as PosixPlatform from "./PosixPlatform.ts"
export * as PosixWatchdog from "./PosixWatchdog.ts"
