/** Pools of children on the simulated system, under the test clock. */
import { assert, describe, it } from "@effect/vitest"
import { Child, Errors, Pool, PoolState, PoolStatus, ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { Cause, Deferred, Effect, Exit, Fiber, Latch, Metric, Option, Schedule, Schema, Scope } from "effect"
import {
  advance,
  exits,
  inTurn,
  lives,
  named,
  onSystem,
  passing,
  process,
  settle,
  Simulation,
  stubborn,
  timed
} from "../support/Actors.ts"
import { keyOf, path, record, states, Store, tenants } from "../support/Pools.ts"

/** Asks in the background; told with its exit. */
const asking = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/** How a fiber has ended, which it must have. */
const exitOf = <A, E>(fiber: Fiber.Fiber<A, E>): Exit.Exit<A, E> => {
  const exit = fiber.pollUnsafe()
  if (exit === undefined) throw new Error("it still waits")
  return exit
}

/** What a fiber has failed with. */
const errorOf = <A, E>(fiber: Fiber.Fiber<A, E>): E => Option.getOrThrow(Exit.findErrorOption(exitOf(fiber)))

/** What an effect fails with, while time passes. */
const failing = <A, E, R>(effect: Effect.Effect<A, E, R>) => passing(Effect.flip(effect))

describe("one build for all who ask", () => {
  it.effect(
    "A1: two ensures one after another, one process",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { builds, pool } = yield* tenants()
      const first = yield* passing(pool.ensure("a"))
      const second = yield* passing(pool.ensure("a"))
      assert.strictEqual(second, first)
      assert.deepStrictEqual(builds, ["a"])
      assert.strictEqual(yield* simulation.launches, 1)
      assert.strictEqual((yield* keyOf(pool, "a"))?.uses, 2)
    })
  )

  it.effect(
    "A10, peer 98: 1,000 ensures at once are one build and one process",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { builds, pool } = yield* tenants({ buildTime: 100 })
      const asked = yield* Effect.forEach(Array.from({ length: 1000 }), () => asking(pool.ensure("a")))
      yield* settle
      assert.strictEqual((yield* keyOf(pool, "a"))?.callers, 1000)
      yield* advance(100)
      const handles = asked.map((fiber) => Exit.getSuccess(exitOf(fiber)).pipe(Option.getOrThrow))
      assert.strictEqual(new Set(handles).size, 1)
      assert.deepStrictEqual(builds, ["a"])
      assert.strictEqual(yield* simulation.launches, 1)
      assert.strictEqual((yield* keyOf(pool, "a"))?.callers, 0)
    })
  )

  it.effect(
    "A2, peer 98: a build that fails fails all who wait, starts nothing and leaves nothing",
    onSystem(function*() {
      const simulation = yield* Simulation
      let broken = true
      const pool = yield* Pool.make({
        build: (key) =>
          Effect.andThen(
            Effect.sleep(50),
            Effect.suspend(() =>
              broken ? Effect.fail("no such tenant" as const) : Effect.succeed({ child: process(key, lives) })
            )
          )
      })
      const events = yield* record(pool)
      const asked = yield* Effect.forEach(Array.from({ length: 100 }), () => asking(pool.ensure("a")))
      yield* advance(50)
      for (const fiber of asked) assert.strictEqual(errorOf(fiber), "no such tenant")
      assert.strictEqual(yield* simulation.launches, 0)
      assert.deepStrictEqual((yield* pool.status).keys, [])
      assert.deepStrictEqual(path(events, "a"), ["Building", "Retiring failed", "Absent"])
      broken = false
      yield* passing(pool.ensure("a"))
      assert.strictEqual(yield* simulation.launches, 1)
    })
  )

  it.effect(
    "A2: a build that throws, dies or is interrupted fails those who wait, and interrupts nobody",
    onSystem(function*() {
      const builds: ReadonlyArray<() => Effect.Effect<never>> = [
        () => {
          throw new Error("thrown")
        },
        () => Effect.die(new Error("died")),
        () => Effect.interrupt
      ]
      for (const build of builds) {
        const pool = yield* Pool.make({ build })
        const exit = yield* passing(Effect.exit(pool.ensure("a")))
        assert.isTrue(Exit.isFailure(exit) && !Cause.hasInterrupts(exit.cause), String(build))
        assert.deepStrictEqual((yield* pool.status).keys, [])
      }
    })
  )

  it.effect(
    "a child that can't be launched, or ends before it is ready, fails those who wait, and they learn why",
    onSystem(function*() {
      const missing = yield* Pool.make({ build: () => Effect.succeed({ child: named("missing") }) })
      const error = yield* failing(missing.ensure("a"))
      assert.strictEqual(error._tag, "ChildFailed")
      assert.include(error.message, "missing")
      const { pool } = yield* tenants({ program: () => exits(3) })
      const slow = yield* Pool.make({
        build: (key) =>
          Effect.succeed({
            child: process(key, exits(3)),
            endpoint: () => Effect.as(Effect.sleep(1000), "never reached")
          })
      })
      const ended = yield* failing(slow.ensure("a"))
      assert.strictEqual(ended._tag, "ChildFailed")
      assert.include(ended.message, "exited with code 3")
      assert.deepStrictEqual((yield* slow.status).keys, [])
      // Without a readiness it is there as soon as it was launched, and has gone a moment later.
      yield* passing(pool.ensure("b"))
      yield* advance(20)
      assert.deepStrictEqual((yield* pool.status).keys, [])
    })
  )

  it.effect(
    "A11: a child that dies while it is built is no answer to anybody; the next ensure builds anew",
    onSystem(function*() {
      const program = inTurn(exits(1, 30), lives)
      const pool = yield* Pool.make({
        build: (key) =>
          Effect.succeed({ child: process(key, program()), endpoint: () => Effect.as(Effect.sleep(40), 80) })
      })
      const first = yield* asking(pool.ensure("a"))
      yield* advance(29)
      const late = yield* asking(pool.ensure("a"))
      yield* advance(1)
      for (const fiber of [first, late]) assert.isTrue(Exit.isFailure(exitOf(fiber)))
      const handle = yield* passing(pool.ensure("a"))
      assert.strictEqual(handle.endpoint, 80)
      assert.strictEqual((yield* handle.child.status).state._tag, "Ready")
    })
  )

  it.effect(
    "an endpoint gets the started child, and its failure fails the build and ends the child",
    onSystem(function*() {
      const simulation = yield* Simulation
      const seen: Array<string> = []
      const pool = yield* Pool.make({
        build: (key) =>
          Effect.succeed({
            child: process(key, lives),
            endpoint: (child) =>
              Effect.andThen(
                Effect.map(child.status, ({ state }) => seen.push(state._tag)),
                Effect.fail("no address" as const)
              )
          })
      })
      assert.strictEqual(yield* failing(pool.ensure("a")), "no address")
      assert.include(["Starting", "Running", "Ready"], seen[0])
      assert.deepStrictEqual((yield* pool.status).keys, [])
      assert.deepStrictEqual(yield* simulation.alive, [])
    })
  )

  it.effect(
    "the end of a child says more than what its endpoint makes of it",
    onSystem(function*() {
      const pool = yield* Pool.make({
        build: (key) =>
          Effect.succeed({
            child: process(key, exits(9, 20)),
            endpoint: () => Effect.andThen(Effect.sleep(10), Effect.fail("no address" as const))
          })
      })
      const error = yield* failing(pool.ensure("a"))
      assert.include(String(error), "exited with code 9")
    })
  )

  it.effect(
    "a build, a restore and a start that take too long are given up, and it is said which",
    onSystem(function*() {
      const simulation = yield* Simulation
      const never = { restore: () => Effect.never }
      const child = (key: string) => ({ child: process(key, lives), endpoint: () => Effect.never })
      const pools = {
        restore: yield* Pool.make({ startWithin: 500, hooks: never, build: (key) => Effect.succeed(child(key)) }),
        build: yield* Pool.make({ startWithin: 500, build: () => Effect.never }),
        start: yield* Pool.make({ startWithin: 500, build: (key) => Effect.succeed(child(key)) })
      }
      for (const [step, pool] of Object.entries(pools)) {
        const { result, took } = yield* timed(pool.ensure("a"))
        const error = Option.getOrThrow(Exit.findErrorOption(result))
        assert.instanceOf(error, Errors.StartTimedOut)
        assert.strictEqual(error.step, step)
        assert.approximately(took, 500, 20)
        yield* settle
        assert.deepStrictEqual((yield* pool.status).keys, [])
      }
      assert.deepStrictEqual(yield* simulation.alive, [])
    })
  )

  for (const step of ["restore", "build", "release"] as const) {
    it.effect(
      `${step} that takes no notice of its interruption is left behind after 5 s, and blocks its key until it has ended`,
      onSystem(function*() {
        const held = yield* Latch.make(false)
        const built: Array<number> = []
        const first = (incarnation: number, at: typeof step): Effect.Effect<void> =>
          incarnation === 1 && at === step ? Effect.uninterruptible(held.await) : Effect.void
        const pool = yield* Pool.make({
          startWithin: 100,
          capacity: { max: 1, within: 1000 },
          hooks: { restore: ({ incarnation }) => first(incarnation, "restore"), retire: () => Effect.void },
          build: (_, { incarnation }) =>
            Effect.gen(function*() {
              built.push(incarnation)
              yield* Effect.addFinalizer(() => first(incarnation, "release"))
              yield* first(incarnation, "build")
              return { child: process("a", lives) }
            })
        })
        const asked = yield* asking(pool.ensure("a"))
        yield* advance(200)
        if (step === "release") yield* Effect.forkChild(pool.shutdown("a").pipe(Effect.ignore))
        yield* advance(6000)
        assert.strictEqual(Exit.isSuccess(exitOf(asked)), step === "release")
        const before = [...built]
        const { keys: [blocked] } = yield* pool.status
        assert.strictEqual(blocked?.state._tag, "Blocked")
        const error = yield* failing(pool.ensure("a"))
        assert.deepInclude(error, { _tag: "Unfinished", key: "a", incarnation: 1, step })
        assert.deepStrictEqual(built, before)
        yield* held.open
        yield* settle
        yield* passing(pool.ensure("a"))
        assert.deepStrictEqual(built, [...before, 2])
      })
    )
  }
})

