/** What is told of a supervisor: a snapshot, and the events between snapshots. Data that crosses a socket unchanged. */
import * as Schema from "effect/Schema"
import { ChildEvent, ChildStatus } from "./ChildStatus.ts"
import { IntensityExceeded } from "./Errors.ts"

/** How a supervisor ended, unless by `IntensityExceeded`: stopped, or by the end of a significant child. */
export const SupervisorEnd = Schema.TaggedUnion({ Stopped: {}, Shutdown: { child: Schema.String } })
export type SupervisorEnd = typeof SupervisorEnd.Type

/**
 * - `Child`: something happened to a child; in a nested supervisor its name is a path, `inner/db`.
 * - `Round`: `children`, `origin` among them, are stopped, to be started again, because `origin` has ended.
 * - `RoundOver`: they are stopped, and start again.
 * - `Stopping`: all children are being stopped; `error` when the restarts were too many.
 * - `Ended`: all are stopped.
 */
export const SupervisorEvent = Schema.TaggedUnion({
  Child: { event: ChildEvent },
  Round: { origin: Schema.String, children: Schema.Array(Schema.String) },
  RoundOver: { children: Schema.Array(Schema.String) },
  Stopping: { error: Schema.NullOr(IntensityExceeded) },
  Ended: {}
})
export type SupervisorEvent = typeof SupervisorEvent.Type

/** A child that is being ended: which step of its plan, since when (ms, wall clock). */
export const Blocking = Schema.Struct({
  child: Schema.String,
  pid: Schema.NullOr(Schema.Int),
  step: Schema.String,
  since: Schema.Number
})
export type Blocking = typeof Blocking.Type

/** A supervisor at one moment; `blocking` says what a stop or a round of restarts is waiting for. */
export const SupervisorStatus = Schema.Struct({
  phase: Schema.Literals(["running", "restarting", "stopping", "ended"]),
  restartsInWindow: Schema.Int,
  children: Schema.Array(ChildStatus),
  blocking: Schema.Array(Blocking)
})
export type SupervisorStatus = typeof SupervisorStatus.Type
