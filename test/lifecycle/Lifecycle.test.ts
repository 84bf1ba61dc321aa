import { assert, it } from "@effect/vitest"
import { Lifecycle } from "@treeline/core/testing"
import { Effect } from "effect"
import { availableParallelism } from "node:os"
import { check, kit } from "../support/Lifecycles.ts"

/** Lifecycles in all; CI asks for more. */
const total = Number(process.env["TREELINE_LIFECYCLES"] ?? 4000)
const first = Number(process.env["TREELINE_SEED"] ?? 1)

it.live(
  `peer 73, 121: ${total} drawn lifecycles from seed ${first} on keep every promise`,
  () =>
    Effect.gen(function*() {
      const processes = Math.min(4, availableParallelism())
      const each = Math.ceil(total / processes)
      const startedAt = performance.now()
      const answers = yield* Effect.forEach(
        Array.from({ length: processes }, (_, at) => first + at * each),
        (seed) => check(kit, seed, each, 300),
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
    }),
  300_000
)

it.effect("the same scenario runs the same way again", () =>
  Effect.gen(function*() {
    for (const seed of [3, 14, 159, 265]) {
      const one = yield* Lifecycle.run(Lifecycle.scenario(seed))
      const again = yield* Lifecycle.run(Lifecycle.scenario(seed))
      assert.strictEqual(one.story, again.story)
    }
  }))
