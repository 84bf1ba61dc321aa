/**
 * The logs of children: what each writes as lines, the last ones in memory, all of them in a rotating file, and one view
 * of several children in the order of time.
 *
 * A child is never held up by its log. What a slow host, disk or reader can't take is lost, counted, and said at the
 * place where it is missing.
 *
 * A follower keeps no memory of its own: it reads the rings at its own pace. One that is slower than a ring is not
 * dropped; it gets a `Gap` with the number of lines that it missed, and goes on with the oldest that is left. One that
 * never reads costs nothing.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Child, Outputs } from "../Child.ts"
import { InvalidSpec, type ReopenFailed, UnknownChild } from "../Errors.ts"
import { LineRing } from "../internal/LineRing.ts"
import * as Web from "../internal/Web.ts"
import type { Output, Piece } from "../Output.ts"
import * as LogFile from "./LogFile.ts"
import * as LogLine from "./LogLine.ts"
import type { LogStatus } from "./LogStatus.ts"

export { LogStatus } from "./LogStatus.ts"

/** Where the lines of one child go, and how they look there. */
export interface Sink {
  readonly file: LogFile.LogFile
  /** The text of an entry without a newline at its end. */
  readonly format: (entry: LogLine.Entry) => string
}

/** How lines are made; `colours` for all children, or for each by its name. */
export interface LineOptions extends Omit<LogLine.Options, "colours"> {
  readonly colours?: LogLine.Options["colours"] | ((child: string) => LogLine.Options["colours"])
}

export interface Options<R = never> extends LineOptions {
  /**
   * What is kept in memory of each child, in bytes, default 256 KiB. A line counts with two bytes for each character and
   * 96 for itself.
   */
  readonly ring?: number | undefined
  /** The file of a child, for as long as the scope lives; undefined for none. Default: none. See `files`. */
  readonly file?: ((child: string) => Effect.Effect<Sink | undefined, InvalidSpec, R>) | undefined
}

/**
 * Where to begin: with all that is kept, with the next line, with the last `lines`, or with what comes `after` a line of
 * this order, for a reader that comes back.
 */
export type From = "start" | "now" | { readonly lines: number } | { readonly after: number }

/** Which lines; by default all of all children, also of those that are added later. */
export interface Query {
  readonly children?: ReadonlyArray<string> | undefined
  readonly stream?: "stdout" | "stderr" | undefined
  /** Default: `start`. */
  readonly from?: From | undefined
}

export interface Logs {
  /**
   * Logs what a child writes, from what is still kept of it on, until the child is closed. Make the logs in the scope of
   * the children, before them, or in an outer one: then the last words of a child that is being stopped are logged too.
   */
  readonly add: (child: Child) => Effect.Effect<void, InvalidSpec>
  /** What is kept, in the order of time. */
  readonly read: (query?: Query) => Effect.Effect<ReadonlyArray<LogLine.Entry>, UnknownChild>
  /**
   * What is kept and then all that comes, in the order of time. Ends when the logs are closed, or all of the children
   * that were asked for.
   */
  readonly follow: (query?: Query) => Stream.Stream<LogLine.Entry, UnknownChild>
  readonly status: Effect.Effect<ReadonlyArray<LogStatus>>
  /** Other limits and rules, for the next lines of all children: the secrets of another configuration. */
  readonly setRules: (options: LineOptions) => Effect.Effect<void, InvalidSpec>
  /**
   * Waits until a child is closed and its last words are logged; at once when there is none of this name. Then another
   * one of the name can be added.
   */
  readonly awaitClosed: (child: string) => Effect.Effect<void>
  /** The file of a child. */
  readonly file: (child: string) => Effect.Effect<LogFile.LogFile, UnknownChild>
  /** Opens all files anew, as after SIGHUP: for files that somebody else has renamed. */
  readonly reopen: Effect.Effect<void, ReopenFailed>
  /** How many followers wait for the next line. */
  readonly waiting: Effect.Effect<number>
}

/** Closed children whose last lines are kept; of more the oldest go. */
const closedKept = 32

