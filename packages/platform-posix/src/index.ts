export * as PortableEngine from "./PortableEngine.ts"
export * as PosixPlatform from "./PosixPlatform.ts"
export * as PosixWatchdog from "./PosixWatchdog.ts"
export * as ServiceNotify from "./ServiceNotify.ts"
