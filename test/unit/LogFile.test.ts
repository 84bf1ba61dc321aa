/** A rotating log file on a file system in memory, under the test clock. */
import { assert, describe, it } from "@effect/vitest"
import { LogFile } from "@treeline/core/daemon"
import {
  Clock,
  Deferred,
  Effect,
  Exit,
  Fiber,
  type FileSystem,
  type Path,
  References,
  Result,
  Schedule,
  Scope,
  Stream
} from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { fitting } from "../../packages/core/src/internal/LogWriter.ts"
import { advance, passing, settle } from "../support/Actors.ts"
import { type Code, MemoryFiles, type Operation } from "../support/MemoryFiles.ts"

const path = "/log/web.log"

const encoder = new TextEncoder()

const append = (file: LogFile.LogFile, ...lines: ReadonlyArray<string>): void => {
  for (const line of lines) file.append(encoder.encode(`${line}\n`), 1)
}

/** A test with files of its own. */
const onFiles = (
  test: (
    files: MemoryFiles
  ) => Generator<
    Effect.Effect<unknown, unknown, FileSystem.FileSystem | Path.Path | Scope.Scope>,
    void,
    never
  >
) =>
(): Effect.Effect<void, unknown> => {
  const files = new MemoryFiles()
  const body: Effect.Effect<void, unknown, FileSystem.FileSystem | Path.Path | Scope.Scope> = Effect.gen(() =>
    test(files)
  )
  return body.pipe(
    Effect.scoped,
    Effect.provide(files.layer),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.ensuring(Effect.sync(() => assert.strictEqual(files.open, 0, "no descriptor is left")))
  )
}

/** The events of a file from its first on, in words. */
const record = (file: LogFile.LogFile) =>
  Effect.gen(function*() {
    const events: Array<string> = []
    yield* Effect.forkScoped(
      Stream.runForEach(file.events, (event) =>
        Effect.sync(() =>
          void events.push(
            event._tag === "Failing"
              ? `Failing ${event.failed} ${event.reason.split(" ")[0]}`
              : event._tag === "Recovered"
              ? `Recovered ${event.lines}`
              : event._tag === "Reopened"
              ? `Reopened ${event.cause}`
              : event._tag
          )
        )),
      { startImmediately: true }
    )
    return events
  })

