/** The logs of children on the simulated system, under the test clock. */
import { assert, describe, it } from "@effect/vitest"
import { Child, Restart, Supervisor } from "@treeline/core"
import { type LogLine, Logs } from "@treeline/core/daemon"
import { Program } from "@treeline/core/testing"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { LineRing } from "../../packages/core/src/internal/LineRing.ts"
import { advance, exits, onSystem, passing, process, settle } from "../support/Actors.ts"
import { MemoryFiles } from "../support/MemoryFiles.ts"

/** A line without its time: `web.1 stdout text`; a gap as `web missed 3`. */
const show = (entry: LogLine.Entry): string =>
  entry._tag === "Line"
    ? `${entry.child}.${entry.incarnation} ${entry.stream} ${entry.text}`
    : `${entry.child} missed ${entry.cause === "reader" ? entry.lines : `${entry.bytes} bytes`}`

const texts = (entries: ReadonlyArray<LogLine.Entry>): ReadonlyArray<string> =>
  entries.map((entry) => entry._tag === "Line" ? entry.text : show(entry))

const shown = (logs: Logs.Logs, query?: Logs.Query) =>
  Effect.map(Effect.orDie(logs.read(query)), (all) => all.map(show))

/** Everything that a follower is given until it ends. */
const collect = (logs: Logs.Logs, query?: Logs.Query) =>
  Effect.gen(function*() {
    const seen: Array<string> = []
    const fiber = yield* Effect.forkChild(
      Stream.runForEach(logs.follow(query), (entry) => Effect.sync(() => void seen.push(show(entry)))),
      { startImmediately: true }
    )
    return { seen, fiber }
  })

/** Writes a line. */
const say = (text: string, fd?: number) => Program.print(`${text}\n`, fd)

/** Writes a line each `ms`: `NAME 0`, `NAME 1` and so on. */
const ticks = (name: string, count: number, ms: number, first = 0) =>
  Program.make(
    Program.sleep(first),
    ...Array.from({ length: count }, (_, n) => [say(`${name} ${n}`), Program.sleep(ms)]).flat()
  )

const once = (id: string, program: Program.Program, policies: Omit<Child.Options, "command"> = {}) =>
  process(id, program, { restart: Restart.temporary(), ...policies })

