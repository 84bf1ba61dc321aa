/** Times: those of a specification, checked once at the edge, and the time of policies. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { InvalidSpec } from "../Errors.ts"

/** A time in ms: finite, not negative, and not NaN, which `Duration` itself would read as 0. */
export const millis = (field: string, input: Duration.Input): Result.Result<number, InvalidSpec> => {
  const invalid = (problem: string) => Result.fail(new InvalidSpec({ field, problem }))
  if (typeof input === "number" && Number.isNaN(input)) {
    return invalid("is not a number; give a time such as \"5 seconds\"")
  }
  const duration = Duration.fromInput(input)
  if (Option.isNone(duration)) return invalid(`is not a time: ${String(input)}`)
  const ms = Duration.toMillis(duration.value)
  if (!Number.isFinite(ms)) return invalid("must be finite: every wait is bounded")
  return ms < 0 ? invalid("must not be negative; 0 means at once") : Result.succeed(ms)
}

/** Whole ms that never go back, whatever is done to the wall clock; only differences mean anything. */
export const monotonic = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
