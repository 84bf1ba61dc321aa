/**
 * Whether and when a child that has ended is started again. Data and pure decisions; the actor acts on them.
 *
 * The three modes are those of OTP's supervisor(3). A start that fails counts like a crash.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type { ChildEnd } from "./ChildEnd.ts"
import { InvalidSpec } from "./Errors.ts"
import type { ExitStatus } from "./ExitStatus.ts"
import { millis } from "./internal/Time.ts"

/**
 * - `permanent`: restarted however it ended.
 * - `transient`: restarted unless it ended well.
 * - `temporary`: never restarted.
 */
export type Mode = "permanent" | "transient" | "temporary"

/** An exit code, or the signal that ended the process. */
export type Code = number | ChildProcess.Signal

/** When to restart, and how long to wait before. */
export interface Policy {
  readonly mode: Mode
  /** The ends that are no failure. Default: code 0. */
  readonly successCodes: ReadonlyArray<Code>
  /** The ends after which a restart is useless, such as a wrong configuration (s6's 125); they win over the mode. */
  readonly permanentFailureCodes: ReadonlyArray<Code>
  /** Gives the wait before each restart; when it is over, the child has failed for good. */
  readonly backoff: Schedule.Schedule<unknown, ChildEnd>
  /** The backoff begins anew when the child had been ready for this long. Default: 30 s. */
  readonly resetAfter: Duration.Input
}

export interface Options {
  readonly successCodes?: ReadonlyArray<Code> | undefined
  readonly permanentFailureCodes?: ReadonlyArray<Code> | undefined
  readonly backoff?: Schedule.Schedule<unknown, ChildEnd> | undefined
  readonly resetAfter?: Duration.Input | undefined
}

/** Options of `exponential`. */
export interface Exponential {
  /** Above 0. Default: 200 ms. */
  readonly first?: Duration.Input | undefined
  /** Not below `first`. Default: 30 s, or `first` where that is longer. */
  readonly max?: Duration.Input | undefined
  /** From 1 on. Default: 2. */
  readonly factor?: number | undefined
  /** From 0 to 1. Default: 0.2. */
  readonly jitter?: number | undefined
  /** A whole number from 0 on. Default: no limit. */
  readonly times?: number | undefined
}

/** A schedule does not show what it was made of, so what is wrong is kept beside it until a policy is checked. */
const wrongSchedules = new WeakMap<Schedule.Schedule<unknown, ChildEnd>, InvalidSpec>()

const checkExponential = (options: Exponential): Result.Result<void, InvalidSpec> =>
  Result.gen(function*() {
    const wrong = (field: string, problem: string) =>
      Result.fail(new InvalidSpec({ field: `restart.backoff.${field}`, problem }))
    const { factor = 2, jitter = 0.2, times = 0 } = options
    const first = yield* millis("restart.backoff.first", options.first ?? "200 millis")
    const max = options.max === undefined ? first : yield* millis("restart.backoff.max", options.max)
    if (first === 0) return yield* wrong("first", "must be above 0, or restarts follow one another without a pause")
    if (max < first) return yield* wrong("max", "must not be less than the first wait")
    if (!(factor >= 1 && Number.isFinite(factor))) return yield* wrong("factor", "must be a number from 1 on")
    if (!(jitter >= 0 && jitter <= 1)) return yield* wrong("jitter", "must be a number from 0 to 1")
    if (!Number.isSafeInteger(times) || times < 0) return yield* wrong("times", "must be a whole number from 0 on")
  })

/**
 * Waits `first` (default 200 ms), then `factor` (2) times as long each time, at most `max` (30 s); each wait is spread
 * by `jitter` (0.2: 20 % up or down), so that children that fell together don't come back together. At most `times`
 * restarts in a row; without it, for ever. Options that can't be used make the spec invalid (`InvalidSpec`).
 */
export const exponential = (options: Exponential = {}): Schedule.Schedule<unknown, ChildEnd> => {
  const checked = checkExponential(options)
  if (Result.isSuccess(checked)) return scheduleOf(options)
  const schedule = scheduleOf({})
  wrongSchedules.set(schedule, checked.failure)
  return schedule
}

