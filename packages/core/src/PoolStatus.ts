/**
 * What is told of a pool: a snapshot, and the events between snapshots. Data that crosses a socket unchanged; no token is
 * ever in it.
 */
import * as Schema from "effect/Schema"
import { KeyState } from "./PoolState.ts"

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
