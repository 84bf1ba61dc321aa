/** How a daemon is ended where signals are refused, and who is not signalled. */
import { assert, describe, it } from "@effect/vitest"
import { Daemon, PidRecord } from "@treeline/core/daemon"
import type { ExitStatus } from "@treeline/core/ExitStatus"
import type { ProcessInfo } from "@treeline/core/ProcessIdentity"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { MemoryFolder, Table } from "../support/MemoryFolder.ts"

const facts: PidRecord.Facts = { version: "1.0.0", program: "/bin/treeline", control: null, config: null, grace: 5000 }

/** A system on which only some signals are allowed; a process that is killed has ended. */
const make = (allowed: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const table = new Table()
    const signals: Array<string> = []
    const clock = yield* Clock.Clock
    const platform = ProcessPlatform.of(
      {
        ...table.platform,
        clock: Effect.succeed(clock),
        leftoversOf: () => Effect.sync(() => [...left]),
        signalProcess: (identity, signal) =>
          Effect.sync(() => {
            signals.push(`${signal} ${identity.pid}`)
            if (!allowed.includes(signal)) return "Denied"
            table.end(identity)
            return "Sent"
          })
      } as Partial<ProcessPlatform["Service"]> as ProcessPlatform["Service"]
    )
    // What hosts that have died have left.
    const left: Array<ProcessInfo> = []
    const files = new MemoryFolder()
    const daemon: Daemon.Daemon = {
      folder: files.asSeen(() => Promise.resolve()),
      self: table.start(10),
      launch: () => Effect.die("not launched here"),
      ask: Effect.succeedNone
    }
    const provide = Effect.provideService(ProcessPlatform, platform)
    return { table, signals, daemon, platform, provide, left }
  })

const service: ProcessInfo = {
  pid: 30,
  parent: 1,
  group: 30,
  session: 30,
  startTime: "1",
  state: "S",
  alive: true,
  command: "sh"
}

describe("a stop", () => {
  it.effect("kills at once where no other signal is allowed, as on Windows", () =>
    Effect.gen(function*() {
      const { daemon, platform, provide, signals, table } = yield* make(["SIGKILL"])
      yield* PidRecord.take({ folder: daemon.folder, platform }, table.start(20), facts)
      const { forced, pid, status } = yield* provide(Daemon.stop(daemon))
      assert.deepStrictEqual([status, pid, forced], ["stopped", 20, true])
      assert.deepStrictEqual(signals, ["SIGTERM 20", "SIGKILL 20"])
    }))

  it.effect("fails when the kill is refused too", () =>
    Effect.gen(function*() {
      const { daemon, platform, provide, table } = yield* make([])
      yield* PidRecord.take({ folder: daemon.folder, platform }, table.start(20), facts)
      const error = yield* Effect.flip(provide(Daemon.stop(daemon)))
      assert.deepStrictEqual([error._tag, "reason" in error && error.reason], ["DaemonNotStopped", "Denied"])
    }))
})

describe("what a daemon that died had started", () => {
  it.effect("peer 49: is waited for by a stop that had to kill it, and by one that finds it dead", () =>
    Effect.gen(function*() {
      for (const forced of [true, false]) {
        const { daemon, left, platform, provide, table } = yield* make(["SIGKILL"])
        const identity = table.start(20)
        yield* PidRecord.take({ folder: daemon.folder, platform }, identity, facts)
        if (!forced) table.end(identity)
        left.push(service)
        const stop = yield* Effect.forkChild(provide(Daemon.stop(daemon, { grace: 0 })), { startImmediately: true })
        yield* TestClock.adjust(5000)
        assert.isUndefined(stop.pollUnsafe())
        left.pop()
        yield* TestClock.adjust(50)
        assert.strictEqual((yield* Fiber.join(stop)).status, forced ? "stopped" : "notRunning")
      }
    }))

  it.effect("peer 49: is told when it does not end, and the record is kept", () =>
    Effect.gen(function*() {
      const { daemon, left, platform, provide, table } = yield* make(["SIGKILL"])
      yield* PidRecord.take({ folder: daemon.folder, platform }, table.start(20), facts)
      left.push(service)
      const stop = yield* Effect.forkChild(Effect.flip(provide(Daemon.restart(daemon))), { startImmediately: true })
      yield* TestClock.adjust("11 seconds")
      const error = yield* Fiber.join(stop)
      assert.deepStrictEqual([error._tag, "reason" in error && error.reason], ["DaemonNotStopped", "Survived"])
      assert.include(error.message, "sh (pid 30)")
      const state = yield* PidRecord.read({ folder: daemon.folder, platform })
      assert.strictEqual(state._tag, "Stale")
    }))

  it.effect("peer 49: is waited for by the next one before it begins, which gives up when it does not end", () =>
    Effect.gen(function*() {
      const { daemon, left, platform, table } = yield* make([])
      const place = { folder: daemon.folder, platform }
      for (const ends of [true, false]) {
        const identity = table.start(20)
        yield* PidRecord.take(place, identity, facts)
        table.end(identity)
        left.push(service)
        const next = yield* Effect.forkChild(
          Effect.result(Effect.scoped(PidRecord.take(place, table.start(21), facts))),
          { startImmediately: true }
        )
        yield* TestClock.adjust(5000)
        assert.isUndefined(next.pollUnsafe())
        if (ends) left.pop()
        yield* TestClock.adjust(5000)
        const outcome = yield* Fiber.join(next)
        assert.strictEqual(outcome._tag, ends ? "Success" : "Failure")
        if (outcome._tag === "Failure") assert.strictEqual(outcome.failure._tag, "Unkillable")
      }
    }))
})

describe("a start that fails", () => {
  const failing = (ended: Effect.Effect<ExitStatus>) =>
    Effect.gen(function*() {
      const { daemon, provide, signals, table } = yield* make(["SIGKILL"])
      const launch = () =>
        Effect.sync(() => {
          table.start(20)
          return { pid: 20, ended, errors: Effect.succeed({ bytes: new Uint8Array(), complete: true }) }
        })
      const error = yield* Effect.flip(provide(Daemon.start({ ...daemon, launch }, { readyWithin: 0 })))
      assert.strictEqual(error._tag, "DaemonNotReady")
      return signals
    })

  it.effect("ends its process", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* failing(Effect.never), ["SIGTERM 20", "SIGKILL 20"])
    }))

  it.effect("signals nobody when its process has ended: the pid may be a stranger's by now", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* failing(Effect.succeed({ _tag: "Exited", code: 1 })), [])
    }))
})
