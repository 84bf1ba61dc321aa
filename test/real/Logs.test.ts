/** The logs of real processes in real files: rotation, disks that fail, much output, and those who read. */
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Child, Restart, Supervisor } from "@treeline/core"
import { LogFile, type LogLine, Logs } from "@treeline/core/daemon"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Fiber, Layer, References, type Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { brief, sh } from "../support/Children.ts"
import { eventually } from "../support/Eventually.ts"
import { program } from "../support/Programs.ts"
import * as Scratch from "../support/Scratch.ts"

const services = Layer.mergeAll(
  PosixPlatform.layer,
  NodeServices.layer,
  Layer.succeed(References.MinimumLogLevel, "None")
)

const plain = { timestamps: false, stream: false }

/** Bytes in use after a collection. */
const used = (): number => {
  setFlagsFromString("--expose-gc")
  const collect = runInNewContext("gc") as () => void
  collect()
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

/** Starts a child and logs it. */
const logged = (
  logs: Logs.Logs,
  id: string,
  command: ChildProcess.StandardCommand,
  options: Omit<Child.Options, "command"> = {}
) =>
  Effect.gen(function*() {
    const child = yield* Child.start(
      Child.make(id, { command, restart: Restart.temporary(), shutdown: brief, ...options })
    )
    yield* logs.add(child)
    return child
  })

/** Waits until all that a child has written is in its file. */
const flushed = (logs: Logs.Logs, id: string, lines: number) =>
  Effect.gen(function*() {
    const seen = { lines: 0 }
    const look = yield* Effect.forkChild(Effect.forever(Effect.andThen(
      Effect.tap(logs.status, (all) =>
        Effect.sync(() => {
          seen.lines = all.find(({ child }) => child === id)?.lines ?? 0
        })),
      Effect.sleep(5)
    )))
    yield* eventually(`${lines} lines of ${id}`, () => seen.lines >= lines, { detail: () => seen, within: 20_000 })
    yield* Fiber.interrupt(look)
    yield* Effect.flatMap(logs.file(id), (file) => file.flush)
  })

/** The lines of a log file and its old ones, oldest first. */
const linesOf = (file: string): ReadonlyArray<string> => {
  const name = path.basename(file)
  return fs.readdirSync(path.dirname(file))
    .filter((other) => other === name || (other.startsWith(`${name}.`) && /^\d+$/.test(other.slice(name.length + 1))))
    .sort((a, b) => Number(b.slice(name.length + 1)) - Number(a.slice(name.length + 1)))
    .flatMap((other) => fs.readFileSync(path.join(path.dirname(file), other), "utf8").split("\n").slice(0, -1))
}

const numbers = (count: number): ReadonlyArray<string> => Array.from({ length: count }, (_, n) => String(n + 1))

/** `COUNT` lines with numbers, then it lives on. */
const counter = (count: number) => sh("seq \"$1\"; exec sleep 60", String(count))

/** A line every `pause` seconds. */
const ticker = (pause: string) => sh("n=0; while :; do n=$((n+1)); echo $n; sleep \"$1\"; done", pause)

const record = (file: LogFile.LogFile) =>
  Effect.gen(function*() {
    const events: Array<LogFile.LogFileEvent> = []
    yield* Effect.forkScoped(
      Stream.runForEach(file.events, (event) => Effect.sync(() => void events.push(event))),
      { startImmediately: true }
    )
    return events
  })

/** Mounts something over a directory for the test's scope. */
const mount = (directory: string, ...args: ReadonlyArray<string>): Effect.Effect<() => void, never, Scope.Scope> => {
  const unmount = () => void child_process.spawnSync("umount", ["-l", directory])
  return Effect.acquireRelease(
    Effect.sync(() => {
      const { status, stderr } = child_process.spawnSync("mount", [...args, directory])
      if (status !== 0) throw new Error(String(stderr))
      return unmount
    }),
    () => Effect.sync(unmount)
  )
}

const canMount = (() => {
  const directory = fs.mkdtempSync("/tmp/treeline-mount-")
  const done = child_process.spawnSync("mount", ["-t", "tmpfs", "none", directory]).status === 0
  if (done) child_process.spawnSync("umount", [directory])
  fs.rmdirSync(directory)
  return done
})()

layer(services, { excludeTestServices: true })("files", (it) => {
  it.effect("peer 59: the order of lines is kept over hundreds of rotations, and none is missing or there twice", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const logs = yield* Logs.make({
        file: Logs.files(scratch.directory, { maxBytes: 1000, keep: 1000, layout: plain })
      })
      yield* logged(logs, "web", counter(50_000))
      yield* flushed(logs, "web", 50_000)
      assert.deepStrictEqual(linesOf(scratch.file("web.log")), numbers(50_000))
      assert.isAbove((yield* Effect.flatMap(logs.file("web"), (file) => file.status)).rotations, 200)
      for (const name of fs.readdirSync(scratch.directory).filter((name) => name.startsWith("web.log"))) {
        assert.isAtMost(fs.statSync(scratch.file(name)).size, 1000)
      }
    }))

  it.effect("peer 61: two children rotate in one directory, at the limit exactly", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      // 100 lines of `seq 100000 ...` with 7 bytes each.
      const logs = yield* Logs.make({
        file: Logs.files(scratch.directory, { maxBytes: 700, keep: 1000, layout: plain })
      })
      const count = sh("seq 100001 110000; exec sleep 60")
      yield* logged(logs, "a", count)
      yield* logged(logs, "a.log", count)
      for (const id of ["a", "a.log"]) {
        yield* flushed(logs, id, 10_000)
        assert.deepStrictEqual(
          linesOf(scratch.file(`${id}.log`)),
          Array.from({ length: 10_000 }, (_, n) => String(100_001 + n))
        )
        assert.strictEqual((yield* Effect.flatMap(logs.file(id), (file) => file.status)).rotations, 99)
        assert.strictEqual(fs.statSync(scratch.file(`${id}.log.99`)).size, 700)
      }
    }))

  it.effect("peer 60: a file that is deleted under a child that writes is made anew; no line is lost", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const file = scratch.file("web.log")
      const logs = yield* Logs.make({ file: Logs.files(scratch.directory, { layout: plain }) })
      const child = yield* logged(logs, "web", ticker("0.01"))
      const parts: Array<number> = []
      for (let round = 0; round < 3; round++) {
        yield* eventually("lines", () => fs.existsSync(file) && linesOf(file).length > 5)
        // The deleted file can still be read here.
        parts.push(fs.openSync(file, "r"))
        if (round === 2) fs.rmSync(scratch.file("web.log"))
        else fs.unlinkSync(file)
      }
      yield* eventually("lines", () => fs.existsSync(file) && linesOf(file).length > 5)
      yield* child.stop()
      yield* Effect.flatMap(logs.file("web"), (file) => file.flush)
      const all = [...parts.map((fd) => fs.readFileSync(fd, "utf8")), fs.readFileSync(file, "utf8")].join("")
      for (const fd of parts) fs.closeSync(fd)
      const lines = all.trimEnd().split("\n")
      assert.deepStrictEqual(lines, numbers(lines.length))
    }))

  it.effect("renamed by somebody else and reopened on demand, as logrotate does: no line is lost", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const file = scratch.file("web.log")
      const logs = yield* Logs.make({ file: Logs.files(scratch.directory, { layout: plain }) })
      const child = yield* logged(logs, "web", sh("n=0; while :; do n=$((n+1)); echo $n; done"))
      for (let round = 9; round >= 1; round--) {
        yield* eventually("a file", () => fs.existsSync(file) && fs.statSync(file).size > 0)
        fs.renameSync(file, `${file}.${round}`)
        yield* logs.reopen
      }
      yield* child.stop()
      const { lines } = (yield* logs.status)[0]!
      yield* flushed(logs, "web", lines)
      assert.deepStrictEqual(linesOf(file), numbers(lines))
    }))

  it.effect("peer 60: /dev/full: said once, the child goes on, what is lost is counted", () =>
    Effect.gen(function*() {
      const child = yield* Child.start(Child.make("web", { command: counter(20_000), shutdown: brief }))
      const file = yield* LogFile.make("/dev/full", { buffer: 100_000, flushWithin: 0 })
      const events = yield* record(file)
      const logs = yield* Logs.make({ file: () => Effect.succeed({ file, format: (entry) => JSON.stringify(entry) }) })
      yield* logs.add(child)
      yield* eventually("it fails", () => events.length > 0)
      yield* Effect.sleep(500)
      assert.deepStrictEqual(events.map((event) => event._tag), ["Failing"])
      const status = yield* file.status
      assert.match(status.failing ?? "", /ENOSPC/)
      assert.isAtMost(status.waiting, 200_000)
      assert.strictEqual((yield* logs.status)[0]!.lines, 20_000)
      assert.strictEqual((yield* child.status).state._tag, "Ready")
    }))

  it.effect.skipIf(!canMount)(
    "peer 60: a full disk: the child goes on; when there is room the file does, too",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const disk = scratch.file("disk")
        fs.mkdirSync(disk)
        yield* mount(disk, "-t", "tmpfs", "-o", "size=64k", "none")
        const ballast = path.join(disk, "ballast")
        fs.writeFileSync(ballast, Buffer.alloc(48 * 1024))
        const logs = yield* Logs.make({ file: Logs.files(disk, { layout: plain, buffer: 4000, maxBytes: 1e6 }) })
        const child = yield* logged(logs, "web", ticker("0.001"))
        const file = yield* logs.file("web")
        const events = yield* record(file)
        fs.appendFileSync(ballast, Buffer.alloc(12 * 1024))
        yield* eventually("the disk is full", () => events.length > 0)
        const full = fs.readFileSync(path.join(disk, "web.log"), "utf8")
        const before = (yield* logs.status)[0]!.lines
        yield* Effect.sleep(1500)
        assert.isAbove((yield* logs.status)[0]!.lines, before + 100, "the child goes on")
        assert.strictEqual(events.length, 1)
        fs.truncateSync(ballast)
        yield* eventually("it is written again", () => events.length > 1)
        yield* child.stop()
        yield* file.flush
        assert.deepStrictEqual(events.map((event) => event._tag), ["Failing", "Recovered"])
        const text = fs.readFileSync(path.join(disk, "web.log"), "utf8")
        assert.isTrue(text.startsWith(full))
        // Every line is there, or counted where it is missing.
        let next = 1
        for (const line of text.trimEnd().split("\n")) {
          const gap = /^treeline: (\d+) lines/.exec(line)
          if (gap === null) assert.strictEqual(Number(line), next)
          next += gap === null ? 1 : Number(gap[1])
        }
        assert.strictEqual(next - 1, (yield* logs.status)[0]!.lines)
      })
  )

  it.effect.skipIf(!canMount)(
    "peer 60: a read-only directory: the file is written on, said once, rotated afterwards",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const directory = scratch.file("logs")
        fs.mkdirSync(directory)
        const logs = yield* Logs.make({ file: Logs.files(directory, { layout: plain, maxBytes: 100, keep: 1000 }) })
        const child = yield* logged(logs, "web", ticker("0.005"))
        const file = yield* logs.file("web")
        const events = yield* record(file)
        const seen = (tag: string) => events.filter(({ _tag }) => _tag === tag).length
        yield* eventually("a rotation", () => seen("Rotated") > 1)
        const unmount = yield* mount(directory, "--bind", directory)
        child_process.spawnSync("mount", ["-o", "remount,bind,ro", directory])
        yield* eventually("it can't be rotated", () => seen("Failing") > 0)
        yield* Effect.sleep(700)
        assert.strictEqual(seen("Failing"), 1)
        assert.isAbove(fs.statSync(path.join(directory, "web.log")).size, 150)
        unmount()
        yield* eventually("it is rotated again", () => seen("Recovered") > 0)
        yield* child.stop()
        yield* file.flush
        const lines = linesOf(path.join(directory, "web.log"))
        assert.deepStrictEqual(lines, numbers(lines.length))
        assert.strictEqual((yield* file.status).lostLines, 0)
      })
  )

  it.effect(
    "a host that is killed in the middle of rotations: what it wrote is there once, and the next one goes on",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const file = scratch.file("logs/web.log")
        for (let round = 0; round < 2; round++) {
          fs.rmSync(scratch.file("logs"), { recursive: true, force: true })
          for (let host = 0; host < 3; host++) {
            const args = [program("logHost"), scratch.file("logs")]
            const running = child_process.spawn(process.execPath, args, { stdio: "inherit" })
            yield* eventually("rotations", () => fs.existsSync(`${file}.${(host + 1) * 10 + round}`))
            running.kill("SIGKILL")
            yield* Effect.promise(() => new Promise((resolve) => running.on("exit", resolve)))
          }
          // Each host's own lines begin with 1; of one that was killed the last may be cut.
          const lines = linesOf(file)
          const runs: Array<Array<string>> = []
          for (const line of lines) {
            if (line === "1") runs.push([])
            runs.at(-1)!.push(line)
          }
          assert.strictEqual(runs.length, 3)
          for (const run of runs) {
            const last = run.at(-1)!
            const whole = last === String(run.length) ? run : run.slice(0, -1)
            assert.deepStrictEqual(whole, numbers(whole.length))
            assert.isTrue(String(run.length).startsWith(last))
          }
        }
      }),
    60_000
  )
})

