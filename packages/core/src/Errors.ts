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

/** A specification has a field that can't be used. Nothing was started. */
export class InvalidSpec extends Schema.TaggedError<InvalidSpec>()("InvalidSpec", {
  field: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.field}: ${this.problem}`
  }
}

/** A tree outlived its whole shutdown plan, the final kill and the cap; `survivors` are the processes still alive. */
export class Unkillable extends Schema.TaggedError<Unkillable>()("Unkillable", {
  command: Schema.String,
  survivors: Schema.Array(ProcessInfo)
}) {
  override get message(): string {
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

/** A file could not be opened anew. It is tried again by its schedule; until then the old one is written to. */
export class ReopenFailed extends Schema.TaggedError<ReopenFailed>()("ReopenFailed", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} could not be opened: ${this.reason}`
  }
}
