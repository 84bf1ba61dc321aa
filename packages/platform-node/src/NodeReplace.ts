/**
 * A process that becomes another program, or a new version of its own: same pid, same start time, so records that name it
 * stay true.
 */
import { NotReplaced } from "@treeline/core/Errors"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import { isMainThread } from "node:worker_threads"

export interface Options {
  /** A file that can be run; a script needs its first line. */
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** The whole environment. Default: this process's. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
}

/** Why this process can't; undefined when it can. */
export const unavailable = (): string | undefined => {
  if (process.platform === "win32") return "Windows has no execve"
  if (!isMainThread) return "a Worker is no process"
  return typeof process.execve === "function" ? undefined : "this Node has no process.execve: it came with 22.15"
}

/**
 * Becomes the program (`process.execve`, execve(2)); returns only when it can't, and then with nothing done. Close every
 * scope first: nothing of this program goes on, and no finalizer runs.
 *
 * What the new program has of the old one: pid, start time, parent, children, session and working directory, standard input,
 * output and error, that it is a subreaper (prctl(2)), and ignored signals, of which Node has only SIGPIPE and SIGXFSZ. Every
 * other descriptor is closed, for Node and libuv open each with close-on-exec. A child that is still there becomes the new
 * program's, which is not told of its end: where the native engine of Linux runs it is reaped, elsewhere it stays a zombie,
 * which counts as ended, until this process ends.
 *
 * @example
 * ```ts no-run
 * import { NodeReplace } from "@treeline/platform-node"
 * import { Effect } from "effect"
 *
 * await Effect.runPromise(NodeReplace.become({ command: "/opt/app/current/app", args: ["serve"] }))
 * ```
 */
export const become = (options: Options): Effect.Effect<never, NotReplaced> =>
  Effect.suspend(() => {
    const refuse = (detail: string) => Effect.fail(new NotReplaced({ reason: "Unavailable", detail }))
    const problem = unavailable()
    if (problem !== undefined) return refuse(problem)
    try {
      // Node does not survive an execve that fails, so what can be known is asked before.
      fs.accessSync(options.command, fs.constants.X_OK)
      if (!fs.statSync(options.command).isFile()) return refuse(`${options.command} is no regular file`)
    } catch (error) {
      return refuse(error instanceof Error ? error.message : String(error))
    }
    const env: Record<string, string> = {}
    for (const [name, value] of Object.entries(options.env ?? process.env)) if (value !== undefined) env[name] = value
    return process.execve!(options.command, [options.command, ...options.args], env)
  })