describe("a child's log", () => {
  it.effect(
    "has both streams, the last line without a newline, and all incarnations",
    onSystem(function*() {
      const logs = yield* Logs.make()
      const crash = Program.make(say("up"), say("oops", 2), Program.write("panic: hal", 2), Program.exit(1))
      const child = yield* Child.start(process("web", crash, {
        restart: Restart.permanent({ backoff: Restart.exponential({ first: 10, max: 10, jitter: 0, times: 1 }) })
      }))
      yield* logs.add(child)
      yield* passing(child.awaitEnd)
      yield* settle
      assert.deepStrictEqual(yield* shown(logs), [
        "web.1 stdout up",
        "web.1 stderr oops",
        "web.1 stderr panic: hal",
        "web.2 stdout up",
        "web.2 stderr oops",
        "web.2 stderr panic: hal"
      ])
      assert.deepStrictEqual(yield* shown(logs, { stream: "stdout" }), ["web.1 stdout up", "web.2 stdout up"])
    })
  )

  it.effect(
    "begins with what is still kept of the child, and has its last words when all is closed",
    onSystem(function*() {
      const logs = yield* Logs.make()
      const scope = yield* Scope.make()
      const program = Program.make(
        Program.trap("SIGTERM", [say("bye"), Program.write("now"), Program.exit(0)]),
        say("early"),
        Program.endure
      )
      const child = yield* Scope.provide(Child.start(process("web", program)), scope)
      yield* advance(1000)
      yield* logs.add(child)
      const { fiber, seen } = yield* collect(logs, { children: ["web"] })
      yield* passing(Scope.close(scope, Exit.void))
      yield* passing(Fiber.join(fiber))
      assert.deepStrictEqual(seen, ["web.1 stdout early", "web.1 stdout bye", "web.1 stdout now"])
      assert.deepStrictEqual((yield* logs.status).map(({ child, lines, open }) => ({ child, lines, open })), [
        { child: "web", lines: 3, open: false }
      ])
    })
  )

  it.effect(
    "is bounded in bytes; a late reader gets the last lines",
    onSystem(function*() {
      const logs = yield* Logs.make({ ring: 1000 })
      const child = yield* Child.start(once("web", ticks("n", 100, 1)))
      yield* logs.add(child)
      yield* passing(child.awaitEnd)
      yield* settle
      const [status] = yield* logs.status
      assert.strictEqual(status!.lines, 100)
      assert.isAtMost(status!.kept.bytes, 1000)
      assert.strictEqual(status!.kept.lines, 9)
      assert.deepStrictEqual(texts(yield* logs.read({ from: { lines: 2 } })), ["n 98", "n 99"])
    })
  )

  it.effect(
    "of a child that has come back under its name goes on; two at a time are refused",
    onSystem(function*() {
      const logs = yield* Logs.make()
      const { fiber, seen } = yield* collect(logs)
      for (let n = 0; n < 3; n++) {
        yield* Effect.scoped(
          Effect.gen(function*() {
            const child = yield* Child.start(once("web", Program.make(say(`life ${n}`))))
            yield* logs.add(child)
            const again = yield* Effect.flip(logs.add(child))
            assert.strictEqual(again.message, "web: it is logged already")
            yield* passing(child.awaitEnd)
          }).pipe(passing)
        )
        yield* settle
      }
      const lives = ["web.1 stdout life 0", "web.1 stdout life 1", "web.1 stdout life 2"]
      assert.deepStrictEqual(yield* shown(logs), lives)
      assert.deepStrictEqual(seen, lives)
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect(
    "of 100 children that came and went: the last of some of them, and nothing grows",
    onSystem(function*() {
      const files = new MemoryFiles()
      const logs = yield* Logs.make({ file: Logs.files("/log") }).pipe(Effect.provide(files.layer))
      const { fiber, seen } = yield* collect(logs)
      for (let n = 0; n < 100; n++) {
        assert.isAtMost(files.open, 1)
        yield* Effect.scoped(Effect.gen(function*() {
          const child = yield* Child.start(once(`job${n}`, Program.make(say("done"))))
          yield* logs.add(child)
          yield* passing(child.awaitEnd)
        })).pipe(passing)
      }
      yield* settle
      assert.isAtMost((yield* logs.status).length, 33)
      assert.strictEqual(seen.length, 100)
      assert.strictEqual((yield* logs.read()).at(-1)!.child, "job99")
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect(
    "has the rules that hold when a line ends, and the colours of its child",
    onSystem(function*() {
      const logs = yield* Logs.make({ redact: ["hunter2"], colours: (child) => child === "vivid" ? "keep" : undefined })
      const program = Program.make(
        say("\u001b[31mhunter2 swordfish"),
        Program.write("\u001b[31mhunter2 "),
        Program.sleep(100),
        Program.write("swordfish\n")
      )
      yield* logs.add(yield* Child.start(once("web", program)))
      yield* logs.add(yield* Child.start(once("vivid", program)))
      yield* advance(50)
      yield* logs.setRules({ redact: ["swordfish"] })
      yield* advance(100)
      assert.deepStrictEqual(yield* shown(logs, { children: ["web"] }), [
        "web.1 stdout <redacted> swordfish",
        "web.1 stdout hunter2 <redacted>"
      ])
      assert.deepStrictEqual(
        (yield* shown(logs, { children: ["vivid"] }))[0],
        "vivid.1 stdout \u001b[31m<redacted> swordfish"
      )
      assert.strictEqual((yield* Effect.flip(logs.setRules({ redact: [""] }))).field, "logs.redact[0]")
    })
  )

  it.effect(
    "of a child that comes in the place of one that ends is added when the last words are there",
    onSystem(function*() {
      const logs = yield* Logs.make()
      const bye = Program.make(Program.trap("SIGTERM", [say("bye"), Program.exit(0)]), say("up"), Program.endure)
      yield* logs.awaitClosed("web")
      const scope = yield* Scope.make()
      yield* logs.add(yield* Scope.provide(Child.start(once("web", bye)), scope))
      yield* advance(10)
      const waits = yield* Effect.forkChild(logs.awaitClosed("web"), { startImmediately: true })
      yield* settle
      assert.isUndefined(waits.pollUnsafe())
      yield* passing(Scope.close(scope, Exit.void))
      yield* passing(Fiber.join(waits))
      yield* logs.add(yield* Child.start(once("web", bye)))
      yield* advance(10)
      assert.deepStrictEqual(texts(yield* logs.read()), ["up", "bye", "up"])
    })
  )

  it.effect(
    "is redacted and without colours in memory and in the file, with its rule for each line",
    onSystem(function*() {
      const files = new MemoryFiles()
      const logs = yield* Logs.make({
        redact: ["hunter2", /(token=)\w+/],
        file: Logs.files("/log", { layout: { timestamps: false } })
      }).pipe(Effect.provide(files.layer))
      const child = yield* Child.start(once(
        "web",
        Program.make(
          Program.write("\u001b[31mpass hun"),
          Program.sleep(10),
          Program.write("ter2 tok"),
          Program.sleep(10),
          Program.write("en=abc\n")
        )
      ))
      yield* logs.add(child)
      yield* passing(child.awaitEnd)
      yield* passing(Effect.flatMap(logs.file("web"), (file) => file.flush))
      assert.deepStrictEqual(yield* shown(logs), ["web.1 stdout pass <redacted> <redacted>"])
      assert.deepStrictEqual(files.contents(), { "/log/web.log": "stdout pass <redacted> <redacted>\n" })
    })
  )

  it.effect(
    "peer 60: goes on when its disk is full, and so does the child; the file says in its layout what is missing",
    onSystem(function*() {
      const files = new MemoryFiles()
      files.capacity = 0
      const logs = yield* Logs.make({ file: Logs.files("/log", { buffer: 400, layout: "json" }) }).pipe(
        Effect.provide(files.layer)
      )
      const child = yield* Child.start(once("web", ticks("n", 50, 100)))
      yield* logs.add(child)
      yield* passing(child.awaitEnd)
      assert.strictEqual((yield* child.status).state._tag, "Stopped")
      assert.strictEqual((yield* logs.read()).length, 50)
      files.capacity = Number.POSITIVE_INFINITY
      yield* passing(Effect.flatMap(logs.file("web"), (file) => file.flush))
      const written = files.read("/log/web.log").trimEnd().split("\n").map((line) =>
        JSON.parse(line) as { gap?: string }
      )
      const gaps = written.filter(({ gap }) => gap === "file") as unknown as ReadonlyArray<{ lines: number }>
      assert.isAtLeast(gaps.length, 1)
      const missing = gaps.reduce((sum, { lines }) => sum + lines, 0)
      assert.strictEqual(written.length - gaps.length + missing, 50)
      assert.strictEqual((yield* logs.status)[0]!.file!.lostLines, missing)
    })
  )
})

describe("files", () => {
  it("have names that every system takes and that are never the same for two children", () => {
    const names = ["web", "a.log", "..", "Ä b", "a:b", "%41", "CON"].map(Logs.fileName)
    assert.deepStrictEqual(names, [
      "web.log",
      "a.log.log",
      "...log",
      "%c3%84%20b.log",
      "a%3ab.log",
      "%2541.log",
      "CON.log"
    ])
  })

  it.effect(
    "a name that is too long is refused, and the child is not logged",
    onSystem(function*() {
      const logs = yield* Logs.make({ file: Logs.files("/log") }).pipe(Effect.provide(new MemoryFiles().layer))
      const child = yield* Child.start(once("x".repeat(300), exits(0)))
      assert.match((yield* Effect.flip(logs.add(child))).message, /too long/)
      assert.deepStrictEqual((yield* logs.status).map(({ open }) => open), [false])
      yield* passing(child.awaitEnd)
    })
  )
})

describe("followers", () => {
  it.effect(
    "ten services in the order of time; K16: the last lines over all; from the middle",
    onSystem(function*() {
      const logs = yield* Logs.make()
      const ids = Array.from({ length: 10 }, (_, n) => `s${n}`)
      const { fiber, seen } = yield* collect(logs)
      const supervisor = yield* Supervisor.start(
        // Each 100 ms all write, in an order of their own: s9 first.
        ids.map((id, n) => once(id, ticks(id, 20, 100, 10 * (10 - n))))
      )
      for (const id of ids) yield* logs.add(yield* supervisor.child(id))
      yield* advance(1005)
      const middle = (yield* logs.read()).at(-1)!
      yield* advance(5000)
      const all = yield* logs.read()
      assert.deepStrictEqual(
        texts(all),
        Array.from({ length: 20 }, (_, round) => ids.toReversed().map((id) => `${id} ${round}`)).flat()
      )
      assert.deepStrictEqual(seen, all.map(show))
      assert.deepStrictEqual(all.map(({ at }) => at), all.map(({ at }) => at).sort((a, b) => a - b))
      assert.deepStrictEqual(texts(yield* logs.read({ from: { lines: 3 } })), ["s2 19", "s1 19", "s0 19"])
      assert.deepStrictEqual(texts(yield* logs.read({ children: ["s1", "s7"], from: { lines: 3 } })), [
        "s1 18",
        "s7 19",
        "s1 19"
      ])
      const later = yield* logs.read({ from: { after: middle.order } })
      assert.deepStrictEqual(later, all.slice(all.indexOf(middle) + 1))
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect(
    "from now: only what comes; the last lines and what comes; a child that is added later is met",
    onSystem(function*() {
      const logs = yield* Logs.make()
      const a = yield* Child.start(once("a", ticks("a", 10, 100)))
      yield* logs.add(a)
      yield* advance(450)
      const now = yield* collect(logs, { from: "now" })
      const two = yield* collect(logs, { from: { lines: 2 }, children: ["a"] })
      const b = yield* Child.start(once("b", ticks("b", 2, 10)))
      yield* logs.add(b)
      yield* advance(300)
      assert.deepStrictEqual(now.seen, [
        "b.1 stdout b 0",
        "b.1 stdout b 1",
        "a.1 stdout a 5",
        "a.1 stdout a 6",
        "a.1 stdout a 7"
      ])
      assert.deepStrictEqual(two.seen.slice(0, 3), ["a.1 stdout a 3", "a.1 stdout a 4", "a.1 stdout a 5"])
      yield* Fiber.interrupt(now.fiber)
      yield* Fiber.interrupt(two.fiber)
    })
  )

  it.effect(
    "peer 110: one that is slow is told how many lines it missed; the others miss none",
    onSystem(function*() {
      const logs = yield* Logs.make({ ring: 2000 })
      const child = yield* Child.start(once("web", ticks("n", 200, 10)))
      yield* logs.add(child)
      const quick = yield* collect(logs)
      const pull = yield* Stream.toPull(logs.follow())
      yield* advance(5)
      assert.deepStrictEqual(texts(yield* pull), ["n 0"])
      yield* advance(10_000)
      const [gap, first] = yield* pull
      assert.deepStrictEqual(quick.seen.length, 200)
      assert.isDefined(first)
      const number = Number(/\d+/.exec(texts([first])[0]!)![0])
      assert.deepStrictEqual({ ...gap, at: 0 }, {
        _tag: "Gap",
        child: "web",
        at: 0,
        order: first.order,
        cause: "reader",
        lines: number - 1,
        bytes: 0
      })
      yield* Fiber.interrupt(quick.fiber)
    })
  )

  it.effect(
    "one that was there before the child is told what went before it could look",
    onSystem(function*() {
      const logs = yield* Logs.make({ ring: 1000 })
      const { fiber, seen } = yield* collect(logs)
      const all = Array.from({ length: 50 }, (_, n) => `${n}\n`).join("")
      const child = yield* Child.start(once("web", Program.make(Program.print(all), Program.endure)))
      yield* logs.add(child)
      yield* settle
      const [gap, ...lines] = seen
      assert.strictEqual(gap, `web missed ${50 - lines.length}`)
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect(
    "one that comes back after more than is kept is told that something is missing",
    onSystem(function*() {
      const logs = yield* Logs.make({ ring: 2000 })
      const child = yield* Child.start(once("web", ticks("n", 100, 10)))
      yield* logs.add(child)
      yield* passing(child.awaitEnd)
      const [gap, ...rest] = yield* logs.read({ from: { after: 1 } })
      assert.strictEqual(show(gap!), "web missed 0")
      assert.strictEqual(texts(rest).at(-1), "n 99")
      assert.strictEqual((yield* logs.read({ from: { after: rest[0]!.order - 1 } })).length, rest.length)
    })
  )

  it.effect(
    "K13: one that goes away in the middle of a line leaves nothing behind, also 1,000 times",
    onSystem(function*() {
      const logs = yield* Logs.make()
      const child = yield* Child.start(once("web", ticks("n", 5, 100)))
      yield* logs.add(child)
      for (let n = 0; n < 1000; n++) {
        const { fiber } = yield* collect(logs)
        if (n === 0) assert.strictEqual(yield* logs.waiting, 1)
        yield* Fiber.interrupt(fiber)
      }
      assert.strictEqual(yield* logs.waiting, 0)
      yield* passing(child.awaitEnd)
    })
  )

  it.effect(
    "of all end with the logs, of some with their children; an unknown child is an error",
    onSystem(function*() {
      const scope = yield* Scope.make()
      const logs = yield* Scope.provide(Logs.make(), scope)
      const child = yield* Child.start(once("web", ticks("n", 2, 10)))
      yield* logs.add(child)
      const { fiber, seen } = yield* collect(logs)
      const unknown = yield* Effect.flip(Stream.runDrain(logs.follow({ children: ["web", "db"] })))
      assert.strictEqual(unknown._tag, "UnknownChild")
      yield* passing(child.awaitEnd)
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(seen, ["web.1 stdout n 0", "web.1 stdout n 1"])
      assert.match((yield* Effect.flip(logs.add(child))).message, /closed/)
    })
  )

  it.effect(
    "the logs of a child that lives on can be closed before it",
    onSystem(function*() {
      const scope = yield* Scope.make()
      const logs = yield* Scope.provide(Logs.make(), scope)
      const child = yield* Child.start(once("web", Program.make(Program.write("unfinished"), Program.endure)))
      yield* logs.add(child)
      yield* settle
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* shown(logs), ["web.1 stdout unfinished"])
      assert.strictEqual((yield* child.status).state._tag, "Ready")
    })
  )

  it.effect(
    "what nobody read in time is said where it is missing",
    onSystem(function*() {
      const child = yield* Child.start(once(
        "web",
        Program.make(Program.writeBytes(300_000), say(""), say("late"), Program.endure)
      ))
      yield* advance(100)
      const logs = yield* Logs.make()
      yield* logs.add(child)
      yield* settle
      const seen = yield* shown(logs)
      assert.match(seen[0]!, /^web missed \d+ bytes$/)
      assert.strictEqual(seen.at(-1), "web.1 stdout late")
      assert.strictEqual((yield* logs.status)[0]!.missing, Number(/\d+/.exec(seen[0]!)![0]))
    })
  )
})

describe("the ring", () => {
  const filled = (limit: number, lengths: ReadonlyArray<number>) => {
    const ring = new LineRing<{ readonly order: number }>(limit)
    lengths.forEach((length, n) => ring.push({ order: (n + 1) * 10 }, length))
    return ring
  }

  it("keeps what fits, and the newest whatever it weighs", () => {
    const ring = filled(300, [1, 2, 3, 4, 5])
    assert.deepStrictEqual([ring.first, ring.end, ring.bytes, ring.droppedUpTo], [3, 5, 210, 30])
    assert.deepStrictEqual(ring.lastOrders(9), [40, 50])
    ring.push({ order: 60 }, 1_000_000)
    assert.deepStrictEqual([ring.first, ring.end, ring.at(5).order], [5, 6, 60])
  })

  it("finds the first after an order", () => {
    const ring = filled(10_000, [1, 1, 1])
    assert.deepStrictEqual([0, 9, 10, 15, 29, 30, 99].map((order) => ring.after(order)), [0, 0, 1, 1, 2, 3, 3])
  })

  it("gives back what it has dropped over 100,000 entries", () => {
    const ring = filled(10_000, Array(100_000).fill(4))
    assert.isBelow((ring as unknown as { readonly slots: ReadonlyArray<unknown> }).slots.length, 3000)
    assert.strictEqual(ring.at(ring.end - 1).order, 1_000_000)
  })
})
