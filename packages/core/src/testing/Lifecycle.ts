/**
 * Tests of lifecycles: runs supervised children through drawn commands, in drawn interleavings, on a clock that is
 * stepped, and checks what must always hold. A failure comes as the smallest scenario that was found, ready to be pasted.
 *
 * What must hold: never two incarnations of a child at once; a restart begins when the old tree is empty; nothing lives
 * when the scope has closed; every start has exactly one end; events form a path through the state table; a stop wins
 * against every start and restart from before it; the restart policy, the backoff, the intensity and the strategy are
 * kept; dependencies start first and stop last; probes stop when stopping begins and never overlap; pauses pause; every
 * stop is bounded; everybody who asked is answered.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import type { ChildSpec } from "../ChildSpec.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import * as Supervisor from "../Supervisor.ts"
import * as Facts from "./internal/Facts.ts"
import * as Generate from "./internal/Generate.ts"
import type { Facts as InvariantFacts, Violation } from "./internal/Invariants.ts"
import * as Invariants from "./internal/Invariants.ts"
import { format, Journal, type Operation } from "./internal/Journal.ts"
import { Draw } from "./internal/Seed.ts"
import * as Shrink from "./internal/Shrink.ts"
import * as Timeline from "./internal/Timeline.ts"
import * as Scenario from "./Scenario.ts"
import * as SimulatedPlatform from "./SimulatedPlatform.ts"

export type { Violation }

/** What a run brought. */
export interface Outcome {
  readonly violations: ReadonlyArray<Violation>
  /** What happened, for people. */
  readonly story: string
  /** Incarnations that were started. */
  readonly starts: number
}

/** Lines of a story that a failure shows: what is said last is next to what went wrong. */
const shownLines = 120

const shorten = (story: string): string => {
  const lines = story.split("\n")
  return lines.length <= shownLines ? story : ["...", ...lines.slice(-shownLines)].join("\n")
}

/** A lifecycle broke a promise; `script` is a test that shows it again. */
export class LifecycleViolation extends Schema.TaggedError<LifecycleViolation>()("LifecycleViolation", {
  invariant: Schema.String,
  detail: Schema.String,
  runs: Schema.Int,
  script: Schema.String,
  story: Schema.String
}) {
  override get message(): string {
    return `${this.invariant}: ${this.detail} (found in run ${this.runs})\n${this.script}\n${this.story}`
  }
}

/** How many scenarios, from which seed on, and how large. */
export interface Options {
  /** Default: 1. Each run takes the next number. */
  readonly seed?: number | undefined
  /** Default: 100. */
  readonly runs?: number | undefined
  /** Children of a supervisor, at most. Default: 5. */
  readonly children?: number | undefined
  /** Commands of a lifecycle, at most. Default: 12. */
  readonly commands?: number | undefined
  /** Whether supervisors are nested. Default: true. */
  readonly nested?: boolean | undefined
  /** Runs that may be spent on making a failure smaller. Default: 500. */
  readonly shrinks?: number | undefined
}

const boundsOf = (options: Options): Generate.Bounds => ({
  children: options.children ?? 5,
  commands: options.commands ?? 12,
  nested: options.nested ?? true
})

/** The scenario of a seed; the same one always. */
export const scenario = (seed: number, options: Options = {}): Scenario.Scenario =>
  Generate.scenario(seed, boundsOf(options))

// -------------------------------------------------------------------------------------------------- running one

/** What a run needs of the world around it. */
interface World {
  readonly timeline: Timeline.Timeline
  /** Sends a signal to the leader of a child, from outside. */
  readonly signal: (
    pid: number,
    signal: "SIGKILL" | "SIGSEGV" | "SIGTERM" | "SIGSTOP" | "SIGCONT"
  ) => Effect.Effect<void>
  readonly killHost: Effect.Effect<void>
  /** Whatever outlived the scope. */
  readonly leftovers: Effect.Effect<ReadonlyArray<string>>
  /** How many incarnations of a child lived at the same time, at most. */
  readonly peak: (child: string) => Effect.Effect<number>
}

/** How long the end of a scope may take, in ms; each stop has its own, smaller bound. */
const closeWithin = 300_000

/** Time that passes after the last command, in ms: backoffs and stops come to their ends. */
const afterwards = [0, 1000, 5000]

class Run<R> {
  private readonly world: World
  private readonly children: ReadonlyArray<ChildSpec<R>>
  private readonly options: Supervisor.Options
  private readonly reader: Invariants.Reader
  private readonly callers = new Set<Fiber.Fiber<unknown>>()
  private readonly healthy: Map<string, boolean>
  readonly journal: Journal
  private read = 0
  private hostIsDead = false