describe("who goes away", () => {
  it.effect(
    "A14: the build goes on while one is left who wants it, and ends with the last one",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { builds, events, pool } = yield* tenants({ buildTime: 100 })
      const asked = yield* Effect.forEach([1, 2, 3], () => asking(pool.ensure("a")))
      yield* advance(50)
      yield* Fiber.interrupt(asked[0]!)
      yield* Fiber.interrupt(asked[1]!)
      yield* advance(50)
      assert.isTrue(Exit.isSuccess(exitOf(asked[2]!)))
      const alone = yield* asking(pool.ensure("b"))
      yield* advance(50)
      yield* Fiber.interrupt(alone)
      yield* settle
      assert.deepStrictEqual(path(events, "b"), ["Building", "Retiring abandoned", "Absent"])
      assert.deepStrictEqual(builds, ["a", "b"])
      assert.strictEqual(yield* simulation.launches, 1)
      yield* advance(100)
      yield* passing(pool.ensure("b"))
      assert.deepStrictEqual(builds, ["a", "b", "b"])
    })
  )

  it.effect(
    "A14: a child that was started for nobody is ended, and its scope is closed",
    onSystem(function*() {
      const simulation = yield* Simulation
      let closed = 0
      const pool = yield* Pool.make({
        build: (key) =>
          Effect.as(
            Effect.addFinalizer(() => Effect.sync(() => closed++)),
            { child: process(key, lives), endpoint: () => Effect.never }
          )
      })
      const alone = yield* asking(pool.ensure("a"))
      yield* settle
      assert.strictEqual((yield* simulation.alive).length, 1)
      yield* Fiber.interrupt(alone)
      yield* settle
      assert.deepStrictEqual(yield* simulation.alive, [])
      assert.strictEqual(closed, 1)
    })
  )

  it.effect(
    "A15: who asked bounds the start only; the child outlives its caller and his scope",
    onSystem(function*() {
      const { pool } = yield* tenants()
      const handle = yield* passing(Effect.scoped(pool.lease("a")))
      const fiber = yield* asking(pool.ensure("b"))
      yield* settle
      yield* Fiber.interrupt(fiber)
      assert.strictEqual((yield* handle.child.status).state._tag, "Ready")
      assert.strictEqual(yield* states(pool), "a Live, b Live")
    })
  )

  it.effect(
    "who is interrupted at the moment of the answer holds no lease",
    onSystem(function*() {
      const { pool } = yield* tenants({ buildTime: 100 })
      const gate = yield* Deferred.make<void>()
      const asked = yield* asking(Effect.scoped(Effect.andThen(pool.lease("a"), Deferred.await(gate))))
      const other = yield* asking(pool.ensure("a"))
      const events = yield* record(pool)
      yield* advance(99)
      // Interrupted between the transition and the turn of the one who waits.
      const stop = Effect.gen(function*() {
        while ((yield* keyOf(pool, "a"))?.state._tag !== "Live") yield* Effect.yieldNow
        asked.interruptUnsafe()
      })
      const stopper = yield* asking(stop)
      yield* advance(1)
      yield* Fiber.join(stopper)
      yield* settle
      assert.deepStrictEqual(path(events, "a").slice(-1), ["Live"])
      assert.isTrue(Exit.isSuccess(exitOf(other)))
      assert.strictEqual((yield* keyOf(pool, "a"))?.leases, 0)
    })
  )
})

