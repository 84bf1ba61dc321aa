/**
 * The daemon's side: a process tree that a shim hosts, as a `ProcessTree`. The connection is made anew when it is lost
 * while the shim lives; when the shim has died, the tree has ended, and that is said when nothing of it is left.
 */
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as RpcClient from "effect/rpc/RpcClient"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { Level } from "../Containment.ts"
import type { PipeReader } from "../Engine.ts"
import { ContainmentUnavailable, type ControlUnavailable, type InvalidSpec, Unkillable } from "../Errors.ts"
import * as ExitStatus from "../ExitStatus.ts"
import * as Leftovers from "../internal/Leftovers.ts"
import { Pump } from "../internal/Pump.ts"
import * as ShimPlan from "../internal/ShimPlan.ts"
import * as Siblings from "../internal/Siblings.ts"
import { monotonic } from "../internal/Time.ts"
import type * as Output from "../Output.ts"
import type { ProcessIdentity, ProcessInfo } from "../ProcessIdentity.ts"
import type { ProcessPlatform } from "../ProcessPlatform.ts"
import * as ProcessTree from "../ProcessTree.ts"
import type * as ShutdownPlan from "../ShutdownPlan.ts"
import * as ControlClient from "./ControlClient.ts"
import type { KeptTree } from "./Keeper.ts"
import * as Shim from "./Shim.ts"

/** How a shim is reached, and which process it is. */
export interface Reach {
  readonly shim: ProcessIdentity
  /** The leader of what it has launched, if it has: all that is known of its tree where the system keeps no records. */
  readonly leader: ProcessIdentity | undefined
  /** Where it listens, looked up anew each time. */
  readonly address: Effect.Effect<ControlClient.Options, ControlUnavailable>
  readonly platform: ProcessPlatform["Service"]
}

export interface Options extends Reach {
  readonly service: string
  /** The plan of its launch. */
  readonly shutdown: Shim.Plan
  readonly onStep: (step: string) => void
  readonly output: Output.Policy
  /** How long the end of its outputs is awaited when it has ended, in ms. */
  readonly drain: number
  readonly leaving: () => boolean
}

/** How long a call may take that is answered at once, in ms. */
const soon = 5000

/** A look again whether a shim that has not answered is there, in ms. */
const poll = 50

/** How often the shim is told what need not be told again, in ms. */
const takenPause = 1000

/** How long a shim that was asked to end may take to be gone, in ms. */
const goneWithin = 5000

/** The calls of a shim, on a connection of their own. */
export const connect = Effect.fnUntraced(function*(address: Reach["address"]) {
  return yield* Effect.provideContext(
    RpcClient.make(Shim.Shim),
    yield* ControlClient.connection(yield* address)
  )
})

export type Calls = Effect.Success<ReturnType<typeof connect>>

/** How long the guardian of a dead shim may take, in ms. */
const leftoversWithin = 15_000

/**
 * Waits until a shim that was killed, or is ending, has gone, and with it all that it hosted; false when it has not after
 * `within` ms.
 */
export const awaitGone = (
  { leader, platform, shim }: Pick<Reach, "leader" | "platform" | "shim">,
  within: number
): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const clock = yield* platform.clock
    const endsAt = monotonic(clock) + within
    const until = (identity: ProcessIdentity, endsAt: number) =>
      Effect.gen(function*() {
        while ((yield* platform.standing(identity)) !== "Gone") {
          if (monotonic(clock) >= endsAt) return false
          yield* clock.sleep(Duration.millis(poll / 5))
        }
        return true
      })
    if (!(yield* until(shim, endsAt))) return false
    if (platform.leftoversOf === undefined) {
      return leader === undefined || (yield* until(leader, monotonic(clock) + leftoversWithin))
    }
    return (yield* Leftovers.awaitGone(platform, shim, leftoversWithin)).length === 0
  })

