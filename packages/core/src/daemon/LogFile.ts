/**
 * One rotating log file, which never holds up whoever writes to it.
 *
 * What is appended waits in bounded memory and is written by a fiber of its own. While the file can't be written (disk
 * full, directory gone or read-only) the oldest of what waits is dropped and counted; it is said once, the file is tried
 * again by a schedule, and when it works again a line in it says what is missing.
 *
 * Rotation keeps `name.1` (the newest) to `name.N`. A line is never in two files and never cut in two by it. The rename
 * comes before the open, and until the open has succeeded the old descriptor is written to, so an interruption between
 * them loses nothing: whoever comes next finds no file and makes one.
 */
import * as ByteSize from "effect/ByteSize"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { InvalidSpec, type ReopenFailed } from "../Errors.ts"
import { LogWriter, oldName, undefinedIfMissing } from "../internal/LogWriter.ts"
import { millis } from "../internal/Time.ts"
import * as Web from "../internal/Web.ts"
import type { LogFileStatus } from "./LogStatus.ts"

export { LogFileStatus } from "./LogStatus.ts"

/** When a file is rotated, and how much is kept. All of it is at most `maxBytes * (keep + 1)` on disk. */
export interface Rotation {
  /** A file is not written beyond this, unless one line alone is longer. Default: 10 MiB. */
  readonly maxBytes?: number | undefined
  /** A file is rotated before a line is written to it that is this much younger than the file. Default: never. */
  readonly maxAge?: Duration.Input | undefined
  /** How many old files are kept, from 1 to 1000. Default: 5. */
  readonly keep?: number | undefined
}

export interface Options extends Rotation {
  /** Bytes that wait for a slow or failing disk; at most as many again are being written. Default: 8 MiB. */
  readonly buffer?: number | undefined
  /** Permissions of a new file. Default: 0o600, for logs may hold what others should not see. */
  readonly mode?: number | undefined
  /** When a file that can't be written is tried again. Default: after 100 ms, then twice as long each time, up to 5 s. */
  readonly retry?: Schedule.Schedule<unknown> | undefined
  /** How long closing waits for what is not yet written. Default: 2 s. */
  readonly flushWithin?: Duration.Input | undefined
  /** The line that says what is missing. Default: its description after `treeline: `. */
  readonly describeLoss?: ((loss: Loss) => string) | undefined
}

export interface Validated {
  readonly maxBytes: number
  readonly maxAge: number | undefined
  readonly keep: number
  readonly buffer: number
  readonly mode: number
  readonly retry: Schedule.Schedule<unknown>
  readonly flushWithin: number
  readonly describeLoss: (loss: Loss) => string
}

/** What could not be written; `at` is ms, wall clock. */
export interface Loss {
  readonly lines: number
  readonly bytes: number
  readonly reason: string
  readonly at: number
}

/**
 * - `Failing`: it can't be written or rotated; told once, until it works again. `failed` says which; a file that can't be
 *   rotated is still written.
 * - `Recovered`: it works again; `lines` and `bytes` were lost meanwhile, and the file says so.
 * - `Slow`: the disk takes less than what comes; told once, until all that waits was written.
 * - `Rotated`, `Reopened`: `cause` of a reopening is a request, or that somebody deleted or renamed the file.
 */
export const LogFileEvent = Schema.TaggedUnion({
  Failing: {
    at: Schema.Number,
    path: Schema.String,
    failed: Schema.Literals(["write", "rotate"]),
    reason: Schema.String
  },
  Recovered: { at: Schema.Number, path: Schema.String, lines: Schema.Int, bytes: Schema.Int },
  Slow: { at: Schema.Number, path: Schema.String },
  Rotated: { at: Schema.Number, path: Schema.String },
  Reopened: { at: Schema.Number, path: Schema.String, cause: Schema.Literals(["asked", "moved"]) }
})
export type LogFileEvent = typeof LogFileEvent.Type

export interface LogFile {
  readonly path: string
  /** Takes whole lines, each with its newline, and returns at once. The bytes must not be changed afterwards. */
  readonly append: (bytes: Uint8Array, lines: number) => void
  /** Opens the path anew, as after SIGHUP: for a file that somebody else has renamed. */
  readonly reopen: Effect.Effect<void, ReopenFailed>
  /** Rotates now, between two lines. */
  readonly rotate: Effect.Effect<void, ReopenFailed>
  /** Waits until all that was appended until now is in the file or lost. The caller bounds the wait. */
  readonly flush: Effect.Effect<void>
  readonly status: Effect.Effect<LogFileStatus>
  /** The last 32 events, then all that come; a reader that is slower than 32 events loses the oldest. */
  readonly events: Stream.Stream<LogFileEvent>
}

const defaultRetry = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])

const whole = (field: string, value: number, min: number, max: number): Result.Result<number, InvalidSpec> =>
  Number.isSafeInteger(value) && value >= min && value <= max
    ? Result.succeed(value)
    : Result.fail(new InvalidSpec({ field: `file.${field}`, problem: `must be a whole number from ${min} to ${max}` }))

/** What a loss is called. */
export const describeLoss = ({ bytes, lines, reason }: Loss): string =>
  `${lines} lines (${bytes} bytes) are missing: ${reason}`