describe("one incarnation at a time", () => {
  it.effect(
    "A3: after a crash the next ensure gets a new child, and a new incarnation",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { events, pool } = yield* tenants()
      const first = yield* passing(pool.ensure("a"))
      const [process] = yield* simulation.alive
      yield* simulation.kill(process!.pid)
      yield* settle
      assert.deepStrictEqual((yield* pool.status).keys, [], "it leaves at once")
      const second = yield* passing(pool.ensure("a"))
      assert.isAbove(second.incarnation, first.incarnation)
      assert.strictEqual((yield* second.child.status).state._tag, "Ready")
      assert.deepStrictEqual(path(events, "a"), ["Building", "Live", "Retiring ended", "Absent", "Building", "Live"])
      assert.match((yield* Effect.flip(first.lost)).message, /killed by SIGKILL/)
    })
  )

  it.effect(
    "A3: whatever restart policy its spec has, the pool decides about restarts",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { pool } = yield* tenants({ program: () => exits(1, 100) })
      yield* passing(pool.ensure("a"))
      yield* advance(60_000)
      assert.strictEqual(yield* simulation.launches, 1)
    })
  )

  it.effect(
    "A12: an ensure during the end waits for the empty tree and the saved state, and then builds",
    onSystem(function*() {
      const simulation = yield* Simulation
      const store = new Store()
      store.slow = 300
      const { builds, pool } = yield* tenants({ program: () => stubborn, store })
      yield* passing(pool.ensure("a"))
      store.local.set("a", "written by the first")
      const down = yield* asking(pool.shutdown("a"))
      yield* advance(100)
      const next = yield* Effect.forEach([1, 2, 3], () => asking(pool.ensure("a")))
      yield* advance(4800)
      assert.deepStrictEqual(builds, ["a"], "the tree is not empty")
      assert.strictEqual((yield* keyOf(pool, "a"))?.callers, 3)
      yield* advance(200)
      assert.deepStrictEqual(builds, ["a"], "its state is not saved")
      assert.isUndefined(down.pollUnsafe())
      yield* advance(300)
      assert.deepStrictEqual(builds, ["a", "a"])
      for (const fiber of next) assert.isTrue(Exit.isSuccess(exitOf(fiber)))
      assert.isTrue(Exit.isSuccess(exitOf(down)))
      assert.strictEqual(store.local.get("a"), "written by the first")
      assert.deepStrictEqual(store.log, ["restore a", "save a", "restore a"])
      assert.strictEqual(yield* simulation.peakIncarnations("a"), 1)
    })
  )

  it.effect(
    "a shutdown during a build ends it, and overtakes those who wait; a later ensure is not overtaken",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { builds, pool } = yield* tenants({ buildTime: 100 })
      const early = yield* asking(pool.ensure("a"))
      yield* advance(50)
      const down = yield* asking(pool.shutdown("a"))
      const late = yield* asking(pool.ensure("a"))
      yield* settle
      assert.strictEqual(errorOf(early)._tag, "Overtaken")
      assert.isTrue(Exit.isSuccess(exitOf(down)))
      yield* advance(200)
      assert.isTrue(Exit.isSuccess(exitOf(late)))
      assert.deepStrictEqual(builds, ["a", "a"])
      assert.strictEqual(yield* simulation.peakIncarnations("a"), 1)
    })
  )

  it.effect(
    "touch and shutdown of a key that there is not do nothing",
    onSystem(function*() {
      const { pool, events } = yield* tenants()
      assert.isFalse(yield* pool.touch("a"))
      yield* pool.shutdown("a")
      yield* pool.discard("a")
      yield* pool.retrySave("a")
      assert.deepStrictEqual(yield* pool.shutdownAll, [])
      assert.deepStrictEqual(events, [])
    })
  )

  it.effect(
    "a plan of a later shutdown shortens the end that goes on",
    onSystem(function*() {
      const { pool } = yield* tenants({ program: () => stubborn })
      yield* passing(pool.ensure("a"))
      const first = yield* asking(pool.shutdown("a"))
      yield* advance(100)
      const { took } = yield* timed(pool.shutdown("a", ShutdownPlan.kill))
      assert.isBelow(took, 100)
      assert.isTrue(Exit.isSuccess(exitOf(first)))
      const invalid = yield* Effect.flip(pool.shutdown("a", ShutdownPlan.terminate({ within: -1 })))
      assert.strictEqual(invalid._tag, "InvalidSpec")
    })
  )

  it.effect(
    "what its own handle does to the child is seen: stopped or restarted, it leaves the pool",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { pool } = yield* tenants()
      const first = yield* passing(pool.ensure("a"))
      yield* passing(first.child.stop())
      yield* settle
      assert.deepStrictEqual((yield* pool.status).keys, [])
      const second = yield* passing(pool.ensure("a"))
      yield* passing(Effect.exit(second.child.restart))
      yield* settle
      assert.deepStrictEqual((yield* pool.status).keys, [])
      assert.deepStrictEqual(yield* simulation.alive, [])
    })
  )
})

describe("idle children", () => {
  const minute = 60_000
  const idle = { after: 30 * minute }

  it.effect(
    "A6: an idle child is ended, and its state is saved",
    onSystem(function*() {
      const simulation = yield* Simulation
      const store = new Store()
      const { events, pool } = yield* tenants({ idle, store })
      yield* passing(pool.ensure("a"))
      yield* advance(30 * minute - 20)
      assert.strictEqual(yield* states(pool), "a Live")
      yield* advance(20)
      assert.deepStrictEqual(path(events, "a"), ["Building", "Live", "Retiring idle", "Absent"])
      assert.deepStrictEqual(yield* simulation.alive, [])
      assert.deepStrictEqual(store.log, ["restore a", "save a"])
    })
  )

  it.effect(
    "A7: a child that is touched, ensured or leased in time stays",
    onSystem(function*() {
      const { pool } = yield* tenants({ idle })
      yield* passing(pool.ensure("a"))
      for (const use of [pool.touch("a"), pool.ensure("a"), Effect.scoped(pool.lease("a"))]) {
        yield* advance(29 * minute)
        yield* use
      }
      yield* advance(29 * minute)
      assert.strictEqual(yield* states(pool), "a Live")
      yield* advance(minute)
      assert.strictEqual(yield* states(pool), "")
    })
  )

  it.effect(
    "A7: a lease pins a child, and its end counts as use",
    onSystem(function*() {
      const { pool } = yield* tenants({ idle })
      const scope = yield* Scope.make()
      yield* passing(Scope.provide(pool.lease("a"), scope))
      yield* advance(100 * minute)
      assert.strictEqual((yield* keyOf(pool, "a"))?.leases, 1)
      yield* Scope.close(scope, Exit.void)
      yield* advance(29 * minute)
      assert.strictEqual(yield* states(pool), "a Live")
      yield* advance(minute)
      assert.strictEqual(yield* states(pool), "")
    })
  )

  it.effect(
    "the time can differ by key, or there is none",
    onSystem(function*() {
      const { pool } = yield* tenants({
        idle: { after: (key) => key === "short" ? minute : key === "bad" ? -1 : undefined }
      })
      yield* passing(pool.ensure("short"))
      yield* passing(pool.ensure("for ever"))
      assert.strictEqual((yield* failing(pool.ensure("bad")))._tag, "InvalidSpec")
      yield* advance(100_000 * minute)
      assert.strictEqual(yield* states(pool), "for ever Live")
    })
  )

  it.effect(
    "A8: a probe that knows of work keeps the child, and a lapse is counted from what it says",
    onSystem(function*() {
      let activity: Pool.Activity = "busy"
      const { pool } = yield* tenants({ idle: { ...idle, activity: () => Effect.sync(() => activity) } })
      yield* passing(pool.ensure("a"))
      yield* advance(30 * minute)
      activity = { idleFor: "10 minutes" }
      yield* advance(30 * minute)
      assert.strictEqual(yield* states(pool), "a Live", "10 of 30 minutes have passed")
      activity = { idleFor: "1 day" }
      yield* advance(20 * minute)
      assert.strictEqual(yield* states(pool), "")
    })
  )

  it.effect(
    "A8: no time of idleness ends a child with its last lease, and one that is at work a second after it said so",
    onSystem(function*() {
      let asked = 0
      let activity: Pool.Activity = "busy"
      const { pool } = yield* tenants({
        idle: {
          after: 0,
          activity: () =>
            Effect.sync(() => {
              asked++
              return activity
            })
        }
      })
      yield* passing(Effect.scoped(pool.lease("a")))
      yield* settle
      assert.strictEqual(asked, 1)
      for (let second = 0; second < 5; second++) yield* advance(1000)
      assert.strictEqual(yield* states(pool), "a Live")
      assert.strictEqual(asked, 6)
      activity = { idleFor: 0 }
      yield* advance(1000)
      assert.strictEqual(yield* states(pool), "")
    })
  )

  it.effect(
    "A9: a probe that fails, hangs, dies or says nothing sensible does not keep a child",
    onSystem(function*() {
      const probes: ReadonlyArray<() => Effect.Effect<Pool.Activity, unknown>> = [
        () => Effect.fail("unreachable"),
        () => Effect.never,
        () => Effect.die("broken"),
        () => {
          throw new Error("thrown")
        },
        () => Effect.succeed({ idleFor: Number.NaN }),
        () => Effect.uninterruptible(Effect.never)
      ]
      for (const activity of probes) {
        const { events, pool } = yield* tenants({ idle: { ...idle, activity, activityWithin: "5 seconds" } })
        yield* passing(pool.ensure("a"))
        yield* advance(30 * minute)
        yield* advance(5_000)
        yield* advance(5_000)
        assert.deepStrictEqual(path(events, "a").slice(2), ["Retiring idle", "Absent"], String(activity))
      }
    })
  )

  it.effect(
    "A13: a touch while the probe is asked is not lost",
    onSystem(function*() {
      const { pool } = yield* tenants({
        idle: { ...idle, activity: () => Effect.as(Effect.sleep(1000), { idleFor: "1 day" } as const) }
      })
      yield* passing(pool.ensure("a"))
      yield* advance(30 * minute)
      yield* advance(500)
      assert.isTrue(yield* pool.touch("a"))
      yield* advance(500)
      assert.strictEqual(yield* states(pool), "a Live")
      yield* advance(29 * minute)
      assert.strictEqual(yield* states(pool), "a Live")
      yield* advance(minute + 1000)
      assert.strictEqual(yield* states(pool), "")
    })
  )

  it.effect(
    "A13: a touch in the instant in which a child falls due is before or after the decision, never lost",
    onSystem(function*() {
      for (let turns = 0; turns < 30; turns++) {
        const { pool } = yield* tenants({ idle })
        const handle = yield* passing(pool.ensure("a"))
        const racing = yield* asking(Effect.gen(function*() {
          yield* Effect.sleep(30 * minute - 20)
          for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
          return yield* pool.touch("a")
        }))
        yield* advance(30 * minute - 10)
        yield* advance(10)
        yield* settle
        const touched = exitOf(racing)
        const state = (yield* handle.child.status).state._tag
        assert.deepStrictEqual([touched, state], [Exit.succeed(true), "Ready"])
        yield* pool.shutdownAll
      }
    })
  )
})

