/**
 * All the ways in which a host dies, and what becomes of its trees. What each case proves can fail: the same scenario on
 * child_process leaves the tree behind.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as Leftovers from "../../packages/platform-posix/src/internal/Leftovers.ts"
import { eventually, stays } from "../support/Eventually.ts"
import * as Host from "../support/Host.ts"
import { identify, isAlive, killIfAlive, stateOf } from "../support/Processes.ts"
import * as Random from "../support/Random.ts"
import * as Scratch from "../support/Scratch.ts"

/** How many hosts are killed in the midst of launching. */
const killRounds = Number(process.env["TREELINE_KILL_ROUNDS"] ?? 40)

/** How late, in microseconds, and how long their trees may take to be gone, in ms. */
const latestKill = 80_000
const killDeadline = 5000

/** How long what must survive is observed, in ms. */
const window = 300

const both = ["treeline", "node"] as const

/** On Treeline nothing is left; on child_process the tree lives on. */
const outcome = Effect.fn(function*(on: typeof both[number], host: Host.Host, scratch: Scratch.Scratch) {
  yield* host.awaitDead
  if (on === "node") return yield* stays("the tree lives", () => scratch.living().length > 0, window)
  yield* host.awaitNoDescendants()
  yield* scratch.awaitNoneLiving()
})

const title = (on: typeof both[number], what: string) =>
  on === "treeline" ? what : `${what} (negative control: child_process leaves the tree)`

