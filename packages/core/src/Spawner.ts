/**
 * Effect's own `ChildProcessSpawner`, on a Treeline platform: the drop-in.
 *
 * Every option of `effect/process` works as Effect documents it. What differs is the end: every close is bounded, the
 * whole tree ends and not only the process group, zombies count as dead, a death by signal carries a typed
 * `ExitStatus`, and output ends soon after the leader although a background process may hold the pipe.
 *
 * @example
 * ```ts
 * import { Spawner } from "@treeline/core"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect, Layer } from "effect"
 * import { ChildProcess, ChildProcessSpawner } from "effect/process"
 * import { strictEqual } from "node:assert"
 *
 * const layer = Spawner.layer.pipe(Layer.provide(PosixPlatform.layer))
 * const program = ChildProcessSpawner.ChildProcessSpawner.use((spawner) => spawner.string(ChildProcess.make`echo hi`))
 * strictEqual(await Effect.runPromise(program.pipe(Effect.provide(layer))), "hi\n")
 * ```
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as PlatformError from "effect/PlatformError"
import * as ChildProcess from "effect/process/ChildProcess"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as CommandLine from "effect/process/CommandLine"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { SignalReport } from "./Engine.ts"
import { AbnormalExit, type LaunchReason, Unkillable } from "./Errors.ts"
import * as ExitStatus from "./ExitStatus.ts"
import * as Output from "./Output.ts"
import { type LaunchFailure, type LaunchOptions, ProcessPlatform } from "./ProcessPlatform.ts"
import type { ProcessTree } from "./ProcessTree.ts"
import * as ShutdownPlan from "./ShutdownPlan.ts"

/** What the drop-in adds to a command's own options. */
export interface Options {
  /** When to kill what a command's `killSignal` has not ended, where the command does not say: 5 s. */
  readonly forceKillAfter?: Duration.Input | undefined
  /** Containment that every command must have. */
  readonly require?: LaunchOptions["require"]
  /** Bytes that are read ahead of the consumer of each output stream before the child is held back: 1 MiB. */
  readonly readAhead?: number | undefined
  /** How long output is awaited after the leader's end while another process holds the pipe. */
  readonly drain?: Output.DrainPolicy | undefined
}

type Handle = ChildProcessSpawner.ChildProcessHandle

/** The trees behind the handles, in the order of the pipeline. */
const treesOf = new WeakMap<Handle, ReadonlyArray<ProcessTree>>()

/** The trees behind a handle: one, or one for each stage of a pipeline; empty for a handle of another spawner. */
export const trees = (handle: Handle): ReadonlyArray<ProcessTree> => treesOf.get(handle) ?? []

/**
 * Sends a signal to the process group of every stage and returns at once. `handle.kill` ends the process; this one is
 * for signals that mean something else, such as SIGHUP for "reload".
 */
export const signal = Effect.fn("Spawner.signal")(function*(handle: Handle, name: ChildProcess.Signal) {
  const reports = yield* Effect.forEach(trees(handle), (tree) => tree.signal(name, "group"))
  return reports.reduce<SignalReport>((sum, report) => ({
    delivered: sum.delivered + report.delivered,
    denied: [...sum.denied, ...report.denied]
  }), { delivered: 0, denied: [] })
})

/**
 * How every stage ended, and the status that decides: the first stage that failed, else the last one (a shell's
 * `pipefail`, but in order of the stages). `handle.exitCode` is the last stage's alone, as Effect documents it.
 */
export const pipeStatus = Effect.fn("Spawner.pipeStatus")(function*(handle: Handle) {
  const stages = yield* Effect.forEach(trees(handle), (tree) => tree.exited)
  const decides = stages.find((status) => !ExitStatus.isSuccess(status)) ?? stages.at(-1) ?? ExitStatus.unknown
  return { stages, decides }
})

/** The typed end of a process inside an error of `handle.exitCode`; none for other errors. */
export const exitStatus = (error: PlatformError.PlatformError): Option.Option<ExitStatus.ExitStatus> =>
  error.reason.cause instanceof AbnormalExit ? Option.some(error.reason.cause.status) : Option.none()