describe("recycling", () => {
  it.effect(
    "peer 102: children that were started together are not replaced together",
    onSystem(function*() {
      const { builds, events, pool } = yield* tenants({ recycle: { age: "1 hour" } })
      const keys = Array.from({ length: 40 }, (_, index) => `k${index}`)
      yield* passing(Effect.forEach(keys, pool.ensure, { concurrency: "unbounded" }))
      yield* advance(3600_000 * 0.8 - 1000)
      assert.strictEqual((yield* pool.status).keys.length, 40)
      const left: Array<number> = []
      for (let minute = 0; minute <= 12; minute++) {
        left.push((yield* pool.status).keys.length)
        yield* advance(60_000)
      }
      assert.deepStrictEqual((yield* pool.status).keys, [])
      const most = Math.max(...left.slice(1).map((count, index) => left[index]! - count))
      assert.isBelow(most, 20, left.join())
      assert.isTrue(path(events, "k0").includes("Retiring recycled"))
      assert.strictEqual(builds.length, 40, "nothing is built that nobody asks for")
    })
  )

  it.effect(
    "peer 102: a leased child is not replaced before its last lease ends",
    onSystem(function*() {
      const { events, pool } = yield* tenants({ recycle: { age: "1 hour", jitter: 0 } })
      const [one, two] = [yield* Scope.make(), yield* Scope.make()]
      const handle = yield* passing(Scope.provide(pool.lease("a"), one))
      yield* Scope.provide(pool.lease("a"), two)
      yield* advance(7200_000)
      assert.isTrue((yield* keyOf(pool, "a"))?.due)
      assert.strictEqual(yield* Effect.scoped(pool.lease("a")), handle, "it serves while it is there")
      yield* Scope.close(one, Exit.void)
      yield* settle
      assert.strictEqual(yield* states(pool), "a Live")
      yield* Scope.close(two, Exit.void)
      yield* settle
      assert.deepStrictEqual(path(events, "a"), ["Building", "Live", "Retiring recycled", "Absent"])
    })
  )

  it.effect(
    "peer 102: a child is given out so many times, and whoever got it last keeps it until somebody asks",
    onSystem(function*() {
      const { builds, pool } = yield* tenants({ recycle: { uses: 3, jitter: 0 } })
      const handles: Array<Pool.Handle> = []
      for (let use = 0; use < 3; use++) handles.push(yield* passing(pool.ensure("a")))
      yield* advance(10_000)
      assert.deepStrictEqual(builds, ["a"])
      assert.isTrue((yield* keyOf(pool, "a"))?.due)
      assert.isTrue(handles.every((handle) => handle === handles[0]))
      const next = yield* passing(pool.ensure("a"))
      assert.notStrictEqual(next, handles[0])
      assert.deepStrictEqual(builds, ["a", "a"])
      for (let use = 1; use < 3; use++) yield* passing(Effect.scoped(pool.lease("a")))
      yield* settle
      assert.deepStrictEqual((yield* pool.status).keys, [], "the last lease was the last use")
    })
  )
})

