/**
 * The one boundary to the operating system.
 *
 * A platform layer gives an `Engine`; `make` puts the policy on it: validation, shutdown plans, drains, streams. A new
 * platform is one layer, proved by the conformance suite of `@treeline/core/testing`.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Containment from "./Containment.ts"
import type { Engine, LaunchRequest, Session, Signalling } from "./Engine.ts"
import { ContainmentUnavailable, type InvalidSpec, LaunchError } from "./Errors.ts"
import * as Siblings from "./internal/Siblings.ts"
import * as Stdio from "./internal/Stdio.ts"
import * as Limits from "./Limits.ts"
import type { Network } from "./Network.ts"
import * as Output from "./Output.ts"
import type { ProcessIdentity, ProcessInfo, Standing } from "./ProcessIdentity.ts"
import * as ProcessTree from "./ProcessTree.ts"
import * as ShutdownPlan from "./ShutdownPlan.ts"

/** How a tree is contained, read and ended. All are optional. */
export interface LaunchOptions {
  /** The level that the tree must have; without it the best level of the platform is taken. */
  readonly require?: Containment.Level | undefined
  /** Upper bounds for the whole tree. They need a platform that can seal. */
  readonly limits?: Limits.Limits | undefined
  /** How the tree ends when its scope closes. Default: SIGTERM to the tree, 5 s, kill. */
  readonly shutdown?: ShutdownPlan.ShutdownPlan | undefined
  /** What happens to output that nobody reads. Default: the last 64 KiB are kept. */
  readonly output?: Output.Policy | undefined
  /** How long output is awaited after the leader's end while a survivor holds the pipe. */
  readonly drain?: Output.DrainPolicy | undefined
  /** The leader's group and session: its own, or the host's (for a program in the foreground of a terminal). */
  readonly session?: Session | undefined
  /** What becomes of the rest of the tree when the leader has ended. Default: `keep`. */
  readonly whenLeaderEnds?: ProcessTree.WhenLeaderEnds | undefined
  /** Called with its name when a step of the shutdown plan begins; must not throw. */
  readonly onStep?: ((step: string) => void) | undefined
}

/** Why a launch fails. Nothing is running then, and nothing is left. */
export type LaunchFailure = LaunchError | ContainmentUnavailable | InvalidSpec

/**
 * Starts processes so that their whole trees end.
 *
 * @example
 * ```ts
 * import { ProcessPlatform } from "@treeline/core"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect } from "effect"
 * import { ChildProcess } from "effect/process"
 *
 * const program = Effect.gen(function*() {
 *   const platform = yield* ProcessPlatform.ProcessPlatform
 *   const tree = yield* platform.launch(ChildProcess.make("sh", ["-c", "sleep 60 & setsid sleep 60 & wait"]))
 *   yield* tree.shutdown()
 *   return yield* tree.empty
 * })
 * const survivors = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(PosixPlatform.layer)))
 * if (survivors.length > 0) throw new Error("left over")
 * ```
 */
