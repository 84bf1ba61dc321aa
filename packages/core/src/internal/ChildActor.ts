/**
 * One supervised child: a fiber that owns its state and takes commands, ends, probe results and timers from one bounded
 * mailbox. Every incarnation has a number, and what an old one still says is dropped.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type { ChildEnd, Link } from "../ChildEnd.ts"
import * as End from "../ChildEnd.ts"
import { CurrentChild, type Remainder, type Running, type StartFailure, type Validated } from "../ChildSpec.ts"
import * as ChildState from "../ChildState.ts"
import type { Change, ChildEvent, ChildStatus, Health } from "../ChildStatus.ts"
import {
  ChildClosed,
  ChildFailed,
  ChildStopped,
  type InvalidSpec,
  type NotReady,
  Overtaken,
  type ProbeFailure
} from "../Errors.ts"
import * as Probe from "../Probe.ts"
import type { ProcessInfo } from "../ProcessIdentity.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import * as Restart from "../Restart.ts"
import type * as ShutdownPlan from "../ShutdownPlan.ts"
import { Broadcast } from "./Broadcast.ts"
import * as ChildMetrics from "./ChildMetrics.ts"
import { Incarnation } from "./Incarnation.ts"
import { Replies } from "./Replies.ts"
import * as Tail from "./Tail.ts"
import { monotonic } from "./Time.ts"

/** What a child asks of whoever supervises it. Called by the actor, synchronous, must not throw. */
export interface Owner {
  /** What has to come before this child may start; empty when nothing has to. */
  readonly blockers: () => ReadonlyArray<string>
  /** It ended by itself and its tree is empty. `park`: no restart of its own, the owner starts it again. */
  readonly ended: (end: ChildEnd, verdict: Restart.Verdict, delay: number) => "proceed" | "park"
  readonly onEvent: (event: ChildEvent) => void
}

/** An owner that lets the child do as it likes. */
export const noOwner: Owner = { blockers: () => [], ended: () => "proceed", onEvent: () => {} }

/** What becomes of the child when its tree is empty. */
type Intent = "decide" | "stop" | "again" | "halt"

type Reply<A, E> = Deferred.Deferred<A, E>

/** Any reply, to be failed. */
type AnyReply = Deferred.Deferred<unknown, ChildClosed>

type Refused = Overtaken | ChildClosed | ChildFailed

type Message =
  | {
    readonly _tag: "Start"
    readonly epoch: number
    /** It is to wait until it is resumed. */
    readonly paused: boolean
    readonly reply: Reply<void, Refused>
  }
  | { readonly _tag: "Stop"; readonly plan: ShutdownPlan.Validated; readonly reply: Reply<void, ChildClosed> }
  | {
    readonly _tag: "Restart"
    readonly epoch: number
    readonly incarnation: number
    readonly reply: Reply<number, Refused>
  }
  | { readonly _tag: "Halt"; readonly reply: Reply<void, ChildClosed> }
  | { readonly _tag: "Pause"; readonly reply: Reply<void, ChildClosed> }
  | { readonly _tag: "Resume"; readonly reply: Reply<void, ChildClosed> }
  | { readonly _tag: "Fail"; readonly reason: string; readonly causes: ReadonlyArray<Link> }
  | { readonly _tag: "Poke" }
  | { readonly _tag: "Launched"; readonly of: Incarnation }
  | { readonly _tag: "Ready"; readonly of: Incarnation }
  | { readonly _tag: "Health"; readonly of: Incarnation; readonly probe: number; readonly failure: ProbeFailure | null }
  | { readonly _tag: "Failing"; readonly of: Incarnation; readonly end: ChildEnd }
  | { readonly _tag: "Exited"; readonly of: Incarnation; readonly end: ChildEnd }
  | {
    readonly _tag: "Ended"
    readonly of: Incarnation
    readonly problem: string | undefined
    readonly survivors: ReadonlyArray<ProcessInfo>
  }
  | { readonly _tag: "Due"; readonly incarnation: number }

const nothingLeft: Remainder = { problem: undefined, survivors: [] }

/** Messages that wait while the actor is busy; a sender waits beyond that. */
const mailboxSize = 64

/** Between the end of a process's output and its own, in ms. */
const endPause = 100

/** Past events that a late reader is given. */
const historySize = 32

/** Somebody who waits for a state; told in the very transition, so that no state is missed. */
interface Waiter {
  readonly test: (state: ChildState.ChildState) => Exit.Exit<unknown, unknown> | undefined
  readonly done: Deferred.Deferred<unknown, unknown>
}

type Step = (now: number, input: ChildEnd) => Pull.Pull<[unknown, Duration.Duration], never, unknown, never>

