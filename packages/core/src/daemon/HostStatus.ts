/**
 * What is told of services that run: a snapshot, the events between snapshots, and how far an operation is. Data that
 * crosses a socket unchanged; no argument, environment value or secret is ever in it.
 */
import * as Schema from "effect/Schema"
import { ChildState } from "../ChildState.ts"
import { ChildStatus } from "../ChildStatus.ts"
import { Usage } from "../Limits.ts"
import { PoolEvent, PoolStatus } from "../PoolStatus.ts"
import { Blocking, SupervisorEvent } from "../SupervisorStatus.ts"
import { LogStatus } from "./LogStatus.ts"
import { Report } from "./ReloadReport.ts"

/**
 * One service. `since` is when its state began, `readySince` when it became ready (ms, wall clock; null when it is not).
 * `usage` is of its tree, as it was looked at last; null while it has none or nobody looks.
 */
export const ServiceStatus = Schema.Struct({
  name: Schema.String,
  groups: Schema.Array(Schema.String),
  child: ChildStatus,
  since: Schema.Number,
  readySince: Schema.NullOr(Schema.Number),
  usage: Schema.NullOr(Usage)
})
export type ServiceStatus = typeof ServiceStatus.Type

/**
 * The process that runs the services. `paused`: no restarts and no probes until somebody resumes. `file` is where the
 * configuration was read; `reloadedAt` when it was taken over last.
 */
export const HostInfo = Schema.Struct({
  pid: Schema.Int,
  version: Schema.String,
  startedAt: Schema.Number,
  file: Schema.NullOr(Schema.String),
  reloadedAt: Schema.Number,
  paused: Schema.Boolean
})
export type HostInfo = typeof HostInfo.Type

/** All of it at one moment, `at` (ms, wall clock). `blocking` says what a stop or a round of restarts waits for. */
export const HostStatus = Schema.Struct({
  at: Schema.Number,
  host: HostInfo,
  phase: Schema.Literals(["running", "restarting", "stopping", "ended"]),
  restartsInWindow: Schema.Int,
  services: Schema.Array(ServiceStatus),
  pools: Schema.Array(PoolStatus),
  logs: Schema.Array(LogStatus),
  blocking: Schema.Array(Blocking)
})
export type HostStatus = typeof HostStatus.Type

/**
 * - `Supervisor`: what the supervisor tells of itself and of its children.
 * - `Pool`: something happened to a key of a pool.
 * - `Reloaded`: another configuration holds.
 * - `Paused`, `Resumed`: of the whole.
 */
export const HostEvent = Schema.TaggedUnion({
  Supervisor: { at: Schema.Number, event: SupervisorEvent },
  Pool: { pool: Schema.String, event: PoolEvent },
  Reloaded: { at: Schema.Number, report: Report },
  Paused: { at: Schema.Number },
  Resumed: { at: Schema.Number }
})
export type HostEvent = typeof HostEvent.Type

/** What became of one service; `problem` is null when all went well. */
export const Outcome = Schema.Struct({
  service: Schema.String,
  problem: Schema.NullOr(Schema.String)
})
export type Outcome = typeof Outcome.Type

/**
 * How far an operation is.
 *
 * - `Changed`: a service of it is in another state.
 * - `Waiting`: told now and then while nothing changes: what is being ended and at which step, and what is not up yet.
 * - `Done`: the last one. `report` is there after a reload.
 */
export const Progress = Schema.TaggedUnion({
  Changed: { at: Schema.Number, service: Schema.String, incarnation: Schema.Int, state: ChildState },
  Waiting: {
    at: Schema.Number,
    blocking: Schema.Array(Blocking),
    starting: Schema.Array(Schema.Struct({ service: Schema.String, state: ChildState }))
  },
  Done: { at: Schema.Number, outcomes: Schema.Array(Outcome), report: Schema.NullOr(Report) }
})
export type Progress = typeof Progress.Type
