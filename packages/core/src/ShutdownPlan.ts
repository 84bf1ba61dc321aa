/**
 * How a tree is ended: an ordered list of steps, as data.
 *
 * A step does its action and then waits at most `within` for the tree to be empty. When all steps have passed, the whole
 * tree is killed, and if something still lives after `cap`, the close ends all the same and says what is left. So every
 * close is bounded: by the sum of the steps plus the cap. Escalation looks at the tree, never at the leader (peer case
 * 3).
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Result from "effect/Result"
import type { InvalidSpec } from "./Errors.ts"
import { millis } from "./internal/Time.ts"

/**
 * Who gets a signal: the first process, its process group, or the tree: the group, every member outside it, and, for as
 * long as the step lasts, every process that the tree still starts.
 */
export type Target = "leader" | "group" | "tree"

/**
 * What a step does.
 *
 * - `Signal`: sends it, and SIGCONT after every one that can be caught, so that a stopped process sees it.
 * - `CloseStdin`: ends the input, which many programs take as the wish to end.
 * - `Interrupt`: SIGINT to the tree; on Windows the console's Ctrl+C or Ctrl+Break.
 * - `RequestClose`: WM_CLOSE to the windows of the tree; nothing on POSIX.
 * - `Run`: any effect, such as an HTTP call or a message; a failure is logged and the plan goes on.
 */
export type Action =
  | { readonly _tag: "Signal"; readonly signal: ChildProcess.Signal; readonly target: Target }
  | { readonly _tag: "CloseStdin" }
  | { readonly _tag: "Interrupt" }
  | { readonly _tag: "RequestClose" }
  | { readonly _tag: "Run"; readonly name: string; readonly effect: Effect.Effect<unknown, unknown> }

/** One action, and how long the tree may take to end before the next step. */
export interface Step {
  readonly action: Action
  readonly within: Duration.Input
}

/** Steps in their order, then a kill of the whole tree, then at most `cap` until the close gives up. */
export interface ShutdownPlan {
  readonly steps: ReadonlyArray<Step>
  readonly cap: Duration.Input
}

/** How long the kill of a tree may take before it is reported as unkillable: 5 s. */
export const defaultCap: Duration.Input = "5 seconds"

/**
 * A plan from its steps.
 *
 * @example
 * ```ts
 * import { ShutdownPlan } from "@treeline/core"
 * import { strictEqual } from "node:assert"
 *
 * const plan = ShutdownPlan.make([
 *   ShutdownPlan.closeStdin("1 second"),
 *   ShutdownPlan.signal("SIGTERM", { within: "10 seconds" })
 * ])
 * strictEqual(ShutdownPlan.validate(plan)._tag, "Success")
 * ```
 */
export const make = (
  steps: ReadonlyArray<Step>,
  options?: { readonly cap?: Duration.Input | undefined }
): ShutdownPlan => ({ steps, cap: options?.cap ?? defaultCap })

/**
 * Sends `signal` to `target` (default: the tree, so that a daemon that left the group is asked too before it is killed)
 * and waits at most `within` (default 5 s).
 */
export const signal = (
  name: ChildProcess.Signal,
  options?: { readonly target?: Target | undefined; readonly within?: Duration.Input | undefined }
): Step => ({
  action: { _tag: "Signal", signal: name, target: options?.target ?? "tree" },
  within: options?.within ?? "5 seconds"
})

/** Ends the leader's standard input and waits at most `within`. */
export const closeStdin = (within: Duration.Input): Step => ({ action: { _tag: "CloseStdin" }, within })

/** Interrupts as a terminal would and waits at most `within`. */
export const interrupt = (within: Duration.Input): Step => ({ action: { _tag: "Interrupt" }, within })

/** Asks the windows of the tree to close (Windows) and waits at most `within`. */
export const requestClose = (within: Duration.Input): Step => ({ action: { _tag: "RequestClose" }, within })