/** What may wait to be cut into lines, in bytes for each stream: what the system gives at once is read at once. */
const readAhead = 4 * 1024 * 1024

/** The most that a follower is given at once. */
const batchLines = 512
const batchBytes = 256 * 1024

/** How much goes to a file in one piece, in characters. */
const pieceLength = 32 * 1024

/** Turns of all fibers without a byte after which a log that is being closed has what there was. */
const quietTurns = 64

const encoder = Web.textEncoder()

/** The log of one child. */
class ChildLog {
  readonly id: string
  readonly ring: LineRing<LogLine.Entry>
  /** Until the child is closed. */
  open = true
  readonly closed = Deferred.makeUnsafe<void>()
  sink: Sink | undefined = undefined
  lines = 0
  bytes = 0
  missing = 0
  leftOut = 0

  constructor(id: string, ring: LineRing<LogLine.Entry>) {
    this.id = id
    this.ring = ring
  }

  get status(): Effect.Effect<LogStatus> {
    return Effect.gen({ self: this }, function*() {
      const file = this.sink === undefined ? null : yield* this.sink.file.status
      return {
        child: this.id,
        open: this.open,
        lines: this.lines,
        bytes: this.bytes,
        kept: { lines: this.ring.end - this.ring.first, bytes: this.ring.bytes },
        missing: this.missing,
        leftOut: this.leftOut,
        file
      }
    })
  }
}

/** The rules of each child. */
type RulesOf = (child: string) => LogLine.Rules

const rulesOf = ({ colours, ...options }: LineOptions): Result.Result<RulesOf, InvalidSpec> =>
  Result.gen(function*() {
    const strip = yield* LogLine.validate({ ...options, colours: "strip" })
    const keep = yield* LogLine.validate({ ...options, colours: "keep" })
    return (child) => (typeof colours === "function" ? colours(child) : colours) === "keep" ? keep : strip
  })

type MakeSink = (child: string) => Effect.Effect<Sink | undefined, InvalidSpec, Scope.Scope>

/** Where a follower is in the log of one child: the index of the next entry. */
type Cursors = Map<ChildLog, number>

class Book {
  private rulesOf: RulesOf
  private readonly ringBytes: number
  private readonly makeSink: MakeSink | undefined
  private readonly clock: Clock.Clock
  /** By id, in the order in which they were added. */
  private readonly logs = new Map<string, ChildLog>()
  private readonly fibers = new Set<Fiber.Fiber<unknown>>()
  private wakers = new Set<() => void>()
  private order = 0
  private progress = 0
  /** Rises when a log is added or closed. */
  private changes = 0
  private closed = false

  constructor(
    rulesOf: RulesOf,
    ringBytes: number,
    makeSink: MakeSink | undefined,
    clock: Clock.Clock
  ) {
    this.rulesOf = rulesOf
    this.ringBytes = ringBytes
    this.makeSink = makeSink
    this.clock = clock
  }

  // ------------------------------------------------------------------------------------------------ writing

  readonly add = (child: Child): Effect.Effect<void, InvalidSpec> =>
    Effect.uninterruptible(Effect.gen({ self: this }, function*() {
      const known = this.logs.get(child.id)
      const problem = this.closed ? "the logs are closed" : known?.open === true ? "it is logged already" : undefined
      if (problem !== undefined) return yield* new InvalidSpec({ field: child.id, problem })
      // The lines of a child of the same name that was before are still there.
      const log = new ChildLog(child.id, known?.ring ?? new LineRing<LogLine.Entry>(this.ringBytes))
      this.logs.delete(child.id)
      this.logs.set(child.id, log)
      this.changes++
      const scope = yield* Scope.make()
      log.sink = yield* (this.makeSink === undefined ? Effect.undefined : this.makeSink(child.id)).pipe(
        Scope.provide(scope),
        Effect.onError((cause) => {
          this.close(log)
          return Effect.ensuring(Scope.close(scope, Exit.failCause(cause)), Deferred.succeed(log.closed, undefined))
        })
      )
      const fiber = yield* Stream.runForEach(child.outputs, (outputs) => this.consume(log, outputs)).pipe(
        Effect.onExit((exit) => {
          this.close(log)
          // Then the file can be opened by another one.
          return Effect.ensuring(Scope.close(scope, exit), Deferred.succeed(log.closed, undefined))
        }),
        Effect.forkDetach({ startImmediately: true })
      )
      this.fibers.add(fiber)
      fiber.addObserver(() => this.fibers.delete(fiber))
    }))

