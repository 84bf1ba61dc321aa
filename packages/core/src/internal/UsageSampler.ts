/** What each service uses, looked at only while somebody wants to know. */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Usage } from "../Limits.ts"

/** From the end of one look to the next, in ms. */
const pause = 2000

/** Who has not asked for so long, in ms, is not looked for any more. */
const patience = 10_000

/** How long the first who asks waits for the first look, in ms. */
const firstLook = 100

export interface UsageSampler {
  /** What was seen last; from now on it is looked at for a while. Nothing where the first look takes more than 100 ms. */
  readonly last: Effect.Effect<ReadonlyMap<string, Usage>>
}

/** `look` is run by one fiber at a time, in the scope; `lookClock` is the clock of the time that it takes. */
export const make = (
  look: Effect.Effect<ReadonlyMap<string, Usage>>,
  lookClock: Clock.Clock
): Effect.Effect<UsageSampler, never, Scope.Scope> =>
  Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const scope = yield* Effect.scope
    let seen: ReadonlyMap<string, Usage> = new Map()
    let askedAt = 0
    let looking = false
    const watch = (first: Deferred.Deferred<void>): Effect.Effect<void> =>
      Effect.gen(function*() {
        while (clock.currentTimeMillisUnsafe() - askedAt <= patience) {
          seen = yield* look
          Deferred.doneUnsafe(first, Effect.void)
          yield* Effect.sleep(pause)
        }
      }).pipe(Effect.ensuring(Effect.sync(() => {
        looking = false
        seen = new Map()
      })))
    return {
      last: Effect.suspend(() => {
        askedAt = clock.currentTimeMillisUnsafe()
        if (looking) return Effect.succeed(seen)
        looking = true
        const first = Deferred.makeUnsafe<void>()
        return Effect.forkIn(watch(first), scope, { startImmediately: true }).pipe(
          Effect.andThen(Effect.raceFirst(Deferred.await(first), lookClock.sleep(Duration.millis(firstLook)))),
          Effect.map(() => seen)
        )
      })
    }
  })
