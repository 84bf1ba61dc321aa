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
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as PlatformError from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { InvalidSpec } from "../Errors.ts"
import { Broadcast } from "../internal/Broadcast.ts"
import { millis, monotonic } from "../internal/Time.ts"
import * as Web from "../internal/Web.ts"

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

/** A snapshot. `failing` is the reason, null when all is well; `lost` and `written` count since it was opened. */
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

/** A file could not be opened anew. It is tried again by its schedule; until then the old one is written to. */
export class ReopenFailed extends Schema.TaggedError<ReopenFailed>()("ReopenFailed", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} could not be opened: ${this.reason}`
  }
}

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

const eventsCapacity = 32

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

const newline = 0x0a

/**
 * How much of `bytes`, whole lines, goes into a file that has `room` left: all, as many lines as fit, or 0 when it has to
 * be rotated first. A line that fits into no file goes into an empty one.
 */
export const fitting = (bytes: Uint8Array, room: number, empty: boolean): number => {
  if (bytes.length <= room) return bytes.length
  const fits = room <= 0 ? 0 : bytes.lastIndexOf(newline, room - 1) + 1
  if (fits > 0 || !empty) return fits
  const first = bytes.indexOf(newline)
  return first < 0 ? bytes.length : first + 1
}

const writeZero = (path: string): PlatformError.PlatformError =>
  PlatformError.systemError({ _tag: "WriteZero", module: "FileSystem", method: "write", pathOrDescriptor: path })

/** The system's code where there is one, such as ENOSPC. */
const reasonOf = ({ reason }: PlatformError.PlatformError): string => {
  const cause = "cause" in reason ? reason.cause : undefined
  const code = typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : undefined
  return code === undefined ? reason.message : `${code} (${reason._tag}, ${reason.method})`
}

/** The name of the old file number `n`; 1 is the newest. */
export const oldName = (path: string, n: number): string => `${path}.${n}`

interface Piece {
  /** The how manieth it is, from 1. */
  readonly index: number
  readonly bytes: Uint8Array
  readonly lines: number
}

/** What is being written: whole lines. */
interface Batch {
  /** Of its first piece. */
  readonly index: number
  readonly bytes: Uint8Array
  readonly lines: number
  /** How much of it is in the file. */
  offset: number
}

/** An open file, and which one it is. */
interface Handle {
  readonly file: FileSystem.File
  readonly scope: Scope.Closeable
  readonly dev: bigint
  readonly ino: bigint | undefined
  /** Devices and pipes are not rotated. */
  readonly regular: boolean
  /** ms, wall clock. */
  readonly born: number
  size: number
  /** Somebody has died in the middle of its last line. */
  unended: boolean
}

interface Request {
  readonly action: "reopen" | "rotate"
  readonly done: Deferred.Deferred<void, ReopenFailed>
}

/** How many may wait for a reopening at a time. */
const maxRequests = 16

/** The delays of a schedule; one that ends is begun anew. */
class Delays {
  private readonly schedule: Schedule.Schedule<unknown>
  private step: Effect.Success<ReturnType<typeof Schedule.toStep<unknown, unknown, never, never>>> | undefined

  constructor(schedule: Schedule.Schedule<unknown>) {
    this.schedule = schedule
  }

  /** In ms. */
  next(now: number, error: unknown): Effect.Effect<number> {
    return Effect.gen({ self: this }, function*() {
      for (let attempt = 0; attempt < 2; attempt++) {
        this.step ??= yield* Schedule.toStep(this.schedule)
        const exit = yield* Effect.exit(this.step(now, error))
        if (Exit.isSuccess(exit)) return Duration.toMillis(exit.value[1])
        this.step = undefined
      }
      return longestDelay
    })
  }

  reset(): void {
    this.step = undefined
  }
}

/** Where a schedule gives none, in ms. */
const longestDelay = 5000

const lineEnd = new Uint8Array([newline])

const tooSlow = "the disk was too slow"

const encoder = Web.textEncoder()

class Writer implements LogFile {
  readonly path: string
  private readonly options: Validated
  private readonly fs: FileSystem.FileSystem
  private readonly directory: string
  private readonly clock: Clock.Clock
  private readonly broadcast = new Broadcast<LogFileEvent>(eventsCapacity)
  private waiting: Array<Piece> = []
  private waitingBytes = 0
  private appended = 0
  private batch: Batch | undefined = undefined
  private handle: Handle | undefined = undefined
  private requests: Array<Request> = []
  private flushes: Array<{ readonly after: number; readonly done: Deferred.Deferred<void> }> = []
  private wake: (() => void) | undefined = undefined
  private readonly delays: Delays
  private failing: string | undefined = undefined
  private readonly rotationDelays: Delays
  private rotationFailing: string | undefined = undefined
  /** Monotonic ms. */
  private rotateFrom = 0
  /** The disk took less than what came, and that was said. */
  private slow = false
  /** Lost since the last look, and not because the file fails. */
  private outran = false
  /** Lost and not yet told in the file. */
  private untold = { lines: 0, bytes: 0, reason: "" }
  /** Lost since it began to fail. */
  private episode = { lines: 0, bytes: 0 }
  private lost = { lines: 0, bytes: 0 }
  private written = 0
  private rotations = 0
  private closing = false

  constructor(path: string, options: Validated, fs: FileSystem.FileSystem, directory: string, clock: Clock.Clock) {
    this.path = path
    this.options = options
    this.fs = fs
    this.directory = directory
    this.clock = clock
    this.delays = new Delays(options.retry)
    this.rotationDelays = new Delays(options.retry)
  }

  // ------------------------------------------------------------------------------------------------ what others call

  readonly append: LogFile["append"] = (bytes, lines) => {
    if (bytes.length === 0) return
    const index = ++this.appended
    if (this.closing) return this.lose({ index, bytes, lines })
    this.waiting.push({ index, bytes, lines })
    this.waitingBytes += bytes.length
    if (this.waitingBytes > this.options.buffer) this.dropOldest()
    this.wake?.()
  }

  private dropOldest(): void {
    let drop = 0
    while (this.waitingBytes > this.options.buffer) {
      const oldest = this.waiting[drop++]!
      this.waitingBytes -= oldest.bytes.length
      this.lose(oldest)
    }
    this.waiting.splice(0, drop)
    this.answerFlushes()
  }

  private lose({ bytes, lines }: Piece): void {
    for (const count of [this.untold, this.episode, this.lost]) {
      count.lines += lines
      count.bytes += bytes.length
    }
    this.untold.reason = this.failing ?? tooSlow
    if (this.failing === undefined) this.outran = true
  }

  private ask(action: Request["action"]): Effect.Effect<void, ReopenFailed> {
    return Effect.suspend(() => {
      const refuse = (reason: string) => Effect.fail(new ReopenFailed({ path: this.path, reason }))
      if (this.closing) return refuse("it is closed")
      // Whoever has gone is not kept among those who wait.
      this.requests = this.requests.filter(({ done }) => !Deferred.isDoneUnsafe(done))
      if (this.requests.length >= maxRequests) return refuse(`${maxRequests} others wait for the same`)
      const done = Deferred.makeUnsafe<void, ReopenFailed>()
      this.requests.push({ action, done })
      this.wake?.()
      return Effect.onInterrupt(
        Deferred.await(done),
        () => Effect.sync(() => Deferred.doneUnsafe(done, Effect.interrupt))
      )
    })
  }

  readonly reopen: LogFile["reopen"] = this.ask("reopen")

  readonly rotate: LogFile["rotate"] = this.ask("rotate")

  /** The first piece that is neither written nor lost. */
  private get unsettled(): number {
    return this.batch?.index ?? this.waiting[0]?.index ?? Number.POSITIVE_INFINITY
  }

  readonly flush: LogFile["flush"] = Effect.suspend(() => {
    const entry = { after: this.appended, done: Deferred.makeUnsafe<void>() }
    if (this.unsettled > entry.after) return Effect.void
    this.flushes.push(entry)
    return Effect.onInterrupt(Deferred.await(entry.done), () =>
      Effect.sync(() => {
        this.flushes = this.flushes.filter((other) => other !== entry)
      }))
  })

  private answerFlushes(): void {
    const { unsettled } = this
    this.flushes = this.flushes.filter(({ after, done }) => {
      if (unsettled > after) Deferred.doneUnsafe(done, Exit.void)
      return unsettled <= after
    })
  }

  readonly status: LogFile["status"] = Effect.sync(() => ({
    path: this.path,
    size: this.handle?.size ?? 0,
    written: this.written,
    waiting: this.waitingBytes + (this.batch === undefined ? 0 : this.batch.bytes.length - this.batch.offset),
    rotations: this.rotations,
    failing: this.failing ?? this.rotationFailing ?? null,
    lostLines: this.lost.lines,
    lostBytes: this.lost.bytes
  }))

  get events(): LogFile["events"] {
    return this.broadcast.stream(eventsCapacity)
  }

  // ------------------------------------------------------------------------------------------------ the fiber

  private now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  private say(level: "Debug" | "Info" | "Warn", event: LogFileEvent, message: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.broadcast.publish(event)
      return Effect.annotateLogs(Effect.logWithLevel(level)(message), { file: this.path })
    })
  }

  /** Writes until it is closed and nothing is left. */
  run(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      while (true) {
        const exit = yield* Effect.exit(this.work)
        if (Exit.isSuccess(exit)) {
          if (this.closing && this.waiting.length === 0) return
          yield* this.awaitWork
          continue
        }
        if (Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.interrupt
        yield* this.failed(exit.cause)
        if (this.closing) return
        const delay = yield* this.delays.next(monotonic(this.clock), exit.cause)
        yield* Effect.raceFirst(this.awaitRequest, Effect.sleep(delay))
      }
    })
  }

  private awaitThat(isThere: () => boolean): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const look = () => {
        if (!isThere()) return
        this.wake = undefined
        resume(Effect.void)
      }
      this.wake = look
      look()
      return Effect.sync(() => {
        this.wake = undefined
      })
    })
  }

  private readonly awaitWork: Effect.Effect<void> = this.awaitThat(() =>
    this.closing || this.requests.length > 0 || this.waiting.length > 0
  )

  /** While the file fails, only somebody who asks is a reason to try it before it is time, and the end. */
  private readonly awaitRequest: Effect.Effect<void> = this.awaitThat(() => this.closing || this.requests.length > 0)

  private failed(cause: Cause.Cause<PlatformError.PlatformError>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const error = Option.getOrUndefined(Cause.findErrorOption(cause))
      const reason = error === undefined ? Cause.pretty(cause).slice(0, 500) : reasonOf(error)
      if (this.failing !== undefined) return Effect.void
      this.failing = reason
      this.outran = false
      this.episode = { lines: 0, bytes: 0 }
      return this.say(
        "Warn",
        { _tag: "Failing", at: this.now(), path: this.path, failed: "write", reason },
        `the log file can't be written: ${reason}; it is tried again`
      )
    })
  }

  private readonly recovered: Effect.Effect<void> = Effect.suspend(() => {
    if (this.failing === undefined) return Effect.void
    this.failing = undefined
    this.delays.reset()
    const { bytes, lines } = this.episode
    return this.say(
      "Info",
      { _tag: "Recovered", at: this.now(), path: this.path, lines, bytes },
      `the log file can be written again; ${lines} lines (${bytes} bytes) are missing`
    )
  })

  /** Serves requests and writes until nothing waits. */
  private readonly work: Effect.Effect<void, PlatformError.PlatformError> = Effect.gen({ self: this }, function*() {
    while (true) {
      yield* this.serve
      if (this.outran && !this.slow && this.failing === undefined) {
        this.slow = true
        yield* this.say(
          "Warn",
          { _tag: "Slow", at: this.now(), path: this.path },
          "the log file takes less than what comes; the oldest lines that wait are lost"
        )
      }
      this.outran = false
      const batch = this.batch ??= this.take()
      if (batch === undefined) {
        this.slow = false
        return
      }
      const handle = yield* this.ready(this.handle)
      const room = yield* this.makeRoom(handle, batch)
      yield* this.write(room.handle, batch, room.bytes)
      if (batch.offset < batch.bytes.length) continue
      this.batch = undefined
      this.answerFlushes()
      yield* this.recovered
    }
  })

  private take(): Batch | undefined {
    const { untold, waiting } = this
    const parts: Array<Uint8Array> = []
    let size = 0
    if (untold.bytes > 0) {
      parts.push(encoder.encode(`${this.options.describeLoss({ ...untold, at: this.now() })}\n`))
      size = parts[0]!.length
    }
    if (parts.length === 0 && waiting.length === 0) return undefined
    let lines = 0
    // All at once: on a busy host each write waits for its turn, and more has come until then.
    for (const piece of waiting) {
      parts.push(piece.bytes)
      size += piece.bytes.length
      lines += piece.lines
    }
    const index = waiting[0]?.index ?? this.appended
    this.waiting = []
    this.waitingBytes = 0
    this.untold = { lines: 0, bytes: 0, reason: "" }
    let bytes = parts[0]!
    if (parts.length > 1) {
      bytes = new Uint8Array(size)
      let offset = 0
      for (const part of parts) {
        bytes.set(part, offset)
        offset += part.length
      }
    }
    return { index, bytes, lines, offset: 0 }
  }

  /** The part of the batch that is next goes into this file: how much of it. */
  private makeRoom(
    handle: Handle,
    batch: Batch
  ): Effect.Effect<{ readonly handle: Handle; readonly bytes: number }, PlatformError.PlatformError> {
    return Effect.gen({ self: this }, function*() {
      const rest = batch.bytes.subarray(batch.offset)
      // What was begun is ended in the same file.
      if (isInside(batch)) return { handle, bytes: Math.max(0, rest.indexOf(newline)) + 1 }
      const { maxAge, maxBytes } = this.options
      const old = maxAge !== undefined && handle.size > 0 && this.now() - handle.born >= maxAge
      const fits = handle.regular ? fitting(rest, maxBytes - handle.size, handle.size === 0) : rest.length
      if (fits > 0 && !(old && handle.regular)) return { handle, bytes: fits }
      const next = yield* this.tryRotate(handle)
      // One that can't be rotated is still written.
      if (next === handle) return { handle, bytes: rest.length }
      return { handle: next, bytes: Math.max(1, fitting(rest, maxBytes - next.size, true)) }
    })
  }

  private write(handle: Handle, batch: Batch, bytes: number): Effect.Effect<void, PlatformError.PlatformError> {
    return Effect.gen({ self: this }, function*() {
      const end = batch.offset + bytes
      if (handle.unended && !isInside(batch)) handle.size += yield* handle.file.write(lineEnd)
      handle.unended = false
      while (batch.offset < end) {
        const wrote = yield* handle.file.write(batch.bytes.subarray(batch.offset, end))
        if (wrote === 0) return yield* Effect.fail(writeZero(this.path))
        batch.offset += wrote
        handle.size += wrote
        this.written += wrote
      }
    })
  }

  // ------------------------------------------------------------------------------------------------ opening

  private readonly found: Effect.Effect<FileSystem.File.Info | undefined, PlatformError.PlatformError> = Effect.suspend(
    () => undefinedIfMissing(this.fs.stat(this.path))
  )

  /** The file at the path, opened; anew where somebody has deleted or renamed the old one. */
  private ready(handle: Handle | undefined): Effect.Effect<Handle, PlatformError.PlatformError> {
    return Effect.gen({ self: this }, function*() {
      if (handle === undefined) return yield* this.open
      const info = yield* this.found
      if (info !== undefined && isSame(handle, info)) {
        // Somebody may have truncated it.
        handle.size = Number(ByteSize.toBigInt(info.size))
        return handle
      }
      const opened = yield* Effect.result(this.open)
      if (Result.isSuccess(opened)) {
        yield* this.say(
          "Info",
          { _tag: "Reopened", at: this.now(), path: this.path, cause: "moved" },
          "the log file was moved away or deleted; there is a new one"
        )
        yield* this.rotationRecovered
        return opened.success
      }
      const { nlink } = yield* handle.file.stat
      if (Option.isSome(nlink) && nlink.value === 0n) return yield* Effect.fail(opened.failure)
      // It was renamed, perhaps by ourselves: no line is lost if it is written on.
      yield* this.rotationFailed(opened.failure)
      return handle
    })
  }

  /** Opens the path and leaves the old file. Nothing changes when it fails. */
  private readonly open: Effect.Effect<Handle, PlatformError.PlatformError> = Effect.uninterruptible(
    Effect.gen({ self: this }, function*() {
      const scope = yield* Scope.make()
      const options = { flag: "a", mode: this.options.mode } as const
      const opening = this.fs.open(this.path, options).pipe(
        Effect.catchIf(isMissing, () =>
          Effect.andThen(
            this.fs.makeDirectory(this.directory, { recursive: true }),
            this.fs.open(this.path, options)
          )),
        Effect.flatMap((file) => Effect.map(file.stat, (info) => this.handleOf(file, scope, info))),
        Scope.provide(scope),
        Effect.onExit((exit) => Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void)
      )
      const handle = yield* opening
      const old = this.handle
      handle.unended = handle.regular && handle.size > 0 && (yield* this.isUnended(handle.size))
      this.handle = handle
      if (old !== undefined) {
        // A line that is half in the old file comes whole into the new one.
        const same = old.dev === handle.dev && old.ino === handle.ino
        if (this.batch !== undefined && !same) rewind(this.batch)
        // What a close has to complain about is no reason not to go on.
        yield* Effect.exit(Scope.close(old.scope, Exit.void))
      }
      return handle
    })
  )

  /** Whether the file does not end with a newline; what can't be read is believed to. */
  private isUnended(size: number): Effect.Effect<boolean> {
    const last = new Uint8Array(1)
    return this.fs.open(this.path, { flag: "r" }).pipe(
      Effect.flatMap((file) => file.read(last, { position: BigInt(size - 1) })),
      Effect.map((read) => read === 1 && last[0] !== newline),
      Effect.scoped,
      Effect.orElseSucceed(() => false)
    )
  }

  private handleOf(file: FileSystem.File, scope: Scope.Closeable, info: FileSystem.File.Info): Handle {
    const now = this.now()
    const size = Number(ByteSize.toBigInt(info.size))
    const times = [info.birthtime, info.mtime].flatMap((time) => Option.isSome(time) ? [time.value.getTime()] : [])
    const born = size === 0 ? now : times.find((time) => time > 0 && time <= now) ?? now
    const ino = Option.getOrUndefined(info.ino)
    return { file, scope, dev: info.dev, ino, regular: info.type === "File", born, size, unended: false }
  }

  // ------------------------------------------------------------------------------------------------ rotating

  private rotationFailed(error: PlatformError.PlatformError): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const now = monotonic(this.clock)
      this.rotateFrom = now + (yield* this.rotationDelays.next(now, error))
      if (this.rotationFailing !== undefined) return
      const reason = this.rotationFailing = reasonOf(error)
      yield* this.say(
        "Warn",
        { _tag: "Failing", at: this.now(), path: this.path, failed: "rotate", reason },
        `the log file can't be rotated: ${reason}; the old one is written on, and it is tried again`
      )
    })
  }

  /** The new file, or the same one when it can't be rotated now. */
  private tryRotate(handle: Handle): Effect.Effect<Handle> {
    return Effect.gen({ self: this }, function*() {
      if (this.rotationFailing !== undefined && monotonic(this.clock) < this.rotateFrom) return handle
      const rotated = yield* Effect.result(Effect.andThen(this.shift(handle), this.open))
      if (Result.isFailure(rotated)) {
        yield* this.rotationFailed(rotated.failure)
        return handle
      }
      yield* this.rotated
      return rotated.success
    })
  }

  private readonly rotated: Effect.Effect<void> = Effect.suspend(() => {
    this.rotations++
    const event = { _tag: "Rotated", at: this.now(), path: this.path } as const
    return Effect.andThen(this.say("Debug", event, "the log file was rotated"), this.rotationRecovered)
  })

  private readonly rotationRecovered: Effect.Effect<void> = Effect.suspend(() => {
    if (this.rotationFailing === undefined) return Effect.void
    this.rotationFailing = undefined
    this.rotationDelays.reset()
    return this.say(
      "Info",
      { _tag: "Recovered", at: this.now(), path: this.path, lines: 0, bytes: 0 },
      "the log file can be rotated again"
    )
  })

  /** Moves every old file one further, up to the first number that is free, and the file itself to number 1. */
  private shift(handle: Handle): Effect.Effect<void, PlatformError.PlatformError> {
    return Effect.gen({ self: this }, function*() {
      const { fs, path } = this
      const { keep } = this.options
      const info = yield* this.found
      // It was moved already, by an attempt that could not open the new one, or by somebody else.
      if (info === undefined || !isSame(handle, info)) return
      let free = 1
      while (free < keep && (yield* fs.exists(oldName(path, free)))) free++
      for (let n = free - 1; n >= 1; n--) yield* fs.rename(oldName(path, n), oldName(path, n + 1))
      yield* fs.rename(path, oldName(path, 1))
      // Of a time when more were kept.
      for (let n = keep + 1; yield* fs.exists(oldName(path, n)); n++) yield* fs.remove(oldName(path, n))
    })
  }

  private readonly serve: Effect.Effect<void, PlatformError.PlatformError> = Effect.gen({ self: this }, function*() {
    while (true) {
      const request = this.requests[0]
      // A line that was begun is ended first.
      if (request === undefined || (this.batch !== undefined && isInside(this.batch) && this.failing === undefined)) {
        return
      }
      const done = yield* Effect.result(request.action === "reopen" ? this.reopenNow : this.rotateNow)
      this.requests.shift()
      Deferred.doneUnsafe(
        request.done,
        Result.isSuccess(done)
          ? Exit.void
          : Exit.fail(new ReopenFailed({ path: this.path, reason: reasonOf(done.failure) }))
      )
      if (Result.isFailure(done) && this.handle === undefined) return yield* Effect.fail(done.failure)
    }
  })

  private readonly reopenNow: Effect.Effect<void, PlatformError.PlatformError> = Effect.gen(
    { self: this },
    function*() {
      yield* this.open
      yield* this.say(
        "Info",
        { _tag: "Reopened", at: this.now(), path: this.path, cause: "asked" },
        "the log file was opened anew"
      )
    }
  )

  private readonly rotateNow: Effect.Effect<void, PlatformError.PlatformError> = Effect.gen(
    { self: this },
    function*() {
      const handle = yield* this.ready(this.handle)
      if (!handle.regular || handle.size === 0) return
      yield* Effect.andThen(this.shift(handle), this.open)
      yield* this.rotated
    }
  )

  // ------------------------------------------------------------------------------------------------ the end

  /** Writes what waits, within `flushWithin`; a disk that hangs is left to itself. */
  close(fiber: Fiber.Fiber<unknown>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      this.closing = true
      this.wake?.()
      const within = (self: Effect.Effect<unknown>) =>
        Effect.raceFirst(Effect.asVoid(self), Effect.sleep(this.options.flushWithin))
      yield* within(Fiber.await(fiber))
      fiber.interruptUnsafe()
      yield* within(Fiber.await(fiber))
      const left = this.waiting.reduce((sum, { lines }) => sum + lines, this.batch?.lines ?? 0)
      if (left > 0) yield* Effect.logWarning(`${left} lines of a log could not be written`, { file: this.path })
      if (this.handle !== undefined) {
        const closing = yield* Effect.forkDetach(Scope.close(this.handle.scope, Exit.void), { startImmediately: true })
        yield* within(Fiber.await(closing))
      }
      const closed = Exit.fail(new ReopenFailed({ path: this.path, reason: "it is closed" }))
      for (const { done } of this.requests) Deferred.doneUnsafe(done, closed)
      for (const { done } of this.flushes) Deferred.doneUnsafe(done, Exit.void)
      this.broadcast.end()
    })
  }
}