  private close(log: ChildLog): void {
    log.open = false
    this.changes++
    const closed = [...this.logs.values()].filter(({ open }) => !open)
    for (const { id } of closed.slice(0, Math.max(0, closed.length - closedKept))) this.logs.delete(id)
    this.wake()
  }

  private consume(log: ChildLog, { incarnation, stderr, stdout }: Outputs): Effect.Effect<void> {
    return Effect.all([
      this.consumeOne(log, incarnation, "stdout", stdout),
      this.consumeOne(log, incarnation, "stderr", stderr)
    ], { concurrency: 2, discard: true })
  }

  private consumeOne(
    log: ChildLog,
    incarnation: number,
    stream: LogLine.Line["stream"],
    output: Output
  ): Effect.Effect<void> {
    return Effect.suspend(() => {
      const splitter = new LogLine.Splitter(this.rulesOf(log.id))
      const write = (lines: ReadonlyArray<string>) => this.write(log, incarnation, stream, lines)
      let expected = 0
      let leftOut = 0
      const take = ({ bytes, offset }: Piece) => {
        this.progress++
        log.bytes += bytes.length
        if (offset > expected) {
          write(splitter.end())
          this.miss(log, offset - expected)
        }
        expected = offset + bytes.length
        splitter.rules = this.rulesOf(log.id)
        write(splitter.feed(bytes))
        log.leftOut += splitter.leftOut - leftOut
        leftOut = splitter.leftOut
      }
      return Stream.runForEach(output.pieces(readAhead), (piece) => Effect.sync(() => take(piece))).pipe(
        Effect.catch((error: PlatformError.PlatformError) =>
          Effect.logWarning(`the ${stream} of a child can't be read: ${error.message}`)
        ),
        Effect.annotateLogs({ child: log.id, incarnation }),
        Effect.onExit(() => Effect.sync(() => write(splitter.end())))
      )
    })
  }

  private write(
    log: ChildLog,
    incarnation: number,
    stream: LogLine.Line["stream"],
    lines: ReadonlyArray<string>
  ): void {
    if (lines.length === 0) return
    const at = this.clock.currentTimeMillisUnsafe()
    const { id: child, ring, sink } = log
    let text = ""
    let count = 0
    const append = () => {
      sink?.file.append(encoder.encode(text), count)
      text = ""
      count = 0
    }
    for (const line of lines) {
      const entry: LogLine.Line = { _tag: "Line", child, incarnation, stream, at, order: ++this.order, text: line }
      ring.push(entry, line.length)
      if (sink === undefined) continue
      text += `${sink.format(entry)}\n`
      count++
      // Pieces are lost as a whole where the disk is too slow.
      if (text.length >= pieceLength) append()
    }
    log.lines += lines.length
    if (count > 0) append()
    this.wake()
  }

  private miss(log: ChildLog, bytes: number): void {
    log.missing += bytes
    const at = this.clock.currentTimeMillisUnsafe()
    const gap: LogLine.Gap = {
      _tag: "Gap",
      child: log.id,
      at,
      order: ++this.order,
      cause: "output",
      lines: 0,
      bytes
    }
    log.ring.push(gap, 0)
    log.sink?.file.append(encoder.encode(`${log.sink.format(gap)}\n`), 0)
    this.wake()
  }

  private wake(): void {
    if (this.wakers.size === 0) return
    const wakers = this.wakers
    this.wakers = new Set()
    for (const wake of wakers) wake()
  }

  // ------------------------------------------------------------------------------------------------ reading

