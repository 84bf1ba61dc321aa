/** Services that go on when their daemon ends, through the command and real daemons. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, type Scope, Semaphore } from "effect"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { CommandReport } from "treeline"
import { eventually, stays } from "../support/Eventually.ts"
import { fixture } from "../support/Host.ts"
import { identify, type Identity, isAlive, killIfAlive, signalIfAlive } from "../support/Processes.ts"
import * as Random from "../support/Random.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"
import * as Up from "../support/Up.ts"

const deaths = Number(process.env["TREELINE_KEPT_DEATHS"] ?? 2)

const state = (scratch: Scratch.Scratch, name = ""): string => path.join(scratch.file(".treeline"), name)

/** A port that nobody listens at now. */
const freePort = Effect.callback<number>((resume) => {
  const server = net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as net.AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** The pid that holds a claim. */
const holderOf = (scratch: Scratch.Scratch, claim: string): number | undefined => {
  try {
    return Number(/^(\d+)-/.exec(fs.readdirSync(state(scratch, claim))[0]!)?.[1])
  } catch {
    return undefined
  }
}

const daemonOf = (scratch: Scratch.Scratch): Identity => identify(holderOf(scratch, "daemon")!)!

const shimOf = (scratch: Scratch.Scratch, service = "web"): Identity => identify(holderOf(scratch, `keep-${service}`)!)!

/** What kills everything that a test may have left, by its own pid. */
const killAll = (scratch: Scratch.Scratch) =>
  Effect.sync(() => {
    for (const claim of fs.existsSync(state(scratch)) ? fs.readdirSync(state(scratch)) : []) {
      const pid = claim === "daemon" || /^keep-[^.]*$/.test(claim) ? holderOf(scratch, claim) : undefined
      const identity = pid === undefined ? undefined : identify(pid)
      if (identity !== undefined) killIfAlive(identity)
    }
  })

/** Most of the time each test waits for a process: a few at once keep two processors busy. */
const turns = Semaphore.makeUnsafe(3)

const real = (
  name: string,
  test: (scratch: Scratch.Scratch) => Effect.Effect<void, unknown, Scope.Scope>,
  limit = 120_000
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      yield* Effect.addFinalizer(() => killAll(scratch))
      yield* test(scratch)
    }).pipe(Effect.scoped, Semaphore.withPermit(turns)), limit)

/** A service of which there must be only one, which counts. */
const single = (scratch: Scratch.Scratch, name: string, role = "") => ({
  command: "perl",
  args: [fixture("single.pl"), name, scratch.report, scratch.file(`${name}.lock`), role],
  logs: { file: `${name}.log`, timestamps: false },
  shutdown: { steps: [{ action: "SIGTERM" as const, within: "2 seconds" }] }
})

const kept = (scratch: Scratch.Scratch, role = "") => ({
  ...single(scratch, "web", role),
  whenDaemonEnds: "keep" as const
})

const asked = <S extends Schema.Codec<unknown, unknown>>(
  scratch: Scratch.Scratch,
  argv: ReadonlyArray<string>,
  kind: keyof typeof CommandReport,
  schema: S
): Effect.Effect<S["Type"]> =>
  Effect.map(Command.run(["daemon", ...argv, "--json"], { scratch, sparesOthers: true }), (outcome) => {
    assert.isUndefined(Up.whyNot(kind, JSON.parse(outcome.stdout || outcome.stderr)), outcome.stdout + outcome.stderr)
    return Schema.decodeUnknownSync(Schema.fromJsonString(schema))(outcome.stdout)
  })

const run = (scratch: Scratch.Scratch, ...argv: ReadonlyArray<string>) =>
  asked(scratch, argv, "DaemonOutcome", CommandReport.DaemonOutcome)

const status = (scratch: Scratch.Scratch) => asked(scratch, ["status"], "DaemonStatus", CommandReport.DaemonStatus)

const text = (file: string): string => fs.existsSync(file) ? fs.readFileSync(file, "utf8") : ""

/** The numbers in the log of a service, in their order. */
const counted = (scratch: Scratch.Scratch, name = "web"): ReadonlyArray<number> =>
  [...text(scratch.file(`${name}.log`)).matchAll(/^stdout (\d+)$/gm)].map(([, digits]) => Number(digits))

const countsTo = (scratch: Scratch.Scratch, more: number) => {
  const from = counted(scratch).length
  return eventually("it counts on in its log", () => counted(scratch).length >= from + more, {
    detail: () => [text(scratch.file("web.log")).slice(-300), text(state(scratch, "daemon.log")).slice(-2000)]
  })
}