describe("rotation", () => {
  it.effect(
    "peer 61: exactly at the limit; files hold whole lines and none is over it",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path, { maxBytes: 10, keep: 3 })
      append(file, "1234", "5678", "abcd", "e", "f", "ghijklmnopqr", "s")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), {
        [`${path}.3`]: "1234\n5678\n",
        [`${path}.2`]: "abcd\ne\nf\n",
        [`${path}.1`]: "ghijklmnopqr\n",
        [path]: "s\n"
      })
      append(file, "123456789")
      yield* passing(file.flush)
      assert.deepStrictEqual(Object.values(files.contents()).sort(), [
        "123456789\n",
        "abcd\ne\nf\n",
        "ghijklmnopqr\n",
        "s\n"
      ])
    })
  )

  it.effect(
    "K16: a file that is over the limit is rotated before it is appended to, and the newest bytes are kept",
    onFiles(function*(files) {
      files.write(path, "an old line that is too long\n")
      const file = yield* LogFile.make(path, { maxBytes: 10 })
      append(file, "new")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), { [`${path}.1`]: "an old line that is too long\n", [path]: "new\n" })
    })
  )

  it.effect(
    "by age, also of a file that was there before; an idle file is left alone",
    onFiles(function*(files) {
      yield* TestClock.setTime(10_000)
      files.now = () => 10_000
      files.write(path, "before\n", 9_500)
      const file = yield* LogFile.make(path, { maxAge: "1 second" })
      append(file, "a")
      yield* passing(file.flush)
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(files.contents(), { [path]: "before\na\n" })
      append(file, "b")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), { [`${path}.1`]: "before\na\n", [path]: "b\n" })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* file.status).rotations, 1)
    })
  )

  it.effect(
    "keeps as many old files as asked, removes those of a time when more were kept, fills holes first",
    onFiles(function*(files) {
      for (const n of [1, 3, 4, 5]) files.write(`${path}.${n}`, `old ${n}\n`)
      const file = yield* LogFile.make(path, { maxBytes: 3, keep: 3 })
      append(file, "a", "b")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), {
        [`${path}.3`]: "old 3\n",
        [`${path}.2`]: "old 1\n",
        [`${path}.1`]: "a\n",
        [path]: "b\n"
      })
    })
  )

  it.effect(
    "on demand; not of an empty file",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path)
      yield* passing(file.rotate)
      append(file, "a")
      yield* passing(file.flush)
      yield* passing(file.rotate)
      append(file, "b")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), { [`${path}.1`]: "a\n", [path]: "b\n" })
    })
  )

  it.effect(
    "that is interrupted between rename and open loses nothing: the old file is written on, said once, and tried again",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path, { maxBytes: 4 })
      const events = yield* record(file)
      append(file, "a")
      yield* passing(file.flush)
      files.fault = (operation) => operation === "open" ? "EACCES" : undefined
      append(file, "bcd", "e")
      yield* passing(file.flush)
      append(file, "f")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), { [`${path}.1`]: "a\nbcd\ne\nf\n" })
      assert.deepStrictEqual(events, ["Failing rotate EACCES"])
      files.fault = () => undefined
      append(file, "g")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), { [`${path}.1`]: "a\nbcd\ne\nf\n", [path]: "g\n" })
      assert.deepStrictEqual(events, ["Failing rotate EACCES", "Reopened moved", "Recovered 0"])
      assert.isNull((yield* file.status).failing)
    })
  )

  it.effect(
    "leaves a file alone that somebody else has put there in this very moment",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path, { maxBytes: 4 })
      append(file, "abc")
      yield* passing(file.flush)
      let looks = 0
      files.fault = (operation, at) => {
        // The first look is before the write, the second right before the rename.
        if (operation === "stat" && at === path && ++looks === 2) {
          files.rename(path, "/else")
          files.write(path, "theirs\n")
        }
        return undefined
      }
      append(file, "d")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), { "/else": "abc\n", [path]: "theirs\nd\n" })
    })
  )

  it.effect(
    "peer 60: in a read-only directory the file is written on; said once, and rotated when it can be",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path, { maxBytes: 4 })
      const events = yield* record(file)
      append(file, "aaa")
      yield* passing(file.flush)
      files.fault = (operation) => operation === "rename" ? "EROFS" : undefined
      for (let n = 0; n < 20; n++) {
        append(file, `b${n}`)
        yield* passing(file.flush)
        yield* TestClock.adjust("1 second")
      }
      assert.deepStrictEqual(events, ["Failing rotate EROFS"])
      assert.strictEqual(files.read(path).split("\n").length, 22)
      files.fault = () => undefined
      yield* TestClock.adjust("5 seconds")
      append(file, "c")
      yield* passing(file.flush)
      assert.strictEqual(files.read(path), "c\n")
      assert.deepStrictEqual(events, ["Failing rotate EROFS", "Rotated", "Recovered 0"])
    })
  )
})

