/**
 * Supervised children on the simulated system, under the test clock.
 */
import { assert } from "@effect/vitest"
import {
  Child,
  type ChildSpec,
  type ChildState,
  type ChildStatus,
  type ProcessPlatform,
  Supervisor
} from "@treeline/core"
import { Program, SimulatedPlatform } from "@treeline/core/testing"
import { Clock, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { TestClock } from "effect/testing"

export const { Simulation } = SimulatedPlatform

/** What a test may use. */
export type Services = ProcessPlatform.ProcessPlatform | SimulatedPlatform.Simulation | Scope.Scope

/** Turns of all fibers after which nothing happens any more until time passes. */
const turns = 50

/** Lets every fiber do what it can do at this moment. */
export const settle: Effect.Effect<void> = Effect.repeat(Effect.yieldNow, { times: turns }).pipe(Effect.asVoid)

/** Lets `ms` of simulated time pass. */
export const advance = (ms: number): Effect.Effect<void> =>
  settle.pipe(Effect.andThen(TestClock.adjust(ms)), Effect.andThen(settle))

/** The longest simulated time for which anything is waited for, in ms. */
const patience = 600_000

/** Lets time pass until `effect` is done. */
export const passing = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    yield* settle
    for (let passed = 0, step = 1; fiber.pollUnsafe() === undefined; passed += step) {
      assert.isBelow(passed, patience, "it ends in bounded time")
      step = passed < 20_000 ? 10 : 1_000
      yield* TestClock.adjust(step)
    }
    return yield* Fiber.join(fiber)
  })

/** Lets time pass until `effect` is done, and tells its result and how many ms it took; exact to 10 ms. */
export const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const startedAt = yield* Clock.currentTimeMillis
    const [result, endedAt] = yield* passing(Effect.zip(Effect.exit(effect), Clock.currentTimeMillis))
    return { result, took: endedAt - startedAt }
  })

/** The test's clock, with a wall clock (ms) and a monotonic clock (ns) that can be shifted against its time. */
export const shifting = Effect.map(Clock.Clock, (clock) => {
  const shift = { wall: 0, monotonic: 0n }
  const currentTimeMillisUnsafe = () => clock.currentTimeMillisUnsafe() + shift.wall
  const monotonicTimeNanosUnsafe = () => clock.monotonicTimeNanosUnsafe() + shift.monotonic
  const shifted = Object.assign(Object.create(clock) as Clock.Clock, {
    currentTimeMillisUnsafe,
    currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
    monotonicTimeNanosUnsafe,
    monotonicTimeNanos: Effect.sync(monotonicTimeNanosUnsafe)
  })
  return { shift, provide: Effect.provideService(Clock.Clock, shifted) }
})

export interface SystemOptions extends SimulatedPlatform.Options {
  /** Whether something may be left when the test's scope has closed; only where the system itself is broken. */
  readonly survivors?: boolean
}

/** A test on a system of its own. Nothing may live when its scope has closed. */
export const onSystem = <Eff extends Effect.Effect<unknown, unknown, Services>>(
  test: () => Generator<Eff, void, never>,
  options: SystemOptions = {}
) =>
(): Effect.Effect<void, unknown> =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const exit = yield* Effect.exit(Scope.provide(Effect.gen(test) as Effect.Effect<void, unknown, Services>, scope))
    yield* passing(Scope.close(scope, exit))
    const simulation = yield* Simulation
    const left = yield* simulation.alive
    if (Exit.isFailure(exit)) return yield* exit
    if (options.survivors !== true) assert.deepStrictEqual(left, [], `nothing is left:\n${yield* simulation.story}`)
  }).pipe(Effect.provide(SimulatedPlatform.layer(options)))

/** Lives until it is ended. */
export const lives = Program.make(Program.endure)

/** Lives for `ms` and exits with `code`. */
export const exits = (code: number, ms = 10) => Program.make(Program.sleep(ms), Program.exit(code))

/** Takes no notice of SIGTERM. */
export const stubborn = Program.make(Program.ignore("SIGTERM"), Program.endure)

/** A process as a child. */
export const process = (
  id: string,
  program: Program.Program,
  policies: Omit<Child.Options, "command"> = {}
): ChildSpec.ChildSpec<ProcessPlatform.ProcessPlatform> =>
  Child.make(id, { command: SimulatedPlatform.command(program, { name: id }), ...policies })

/** The program of each next launch in turn, and the last one from then on; for the option `programs` of a system. */
export const inTurn = (...programs: ReadonlyArray<Program.Program>) => {
  let next = 0
  return () => programs[Math.min(next++, programs.length - 1)]!
}

/** A child that runs the system's program of the same name. */
export const named = (
  id: string,
  policies: Omit<Child.Options, "command"> = {}
): ChildSpec.ChildSpec<ProcessPlatform.ProcessPlatform> =>
  Child.make(id, { command: ChildProcess.make(id), ...policies })

/** The events of a child from its first on, as they come. */
export const record = (child: Child.Child) =>
  Effect.gen(function*() {
    const events: Array<ChildStatus.ChildEvent> = []
    yield* Effect.forkScoped(
      Stream.runForEach(child.events, (event) => Effect.sync(() => void events.push(event))),
      { startImmediately: true }
    )
    return events
  })

/** The states that events lead to, without the steps of a teardown. */
export const path = (events: ReadonlyArray<ChildStatus.ChildEvent>): ReadonlyArray<string> =>
  events.flatMap(({ change }) => change._tag === "State" && change.from._tag !== change.to._tag ? [change.to._tag] : [])

/** When something happened, in ms. */
export const times = (
  events: ReadonlyArray<ChildStatus.ChildEvent>,
  tag: ChildStatus.ChildEvent["change"]["_tag"] | ChildState.Tag
): ReadonlyArray<number> =>
  events.flatMap(({ at, change }) =>
    change._tag === tag || (change._tag === "State" && change.to._tag === tag) ? [at] : []
  )

export const stateOf = (child: Child.Child) => Effect.map(child.status, ({ state }) => state)

export const tagOf = (child: Child.Child) => Effect.map(child.status, ({ state }) => state._tag)

/** A supervisor and all its events. */
export const supervise = <R>(
  children: ReadonlyArray<ChildSpec.ChildSpec<R>>,
  options: Supervisor.Options = {}
) =>
  Effect.gen(function*() {
    const events: Array<Supervisor.SupervisorEvent> = []
    const supervisor = yield* Supervisor.start(children, { ...options, onEvent: (event) => events.push(event) })
    yield* settle
    /** The events of one child, by its path. */
    const of = (child: string): ReadonlyArray<ChildStatus.ChildEvent> =>
      events.flatMap((event) => event._tag === "Child" && event.event.child === child ? [event.event] : [])
    /** `child State` for each transition of any child, in order. */
    const story = () =>
      events.flatMap((event) =>
        event._tag === "Child" ? path([event.event]).map((tag) => `${event.event.child} ${tag}`) : []
      )
    const tags = Effect.map(
      supervisor.children,
      (statuses) => Object.fromEntries(statuses.map(({ id, state }) => [id, state._tag]))
    )
    return { supervisor, events, of, story, tags }
  })
