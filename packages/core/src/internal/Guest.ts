/** Effects of users in the midst of what must be bounded. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"

/** How long somebody's effect may take to notice that it was interrupted, ms; then it is left behind. */
export const patience = 5_000

/** Waits for a fiber that was interrupted, within bounds. */
const letGo = (
  fiber: Fiber.Fiber<unknown, unknown>,
  onLeft: (fiber: Fiber.Fiber<unknown, unknown>) => void
): Effect.Effect<void> =>
  Effect.raceFirst(Effect.asVoid(Fiber.await(fiber)), Effect.sleep(patience)).pipe(
    Effect.andThen(Effect.suspend(() => {
      if (fiber.pollUnsafe() !== undefined) return Effect.void
      onLeft(fiber)
      return Effect.logError(`an effect was interrupted and does not end after ${patience} ms; it is left behind`)
    }))
  )

/**
 * Runs somebody's effect in a scope. It is interrupted together with this, and left behind when it takes no notice of
 * that.
 */
export const run = <A, E>(
  scope: Scope.Scope,
  make: () => Effect.Effect<A, E, Scope.Scope>,
  onLeft: (fiber: Fiber.Fiber<unknown, unknown>) => void = () => {}
): Effect.Effect<A, E> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      // A throw while the effect is being made is a failure of the effect.
      const fiber = yield* Effect.suspend(make).pipe(
        Scope.provide(scope),
        Effect.interruptible,
        Effect.forkDetach({ startImmediately: true })
      )
      return yield* restore(Fiber.join(fiber)).pipe(
        Effect.onInterrupt(() =>
          Effect.suspend(() => {
            fiber.interruptUnsafe()
            return letGo(fiber, onLeft)
          })
        )
      )
    })
  )

/** Closes a scope with finalizers of somebody, which are left behind when they take too long. */
export const close = (
  scope: Scope.Closeable,
  onLeft: (fiber: Fiber.Fiber<unknown, unknown>) => void = () => {}
): Effect.Effect<void> =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkDetach(Scope.close(scope, Exit.void), { startImmediately: true })
    yield* Effect.raceFirst(Effect.asVoid(Fiber.await(fiber)), Effect.sleep(patience))
    const exit = fiber.pollUnsafe()
    if (exit === undefined) {
      onLeft(fiber)
      yield* Effect.logError(`finalizers do not end after ${patience} ms; they are left behind`)
    } else if (Exit.isFailure(exit)) {
      yield* Effect.logError("a finalizer has failed", exit.cause)
    }
  })
