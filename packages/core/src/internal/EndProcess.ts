/** The end of a process that is known by its identity only, such as a daemon. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { ProcessIdentity } from "../ProcessIdentity.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import { monotonic } from "./Time.ts"

/** A look again, in ms. */
export const poll = 50

/** How long a killed process may take to be gone, in ms. */
const killWithin = 10_000

/** Time that passes for real processes. */
export const makeTimer = Effect.gen(function*() {
  const platform = yield* ProcessPlatform
  const clock = yield* platform.clock
  const began = monotonic(clock)
  return {
    elapsed: () => monotonic(clock) - began,
    pause: (ms: number) => clock.sleep(Duration.millis(ms))
  }
})

/** Waits until a process is gone; false when it still lives after `within` ms. */
const awaitGone = (
  identity: ProcessIdentity,
  within: number,
  each: (elapsed: number) => Effect.Effect<void> = () => Effect.void
): Effect.Effect<boolean, never, ProcessPlatform> =>
  Effect.gen(function*() {
    const platform = yield* ProcessPlatform
    const timer = yield* makeTimer
    while ((yield* platform.standing(identity)) !== "Gone") {
      const left = within - timer.elapsed()
      if (left <= 0) return false
      yield* each(timer.elapsed())
      yield* timer.pause(Math.min(poll, left))
    }
    return true
  })

export interface Options {
  /** From the wish to the kill, in ms; 0 kills at once. */
  readonly within: number
  /** Begins the orderly end where a signal can't; false when that failed. Default: SIGTERM. */
  readonly requestStop?: Effect.Effect<boolean> | undefined
  /** Called at each look, with the time since the wish in ms. */
  readonly each?: ((elapsed: number) => Effect.Effect<void>) | undefined
}

/** `Denied`: this user may not signal it. `TimedOut`: it outlived even the kill. */
export type End = "Ended" | "Killed" | "Denied" | "TimedOut"

/**
 * TERM, the grace, KILL; each signal only after the identity was compared. Where nothing could ask it to end in order (on
 * Windows there is no such signal) it is killed at once. A zombie has ended (seed C24).
 */
export const end = (
  identity: ProcessIdentity,
  { each, requestStop, within }: Options
): Effect.Effect<End, never, ProcessPlatform> =>
  Effect.gen(function*() {
    const platform = yield* ProcessPlatform
    const asked = within > 0 &&
      ((requestStop !== undefined && (yield* requestStop)) ||
        (yield* platform.signalProcess(identity, "SIGTERM")) !== "Denied")
    if (asked && (yield* awaitGone(identity, within, each))) return "Ended"
    if ((yield* platform.signalProcess(identity, "SIGKILL")) === "Denied") return "Denied"
    return (yield* awaitGone(identity, killWithin)) ? "Killed" : "TimedOut"
  })
