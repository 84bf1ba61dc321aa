/**
 * Tests of pools, as `Lifecycle` has them for supervised children: a pool lives through drawn commands, in drawn
 * interleavings, on a clock that is stepped, and what must always hold is checked. A failure comes as the smallest
 * scenario that was found, ready to be pasted.
 *
 * What must hold: never two incarnations of a key, the dying one included; one build for all who ask; no lease on a child
 * that is being ended, and nobody ended for being idle, old or in the way who is not; everybody who waits is answered, in
 * bounded time, and who waits for a place in the order of asking; no more children than places; state is saved once after
 * each life and never overwritten unsaved; tokens are good for their incarnation; nothing is left when the scope has
 * closed.
 */
import * as Effect from "effect/Effect"
import * as Generate from "./internal/PoolGenerate.ts"
import * as Runner from "./internal/PoolRunner.ts"
import type { Outcome } from "./internal/Runner.ts"
import * as Search from "./internal/Search.ts"
import { toScript } from "./PoolScenario.ts"
import type { PoolScenario } from "./PoolScenario.ts"

/** How many scenarios, from which seed on, and how large. */
export interface Options {
  /** Default: 1. Each run takes the next number. */
  readonly seed?: number | undefined
  /** Default: 100. */
  readonly runs?: number | undefined
  /** Commands of a lifecycle, at most. Default: 15. */
  readonly commands?: number | undefined
  /** Runs that may be spent on making a failure smaller. Default: 500. */
  readonly shrinks?: number | undefined
}

/** The scenario of a seed; the same one always. */
export const scenario = (seed: number, options: Options = {}): PoolScenario =>
  Generate.scenario(seed, options.commands ?? 15)

/** Runs one scenario on the simulated platform. The same scenario gives the same outcome. */
export const run = (one: PoolScenario): Effect.Effect<Outcome> => Effect.orDie(Runner.run(one))

/** Fails when the scenario breaks a promise: what a pasted script calls. */
export const replay = (one: PoolScenario): Effect.Effect<Outcome, Search.LifecycleViolation> =>
  Effect.flatMap(run(one), (outcome) => Search.failIf(outcome, toScript(one)))

/**
 * Runs drawn scenarios until one breaks a promise, and makes that one smaller.
 *
 * @example
 * ```ts
 * import { PoolLifecycle } from "@treeline/core/testing"
 * import { Effect } from "effect"
 *
 * const report = await Effect.runPromise(PoolLifecycle.check({ seed: 1, runs: 50 }))
 * if (report.starts < 50) throw new Error("too little has happened")
 * ```
 */
export const check = Effect.fn("PoolLifecycle.check")(function*(options: Options = {}) {
  return yield* Search.search({
    seed: options.seed ?? 1,
    runs: options.runs ?? 100,
    shrinks: options.shrinks ?? 500,
    draw: (seed) => scenario(seed, options),
    run,
    smaller: Generate.smaller,
    script: toScript
  })
})
