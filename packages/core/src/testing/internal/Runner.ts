/**
 * Runs one lifecycle: starts the children, gives the commands, ends the scope, and checks what must hold. It is the same
 * for scenarios and for anybody's own specs; on the simulated platform time is stepped, on a real one it passes by itself.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import { type ChildSpec, CurrentChild, type Services } from "../../ChildSpec.ts"
import type { InvalidSpec } from "../../Errors.ts"
import { equals, type ProcessInfo } from "../../ProcessIdentity.ts"
import { ProcessPlatform } from "../../ProcessPlatform.ts"
import type { ProcessTree } from "../../ProcessTree.ts"
import * as ShutdownPlan from "../../ShutdownPlan.ts"
import * as Supervisor from "../../Supervisor.ts"
import type * as Scenario from "../Scenario.ts"
import { Simulation } from "../SimulatedPlatform.ts"
import { Callers } from "./Callers.ts"
import type { Facts, Violation } from "./Invariants.ts"
import * as Invariants from "./Invariants.ts"
import { format, Journal, type Operation } from "./Journal.ts"
import * as Timeline from "./Timeline.ts"

/** What a run brought. */
export interface Outcome {
  readonly violations: ReadonlyArray<Violation>
  /** What happened, for people. */
  readonly story: string
  /** Incarnations that were started. */
  readonly starts: number
}

/** The children, and what is known of them. */
export interface Subject<Spec> {
  readonly children: ReadonlyArray<Spec>
  readonly options: Supervisor.Options
  readonly facts: Facts
}

type ChildSignal = "SIGKILL" | "SIGSEGV" | "SIGTERM" | "SIGSTOP" | "SIGCONT"

/** The platform as a run needs it. */
interface World {
  readonly timeline: Timeline.Timeline
  /** The platform that the children get. */
  readonly platform: ProcessPlatform["Service"]
  /** Sends a signal to the leader of the tree that a child launched last, from outside. */
  readonly signal: (child: string, signal: ChildSignal) => Effect.Effect<void>
  readonly killHost: Effect.Effect<void>
  /** Looks around, between two commands. */
  readonly look: Effect.Effect<void>
  /** What outlived the scope, for people. */
  readonly leftovers: Effect.Effect<ReadonlyArray<string>>
}

interface Launched {
  readonly child: string
  readonly incarnation: number
  readonly tree: ProcessTree
  /** Processes that were seen in it: a daemon leaves its group and session. */
  readonly seen: Map<number, string>
}

const describe = ({ command, pid }: ProcessInfo): string => `process ${pid} ${command}`

/**
 * The platform, watched: who launches what is remembered, and at each launch of a child nothing of its earlier
 * incarnations may live.
 */
const watch = (
  platform: ProcessPlatform["Service"],
  simulation: Simulation["Service"] | undefined,
  timeline: Timeline.Timeline,
  onOverlap: (detail: string) => void
): Effect.Effect<World> =>
  Effect.gen(function*() {
    const before = simulation === undefined ? [] : yield* simulation.alive
    let launched: ReadonlyArray<Launched> = []

    const inTree = ({ seen, tree }: Launched) => (info: ProcessInfo) =>
      info.alive && (
        seen.get(info.pid) === info.startTime ||
        (info.pid !== tree.pid && (info.group === tree.pid || info.session === tree.pid))
      )
    const living = (one: Launched): Effect.Effect<ReadonlyArray<ProcessInfo>> =>
      simulation === undefined
        ? Effect.map(platform.processes, (processes) => processes.filter(inTree(one)))
        : simulation.descendants(one.tree.pid)

    const launch: typeof platform.launch = (...parameters) =>
      Effect.gen(function*() {
        const who = yield* CurrentChild
        for (const one of launched) {
          if (who === undefined || one.child !== who.child || one.incarnation === who.incarnation) continue
          const old = yield* living(one)
          if (old.length > 0) {
            onOverlap(
              `${who.child}#${who.incarnation} is launched while ${old.map(describe).join(", ")} of #` +
                `${one.incarnation} lives`
            )
          } else launched = launched.filter((other) => other !== one)
        }
        const tree = yield* platform.launch(...parameters)
        const seen = new Map([[tree.pid, tree.identity.startTime]])
        launched = [...launched, { child: who?.child ?? "", incarnation: who?.incarnation ?? 0, tree, seen }]
        return tree
      })

    return {
      timeline,
      platform: ProcessPlatform.of({ ...platform, launch }),
      signal: (child, signal) =>
        Effect.suspend(() => {
          const tree = launched.findLast((one) => one.child === child)?.tree
          if (tree === undefined) return Effect.void
          if (simulation === undefined) return Effect.asVoid(tree.signal(signal, "leader"))
          // Its pid may be another process's by now.
          return Effect.flatMap(simulation.descendants(tree.pid), (alive) =>
            alive.some((info) => equals({ ...info, boot: tree.identity.boot }, tree.identity))
              ? Effect.asVoid(simulation.kill(tree.pid, signal))
              : Effect.void)
        }),
      killHost: simulation?.killHost ?? Effect.void,
      look: simulation === undefined
        ? Effect.suspend(() =>
          Effect.forEach(launched, ({ seen, tree }) =>
            Effect.map(tree.members, (members) => {
              for (const { pid, startTime } of members) {
                seen.set(pid, startTime)
              }
            }), { discard: true })
        )
        : Effect.void,
      // The simulation knows all that came to be, also by a launch that was interrupted. On a real system there are other
      // processes, and what was found is ended.
      leftovers: simulation !== undefined
        ? Effect.map(simulation.alive, (alive) =>
          alive.filter(({ pid, startTime }) =>
            !before.some((old) =>
              old.pid === pid && old.startTime === startTime
            )
          ).map(describe))
        : Effect.suspend(() =>
          Effect.forEach(launched, (one) =>
            Effect.gen(function*() {
              const left = yield* living(one)
              if (left.length > 0) {
                yield* Effect.ignore(one.tree.shutdown(ShutdownPlan.kill))
              }
              return left.map(describe)
            }))
        ).pipe(Effect.map((all) =>
          all.flat()
        ))
    }
  })

