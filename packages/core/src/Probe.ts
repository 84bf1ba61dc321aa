/**
 * Probes ask whether a child is ready and whether it is still healthy.
 *
 * A probe is data. `line` and `fd` wait for an announcement of the child; `tcp`, `http`, `exec` and `effect` are asked
 * again and again, one attempt after the other and never two at once. An attempt that errs or hangs is a failure like any
 * other. Times are policy, so they pass on the ambient `Clock`.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as ChildProcess from "effect/process/ChildProcess"
import type * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { InvalidSpec, NotReady, type ProbeFailure } from "./Errors.ts"
import * as Attempt from "./internal/Attempt.ts"
import * as ProbeSpec from "./internal/ProbeSpec.ts"
import * as Tail from "./internal/Tail.ts"
import { millis } from "./internal/Time.ts"
import type { Address } from "./Network.ts"
import type { ProcessPlatform } from "./ProcessPlatform.ts"
import type { ProcessTree } from "./ProcessTree.ts"

/** A whole line of output. Only its first 1 MiB is looked at. */
export interface Line {
  readonly _tag: "Line"
  readonly pattern: string | RegExp
  readonly stream: "stdout" | "stderr" | "any"
}

/** A newline on a descriptor that the child writes. */
export interface Fd {
  readonly _tag: "Fd"
  readonly fd: number
}

/** A connection. */
export interface Tcp {
  readonly _tag: "Tcp"
  readonly address: Address
}

/** Status codes from `min` to `max`, both included. */
export interface StatusRange {
  readonly min: number
  readonly max: number
}

/** The response to a GET request. */
export interface Http {
  readonly _tag: "Http"
  readonly url: string
  readonly status: StatusRange | ((status: number) => boolean)
  readonly headers: Readonly<Record<string, string | Redacted.Redacted<string>>>
  readonly body: RegExp | ((body: string) => boolean) | undefined
}

/** The exit code of a command. */
export interface Exec {
  readonly _tag: "Exec"
  readonly command: ChildProcess.StandardCommand
}

/** Any effect. */
export interface Check {
  readonly _tag: "Check"
  readonly name: string
  readonly effect: Effect.Effect<unknown, unknown>
}

export type Probe = Line | Fd | Tcp | Http | Exec | Check

/**
 * The child says it in a line of its output; a string matches a line that contains it. A line counts when its newline has
 * come. Every line from the child's first byte on is seen when `awaitReady` starts right after the launch. The output
 * policy must be `ring` (the default): under `backpressure` readers share what comes, so a probe would take it away from
 * them.
 */
export const line = (
  pattern: string | RegExp,
  options?: { readonly stream?: "stdout" | "stderr" | "any" | undefined }
): Probe => ({ _tag: "Line", pattern, stream: options?.stream ?? "any" })

/**
 * The child writes a newline to the descriptor, as s6 has it (notification-fd). The command declares it:
 * `additionalFds: { fd3: { type: "output" } }`.
 */
export const fd = (fd: number): Probe => ({ _tag: "Fd", fd })

/**
 * The address accepts a connection; a number is a port of 127.0.0.1. Where the system tells who listens, it must be a
 * process of the tree, so a port that somebody else holds is not taken for the child's. For an address that a program
 * outside the tree serves in the child's place (a container's proxy), use `effect`.
 */
export const tcp = (address: number | Address): Probe => ({
  _tag: "Tcp",
  address: typeof address === "number" ? { host: "127.0.0.1", port: address } : address
})

/**
 * GET gives a good status (default: 200 to 299) and, where asked for, a body that matches; its first 64 KiB are looked
 * at. Redirects are not followed, proxy settings are ignored, each request has a connection of its own, and who listens
 * is checked as by `tcp`.
 */
export const http = (
  request: string | {
    readonly url: string
    readonly status?: StatusRange | ((status: number) => boolean) | undefined
    readonly headers?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
    readonly body?: RegExp | ((body: string) => boolean) | undefined
  }
): Probe => {
  const options = typeof request === "string" ? { url: request } : request
  return {
    _tag: "Http",
    url: options.url,
    status: options.status ?? { min: 200, max: 299 },
    headers: options.headers ?? {},
    body: options.body
  }
}

/**
 * The command exits with code 0. It runs as a tree of its own, which is killed whole when its leader has ended or the
 * timeout has passed, so nothing of an attempt is left when the next one starts.
 */
