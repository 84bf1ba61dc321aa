/**
 * Every error of the library. Each is a Schema class, so it crosses a socket unchanged, and each carries what a person
 * needs to act. Arguments and environment values never appear in one.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Link } from "./ChildEnd.ts"
import { Level } from "./Containment.ts"
import { describe, ExitStatus } from "./ExitStatus.ts"
import { ProcessInfo } from "./ProcessIdentity.ts"

const describeCauses = (causes: ReadonlyArray<Link>): string =>
  causes.map(({ child, incarnation, reason }) => `\n  ${child} (incarnation ${incarnation}): ${reason}`).join("")

/** Why a program could not be started; `execve(2)` and `chdir(2)` name the causes. */
export const LaunchReason = Schema.Literals([
  "NotFound",
  "PermissionDenied",
  "NotExecutable",
  "InvalidArgument",
  "BadWorkingDirectory",
  "ResourceExhausted",
  "Unknown"
])
export type LaunchReason = typeof LaunchReason.Type

/** A program was not started. Nothing runs and nothing is left. `command` is the program's name without its arguments. */
export class LaunchError extends Schema.TaggedError<LaunchError>()("LaunchError", {
  command: Schema.String,
  reason: LaunchReason,
  detail: Schema.String
}) {
  override get message(): string {
    return `could not start ${this.command}: ${this.detail} (${this.reason})`
  }
}

/** The platform can't give the containment level that the launch requires. Nothing was started. */
export class ContainmentUnavailable extends Schema.TaggedError<ContainmentUnavailable>()("ContainmentUnavailable", {
  required: Level,
  available: Schema.NullOr(Level),
  reason: Schema.String
}) {
  override get message(): string {
    return `containment "${this.required}" is required, ${
      this.available === null ? "none is available" : `"${this.available}" is what there is`
    }: ${this.reason}`
  }
}

/**
 * A process that should outlive the one that starts it would not: it would end with something that both are in, such as a
 * job of Windows. Nothing was started. `command` is the program's name without its arguments.
 */
export class DetachUnavailable extends Schema.TaggedError<DetachUnavailable>()("DetachUnavailable", {
  command: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.command} would not outlive what starts it: ${this.reason}`
  }
}

/** A specification has a field that can't be used. Nothing was started. */
export class InvalidSpec extends Schema.TaggedError<InvalidSpec>()("InvalidSpec", {
  field: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.field}: ${this.problem}`
  }
}

/**
 * A tree outlived its whole shutdown plan, the final kill and the cap; `survivors` are the processes still alive, none
 * where it is an effect that does not end.
 */
export class Unkillable extends Schema.TaggedError<Unkillable>()("Unkillable", {
  command: Schema.String,
  survivors: Schema.Array(ProcessInfo)
}) {
  override get message(): string {
    if (this.survivors.length === 0) return `${this.command} could not be ended`
    return `${this.survivors.length} process(es) of ${this.command} could not be ended: ${
      this.survivors.map((p) => `${p.pid} (${p.command}, state ${p.state})`).join(", ")
    }`
  }
}

/** A program that was expected to return an exit code ended in another way; `status` says which. */
export class AbnormalExit extends Schema.TaggedError<AbnormalExit>()("AbnormalExit", {
  command: Schema.String,
  status: ExitStatus
}) {
  override get message(): string {
    return `${this.command} was ${describe(this.status)}`
  }
}