/** Checks bounds and times. */
export const validate = (options: Options = {}): Result.Result<Validated, InvalidSpec> =>
  Result.gen(function*() {
    const maxAge = options.maxAge === undefined ? undefined : yield* millis("file.maxAge", options.maxAge)
    if (maxAge === 0) {
      return yield* Result.fail(new InvalidSpec({ field: "file.maxAge", problem: "must be more than 0" }))
    }
    return {
      maxBytes: yield* whole("maxBytes", options.maxBytes ?? 10 * 1024 * 1024, 1, Number.MAX_SAFE_INTEGER),
      maxAge,
      keep: yield* whole("keep", options.keep ?? 5, 1, 1000),
      buffer: yield* whole("buffer", options.buffer ?? 8 * 1024 * 1024, 1, Number.MAX_SAFE_INTEGER),
      mode: yield* whole("mode", options.mode ?? 0o600, 0, 0o777),
      retry: options.retry ?? defaultRetry,
      flushWithin: yield* millis("file.flushWithin", options.flushWithin ?? "2 seconds"),
      describeLoss: options.describeLoss ?? ((loss) => `treeline: ${describeLoss(loss)}`)
    }
  })

/**
 * Opens a rotating log file for as long as the scope lives; a missing directory is made. That the file can't be opened or
 * written is no error here: it is tried again, and `status`, `events` and the log say so.
 *
 * @example
 * ```ts
 * import { LogFile } from "@treeline/core/daemon"
 * import { NodeServices } from "@effect/platform-node"
 * import { Effect, FileSystem } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const program = Effect.gen(function*() {
 *   const path = `${yield* FileSystem.FileSystem.use((fs) => fs.makeTempDirectoryScoped())}/web.log`
 *   const file = yield* LogFile.make(path, { maxBytes: 10, keep: 2 })
 *   for (const line of ["one\n", "two\n", "three\n", "four\n"]) file.append(new TextEncoder().encode(line), 1)
 *   yield* file.flush
 *   return yield* LogFile.tail(path, { lines: 3 })
 * })
 * const lines = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
 * deepStrictEqual(lines, ["two", "three", "four"])
 * ```
 */
export const make = Effect.fn("LogFile.make")(function*(
  path: string,
  options?: Options
): Effect.fn.Return<LogFile, InvalidSpec, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const validated = yield* Effect.fromResult(validate(options))
  const fs = yield* FileSystem.FileSystem
  const directory = (yield* Path.Path).dirname(path)
  const writer = new LogWriter(path, validated, fs, directory, yield* Clock.Clock)
  yield* Effect.acquireRelease(
    Effect.forkDetach(writer.run(), { startImmediately: true }),
    (fiber) => writer.close(fiber)
  )
  return writer
})

/** At most this much is read at a time, in bytes. */
const readLimit = 64 * 1024

/** The last `limit` bytes of a file at most, and which file it is; undefined when there is none. */
const endOf = (path: string, limit: number) =>
  Effect.scoped(Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const file = yield* undefinedIfMissing(fs.open(path, { flag: "r" }))
    if (file === undefined) return undefined
    const info = yield* file.stat
    const size = Number(ByteSize.toBigInt(info.size))
    const start = Math.max(0, size - limit)
    const bytes = new Uint8Array(size - start)
    let length = 0
    while (length < bytes.length) {
      const into = bytes.subarray(length, length + readLimit)
      const read = yield* file.read(into, { position: BigInt(start + length) })
      if (read === 0) break
      length += read
    }
    return {
      id: `${info.dev} ${Option.getOrUndefined(info.ino)}`,
      bytes: bytes.subarray(0, length),
      whole: start === 0
    }
  }))

/**
 * The last lines of a log file and of the old ones behind it, oldest first: at most `lines` (default 100) of those that are
 * `wanted`, from the last `maxBytes` (default 1 MiB). Works without whoever writes the file (seed K16). Empty when there is no file.
 */
export const tail = Effect.fn("LogFile.tail")(function*(
  path: string,
  options: {
    readonly lines?: number | undefined
    readonly maxBytes?: number | undefined
    readonly wanted?: ((line: string) => boolean) | undefined
  } = {}
): Effect.fn.Return<ReadonlyArray<string>, PlatformError.PlatformError, FileSystem.FileSystem> {
  const { lines: count = 100, wanted = () => true } = options
  let room = options.maxBytes ?? 1024 * 1024
  const files: Array<Array<string>> = []
  let found = 0
  const seen = new Set<string>()
  for (let n = 0; room > 0 && found < count; n++) {
    const end = yield* endOf(n === 0 ? path : oldName(path, n), room)
    // A rotation may come between the file and the first old one, and leaves no file for a moment.
    if (end === undefined && n > 0) break
    if (end === undefined) continue
    // It was rotated while we looked: this one has been read already.
    if (seen.has(end.id)) continue
    seen.add(end.id)
    room -= end.bytes.length
    const start = end.whole ? 0 : end.bytes.indexOf(newline) + 1
    const text = decoder.decode(end.bytes.subarray(start), { stream: false })
    if (text === "") continue
    const lines = (text.endsWith("\n") ? text.slice(0, -1) : text).split("\n").filter(wanted)
    files.push(lines)
    found += lines.length
  }
  return count <= 0 ? [] : files.toReversed().flat().slice(-count)
})

const newline = 0x0a

const decoder = Web.textDecoder()
