/** A detached daemon: its start and end by commands, its death at any instant, and what it keeps of its starter. */
import { assert, describe, it } from "@effect/vitest"
import { Daemon, PidRecord } from "@treeline/core/daemon"
import { NodeDetached, NodeStateFolder } from "@treeline/platform-node"
import { Effect, type Scope } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { ProcessPlatform } from "treeline"
import * as Daemons from "../support/Daemons.ts"
import * as DyingFolder from "../support/DyingFolder.ts"
import { eventually } from "../support/Eventually.ts"
import { identify, isAlive, killIfAlive, signalIfAlive, stateOf as processState } from "../support/Processes.ts"
import { program } from "../support/Programs.ts"
import * as Random from "../support/Random.ts"
import * as Scratch from "../support/Scratch.ts"

/** Deaths at random instants; rounds of two starts at once. */
const deaths = Number(process.env["TREELINE_DAEMON_DEATHS"] ?? 2)
const rounds = Number(process.env["TREELINE_DAEMON_ROUNDS"] ?? 1)

/** In the short form only in the middle of a write (of what has no middle it is after it), and at every second change. */
const isShort = process.env["TREELINE_DAEMON_DEATHS"] === undefined
const manners: ReadonlyArray<DyingFolder.Death["when"]> = isShort ? ["Half"] : ["Half", "After"]
const eachChange = isShort ? 2 : 1
const firstChange = isShort ? 1 + Math.floor(Random.make()() * 2) : 1

/**
 * How many changes a daemon makes in its state folder until it is ready, and a restart, at the least. The last one of a
 * daemon is what makes it ready: it may be seen, and answer, before it dies of it.
 */
const changesOfDaemon = 7
const changesOfCommand = 6

const real = (
  name: string,
  test: (scratch: Scratch.Scratch) => Effect.Effect<void, unknown, ProcessPlatform.ProcessPlatform | Scope.Scope>,
  limit?: number
) =>
  it.live(
    name,
    () => Effect.flatMap(Scratch.make, test).pipe(Effect.scoped, Effect.provide(Daemons.layer)),
    limit
  )

/** A command as a process of its own. */
const command = (scratch: Scratch.Scratch, verb: string, behaviour = "well", dies = "") =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const args = [program("daemonCommand"), verb, scratch.directory, behaviour, dies]
      const child = child_process.spawn(process.execPath, args, {
        stdio: ["ignore", "pipe", "inherit"],
        env: Daemons.environment(scratch)
      })
      let said = ""
      child.stdout.setEncoding("utf8").on("data", (chunk: string) => (said += chunk))
      const identity = identify(child.pid!)!
      let closed = false
      child.on("close", () => (closed = true))
      return {
        identity,
        ended: eventually(`the ${verb} ends`, () => closed, { within: 20_000 }),
        wasKilled: () => child.signalCode === "SIGKILL",
        said: () => said.trim()
      }
    }),
    ({ identity }) => Effect.sync(() => killIfAlive(identity))
  )

const stateOf = (scratch: Scratch.Scratch) =>
  Effect.flatMap(
    ProcessPlatform.ProcessPlatform,
    (platform) => PidRecord.read({ folder: NodeStateFolder.make(Daemons.folderOf(scratch)), platform })
  )

/** What is in the state folder beside what may always be there. */
const leftIn = (scratch: Scratch.Scratch): ReadonlyArray<string> =>
  fs.readdirSync(Daemons.folderOf(scratch)).filter((name) => !name.startsWith("daemon.err") && name !== "control.sock")

