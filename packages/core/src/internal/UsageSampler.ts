/** What each service uses, looked at only while somebody wants to know. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Usage } from "../Limits.ts"

/** From the end of one look to the next, in ms. */
const pause = 2000

/** Who has not asked for so long, in ms, is not looked for any more. */
const patience = 10_000

export interface UsageSampler {
  /** What was seen last, nothing at first; from now on it is looked at for a while. */
  readonly last: Effect.Effect<ReadonlyMap<string, Usage>>
}

/** `look` is run by one fiber at a time, in the scope. */
export const make = (
  look: Effect.Effect<ReadonlyMap<string, Usage>>
): Effect.Effect<UsageSampler, never, Scope.Scope> =>
  Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const scope = yield* Effect.scope
    let seen: ReadonlyMap<string, Usage> = new Map()
    let askedAt = 0
    let looking = false
    const watch: Effect.Effect<void> = Effect.gen(function*() {
      while (clock.currentTimeMillisUnsafe() - askedAt <= patience) {
        seen = yield* look
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
        return Effect.map(Effect.forkIn(watch, scope, { startImmediately: true }), () => seen)
      })
    }
  })