  private select(children: ReadonlyArray<string> | undefined): Effect.Effect<ReadonlyArray<ChildLog>, UnknownChild> {
    return Effect.suspend(() => {
      if (children === undefined) return Effect.succeed([...this.logs.values()])
      const found: Array<ChildLog> = []
      for (const child of new Set(children)) {
        const log = this.logs.get(child)
        if (log === undefined) return Effect.fail(new UnknownChild({ child }))
        found.push(log)
      }
      return Effect.succeed(found)
    })
  }

  private cursorsOf(logs: ReadonlyArray<ChildLog>, from: From): Cursors {
    if (from === "start") return new Map(logs.map((log) => [log, log.ring.first]))
    if (from === "now") return new Map(logs.map((log) => [log, log.ring.end]))
    if ("lines" in from) {
      const orders = logs.flatMap(({ ring }) => ring.lastOrders(from.lines)).sort((a, b) => b - a)
      const wanted = Math.min(orders.length, Math.max(0, Math.trunc(from.lines)))
      const first = wanted === 0 ? Number.POSITIVE_INFINITY : orders[wanted - 1]!
      return new Map(logs.map((log) => [log, log.ring.after(first - 1)]))
    }
    // One before the first is missing, when something that should come is not there any more.
    return new Map(logs.map((log) => {
      const { ring } = log
      return [log, ring.droppedUpTo > from.after ? ring.first - 1 : ring.after(from.after)]
    }))
  }

  /** The next entries of these logs in their order; moves the cursors. */
  private take(
    cursors: Cursors,
    { from, stream }: Query,
    maxLines: number,
    maxBytes: number
  ): Array<LogLine.Entry> {
    const out: Array<LogLine.Entry> = []
    const heads: Array<{ readonly log: ChildLog; next: number }> = []
    for (const [log, cursor] of cursors) {
      const { ring } = log
      let next = cursor
      if (next < ring.first) {
        const known = !(typeof from === "object" && "after" in from) || next !== ring.first - 1
        out.push(this.readerGap(log, known ? ring.first - next : 0))
        next = ring.first
        cursors.set(log, next)
      }
      if (next < ring.end) heads.push({ log, next })
    }
    out.sort((a, b) => a.order - b.order)
    const gaps = out.splice(0)
    let bytes = 0
    while (heads.length > 0 && out.length < maxLines && bytes < maxBytes) {
      let best = 0
      for (let n = 1; n < heads.length; n++) {
        if (heads[n]!.log.ring.at(heads[n]!.next).order < heads[best]!.log.ring.at(heads[best]!.next).order) best = n
      }
      const head = heads[best]!
      const entry = head.log.ring.at(head.next++)
      cursors.set(head.log, head.next)
      if (head.next === head.log.ring.end) heads.splice(best, 1)
      while (gaps.length > 0 && gaps[0]!.order <= entry.order) out.push(gaps.shift()!)
      if (entry._tag === "Line" && stream !== undefined && entry.stream !== stream) continue
      out.push(entry)
      if (entry._tag === "Line") bytes += entry.text.length * 2
    }
    return [...out, ...gaps]
  }

  /** Lines of a log that a reader did not see; they were right before what is left. */
  private readerGap({ id, ring }: ChildLog, lines: number): LogLine.Gap {
    const next = ring.first < ring.end ? ring.at(ring.first) : undefined
    return {
      _tag: "Gap",
      child: id,
      at: next?.at ?? this.clock.currentTimeMillisUnsafe(),
      order: next?.order ?? this.order,
      cause: "reader",
      lines,
      bytes: 0
    }
  }

  readonly read: Logs["read"] = (query = {}) =>
    Effect.map(this.select(query.children), (logs) =>
      this.take(
        this.cursorsOf(logs, query.from ?? "start"),
        query,
        Number.POSITIVE_INFINITY,
        Number.POSITIVE_INFINITY
      ))

