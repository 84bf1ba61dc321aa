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
import type { EngineTree, Pipe, SignalReport } from "./Engine.ts"
import { ContainmentUnavailable, type InvalidSpec, Unkillable } from "./Errors.ts"
import { type ExitStatus, isSuccess } from "./ExitStatus.ts"
import { Pump } from "./internal/Pump.ts"
import type * as Stdio from "./internal/Stdio.ts"
import { type State as TeardownState, Teardown } from "./internal/Teardown.ts"
import { monotonic } from "./internal/Time.ts"
import type { Usage } from "./Limits.ts"
import { type Drained, type Output, type Policy, withOffsets } from "./Output.ts"
import type { ProcessIdentity, ProcessInfo } from "./ProcessIdentity.ts"
import * as ShutdownPlan from "./ShutdownPlan.ts"

export type { TeardownState }

/** What every tree carries. */
export const TypeId = "~treeline/ProcessTree"

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
  /**
   * Stops all processes of the tree without their knowing, or lets them go on; returns when that is so, or after a second.
   * A frozen tree that is to end goes on first, so that it sees the signals of its plan. Only a tree that was launched
   * with `require: "sealed"` into a control group of version 2 can be frozen (`cgroup.freeze`, cgroups(7)).
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
   *   const tree = yield* platform.launch(ChildProcess.make("sleep", ["60"]), { require: "sealed" })
   *   yield* tree.setFrozen(true)
   *   yield* tree.setFrozen(false)
   * }).pipe(
   *   Effect.catchTag("ContainmentUnavailable", (error) => Effect.log(error.message))
   * )
   * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(PosixPlatform.layer)))
   * ```
   */
  readonly setFrozen: (frozen: boolean) => Effect.Effect<void, ContainmentUnavailable>
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

/** How long the end of a pipe that holds nothing more is awaited before somebody else is said to hold it, in ms. */
const closingPause = 20

const emptyOutput: Output = {
  stream: Stream.empty,
  pieces: () => Stream.empty,
  tail: Effect.succeed(new Uint8Array()),
  bytes: Effect.succeed(0)
}

const noUsage: Usage = { processes: 0, memory: 0, cpu: 0 }

/** One descriptor of the child that the host has an end of. */
interface Connection {
  readonly pipe: Pipe
  readonly pump: Pump | undefined
  readonly stdio: Stdio.Resolved
}

const sinkOf = ({ pipe, stdio }: Connection): ProcessTree["stdin"] | undefined => pipe.writer?.sink(stdio)

/**
 * The tree and what runs beside it. A host may have 1,000 of these, so one has a single fiber, and its effects are made
 * when they are asked for: 9 KiB each instead of 23 in the JavaScript heap.
 */
class Tree implements ProcessTree {
  readonly identity: ProcessIdentity
  readonly command: string
  private readonly options: MakeOptions
  private readonly exitedDeferred = Deferred.makeUnsafe<ExitStatus>()
  private readonly emptyDeferred = Deferred.makeUnsafe<ReadonlyArray<ProcessInfo>>()
  private readonly drainedDeferred = Deferred.makeUnsafe<Drained>()
  private readonly inputFailed = Deferred.makeUnsafe<never, PlatformError.PlatformError>()
  private begun: Teardown | undefined = undefined
  private readonly connections: Array<Connection> = []
  private openPumps = 0
  private referenced = true
  private frozen = false
  /** They end with the tree: the leader's end is certain once the tree is closed. */
  private readonly watching: Array<Fiber.Fiber<unknown>> = []

  constructor(options: MakeOptions) {
    this.options = options
    this.identity = options.engine.identity
    this.command = options.command
  }

