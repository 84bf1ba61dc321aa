/** What `treeline run` says of how it went; apart from the other reports, so that it starts without what they need. */
import { Level } from "@treeline/core/Containment"
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
