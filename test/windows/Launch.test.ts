/**
 * What is started on Windows, what is refused, and how it ends.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { ExitStatus, ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { WindowsPlatform } from "@treeline/platform-windows"
import * as JobEngine from "@treeline/platform-windows/JobEngine"
import * as PortableEngine from "@treeline/platform-windows/PortableEngine"
import { Context, Effect, Exit, Fiber, Layer, Option, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Kernel32 from "../../packages/platform-windows/src/internal/Kernel32.ts"
import * as Pipes from "../../packages/platform-windows/src/internal/Pipes.ts"
import { line, program, windowsPrograms } from "../fixtures/windowsPrograms.ts"
import { eventually } from "../support/Eventually.ts"
import { accessListOf, accountOfThisProcess } from "./support/Accounts.ts"
import { childrenOf, handleCount, identify, type Identity, isAlive } from "./support/Processes.ts"
import { assertGone, launch, living } from "./support/Trees.ts"

const kill = { shutdown: ShutdownPlan.kill }

const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "treeline test "))),
  (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))
)

const textOf = <E>(stream: Stream.Stream<Uint8Array, E>) => Stream.mkString(Stream.decodeText(stream))

layer(WindowsPlatform.layer, { excludeTestServices: true })("launch", (it) => {
  it.effect("peer 65: every way in which a launch fails is typed, and leaves no handle", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const directory = yield* folder
      const file = (name: string, text: string) => {
        fs.writeFileSync(path.join(directory, name), text)
        return path.join(directory, name)
      }
      const commands: ReadonlyArray<readonly [ChildProcess.StandardCommand, string]> = [
        [ChildProcess.make("treeline-no-such-program"), "NotFound"],
        [ChildProcess.make(path.join(directory, "missing.exe")), "NotFound"],
        [ChildProcess.make(directory), "PermissionDenied"],
        [ChildProcess.make(file("text.exe", "no program")), "NotExecutable"],
        [ChildProcess.make(file("script.js", "0")), "NotExecutable"],
        [ChildProcess.make("cmd.exe", ["x".repeat(33_000)]), "InvalidArgument"],
        [ChildProcess.make("cmd.exe", [], { cwd: path.join(directory, "missing") }), "BadWorkingDirectory"]
      ]
      const tryAll = Effect.forEach(commands, ([command]) =>
        Effect.map(Effect.flip(Effect.scoped(platform.launch(command))), (error) =>
          error._tag === "LaunchError" ? error.reason : error._tag))
      assert.deepStrictEqual(
        yield* tryAll,
        commands.map(([, reason]) =>
          reason
        )
      )
      const handles = handleCount()
      for (let round = 0; round < 10; round++) yield* tryAll
      // Sockets close in a later turn.
      yield* eventually("handles are back", () => handleCount() <= handles + 2, { detail: handleCount })
    }))

  it.effect("peer 68: codes of Windows are what they are", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const codes: ReadonlyArray<readonly [string, ExitStatus.ExitStatus]> = [
        ["259", ExitStatus.exited(259)],
        ["-1", ExitStatus.exited(0xffff_ffff)],
        ["-1073741819", ExitStatus.ExitStatus.cases.Terminated.make({ ntstatus: 0xc000_0005 })],
        ["-1073741510", ExitStatus.ExitStatus.cases.Terminated.make({ ntstatus: 0xc000_013a })]
      ]
      for (const [code, expected] of codes) {
        const tree = yield* platform.launch(program("exit", code))
        assert.deepStrictEqual(yield* tree.exited, expected)
      }
    }))

  it.effect(
    "peer 69: a launch that is interrupted at any moment leaves nothing (100 times)",
    () =>
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        const command = ChildProcess.make("ping.exe", ["-n", "60", "127.0.0.1"])
        // Wine gives numbers out again at once, so who it is has to be known from the beginning.
        const launched: Array<Identity> = []
        for (let round = 0; round < 100; round++) {
          const fiber = yield* Effect.forkChild(Effect.scoped(Effect.gen(function*() {
            launched.push(...living([(yield* platform.launch(command, kill)).pid]))
            return yield* Effect.never
          })))
          for (let turn = 0; turn < round % 10; turn++) yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
        }
        assertGone(launched)
        const mine = (yield* platform.processes).filter(({ command, parent }) =>
          parent === process.pid && /^ping/i.test(command)
        )
        assert.deepStrictEqual(mine, [])
      }),
    180_000
  )

  it.effect("peer 70: a scope that closes in the turn in which the launch returns", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      for (let round = 0; round < 10; round++) {
        const scope = yield* Scope.make()
        const tree = yield* Scope.provide(platform.launch(windowsPrograms.sleeper, kill), scope)
        yield* Scope.close(scope, Exit.void)
        assertGone(living([tree.pid]))
      }
    }))

  it.effect("P16, peer 117: a batch file with spaces in its path gets its arguments, and nothing of them is run", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const directory = yield* folder
      const canary = path.join(directory, "canary")
      const words = ["plain", "two words", `&echo.>"${canary}"`, `"&echo.>${canary}&"`, "a|b>c<d^e"]
      const batch = path.join(directory, "with spaces.cmd")
      fs.writeFileSync(batch, line("arguments", "%*"))
      const tree = yield* platform.launch(ChildProcess.make(batch, words))
      assert.strictEqual(yield* textOf(tree.stdout.stream), JSON.stringify(words))
      assert.isFalse(fs.existsSync(canary))
    }))

  it.effect("peer 117: what a batch file has started ends with it", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const batch = path.join(directory, "start.cmd")
      fs.writeFileSync(batch, line("generations", "3"))
      const { close, pids, tree } = yield* launch(ChildProcess.make(batch), kill)
      assert.notInclude(pids, tree.pid, "cmd.exe leads")
      const identities = living([tree.pid, ...pids])
      assert.strictEqual(identities.length, 4)
      yield* close
      assertGone(identities)
    }))

  it.effect("peer 47: in a job that takes no further ones a launch is refused, typed, or goes to level \"group\"", () =>
    Effect.gen(function*() {
      // Wine knows no such job, and of Windows only the refusal is documented: access denied.
      const kernel = Kernel32.load()
      if (kernel instanceof Error) return assert.fail(kernel.message)
      let refused = 0
      const restricted: Kernel32.Kernel32 = {
        ...kernel,
        CreateProcessW: () => {
          refused++
          return 0
        },
        lastError: () => Kernel32.ERROR_ACCESS_DENIED
      }
      const platformWith = (withoutJobs: "refuse" | "group") =>
        Effect.map(
          JobEngine.make((reason) => PortableEngine.make({ withoutJobs }, reason), restricted),
          ProcessPlatform.make
        )
      const refusing = yield* platformWith("refuse")
      const error = yield* Effect.flip(refusing.launch(windowsPrograms.exit(0)))
      assert.strictEqual(error._tag, "ContainmentUnavailable")
      assert.match(error.message, /"group" is what there is: this host is in a job/)
      assert.strictEqual((yield* refusing.containment).level, "group")
      assert.strictEqual(refused, 2, "the launch, and the one that tells a job from a file that may not be run")

      const allowing = yield* platformWith("group")
      const tree = yield* allowing.launch(windowsPrograms.exit(3))
      assert.deepStrictEqual([tree.level, yield* tree.exited], ["group", ExitStatus.exited(3)])
    }))

  it.effect("a file that may not be run is told from a job that takes no further ones", () =>
    Effect.gen(function*() {
      const kernel = Kernel32.load()
      if (kernel instanceof Error) return assert.fail(kernel.message)
      let calls = 0
      const platform = ProcessPlatform.make(
        yield* JobEngine.make(() => assert.fail("there are jobs"), {
          ...kernel,
          CreateProcessW: (...all) => calls++ === 0 ? 0 : kernel.CreateProcessW(...all),
          lastError: () => calls === 1 ? Kernel32.ERROR_ACCESS_DENIED : kernel.lastError()
        })
      )
      const error = yield* Effect.flip(platform.launch(windowsPrograms.exit(0)))
      assert.strictEqual(error._tag === "LaunchError" ? error.reason : error._tag, "PermissionDenied")
      assert.strictEqual((yield* platform.containment).level, "sealed")
    }))

  it.effect("a launch that Wine lost before it began is tried again, three times at most; any other is not", () =>
    Effect.gen(function*() {
      const kernel = Kernel32.load()
      if (kernel instanceof Error) return assert.fail(kernel.message)
      /** The launch fails so often with this error. */
      const failing = (times: number, code: number) => {
        let calls = 0
        const changed: Kernel32.Kernel32 = {
          ...kernel,
          CreateProcessW: (...all) => calls++ < times ? 0 : kernel.CreateProcessW(...all),
          lastError: () => code
        }
        return Effect.map(
          JobEngine.make(() => assert.fail("there are jobs"), changed),
          (engine) => ({ platform: ProcessPlatform.make(engine), calls: () => calls })
        )
      }
      const twice = yield* failing(2, 1359)
      const tree = yield* twice.platform.launch(windowsPrograms.exit(3))
      assert.deepStrictEqual([yield* tree.exited, twice.calls()], [ExitStatus.exited(3), 3])
      for (const [times, code, calls] of [[3, 1359, 3], [1, 8, 1]] as const) {
        const refused = yield* failing(times, code)
        const error = yield* Effect.flip(refused.platform.launch(windowsPrograms.exit(0)))
        assert.include(error.message, `error ${code}`)
        assert.strictEqual(refused.calls(), calls)
      }
    }))

  it.effect("a child inherits its descriptors and nothing else of the host; control: with child_process it does", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const kernel = Kernel32.load()
      if (kernel instanceof Error) return assert.fail(kernel.message)
      const ends = new Pipes.Ends(kernel)
      /** Whether a pipe whose end could be inherited is closed with it although what `start` starts lives on. */
      const closes = Effect.fn(function*<E, R>(start: Effect.Effect<unknown, E, R>, within: number) {
        const end = ends.open({ _tag: "pipe", direction: "read" }, 1)
        if (end instanceof Pipes.EndProblem) return assert.fail(`error ${end.code}`)
        kernel.SetHandleInformation(end.handle, Kernel32.HANDLE_FLAG_INHERIT, 1)
        yield* start
        ends.close([end], false)
        const closed = Effect.callback<boolean>((resume) =>
          void end.socket!.once("end", () => resume(Effect.succeed(true))).resume()
        )
        const outcome = yield* Effect.timeoutOption(closed, within)
        end.socket!.destroy()
        return Option.isSome(outcome)
      })
      assert.isTrue(yield* closes(platform.launch(windowsPrograms.sleeper, kill), 5_000))
      const started = Effect.acquireRelease(
        Effect.sync(() => child_process.spawn("ping.exe", ["-n", "60", "127.0.0.1"], { stdio: "ignore" })),
        (child) => Effect.sync(() => void child.kill())
      )
      assert.isFalse(yield* closes(started, 500))
    }))

  it.effect("a pipe may be opened by the account of the host, and by no other", () =>
    Effect.sync(() => {
      const kernel = Kernel32.load()
      if (kernel instanceof Error) return assert.fail(kernel.message)
      const ends = new Pipes.Ends(kernel)
      const end = ends.open({ _tag: "pipe", direction: "read" }, 1)
      if (end instanceof Pipes.EndProblem) return assert.fail(`error ${end.code}`)
      const list = accessListOf(end.handle)
      ends.close([end], true)
      assert.deepStrictEqual(list.map(({ allows, mask }) => [allows, mask]), [[true, 0x1f_01ff]])
      assert.strictEqual(list[0]?.account, accountOfThisProcess())
    }))

  it.effect("C28: a process that is not ours is found by its identity, and with a wrong one it is not", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const own = (yield* platform.processes).find(({ pid }) => pid === process.pid)
      if (own === undefined) return assert.fail("this process is not in the table")
      const { boot } = (yield* platform.launch(windowsPrograms.exit(0))).identity
      const { startTime } = own
      assert.strictEqual((yield* platform.find({ pid: process.pid, startTime, boot }))._tag, "Some")
      assert.strictEqual((yield* platform.find({ pid: process.pid, startTime: "1", boot }))._tag, "None")
    }))
})

describe("the helper for console events", () => {
  // Beside no other layer, whose helper could start or end meanwhile.
  it.live("runs before the first tree is asked to end, and ends with the layer", () =>
    Effect.gen(function*() {
      const helpers = () => childrenOf(identify(process.pid)!, path.basename(process.execPath).toLowerCase())
      const before = new Set(helpers().map(({ pid }) => pid))
      const seen = yield* Effect.scoped(Effect.gen(function*() {
        const platform = yield* Effect.map(
          Layer.build(WindowsPlatform.layer),
          Context.get(ProcessPlatform.ProcessPlatform)
        )
        yield* platform.launch(windowsPrograms.exit(0))
        return yield* eventually("it runs", () => helpers().find(({ pid }) => !before.has(pid)))
      }))
      yield* eventually("it has ended", () => !isAlive(seen))
    }))
})
