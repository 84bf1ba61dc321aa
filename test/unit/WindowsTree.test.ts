/**
 * What a tree of Windows does with the handles that its pids are protected by, and a wait with the end of Node. The
 * system is made of a few functions; the real one is in test/windows.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber } from "effect"
import { fileURLToPath } from "node:url"
import { Worker } from "node:worker_threads"
import type { ConsoleControl } from "../../packages/platform-windows/src/internal/ConsoleControl.ts"
import { type Held, type Job, JobProblem } from "../../packages/platform-windows/src/internal/Job.ts"
import * as JobTree from "../../packages/platform-windows/src/internal/JobTree.ts"
import type * as Kernel32 from "../../packages/platform-windows/src/internal/Kernel32.ts"
import { Processes } from "../../packages/platform-windows/src/internal/Processes.ts"
import * as Waits from "../../packages/platform-windows/src/internal/Waits.ts"
import * as Windows from "../../packages/platform-windows/src/internal/Windows.ts"

/** A system that tells `log` what is asked of it; its windows are `windows`, by their pids. */
const systemOf = (log: Array<string>, windows: ReadonlyArray<readonly [window: number, pid: number]> = []) => {
  let error = 0
  const user32: Kernel32.User32 = {
    FindWindowExW: (_parent, after) => {
      const found = after === 0 ? windows[0] : windows[windows.findIndex(([window]) => window === after) + 1]
      error = 0
      return found?.[0] ?? 0
    },
    GetWindowThreadProcessId: (window, pid) => (pid[0] = windows.find(([other]) => other === window)?.[1] ?? 0),
    GetWindow: () => 0,
    IsWindowVisible: () => 1,
    PostMessageW: (window) => {
      log.push(`close ${window}`)
      return 1
    }
  }
  const kernel: Partial<Kernel32.Kernel32> = {
    lastError: () => error,
    CloseHandle: () => 1,
    GetProcessTimes: () => 1,
    WaitForSingleObject: () => 0x102,
    RegisterWaitForSingleObject: (out, handle) => {
      out[0] = BigInt(handle)
      return 1
    },
    UnregisterWaitEx: (wait) => {
      log.push(`unregister ${wait}`)
      return 1
    },
    onWait: () => 0n,
    user32: () => user32
  }
  return {
    kernel: kernel as Kernel32.Kernel32,
    user32,
    fail: (code: number) => {
      error = code
      return 0
    }
  }
}

const treeOf = (
  kernel: Kernel32.Kernel32,
  job: Partial<Job>,
  send: ConsoleControl["send"] = () => Promise.resolve(0)
) =>
  JobTree.make({
    means: {
      kernel,
      processes: new Processes(kernel),
      waits: new Waits.Waits(kernel),
      keepAlive: { reference: () => {}, unreference: () => {} } as unknown as Waits.KeepAlive,
      systemDirectory: "C:\\Windows\\System32"
    },
    job: job as Job,
    launched: { pid: 10, process: 1, pipes: new Map(), sockets: [] },
    console: "own",
    consoleControl: { send } as unknown as ConsoleControl
  })!

const holding = (log: Array<string>) => (): Held => {
  log.push("hold")
  return { pids: [11, 10], release: () => void log.push("release") }
}

describe("JobTree", () => {
  it.effect("pids stay held while the helper has the request, also when the signal was interrupted", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const answered = Promise.withResolvers<number>()
      const asked = yield* Deferred.make<void>()
      const tree = treeOf(systemOf(log).kernel, { hold: holding(log) }, (event, pids) => {
        log.push(`${event} ${pids.join(" ")}`)
        Deferred.doneUnsafe(asked, Effect.void)
        return answered.promise
      })
      const signal = yield* Effect.forkChild(tree.signal("SIGTERM", "tree"))
      yield* Deferred.await(asked)
      yield* Fiber.interrupt(signal)
      assert.deepStrictEqual(log, ["hold", "break 10 11"])
      answered.resolve(1)
      yield* Effect.promise(() => Promise.resolve())
      yield* Effect.yieldNow
      assert.deepStrictEqual(log, ["hold", "break 10 11", "release"])
    }))

  it.effect("the pids whose windows are asked to close are held until they were asked", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { kernel } = systemOf(log, [[100, 5], [101, 10], [102, 11]])
      assert.isTrue(yield* treeOf(kernel, { hold: holding(log), members: () => [] }).requestClose)
      assert.deepStrictEqual(log, ["hold", "close 101", "close 102", "release"])
    }))

  it.effect("a tree that the system does not let go is not said to be let go", () =>
    Effect.gen(function*() {
      const tree = treeOf(systemOf([]).kernel, { setKillOnClose: () => new JobProblem("refused (error 5)") })
      const exit = yield* Effect.exit(tree.setReferenced(false))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.match(String(Exit.isFailure(exit) && Cause.squash(exit.cause)), /refused \(error 5\)/)
    }))
})

describe("Windows", () => {
  it("the list is read again when the window that was read last has gone, and each window is asked once", () => {
    const log: Array<string> = []
    const { fail, kernel, user32 } = systemOf(log, [[100, 10], [101, 5], [102, 10]])
    let losses = 1
    const changing: Kernel32.User32 = {
      ...user32,
      FindWindowExW: (parent, after, ...names) =>
        after === 101 && losses-- > 0 ? fail(1400) : user32.FindWindowExW(parent, after, ...names)
    }
    assert.isTrue(Windows.requestClose({ ...kernel, user32: () => changing }, new Set([10])))
    assert.deepStrictEqual(log, ["close 100", "close 102"])
  })

  it("a list that changes all the time is read a few times only", () => {
    const { fail, kernel, user32 } = systemOf([], [[100, 5]])
    let reads = 0
    const lost: Kernel32.User32 = {
      ...user32,
      FindWindowExW: (parent, after, ...names) => {
        reads++
        return after === 0 ? user32.FindWindowExW(parent, after, ...names) : fail(1400)
      }
    }
    assert.isFalse(Windows.requestClose({ ...kernel, user32: () => lost }, new Set([10])))
    assert.isBelow(reads, 30)
  })
})

describe("Waits", () => {
  it("nothing is waited for once Node ends, and there is one listener for that", () => {
    const log: Array<string> = []
    const before = process.listeners("exit")
    const waits = Waits.get(systemOf(log).kernel)
    Waits.get(systemOf([]).kernel)
    const added = process.listeners("exit").filter((listener) => !before.includes(listener))
    assert.strictEqual(added.length, 1)
    const cancel = waits.add(7, () => assert.fail("it has not ended"))
    waits.add(8, () => assert.fail("it has not ended"))
    added[0]!.call(process, 0)
    process.off("exit", added[0]!)
    cancel?.()
    assert.deepStrictEqual(log, ["unregister 7", "unregister 8"])
  })
})

describe("JobEngine", () => {
  it.live("in a Worker there are no jobs: it can be ended without them", () =>
    Effect.gen(function*() {
      const engine = fileURLToPath(new URL("../../packages/platform-windows/src/JobEngine.ts", import.meta.url))
      const program =
        `import("${engine}").then((engine) => require("worker_threads").parentPort.postMessage(engine.unavailable()))`
      const worker = yield* Effect.acquireRelease(
        Effect.sync(() => new Worker(program, { eval: true, execArgv: ["--conditions=source"] })),
        (worker) => Effect.promise(() => worker.terminate())
      )
      const reason = yield* Effect.promise(() =>
        new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject))
      )
      assert.match(String(reason), /a Worker/)
    }))
})
