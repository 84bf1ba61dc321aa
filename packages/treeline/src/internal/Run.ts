/** `treeline run`: one contained command. */
import type { Level } from "@treeline/core/Containment"
import type { InvalidSpec } from "@treeline/core/Errors"
import * as ExitStatus from "@treeline/core/ExitStatus"
import * as Output from "@treeline/core/Output"
import type { ProcessInfo } from "@treeline/core/ProcessIdentity"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import type { ProcessTree } from "@treeline/core/ProcessTree"
import * as ShutdownPlan from "@treeline/core/ShutdownPlan"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as fs from "node:fs"
import * as Console from "./Console.ts"
import * as Ending from "./Ending.ts"
import * as Incoming from "./Incoming.ts"
import * as RunReport from "./RunReport.ts"

export interface Options {
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** ms */
  readonly grace: number
  readonly require: Level | undefined
  readonly json: boolean
  readonly report: string | undefined
}

/** The plan that begins with `signal`; no grace means no signal but the kill. */
export const planOf = (signal: NodeJS.Signals, grace: number): ShutdownPlan.ShutdownPlan =>
  grace === 0 ? ShutdownPlan.kill : ShutdownPlan.terminate({ signal, within: grace })

/** Two Ctrl-C within this time end the tree, in ms. */
const doubleInterrupt = 1000

/** After a Ctrl-C the terminal has interrupted the whole group; its processes may end a moment after the program, in ms. */
const settleAfterInterrupt = 250

const names = (processes: ReadonlyArray<ProcessInfo>): string =>
  processes.map(({ command, pid }) => `${pid} (${command})`).join(", ")

const count = (processes: ReadonlyArray<ProcessInfo>): string =>
  processes.length === 1 ? "1 process" : `${processes.length} processes`

/** How the leader has ended; none when the kill of the tree gave up and it still lives. */
export const leaderEnd = (tree: ProcessTree): Effect.Effect<Option.Option<ExitStatus.ExitStatus>> =>
  Effect.raceFirst(
    Effect.asSome(tree.exited),
    Effect.flatMap(
      tree.empty,
      (survivors) => survivors.length === 0 ? Effect.asSome(tree.exited) : tree.exitStatus
    )
  )

/**
 * A program that has a group of its own, such as an interactive shell, stops alone (`suspend`); the shell outside would
 * wait for ever. So this process stops as well, and when it is continued, so is the program.
 */
const stopWith = (tree: ProcessTree): Effect.Effect<void> =>
  Effect.gen(function*() {
    const members = yield* tree.members
    if (members.find(({ pid }) => pid === tree.pid)?.state !== "T") return
    // SIGTSTP and not SIGSTOP: it has no effect where nobody could continue this process.
    process.kill(process.pid, "SIGTSTP")
    yield* tree.signal("SIGCONT", "tree")
  })

/** Runs the command and tells how this process should end. */
export const run = Effect.fn("treeline run")(function*(options: Options) {
  const platform = yield* ProcessPlatform
  const shared = Console.inTerminal()
  // Before the launch, so that no signal falls between the two.
  const incoming = yield* Incoming.signals([
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGTERM",
    "SIGUSR1",
    "SIGUSR2",
    ...shared ? ["SIGCHLD" as const] : []
  ])
  const startedAt = performance.now()
  const tree = yield* platform.launch(
    ChildProcess.make(options.command, options.args, {
      stdin: "inherit",
      stdout: options.json ? "pipe" : "inherit",
      stderr: "inherit"
    }),
    {
      require: options.require,
      shutdown: planOf("SIGTERM", options.grace),
      // In a terminal the program stays in its session: Ctrl-C and Ctrl-Z reach it from there, and it may read.
      session: shared ? "shared" : "own",
      output: Output.backpressure()
    }
  )
  const copying = yield* Effect.forkScoped(
    Effect.ignore(Stream.runForEach(tree.stdout.stream, (chunk) => Effect.promise(() => Console.writeAll(2, chunk))))
  )

  let stoppedBy: NodeJS.Signals | undefined = undefined
  let interruptedAt = Number.NEGATIVE_INFINITY
  const react = (signal: NodeJS.Signals): Effect.Effect<unknown, InvalidSpec, Scope.Scope> => {
    if (signal === "SIGCHLD") return stopWith(tree)
    if (signal === "SIGUSR1" || signal === "SIGUSR2") return tree.signal(signal, "leader")
    const now = performance.now()
    if (shared && stoppedBy === undefined && (signal === "SIGINT" || signal === "SIGQUIT")) {
      // The terminal has sent it to the program too, which may take it for something else than the end.
      const again = now - interruptedAt < doubleInterrupt
      interruptedAt = now
      if (!again) return Effect.void
    } else if (stoppedBy === undefined) {
      stoppedBy = signal
      return Effect.forkScoped(tree.shutdown(planOf(signal, options.grace)))
    }
    stoppedBy ??= signal
    return Effect.forkScoped(tree.shutdown(ShutdownPlan.kill))
  }
  yield* Effect.forkScoped(Effect.forever(Effect.flatMap(Queue.take(incoming), react)))

  const ended = yield* leaderEnd(tree)
  if (performance.now() - interruptedAt < doubleInterrupt) {
    yield* Effect.raceFirst(tree.empty, Effect.sleep(settleAfterInterrupt))
  }
  const leftBehind = stoppedBy === undefined ? yield* tree.members : []
  const survivors = yield* tree.shutdown()
  if (Option.isSome(ended)) {
    yield* tree.drained
    yield* Fiber.await(copying)
  }

  const status = Option.getOrElse(ended, () => ExitStatus.unknown)
  const ending = Option.match(ended, { onNone: () => Ending.code(125), onSome: Ending.like })
  const stopped: string | null = stoppedBy ?? null
  if (options.json || options.report !== undefined) {
    const text = Schema.encodeSync(Schema.fromJsonString(RunReport.Run))({
      command: tree.command,
      pid: tree.pid,
      status,
      exitCode: Ending.shellCodeOf(ending),
      stoppedBy: stopped,
      milliseconds: Math.round(performance.now() - startedAt),
      containment: tree.level,
      leftBehind,
      survivors
    })
    if (options.json) yield* Effect.promise(() => Console.print(1, text))
    if (options.report !== undefined) yield* writeReport(options.report, text)
  } else if (leftBehind.length > survivors.length) {
    const ended = leftBehind.filter(({ pid }) => !survivors.some((survivor) => survivor.pid === pid))
    yield* say(`ended ${count(ended)} that ${tree.command} left behind: ${names(ended)}`)
  }
  if (survivors.length > 0) {
    yield* say(`could not end ${count(survivors)} of ${tree.command}: ${names(survivors)}`)
  }
  return ending
}, Effect.scoped)

const say = (text: string): Effect.Effect<void> => Effect.promise(() => Console.print(2, `treeline: ${text}`))

const writeReport = (path: string, text: string): Effect.Effect<void> =>
  Effect.tryPromise(() => fs.promises.writeFile(path, `${text}\n`)).pipe(
    Effect.catch(({ cause }) =>
      say(`could not write the report: ${cause instanceof Error ? cause.message : String(cause)}`)
    )
  )
