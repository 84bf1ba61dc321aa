/**
 * A launched tree: a leader, everything that descends from it, their pipes, and their end.
 *
 * It has three events that are never merged, because every library that merged two of them either hung or lost output:
 * `exited` (the leader has ended), `empty` (nothing of the tree lives) and `drained` (the output has been read).
 */
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as PlatformError from "effect/PlatformError"
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { Level } from "./Containment.ts"
import type { EngineTree, SignalReport } from "./Engine.ts"
import { type InvalidSpec, Unkillable } from "./Errors.ts"
import { type ExitStatus, isSuccess } from "./ExitStatus.ts"
import { Pump } from "./internal/Pump.ts"
import type * as Stdio from "./internal/Stdio.ts"
import { type State as TeardownState, Teardown } from "./internal/Teardown.ts"
import type { Usage } from "./Limits.ts"
import type { Drained, Output, Policy } from "./Output.ts"
import type { ProcessIdentity, ProcessInfo } from "./ProcessIdentity.ts"
import * as ShutdownPlan from "./ShutdownPlan.ts"

export type { TeardownState }

const TypeId = "~treeline/ProcessTree"

/**
 * A running tree. It lives in the scope it was launched in; closing that scope runs its shutdown plan.
 */
export interface ProcessTree {
  readonly [TypeId]: typeof TypeId
  /** The leader. */
  readonly identity: ProcessIdentity
  /** The leader's pid; use `identity` where it may have ended. */
  readonly pid: number
  /** The program's name, without its arguments. */
  readonly command: string
  /** The containment that this tree has. */
  readonly level: Level

  readonly stdin: Sink.Sink<void, Uint8Array, never, PlatformError.PlatformError>
  readonly stdout: Output
  readonly stderr: Output
  /** The sink of a further descriptor; drains what it gets where none was configured. */
  readonly input: (fd: number) => Sink.Sink<void, Uint8Array, never, PlatformError.PlatformError>
  /** The output of a further descriptor; empty where none was configured. */
  readonly output: (fd: number) => Output
  /** Fails with the error of an input stream that was given to the command and failed; else never completes. */
  readonly inputFailure: Effect.Effect<never, PlatformError.PlatformError>

  /** The leader has ended; seen at once, whoever still holds its pipes. */
  readonly exited: Effect.Effect<ExitStatus>
  /** The leader's end, if it has ended. */
  readonly exitStatus: Effect.Effect<Option.Option<ExitStatus>>
  /** No living process of the tree is left, or the kill gave up: the list of survivors, empty when all is well. */
  readonly empty: Effect.Effect<ReadonlyArray<ProcessInfo>>
  /** Outputs have ended, or the drain policy cut them. */
  readonly drained: Effect.Effect<Drained>

  /** The living processes of the tree. */
  readonly members: Effect.Effect<ReadonlyArray<ProcessInfo>>
  /** What the tree uses now. */
  readonly usage: Effect.Effect<Usage>
  /** Sends a signal, and nothing else: no waiting, no SIGCONT. A tree that has ended takes none. Default: the group. */
  readonly signal: (signal: ChildProcess.Signal, target?: ShutdownPlan.Target) => Effect.Effect<SignalReport>
  /**
   * Ends the tree by `plan` (default: the plan of the launch) and returns the survivors, empty when all is well. All
   * callers share one teardown; a later call can only shorten it. Interrupting a caller does not stop the teardown.
   */
  readonly shutdown: (
    plan?: ShutdownPlan.ShutdownPlan
  ) => Effect.Effect<ReadonlyArray<ProcessInfo>, InvalidSpec>
  /** The step of the teardown that is going on and since when (ms, platform clock); none while there is none. */
  readonly teardown: Effect.Effect<Option.Option<TeardownState>>
  /** False lets the host end without the tree, and the tree outlive its scope and its host; true takes it back. */
  readonly setReferenced: (referenced: boolean) => Effect.Effect<void>
}

/**
 * What becomes of the rest of the tree when the leader has ended: it is kept until the scope closes, ended by the
 * shutdown plan at once, or ended at once if the leader failed (a code other than 0, or a signal).
 */
export type WhenLeaderEnds = "keep" | "end" | "endIfFailed"

/** What `make` needs; durations are in ms and validated. */
export interface MakeOptions {
  readonly engine: EngineTree
  readonly clock: Clock.Clock
  readonly command: string
  readonly stdio: ReadonlyArray<Stdio.Resolved>
  readonly policy: Policy
  readonly drain: { readonly idle: number; readonly limit: number }
  readonly plan: ShutdownPlan.Validated
  readonly whenLeaderEnds: WhenLeaderEnds
  readonly onStep: (step: string) => void
}

/** A tree and how its owner closes it. */
export interface Owned {
  readonly tree: ProcessTree
  /** Runs the shutdown plan, drains, gives everything back. Never fails, always bounded. */
  readonly close: Effect.Effect<void>
}