/** A step as it is written in data: a signal by its name, or one of the other ways to ask. */
export interface NamedStep {
  readonly action: ChildProcess.Signal | "closeStdin" | "interrupt" | "requestClose"
  /** Of a signal. Default: `tree`. */
  readonly target?: Target | undefined
  /** Default: 5 s. */
  readonly within?: Duration.Input | undefined
}

/** The step that is meant. */
export const named = ({ action, target, within = "5 seconds" }: NamedStep): Step => {
  switch (action) {
    case "closeStdin":
      return closeStdin(within)
    case "interrupt":
      return interrupt(within)
    case "requestClose":
      return requestClose(within)
    default:
      return signal(action, { target, within })
  }
}

/** Runs an effect; effect and waiting together take at most `within`. `name` appears in progress and in the log. */
export const run = (name: string, effect: Effect.Effect<unknown, unknown>, within: Duration.Input): Step => ({
  action: { _tag: "Run", name, effect },
  within
})

/** One signal to the tree, `within`, then the kill. Defaults: SIGTERM, 5 s. */
export const terminate = (options?: {
  readonly signal?: ChildProcess.Signal | undefined
  readonly within?: Duration.Input | undefined
  readonly cap?: Duration.Input | undefined
}): ShutdownPlan => make([signal(options?.signal ?? "SIGTERM", { within: options?.within })], options)

/** SIGTERM to the tree, 5 s, kill. */
const default_: ShutdownPlan = terminate()
export { default_ as default }

/** The kill at once. */
export const kill: ShutdownPlan = make([])

/** A plan whose durations have been checked and are in ms. */
export interface Validated {
  readonly steps: ReadonlyArray<{ readonly action: Action; readonly within: number }>
  readonly cap: number
}

/**
 * Checks a plan. A time that is negative, not a number or infinite is an `InvalidSpec` and never taken for "kill now"
 * (seeds F12, C25); 0 is allowed.
 */
export const validate = (plan: ShutdownPlan): Result.Result<Validated, InvalidSpec> =>
  Result.gen(function*() {
    const steps: Array<Validated["steps"][number]> = []
    for (const [index, step] of plan.steps.entries()) {
      steps.push({ action: step.action, within: yield* millis(`shutdown.steps[${index}].within`, step.within) })
    }
    return { steps, cap: yield* millis("shutdown.cap", plan.cap) }
  })

/** The time in ms after which a plan that starts now kills. */
export const untilKill = (plan: Validated): number => plan.steps.reduce((sum, step) => sum + step.within, 0)

/** What a running teardown is doing; `at` and times are ms on the platform's clock. */
export interface Progress {
  readonly plan: Validated
  /** Index of the current step; `plan.steps.length` is the kill. */
  readonly step: number
  /** When the plan reaches the kill. */
  readonly killAt: number
}

/** A teardown that starts at `now`. */
export const begin = (plan: Validated, now: number): Progress => ({ plan, step: 0, killAt: now + untilKill(plan) })

/** The next step. */
export const advance = (self: Progress): Progress => ({ ...self, step: self.step + 1 })

/**
 * A further stop while a teardown runs: the plan that reaches the kill earlier goes on, so a later stop can only shorten
 * the teardown, never lengthen it (peer case 26). Returns `self` itself when nothing changes.
 */
export const shorten = (self: Progress, plan: Validated, now: number): Progress =>
  now + untilKill(plan) < self.killAt ? begin(plan, now) : self

/** When the current step ends, in ms on the platform's clock; never later than the kill of the plan. */
export const stepEndsAt = (self: Progress, startedAt: number): number =>
  Math.min(self.killAt, startedAt + (self.plan.steps[self.step]?.within ?? 0))

/** The name of the current step for people: `SIGTERM`, `close stdin`, `kill`. */
export const describeStep = (self: Progress): string => {
  const action = self.plan.steps[self.step]?.action
  switch (action?._tag) {
    case undefined:
      return "kill"
    case "Signal":
      return action.signal
    case "CloseStdin":
      return "close stdin"
    case "Interrupt":
      return "interrupt"
    case "RequestClose":
      return "request close"
    case "Run":
      return action.name
  }
}
