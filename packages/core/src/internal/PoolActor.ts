/**
 * The keys of one pool. All decisions are made at once, in the transition that gives rise to them, and nothing comes
 * between: a use of a child and the decision to end it are never interleaved. What takes time is left to one fiber for
 * each key, which leads an incarnation from its first step to its last.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Child from "../Child.ts"
import type { ChildEnd } from "../ChildEnd.ts"
import * as ChildSpec from "../ChildSpec.ts"
import type { ChildEvent } from "../ChildStatus.ts"
import {
  CapacityExceeded,
  ChildFailed,
  ChildLost,
  type InvalidSpec,
  Overtaken,
  PoolClosed,
  type PoolStep,
  StartTimedOut,
  Unfinished,
  Unkillable,
  UnsavedState
} from "../Errors.ts"
import type { Activity, Blocked, Built, EnsureError, Handle, Incarnation } from "../Pool.ts"
import * as PoolState from "../PoolState.ts"
import type { Change, KeyStatus, PoolEvent, PoolStatus } from "../PoolStatus.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import type * as ShutdownPlan from "../ShutdownPlan.ts"
import { Broadcast } from "./Broadcast.ts"
import { ChildActor } from "./ChildActor.ts"
import * as Guest from "./Guest.ts"
import { Entry, Life, type Request } from "./PoolKey.ts"
import { PoolMetrics } from "./PoolMetrics.ts"
import * as Policy from "./PoolPolicy.ts"
import { millis, monotonic } from "./Time.ts"
import * as Tokens from "./Tokens.ts"

/** Options that have been checked; times in ms. What user code needs is in the context of the pool. */
export interface Settings<A, E> {
  readonly name: string
  readonly build: (key: string, incarnation: Incarnation) => Effect.Effect<Built<A, E>, E, Scope.Scope>
  readonly restore: ((incarnation: Incarnation) => Effect.Effect<void, E, Scope.Scope>) | undefined
  readonly retire:
    | ((incarnation: Incarnation, end: ChildEnd | null) => Effect.Effect<void, unknown, Scope.Scope>)
    | undefined
  readonly retry: Schedule.Schedule<unknown, unknown>
  readonly saveWithin: number
  readonly startWithin: number
  /** Undefined: a child of this key is never idle. */
  readonly idleAfter: (key: string) => Result.Result<number | undefined, InvalidSpec>
  readonly activity: ((handle: Handle<A>) => Effect.Effect<Activity, unknown, Scope.Scope>) | undefined
  readonly activityWithin: number
  readonly age: number | undefined
  readonly uses: number | undefined
  readonly jitter: number
  readonly capacity: Capacity | undefined
}

export interface Capacity {
  readonly max: number
  readonly waiting: number
  readonly within: number
  readonly evictAfter: number
}

/** Past events that a late reader is given. */
const historySize = 256

/** Between the end of a child's output and its own, ms. */
const endPause = 100

/** A child that says that it is busy is not asked again for this long, ms, when room is needed. */
const busyPause = 1_000

type Restore = <B, F, R>(effect: Effect.Effect<B, F, R>) => Effect.Effect<B, F, R>

export class PoolActor<A, E> {
  readonly settings: Settings<A, E>
  readonly events = new Broadcast<PoolEvent>(historySize)
  private readonly services: Context.Context<never>
  private readonly clock: Clock.Clock
  private readonly random: SecureRandom.SecureRandom["Service"]
  private readonly platform: ProcessPlatform["Service"] | undefined
  private readonly metrics: PoolMetrics
  private readonly entries = new Map<string, Entry<A, E>>()
  /** Keys that are asked for and have no place, in the order in which they were asked for. */
  private readonly queue = new Set<Entry<A, E>>()
  private readonly tokens = new Tokens.Tokens<Life<A, E>>()
  private readonly counts: Record<PoolState.Tag, number> = {
    Absent: 0,
    Waiting: 0,
    Building: 0,
    Live: 0,
    Retiring: 0,
    Blocked: 0
  }
  /** Keys whose state could not be saved. They have no child and take no place. */
  private unsaved = 0
  /** Those of them of which that is being tried again. */
  private saving = 0
  /** Children that are being asked whether they may be ended to make room. */
  private unwanted = 0
  /** Looks for room when a child that was used or busy just now may have become idle. */
  private roomTimer: Fiber.Fiber<unknown> | undefined = undefined
  private outbox: Array<() => void> = []
  private incarnations = 0
  private open = true
  private readonly closed = Deferred.makeUnsafe<void>()

  private constructor(
    settings: Settings<A, E>,
    services: Context.Context<never>,
    clock: Clock.Clock,
    random: SecureRandom.SecureRandom["Service"]
  ) {
    this.settings = settings
    this.services = services
    this.clock = clock
    this.random = random
    this.platform = Option.getOrUndefined(Context.getOption(services, ProcessPlatform))
    this.metrics = new PoolMetrics(settings.name, services)
  }

