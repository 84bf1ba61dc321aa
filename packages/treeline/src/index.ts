export * from "@treeline/core"
export { PosixPlatform, PosixWatchdog } from "@treeline/platform-posix"
export * as CommandReport from "./CommandReport.ts"
export * as Treeline from "./Treeline.ts"
