import { assert, it } from "@effect/vitest"
import { Lifecycle } from "@treeline/core/testing"
import { Effect } from "effect"
import { checkAll, kit } from "../support/Lifecycles.ts"

/** Lifecycles in all; CI asks for more. */
const total = Number(process.env["TREELINE_LIFECYCLES"] ?? 4000)
const first = Number(process.env["TREELINE_SEED"] ?? 1)

it.live(
  `peer 73, 121: ${total} drawn lifecycles from seed ${first} on keep every promise`,
  () => checkAll(kit, first, total),
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
