/**
 * A lifecycle of a pool as data: its keys, its limits, the system it runs on, and what happens to it. A generator makes
 * it, a failure prints it, and the same scenario with the same seed runs the same way again.
 */
import * as Schema from "effect/Schema"
import * as Script from "./internal/Script.ts"
import * as Program from "./Program.ts"
import { SystemPlan } from "./Scenario.ts"

/** A key and what belongs to it; times in ms. */
export const KeyPlan = Schema.Struct({
  key: Schema.String,
  program: Program.Program,
  /** How long restoring, building, finding the endpoint and saving take. */
  restore: Schema.Finite,
  build: Schema.Finite,
  endpoint: Schema.Finite,
  save: Schema.Finite,
  /** How many of the first builds, and of the first savings, fail. */
  failedBuilds: Schema.Int,
  failedSaves: Schema.Int
})
export type KeyPlan = typeof KeyPlan.Type

/** What the probe of activity says, or that there is none. */
export const ActivityPlan = Schema.Literals(["none", "idle", "busy", "fails", "hangs"])
export type ActivityPlan = typeof ActivityPlan.Type

/** A pool; times in ms. */
export const PoolPlan = Schema.Struct({
  keys: Schema.Array(KeyPlan),
  startWithin: Schema.Finite,
  saveWithin: Schema.Finite,
  /** From SIGTERM to the kill. */
  grace: Schema.Finite,
  idle: Schema.NullOr(Schema.Finite),
  activity: ActivityPlan,
  age: Schema.NullOr(Schema.Finite),
  uses: Schema.NullOr(Schema.Int),
  capacity: Schema.NullOr(Schema.Struct({
    max: Schema.Int,
    waiting: Schema.Int,
    within: Schema.Finite,
    evictAfter: Schema.Finite
  }))
})
export type PoolPlan = typeof PoolPlan.Type

/**
 * What happens.
 *
 * - `Ensure`, `Touch`, `RetrySave`, `Discard`, `ShutdownAll`: operations. `Lease`: one that is held for so many ms.
 *   `Shutdown`: with a grace of its own, in ms, or that of the child.
 * - `Crash`: a signal from outside to the leader.
 * - `Step`: time passes, in ms. Until a step nothing has to have happened yet.
 * - `Together`: operations at the same moment. `Abandon`: an operation whose caller is interrupted after so many ms.
 */
export type Command =
  | { readonly _tag: "Ensure" | "Touch" | "RetrySave" | "Discard"; readonly key: string }
  | { readonly _tag: "Lease"; readonly key: string; readonly held: number }
  | { readonly _tag: "Shutdown"; readonly key: string; readonly grace: number | null }
  | { readonly _tag: "ShutdownAll" }
  | { readonly _tag: "Crash"; readonly key: string; readonly signal: "SIGKILL" | "SIGSEGV" | "SIGTERM" }
  | { readonly _tag: "Step"; readonly ms: number }
  | { readonly _tag: "Together"; readonly commands: ReadonlyArray<Command> }
  | { readonly _tag: "Abandon"; readonly command: Command; readonly after: number }

const onKey = { key: Schema.String }

export const Command: Schema.Codec<Command> = Schema.Union([
  Schema.TaggedStruct("Ensure", onKey),
  Schema.TaggedStruct("Touch", onKey),
  Schema.TaggedStruct("RetrySave", onKey),
  Schema.TaggedStruct("Discard", onKey),
  Schema.TaggedStruct("Lease", { ...onKey, held: Schema.Finite }),
  Schema.TaggedStruct("Shutdown", { ...onKey, grace: Schema.NullOr(Schema.Finite) }),
  Schema.TaggedStruct("ShutdownAll", {}),
  Schema.TaggedStruct("Crash", { ...onKey, signal: Schema.Literals(["SIGKILL", "SIGSEGV", "SIGTERM"]) }),
  Schema.TaggedStruct("Step", { ms: Schema.Finite }),
  Schema.TaggedStruct("Together", { commands: Schema.Array(Schema.suspend((): Schema.Codec<Command> => Command)) }),
  Schema.TaggedStruct("Abandon", {
    command: Schema.suspend((): Schema.Codec<Command> => Command),
    after: Schema.Finite
  })
])

/** `seed` draws the order in which ready fibers run, the jitter, and the faults. */
export const PoolScenario = Schema.Struct({
  seed: Schema.Int,
  system: SystemPlan,
  pool: PoolPlan,
  commands: Schema.Array(Command)
})
export type PoolScenario = typeof PoolScenario.Type

/** The scenario as a test that can be pasted. */
export const toScript = (scenario: PoolScenario): string =>
  Script.test(`PoolLifecycle.replay(${Script.expression(scenario, "  ")})`)