  /** A pool without children; `close` must be called in the end. */
  static make<A, E>(settings: Settings<A, E>): Effect.Effect<PoolActor<A, E>> {
    return Effect.gen(function*() {
      const random = Option.getOrElse(
        yield* Effect.serviceOption(SecureRandom.SecureRandom),
        () => SecureRandom.make(SecureRandom.randomBytesUnsafe)
      )
      return new PoolActor(settings, yield* Effect.context<never>(), yield* Clock.Clock, random)
    })
  }

  // ------------------------------------------------------------------------------------------------ operations

  /** The child of a key; the path of one that is live takes no fiber, no lock and no timer. */
  ensure(key: string): Effect.Effect<Handle<A>, E | EnsureError> {
    return Effect.suspend(() => {
      const life = this.give(key)
      if (life !== undefined) return handleOf(life)
      return Effect.flatMap(Effect.uninterruptibleMask((restore) => this.wait(key, false, restore)), handleOf)
    })
  }

  lease(key: string): Effect.Effect<Handle<A>, E | EnsureError, Scope.Scope> {
    return Effect.flatMap(
      Effect.scope,
      (scope) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(
            this.pin(key, restore),
            (life) => Effect.andThen(Scope.addFinalizer(scope, Effect.sync(() => this.release(life))), handleOf(life))
          )
        )
    )
  }

  use<B, E2, R2>(
    key: string,
    f: (handle: Handle<A>) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | EnsureError | E2 | ChildLost, R2> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(this.pin(key, restore), (life) => {
        const using = Effect.flatMap(handleOf(life), (handle) =>
          Effect.raceFirst(Effect.suspend(() => f(handle)), handle.lost))
        return Effect.ensuring(
          restore(using),
          Effect.sync(() =>
            this.release(life)
          )
        )
      })
    )
  }

  touch(key: string): boolean {
    const life = this.entries.get(key)?.life
    if (life?.isLive !== true) return false
    life.use(monotonic(this.clock))
    return true
  }

  shutdown(key: string, plan: ShutdownPlan.Validated | undefined): Effect.Effect<void, Blocked> {
    return Effect.suspend(() => {
      const entry = this.entries.get(key)
      return entry === undefined ? Effect.void : Effect.flatMap(this.end(entry, "shutdown", plan), failIfLeft)
    })
  }

  readonly shutdownAll: Effect.Effect<ReadonlyArray<Blocked>> = Effect.suspend(() => this.endAll("shutdown"))

  retrySave(key: string): Effect.Effect<void, Blocked> {
    return Effect.suspend(() => {
      const entry = this.entries.get(key)
      if (entry?.state._tag === "Blocked") this.retry(entry, true)
      return entry?.state._tag === "Retiring" ? Effect.flatMap(Deferred.await(entry.over), failIfLeft) : Effect.void
    })
  }

  discard(key: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      const entry = this.entries.get(key)
      if (entry?.state._tag !== "Blocked" || !entry.state.unsaved || entry.life === undefined) return Effect.void
      entry.life.saved = true
      this.retry(entry, false)
      return Effect.asVoid(Deferred.await(entry.over))
    })
  }

  lookup(token: string): Pick<Incarnation, "key" | "incarnation"> | undefined {
    const life = this.tokens.find(token)
    return life === undefined ? undefined : { key: life.entry.key, incarnation: life.incarnation }
  }

  get status(): PoolStatus {
    const now = monotonic(this.clock)
    const wall = this.clock.currentTimeMillisUnsafe()
    const keys = [...this.entries.values()].map(({ key, life, request, state }): KeyStatus => {
      const live = life?.isLive === true ? life : undefined
      return {
        key,
        state,
        callers: request?.callers ?? 0,
        leases: live?.leases ?? 0,
        uses: live?.uses ?? 0,
        usedAt: live === undefined ? null : wall - (now - live.usedAt),
        due: live !== undefined && (live.isUsedUp || Policy.isOld(live.limits, live, now))
      }
    })
    return { pool: this.settings.name, open: this.open, capacity: this.settings.capacity?.max ?? null, keys }
  }

  /** Ends all children side by side, each within its bounds, and the pool. Runs once; others wait for it. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    if (!this.open) return Deferred.await(this.closed)
    this.open = false
    return this.endAll("closed").pipe(
      Effect.flatMap((left) => Effect.forEach(left, (error) => Effect.logError(error.message), { discard: true })),
      Effect.annotateLogs({ pool: this.settings.name }),
      Effect.ensuring(Effect.sync(() => {
        this.roomTimer?.interruptUnsafe()
        this.metrics.close()
        this.events.end()
        Deferred.doneUnsafe(this.closed, Exit.void)
      }))
    )
  })

  // ------------------------------------------------------------------------------------------------ transitions

  private publish(key: string, change: Change): void {
    this.events.publish({ key, at: this.clock.currentTimeMillisUnsafe(), change })
  }

  /** Goes to `to`, if the table has `event` lead there; a step within a state is no event. */
  private move(entry: Entry<A, E>, event: PoolState.Event, to: PoolState.KeyState): void {
    const from = entry.state
    if (PoolState.next(from._tag, event) !== to._tag || from._tag === to._tag) {
      throw new Error(`a key of a pool can't go from ${from._tag} to ${to._tag} by "${event}"`)
    }
    entry.state = to
    this.counts[from._tag]--
    this.counts[to._tag]++
    if (entry.isUnsaved) {
      this.unsaved--
      if (from._tag === "Retiring") this.saving--
    }
    entry.isUnsaved = to._tag === "Blocked" ? to.unsaved : entry.isUnsaved && to._tag === "Retiring"
    if (entry.isUnsaved) {
      this.unsaved++
      if (to._tag === "Retiring") this.saving++
    }
    this.metrics.move(from._tag, to._tag)
    this.publish(entry.key, { _tag: "State", from, to })
  }

  private now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  /** Forks from the middle of a transition; the fiber begins when that is over. */
  private fork<B>(effect: Effect.Effect<B>): Fiber.Fiber<B> {
    return Effect.runForkWith(this.services)(Effect.andThen(Effect.yieldNow, effect))
  }

  /**
   * Tells those who wait, when the transition is over: what is told runs at once, and may ask for anything.
   */
  private tell(done: () => void): void {
    this.outbox.push(done)
    if (this.outbox.length > 1) return
    this.fork(Effect.sync(() => {
      const { outbox } = this
      this.outbox = []
      for (const done of outbox) done()
    }))
  }

  /** Makes the fiber of an incarnation look again. */
  private awaken(life: Life<A, E>): void {
    this.tell(() => Deferred.doneUnsafe(life.wake, Exit.void))
  }

  private answer(entry: Entry<A, E>, exit: Exit.Exit<Life<A, E>, E | EnsureError>): void {
    const { request } = entry
    if (request === undefined) return
    entry.request = undefined
    this.queue.delete(entry)
    if (Exit.isSuccess(exit)) request.life = exit.value
    this.tell(() => Deferred.doneUnsafe(request.done, exit))
  }

  /** It is asked for, and nothing of it is left. */
  private enter(entry: Entry<A, E>): void {
    if (this.counts.Waiting === 0 && this.hasRoom) return this.begin(entry)
    const { capacity } = this.settings
    const waiting: PoolState.KeyState = { _tag: "Waiting", since: this.now() }
    this.move(entry, "wait", waiting)
    this.queue.add(entry)
    if (capacity === undefined) return
    entry.timer = this.fork(Effect.andThen(
      Effect.sleep(capacity.within),
      Effect.sync(() => {
        if (entry.state !== waiting) return
        this.answer(entry, Exit.fail(this.exceeded(entry.key, capacity.within)))
        this.drop(entry)
      })
    ))
  }

  private exceeded(key: string, within: number | null): CapacityExceeded {
    return new CapacityExceeded({
      pool: this.settings.name,
      key,
      capacity: this.settings.capacity?.max ?? 0,
      waiting: this.counts.Waiting,
      within
    })
  }

  /** Nobody waits for room for it any more. */
  private drop(entry: Entry<A, E>): void {
    entry.timer?.interruptUnsafe()
    this.queue.delete(entry)
    this.move(entry, "drop", { _tag: "Absent" })
    this.entries.delete(entry.key)
  }

  /** Begins an incarnation. */
  private begin(entry: Entry<A, E>): void {
    entry.timer?.interruptUnsafe()
    this.queue.delete(entry)
    const step: PoolStep = this.settings.restore === undefined ? "build" : "restore"
    const life = new Life(entry, ++this.incarnations, monotonic(this.clock), step)
    entry.life = life
    this.move(entry, "build", { _tag: "Building", since: this.now(), incarnation: life.incarnation, step })
    this.fork(this.live(life))
  }

  private step(life: Life<A, E>, step: PoolStep): void {
    life.step = step
    const { entry } = life
    const from = entry.state
    if (from._tag !== "Building" || from.step === step) return
    entry.state = { ...from, step }
    this.publish(entry.key, { _tag: "State", from, to: entry.state })
  }

  /** Lets an incarnation end, once; those who still wait for it get `answer`. */
  private leave(
    life: Life<A, E>,
    reason: PoolState.Reason,
    why: string,
    options: {
      readonly answer?: Exit.Exit<never, E | EnsureError>
      readonly plan?: ShutdownPlan.Validated | undefined
    } = {}
  ): void {
    if (life.leaving !== undefined) return
    const { entry } = life
    life.leaving = { reason, plan: options.plan }
    life.isLive = false
    this.spare(life)
    entry.over = Deferred.makeUnsafe()
    this.metrics.ended(reason)
    this.move(entry, "leave", { _tag: "Retiring", since: this.now(), incarnation: life.incarnation, reason })
    if (options.answer !== undefined) this.answer(entry, options.answer)
    this.tell(() => {
      Deferred.doneUnsafe(life.left, Exit.void)
      Deferred.doneUnsafe(life.wake, Exit.void)
      Deferred.doneUnsafe(life.lost, Exit.succeed(why))
    })
  }

  /** A build has failed: all who wait are told, and nothing is kept. */
  private fail(life: Life<A, E>, cause: Cause.Cause<E | EnsureError>): void {
    if (life.leaving !== undefined) return
    const problem = life.scrub(describe(cause))
    this.publish(life.entry.key, { _tag: "BuildFailed", problem })
    // Those who wait were not interrupted, even if what they wait for was.
    const answer = Cause.hasInterruptsOnly(cause) ? Exit.fail(failed(life, problem)) : Exit.failCause(cause)
    this.leave(life, "failed", problem, { answer })
  }

  /** What its child tells, in the middle of the child's own transitions. */
  private onChildEvent(life: Life<A, E>, { change }: ChildEvent): void {
    if (change._tag !== "State" || change.to._tag !== "Stopping") return
    const why = life.scrub(change.to.why)
    if (life.isLive) this.leave(life, "ended", why)
    else this.fail(life, Cause.fail(failed(life, why)))
  }

  private goLive(life: Life<A, E>, handle: Handle<A>, limits: Policy.Limits): void {
    const { entry } = life
    const now = monotonic(this.clock)
    this.metrics.started(now - life.startedAt)
    life.readyAt = now
    life.limits = limits
    life.isLive = true
    life.handle = handle
    // All who shared the build are one use.
    life.uses = 1
    life.leases = entry.request?.pins ?? 0
    life.use(now)
    this.move(entry, "live", {
      _tag: "Live",
      since: this.now(),
      incarnation: life.incarnation,
      pid: life.actor?.running?.tree?.pid ?? null
    })
    this.answer(entry, Exit.succeed(life))
    // Now it is one of those that may have to go for another key.
    this.makeRoom()
  }

  /** Nothing is left of an incarnation. */
  private gone(entry: Entry<A, E>): void {
    const { over } = entry
    entry.life = undefined
    this.move(entry, "gone", { _tag: "Absent" })
    if (entry.request === undefined) this.entries.delete(entry.key)
    else this.enter(entry)
    this.tell(() => Deferred.doneUnsafe(over, Exit.succeed(undefined)))
    this.admit()
    this.makeRoom()
  }

  /** Something is left of it. */
  private block(life: Life<A, E>, left: Blocked): void {
    const { entry } = life
    const { over } = entry
    this.move(entry, "block", {
      _tag: "Blocked",
      since: this.now(),
      incarnation: life.incarnation,
      problem: left.message,
      unsaved: left._tag === "UnsavedState",
      survivors: left._tag === "Unkillable" ? left.survivors : []
    })
    this.answer(entry, Exit.fail(left))
    this.tell(() => Deferred.doneUnsafe(over, Exit.succeed(left)))
    this.admit()
    this.makeRoom()
  }

  /** Looks again at what is left of a blocked key. */
  private retry(entry: Entry<A, E>, repeat: boolean): void {
    const { life } = entry
    if (life?.leaving === undefined) return
    entry.over = Deferred.makeUnsafe()
    const { reason } = life.leaving
    this.move(entry, "retry", { _tag: "Retiring", since: this.now(), incarnation: life.incarnation, reason })
    this.fork(this.guarded(life, this.finish(life, repeat)))
  }

  // ------------------------------------------------------------------------------------------------ room

  private get occupied(): number {
    return this.counts.Building + this.counts.Live + this.counts.Retiring + this.counts.Blocked - this.unsaved
  }

  /** Keys whose state can't be saved take no place, but there may not be more of them than places. */
  private get hasRoom(): boolean {
    const { capacity } = this.settings
    return capacity === undefined ||
      (Policy.free({ max: capacity.max, occupied: this.occupied }) > 0 && this.unsaved < capacity.max)
  }

  /** Gives the free places to those who have waited longest. */
  private admit(): void {
    if (this.counts.Waiting === 0) return
    for (const entry of this.queue) {
      if (!this.hasRoom) return
      // A key whose last incarnation is still ending keeps its turn, and lets others go first.
      if (entry.state._tag === "Waiting") this.begin(entry)
    }
  }

  /** Ends the children that were used longest ago, as many as there are keys that wait for a place. */
  private makeRoom(): void {
    const { activity, capacity } = this.settings
    if (capacity === undefined || this.queue.size === 0 || this.unsaved >= capacity.max) return
    const shortage = Policy.shortage({
      max: capacity.max,
      occupied: this.occupied,
      leaving: this.counts.Retiring - this.saving + this.unwanted,
      wanted: this.queue.size
    })
    if (shortage === 0) return
    const now = monotonic(this.clock)
    const candidates: Array<Life<A, E>> = []
    for (const { life } of this.entries.values()) {
      if (life?.isLive === true && life.leases === 0 && !life.unwanted) candidates.push(life)
    }
    const { chosen, lookAgainIn } = Policy.chooseIdle(candidates, shortage, capacity.evictAfter, now)
    for (const life of chosen) {
      if (activity === undefined) this.leave(life, "evicted", "another key needed its place")
      else {
        life.unwanted = true
        this.unwanted++
        this.awaken(life)
      }
    }
    if (lookAgainIn === undefined || this.roomTimer !== undefined) return
    this.roomTimer = this.fork(Effect.andThen(
      Effect.sleep(lookAgainIn),
      Effect.sync(() => {
        this.roomTimer = undefined
        this.makeRoom()
      })
    ))
  }

  /** It is not asked for its place, or not any more. */
  private spare(life: Life<A, E>): void {
    if (!life.unwanted) return
    life.unwanted = false
    this.unwanted--
  }

  // ------------------------------------------------------------------------------------------------ those who ask

  /** The living child of a key, counted as given out once more; undefined when it has to be waited for. */
  private give(key: string): Life<A, E> | undefined {
    const life = this.entries.get(key)?.life
    if (life?.isLive !== true || (life.leases === 0 && life.isUsedUp)) return undefined
    life.uses++
    life.use(monotonic(this.clock))
    return life
  }

  private pin(key: string, restore: Restore): Effect.Effect<Life<A, E>, E | EnsureError> {
    return Effect.suspend(() => {
      const life = this.give(key)
      if (life === undefined) return this.wait(key, true, restore)
      life.leases++
      return Effect.succeed(life)
    })
  }

  private release(life: Life<A, E>): void {
    life.leases--
    // A child that is being ended has no leases.
    if (life.leaving !== undefined) return
    const now = monotonic(this.clock)
    life.use(now)
    if (life.leases > 0) return
    if (life.isUsedUp || Policy.isOld(life.limits, life, now)) return this.leave(life, "recycled", "it was due")
    if (life.parked) this.awaken(life)
    this.makeRoom()
  }

  /** Waits for a key that has no living child; must be called in an uninterruptible region. */
  private wait(key: string, pin: boolean, restore: Restore): Effect.Effect<Life<A, E>, E | EnsureError> {
    return Effect.suspend(() => {
      // The scheduler may have let others run since it was found missing, and it may be live by now.
      const life = this.give(key)
      if (life !== undefined) {
        if (pin) life.leases++
        return Effect.succeed(life)
      }
      const joined = this.join(key)
      if (Result.isFailure(joined)) return Effect.fail(joined.failure)
      const [entry, request] = joined.success
      request.callers++
      if (pin) request.pins++
      return Effect.onExit(restore(Deferred.await(request.done)), (exit) =>
        Effect.sync(() => {
          request.callers--
          // Who was answered and interrupted at the same time holds a lease that nobody will give back.
          if (request.life !== undefined) {
            if (pin && Exit.isFailure(exit)) this.release(request.life)
            return
          }
          if (pin) request.pins--
          if (request.callers === 0 && entry.request === request) this.abandon(entry)
        }))
    }).pipe(Effect.withSpan("Pool.wait", { attributes: { pool: this.settings.name, key } }))
  }

  /** The request of all who wait for a key; the first one makes something happen. */
  private join(key: string): Result.Result<readonly [Entry<A, E>, Request<A, E>], EnsureError> {
    if (!this.open) return Result.fail(new PoolClosed({ pool: this.settings.name }))
    const known = this.entries.get(key)
    // Used up, so that there is nothing to wait for in it.
    if (known?.life?.isLive === true) this.leave(known.life, "recycled", "it was due")
    if (known?.request !== undefined) return Result.succeed([known, known.request])
    const { capacity } = this.settings
    if (known === undefined && capacity !== undefined && !this.hasRoom && this.counts.Waiting >= capacity.waiting) {
      return Result.fail(this.exceeded(key, null))
    }
    const entry = known ?? new Entry<A, E>(key)
    const request: Request<A, E> = { done: Deferred.makeUnsafe(), callers: 0, pins: 0, life: undefined }
    entry.request = request
    if (known === undefined) {
      this.entries.set(key, entry)
      this.enter(entry)
    } else {
      // It is being ended, or something is left of it; it waits for a place from now on.
      if (entry.state._tag === "Blocked") this.retry(entry, false)
      if (capacity !== undefined) this.queue.add(entry)
    }
    this.makeRoom()
    return Result.succeed([entry, request])
  }

  /** The last one who waited has gone. */
  private abandon(entry: Entry<A, E>): void {
    this.answer(entry, Exit.interrupt())
    if (entry.state._tag === "Waiting") this.drop(entry)
    else if (entry.state._tag === "Building" && entry.life !== undefined) {
      this.leave(entry.life, "abandoned", "nobody waited for it any more")
    }
  }

  /** Lets all there is of a key end; what is left is awaited. Those who ask for it are overtaken, or the pool is closed. */
  private end(
    entry: Entry<A, E>,
    reason: "shutdown" | "closed",
    plan?: ShutdownPlan.Validated
  ): Effect.Effect<Blocked | undefined> {
    const refusal = reason === "closed"
      ? new PoolClosed({ pool: this.settings.name })
      : new Overtaken({ child: entry.key, operation: "start" })
    this.answer(entry, Exit.fail(refusal))
    const { life, state } = entry
    if (state._tag === "Waiting") this.drop(entry)
    else if (state._tag === "Blocked") this.retry(entry, true)
    else if (life?.leaving === undefined) {
      if (life !== undefined) this.leave(life, reason, reason === "closed" ? "the pool closes" : "shutdown", { plan })
    } else if (plan !== undefined && life.actor !== undefined) {
      // A later plan can only shorten what goes on.
      this.fork(Effect.ignore(life.actor.stop(plan)))
    }
    return entry.state._tag === "Absent" ? Effect.succeed(undefined) : Deferred.await(entry.over)
  }

  private endAll(reason: "shutdown" | "closed"): Effect.Effect<ReadonlyArray<Blocked>> {
    // All begin to end in this instant, whatever becomes of the caller.
    const ending = [...this.entries.values()].map((entry) => this.end(entry, reason))
    return Effect.map(Effect.all(ending), (left) => left.flatMap((one) => one ?? []))
  }

  // ------------------------------------------------------------------------------------------------ an incarnation

  /** From the first step to the last. */
  private live(life: Life<A, E>): Effect.Effect<void> {
    return this.guarded(
      life,
      Effect.gen({ self: this }, function*() {
        const exit = yield* Effect.exit(this.start(life))
        if (Exit.isFailure(exit)) this.fail(life, exit.cause)
        else if (exit.value !== undefined && life.leaving === undefined) this.goLive(life, ...exit.value)
        yield* this.keep(life)
        yield* this.finish(life, true)
      })
    )
  }

  /** After a defect of the pool itself nobody waits for ever, and no process is left. */
  private guarded(life: Life<A, E>, self: Effect.Effect<void>): Effect.Effect<void> {
    const { entry } = life
    return self.pipe(
      Effect.catchCause((cause) =>
        Effect.gen({ self: this }, function*() {
          yield* Effect.logError("a pool has failed; the child is ended", cause)
          this.fail(life, Cause.die(Cause.squash(cause)))
          this.leave(life, "failed", "a defect of the pool")
          if (life.actor !== undefined) yield* life.actor.close
          life.revoke()
          yield* Guest.close(life.scope)
          if (entry.state._tag === "Retiring") this.gone(entry)
        }).pipe(
          Effect.ensuring(Effect.sync(() => this.tell(() => Deferred.doneUnsafe(entry.over, Exit.succeed(undefined)))))
        )
      ),
      Effect.annotateLogs({ pool: this.settings.name, key: entry.key, incarnation: life.incarnation })
    )
  }

  /** Restores, builds and starts within the limit; nothing, at once, when the incarnation is to end. */
  private start(life: Life<A, E>): Effect.Effect<readonly [Handle<A>, Policy.Limits] | undefined, E | EnsureError> {
    const { name, startWithin: within } = this.settings
    const { entry: { key }, incarnation } = life
    return Effect.raceAllFirst([
      Effect.withSpan(this.bring(life), "Pool.start", { attributes: { pool: name, key, incarnation } }),
      Effect.as(Deferred.await(life.left), undefined),
      Effect.andThen(
        Effect.sleep(within),
        Effect.suspend(() => Effect.fail(new StartTimedOut({ pool: name, key, step: life.step, within })))
      )
    ])
  }

  private bring(life: Life<A, E>): Effect.Effect<readonly [Handle<A>, Policy.Limits], E | EnsureError> {
    return Effect.gen({ self: this }, function*() {
      const { age, build, idleAfter, jitter, restore, uses } = this.settings
      const { entry: { key }, incarnation } = life
      const secret = Tokens.toHex(yield* this.random.randomBytes(Tokens.size))
      const token = life.token = Redacted.make(secret, { label: "token" })
      life.revoke = this.tokens.add(secret, life)
      const identity = { key, incarnation, token }
      const onLeft = (fiber: Fiber.Fiber<unknown, unknown>) => life.leaveBehind(life.step, fiber)
      if (restore !== undefined) yield* Guest.run(life.scope, () => restore(identity), onLeft)
      this.step(life, "build")
      const built = yield* Guest.run(life.scope, () => build(key, identity), onLeft)
      this.step(life, "start")
      const idle = yield* Effect.fromResult(idleAfter(key))
      const actor = yield* this.startChild(life, built.child)
      const child = Child.fromActor(actor)
      const { endpoint } = built
      // When the child fails, the incarnation ends, and this with it.
      const ready = actor.awaitReady(false).pipe(Effect.catch(() => Effect.never))
      const reached = endpoint === undefined ?
        // Without an endpoint the type of its value is void.
        Effect.succeed(undefined as A) :
        Effect.tapError(Guest.run(life.scope, () => endpoint(child), onLeft), () => this.awaitEndOf(life))
      const [value] = yield* Effect.all([reached, ready], { concurrency: "unbounded" })
      const random = yield* Random.Random
      const limits = Policy.spread({ idle, age, uses }, jitter, () => random.nextDoubleUnsafe())
      const startedAt = this.now()
      const lost = Effect.flatMap(
        Deferred.await(life.lost),
        (reason) => Effect.fail(new ChildLost({ pool: this.settings.name, key, incarnation, reason }))
      )
      return [{ ...identity, child, endpoint: value, startedAt, lost }, limits] as const
    })
  }

  private startChild(life: Life<A, E>, spec: ChildSpec.ChildSpec): Effect.Effect<ChildActor, InvalidSpec> {
    return Effect.gen({ self: this }, function*() {
      const { entry: { key }, incarnation } = life
      const validated = yield* Effect.fromResult(
        ChildSpec.validate({ ...spec, significant: false, restart: { ...spec.restart, mode: "temporary" } })
      )
      const parent = yield* ChildSpec.CurrentChild
      const child = [...parent === undefined ? [] : [parent.child], this.settings.name, key].join("/")
      const actor = yield* Effect.uninterruptible(Effect.map(
        ChildActor.make(validated, {
          blockers: () => [],
          ended: () => "proceed",
          // Those of children of its own, where it is a supervisor, are not about itself.
          onEvent: (event) => event.child === spec.id ? this.onChildEvent(life, event) : undefined
        }),
        (actor) => life.actor = actor
      )).pipe(Effect.provideService(ChildSpec.CurrentChild, { child, incarnation }))
      yield* Effect.ignore(actor.start)
      return actor
    })
  }

  /** How a child ended says more than that its output did, so that gets a moment to be known. */
  private awaitEndOf(life: Life<A, E>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const clock = this.platform === undefined ? this.clock : yield* this.platform.clock
      yield* Effect.raceFirst(
        Effect.andThen(Deferred.await(life.left), Effect.never),
        clock.sleep(Duration.millis(endPause))
      )
    })
  }

  /** Watches over a living child until it is to end. */
  private keep(life: Life<A, E>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      while (life.leaving === undefined) {
        // What wakes it from here on is seen, whenever it comes.
        life.wake = Deferred.makeUnsafe()
        life.parked = life.leases > 0
        const verdict = Policy.judge(life.limits, life, monotonic(this.clock))
        if (verdict._tag === "Retire") this.leave(life, verdict.reason, "it was due")
        else if (verdict._tag === "Idle" || life.unwanted) yield* this.ask(life)
        else yield* this.pause(life, verdict.ms)
      }
    })
  }

  private pause(life: Life<A, E>, ms: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const woken = Deferred.await(life.wake)
      return Number.isFinite(ms) ? Effect.raceFirst(woken, Effect.sleep(ms)) : woken
    })
  }

  /** Asks whether a child is at work, and ends it if it is not and nobody has used it meanwhile. */
  private ask(life: Life<A, E>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const { stamp } = life
      const activity = yield* this.activityOf(life)
      if (life.leaving !== undefined) return
      const now = monotonic(this.clock)
      const evict = life.unwanted
      this.spare(life)
      if (activity === "busy") {
        life.usedAt = now
        life.busyUntil = now + busyPause
      } else if (activity !== undefined) {
        life.usedAt = Math.max(life.usedAt, now - activity)
      }
      // What was done since it was asked counts more than what it said.
      if (life.stamp === stamp && life.leases === 0 && activity !== "busy") {
        const evictAfter = this.settings.capacity?.evictAfter ?? 0
        // It may have been used between the choice and the question.
        if (evict && now - life.usedAt >= evictAfter) {
          return this.leave(life, "evicted", "another key needed its place")
        }
        if (Policy.judge(life.limits, life, now)._tag === "Idle") return this.leave(life, "idle", "it was idle")
      }
      if (evict) this.makeRoom()
    })
  }

  /** For how many ms it has had nothing to do; undefined where nothing is known. */
  private activityOf(life: Life<A, E>): Effect.Effect<"busy" | number | undefined> {
    return Effect.suspend(() => {
      const { activity, activityWithin } = this.settings
      const { handle } = life
      if (activity === undefined || handle === undefined) return Effect.succeed(undefined)
      const asked = Effect.exit(Guest.run(life.scope, () => Effect.scoped(activity(handle))))
      return Effect.raceAllFirst([
        Effect.map(asked, (exit) => {
          if (Exit.isFailure(exit)) return undefined
          return exit.value === "busy"
            ? "busy" as const
            : Result.getOrUndefined(millis("idleFor", exit.value.idleFor))
        }),
        Effect.as(Effect.sleep(activityWithin), undefined),
        Effect.as(Deferred.await(life.left), undefined)
      ])
    })
  }

  /** Ends the child, saves its state and lets go of what belonged to it, as far as that is possible. */
  private finish(life: Life<A, E>, repeat: boolean): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const { actor, entry } = life
      if (actor !== undefined) {
        yield* Effect.ignore(actor.stop(life.leaving?.plan))
        yield* actor.close
        const { problem, survivors } = yield* actor.remains
        if (life.leaving?.reason === "ended") life.end = (yield* actor.status).lastEnd
        if (problem !== undefined) {
          return this.block(life, new Unkillable({ command: `${this.settings.name}/${entry.key}`, survivors }))
        }
      }
      life.revoke()
      const problem = yield* this.save(life, repeat)
      if (problem !== undefined) {
        const { incarnation } = life
        const unsaved = new UnsavedState({ pool: this.settings.name, key: entry.key, incarnation, problem })
        yield* Effect.logError(unsaved.message)
        return this.block(life, unsaved)
      }
      life.saved = true
      yield* Guest.close(life.scope, (fiber) => life.leaveBehind("release", fiber))
      const [step] = life.unfinished
      if (step === undefined) return this.gone(entry)
      // The next incarnation would be at work on the same things.
      const { incarnation } = life
      const unfinished = new Unfinished({ pool: this.settings.name, key: entry.key, incarnation, step })
      yield* Effect.logError(unfinished.message)
      this.block(life, unfinished)
    })
  }

  /** Why the state could not be saved; undefined when it is. */
  private save(life: Life<A, E>, repeat: boolean): Effect.Effect<string | undefined> {
    const { retire, retry, saveWithin } = this.settings
    const { end, entry, handle } = life
    // What was never live has changed nothing.
    if (retire === undefined || handle === undefined) return Effect.succeed(undefined)
    return Effect.suspend(() => {
      // Also where the state was given up: what still saves could overwrite what the next life saves.
      if (life.unfinished.includes("retire")) {
        return Effect.succeed("an earlier attempt to save it has not ended yet")
      }
      if (life.saved) return Effect.succeed(undefined)
      let attempt = 0
      let problem: string | undefined = undefined
      const once = Effect.sandbox(
        Guest.run(life.scope, () => retire(handle, end), (fiber) => life.leaveBehind("retire", fiber))
      )
        .pipe(
          Effect.mapError((cause) => {
            problem = life.scrub(describe(cause))
            this.metrics.saveFailed()
            this.publish(entry.key, { _tag: "SaveFailed", attempt: ++attempt, problem })
            return Cause.squash(cause)
          })
        )
      return Effect.raceFirst(
        // The schedule is somebody's own too: what is wrong with it must not lose the state.
        Effect.match(Effect.sandbox(repeat ? Effect.retry(once, retry) : once), {
          onSuccess: () => undefined,
          onFailure: (cause) => problem ?? life.scrub(describe(cause))
        }),
        Effect.andThen(
          Effect.sleep(saveWithin),
          Effect.sync(() => problem ?? `it took longer than ${saveWithin} ms`)
        )
      )
    }).pipe(
      Effect.withSpan("Pool.save", {
        attributes: { pool: this.settings.name, key: life.entry.key, incarnation: life.incarnation }
      })
    )
  }
}

/** What those who ask are given. It may be gone again already, which `lost` tells. */
const handleOf = <A, E>({ handle }: Life<A, E>): Effect.Effect<Handle<A>> =>
  handle === undefined ? Effect.die(new Error("a child that was never live was given out")) : Exit.succeed(handle)

const failed = <A, E>({ entry }: Life<A, E>, reason: string): ChildFailed =>
  new ChildFailed({ child: entry.key, reason, causes: [], survivors: [] })

const failIfLeft = (left: Blocked | undefined): Effect.Effect<void, Blocked> =>
  left === undefined ? Effect.void : Effect.fail(left)

/** Longer texts of errors are cut. */
const maxProblem = 2000

/** The first error of a cause for people. */
const describe = (cause: Cause.Cause<unknown>): string => {
  if (Cause.hasInterruptsOnly(cause)) return "it was interrupted"
  const error = Cause.squash(cause)
  const text = error instanceof Error && typeof error.message === "string"
    ? error.message === "" ? error.name : error.message
    : typeof error === "string"
    ? error
    : Cause.pretty(cause)
  return text.slice(0, maxProblem)
}
