/**
 * Trees that were launched one after another in one scope close together.
 *
 * A scope runs its finalizers one by one, so N stubborn children would cost N grace periods (peer case 30). When the
 * first of a run of neighbours is closed, the others begin to close too. A finalizer that the user put between two
 * launches parts the run, so an order that somebody wrote down is kept.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"

/** Closes that begin in one turn of the event loop, which one look at the process table serves; to begin one takes 0.1 ms. */
const closesPerTurn = 128

interface Run {
  readonly closes: Set<Effect.Effect<void>>
  last: Finalizer
}

type Finalizer = (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<unknown>

const runs = new WeakMap<Scope.Scope, Run>()

/** The finalizer that was added last; a closed or empty scope has none. */
const lastFinalizer = (scope: Scope.Scope): Finalizer | undefined => {
  if (scope.state._tag !== "Open") return undefined
  if (scope.state.finalizer !== undefined) return scope.state.finalizer
  let last: Finalizer | undefined = undefined
  for (const finalizer of scope.state.finalizers?.values() ?? []) last = finalizer
  return last
}

/** Adds `close` to the scope. It runs once, whoever asks first, and every finalizer waits for its own to end. */
export const addClose = (scope: Scope.Scope, close: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.gen(function*() {
    let closing: Deferred.Deferred<void> | undefined = undefined
    const once = Effect.suspend(() => {
      if (closing !== undefined) return Deferred.await(closing)
      const done = closing = Deferred.makeUnsafe<void>()
      return Effect.onExit(close, (exit) => Effect.sync(() => Deferred.doneUnsafe(done, exit)))
    })
    const neighbours = runs.get(scope)
    const run: Run = neighbours !== undefined && neighbours.last === lastFinalizer(scope)
      ? neighbours
      : { closes: new Set(), last: () => Effect.void }
    const finalizer: Finalizer = () =>
      Effect.gen(function*() {
        const others = [...run.closes].filter((other) => other !== once)
        run.closes.clear()
        for (const [index, other] of others.entries()) {
          if (index % closesPerTurn === closesPerTurn - 1) yield* Effect.yieldNow
          yield* Effect.forkDetach(other, { startImmediately: true })
        }
        yield* once
      })
    run.closes.add(once)
    run.last = finalizer
    runs.set(scope, run)
    yield* Scope.addFinalizerExit(scope, finalizer)
  })