describe("capacity", () => {
  const capacity = { max: 2, evictAfter: 0 }

  it.effect(
    "peer 101: the child that was used longest ago makes room; one with a lease does not",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { events, pool } = yield* tenants({ capacity })
      yield* passing(pool.ensure("a"))
      yield* advance(10)
      const scope = yield* Scope.make()
      yield* passing(Scope.provide(pool.lease("b"), scope))
      yield* advance(10)
      yield* passing(pool.ensure("c"))
      assert.deepStrictEqual(path(events, "a").slice(2), ["Retiring evicted", "Absent"])
      yield* advance(10)
      yield* Scope.close(scope, Exit.void)
      yield* passing(pool.ensure("d"))
      assert.strictEqual(yield* states(pool), "b Live, d Live", "b was used last, at the end of its lease")
      assert.strictEqual((yield* simulation.alive).length, 2)
    })
  )

  it.effect(
    "peer 101: when all are leased, keys wait in their order, and each gets the first place that is free",
    onSystem(function*() {
      const { builds, pool } = yield* tenants({ capacity })
      const [one, two] = [yield* Scope.make(), yield* Scope.make()]
      yield* passing(Scope.provide(pool.lease("a"), one))
      yield* passing(Scope.provide(pool.lease("b"), two))
      const held = yield* Scope.make()
      const asked = yield* Effect.forEach(["c", "d", "e"], (key) => asking(Scope.provide(pool.lease(key), held)))
      yield* settle
      assert.strictEqual(yield* states(pool), "a Live, b Live, c Waiting, d Waiting, e Waiting")
      // Interruption removes the one who waits.
      yield* Fiber.interrupt(asked[0]!)
      yield* settle
      assert.strictEqual(yield* states(pool), "a Live, b Live, d Waiting, e Waiting")
      yield* Scope.close(one, Exit.void)
      yield* passing(Fiber.await(asked[1]!))
      assert.deepStrictEqual(builds, ["a", "b", "d"])
      assert.strictEqual(yield* states(pool), "b Live, d Live, e Waiting")
      yield* Scope.close(two, Exit.void)
      yield* passing(Fiber.await(asked[2]!))
      assert.deepStrictEqual(builds, ["a", "b", "d", "e"])
      assert.isTrue(asked.slice(1).every((fiber) => Exit.isSuccess(exitOf(fiber))))
      yield* Scope.close(held, Exit.void)
    })
  )

  it.effect(
    "peer 101: a wait for room is bounded, and so is the number of those who wait",
    onSystem(function*() {
      const { pool } = yield* tenants({ capacity: { max: 1, waiting: 2, within: "10 seconds" } })
      const scope = yield* Scope.make()
      yield* passing(Scope.provide(pool.lease("a"), scope))
      const asked = yield* Effect.forEach(["b", "c"], (key) => asking(pool.ensure(key)))
      yield* settle
      const refused = yield* Effect.flip(pool.ensure("d"))
      assert.deepInclude(refused, { _tag: "CapacityExceeded", capacity: 1, waiting: 2, within: null })
      // A key that waits already is asked for by as many as like.
      const joined = yield* asking(pool.ensure("c"))
      yield* advance(9_999)
      assert.isTrue(asked.every((fiber) => fiber.pollUnsafe() === undefined))
      yield* advance(1)
      for (const fiber of [...asked, joined]) {
        const error = errorOf(fiber)
        assert.deepInclude(error, { _tag: "CapacityExceeded", within: 10_000 })
      }
      assert.strictEqual(yield* states(pool), "a Live")
      yield* Scope.close(scope, Exit.void)
    })
  )

  it.effect(
    "peer 101: those who wait learn of the end of the pool, and of a shutdown",
    onSystem(function*() {
      const outer = yield* Scope.make()
      const { pool } = yield* Scope.provide(tenants({ capacity: { max: 1 } }), outer)
      yield* passing(Scope.provide(pool.lease("a"), outer))
      const overtaken = yield* asking(pool.ensure("b"))
      yield* settle
      yield* pool.shutdown("b")
      const closed = yield* asking(pool.ensure("c"))
      yield* settle
      yield* passing(Scope.close(outer, Exit.void))
      const tags = [overtaken, closed].map((fiber) => errorOf(fiber)._tag)
      assert.deepStrictEqual(tags, ["Overtaken", "PoolClosed"])
      assert.strictEqual((yield* Effect.flip(pool.ensure("a")))._tag, "PoolClosed")
      assert.isFalse(yield* pool.touch("a"))
      assert.deepStrictEqual(yield* pool.status, { pool: "pool", open: false, capacity: 1, keys: [] })
    })
  )

  it.effect(
    "a dying child keeps its place until its tree is empty",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { builds, pool } = yield* tenants({ capacity: { max: 1, evictAfter: 0 }, program: () => stubborn })
      yield* passing(pool.ensure("a"))
      const next = yield* asking(pool.ensure("b"))
      yield* advance(4_900)
      assert.deepStrictEqual(builds, ["a"])
      assert.strictEqual((yield* simulation.alive).length, 1)
      yield* advance(200)
      assert.deepStrictEqual(builds, ["a", "b"])
      assert.isTrue(Exit.isSuccess(exitOf(next)))
    })
  )

  it.effect(
    "whoever asks for a key that is being ended waits its turn like others",
    onSystem(function*() {
      const { builds, pool } = yield* tenants({ capacity: { max: 1, evictAfter: 0 }, program: () => stubborn })
      yield* passing(pool.ensure("a"))
      const b = yield* asking(Effect.scoped(pool.lease("b")))
      yield* advance(100)
      // a is being ended for b, and asked for again.
      const a = yield* asking(Effect.scoped(pool.lease("a")))
      yield* passing(Fiber.await(a))
      assert.deepStrictEqual(builds, ["a", "b", "a"])
      assert.isTrue(Exit.isSuccess(exitOf(b)))
    })
  )

  it.effect(
    "who was used just now is not ended for another key",
    onSystem(function*() {
      const { events, pool } = yield* tenants({ capacity: { max: 1, evictAfter: "2 seconds" } })
      yield* passing(pool.ensure("a"))
      const b = yield* asking(pool.ensure("b"))
      yield* advance(1_500)
      yield* pool.touch("a")
      yield* advance(1_900)
      assert.strictEqual(yield* states(pool), "a Live, b Waiting")
      yield* advance(200)
      assert.isTrue(Exit.isSuccess(exitOf(b)))
      assert.deepStrictEqual(path(events, "a").slice(2), ["Retiring evicted", "Absent"])
    })
  )

  it.effect(
    "A8: a child that says that it is at work is not ended for another key; the next one is asked",
    onSystem(function*() {
      let busy = new Set(["a", "b"])
      const asked: Array<string> = []
      const { pool } = yield* tenants({
        capacity,
        idle: {
          after: "1 hour",
          activity: ({ key }) =>
            Effect.sync(() => {
              asked.push(key)
              return busy.has(key) ? "busy" : { idleFor: 0 }
            })
        }
      })
      yield* passing(pool.ensure("a"))
      yield* advance(10)
      yield* passing(pool.ensure("b"))
      const c = yield* asking(pool.ensure("c"))
      yield* settle
      assert.deepStrictEqual(asked, ["a", "b"])
      yield* advance(999)
      assert.deepStrictEqual(asked, ["a", "b"], "they are left in peace for a second")
      busy = new Set(["a"])
      yield* advance(1_000)
      assert.isTrue(Exit.isSuccess(exitOf(c)))
      assert.strictEqual(yield* states(pool), "a Live, c Live")
    })
  )
})

