/** What a reload of the configuration did. Data that crosses a socket unchanged. */
import * as Schema from "effect/Schema"

/** What a reload did with one service. `problem` is null when all went well. */
export const Applied = Schema.Struct({
  service: Schema.String,
  change: Schema.Literals(["changed", "added", "removed"]),
  /** The fields that differ; empty for one that was added or removed. */
  fields: Schema.Array(Schema.String),
  problem: Schema.NullOr(Schema.String)
})
export type Applied = typeof Applied.Type

/** What a reload did. A start is not awaited: see the status for what became of it. */
export const Report = Schema.Struct({
  unchanged: Schema.Array(Schema.String),
  applied: Schema.Array(Applied),
  /** What holds only after a restart of the whole: `supervisor`. */
  needsRestart: Schema.Array(Schema.String)
})
export type Report = typeof Report.Type
