/**
 * A keyed pool across machines: each key of the whole cluster has at most one process, on the runner that owns the key's
 * shard. The guide is docs/cluster.md.
 *
 * On each runner there is one `Pool`, and an entity for each key that is asked for there. The entity passes calls on to the
 * pool; when its shard leaves the runner, it ends the key's child and saves its state before the shard is given back. A key
 * that lives is also a message in the cluster's storage that is not answered, so the next owner of the shard starts it
 * again.
 */
import * as Cause from "effect/Cause"
import {
  type AlreadyProcessingMessage,
  type EntityNotAssignedToRunner,
  type MailboxFull,
  PersistenceError
} from "effect/cluster/ClusterError"
import * as ClusterSchema from "effect/cluster/ClusterSchema"
import * as Entity from "effect/cluster/Entity"
import { make as entityIdOf } from "effect/cluster/EntityId"
import type { RunnerAddress } from "effect/cluster/RunnerAddress"
import { Sharding } from "effect/cluster/Sharding"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Rpc from "effect/rpc/Rpc"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import {
  CapacityExceeded,
  ChildFailed,
  InvalidSpec,
  Overtaken,
  PoolClosed,
  StartTimedOut,
  Unfinished,
  Unkillable,
  UnsavedState
} from "../Errors.ts"
import * as Pool from "../Pool.ts"
import { KeyStatus } from "../PoolStatus.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import { KeyMoving, LeaseLost } from "./Errors.ts"
import { ShardLease } from "./ShardLease.ts"

/** What crosses the wire without any service. */
type Wire = Schema.Codec<any, any>

const placeOf = <Endpoint extends Wire>(endpoint: Endpoint) =>
  Schema.Struct({
    key: Schema.String,
    runner: Schema.String,
    incarnation: Schema.Int,
    startedAt: Schema.Number,
    endpoint
  })

/** A key at one moment, on the runner that answers. */
export const Status = Schema.Struct({ runner: Schema.String, ...KeyStatus.fields })
export type Status = typeof Status.Type

const rpcs = <Endpoint extends Wire, Failure extends Wire>(endpoint: Endpoint, failure: Failure) =>
  [
    Rpc.make("Ensure", {
      success: placeOf(endpoint),
      error: Schema.Union([
        PoolClosed,
        CapacityExceeded,
        StartTimedOut,
        ChildFailed,
        InvalidSpec,
        Overtaken,
        UnsavedState,
        Unfinished,
        Unkillable,
        KeyMoving,
        PersistenceError,
        failure
      ])
    }).annotate(ClusterSchema.InterruptOnTermination, true),
    Rpc.make("Touch", { success: Schema.Boolean }),
    // In storage, so that it can't overtake the message that keeps the key.
    Rpc.make("Shutdown", { error: Schema.Union([UnsavedState, Unfinished, Unkillable]) }).annotate(
      ClusterSchema.Persisted,
      true
    ),
    Rpc.make("Status", { success: Status })
  ] as const

/**
 * What keeps a key: it stays unanswered for as long as the key's child lives, and finds the next owner of the shard when
 * this one has gone. `life` is that of the entity which has sent it.
 */
const Keep = Rpc.make("Keep", { payload: { life: Schema.String, incarnation: Schema.Int } })
  .annotate(ClusterSchema.Persisted, true)
  .annotate(ClusterSchema.InterruptOnTermination, true)

/** The calls of a pool; see `PoolEntity`. */
export type Rpcs<Endpoint extends Wire, Failure extends Wire> = ReturnType<typeof rpcs<Endpoint, Failure>>[number]

/** The protocol of a pool across machines; `client` makes calls of it. */
export interface PoolEntity<Type extends string, Endpoint extends Wire, Failure extends Wire>
  extends Entity.Entity<Type, Rpcs<Endpoint, Failure>>
{}

/**
 * A pool for the whole cluster, by its name. `endpoint` is what the pool's endpoints are, `error` what its `build`, hooks and
 * endpoints fail with; both cross the wire. Defaults: no endpoint, no failure.
 */
export const make = <
  const Type extends string,
  Endpoint extends Wire = typeof Schema.Void,
  Failure extends Wire = typeof Schema.Never
