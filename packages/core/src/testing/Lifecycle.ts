/**
 * Tests of lifecycles (the guide is docs/test-lifecycles.md): runs supervised children through drawn commands, in drawn interleavings, on a clock that is
 * stepped, and checks what must always hold. A failure comes as the smallest scenario that was found, ready to be pasted.
 *
 * What must hold: never two incarnations of a child at once; a restart begins when the old tree is empty; nothing lives
 * when the scope has closed; every start has exactly one end; events form a path through the state table; a stop wins
 * against every start and restart from before it; the restart policy, the backoff, the intensity and the strategy are
 * kept; dependencies start first and stop last; probes stop when stopping begins and never overlap; pauses pause; every
 * stop is bounded; everybody who asked is answered.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import type { ChildSpec } from "../ChildSpec.ts"
import type * as Supervisor from "../Supervisor.ts"
import * as Facts from "./internal/Facts.ts"
import * as Generate from "./internal/Generate.ts"
import type { Violation } from "./internal/Invariants.ts"
import * as Runner from "./internal/Runner.ts"
import * as Script from "./internal/Script.ts"
import * as Search from "./internal/Search.ts"
import { LifecycleViolation, type Report } from "./internal/Search.ts"
import { Draw } from "./internal/Seed.ts"
import * as Shrink from "./internal/Shrink.ts"
import * as Scenario from "./Scenario.ts"
import * as SimulatedPlatform from "./SimulatedPlatform.ts"

type Outcome = Runner.Outcome

export type { Outcome, Report, Violation }
export { LifecycleViolation }

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

// -------------------------------------------------------------------------------------------------- scenarios

/**
 * Runs one scenario on the simulated platform. The same scenario gives the same outcome; what hangs for ever in it is
 * given up with the simulation.
 */
export const run = (one: Scenario.Scenario): Effect.Effect<Outcome> =>
  Effect.orDie(Runner.run({
    subject: (listeners) => ({
      children: Scenario.toSpecs(one.supervisor, listeners),
      options: Scenario.toOptions(one.supervisor),
      facts: Facts.ofScenario(one)
    }),
    platform: SimulatedPlatform.layer({ ...one.system, seed: one.seed, journal: 1 }),
    stepped: true,
    seed: one.seed,
    commands: one.commands
  }))

/** Fails when the scenario breaks a promise: what a pasted script calls. */
export const replay = (one: Scenario.Scenario): Effect.Effect<Outcome, LifecycleViolation> =>
  Effect.flatMap(run(one), (outcome) => Search.failIf(outcome, Scenario.toScript(one)))

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
  return yield* Search.search({
    seed: options.seed ?? 1,
    runs: options.runs ?? 100,
    shrinks: options.shrinks ?? 500,
    draw: (seed) => scenario(seed, options),
    run: (one) => run(one),
    smaller: Shrink.smaller,
    script: Scenario.toScript
  })
})

// -------------------------------------------------------------------------------------------------- one's own specs

/** How one's own specs are run. */
export interface SpecOptions extends Pick<Options, "seed" | "runs" | "commands" | "shrinks"> {
  /** Of the supervisor that runs them. */
  readonly supervisor?: Supervisor.Options | undefined
}

/** One lifecycle of one's own specs: what happens, and the seed of the interleaving. */
export interface SpecReplay extends Pick<SpecOptions, "supervisor"> {
  readonly seed: number
  readonly commands: ReadonlyArray<Scenario.Command>
}

const specScript = ({ commands, seed, supervisor }: SpecReplay): string =>
  Script.test(
    "Lifecycle.replaySpecs(children, platform, {\n" +
      `    seed: ${seed},\n` +
      (supervisor === undefined ? "" : "    supervisor,\n") +
      `    commands: ${Script.expression(commands, "    ")}\n  })`
  )

const runSpecs = <Spec extends ChildSpec<unknown>, P, E, RIn>(
  children: () => ReadonlyArray<Spec>,
  platform: Layer.Layer<P, E, RIn>,
  stepped: boolean,
  { commands, seed, supervisor = {} }: SpecReplay
) =>
  Runner.run({
    subject: () => {
      const specs = children()
      return { children: specs, options: supervisor, facts: Facts.ofSpecs(specs, supervisor) }
    },
    platform,
    stepped,
    seed,
    commands
  })