const scheduleOf = (options: Exponential): Schedule.Schedule<unknown, ChildEnd> => {
  const jitter = options.jitter ?? 0.2
  const first = Duration.fromInputUnsafe(options.first ?? "200 millis")
  const capped = Schedule.min([
    Schedule.exponential(first, options.factor ?? 2),
    Schedule.spaced(options.max ?? Duration.max(first, Duration.seconds(30)))
  ])
  const spread = jitter === 0 ? capped : Schedule.modifyDelay(
    capped,
    ({ duration }) =>
      Effect.map(
        Random.next,
        (random) => Duration.millis(Duration.toMillis(duration) * (1 - jitter + 2 * jitter * random))
      )
  )
  return options.times === undefined ? spread : Schedule.upTo(spread, { times: options.times })
}

const make = (mode: Mode, options: Options = {}): Policy => ({
  mode,
  successCodes: options.successCodes ?? [0],
  permanentFailureCodes: options.permanentFailureCodes ?? [],
  backoff: options.backoff ?? exponential(),
  resetAfter: options.resetAfter ?? "30 seconds"
})

/** Restart however it ended. */
export const permanent = (options?: Options): Policy => make("permanent", options)

/** Restart unless it ended with a success code. */
export const transient = (options?: Options): Policy => make("transient", options)

/** Never restart. */
export const temporary = (options?: Options): Policy => make("temporary", options)

/** What follows from an end: another incarnation, a good end, or a bad one. */
export type Verdict = "restart" | "complete" | "fail"

const has = (codes: ReadonlyArray<Code>, status: ExitStatus): boolean =>
  (status._tag === "Exited" && codes.includes(status.code)) ||
  (status._tag === "Signaled" && codes.includes(status.signal as ChildProcess.Signal))

/**
 * What follows from an end that nobody asked for.
 *
 * @example
 * ```ts
 * import { ExitStatus, Restart } from "@treeline/core"
 * import { deepStrictEqual } from "node:assert"
 *
 * const policy = Restart.transient({ successCodes: [0, 3], permanentFailureCodes: [125] })
 * const after = (code: number) => Restart.decide(policy, { _tag: "Exited", status: ExitStatus.exited(code) })
 * deepStrictEqual([0, 1, 3, 125].map(after), ["complete", "restart", "complete", "fail"])
 * ```
 */
export const decide = (
  policy: Pick<Policy, "mode" | "successCodes" | "permanentFailureCodes">,
  end: ChildEnd
): Verdict => {
  const status = end._tag === "Exited" ? end.status : undefined
  if (status !== undefined && has(policy.permanentFailureCodes, status)) return "fail"
  const good = end._tag === "Completed" || (status !== undefined && has(policy.successCodes, status))
  switch (policy.mode) {
    case "permanent":
      return "restart"
    case "transient":
      return good ? "complete" : "restart"
    case "temporary":
      return good ? "complete" : "fail"
  }
}

/** A policy whose times have been checked and are in ms. */
export type Validated = Omit<Policy, "resetAfter"> & { readonly resetAfter: number }

/** Checks a policy: the backoff's options can be used, codes are whole numbers from 0 on, and none is both a success and a permanent failure. */
export const validate = (policy: Policy): Result.Result<Validated, InvalidSpec> =>
  Result.gen(function*() {
    const wrongBackoff = wrongSchedules.get(policy.backoff)
    if (wrongBackoff !== undefined) return yield* Result.fail(wrongBackoff)
    for (const field of ["successCodes", "permanentFailureCodes"] as const) {
      const wrong = policy[field].find((code) => typeof code === "number" && !(Number.isSafeInteger(code) && code >= 0))
      if (wrong !== undefined) {
        return yield* Result.fail(
          new InvalidSpec({
            field: `restart.${field}`,
            problem: `${wrong} is no exit code: give whole numbers from 0 on`
          })
        )
      }
    }
    const both = policy.successCodes.find((code) => policy.permanentFailureCodes.includes(code))
    if (both !== undefined) {
      return yield* Result.fail(
        new InvalidSpec({
          field: "restart.permanentFailureCodes",
          problem: `${both} is a success code too; an end is either good or bad`
        })
      )
    }
    return { ...policy, resetAfter: yield* millis("restart.resetAfter", policy.resetAfter) }
  })