  readonly follow: Logs["follow"] = (query = {}) =>
    Stream.unwrap(Effect.map(this.select(query.children), (logs) => {
      const cursors = this.cursorsOf(logs, query.from ?? "start")
      let seen = this.changes
      const next: Effect.Effect<[LogLine.Entry, ...Array<LogLine.Entry>] | undefined> = Effect.suspend(() => {
        if (seen !== this.changes) this.meetNew(cursors, query)
        seen = this.changes
        const entries = this.take(cursors, query, batchLines, batchBytes)
        if (entries.length > 0) return Effect.succeed(entries as [LogLine.Entry, ...Array<LogLine.Entry>])
        // Of those that were asked for none will write any more.
        const over = this.closed || (query.children !== undefined && [...cursors.keys()].every((log) => !log.open))
        return over ? Effect.undefined : Effect.andThen(this.awaitMore, next)
      })
      return Stream.fromPull(
        Effect.succeed(
          Effect.flatMap(next, (entries) => entries === undefined ? Cause.done() : Effect.succeed(entries))
        )
      )
    }))

  /** Children that were added since, and those that have come back under their names; closed ones that went are left. */
  private meetNew(cursors: Cursors, { children }: Query): void {
    for (const log of this.logs.values()) {
      if (cursors.has(log) || (children !== undefined && !children.includes(log.id))) continue
      const before = [...cursors].find(([{ ring }]) => ring === log.ring)
      if (before !== undefined) cursors.delete(before[0])
      // From its very beginning: what is not there any more is told.
      cursors.set(log, before?.[1] ?? 0)
    }
    if (children !== undefined) return
    for (const [log, next] of cursors) {
      if (!log.open && next >= log.ring.end && this.logs.get(log.id) !== log) cursors.delete(log)
    }
  }

  private readonly awaitMore: Effect.Effect<void> = Effect.callback((resume) => {
    const wake = () => resume(Effect.void)
    this.wakers.add(wake)
    return Effect.sync(() => void this.wakers.delete(wake))
  })

  readonly waiting: Logs["waiting"] = Effect.sync(() => this.wakers.size)

  readonly status: Logs["status"] = Effect.suspend(() => Effect.forEach([...this.logs.values()], (log) => log.status))

  readonly setRules: Logs["setRules"] = (options) =>
    Effect.map(Effect.fromResult(rulesOf(options)), (rulesOf) => {
      this.rulesOf = rulesOf
    })

  readonly awaitClosed: Logs["awaitClosed"] = (child) =>
    Effect.suspend(() => {
      const log = this.logs.get(child)
      return log === undefined ? Effect.void : Deferred.await(log.closed)
    })

  readonly file: Logs["file"] = (child) =>
    Effect.suspend(() => {
      const file = this.logs.get(child)?.sink?.file
      return file === undefined ? Effect.fail(new UnknownChild({ child })) : Effect.succeed(file)
    })

  readonly reopen: Logs["reopen"] = Effect.suspend(() =>
    Effect.forEach(
      [...this.logs.values()].flatMap(({ open, sink }) => open && sink !== undefined ? [sink.file] : []),
      (file) => file.reopen,
      { concurrency: "unbounded", discard: true }
    )
  )

  // ------------------------------------------------------------------------------------------------ the end

  /** What the children have written is logged; those that still live are left. */
  readonly end: Effect.Effect<void> = Effect.gen({ self: this }, function*() {
    let seen = -1
    for (let quiet = 0; this.fibers.size > 0 && quiet < quietTurns; quiet++) {
      if (this.progress !== seen) quiet = 0
      seen = this.progress
      yield* Effect.yieldNow
    }
    this.closed = true
    yield* Fiber.interruptAll([...this.fibers])
    this.wake()
  })
}

/** How files are made. */
export interface FileOptions extends LogFile.Options {
  /** Default: timestamp, stream, text. */
  readonly layout?: LogLine.Layout | undefined
}

/** The longest name of a file, in bytes, with the number of an old one. */
const longestName = 240

/** The name of a child's file: what not every file system takes is written as `%` and two hex digits. */
export const fileName = (child: string): string =>
  `${
    [...encoder.encode(child)].map((byte) => {
      const char = String.fromCharCode(byte)
      return /[A-Za-z0-9._-]/.test(char) ? char : `%${byte.toString(16).padStart(2, "0")}`
    }).join("")
  }.log`

