/**
 * `treeline guard`: a helper for programs in other languages. Its parent holds the write end of a pipe, the lifeline;
 * when that end is closed, however, the tree of the program ends.
 */
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as ShutdownPlan from "@treeline/core/ShutdownPlan"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as fs from "node:fs"
import * as net from "node:net"
import * as Console from "./Console.ts"
import * as Ending from "./Ending.ts"
import { InternalError, UsageError } from "./Failure.ts"
import * as GuardConfig from "./GuardConfig.ts"
import * as Incoming from "./Incoming.ts"
import { leaderEnd, planOf } from "./Run.ts"

export interface Options {
  readonly lifelineFd: number
  readonly configFd: number
  readonly statusFd: number
  /** ms */
  readonly grace: number
}

/** Node keeps the descriptors up to this number from its children when it starts, and not always those above. */
const lastClosedOnExec = 15

/** The same pipe under a number that children do not inherit; the old number is closed. */
const keepFromChildren = (fd: number, flags: number): number => {
  if (fd <= lastClosedOnExec) return fd
  const own = fs.openSync(`/dev/fd/${fd}`, flags)
  fs.closeSync(fd)
  return own
}

const check = (options: Options): void => {
  const { configFd, lifelineFd, statusFd } = options
  if (new Set([configFd, lifelineFd, statusFd]).size < 3) {
    throw new UsageError({ problem: "--lifeline-fd, --config-fd and --status-fd must be three descriptors" })
  }
  for (const [name, fd] of [["lifeline", lifelineFd], ["config", configFd], ["status", statusFd]] as const) {
    if (fd < 3) throw new UsageError({ problem: `--${name}-fd: 0, 1 and 2 belong to the program` })
    let stat: fs.Stats
    try {
      stat = fs.fstatSync(fd)
    } catch {
      throw new UsageError({ problem: `--${name}-fd: descriptor ${fd} is not open` })
    }
    if (name === "lifeline" && !stat.isFIFO() && !stat.isSocket()) {
      throw new UsageError({ problem: `--lifeline-fd: descriptor ${fd} is neither a pipe nor a socket` })
    }
  }
}

/** Reads to the end of file and closes. */
const readConfig = async (fd: number): Promise<string> => {
  const chunks: Array<Buffer> = []
  const chunk = Buffer.alloc(65_536)
  while (true) {
    const outcome = await new Promise<number | string | undefined>((resolve) => {
      fs.read(fd, chunk, 0, chunk.length, null, (error, read) => resolve(error === null ? read : error.code))
    })
    if (typeof outcome === "number" && outcome > 0) chunks.push(Buffer.from(chunk.subarray(0, outcome)))
    else if (outcome === "EAGAIN") await new Promise((resolve) => setTimeout(resolve, 5))
    else if (outcome === 0) break
    else throw new Error(`the configuration can't be read (${String(outcome)})`)
  }
  fs.closeSync(fd)
  return Buffer.concat(chunks).toString("utf8")
}

/** Completes when the parent has closed its end of the lifeline, by whatever death. */
const endOfLifeline = (fd: number): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const socket = new net.Socket({ fd, readable: true, writable: false })
    const end = () => resume(Effect.void)
    socket.on("error", end).on("end", end).on("close", end)
    socket.resume()
    return Effect.sync(() => void socket.destroy())
  })

const failure = (cause: unknown): InternalError | UsageError =>
  cause instanceof UsageError
    ? cause
    : new InternalError({ detail: cause instanceof Error ? cause.message : String(cause) })

const attempt = <A>(f: () => A) => Effect.try({ try: f, catch: failure })

const stdioOf = (value: "inherit" | "devnull" | null | undefined) => value === "devnull" ? "ignore" : "inherit"

/** Runs what the configuration says and tells how this process should end. */
const guardOnPosix = Effect.fnUntraced(
  function*(options: Options, lifelineFd: number, statusFd: number, layer: Layer.Layer<ProcessPlatform>) {
    const report = (status: { readonly ok: true } | { readonly ok: false; readonly error: string }) =>
      Effect.promise(async () => {
        await Console.writeAll(statusFd, Buffer.from(JSON.stringify(status)))
        fs.closeSync(statusFd)
      })

    const supervise = Effect.gen(function*() {
      const text = yield* Effect.tryPromise({ try: () => readConfig(options.configFd), catch: failure })
      const config = yield* Effect.fromResult(
        Result.mapError(GuardConfig.parse(text), (detail) => new UsageError({ problem: detail }))
      )
      const platform = yield* ProcessPlatform
      const incoming = yield* Incoming.signals(["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"])
      const [file, ...args] = config.command
      const { cwd, env, stderr, stdin, stdout } = config.popen_kwargs ?? {}
      const tree = yield* platform.launch(
        ChildProcess.make(file, args, {
          ...cwd != null && { cwd },
          ...env != null && { env },
          stdin: stdioOf(stdin),
          stdout: stdioOf(stdout),
          stderr: stdioOf(stderr)
        }),
        // The rest of the tree ends when its leader has ended.
        { shutdown: planOf("SIGTERM", options.grace), session: "own", whenLeaderEnds: "end" }
      )
      return { incoming, tree }
    })

    return yield* supervise.pipe(
      Effect.tapError((error) => report({ ok: false, error: error.message })),
      Effect.flatMap(Effect.fnUntraced(function*({ incoming, tree }) {
        yield* report({ ok: true })
        yield* Effect.forkScoped(Effect.andThen(endOfLifeline(lifelineFd), tree.shutdown()))
        yield* Effect.forkScoped(Effect.gen(function*() {
          const first = yield* Queue.take(incoming)
          yield* Effect.forkScoped(tree.shutdown(planOf(first, options.grace)))
          yield* Queue.take(incoming)
          yield* tree.shutdown(ShutdownPlan.kill)
        }))
        const ended = yield* leaderEnd(tree)
        const survivors = yield* tree.shutdown()
        if (Option.isNone(ended) || survivors.length > 0) {
          return yield* new InternalError({
            detail: `could not end ${survivors.map(({ command, pid }) => `${pid} (${command})`).join(", ")}`
          })
        }
        return Ending.code(Ending.shellCode(ended.value))
      })),
      Effect.provide(layer)
    )
  },
  Effect.scoped
)

/** Refuses what can't be used, then guards. `layer` is built only when all is well. */
export const guard = Effect.fn("treeline guard")(function*(options: Options, layer: Layer.Layer<ProcessPlatform>) {
  if (process.platform === "win32") {
    return yield* new UsageError({ problem: "treeline guard needs a POSIX system" })
  }
  yield* attempt(() => check(options))
  const [lifelineFd, statusFd] = yield* attempt(() =>
    [
      keepFromChildren(options.lifelineFd, fs.constants.O_RDONLY),
      keepFromChildren(options.statusFd, fs.constants.O_WRONLY)
    ] as const
  )
  return yield* guardOnPosix(options, lifelineFd, statusFd, layer)
})