>(
  type: Type,
  options: { readonly endpoint?: Endpoint; readonly error?: Failure } = {}
): PoolEntity<Type, Endpoint, Failure> =>
  Entity.make(type, [
    ...rpcs(options.endpoint ?? Schema.Void, options.error ?? Schema.Never),
    Keep
  ]) as unknown as PoolEntity<Type, Endpoint, Failure>

/** Where the child of a key is. `incarnation` counts on its runner; `startedAt` is ms, wall clock of the runner. */
export interface Place<out A> {
  readonly key: string
  /** `host:port` of the runner, as the cluster knows it. */
  readonly runner: string
  readonly incarnation: number
  readonly startedAt: number
  readonly endpoint: A
}

/** Why a call does not arrive. */
export type CallError = MailboxFull | AlreadyProcessingMessage | PersistenceError | EntityNotAssignedToRunner

/**
 * The calls for one key. Each goes to the owner of the key's shard, and waits while there is none; the caller bounds the
 * wait.
 */
export interface Client<out A, out E> {
  /**
   * The child of the key, started if there is none. When this has been answered, the key is kept: should its runner die or
   * its shard move, it comes up on the next owner. That ends with the child, however it ends: idle, evicted, shut down, or
   * by itself.
   */
  readonly ensure: Effect.Effect<Place<A>, E | Pool.EnsureError | CallError>
  /** Counts as a use; false when the key has no child. Starts nothing. */
  readonly touch: Effect.Effect<boolean, CallError>
  /**
   * Ends the child and saves its state; the key is not kept any more. Goes through the cluster's storage, so it is carried
   * out even if a runner dies meanwhile.
   */
  readonly shutdown: Effect.Effect<void, Pool.Blocked | CallError>
  /** Starts nothing. */
  readonly status: Effect.Effect<Status, CallError>
}

/** Between two calls for a key that is on its way to another runner, in ms. */
const movingPause = 200

/**
 * The calls of a pool, from any member of the cluster.
 *
 * @example
 * ```ts no-run
 * import { PoolEntity } from "@treeline/core/cluster"
 * import { Effect, Schema } from "effect"
 *
 * const Workspaces = PoolEntity.make("Workspaces", { endpoint: Schema.String })
 *
 * export const urlOf = (workspace: string) =>
 *   Effect.gen(function*() {
 *     const workspaces = yield* PoolEntity.client(Workspaces)
 *     const { endpoint } = yield* Effect.timeout(workspaces(workspace).ensure, "2 minutes")
 *     return endpoint
 *   })
 * ```
 */
export const client = <Type extends string, Endpoint extends Wire, Failure extends Wire>(
  self: PoolEntity<Type, Endpoint, Failure>
): Effect.Effect<(key: string) => Client<Endpoint["Type"], Failure["Type"]>, never, Sharding> =>
  Effect.map(internal(self).client, (clientOf) => (key) => {
    const calls = clientOf(key)
    const ensure = Effect.retry(calls.Ensure(), {
      while: (error) => error instanceof KeyMoving,
      schedule: Schedule.spaced(movingPause)
    })
    return {
      ensure,
      touch: calls.Touch(),
      shutdown: calls.Shutdown(),
      status: calls.Status()
    }
  })

/** What can be chosen beside the options of the pool. */
export interface Settings {
  /**
   * When the build of a key that comes from another runner is tried again; when this ends, the key is not kept any more.
   * Default: ten times, after 500 ms and then twice as long each time, up to 30 s.
   */
  readonly resume?: Schedule.Schedule<unknown, unknown> | undefined
}

const defaultResume = Schedule.upTo(
  Schedule.min([Schedule.exponential("500 millis"), Schedule.spaced("30 seconds")]),
  { times: 10 }
)

/** The pool as this module sees it: what is specific to a user's pool crosses it unlooked at. */
type AnyPool = Pool.Pool<unknown, unknown>

/** With all that it answers. */
const internal = (self: unknown) =>
  self as Entity.Entity<string, Rpcs<typeof Schema.Unknown, typeof Schema.Unknown> | typeof Keep>

const nameOf = ({ host, port }: RunnerAddress) => `${host}:${port}`

/** What is told of a key of which there is nothing. */
const absent = (key: string): KeyStatus => ({
  key,
  state: { _tag: "Absent" },
  callers: 0,
  leases: 0,
  uses: 0,
  usedAt: null,
  due: false
})