/** The rotating file of a child at this path; its directory is made when it is missing. */
export const fileAt = (
  path: string,
  child: string,
  options: FileOptions = {}
): Effect.Effect<Sink, InvalidSpec, FileSystem.FileSystem | Path.Path | Scope.Scope> => {
  const { layout } = options
  const describeLoss = (loss: LogFile.Loss): string => {
    const { at, bytes, lines, reason } = loss
    const time = new Date(at).toISOString()
    return layout === "json"
      ? JSON.stringify({ at: time, child, gap: "file", lines, bytes, reason })
      : `${layout?.timestamps === false ? "" : `${time} `}treeline: ${LogFile.describeLoss(loss)}`
  }
  const format = LogLine.formatter(layout)
  return Effect.map(LogFile.make(path, { describeLoss, ...options }), (file) => ({ file, format }))
}

/** One rotating file for each child, `CHILD.log`, in a directory that is made when it is missing. */
export const files =
  (directory: string, options: FileOptions = {}) =>
  (child: string): Effect.Effect<Sink, InvalidSpec, FileSystem.FileSystem | Path.Path | Scope.Scope> =>
    Effect.gen(function*() {
      const name = fileName(child)
      if (name.length > longestName) {
        return yield* new InvalidSpec({ field: child, problem: "is too long for the name of a file" })
      }
      return yield* fileAt((yield* Path.Path).join(directory, name), child, options)
    })

/**
 * Logs for as long as the scope lives.
 *
 * @example
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { Child, Restart } from "@treeline/core"
 * import { Logs } from "@treeline/core/daemon"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect, FileSystem } from "effect"
 * import { ChildProcess } from "effect/process"
 * import { deepStrictEqual } from "node:assert"
 *
 * const program = Effect.gen(function*() {
 *   const directory = yield* FileSystem.FileSystem.use((fs) => fs.makeTempDirectoryScoped())
 *   const logs = yield* Logs.make({ file: Logs.files(directory), redact: [/(token=)\S+/] })
 *   yield* Effect.scoped(Effect.gen(function*() {
 *     const child = yield* Child.start(Child.make("web", {
 *       command: ChildProcess.make("echo", ["up, token=abc"]),
 *       restart: Restart.temporary()
 *     }))
 *     yield* logs.add(child)
 *     yield* child.awaitEnd
 *   }))
 *   return (yield* logs.read()).map((entry) => entry._tag === "Line" ? entry.text : "")
 * })
 * const lines = await Effect.runPromise(
 *   program.pipe(Effect.scoped, Effect.provide([PosixPlatform.layer, NodeServices.layer]))
 * )
 * deepStrictEqual(lines, ["up, <redacted>"])
 * ```
 */
export const make = Effect.fn("Logs.make")(function*<R = never>(
  options: Options<R> = {}
): Effect.fn.Return<Logs, InvalidSpec, R | Scope.Scope> {
  const rules = yield* Effect.fromResult(rulesOf(options))
  const ring = options.ring ?? 256 * 1024
  if (!Number.isSafeInteger(ring) || ring <= 0) {
    return yield* new InvalidSpec({ field: "logs.ring", problem: "must be a whole number of bytes above 0" })
  }
  // Without our own scope: a file is closed with its child.
  const services: Context.Context<Exclude<R, Scope.Scope>> = Context.omit(Scope.Scope)(yield* Effect.context<R>())
  const { file } = options
  const makeSink = file === undefined
    ? undefined
    : (child: string) => Effect.provideContext(file(child), services) as ReturnType<MakeSink>
  const book = new Book(rules, ring, makeSink, yield* Clock.Clock)
  yield* Effect.addFinalizer(() => book.end)
  const { add, awaitClosed, file: fileOf, follow, read, reopen, setRules, status, waiting } = book
  return { add, read, follow, status, setRules, awaitClosed, file: fileOf, reopen, waiting }
})
