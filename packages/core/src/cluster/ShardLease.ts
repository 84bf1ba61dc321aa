/**
 * For how long the shards of a runner are its own, measured so that no process runs in a shard that may be another
 * runner's.
 *
 * The store of a cluster gives a shard to another runner when its owner has not renewed the lock for
 * `shardLockExpiration`. The owner has to be done before that, even when the store does not answer, when the owner's own
 * event loop is blocked, or when it is stopped. So this layer stands between `Sharding` and its `RunnerStorage`: it takes
 * the time before each renewal is asked for, and when a lease has only `margin` left, it ends what runs in the shard at
 * once. At half of the margin the watchdog ends the host. A lock is given back only when nothing is left that runs under
 * it. And it belongs to one life of a runner: the next process at the same address waits like any other runner, because
 * what the last one has left may still be on its way out.
 *
 * What this cannot cover is in docs/cluster.md.
 */
import * as Clock from "effect/Clock"
import { PersistenceError } from "effect/cluster/ClusterError"
import { make as runnerAddress, type RunnerAddress } from "effect/cluster/RunnerAddress"
import { RunnerStorage } from "effect/cluster/RunnerStorage"
import type { ShardId } from "effect/cluster/ShardId"
import { ShardingConfig } from "effect/cluster/ShardingConfig"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { InvalidSpec } from "../Errors.ts"
import { monotonic } from "../internal/Time.ts"
import * as Tokens from "../internal/Tokens.ts"
import { LeaseLost, type WatchdogUnavailable } from "./Errors.ts"
import * as Lease from "./internal/Lease.ts"
import { Watchdog } from "./Watchdog.ts"

/** Something that must not outlive the lease of its shard. */
export interface Holder {
  /**
   * Ends it in its own time; fails as long as something of it is left. Run when its scope closes, and again before the lock
   * of the shard is given back, until it succeeds.
   */
  readonly end: Effect.Effect<void, unknown>
  /** Kills it: the lease is over, or will be in a moment. */
  readonly kill: Effect.Effect<void>
}