export const exec = (command: ChildProcess.StandardCommand): Probe => ({ _tag: "Exec", command })

/** The effect succeeds; `name` is for people. It must be interruptible, or a timeout waits for it. */
export const effect = (name: string, effect: Effect.Effect<unknown, unknown>): Probe => ({
  _tag: "Check",
  name,
  effect
})

/** The probe for people: `tcp 127.0.0.1:80`, `http://127.0.0.1/health`. No query, header, or argument is shown. */
export const describe: (probe: Probe) => string = Attempt.describe

/** How readiness is asked. */
export interface Readiness {
  readonly probe: Probe
  /** The limit for all of it, `initialDelay` included. Default: 30 s. */
  readonly within: Duration.Input
  /** From the end of one attempt to the next. Default: 100 ms. */
  readonly interval: Duration.Input
  /** The limit for one attempt. Default: 1 s. */
  readonly timeout: Duration.Input
  /** Before the first attempt. Default: 0. */
  readonly initialDelay: Duration.Input
  /** Successes in a row that make the child ready. Default: 1. */
  readonly successThreshold: number
}

/** How liveness is asked. */
export interface Liveness {
  /** Not `line` or `fd`: those happen once. */
  readonly probe: Probe
  /** From the end of one attempt to the next. Default: 10 s. */
  readonly interval: Duration.Input
  /** The limit for one attempt. Default: 1 s. */
  readonly timeout: Duration.Input
  /** Before the first attempt. Default: the interval. */
  readonly initialDelay: Duration.Input
  /** Failures in a row that make the child failed. Default: 3. */
  readonly failureThreshold: number
  /** Successes in a row that make it healthy (again). Default: 1. */
  readonly successThreshold: number
}

/** The fields that may be left out. */
type Optional<A> = { readonly [K in keyof A]?: A[K] | undefined }

/**
 * Readiness by a probe. For `line` and `fd` only `within` counts: they are awaited, not asked.
 *
 * @example
 * ```ts
 * import { Probe, ProcessPlatform } from "@treeline/core"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect, Result } from "effect"
 * import { ChildProcess } from "effect/process"
 *
 * const program = Effect.gen(function*() {
 *   const platform = yield* ProcessPlatform.ProcessPlatform
 *   const tree = yield* platform.launch(ChildProcess.make("sh", ["-c", "echo listening; sleep 60"]))
 *   const readiness = Probe.readiness(Probe.line(/^listening/), { within: "5 seconds" })
 *   yield* Probe.awaitReady(Result.getOrThrow(Probe.validateReadiness(readiness)), { platform, tree })
 * })
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(PosixPlatform.layer)))
 * ```
 */
export const readiness = (probe: Probe, options?: Optional<Omit<Readiness, "probe">>): Readiness => ({
  probe,
  within: options?.within ?? "30 seconds",
  interval: options?.interval ?? "100 millis",
  timeout: options?.timeout ?? "1 second",
  initialDelay: options?.initialDelay ?? 0,
  successThreshold: options?.successThreshold ?? 1
})

/** Liveness by a probe. */
export const liveness = (probe: Probe, options?: Optional<Omit<Liveness, "probe">>): Liveness => {
  const interval = options?.interval ?? "10 seconds"
  return {
    probe,
    interval,
    timeout: options?.timeout ?? "1 second",
    initialDelay: options?.initialDelay ?? interval,
    failureThreshold: options?.failureThreshold ?? 3,
    successThreshold: options?.successThreshold ?? 1
  }
}

/** A readiness that has been checked; times are in ms. */
export interface ValidatedReadiness {
  readonly probe: Probe
  readonly within: number
  readonly interval: number
  readonly timeout: number
  readonly initialDelay: number
  readonly successThreshold: number
}

/** A liveness that has been checked; times are in ms. */
export interface ValidatedLiveness {
  readonly probe: Probe
  readonly interval: number
  readonly timeout: number
  readonly initialDelay: number
  readonly failureThreshold: number
  readonly successThreshold: number
}

/** A time above 0 in ms: an attempt without time always fails, and asking without a pause is a busy loop. */
const pause = (field: string, input: Duration.Input): Result.Result<number, InvalidSpec> =>
  Result.flatMap(
    millis(field, input),
    (ms) => ms > 0 ? Result.succeed(ms) : Result.fail(new InvalidSpec({ field, problem: "must be above 0" }))
  )