layer(services, { excludeTestServices: true })("much output", (it) => {
  it.effect(
    "100 MB/s and more for 3 s: the child is not held up, memory is bounded, every line is there or counted",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const logs = yield* Logs.make({
          ring: 100_000,
          redact: ["hunter2", /(token=)\S+/],
          file: Logs.files(scratch.directory, { maxBytes: 20e6, keep: 2, buffer: 4e6 })
        })
        const before = used()
        let most = 0
        // A follower that never reads, and one that reads all.
        const idle = yield* Stream.toPull(logs.follow())
        let followed = 0
        let missed = 0
        yield* Effect.forkScoped(
          Stream.runForEach(logs.follow(), (entry) =>
            Effect.sync(() => {
              if (entry._tag === "Line") followed++
              else missed += entry.lines
            })),
          { startImmediately: true }
        )
        const child = yield* logged(logs, "yes", ChildProcess.make("yes", ["x".repeat(199)]))
        yield* idle
        for (let n = 0; n < 15; n++) {
          yield* Effect.sleep(200)
          most = Math.max(most, used())
        }
        yield* child.stop()
        yield* Effect.flatMap(logs.file("yes"), (file) => file.flush)
        yield* Effect.sleep(50)
        const [status] = yield* logs.status
        assert.isAbove(status!.bytes, 30e6, "it was not held up")
        assert.isBelow(most - before, 100e6, "memory")
        assert.isAtMost(status!.kept.bytes, 100_000)
        const exact = status!.missing === 0 ? 200 : status!.bytes / 100
        assert.isAtMost(Math.abs(status!.lines * 200 - status!.bytes), exact, "every byte is in a line")
        assert.isAtMost(Math.abs(followed + missed - status!.lines), 1, "a follower gets each line or its count")
        const onDisk = fs.readdirSync(scratch.directory).filter((name) => name.startsWith("yes")).map((name) =>
          fs.statSync(scratch.file(name)).size
        )
        assert.isAtMost(onDisk.reduce((sum, size) => sum + size, 0), 60e6)
        const [gap] = yield* idle
        assert.strictEqual(gap._tag, "Gap")
      }),
    60_000
  )

  it.effect("peer 110: a follower that never reads holds up neither the child nor the others", () =>
    Effect.gen(function*() {
      const logs = yield* Logs.make({ ring: 50_000 })
      const child = yield* logged(logs, "web", sh("echo 0; sleep 0.2; seq 100000; exec sleep 60"))
      const idle = yield* Stream.toPull(logs.follow())
      assert.strictEqual((yield* idle).length, 1)
      const lines = yield* logs.follow().pipe(
        Stream.takeUntil((entry) => entry._tag === "Line" && entry.text === "100000"),
        Stream.runFold(() => 0, (sum, entry) => sum + (entry._tag === "Line" ? 1 : entry.lines))
      )
      assert.isAbove(lines, 0)
      const [gap, first] = yield* idle
      assert.strictEqual(gap._tag === "Gap" ? gap.lines : 0, Number((first as LogLine.Line).text) - 1)
      assert.strictEqual((yield* child.status).state._tag, "Ready")
    }))
})