export class ChildActor {
  readonly id: string
  /** The id, after those of the supervisors around it. */
  private readonly path: string
  readonly events = new Broadcast<ChildEvent>(historySize)
  private readonly child: Validated<never>
  private readonly owner: Owner
  private readonly clock: Clock.Clock
  private readonly platform: ProcessPlatform["Service"] | undefined
  private readonly metrics: ChildMetrics.ChildMetrics
  private readonly mailbox: Queue.Queue<Message>
  private readonly waiters = new Set<Waiter>()
  /** Of those who asked for a stop or a halt: the tree is empty. */
  private readonly downReplies = new Replies<void, ChildClosed>()
  private readonly restartReplies = new Replies<number, Refused>()
  private state: ChildState.ChildState = { _tag: "Stopped", end: null }
  private health: Health = "unknown"
  private paused = false
  private number = 0
  private restarts = 0
  private lastEnd: ChildEnd | null = null
  private current: Incarnation | undefined = undefined
  private intent: Intent = "decide"
  /** Restarts in a row without a healthy time between them. */
  private attempt = 0
  private backoff: Step | undefined = undefined
  private timer: Fiber.Fiber<unknown> | undefined = undefined
  /** Raised by every stop at the moment it is asked for, so that no start or restart from before it can come after it. */
  private epoch = 0
  private loop: Fiber.Fiber<unknown> | undefined = undefined
  /** Asked to close: nothing may begin any more. */
  private closing = false
  /** Down and about to be over: takes no messages. */
  private closed = false

  private constructor(
    child: Validated<never>,
    path: string,
    owner: Owner,
    services: Context.Context<never>,
    clock: Clock.Clock,
    platform: ProcessPlatform["Service"] | undefined,
    mailbox: Queue.Queue<Message>
  ) {
    this.id = child.spec.id
    this.path = path
    this.child = child
    this.owner = owner
    this.clock = clock
    this.platform = platform
    this.mailbox = mailbox
    this.metrics = new ChildMetrics.ChildMetrics(path, services)
    this.metrics.enter(this.state._tag)
  }

  /** The actor, stopped; `close` must be called in the end. */
  static make<R>(child: Validated<R>, owner: Owner): Effect.Effect<ChildActor, never, R> {
    return Effect.gen(function*() {
      const services = yield* Effect.context<R>()
      const clock = yield* Clock.Clock
      const platform = Option.getOrUndefined(yield* Effect.serviceOption(ProcessPlatform))
      const parent = yield* CurrentChild
      const path = parent === undefined ? child.spec.id : `${parent.child}/${child.spec.id}`
      const mailbox = yield* Queue.bounded<Message>(mailboxSize)
      // The loop's fiber has the services that the body needs, and so have all that it forks.
      const actor = new ChildActor(
        child as unknown as Validated<never>,
        path,
        owner,
        services,
        clock,
        platform,
        mailbox
      )
      actor.loop = yield* Effect.forkDetach(actor.run(), { startImmediately: true })
      return actor
    })
  }

  // ------------------------------------------------------------------------------------------------ operations

  private ask<A, E>(
    message: (reply: Reply<A, E>) => Message
  ): Effect.Effect<A, E | ChildClosed> {
    return Effect.suspend(() => {
      const reply = Deferred.makeUnsafe<A, E>()
      const asked = message(reply)
      const refused = this.closed || (this.closing && (asked._tag === "Start" || asked._tag === "Restart"))
      return Effect.flatMap(
        refused ? Effect.succeed(false) : Queue.offer(this.mailbox, asked),
        (accepted): Effect.Effect<A, E | ChildClosed> =>
          accepted
            // Whoever has gone is not kept among those who wait.
            ? Effect.onInterrupt(Deferred.await(reply), () =>
              Effect.sync(() => Deferred.doneUnsafe(reply, Effect.interrupt)))
            : Effect.fail(new ChildClosed({ child: this.id }))
      )
    })
  }

  /** The span has the incarnation that the operation found, and its leader's pid. */
  private traced<A, E>(name: string, self: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.suspend(() => {
      const pid = this.running?.tree?.pid
      return Effect.withSpan(self, name, {
        attributes: { child: this.path, incarnation: this.number, ...(pid === undefined ? {} : { pid }) }
      })
    })
  }

  private begins(paused: boolean): Effect.Effect<void, Refused> {
    return Effect.suspend(() => {
      const { epoch } = this
      return Effect.tap(
        this.ask<void, Refused>((reply) => ({ _tag: "Start", epoch, paused, reply })),
        () => Effect.annotateCurrentSpan("incarnation", this.number)
      )
    }).pipe((self) => this.traced("Child.start", self))
  }

  readonly start: Effect.Effect<void, Refused> = this.begins(false)

  /** Wants it up, but not before it is resumed. */
  readonly startPaused: Effect.Effect<void, Refused> = this.begins(true)

  stop(plan?: ShutdownPlan.Validated): Effect.Effect<void, ChildClosed> {
    return Effect.suspend(() => {
      this.epoch++
      return this.ask<void, ChildClosed>((reply) => ({ _tag: "Stop", plan: plan ?? this.child.shutdown, reply }))
    }).pipe((self) => this.traced("Child.stop", self))
  }

  readonly restart: Effect.Effect<number, Refused> = Effect.suspend(() => {
    const { epoch, number } = this
    return this.ask<number, Refused>((reply) => ({ _tag: "Restart", epoch, incarnation: number, reply }))
  }).pipe((self) => this.traced("Child.restart", self))