const reasonTag: Readonly<Record<Exclude<LaunchReason, "InvalidArgument">, PlatformError.SystemErrorTag>> = {
  NotFound: "NotFound",
  PermissionDenied: "PermissionDenied",
  NotExecutable: "BadResource",
  BadWorkingDirectory: "NotFound",
  ResourceExhausted: "Busy",
  Unknown: "Unknown"
}

const display = (command: ChildProcess.StandardCommand): string =>
  CommandLine.display([command.command, ...command.args])

const launchFailure = (command: ChildProcess.StandardCommand, error: LaunchFailure): PlatformError.PlatformError => {
  const common = { module: "ChildProcess", method: "spawn" }
  if (error._tag === "LaunchError" && error.reason !== "InvalidArgument") {
    return PlatformError.systemError({
      ...common,
      _tag: reasonTag[error.reason],
      description: error.detail,
      pathOrDescriptor: display(command),
      cause: error
    })
  }
  return PlatformError.badArgument({
    ...common,
    description: error._tag === "LaunchError" ? error.detail : error.message,
    cause: error
  })
}

const planOf = (options: ChildProcess.KillOptions | undefined, fallback: Duration.Input): ShutdownPlan.ShutdownPlan =>
  options?.killSignal === "SIGKILL"
    ? ShutdownPlan.kill
    : ShutdownPlan.terminate({ signal: options?.killSignal, within: options?.forceKillAfter ?? fallback })

/** A pipeline as a list; `pipe` is how a stage is connected to the one before it. */
const flatten = (
  command: ChildProcess.Command,
  pipe?: ChildProcess.PipeOptions
): ReadonlyArray<{
  readonly command: ChildProcess.StandardCommand
  readonly pipe: ChildProcess.PipeOptions | undefined
}> =>
  command._tag === "StandardCommand"
    ? [{ command, pipe }]
    : [...flatten(command.left, pipe), ...flatten(command.right, command.options)]

const sourceOf = (handle: Handle, from: ChildProcess.PipeFromOption = "stdout"): Handle["stdout"] => {
  switch (from) {
    case "stdout":
      return handle.stdout
    case "stderr":
      return handle.stderr
    case "all":
      return handle.all
    default: {
      const fd = ChildProcess.parseFdName(from)
      return fd === undefined ? handle.stdout : handle.getOutputFd(fd)
    }
  }
}

/** The stage with its input connected to `source`. */
const connect = (
  { command, pipe }: ReturnType<typeof flatten>[number],
  source: Handle["stdout"]
): ChildProcess.StandardCommand => {
  const { options } = command
  const fd = pipe?.to === undefined || pipe.to === "stdin" ? undefined : ChildProcess.parseFdName(pipe.to)
  if (fd === undefined) {
    const configured = typeof options.stdin === "object" && !Stream.isStream(options.stdin) ? options.stdin : undefined
    return ChildProcess.make(command.command, command.args, { ...options, stdin: { ...configured, stream: source } })
  }
  const name = ChildProcess.fdName(fd) as `fd${number}`
  const existing = options.additionalFds?.[name]
  return ChildProcess.make(command.command, command.args, {
    ...options,
    additionalFds: {
      ...options.additionalFds,
      [name]: existing?.type === "duplex" ? { ...existing, stream: source } : { type: "input", stream: source }
    }
  })
}