describe.runIf(process.platform === "linux")("the host dies", () => {
  describe("peer 36: SIGKILL", () => {
    it.live("the tree is gone within 2 s", () =>
      Effect.gen(function*() {
        const times: Array<number> = []
        // The best of three, because the machine may be busy.
        for (let run = 0; run < 3; run++) {
          times.push(
            yield* Effect.scoped(Effect.gen(function*() {
              const scratch = yield* Scratch.make
              const command = Host.treeCommand("grandchild", scratch)
              const host = yield* Host.start({ on: "treeline", scratch, spec: { command } })
              yield* scratch.awaitReported(3)
              const killedAt = performance.now()
              host.signal("SIGKILL")
              yield* scratch.awaitNoneLiving()
              return performance.now() - killedAt
            }))
          )
        }
        assert.isBelow(Math.min(...times), 2000)
      }))

    it.live("the tree is gone where processes are looked up by ps, also what has left the group", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const spec = { command: Host.treeCommand("session", scratch), table: "ps", tag: false } as const
        const host = yield* Host.start({ on: "treeline", scratch, spec })
        yield* scratch.awaitReported(3)
        host.signal("SIGKILL")
        yield* outcome("treeline", host, scratch)
      }))

    it.live("control: on child_process it lives on", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const command = Host.treeCommand("grandchild", scratch)
        const host = yield* Host.start({ on: "node", scratch, spec: { command } })
        yield* scratch.awaitReported(3)
        host.signal("SIGKILL")
        yield* host.awaitDead
        yield* stays("the tree lives", () => scratch.living().length === 3, 2000)
      }))
  })

  const selfMade = {
    "peer 37: process.exit(0) in a callback": { order: "exit", says: "" },
    "peer 38: an uncaught exception": { order: "throw", says: "thrown on purpose" },
    "peer 38: an unhandled rejection": { order: "reject", says: "rejected on purpose" }
  }
  for (const [name, { order, says }] of Object.entries(selfMade)) {
    for (const on of both) {
      for (const runMain of on === "node" ? [false] : [true, false]) {
        it.live(title(on, `${name}${runMain ? ", with runMain" : ""}`), () =>
          Effect.gen(function*() {
            const scratch = yield* Scratch.make
            const command = Host.treeCommand("grandchild", scratch)
            const host = yield* Host.start({ on, scratch, spec: { command, runMain } })
            yield* scratch.awaitReported(3)
            host.order(order)
            yield* outcome(on, host, scratch)
            yield* eventually("it has died of this", () => host.errors().includes(says))
          }))
      }
    }
  }

  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const) {
    for (const on of both) {
      for (const runMain of on === "node" ? [false] : [true, false]) {
        it.live(title(on, `peer 39: ${signal}${runMain ? " with runMain" : ""}`), () =>
          Effect.gen(function*() {
            const scratch = yield* Scratch.make
            const command = Host.treeCommand("session", scratch)
            const host = yield* Host.start({ on, scratch, spec: { command, runMain } })
            yield* scratch.awaitReported(3)
            host.signal(signal)
            yield* outcome(on, host, scratch)
          }))
      }
    }
  }

  for (const on of both) {
    for (const runMain of on === "node" ? [false] : [true, false]) {
      it.live(
        title(on, `peer 39: the terminal is closed${runMain ? ", with runMain" : ""}`),
        () =>
          Effect.gen(function*() {
            const scratch = yield* Scratch.make
            const host = yield* Host.start({
              on,
              scratch,
              spec: { command: Host.treeCommand("session", scratch), runMain },
              through: ["python3", Host.fixture("terminal.py")]
            })
            const terminal = Number(yield* host.awaitLine("terminal"))
            yield* scratch.awaitReported(3)
            process.kill(terminal, "SIGKILL")
            yield* outcome(on, host, scratch)
          })
      )
    }

    it.live(
      title(on, "peer 40: the host is stopped, then killed, while it stops a tree"),
      () =>
        Effect.gen(function*() {
          const scratch = yield* Scratch.make
          const command = Host.treeCommand("asked", scratch)
          const host = yield* Host.start({ on, scratch, spec: { command, grace: 1000 } })
          yield* scratch.awaitReported(1)
          host.order("close")
          yield* scratch.awaitNamed("asked-to-end")
          host.signal("SIGSTOP")
          yield* eventually("the host is stopped", () => stateOf(host.identity.pid) === "T")
          assert.isAbove(scratch.living().length, 0)
          host.signal("SIGKILL")
          yield* outcome(on, host, scratch)
        })
    )
  }

  describe("peer 41: the guardian is killed while the host lives", () => {
    // Without tag, mark and record the registration is all that a guardian can go by.
    it.live("a new one has all registrations", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const host = yield* Host.start({
          on: "treeline",
          scratch,
          spec: {
            command: ["env", "-i", `PATH=${process.env["PATH"]}`, ...Host.treeCommand("grandchild", scratch)],
            trees: 3,
            tag: false
          },
          env: { TMPDIR: "/dev/null" }
        })
        yield* scratch.awaitReported(9)
        const first = yield* eventually("a guardian runs", () => Host.guardianAmongChildren(host))
        killIfAlive(first)
        const second = yield* eventually("another guardian runs", () => {
          const guardian = Host.guardianAmongChildren(host)
          return guardian !== undefined && guardian.pid !== first.pid && guardian
        })
        // It is seen before the host has come to tell it.
        host.order("answer")
        yield* host.awaitLine("answered")
        assert.isTrue(host.isAlive())
        assert.strictEqual(scratch.living().length, 9)
        host.signal("SIGKILL")
        yield* outcome("treeline", host, scratch)
        assert.isFalse(isAlive(second))
      }))

    it.live("and so has the one after the next, for trees that were launched in between", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const host = yield* Host.start({
          on: "treeline",
          scratch,
          spec: { command: Host.treeCommand("cleared", scratch), trees: 2 }
        })
        yield* scratch.awaitReported(4)
        for (let kills = 0; kills < 3; kills++) {
          const guardian = yield* Host.awaitGuardian(host, scratch)
          killIfAlive(guardian)
          yield* eventually("it is dead", () => !isAlive(guardian))
        }
        yield* Host.awaitGuardian(host, scratch)
        host.signal("SIGKILL")
        yield* outcome("treeline", host, scratch)
      }))
  })

  describe("peer 42: host and guardian are killed in the same instant", () => {
    const killBoth = Effect.fn(function*(
      scratch: Scratch.Scratch,
      through?: ReadonlyArray<string>,
      role = "cleared",
      reports = 2
    ) {
      const host = yield* Host.start({
        on: "treeline",
        scratch,
        spec: { command: Host.treeCommand(role, scratch) },
        ...(through === undefined ? {} : { through })
      })
      yield* scratch.awaitReported(reports)
      const guardian = yield* Host.awaitGuardian(host, scratch)
      yield* eventually("the tree is registered", () => Host.recordOf(host, scratch)?.text.includes("+ 1 "))
      // A stopped guardian can't see the end of its host, so the two kills are as one.
      process.kill(guardian.pid, "SIGSTOP")
      host.signal("SIGKILL")
      process.kill(guardian.pid, "SIGKILL")
      yield* host.awaitDead
      yield* eventually("the guardian is dead", () => !isAlive(guardian))
      yield* stays("the processes of the tree live", () => scratch.living().length === reports, window)
      return host
    })

    /** What this process takes for leftovers of a dead host, by the records in the folder of the test. */
    const leftoversOf = ({ identity: { pid, start } }: Host.Host, scratch: Scratch.Scratch): ReadonlyArray<number> => {
      const own = process.env["TMPDIR"]
      process.env["TMPDIR"] = scratch.directory
      try {
        return Leftovers.of({ pid, start: Number(start) }).map(({ pid }) => pid)
      } finally {
        if (own === undefined) delete process.env["TMPDIR"]
        else process.env["TMPDIR"] = own
      }
    }

    for (const [name, through] of [["", undefined], [", also as zombies that nobody reaps", "--lazy"]] as const) {
      it.live(`the next host sweeps what is left${name}`, () =>
        Effect.gen(function*() {
          const scratch = yield* Scratch.make
          const first = yield* killBoth(scratch, through && ["perl", Host.fixture("reaper.pl"), through])
          const left = [...scratch.living()]
          const record = Host.recordOf(first, scratch)
          assert.isDefined(record)
          const second = yield* Host.start({
            on: "treeline",
            scratch,
            spec: { command: Host.treeCommand("plain", scratch) }
          })
          // The sweep comes before the first launch.
          assert.deepStrictEqual(left.filter(isAlive), [])
          assert.isUndefined(Host.recordOf(first, scratch))
          yield* scratch.awaitNamed("plain")
          assert.strictEqual(scratch.living().length, 1)
          second.order("finish")
          yield* second.awaitNoDescendants()
        }))
    }

    it.live("peer 22: the sweep leaves strangers who have the number of a former leader, and all that is in their group", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const first = yield* killBoth(scratch)
        const strangers = yield* Scratch.make
        const started = (role: string) => {
          const [file, ...args] = Host.treeCommand(role, strangers)
          const { pid } = child_process.spawn(file!, args, {
            detached: true,
            stdio: "ignore",
            env: { PATH: process.env["PATH"] }
          })
          return identify(pid!)!
        }
        const leads = started("grandchild")
        // This one has gone by the time of the sweep, and a member of its group has not.
        const led = started("gone")
        const reported = yield* strangers.awaitReported(6)
        yield* eventually("the second leader has gone", () => stateOf(led.pid) === undefined)
        const lines = [leads, led].map(({ pid, start }, index) => `+ ${900 + index} ${pid} ${Number(start) - 1}\n`)
        fs.appendFileSync(Host.recordOf(first, scratch)!.path, lines.join(""))
        const left = scratch.living()
        assert.sameMembers([...leftoversOf(first, scratch)], left.map(({ pid }) => pid))
        yield* Host.start({ on: "treeline", scratch, spec: { command: Host.treeCommand("plain", scratch) } })
        yield* scratch.awaitNamed("plain")
        assert.deepStrictEqual(scratch.living().map(({ name }) => name), ["plain"])
        assert.deepStrictEqual(
          strangers.living(),
          reported.filter(({ pid }) => pid !== led.pid)
        )
      }))

    it.live("what is left is asked to end before it is killed", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        yield* killBoth(scratch, undefined, "asked", 1)
        yield* Host.start({ on: "treeline", scratch, spec: { command: Host.treeCommand("plain", scratch) } })
        assert.include(scratch.reported().map(({ name }) => name), "asked-to-end")
      }))

    it.live("a living host's trees are not swept by another one", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const spec = { command: Host.treeCommand("cleared", scratch) }
        yield* Host.start({ on: "treeline", scratch, spec })
        yield* scratch.awaitReported(2)
        const other = yield* Host.start({ on: "treeline", scratch, spec })
        yield* scratch.awaitReported(4)
        other.order("finish")
        yield* other.awaitNoDescendants()
        yield* stays("the first tree lives", () => scratch.living().length === 2, window)
      }))
  })

  describe("peer 44: a Worker that launched a tree ends", () => {
    const cases = [
      { order: "terminate", on: "treeline" },
      { order: "terminate", on: "node" },
      { order: "leave", on: "treeline" },
      { order: "leave", on: "node" },
      { order: "terminate", on: "treeline", env: { TMPDIR: "/dev/null" } }
    ] as const
    for (const { on, order, ...options } of cases) {
      const what = `${order}${"env" in options ? ", without a record" : ""}: its tree ends, the main thread's does not`
      it.live(title(on, what), () =>
        Effect.gen(function*() {
          const scratch = yield* Scratch.make
          const commands = {
            main: Host.treeCommand("grandchild", scratch),
            worker: Host.treeCommand("cleared", scratch)
          }
          const host = yield* Host.startProgram({
            program: ["workerHost", on, JSON.stringify(commands)],
            scratch,
            ...options
          })
          yield* scratch.awaitReported(5)
          const namesLiving = () => scratch.living().map(({ name }) => name).sort()
          const mains = ["grandchild", "leaf", "middle"]
          assert.deepStrictEqual(namesLiving(), ["cleared", ...mains, "quiet"].sort())
          host.order(order)
          yield* host.awaitLine("worker gone")
          if (on === "node") {
            yield* stays("all live", () => namesLiving().length === 5, window)
            return
          }
          yield* eventually("the Worker's tree is gone", () => namesLiving().length <= 3, { detail: namesLiving })
          yield* stays("the main thread's tree lives", () => namesLiving().join() === mains.join(), window)
          assert.isTrue(host.isAlive())
          host.signal("SIGKILL")
          yield* outcome("treeline", host, scratch)
        }))
    }
  })

  describe.runIf(Host.hasReaper)("peer 45: SIGKILL of the host at any microsecond of a launch loop", () => {
    const random = Random.make()
    const unprivileged = Host.whyNotUnprivileged() === undefined ? Host.unprivileged : undefined
    const instants = Array.from({ length: killRounds }, (_, round) => ({
      round,
      microseconds: Math.floor(random() * latestKill),
      // Every other host has no privilege, where that can be.
      user: round % 2 === 1 ? unprivileged : undefined
    }))

    /** One host that is killed so long after it has begun to launch plain children and daemons without environment. */
    const killed = Effect.fn(function*(on: typeof both[number], microseconds: number, user?: number) {
      const scratch = yield* Scratch.make
      const commands = [Host.treeCommand("plain", scratch), Host.treeCommand("cleared", scratch)]
      const host = yield* Host.startProgram({
        program: ["launchLoop", on, JSON.stringify(commands)],
        through: ["perl", Host.fixture("killer.pl"), String(microseconds)],
        scratch,
        user
      })
      yield* host.awaitDead
      return { host, scratch }
    })

    it.live(
      `${killRounds} times: nothing is left`,
      () =>
        Effect.gen(function*() {
          const launched = yield* Effect.forEach(
            instants,
            ({ microseconds, round, user }) =>
              Effect.scoped(Effect.gen(function*() {
                const { host, scratch } = yield* killed("treeline", microseconds, user)
                yield* host.awaitNoDescendants(killDeadline)
                assert.deepStrictEqual(scratch.living(), [])
                return host.lines.filter((line) => line === "another").length
              })).pipe(
                Effect.catchCause((cause) =>
                  Effect.die(
                    new Error(
                      `TREELINE_SEED=${Random.seed}, round ${round}, ${microseconds} µs: ${Cause.pretty(cause)}`
                    )
                  )
                )
              ),
            { concurrency: 2 }
          )
          // The instants were in the midst of it: not all before the first launch, none after the last.
          if (killRounds >= 20) assert.isAbove(Math.max(...launched), 1)
          assert.isBelow(Math.max(...launched), 100)
        }),
      killRounds * 3000
    )

    it.live("negative control: child_process leaves the trees", () =>
      Effect.gen(function*() {
        const { scratch } = yield* killed("node", latestKill)
        yield* stays("trees live", () => scratch.living().length > 0, window)
      }))
  })
})
