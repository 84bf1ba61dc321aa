export * as LogFile from "./LogFile.ts"
export * as LogLine from "./LogLine.ts"
export * as Logs from "./Logs.ts"