describe("leases", () => {
  it.effect(
    "peer 100: who uses a child that dies is interrupted and told; the next lease gets a new child",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { pool } = yield* tenants()
      let interrupted = false
      const using = yield* asking(
        pool.use("a", () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted = true)))
      )
      yield* settle
      const [victim] = yield* simulation.alive
      yield* simulation.kill(victim!.pid)
      yield* settle
      const error = errorOf(using)
      assert.strictEqual(error._tag, "ChildLost")
      assert.match(error.message, /killed by SIGKILL/)
      assert.isTrue(interrupted)
      assert.strictEqual(yield* passing(pool.use("a", ({ key }) => Effect.succeed(key))), "a")
      assert.strictEqual((yield* keyOf(pool, "a"))?.leases, 0)
    })
  )

  it.effect(
    "a shutdown does not wait for leases, and their end means nothing to the next child",
    onSystem(function*() {
      const { pool } = yield* tenants()
      const scope = yield* Scope.make()
      const handle = yield* passing(Scope.provide(pool.lease("a"), scope))
      yield* passing(pool.shutdown("a"))
      assert.match((yield* Effect.flip(handle.lost)).message, /shutdown/)
      const next = yield* passing(pool.ensure("a"))
      yield* Scope.close(scope, Exit.void)
      yield* settle
      assert.strictEqual((yield* keyOf(pool, "a"))?.leases, 0)
      assert.strictEqual((yield* next.child.status).state._tag, "Ready")
    })
  )

  it.effect(
    "the errors and results of what is done with a lease are its own",
    onSystem(function*() {
      const { pool } = yield* tenants()
      assert.strictEqual(yield* failing(pool.use("a", () => Effect.fail("mine" as const))), "mine")
      const died = yield* passing(Effect.exit(pool.use("a", (): Effect.Effect<never> => {
        throw new Error("thrown")
      })))
      assert.isTrue(Exit.isFailure(died))
      assert.strictEqual((yield* keyOf(pool, "a"))?.leases, 0)
    })
  )

  it.effect(
    "peer 103, A18: 20 leased, stubborn children end together in one grace period",
    onSystem(function*() {
      const simulation = yield* Simulation
      const scope = yield* Scope.make()
      const { pool } = yield* Scope.provide(tenants({ program: () => stubborn }), scope)
      const keys = Array.from({ length: 20 }, (_, index) => `k${index}`)
      yield* passing(Scope.provide(Effect.forEach(keys, pool.lease, { concurrency: "unbounded" }), scope))
      const { took } = yield* timed(Scope.close(scope, Exit.void))
      assert.approximately(took, 5000, 50)
      assert.deepStrictEqual(yield* simulation.alive, [])
    })
  )

  it.effect(
    "A18: shutdownAll ends all side by side, and the pool goes on",
    onSystem(function*() {
      const { pool } = yield* tenants({ program: () => stubborn })
      yield* passing(Effect.forEach(["a", "b", "c", "d"], pool.ensure))
      const { result, took } = yield* timed(pool.shutdownAll)
      assert.deepStrictEqual(result, Exit.succeed([]))
      assert.approximately(took, 5000, 50)
      yield* passing(pool.ensure("a"))
      assert.strictEqual(yield* states(pool), "a Live")
    })
  )

  it.effect(
    "A16: a start that fails leaves no zombie",
    onSystem(function*() {
      const simulation = yield* Simulation
      const pool = yield* Pool.make({
        build: (key) => Effect.succeed({ child: process(key, lives), endpoint: () => Effect.fail("mute") })
      })
      const before = yield* simulation.processes
      yield* failing(pool.ensure("a"))
      yield* settle
      assert.deepStrictEqual(yield* simulation.processes, before)
    })
  )
})

describe("state", () => {
  it.effect(
    "A4, A5: what a child leaves is saved, and restored for the next one, in another pool too",
    onSystem(function*() {
      const store = new Store()
      const first = yield* tenants({ store })
      yield* passing(first.pool.ensure("a"))
      store.local.set("a", "what the first wrote")
      yield* passing(first.pool.shutdown("a"))
      store.local.clear()
      const second = yield* tenants({ store })
      yield* passing(second.pool.ensure("a"))
      assert.strictEqual(store.local.get("a"), "what the first wrote")
      assert.deepStrictEqual(store.log, ["restore a", "save a", "restore a"])
    })
  )

  it.effect(
    "state is restored before the build and saved when the tree is empty, in the scope of the incarnation",
    onSystem(function*() {
      const simulation = yield* Simulation
      const log: Array<string> = []
      const note = (what: string) =>
        Effect.map(simulation.alive, (alive) => void log.push(`${what}, ${alive.length} alive`))
      const finalizer = (what: string) => Effect.addFinalizer(() => note(`${what} is released`))
      const pool = yield* Pool.make({
        hooks: {
          restore: () => Effect.andThen(note("restore"), finalizer("restore")),
          retire: (_, end) => note(`retire (${end?._tag ?? "asked"})`)
        },
        build: (key) =>
          note("build").pipe(Effect.andThen(finalizer("build")), Effect.as({ child: process(key, exits(0, 100)) }))
      })
      yield* passing(pool.ensure("a"))
      yield* advance(200)
      assert.deepStrictEqual(log, [
        "restore, 0 alive",
        "build, 0 alive",
        "retire (Exited), 0 alive",
        "build is released, 0 alive",
        "restore is released, 0 alive"
      ])
      log.length = 0
      yield* passing(pool.ensure("a"))
      yield* passing(pool.shutdown("a"))
      assert.include(log, "retire (asked), 0 alive")
    })
  )

  it.effect(
    "a restore that fails fails the ensure, and nothing is saved over what there is",
    onSystem(function*() {
      let retired = 0
      const pool = yield* Pool.make({
        hooks: { restore: () => Effect.fail("offline" as const), retire: () => Effect.sync(() => retired++) },
        build: (key) => Effect.succeed({ child: process(key, lives) })
      })
      assert.strictEqual(yield* failing(pool.ensure("a")), "offline")
      yield* settle
      assert.strictEqual(retired, 0)
    })
  )

  it.effect(
    "a child that was never ready is not saved",
    onSystem(function*() {
      const store = new Store()
      const pool = yield* Pool.make({
        hooks: store.hooks,
        build: (key) => Effect.succeed({ child: process(key, lives), endpoint: () => Effect.fail("mute") })
      })
      yield* failing(pool.ensure("a"))
      yield* settle
      assert.deepStrictEqual(store.log, ["restore a"])
    })
  )

  it.effect(
    "a saving that fails is repeated by its schedule, and told",
    onSystem(function*() {
      const store = new Store()
      const { events, pool } = yield* tenants({ store })
      yield* passing(pool.ensure("a"))
      store.failures.push("one", "two")
      const { took } = yield* timed(pool.shutdown("a"))
      assert.approximately(took, 600, 20)
      assert.deepStrictEqual(store.log, ["restore a", "save a: one", "save a: two", "save a"])
      const failures = events.flatMap(({ change }) =>
        change._tag === "SaveFailed" ? [[change.attempt, change.problem]] : []
      )
      assert.deepStrictEqual(failures, [[1, "one"], [2, "two"]])
      assert.deepStrictEqual((yield* pool.status).keys, [])
    })
  )

  it.effect(
    "no state is lost by a schedule that is broken, or by an error without a message",
    onSystem(function*() {
      const pool = yield* Pool.make({
        build: (key) => Effect.succeed({ child: process(key, lives) }),
        hooks: {
          retire: () => Effect.fail(Object.assign(new Error(), { message: undefined })),
          retry: Schedule.modifyDelay(Schedule.recurs(3), () => Effect.die("broken"))
        }
      })
      yield* passing(pool.ensure("a"))
      assert.strictEqual((yield* failing(pool.shutdown("a")))._tag, "UnsavedState")
      assert.deepInclude((yield* keyOf(pool, "a"))?.state, { _tag: "Blocked", unsaved: true })
    })
  )

  it.effect(
    "state that was given up is not built anew while a saving that can't be interrupted goes on",
    onSystem(function*() {
      let saves = 0
      const pool = yield* Pool.make({
        build: (key) => Effect.succeed({ child: process(key, lives) }),
        hooks: {
          retire: () => Effect.uninterruptible(Effect.andThen(Effect.sleep(30_000), Effect.sync(() => void saves++))),
          within: 1000
        }
      })
      yield* passing(pool.ensure("a"))
      assert.strictEqual((yield* failing(pool.shutdown("a")))._tag, "UnsavedState")
      yield* passing(pool.discard("a"))
      assert.strictEqual((yield* keyOf(pool, "a"))?.state._tag, "Blocked")
      assert.strictEqual((yield* failing(pool.ensure("a")))._tag, "UnsavedState")
      assert.strictEqual(saves, 0)
      yield* advance(30_000)
      assert.strictEqual(saves, 1)
      yield* passing(pool.ensure("a"))
    })
  )

  it.effect(
    "unsaved state is never overwritten: the key is blocked until it is saved",
    onSystem(function*() {
      const store = new Store()
      const { builds, events, pool } = yield* tenants({ store })
      yield* passing(pool.ensure("a"))
      store.local.set("a", "precious")
      store.failures.push(...Array.from({ length: 8 }, (_, index) => `down ${index}`))
      const error = yield* failing(pool.shutdown("a"))
      assert.deepInclude(error, { _tag: "UnsavedState", key: "a", problem: "down 5" })
      const blocked = (yield* keyOf(pool, "a"))?.state
      assert.deepInclude(blocked, { _tag: "Blocked", unsaved: true, survivors: [] })
      // Each ensure tries once, and builds nothing while that fails.
      assert.strictEqual((yield* failing(pool.ensure("a")))._tag, "UnsavedState")
      assert.strictEqual((yield* failing(pool.ensure("a")))._tag, "UnsavedState")
      assert.deepStrictEqual(builds, ["a"])
      assert.strictEqual(store.local.get("a"), "precious")
      // The store is back.
      yield* passing(pool.ensure("a"))
      assert.strictEqual(store.saved.get("a"), "precious")
      assert.strictEqual(store.local.get("a"), "precious")
      assert.deepStrictEqual(builds, ["a", "a"])
      assert.strictEqual(path(events, "a").filter((state) => state === "Blocked").length, 3)
    })
  )

  it.effect(
    "unsaved state is saved on demand, or given up by whoever decides that",
    onSystem(function*() {
      const store = new Store()
      let released = 0
      const pool = yield* Pool.make({
        hooks: { ...store.hooks, retry: Schedule.recurs(1) },
        build: (key) =>
          Effect.as(Effect.addFinalizer(() => Effect.sync(() => released++)), { child: process(key, lives) })
      })
      yield* passing(pool.ensure("a"))
      store.failures.push("one", "two", "three", "four")
      yield* failing(pool.shutdown("a"))
      assert.strictEqual(released, 0, "the local copy is kept")
      assert.strictEqual((yield* failing(pool.retrySave("a")))._tag, "UnsavedState")
      yield* passing(pool.retrySave("a"))
      assert.deepStrictEqual((yield* pool.status).keys, [])
      assert.strictEqual(released, 1)
      yield* passing(pool.ensure("a"))
      store.failures.push("one", "two")
      yield* failing(pool.shutdown("a"))
      yield* passing(pool.discard("a"))
      assert.deepStrictEqual((yield* pool.status).keys, [])
      assert.strictEqual(released, 2)
      assert.strictEqual(store.log.at(-1), "save a: two")
    })
  )

  it.effect(
    "a saving that hangs is bounded, and not repeated beside itself",
    onSystem(function*() {
      const hangs = { hard: Effect.uninterruptible(Effect.never), soft: Effect.never }
      for (const [name, hang] of Object.entries(hangs)) {
        let saves = 0
        let hanging = true
        const pool = yield* Pool.make({
          hooks: {
            retire: () => Effect.suspend(() => (saves++, hanging ? hang : Effect.void)),
            within: "10 seconds"
          },
          build: (key) => Effect.succeed({ child: process(key, lives) })
        })
        yield* passing(pool.ensure("a"))
        const { result, took } = yield* timed(Effect.flip(pool.shutdown("a")))
        assert.strictEqual(Option.getOrThrow(Exit.getSuccess(result))._tag, "UnsavedState")
        assert.approximately(took, name === "hard" ? 15_000 : 10_000, 50)
        hanging = false
        const again = yield* passing(Effect.exit(pool.retrySave("a")))
        assert.deepStrictEqual([Exit.isSuccess(again), saves], name === "hard" ? [false, 1] : [true, 2])
        if (name === "hard") yield* pool.discard("a")
      }
    })
  )

  it.effect(
    "when the pool closes, unsaved state is told and its local copy is kept",
    onSystem(function*() {
      const store = new Store()
      const scope = yield* Scope.make()
      let released = 0
      const pool = yield* Scope.provide(
        Pool.make({
          hooks: { ...store.hooks, retry: Schedule.recurs(0) },
          build: (key) =>
            Effect.as(Effect.addFinalizer(() => Effect.sync(() => released++)), { child: process(key, lives) })
        }),
        scope
      )
      yield* passing(Effect.forEach(["a", "b", "c"], pool.ensure))
      store.failures.push("disk full", "disk full")
      yield* passing(Scope.close(scope, Exit.void))
      assert.strictEqual(released, 1)
      assert.strictEqual(store.saved.size, 1)
      assert.strictEqual(yield* states(pool), "a Blocked, b Blocked")
    })
  )

  it.effect(
    "state that can't be saved takes no place, but there is not more of it than places",
    onSystem(function*() {
      const store = new Store()
      const { pool } = yield* tenants({ store, capacity: { max: 2, evictAfter: 0, within: 100, waiting: 10 } })
      for (const key of ["a", "b"]) {
        yield* passing(pool.ensure(key))
        store.failures.push(...Array.from({ length: 6 }, () => "down"))
        yield* failing(pool.shutdown(key))
      }
      assert.strictEqual(yield* states(pool), "a Blocked, b Blocked")
      assert.strictEqual((yield* failing(pool.ensure("c")))._tag, "CapacityExceeded")
      yield* passing(pool.retrySave("a"))
      yield* passing(pool.ensure("c"))
      yield* passing(pool.ensure("d"))
      assert.strictEqual(yield* states(pool), "b Blocked, c Live, d Live")
      yield* passing(pool.discard("b"))
    })
  )
})

