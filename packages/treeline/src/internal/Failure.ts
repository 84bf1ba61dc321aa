/** Why a command did not do what was asked, and the exit code for it. */
import {
  AlreadyRunning,
  CapacityExceeded,
  ChildFailed,
  ClaimLost,
  ClaimUndecided,
  ContainmentUnavailable,
  ControlDenied,
  ControlUnavailable,
  DaemonNotReady,
  DaemonNotStopped,
  DetachUnavailable,
  IntensityExceeded,
  InvalidConfig,
  InvalidSpec,
  KeeperFailed,
  LaunchError,
  ListenError,
  ManagedInstallError,
  ManagedProgramUnusable,
  NotReplaced,
  NotRunning,
  OperationBusy,
  Overtaken,
  PoolClosed,
  RollbackFailed,
  StartAbandoned,
  StartTimedOut,
  StateFolderError,
  SubscriberDropped,
  Unfinished,
  Unkillable,
  Unmanaged,
  UnsavedState,
  UpdateFetchFailed,
  UpdateRecordInvalid,
  UpdaterNotStopped,
  VersionMismatch
} from "@treeline/core/Errors"
import * as Schema from "effect/Schema"

/** What became of one service; `problem` is null when all went well. */
const Outcome = Schema.Struct({ service: Schema.String, problem: Schema.NullOr(Schema.String) })

const list = (names: ReadonlyArray<string>): string =>
  names.length === 0 ? "there are none" : `there is ${names.join(", ")}`

/** There is no service, group or pool of this name. Nothing was done. `known` are those that there are. */
export class UnknownName extends Schema.TaggedError<UnknownName>()("UnknownName", {
  kind: Schema.Literals(["service", "pool"]),
  name: Schema.String,
  known: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const what = this.kind === "pool" ? "pool" : "service or group"
    return `there is no ${what} ${this.name}; ${list(this.known)}`
  }
}

/** Nothing runs for this configuration, but for the services `kept` that a daemon has left that died. */
export class NothingRuns extends Schema.TaggedError<NothingRuns>()("NothingRuns", {
  file: Schema.String,
  kept: Schema.Array(Schema.String)
}) {
  override get message(): string {
    if (this.kept.length > 0) {
      return `no daemon runs here, and ${
        this.kept.join(", ")
      } went on without it: "treeline daemon start" finds it again, "treeline daemon stop" ends it`
    }
    return `nothing runs here: "treeline up" runs what ${this.file} says`
  }
}

/**
 * At the place where the services of `file` are controlled, those of another configuration are. Nothing was done. `pid` is
 * their process.
 */
export class OtherConfiguration extends Schema.TaggedError<OtherConfiguration>()("OtherConfiguration", {
  file: Schema.String,
  other: Schema.String,
  pid: Schema.NullOr(Schema.Int),
  address: Schema.String
}) {
  override get message(): string {
    const who = this.pid === null ? "" : ` in process ${this.pid}`
    return `the services of ${this.other} run${who} and are controlled at ${this.address}, which is the place of `
      + `${this.file} too; nothing was done. Set daemon.directory in one of them to another folder`
  }
}

/** It was done, but not for all services: `outcomes` says for which ones, and why. */
export class OperationFailed extends Schema.TaggedError<OperationFailed>()("OperationFailed", {
  operation: Schema.String,
  outcomes: Schema.Array(Outcome)
}) {
  override get message(): string {
    const failed = this.outcomes.filter(({ problem }) => problem !== null)
    const lines = failed.map(({ problem, service }) => `\n  ${service}: ${problem}`).join("")
    return `${this.operation} failed for ${failed.length} of ${this.outcomes.length} services:${lines}`
  }
}

/**
 * A setting could not be applied: `problem` says why. The settings are those of before; where they could not be put back,
 * `unsaved` says why. `restored` is whether what runs is as it was before, too; else `treeline daemon status` and
 * `treeline status` tell what there is.
 */
export class SettingNotApplied extends Schema.TaggedError<SettingNotApplied>()("SettingNotApplied", {
  key: Schema.String,
  problem: Schema.String,
  unsaved: Schema.NullOr(Schema.String),
  restored: Schema.Boolean
}) {
  override get message(): string {
    const back = this.unsaved === null
      ? "The old settings are back"
      : `The old settings could not be put back (${this.unsaved}): "treeline set" shows what is set`
    const left = this.restored
      ? `${this.unsaved === null ? "and" : "but"} what runs is as before`
      : "but what runs is not as before: see \"treeline daemon status\""
    return `${this.key} could not be applied: ${this.problem}\n${back}, ${left}`
  }
}