/**
 * Runs drawn commands on one's own children, on whatever platform is provided, and fails with a script when a promise is
 * broken. Each run makes the specs and the platform anew.
 *
 * On the simulated platform time is stepped, the interleaving is drawn, and the script is made smaller. On a real one time
 * is live, a step takes 50 ms at most, signals go to the leaders of real processes, and what was left is ended after it was
 * found. Not checked: backoff and the count of restarts, since the schedule is the user's own; the inside of nested
 * supervisors; processes that a service of the layer starts by itself. In the script `children`, `platform` and
 * `supervisor` stand for what this was called with.
 *
 * @example
 * ```ts
 * import { Child } from "@treeline/core"
 * import { Lifecycle, Program, SimulatedPlatform } from "@treeline/core/testing"
 * import { Effect } from "effect"
 *
 * const children = () => [Child.make("worker", { command: SimulatedPlatform.command([Program.endure]) })]
 * const report = await Effect.runPromise(Lifecycle.checkSpecs(children, SimulatedPlatform.layer(), { runs: 20 }))
 * if (report.starts < 20) throw new Error("too little has happened")
 * ```
 */
export const checkSpecs = Effect.fn("Lifecycle.checkSpecs")(function*<Spec extends ChildSpec<unknown>, P, E, RIn>(
  children: () => ReadonlyArray<Spec>,
  platform: Layer.Layer<P, E, RIn>,
  options: SpecOptions = {}
) {
  const stepped = yield* Runner.isSimulated(platform)
  const ids = children().map(({ id }) => id)
  const targets = { tops: ids, leaves: ids, probes: false, wallClock: stepped }
  return yield* Search.search({
    seed: options.seed ?? 1,
    runs: options.runs ?? 20,
    // What happened once in live time may not happen again.
    shrinks: stepped ? options.shrinks ?? 500 : 0,
    draw: (seed): SpecReplay => ({
      seed,
      supervisor: options.supervisor,
      commands: Generate.commands(new Draw(seed), targets, options.commands ?? 8)
    }),
    run: (one) => runSpecs(children, platform, stepped, one),
    smaller: function*(one) {
      for (const commands of Shrink.smallerCommands(one.commands)) yield { ...one, commands }
    },
    script: specScript
  })
})

/** Runs one lifecycle of one's own specs again: what a pasted script of `checkSpecs` calls. */
export const replaySpecs = Effect.fn("Lifecycle.replaySpecs")(function*<Spec extends ChildSpec<unknown>, P, E, RIn>(
  children: () => ReadonlyArray<Spec>,
  platform: Layer.Layer<P, E, RIn>,
  one: SpecReplay
) {
  const outcome = yield* runSpecs(children, platform, yield* Runner.isSimulated(platform), one)
  return yield* Search.failIf(outcome, specScript(one))
})

// -------------------------------------------------------------------------------------------------- helpers

/** The effect had not ended when the clock had been advanced. */
export class StillRunning extends Schema.TaggedError<StillRunning>()("StillRunning", { afterMs: Schema.Number }) {
  override get message(): string {
    return `still running after ${this.afterMs} ms of the TestClock`
  }
}

/** How often fibers get their turn between two steps of the clock. */
const turns = 10

/** Advances the clock by `total` ms in whole ms and in so many steps, while the fiber runs. */
const adjustWhile = (fiber: Fiber.Fiber<unknown, unknown>, total: number, steps: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    let done = 0
    for (let step = 1; step <= steps && fiber.pollUnsafe() === undefined; step++) {
      const until = Math.round(total * step / steps)
      yield* TestClock.adjust(Duration.millis(until - done))
      done = until
      for (let turn = 0; turn < turns && fiber.pollUnsafe() === undefined; turn++) yield* Effect.yieldNow
    }
  })

/**
 * Runs an effect while the TestClock is advanced by `by`, in `steps` (default 100), until it ends: an effect that sleeps
 * after something else has happened is not passed by, which is the usual deadlock of a test that adjusts once. When it has
 * not ended by then it is interrupted, its finalizers have as long again, and this fails with `StillRunning`. Whoever
 * interrupts this interrupts the effect.
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
  const total = Duration.toMillis(Duration.fromInputUnsafe(by))
  const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
  yield* adjustWhile(fiber, total, steps)
  if (fiber.pollUnsafe() === undefined) {
    fiber.interruptUnsafe()
    yield* adjustWhile(fiber, total, steps)
    return yield* new StillRunning({ afterMs: total })
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
 * Scenarios as an arbitrary of fast-check, for those who use it:
 * `Lifecycle.fastCheck<fc.Arbitrary<Scenario.Scenario>>(fc)`, with `Lifecycle.replay(scenario)` in the property. The type
 * has to be given; it can't be inferred without a dependency. fast-check makes the seed smaller and not the scenario, which
 * `check` does.
 */
export const fastCheck = <Arbitrary>(fc: FastCheck<Arbitrary>, options: Options = {}): Arbitrary =>
  fc.integer({ min: 1, max: 0x7fffffff }).map((seed) => scenario(seed, options))
