/** Pools across machines on a cluster in memory and a simulated system. No real time passes. */
import { assert, describe, it } from "@effect/vitest"
import { Child, Errors, type Pool, type ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { Errors as ClusterErrors, PoolEntity } from "@treeline/core/cluster"
import { SimulatedPlatform } from "@treeline/core/testing"
import { Cause, Effect, Exit, Fiber, Schedule, Schema } from "effect"
import { EntityId, Sharding } from "effect/cluster"
import { advance, lives, onSystem, passing, Simulation, stubborn } from "../support/Actors.ts"
import * as Cluster from "../support/Cluster.ts"

class NoBuild extends Schema.TaggedError<NoBuild>()("NoBuild", { key: Schema.String }) {}

const Work = PoolEntity.make("Work", { endpoint: Schema.String, error: NoBuild })

/** Long enough for shards to find their owner after runners have come or gone. */
const toMove = 6000

const keysOf = (count: number) => Array.from({ length: count }, (_, index) => `key-${index}`)

type Options =
  & Pool.Options<string, NoBuild, ProcessPlatform.ProcessPlatform, NoBuild, never, NoBuild>
  & PoolEntity.Settings

/** A cluster, the state that its keys have saved, and what has happened. */
const world = Effect.gen(function*() {
  const cluster = yield* Cluster.make
  const log: Array<string> = []
  const saved = new Map<string, number>()
  const live = (name: string, options: Partial<Options> = {}) => {
    const copies = new Map<string, number>()
    return PoolEntity.layer(Work, {
      build: (key) =>
        Effect.succeed({
          child: Child.make("child", {
            command: SimulatedPlatform.command(lives, { name: key }),
            shutdown: ShutdownPlan.terminate({ within: 1000 })
          }),
          endpoint: () => Effect.succeed(`${name}/${key}`)
        }),
      hooks: {
        restore: ({ key }) => Effect.sync(() => void copies.set(key, (saved.get(key) ?? 0) + 1)),
        retire: ({ key }) =>
          Effect.sync(() => {
            log.push(`${name} saves ${key}`)
            saved.set(key, copies.get(key)!)
          })
      },
      ...options
    })
  }
  /** A runner that may not have its shards yet. */
  const launch = Effect.fnUntraced(function*(
    port: number,
    options?: Partial<Options>,
    missing?: Cluster.RunnerOptions
  ) {
    const started = yield* cluster.runner(port, live(String(port), options), missing)
    const client = yield* Effect.provideContext(PoolEntity.client(Work), started.context)
    const sharding = yield* Effect.provideContext(Sharding.Sharding, started.context)
    const shardOf = (key: string) => sharding.getShardId(EntityId.make(key), "default")
    return { ...started, client, sharding, shardOf }
  })
  const runner = (...args: Parameters<typeof launch>) => Effect.tap(launch(...args), advance(toMove))
  return { cluster, log, saved, launch, runner }
})

/** Names of what lives, in order. */
const alive = Effect.gen(function*() {
  const processes = yield* (yield* Simulation).alive
  return processes.map(({ command }) => command).sort()
})

const neverTwo = (keys: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const simulation = yield* Simulation
    for (const key of keys) assert.strictEqual(yield* simulation.peakIncarnations(key), 1, key)
  })