describe("a file that can't be written", () => {
  it.effect(
    "peer 60: a full disk is said once; the file says what is missing when there is room, and goes on by itself",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path, { buffer: 30 })
      const events = yield* record(file)
      append(file, "before")
      yield* passing(file.flush)
      files.capacity = 9
      append(file, "half of it")
      yield* settle
      for (let n = 0; n < 10; n++) {
        append(file, `line ${n}`)
        yield* TestClock.adjust("1 second")
      }
      assert.deepStrictEqual(events, ["Failing write ENOSPC"])
      assert.strictEqual(files.read(path), "before\nha")
      assert.match((yield* file.status).failing ?? "", /ENOSPC/)
      files.capacity = Number.POSITIVE_INFINITY
      yield* TestClock.adjust("5 seconds")
      yield* passing(file.flush)
      assert.strictEqual(
        files.read(path),
        "before\nhalf of it\ntreeline: 6 lines (42 bytes) are missing: ENOSPC (Unknown, write)\n" +
          "line 6\nline 7\nline 8\nline 9\n"
      )
      assert.deepStrictEqual(events, ["Failing write ENOSPC", "Recovered 6"])
      const { failing, lostBytes, lostLines, waiting } = yield* file.status
      assert.deepStrictEqual({ failing, lostBytes, lostLines, waiting }, {
        failing: null,
        lostBytes: 42,
        lostLines: 6,
        waiting: 0
      })
    })
  )

  it.effect(
    "peer 60: one that was deleted, or moved away with its directory, is made anew",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path)
      const events = yield* record(file)
      append(file, "a")
      yield* passing(file.flush)
      files.remove(path)
      append(file, "b")
      yield* passing(file.flush)
      files.rename(path, "/else")
      append(file, "c")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), { "/else": "b\n", [path]: "c\n" })
      assert.deepStrictEqual(events, ["Reopened moved", "Reopened moved"])
    })
  )

  it.effect(
    "a line that was half written when its file was deleted comes whole into the next one",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path)
      files.capacity = 6
      append(file, "one", "two")
      yield* settle
      assert.strictEqual(files.read(path), "one\ntw")
      files.remove(path)
      files.capacity = Number.POSITIVE_INFINITY
      yield* TestClock.adjust("1 second")
      yield* passing(file.flush)
      assert.strictEqual(files.read(path), "two\n")
    })
  )

  it.effect(
    "a line that fits into no file and was half written is ended where it was begun",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path, { maxBytes: 4 })
      files.longestWrite = 3
      let writes = 0
      files.fault = (operation) => operation === "write" && ++writes === 2 ? "EIO" : undefined
      append(file, "abcdefgh", "i")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), { [`${path}.1`]: "abcdefgh\n", [path]: "i\n" })
    })
  )

  it.effect(
    "one that can't be opened is no error of make; its retries follow the schedule, and one that ends begins anew",
    onFiles(function*(files) {
      const times: Array<number> = []
      const clock = yield* Clock.Clock
      files.fault = (operation) => {
        if (operation === "open") times.push(clock.currentTimeMillisUnsafe())
        return operation === "open" ? "EACCES" : undefined
      }
      const retry = Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 2 }))
      const file = yield* LogFile.make(path, { retry })
      append(file, "a")
      for (let n = 0; n < 5; n++) yield* advance(1000)
      assert.deepStrictEqual(times, [0, 1000, 2000, 3000, 4000, 5000])
      files.fault = () => undefined
      yield* passing(file.flush)
      assert.strictEqual(files.read(path), "a\n")
    })
  )

  it.effect(
    "a disk that hangs holds nobody up: what waits is bounded, the oldest is lost, counted and said",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path, { buffer: 70 })
      const events = yield* record(file)
      const gate = yield* Deferred.make<void>()
      files.hold = Deferred.await(gate)
      append(file, "first")
      yield* settle
      for (let n = 0; n < 1000; n++) append(file, `line ${String(n).padStart(4, "0")}`)
      assert.isAtMost((yield* file.status).waiting, 70 + 6)
      files.hold = Effect.void
      yield* Deferred.succeed(gate, undefined)
      yield* passing(file.flush)
      assert.strictEqual(
        files.read(path),
        "first\ntreeline: 993 lines (9930 bytes) are missing: the disk was too slow\n" +
          [993, 994, 995, 996, 997, 998, 999].map((n) => `line 0${n}\n`).join("")
      )
      assert.deepStrictEqual(events, ["Slow"])
    })
  )

  it.effect(
    "closing waits for a disk that hangs no longer than it is told",
    onFiles(function*(files) {
      const scope = yield* Scope.make()
      const file = yield* Scope.provide(LogFile.make(path, { flushWithin: "1 second" }), scope)
      append(file, "a")
      yield* passing(file.flush)
      const gate = yield* Deferred.make<void>()
      files.hold = Deferred.await(gate)
      append(file, "b")
      yield* settle
      const flush = yield* Effect.forkChild(file.flush, { startImmediately: true })
      const reopen = yield* Effect.forkChild(Effect.exit(file.reopen), { startImmediately: true })
      yield* passing(Scope.close(scope, Exit.void))
      yield* Fiber.join(flush)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(reopen)))
      assert.strictEqual(files.read(path), "a\n")
    })
  )

  it.effect(
    "what waits when it is closed is written",
    onFiles(function*(files) {
      const scope = yield* Scope.make()
      const file = yield* Scope.provide(LogFile.make(path), scope)
      append(file, "a", "b")
      yield* passing(Scope.close(scope, Exit.void))
      append(file, "too late")
      assert.strictEqual(files.read(path), "a\nb\n")
      assert.isTrue(Exit.isFailure(yield* Effect.exit(file.reopen)))
      yield* file.flush
    })
  )
})

describe("reopening on demand", () => {
  it.effect(
    "goes on in a new file after the old one was renamed, and tells when it can't",
    onFiles(function*(files) {
      const file = yield* LogFile.make(path)
      append(file, "a")
      yield* passing(file.flush)
      files.rename(path, "/log/web.log-2026")
      yield* passing(file.reopen)
      append(file, "b")
      yield* passing(file.flush)
      assert.deepStrictEqual(files.contents(), { "/log/web.log-2026": "a\n", [path]: "b\n" })
      files.fault = (operation) => operation === "open" ? "EACCES" : undefined
      const failed = yield* passing(Effect.flip(file.reopen))
      assert.strictEqual(failed.message, `${path} could not be opened: EACCES (PermissionDenied, open)`)
      append(file, "c")
      yield* passing(file.flush)
      assert.strictEqual(files.read(path), "b\nc\n")
    })
  )

  it.effect(
    "cuts a wait for the next attempt short",
    onFiles(function*(files) {
      files.fault = (operation) => operation === "open" ? "EACCES" : undefined
      const file = yield* LogFile.make(path, { retry: Schedule.spaced("1 hour") })
      append(file, "a")
      yield* settle
      files.fault = () => undefined
      yield* file.reopen
      yield* settle
      assert.strictEqual(files.read(path), "a\n")
    })
  )
})

