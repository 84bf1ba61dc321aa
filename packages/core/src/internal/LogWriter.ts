/**
 * The fiber that writes one rotating log file. See `LogFile` for what it promises.
 */
import * as ByteSize from "effect/ByteSize"
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as PlatformError from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type { LogFile, LogFileEvent, Validated } from "../daemon/LogFile.ts"
import { ReopenFailed } from "../Errors.ts"
import { Broadcast } from "./Broadcast.ts"
import { monotonic } from "./Time.ts"
import * as Web from "./Web.ts"

/** Past events that a late reader is given, and events that wait for a slow one. */
const eventsCapacity = 32

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

export class LogWriter implements LogFile {
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

export const undefinedIfMissing = <A, R>(
  self: Effect.Effect<A, PlatformError.PlatformError, R>
): Effect.Effect<A | undefined, PlatformError.PlatformError, R> =>
  Effect.catchIf(self, isMissing, () => Effect.undefined)