/** Kills a shim and waits until all that it hosted has gone, for 20 s at most. */
export const kill = (reach: Pick<Reach, "leader" | "platform" | "shim">): Effect.Effect<boolean> =>
  Effect.andThen(reach.platform.signalProcess(reach.shim, "SIGKILL"), awaitGone(reach, 20_000))

const lineFeed = 10

/** One descriptor, as it comes in. */
class Feed implements PipeReader {
  readonly fd: number
  private handlers: Parameters<PipeReader["start"]>[0] | undefined = undefined
  private readonly open = Latch.makeUnsafe(true)
  readonly pending = Effect.succeedNone
  readonly turn = Effect.void
  /** Where the next byte is expected; undefined before the first. */
  next: number | undefined = undefined
  /** Where the newest whole line ends; undefined before the first. */
  line: number | undefined = undefined
  ended = false

  constructor(fd: number) {
    this.fd = fd
  }

  start(handlers: Parameters<PipeReader["start"]>[0]): void {
    this.handlers = handlers
  }

  pause(): void {
    this.open.closeUnsafe()
  }

  resume(): void {
    this.open.openUnsafe()
  }

  close(): void {
    this.end()
  }

  /** Gives on what is new; how many bytes were lost before it. */
  give({ bytes, lost, offset }: Shim.Piece): Effect.Effect<number> {
    return Effect.map(this.open.await, () => {
      if (this.ended) return 0
      const known = this.next === undefined ? 0 : Math.max(0, this.next - offset)
      const missing = this.next === undefined ? lost : Math.max(0, offset - this.next)
      if (known >= bytes.length && missing === 0) return 0
      this.next = offset + bytes.length
      const newline = bytes.lastIndexOf(lineFeed)
      if (newline >= 0) this.line = offset + newline + 1
      this.skip(missing)
      if (bytes.length > known) this.handlers?.onChunk(bytes.subarray(known))
      return missing
    })
  }

  /** Set by whoever pumps. */
  skip: (bytes: number) => void = () => {}

  end(): void {
    if (this.ended) return
    this.ended = true
    this.open.openUnsafe()
    this.handlers?.onEnd()
  }
}

const emptyOutput: Output.Output = {
  stream: Stream.empty,
  pieces: () => Stream.empty,
  tail: Effect.succeed(new Uint8Array()),
  bytes: Effect.succeed(0)
}

const isSignal = Schema.is(Shim.AnySignal)

class RemoteTree implements ProcessTree.ProcessTree {
  readonly identity: ProcessIdentity
  readonly command: string
  readonly level: Level
  private readonly options: Options
  private readonly clock: Clock.Clock
  private readonly pumps = new Map<number, { readonly feed: Feed; readonly pump: Pump }>()
  private connected = Deferred.makeUnsafe<Calls>()
  /** The shim has died, and nothing of the tree is left. */
  private readonly lost = Deferred.makeUnsafe<void>()
  private readonly exitedDeferred = Deferred.makeUnsafe<ExitStatus.ExitStatus>()
  private readonly emptyDeferred = Deferred.makeUnsafe<ReadonlyArray<ProcessInfo>>()
  private readonly drainedDeferred = Deferred.makeUnsafe<Output.Drained>()
  private ending: ProcessTree.TeardownState | undefined = undefined
  /** Its end was asked for: what is left of it then is no use to anybody. */
  private shut = false
  private manager: Fiber.Fiber<void> | undefined = undefined

  constructor(hosted: Shim.Hosted, options: Options, clock: Clock.Clock) {
    this.identity = hosted.identity
    this.command = hosted.command
    this.level = hosted.level
    this.options = options
    this.clock = clock
    for (const fd of hosted.outputs) {
      const feed = new Feed(fd)
      const pump = new Pump(feed, options.output)
      feed.skip = (bytes) => pump.skip(bytes)
      this.pumps.set(fd, { feed, pump })
    }
  }

  get [ProcessTree.TypeId](): typeof ProcessTree.TypeId {
    return ProcessTree.TypeId
  }

  // ------------------------------------------------------------------------------------------------ the connection