  /** Connects the pipes and starts what runs beside the tree. */
  start(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const onEnded = () => {
        if (--this.openPumps === 0) this.finishDrain(false)
      }
      const sources: Array<Effect.Effect<unknown>> = []
      // One more than there are, until all are connected: an output may have ended by then.
      this.openPumps = 1
      for (const stdio of this.options.stdio) {
        const pipe = this.engine.pipes.get(stdio.fd)
        if (pipe === undefined) continue
        if (pipe.reader !== undefined) this.openPumps++
        const pump = pipe.reader === undefined ? undefined : new Pump(pipe.reader, this.options.policy, onEnded)
        const connection: Connection = { pipe, pump, stdio }
        this.connections.push(connection)
        const sink = stdio.source === undefined ? undefined : sinkOf(connection)
        if (stdio.source === undefined || sink === undefined) continue
        // A failed source truncates the child's input; a failed write only means that the child has gone.
        const watched = Stream.tapError(stdio.source, (error) => Deferred.fail(this.inputFailed, error))
        sources.push(Effect.ignore(Stream.run(watched, sink)))
      }
      onEnded()
      for (const beside of [this.afterExit(), ...sources]) {
        this.watching.push(yield* Effect.forkDetach(beside, { startImmediately: true }))
      }
    })
  }

  private get running(): Teardown {
    return this.begun ??= new Teardown(
      this.engine,
      this.options.clock,
      Effect.suspend(() => this.engine.pipes.get(0)?.writer?.end ?? Effect.void),
      this.options.onStep
    )
  }

  private get engine(): EngineTree {
    return this.options.engine
  }

  private now(): number {
    return monotonic(this.options.clock)
  }

  private sleep(ms: number): Effect.Effect<void> {
    return this.options.clock.sleep(Duration.millis(ms))
  }

  private get pumps(): ReadonlyArray<Pump> {
    return this.connections.flatMap(({ pump }) => pump === undefined ? [] : [pump])
  }

  private finishDrain(truncated: boolean): void {
    if (Deferred.isDoneUnsafe(this.drainedDeferred)) return
    // First the outcome: the cut wakes whoever waits for the ends of all pumps, and they are not the same.
    const bytes = this.pumps.reduce((sum, pump) => sum + pump.count, 0)
    Deferred.doneUnsafe(this.drainedDeferred, Effect.succeed({ bytes, truncated }))
    for (const pump of this.pumps) pump.cut()
  }

  private finish(survivors: ReadonlyArray<ProcessInfo>): Effect.Effect<boolean> {
    return Deferred.succeed(this.emptyDeferred, survivors)
  }

  /** One look after the leader's end; a tree without leftovers is empty from here on. */
  private checkEmpty(): Effect.Effect<unknown> {
    return Deferred.isDoneUnsafe(this.emptyDeferred)
      ? Effect.void
      : Effect.flatMap(this.engine.members, (members) => members.length === 0 ? this.finish([]) : Effect.void)
  }

  private drain(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      for (const pump of this.pumps) pump.release()
      const deadline = this.now() + this.options.drain.limit
      const open = () => this.pumps.filter((pump) => !pump.ended)
      let seen = -1
      let quietSince = this.now()
      while (open().length > 0) {
        // A blocked event loop must not count as silence, so what was ready is taken in before time is judged.
        yield* Effect.forEach(open(), (pump) => pump.turn, { discard: true })
        if (open().length === 0) break
        // Processes that are being ended may have last words; the teardown is bounded itself.
        const ending = this.begun?.state !== undefined
        const exact = yield* Effect.forEach(open(), (pump) => pump.drainedExactly)
        if (!ending && exact.every((drained) => drained === true)) {
          // All that the leader wrote has been read; a process that is just closing the pipe is no survivor that holds it.
          yield* Effect.raceFirst(this.sleep(closingPause), Effect.asVoid(this.drained))
          return this.finishDrain(open().length > 0)
        }
        const activity = this.pumps.reduce((sum, pump) => sum + pump.activity, 0)
        if (activity !== seen) {
          seen = activity
          quietSince = this.now()
        }
        const until = ending ? this.now() + endingPoll : Math.min(quietSince + this.options.drain.idle, deadline)
        if (this.now() >= until) return this.finishDrain(true)
        yield* Effect.raceFirst(this.sleep(until - this.now()), Effect.asVoid(this.drained))
      }
      this.finishDrain(false)
    })
  }

  private shutdownBy(plan: ShutdownPlan.Validated): Effect.Effect<ReadonlyArray<ProcessInfo>> {
    return Effect.gen({ self: this }, function*() {
      // Nothing is sent after a natural end (peer case 27).
      if (Deferred.isDoneUnsafe(this.exitedDeferred)) yield* this.checkEmpty()
      if (Deferred.isDoneUnsafe(this.emptyDeferred)) return yield* Deferred.await(this.emptyDeferred)
      if (this.frozen) yield* this.freeze(false)
      const survivors = yield* this.running.run(plan)
      yield* this.finish(survivors)
      return survivors
    })
  }

  private freeze(frozen: boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.frozen = frozen
      return this.engine.setFrozen?.(frozen) ?? Effect.void
    })
  }

  private afterExit(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const status = yield* this.engine.exited
      Deferred.doneUnsafe(this.exitedDeferred, Effect.succeed(status))
      const drain = Effect.ensuring(this.drain(), Effect.sync(() => this.finishDrain(true)))
      this.watching.push(yield* Effect.forkDetach(drain, { startImmediately: true }))
      const { plan, whenLeaderEnds } = this.options
      const endRest = whenLeaderEnds === "end" || (whenLeaderEnds === "endIfFailed" && !isSuccess(status))
      yield* endRest ? this.shutdownBy(plan) : this.checkEmpty()
    })
  }

  /** A released tree lives on; what belongs to it is given back when it has ended by itself. */
  private leave(): Effect.Effect<unknown> {
    return this.engine.releaseWhenEmpty ?? this.exited.pipe(
      Effect.andThen(this.engine.members),
      Effect.flatMap((members) => members.length === 0 ? this.engine.release : Effect.void),
      Effect.forkDetach
    )
  }

  private end(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const { drain, plan } = this.options
      const survivors = yield* this.shutdownBy(plan)
      if (survivors.length > 0) {
        yield* Effect.logError(new Unkillable({ command: this.command, survivors }))
      } else if (!Deferred.isDoneUnsafe(this.exitedDeferred)) {
        // The leader is dead; that the system reports it is awaited, but never without a bound.
        yield* Effect.raceFirst(this.exited, this.sleep(plan.cap))
      }
      // The tree is gone, so the pipes end by themselves; a pipe handed to a stranger is cut by the drain policy.
      if (!Deferred.isDoneUnsafe(this.drainedDeferred)) {
        yield* Deferred.isDoneUnsafe(this.exitedDeferred)
          ? this.drained
          : Effect.raceFirst(this.drained, this.sleep(drain.limit))
      }
      this.finishDrain(true)
      for (const pipe of this.engine.pipes.values()) {
        pipe.reader?.close()
        pipe.writer?.close()
      }
      // An input stream is somebody's own effect, and may take no notice of its interruption.
      const running = this.watching.filter((fiber) => fiber.pollUnsafe() === undefined)
      if (running.length > 0) yield* Effect.raceFirst(Fiber.interruptAll(running), this.sleep(plan.cap))
      yield* this.engine.release
    })
  }

  close(): Effect.Effect<void> {
    return Effect.suspend(() => this.referenced ? this.end() : Effect.asVoid(this.leave())).pipe(
      Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : this.engine.release)
    )
  }

  get [TypeId](): typeof TypeId {
    return TypeId
  }

  get pid(): number {
    return this.identity.pid
  }

  get level(): Level {
    return this.engine.level
  }

  get stdin(): ProcessTree["stdin"] {
    return this.input(0)
  }

  get stdout(): Output {
    return this.output(1)
  }

  get stderr(): Output {
    return this.output(2)
  }

  private connection(fd: number): Connection | undefined {
    return this.connections.find((connection) => connection.stdio.fd === fd)
  }

  // These may be handed on without their tree, so they are no methods.
  get input(): ProcessTree["input"] {
    return (fd) => {
      const connection = this.connection(fd)
      return (connection === undefined ? undefined : sinkOf(connection)) ?? Sink.drain
    }
  }

  get output(): ProcessTree["output"] {
    return (fd) => {
      const connection = this.connection(fd)
      const pump = connection?.pump
      if (pump === undefined) return emptyOutput
      const transducer = connection?.stdio.transducer
      if (transducer === undefined) return pump
      const stream = Stream.transduce(pump.stream, transducer)
      return { stream, pieces: () => withOffsets(stream), tail: pump.tail, bytes: pump.bytes }
    }
  }

  get inputFailure(): ProcessTree["inputFailure"] {
    return Deferred.await(this.inputFailed)
  }

  get exited(): ProcessTree["exited"] {
    return Deferred.await(this.exitedDeferred)
  }

  get exitStatus(): ProcessTree["exitStatus"] {
    return Effect.suspend(() =>
      Deferred.isDoneUnsafe(this.exitedDeferred)
        ? Effect.map(this.exited, Option.some)
        : Effect.succeed(Option.none())
    )
  }

  get empty(): ProcessTree["empty"] {
    return Effect.suspend(() => {
      const empty = Deferred.await(this.emptyDeferred)
      return Deferred.isDoneUnsafe(this.emptyDeferred)
        ? empty
        : Effect.raceFirst(empty, Effect.andThen(this.engine.awaitEmpty, Effect.andThen(this.finish([]), empty)))
    })
  }

  get drained(): ProcessTree["drained"] {
    return Deferred.await(this.drainedDeferred)
  }

  get members(): ProcessTree["members"] {
    return Effect.suspend(() => Deferred.isDoneUnsafe(this.emptyDeferred) ? Effect.succeed([]) : this.engine.members)
  }

  get usage(): ProcessTree["usage"] {
    return Effect.suspend(() => Deferred.isDoneUnsafe(this.emptyDeferred) ? Effect.succeed(noUsage) : this.engine.usage)
  }

  get signal(): ProcessTree["signal"] {
    return Effect.fn("ProcessTree.signal")((signal, target = "group") =>
      Deferred.isDoneUnsafe(this.emptyDeferred)
        ? Effect.succeed({ delivered: 0, denied: [] })
        : this.engine.signal(signal, target)
    )
  }

  get shutdown(): ProcessTree["shutdown"] {
    return Effect.fn("ProcessTree.shutdown")({ self: this }, function*(plan) {
      return yield* this.shutdownBy(
        plan === undefined ? this.options.plan : yield* Effect.fromResult(ShutdownPlan.validate(plan))
      )
    })
  }

  get teardown(): ProcessTree["teardown"] {
    return Effect.sync(() => Option.fromUndefinedOr(this.begun?.state))
  }

  get setReferenced(): ProcessTree["setReferenced"] {
    return (referenced) =>
      Effect.suspend(() => {
        this.referenced = referenced
        return this.engine.setReferenced(referenced)
      })
  }

  get setFrozen(): ProcessTree["setFrozen"] {
    return (frozen) =>
      Effect.suspend(() =>
        this.engine.setFrozen === undefined
          ? Effect.fail(
            new ContainmentUnavailable({
              required: "sealed",
              available: this.level,
              reason: "only a tree in a control group (cgroup v2) can be frozen; launch it with `require: \"sealed\"`"
            })
          )
          // What is being ended has to run.
          : this.begun?.state !== undefined
          ? Effect.void
          : this.freeze(frozen)
      )
  }
}

/** Builds the tree around what an engine launched, and starts what runs beside it. */
export const make = (options: MakeOptions): Effect.Effect<Owned> => {
  const tree = new Tree(options)
  return Effect.as(tree.start(), { tree, close: Effect.suspend(() => tree.close()) })
}