layer(services, { excludeTestServices: true })("views", (it) => {
  it.effect("ten services in the order of time, with what each wrote in its own order", () =>
    Effect.gen(function*() {
      const logs = yield* Logs.make()
      const ids = Array.from({ length: 10 }, (_, n) => `s${n}`)
      const supervisor = yield* Supervisor.start(ids.map((id) =>
        Child.make(id, {
          command: sh("n=0; while [ $n -lt 30 ]; do n=$((n+1)); echo $n; sleep 0.01; done"),
          restart: Restart.temporary()
        })
      ))
      for (const id of ids) yield* logs.add(yield* supervisor.child(id))
      const entries = yield* logs.follow().pipe(Stream.take(300), Stream.runCollect)
      const at = entries.map((entry) => entry.at)
      assert.deepStrictEqual(at, [...at].sort((a, b) => a - b))
      for (const id of ids) {
        const own = entries.flatMap((entry) => entry._tag === "Line" && entry.child === id ? [entry.text] : [])
        assert.deepStrictEqual(own, numbers(30))
      }
      // Not one after another.
      const changes = entries.filter((entry, n) => n > 0 && entry.child !== entries[n - 1]!.child).length
      assert.isAbove(changes, 20)
    }))

  it.effect("from the middle: the last lines, then all that comes, once each", () =>
    Effect.gen(function*() {
      const logs = yield* Logs.make()
      yield* logged(logs, "web", ticker("0.01"))
      yield* logs.follow().pipe(Stream.take(20), Stream.runDrain)
      const entries = yield* logs.follow({ from: { lines: 5 } }).pipe(Stream.take(30), Stream.runCollect)
      const texts = entries.map((entry) => entry._tag === "Line" ? Number(entry.text) : -1)
      assert.isAtLeast(texts[0]!, 16)
      assert.deepStrictEqual(texts, Array.from({ length: 30 }, (_, n) => texts[0]! + n))
      const rest = yield* logs.follow({ from: { after: entries[9]!.order } }).pipe(Stream.take(20), Stream.runCollect)
      assert.deepStrictEqual(rest, entries.slice(10))
    }))
})
