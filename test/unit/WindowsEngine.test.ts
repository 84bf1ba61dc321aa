/**
 * Launches on a Windows that is made of a few functions and counts what is open; the real one is in test/windows.
 */
import { assert, describe, it } from "@effect/vitest"
import type { LaunchRequest } from "@treeline/core/Engine"
import { Effect, Exit } from "effect"
import * as Kernel32 from "../../packages/platform-windows/src/internal/Kernel32.ts"
import type { Console } from "../../packages/platform-windows/src/internal/Launch.ts"
import * as JobEngine from "../../packages/platform-windows/src/JobEngine.ts"

/** What CreateProcessW does: an error, 0 where it starts something. */
type Start = (flags: number) => number

const systemOf = (start: Start, changes: Partial<Kernel32.Kernel32> = {}) => {
  const open = new Set<number>()
  let last = 0
  let error = 0
  const opened = () => {
    open.add(++last)
    return last
  }
  const kernel: Partial<Kernel32.Kernel32> = {
    lastError: () => error,
    CloseHandle: (handle) => Number(open.delete(Number(handle))),
    CreateFileW: opened,
    CreateJobObjectW: opened,
    CreateProcessW: (...all) => {
      error = start(all[5])
      if (error !== 0) return 0
      const information = all[9]
      information.writeBigUInt64LE(BigInt(opened()), 0)
      information.writeBigUInt64LE(BigInt(opened()), 8)
      information.writeUInt32LE(4000, 16)
      return 1
    },
    DeleteProcThreadAttributeList: () => {},
    GetConsoleCP: () => 0,
    GetFileAttributesW: () => 0x80,
    GetProcessTimes: () => 1,
    GetSystemDirectoryW: () => 0,
    InitializeProcThreadAttributeList: (_list, _count, _flags, size) => {
      size[0] = 64n
      return 1
    },
    RegisterWaitForSingleObject: () => 1,
    SetHandleInformation: () => 1,
    SetInformationJobObject: () => 1,
    UnregisterWaitEx: () => 1,
    UpdateProcThreadAttribute: () => 1,
    WaitForSingleObject: () => 0x102,
    address: () => 0n,
    onWait: () => 0n,
    ...changes
  }
  return { kernel: kernel as Kernel32.Kernel32, open }
}

const request: LaunchRequest = {
  command: "C:\\bin\\tool.exe",
  args: [],
  cwd: undefined,
  env: {},
  extendEnv: false,
  shell: false,
  stdio: [{ _tag: "ignore" }, { _tag: "ignore" }, { _tag: "ignore" }],
  session: "own",
  windowsHide: true,
  require: undefined,
  limits: undefined
}

const engineOn = (kernel: Kernel32.Kernel32) =>
  JobEngine.make((reason) => {
    throw new Error(`no jobs: ${reason}`)
  }, kernel)

describe("JobEngine", () => {
  it.effect("peer 47: a probe that fails for another reason does not say that there are no jobs", () =>
    Effect.gen(function*() {
      const errors = [5, 8, 5, 1455]
      const { kernel, open } = systemOf(() => errors.shift() ?? 0)
      const engine = yield* engineOn(kernel)
      for (const left of [2, 0]) {
        const error = yield* Effect.flip(engine.spawn(request))
        assert.strictEqual(error._tag === "LaunchError" ? error.reason : error._tag, "PermissionDenied")
        assert.strictEqual(errors.length, left, "there was a probe")
      }
      assert.strictEqual(open.size, 0)
      const tree = yield* engine.spawn(request)
      assert.strictEqual(tree.level, "sealed")
      yield* tree.release
      assert.strictEqual(open.size, 0)
    }))

  it.effect("a probe that has no job to try does not say so either", () =>
    Effect.gen(function*() {
      let jobs = 0
      const { kernel } = systemOf(() => 5, { CreateJobObjectW: () => jobs++ === 0 ? 1000 : 0 })
      const error = yield* Effect.flip((yield* engineOn(kernel)).spawn(request))
      assert.strictEqual(error._tag === "LaunchError" ? error.reason : error._tag, "PermissionDenied")
      assert.strictEqual(jobs, 2)
    }))

  const thrown: ReadonlyArray<readonly [string, Partial<Kernel32.Kernel32>]> = [
    ["the start", {
      CreateProcessW: () => {
        throw new Error("thrown on purpose")
      }
    }],
    ["a descriptor", {
      CreateFileW: () => {
        throw new Error("thrown on purpose")
      }
    }],
    ["the first look at it", {
      GetProcessTimes: () => {
        throw new Error("thrown on purpose")
      }
    }]
  ]

  it.effect("peer 65: what throws in a launch leaves no handle", () =>
    Effect.gen(function*() {
      for (const [name, changes] of thrown) {
        const { kernel, open } = systemOf(() => 0)
        const { CreateFileW } = changes
        let files = 0
        const changed: Kernel32.Kernel32 = { ...kernel, ...changes }
        const exit = yield* Effect.exit(Effect.flatMap(
          engineOn({
            ...changed,
            // The first descriptor is open already when the second one throws.
            CreateFileW: (...all) =>
              (files++ === 0 || CreateFileW === undefined ? kernel.CreateFileW : CreateFileW)(...all)
          }),
          (engine) => engine.spawn(request)
        ))
        assert.isTrue(Exit.hasDies(exit), name)
        assert.strictEqual(open.size, 0, name)
      }
    }))

  it.effect("the host's console is shared only where it has one: without one a window would open", () =>
    Effect.gen(function*() {
      const flagsOf = Effect.fn(function*(codePage: number, windowsHide: boolean) {
        const seen: Array<number> = []
        const { kernel } = systemOf((flags) => {
          seen.push(flags)
          return 0
        }, { GetConsoleCP: () => codePage })
        const tree = yield* (yield* engineOn(kernel)).spawn({ ...request, session: "shared", windowsHide })
        yield* tree.release
        return seen[0]! & (Kernel32.CREATE_NO_WINDOW | Kernel32.CREATE_NEW_CONSOLE)
      })
      const flags: Partial<Record<Console, number>> = {
        shared: yield* flagsOf(850, true),
        own: yield* flagsOf(0, true),
        visible: yield* flagsOf(0, false)
      }
      assert.deepStrictEqual(flags, {
        shared: 0,
        own: Kernel32.CREATE_NO_WINDOW,
        visible: Kernel32.CREATE_NEW_CONSOLE
      })
    }))
})