/** The leases of this runner. */
export class ShardLease extends Context.Service<ShardLease, {
  /** Ties something to the lease of a shard for as long as the scope lives; done before anything of it is started. */
  readonly hold: (shard: ShardId, holder: Holder) => Effect.Effect<void, never, Scope.Scope>
  /** Fails unless the shard is this runner's for certain, for longer than the margin. */
  readonly check: (shard: ShardId) => Effect.Effect<void, LeaseLost>
  /** Interrupts the effect soon after everything in the shard has been killed, at three quarters of the margin, and fails. */
  readonly during: <A, E, R>(shard: ShardId, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LeaseLost, R>
  /** Waits until `check` succeeds; the caller bounds the wait. */
  readonly awaitHeld: (shard: ShardId) => Effect.Effect<void>
  /** How long a shutdown plan may take until it kills, in ms, so that it is not cut short when the store fails. */
  readonly stopWithin: number
}>()("@treeline/core/cluster/ShardLease") {}

/** What can be chosen; everything has a default. */
export interface Options {
  /**
   * How long before the end of a lease everything in the shard is killed; default 3 s. At half of it the watchdog kills the
   * host, so half of it has to be enough for a dead host's guardian (`hostDeathGrace`, default 500 ms, and a moment).
   */
  readonly margin?: Duration.Input | undefined
}

/** How long the lock of a shard in which something is left is kept before that is tried again, in ms. */
const settlePause = 1000

/** How many random bytes tell the lives of a runner apart. */
const lifeSize = 8

const make = (options: Options) =>
  Effect.gen(function*() {
    const config = yield* ShardingConfig
    const timing = yield* Effect.fromResult(Lease.timing(config, options.margin ?? "3 seconds"))
    const storage = yield* RunnerStorage
    const watchdog = yield* Effect.flatMap(Watchdog, ({ start }) => start)
    const clock = yield* Clock.Clock
    const scope = yield* Effect.scope

    const leases = new Map<string, Lease.Lease>()
    const holders = new Map<string, Set<Holder>>()
    let watched: number | undefined
    /** Something has changed since the loop has looked. */
    let wake = Deferred.makeUnsafe<void>()
    const now = () => monotonic(clock)

    const life = Tokens.toHex(SecureRandom.randomBytesUnsafe(lifeSize))
    /** Whose a lock is in the store. */
    const owner = ({ host, port }: RunnerAddress) => runnerAddress(`${host}#${life}`, port)

    /** Leases in which something runs. */
    const inUse = (): ReadonlyArray<readonly [shard: string, lease: Lease.Lease]> =>
      [...leases].filter(([shard]) => holders.has(shard))

    const changed = Effect.suspend(() => {
      Deferred.doneUnsafe(wake, Exit.void)
      wake = Deferred.makeUnsafe()
      let next: number | undefined
      for (const [, lease] of inUse()) {
        if (lease.phase !== "ended") next = Math.min(next ?? Infinity, lease.killHostAt)
      }
      if (next === watched) return Effect.void
      watched = next
      return watchdog.set(next)
    })

    /** Kills what runs in a shard; until that is done the watchdog goes on counting. */
    const end = (shard: string, lease: Lease.Lease) =>
      Effect.gen(function*() {
        leases.set(shard, { ...lease, phase: "ending" })
        yield* changed
        yield* Effect.logError(`the lease of shard ${shard} is over: what runs in it is killed`)
        yield* Effect.forEach(holders.get(shard) ?? [], ({ kill }) => kill, { concurrency: "unbounded", discard: true })
        const latest = leases.get(shard)
        if (latest !== undefined) leases.set(shard, { ...latest, phase: "ended" })
        yield* changed
      }).pipe(Effect.forkIn(scope, { startImmediately: true }), Effect.asVoid)

    yield* Effect.gen(function*() {
      const look = wake
      let next = Infinity
      for (const [shard, lease] of inUse()) {
        if (lease.phase !== "held") continue
        const at = Lease.killAt(lease, timing)
        if (at <= now()) yield* end(shard, lease)
        else next = Math.min(next, at)
      }
      const woken = Deferred.await(look)
      yield* next === Infinity ? woken : Effect.raceFirst(woken, Effect.sleep(Math.max(0, next - now())))
    }).pipe(Effect.forever, Effect.forkScoped)

    /** The store has said which of the shards that were asked for are this runner's. */
    const answered = (asked: ReadonlyArray<ShardId>, ours: ReadonlyArray<ShardId>, at: number, fresh: boolean) =>
      Effect.gen(function*() {
        const kept = new Set(ours.map(String))
        for (const shard of kept) {
          const lease = leases.get(shard)
          // A refresh that overlapped with the release of the lock says nothing.
          if (lease !== undefined || fresh) leases.set(shard, Lease.renewed(lease, at, timing))
        }
        for (const shard of asked.map(String)) {
          const lease = leases.get(shard)
          if (kept.has(shard) || lease === undefined) continue
          const over = Lease.lost(lease, now(), timing)
          if (lease.phase === "held" && holders.has(shard)) yield* end(shard, over)
          else leases.set(shard, { ...over, phase: lease.phase === "held" ? "ended" : lease.phase })
        }
        yield* changed
      })

    const timed = <E>(
      shardIds: Iterable<ShardId>,
      ask: (shardIds: ReadonlyArray<ShardId>) => Effect.Effect<Array<ShardId>, E>,
      fresh: boolean
    ) =>
      Effect.suspend(() => {
        const asked = [...shardIds]
        const at = now()
        return Effect.tap(ask(asked), (ours) => answered(fresh ? ours : asked, ours, at, fresh))
      })

    /** Makes sure that nothing runs in a shard whose lock is given back. */
    const settle = (shard: string) =>
      Effect.gen(function*() {
        const lease = leases.get(shard)
        // What is left after the end of the lease is not kept from anybody by keeping the lock.
        if (lease === undefined || lease.phase === "ended" || now() >= lease.until) return
        for (const holder of holders.get(shard) ?? []) {
          const exit = yield* Effect.exit(holder.end)
          if (Exit.isSuccess(exit)) remove(shard, holder)
          else {
            yield* Effect.logWarning(`the lock of shard ${shard} is kept, because something is left in it`, exit.cause)
            yield* Effect.sleep(settlePause)
            return yield* new PersistenceError({ cause: exit.cause })
          }
        }
        yield* changed
      })

    const remove = (shard: string, holder: Holder) => {
      const set = holders.get(shard)
      set?.delete(holder)
      if (set?.size === 0) holders.delete(shard)
    }

    const guarded = RunnerStorage.of({
      ...storage,
      acquire: (address, shardIds) => timed(shardIds, (asked) => storage.acquire(owner(address), asked), true),
      refresh: (address, shardIds) =>
        timed(shardIds, (asked) => {
          // The runner itself is known by its address.
          const alive = storage.refresh(address, [])
          return asked.length === 0
            ? alive
            : Effect.zipWith(storage.refresh(owner(address), asked), alive, (ours) => ours, { concurrent: true })
        }, false),
      release: (address, shardId) =>
        settle(String(shardId)).pipe(
          Effect.andThen(storage.release(owner(address), shardId)),
          Effect.andThen(Effect.sync(() => leases.delete(String(shardId)))),
          Effect.asVoid
        ),
      releaseAll: (address) =>
        Effect.forEach([...holders.keys()], settle, { concurrency: "unbounded", discard: true }).pipe(
          Effect.andThen(storage.releaseAll(owner(address))),
          Effect.andThen(Effect.sync(() => leases.clear()))
        )
    })

    const over = (shard: ShardId) => Effect.fail(new LeaseLost({ shard: String(shard) }))

    const isHeld = (shard: ShardId) => Lease.isHeld(leases.get(String(shard)), now(), timing)

    const leftOf = (shard: ShardId) => {
      const lease = leases.get(String(shard))
      return lease === undefined ? 0 : Lease.workUntil(lease, timing) - now()
    }

    const isOver = (shard: ShardId) => leftOf(shard) <= 0

    const awaitOver = (shard: ShardId): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (isOver(shard)) return Effect.void
        const passed = Effect.raceFirst(Deferred.await(wake), Effect.sleep(leftOf(shard)))
        return Effect.andThen(passed, awaitOver(shard))
      })