/** How long the end of a scope may take, in ms; each stop has its own, smaller bound. */
const closeWithin = 300_000

/** Time that passes after the last command, in ms: backoffs and stops come to their ends. */
const afterwards = [0, 1000, 5000]

class Run<Spec extends ChildSpec<unknown>> {
  private readonly world: World
  private readonly subject: Subject<Spec>
  private readonly reader: Invariants.Reader
  private readonly journal: Journal
  private readonly healthy: Map<string, boolean>
  private readonly callers = new Callers()
  private read = 0
  private hostIsDead = false

  constructor(
    world: World,
    subject: Subject<Spec>,
    reader: Invariants.Reader,
    journal: Journal,
    healthy: Map<string, boolean>
  ) {
    this.world = world
    this.subject = subject
    this.reader = reader
    this.journal = journal
    this.healthy = healthy
  }

  private check(): void {
    this.reader.read(this.journal.entries.slice(this.read))
    this.read = this.journal.entries.length
  }

  private violate(invariant: string, detail: string): void {
    this.reader.violations.push({ invariant, detail, at: this.world.timeline.now() })
  }

  private advance(ms: number): Effect.Effect<void> {
    const { look, timeline } = this.world
    return Effect.andThen(timeline.advance(ms), look).pipe(Effect.map(() => {
      this.check()
      this.reader.bounded(timeline.now())
      if (timeline.stepped) this.reader.quiescent(timeline.now(), timeline.wallNow())
    }))
  }

  private ask(operation: Operation, child: string, effect: Effect.Effect<unknown, { readonly _tag: string }>) {
    return Effect.suspend(() => {
      let id = 0
      const call = Effect.andThen(
        Effect.sync(() => {
          id = this.journal.issue(operation, child)
        }),
        effect
      )
      return this.callers.start(call, (outcome, defect) => {
        if (this.hostIsDead) return
        if (defect !== undefined) this.violate("no defects", defect)
        this.journal.settle(id, outcome)
      })
    })
  }

  private perform(supervisor: Supervisor.Supervisor, command: Scenario.Command): Effect.Effect<unknown> {
    const onChild = <A, E extends { readonly _tag: string }>(
      id: string,
      use: (child: Effect.Success<ReturnType<Supervisor.Supervisor["child"]>>) => Effect.Effect<A, E>
    ) => Effect.flatMap(supervisor.child(id), use)
    switch (command._tag) {
      case "Start":
        return this.ask("start", command.child, onChild(command.child, (child) => child.start))
      case "Restart":
        return this.ask("restart", command.child, onChild(command.child, (child) => child.restart))
      case "Pause":
        return this.ask("pause", command.child, onChild(command.child, (child) => child.pause))
      case "Resume":
        return this.ask("resume", command.child, onChild(command.child, (child) => child.resume))
      case "Remove":
        return this.ask("remove", command.child, supervisor.removeChild(command.child))
      case "Stop": {
        const plan = command.grace === null ? undefined : ShutdownPlan.terminate({ within: command.grace })
        return this.ask("stop", command.child, onChild(command.child, (child) => child.stop(plan)))
      }
      case "StopAll":
        return this.ask("stopAll", "", supervisor.stopAll)
      case "Crash":
        return this.world.signal(command.child, command.signal)
      case "Freeze":
        return this.world.signal(command.child, "SIGSTOP")
      case "Thaw":
        return this.world.signal(command.child, "SIGCONT")
      case "Flip":
        return Effect.sync(() => this.healthy.set(command.child, command.healthy))
      case "Step":
        return this.advance(command.ms)
      case "SetBack":
        return Effect.sync(() => this.world.timeline.shiftWallClock(-command.ms))
      case "HostDeath":
        return Effect.andThen(
          Effect.sync(() => {
            this.hostIsDead = true
          }),
          this.world.killHost
        )
      case "Together":
        return Effect.forEach(command.commands, (one) => Effect.forkDetach(this.perform(supervisor, one)))
      case "Abandon":
        return Effect.flatMap(
          this.perform(supervisor, command.command),
          (fiber) => Fiber.isFiber(fiber) ? Effect.sync(() => fiber.interruptUnsafe()) : Effect.void
        )
    }
  }

