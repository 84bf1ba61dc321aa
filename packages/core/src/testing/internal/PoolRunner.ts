/** Runs one lifecycle of a pool on the simulated platform, and checks what must hold. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Child from "../../Child.ts"
import type { InvalidSpec } from "../../Errors.ts"
import * as Pool from "../../Pool.ts"
import { equals } from "../../ProcessIdentity.ts"
import { ProcessPlatform } from "../../ProcessPlatform.ts"
import type { ProcessTree } from "../../ProcessTree.ts"
import * as ShutdownPlan from "../../ShutdownPlan.ts"
import type { Command, KeyPlan, PoolPlan, PoolScenario } from "../PoolScenario.ts"
import * as SimulatedPlatform from "../SimulatedPlatform.ts"
import { Callers } from "./Callers.ts"
import { type Ask, PoolModel, probeTime } from "./PoolModel.ts"
import type { Outcome } from "./Runner.ts"
import * as Timeline from "./Timeline.ts"

/** What a build fails with that is meant to fail. */
class NoBuild extends Schema.TaggedError<NoBuild>()("NoBuild", { key: Schema.String }) {}

/** How long the end of a scope may take, in ms. */
const closeWithin = 120_000

/** Time that passes after the last command, in ms. */
const afterwards = [0, 1000, 5000]

type ThePool = Pool.Pool<number, NoBuild>

class Run {
  private readonly plan: PoolPlan
  private readonly timeline: Timeline.Timeline
  private readonly platform: ProcessPlatform["Service"]
  private readonly simulation: SimulatedPlatform.Simulation["Service"]
  private readonly model: PoolModel
  private readonly trees = new Map<string, Array<ProcessTree>>()
  private readonly builds = new Map<string, number>()
  private readonly saves = new Map<string, number>()
  private readonly callers = new Callers()

  constructor(
    plan: PoolPlan,
    noticeDelay: number,
    timeline: Timeline.Timeline,
    platform: ProcessPlatform["Service"],
    simulation: SimulatedPlatform.Simulation["Service"]
  ) {
    this.plan = plan
    this.timeline = timeline
    this.platform = platform
    this.simulation = simulation
    this.model = new PoolModel(plan, noticeDelay, timeline.now)
  }

  // ------------------------------------------------------------------------------------------------ the pool

  /** How many processes of a key live, escaped ones included. */
  private alive(key: string): Effect.Effect<number> {
    return Effect.map(
      Effect.forEach(this.trees.get(key) ?? [], ({ pid }) => this.simulation.descendants(pid)),
      (all) => all.flat().length
    )
  }

  /** The platform, watched. */
  private get watched(): ProcessPlatform["Service"] {
    const launch: typeof this.platform.launch = (...parameters) =>
      Effect.gen({ self: this }, function*() {
        const key = parameters[0].command
        const alive = yield* this.alive(key)
        if (alive > 0) {
          this.model.violate("one incarnation at a time", `${key} is launched while ${alive} of an earlier one live`)
        }
        const tree = yield* this.platform.launch(...parameters)
        this.trees.set(key, [...this.trees.get(key) ?? [], tree])
        return tree
      })
    return ProcessPlatform.of({ ...this.platform, launch })
  }

