export * as Conformance from "./Conformance.ts"
export * as Program from "./Program.ts"
export * as SimulatedPlatform from "./SimulatedPlatform.ts"