describe("what does not end", () => {
  it.effect(
    "processes that can't be ended block their key and are told; when they have gone it is free",
    onSystem(function*() {
      const simulation = yield* Simulation
      const store = new Store()
      const { builds, pool } = yield* tenants({ store, capacity: { max: 1, within: 1000, evictAfter: 0 } })
      const handle = yield* passing(pool.ensure("a"))
      const [victim] = yield* simulation.alive
      yield* simulation.hang(victim!.pid)
      const error = yield* failing(pool.shutdown("a"))
      assert.strictEqual(error._tag, "Unkillable")
      assert.deepStrictEqual(error._tag === "Unkillable" ? error.survivors.map(({ pid }) => pid) : [], [victim!.pid])
      const state = (yield* keyOf(pool, "a"))?.state
      assert.deepInclude(state, { _tag: "Blocked", unsaved: false })
      assert.deepStrictEqual(store.log, ["restore a"], "nothing is saved while something may write")
      assert.strictEqual((yield* failing(pool.ensure("a")))._tag, "Unkillable")
      assert.strictEqual((yield* failing(pool.ensure("b")))._tag, "CapacityExceeded", "it keeps its place")
      assert.deepStrictEqual((yield* passing(pool.shutdownAll)).map(({ _tag }) => _tag), ["Unkillable"])
      yield* passing(pool.discard("a"))
      assert.deepStrictEqual(builds, ["a"])
      assert.isTrue(Option.isSome(yield* pool.lookupToken(handle.token)), "its token is still in use")
      yield* simulation.hang(victim!.pid, false)
      yield* settle
      yield* passing(pool.ensure("a"))
      assert.deepStrictEqual(builds, ["a", "a"])
      assert.deepStrictEqual(store.log, ["restore a", "save a", "restore a"])
      assert.strictEqual(yield* simulation.peakIncarnations("a"), 1)
    })
  )

  it.effect(
    "the close of a pool is bounded by the plan and its cap, and says what is left",
    onSystem(function*() {
      const simulation = yield* Simulation
      const scope = yield* Scope.make()
      const { pool } = yield* Scope.provide(tenants(), scope)
      yield* passing(Effect.forEach(["a", "b"], pool.ensure))
      const [victim] = yield* simulation.alive
      yield* simulation.hang(victim!.pid)
      const { took } = yield* timed(Scope.close(scope, Exit.void))
      assert.isAtMost(took, 12_000)
      assert.strictEqual(yield* states(pool), "a Blocked")
      assert.deepStrictEqual((yield* simulation.alive).map(({ pid }) => pid), [victim!.pid])
      yield* simulation.hang(victim!.pid, false)
    })
  )

  it.effect(
    "an effect as a child that does not end blocks its key, and a stack of children can be a child",
    onSystem(function*() {
      const pool = yield* Pool.make({
        build: () =>
          Effect.succeed({
            child: Child.effect("deaf", Effect.uninterruptible(Effect.never), {
              shutdown: ShutdownPlan.make([], { cap: "1 second" })
            })
          })
      })
      yield* passing(pool.ensure("a"))
      const error = yield* failing(pool.shutdown("a"))
      assert.strictEqual(error._tag, "Unkillable")
      assert.match(error.message, /could not be ended/)
    })
  )
})