describe("calls", () => {
  it.effect(
    "A1: a key has one child in the cluster, whoever asks, and its place crosses the wire",
    onSystem(function*() {
      const { runner } = yield* world
      const simulation = yield* Simulation
      const one = yield* runner(1)
      const two = yield* runner(2)
      const keys = keysOf(20)
      const ask = ({ client }: typeof one) =>
        passing(Effect.forEach(keys, (key) => client(key).ensure, { concurrency: "unbounded" }))
      const first = yield* ask(one)
      assert.deepStrictEqual(yield* ask(two), first)
      assert.strictEqual(yield* simulation.launches, 20)
      const runners = new Set(first.map((place) => place.runner))
      assert.deepStrictEqual([...runners].sort(), ["localhost:1", "localhost:2"])
      for (const place of first) assert.strictEqual(place.endpoint, `${place.runner.slice(-1)}/${place.key}`)
      yield* neverTwo(keys)
    })
  )

  it.effect(
    "A10: callers at the same time on several runners share one build, and its failure",
    onSystem(function*() {
      const { runner } = yield* world
      let builds = 0
      const failing: Partial<Options> = {
        build: (key) => Effect.andThen(Effect.sleep(1000), Effect.suspend(() => (builds++, new NoBuild({ key }))))
      }
      const runners = [yield* runner(1, failing), yield* runner(2, failing)]
      const asking = yield* Effect.forkChild(
        Effect.all(
          runners.flatMap(({ client }) => [client("key").ensure, client("key").ensure].map(Effect.flip)),
          { concurrency: "unbounded" }
        )
      )
      yield* advance(2000)
      const errors = yield* Fiber.join(asking)
      assert.strictEqual(builds, 1)
      for (const error of errors) {
        assert.instanceOf(error, NoBuild)
        assert.strictEqual(error.key, "key")
      }
    })
  )

  it.effect(
    "Touch and Status start nothing and tell what there is",
    onSystem(function*() {
      const { runner } = yield* world
      const { client } = yield* runner(1)
      assert.isFalse(yield* passing(client("key").touch))
      const before = yield* passing(client("key").status)
      assert.deepStrictEqual([before.runner, before.key, before.state], ["localhost:1", "key", { _tag: "Absent" }])
      assert.deepStrictEqual(yield* alive, [])
      yield* passing(client("key").ensure)
      assert.isTrue(yield* passing(client("key").touch))
      const after = yield* passing(client("key").status)
      assert.strictEqual(after.state._tag, "Live")
    })
  )

  it.effect(
    "a defect of build is the caller's defect; the next call is served",
    onSystem(function*() {
      const { cluster, runner } = yield* world
      let calls = 0
      const build: Options["build"] = (key) =>
        ++calls === 1
          ? Effect.die(new Error("a bug"))
          : Effect.succeed({
            child: Child.make("child", {
              command: SimulatedPlatform.command(lives, { name: key }),
              shutdown: ShutdownPlan.kill
            })
          })
      const { client } = yield* runner(1, { build })
      const exit = yield* passing(Effect.exit(client("key").ensure))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      const place = yield* passing(client("key").ensure)
      assert.strictEqual(place.incarnation, 2)
      assert.deepStrictEqual(cluster.unanswered(), ["Keep key"])
    })
  )

  it.effect(
    "a shutdown plan that would outlive the lease is refused before anything runs",
    onSystem(function*() {
      const { runner } = yield* world
      const build: Options["build"] = (key) =>
        Effect.succeed({
          child: Child.make("child", {
            command: SimulatedPlatform.command(lives, { name: key }),
            shutdown: ShutdownPlan.terminate({ within: 3001 })
          })
        })
      const { client } = yield* runner(1, { build })
      const error = yield* passing(Effect.flip(client("key").ensure))
      assert.instanceOf(error, Errors.InvalidSpec)
      assert.strictEqual(error.field, "child.shutdown")
      assert.deepStrictEqual(yield* alive, [])
    })
  )
})

describe("how long a key is kept", () => {
  it.effect(
    "A6: the pool alone decides when a child is idle; then the key is not kept, and its entity goes",
    onSystem(function*() {
      const { cluster, runner, saved } = yield* world
      const { client, sharding } = yield* runner(1, { idle: { after: "10 minutes" } })
      yield* passing(client("key").ensure)
      // The entity is idle for ten times as long as an idle entity may be.
      yield* advance(9 * 60_000)
      assert.deepStrictEqual([yield* alive, cluster.unanswered()], [["key"], ["Keep key"]])
      yield* passing(client("key").touch)
      yield* advance(9 * 60_000)
      assert.deepStrictEqual(yield* alive, ["key"])
      yield* advance(2 * 60_000)
      assert.deepStrictEqual([yield* alive, cluster.unanswered(), saved.get("key")], [[], [], 1])
      yield* advance(2 * 60_000)
      assert.strictEqual(yield* sharding.activeEntityCount, 0)
    })
  )

  it.effect(
    "a child that ends by itself is not kept; the next Ensure starts it",
    onSystem(function*() {
      const { cluster, runner } = yield* world
      const simulation = yield* Simulation
      const { client } = yield* runner(1)
      yield* passing(client("key").ensure)
      yield* simulation.kill((yield* simulation.alive)[0]!.pid)
      yield* advance(1000)
      assert.deepStrictEqual(cluster.unanswered(), [])
      const place = yield* passing(client("key").ensure)
      assert.strictEqual(place.incarnation, 2)
      assert.deepStrictEqual(cluster.unanswered(), ["Keep key"])
    })
  )

  it.effect(
    "a life is kept by one message, however often it is asked for",
    onSystem(function*() {
      const { cluster, runner } = yield* world
      const { client } = yield* runner(1)
      yield* passing(Effect.all(Array.from({ length: 20 }, () => client("key").ensure), { concurrency: "unbounded" }))
      for (let time = 0; time < 5; time++) yield* passing(client("key").ensure)
      assert.deepStrictEqual(cluster.unanswered(), ["Keep key"])
    })
  )

  it.effect(
    "A4: Shutdown ends the child, saves its state, and the key stays down on whatever runner comes",
    onSystem(function*() {
      const { cluster, runner, saved } = yield* world
      const { client, close } = yield* runner(1)
      yield* passing(client("key").ensure)
      yield* passing(client("key").shutdown)
      assert.deepStrictEqual([yield* alive, saved.get("key")], [[], 1])
      yield* advance(1000)
      assert.deepStrictEqual(cluster.unanswered(), [])
      yield* passing(close)
      const next = yield* runner(2)
      yield* advance(60_000)
      assert.deepStrictEqual(yield* alive, [])
      yield* passing(next.client("key").ensure)
      yield* passing(next.client("key").shutdown)
      assert.strictEqual(saved.get("key"), 2)
    })
  )
})