/** The spawner with options of its own. */
export const layerWith = (
  options: Options
): Layer.Layer<ChildProcessSpawner.ChildProcessSpawner, never, ProcessPlatform> =>
  Layer.effect(
    ChildProcessSpawner.ChildProcessSpawner,
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform
      const forceKillAfter = options.forceKillAfter ?? "5 seconds"

      const spawnOne = Effect.fnUntraced(function*(command: ChildProcess.StandardCommand, feedsNext: boolean) {
        const tree = yield* Effect.mapError(
          platform.launch(command, {
            require: options.require,
            shutdown: planOf(command.options, forceKillAfter),
            // A stage whose reader has gone gets SIGPIPE, as in a shell's pipeline.
            output: Output.backpressure(options.readAhead, { onReaderGone: feedsNext ? "close" : "discard" }),
            drain: options.drain,
            // Effect signals the group of a leader that failed; here the rest of the tree ends by the plan.
            whenLeaderEnds: "endIfFailed"
          }),
          (error) => launchFailure(command, error)
        )
        const exitCode = Effect.raceFirst(tree.inputFailure, tree.exited).pipe(
          Effect.flatMap((status) =>
            status._tag === "Exited"
              ? Effect.succeed(ChildProcessSpawner.ExitCode(status.code))
              : Effect.fail(PlatformError.systemError({
                _tag: "Unknown",
                module: "ChildProcess",
                method: "exitCode",
                description: ExitStatus.describe(status),
                pathOrDescriptor: display(command),
                cause: new AbnormalExit({ command: tree.command, status })
              }))
          )
        )
        const kill = (killOptions?: ChildProcess.KillOptions) =>
          tree.shutdown(planOf(killOptions, forceKillAfter)).pipe(
            Effect.catchTag("InvalidSpec", (error) =>
              Effect.fail(PlatformError.badArgument({
                module: "ChildProcess",
                method: "kill",
                description: error.message,
                cause: error
              }))),
            Effect.flatMap((survivors) =>
              survivors.length === 0 ? Effect.void : Effect.fail(PlatformError.systemError({
                _tag: "TimedOut",
                module: "ChildProcess",
                method: "kill",
                pathOrDescriptor: display(command),
                cause: new Unkillable({ command: tree.command, survivors })
              }))
            )
          )
        const reref = tree.setReferenced(true)
        const handle = ChildProcessSpawner.makeHandle({
          pid: ChildProcessSpawner.ProcessId(tree.pid),
          exitCode,
          isRunning: Effect.map(tree.exitStatus, Option.isNone),
          kill,
          stdin: tree.stdin,
          stdout: tree.stdout.stream,
          stderr: tree.stderr.stream,
          all: Stream.merge(tree.stdout.stream, tree.stderr.stream),
          getInputFd: tree.input,
          getOutputFd: (fd) => tree.output(fd).stream,
          unref: Effect.as(tree.setReferenced(false), reref)
        })
        treesOf.set(handle, [tree])
        return handle
      })

      const spawn = Effect.fnUntraced(function*(
        command: ChildProcess.Command
      ): Effect.fn.Return<Handle, PlatformError.PlatformError, Scope.Scope> {
        const stages = flatten(command)
        const handles: Array<Handle> = []
        for (const [index, stage] of stages.entries()) {
          const previous = handles.at(-1)
          handles.push(
            yield* spawnOne(
              previous === undefined ? stage.command : connect(stage, sourceOf(previous, stage.pipe?.from)),
              index < stages.length - 1
            )
          )
        }
        const first = handles[0]!
        const last = handles.at(-1)!
        if (first === last) return last
        const pipeline = ChildProcessSpawner.makeHandle({
          ...last,
          stdin: first.stdin,
          // All stages at once: N stubborn stages take one grace period.
          kill: (killOptions) =>
            Effect.forEach(handles, (handle) => handle.kill(killOptions), { concurrency: "unbounded", discard: true }),
          unref: Effect.map(
            Effect.forEach(handles, (handle) => handle.unref),
            (rerefs) => Effect.forEach(rerefs, (reref) => reref, { discard: true })
          )
        })
        treesOf.set(pipeline, handles.flatMap(trees))
        return pipeline
      })

      return ChildProcessSpawner.make(spawn)
    })
  )

/** `ChildProcessSpawner` from a `ProcessPlatform`. */
export const layer: Layer.Layer<ChildProcessSpawner.ChildProcessSpawner, never, ProcessPlatform> = layerWith({})