  /** Connects, and again when the connection is lost, until the shim has gone. */
  start(): Effect.Effect<void> {
    const { address, platform, shim } = this.options
    return Effect.gen({ self: this }, function*() {
      while (true) {
        const session = Effect.gen({ self: this }, function*() {
          const calls = yield* connect(address)
          Deferred.doneUnsafe(this.connected, Exit.succeed(calls))
          yield* this.follow(calls)
        })
        yield* Effect.exit(Effect.scoped(session))
        if (Deferred.isDoneUnsafe(this.connected)) this.connected = Deferred.makeUnsafe()
        if ((yield* platform.standing(shim)) === "Gone") break
        yield* this.clock.sleep(Duration.millis(poll))
      }
      yield* awaitGone(this.options, 0)
      this.lose()
    }).pipe(
      Effect.forkDetach({ startImmediately: true }),
      Effect.map((fiber) => {
        this.manager = fiber
      })
    )
  }

  private lose(): void {
    Deferred.doneUnsafe(this.lost, Exit.void)
    Deferred.doneUnsafe(this.exitedDeferred, Exit.succeed(ExitStatus.unknown))
    Deferred.doneUnsafe(this.emptyDeferred, Exit.succeed([]))
    this.endOutputs(true)
  }

  private endOutputs(truncated: boolean): void {
    const open = [...this.pumps.values()].some(({ feed }) => !feed.ended)
    for (const { feed } of this.pumps.values()) feed.end()
    Deferred.doneUnsafe(this.drainedDeferred, Exit.succeed({ bytes: this.count, truncated: truncated && open }))
  }

  private get count(): number {
    return [...this.pumps.values()].reduce((sum, { pump }) => sum + pump.count, 0)
  }

  /** Hears what there is to hear, until the connection is lost. */
  private follow(calls: Calls): Effect.Effect<void, unknown> {
    const output = (feed: Feed) =>
      feed.ended ? Effect.void : Effect.andThen(
        Stream.runForEach(calls.Output({ fd: feed.fd }, { streamBufferSize: 4 }), (piece) =>
          Effect.flatMap(feed.give(piece), (lost) =>
            lost === 0
              ? Effect.void
              : Effect.logWarning(
                `${this.options.service}: ${lost} bytes that it wrote to descriptor ${feed.fd} were dropped while nobody read them`
              ))),
        Effect.sync(() =>
          feed.end()
        )
      )
    const outputs = Effect.forEach(this.pumps.values(), ({ feed }) => output(feed), {
      concurrency: "unbounded",
      discard: true
    })
    const drained = Effect.andThen(
      outputs,
      Effect.flatMap(
        calls.Drained(),
        ({ truncated }) => Deferred.succeed(this.drainedDeferred, { bytes: this.count, truncated })
      )
    )
    const exited = Effect.flatMap(calls.Exited(), (status) => Deferred.succeed(this.exitedDeferred, status))
    let said = 0
    let before = this.lines
    // Only whole lines, and those of a while ago: a log may not have the others if this process dies now.
    const taken = Effect.forever(Effect.gen({ self: this }, function*() {
      yield* this.clock.sleep(Duration.millis(takenPause))
      const lines = before
      before = this.lines
      const sum = lines.reduce((sum, { bytes }) => sum + bytes, 0)
      if (sum === said) return
      said = sum
      yield* calls.Taken({ taken: lines })
    }))
    return Effect.all([calls.Attend(), drained, exited, taken], { concurrency: "unbounded", discard: true })
  }

  private get lines(): Array<{ readonly fd: number; readonly bytes: number }> {
    return [...this.pumps.values()].flatMap(({ feed: { fd, line } }) =>
      fd > 2 || line === undefined ? [] : [{ fd, bytes: line }]
    )
  }

  /** What the next daemon need not be told: announcements, on further descriptors, are told to each. */
  private tellTaken(calls: Calls) {
    const taken = [...this.pumps.values()].flatMap(({ feed: { fd, next } }) =>
      fd > 2 || next === undefined ? [] : [{ fd, bytes: next }]
    )
    return calls.Taken({ taken })
  }

