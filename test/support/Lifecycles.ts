/** Drawn lifecycles in processes of their own: all processors take part, and a copy with a bug stays a copy. */
import { Effect, Schema } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const Answer = Schema.Union([
  Schema.Struct({ seed: Schema.Int, runs: Schema.Int, starts: Schema.Int, ms: Schema.Int }),
  Schema.Struct({
    found: Schema.Struct({
      invariant: Schema.String,
      detail: Schema.String,
      runs: Schema.Int,
      script: Schema.String,
      story: Schema.String,
      /** What its script breaks when it is run. */
      again: Schema.String
    }),
    ms: Schema.Int
  })
])
export type Answer = typeof Answer.Type

const kitAt = (name: string) => fileURLToPath(new URL(`../../packages/core/src/testing/${name}.ts`, import.meta.url))

/** The kit itself, and the one for pools. */
export const kit = kitAt("Lifecycle")
export const poolKit = kitAt("PoolLifecycle")

const runner = fileURLToPath(new URL("../fixtures/lifecycles.ts", import.meta.url))

/** ms; a copy with a bug may hang. */
const timeout = 240_000

/** Checks `runs` lifecycles from `seed` on with the kit at `path`. */
export const check = (path: string, seed: number, runs: number, shrinks: number): Effect.Effect<Answer> =>
  Effect.promise(async (signal) => {
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ["--conditions=source", runner, path, String(seed), String(runs), String(shrinks)],
      { signal, timeout, maxBuffer: 1 << 24 }
    )
    return Schema.decodeUnknownSync(Schema.fromJsonString(Answer))(stdout)
  })
