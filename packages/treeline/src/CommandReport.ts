/**
 * What the `treeline` command prints under `--json`, as Schemas: one object on stdout when it did what was asked, or one
 * `Failure` on stderr when it did not.
 */
import { Level } from "@treeline/core/Containment"
import { Explained } from "@treeline/core/daemon/ConfigOrigin"
import { ContainmentUnavailable, InvalidConfig, InvalidSpec, LaunchError } from "@treeline/core/Errors"
import { ExitStatus } from "@treeline/core/ExitStatus"
import { ProcessInfo } from "@treeline/core/ProcessIdentity"
import * as Schema from "effect/Schema"

/**
 * How `treeline run` went.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { strictEqual } from "node:assert"
 * import { CommandReport } from "treeline"
 *
 * const text = `{"command":"make","pid":4711,"status":{"_tag":"Exited","code":2},"exitCode":2,
 *   "stoppedBy":null,"milliseconds":1250,"containment":"tagged","leftBehind":[],"survivors":[]}`
 * const report = Schema.decodeUnknownSync(Schema.fromJsonString(CommandReport.Run))(text)
 * strictEqual(report.exitCode, 2)
 * ```
 */
export const Run = Schema.Struct({
  /** The program's name, without its arguments. */
  command: Schema.String,
  pid: Schema.Int,
  status: ExitStatus,
  /** The status as a shell counts it: the code, or 128 and the number of the signal. */
  exitCode: Schema.Int,
  /** The signal to `treeline` that began the shutdown plan; null when the program ended by itself. */
  stoppedBy: Schema.NullOr(Schema.String),
  /** From the launch to the end of the whole tree. */
  milliseconds: Schema.Int,
  containment: Level,
  /** What still ran when the program had ended by itself; `treeline` has ended it. */
  leftBehind: Schema.Array(ProcessInfo),
  /** What could not be ended; empty when all is well. */
  survivors: Schema.Array(ProcessInfo)
})
export type Run = typeof Run.Type

/** The configuration that holds, as it would be written, with all defaults and without secrets (`treeline config`). */
export const Config = Schema.Struct({
  file: Schema.String,
  config: Schema.Json
})
export type Config = typeof Config.Type

/** Every value of the configuration and where it came from (`treeline config --explain`). */
export const ConfigExplained = Schema.Struct({
  file: Schema.String,
  values: Schema.Array(Explained)
})
export type ConfigExplained = typeof ConfigExplained.Type

/** The file that `treeline init` has written. */
export const Written = Schema.Struct({ file: Schema.String })
export type Written = typeof Written.Type

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
  InvalidSpec,
  InvalidConfig,
  UsageError,
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
 * The exit code for a failure: 127 for a program that is not there, 126 for one that can't be executed, 2 for arguments
 * or a configuration that can't be used, 125 for everything that `treeline` itself can't do (`env(1)` and `timeout(1)` count the same way).
 */
export const exitCodeOf = (error: FailureReason): number => {
  switch (error._tag) {
    case "UsageError":
    case "InvalidSpec":
    case "InvalidConfig":
      return 2
    case "ContainmentUnavailable":
    case "InternalError":
      return 125
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