const named = (scratch: Scratch.Scratch, name: string) =>
  scratch.reported().filter((reported) => reported.name === name)

const nth = (scratch: Scratch.Scratch, name: string, count: number) =>
  Effect.map(
    eventually(`${name} has come up ${count} times`, () => named(scratch, name).length >= count, {
      within: 15_000,
      detail: () => [scratch.reported(), text(state(scratch, "daemon.log")).slice(-2000)]
    }),
    () => named(scratch, name)[count - 1]!
  )

/** Never two copies: a second one would have said so. */
const noSecond = (scratch: Scratch.Scratch) => assert.isEmpty(named(scratch, "second"))

const restartable = { restart: { backoff: { first: 20, max: 20 } } }

describe.concurrent("a kept service", () => {
  real(
    "peer 48: goes on when the daemon is restarted, with its pid, and not a line of it is lost or told twice",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: kept(scratch), other: single(scratch, "other") } })
        const first = yield* run(scratch, "start")
        const web = yield* nth(scratch, "web", 1)
        const other = yield* nth(scratch, "other", 1)
        const shim = shimOf(scratch)
        yield* countsTo(scratch, 20)
        const second = yield* run(scratch, "restart")
        assert.deepStrictEqual([second.status, second.forced], ["restarted", false])
        assert.notStrictEqual(second.pid, first.pid)
        yield* nth(scratch, "other", 2)
        assert.isFalse(isAlive(other), "every other one ends with the daemon")
        assert.deepStrictEqual([isAlive(web), isAlive(shim)], [true, true])
        assert.lengthOf(named(scratch, "web"), 1)
        yield* countsTo(scratch, 50)
        const numbers = counted(scratch)
        assert.deepStrictEqual(numbers, numbers.map((_, index) => index + 1))
        const { kept: list } = yield* status(scratch)
        assert.deepStrictEqual(list.map(({ host, pid, service }) => [service, host, pid]), [["web", shim.pid, web.pid]])
        const stopped = yield* run(scratch, "stop")
        assert.deepStrictEqual([stopped.status, stopped.ended], ["stopped", []])
        yield* scratch.awaitNoneLiving(0)
        assert.isFalse(isAlive(shim), "a stop leaves nothing")
        assert.isFalse(fs.existsSync(state(scratch, "keep-web")))
        assert.isFalse(fs.existsSync(state(scratch, "keep-web.sock")))
        noSecond(scratch)
      })
  )

  real(
    `peer 48: SIGKILL of the daemon at a random instant; ${deaths} deaths, never two copies, no gap`,
    (scratch) =>
      Effect.gen(function*() {
        const random = Random.make()
        Up.configure(scratch, { services: { web: kept(scratch), other: Up.role(scratch, "session") } })
        yield* run(scratch, "start")
        const web = yield* nth(scratch, "web", 1)
        for (let death = 1; death <= deaths; death++) {
          const at = performance.now() + random() * 200
          yield* eventually("the moment comes", () => performance.now() >= at)
          killIfAlive(daemonOf(scratch))
          yield* eventually("the others have ended", () => scratch.living().every(({ name }) => name === "web"))
          assert.isTrue(isAlive(web), `seed ${Random.seed}, death ${death}`)
          const again = yield* run(scratch, "start")
          assert.strictEqual(again.status, "started", `seed ${Random.seed}, death ${death}`)
          yield* countsTo(scratch, 10)
          assert.isTrue(isAlive(web))
        }
        const numbers = new Set(counted(scratch))
        const last = Math.max(...numbers)
        assert.isEmpty(
          Array.from({ length: last }, (_, index) => index + 1).filter((count) => !numbers.has(count)),
          "gaps"
        )
        yield* run(scratch, "stop")
        yield* scratch.awaitNoneLiving(0)
        noSecond(scratch)
      }),
    60_000 + 10_000 * deaths
  )

  real(
    "peer 49: when its shim is killed the whole tree has gone before it is launched anew",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, {
          services: {
            web: {
              ...kept(scratch, "daemon"),
              ...restartable,
              shutdown: { steps: [{ action: "SIGTERM", within: "200 millis" }] }
            }
          }
        })
        yield* run(scratch, "start")
        const web = yield* nth(scratch, "web", 1)
        const bare = yield* scratch.awaitNamed("bare")
        killIfAlive(shimOf(scratch))
        const again = yield* nth(scratch, "web", 2)
        assert.deepStrictEqual([isAlive(web), isAlive(bare), isAlive(again)], [false, false, true])
        // The same when nobody is there to see it.
        killIfAlive(daemonOf(scratch))
        killIfAlive(shimOf(scratch))
        yield* run(scratch, "start")
        yield* nth(scratch, "web", 3)
        assert.isFalse(isAlive(again))
        yield* run(scratch, "stop")
        yield* scratch.awaitNoneLiving(0)
        noSecond(scratch)
      })
  )

  real(
    "one that ended while no daemon was there: its code is told, what it said is in the log, its policy holds",
    (scratch) =>
      Effect.gen(function*() {
        const order = scratch.file("exit")
        Up.configure(scratch, {
          services: { web: { ...kept(scratch, `exits ${order}`), restart: { mode: "transient", successCodes: [7] } } }
        })
        yield* run(scratch, "start")
        const web = yield* nth(scratch, "web", 1)
        killIfAlive(daemonOf(scratch))
        fs.writeFileSync(order, "")
        yield* eventually("it has ended", () => !isAlive(web))
        yield* run(scratch, "start")
        yield* eventually("its end is told", () => text(state(scratch, "daemon.log")).includes("exited with code 7"), {
          detail: () => text(state(scratch, "daemon.log"))
        })
        yield* eventually("what it said last is in the log", () => text(scratch.file("web.log")).includes("last words"))
        yield* eventually("its shim has gone", () => !fs.existsSync(state(scratch, "keep-web")))
        yield* stays("it is not started again", () => named(scratch, "web").length === 1, 300)
        yield* run(scratch, "stop")
        yield* scratch.awaitNoneLiving(0)
      })
  )

  real(
    "peer 49: described otherwise it is ended first; one that is wanted no more is ended",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, {
          services: { web: kept(scratch), job: { ...single(scratch, "job"), whenDaemonEnds: "keep" } }
        })
        yield* run(scratch, "start")
        const web = yield* nth(scratch, "web", 1)
        const job = yield* nth(scratch, "job", 1)
        killIfAlive(daemonOf(scratch))
        Up.configure(scratch, { services: { web: { ...kept(scratch), env: { SECRET: "in no file" } } } })
        yield* run(scratch, "start")
        const again = yield* nth(scratch, "web", 2)
        assert.deepStrictEqual([isAlive(web), isAlive(again)], [false, true])
        yield* eventually("the other one has gone", () => !isAlive(job) && !fs.existsSync(state(scratch, "keep-job")))
        for (const entry of fs.readdirSync(state(scratch), { recursive: true, withFileTypes: true })) {
          const file = path.join(entry.parentPath, entry.name)
          // A draft may be gone before it is read.
          if (entry.isFile()) assert.notInclude(text(file), "in no file", file)
        }
        assert.notInclude(fs.readFileSync(`/proc/${shimOf(scratch).pid}/cmdline`, "utf8"), "in no file")
        yield* run(scratch, "stop")
        yield* scratch.awaitNoneLiving(0)
        noSecond(scratch)
      })
  )

  real(
    "peer 48: a recycled pid is not adopted; what can't be judged is told, and nothing is started",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: kept(scratch) } })
        const stranger = yield* Command.start([], { scratch, program: ["sleep", "60"], sparesOthers: true })
        const { pid, start } = identify(stranger.identity.pid)!
        const boot = fs.readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
        const claim = (name: string, text: string) => {
          fs.mkdirSync(state(scratch, "keep-web"), { recursive: true, mode: 0o700 })
          fs.chmodSync(state(scratch), 0o700)
          fs.writeFileSync(path.join(state(scratch, "keep-web"), name), text)
        }
        const leader = { pid, startTime: String(Number(start) - 1), boot }
        const info = {
          service: "web",
          version: "1",
          program: "treeline",
          listens: true,
          launched: { digest: "", leader, grace: 100 }
        }
        claim(`${pid}-00.json`, JSON.stringify({ holder: leader, since: 0, info }))
        yield* run(scratch, "start")
        const web = yield* nth(scratch, "web", 1)
        assert.notStrictEqual(shimOf(scratch).pid, pid)
        yield* run(scratch, "stop")
        assert.isFalse(isAlive(web))
        assert.isTrue(isAlive(stranger.identity), "the stranger was not touched")
        claim(`${pid}-00.json`, "something else")
        yield* run(scratch, "start")
        yield* eventually("it says what is wrong", () => text(state(scratch, "daemon.log")).includes("keep-web/"))
        assert.lengthOf(named(scratch, "web"), 1)
        const refused = yield* Command.run(["daemon", "stop", "--json"], { scratch, sparesOthers: true })
        assert.deepStrictEqual([refused.code, refused.stderr.includes("ClaimUndecided")], [4, true])
        fs.rmSync(state(scratch, "keep-web"), { recursive: true })
        yield* run(scratch, "stop")
      })
  )

  real(
    `peer 48: SIGKILL of the daemon while it starts; ${deaths} deaths, never two copies`,
    (scratch) =>
      Effect.gen(function*() {
        const random = Random.make()
        Up.configure(scratch, { services: { web: kept(scratch) } })
        for (let death = 1; death <= deaths; death++) {
          const starting = yield* Command.start(["daemon", "start", "--json"], { scratch, sparesOthers: true })
          yield* eventually("it has its record", () => holderOf(scratch, "daemon") !== undefined)
          const daemon = daemonOf(scratch)
          const at = performance.now() + random() * 700
          yield* eventually("the moment comes", () => performance.now() >= at)
          killIfAlive(daemon)
          yield* starting.ended
          yield* run(scratch, "start")
          yield* countsTo(scratch, 5)
          assert.lengthOf(scratch.living(), 1, `seed ${Random.seed}, death ${death}`)
          // From nothing each other time.
          if (death % 2 === 1) {
            yield* run(scratch, "stop")
            yield* scratch.awaitNoneLiving(0)
          }
        }
        yield* run(scratch, "stop")
        yield* scratch.awaitNoneLiving(0)
        assert.isEmpty(fs.readdirSync(state(scratch)).filter((name) => /^(daemon|keep-web|operation)$/.test(name)))
        noSecond(scratch)
      }),
    60_000 + 10_000 * deaths
  )

  real(
    "treeline up beside a living daemon that listens elsewhere is refused, and ends nothing",
    (scratch) =>
      Effect.gen(function*() {
        const services = { web: kept(scratch) }
        Up.configure(scratch, { services })
        const { pid } = yield* run(scratch, "start")
        const web = yield* nth(scratch, "web", 1)
        Up.configure(scratch, { services, daemon: { socket: state(scratch, "other.sock") } })
        const up = yield* Command.run(["up", "--json"], { scratch, sparesOthers: true })
        assert.include(up.stderr + up.stdout, "AlreadyRunning")
        assert.include(up.stderr + up.stdout, String(pid))
        assert.isTrue(isAlive(web))
        yield* run(scratch, "stop")
        yield* scratch.awaitNoneLiving(0)
        noSecond(scratch)
      })
  )

  real(
    "peer 49: another daemon.directory: what is kept in the old one ends first, by a restart and by a start",
    (scratch) =>
      Effect.gen(function*() {
        const services = { web: kept(scratch) }
        const elsewhere = scratch.file("elsewhere")
        Up.configure(scratch, { services })
        yield* run(scratch, "start")
        const first = yield* nth(scratch, "web", 1)
        Up.configure(scratch, { services, daemon: { directory: elsewhere } })
        const moved = yield* run(scratch, "restart")
        assert.strictEqual(moved.status, "restarted")
        const second = yield* nth(scratch, "web", 2)
        assert.deepStrictEqual([isAlive(first), isAlive(second)], [false, true])
        killIfAlive(identify(moved.pid!)!)
        Up.configure(scratch, { services })
        yield* run(scratch, "start")
        const third = yield* nth(scratch, "web", 3)
        assert.deepStrictEqual([isAlive(second), isAlive(third)], [false, true])
        yield* run(scratch, "stop")
        yield* scratch.awaitNoneLiving(0)
        noSecond(scratch)
      })
  )

  real(
    "peer 48: a start that is given up before the daemon is ready leaves what it has found",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: kept(scratch) } })
        yield* run(scratch, "start")
        const web = yield* nth(scratch, "web", 1)
        const isReady = () => {
          const [entry = ""] = fs.readdirSync(state(scratch, "daemon"))
          return !text(state(scratch, `daemon/${entry}`)).includes("\"readyAt\":null")
        }
        let caught = false
        for (let attempt = 0; attempt < 10 && !caught; attempt++) {
          killIfAlive(daemonOf(scratch))
          const dead = holderOf(scratch, "daemon")
          const starting = yield* Command.start(["daemon", "start", "--json"], { scratch, sparesOthers: true })
          let daemon: Identity | undefined = undefined
          yield* eventually("it has its record", () => {
            const pid = holderOf(scratch, "daemon")
            daemon = pid === undefined || pid === dead || !Number.isInteger(pid) ? undefined : identify(pid)
            return daemon !== undefined
          })
          const found: Identity = daemon!
          signalIfAlive(found.pid, "SIGSTOP")
          caught = !isReady()
          if (caught) signalIfAlive(found.pid, "SIGTERM")
          signalIfAlive(found.pid, "SIGCONT")
          if (caught) yield* eventually("it has ended", () => !isAlive(found))
          yield* starting.ended
        }
        assert.isTrue(caught)
        assert.isTrue(isAlive(web))
        yield* run(scratch, "start")
        yield* countsTo(scratch, 5)
        assert.lengthOf(named(scratch, "web"), 1)
        yield* run(scratch, "stop")
        yield* scratch.awaitNoneLiving(0)
      })
  )

  real(
    "an announcement that was heard is not awaited again, and its own port is not in its way",
    (scratch) =>
      Effect.gen(function*() {
        const port = yield* freePort
        const web = {
          ...kept(scratch),
          command: process.execPath,
          args: [
            "-e",
            `const net = require("node:net"), fs = require("node:fs"); setTimeout(() => {}, 60000)
          fs.appendFileSync(${JSON.stringify(scratch.report)}, "web " + process.pid + "\\n")
          net.createServer().listen(${port}, "127.0.0.1", () => console.log("it listens"))`
          ],
          ports: [{ host: "127.0.0.1", port }],
          readiness: { line: "it listens", within: 5000 }
        }
        const fd = {
          ...single(scratch, "fd"),
          command: "sh",
          args: ["-c", `echo "fd $$" >>"$1"; echo ready >&3; exec sleep 60`, "sh", scratch.report],
          readiness: { fd: 3, within: 5000 },
          whenDaemonEnds: "keep" as const
        }
        Up.configure(scratch, { services: { web, fd } })
        yield* run(scratch, "start")
        const both = [yield* nth(scratch, "web", 1), yield* nth(scratch, "fd", 1)]
        const ready = (count: number) =>
          eventually(`both are ready, ${count} times`, () => {
            const log = text(state(scratch, "daemon.log"))
            return [/web is ready/g, /fd is ready/g].every((pattern) => (log.match(pattern) ?? []).length >= count)
          }, { detail: () => text(state(scratch, "daemon.log")) })
        yield* ready(1)
        yield* run(scratch, "restart")
        yield* ready(2)
        assert.deepStrictEqual(both.map(isAlive), [true, true])
        yield* run(scratch, "stop")
        yield* scratch.awaitNoneLiving(0)
      })
  )

  real(
    "a shim that does not go on is killed by a stop, and all that it hosts ends",
    (scratch) =>
      Effect.gen(function*() {
        const steps = [{ action: "SIGTERM" as const, within: "100 millis" }]
        Up.configure(scratch, { services: { web: { ...kept(scratch), shutdown: { steps, cap: "100 millis" } } } })
        yield* run(scratch, "start")
        const web = yield* nth(scratch, "web", 1)
        yield* eventually("its launch is over", () => text(state(scratch, "daemon.log")).includes("web is ready"))
        const shim = shimOf(scratch)
        signalIfAlive(shim.pid, "SIGSTOP")
        const stopped = yield* run(scratch, "stop")
        assert.strictEqual(stopped.status, "stopped")
        assert.deepStrictEqual([isAlive(web), isAlive(shim)], [false, false])
      })
  )

  real(
    "a stop ends what a dead daemon has left, the status tells of it; TERM ends it with the daemon",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: kept(scratch) } })
        yield* run(scratch, "start")
        const web = yield* nth(scratch, "web", 1)
        killIfAlive(daemonOf(scratch))
        const found = yield* status(scratch)
        assert.deepStrictEqual([found.status, found.kept.map(({ pid }) => pid)], ["stale", [web.pid]])
        const nothing = yield* Command.run(["status"], { scratch, sparesOthers: true })
        assert.deepStrictEqual(
          [nothing.code, nothing.stderr.includes("web went on without it")],
          [3, true],
          nothing.stderr
        )
        const stopped = yield* run(scratch, "stop")
        assert.deepStrictEqual([stopped.status, stopped.ended], ["notRunning", ["web"]])
        assert.isFalse(isAlive(web))
        assert.isFalse(fs.existsSync(state(scratch, "keep-web")))
        const { pid } = yield* run(scratch, "start")
        const again = yield* nth(scratch, "web", 2)
        signalIfAlive(pid!, "SIGTERM")
        yield* eventually(
          "the daemon and its service have ended",
          () => identify(pid!) === undefined && !isAlive(again)
        )
        assert.isFalse(fs.existsSync(state(scratch, "keep-web")))
        noSecond(scratch)
      })
  )
})
