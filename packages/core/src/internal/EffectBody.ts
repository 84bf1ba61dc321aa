/** A child whose body is an effect: supervision covers fibers and processes alike. */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { ChildEnd } from "../ChildEnd.ts"
import type { Body, Remainder, Running } from "../ChildSpec.ts"
import { InvalidSpec } from "../Errors.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"

const nothing: Remainder = { problem: undefined, survivors: [] }

/** Errors are shown shortened: a cause can be of any size. */
const maxMessage = 2000

const endOf = (exit: Exit.Exit<unknown, unknown>): ChildEnd => {
  if (Exit.isSuccess(exit)) return { _tag: "Completed" }
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  const message = error instanceof Error ? error.message : Cause.pretty(exit.cause)
  return { _tag: "Failed", message: message.slice(0, maxMessage), causes: [] }
}

/**
 * The body of an effect, which is interrupted to end it. `run` gets what announces readiness; with `announces` the child
 * is ready when that has been called, else as soon as it runs.
 */
export const make = <E, R>(
  run: (announce: Effect.Effect<void>) => Effect.Effect<unknown, E, R>,
  announces: boolean
): Body<Exclude<R, Scope.Scope>> => ({
  _tag: "Effect",
  validate: (readiness) =>
    readiness?.probe._tag === "Line" || readiness?.probe._tag === "Fd"
      ? Result.fail(
        new InvalidSpec({ field: "readiness.probe", problem: "an effect has no output; let it announce its readiness" })
      )
      : Result.succeed(undefined),
  start: ({ onStep }) => startOf(run, announces, onStep)
})

const startOf = <E, R>(
  run: (announce: Effect.Effect<void>) => Effect.Effect<unknown, E, R>,
  announces: boolean,
  onStep: (step: string) => void
): Effect.Effect<Running, never, Exclude<R, Scope.Scope> | Scope.Scope> =>
  Effect.gen(function*() {
    const ready = Deferred.makeUnsafe<void>()
    const givenUp = Deferred.makeUnsafe<void>()
    // A throw while the effect is being made is a failure of the effect.
    const fiber = yield* Effect.suspend(() => run(Effect.asVoid(Deferred.succeed(ready, undefined)))).pipe(
      Effect.scoped,
      Effect.interruptible,
      Effect.forkDetach
    )
    yield* Effect.addFinalizer(() => Effect.sync(() => fiber.interruptUnsafe()))
    const remains = Effect.sync((): Remainder =>
      fiber.pollUnsafe() === undefined
        ? { problem: "its effect was interrupted and does not end", survivors: [] }
        : nothing
    )
    return {
      tree: undefined,
      ended: Effect.map(Fiber.await(fiber), endOf),
      ready: announces ? Deferred.await(ready) : undefined,
      // Its finalizers may take as long as a process could. Whoever gives up first does so for all callers.
      stop: (plan) =>
        Effect.suspend(() => {
          onStep("interrupt")
          fiber.interruptUnsafe()
          return Effect.raceAllFirst([
            Fiber.await(fiber),
            Effect.andThen(
              Effect.sleep(ShutdownPlan.untilKill(plan) + plan.cap),
              Deferred.succeed(givenUp, undefined)
            ),
            Deferred.await(givenUp)
          ])
        }).pipe(Effect.andThen(remains)),
      remains,
      children: Effect.succeed([])
    }
  })
