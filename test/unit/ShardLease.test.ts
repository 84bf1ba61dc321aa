/** When a runner has to be done with a shard: on a store that a test holds in its hand, under the test clock. */
import { assert, describe, it } from "@effect/vitest"
import { Errors, ShardLease, Watchdog } from "@treeline/core/cluster"
import { Effect, Exit, Fiber, Layer, Logger, References, Scope } from "effect"
import { ClusterError, RunnerAddress, RunnerStorage, ShardId, ShardingConfig } from "effect/cluster"
import { advance, settle } from "../support/Actors.ts"

const runner = RunnerAddress.make("localhost", 1)
const a = ShardId.make("default", 1)
const b = ShardId.make("default", 2)

/** 10 s of lease, renewed every 2 s; everything is killed 3 s before the end, the host 1.5 s before. */
const config = {
  shardLockDisableAdvisory: true,
  shardLockExpiration: 10_000,
  shardLockRefreshInterval: 2000,
  entityTerminationTimeout: 15_000
}

const now = Effect.clockWith((clock) => clock.currentTimeMillis)

const system = Effect.gen(function*() {
  const store = { answerAfter: 0, fails: false, ours: new Set([a, b]), calls: new Array<string>() }
  const deadlines: Array<number | undefined> = []
  const answer = (call: string, asked: Iterable<ShardId.ShardId>) =>
    Effect.gen(function*() {
      store.calls.push(call)
      const ids = [...asked]
      const ours = ids.filter((id) => store.ours.has(id))
      yield* Effect.sleep(store.answerAfter)
      return store.fails ? yield* new ClusterError.PersistenceError({ cause: "the store is away" }) : ours
    })
  const storage = RunnerStorage.RunnerStorage.of({
    ...yield* RunnerStorage.makeMemory,
    acquire: (_, ids) => answer("acquire", ids),
    refresh: (_, ids) => answer("refresh", ids),
    release: (_, id) => Effect.sync(() => void store.calls.push(`release ${String(id)}`)),
    releaseAll: () => Effect.sync(() => void store.calls.push("release all"))
  })
  const context = yield* Layer.build(
    ShardLease.layer().pipe(
      Layer.provide([
        Layer.succeed(RunnerStorage.RunnerStorage, storage),
        Layer.succeed(Watchdog.Watchdog, {
          start: Effect.succeed({
            set: (deadline: number | undefined) => Effect.sync(() => void deadlines.push(deadline))
          })
        }),
        ShardingConfig.layer(config)
      ])
    )
  )
  const lease = yield* ShardLease.ShardLease.pipe(Effect.provide(context))
  const locks = yield* RunnerStorage.RunnerStorage.pipe(Effect.provide(context))
  const log: Array<string> = []
  /** Something that runs in a shard; `left` makes its end fail, `killTime` makes its kill take its time. */
  const hold = Effect.fnUntraced(function*(shard: ShardId.ShardId, name: string) {
    const scope = yield* Scope.make()
    const holder = { left: false, killTime: 0, close: Scope.close(scope, Exit.void) }
    const say = (what: string) => Effect.map(now, (at) => void log.push(`${at} ${name} ${what}`))
    yield* lease.hold(shard, {
      end: Effect.suspend(() => holder.left ? Effect.fail("left over") : say("ended")),
      kill: Effect.suspend(() => Effect.andThen(Effect.sleep(holder.killTime), say("killed")))
    }).pipe(Scope.provide(scope))
    return holder
  })
  return {
    store,
    deadlines,
    lease,
    locks,
    log,
    hold,
    held: (shard: ShardId.ShardId) => Effect.isSuccess(lease.check(shard))
  }
})

const on = <A, E>(test: (parts: Effect.Success<typeof system>) => Effect.Effect<A, E, Scope.Scope>) => () =>
  Effect.flatMap(system, test).pipe(
    Effect.provide(Logger.layer([])),
    Effect.provideService(References.MinimumLogLevel, "None")
  )

