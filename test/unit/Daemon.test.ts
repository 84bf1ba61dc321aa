/** How a daemon is ended where signals are refused, and who is not signalled. */
import { assert, describe, it } from "@effect/vitest"
import { Daemon, PidRecord } from "@treeline/core/daemon"
import type { ExitStatus } from "@treeline/core/ExitStatus"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import { Clock, Effect } from "effect"
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
        signalProcess: (identity, signal) =>
          Effect.sync(() => {
            signals.push(`${signal} ${identity.pid}`)
            if (!allowed.includes(signal)) return "Denied"
            table.end(identity)
            return "Sent"
          })
      } as Partial<ProcessPlatform["Service"]> as ProcessPlatform["Service"]
    )
    const files = new MemoryFolder()
    const daemon: Daemon.Daemon = {
      folder: files.asSeen(() => Promise.resolve()),
      self: table.start(10),
      launch: () => Effect.die("not launched here"),
      ask: Effect.succeedNone
    }
    const provide = Effect.provideService(ProcessPlatform, platform)
    return { table, signals, daemon, platform, provide }
  })

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