  /** One call, on whichever connection there is; `otherwise` when the shim has gone, and when it does not answer in time. */
  private ask<A>(
    call: (calls: Calls) => Effect.Effect<A, unknown>,
    otherwise: A,
    within = soon
  ): Effect.Effect<A> {
    const attempt: Effect.Effect<A> = Effect.gen({ self: this }, function*() {
      while (true) {
        const exit = yield* Effect.exit(Effect.flatMap(Deferred.await(this.connected), call))
        if (Exit.isSuccess(exit)) return exit.value
        yield* this.clock.sleep(Duration.millis(poll))
      }
    })
    const limit = Number.isFinite(within) ? this.clock.sleep(Duration.millis(within)) : Effect.never
    return Effect.raceAllFirst([
      attempt,
      Effect.as(Deferred.await(this.lost), otherwise),
      Effect.as(limit, otherwise)
    ])
  }

  // ------------------------------------------------------------------------------------------------ its end

  private shutdownBy(plan: Shim.Plan): Effect.Effect<ReadonlyArray<ProcessInfo>> {
    return Effect.gen({ self: this }, function*() {
      this.shut = true
      if (Deferred.isDoneUnsafe(this.emptyDeferred)) return yield* Deferred.await(this.emptyDeferred)
      let survivors: ReadonlyArray<ProcessInfo> | undefined = undefined as typeof survivors
      const hear = (calls: Calls) =>
        Stream.runForEach(calls.Shutdown({ plan }), (ending) =>
          Effect.sync(() => {
            if (ending._tag === "Over") survivors = ending.survivors
            else {
              this.ending = { step: ending.step, since: monotonic(this.clock) }
              this.options.onStep(ending.step)
            }
          }))
      yield* this.ask(hear, undefined, ShimPlan.longest(plan) + soon)
      // One that does not even answer: its guardian ends what it hosts.
      if (survivors === undefined) {
        yield* kill(this.options)
        survivors = []
      }
      this.ending = undefined
      Deferred.doneUnsafe(this.emptyDeferred, Exit.succeed(survivors))
      return survivors
    })
  }