/** A number of probes in a row. */
const threshold = (field: string, value: number): Result.Result<number, InvalidSpec> =>
  Number.isSafeInteger(value) && value >= 1
    ? Result.succeed(value)
    : Result.fail(new InvalidSpec({ field, problem: "must be a whole number of 1 or more" }))

/** Checks a readiness; fields are named `readiness.within`, `readiness.probe.url`, and so on. */
export const validateReadiness = (self: Readiness): Result.Result<ValidatedReadiness, InvalidSpec> =>
  Result.gen(function*() {
    return {
      probe: yield* ProbeSpec.validate("readiness.probe", self.probe),
      within: yield* pause("readiness.within", self.within),
      interval: yield* pause("readiness.interval", self.interval),
      timeout: yield* pause("readiness.timeout", self.timeout),
      initialDelay: yield* millis("readiness.initialDelay", self.initialDelay),
      successThreshold: yield* threshold("readiness.successThreshold", self.successThreshold)
    }
  })

/** Checks a liveness; fields are named `liveness.interval`, `liveness.probe.url`, and so on. */
export const validateLiveness = (self: Liveness): Result.Result<ValidatedLiveness, InvalidSpec> =>
  Result.gen(function*() {
    const probe = yield* ProbeSpec.validate("liveness.probe", self.probe)
    if (probe._tag === "Line" || probe._tag === "Fd") {
      return yield* Result.fail(
        new InvalidSpec({
          field: "liveness.probe",
          problem: "a line or descriptor announces readiness once and can't be asked again"
        })
      )
    }
    return {
      probe,
      interval: yield* pause("liveness.interval", self.interval),
      timeout: yield* pause("liveness.timeout", self.timeout),
      initialDelay: yield* millis("liveness.initialDelay", self.initialDelay),
      failureThreshold: yield* threshold("liveness.failureThreshold", self.failureThreshold),
      successThreshold: yield* threshold("liveness.successThreshold", self.successThreshold)
    }
  })

/**
 * What is probed. `tree` is undefined for a body that is a plain effect: then nobody's port is anybody's. Without a
 * `platform` only `effect` can be asked.
 */
export interface Target {
  readonly platform: ProcessPlatform["Service"] | undefined
  readonly tree: ProcessTree | undefined
}

/** What liveness probes have told; `unknown` until one of them has told enough. */
export type Health = "unknown" | "healthy" | "degraded" | "failed"

/** The health and the outcomes in a row that lead to the next one. */
export interface State {
  readonly health: Health
  readonly successes: number
  readonly failures: number
}

/** Before the first probe. */
export const initial: State = { health: "unknown", successes: 0, failures: 0 }

/**
 * The state after one more outcome: healthy after `success` successes in a row, degraded at the first failure, failed
 * at the failure that is the `failure`th in a row, and until it is healthy again (peer case 94).
 *
 * @example
 * ```ts
 * import { Probe } from "@treeline/core"
 * import { strictEqual } from "node:assert"
 *
 * const thresholds = { failure: 2, success: 1 }
 * const once = Probe.step(Probe.initial, "failure", thresholds)
 * strictEqual(once.health, "degraded")
 * strictEqual(Probe.step(once, "failure", thresholds).health, "failed")
 * ```
 */
export const step = (
  state: State,
  outcome: "success" | "failure",
  thresholds: { readonly failure: number; readonly success: number }
): State => {
  if (outcome === "success") {
    const successes = state.successes + 1
    return { health: successes >= thresholds.success ? "healthy" : state.health, successes, failures: 0 }
  }
  const failures = state.failures + 1
  const failed = state.health === "failed" || failures >= thresholds.failure
  return { health: failed ? "failed" : "degraded", successes: 0, failures }
}

/**
 * True when something that should have ended after `planned` ms took so much longer that the host itself must have been
 * suspended (a laptop's sleep, SIGSTOP, a frozen machine). What failed then is not the child's fault (peer case 97).
 */
export const wasSuspended = (planned: number, took: number, timeout: number): boolean =>
  took - planned >= Math.max(1000, timeout)