  /** Runs the commands, ends the scope, and says what was seen. */
  run(commands: ReadonlyArray<Scenario.Command>): Effect.Effect<Outcome, InvalidSpec, Services<Spec>> {
    return Effect.gen({ self: this }, function*() {
      const scope = yield* Scope.make()
      const { children, options } = this.subject
      const supervisor = yield* Supervisor.start(children, {
        ...options,
        onEvent: (event) => {
          this.journal.supervisor("", event)
          options.onEvent?.(event)
        }
      }).pipe(Scope.provide(scope))
      for (const command of commands) {
        yield* this.perform(supervisor, command)
        if (this.hostIsDead) break
      }
      if (this.hostIsDead) yield* this.world.timeline.advance(10_000)
      else yield* this.end(scope)
      for (const left of yield* this.world.leftovers) this.violate("nothing is left", left)
      this.callers.interrupt()
      const starts = this.journal.entries.filter((entry) =>
        entry._tag === "Child" && entry.event.change._tag === "State" && entry.event.change.to._tag === "Starting"
      ).length
      return { violations: this.reader.violations, story: format(this.journal.entries), starts }
    })
  }

  private end(scope: Scope.Closeable): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      for (const ms of afterwards) yield* this.advance(ms)
      const closed = yield* Deferred.make<void>()
      yield* Effect.forkDetach(Effect.andThen(Scope.close(scope, Exit.void), Deferred.succeed(closed, undefined)))
      const deadline = this.world.timeline.now() + closeWithin
      yield* this.world.timeline.advance(0)
      while (!Deferred.isDoneUnsafe(closed) && this.world.timeline.now() < deadline) yield* this.advance(100)
      if (!Deferred.isDoneUnsafe(closed)) this.violate("every close is bounded", `not closed within ${closeWithin} ms`)
      yield* this.advance(0)
      this.reader.closed()
    })
  }
}

/** What the children of a scenario tell and are told. */
const listenersOf = (journal: Journal, healthy: Map<string, boolean>): Scenario.Listeners => ({
  isHealthy: (child) => healthy.get(child) ?? true,
  onProbe: (child, phase) => journal.probe(child, phase),
  onEvent: (path, event) => journal.supervisor(path, event)
})

/**
 * One lifecycle on a platform that is built for it alone. `stepped`: on a clock that is stepped and in an interleaving
 * that is drawn by the seed, which takes a platform that is simulated; then the same seed gives the same run, and what
 * hangs for ever is given up with the simulation. Otherwise time is live.
 */
export const run = <Spec extends ChildSpec<unknown>, P, E, RIn>(options: {
  readonly subject: (listeners: Scenario.Listeners) => Subject<Spec>
  readonly platform: Layer.Layer<P, E, RIn>
  readonly stepped: boolean
  readonly seed: number
  readonly commands: ReadonlyArray<Scenario.Command>
}): Effect.Effect<Outcome, E | InvalidSpec, RIn | Exclude<Services<Spec> | ProcessPlatform, P>> =>
  Effect.suspend(() => {
    const timeline = options.stepped ? Timeline.make(options.seed) : Timeline.live()
    const lifecycle = Effect.gen(function*() {
      const journal = new Journal(timeline.now)
      const healthy = new Map<string, boolean>()
      const subject = options.subject(listenersOf(journal, healthy))
      const reader = Invariants.reader(subject.facts)
      const world = yield* watch(
        yield* ProcessPlatform,
        options.stepped ? Option.getOrUndefined(yield* Effect.serviceOption(Simulation)) : undefined,
        timeline,
        (detail) => reader.violations.push({ invariant: "one incarnation at a time", detail, at: timeline.now() })
      )
      const test = new Run(world, subject, reader, journal, healthy).run(options.commands)
      return yield* Effect.provideService(test, ProcessPlatform, world.platform)
    })
    return lifecycle.pipe(
      // Nothing is shared with another run.
      Effect.provide(options.platform, { local: true }),
      Random.withSeed(options.seed),
      Effect.provideContext(timeline.services)
    )
  })

/** Whether a platform is simulated: it is built to see that. */
export const isSimulated = <A, E, RIn>(platform: Layer.Layer<A, E, RIn>): Effect.Effect<boolean, E, RIn> =>
  Effect.map(Effect.serviceOption(Simulation), Option.isSome).pipe(Effect.provide(platform, { local: true }))
