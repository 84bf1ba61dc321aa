import { assert, it } from "@effect/vitest"
import { Lifecycle } from "@treeline/core/testing"
import { Deferred, Effect, Fiber, Ref } from "effect"
import { TestClock } from "effect/testing"

/** Sleeps again after something else has happened: a single adjustment passes it by. */
const relay = Effect.gen(function*() {
  const first = yield* Deferred.make<void>()
  yield* Effect.forkChild(Effect.andThen(Effect.sleep("1 minute"), Deferred.succeed(first, undefined)))
  yield* Deferred.await(first)
  yield* Effect.sleep("1 minute")
  return "done"
})

it.effect("an effect that sleeps again comes to its end; adjusted once it would wait for ever", () =>
  Effect.gen(function*() {
    const once = yield* Effect.forkChild(relay, { startImmediately: true })
    yield* TestClock.adjust("1 minute")
    yield* Effect.yieldNow
    assert.isUndefined(once.pollUnsafe())
    assert.strictEqual(yield* Lifecycle.forkThenAdjust(relay, "3 minutes"), "done")
    yield* Fiber.interrupt(once)
  }))

it.effect("exactly as long as it takes is enough, in any number of steps", () =>
  Effect.gen(function*() {
    for (const steps of [1, 3, 7, 100, 5000]) {
      assert.strictEqual(yield* Lifecycle.forkThenAdjust(Effect.as(Effect.sleep(1000), steps), 1000, { steps }), steps)
    }
  }))

it.effect("StillRunning: what has not ended is interrupted, and its finalizers may take time", () =>
  Effect.gen(function*() {
    const released = yield* Ref.make(false)
    const stuck = Effect.never.pipe(
      Effect.onInterrupt(() => Effect.andThen(Effect.sleep("30 seconds"), Ref.set(released, true)))
    )
    const error = yield* Effect.flip(Lifecycle.forkThenAdjust(stuck, "1 minute"))
    assert.strictEqual(error._tag, "StillRunning")
    assert.strictEqual(error.afterMs, 60_000)
    assert.isTrue(yield* Ref.get(released))
  }))

it.effect("an error is passed on, and the clock goes no further than it has to", () =>
  Effect.gen(function*() {
    const failing = Effect.andThen(Effect.sleep("10 seconds"), Effect.fail("broken"))
    assert.strictEqual(yield* Effect.flip(Lifecycle.forkThenAdjust(failing, "100 seconds")), "broken")
    const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
    assert.strictEqual(now, 10_000)
  }))

it.effect("who interrupts it interrupts the effect", () =>
  Effect.gen(function*() {
    const released = yield* Deferred.make<void>()
    const started = yield* Deferred.make<void>()
    const effect = Deferred.succeed(started, undefined).pipe(
      Effect.andThen(Effect.never),
      Effect.onInterrupt(() => Deferred.succeed(released, undefined))
    )
    // So many steps that it is interrupted between two of them.
    const fiber = yield* Effect.forkChild(Lifecycle.forkThenAdjust(effect, "1 hour", { steps: 1_000_000 }), {
      startImmediately: true
    })
    yield* Deferred.await(started)
    yield* Fiber.interrupt(fiber)
    assert.isTrue(Deferred.isDoneUnsafe(released))
  }))