  /** Ends the incarnation to make way; the child then waits until its owner lets it start. */
  readonly halt: Effect.Effect<void, ChildClosed> = this.ask((reply) => ({ _tag: "Halt", reply }))

  readonly pause: Effect.Effect<void, ChildClosed> = this.ask((reply) => ({ _tag: "Pause", reply }))

  readonly resume: Effect.Effect<void, ChildClosed> = this.ask((reply) => ({ _tag: "Resume", reply }))

  /** What it waits for may have come. */
  readonly poke: Effect.Effect<void> = Effect.suspend(() => this.send({ _tag: "Poke" }))

  /** What it waits for will not come. */
  fail(reason: string, causes: ReadonlyArray<Link>): Effect.Effect<void> {
    return this.send({ _tag: "Fail", reason, causes })
  }

  /** Waits for the first state for which `test` gives an exit. */
  awaitState<A, E>(
    test: (state: ChildState.ChildState) => Exit.Exit<A, E> | undefined
  ): Effect.Effect<A, E | ChildClosed> {
    return Effect.suspend(() => {
      const now = test(this.state)
      if (now !== undefined) return now
      if (this.closed) return Effect.fail(new ChildClosed({ child: this.id }))
      const waiter: Waiter = { test, done: Deferred.makeUnsafe() }
      this.waiters.add(waiter)
      return Effect.onExit(
        Deferred.await(waiter.done) as Effect.Effect<A, E | ChildClosed>,
        () => Effect.sync(() => this.waiters.delete(waiter))
      )
    })
  }

  /** Waits until it is ready; one that was done before may be what is waited for too, one that was stopped is not. */
  awaitReady(doneCounts: boolean): Effect.Effect<void, ChildFailed | ChildStopped | ChildClosed> {
    return this.awaitState((state): Exit.Exit<void, ChildFailed | ChildStopped> | undefined => {
      switch (state._tag) {
        case "Ready":
          return Exit.void
        case "Failed":
          return Exit.fail(state.error)
        case "Stopped":
          return doneCounts && state.end !== null ? Exit.void : Exit.fail(new ChildStopped({ child: this.id }))
        default:
          return undefined
      }
    })
  }

  get tag(): ChildState.Tag {
    return this.state._tag
  }

  get snapshot(): ChildState.ChildState {
    return this.state
  }

  /** The number of the newest incarnation; 0 before the first. */
  get incarnation(): number {
    return this.number
  }

  /** How many wait for an answer. */
  get waiting(): number {
    return this.downReplies.size + this.restartReplies.size + this.waiters.size
  }

  /** The living incarnation's body. */
  get running(): Running | undefined {
    return this.state._tag === "Running" || this.state._tag === "Ready" || this.state._tag === "Stopping"
      ? this.current?.running
      : undefined
  }

  /** The last lines of the newest incarnation, when it ended by itself; empty before. */
  get outputTail(): string {
    return this.current?.outputTail ?? ""
  }

  /** The newest body, also after its end: what it wrote is still kept. */
  get latest(): Running | undefined {
    return this.current?.running
  }

  readonly status: Effect.Effect<ChildStatus> = Effect.suspend(() =>
    Effect.map(this.running?.children ?? Effect.succeed([]), (children): ChildStatus => ({
      id: this.id,
      state: this.state,
      health: this.health,
      paused: this.paused,
      incarnation: this.number,
      restarts: this.restarts,
      lastEnd: this.lastEnd,
      children
    }))
  )

