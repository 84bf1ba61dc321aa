/** The end of what a host that has died has left: its guardian is at it, or nobody is. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { ProcessIdentity, ProcessInfo } from "../ProcessIdentity.ts"
import type { ProcessPlatform } from "../ProcessPlatform.ts"
import { monotonic } from "./Time.ts"

/** A look again, in ms. */
const poll = 20

export type Platform = Pick<ProcessPlatform["Service"], "clock" | "endLeftovers" | "leftoversOf">

/**
 * Waits until nothing is left of what a host had started that has died, and ends what nobody else does. Returns who lives
 * after `within` ms: none when all is well, or when the system does not tell.
 */
export const awaitGone = (
  platform: Platform,
  host: ProcessIdentity,
  within: number
): Effect.Effect<ReadonlyArray<ProcessInfo>> =>
  Effect.gen(function*() {
    const { endLeftovers, leftoversOf } = platform
    if (leftoversOf === undefined) return []
    const clock = yield* platform.clock
    const began = monotonic(clock)
    while (true) {
      const left = yield* leftoversOf(host)
      if (left.length === 0 || monotonic(clock) - began >= within) return left
      if (endLeftovers !== undefined) yield* endLeftovers(left.map(({ pid }) => pid))
      yield* clock.sleep(Duration.millis(poll))
    }
  })