describe("a daemon", () => {
  real(
    "C34: started once, found by the second start, replaced by a restart, gone after a stop",
    (scratch) =>
      Effect.gen(function*() {
        const daemon = yield* Daemons.make(scratch)
        assert.strictEqual((yield* Daemon.status(daemon)).status, "notRunning")
        const first = yield* Daemon.start(daemon)
        assert.deepStrictEqual([first.status, first.managed, first.version], ["started", true, "1.2.3"])
        const second = yield* Daemon.start(daemon)
        assert.deepStrictEqual([second.status, second.pid], ["alreadyRunning", first.pid])
        const status = yield* Daemon.status(daemon)
        assert.deepStrictEqual([status.status, status.pid, status.answers], ["running", first.pid, true])
        yield* scratch.awaitNamed("leaf")
        const old = scratch.living()
        const third = yield* Daemon.restart(daemon)
        assert.strictEqual(third.status, "restarted")
        assert.notStrictEqual(third.pid, first.pid)
        assert.isFalse(old.some(isAlive), "the old one and its services have gone")
        const stopped = yield* Daemon.stop(daemon)
        assert.deepStrictEqual([stopped.status, stopped.pid, stopped.forced], ["stopped", third.pid, false])
        yield* scratch.awaitNoneLiving(0)
        assert.deepStrictEqual(fs.readdirSync(Daemons.folderOf(scratch)).toSorted(), [
          "daemon.err",
          "daemon.err.previous"
        ])
        assert.strictEqual((yield* Daemon.stop(daemon)).status, "notRunning")
      })
  )

  real(
    "C8: one that fails is told with the last whole lines of its stderr, and nothing is left",
    (scratch) =>
      Effect.gen(function*() {
        const daemon = yield* Daemons.make(scratch, "fails")
        const error = yield* Effect.flip(Daemon.start(daemon))
        assert.strictEqual(error._tag, "DaemonNotReady")
        if (error._tag !== "DaemonNotReady") return
        assert.deepStrictEqual([error.reason, error.status], ["Ended", { _tag: "Exited", code: 3 }])
        assert.strictEqual(error.errorTail, "the first whole line\nport 80 is taken\n")
        yield* scratch.awaitNoneLiving(0)
      })
  )

  real(
    "C27: what one has said is kept whole beside what the next one says, and what can't be kept holds up no start",
    (scratch) =>
      Effect.gen(function*() {
        const failing = yield* Daemons.make(scratch, "fails")
        const [file, previous] = ["daemon.err", "daemon.err.previous"].map((name) =>
          path.join(Daemons.folderOf(scratch), name)
        ) as [string, string]
        yield* Effect.flip(Daemon.start(failing))
        const said = fs.readFileSync(file, "utf8")
        assert.include(said, "port 80 is taken")
        yield* Effect.flip(Daemon.start(failing))
        assert.deepStrictEqual([fs.readFileSync(previous, "utf8"), fs.readFileSync(file, "utf8")], [said, said])
        // No file can be moved over a folder.
        fs.rmSync(previous)
        fs.mkdirSync(path.join(previous, "full"), { recursive: true })
        const daemon = yield* Daemons.make(scratch)
        assert.strictEqual((yield* Daemon.start(daemon)).status, "started")
        assert.strictEqual(fs.readFileSync(file, "utf8"), "", "begun anew")
        yield* Daemon.stop(daemon)
      })
  )

  real("one that does not get ready is ended", (scratch) =>
    Effect.gen(function*() {
      const daemon = yield* Daemons.make(scratch, "hangs")
      const error = yield* Effect.flip(Daemon.start(daemon, { readyWithin: 1500 }))
      assert.deepStrictEqual([error._tag, error._tag === "DaemonNotReady" && error.reason], [
        "DaemonNotReady",
        "TimedOut"
      ])
      yield* scratch.awaitNoneLiving(0)
    }))

  real("a program that is not there is told at once", (scratch) =>
    Effect.gen(function*() {
      const daemon = yield* Daemons.make(scratch)
      const launch = () =>
        NodeDetached.launch({ command: "/no/such/program", args: [], output: scratch.file("state/daemon.err") })
      const error = yield* Effect.flip(Daemon.start({ ...daemon, launch }))
      assert.deepStrictEqual([error._tag, error._tag === "LaunchError" && error.reason], ["LaunchError", "NotFound"])
    }))

  real(
    "C25: a stop kills after the grace, and at once without one; its services end too",
    (scratch) =>
      Effect.gen(function*() {
        const daemon = yield* Daemons.make(scratch, "stubborn")
        yield* Daemon.start(daemon)
        yield* scratch.awaitNamed("leaf")
        const late = yield* Daemon.stop(daemon)
        assert.deepStrictEqual([late.status, late.forced], ["stopped", true])
        assert.isAtLeast(late.milliseconds, 300)
        yield* scratch.awaitNoneLiving()
        yield* Daemon.start(daemon)
        assert.isTrue((yield* Daemon.stop(daemon, { grace: 0 })).forced)
        yield* scratch.awaitNoneLiving()
        for (const grace of [-1, Number.NaN, Number.POSITIVE_INFINITY, 300_001]) {
          assert.strictEqual((yield* Effect.flip(Daemon.stop(daemon, { grace })))._tag, "InvalidSpec")
        }
      })
  )

  real(
    "K12: one whose control does not answer is told to be there, and a stop ends it and its services",
    (scratch) =>
      Effect.gen(function*() {
        const daemon = yield* Daemons.make(scratch)
        const { pid } = yield* Daemon.start(daemon)
        yield* scratch.awaitNamed("leaf")
        // Stopped, so that the system accepts connections which nobody answers.
        signalIfAlive(pid!, "SIGSTOP")
        const status = yield* Daemon.status(daemon)
        assert.deepStrictEqual([status.status, status.pid, status.answers], ["running", pid, false])
        const stopped = yield* Daemon.stop(daemon, { grace: 200 })
        assert.deepStrictEqual([stopped.status, stopped.pid, stopped.forced], ["stopped", pid, true])
        yield* scratch.awaitNoneLiving()
      })
  )

  real(
    "peer 104: killed, it takes its services with it; the next start replaces its socket and its record",
    (scratch) =>
      Effect.gen(function*() {
        const daemon = yield* Daemons.make(scratch)
        const first = yield* Daemon.start(daemon)
        yield* scratch.awaitNamed("leaf")
        const killed = scratch.living().find(({ name }) => name === "daemon")
        killIfAlive(killed!)
        yield* scratch.awaitNoneLiving()
        assert.strictEqual((yield* Daemon.status(daemon)).status, "stale")
        assert.isTrue(fs.existsSync(path.join(Daemons.folderOf(scratch), "control.sock")), "its socket is still there")
        const second = yield* Daemon.start(daemon)
        assert.strictEqual(second.status, "started")
        assert.notStrictEqual(second.pid, first.pid)
        yield* Daemon.stop(daemon)
      })
  )

  real(
    "C32: what answers and was not started as the daemon is told by a start, and left alone by a stop",
    (scratch) =>
      Effect.gen(function*() {
        const daemon = yield* Daemons.make(scratch)
        fs.mkdirSync(Daemons.folderOf(scratch), { mode: 0o700 })
        yield* Effect.acquireRelease(
          Effect.callback<net.Server>((resume) => {
            const server = net.createServer((connection) => connection.end(`${process.pid} 0.9.0\n`))
            server.listen(path.join(Daemons.folderOf(scratch), "control.sock"), () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.sync(() => server.close())
        )
        const started = yield* Daemon.start(daemon)
        assert.deepStrictEqual([started.status, started.managed, started.pid], ["alreadyRunning", false, process.pid])
        assert.strictEqual((yield* Daemon.status(daemon)).status, "unmanaged")
        for (const operation of [Daemon.stop(daemon), Daemon.restart(daemon)]) {
          const error = yield* Effect.flip(operation)
          assert.deepStrictEqual([error._tag, error._tag === "Unmanaged" && error.pid], ["Unmanaged", process.pid])
        }
      })
  )

  real(
    "peer 113: a pipeline and a descriptor of its starter end at once; it has no terminal and a session of its own",
    (scratch) =>
      Effect.gen(function*() {
        const starter = `"$1" "$2" start "$3"`
        const piped = yield* Effect.acquireRelease(
          Effect.sync(() =>
            // 20 is above what Node closes by itself.
            child_process.spawn("bash", [
              "-c",
              `exec 20>&3 3>&-; (${starter}) | cat`,
              "bash",
              process.execPath,
              program("daemonCommand"),
              scratch.directory
            ], {
              stdio: ["ignore", "pipe", "inherit", "pipe"],
              detached: true,
              env: Daemons.environment(scratch)
            })
          ),
          (child) =>
            Effect.sync(() => {
              signalIfAlive(-child.pid!, "SIGKILL")
              for (const stream of child.stdio) stream?.destroy()
            })
        )
        let said = ""
        let ends = 0
        piped.stdout!.setEncoding("utf8").on("data", (chunk: string) => (said += chunk)).on("end", () => ends++)
        ;(piped.stdio[3] as net.Socket).on("end", () => ends++).resume()
        yield* eventually("both ends come", () => ends === 2, { within: 20_000, detail: () => ({ said, ends }) })
        assert.match(said, /^started \d+\n$/)
        const { pid } = yield* scratch.awaitNamed("daemon")
        assert.isDefined(identify(pid), "and the daemon lives")
        if (process.platform === "linux") {
          const fields = fs.readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]!.split(" ")
          assert.deepStrictEqual(
            [fields[2], fields[3], fields[4]],
            [String(pid), String(pid), "0"],
            "group, session, terminal"
          )
          for (const fd of [0, 1, 2]) {
            const link = fs.readlinkSync(`/proc/${pid}/fd/${fd}`)
            assert.strictEqual(link, fd === 0 ? "/dev/null" : path.join(Daemons.folderOf(scratch), "daemon.err"))
          }
        }
        yield* Daemon.stop(yield* Daemons.make(scratch))
      })
  )

  real(`peer 105: two commands at once start one daemon; ${rounds} rounds`, (scratch) =>
    Effect.gen(function*() {
      const daemon = yield* Daemons.make(scratch)
      for (let round = 0; round < rounds; round++) {
        const both = [yield* command(scratch, "start"), yield* command(scratch, "start")]
        for (const { ended } of both) yield* ended
        const said = both.map(({ said }) => said()).toSorted()
        const [first, second] = said.map((line) => line.split(" "))
        assert.deepStrictEqual([first![0], second![0]], ["alreadyRunning", "started"], said.join("; "))
        assert.strictEqual(first![1], second![1])
        assert.strictEqual((yield* Daemon.stop(daemon)).status, "stopped")
      }
    }), 60_000 + 5000 * rounds)

  real("C3: a stop ends one that is still starting, whose starter has died", (scratch) =>
    Effect.gen(function*() {
      const daemon = yield* Daemons.make(scratch)
      const starter = yield* command(scratch, "start", "hangs")
      // Before that it would find its starter dead, and end by itself.
      yield* scratch.awaitNamed("hanging")
      killIfAlive(starter.identity)
      yield* eventually("its starter is dead", () => !isAlive(starter.identity))
      const state = yield* stateOf(scratch)
      assert.strictEqual(state._tag, "Starting")
      const stopped = yield* Daemon.stop(daemon, { grace: 200 })
      assert.deepStrictEqual(
        [stopped.status, stopped.pid, stopped.forced],
        ["stopped", state._tag === "Starting" ? state.record.identity.pid : 0, true]
      )
      yield* scratch.awaitNoneLiving(0)
      assert.deepStrictEqual(leftIn(scratch), [])
    }))

  real(
    "C23: one that this process has started and forgotten is no zombie when it has died",
    (scratch) =>
      Effect.gen(function*() {
        const daemon = yield* Daemons.make(scratch)
        const { pid } = yield* Daemon.start(daemon)
        killIfAlive(identify(pid!)!)
        // Not only its main thread, which is a zombie while others are still ending.
        yield* eventually("it was reaped", () => processState(pid!) === undefined)
        assert.strictEqual((yield* Daemon.stop(daemon)).status, "notRunning")
        yield* scratch.awaitNoneLiving(0)
      })
  )

  for (const when of manners) {
    real(
      `peer 114: SIGKILL of the daemon at each change of its folder: ${when.toLowerCase()} a write`,
      (scratch) =>
        Effect.gen(function*() {
          const daemon = yield* Daemons.make(scratch)
          for (let at = firstChange;; at += eachChange) {
            const dying = yield* Daemons.make(scratch, DyingFolder.encode({ at, when }))
            const first = yield* Effect.result(Daemon.start(dying))
            const detail = `change ${at}`
            // Once it gets ready, its death is one of its orderly end.
            if (first._tag === "Success") yield* Daemon.stop(daemon)
            else assert.strictEqual(first.failure._tag, "DaemonNotReady", detail)
            assert.strictEqual((yield* Daemon.start(daemon)).status, "started", detail)
            assert.strictEqual((yield* Daemon.stop(daemon)).status, "stopped", detail)
            yield* scratch.awaitNoneLiving(0)
            assert.deepStrictEqual(leftIn(scratch), [], detail)
            if (first._tag === "Success") {
              assert.isAtLeast(at, changesOfDaemon, "it has met them")
              break
            }
          }
        }),
      120_000
    )

    real(
      `peer 114: SIGKILL of a command at each change of its folder: ${when.toLowerCase()} a write`,
      (scratch) =>
        Effect.gen(function*() {
          const daemon = yield* Daemons.make(scratch)
          for (let at = firstChange;; at += eachChange) {
            const dying = yield* command(scratch, "restart", "well", DyingFolder.encode({ at, when }))
            yield* dying.ended
            if (!dying.wasKilled()) {
              assert.isAtLeast(at, changesOfCommand, "it has met them")
              break
            }
            assert.include(["started", "alreadyRunning"], (yield* Daemon.start(daemon)).status, `change ${at}`)
          }
          assert.strictEqual((yield* Daemon.stop(daemon)).status, "stopped")
          yield* scratch.awaitNoneLiving(0)
          assert.deepStrictEqual(leftIn(scratch), [])
        }),
      120_000
    )
  }

  real(
    `peer 114: SIGKILL at random instants of daemon, starter or both; ${deaths} deaths`,
    (scratch) =>
      Effect.gen(function*() {
        const daemon = yield* Daemons.make(scratch)
        const random = Random.make()
        const upTo = (most: number) => Math.floor(random() * most)
        for (let death = 0; death < deaths; death++) {
          const verb = (["start", "stop", "restart"] as const)[upTo(3)]!
          if (verb !== "start") yield* Daemon.start(daemon)
          const known = scratch.reported().length
          const worker = yield* command(scratch, verb)
          const whom = upTo(3)
          const at = performance.now() + upTo(900)
          yield* eventually("the moment comes", () => performance.now() >= at)
          if (whom !== 0) killIfAlive(worker.identity)
          if (whom !== 1) {
            for (const one of scratch.reported().slice(verb === "start" ? known : 0)) {
              if (one.name === "daemon") killIfAlive(one)
            }
          }
          yield* eventually("the command has ended", () => !isAlive(worker.identity), { within: 20_000 })
          // A daemon that was just launched may still be on its way: the next start waits for it or replaces it.
          const next = yield* Daemon.start(daemon)
          const detail = `seed ${Random.seed}, death ${death}: ${verb}, ${whom}`
          assert.include(["started", "alreadyRunning"], next.status, detail)
          const state = yield* stateOf(scratch)
          assert.strictEqual(state._tag, "Running", detail)
          assert.strictEqual((yield* Daemon.stop(daemon)).status, "stopped", detail)
          yield* scratch.awaitNoneLiving()
          assert.deepStrictEqual(leftIn(scratch), [], detail)
        }
      }),
    30_000 + 10_000 * deaths
  )
})