describe("the lease of a shard", () => {
  it.effect(
    "a store that has gone silent: all is killed a margin before the end, once, and nothing is started after that",
    on(({ deadlines, held, hold, lease, locks, log, store }) =>
      Effect.gen(function*() {
        yield* locks.acquire(runner, [a, b])
        yield* hold(a, "one")
        yield* advance(2000)
        yield* locks.refresh(runner, [a, b])
        store.fails = true
        yield* advance(6999)
        assert.deepStrictEqual(log, [])
        assert.isTrue(yield* held(a))
        yield* advance(1)
        assert.deepStrictEqual(log, ["9000 one killed"])
        assert.isFalse(yield* held(a))
        const { shard } = yield* Effect.flip(lease.check(a))
        assert.strictEqual(shard, "default:1")
        // The watchdog would have ended the host half a margin before the end; there is nothing left to end.
        assert.deepStrictEqual(deadlines, [8500, 10_500, undefined])
        yield* advance(60_000)
        assert.strictEqual(log.length, 1)
      })
    )
  )

  it.effect(
    "a lease counts from the moment when it was asked for, not from the answer",
    on(({ held, locks, store }) =>
      Effect.gen(function*() {
        store.answerAfter = 4000
        const acquiring = yield* Effect.forkChild(locks.acquire(runner, [a]))
        yield* advance(4000)
        yield* Fiber.join(acquiring)
        assert.isTrue(yield* held(a))
        yield* advance(2999)
        assert.isTrue(yield* held(a))
        yield* advance(1)
        assert.isFalse(yield* held(a))
      })
    )
  )

  it.effect(
    "the store says that a shard is another's: what runs in it is killed at once, what runs in others goes on",
    on(({ deadlines, held, hold, locks, log, store }) =>
      Effect.gen(function*() {
        yield* locks.acquire(runner, [a, b])
        const one = yield* hold(a, "one")
        yield* hold(b, "two")
        one.killTime = 100
        yield* advance(1000)
        store.ours.delete(a)
        yield* locks.refresh(runner, [a, b])
        assert.isFalse(yield* held(a))
        yield* advance(100)
        assert.deepStrictEqual(log, ["1100 one killed"])
        assert.isTrue(yield* held(b))
        // The host has half a margin for that, and then again as long as the other lease lasts.
        assert.deepStrictEqual(deadlines, [8500, 2500, 9500])
        yield* advance(1000)
        store.ours.add(a)
        yield* locks.refresh(runner, [b])
        assert.isFalse(yield* held(a), "not by a refresh that did not ask for it")
        yield* locks.acquire(runner, [a])
        assert.isTrue(yield* held(a))
      })
    )
  )

  it.effect(
    "a kill that hangs is left to the watchdog, whose deadline stays",
    on(({ deadlines, hold, locks, log }) =>
      Effect.gen(function*() {
        yield* locks.acquire(runner, [a])
        const one = yield* hold(a, "one")
        one.killTime = 60_000
        yield* advance(20_000)
        assert.deepStrictEqual([log, deadlines], [[], [8500]])
      })
    )
  )

  it.effect(
    "the store answers again, and nobody has had the shard: it is held again after the kill",
    on(({ held, hold, lease, locks, log }) =>
      Effect.gen(function*() {
        yield* locks.acquire(runner, [a])
        yield* hold(a, "one")
        yield* advance(7000)
        assert.deepStrictEqual(log, ["7000 one killed"])
        const waiting = yield* Effect.forkChild(lease.awaitHeld(a))
        yield* advance(100)
        assert.isUndefined(waiting.pollUnsafe())
        yield* locks.refresh(runner, [a])
        yield* settle
        assert.isTrue(Exit.isSuccess(yield* Fiber.await(waiting)))
        assert.isTrue(yield* held(a))
        yield* advance(7000)
        assert.deepStrictEqual(log, ["7000 one killed", "14100 one killed"])
      })
    )
  )

  it.effect(
    "the watchdog has no deadline while nothing runs, and one from the first thing that does",
    on(({ deadlines, hold, locks }) =>
      Effect.gen(function*() {
        yield* locks.acquire(runner, [a])
        yield* advance(1000)
        yield* locks.refresh(runner, [a])
        assert.deepStrictEqual(deadlines, [])
        const one = yield* hold(a, "one")
        const two = yield* hold(a, "two")
        assert.deepStrictEqual(deadlines, [9500])
        yield* one.close
        assert.deepStrictEqual(deadlines, [9500])
        yield* two.close
        assert.deepStrictEqual(deadlines, [9500, undefined])
      })
    )
  )

  it.effect(
    "the lock of a shard is given back only when nothing is left in it, however often that is asked for",
    on(({ held, hold, locks, log, store }) =>
      Effect.gen(function*() {
        yield* locks.acquire(runner, [a])
        const one = yield* hold(a, "one")
        one.left = true
        yield* one.close
        assert.deepStrictEqual(log, [])
        for (const release of [locks.release(runner, a), locks.releaseAll(runner)]) {
          const releasing = yield* Effect.forkChild(Effect.exit(release))
          yield* advance(1000)
          assert.isTrue(Exit.isFailure(yield* Fiber.join(releasing)))
        }
        assert.deepStrictEqual(store.calls, ["acquire"])
        one.left = false
        yield* locks.release(runner, a)
        assert.deepStrictEqual([log, store.calls], [["2000 one ended"], ["acquire", "release default:1"]])
        assert.isFalse(yield* held(a))
      })
    )
  )

  it.effect(
    "when the lease is over, what is left does not keep the lock: it keeps nobody out any more",
    on(({ hold, locks, store }) =>
      Effect.gen(function*() {
        yield* locks.acquire(runner, [a])
        const one = yield* hold(a, "one")
        one.left = true
        yield* one.close
        yield* advance(7000)
        yield* locks.releaseAll(runner)
        assert.deepStrictEqual(store.calls, ["acquire", "release all"])
      })
    )
  )

  it.effect(
    "the answer to a refresh that comes after the lock was given back counts for nothing",
    on(({ held, locks, store }) =>
      Effect.gen(function*() {
        yield* locks.acquire(runner, [a])
        store.answerAfter = 500
        const refreshing = yield* Effect.forkChild(locks.refresh(runner, [a]))
        yield* settle
        yield* locks.release(runner, a)
        yield* advance(500)
        yield* Fiber.join(refreshing)
        assert.isFalse(yield* held(a))
      })
    )
  )

  it.effect(
    "work under a lease goes on while it is renewed, and is interrupted when it ends",
    on(({ lease, locks, store }) =>
      Effect.gen(function*() {
        yield* locks.acquire(runner, [a, b])
        const interrupted: Array<number> = []
        const work = Effect.onInterrupt(Effect.never, () => Effect.map(now, (at) => void interrupted.push(at)))
        const untilEnd = yield* Effect.forkChild(Effect.flip(lease.during(a, work)))
        const untilLost = yield* Effect.forkChild(Effect.flip(lease.during(b, work)))
        assert.strictEqual(yield* lease.during(a, Effect.succeed("done")), "done")
        yield* advance(5000)
        yield* locks.refresh(runner, [a, b])
        yield* advance(7000)
        assert.deepStrictEqual(interrupted, [])
        store.ours.delete(b)
        yield* locks.refresh(runner, [b])
        yield* settle
        assert.deepStrictEqual(interrupted, [12_000])
        // The lease lasts until 15,000; a quarter of the margin after what runs was killed there is an end to this too.
        yield* advance(3000)
        assert.deepStrictEqual(interrupted, [12_000, 12_750])
        for (const fiber of [untilEnd, untilLost]) {
          assert.instanceOf(yield* Fiber.join(fiber), Errors.LeaseLost)
        }
      })
    )
  )

  it.effect("a configuration that can't keep the promise is refused, and the field is named", () =>
    Effect.gen(function*() {
      const fieldOf = (changes: Partial<typeof ShardingConfig.ShardingConfig.Service>, margin = 3000) =>
        Layer.build(ShardLease.layer({ margin })).pipe(
          Effect.provide([
            RunnerStorage.layerMemory,
            Watchdog.layerNone,
            ShardingConfig.layer({ ...config, ...changes })
          ]),
          Effect.flip,
          Effect.map((error) => "field" in error ? error.field : error._tag)
        )
      assert.strictEqual(yield* fieldOf({ shardLockDisableAdvisory: false }), "shardLockDisableAdvisory")
      assert.strictEqual(yield* fieldOf({}, 0), "margin")
      assert.strictEqual(yield* fieldOf({}, 6000), "margin")
      assert.strictEqual(yield* fieldOf({}, NaN), "margin")
      assert.strictEqual(yield* fieldOf({ shardLockExpiration: "forever" as never }), "shardLockExpiration")
      // A refresh is asked for at least three times in a lease, whatever the interval says.
      assert.strictEqual(yield* fieldOf({ shardLockRefreshInterval: 60_000 }, 3334), "margin")
      const { stopWithin } = yield* Effect.provide(ShardLease.ShardLease, [
        ShardLease.layer().pipe(
          Layer.provide([RunnerStorage.layerMemory, Watchdog.layerNone, ShardingConfig.layer(config)])
        )
      ])
      assert.strictEqual(stopWithin, 3000)
    }))
})
