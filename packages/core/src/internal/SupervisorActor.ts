/**
 * The children of one supervisor and what happens between them: dependencies, rounds of restarts, intensity, the end.
 *
 * Child actors tell it of their ends and transitions synchronously; it decides at once and leaves the work to its own
 * fiber, which a child never waits for.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { ChildEnd, Link } from "../ChildEnd.ts"
import * as End from "../ChildEnd.ts"
import * as ChildSpec from "../ChildSpec.ts"
import type { ChildEvent } from "../ChildStatus.ts"
import { ChildClosed, type ChildFailed, IntensityExceeded, InvalidSpec, UnknownChild } from "../Errors.ts"
import type * as Restart from "../Restart.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import type { Adding, SupervisorEnd, SupervisorEvent } from "../Supervisor.ts"
import { Broadcast } from "./Broadcast.ts"
import { ChildActor, type Owner } from "./ChildActor.ts"
import * as Dependencies from "./Dependencies.ts"
import * as Intensity from "./Intensity.ts"
import { monotonic } from "./Time.ts"

/** Options that have been checked; times in ms. */
export interface Settings {
  readonly strategy: "one_for_one" | "one_for_all" | "rest_for_one"
  readonly intensity: Intensity.Intensity
  readonly order: Dependencies.Order
  readonly autoShutdown: "never" | "any" | "all"
}

interface Entry {
  readonly child: ChildSpec.Validated<never>
  readonly actor: ChildActor
  /** Added while the supervisor ran; forgotten when it is temporary and has ended. */
  readonly dynamic: boolean
  /** It ended by itself and is not restarted. */
  over: boolean
}

/** Children that are stopped to be started together. */
interface Round {
  readonly affected: ReadonlySet<string>
  /** ms. */
  readonly delay: number
}

export type Phase = "running" | "restarting" | "stopping" | "ended"

type ReplaceRefusal = UnknownChild | ChildClosed

/** Past events that a late reader is given: children start before anybody can have asked for events. */
const historySize = 256

const linkOf = (child: string, incarnation: number, reason: string, outputTail: string): Link =>
  outputTail === "" ? { child, incarnation, reason } : { child, incarnation, reason, outputTail }

export class SupervisorActor {
  readonly settings: Settings
  readonly events = new Broadcast<SupervisorEvent>(historySize)
  private readonly clock: Clock.Clock
  /** The child that the supervisor is, in another one. */
  private readonly parent: typeof ChildSpec.CurrentChild.Service
  private readonly entries = new Map<string, Entry>()
  private readonly edges = new Map<string, ReadonlyArray<ChildSpec.Dependency>>()
  private readonly dependents = new Map<string, Set<string>>()
  private restarts: ReadonlyArray<number> = []
  private round: Round | undefined = undefined
  private roundIsNew = false
  private roundFiber: Fiber.Fiber<unknown> | undefined = undefined
  /** What somebody wants all children to be stopped by, instead of their own plans. */
  private plan: ShutdownPlan.Validated | undefined = undefined
  /** Why the supervisor ends. */
  private ending: Exit.Exit<SupervisorEnd, IntensityExceeded> | undefined = undefined
  private readonly ended = Deferred.makeUnsafe<SupervisorEnd, IntensityExceeded>()
  /** Children that may have got what they wait for, or will never get it. */
  private readonly dirty = new Set<string>()
  private readonly forgotten = new Set<Entry>()
  private wake = Deferred.makeUnsafe<void>()
  private loop: Fiber.Fiber<unknown> | undefined = undefined

  private constructor(settings: Settings, clock: Clock.Clock, parent: typeof ChildSpec.CurrentChild.Service) {
    this.settings = settings
    this.clock = clock
    this.parent = parent
  }

  /** A supervisor whose children have not been started; `close` must be called in the end. */
  static make<R>(
    children: ReadonlyArray<ChildSpec.Validated<R>>,
    settings: Settings
  ): Effect.Effect<SupervisorActor, never, R> {
    return Effect.gen(function*() {
      const supervisor = new SupervisorActor(settings, yield* Clock.Clock, yield* ChildSpec.CurrentChild)
      for (const child of children) {
        const entry = yield* supervisor.makeEntry(child, false)
        supervisor.entries.set(child.spec.id, entry)
      }
      supervisor.linkAll()
      supervisor.loop = yield* Effect.forkDetach(supervisor.run(), { startImmediately: true })
      return supervisor
    })
  }

