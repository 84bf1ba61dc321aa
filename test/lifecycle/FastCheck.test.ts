/** The kit under fast-check, which is no dependency of it. */
import { assert, it } from "@effect/vitest"
import { Lifecycle, Scenario } from "@treeline/core/testing"
import { Effect, Schema } from "effect"
import * as fc from "fast-check"

type Lifecycles = fc.Arbitrary<Scenario.Scenario>

it("lifecycles as an arbitrary of fast-check keep every promise", async () => {
  let starts = 0
  await fc.assert(
    fc.asyncProperty(Lifecycle.fastCheck<Lifecycles>(fc, { children: 3, commands: 6 }), async (scenario) => {
      starts += (await Effect.runPromise(Lifecycle.replay(scenario))).starts
    }),
    { numRuns: 30, seed: 1 }
  )
  assert.isAbove(starts, 30)
}, 60_000)

it("what fast-check draws is scenarios within the bounds, and what fails is told with a seed", async () => {
  const is = Schema.is(Scenario.Scenario)
  const drawn = fc.sample(Lifecycle.fastCheck<Lifecycles>(fc, { children: 2, commands: 3, nested: false }), {
    numRuns: 50,
    seed: 2
  })
  for (const scenario of drawn) {
    assert.isTrue(is(scenario))
    assert.isAtMost(scenario.supervisor.children.length, 2)
    assert.isAtMost(scenario.commands.length, 4, "a death of the host comes on top")
  }
  assert.isAbove(new Set(drawn.map(({ seed }) => seed)).size, 25)
  const failing = await fc.check(
    fc.asyncProperty(Lifecycle.fastCheck<Lifecycles>(fc), async ({ supervisor }) => supervisor.children.length < 2),
    { numRuns: 100, seed: 3 }
  )
  assert.isTrue(failing.failed)
  const [scenario] = failing.counterexample ?? []
  assert.isDefined(scenario)
  assert.deepStrictEqual(scenario, Lifecycle.scenario(scenario.seed))
})
