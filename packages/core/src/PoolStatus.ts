/**
 * What is told of a pool: a snapshot, and the events between snapshots. Data that crosses a socket unchanged; no token is
 * ever in it.
 */
import * as Schema from "effect/Schema"
import { ChildEnd } from "./ChildEnd.ts"
import { PoolStep } from "./Errors.ts"
import { ProcessInfo } from "./ProcessIdentity.ts"

/**
 * Why a child is ended: without use for long; to make room; too old or used up; somebody asked; the pool closes; it ended
 * by itself; it did not come up; nobody waited for it any more.
 */
export const Reason = Schema.Literals([
  "idle",
  "evicted",
  "recycled",
  "shutdown",
  "closed",
  "ended",
  "failed",
  "abandoned"
])
export type Reason = typeof Reason.Type

/**
 * - `Absent`: there is nothing of it, and it is not in the status.
 * - `Waiting`: asked for; there is no room yet.
 * - `Building`: its state is restored, it is built, started, and not yet ready.
 * - `Live`: it is there for everybody who asks.
 * - `Retiring`: it is being ended, or its state is being saved.
 * - `Blocked`: something of it is left, so nothing is built until that is gone: processes, or state that is not saved.
 *
 * `since` is ms, wall clock.
 */
export const KeyState = Schema.TaggedUnion({
  Absent: {},
  Waiting: { since: Schema.Number },
  Building: { since: Schema.Number, incarnation: Schema.Int, step: PoolStep },
  Live: { since: Schema.Number, incarnation: Schema.Int, pid: Schema.NullOr(Schema.Int) },
  Retiring: {
    since: Schema.Number,
    incarnation: Schema.Int,
    reason: Reason,
    end: Schema.NullOr(ChildEnd)
  },
  Blocked: {
    since: Schema.Number,
    incarnation: Schema.Int,
    problem: Schema.String,
    unsaved: Schema.Boolean,
    survivors: Schema.Array(ProcessInfo)
  }
})
export type KeyState = typeof KeyState.Type

/**
 * A key at one moment. `callers` wait for it; `leases` pin it; it was given out `uses` times and used last at `usedAt`
 * (ms, wall clock; null when it is not live). `due`: it is ended as soon as there is no lease.
 */
export const KeyStatus = Schema.Struct({
  key: Schema.String,
  state: KeyState,
  callers: Schema.Int,
  leases: Schema.Int,
  uses: Schema.Int,
  usedAt: Schema.NullOr(Schema.Number),
  due: Schema.Boolean
})
export type KeyStatus = typeof KeyStatus.Type

/** A pool at one moment. `capacity` is null where there is no limit. */
export const PoolStatus = Schema.Struct({
  pool: Schema.String,
  open: Schema.Boolean,
  capacity: Schema.NullOr(Schema.Int),
  keys: Schema.Array(KeyStatus)
})
export type PoolStatus = typeof PoolStatus.Type

/**
 * - `State`: a transition.
 * - `BuildFailed`: all who waited were failed with this.
 * - `SaveFailed`: the retire hook failed for the `attempt`th time in a row.
 */
export const Change = Schema.TaggedUnion({
  State: { from: KeyState, to: KeyState },
  BuildFailed: { problem: Schema.String },
  SaveFailed: { attempt: Schema.Int, problem: Schema.String }
})
export type Change = typeof Change.Type

/** Something happened to a key; `at` is ms, wall clock. */
export const PoolEvent = Schema.Struct({
  key: Schema.String,
  at: Schema.Number,
  change: Change
})
export type PoolEvent = typeof PoolEvent.Type