/** Whether a line of it was begun and not ended. */
const isInside = ({ bytes, offset }: Batch): boolean => offset > 0 && bytes[offset - 1] !== newline

/** Back to the start of the line that was begun. */
const rewind = (batch: Batch): void => {
  if (isInside(batch)) batch.offset = batch.bytes.lastIndexOf(newline, batch.offset - 1) + 1
}

const isSame = (handle: Handle, info: FileSystem.File.Info): boolean =>
  handle.dev === info.dev && handle.ino === Option.getOrUndefined(info.ino)

const isMissing = ({ reason }: PlatformError.PlatformError): boolean => reason._tag === "NotFound"

const undefinedIfMissing = <A, R>(
  self: Effect.Effect<A, PlatformError.PlatformError, R>
): Effect.Effect<A | undefined, PlatformError.PlatformError, R> =>
  Effect.catchIf(self, isMissing, () => Effect.undefined)

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
  const writer = new Writer(path, validated, fs, directory, yield* Clock.Clock)
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
 * The last lines of a log file and of the old ones behind it, oldest first: at most `lines` (default 100) from the last
 * `maxBytes` (default 1 MiB). Works without whoever writes the file (seed K16). Empty when there is no file.
 */
export const tail = Effect.fn("LogFile.tail")(function*(
  path: string,
  options: { readonly lines?: number | undefined; readonly maxBytes?: number | undefined } = {}
): Effect.fn.Return<ReadonlyArray<string>, PlatformError.PlatformError, FileSystem.FileSystem> {
  const wanted = options.lines ?? 100
  let room = options.maxBytes ?? 1024 * 1024
  const files: Array<Array<string>> = []
  let found = 0
  const seen = new Set<string>()
  for (let n = 0; room > 0 && found < wanted; n++) {
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
    const lines = (text.endsWith("\n") ? text.slice(0, -1) : text).split("\n")
    files.push(lines)
    found += lines.length
  }
  return wanted <= 0 ? [] : files.toReversed().flat().slice(-wanted)
})

const decoder = Web.textDecoder()