/** One key on its runner. */
const entityOf = (self: unknown, pool: AnyPool, resume: Schedule.Schedule<unknown, unknown>) =>
  Effect.gen(function*() {
    const sharding = yield* Sharding
    const lease = yield* ShardLease
    const { entityId: key, shardId } = yield* Entity.CurrentAddress
    const runner = nameOf(yield* Entity.CurrentRunnerAddress)
    const client = (yield* internal(self).client)(key)
    const scope = yield* Effect.scope
    const life = String(yield* sharding.getSnowflake)
    const moving = new KeyMoving({ key, runner })

    /** The living child that this has started. */
    let current: Pool.Handle<unknown> | undefined
    /** The incarnation that is kept, once the message is in storage. */
    let kept: { readonly incarnation: number; readonly saved: Effect.Effect<void, PersistenceError> } | undefined
    /** A message that this entity has not sent stands for the key. */
    let resuming = false
    /** The child was killed for the end of the lease, and nobody has wanted it to end. */
    let killed = false
    /** How often that has happened. */
    let kills = 0
    /** Ends the attempts to start it again. */
    let cancelled = Deferred.makeUnsafe<void>()

    yield* lease.hold(shardId, {
      end: pool.shutdown(key),
      // What saves is awaited too: a host that is stopped in the middle of it must not go on later.
      kill: Effect.suspend(() => {
        kills++
        killed = current !== undefined
        return Effect.ignore(pool.shutdown(key, ShutdownPlan.kill))
      })
    })

    /** Puts a message for this life into storage; whoever has asked for that may go away meanwhile. */
    const send = (incarnation: number) =>
      Effect.suspend(() => {
        const saved = Deferred.makeUnsafe<void, PersistenceError>()
        kept = { incarnation, saved: Deferred.await(saved) }
        const message = Effect.catchTag(
          client.Keep({ life, incarnation }, { discard: true }),
          ["MailboxFull", "AlreadyProcessingMessage", "EntityNotAssignedToRunner"],
          (cause) => Effect.fail(new PersistenceError({ cause }))
        )
        const sent = Effect.tapError(message, () => Effect.sync(() => kept = undefined))
        return Effect.forkIn(Deferred.into(sent, saved), scope, { startImmediately: true })
      }).pipe(Effect.uninterruptible)

    const keep = (handle: Pool.Handle<unknown>) =>
      Effect.gen(function*() {
        const { incarnation } = handle
        current = handle
        if (kept?.incarnation !== incarnation) {
          if (resuming) kept = { incarnation, saved: Effect.void }
          else yield* send(incarnation)
        }
        if (kept !== undefined) yield* kept.saved
        return handle
      })

    const ensure = Effect.suspend(() => {
      const before = kills
      return pool.ensure(key).pipe(
        Effect.flatMap(keep),
        Effect.map(({ endpoint, incarnation, startedAt }) => ({ key, runner, incarnation, startedAt, endpoint })),
        // What was ended for the end of the lease was ended by nobody's wish.
        Effect.mapError((error) =>
          error instanceof LeaseLost || (error instanceof Overtaken && kills > before) ? moving : error
        )
      )
    })

    /** Starts the child of a key that lives according to storage, and that nobody here has asked for. */
    const restart = Effect.suspend(() =>
      Effect.raceFirst(
        Effect.andThen(lease.awaitHeld(shardId), pool.ensure(key)).pipe(
          Effect.retry(resume),
          Effect.catch((error) =>
            Effect.logError(`${key} does not come up on ${runner} and is not kept any more`, error)
          )
        ),
        Deferred.await(cancelled)
      )
    )

    /** Until the key has no child for a reason that does not lie in the cluster. */
    const untilGone = (handle: Pool.Handle<unknown>): Effect.Effect<void> =>
      Effect.gen(function*() {
        yield* Effect.flip(handle.lost)
        if (current === handle) current = undefined
        if (!killed) return
        killed = false
        yield* resumed
      })

    const resumed: Effect.Effect<void> = Effect.gen(function*() {
      resuming = true
      const handle = yield* Effect.ensuring(restart, Effect.sync(() => resuming = false))
      if (handle === undefined) return
      current = handle
      kept = { incarnation: handle.incarnation, saved: Effect.void }
      yield* untilGone(handle)
    })

    return internal(self).of({
      // An interruption would reach the caller as its own, so it gets a word for it.
      Ensure: () =>
        Rpc.uninterruptible(
          Effect.catchCause(
            Effect.interruptible(ensure),
            (cause) => Cause.hasInterruptsOnly(cause) ? Effect.fail(moving) : Effect.failCause(cause)
          )
        ),
      Touch: () => pool.touch(key),
      Shutdown: () =>
        Effect.suspend(() => {
          Deferred.doneUnsafe(cancelled, Exit.void)
          cancelled = Deferred.makeUnsafe()
          return Effect.catchTag(pool.shutdown(key), "InvalidSpec", Effect.die)
        }),
      Status: () =>
        Effect.map(pool.status, ({ keys }) => ({
          runner,
          ...keys.find((status) => status.key === key) ?? absent(key)
        })),
      Keep: ({ payload }) =>
        Effect.suspend(() => {
          if (payload.life === life) {
            // One that was sent for a child which has gone since keeps nothing.
            return current?.incarnation === payload.incarnation ? untilGone(current) : Effect.void
          }
          // One is enough, and the one that stands for the key already is in storage.
          if (resuming) return Effect.void
          return current === undefined ? resumed : Effect.ignore(kept?.saved ?? Effect.void)
        })
    })
  })

