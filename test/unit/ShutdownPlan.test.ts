import { assert, describe, it } from "@effect/vitest"
import { ShutdownPlan } from "@treeline/core"
import { Duration, Effect, Result } from "effect"

const valid = (plan: ShutdownPlan.ShutdownPlan): ShutdownPlan.Validated =>
  Result.getOrThrow(ShutdownPlan.validate(plan))

const problem = (within: Duration.Input): string => {
  const result = ShutdownPlan.validate(ShutdownPlan.terminate({ within }))
  return Result.isFailure(result) ? `${result.failure.field}: ${result.failure.problem}` : "valid"
}

describe("ShutdownPlan", () => {
  it("F12: a negative, infinite or undefined time is refused and never taken for kill-now", () => {
    assert.match(problem(-5), /^shutdown\.steps\[0\]\.within: must not be negative/)
    assert.match(problem("-5 seconds"), /must not be negative/)
    assert.match(problem(Number.NaN), /is not a number/)
    assert.match(problem(Number.POSITIVE_INFINITY), /must be finite/)
    assert.match(problem(Duration.infinity), /must be finite/)
    const cap = ShutdownPlan.validate(ShutdownPlan.make([], { cap: Duration.infinity }))
    assert.isTrue(Result.isFailure(cap) && cap.failure.field === "shutdown.cap")
  })

  it("C25: no time at all means that the kill follows at once", () => {
    assert.strictEqual(ShutdownPlan.untilKill(valid(ShutdownPlan.terminate({ within: 0 }))), 0)
    assert.strictEqual(ShutdownPlan.untilKill(valid(ShutdownPlan.kill)), 0)
  })

  it("the time until the kill is the sum of the steps", () => {
    const plan = valid(ShutdownPlan.make([
      ShutdownPlan.closeStdin("1 second"),
      ShutdownPlan.run("drain", Effect.void, 500),
      ShutdownPlan.signal("SIGTERM", { within: "2 seconds" })
    ]))
    assert.strictEqual(ShutdownPlan.untilKill(plan), 3500)
    assert.strictEqual(plan.cap, 5000)
  })

  it("peer 26: a later stop moves the kill earlier, never later", () => {
    const running = ShutdownPlan.begin(valid(ShutdownPlan.terminate({ within: 1000 })), 0)
    const longer = valid(ShutdownPlan.terminate({ within: 2000 }))
    const shorter = valid(ShutdownPlan.terminate({ signal: "SIGINT", within: 100 }))
    assert.strictEqual(ShutdownPlan.shorten(running, longer, 500), running)
    // 450 ms are left to the running plan, so 500 ms more would lengthen it
    assert.strictEqual(ShutdownPlan.shorten(running, valid(ShutdownPlan.terminate({ within: 500 })), 550), running)
    const taken = ShutdownPlan.shorten(running, shorter, 500)
    assert.strictEqual(taken.killAt, 600)
    assert.strictEqual(ShutdownPlan.describeStep(taken), "SIGINT")
    assert.strictEqual(ShutdownPlan.shorten(running, valid(ShutdownPlan.kill), 10).killAt, 10)
  })

  it("a step ends with its own time, and never after the kill of the plan", () => {
    const plan = valid(
      ShutdownPlan.make([ShutdownPlan.closeStdin(100), ShutdownPlan.signal("SIGTERM", { within: 200 })])
    )
    const first = ShutdownPlan.begin(plan, 0)
    assert.strictEqual(ShutdownPlan.stepEndsAt(first, 0), 100)
    const second = ShutdownPlan.advance(first)
    assert.strictEqual(ShutdownPlan.stepEndsAt(second, 40), 240)
    assert.strictEqual(ShutdownPlan.stepEndsAt(second, 250), 300)
    assert.deepStrictEqual(
      [first, second, ShutdownPlan.advance(second)].map(ShutdownPlan.describeStep),
      ["close stdin", "SIGTERM", "kill"]
    )
  })
})