describe("lines", () => {
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ do: fc.constant("append" as const), lengths: fc.array(fc.nat(14), { maxLength: 6 }) })
    },
    fc.record({ do: fc.constantFrom("flush", "rotate", "reopen", "moved", "wait", "turn") }),
    fc.record({
      do: fc.constant("fault" as const),
      operation: fc.constantFrom<Operation>("open", "write", "stat", "rename", "exists"),
      code: fc.constantFrom<Code>("EACCES", "EIO", "ENOSPC"),
      times: fc.integer({ min: 1, max: 4 })
    }),
    fc.record({ do: fc.constant("short" as const), bytes: fc.integer({ min: 1, max: 8 }) })
  )
  const steps = fc.array(step, { maxLength: 30 })
  const bounds = fc.record({
    maxBytes: fc.integer({ min: 1, max: 40 }),
    diesAt: fc.option(fc.integer({ min: 1, max: 120 }))
  })

  /** One random story; what was appended, and how much of it had been flushed. */
  const live = (
    files: MemoryFiles,
    { diesAt, maxBytes }: { readonly maxBytes: number; readonly diesAt: number | null },
    all: ReadonlyArray<typeof step extends fc.Arbitrary<infer A> ? A : never>
  ) =>
    Effect.gen(function*() {
      files.diesAt = diesAt ?? Number.POSITIVE_INFINITY
      const file = yield* LogFile.make(path, { maxBytes, keep: 1000 })
      const appended: Array<string> = []
      let flushed = 0
      let moved = 0
      for (const one of all) {
        if (files.operations >= files.diesAt) break
        switch (one.do) {
          case "append":
            for (const length of one.lengths) {
              const line = `${appended.length} ${"x".repeat(length)}`
              appended.push(line)
              append(file, line)
            }
            break
          case "fault": {
            let left = one.times
            files.fault = (operation) => operation === one.operation && left-- > 0 ? one.code : undefined
            break
          }
          case "short":
            files.longestWrite = one.bytes
            break
          case "moved":
            files.rename(path, `/moved/${moved++}`)
            break
          case "wait":
            yield* TestClock.adjust("5 seconds")
            break
          case "turn":
            yield* Effect.yieldNow
            break
          case "flush": {
            const flush = yield* Effect.forkChild(file.flush)
            for (let n = 0; n < 20 && flush.pollUnsafe() === undefined; n++) {
              yield* settle
              yield* TestClock.adjust("5 seconds")
            }
            if (flush.pollUnsafe() !== undefined) flushed = appended.length
            yield* Fiber.interrupt(flush)
            break
          }
          default:
            yield* Effect.forkScoped(Effect.ignore(one.do === "rotate" ? file.rotate : file.reopen))
        }
      }
      if (files.operations < files.diesAt) {
        yield* passing(file.flush)
        if (files.operations < files.diesAt) flushed = appended.length
      }
      return { appended, flushed }
    })

  /** Numbers of the lines that are whole somewhere. */
  const numbersIn = (files: MemoryFiles): ReadonlyArray<number> =>
    Object.values(files.contents()).flatMap((text) =>
      text.split("\n").slice(0, -1).flatMap((line) => {
        const match = /^(\d+) x*$/.exec(line)
        return match === null ? [] : [Number(match[1])]
      })
    )

  it.effect(
    "begin anew after one that somebody who died has left unfinished",
    onFiles(function*(files) {
      files.write(path, "whole\nhal")
      const file = yield* LogFile.make(path)
      append(file, "a", "b")
      yield* passing(file.flush)
      assert.strictEqual(files.read(path), "whole\nhal\na\nb\n")
    })
  )

  it.effect(
    "none is lost, doubled, cut or out of order, whatever fails and whoever dies when",
    () =>
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(bounds, steps, async (bounds, all) => {
            const files = new MemoryFiles()
            const dead = bounds.diesAt !== null
            await Effect.runPromise(
              Effect.gen(function*() {
                const scope = yield* Scope.make()
                const living = yield* Effect.forkChild(Scope.provide(live(files, bounds, all), scope))
                for (let n = 0; n < 400 && living.pollUnsafe() === undefined; n++) {
                  if (files.operations >= files.diesAt) break
                  yield* settle
                  yield* TestClock.adjust("1 second")
                }
                if (living.pollUnsafe() === undefined) yield* Fiber.interrupt(living)
                const lived = living.pollUnsafe()
                const found = [...numbersIn(files)].sort((a, b) => a - b)
                assert.deepStrictEqual(found, [...new Set(found)], "no line is doubled")
                if (lived !== undefined && Exit.isSuccess(lived)) {
                  const { appended, flushed } = lived.value
                  const missing = Array.from({ length: flushed }, (_, n) => n).filter((n) => !found.includes(n))
                  assert.deepStrictEqual(missing, [], "no line that was flushed is lost")
                  if (!dead) assert.strictEqual(found.length, appended.length)
                }
                // The next process goes on with what is there.
                files.diesAt = Number.POSITIVE_INFINITY
                files.fault = () => undefined
                const before = found.length
                const next = yield* LogFile.make(path, { maxBytes: bounds.maxBytes, keep: 1000 })
                append(next, "1000000 x")
                yield* passing(next.flush)
                const after = [...numbersIn(files)]
                assert.isAtLeast(after.length, before, "nothing of the first process is lost")
                assert.strictEqual(after.filter((n) => n === 1000000).length, 1, "no line is joined to another")
                for (const text of Object.values(files.contents())) {
                  const numbers = [...text.matchAll(/^(\d+) x*$/gm)].map((match) => Number(match[1]))
                  assert.deepStrictEqual(numbers, [...numbers].sort((a, b) => a - b), "in order")
                }
                yield* Effect.forkDetach(Scope.close(scope, Exit.void))
              }).pipe(
                Effect.scoped,
                Effect.provide([files.layer, TestClock.layer()]),
                Effect.provideService(References.MinimumLogLevel, "None")
              )
            )
          }),
          { numRuns: 150 }
        )
      ),
    60_000
  )
})

