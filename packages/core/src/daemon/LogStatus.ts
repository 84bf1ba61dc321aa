/** What is told of logs. Data that crosses a socket unchanged. */
import * as Schema from "effect/Schema"

/** A file at one moment. `failing` is the reason, null when all is well; `lost` and `written` count since it was opened. */
export const LogFileStatus = Schema.Struct({
  path: Schema.String,
  size: Schema.Int,
  written: Schema.Int,
  waiting: Schema.Int,
  rotations: Schema.Int,
  failing: Schema.NullOr(Schema.String),
  lostLines: Schema.Int,
  lostBytes: Schema.Int
})
export type LogFileStatus = typeof LogFileStatus.Type

/** The log of one child. Counts are since it was added; `open` is false when the child is closed. */
export const LogStatus = Schema.Struct({
  child: Schema.String,
  open: Schema.Boolean,
  lines: Schema.Int,
  bytes: Schema.Int,
  kept: Schema.Struct({ lines: Schema.Int, bytes: Schema.Int }),
  /** Bytes that nobody read in time. */
  missing: Schema.Int,
  /** Bytes that were left out of lines that are too long. */
  leftOut: Schema.Int,
  file: Schema.NullOr(LogFileStatus)
})
export type LogStatus = typeof LogStatus.Type
