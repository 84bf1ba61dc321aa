/** What the conformance suites have in common. */
import { assert, type Vitest } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Output from "../../Output.ts"
import * as ShutdownPlan from "../../ShutdownPlan.ts"

/** The pids that a program reports. */
export const pidsOf = <E>(stdout: Stream.Stream<Uint8Array, E>): Effect.Effect<ReadonlyArray<number>, E> =>
  Output.lines(stdout).pipe(
    Stream.filter((line) => line.startsWith("pids ")),
    Stream.runHead,
    Effect.map((line) => {
      assert.isTrue(Option.isSome(line), "the program reports its pids")
      return Option.getOrThrow(line).split(" ").slice(1).map(Number)
    })
  )

/** How long it takes, in ms on the ambient clock. */
export const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.gen(function*() {
    const startedAt = yield* Clock.currentTimeMillis
    yield* effect
    return (yield* Clock.currentTimeMillis) - startedAt
  })

/** SIGTERM, a short grace, kill. */
export const quickly = ShutdownPlan.terminate({ within: "200 millis" })

/** Lets simulated time pass while a test runs, one ms whenever every fiber has had its turns. */
const turningClock = <A, E, R>(test: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Scope.Scope>> =>
  Effect.raceFirst(
    // What the test leaves to its scope takes time too.
    Effect.scoped(test),
    TestClock.adjust(1).pipe(
      Effect.andThen(Effect.repeat(Effect.yieldNow, { times: turnsPerMs })),
      Effect.forever
    )
  )

/** Turns of all fibers in one ms of simulated time; a chain of fibers that wake each other is seldom longer. */
const turnsPerMs = 5

/** Registers a test, or lists it as left out with the reason. */
export const needing =
  <R>(it: Vitest.MethodsNonLive<R>, time: "real" | "simulated") =>
  (has: boolean, why: string) =>
  <A, E>(name: string, test: () => Effect.Effect<A, E, R | Scope.Scope>): void => {
    if (!has) it.effect.skip(`${name} [left out: ${why}]`, test)
    else it.effect(name, time === "real" ? test : () => turningClock(test()))
  }
