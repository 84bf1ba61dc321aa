/** What services have written, from their log files. */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as LogFile from "@treeline/core/daemon/LogFile"
import * as Effect from "effect/Effect"
import type { FileLine } from "../CommandReport.ts"
import * as ConfigFile from "../ConfigFile.ts"
import { InternalError, type NothingRuns, type OtherConfiguration } from "./Failure.ts"
import * as Selection from "./Selection.ts"
import type { LogsOptions } from "./Services.ts"

/** Whether a line of a file is of this stream, as the layout of the file says it; see `LogLine.formatter`. */
export const isOf = (stream: LogsOptions["stream"], { timestamps }: { readonly timestamps: boolean }) => {
  const pattern = new RegExp(`^${timestamps ? "\\S+ " : ""}${stream} `)
  return (text: string): boolean => stream === undefined || pattern.test(text)
}

/** The log files of a configuration that nothing runs for (seed K16). */
export const read = (options: LogsOptions, absent: NothingRuns | OtherConfiguration) =>
  Effect.gen(function*() {
    const { config } = yield* ConfigFile.load(options)
    const names = yield* Effect.fromResult(Selection.servicesOf(config, options.names))
    const entries: Array<FileLine> = []
    for (const child of names) {
      const { logs } = config.services[child]!
      if (logs === undefined) continue
      const lines = yield* LogFile.tail(logs.file, { lines: options.lines, wanted: isOf(options.stream, logs) })
      entries.push(...lines.map((text) => ({ _tag: "FileLine" as const, child, text })))
    }
    if (!names.some((name) => config.services[name]?.logs !== undefined)) return yield* absent
    // Lines that begin with their times are in their order then; others stay as they are in their files.
    const timed = entries.every(({ text }) => /^\d{4}-\d\d-\d\dT/.test(text))
    if (timed) entries.sort((a, b) => a.text < b.text ? -1 : a.text > b.text ? 1 : 0)
    return entries.slice(Math.max(0, entries.length - options.lines))
  }).pipe(
    Effect.catchTag("PlatformError", (error) => new InternalError({ detail: error.message })),
    Effect.provide(NodeFileSystem.layer)
  )