    const leased = ShardLease.of({
      hold: (shard, holder) =>
        Effect.asVoid(Effect.acquireRelease(
          Effect.suspend(() => {
            const key = String(shard)
            const set = holders.get(key) ?? new Set()
            holders.set(key, set.add(holder))
            return changed
          }),
          () =>
            Effect.flatMap(Effect.exit(holder.end), (exit) => {
              if (Exit.isSuccess(exit)) remove(String(shard), holder)
              return changed
            })
        )),
      check: (shard) => Effect.suspend(() => isHeld(shard) ? Effect.void : over(shard)),
      during: (shard, effect) =>
        Effect.suspend(() =>
          isOver(shard)
            ? over(shard)
            : Effect.raceFirst(effect, Effect.andThen(awaitOver(shard), over(shard)))
        ),
      awaitHeld: (shard) =>
        Effect.suspend(function again(): Effect.Effect<void> {
          const seen = wake
          return isHeld(shard) ? Effect.void : Effect.andThen(Deferred.await(seen), Effect.suspend(again))
        }),
      stopWithin: timing.stopWithin
    })
    return Context.make(ShardLease, leased).pipe(Context.add(RunnerStorage, guarded))
  })

/**
 * The leases, and the `RunnerStorage` that `Sharding` has to use: this one, over the one of the store. The
 * `ShardingConfig` has to be the one that `Sharding` gets; `shardLockDisableAdvisory` has to be set in it.
 */
export const layer = (
  options: Options = {}
): Layer.Layer<
  ShardLease | RunnerStorage,
  InvalidSpec | WatchdogUnavailable,
  RunnerStorage | ShardingConfig | Watchdog
> => Layer.effectContext(make(options))

/**
 * Shards are this runner's until they are given back. For a single runner with its storage in memory, as in tests with
 * `TestRunner`.
 */
export const layerNone: Layer.Layer<ShardLease> = Layer.succeed(ShardLease, {
  hold: (_shard, { end }) => Effect.addFinalizer(() => Effect.ignore(end)),
  check: () => Effect.void,
  during: (_shard, effect) => effect,
  awaitHeld: () => Effect.void,
  stopWithin: Infinity
})
