/**
 * The guardian: what it holds, when it ends, what it does without Node, and what escapes it.
 */
import { assert, describe, it } from "@effect/vitest"
import { ProcessPlatform } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { ChildProcess } from "effect/process"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { Guardian, sweeperPath } from "../../packages/platform-posix/src/internal/Guardian.ts"
import { guardianScript } from "../../packages/platform-posix/src/internal/guardianScript.ts"
import * as Tag from "../../packages/platform-posix/src/internal/Tag.ts"
import { eventually, stays } from "../support/Eventually.ts"
import * as Host from "../support/Host.ts"
import { identify, isAlive, killIfAlive, stateOf } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"

/** How long what must survive is observed, in ms. */
const window = 300

/** What the descriptors of a process are open on. */
const descriptors = (pid: number): ReadonlyMap<number, string> => {
  const found = new Map<number, string>()
  for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
    try {
      found.set(Number(fd), fs.readlinkSync(`/proc/${pid}/fd/${fd}`))
    } catch {
      // closed since the folder was read
    }
  }
  return found
}

const ownDescriptors = (pid: number): ReadonlyArray<string> => [...descriptors(pid).values()]

const start = Effect.fn(function*(role: string, reports: number, options: Partial<Host.StartOptions["spec"]> = {}) {
  const scratch = yield* Scratch.make
  const spec = { command: Host.treeCommand(role, scratch), ...options }
  const host = yield* Host.start({ on: "treeline", scratch, spec })
  yield* scratch.awaitReported(reports)
  const guardian = yield* Host.awaitGuardian(host, scratch)
  return { scratch, host, guardian }
})