  private makeEntry<R>(child: ChildSpec.Validated<R>, dynamic: boolean): Effect.Effect<Entry, never, R> {
    // A child may be added from inside of another one, and is no child of that.
    const make = Effect.provideService(
      ChildActor.make(child, this.ownerOf(child.spec)),
      ChildSpec.CurrentChild,
      this.parent
    )
    return Effect.map(make, (actor): Entry => ({
      child: child as unknown as ChildSpec.Validated<never>,
      actor,
      dynamic,
      over: false
    }))
  }

  private linkAll(): void {
    this.edges.clear()
    this.dependents.clear()
    for (const [id, dependencies] of Dependencies.edges(this.specs, this.settings.order)) {
      this.link(id, dependencies.filter(({ child }) => this.entries.has(child)))
    }
  }

  private link(id: string, dependencies: ReadonlyArray<ChildSpec.Dependency>): void {
    this.edges.set(id, dependencies)
    for (const { child } of dependencies) {
      const known = this.dependents.get(child)
      if (known === undefined) this.dependents.set(child, new Set([id]))
      else known.add(id)
    }
  }

  private unlink(id: string): void {
    for (const { child } of this.edges.get(id) ?? []) {
      const known = this.dependents.get(child)
      known?.delete(id)
      if (known?.size === 0) this.dependents.delete(child)
    }
    this.edges.delete(id)
    // A child of the same name that comes later is another one.
    for (const dependent of this.dependents.get(id) ?? []) {
      this.edges.set(dependent, (this.edges.get(dependent) ?? []).filter(({ child }) => child !== id))
    }
    this.dependents.delete(id)
  }

  private dependentsOf(id: string): ReadonlyArray<string> {
    return [...this.dependents.get(id) ?? []]
  }

  get specs(): ReadonlyArray<ChildSpec.ChildSpec<never>> {
    return [...this.entries.values()].map(({ child }) => child.spec)
  }

  get actors(): ReadonlyArray<ChildActor> {
    return [...this.entries.values()].map(({ actor }) => actor)
  }

  get phase(): Phase {
    if (Deferred.isDoneUnsafe(this.ended)) return "ended"
    if (this.ending !== undefined) return "stopping"
    return this.round === undefined ? "running" : "restarting"
  }

  /** Restarts that count at this moment. */
  get restartsInWindow(): number {
    return Intensity.inWindow(this.restarts, monotonic(this.clock), this.settings.intensity).length
  }

  // ------------------------------------------------------------------------------------------------ what children tell

  private ownerOf(spec: Pick<ChildSpec.ChildSpec, "id">): Owner {
    return {
      blockers: () => this.blockers(spec.id),
      ended: (end, verdict, delay) => this.childEnded(spec.id, end, verdict, delay),
      onEvent: (event) => this.childEvent(event)
    }
  }

  private blockers(id: string): ReadonlyArray<string> {
    const on: Array<string> = []
    if (this.ending !== undefined) on.push("shutdown")
    if (this.round?.affected.has(id) === true) on.push("restart of siblings")
    for (const { child, until } of this.edges.get(id) ?? []) {
      const entry = this.entries.get(child)
      if (entry !== undefined && !Dependencies.isSatisfied(until, entry.actor.snapshot)) on.push(`${child} ${until}`)
    }
    return on
  }

  private childEvent(event: ChildEvent): void {
    this.events.publish({ _tag: "Child", event })
    if (event.change._tag !== "State") return
    const entry = this.entries.get(event.child)
    if (entry === undefined) return
    if (event.change.to._tag === "Starting") entry.over = false
    const dependents = this.dependentsOf(event.child)
    for (const id of dependents) this.dirty.add(id)
    // What it begins to wait for may have failed long ago.
    const waits = event.change.to._tag === "Waiting"
    if (waits) this.dirty.add(event.child)
    if (waits || dependents.length > 0) this.awaken()
  }

  private childEnded(id: string, end: ChildEnd, verdict: Restart.Verdict, delay: number): "proceed" | "park" {
    const entry = this.entries.get(id)
    if (entry === undefined || this.ending !== undefined) return "park"
    if (verdict !== "restart") {
      this.childIsOver(entry)
      return "proceed"
    }
    // It is being stopped for a round anyway: whatever felled its sibling may have felled it.
    if (this.round?.affected.has(id) === true) return "park"
    const { intensity, strategy } = this.settings
    this.restarts = Intensity.add(this.restarts, monotonic(this.clock), intensity)
    if (Intensity.isExceeded(this.restarts, intensity)) {
      const link = linkOf(id, entry.actor.incarnation, End.describe(end), entry.actor.outputTail)
      const causes = end._tag === "Failed" ? [...end.causes, link] : [link]
      this.finish(Exit.fail(new IntensityExceeded({ child: id, ...intensity, causes })))
      return "park"
    }
    // Alone, it keeps its own backoff.
    if (strategy === "one_for_one" || (this.round === undefined && this.takenAlong(id).length === 1)) return "proceed"
    this.beginRound(id, delay)
    return "park"
  }