export class ProcessPlatform extends Context.Service<ProcessPlatform, {
  /**
   * Starts a command. The tree ends with the scope, by its shutdown plan. Trees that were launched one after another in
   * one scope end side by side, so closing N stubborn children takes one grace period; a finalizer between two launches
   * keeps its place.
   */
  readonly launch: (
    command: ChildProcess.StandardCommand,
    options?: LaunchOptions
  ) => Effect.Effect<ProcessTree.ProcessTree, LaunchFailure, Scope.Scope>
  /** What this platform can guarantee here, and why not more. */
  readonly containment: Effect.Effect<Containment.Report>
  /** The living process of this identity; none when it has ended or its pid belongs to another process now. */
  readonly find: (identity: ProcessIdentity) => Effect.Effect<Option.Option<ProcessInfo>>
  /**
   * Ends what hosts that have died have left, where one of these processes is of it: found by mark and identity, never by
   * a pid alone. Tells which of them are; no other process is touched. Undefined where the system itself leaves nothing.
   */
  readonly endLeftovers?:
    | ((pids: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<number>>)
    | undefined
  /**
   * What a host that has died has left and that lives now, with its guardian while that is at it; none when all is over.
   * Undefined where the system itself leaves nothing, or does not tell.
   */
  readonly leftoversOf?:
    | ((host: ProcessIdentity) => Effect.Effect<ReadonlyArray<ProcessInfo>>)
    | undefined
  /** The identity of the process that has this pid now, for a record; none when there is none or it can't be told. */
  readonly identify: (pid: number) => Effect.Effect<Option.Option<ProcessIdentity>>
  /** Whether a remembered process still lives; `Unsure` where the system does not tell enough. */
  readonly standing: (identity: ProcessIdentity) => Effect.Effect<Standing>
  /**
   * A signal to a remembered process, which need not be in a tree of this host. Nothing is sent when its pid is another
   * process's now. On Windows there is only SIGKILL.
   */
  readonly signalProcess: (identity: ProcessIdentity, signal: ChildProcess.Signal) => Effect.Effect<Signalling>
  /** The process table, for diagnosis. */
  readonly processes: Effect.Effect<ReadonlyArray<ProcessInfo>>
  /** The clock of the time that is spent on processes: the live one, or the ambient one under simulation. */
  readonly clock: Effect.Effect<Clock.Clock>
  /** What probes connect through; undefined where the platform has no network. */
  readonly network: Network | undefined
}>()("@treeline/core/ProcessPlatform") {}

const unwrap = (value: string | Redacted.Redacted<string>): string =>
  Redacted.isRedacted(value) ? Redacted.value(value) : value

/** The name of a command for people and errors: never its arguments, which may be secret, and no whole script. */
const displayName = (command: ChildProcess.StandardCommand): string =>
  command.options.shell === undefined || command.options.shell === false
    ? command.command
    : typeof command.options.shell === "string"
    ? command.options.shell
    : "shell"

/** What makes a command unusable before the system is asked; the value itself is never shown. */
const argumentProblem = (command: ChildProcess.StandardCommand): string | undefined => {
  const { options } = command
  if (command.command === "") return "the command is empty"
  if (command.command.includes("\0")) return "the command contains a NUL character"
  if (options.shell !== undefined && options.shell !== false && command.args.length > 0) {
    return "the shell option cannot be combined with arguments; pass the whole script as the command"
  }
  const index = command.args.findIndex((arg) => unwrap(arg).includes("\0"))
  if (index >= 0) return `argument ${index + 1} contains a NUL character`
  if (options.cwd?.includes("\0") === true) return "the working directory contains a NUL character"
  for (const [name, value] of Object.entries(options.env ?? {})) {
    if (name === "" || name.includes("=") || name.includes("\0")) {
      return "a variable of the environment has an unusable name"
    }
    if (value !== undefined && unwrap(value).includes("\0")) {
      return `the environment variable ${name} contains a NUL character`
    }
  }
  return undefined
}

const toRequest = (
  command: ChildProcess.StandardCommand,
  stdio: ReadonlyArray<Stdio.Resolved>,
  session: Session,
  launchOptions: LaunchOptions
): LaunchRequest => {
  const { options } = command
  const env: Record<string, string | undefined> = {}
  for (const [name, value] of Object.entries(options.env ?? {})) {
    env[name] = value === undefined ? undefined : unwrap(value)
  }
  return {
    command: command.command,
    args: command.args.map(unwrap),
    cwd: options.cwd,
    env,
    extendEnv: options.env === undefined || options.extendEnv === true,
    shell: options.shell ?? false,
    stdio: Stdio.table(stdio),
    session,
    windowsHide: options.windowsHide ?? true,
    require: launchOptions.require,
    limits: launchOptions.limits
  }
}

/** The service from an engine. */
export const make = (engine: Engine): ProcessPlatform["Service"] => {
  const launch = Effect.fn("ProcessPlatform.launch")(function*(
    command: ChildProcess.StandardCommand,
    options: LaunchOptions = {}
  ) {
    const name = displayName(command)
    const problem = argumentProblem(command)
    if (problem !== undefined) {
      return yield* new LaunchError({
        command: name.replaceAll("\0", "\\0"),
        reason: "InvalidArgument",
        detail: problem
      })
    }
    const plan = yield* Effect.fromResult(ShutdownPlan.validate(options.shutdown ?? ShutdownPlan.default))
    const policy = yield* Effect.fromResult(Output.validatePolicy("output", options.output ?? Output.ring()))
    const drain = yield* Effect.fromResult(Output.validateDrain(options.drain ?? Output.defaultDrain))
    if (options.limits !== undefined) yield* Effect.fromResult(Limits.validate(options.limits))
    const stdio = Stdio.resolve(command.options)
    const session = options.session ?? (command.options.detached === false ? "shared" : "own")
    const clock = yield* engine.clock
    if (options.require !== undefined) {
      const report = yield* engine.report
      if (!Containment.atLeast(report.highest, options.require)) {
        return yield* new ContainmentUnavailable({
          required: options.require,
          available: report.highest,
          reason: report.raise ?? "the platform has no higher level"
        })
      }
    }
    const scope = yield* Effect.scope
    const whenLeaderEnds = options.whenLeaderEnds ?? "keep"
    // From the spawn to the registered close nothing can be interrupted, so there is no instant at which a process is
    // running and nobody will end it.
    const tree = yield* Effect.uninterruptible(Effect.gen(function*() {
      const launched = yield* engine.spawn(toRequest(command, stdio, session, options))
      const owned = yield* ProcessTree.make({
        engine: launched,
        clock,
        command: name,
        stdio,
        policy,
        drain,
        plan,
        whenLeaderEnds,
        onStep: options.onStep ?? (() => {})
      })
      yield* Siblings.addClose(scope, owned.close)
      return owned.tree
    }))
    yield* Effect.annotateCurrentSpan({ pid: tree.pid, level: tree.level })
    return tree
  })
  return ProcessPlatform.of({
    launch,
    containment: engine.report,
    find: engine.find,
    endLeftovers: engine.endLeftovers,
    leftoversOf: engine.leftoversOf,
    identify: engine.identify,
    standing: engine.standing,
    signalProcess: engine.signalProcess,
    processes: engine.processes,
    clock: engine.clock,
    network: engine.network
  })
}