describe("tail", () => {
  it.effect(
    "K16: reads the last lines over the files without whoever writes them",
    onFiles(function*(files) {
      assert.deepStrictEqual(yield* LogFile.tail(path), [])
      files.write(`${path}.2`, "1\n2\n")
      files.write(`${path}.1`, "3\n4\n")
      files.write(path, "5\n\n7")
      assert.deepStrictEqual(yield* LogFile.tail(path), ["1", "2", "3", "4", "5", "", "7"])
      assert.deepStrictEqual(yield* LogFile.tail(path, { lines: 4 }), ["4", "5", "", "7"])
      assert.deepStrictEqual(yield* LogFile.tail(path, { lines: 0 }), [])
      assert.deepStrictEqual(yield* LogFile.tail(path, { maxBytes: 3 }), ["", "7"])
      assert.deepStrictEqual(yield* LogFile.tail(path, { maxBytes: 6 }), ["5", "", "7"])
      // So many of those that are wanted, however many others come after them.
      const wanted = (line: string) => line !== "" && Number(line) < 4
      assert.deepStrictEqual(yield* LogFile.tail(path, { lines: 2, wanted }), ["2", "3"])
      assert.deepStrictEqual(yield* LogFile.tail(path, { maxBytes: 5, wanted }), [])
      files.remove(path)
      assert.deepStrictEqual(yield* LogFile.tail(path, { lines: 1 }), ["4"])
    })
  )
})

describe("bounds", () => {
  it("that are none are refused", () => {
    for (
      const options of [
        { maxBytes: 0 },
        { keep: 0 },
        { keep: 1001 },
        { maxAge: 0 },
        { maxAge: Number.NaN },
        { buffer: 0.5 },
        { mode: 0o1000 },
        { flushWithin: Number.POSITIVE_INFINITY }
      ]
    ) {
      assert.isTrue(Result.isFailure(LogFile.validate(options)), JSON.stringify(options))
    }
  })

  it("fitting: whole lines up to the room, a line that fits nowhere alone into an empty file", () => {
    const bytes = encoder.encode("ab\ncd\nef\n")
    assert.deepStrictEqual([9, 8, 6, 5, 3, 2, 0, -1].map((room) => fitting(bytes, room, false)), [
      9,
      6,
      6,
      3,
      3,
      0,
      0,
      0
    ])
    assert.strictEqual(fitting(bytes, 2, true), 3)
  })
})