/** How often a drain looks again while the tree is being ended, in ms. */
const endingPoll = 20

/** How long the end of a pipe that holds nothing more is awaited before somebody else is said to hold it. */
const closingPause = Duration.millis(20)

const emptyOutput: Output = { stream: Stream.empty, tail: Effect.succeed(new Uint8Array()), bytes: Effect.succeed(0) }

const noUsage: Usage = { processes: 0, memory: 0, cpu: 0 }

/** Builds the tree around what an engine launched, and starts what runs beside it. */
export const make = (options: MakeOptions): Effect.Effect<Owned> =>
  Effect.gen(function*() {
    const { clock, command, engine } = options
    const now = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
    const exited = Deferred.makeUnsafe<ExitStatus>()
    const empty = Deferred.makeUnsafe<ReadonlyArray<ProcessInfo>>()
    const drained = Deferred.makeUnsafe<Drained>()
    const inputFailure = Deferred.makeUnsafe<never, PlatformError.PlatformError>()
    let referenced = true

    const pumps = new Map<number, Pump>()
    const outputs = new Map<number, Output>()
    const sinks = new Map<number, ProcessTree["stdin"]>()
    const sources: Array<Effect.Effect<unknown>> = []
    for (const stdio of options.stdio) {
      const pipe = engine.pipes.get(stdio.fd)
      if (pipe?.reader !== undefined) {
        const pump = new Pump(pipe.reader, options.policy)
        pumps.set(stdio.fd, pump)
        outputs.set(
          stdio.fd,
          stdio.transducer === undefined
            ? pump
            : { stream: Stream.transduce(pump.stream, stdio.transducer), tail: pump.tail, bytes: pump.bytes }
        )
      }
      if (pipe?.writer !== undefined) {
        const sink = pipe.writer.sink({ endOnDone: stdio.endOnDone, encoding: stdio.encoding })
        sinks.set(stdio.fd, sink)
        if (stdio.source !== undefined) {
          // A failed source truncates the child's input; a failed write only means that the child has gone.
          const source = Stream.tapError(stdio.source, (error) => Deferred.fail(inputFailure, error))
          sources.push(Effect.ignore(Stream.run(source, sink)))
        }
      }
    }
    const allPumps = [...pumps.values()]
    const bytes = () => allPumps.reduce((sum, pump) => sum + pump.count, 0)
    const finishDrain = (truncated: boolean) => {
      // First the outcome: the cut wakes whoever waits for the ends of all pumps, and they are not the same.
      Deferred.doneUnsafe(drained, Effect.succeed({ bytes: bytes(), truncated }))
      for (const pump of allPumps) pump.cut()
    }

    const closeStdin = Effect.suspend(() => engine.pipes.get(0)?.writer?.end ?? Effect.void)
    const teardown = new Teardown(engine, clock, closeStdin, options.onStep)
    const finish = (survivors: ReadonlyArray<ProcessInfo>) => Deferred.succeed(empty, survivors)

    /** One look after the leader's end; a tree without leftovers is empty from here on. */
    const checkEmpty = Effect.suspend(() =>
      Deferred.isDoneUnsafe(empty)
        ? Effect.void
        : Effect.flatMap(engine.members, (members) => members.length === 0 ? finish([]) : Effect.void)
    )

    const allEnded = Effect.forEach(allPumps, (pump) => pump.awaitEnd, { discard: true, concurrency: "unbounded" })

    const drain = Effect.gen(function*() {
      for (const pump of allPumps) pump.release()
      const deadline = now() + options.drain.limit
      const open = () => allPumps.filter((pump) => !pump.ended)
      let seen = -1
      let quietSince = now()
      while (open().length > 0) {
        // A blocked event loop must not count as silence, so what was ready is taken in before time is judged.
        yield* Effect.forEach(open(), (pump) => pump.turn, { discard: true })
        if (open().length === 0) break
        // Processes that are being ended may have last words; the teardown is bounded itself.
        const ending = teardown.state !== undefined
        const exact = yield* Effect.forEach(open(), (pump) => pump.drainedExactly)
        if (!ending && exact.every((drained) => drained === true)) {
          // All that the leader wrote has been read; a process that is just closing the pipe is no survivor that holds it.
          yield* Effect.raceFirst(clock.sleep(closingPause), allEnded)
          return finishDrain(open().length > 0)
        }
        const activity = allPumps.reduce((sum, pump) => sum + pump.activity, 0)
        if (activity !== seen) {
          seen = activity
          quietSince = now()
        }
        const until = ending ? now() + endingPoll : Math.min(quietSince + options.drain.idle, deadline)
        if (now() >= until) return finishDrain(true)
        yield* Effect.raceFirst(
          clock.sleep(Duration.millis(until - now())),
          Effect.forEach(open(), (pump) => pump.awaitEnd, { discard: true, concurrency: "unbounded" })
        )
      }
      finishDrain(false)
    })

    const shutdown = (plan: ShutdownPlan.Validated): Effect.Effect<ReadonlyArray<ProcessInfo>> =>
      Effect.gen(function*() {
        // Nothing is sent after a natural end (peer case 27).
        if (Deferred.isDoneUnsafe(exited)) yield* checkEmpty
        if (Deferred.isDoneUnsafe(empty)) return yield* Deferred.await(empty)
        const survivors = yield* teardown.run(plan)
        yield* finish(survivors)
        return survivors
      })

    const afterExit = Effect.gen(function*() {
      const status = yield* engine.exited
      Deferred.doneUnsafe(exited, Effect.succeed(status))
      const endRest = options.whenLeaderEnds === "end" ||
        (options.whenLeaderEnds === "endIfFailed" && !isSuccess(status))
      yield* Effect.all([endRest ? shutdown(options.plan) : checkEmpty, drain], {
        concurrency: "unbounded",
        discard: true
      })
    })
    // Both end with the tree: the leader's end is certain once the tree is closed.
    const watching: Array<Fiber.Fiber<unknown>> = [
      yield* Effect.forkDetach(afterExit, { startImmediately: true }),
      yield* Effect.forkDetach(
        Effect.andThen(allEnded, Effect.sync(() => finishDrain(false))),
        { startImmediately: true }
      )
    ]
    for (const source of sources) watching.push(yield* Effect.forkDetach(source, { startImmediately: true }))

    const tree: ProcessTree = {
      [TypeId]: TypeId,
      identity: engine.identity,
      pid: engine.identity.pid,
      command,
      level: engine.level,
      stdin: sinks.get(0) ?? Sink.drain,
      stdout: outputs.get(1) ?? emptyOutput,
      stderr: outputs.get(2) ?? emptyOutput,
      input: (fd) => sinks.get(fd) ?? Sink.drain,
      output: (fd) => outputs.get(fd) ?? emptyOutput,
      inputFailure: Deferred.await(inputFailure),
      exited: Deferred.await(exited),
      exitStatus: Effect.flatMap(
        Effect.sync(() => Deferred.isDoneUnsafe(exited)),
        (done) => done ? Effect.map(Deferred.await(exited), Option.some) : Effect.succeed(Option.none())
      ),
      empty: Effect.suspend(() =>
        Deferred.isDoneUnsafe(empty)
          ? Deferred.await(empty)
          : Effect.raceFirst(
            Deferred.await(empty),
            Effect.andThen(engine.awaitEmpty, Effect.andThen(finish([]), Deferred.await(empty)))
          )
      ),
      drained: Deferred.await(drained),
      members: Effect.suspend(() => Deferred.isDoneUnsafe(empty) ? Effect.succeed([]) : engine.members),
      usage: Effect.suspend(() => Deferred.isDoneUnsafe(empty) ? Effect.succeed(noUsage) : engine.usage),
      signal: Effect.fn("ProcessTree.signal")((signal, target = "group") =>
        Deferred.isDoneUnsafe(empty)
          ? Effect.succeed({ delivered: 0, denied: [] })
          : engine.signal(signal, target)
      ),
      shutdown: Effect.fn("ProcessTree.shutdown")(function*(plan) {
        return yield* shutdown(
          plan === undefined ? options.plan : yield* Effect.fromResult(ShutdownPlan.validate(plan))
        )
      }),
      teardown: Effect.sync(() => Option.fromUndefinedOr(teardown.state)),
      setReferenced: (value) =>
        Effect.suspend(() => {
          referenced = value
          return engine.setReferenced(value)
        })
    }

    /** A released tree lives on; what belongs to it is given back when it has ended by itself. */
    const leave = Deferred.await(exited).pipe(
      Effect.andThen(engine.members),
      Effect.flatMap((members) => members.length === 0 ? engine.release : Effect.void),
      Effect.forkDetach
    )

    const end = Effect.gen(function*() {
      const survivors = yield* shutdown(options.plan)
      if (survivors.length > 0) {
        yield* Effect.logError(new Unkillable({ command, survivors }))
      } else {
        // The leader is dead; that the system reports it is awaited, but never without a bound.
        yield* Effect.raceFirst(Deferred.await(exited), clock.sleep(Duration.millis(options.plan.cap)))
      }
      // The tree is gone, so the pipes end by themselves; a pipe handed to a stranger is cut by the drain policy.
      yield* Effect.raceFirst(Deferred.await(drained), clock.sleep(Duration.millis(options.drain.limit)))
      finishDrain(true)
      for (const pipe of engine.pipes.values()) {
        pipe.reader?.close()
        pipe.writer?.close()
      }
      yield* Fiber.interruptAll(watching)
      yield* engine.release
    })

    return {
      tree,
      close: Effect.suspend(() => referenced ? end : Effect.asVoid(leave)).pipe(
        Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : engine.release)
      )
    }
  })
