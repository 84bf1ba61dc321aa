/**
 * What is said between a shim, which hosts the process tree of one kept service, and the daemon that supervises it: an
 * effect/rpc group behind the gate of `Control`. Private to Treeline; daemon and shim talk when their versions of it are
 * equal, else the daemon ends the shim by a signal and launches a new one.
 */
import * as Rpc from "effect/rpc/Rpc"
import * as RpcGroup from "effect/rpc/RpcGroup"
import * as Schema from "effect/Schema"
import { Level } from "../Containment.ts"
import { ContainmentUnavailable, InvalidSpec, LaunchError } from "../Errors.ts"
import { ExitStatus } from "../ExitStatus.ts"
import { Usage } from "../Limits.ts"
import { ProcessIdentity, ProcessInfo } from "../ProcessIdentity.ts"
import { Signal } from "../Signal.ts"
import { Gate, Signalled } from "./Control.ts"

/** A shutdown plan as data. */
export const Plan = Schema.Struct({
  steps: Schema.Array(Schema.Struct({
    action: Schema.Literals([...Signal.literals, "closeStdin", "interrupt", "requestClose"]),
    target: Schema.Literals(["leader", "group", "tree"]),
    within: Schema.Finite
  })),
  cap: Schema.Finite
})
export type Plan = typeof Plan.Type

/** All that a launch needs. It goes over the socket only: no file, argument or variable of a shim holds it. */
export const Launch = Schema.Struct({
  digest: Schema.String,
  command: Schema.String,
  args: Schema.Array(Schema.String),
  cwd: Schema.NullOr(Schema.String),
  /** Null takes a variable away. */
  env: Schema.Record(Schema.String, Schema.NullOr(Schema.String)),
  extendEnv: Schema.Boolean,
  shell: Schema.Union([Schema.Boolean, Schema.String]),
  /** Further descriptors that it writes. */
  outputs: Schema.Array(Schema.Int),
  require: Schema.NullOr(Level),
  limits: Schema.NullOr(Schema.Struct({
    memory: Schema.optionalKey(Schema.Finite),
    processes: Schema.optionalKey(Schema.Finite),
    cpu: Schema.optionalKey(Schema.Finite)
  })),
  shutdown: Plan,
  drain: Schema.Struct({ idle: Schema.Finite, limit: Schema.Finite })
})
export type Launch = typeof Launch.Type

/** What was launched. */
export const Hosted = Schema.Struct({
  identity: ProcessIdentity,
  command: Schema.String,
  level: Level,
  /** Descriptors that it writes. */
  outputs: Schema.Array(Schema.Int),
  /** A daemon has seen it ready. */
  ready: Schema.Boolean
})
export type Hosted = typeof Hosted.Type

/** Bytes of one descriptor, from `offset` on; `lost` of them before were dropped because nobody has read them. */
export const Piece = Schema.Struct({ offset: Schema.Int, lost: Schema.Int, bytes: Schema.Uint8ArrayFromBase64 })
export type Piece = typeof Piece.Type

/** All signals that a tree takes. */
export const AnySignal = Schema.Literals([...Signal.literals, "SIGSTOP", "SIGTTIN", "SIGTTOU"])

/** How far an end is: the step that begins, then what it could not end. */
export const Ending = Schema.TaggedUnion({
  Step: { step: Schema.String },
  Over: { survivors: Schema.Array(ProcessInfo) }
})

/** All calls. */
export class Shim extends RpcGroup.make(
  /** What runs; null before the launch. */
  Rpc.make("Look", { success: Schema.NullOr(Hosted) }),
  /** Once; a second one fails. */
  Rpc.make("Launch", {
    payload: Launch,
    success: Hosted,
    error: Schema.Union([LaunchError, ContainmentUnavailable, InvalidSpec])
  }),
  /** Held for as long as a daemon is there. */
  Rpc.make("Attend"),
  /** What a descriptor writes, from what was taken last, or from what is kept. */
  Rpc.make("Output", { payload: { fd: Schema.Int }, success: Piece, stream: true }),
  /** So much of each descriptor needs not be told again. */
  Rpc.make("Taken", {
    payload: { taken: Schema.Array(Schema.Struct({ fd: Schema.Int, bytes: Schema.Int })) }
  }),
  Rpc.make("Ready"),
  Rpc.make("Exited", { success: ExitStatus }),
  Rpc.make("Drained", { success: Schema.Struct({ bytes: Schema.Int, truncated: Schema.Boolean }) }),
  Rpc.make("Empty", { success: Schema.Array(ProcessInfo) }),
  Rpc.make("Members", { success: Schema.Array(ProcessInfo) }),
  Rpc.make("Usage", { success: Usage }),
  Rpc.make("Signal", {
    payload: { signal: AnySignal, target: Schema.Literals(["leader", "group", "tree"]) },
    success: Signalled
  }),
  Rpc.make("Write", { payload: { bytes: Schema.Uint8ArrayFromBase64 }, success: Schema.Boolean }),
  Rpc.make("Shutdown", { payload: { plan: Plan }, success: Ending, stream: true }),
  /** The shim ends, and what lives of the tree before it. */
  Rpc.make("End")
).middleware(Gate) {}
