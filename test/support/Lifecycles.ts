/** Drawn lifecycles in processes of their own: all processors take part, and a copy with a bug stays a copy. */
import { assert } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { execFile } from "node:child_process"
import { availableParallelism } from "node:os"
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

/** Checks `total` lifecycles from the seed `first` on, with all processors: each keeps every promise. */
export const checkAll = (path: string, first: number, total: number) =>
  Effect.gen(function*() {
    const processes = Math.min(4, availableParallelism())
    const each = Math.ceil(total / processes)
    const startedAt = performance.now()
    const answers = yield* Effect.forEach(
      Array.from({ length: processes }, (_, at) => first + at * each),
      (seed) => check(path, seed, each, 300),
      { concurrency: "unbounded" }
    )
    let starts = 0
    for (const answer of answers) {
      if ("found" in answer) {
        const { detail, invariant, script, story } = answer.found
        assert.fail(`${invariant}: ${detail}\n${script}\n${story}`)
      }
      starts += answer.starts
    }
    const seconds = (performance.now() - startedAt) / 1000
    console.log(
      `${each * processes} lifecycles, ${starts} incarnations, ${seconds.toFixed(1)} s, ${processes} processes`
    )
    assert.isAbove(starts, total)
  })