  /** The tree ends, and its shim after it. */
  private end(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const { drain, shutdown } = this.options
      const survivors = yield* this.shutdownBy(shutdown)
      if (survivors.length > 0) yield* Effect.logError(new Unkillable({ command: this.command, survivors }))
      const over = Effect.all([this.exited, this.drained], { discard: true })
      yield* Effect.raceFirst(over, this.clock.sleep(Duration.millis(drain)))
      this.endOutputs(true)
      yield* Effect.raceFirst(
        this.ask((calls) => calls.End(), undefined),
        Effect.asVoid(awaitGone(this.options, soon))
      )
      if (!(yield* awaitGone(this.options, goneWithin))) yield* kill(this.options)
      yield* this.disconnect()
      this.lose()
    })
  }

  /** The tree goes on; the shim is told how far its output was read, to the byte. */
  private leave(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      this.endOutputs(false)
      yield* this.ask((calls) => this.tellTaken(calls), undefined)
      yield* this.disconnect()
      const { service, shim } = this.options
      yield* Effect.logInfo(`${service} goes on without this daemon: process ${this.pid}, kept by process ${shim.pid}`)
    })
  }

  private disconnect(): Effect.Effect<void> {
    return this.manager === undefined ? Effect.void : Fiber.interrupt(this.manager)
  }

  close(): Effect.Effect<void> {
    return Effect.suspend(() => this.options.leaving() && !this.shut ? this.leave() : this.end())
  }

  /** Tells the shim that a daemon has seen it ready. */
  get ready(): Effect.Effect<void> {
    return this.ask((calls) => calls.Ready(), undefined)
  }

  // ------------------------------------------------------------------------------------------------ as a tree

  get pid(): number {
    return this.identity.pid
  }

  get stdin(): ProcessTree.ProcessTree["stdin"] {
    return Sink.forEach((bytes: Uint8Array) => this.ask((calls) => calls.Write({ bytes }), false))
  }

  get stdout(): Output.Output {
    return this.output(1)
  }

  get stderr(): Output.Output {
    return this.output(2)
  }

  get input(): ProcessTree.ProcessTree["input"] {
    return (fd) => fd === 0 ? this.stdin : Sink.drain
  }

  get output(): ProcessTree.ProcessTree["output"] {
    return (fd) => this.pumps.get(fd)?.pump ?? emptyOutput
  }

  get inputFailure(): ProcessTree.ProcessTree["inputFailure"] {
    return Effect.never
  }

  get exited(): ProcessTree.ProcessTree["exited"] {
    return Deferred.await(this.exitedDeferred)
  }

  get exitStatus(): ProcessTree.ProcessTree["exitStatus"] {
    return Effect.suspend(() =>
      Deferred.isDoneUnsafe(this.exitedDeferred) ? Effect.map(this.exited, Option.some) : Effect.succeedNone
    )
  }

  get empty(): ProcessTree.ProcessTree["empty"] {
    const asked = this.ask((calls) => calls.Empty(), [] as ReadonlyArray<ProcessInfo>, Number.POSITIVE_INFINITY)
    return Effect.raceFirst(Deferred.await(this.emptyDeferred), asked)
  }

  get drained(): ProcessTree.ProcessTree["drained"] {
    return Deferred.await(this.drainedDeferred)
  }

  get members(): ProcessTree.ProcessTree["members"] {
    return this.ask((calls) => calls.Members(), [] as ReadonlyArray<ProcessInfo>)
  }

  get usage(): ProcessTree.ProcessTree["usage"] {
    return this.ask((calls) => calls.Usage(), { processes: 0, memory: 0, cpu: 0 })
  }

  get signal(): ProcessTree.ProcessTree["signal"] {
    return (signal, target = "group") =>
      isSignal(signal)
        ? this.ask((calls) => calls.Signal({ signal, target }), { delivered: 0, denied: [] })
        : Effect.succeed({ delivered: 0, denied: [] })
  }

  get shutdown(): ProcessTree.ProcessTree["shutdown"] {
    return (plan) =>
      Effect.gen({ self: this }, function*() {
        const told = plan === undefined ? this.options.shutdown : yield* Effect.fromResult(ShimPlan.encode(plan))
        // Goes on when nobody waits for it.
        return yield* Fiber.join(yield* Effect.forkDetach(this.shutdownBy(told), { startImmediately: true }))
      })
  }

  get setFrozen(): ProcessTree.ProcessTree["setFrozen"] {
    return () =>
      Effect.fail(
        new ContainmentUnavailable({
          required: "sealed",
          available: this.level,
          reason: "a tree that is kept by a process of its own can't be frozen"
        })
      )
  }

  get teardown(): ProcessTree.ProcessTree["teardown"] {
    return Effect.sync(() => Option.fromUndefinedOr(this.ending))
  }

  get setReferenced(): ProcessTree.ProcessTree["setReferenced"] {
    return () => Effect.void
  }
}

/** The tree of a shim, which ends or is left when the scope closes. */
export const attach = (hosted: Shim.Hosted, options: Options): Effect.Effect<KeptTree, never, Scope.Scope> =>
  Effect.uninterruptible(Effect.gen(function*() {
    const tree = new RemoteTree(hosted, options, yield* options.platform.clock)
    yield* tree.start()
    yield* Siblings.addClose(yield* Scope.Scope, Effect.suspend(() => tree.close()))
    return { tree, wasReady: hosted.ready, ready: tree.ready }
  }))

/** A plan as a shim is told it. */
export const planOf = (plan: ShutdownPlan.ShutdownPlan): Effect.Effect<Shim.Plan, InvalidSpec> =>
  Effect.fromResult(ShimPlan.encode(plan))