/** The updater was launched and did not get to work: `detail` says why. The daemon is not concerned. */
export class UpdaterNotStarted extends Schema.TaggedError<UpdaterNotStarted>()("UpdaterNotStarted", {
  pid: Schema.Int,
  detail: Schema.String
}) {
  override get message(): string {
    return `the updater, process ${this.pid}, was not ready: ${this.detail}`
  }
}

/** The command line can't be used. Nothing was started. */
export class UsageError extends Schema.TaggedError<UsageError>()("UsageError", {
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

/** Something that is no fault of the caller went wrong in `treeline` itself. */
export class InternalError extends Schema.TaggedError<InternalError>()("InternalError", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

export const FailureReason = Schema.Union([
  LaunchError,
  ContainmentUnavailable,
  DetachUnavailable,
  InvalidSpec,
  InvalidConfig,
  UsageError,
  UnknownName,
  NothingRuns,
  OtherConfiguration,
  AlreadyRunning,
  ListenError,
  OperationFailed,
  SettingNotApplied,
  IntensityExceeded,
  ControlUnavailable,
  ControlDenied,
  VersionMismatch,
  SubscriberDropped,
  NotRunning,
  ChildFailed,
  Overtaken,
  PoolClosed,
  CapacityExceeded,
  StartTimedOut,
  Unfinished,
  UnsavedState,
  Unkillable,
  DaemonNotReady,
  DaemonNotStopped,
  ManagedInstallError,
  ManagedProgramUnusable,
  NotReplaced,
  RollbackFailed,
  UpdateRecordInvalid,
  UpdaterNotStarted,
  UpdaterNotStopped,
  UpdateFetchFailed,
  Unmanaged,
  OperationBusy,
  ClaimUndecided,
  KeeperFailed,
  ClaimLost,
  StartAbandoned,
  StateFolderError,
  InternalError
])
export type FailureReason = typeof FailureReason.Type

/** Why a command did not do what was asked. */
export const Failure = Schema.Struct({
  error: FailureReason,
  /** The error in plain words. */
  message: Schema.String,
  exitCode: Schema.Int
})
export type Failure = typeof Failure.Type

/**
 * The exit code for a failure. 1: it was done, and something of it went wrong. 2: arguments, names or a configuration that
 * can't be used; nothing was done. 3: nothing runs. 4: it runs already. 5: what runs can't be talked to. 75: another
 * command is at work for too long (EX_TEMPFAIL of sysexits.h). 127 for a program that is not there, 126 for one that can't be executed, 125 for everything that `treeline` itself can't do
 * (`env(1)` and `timeout(1)` count the same way).
 */
export const exitCodeOf = (error: FailureReason): number => {
  switch (error._tag) {
    case "OperationFailed":
    case "SettingNotApplied":
    case "IntensityExceeded":
    case "NotRunning":
    case "ChildFailed":
    case "Overtaken":
    case "PoolClosed":
    case "CapacityExceeded":
    case "StartTimedOut":
    case "Unfinished":
    case "UnsavedState":
    case "Unkillable":
    case "DaemonNotReady":
    case "DaemonNotStopped":
    case "ManagedProgramUnusable":
    case "UpdateFetchFailed":
    case "UpdaterNotStarted":
    case "UpdaterNotStopped":
    case "RollbackFailed":
    case "NotReplaced":
    case "StartAbandoned":
    case "KeeperFailed":
      return 1
    case "UsageError":
    case "UnknownName":
    case "OtherConfiguration":
    case "InvalidSpec":
    case "InvalidConfig":
      return 2
    case "NothingRuns":
      return 3
    case "AlreadyRunning":
    case "Unmanaged":
    case "ClaimUndecided":
    case "UpdateRecordInvalid":
      return 4
    case "ControlUnavailable":
      return error.reason === "NotRunning" ? 3 : 5
    case "ControlDenied":
    case "VersionMismatch":
    case "SubscriberDropped":
      return 5
    case "ContainmentUnavailable":
    case "DetachUnavailable":
    case "ListenError":
    case "ClaimLost":
    case "ManagedInstallError":
    case "StateFolderError":
    case "InternalError":
      return 125
    case "OperationBusy":
      return 75
    case "LaunchError":
      switch (error.reason) {
        case "NotFound":
          return 127
        case "PermissionDenied":
        case "NotExecutable":
        case "BadWorkingDirectory":
          return 126
        case "InvalidArgument":
          return 2
        case "ResourceExhausted":
        case "Unknown":
          return 125
      }
  }
}