  private childIsOver(entry: Entry): void {
    const { child: { spec } } = entry
    entry.over = true
    if (entry.dynamic && spec.restart.mode === "temporary") {
      this.forgotten.add(entry)
      this.awaken()
    }
    if (!spec.significant || this.settings.autoShutdown === "never") return
    const others = [...this.entries.values()].filter((other) => other.child.spec.significant && !other.over)
    if (this.settings.autoShutdown === "any" || others.length === 0) {
      this.finish(Exit.succeed({ _tag: "Shutdown", child: spec.id }))
    }
  }

  /** The children that a restart of `origin` takes along, itself included. */
  private takenAlong(origin: string): ReadonlyArray<string> {
    const ids = [...this.entries.keys()]
    return this.settings.strategy === "one_for_all" ? ids : ids.slice(ids.indexOf(origin))
  }

  /** A temporary sibling is stopped and not started again. */
  private beginRound(origin: string, delay: number): void {
    const affected = new Set(this.takenAlong(origin))
    for (const id of this.round?.affected ?? []) affected.add(id)
    this.round = { affected, delay: Math.max(delay, this.round?.delay ?? 0) }
    this.roundIsNew = true
    // Who is down stays down.
    const children = [...affected].filter((id) => {
      const tag = this.entries.get(id)?.actor.tag
      return tag !== "Stopped" && tag !== "Failed"
    })
    this.events.publish({ _tag: "Round", origin, children })
    this.awaken()
  }

  private finish(exit: Exit.Exit<SupervisorEnd, IntensityExceeded>): void {
    if (this.ending !== undefined) return
    this.ending = exit
    this.events.publish({
      _tag: "Stopping",
      error: Exit.isFailure(exit) ? Cause.squash(exit.cause) as IntensityExceeded : null
    })
    this.awaken()
  }

  // ------------------------------------------------------------------------------------------------ the loop

  private awaken(): void {
    Deferred.doneUnsafe(this.wake, Exit.void)
  }

