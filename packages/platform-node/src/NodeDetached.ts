/** A process that outlives whoever starts it: in a session of its own, without a terminal, a pipe or a descriptor of it. */
import type { Launched } from "@treeline/core/daemon/Daemon"
import { LaunchError } from "@treeline/core/Errors"
import * as ExitStatus from "@treeline/core/ExitStatus"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as Descriptors from "./Descriptors.ts"
import * as DetachedOutput from "./internal/DetachedOutput.ts"

export interface Options {
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** Default: this process's. */
  readonly cwd?: string | undefined
  /** The whole environment. Default: this process's. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
  /**
   * A file for its stdout and stderr, for its user only. What an earlier one wrote is kept as `FILE.previous`, and one
   * before that is gone.
   */
  readonly output: string
}

const reasons: Readonly<Record<string, LaunchError["reason"]>> = {
  ENOENT: "NotFound",
  EACCES: "PermissionDenied",
  EPERM: "PermissionDenied",
  ENOEXEC: "NotExecutable",
  EAGAIN: "ResourceExhausted",
  EMFILE: "ResourceExhausted",
  ENOMEM: "ResourceExhausted"
}

/** A new file at the place. */
const openOutput = (file: string): number => {
  DetachedOutput.setAside(file)
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_TRUNC, O_WRONLY } = fs.constants
  return fs.openSync(file, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | (O_NOFOLLOW ?? 0), 0o600)
}

/**
 * Starts it. It is in no scope: nothing of this process keeps it or ends it.
 *
 * A process that is contained by Treeline passes its containment on: what is started here from within such a tree ends
 * with that tree.
 *
 * On Windows `WindowsDetached` of `@treeline/platform-windows` does the same, looks first whether a job of this process
 * would end the new one, and keeps Ctrl+C working for what that one starts.
 */
export const launch = Effect.fn("NodeDetached.launch")(
  (options: Options): Effect.Effect<Launched, LaunchError> =>
    Effect.callback<Launched, LaunchError>((resume) => {
      const fail = (error: unknown) => {
        const { code, message } = error as NodeJS.ErrnoException
        resume(Effect.fail(
          new LaunchError({
            command: options.command,
            reason: reasons[code ?? ""] ?? "Unknown",
            detail: code ?? message
          })
        ))
      }
      const open: Array<number> = []
      try {
        const nothing = fs.openSync(os.devNull, "r")
        open.push(nothing)
        const output = openOutput(options.output)
        open.push(output)
        const child = child_process.spawn(options.command, options.args, {
          detached: true,
          stdio: Descriptors.only(["ignore", output, output], nothing),
          cwd: options.cwd,
          env: { ...(options.env ?? process.env) },
          windowsHide: true
        })
        const ended = Deferred.makeUnsafe<ExitStatus.ExitStatus>()
        child.once("exit", (code, signal) =>
          Deferred.doneUnsafe(
            ended,
            Effect.succeed(
              code !== null
                ? ExitStatus.exited(code)
                : signal !== null
                ? ExitStatus.signaled(signal)
                : ExitStatus.unknown
            )
          ))
        child.once("error", fail)
        child.unref()
        const { pid } = child
        if (pid !== undefined) {
          const launched: Launched = {
            pid,
            ended: Deferred.await(ended),
            errors: Effect.sync(() => DetachedOutput.endOf(options.output))
          }
          resume(Effect.succeed(launched))
        }
      } catch (error) {
        fail(error)
      } finally {
        for (const fd of open) fs.closeSync(fd)
      }
    })
)