describe("a shard moves", () => {
  it.effect(
    "A5: to a runner that joins: the child is ended and its state saved first, then it is restored over there",
    onSystem(function*() {
      const { log, runner, saved } = yield* world
      const simulation = yield* Simulation
      const one = yield* runner(1)
      const keys = keysOf(12)
      yield* passing(Effect.forEach(keys, (key) => one.client(key).ensure, { concurrency: "unbounded" }))
      const two = yield* runner(2)
      const places = yield* passing(Effect.forEach(keys, (key) => two.client(key).status))
      const moved = places.filter((place) => place.runner === "localhost:2").map(({ key }) => key)
      assert.isNotEmpty(moved)
      assert.isBelow(moved.length, 12)
      assert.deepStrictEqual(places.map(({ state }) => state._tag), keys.map(() => "Live"))
      assert.deepStrictEqual(log.slice().sort(), moved.map((key) => `1 saves ${key}`).sort())
      for (const key of keys) assert.strictEqual(saved.get(key), moved.includes(key) ? 1 : undefined)
      assert.deepStrictEqual(yield* alive, keys.slice().sort())
      assert.strictEqual(yield* simulation.launches, 12 + moved.length)
      yield* neverTwo(keys)
      // And back, with what was saved there.
      yield* passing(two.close)
      yield* advance(toMove)
      assert.deepStrictEqual(yield* alive, keys.slice().sort())
      for (const key of moved) assert.strictEqual(saved.get(key), 2)
      yield* neverTwo(keys)
    })
  )

  it.effect(
    "to the next process of the same runner: it waits like any other until the last one is certain to be done",
    onSystem(function*() {
      const { runner } = yield* world
      const first = yield* runner(1)
      const keys = keysOf(12)
      yield* passing(Effect.forEach(keys, (key) => first.client(key).ensure, { concurrency: "unbounded" }))
      yield* first.stop
      const second = yield* runner(1)
      assert.isFalse(second.sharding.hasShardId(second.shardOf("key-0")))
      yield* advance(6000)
      assert.isTrue(first.isDead())
      assert.deepStrictEqual(yield* alive, keys.slice().sort())
      yield* neverTwo(keys)
    })
  )

  it.effect(
    "a child that takes its time keeps the shard until it has gone",
    onSystem(function*() {
      const { cluster, runner } = yield* world
      const build: Options["build"] = (key) =>
        Effect.succeed({
          child: Child.make("child", {
            command: SimulatedPlatform.command(stubborn, { name: key }),
            shutdown: ShutdownPlan.terminate({ within: 3000 })
          })
        })
      const one = yield* runner(1, { build })
      yield* passing(Effect.forEach(keysOf(12), (key) => one.client(key).ensure, { concurrency: "unbounded" }))
      const closing = yield* Effect.forkChild(one.close, { startImmediately: true })
      yield* advance(2900)
      assert.lengthOf(yield* alive, 12)
      for (const key of keysOf(12)) {
        assert.strictEqual(cluster.store.ownerOf(String(one.shardOf(key))), "localhost:1")
      }
      yield* advance(1000)
      yield* Fiber.join(closing)
      assert.lengthOf(yield* alive, 0)
      assert.isUndefined(cluster.store.ownerOf(String(one.shardOf("key-1"))))
    })
  )

  it.effect(
    "while it is built: the build is given up, and whoever waits is answered by the next owner",
    onSystem(function*() {
      const { runner } = yield* world
      const one = yield* runner(1, { build: () => Effect.never })
      const answers = new Map<string, string>()
      for (const key of keysOf(12)) {
        const asking = Effect.map(one.client(key).ensure, (place) => void answers.set(key, place.runner))
        yield* Effect.forkScoped(Effect.ignore(asking))
      }
      yield* advance(1000)
      const two = yield* runner(2)
      const moved = keysOf(12).filter((key) => two.sharding.hasShardId(two.shardOf(key)))
      assert.isNotEmpty(moved)
      assert.deepStrictEqual([...answers.keys()].sort(), moved.sort())
      assert.deepStrictEqual([...new Set(answers.values())], ["localhost:2"])
      for (const key of keysOf(12).filter((key) => !moved.includes(key))) {
        assert.strictEqual((yield* passing(two.client(key).status)).state._tag, "Building")
      }
    })
  )

  it.effect(
    "KeyMoving is what a caller gets whose key goes while it is built",
    onSystem(function*() {
      const { runner } = yield* world
      const one = yield* runner(1, { build: () => Effect.never })
      const call = yield* Effect.provideContext(Work.client, one.context)
      const asking = yield* Effect.forkChild(Effect.exit(call("key").Ensure()), { startImmediately: true })
      yield* advance(1000)
      yield* Effect.forkChild(one.close, { startImmediately: true })
      yield* advance(1000)
      const exit = yield* Fiber.join(asking)
      const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : exit.value
      assert.instanceOf(error, ClusterErrors.KeyMoving)
    })
  )

  it.effect(
    "a key that does not come up on its new owner is tried again, and given up when the schedule ends",
    onSystem(function*() {
      const { cluster, runner } = yield* world
      const one = yield* runner(1)
      yield* passing(one.client("key").ensure)
      let builds = 0
      const resume = Schedule.upTo(Schedule.spaced("1 second"), { times: 3 })
      const build: Options["build"] = (key) => Effect.suspend(() => (builds++, new NoBuild({ key })))
      yield* passing(one.close)
      const two = yield* runner(2, { build, resume })
      yield* advance(10_000)
      assert.strictEqual(builds, 4)
      assert.deepStrictEqual(cluster.unanswered(), [])
      assert.isNotNull(two)
    })
  )

  it.effect(
    "Shutdown ends the attempts to bring a key up",
    onSystem(function*() {
      const { cluster, runner } = yield* world
      const one = yield* runner(1)
      yield* passing(one.client("key").ensure)
      yield* passing(one.close)
      let builds = 0
      const build: Options["build"] = (key) => Effect.suspend(() => (builds++, new NoBuild({ key })))
      const two = yield* runner(2, { build })
      assert.isAbove(builds, 0)
      yield* passing(two.client("key").shutdown)
      yield* advance(1000)
      const before = builds
      yield* advance(60_000)
      assert.deepStrictEqual([builds, cluster.unanswered()], [before, []])
    })
  )

  it.effect(
    "a Shutdown that waits for the next owner is not overtaken by what keeps the key",
    onSystem(function*() {
      const { cluster, runner } = yield* world
      const build: Options["build"] = (key) =>
        Effect.succeed({
          child: Child.make("child", {
            command: SimulatedPlatform.command(stubborn, { name: key }),
            shutdown: ShutdownPlan.terminate({ within: 3000 })
          }),
          endpoint: () => Effect.succeed(key)
        })
      const one = yield* runner(1, { build })
      const two = yield* runner(2, { build })
      const keys = keysOf(12)
      yield* passing(Effect.forEach(keys, (key) => one.client(key).ensure, { concurrency: "unbounded" }))
      yield* Effect.forkChild(one.close, { startImmediately: true })
      // The shards are the other one's by now, and their locks are not.
      yield* advance(1000)
      const asking = keys.map((key) => two.client(key).shutdown)
      yield* passing(Effect.all(asking, { concurrency: "unbounded" }))
      yield* advance(60_000)
      assert.deepStrictEqual([yield* alive, cluster.unanswered()], [[], []])
    })
  )

  it.effect(
    "of several messages that stand for a key one is left",
    onSystem(function*() {
      const { cluster, runner } = yield* world
      const child = Child.make("child", {
        command: SimulatedPlatform.command(lives, { name: "key" }),
        shutdown: ShutdownPlan.kill
      })
      const built = { child, endpoint: () => Effect.succeed("here") }
      const one = yield* runner(1, { build: () => Effect.as(Effect.sleep(3000), built) })
      const client = yield* Effect.provideContext(Work.client, one.context)
      const { Keep } = client("key") as unknown as {
        readonly Keep: (payload: object, options: { readonly discard: true }) => Effect.Effect<void>
      }
      for (const life of ["a", "b", "c"]) yield* passing(Keep({ life, incarnation: 1 }, { discard: true }))
      yield* advance(5000)
      assert.deepStrictEqual([yield* alive, cluster.unanswered()], [["key"], ["Keep key"]])
    })
  )

  it.effect(
    "a life is kept by one message, though callers and the messages of the last owner meet on the next one",
    onSystem(function*() {
      const { cluster, launch, runner } = yield* world
      const keys = keysOf(12)
      let last = yield* runner(1)
      yield* passing(Effect.forEach(keys, (key) => last.client(key).ensure, { concurrency: "unbounded" }))
      for (let port = 2; port < 5; port++) {
        yield* passing(last.close)
        last = yield* launch(port)
        for (const key of keys) yield* Effect.forkScoped(Effect.ignore(last.client(key).ensure))
        yield* advance(toMove)
        assert.deepStrictEqual(cluster.unanswered().slice().sort(), keys.map((key) => `Keep ${key}`).sort())
        assert.deepStrictEqual(yield* alive, keys.slice().sort())
      }
      yield* neverTwo(keys)
    })
  )

  it.effect(
    "state that can't be saved keeps the shard, so that nobody starts from an older one",
    onSystem(function*() {
      const { cluster, runner, saved } = yield* world
      let broken = true
      const hooks: Options["hooks"] = {
        retire: ({ key }) => broken ? Effect.fail("no space") : Effect.sync(() => void saved.set(key, 7)),
        retry: Schedule.upTo(Schedule.spaced(100), { times: 2 })
      }
      const one = yield* runner(1, { hooks })
      const keys = keysOf(12)
      yield* passing(Effect.forEach(keys, (key) => one.client(key).ensure, { concurrency: "unbounded" }))
      const two = yield* runner(2)
      yield* advance(30_000)
      const stuck = keys.filter((key) => !one.sharding.hasShardId(one.shardOf(key)))
      assert.isNotEmpty(stuck)
      for (const key of stuck) assert.strictEqual(cluster.store.ownerOf(String(one.shardOf(key))), "localhost:1")
      assert.lengthOf(yield* alive, 12 - stuck.length)
      broken = false
      yield* advance(10_000)
      for (const key of stuck) assert.strictEqual(saved.get(key), 7)
      assert.lengthOf(yield* alive, 12)
      for (const key of stuck) {
        assert.strictEqual((yield* passing(two.client(key).status)).runner, "localhost:2")
      }
      yield* neverTwo(keys)
    })
  )
})