/**
 * Runs a pool on this runner for the keys whose shards it owns, and ends its children when the layer closes. The options
 * are those of `Pool.make`; `capacity` is for this runner. The pool alone decides when a child is idle.
 *
 * The shutdown plan of a child must kill within `ShardLease`'s `stopWithin`: that is, within `entityTerminationTimeout`, and
 * early enough that a store which has gone silent does not cut it short. Otherwise `Ensure` fails with `InvalidSpec`.
 */
export const layer = <
  Type extends string,
  Endpoint extends Wire,
  Failure extends Wire,
  R = never,
  R2 = never,
  R3 = never,
  R4 = never,
  R5 = never
>(
  self: PoolEntity<Type, Endpoint, Failure>,
  options:
    & Pool.Options<Endpoint["Type"], Failure["Type"], R, Failure["Type"], R2, Failure["Type"], R3, R4, R5>
    & Settings
): Layer.Layer<never, InvalidSpec, Sharding | ShardLease | Exclude<R | R2 | R3 | R4 | R5, Scope.Scope>> =>
  Layer.unwrap(Effect.gen(function*() {
    const sharding = yield* Sharding
    const lease = yield* ShardLease
    const shardOf = (key: string) => {
      const id = entityIdOf(key)
      return sharding.getShardId(id, self.getShardGroup(id))
    }
    const check = (key: string) => lease.check(shardOf(key))
    const { build, hooks, resume, ...others } = options
    const { restore, retire } = hooks ?? {}
    const pool = yield* Pool.make({
      ...others,
      name: options.name ?? self.type,
      build: (key, incarnation) =>
        Effect.gen(function*() {
          yield* check(key)
          const built = yield* build(key, incarnation)
          const plan = yield* Effect.fromResult(ShutdownPlan.validate(built.child.shutdown))
          const untilKill = ShutdownPlan.untilKill(plan)
          if (untilKill > lease.stopWithin) {
            return yield* new InvalidSpec({
              field: `${built.child.id}.shutdown`,
              problem: `takes up to ${untilKill} ms, and a child has to be killed within ${lease.stopWithin} ms here`
            })
          }
          // From here on it is started.
          yield* check(key)
          return built
        }),
      hooks: {
        ...hooks,
        restore: restore === undefined
          ? undefined
          : (incarnation) => Effect.andThen(check(incarnation.key), restore(incarnation)),
        retire: retire === undefined ?
          undefined :
          (incarnation, end) =>
            lease.during(shardOf(incarnation.key), retire(incarnation, end)).pipe(
              Effect.catch((error) =>
                error instanceof LeaseLost
                  // The next owner starts from what was saved before; to save now would be to overwrite its work.
                  ? Effect.logError(`what ${incarnation.key} has not saved is lost: ${error.message}`)
                  : Effect.fail(error)
              )
            )
      }
    })
    return internal(self).toLayer(
      entityOf(self, pool, resume ?? defaultResume).pipe(
        Effect.provideService(Sharding, sharding),
        Effect.provideService(ShardLease, lease)
      ),
      { concurrency: "unbounded", disableFatalDefects: true }
    )
  }))
