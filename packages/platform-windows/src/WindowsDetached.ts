/**
 * A process that outlives whoever starts it, on Windows: without a console, with no handle but those of its own output,
 * and outside of the jobs that would end it. Where native code can't be had it is started by Node, and nothing is looked
 * at before.
 */
import type { Launched } from "@treeline/core/daemon/Daemon"
import { DetachUnavailable, LaunchError } from "@treeline/core/Errors"
import * as ExitStatus from "@treeline/core/ExitStatus"
import * as DetachedOutput from "@treeline/platform-node/internal/DetachedOutput"
import * as NodeDetached from "@treeline/platform-node/NodeDetached"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { isMainThread } from "node:worker_threads"
import * as Commands from "./internal/Commands.ts"
import * as Detachment from "./internal/Detachment.ts"
import * as EnvironmentBlock from "./internal/EnvironmentBlock.ts"
import * as Executable from "./internal/Executable.ts"
import * as ExitCode from "./internal/ExitCode.ts"
import * as Kernel32 from "./internal/Kernel32.ts"
import { Launcher, LaunchFailed } from "./internal/Launch.ts"
import * as Pipes from "./internal/Pipes.ts"
import type * as Structs from "./internal/Structs.ts"
import * as Waits from "./internal/Waits.ts"

export type Options = NodeDetached.Options

/**
 * Why a process that this one starts would not outlive it; undefined when it would, and where nobody can tell. A process
 * that was started to live on may ask for itself: of several jobs around it only the nearest is known, and after a
 * breakaway that is the first one that let nothing out.
 */
export const unavailable = (kernel: Kernel32.Kernel32 | Error = Kernel32.load()): string | undefined => {
  if (kernel instanceof Error) return undefined
  const decided = Detachment.decide(Detachment.look(kernel))
  return decided._tag === "Refused" ? decided.reason : undefined
}

const endOf = (kernel: Kernel32.Kernel32, process: Structs.Handle): Effect.Effect<ExitStatus.ExitStatus> => {
  const ended = Deferred.makeUnsafe<ExitStatus.ExitStatus>()
  // While it is open its pid is nobody else's. A Worker can be ended at any time, and a wait would call into nothing.
  const cancel = !isMainThread ? undefined : Waits.get(kernel).add(process, () => {
    const code = new Uint32Array(1)
    const told = kernel.GetExitCodeProcess(process, code) !== 0
    kernel.CloseHandle(process)
    Deferred.doneUnsafe(
      ended,
      Effect.succeed(told ? ExitCode.toStatus(code[0]!, false) : ExitStatus.unknown)
    )
  })
  // Or the system has no room for one more wait: the record of the daemon tells as well.
  if (cancel === undefined) kernel.CloseHandle(process)
  return Deferred.await(ended)
}

/**
 * Starts it. It is in no scope: nothing of this process keeps it or ends it. Fails with `DetachUnavailable`, and starts
 * nothing, when the job that this process is in would end it (seed C28).
 *
 * @example
 * ```ts
 * import { WindowsDetached } from "@treeline/platform-windows"
 * import { strictEqual } from "node:assert"
 *
 * // On another system there is nothing to say.
 * if (process.platform !== "win32") strictEqual(WindowsDetached.unavailable(), undefined)
 * ```
 */
export const launch = Effect.fn("WindowsDetached.launch")(
  function*(
    options: Options,
    kernel: Kernel32.Kernel32 | Error = Kernel32.load()
  ): Effect.fn.Return<Launched, DetachUnavailable | LaunchError> {
    if (kernel instanceof Error) return yield* NodeDetached.launch(options)
    const detachment = Detachment.decide(Detachment.look(kernel))
    if (detachment._tag === "Refused") {
      return yield* new DetachUnavailable({ command: options.command, reason: detachment.reason })
    }
    const command = yield* Effect.fromResult(Commands.resolve({
      command: options.command,
      args: options.args,
      cwd: options.cwd,
      env: options.env ?? process.env,
      extendEnv: false,
      shell: false,
      stdio: [],
      session: "own",
      windowsHide: true,
      require: undefined,
      limits: undefined
    }, { env: process.env, directory: process.cwd(), systemDirectory: Commands.systemDirectory() }))
    if (command.isBatch) {
      // Its process would be that of cmd.exe, and no record would ever name it.
      return yield* new LaunchError({
        command: options.command,
        reason: "NotExecutable",
        detail: "a batch file can't be a daemon, its program would be another process: name the program itself, an .exe"
      })
    }
    const failed = (code: number) => new LaunchError({ command: options.command, ...Executable.reasonOf(code) })
    const started = yield* Effect.try({
      try: () => {
        DetachedOutput.setAside(options.output)
        const launcher = new Launcher(kernel)
        const ends = launcher.ends.openOutput(options.output)
        if (ends instanceof Pipes.EndProblem) return new LaunchFailed(ends.code)
        return launcher.start(
          {
            file: command.file,
            commandLine: command.commandLine,
            environment: EnvironmentBlock.encode(command.env),
            cwd: command.cwd,
            // No group of its own: that would switch Ctrl+C off for all that it starts (CreateProcess, process groups).
            console: "none",
            breaksAway: detachment._tag === "BreaksAway"
          },
          undefined,
          ends
        )
      },
      catch: (error) =>
        new LaunchError({
          command: options.command,
          reason: "Unknown",
          detail: error instanceof Error ? error.message : String(error)
        })
    })
    if (started instanceof LaunchFailed) return yield* failed(started.code)
    return {
      pid: started.pid,
      ended: endOf(kernel, started.process),
      errors: Effect.sync(() => DetachedOutput.endOf(options.output))
    }
  }
)
