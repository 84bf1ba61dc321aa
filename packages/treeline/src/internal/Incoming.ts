/** Signals to this process, as a queue. */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"

/** From now until the scope closes these signals come in here and have no other effect. */
export const signals = (
  names: ReadonlyArray<NodeJS.Signals>
): Effect.Effect<Queue.Dequeue<NodeJS.Signals>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const queue = yield* Queue.unbounded<NodeJS.Signals>()
    const onSignal = (name: NodeJS.Signals) => void Queue.offerUnsafe(queue, name)
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        for (const name of names) process.on(name, onSignal)
      }),
      () =>
        Effect.sync(() => {
          for (const name of names) process.off(name, onSignal)
        })
    )
    return queue
  })