  constructor(
    world: World,
    children: ReadonlyArray<ChildSpec<R>>,
    options: Supervisor.Options,
    facts: InvariantFacts,
    journal: Journal,
    healthy: Map<string, boolean>
  ) {
    this.world = world
    this.children = children
    this.options = options
    this.journal = journal
    this.reader = Invariants.reader(facts)
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
    return Effect.map(this.world.timeline.advance(ms), () => {
      this.check()
      this.reader.quiescent(this.world.timeline.now(), this.world.timeline.wallNow())
    })
  }

  /** The leader's pid, as the events told it. */
  private pidOf(path: string): number | undefined {
    for (const entry of this.journal.entries.toReversed()) {
      if (entry._tag !== "Child" || entry.path !== path || entry.event.change._tag !== "State") continue
      const { to } = entry.event.change
      return to._tag === "Running" || to._tag === "Ready" || to._tag === "Stopping" ? to.pid ?? undefined : undefined
    }
    return undefined
  }

  private ask(operation: Operation, child: string, effect: Effect.Effect<unknown, { readonly _tag: string }>) {
    return Effect.suspend(() => {
      let id = 0
      return Effect.andThen(
        Effect.sync(() => {
          id = this.journal.issue(operation, child)
        }),
        effect
      ).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() => {
            if (this.hostIsDead) return
            const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
            const defect = Exit.isFailure(exit) && error === undefined && !Cause.hasInterruptsOnly(exit.cause)
            if (defect) this.violate("no defects", Cause.pretty(exit.cause))
            this.journal.settle(id, Exit.isSuccess(exit) ? "ok" : error?._tag ?? "abandoned")
          })
        ),
        Effect.ignore,
        // What is journaled as asked has been asked: nobody comes in between.
        Effect.provideService(Scheduler.PreventSchedulerYield, true),
        Effect.forkDetach({ startImmediately: true }),
        Effect.map((fiber) => {
          this.callers.add(fiber)
          return fiber
        })
      )
    })
  }

  private perform(supervisor: Supervisor.Supervisor, command: Scenario.Command): Effect.Effect<unknown> {
    const onChild = <A, E extends { readonly _tag: string }>(
      id: string,
      use: (child: Effect.Success<ReturnType<Supervisor.Supervisor["child"]>>) => Effect.Effect<A, E>
    ) => Effect.flatMap(supervisor.child(id), use)
    const toLeader = (path: string, signal: Parameters<World["signal"]>[1]) => {
      const pid = this.pidOf(path)
      return pid === undefined ? Effect.void : this.world.signal(pid, signal)
    }
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
        return toLeader(command.child, command.signal)
      case "Freeze":
        return toLeader(command.child, "SIGSTOP")
      case "Thaw":
        return toLeader(command.child, "SIGCONT")
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
  run(commands: ReadonlyArray<Scenario.Command>): Effect.Effect<Outcome, never, R> {
    return Effect.gen({ self: this }, function*() {
      const scope = yield* Scope.make()
      const started = Supervisor.start(this.children, {
        ...this.options,
        onEvent: (event) => {
          this.journal.supervisor("", event)
          this.options.onEvent?.(event)
        }
      }).pipe(Scope.provide(scope))
      const supervisor = yield* Effect.orDie(started)
      for (const command of commands) {
        yield* this.perform(supervisor, command)
        if (this.hostIsDead) break
      }
      if (this.hostIsDead) yield* this.world.timeline.advance(10_000)
      else yield* this.end(scope)
      for (const left of yield* this.world.leftovers) this.violate("nothing is left", left)
      for (const fiber of this.callers) fiber.interruptUnsafe()
      const starts = this.journal.entries.filter((entry) =>
        entry._tag === "Child" && entry.event.change._tag === "State" && entry.event.change.to._tag === "Starting"
      )
      for (const path of new Set(starts.map((entry) => entry._tag === "Child" ? entry.path : ""))) {
        const peak = yield* this.world.peak(path)
        if (peak > 1) this.violate("one incarnation at a time", `${peak} trees of ${path} lived at once`)
      }
      return { violations: this.reader.violations, story: format(this.journal.entries), starts: starts.length }
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

const listenersOf = (journal: Journal, healthy: Map<string, boolean>): Scenario.Listeners => ({
  isHealthy: (child) => healthy.get(child) ?? true,
  onProbe: (child, phase) => journal.probe(child, phase),
  onEvent: (path, event) => journal.supervisor(path, event)
})

/**
 * Runs one scenario on the simulated platform. The same scenario gives the same outcome; what hangs for ever in it is
 * given up with the simulation.
 */
export const run = (one: Scenario.Scenario): Effect.Effect<Outcome> =>
  Effect.suspend(() => {
    const timeline = Timeline.make(one.seed)
    const platform = SimulatedPlatform.layer({
      ...one.system,
      seed: one.seed,
      journal: 1,
      keyOf: ({ command, env }) => env["CHILD"] ?? command
    })
    const program = Effect.gen(function*() {
      const simulation = yield* SimulatedPlatform.Simulation
      const journal = new Journal(timeline.now)
      const healthy = new Map<string, boolean>()
      const world: World = {
        timeline,
        signal: (pid, signal) => Effect.asVoid(simulation.kill(pid, signal)),
        killHost: simulation.killHost,
        leftovers: Effect.map(
          simulation.alive,
          (alive) => alive.map(({ command, pid }) => `process ${pid} ${command}`)
        ),
        peak: (child) => simulation.peakIncarnations(child)
      }
      const specs = Scenario.toSpecs(one.supervisor, listenersOf(journal, healthy))
      const { supervisor } = one
      return yield* new Run(world, specs, Scenario.toOptions(supervisor), Facts.ofScenario(one), journal, healthy).run(
        one.commands
      )
    })
    return program.pipe(
      Effect.provide(platform),
      Random.withSeed(one.seed),
      Effect.provideContext(timeline.services)
    )
  })

/** Fails when the scenario breaks a promise: what a pasted script calls. */
export const replay = (one: Scenario.Scenario): Effect.Effect<Outcome, LifecycleViolation> =>
  Effect.flatMap(run(one), (outcome) => {
    const violation = outcome.violations[0]
    return violation === undefined
      ? Effect.succeed(outcome)
      : Effect.fail(
        new LifecycleViolation({
          invariant: violation.invariant,
          detail: violation.detail,
          runs: 1,
          script: Scenario.toScript(one),
          story: shorten(outcome.story)
        })
      )
  })

/** What a check has run. */
export interface Report {
  readonly seed: number
  readonly runs: number
  readonly starts: number
}

/**
 * Runs drawn scenarios until one breaks a promise, and makes that one smaller.
 *
 * @example
 * ```ts
 * import { Lifecycle } from "@treeline/core/testing"
 * import { Effect } from "effect"
 *
 * const report = await Effect.runPromise(Lifecycle.check({ seed: 1, runs: 50 }))
 * if (report.starts < 50) throw new Error("too little has happened")
 * ```
 */
export const check = Effect.fn("Lifecycle.check")(function*(options: Options = {}) {
  const seed = options.seed ?? 1
  const runs = options.runs ?? 100
  let starts = 0
  for (let index = 0; index < runs; index++) {
    const one = scenario(seed + index, options)
    const outcome = yield* run(one)
    starts += outcome.starts
    const violation = outcome.violations[0]
    if (violation === undefined) continue
    const fails = (candidate: Scenario.Scenario) =>
      Effect.map(
        run(candidate),
        ({ violations }) => violations.some(({ invariant }) => invariant === violation.invariant)
      )
    const smallest = yield* Shrink.shrink(one, Shrink.smaller, fails, options.shrinks ?? 500)
    const last = yield* run(smallest)
    const shown = last.violations.find(({ invariant }) => invariant === violation.invariant) ?? violation
    return yield* new LifecycleViolation({
      invariant: shown.invariant,
      detail: shown.detail,
      runs: index + 1,
      script: Scenario.toScript(smallest),
      story: shorten(last.story)
    })
  }
  return { seed, runs, starts } satisfies Report
})

// -------------------------------------------------------------------------------------------------- one's own specs

/** How one's own specs are run. */
export interface SpecOptions extends Pick<Options, "seed" | "runs" | "commands"> {
  readonly supervisor?: Supervisor.Options | undefined
}

/**
 * Runs drawn commands on one's own children, on whatever platform is provided, the simulated one included. Where it is
 * simulated, time is stepped and the interleaving is drawn; on a real platform time passes by itself, in small steps.
 * `children` makes the specs anew for each run. Backoff and count of restarts are not checked, since the schedule is the
 * user's own.
 */
export const checkSpecs = Effect.fn("Lifecycle.checkSpecs")(function*<R, E, RIn>(
  children: () => ReadonlyArray<ChildSpec<R>>,
  platform: Layer.Layer<R | ProcessPlatform, E, RIn>,
  options: SpecOptions = {}
) {
  const seed = options.seed ?? 1
  const runs = options.runs ?? 20
  let starts = 0
  for (let index = 0; index < runs; index++) {
    const specs = children()
    const draw = new Draw(seed + index)
    const names = specs.map(({ id }) => id)
    const commands = Generate.commands(draw, names, names, options.commands ?? 8)
    const stepped = Timeline.make(seed + index)
    const program = Effect.gen(function*() {
      const service = yield* ProcessPlatform
      const simulation = Option.getOrUndefined(yield* Effect.serviceOption(SimulatedPlatform.Simulation))
      const timeline = simulation === undefined ? yield* Timeline.live : stepped
      const journal = new Journal(timeline.now)
      const before = new Set((yield* service.processes).map(({ pid, startTime }) => `${pid}.${startTime}`))
      const trees: Array<{ readonly pid: number; readonly startTime: string }> = []
      const observed = {
        ...service,
        launch: (...parameters: Parameters<typeof service.launch>) =>
          Effect.tap(service.launch(...parameters), ({ identity }) => Effect.sync(() => trees.push(identity)))
      }
      void before
      const world: World = {
        timeline,
        signal: (pid, signal) => simulation !== undefined ? Effect.asVoid(simulation.kill(pid, signal)) : Effect.void,
        killHost: Effect.void,
        leftovers: Effect.map(
          service.processes,
          (processes) =>
            processes.filter(({ alive, group, pid, startTime }) =>
              alive && trees.some((tree) => (tree.pid === pid && tree.startTime === startTime) || tree.pid === group)
            ).map(({ command, pid }) => `process ${pid} ${command}`)
        ),
        peak: () => Effect.succeed(1)
      }
      const supervisor = options.supervisor ?? {}
      const test = new Run(world, specs, supervisor, Facts.ofSpecs(specs, supervisor), journal, new Map())
      return yield* Effect.provideService(test.run(commands), ProcessPlatform, ProcessPlatform.of(observed))
    })
    const outcome = yield* program.pipe(Effect.provide(platform), Effect.provideContext(stepped.services))
    starts += outcome.starts
    const violation = outcome.violations[0]
    if (violation !== undefined) {
      return yield* new LifecycleViolation({
        invariant: violation.invariant,
        detail: violation.detail,
        runs: index + 1,
        script: `seed ${seed + index}: ${JSON.stringify(commands)}`,
        story: shorten(outcome.story)
      })
    }
  }
  return { seed, runs, starts } satisfies Report
})

// -------------------------------------------------------------------------------------------------- helpers

/** The effect had not ended when the clock had been advanced. */
export class StillRunning extends Schema.TaggedError<StillRunning>()("StillRunning", { afterMs: Schema.Number }) {
  override get message(): string {
    return `still running after ${this.afterMs} ms of the TestClock`
  }
}

/**
 * Runs an effect while the TestClock is advanced by `by`, in steps, until it ends: an effect that sleeps after something
 * else has happened is not passed by, which is the usual deadlock of a test that adjusts once. Fails when it has not ended
 * by then.
 *
 * @example
 * ```ts
 * import { Lifecycle } from "@treeline/core/testing"
 * import { Effect } from "effect"
 * import { TestClock } from "effect/testing"
 *
 * const slow = Effect.andThen(Effect.sleep("1 hour"), Effect.as(Effect.sleep("1 hour"), "done"))
 * const result = Lifecycle.forkThenAdjust(slow, "3 hours").pipe(Effect.provide(TestClock.layer()))
 * if (await Effect.runPromise(result) !== "done") throw new Error("not done")
 * ```
 */
export const forkThenAdjust = Effect.fn("Lifecycle.forkThenAdjust")(function*<A, E, R>(
  effect: Effect.Effect<A, E, R>,
  by: Duration.Input,
  options: { readonly steps?: number | undefined } = {}
) {
  const steps = options.steps ?? 100
  const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
  const duration = Duration.fromInputUnsafe(by)
  const step = Duration.millis(Duration.toMillis(duration) / steps)
  for (let index = 0; index < steps && fiber.pollUnsafe() === undefined; index++) {
    yield* TestClock.adjust(step)
    yield* Effect.yieldNow
  }
  if (fiber.pollUnsafe() === undefined) {
    yield* Fiber.interrupt(fiber)
    return yield* new StillRunning({ afterMs: Duration.toMillis(duration) })
  }
  return yield* Fiber.join(fiber)
})

/** The part of fast-check that is needed here, so that it is no dependency. */
export interface FastCheck<Arbitrary> {
  readonly integer: (bounds: { readonly min: number; readonly max: number }) => {
    readonly map: (f: (seed: number) => Scenario.Scenario) => Arbitrary
  }
}

/**
 * Scenarios as an arbitrary of fast-check, for those who use it: `fc.asyncProperty(Lifecycle.fastCheck(fc), ...)`, with
 * `Effect.runPromise(Lifecycle.replay(scenario))` in the property.
 */
export const fastCheck = <Arbitrary>(fc: FastCheck<Arbitrary>, options: Options = {}): Arbitrary =>
  fc.integer({ min: 1, max: 0x7fffffff }).map((seed) => scenario(seed, options))