  private run(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      while (this.ending === undefined) {
        yield* Deferred.await(this.wake)
        this.wake = Deferred.makeUnsafe<void>()
        if (this.ending !== undefined) break
        if (this.roundIsNew) yield* this.startRound
        yield* this.serveDirty
        for (const entry of this.forgotten) {
          this.forgotten.delete(entry)
          // Somebody may have started it again.
          if (entry.over) yield* this.forget(entry)
        }
      }
      const error = Option.getOrUndefined(Exit.findErrorOption(this.ending))
      if (error !== undefined) yield* Effect.logWarning(error.message)
      if (this.roundFiber !== undefined) yield* Fiber.interrupt(this.roundFiber)
      this.round = undefined
      yield* this.inReverse(
        [...this.entries.values()],
        ({ actor }) => Effect.suspend(() => Effect.ignore(actor.stop(this.plan)))
      )
      this.events.publish({ _tag: "Ended" })
      Deferred.doneUnsafe(this.ended, this.ending)
    }).pipe(
      this.parent === undefined ? (self) => self : Effect.annotateLogs({ child: this.parent.child }),
      // After a defect nobody may wait for ever; whoever closes the supervisor ends the children.
      Effect.onError((cause) => Effect.sync(() => Deferred.doneUnsafe(this.ended, Exit.failCause(cause))))
    )
  }

  private readonly serveDirty: Effect.Effect<void> = Effect.suspend(() => {
    const ids = [...this.dirty]
    this.dirty.clear()
    return Effect.forEach(ids, (id) => {
      const entry = this.entries.get(id)
      if (entry?.actor.tag !== "Waiting") return Effect.void
      const failed = this.failedDependency(id)
      if (failed === undefined) return this.blockers(id).length === 0 ? entry.actor.poke : Effect.void
      const incarnation = this.entries.get(failed.child)?.actor.incarnation ?? 0
      return entry.actor.fail(`${failed.child}, which it depends on, has failed`, [
        ...failed.causes,
        linkOf(failed.child, incarnation, failed.reason, failed.outputTail)
      ])
    }, { discard: true })
  })

  private failedDependency(id: string): ChildFailed | undefined {
    for (const { child } of this.edges.get(id) ?? []) {
      const state = this.entries.get(child)?.actor.snapshot
      if (state?._tag === "Failed") return state.error
    }
    return undefined
  }

  private readonly startRound: Effect.Effect<void> = Effect.suspend(() => {
    this.roundIsNew = false
    const before = this.roundFiber === undefined ? Effect.void : Fiber.interrupt(this.roundFiber)
    return Effect.andThen(
      before,
      Effect.map(Effect.forkDetach(this.playRound, { startImmediately: true }), (fiber) => {
        this.roundFiber = fiber
      })
    )
  })

  private readonly playRound: Effect.Effect<void> = Effect.suspend(() => {
    const round = this.round
    if (round === undefined) return Effect.void
    const affected = [...this.entries.values()].filter(({ child }) => round.affected.has(child.spec.id))
    const make = this.inReverse(
      affected,
      ({ actor, child }) => Effect.ignore(child.spec.restart.mode === "temporary" ? actor.stop() : actor.halt)
    )
    return Effect.all([make, Effect.sleep(round.delay)], { concurrency: "unbounded", discard: true }).pipe(
      Effect.andThen(Effect.suspend(() => {
        this.round = undefined
        this.events.publish({ _tag: "RoundOver", children: [...round.affected] })
        return Effect.forEach(affected, ({ actor }) => actor.poke, { discard: true })
      }))
    )
  })

  /** Does something to each child when it has been done to all that depend on it; to independent ones side by side. */
  private inReverse(entries: ReadonlyArray<Entry>, act: (entry: Entry) => Effect.Effect<void>): Effect.Effect<void> {
    const done = new Map(entries.map((entry) => [entry.child.spec.id, Deferred.makeUnsafe<void>()]))
    return Effect.forEach(entries.toReversed(), (entry) => {
      const { id } = entry.child.spec
      const before = this.dependentsOf(id).flatMap((dependent) => done.get(dependent) ?? [])
      return Effect.forEach(before, Deferred.await, { discard: true }).pipe(
        Effect.andThen(act(entry)),
        Effect.ensuring(Effect.sync(() => Deferred.doneUnsafe(done.get(id)!, Exit.void)))
      )
    }, { concurrency: "unbounded", discard: true })
  }

  private forget(entry: Entry): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { actor, child: { spec: { id } } } = entry
      if (this.entries.get(id) === entry) {
        const depended = this.dependents.has(id)
        this.entries.delete(id)
        this.unlink(id)
        // In a sequence the one after it now follows the one before it.
        if (this.settings.order === "sequence" && depended) this.linkAll()
      }
      return actor.close
    })
  }

  // ------------------------------------------------------------------------------------------------ operations

  /** Starts the children in their order; each one begins, or waits for those that it depends on. */
  readonly startAll: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach([...this.entries.values()], ({ actor }) => Effect.ignore(actor.start), { discard: true })
  )

  readonly awaitEnd: Effect.Effect<SupervisorEnd, IntensityExceeded> = Effect.suspend(() => Deferred.await(this.ended))

  /** Each child by its own plan, or all by this one; given while they are stopping it shortens what goes on. */
  stopAll(plan?: ShutdownPlan.Validated): Effect.Effect<void> {
    return Effect.suspend(() => {
      // First the plan: the loop begins to stop them at once.
      const shorter = plan !== undefined &&
        (this.plan === undefined || ShutdownPlan.untilKill(plan) < ShutdownPlan.untilKill(this.plan))
      if (shorter) this.plan = plan
      this.finish(Exit.succeed({ _tag: "Stopped" }))
      return Effect.andThen(
        plan === undefined ? Effect.void : this.shorten(plan),
        Effect.asVoid(Effect.exit(this.awaitEnd))
      )
    })
  }

  private shorten(plan: ShutdownPlan.Validated): Effect.Effect<void> {
    const stopping = this.actors.filter(({ tag }) => tag === "Stopping")
    return Effect.forEach(stopping, (actor) => Effect.forkDetach(Effect.ignore(actor.stop(plan))), { discard: true })
  }

  /** Stops the children and ends their actors; bounded by their shutdown plans. */
  readonly close: Effect.Effect<void> = Effect.suspend(() =>
    this.stopAll().pipe(
      Effect.andThen(Effect.forEach(this.actors, (actor) => actor.close, { concurrency: "unbounded", discard: true })),
      Effect.andThen(Effect.suspend(() => this.loop === undefined ? Effect.void : Fiber.interrupt(this.loop))),
      Effect.andThen(Effect.sync(() => this.events.end()))
    )
  )

  private entry(id: string): Effect.Effect<Entry, UnknownChild> {
    return Effect.suspend(() => {
      const entry = this.entries.get(id)
      return entry === undefined ? Effect.fail(new UnknownChild({ child: id })) : Effect.succeed(entry)
    })
  }

  find(id: string): Effect.Effect<ChildActor, UnknownChild> {
    return Effect.map(this.entry(id), ({ actor }) => actor)
  }

  private admit(entry: Entry): Result.Result<void, InvalidSpec | ChildClosed> {
    const { spec } = entry.child
    if (this.ending !== undefined) return Result.fail(new ChildClosed({ child: spec.id }))
    return Result.map(Dependencies.validateNext(spec, (id) => this.entries.has(id)), () => {
      const last = this.settings.order === "sequence" ? [...this.entries.keys()].at(-1) : undefined
      this.entries.set(spec.id, entry)
      this.link(spec.id, Dependencies.edgesOf(spec, last))
    })
  }

  startChild<R>(
    spec: ChildSpec.ChildSpec<R>,
    { paused = false }: Adding = {}
  ): Effect.Effect<ChildActor, InvalidSpec | ChildClosed, R> {
    return Effect.gen({ self: this }, function*() {
      const child = yield* Effect.fromResult(ChildSpec.validate(spec))
      const actor = yield* Effect.uninterruptible(Effect.gen({ self: this }, function*() {
        const entry = yield* this.makeEntry(child, true)
        // To make an actor may take turns of the scheduler. From here on nothing comes between.
        const admitted = this.admit(entry)
        if (Result.isFailure(admitted)) yield* entry.actor.close
        return yield* Effect.fromResult(Result.map(admitted, () => entry.actor))
      }))
      yield* Effect.ignore(paused ? actor.startPaused : actor.start)
      return actor
    })
  }

  private checkReplacement(
    entry: Entry,
    spec: ChildSpec.ChildSpec<unknown>
  ): Result.Result<void, InvalidSpec | ReplaceRefusal> {
    if (this.ending !== undefined) return Result.fail(new ChildClosed({ child: spec.id }))
    if (this.entries.get(spec.id) !== entry) return Result.fail(new UnknownChild({ child: spec.id }))
    const specs = this.specs.map((other) => other.id === spec.id ? spec : other)
    return Dependencies.validate(specs, this.settings.order)
  }

  replaceChild<R>(
    spec: ChildSpec.ChildSpec<R>,
    { paused = false }: Adding = {}
  ): Effect.Effect<ChildActor, InvalidSpec | ReplaceRefusal | ChildFailed, R> {
    return Effect.gen({ self: this }, function*() {
      const child = yield* Effect.fromResult(ChildSpec.validate(spec))
      const entry = yield* this.entry(spec.id)
      yield* Effect.fromResult(this.checkReplacement(entry, spec))
      yield* Effect.ignore(entry.actor.stop())
      // The new one must not begin while something of the old one lives.
      const remains = yield* entry.actor.stillThere
      if (remains !== undefined) return yield* remains
      const actor = yield* Effect.uninterruptible(Effect.gen({ self: this }, function*() {
        const next = yield* this.makeEntry(child, entry.dynamic)
        // To make an actor may take turns of the scheduler. From here to the end of the exchange nothing comes between.
        const checked = this.checkReplacement(entry, spec)
        if (Result.isFailure(checked)) yield* next.actor.close
        yield* Effect.fromResult(checked)
        // The place in the list stays, and so do those that depend on it.
        this.entries.set(spec.id, next)
        this.linkAll()
        yield* entry.actor.close
        return next.actor
      }))
      yield* Effect.ignore(paused ? actor.startPaused : actor.start)
      return actor
    })
  }

  removeChild(id: string): Effect.Effect<void, UnknownChild | InvalidSpec | ChildFailed> {
    return Effect.gen({ self: this }, function*() {
      const entry = yield* this.entry(id)
      const dependents = this.dependentsOf(id)
      if (dependents.length > 0) {
        return yield* new InvalidSpec({ field: `${id}.id`, problem: `${dependents.join(", ")} depends on it` })
      }
      yield* Effect.ignore(entry.actor.stop())
      // Its name must not become free while something of it lives.
      const remains = yield* entry.actor.stillThere
      if (remains !== undefined) return yield* remains
      yield* Effect.uninterruptible(this.forget(entry))
    })
  }
}
