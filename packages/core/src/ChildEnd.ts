/**
 * How one incarnation of a supervised child ended, before any policy has looked at it.
 */
import * as Schema from "effect/Schema"
import { describe as describeStatus, ExitStatus } from "./ExitStatus.ts"

/**
 * One link of a chain of causes: which child, which of its incarnations, what happened to it, and the last lines that it
 * wrote (at most 4 KiB; absent when there are none).
 */
export const Link = Schema.Struct({
  child: Schema.String,
  incarnation: Schema.Int,
  reason: Schema.String,
  outputTail: Schema.optionalKey(Schema.String)
})
export type Link = typeof Link.Type

/**
 * - `Exited`: the process ended by itself, with this status.
 * - `Completed`: an effect succeeded.
 * - `Failed`: an effect failed; `causes` is what its own children say, the innermost first.
 * - `StartFailed`: nothing was started; `reason` is the error's tag.
 * - `NotReady`: it was ended because it was not ready in time.
 * - `Unhealthy`: it was ended because it failed its liveness probe.
 */
export const ChildEnd = Schema.TaggedUnion({
  Exited: { status: ExitStatus },
  Completed: {},
  Failed: { message: Schema.String, causes: Schema.Array(Link) },
  StartFailed: { reason: Schema.String, message: Schema.String },
  NotReady: { message: Schema.String },
  Unhealthy: { message: Schema.String }
})
export type ChildEnd = typeof ChildEnd.Type

/** Folds an end, one function for each case. */
export const match: typeof ChildEnd.match = ChildEnd.match

/** A short English description: `killed by SIGKILL`, `not ready: ...`. */
export const describe = (self: ChildEnd): string =>
  ChildEnd.match(self, {
    Exited: ({ status }) => describeStatus(status),
    Completed: () => "completed",
    Failed: ({ message }) => `failed: ${message}`,
    StartFailed: ({ message }) => `did not start: ${message}`,
    NotReady: ({ message }) => `not ready: ${message}`,
    Unhealthy: ({ message }) => `unhealthy: ${message}`
  })
