/** A host that can't act is ended by its watchdog, and its trees with it. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import { eventually, stays } from "../support/Eventually.ts"
import * as Host from "../support/Host.ts"
import { identify, type Identity, isAlive, killIfAlive, stateOf } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"

/** What a busy machine may take beyond a deadline, in ms. */
const tolerance = 3000

const startedThrough = (...through: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const scratch = yield* Scratch.make
    const host = yield* Host.startProgram({
      program: ["watchdogHost", ...Host.treeCommand("session", scratch)],
      through,
      scratch
    })
    yield* scratch.awaitReported(3)
    return { scratch, host }
  })

const started = startedThrough()

/** The watchdogs of a host, by the kernel's list of its children. */
const watchdogsOf = (host: Host.Host): ReadonlyArray<Identity> => {
  const { pid } = host.identity
  return fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number)
    .filter((child) => child > 1 && fs.readFileSync(`/proc/${child}/cmdline`, "utf8").includes("watchdog.js"))
    .flatMap((child) => identify(child) ?? [])
}

const arm = (host: Host.Host, within: number) => {
  host.order(`arm ${within}`)
  return host.awaitLine(`set ${within}`)
}

describe.runIf(process.platform === "linux")("a watchdog", () => {
  it.live("a host that is stopped is killed at the deadline, not before, and nothing of its trees is left", () =>
    Effect.gen(function*() {
      const { host, scratch } = yield* started
      const armedAt = performance.now()
      yield* arm(host, 1500)
      host.signal("SIGSTOP")
      yield* eventually("it is stopped", () => stateOf(host.identity.pid) === "T")
      yield* host.awaitDead
      const after = performance.now() - armedAt
      assert.isAtLeast(after, 1499)
      assert.isBelow(after, 1500 + tolerance)
      yield* scratch.awaitNoneLiving()
      yield* host.awaitNoDescendants()
      assert.include(host.errors(), `the host ${host.identity.pid} has not moved its deadline in time`)
    }))

  it.live("control: without a deadline a stopped host keeps its tree", () =>
    Effect.gen(function*() {
      const { host, scratch } = yield* started
      yield* arm(host, 500)
      host.order("disarm")
      yield* host.awaitLine("set undefined")
      host.signal("SIGSTOP")
      yield* stays("the tree lives", () => scratch.living().length === 3, 1500)
      assert.isTrue(host.isAlive())
    }))

  it.live("a host whose event loop is blocked is killed", () =>
    Effect.gen(function*() {
      const { host, scratch } = yield* started
      yield* arm(host, 500)
      host.order("block 60000")
      yield* host.awaitDead
      yield* scratch.awaitNoneLiving()
    }))

  it.live("a host that moves its deadline in time lives", () =>
    Effect.gen(function*() {
      const { host } = yield* started
      for (let time = 0; time < 8; time++) {
        yield* arm(host, 1000 + time)
        yield* stays("it lives", host.isAlive, 250)
      }
    }))

  it.live("a watchdog that was killed is replaced, and the new one knows the deadline", () =>
    Effect.gen(function*() {
      const { host, scratch } = yield* started
      yield* arm(host, 3000)
      const [first] = watchdogsOf(host)
      killIfAlive(first!)
      yield* eventually("another one is there", () => watchdogsOf(host).find(({ pid }) => pid !== first!.pid))
      // It is seen before the host has come to tell it.
      host.order("answer")
      yield* host.awaitLine("answered")
      host.signal("SIGSTOP")
      yield* host.awaitDead
      yield* scratch.awaitNoneLiving()
    }))

  it.live("a host that has no descriptor left lives without watchdog and guardian, and has new ones when it can", () =>
    Effect.gen(function*() {
      // A low limit, so that no machine's files are all used up.
      const { host } = yield* startedThrough("sh", "-c", "ulimit -n 512; exec \"$@\"", "sh")
      const [watchdog] = watchdogsOf(host)
      const guardian = yield* eventually("a guardian is there", () => Host.guardianAmongChildren(host))
      host.order("exhaust")
      yield* host.awaitLine("exhausted")
      killIfAlive(watchdog!)
      killIfAlive(guardian)
      // Longer than the pause after which another one is tried.
      yield* stays("it lives", host.isAlive, 400)
      host.order("restore")
      yield* eventually("another watchdog is there", () => watchdogsOf(host).find(({ pid }) => pid !== watchdog!.pid))
      yield* eventually("another guardian is there", () => {
        const next = Host.guardianAmongChildren(host)
        return next !== undefined && next.pid !== guardian.pid
      })
    }))

  it.live("it ends with its scope, and with a host that dies", () =>
    Effect.gen(function*() {
      const { host } = yield* started
      const [first] = watchdogsOf(host)
      host.order("close")
      yield* host.awaitLine("closed")
      yield* eventually("it has ended", () => !isAlive(first!))
      const other = yield* started
      const [second] = watchdogsOf(other.host)
      other.host.signal("SIGKILL")
      yield* eventually("it has ended", () => !isAlive(second!))
      yield* other.host.awaitNoDescendants()
    }))
})
