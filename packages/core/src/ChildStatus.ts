/**
 * What is told of a child: a snapshot, and the events between snapshots. Data that crosses a socket unchanged.
 */
import * as Schema from "effect/Schema"
import { ChildEnd } from "./ChildEnd.ts"
import { ChildState } from "./ChildState.ts"
import { ProcessInfo } from "./ProcessIdentity.ts"

/** What liveness probes say: nothing yet, all well, or the last check of one of them failed. */
export const Health = Schema.Literals(["unknown", "healthy", "degraded"])
export type Health = typeof Health.Type

/**
 * A child at one moment. `restarts` counts the restarts after ends that nobody asked for. `children` are those of a
 * nested supervisor.
 */
export interface ChildStatus {
  readonly id: string
  readonly state: ChildState
  readonly health: Health
  readonly paused: boolean
  readonly incarnation: number
  readonly restarts: number
  readonly lastEnd: ChildEnd | null
  readonly children: ReadonlyArray<ChildStatus>
}

export const ChildStatus: Schema.Codec<ChildStatus, unknown> = Schema.Struct({
  id: Schema.String,
  state: ChildState,
  health: Health,
  paused: Schema.Boolean,
  incarnation: Schema.Int,
  restarts: Schema.Int,
  lastEnd: Schema.NullOr(ChildEnd),
  children: Schema.Array(Schema.suspend((): Schema.Codec<ChildStatus, unknown> => ChildStatus))
})

/**
 * - `State`: a transition.
 * - `Health`: a liveness probe changed its mind; `detail` says why it is degraded.
 * - `Paused`, `Resumed`: restarts and probes are off; on again.
 * - `Ended`: an incarnation is over and its tree is empty, or `survivors` lists what could not be ended. When it ended by
 *   itself, `outputTail` are the last lines that it wrote: at most 4 KiB.
 */
export const Change = Schema.TaggedUnion({
  State: { from: ChildState, to: ChildState },
  Health: { health: Health, detail: Schema.NullOr(Schema.String) },
  Paused: {},
  Resumed: {},
  Ended: { end: Schema.NullOr(ChildEnd), survivors: Schema.Array(ProcessInfo), outputTail: Schema.String }
})
export type Change = typeof Change.Type

/** Something happened to a child; `at` is ms, wall clock. */
export const ChildEvent = Schema.Struct({
  child: Schema.String,
  incarnation: Schema.Int,
  at: Schema.Number,
  change: Change
})
export type ChildEvent = typeof ChildEvent.Type