describe("what is told", () => {
  it.effect(
    "status and events cross a socket unchanged",
    onSystem(function*() {
      const { events, pool } = yield* tenants({ capacity: { max: 1, waiting: 3 } })
      const scope = yield* Scope.make()
      yield* passing(Scope.provide(pool.lease("a"), scope))
      const waiting = yield* asking(pool.ensure("b"))
      yield* settle
      const status = yield* pool.status
      const json = JSON.parse(JSON.stringify(Schema.encodeUnknownSync(PoolStatus.PoolStatus)(status)))
      assert.deepStrictEqual(Schema.decodeUnknownSync(PoolStatus.PoolStatus)(json), status)
      const told: ReadonlyArray<PoolStatus.PoolEvent> = events
      const crossed = JSON.parse(JSON.stringify(Schema.encodeUnknownSync(Schema.Array(PoolStatus.PoolEvent))(told)))
      assert.deepStrictEqual(Schema.decodeUnknownSync(Schema.Array(PoolStatus.PoolEvent))(crossed), told)
      assert.isAbove(told.length, 2)
      yield* Fiber.interrupt(waiting)
      yield* Scope.close(scope, Exit.void)
    })
  )

  it.effect(
    "every path of events is a path through the table",
    onSystem(function*() {
      const { events, pool } = yield* tenants({ capacity: { max: 2, evictAfter: 0 }, idle: { after: 5000 } })
      for (let round = 0; round < 20; round++) {
        yield* passing(pool.ensure(`k${round % 5}`))
        if (round % 7 === 0) yield* passing(pool.shutdown(`k${round % 5}`))
        yield* advance(500)
      }
      yield* advance(10_000)
      const last = new Map<string, PoolState.Tag>()
      for (const { change, key } of events) {
        if (change._tag !== "State") continue
        assert.strictEqual(change.from._tag, last.get(key) ?? "Absent")
        const leads = Object.values(PoolState.table[change.from._tag])
        assert.isTrue(change.from._tag === change.to._tag || leads.includes(change.to._tag))
        last.set(key, change.to._tag)
      }
      assert.deepStrictEqual([...new Set(last.values())], ["Absent"])
    })
  )

  it.effect(
    "metrics: keys by state, ends by reason, starts, savings that failed; a closed pool's series are gone",
    onSystem(function*() {
      const series = Effect.map(
        Metric.snapshot,
        (all) =>
          Object.fromEntries(all.flatMap(({ attributes = {}, id, state, type }) => {
            if (attributes["pool"] !== "metered") return []
            const name = [id.replace("treeline_pool_", ""), attributes["state"] ?? attributes["reason"] ?? []].flat()
              .join(" ")
            return [[
              name,
              type === "Gauge" ? Number(state.value) : (state as { readonly count: number }).count
            ]]
          }))
      )
      const store = new Store()
      const scope = yield* Scope.make()
      const { pool } = yield* Scope.provide(tenants({ name: "metered", store, idle: { after: 5000 } }), scope)
      yield* passing(Effect.forEach(["a", "b", "c"], pool.ensure))
      store.failures.push("once")
      yield* passing(pool.shutdown("a"))
      yield* advance(4500)
      yield* pool.touch("b")
      yield* advance(400)
      assert.deepStrictEqual(yield* series, {
        "keys Building": 0,
        "keys Live": 1,
        "keys Retiring": 0,
        "ends_total shutdown": 1,
        "ends_total idle": 1,
        "save_failures_total": 1,
        "start_ms": 3
      })
      yield* passing(Scope.close(scope, Exit.void))
      assert.deepStrictEqual(yield* series, {})
    })
  )

  it.effect(
    "what a listener throws changes nothing",
    onSystem(function*() {
      const told: Array<string> = []
      const pool = yield* Pool.make({
        build: (key) => Effect.succeed({ child: process(key, lives) }),
        onEvent: ({ change }) => {
          told.push(change._tag)
          throw new Error("thrown by a listener")
        }
      })
      yield* passing(pool.ensure("a"))
      yield* passing(pool.shutdown("a"))
      assert.deepStrictEqual(told, Array.from({ length: 5 }, () => "State"))
    })
  )

  it.effect(
    "options that can't be used are refused before anything runs",
    onSystem(function*() {
      const build = (key: string) => Effect.succeed({ child: process(key, lives) })
      const wrong: ReadonlyArray<readonly [string, Omit<Pool.Options, "build">]> = [
        ["name", { name: " " }],
        ["startWithin", { startWithin: 0 }],
        ["idle.after", { idle: { after: -1 } }],
        ["idle.after", { idle: { after: "Infinity" as never } }],
        ["idle.activityWithin", { idle: { after: 1, activityWithin: Number.NaN } }],
        ["recycle.age", { recycle: { age: 0 } }],
        ["recycle.uses", { recycle: { uses: 0 } }],
        ["recycle.jitter", { recycle: { jitter: 1.5 } }],
        ["capacity.max", { capacity: { max: 0 } }],
        ["capacity.waiting", { capacity: { max: 1, waiting: -1 } }],
        ["capacity.within", { capacity: { max: 1, within: -1 } }],
        ["hooks.within", { hooks: { within: 0 } }]
      ]
      for (const [field, options] of wrong) {
        const error = yield* Effect.flip(Pool.make({ build, ...options }))
        assert.strictEqual(error.field, field)
      }
      const named = yield* Pool.make({ build: () => Effect.succeed({ child: process("a/b", lives) }) })
      assert.strictEqual((yield* failing(named.ensure("a")))._tag, "InvalidSpec")
    })
  )

  it.effect(
    "a pool in which nobody is left keeps nothing: no key, no token, no process",
    onSystem(function*() {
      const store = new Store()
      const { pool } = yield* tenants({ store, idle: { after: 1000 }, capacity: { max: 3, evictAfter: 0 } })
      let token: Pool.Handle["token"] | undefined
      for (let round = 0; round < 300; round++) {
        const handle = yield* passing(pool.ensure(`k${round}`))
        token = handle.token
        yield* Effect.scoped(pool.lease(`k${round}`))
      }
      yield* advance(5000)
      assert.deepStrictEqual((yield* pool.status).keys, [])
      assert.isTrue(Option.isNone(yield* pool.lookupToken(token!)))
      assert.deepStrictEqual(
        yield* (yield* ProcessPlatform.ProcessPlatform).processes.pipe(
          Effect.map((all) => all.filter(({ command }) => command.startsWith("k")))
        ),
        []
      )
    })
  )
})
