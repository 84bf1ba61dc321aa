/** The end of a process that is known by its identity only, such as a daemon. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { ProcessIdentity, ProcessInfo } from "../ProcessIdentity.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import * as Leftovers from "./Leftovers.ts"
import { monotonic } from "./Time.ts"

/** A look again, in ms: what a command takes longer than it has to, at the most. */
export const poll = 20

/** How long a killed process may take to be gone, and then what it had started, in ms. */
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

/**
 * `Denied`: this user may not signal it. `TimedOut`: it outlived even the kill. `Survived`: it has ended, but `survivors`,
 * which it had started, have not.
 */
export interface End {
  readonly how: "Ended" | "Killed" | "Denied" | "TimedOut" | "Survived"
  readonly survivors: ReadonlyArray<ProcessInfo>
}

/** Waits for the end of what one that died had started: a killed host's guardian needs a moment for it (peer case 49). */
export const awaitLeftovers = (
  identity: ProcessIdentity
): Effect.Effect<ReadonlyArray<ProcessInfo>, never, ProcessPlatform> =>
  Effect.flatMap(ProcessPlatform, (platform) => Leftovers.awaitGone(platform, identity, killWithin))

/**
 * TERM, the grace, KILL; each signal only after the identity was compared. Where nothing could ask it to end in order (on
 * Windows there is no such signal) it is killed at once. Done when nothing is left of what it had started, either. A zombie
 * has ended (seed C24).
 */
export const end = (
  identity: ProcessIdentity,
  { each, requestStop, within }: Options
): Effect.Effect<End, never, ProcessPlatform> =>
  Effect.gen(function*() {
    const platform = yield* ProcessPlatform
    const gone = (how: "Ended" | "Killed") =>
      Effect.map(
        awaitLeftovers(identity),
        (survivors): End => ({ how: survivors.length === 0 ? how : "Survived", survivors })
      )
    const asked = within > 0 &&
      ((requestStop !== undefined && (yield* requestStop)) ||
        (yield* platform.signalProcess(identity, "SIGTERM")) !== "Denied")
    if (asked && (yield* awaitGone(identity, within, each))) return yield* gone("Ended")
    if ((yield* platform.signalProcess(identity, "SIGKILL")) === "Denied") return { how: "Denied", survivors: [] }
    return (yield* awaitGone(identity, killWithin)) ? yield* gone("Killed") : { how: "TimedOut", survivors: [] }
  })
