/**
 * Waiting for what has no event of its own. Time is real time, also under TestClock.
 */
import * as Effect from "effect/Effect"

const pollPause = 5

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/**
 * Looks until `look` gives something other than `undefined` and `false`, and returns it. After `within` ms (default
 * 10 s) the test fails with `what` was awaited and `detail()`.
 */
export const eventually = <A>(
  what: string,
  look: () => A,
  options: { readonly within?: number; readonly detail?: () => unknown } = {}
): Effect.Effect<Exclude<A, undefined | false>> =>
  Effect.promise(async (signal) => {
    const within = options.within ?? 10_000
    const deadline = performance.now() + within
    while (true) {
      const found = look()
      if (found !== undefined && found !== false) return found as Exclude<A, undefined | false>
      if (signal.aborted || performance.now() > deadline) {
        const detail = options.detail === undefined ? "" : `: ${JSON.stringify(options.detail())}`
        throw new Error(`${what}: not within ${within} ms${detail}`)
      }
      await sleep(pollPause)
    }
  })

/** Observes for `ms` that `look` stays true; the test fails as soon as it does not. */
export const stays = (what: string, look: () => boolean, ms: number): Effect.Effect<void> =>
  Effect.promise(async (signal) => {
    const deadline = performance.now() + ms
    while (!signal.aborted && performance.now() < deadline) {
      if (!look()) throw new Error(`${what}: no longer true`)
      await sleep(pollPause)
    }
  })