  /** Stops the child, then the actor. Bounded by the shutdown plan; runs once. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    if (this.closed) return Effect.void
    this.closing = true
    return Effect.ignore(this.stop()).pipe(
      Effect.andThen(Effect.suspend(() => {
        this.closed = true
        return this.loop === undefined ? Effect.void : Fiber.interrupt(this.loop)
      }))
    )
  })

  // ------------------------------------------------------------------------------------------------ the loop

  private run(): Effect.Effect<void> {
    return Effect.forever(Effect.flatMap(Queue.take(this.mailbox), (message) => this.handle(message))).pipe(
      Effect.onExit((exit) => this.finish(exit)),
      Effect.annotateLogs({ child: this.path })
    )
  }

  /** The actor is over: by `close`, or by a defect, after which nothing may be left running either. */
  private finish(exit: Exit.Exit<unknown>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      this.closed = true
      if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) {
        yield* Effect.logError("the actor of a child has failed; the child is ended", exit.cause)
      }
      if (this.timer !== undefined) yield* Fiber.interrupt(this.timer)
      if (this.current !== undefined && ChildState.isUp(this.state._tag)) {
        this.current.fiber?.interruptUnsafe()
        this.current.stopProbes()
        yield* Scope.close(this.current.scope, Exit.void)
      }
      const closed = Exit.fail(new ChildClosed({ child: this.id }))
      // What is taken out makes room for those who waited for some.
      for (let rest = yield* Queue.clear(this.mailbox); rest.length > 0; rest = yield* Queue.clear(this.mailbox)) {
        for (const message of rest) {
          if ("reply" in message) Deferred.doneUnsafe(message.reply as unknown as AnyReply, closed)
        }
      }
      yield* Queue.shutdown(this.mailbox)
      for (const waiter of this.waiters) Deferred.doneUnsafe(waiter.done, closed)
      this.downReplies.answer(closed)
      this.restartReplies.answer(closed)
      this.metrics.close(this.state._tag)
      this.events.end()
    })
  }

  private send(message: Message): Effect.Effect<void> {
    return Effect.asVoid(Queue.offer(this.mailbox, message))
  }

  private handle(message: Message): Effect.Effect<void> {
    switch (message._tag) {
      case "Start":
        return this.onStart(message.epoch, message.paused, message.reply)
      case "Stop":
        return this.onStop(message.plan, message.reply)
      case "Restart":
        return this.onRestart(message.epoch, message.incarnation, message.reply)
      case "Halt":
        return this.onHalt(message.reply)
      case "Pause":
        return this.onPause(message.reply)
      case "Resume":
        return this.onResume(message.reply)
      case "Fail":
        return Effect.suspend(() =>
          this.state._tag === "Waiting"
            ? Effect.andThen(this.giveUp(message.reason, message.causes, []), this.settle)
            : Effect.void
        )
      case "Poke":
        return this.reconsider
      case "Due":
        return message.incarnation === this.number && this.state._tag === "BackingOff" ? this.go("due") : Effect.void
      default:
        return message.of === this.current ? this.onIncarnation(message) : Effect.void
    }
  }

  private onIncarnation(message: Extract<Message, { readonly of: Incarnation }>): Effect.Effect<void> {
    switch (message._tag) {
      case "Launched":
        return this.onLaunched(message.of)
      case "Ready":
        return this.onReady(message.of)
      case "Health":
        return Effect.sync(() => this.onHealth(message.of, message.probe, message.failure))
      case "Failing":
        // What a probe said at the instant of a pause; it is asked again when the child is resumed.
        return this.paused && (message.end._tag === "Unhealthy" || message.end._tag === "NotReady")
          ? Effect.void
          : this.onSpontaneous("failing", message.of, message.end)
      case "Exited":
        return this.onSpontaneous("exited", message.of, message.end)
      case "Ended":
        return this.onEnded(message.of, message.problem, message.survivors)
    }
  }

  // ------------------------------------------------------------------------------------------------ transitions

  private publish(change: Change): void {
    const event: ChildEvent = {
      child: this.id,
      incarnation: this.number,
      at: this.clock.currentTimeMillisUnsafe(),
      change
    }
    this.events.publish(event)
    this.owner.onEvent(event)
  }

  /** Goes to `state` if the table has `event` lead there; tells everybody. False when the event means nothing now. */
  private move(event: ChildState.Event, state: ChildState.ChildState): boolean {
    const from = this.state
    const tag = ChildState.next(from._tag, event)
    if (tag !== state._tag || tag === from._tag) return false
    this.state = state
    this.metrics.move(from._tag, tag)
    this.publish({ _tag: "State", from, to: state })
    for (const waiter of this.waiters) {
      const exit = waiter.test(state)
      if (exit !== undefined) Deferred.doneUnsafe(waiter.done, exit)
    }
    return true
  }

  private blockers(): ReadonlyArray<string> {
    return this.paused ? ["resume", ...this.owner.blockers()] : this.owner.blockers()
  }

  /** Begins the next incarnation, or waits for what has to come first. */
  private go(event: "start" | "due" | "startAgain"): Effect.Effect<void> {
    return Effect.suspend(() => {
      const on = this.blockers()
      // Nothing comes between the look and the transition.
      if (on.length === 0) return this.begin(event)
      if (this.state._tag === "Waiting") this.state = { _tag: "Waiting", on }
      else this.move(event === "startAgain" ? "park" : "wait", { _tag: "Waiting", on })
      return this.stopTimer
    })
  }

  private readonly stopTimer: Effect.Effect<void> = Effect.sync(() => {
    this.timer?.interruptUnsafe()
    this.timer = undefined
  })

  private readonly reconsider: Effect.Effect<void> = Effect.suspend(() =>
    this.state._tag === "Waiting" ? this.go("start") : Effect.void
  )

  private begin(event: "start" | "due" | "startAgain"): Effect.Effect<void> {
    const since = this.clock.currentTimeMillisUnsafe()
    this.number++
    if (!this.move(event, { _tag: "Starting", incarnation: this.number, since })) {
      this.number--
      return Effect.void
    }
    this.intent = "decide"
    this.health = "unknown"
    const incarnation = new Incarnation(this.number, Scope.makeUnsafe(), monotonic(this.clock))
    this.current = incarnation
    this.restartReplies.answer(Exit.succeed(incarnation.number))
    return Effect.andThen(
      this.stopTimer,
      Effect.map(Effect.forkDetach(this.live(incarnation), { startImmediately: true }), (fiber) => {
        incarnation.fiber = fiber
      })
    )
  }

  /** One life: launch, tell, wait for the end. What it owns is in the incarnation's scope. */
  private live(incarnation: Incarnation): Effect.Effect<void> {
    const { number, scope } = incarnation
    const launch = this.child.spec.body.start({
      incarnation: number,
      onStep: (step) => this.onStep(incarnation, step),
      onEvent: (event) => this.owner.onEvent({ ...event, child: `${this.id}/${event.child}` })
    }).pipe(
      Scope.provide(scope),
      Effect.tap(({ tree }) => tree === undefined ? Effect.void : Effect.annotateCurrentSpan("pid", tree.pid)),
      Effect.annotateLogs({ incarnation: number }),
      Effect.provideService(CurrentChild, { child: this.path, incarnation: number }),
      Effect.withSpan("Child.launch", { attributes: { child: this.path, incarnation: number } }),
      Effect.exit
    )
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(launch, (exit) => {
        if (Exit.isFailure(exit)) {
          return restore(this.send({ _tag: "Failing", of: incarnation, end: startFailed(exit.cause) }))
        }
        incarnation.running = exit.value
        return restore(Effect.gen({ self: this }, function*() {
          yield* this.send({ _tag: "Launched", of: incarnation })
          const end = yield* exit.value.ended
          yield* this.hearReadiness(incarnation, exit.value)
          yield* this.send({ _tag: "Exited", of: incarnation, end })
        }))
      })
    )
  }

  /** After the end: a readiness that was announced before it is heard first (peer case 87). */
  private hearReadiness(incarnation: Incarnation, { ready, tree }: Running): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      yield* Deferred.await(incarnation.watched)
      const { readiness } = incarnation
      if (readiness === undefined) return
      const probe = this.child.readiness?.probe._tag
      if (tree === undefined) {
        if (ready === undefined || probe !== undefined) return
        const announced = yield* Effect.raceFirst(Effect.as(ready, true), Effect.as(Effect.yieldNow, false))
        if (announced) yield* Fiber.await(readiness)
      } else if (probe === "Line" || probe === "Fd") {
        // An announcement is in the output, or will not come.
        yield* tree.drained
        yield* Fiber.await(readiness)
      } else {
        yield* Effect.raceFirst(Fiber.await(readiness), tree.drained)
      }
    })
  }

  private onStep(incarnation: Incarnation, step: string): void {
    incarnation.step = step
    if (incarnation !== this.current || this.state._tag !== "Stopping" || this.state.step === step) return
    const from = this.state
    this.state = { ...from, step }
    this.publish({ _tag: "State", from, to: this.state })
  }

  private onLaunched(incarnation: Incarnation): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.metrics.started(monotonic(this.clock) - incarnation.startedAt)
      const since = this.clock.currentTimeMillisUnsafe()
      if (!this.move("launched", { _tag: "Running", ...incarnation.identity, since })) {
        return Effect.void
      }
      return Effect.andThen(this.log("Debug", "launched"), this.awaitReadiness(incarnation))
    }).pipe(Effect.ensuring(Deferred.succeed(incarnation.watched, undefined)))
  }

  /** Watches for readiness; without a probe and without an announcement a launched child is ready. */
  private awaitReadiness(incarnation: Incarnation): Effect.Effect<void> {
    const running = incarnation.running
    if (running === undefined) return Effect.void
    const probes: Array<Effect.Effect<void, NotReady | InvalidSpec>> = []
    if (running.ready !== undefined) probes.push(running.ready)
    const announced = this.child.readiness?.probe._tag === "Line" || this.child.readiness?.probe._tag === "Fd"
    if (this.child.readiness !== undefined && !(announced && running.kept?.wasReady === true)) {
      probes.push(Probe.awaitReady(this.child.readiness, { platform: this.platform, tree: running.tree }))
    }
    if (probes.length === 0) return this.onReady(incarnation)
    if (this.paused) return Effect.void
    return incarnation.probesGone.pipe(
      Effect.andThen(Effect.all(probes, { discard: true, concurrency: "unbounded" })),
      Effect.matchEffect({
        onSuccess: () => this.send({ _tag: "Ready", of: incarnation }),
        onFailure: (error) =>
          Effect.flatMap(this.endsWithoutAnnouncement(running, error), (ends) =>
            ends
              ? Effect.void
              : this.send({ _tag: "Failing", of: incarnation, end: { _tag: "NotReady", message: error.message } }))
      }),
      Effect.forkDetach({ startImmediately: true }),
      Effect.map((fiber) => {
        incarnation.readiness = fiber
      })
    )
  }

  /** The output ended because the process did: how it ended says more, and policies look at it. */
  private endsWithoutAnnouncement({ tree }: Running, error: NotReady | InvalidSpec): Effect.Effect<boolean> {
    return Effect.gen({ self: this }, function*() {
      if (tree === undefined || error._tag !== "NotReady" || error.lastFailure.reason !== "Ended") return false
      const clock = yield* this.processClock
      return yield* Effect.raceFirst(
        Effect.as(tree.exited, true),
        Effect.as(clock.sleep(Duration.millis(endPause)), false)
      )
    })
  }

  private onReady(incarnation: Incarnation): Effect.Effect<void> {
    return Effect.suspend(() => {
      const since = this.clock.currentTimeMillisUnsafe()
      incarnation.readiness = undefined
      if (!this.move("ready", { _tag: "Ready", ...incarnation.identity, since })) return Effect.void
      incarnation.readyAt = monotonic(this.clock)
      const kept = incarnation.running?.kept
      const told = kept === undefined ? Effect.void : Effect.forkDetach(kept.ready)
      return Effect.andThen(told, Effect.andThen(this.log("Debug", "ready"), this.watchLiveness(incarnation)))
    })
  }

  private watchLiveness(incarnation: Incarnation): Effect.Effect<void> {
    const { platform } = this
    if (this.paused || incarnation.running === undefined) return Effect.void
    const target = { platform, tree: incarnation.running.tree }
    return Effect.forEach(
      this.child.liveness,
      (liveness, probe) =>
        incarnation.probesGone.pipe(
          Effect.andThen(
            Probe.watch(liveness, target, (health, failure) =>
              health === "failed"
                ? this.send({
                  _tag: "Failing",
                  of: incarnation,
                  end: { _tag: "Unhealthy", message: failure?.message ?? "the liveness probe failed" }
                })
                : this.send({ _tag: "Health", of: incarnation, probe, failure: failure ?? null }))
          ),
          Effect.catch((error) =>
            this.send({ _tag: "Failing", of: incarnation, end: { _tag: "Unhealthy", message: error.message } })
          ),
          Effect.forkDetach({ startImmediately: true })
        )
    ).pipe(Effect.map((fibers) => {
      incarnation.liveness = fibers
    }))
  }

  private onHealth(incarnation: Incarnation, probe: number, failure: ProbeFailure | null): void {
    if (this.state._tag !== "Ready") return
    if (failure === null) incarnation.degraded.delete(probe)
    else incarnation.degraded.set(probe, failure)
    const health: Health = incarnation.degraded.size === 0 ? "healthy" : "degraded"
    if (health === this.health) return
    this.health = health
    this.publish({ _tag: "Health", health, detail: failure?.message ?? null })
  }

  private onSpontaneous(event: "exited" | "failing", incarnation: Incarnation, end: ChildEnd): Effect.Effect<void> {
    return Effect.suspend(() => {
      incarnation.end ??= end
      return this.end(event, incarnation, End.describe(end), this.child.shutdown)
    })
  }

  /** Begins to end the incarnation, in a fiber of its own: the actor goes on answering. */
  private end(
    event: "exited" | "failing" | "stop" | "restart" | "halt",
    incarnation: Incarnation,
    why: string,
    plan: ShutdownPlan.Validated
  ): Effect.Effect<void> {
    return Effect.suspend(() => {
      const since = this.clock.currentTimeMillisUnsafe()
      const moved = this.move(event, {
        _tag: "Stopping",
        ...incarnation.identity,
        since,
        why,
        step: incarnation.step
      })
      if (!moved) {
        // A later stop shortens the teardown that is going on.
        return event === "stop"
          ? Effect.asVoid(Effect.forkDetach(this.stopBody(incarnation, plan), { startImmediately: true }))
          : Effect.void
      }
      if (incarnation.readyAt !== undefined) incarnation.readyFor = monotonic(this.clock) - incarnation.readyAt
      incarnation.stopProbes()
      return Effect.asVoid(Effect.forkDetach(this.teardown(incarnation, plan), { startImmediately: true }))
    })
  }

  private stopBody(incarnation: Incarnation, plan: ShutdownPlan.Validated): Effect.Effect<Remainder> {
    // A launch that is under way is not interrupted: it ends soon, and then there is a body to stop.
    return Effect.andThen(
      incarnation.fiber === undefined ? Effect.void : Fiber.interrupt(incarnation.fiber),
      Effect.suspend(() => incarnation.running?.stop(plan, plan !== this.child.shutdown) ?? Effect.succeed(nothingLeft))
    )
  }

  private teardown(incarnation: Incarnation, plan: ShutdownPlan.Validated): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const remainder = yield* this.stopBody(incarnation, plan)
      yield* incarnation.awaitProbes(yield* this.processClock, plan.cap)
      // Closing the scope drains the output, unless the tree was released from it.
      const draining = yield* Effect.forkDetach(this.measureDrain(incarnation.running), { startImmediately: true })
      yield* Scope.close(incarnation.scope, Exit.void)
      yield* Fiber.interrupt(draining)
      const tree = incarnation.running?.tree
      if (tree !== undefined && (incarnation.end !== undefined || remainder.problem !== undefined)) {
        incarnation.outputTail = yield* Tail.ofTree(tree)
      }
      yield* this.send({ _tag: "Ended", of: incarnation, ...remainder })
    }).pipe(Effect.annotateLogs(incarnation.annotations))
  }

  /** The clock of time that is spent on processes. */
  private readonly processClock: Effect.Effect<Clock.Clock> = Effect.suspend(() =>
    this.platform?.clock ?? Effect.succeed(this.clock)
  )

  private measureDrain(running: Running | undefined): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      if (running?.tree === undefined) return
      const clock = yield* this.processClock
      const emptyAt = clock.monotonicTimeNanosUnsafe()
      yield* running.tree.drained
      this.metrics.drained(Number(clock.monotonicTimeNanosUnsafe() - emptyAt) / 1e6)
    })
  }

  /** The tree is empty, or as empty as it gets: what now? */
  private onEnded(
    incarnation: Incarnation,
    problem: string | undefined,
    survivors: ReadonlyArray<ProcessInfo>
  ): Effect.Effect<void> {
    return Effect.suspend(() => {
      const end = this.intent === "decide" ? incarnation.end ?? null : null
      if (incarnation.end !== undefined) this.lastEnd = incarnation.end
      this.metrics.ended(incarnation.step)
      const { outputTail } = incarnation
      this.publish({ _tag: "Ended", end, survivors, outputTail: end === null ? "" : outputTail })
      if (problem !== undefined) {
        // Another incarnation beside a living one is worse than none.
        return Effect.andThen(
          this.giveUp(problem, [], survivors, outputTail),
          Effect.suspend(() => {
            if (end !== null) this.owner.ended(end, "fail", 0)
            return this.settle
          })
        )
      }
      switch (this.intent) {
        case "stop":
          this.move("finish", { _tag: "Stopped", end: null })
          return Effect.andThen(this.log("Debug", "stopped"), this.settle)
        case "again":
          return Effect.andThen(this.go("startAgain"), this.settle)
        case "halt":
          this.move("park", { _tag: "Waiting", on: this.blockers() })
          return Effect.andThen(this.settle, this.reconsider)
        case "decide":
          return Effect.andThen(this.decide(incarnation, end ?? { _tag: "Completed" }), this.settle)
      }
    })
  }

  /** Answers those who wait for the end of an incarnation. */
  private readonly settle: Effect.Effect<void> = Effect.sync(() => {
    this.downReplies.answer(Exit.void)
    if (this.state._tag === "Failed") {
      this.restartReplies.answer(Exit.fail(this.state.error))
    } else if (this.state._tag === "Stopped") {
      this.restartReplies.answer(Exit.fail(new Overtaken({ child: this.id, operation: "restart" })))
    }
  })

  private decide(incarnation: Incarnation, end: ChildEnd): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const verdict = Restart.decide(this.child.restart, end)
      if (verdict === "complete") {
        this.move("finish", { _tag: "Stopped", end })
        this.owner.ended(end, verdict, 0)
        return
      }
      if (verdict === "fail") return yield* this.failFor(end, "it is not restarted")
      const { resetAfter } = this.child.restart
      if (incarnation.readyAt !== undefined && incarnation.readyFor >= resetAfter) this.forgive()
      this.backoff ??= yield* Schedule.toStep(this.child.restart.backoff)
      const step = yield* Effect.exit(this.backoff(monotonic(this.clock), end))
      if (Exit.isFailure(step)) return yield* this.failFor(end, `it was restarted ${this.attempt} times in a row`)
      const delay = Math.round(Duration.toMillis(step.value[1]))
      this.attempt++
      this.restarts++
      this.metrics.restarted()
      yield* this.log("Info", `${End.describe(end)}; restart ${this.attempt} in a row, after ${delay} ms`)
      const until = this.clock.currentTimeMillisUnsafe() + delay
      if (this.owner.ended(end, verdict, delay) === "park" || this.paused) {
        this.move("park", { _tag: "Waiting", on: this.blockers() })
        // What parked it may be over already.
        return yield* this.reconsider
      }
      this.move("backOff", { _tag: "BackingOff", until, attempt: this.attempt, end })
      const due = Effect.andThen(
        Effect.sleep(delay),
        this.send({ _tag: "Due", incarnation: this.number })
      )
      this.timer = yield* Effect.forkDetach(due, { startImmediately: true })
    })
  }

  private failFor(end: ChildEnd, why: string): Effect.Effect<void> {
    const causes = end._tag === "Failed" ? end.causes : []
    return Effect.andThen(
      this.giveUp(`${End.describe(end)}; ${why}`, causes, [], this.current?.outputTail),
      Effect.sync(() => void this.owner.ended(end, "fail", 0))
    )
  }

  private giveUp(
    reason: string,
    causes: ReadonlyArray<Link>,
    survivors: ReadonlyArray<ProcessInfo>,
    outputTail = ""
  ): Effect.Effect<void> {
    return Effect.suspend(() => {
      const error = new ChildFailed({ child: this.id, reason, causes, survivors, outputTail })
      return this.move("giveUp", { _tag: "Failed", error }) ? this.log("Warn", error.message) : Effect.void
    })
  }

  /** Logs in the actor's fiber, so with the loggers of whoever started the child. */
  private log(level: "Debug" | "Info" | "Warn", message: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      const annotations = this.current === undefined ? {} : this.current.annotations
      return Effect.annotateLogs(Effect.logWithLevel(level)(message), annotations)
    })
  }

  private forgive(): void {
    this.attempt = 0
    this.backoff = undefined
  }

  // ------------------------------------------------------------------------------------------------ commands

  private onStart(epoch: number, paused: boolean, reply: Reply<void, Refused>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      if (epoch !== this.epoch) {
        Deferred.doneUnsafe(reply, Exit.fail(new Overtaken({ child: this.id, operation: "start" })))
        return
      }
      if (paused) this.holdBack()
      else yield* this.unpause
      switch (this.state._tag) {
        case "Waiting":
        case "BackingOff":
        case "Stopped":
        case "Failed": {
          const failed = yield* this.stillThere
          if (failed !== undefined) {
            Deferred.doneUnsafe(reply, Exit.fail(failed))
            return
          }
          this.forgive()
          yield* this.go("start")
          break
        }
        case "Stopping":
          // Also after an end by itself, which might not be followed by a restart.
          if (this.intent !== "halt") this.intent = "again"
          this.forgive()
          break
        default:
      }
      Deferred.doneUnsafe(reply, Exit.void)
    })
  }

  /** What is still left of what could not be ended. */
  readonly remains: Effect.Effect<Remainder> = Effect.suspend(() =>
    this.current?.running?.remains ?? Effect.succeed(nothingLeft)
  )

  /** The error of a child whose old tree could not be ended and has not ended since. */
  readonly stillThere: Effect.Effect<ChildFailed | undefined> = Effect.gen({ self: this }, function*() {
    if (this.state._tag !== "Failed") return undefined
    const { error } = this.state
    const remains = yield* this.remains
    return remains.problem === undefined
      ? undefined
      : new ChildFailed({
        child: this.id,
        reason: remains.problem,
        causes: error.causes,
        survivors: remains.survivors,
        outputTail: error.outputTail
      })
  })

  private onStop(plan: ShutdownPlan.Validated, reply: Reply<void, ChildClosed>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const incarnation = this.current
      if (incarnation !== undefined && ChildState.isUp(this.state._tag)) {
        this.intent = "stop"
        this.downReplies.add(reply)
        return this.end("stop", incarnation, "stop", plan)
      }
      this.move("stop", { _tag: "Stopped", end: null })
      this.forgive()
      Deferred.doneUnsafe(reply, Exit.void)
      return Effect.andThen(this.stopTimer, this.settle)
    })
  }

  private onRestart(epoch: number, issuedAt: number, reply: Reply<number, Refused>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const refuse = () => {
        Deferred.doneUnsafe(reply, Exit.fail(new Overtaken({ child: this.id, operation: "restart" })))
      }
      if (epoch !== this.epoch) return refuse()
      yield* this.unpause
      const incarnation = this.current
      if (incarnation !== undefined && ChildState.isUp(this.state._tag)) {
        if (this.state._tag === "Stopping" && this.intent === "stop") return refuse()
        // Another restart was quicker: what was asked for has been done.
        if (this.number > issuedAt) {
          Deferred.doneUnsafe(reply, Exit.succeed(this.number))
          return
        }
        this.restartReplies.add(reply)
        this.forgive()
        if (this.intent !== "halt") this.intent = "again"
        return yield* this.end("restart", incarnation, "restart", this.child.shutdown)
      }
      const failed = yield* this.stillThere
      if (failed !== undefined) {
        Deferred.doneUnsafe(reply, Exit.fail(failed))
        return
      }
      this.forgive()
      this.restartReplies.add(reply)
      yield* this.go("start")
    })
  }

  private onHalt(reply: Reply<void, ChildClosed>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const incarnation = this.current
      if (incarnation !== undefined && ChildState.isUp(this.state._tag)) {
        if (this.intent !== "stop") this.intent = "halt"
        this.downReplies.add(reply)
        return this.end("halt", incarnation, "restart of siblings", this.child.shutdown)
      }
      this.move("halt", { _tag: "Waiting", on: this.blockers() })
      Deferred.doneUnsafe(reply, Exit.void)
      return this.stopTimer
    })
  }

  private holdBack(): void {
    if (this.paused) return
    this.paused = true
    this.publish({ _tag: "Paused" })
    this.current?.stopProbes()
  }

  private onPause(reply: Reply<void, ChildClosed>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.holdBack()
      Deferred.doneUnsafe(reply, Exit.void)
      // A tree that is being ended is awaited; only a backoff is cut short.
      if (this.state._tag !== "BackingOff") return Effect.void
      this.move("park", { _tag: "Waiting", on: this.blockers() })
      return this.stopTimer
    })
  }

  private readonly unpause: Effect.Effect<void> = Effect.suspend(() => {
    if (!this.paused) return Effect.void
    this.paused = false
    this.publish({ _tag: "Resumed" })
    const { current, state } = this
    if (current === undefined) return Effect.void
    if (state._tag === "Running") return this.awaitReadiness(current)
    return state._tag === "Ready" ? this.watchLiveness(current) : Effect.void
  })

  private onResume(reply: Reply<void, ChildClosed>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      yield* this.unpause
      Deferred.doneUnsafe(reply, Exit.void)
      yield* this.reconsider
    })
  }
}

const startFailed = (cause: Cause.Cause<StartFailure>): ChildEnd => {
  const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
  return failure === undefined
    ? { _tag: "StartFailed", reason: "Defect", message: Cause.pretty(cause).slice(0, 1000) }
    : { _tag: "StartFailed", reason: failure._tag, message: failure.message }
}