  private hook<A, E>(
    name: "restore" | "build" | "retire",
    { incarnation, key }: Pool.Incarnation,
    effect: Effect.Effect<A, E>
  ): Effect.Effect<A, E> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(this.alive(key), (alive) => {
        this.model.hook(name, key, incarnation, "begins", alive)
        return Effect.onExit(restore(effect), (exit) =>
          Effect.sync(() => this.model.hook(name, key, incarnation, Exit.isSuccess(exit) ? "ends" : "fails", 0)))
      })
    )
  }

  private planOf(key: string): KeyPlan {
    return this.plan.keys.find((plan) => plan.key === key)!
  }

  private build(key: string, identity: Pool.Incarnation) {
    return Effect.suspend(() => {
      const plan = this.planOf(key)
      const count = (this.builds.get(key) ?? 0) + 1
      this.builds.set(key, count)
      this.model.token(identity.incarnation, Redacted.value(identity.token))
      const { command } = SimulatedPlatform
      const child = Child.make(key, {
        command: command(plan.program, { name: key }),
        shutdown: ShutdownPlan.terminate({ within: this.plan.grace })
      })
      const built = { child, endpoint: () => Effect.as(Effect.sleep(plan.endpoint), identity.incarnation) }
      return this.hook(
        "build",
        identity,
        Effect.andThen(
          Effect.sleep(plan.build),
          Effect.suspend(() => count > plan.failedBuilds ? Effect.succeed(built) : Effect.fail(new NoBuild({ key })))
        )
      )
    })
  }

  private restore(identity: Pool.Incarnation) {
    const { incarnation, key } = identity
    return Effect.andThen(
      Effect.uninterruptible(Effect.andThen(
        Effect.sync(() => this.model.scopeOpened(incarnation)),
        Effect.addFinalizer(() => Effect.sync(() => this.model.scopeClosed(incarnation)))
      )),
      this.hook("restore", identity, Effect.sleep(this.planOf(key).restore))
    )
  }

  private retire(identity: Pool.Incarnation) {
    const { key } = identity
    const plan = this.planOf(key)
    return this.hook(
      "retire",
      identity,
      Effect.andThen(
        Effect.sleep(plan.save),
        Effect.suspend(() => {
          const count = (this.saves.get(key) ?? 0) + 1
          this.saves.set(key, count)
          return count > plan.failedSaves ? Effect.void : Effect.fail(new Error(`save ${count}`))
        })
      )
    )
  }

  private get activity(): Effect.Effect<Pool.Activity, string> {
    switch (this.plan.activity) {
      case "hangs":
        return Effect.never
      case "fails":
        return Effect.fail("no answer")
      case "busy":
        return Effect.as(Effect.sleep(probeTime.answers), "busy")
      default:
        return Effect.as(Effect.sleep(probeTime.answers), { idleFor: "1 day" })
    }
  }

  private get pool() {
    const { activity, age, capacity, idle, saveWithin, startWithin, uses } = this.plan
    return Pool.make({
      onEvent: (event) => this.model.event(event),
      build: (key, identity) => this.build(key, identity),
      hooks: {
        restore: (identity) => this.restore(identity),
        retire: (identity) => this.retire(identity),
        retry: Schedule.spaced(50).pipe(Schedule.upTo({ times: 1 })),
        within: saveWithin
      },
      startWithin,
      idle: {
        after: () => idle ?? undefined,
        activity: activity === "none" ? undefined : () => this.activity,
        activityWithin: probeTime.within
      },
      recycle: { age: age ?? undefined, uses: uses ?? undefined },
      capacity: capacity ?? undefined
    })
  }

  // ------------------------------------------------------------------------------------------------ what happens

  private advance(pool: ThePool, ms: number): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      yield* this.timeline.advance(ms)
      for (const [key, trees] of this.trees) {
        const tree = trees.at(-1)
        if (tree === undefined) continue
        const alive = yield* this.simulation.descendants(tree.pid)
        this.model.leader(
          key,
          alive.some(({ pid, startTime }) => pid === tree.pid && startTime === tree.identity.startTime)
        )
      }
      const status = yield* pool.status
      this.model.quiescent(status, (token) => Option.getOrUndefined(Effect.runSync(pool.lookupToken(token))))
    })
  }

  private ask<E extends { readonly _tag: string }>(
    what: string,
    key: string,
    perform: (ask: Ask) => Effect.Effect<unknown, E>
  ): Effect.Effect<Fiber.Fiber<unknown>> {
    return Effect.suspend(() => {
      let ask: Ask | undefined = undefined
      const call = Effect.suspend(() => perform(ask = this.model.issue(what, key)))
      return this.callers.start(call, (outcome, defect) => {
        if (defect !== undefined) this.model.violate("no defects", defect)
        if (ask !== undefined) this.model.settle(ask, outcome)
      })
    })
  }

  private lease(pool: ThePool, key: string, held: number) {
    return this.ask("lease", key, (ask) =>
      Effect.gen({ self: this }, function*() {
        const scope = yield* Scope.make()
        // The lease is known to be held when it is, and not any more when it may not be.
        yield* Effect.uninterruptibleMask((restore) =>
          Effect.gen({ self: this }, function*() {
            const exit = yield* Effect.exit(restore(Scope.provide(pool.lease(key), scope)))
            if (Exit.isSuccess(exit)) this.model.given(ask, exit.value.incarnation)
            // It waits no longer, while it holds what it got.
            this.model.settled(ask)
            yield* Effect.exit(restore(Exit.isSuccess(exit) ? Effect.sleep(held) : Effect.void))
            if (Exit.isSuccess(exit)) this.model.released(exit.value.incarnation)
            yield* Scope.close(scope, Exit.void)
            return yield* exit
          })
        )
      }))
  }

  private perform(pool: ThePool, command: Command): Effect.Effect<unknown> {
    switch (command._tag) {
      case "Ensure":
        return this.ask(
          "ensure",
          command.key,
          (ask) =>
            Effect.map(pool.ensure(command.key), ({ endpoint, incarnation }) => {
              this.model.given(ask, incarnation)
              if (endpoint !== incarnation) this.model.violate("who asks for a key gets its child", `#${endpoint}`)
            })
        )
      case "Lease":
        return this.lease(pool, command.key, command.held)
      case "Touch":
        return this.ask(
          "touch",
          command.key,
          () => Effect.map(pool.touch(command.key), (live) => this.model.touched(command.key, live))
        )
      case "Shutdown": {
        const plan = command.grace === null ? undefined : ShutdownPlan.terminate({ within: command.grace })
        return this.ask("shutdown", command.key, () => pool.shutdown(command.key, plan))
      }
      case "ShutdownAll":
        return this.ask("shutdownAll", "", () => pool.shutdownAll)
      case "RetrySave":
        return this.ask("retrySave", command.key, () => pool.retrySave(command.key))
      case "Discard":
        return this.ask("discard", command.key, () =>
          Effect.suspend(() => {
            this.model.discarded(command.key)
            return pool.discard(command.key)
          }))
      case "Crash":
        return this.crash(command.key, command.signal)
      case "Step":
        return this.advance(pool, command.ms)
      case "Together":
        return Effect.forEach(command.commands, (one) => Effect.forkDetach(this.perform(pool, one)))
      case "Abandon":
        return Effect.flatMap(
          this.perform(pool, command.command),
          (fiber) => {
            if (!Fiber.isFiber(fiber)) return Effect.void
            const interrupt = Effect.sync(() => fiber.interruptUnsafe())
            return command.after === 0
              ? interrupt
              : Effect.forkDetach(Effect.andThen(Effect.sleep(command.after), interrupt))
          }
        )
    }
  }

  private crash(key: string, signal: "SIGKILL" | "SIGSEGV" | "SIGTERM"): Effect.Effect<void> {
    return Effect.suspend(() => {
      const tree = this.trees.get(key)?.at(-1)
      if (tree === undefined) return Effect.void
      this.model.say(`${signal} to ${key}`)
      // Its pid may be another process's by now.
      return Effect.flatMap(
        this.simulation.descendants(tree.pid),
        (alive) =>
          alive.some((info) => equals({ ...info, boot: tree.identity.boot }, tree.identity))
            ? Effect.asVoid(this.simulation.kill(tree.pid, signal))
            : Effect.void
      )
    })
  }

  /** Runs the commands, ends the scope, and says what was seen. */
  run(commands: ReadonlyArray<Command>): Effect.Effect<Outcome, InvalidSpec> {
    return Effect.gen({ self: this }, function*() {
      const scope = yield* Scope.make()
      const pool = yield* this.pool.pipe(
        Effect.provideService(ProcessPlatform, this.watched),
        Scope.provide(scope)
      )
      for (const command of commands) yield* this.perform(pool, command)
      for (const ms of afterwards) yield* this.advance(pool, ms)
      const closed = yield* Deferred.make<void>()
      this.model.close()
      yield* Effect.forkDetach(Effect.andThen(Scope.close(scope, Exit.void), Deferred.succeed(closed, undefined)))
      const deadline = this.timeline.now() + closeWithin
      yield* this.timeline.advance(0)
      while (!Deferred.isDoneUnsafe(closed) && this.timeline.now() < deadline) yield* this.timeline.advance(100)
      if (!Deferred.isDoneUnsafe(closed)) {
        this.model.violate("every close is bounded", `not closed within ${closeWithin} ms`)
      }
      yield* this.timeline.advance(0)
      this.model.closed(yield* pool.status)
      for (const { command, pid } of yield* this.simulation.alive) {
        this.model.violate("nothing is left", `process ${pid} ${command}`)
      }
      this.callers.interrupt()
      return { violations: this.model.violations, story: this.model.lines.join("\n"), starts: this.model.starts }
    })
  }
}

/** One lifecycle on a platform that is built for it alone; the same scenario gives the same run. */
export const run = ({ commands, pool, seed, system }: PoolScenario): Effect.Effect<Outcome, InvalidSpec> =>
  Effect.suspend(() => {
    const timeline = Timeline.make(seed)
    return Effect.gen(function*() {
      const platform = yield* ProcessPlatform
      const simulation = yield* SimulatedPlatform.Simulation
      return yield* new Run(pool, system.noticeDelay, timeline, platform, simulation).run(commands)
    }).pipe(
      Effect.provide(SimulatedPlatform.layer({ ...system, seed, journal: 1 }), { local: true }),
      Random.withSeed(seed),
      Effect.provideContext(timeline.services)
    )
  })