/**
 * One attempt, at most `timeoutMs` long. Fails with `InvalidSpec` where the target has not what the probe needs: a
 * network, or a tree. Nothing of the attempt is left when it has ended or was interrupted.
 */
export const check = Effect.fn("Probe.check")(function*(
  probe: Probe,
  timeoutMs: number,
  target: Target
): Effect.fn.Return<void, ProbeFailure | InvalidSpec> {
  const { failure } = yield* Attempt.run(probe, timeoutMs, target)
  if (failure !== undefined) return yield* failure
})

/** Sleeps and tells for how long, in ms. */
const sleep = (ms: number): Effect.Effect<number> =>
  Effect.gen(function*() {
    const elapsed = yield* Attempt.stopwatch
    yield* Effect.sleep(ms)
    return yield* elapsed
  })

/** The longest that a suspension of the host can count against a child, in ms. */
const slice = 1000

/** Sleeps in slices, so that of the time in which the host was suspended only one slice counts. */
const sleepAwake = (ms: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let rest = ms; rest > 0; rest -= slice) yield* Effect.sleep(Math.min(rest, slice))
  })

/**
 * Waits until the child is ready, or fails with `NotReady` after `within`; with `line` and `fd` also when the output has
 * ended without the announcement.
 *
 * Start it right after the launch. What a child announced before it died counts, so its end should be looked at only
 * after its output was `drained` (peer case 87).
 */
export const awaitReady = Effect.fn("Probe.awaitReady")(function*(
  readiness: ValidatedReadiness,
  target: Target
): Effect.fn.Return<void, NotReady | InvalidSpec> {
  const { probe, within } = readiness
  let last: ProbeFailure | undefined = undefined
  const asked = Effect.gen(function*() {
    let slept = 0
    let successes = 0
    if (readiness.initialDelay > 0) slept = (yield* sleep(readiness.initialDelay)) - readiness.initialDelay
    while (true) {
      const { failure, took } = yield* Attempt.run(probe, readiness.timeout, target)
      if (failure === undefined) {
        if (++successes >= readiness.successThreshold) return
      } else if (!isExcused(took, slept, readiness.timeout)) {
        successes = 0
        last = failure
      }
      slept = (yield* sleep(readiness.interval)) - readiness.interval
    }
  })
  const announced = Effect.map(Attempt.announcement(probe, target), (failure) => {
    last = failure
    return failure === undefined
  })
  const ready = yield* Effect.raceFirst(
    probe._tag === "Line" || probe._tag === "Fd" ? announced : Effect.as(asked, true),
    Effect.as(sleepAwake(within), false)
  )
  if (ready) return
  return yield* new NotReady({
    probe: Attempt.describe(probe),
    within,
    lastFailure: last ?? Attempt.timedOut(probe, within),
    outputTail: target.tree === undefined ? "" : yield* Tail.ofTree(target.tree)
  })
})

/** A failure that the host is to blame for: the attempt, or the pause before it, took far longer than it can. */
const isExcused = (took: number, overslept: number, timeout: number): boolean =>
  wasSuspended(timeout, took, timeout) || wasSuspended(0, overslept, timeout)

/**
 * Asks until it is interrupted, and calls `onChange` with each new health: `healthy`, `degraded` with the first failure,
 * `failed` once with the failure that reached the threshold. A failure while the host was suspended counts for nothing,
 * and the probe is asked again.
 */
export const watch = Effect.fnUntraced(function*<R = never>(
  liveness: ValidatedLiveness,
  target: Target,
  onChange: (
    health: "healthy" | "degraded" | "failed",
    failure: ProbeFailure | undefined
  ) => Effect.Effect<void, never, R>
): Effect.fn.Return<never, InvalidSpec, R> {
  const { interval, timeout } = liveness
  const thresholds = { failure: liveness.failureThreshold, success: liveness.successThreshold }
  let state = initial
  let pause = liveness.initialDelay
  while (true) {
    const overslept = (yield* sleep(pause)) - pause
    const { failure, took } = yield* Attempt.run(liveness.probe, timeout, target)
    // Asked again at once: with the host awake this attempt counts.
    pause = 0
    if (failure !== undefined && isExcused(took, overslept, timeout)) continue
    pause = interval
    const before = state.health
    state = step(state, failure === undefined ? "success" : "failure", thresholds)
    if (state.health !== before && state.health !== "unknown") yield* onChange(state.health, failure)
  }
})