describe.runIf(process.platform === "linux")("the guardian", () => {
  it.live("holds none of the host's descriptors: its pipe and /dev/null are all", () =>
    Effect.gen(function*() {
      const { guardian, host } = yield* start("plain", 1)
      const [lifeline, ...others] = ownDescriptors(guardian.pid)
      assert.match(lifeline!, /^(pipe|socket):\[\d+\]$/)
      assert.isAbove(others.length, 1)
      assert.deepStrictEqual(others.filter((target) => target !== "/dev/null"), [])
      // A pipe has one name for both ends, a pair of sockets has two.
      if (lifeline!.startsWith("socket")) assert.notInclude(ownDescriptors(host.identity.pid), lifeline)
    }))

  it.live("that can't be started is told once, and the report says so", () =>
    Effect.gen(function*() {
      const warnings: Array<string> = []
      const logger = Logger.layer([Logger.make(({ message }) => void warnings.push(String(message)))])
      const posix = PosixPlatform.layerWith({ shell: "/no/such/shell", sweepOrphaned: false })
      const context = yield* Layer.build(Layer.provide(posix, logger))
      const platform = Context.get(context, ProcessPlatform.ProcessPlatform)
      const mechanism = Effect.map(
        platform.containment,
        ({ mechanisms }) => mechanisms.find(({ name }) => name === "guardian")!
      )
      assert.isTrue((yield* mechanism).available)
      yield* Effect.scoped(Effect.flatMap(platform.launch(ChildProcess.make("true")), (tree) => tree.exited))
      yield* eventually("it is told", () => warnings.length > 0)
      const { available, detail } = yield* mechanism
      assert.isFalse(available)
      assert.match(detail, /\/no\/such\/shell.*ENOENT/)
      // Longer than the pause after which another one is tried.
      yield* stays("it is told once", () => warnings.length === 1, window)
    }).pipe(Effect.scoped))

  it.live("holds no descriptor that the host was started with either", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const inherited = scratch.file("inherited")
      const host = yield* Host.start({
        on: "treeline",
        scratch,
        spec: { command: Host.treeCommand("plain", scratch) },
        // Above the first 16 descriptors Node closes none that it was started with.
        through: ["bash", "-c", `exec 9>'${inherited}' 200>'${inherited}'; exec "$@"`, "bash"]
      })
      yield* scratch.awaitReported(1)
      const guardian = yield* Host.awaitGuardian(host, scratch)
      assert.strictEqual(descriptors(host.identity.pid).get(200), inherited)
      assert.notInclude(ownDescriptors(guardian.pid), inherited)
    }))

  it.live("its lifeline is held by no process of a tree", () =>
    Effect.gen(function*() {
      const { guardian, host, scratch } = yield* start("wide", 21)
      const lifeline = descriptors(guardian.pid).get(0)!
      // Whoever kept the host's end would keep the guardian from seeing the host's death. What this test itself was
      // started with goes on to everybody.
      const common = new Set(ownDescriptors(process.pid))
      // The lifeline is a socket pair. Both ends of a pipe have one name, so a child's own output can't be told by it.
      const hosts = ownDescriptors(host.identity.pid).filter((target) =>
        target.startsWith("socket:") && !common.has(target)
      )
      assert.isAbove(hosts.length, 0)
      for (const { pid } of scratch.living()) {
        const held = ownDescriptors(pid)
        assert.deepStrictEqual(held.filter((target) => hosts.includes(target) || target === lifeline), [])
      }
    }))

  it.live("is gone when the host's layer closes, and so is the record", () =>
    Effect.gen(function*() {
      const { guardian, host, scratch } = yield* start("grandchild", 3)
      host.order("finish")
      yield* host.awaitDead
      yield* eventually("the guardian is gone", () => !isAlive(guardian))
      yield* host.awaitNoDescendants()
      assert.isUndefined(Host.recordOf(host, scratch))
    }))

  it.live("is gone after the host's death, and so is the record", () =>
    Effect.gen(function*() {
      const { guardian, host, scratch } = yield* start("grandchild", 3)
      host.signal("SIGKILL")
      yield* eventually("the guardian is gone", () => !isAlive(guardian))
      yield* host.awaitNoDescendants()
      assert.isUndefined(Host.recordOf(host, scratch))
    }))

  it.live("ignores TERM, INT, HUP and QUIT, and does its work afterwards", () =>
    Effect.gen(function*() {
      const { guardian, host, scratch } = yield* start("grandchild", 3)
      for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const) process.kill(guardian.pid, signal)
      yield* stays("it lives", () => isAlive(guardian), window)
      assert.deepStrictEqual(Host.recordOf(host, scratch)?.guardian, guardian)
      host.signal("SIGKILL")
      yield* scratch.awaitNoneLiving()
      yield* eventually("the guardian is gone", () => !isAlive(guardian))
    }))

  it.live("a stopped guardian does its work when it is continued", () =>
    Effect.gen(function*() {
      const { guardian, host, scratch } = yield* start("grandchild", 3)
      process.kill(guardian.pid, "SIGSTOP")
      yield* eventually("it is stopped", () => stateOf(guardian.pid) === "T")
      host.signal("SIGKILL")
      yield* host.awaitDead
      yield* stays("the tree lives", () => scratch.living().length === 3, window)
      process.kill(guardian.pid, "SIGCONT")
      yield* scratch.awaitNoneLiving()
    }))

  it.live("finds env-cleared daemons of a killed host by their tag alone", () =>
    Effect.gen(function*() {
      const { host, scratch } = yield* start("cleared", 2)
      const leader = scratch.reported().find(({ name }) => name === "cleared")!
      const daemon = scratch.reported().find(({ name }) => name === "quiet")!
      assert.include(fs.readFileSync(`/proc/${leader.pid}/environ`, "utf8"), "TREELINE")
      assert.notInclude(fs.readFileSync(`/proc/${daemon.pid}/environ`, "utf8"), "TREELINE")
      const session = (pid: number) => fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ")[3]
      assert.notStrictEqual(session(daemon.pid), session(leader.pid))
      host.signal("SIGKILL")
      yield* host.awaitNoDescendants()
      yield* scratch.awaitNoneLiving()
    }))

  it.live("control: without the tag the env-cleared daemon of a killed host lives on", () =>
    Effect.gen(function*() {
      const { guardian, host, scratch } = yield* start("cleared", 2, { tag: false })
      host.signal("SIGKILL")
      yield* eventually("the guardian has done its work", () => !isAlive(guardian))
      yield* stays("the daemon lives", () => scratch.living().map(({ name }) => name).join() === "quiet", window)
    }))

  describe("a released tree", () => {
    for (const end of ["SIGKILL", "finish", "guardian and host killed"] as const) {
      it.live(`outlives its host (${end}) and is not swept by the next one`, () =>
        Effect.gen(function*() {
          const { guardian, host, scratch } = yield* start("session", 3, { release: true })
          if (end === "finish") host.order("finish")
          else {
            if (end !== "SIGKILL") process.kill(guardian.pid, "SIGSTOP")
            host.signal("SIGKILL")
            if (end !== "SIGKILL") process.kill(guardian.pid, "SIGKILL")
          }
          yield* host.awaitDead
          yield* eventually("the guardian is gone", () => !isAlive(guardian))
          const released = [...scratch.living()]
          assert.strictEqual(released.length, 3)
          const next = yield* Host.start({
            on: "treeline",
            scratch,
            spec: { command: Host.treeCommand("plain", scratch) }
          })
          yield* scratch.awaitNamed("plain")
          yield* stays("the released tree lives", () => released.every(isAlive), window)
          next.order("finish")
          yield* next.awaitDead
          assert.isTrue(released.every(isAlive))
        }))
    }
  })

  it.live("is not told again of a tree that is taken back without having been released", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const shell = scratch.file("shell")
      fs.writeFileSync(shell, `#!/bin/sh\ncat >'${scratch.file("told")}'\n`, { mode: 0o755 })
      const host = { pid: process.pid, start: 1 }
      const options = { tagged: false, grace: 0, warn: () => {}, openRecord: () => undefined }
      const guardian = new Guardian({ shell, host, ...options })
      guardian.ensure()
      const leader = { pid: 600, start: 1 }
      guardian.started(1, leader)
      guardian.takenBack(1, leader)
      guardian.ended(1)
      guardian.close()
      const told = () => fs.existsSync(scratch.file("told")) ? fs.readFileSync(scratch.file("told"), "utf8") : ""
      yield* eventually("it has been told all", () => told().endsWith("Q\n"))
      assert.deepStrictEqual(told().split("\n").filter((line) => !line.startsWith("G ")), ["+ 1 600 1", "- 1", "Q", ""])
    }))

  it.live("a released tree outlives a host that can keep no record", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const spec = { command: Host.treeCommand("session", scratch), release: true }
      const host = yield* Host.start({ on: "treeline", scratch, spec, env: { TMPDIR: "/dev/null" } })
      yield* scratch.awaitReported(3)
      const guardian = yield* eventually("a guardian runs", () => Host.guardianAmongChildren(host))
      host.signal("SIGKILL")
      yield* host.awaitDead
      yield* eventually("the guardian is gone", () => !isAlive(guardian))
      assert.strictEqual(scratch.living().length, 3)
    }))

  describe("a tree that one of two platforms in a host has released", () => {
    for (const end of ["SIGKILL", "closed, then SIGKILL", "all killed in the same instant"] as const) {
      it.live(`outlives the host (${end}) and is not swept by the next one`, () =>
        Effect.gen(function*() {
          const released = yield* Scratch.make
          const { host, scratch } = yield* start("stubborn", 2, { beside: Host.treeCommand("session", released) })
          yield* released.awaitReported(3)
          const records = Host.recordsOf(host, scratch)
          assert.strictEqual(records.length, 2)
          if (end === "closed, then SIGKILL") {
            host.order("close-beside")
            yield* host.awaitLine("closed-beside")
            yield* eventually("its guardian is gone", () => !records.every(({ guardian }) => isAlive(guardian!)))
            assert.strictEqual(Host.recordsOf(host, scratch).length, 2)
          }
          const together = end === "all killed in the same instant"
          const guardians = records.map(({ guardian }) => guardian!)
          // A stopped guardian can't see the end of its host.
          if (together) { for (const { pid } of guardians) process.kill(pid, "SIGSTOP") }
          host.signal("SIGKILL")
          if (together) guardians.forEach(killIfAlive)
          yield* host.awaitDead
          yield* eventually("the guardians are gone", () => !guardians.some(isAlive))
          assert.strictEqual(scratch.living().length, together ? 2 : 0)
          assert.strictEqual(released.living().length, 3)
          const next = yield* Host.start({
            on: "treeline",
            scratch,
            spec: { command: Host.treeCommand("plain", scratch) }
          })
          yield* scratch.awaitNamed("plain")
          assert.deepStrictEqual(scratch.living().map(({ name }) => name), ["plain"])
          assert.deepStrictEqual(Host.recordsOf(host, scratch), [])
          next.order("finish")
          yield* next.awaitDead
          assert.strictEqual(released.living().length, 3)
        }))
    }
  })

  describe("where Node can't run any more, the shell alone", () => {
    const shells = [["sh"], ["bash"], ["busybox", "sh"]]
    for (const shell of shells) {
      const available = child_process.spawnSync(shell[0]!, [...shell.slice(1), "-c", ":"]).status === 0
      const name = shell.join(" ")

      /** Runs the guardian's script for a host and tells it these lines. */
      const runScript = Effect.fn(function*(
        host: Host.Host,
        record: string,
        told: string,
        sweeper: ReadonlyArray<string> = ["/nonexistent/node", "/nonexistent/sweeper.js"]
      ) {
        const tagHost = { pid: host.identity.pid, start: Number(host.identity.start) }
        const args = [
          Tag.encode(tagHost, 0),
          Tag.prefix(tagHost),
          String(tagHost.pid),
          String(tagHost.start),
          "300",
          ...sweeper,
          record
        ]
        const script = yield* Effect.acquireRelease(
          Effect.sync(() => {
            const child = child_process.spawn(
              shell[0]!,
              [...shell.slice(1), "-c", "eval \"$TREELINE_GUARDIAN\"", "treeline-guardian", ...args],
              {
                stdio: ["pipe", "ignore", "ignore"],
                env: { PATH: process.env["PATH"], TREELINE_GUARDIAN: guardianScript }
              }
            )
            return { child, identity: identify(child.pid!) }
          }),
          ({ identity }) => Effect.sync(() => identity !== undefined && killIfAlive(identity))
        )
        // The end of its input is the host's death.
        script.child.stdin.end(told)
        yield* eventually("the script has ended", () => script.child.exitCode !== null)
      })

      /**
       * Leaves a tree without host and guardian, then runs the guardian's script on the host's record and some lines more.
       */
      const sweepByShell = Effect.fn(function*(
        role: string,
        reports: number,
        more: string = "",
        sweeper?: ReadonlyArray<string>,
        beside?: string
      ) {
        const { guardian, host, scratch } = yield* start(role, reports)
        if (role === "stopped") {
          yield* eventually("the tree is stopped", () => scratch.living().every(({ pid }) => stateOf(pid) === "T"))
        }
        const record = Host.recordOf(host, scratch)!
        process.kill(guardian.pid, "SIGSTOP")
        host.signal("SIGKILL")
        process.kill(guardian.pid, "SIGKILL")
        yield* host.awaitDead
        yield* eventually("the guardian is dead", () => !isAlive(guardian))
        const leaderGone = role === "gone" ? 1 : 0
        assert.strictEqual(scratch.living().length, reports - leaderGone)
        // Of another platform in the same host.
        if (beside !== undefined) fs.writeFileSync(record.path.replace(/\d+\.host$/, "99.host"), beside)
        yield* runScript(host, record.path, record.text + more, sweeper)
        return { scratch, record }
      })

      describe.skipIf(!available)(`${name}${available ? "" : " (not installed here)"}`, () => {
        const trees = { grandchild: 3, stubborn: 2, cleared: 2, session: 3, stopped: 2, jobs: 3, gone: 3, wide: 21 }
        for (const [role, reports] of Object.entries(trees)) {
          it.live(`ends the tree "${role}" and removes the record`, () =>
            Effect.gen(function*() {
              const { record, scratch } = yield* sweepByShell(role, reports)
              assert.deepStrictEqual(scratch.living(), [])
              assert.isFalse(fs.existsSync(record.path))
            }))
        }

        it.live("leaves a tree that was released", () =>
          Effect.gen(function*() {
            const { scratch } = yield* sweepByShell("cleared", 2, "- 1\n= 1\n")
            yield* stays("the tree lives", () => scratch.living().length === 2, window)
          }))

        it.live("peer 44: of a host that lives it ends only what it was told of", () =>
          Effect.gen(function*() {
            const { host, scratch } = yield* start("cleared", 4, { trees: 2 })
            const told = yield* eventually(
              "the first tree is registered",
              () => /^\+ 1 .*\n/m.exec(Host.recordOf(host, scratch)?.text ?? "")?.[0]
            )
            yield* runScript(host, "-", told)
            const left = () => scratch.living().map(({ name }) => name).sort().join()
            yield* stays("the other tree lives", () => left() === "cleared,quiet", window)
            assert.isTrue(host.isAlive())
          }))

        for (const sweeper of [undefined, [process.execPath, sweeperPath]]) {
          const by = sweeper === undefined ? "" : ", and so does the sweeper that it starts"
          it.live(`leaves a tree that another platform of the host has released${by}`, () =>
            Effect.gen(function*() {
              const { scratch } = yield* sweepByShell("cleared", 2, "- 1\n", sweeper, "= 1\n")
              assert.strictEqual(scratch.living().length, 2)
            }))

          it.live(`peer 22: leaves a stranger that has the number of a former leader${by}`, () =>
            Effect.gen(function*() {
              const strangers = yield* Scratch.make
              // A name that looks like the fields that follow it.
              const name = strangers.file("s) R 1\n(2 ")
              fs.copyFileSync("/bin/sleep", name)
              const [stranger, ours] = yield* Effect.acquireRelease(
                Effect.sync(() =>
                  [1, 2].map(() => {
                    const { pid } = child_process.spawn(name, ["30"], { detached: true, stdio: "ignore", env: {} })
                    return identify(pid!)!
                  })
                ),
                (started) => Effect.sync(() => started.forEach(killIfAlive))
              )
              const before = Number(stranger!.start) - 1
              const more = `+ 900 ${stranger!.pid} ${before}\n+ 901 ${ours!.pid} ${ours!.start}\n`
              yield* sweepByShell("plain", 1, more, sweeper)
              yield* eventually("who has the very start time is ended", () => !isAlive(ours!))
              assert.isTrue(isAlive(stranger!))
            }))
        }
      })
    }
  })
})
