/** Whoever calls what is tested: a fiber for each call, and what became of it. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"

/** The tag of the error, `ok`, or `abandoned` for one that was interrupted or died; `defect` is of one that died. */
type Settled = (outcome: string, defect: string | undefined) => void

export class Callers {
  private readonly fibers = new Set<Fiber.Fiber<unknown>>()

  start(
    call: Effect.Effect<unknown, { readonly _tag: string }>,
    settled: Settled
  ): Effect.Effect<Fiber.Fiber<unknown>> {
    return call.pipe(
      Effect.onExit((exit) =>
        Effect.sync(() => {
          const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
          const died = Exit.isFailure(exit) && error === undefined && !Cause.hasInterruptsOnly(exit.cause)
          settled(
            Exit.isSuccess(exit) ? "ok" : error?._tag ?? "abandoned",
            died ? Cause.pretty(exit.cause) : undefined
          )
        })
      ),
      Effect.ignore,
      // What is journaled as asked has been asked: nobody comes in between.
      Effect.provideService(Scheduler.PreventSchedulerYield, true),
      Effect.forkDetach({ startImmediately: true }),
      Effect.map((fiber) => {
        this.fibers.add(fiber)
        return fiber
      })
    )
  }

  /** Those that still wait go away. */
  interrupt(): void {
    for (const fiber of this.fibers) fiber.interruptUnsafe()
  }
}