/** A connection could not be made. `address` is `host:port` or the path of a socket. */
export class ConnectError extends Schema.TaggedError<ConnectError>()("ConnectError", {
  address: Schema.String,
  reason: Schema.Literals(["Refused", "NotFound", "PermissionDenied", "Unreachable", "Unknown"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `no connection to ${this.address}: ${this.detail} (${this.reason})`
  }
}

/** Nobody can listen at a port now. `Unavailable`: the host is no address of this machine. */
export class ListenError extends Schema.TaggedError<ListenError>()("ListenError", {
  address: Schema.String,
  reason: Schema.Literals(["InUse", "PermissionDenied", "Unavailable", "Unknown"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `nobody can listen at ${this.address}: ${this.detail} (${this.reason})`
  }
}

/**
 * There is no port or socket to give. `NoFreePort`: all that were tried are taken. `HostUnavailable`: the host is no
 * address of this machine. `PathTooLong`: a socket's path would have more bytes than the system takes (unix(7)).
 * `NoFolder`: its folder can't be made. `NoNetwork`: the platform has nothing that listens.
 */
export class EndpointUnavailable extends Schema.TaggedError<EndpointUnavailable>()("EndpointUnavailable", {
  reason: Schema.Literals(["NoFreePort", "HostUnavailable", "PathTooLong", "NoFolder", "NoNetwork"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `no endpoint: ${this.detail} (${this.reason})`
  }
}

/**
 * A child did not tell its address. `TimedOut`: not within `within` ms. `Ended`: it ended, or its output did. `Unusable`:
 * the line that matched has no address in it. `outputTail` is the last that it wrote: at most 2,000 characters.
 */
export class NotAnnounced extends Schema.TaggedError<NotAnnounced>()("NotAnnounced", {
  pattern: Schema.String,
  reason: Schema.Literals(["TimedOut", "Ended", "Unusable"]),
  detail: Schema.String,
  within: Schema.Number,
  outputTail: Schema.String
}) {
  override get message(): string {
    return `the child did not tell its address by ${this.pattern}: ${this.detail} (${this.reason})`
  }
}

/**
 * What is wrong with an archive or its directory. `Unreadable`: a file or folder can't be read, so it can't be kept.
 * `Unwritable`: it can't be made, for instance because the disk is full. `Changed`: a file got shorter while it was read.
 * `TooLarge`: it holds more than the limits allow. `Unsafe`: an entry leads out of the directory. `Unsupported`: a kind of
 * entry that is not kept. `Damaged`: it is cut off, was altered, or is no archive.
 */
export const ArchiveReason = Schema.Literals([
  "Unreadable",
  "Unwritable",
  "Changed",
  "TooLarge",
  "Unsafe",
  "Unsupported",
  "Damaged"
])
export type ArchiveReason = typeof ArchiveReason.Type

/** A directory could not be packed or unpacked. `entry` is a path in it, empty where it is about the whole. */
export class ArchiveError extends Schema.TaggedError<ArchiveError>()("ArchiveError", {
  directory: Schema.String,
  entry: Schema.String,
  reason: ArchiveReason,
  detail: Schema.String
}) {
  override get message(): string {
    const what = this.entry === "" ? this.directory : `${this.entry} of ${this.directory}`
    return `archive of ${what}: ${this.detail} (${this.reason})`
  }
}

/** A store of archives did not take or give one; what was there before is still there. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  operation: Schema.Literals(["put", "get"]),
  name: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.name} was not ${this.operation === "put" ? "stored" : "read from the store"}: ${this.detail}`
  }
}

/**
 * Why a probe failed. `Refused`: nothing listens. `OtherProcess`: something listens that is not of the tree. `Ended`: the
 * output ended without the announcement. `Failed`: anything else; the detail says it.
 */
export const ProbeReason = Schema.Literals([
  "Refused",
  "Unreachable",
  "TimedOut",
  "WrongStatus",
  "WrongBody",
  "ExitCode",
  "CommandMissing",
  "OtherProcess",
  "Ended",
  "Failed"
])
export type ProbeReason = typeof ProbeReason.Type

/** One attempt of a probe failed. `probe` describes it without the secrets of its URL, headers and arguments. */
export class ProbeFailure extends Schema.TaggedError<ProbeFailure>()("ProbeFailure", {
  probe: Schema.String,
  reason: ProbeReason,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.probe}: ${this.detail} (${this.reason})`
  }
}

/**
 * A child was not ready in time. `within` is the limit in ms, `outputTail` the last lines that the child wrote: at most
 * 4 KiB.
 */
export class NotReady extends Schema.TaggedError<NotReady>()("NotReady", {
  probe: Schema.String,
  within: Schema.Number,
  lastFailure: ProbeFailure,
  outputTail: Schema.String
}) {
  override get message(): string {
    return `not ready within ${this.within} ms: ${this.lastFailure.message}`
  }
}

/**
 * A child is down and will not come back by itself; `causes` leads from the innermost failure outwards. `outputTail` are the
 * last lines that it wrote: at most 4 KiB, empty when there are none.
 */
export class ChildFailed extends Schema.TaggedError<ChildFailed>()("ChildFailed", {
  child: Schema.String,
  reason: Schema.String,
  causes: Schema.Array(Link),
  survivors: Schema.Array(ProcessInfo),
  outputTail: Schema.String.pipe(Schema.withConstructorDefault(Effect.succeed("")))
}) {
  override get message(): string {
    return `${this.child} has failed: ${this.reason}${describeCauses(this.causes)}`
  }
}

/**
 * Children of a supervisor were restarted more than `max` times within `within` ms, so all of them were stopped.
 * `causes` leads from the innermost failure outwards.
 */
export class IntensityExceeded extends Schema.TaggedError<IntensityExceeded>()("IntensityExceeded", {
  child: Schema.String,
  max: Schema.Int,
  within: Schema.Number,
  causes: Schema.Array(Link)
}) {
  override get message(): string {
    return `more than ${this.max} restarts within ${this.within} ms, the last one of ${this.child}${
      describeCauses(this.causes)
    }`
  }
}

/** The child has no process at the moment. */
export class NotRunning extends Schema.TaggedError<NotRunning>()("NotRunning", {
  child: Schema.String,
  state: Schema.String
}) {
  override get message(): string {
    return `${this.child} is not running, it is ${this.state}`
  }
}

/** A start or restart was overtaken by a stop, which always wins. */
export class Overtaken extends Schema.TaggedError<Overtaken>()("Overtaken", {
  child: Schema.String,
  operation: Schema.Literals(["start", "restart"])
}) {
  override get message(): string {
    return `the ${this.operation} of ${this.child} was overtaken by a stop`
  }
}

/** The scope of the child or of its supervisor has closed. */
export class ChildClosed extends Schema.TaggedError<ChildClosed>()("ChildClosed", {
  child: Schema.String
}) {
  override get message(): string {
    return `${this.child} is closed: its scope has ended`
  }
}

/** The child was stopped while somebody waited for it. */
export class ChildStopped extends Schema.TaggedError<ChildStopped>()("ChildStopped", {
  child: Schema.String
}) {
  override get message(): string {
    return `${this.child} was stopped`
  }
}

/** A supervisor has no child of this name. */
export class UnknownChild extends Schema.TaggedError<UnknownChild>()("UnknownChild", {
  child: Schema.String
}) {
  override get message(): string {
    return `there is no child ${this.child}`
  }
}

/** The scope of the pool has closed. */
export class PoolClosed extends Schema.TaggedError<PoolClosed>()("PoolClosed", {
  pool: Schema.String
}) {
  override get message(): string {
    return `the pool ${this.pool} is closed: its scope has ended`
  }
}

/**
 * There was no room for another key in the pool, and none of the children in it may be ended. `waiting` keys wait for
 * room; `within` is how long this one has waited, in ms, and null when it was not let into the queue.
 */
export class CapacityExceeded extends Schema.TaggedError<CapacityExceeded>()("CapacityExceeded", {
  pool: Schema.String,
  key: Schema.String,
  capacity: Schema.Int,
  waiting: Schema.Int,
  within: Schema.NullOr(Schema.Number)
}) {
  override get message(): string {
    const why = this.within === null ? `${this.waiting} keys wait for room already` : `no room within ${this.within} ms`
    return `the pool ${this.pool} is full with ${this.capacity} keys, none for ${this.key}: ${why}`
  }
}

/** What a pool was doing for a key. */
export const PoolStep = Schema.Literals(["restore", "build", "start"])
export type PoolStep = typeof PoolStep.Type

/** A key of a pool was not up within `within` ms; `step` is what took too long. Nothing of the attempt is left. */
export class StartTimedOut extends Schema.TaggedError<StartTimedOut>()("StartTimedOut", {
  pool: Schema.String,
  key: Schema.String,
  step: PoolStep,
  within: Schema.Number
}) {
  override get message(): string {
    return `${this.key} of the pool ${this.pool} was not up within ${this.within} ms; it was in ${this.step}`
  }
}

/**
 * The state of a key could not be saved after its last incarnation, and the local copy is kept. Nothing is built for the
 * key until it is saved (`retrySave`, and each `ensure` tries once) or given up (`discard`).
 */
export class UnsavedState extends Schema.TaggedError<UnsavedState>()("UnsavedState", {
  pool: Schema.String,
  key: Schema.String,
  incarnation: Schema.Int,
  problem: Schema.String
}) {
  override get message(): string {
    return `the state of ${this.key} in the pool ${this.pool} is not saved: ${this.problem}`
  }
}

/**
 * A step of an earlier incarnation of a key takes no notice of its interruption. Nothing is built for the key until it has
 * ended by itself, which each `ensure` looks at.
 */
export class Unfinished extends Schema.TaggedError<Unfinished>()("Unfinished", {
  pool: Schema.String,
  key: Schema.String,
  incarnation: Schema.Int,
  step: Schema.Literals(["restore", "build", "start", "retire", "release"])
}) {
  override get message(): string {
    const { incarnation, key, pool, step } = this
    return `${step} of ${key} in the pool ${pool}, incarnation ${incarnation}, was interrupted and has not ended yet`
  }
}

/** The child of a key has ended, or is being ended, while somebody used it; `reason` says why. */
export class ChildLost extends Schema.TaggedError<ChildLost>()("ChildLost", {
  pool: Schema.String,
  key: Schema.String,
  incarnation: Schema.Int,
  reason: Schema.String
}) {
  override get message(): string {
    return `the child of ${this.key} in the pool ${this.pool} is gone: ${this.reason}`
  }
}

/** One thing that is wrong in a configuration. `source` says where it was read: `treeline.json:7:15`, a variable, a flag. */
export const ConfigIssue = Schema.Struct({
  source: Schema.String,
  /** Such as `services.web.restart.mode`; empty for the whole. */
  path: Schema.String,
  /** What was expected there; never what was found, which may be secret. */
  problem: Schema.String
})
export type ConfigIssue = typeof ConfigIssue.Type

/** A configuration can't be used. Nothing was started or changed. */
export class InvalidConfig extends Schema.TaggedError<InvalidConfig>()("InvalidConfig", {
  issues: Schema.NonEmptyArray(ConfigIssue)
}) {
  override get message(): string {
    const lines = this.issues.map(({ path, problem, source }) =>
      `${source}: ${path === "" ? "" : `${path}: `}${problem}`
    )
    return lines.length === 1 ? lines[0]! : `the configuration has ${lines.length} errors:\n  ${lines.join("\n  ")}`
  }
}

/** A file could not be opened anew. It is tried again by its schedule; until then the old one is written to. */
export class ReopenFailed extends Schema.TaggedError<ReopenFailed>()("ReopenFailed", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} could not be opened: ${this.reason}`
  }
}

/**
 * A control request was refused. `BadToken`: the token is missing or wrong. `ForeignRequest`: it came from a web page or
 * for another host. `Malformed`, `TooLarge`: it is no frame of the protocol, or larger than one may be. `TooMany`: so many
 * connections are open already.
 */
export class ControlDenied extends Schema.TaggedError<ControlDenied>()("ControlDenied", {
  reason: Schema.Literals(["BadToken", "ForeignRequest", "Malformed", "TooLarge", "TooMany"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `the request was refused: ${this.detail} (${this.reason})`
  }
}

/** Client and server speak different versions of a protocol: the control API's, or the sidecar's. Nothing was done. */
export class VersionMismatch extends Schema.TaggedError<VersionMismatch>()("VersionMismatch", {
  client: Schema.NullOr(Schema.Int),
  server: Schema.Int
}) {
  override get message(): string {
    return `the server speaks version ${this.server} of the protocol, the client ${
      this.client === null ? "does not say which" : `version ${this.client}`
    }: use the same version of treeline for both`
  }
}

/**
 * Nobody answers at the control address. `NotRunning`: nothing listens there. `PermissionDenied`: the system does not let
 * this user connect. `NoAnswer`: not in time. `Lost`: the connection ended in the middle; what was asked for may have been
 * done. `Foreign`: what answers is no control server. `Fault`: the server has failed at the request, which is a defect.
 */
export class ControlUnavailable extends Schema.TaggedError<ControlUnavailable>()("ControlUnavailable", {
  address: Schema.String,
  reason: Schema.Literals(["NotRunning", "PermissionDenied", "NoAnswer", "Lost", "Foreign", "Fault"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `no control at ${this.address}: ${this.detail} (${this.reason})`
  }
}

/**
 * Somebody serves services at this place already. Nothing was started or replaced. `pid` and `file`, the configuration of
 * those services, are null when it does not say them.
 */
export class AlreadyRunning extends Schema.TaggedError<AlreadyRunning>()("AlreadyRunning", {
  address: Schema.String,
  pid: Schema.NullOr(Schema.Int),
  file: Schema.NullOr(Schema.String)
}) {
  override get message(): string {
    return `already running${this.pid === null ? "" : ` (pid ${this.pid})`}: ${this.address} is served`
  }
}

/** A subscriber did not take what there was for it and is not served any more. `missed` were not told to it. */
export class SubscriberDropped extends Schema.TaggedError<SubscriberDropped>()("SubscriberDropped", {
  subscription: Schema.String,
  missed: Schema.Int
}) {
  override get message(): string {
    return `the subscription to ${this.subscription} was ended because its reader is too slow; ${this.missed} were missed`
  }
}

/** There is no pool of this name. */
export class UnknownPool extends Schema.TaggedError<UnknownPool>()("UnknownPool", {
  pool: Schema.String
}) {
  override get message(): string {
    return `there is no pool ${this.pool}`
  }
}

/** Who listens at a port: a process, as far as the system tells. */
export const PortHolder = Schema.Struct({
  pid: Schema.Int,
  command: Schema.String
})
export type PortHolder = typeof PortHolder.Type

/** A port that a child needs is another process's. Nothing was started; `holders` is empty where the system does not tell. */
export class PortInUse extends Schema.TaggedError<PortInUse>()("PortInUse", {
  child: Schema.String,
  address: Schema.String,
  holders: Schema.Array(PortHolder)
}) {
  override get message(): string {
    const who = this.holders.map(({ command, pid }) => `${command} (pid ${pid})`).join(", ")
    return `${this.address}, which ${this.child} needs, is in use by ${who === "" ? "another process" : who}`
  }
}

/** A file or folder of a daemon's state could not be read or written. */
export class StateFolderError extends Schema.TaggedError<StateFolderError>()("StateFolderError", {
  path: Schema.String,
  operation: Schema.Literals(["make", "write", "replace", "move", "list", "read", "remove"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `could not ${this.operation} ${this.path}: ${this.detail}`
  }
}

/**
 * Who holds a claim can't be told, so it was left as it is. `Unreadable`: it holds something else. `Unsure`: whether its
 * process, `pid`, lives. When you know that nobody uses it, remove `path`.
 */
export class ClaimUndecided extends Schema.TaggedError<ClaimUndecided>()("ClaimUndecided", {
  path: Schema.String,
  pid: Schema.NullOr(Schema.Int),
  reason: Schema.Literals(["Unreadable", "Unsure"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.detail}; nothing was done. If nobody uses it, remove it`
  }
}

/** Somebody has removed a claim that this process held. */
export class ClaimLost extends Schema.TaggedError<ClaimLost>()("ClaimLost", {
  path: Schema.String
}) {
  override get message(): string {
    return `${this.path} was taken away from this process`
  }
}

/** Another command works on the daemon; `within` is how long this one has waited, in ms. Nothing was done. */
export class OperationBusy extends Schema.TaggedError<OperationBusy>()("OperationBusy", {
  operation: Schema.String,
  holder: Schema.Struct({ pid: Schema.Int, operation: Schema.String, since: Schema.Number }),
  within: Schema.Number
}) {
  override get message(): string {
    const { operation, pid, since } = this.holder
    const holder = `the ${operation} of process ${pid}, begun at ${new Date(since).toISOString()}`
    return `${this.operation}: waited ${this.within} ms for ${holder}, which is not done yet; nothing was done`
  }
}

/**
 * Something of a managed install could not be done. `fetch`: what was fetched can't be kept, such as a device. `current`: what
 * is there is no link of this install. What was current before is current still.
 */
export class ManagedInstallError extends Schema.TaggedError<ManagedInstallError>()("ManagedInstallError", {
  path: Schema.String,
  operation: Schema.Literals(["make", "fetch", "digest", "store", "switch", "current", "list", "remove"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `managed install: ${this.operation} of ${this.path}: ${this.detail}`
  }
}

/**
 * The program of a managed install can't be used, so nothing was switched or started. `NothingInstalled`: no version is
 * current. `Missing`: the version has no such file. `Outside`: its path, or a link, leads out of the version.
 * `NotExecutable`: it is no regular file that this user may run. `NotStarted`, `NoAnswer` (not within 5 s), `Failed` (a code
 * other than 0) and `NoVersion` (no single line with a version) are what became of `PROGRAM --version`.
 */
export class ManagedProgramUnusable extends Schema.TaggedError<ManagedProgramUnusable>()("ManagedProgramUnusable", {
  program: Schema.String,
  reason: Schema.Literals([
    "NothingInstalled",
    "Missing",
    "Outside",
    "NotExecutable",
    "NotStarted",
    "NoAnswer",
    "Failed",
    "NoVersion"
  ]),
  detail: Schema.String
}) {
  override get message(): string {
    const todo = {
      NothingInstalled: "fetch a first version (treeline daemon bootstrap)",
      Missing: "the path of the program in a version may be wrong, or what is fetched is not the program",
      Outside: "give a path inside the version; a link in it must not lead out of it",
      NotExecutable: "make it executable where it is built (chmod +x)",
      NotStarted: "it may be for another machine",
      NoAnswer: "it must print its version and end",
      Failed: "it must print its version and end with code 0",
      NoVersion: "it must print one line with a version such as 1.2.3"
    }[this.reason]
    return `${this.program} can't be used: ${this.detail} (${this.reason}); ${todo}`
  }
}

/**
 * A version was not fetched, so nothing was changed. `Exited`: the command ended by `status`, which is no success.
 * `TimedOut`: it was ended after `within` ms. `NotStarted` and `Failed`: `detail` says why. `outputTail` is the last that it
 * wrote: at most 4 KiB.
 */
export class UpdateFetchFailed extends Schema.TaggedError<UpdateFetchFailed>()("UpdateFetchFailed", {
  command: Schema.String,
  reason: Schema.Literals(["Exited", "TimedOut", "NotStarted", "Failed"]),
  status: Schema.NullOr(ExitStatus),
  within: Schema.NullOr(Schema.Number),
  detail: Schema.String,
  outputTail: Schema.String
}) {
  override get message(): string {
    const what = this.reason === "Exited" && this.status !== null
      ? describe(this.status)
      : this.reason === "TimedOut"
      ? `not done within ${this.within} ms`
      : this.detail
    const tail = this.outputTail === "" ? "" : `:\n${this.outputTail.trimEnd()}`
    return `no version was fetched by ${this.command}: ${what}${tail}`
  }
}

/** The record of updates holds something else. It was left as it is; the daemon is not concerned. */
export class UpdateRecordInvalid extends Schema.TaggedError<UpdateRecordInvalid>()("UpdateRecordInvalid", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.detail}; nothing was updated. Remove it: the next update begins anew`
  }
}

/**
 * An update failed by `reason`, and so did the way back to the version before, by `detail`. `current` is the version that
 * the next start runs, `from` and `to` are those of the update; `pid` is the daemon that runs, if any does.
 */
export class RollbackFailed extends Schema.TaggedError<RollbackFailed>()("RollbackFailed", {
  from: Schema.NullOr(Schema.String),
  to: Schema.String,
  current: Schema.NullOr(Schema.String),
  pid: Schema.NullOr(Schema.Int),
  reason: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    const daemon = this.pid === null ? "no daemon runs" : `the daemon is process ${this.pid}`
    return `the update to ${this.to} failed: ${this.reason}\nThe way back to ${
      this.from ?? "what was there before"
    } failed, too: ${this.detail}\nVersion ${this.current ?? "none"} is current, ${daemon}`
  }
}

/**
 * A running updater could not be replaced by its new version; it goes on as it is. `Unavailable`: this system or Node can't
 * (process.execve: Node 22.15, not on Windows). `NotLaunched`, `NotAcknowledged`: the successor of a hand-over.
 */
export class NotReplaced extends Schema.TaggedError<NotReplaced>()("NotReplaced", {
  reason: Schema.Literals(["Unavailable", "NotLaunched", "NotAcknowledged"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `the updater was not replaced: ${this.detail} (${this.reason})`
  }
}

/** An updater was not ended. `Denied`: the system does not let this user signal it. `TimedOut`: it outlived even the kill. */
export class UpdaterNotStopped extends Schema.TaggedError<UpdaterNotStopped>()("UpdaterNotStopped", {
  pid: Schema.Int,
  reason: Schema.Literals(["Denied", "TimedOut"])
}) {
  override get message(): string {
    const why = this.reason === "Denied" ? "this user may not signal it" : "it outlived the kill"
    return `the updater, process ${this.pid}, could not be ended: ${why}`
  }
}

/**
 * A daemon did not get ready. `Ended`: its process ended, `status` says how. `TimedOut`: not within `within` ms; one that
 * was just started is ended, one that was there before is left as it is. `errorTail` are the last whole lines that it wrote to stderr: at most 4 KiB.
 */
export class DaemonNotReady extends Schema.TaggedError<DaemonNotReady>()("DaemonNotReady", {
  reason: Schema.Literals(["Ended", "TimedOut"]),
  pid: Schema.Int,
  within: Schema.Number,
  status: Schema.NullOr(ExitStatus),
  errorTail: Schema.String
}) {
  override get message(): string {
    const how = this.status === null ? "" : `: ${describe(this.status)}`
    const what = this.reason === "Ended"
      ? `the daemon ended before it was ready${how}`
      : `the daemon was not ready within ${this.within} ms`
    return this.errorTail === "" ? what : `${what}:\n${this.errorTail.trimEnd()}`
  }
}

/**
 * A daemon was not ended. `Denied`: the system does not let this user signal it. `TimedOut`: it outlived even the kill.
 * `Replaced`: each time it had ended another one was there. `Survived`: it has ended, but not all that it had started, which
 * is then in `blocking`. Otherwise `blocking` is what its end waited for, as far as it has told.
 */
export class DaemonNotStopped extends Schema.TaggedError<DaemonNotStopped>()("DaemonNotStopped", {
  pid: Schema.Int,
  reason: Schema.Literals(["Denied", "TimedOut", "Replaced", "Survived"]),
  blocking: Schema.Array(Schema.String)
}) {
  override get message(): string {
    if (this.reason === "Survived") {
      return `the daemon, process ${this.pid}, has ended, but not what it had started: ${this.blocking.join(", ")}`
    }
    const why = {
      Denied: "this user may not signal it",
      TimedOut: "it outlived the kill",
      Replaced: "another one took its place each time"
    }[this.reason]
    const blocking = this.blocking.length === 0 ? "" : `; it waited for ${this.blocking.join(", ")}`
    return `the daemon, process ${this.pid}, could not be ended: ${why}${blocking}`
  }
}

/** Somebody answers at the control address who is no daemon of this state folder, such as a `treeline up`. It is left alone. */
export class Unmanaged extends Schema.TaggedError<Unmanaged>()("Unmanaged", {
  pid: Schema.NullOr(Schema.Int),
  folder: Schema.String
}) {
  override get message(): string {
    const who = this.pid === null ? "what answers" : `process ${this.pid}, which answers,`
    return `${who} was not started as the daemon of ${this.folder}; end it where it was started`
  }
}

/** Who started this daemon has died before the daemon had taken its record, so it ended without a trace. */
export class StartAbandoned extends Schema.TaggedError<StartAbandoned>()("StartAbandoned", {
  starter: Schema.Int
}) {
  override get message(): string {
    return `the start was given up: process ${this.starter}, which wanted it, has ended`
  }
}

/**
 * A process that keeps a service did not do what it should. `NotStarted`: it did not come up. `NoAnswer`: it did not
 * answer. `NotEnded`: it, or what it hosted, could not be ended, so nothing else was started in its place.
 */
export class KeeperFailed extends Schema.TaggedError<KeeperFailed>()("KeeperFailed", {
  service: Schema.String,
  reason: Schema.Literals(["NotStarted", "NoAnswer", "NotEnded"]),
  pid: Schema.NullOr(Schema.Int),
  detail: Schema.String
}) {
  override get message(): string {
    const who = this.pid === null ? "" : ` (process ${this.pid})`
    const what = {
      NotStarted: "did not start",
      NoAnswer: "does not answer",
      NotEnded: "could not be ended"
    }[this.reason]
    return `what keeps ${this.service}${who} ${what}: ${this.detail}`
  }
}