describe("the store can't be reached", () => {
  it.effect(
    "by one runner: its children are ended by their own plan before anybody else can have their shards",
    onSystem(function*() {
      const { cluster, log, runner } = yield* world
      const one = yield* runner(1)
      const two = yield* runner(2)
      const keys = keysOf(12)
      const places = yield* passing(Effect.forEach(keys, (key) => one.client(key).ensure, { concurrency: "unbounded" }))
      const mine = places.filter((place) => place.runner === "localhost:1").map(({ key }) => key)
      one.link.broken = "requests"
      let last = 0
      for (let time = 0; time < 10_000; time += 100) {
        yield* advance(100)
        const left = (yield* alive).filter((key) => mine.includes(key))
        const owned = mine.some((key) => cluster.store.ownerOf(String(one.shardOf(key))) !== "localhost:1")
        if (left.length > 0) last = time
        if (owned) break
      }
      assert.isBelow(last, 8000)
      assert.deepStrictEqual(
        log.filter((line) => line.startsWith("1 saves")).sort(),
        mine.map((key) => `1 saves ${key}`).sort()
      )
      yield* advance(10_000)
      assert.deepStrictEqual(yield* alive, keys.slice().sort(), "all are up on the other one")
      yield* neverTwo(keys)
      one.link.broken = undefined
      yield* advance(20_000)
      assert.deepStrictEqual(yield* alive, keys.slice().sort())
      yield* neverTwo(keys)
      assert.isNotNull(two)
    })
  )

  it.effect(
    "by one runner whose children don't end: they are killed a margin before the lease ends",
    onSystem(function*() {
      const { runner } = yield* world
      // The plan is within the limit; what saves the state hangs.
      const hooks: Options["hooks"] = { retire: () => Effect.never }
      const one = yield* runner(1, { hooks })
      const two = yield* runner(2, { hooks })
      const keys = keysOf(12)
      yield* passing(Effect.forEach(keys, (key) => one.client(key).ensure, { concurrency: "unbounded" }))
      one.link.broken = "requests"
      yield* advance(40_000)
      assert.isNotNull(two)
      assert.deepStrictEqual(yield* alive, keys.slice().sort())
      yield* neverTwo(keys)
    })
  )

  it.effect(
    "what is saved when the lease is over does not hold up the word that nothing runs any more",
    onSystem(function*() {
      const { runner } = yield* world
      const { client, deadline, link } = yield* runner(1, { hooks: { retire: () => Effect.never } })
      yield* passing(client("key").ensure)
      link.broken = "requests"
      for (let waited = 0; (yield* alive).length > 0; waited += 100) {
        assert.isBelow(waited, 10_000)
        yield* advance(100)
      }
      // Ended by its plan; the watchdog counts on until the lease is nearly over, and then it is told.
      assert.isDefined(deadline())
      yield* advance(5000)
      assert.isUndefined(deadline())
    })
  )

  it.effect(
    "a runner without a watchdog that goes on too late: a build that ends then starts nothing",
    onSystem(function*() {
      const { runner } = yield* world
      const build: Options["build"] = (key) =>
        Effect.as(Effect.sleep(3000), {
          child: Child.make("child", {
            command: SimulatedPlatform.command(lives, { name: key }),
            shutdown: ShutdownPlan.terminate({ within: 1000 })
          }),
          endpoint: () => Effect.succeed(key)
        })
      const one = yield* runner(1, { build }, { without: "watchdog" })
      const two = yield* runner(2, { build })
      const keys = keysOf(12)
      for (const key of keys) yield* Effect.forkScoped(Effect.ignore(two.client(key).ensure))
      yield* advance(1000)
      const mine = keys.filter((key) => one.sharding.hasShardId(one.shardOf(key)))
      yield* one.stop
      yield* advance(2000)
      assert.lengthOf(yield* alive, keys.length - mine.length)
      yield* advance(30_000)
      yield* passing(Effect.forEach(mine, (key) => two.client(key).ensure, { concurrency: "unbounded" }))
      // The store does not answer before the builds are over.
      one.link.latency = 100
      yield* one.resume
      yield* advance(1000)
      yield* neverTwo(keys)
      assert.isNotEmpty(mine)
    })
  )

  it.effect(
    "a runner that goes on too late, and nobody has taken its shards: the child is killed, and comes up again",
    onSystem(function*() {
      const { cluster, runner } = yield* world
      const simulation = yield* Simulation
      const one = yield* runner(1, {}, { without: "watchdog" })
      yield* passing(one.client("key").ensure)
      yield* one.stop
      yield* advance(8500)
      // The store does not answer before the lease is seen to be over.
      one.link.latency = 100
      yield* one.resume
      yield* advance(5000)
      assert.deepStrictEqual([yield* alive, cluster.unanswered()], [["key"], ["Keep key"]])
      assert.strictEqual(yield* simulation.launches, 2)
      yield* neverTwo(["key"])
    })
  )

  it.effect(
    "a lock that is lost: the child is killed at once, nothing is saved over what the next owner does, and it comes up",
    onSystem(function*() {
      const { cluster, log, runner, saved } = yield* world
      const one = yield* runner(1)
      yield* passing(one.client("key").ensure)
      const shard = String(one.shardOf("key"))
      cluster.store.steal(shard)
      yield* advance(2100)
      assert.deepStrictEqual([log, saved.get("key")], [[], undefined])
      yield* advance(toMove)
      assert.deepStrictEqual(yield* alive, ["key"])
      yield* neverTwo(["key"])
    })
  )

  it.effect(
    "the watchdog counts while a key lives, and not without one",
    onSystem(function*() {
      const { runner } = yield* world
      const { client, deadline } = yield* runner(1)
      assert.isUndefined(deadline())
      yield* passing(client("key").ensure)
      assert.isDefined(deadline())
      yield* passing(client("key").shutdown)
      yield* advance(3 * 60_000)
      assert.isUndefined(deadline())
    })
  )
})
