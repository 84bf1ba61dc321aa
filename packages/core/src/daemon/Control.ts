/**
 * The control API: what another process may ask of services that run. An effect/rpc group with a version, so a client has
 * types only. `ControlServer` answers it, `ControlClient` asks.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Rpc from "effect/rpc/Rpc"
import * as RpcGroup from "effect/rpc/RpcGroup"
import * as RpcMiddleware from "effect/rpc/RpcMiddleware"
import * as Schema from "effect/Schema"
import {
  CapacityExceeded,
  ChildFailed,
  ControlDenied,
  InvalidConfig,
  InvalidSpec,
  NotRunning,
  Overtaken,
  PoolClosed,
  ReopenFailed,
  StartTimedOut,
  SubscriberDropped,
  Unfinished,
  Unkillable,
  UnknownChild,
  UnknownPool,
  UnsavedState,
  VersionMismatch
} from "../Errors.ts"
import { ProcessInfo } from "../ProcessIdentity.ts"
import { Signal } from "../Signal.ts"
import { HostEvent, HostStatus, Progress } from "./HostStatus.ts"
import { Entry } from "./LogLine.ts"

/** The version of this API. A client and a server talk only when theirs are equal. */
export const protocol = 1

/** The headers of each request: the version, and the token where one is asked for. */
export const versionHeader = "treeline-protocol"
export const tokenHeader = "authorization"

/** Before the token, in its header (RFC 6750, section 2.1). */
export const bearer = "Bearer "

/** The header that shows a token. */
export const credentials = (token: Redacted.Redacted<string>): string => `${bearer}${Redacted.value(token)}`

/** Who reads the answer of one request. A subscription that must not go on ends with the error, whatever it waits for. */
export class Subscriber extends Context.Service<Subscriber, {
  readonly drop: (error: SubscriberDropped) => Effect.Effect<void>
}>()("@treeline/core/daemon/Control/Subscriber") {}

/**
 * In front of every call: refuses one without the right token, and a client of another version all but `Hello`. Client and
 * server are told apart by it, so it is required on both sides.
 */
export class Gate
  extends RpcMiddleware.Service<Gate, { provides: Subscriber }>()("@treeline/core/daemon/Control/Gate", {
    error: Schema.Union([ControlDenied, VersionMismatch]),
    requiredForClient: true
  })
{}

/** Names of services and groups; none means all. */
const Names = Schema.Array(Schema.String)

const Key = { pool: Schema.String, key: Schema.String }

/**
 * Who answers. Every version tells this, so that a client of another one knows whom it has met. `file` is the configuration
 * that is served, so that nobody takes the services of another one for theirs; null where there is none.
 */
export const Welcome = Schema.Struct({
  protocol: Schema.Int,
  version: Schema.String,
  pid: Schema.Int,
  startedAt: Schema.Number,
  file: Schema.NullOr(Schema.String)
})
export type Welcome = typeof Welcome.Type

/** Which lines of which services; see `Logs.Query`. */
export const LogQuery = Schema.Struct({
  services: Names,
  stream: Schema.optionalKey(Schema.Literals(["stdout", "stderr"])),
  from: Schema.Union([
    Schema.Literals(["start", "now"]),
    Schema.Struct({ lines: Schema.Int }),
    Schema.Struct({ after: Schema.Int })
  ]),
  follow: Schema.Boolean
})
export type LogQuery = typeof LogQuery.Type

const operation = { payload: { names: Names }, success: Progress, error: UnknownChild, stream: true } as const

/** To how many processes a signal went, and which ones refused it. */
export const Signalled = Schema.Struct({
  delivered: Schema.Int,
  denied: Schema.Array(ProcessInfo)
})
export type Signalled = typeof Signalled.Type

/** All calls. */
export class Control extends RpcGroup.make(
  Rpc.make("Hello", { success: Welcome }),
  Rpc.make("Status", { success: HostStatus }),
  /** Snapshots: one at once, then one after changes, at most one in `every` ms. */
  Rpc.make("Watch", {
    payload: { every: Schema.Int },
    success: HostStatus,
    error: SubscriberDropped,
    stream: true
  }),
  /** The last events that are kept, and with `follow` all that come. */
  Rpc.make("Events", {
    payload: { follow: Schema.Boolean },
    success: HostEvent,
    error: SubscriberDropped,
    stream: true
  }),
  Rpc.make("Logs", {
    payload: LogQuery,
    success: Entry,
    error: Schema.Union([UnknownChild, SubscriberDropped]),
    stream: true
  }),
  Rpc.make("Start", operation),
  Rpc.make("Stop", operation),
  Rpc.make("Restart", operation),
  Rpc.make("Pause", { payload: { names: Names }, error: UnknownChild }),
  /** With `reload` the configuration is read anew first, and nothing is resumed when it can't be used. */
  Rpc.make("Resume", {
    payload: { names: Names, reload: Schema.Boolean },
    error: Schema.Union([UnknownChild, InvalidConfig, InvalidSpec])
  }),
  Rpc.make("Signal", {
    payload: {
      name: Schema.String,
      signal: Signal,
      target: Schema.Literals(["leader", "group", "tree"])
    },
    success: Signalled,
    error: Schema.Union([UnknownChild, NotRunning])
  }),
  Rpc.make("Reload", {
    success: Progress,
    error: Schema.Union([InvalidConfig, InvalidSpec]),
    stream: true
  }),
  Rpc.make("ReopenLogs", { error: ReopenFailed }),
  /** The last that is heard is `Done`, then the connection is closed. With `keep`, services that are to go on do. */
  Rpc.make("Shutdown", {
    payload: { force: Schema.Boolean, keep: Schema.optionalKey(Schema.Boolean) },
    success: Progress,
    stream: true
  }),
  /** Brings the child of a key up; its incarnation. */
  Rpc.make("PoolEnsure", {
    payload: Key,
    success: Schema.Struct({ incarnation: Schema.Int, pid: Schema.NullOr(Schema.Int) }),
    error: Schema.Union([
      UnknownPool,
      PoolClosed,
      CapacityExceeded,
      ChildFailed,
      InvalidSpec,
      Overtaken,
      StartTimedOut,
      Unkillable,
      UnsavedState,
      Unfinished
    ])
  }),
  /** Ends the child of a key; nothing happens when there is none. */
  Rpc.make("PoolShutdown", {
    payload: Key,
    error: Schema.Union([UnknownPool, UnsavedState, Unfinished, Unkillable])
  })
).middleware(Gate) {}
