/**
 * One child per key: a tenant, a workspace, a user. A child is started when its key is asked for, shared by everybody who
 * asks, and ended when nobody does any more. The guide is docs/pools.md.
 *
 * At any instant there is at most one incarnation of a key, the dying one included: whoever asks for a key whose child is
 * being ended waits until its tree is empty and its state is saved, and gets the next one.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Child from "./Child.ts"
import type { ChildEnd } from "./ChildEnd.ts"
import type { ChildSpec } from "./ChildSpec.ts"
import {
  type CapacityExceeded,
  type ChildFailed,
  type ChildLost,
  InvalidSpec,
  type Overtaken,
  type PoolClosed,
  type StartTimedOut,
  type Unfinished,
  type Unkillable,
  type UnsavedState
} from "./Errors.ts"
import { guarded } from "./internal/Broadcast.ts"
import * as PoolActor from "./internal/PoolActor.ts"
import { millis } from "./internal/Time.ts"
import type { PoolEvent, PoolStatus } from "./PoolStatus.ts"
import * as ShutdownPlan from "./ShutdownPlan.ts"

/**
 * One life of a key. `incarnation` grows over the life of the pool, whatever the key. `token` is a secret of this life: 32
 * random bytes in hex. Given to the child (`env: { TOKEN: token }`), it proves who is calling: see `lookupToken`.
 */
export interface Incarnation {
  readonly key: string
  readonly incarnation: number
  readonly token: Redacted.Redacted<string>
}

/**
 * What `build` says is to run. `endpoint` finds out how the started child is reached, while readiness is awaited: a URL
 * from its output, a socket that appears. It becomes `Handle.endpoint`; without it that is undefined.
 */
export interface Built<A = void, E = never, R = never> {
  /** Its restart policy and what it depends on do not count: the next `ensure` is the restart. */
  readonly child: ChildSpec<R>
  readonly endpoint?: ((child: Child.Child) => Effect.Effect<A, E, R>) | undefined
}

/**
 * What carries the state of a key in before each life, and out after it. Both run in the scope of the incarnation, which
 * closes when its state is saved, so what is acquired in it outlives the processes. When the pool closes while state is
 * not saved, that scope is left open, so that no finalizer removes what may be the only copy.
 */
export interface Hooks<E = never, R = never, R2 = R> {
  /** Before `build`, which may write into what was restored. Its failure fails the `ensure`. */
  readonly restore?: ((incarnation: Incarnation) => Effect.Effect<void, E, R>) | undefined
  /**
   * When the tree is empty, after a life that was ready once; `end` is null when it was ended by request. A failure is
   * repeated by `retry`; if that does not help, the key is blocked and nothing is lost: see `UnsavedState`.
   */
  readonly retire?: ((incarnation: Incarnation, end: ChildEnd | null) => Effect.Effect<void, unknown, R2>) | undefined
  /** Default: 5 times, after 200 ms and then twice as long each time. */
  readonly retry?: Schedule.Schedule<unknown, unknown> | undefined
  /** How long `retire` with all its repetitions may take. Default: 1 minute. */
  readonly within?: Duration.Input | undefined
}

/** What an activity probe says: it is at work, or has had nothing to do for so long. */
export type Activity = "busy" | { readonly idleFor: Duration.Input }

/** When a child that nobody uses is ended. A lease is use, and each `ensure`, `touch` and end of a lease counts as one. */
export interface Idle<A = unknown, R = never> {
  /**
   * Without use for this long; 0 is as soon as there is no lease. A function is asked once for each incarnation, and
   * undefined means never.
   */
  readonly after: Duration.Input | ((key: string) => Duration.Input | undefined)
  /**
   * Asked before a child is ended for being idle or to make room: it may know of work that the pool has not seen. One
   * that fails or takes longer than `activityWithin` (default 5 s) has no say.
   */
  readonly activity?: ((handle: Handle<A>) => Effect.Effect<Activity, unknown, R>) | undefined
  readonly activityWithin?: Duration.Input | undefined
}

/**
 * When a child is replaced although it is used. It is ended at the first moment without a lease, and the next `ensure`
 * builds anew; what is used without a lease is not waited for.
 */
export interface Recycle {
  /** ms or a duration since it was ready. */
  readonly age?: Duration.Input | undefined
  /** How many times it may be given out by `ensure` and `lease`. */
  readonly uses?: number | undefined
  /** Each child gets limits that are up to this share smaller, so that not all fall due together. Default: 0.2. */
  readonly jitter?: number | undefined
}

/**
 * How many keys have a child at most, the dying ones included. When all places are taken, the child without a lease that
 * was used longest ago is ended; when there is none, keys wait in the order in which they were asked for.
 */
export interface Capacity {
  readonly max: number
  /** How many keys may wait. Default: 1,000. */
  readonly waiting?: number | undefined
  /** How long a key may wait. Default: 30 s. */
  readonly within?: Duration.Input | undefined
  /** A child that was used less than this ago is not ended to make room. Default: 1 s. */
  readonly evictAfter?: Duration.Input | undefined
}

/**
 * `A`: what the endpoint of a child is. Errors and requirements: `E`, `R` of the endpoint and the child, `E2`, `R2` of
 * `build`, `E3`, `R3`, `R4` of the hooks, `R5` of the activity probe.
 */
export interface Options<
  A = void,
  E = never,
  R = never,
  E2 = never,
  R2 = never,
  E3 = never,
  R3 = never,
  R4 = never,
  R5 = never
> {
  /** In status, errors, logs, spans and metrics. Default: `pool`. */
  readonly name?: string | undefined
  /**
   * What to run for a key. It may fail, take long and use the network; what it acquires lives as long as the incarnation.
   * It runs in the pool, not in the fiber of whoever asked first.
   */
  readonly build: (key: string, incarnation: Incarnation) => Effect.Effect<Built<A, E, R>, E2, R2>
  readonly hooks?: Hooks<E3, R3, R4> | undefined
  /** Limit for restore, build, start, readiness and endpoint together. Default: 1 minute. */
  readonly startWithin?: Duration.Input | undefined
  /** Default: never. */
  readonly idle?: Idle<A, R5> | undefined
  /** Default: never. */
  readonly recycle?: Recycle | undefined
  /** Default: no limit. */
  readonly capacity?: Capacity | undefined
  /**
   * Called with each event as it happens, before anything else follows from it. It must not use the pool; what it throws
   * is logged.
   */
  readonly onEvent?: ((event: PoolEvent) => void) | undefined
}

/** The living child of a key. */
export interface Handle<out A = void> extends Incarnation {
  readonly child: Child.Child
  readonly endpoint: A
  /** When it was ready: ms, wall clock. */
  readonly startedAt: number
  /** Fails as soon as the child has ended or is being ended; never succeeds. */
  readonly lost: Effect.Effect<never, ChildLost>
}

/** Why a key has no child, beside what `build` and the hooks fail with. */
export type EnsureError =
  | PoolClosed
  | CapacityExceeded
  | StartTimedOut
  | ChildFailed
  | InvalidSpec
  | Overtaken
  | UnsavedState
  | Unfinished
  | Unkillable

/**
 * What is left of a key that can't be built anew: processes that do not end, state that could not be saved, or an effect
 * that takes no notice of its interruption.
 */
export type Blocked = Unkillable | UnsavedState | Unfinished

/** A pool of children. */
export interface Pool<out A = void, out E = never> {
  readonly name: string
  /**
   * The child of a key, started if there is none. All who ask at once share one build: its failure fails them all, and
   * nothing of it is kept. Whoever is interrupted goes away; the build goes on while one is left who wants it. What is
   * returned may be ended at any time; who needs it for long takes a lease.
   */
  readonly ensure: (key: string) => Effect.Effect<Handle<A>, E | EnsureError>
  /** As `ensure`, and until the scope closes the child is not ended for being idle, old or in the way. */
  readonly lease: (key: string) => Effect.Effect<Handle<A>, E | EnsureError, Scope.Scope>
  /** Runs an effect with a lease; it is interrupted when the child ends meanwhile, and this fails with `ChildLost`. */
  readonly use: <B, E2, R2>(
    key: string,
    f: (handle: Handle<A>) => Effect.Effect<B, E2, R2>
  ) => Effect.Effect<B, E | EnsureError | E2 | ChildLost, R2>
  /**
   * Counts as a use of the child, so that it is not idle. True: it is there, and what was decided before about being idle
   * no longer holds. False: there is none; nothing is started.
   */
  readonly touch: (key: string) => Effect.Effect<boolean>
  /**
   * Ends the child of a key, leases or not, and saves its state. Whoever waits for the key gets `Overtaken`. Returns
   * when nothing of it is left; nothing happens when there is none.
   */
  readonly shutdown: (
    key: string,
    plan?: ShutdownPlan.ShutdownPlan
  ) => Effect.Effect<void, Blocked | InvalidSpec>
  /**
   * Ends all children side by side, as `shutdown` does one; the pool stays open. Tells what is left, nothing when all is
   * well.
   */
  readonly shutdownAll: Effect.Effect<ReadonlyArray<Blocked>>
  /** Tries again to save the state of a key that is blocked for that. */
  readonly retrySave: (key: string) => Effect.Effect<void, Blocked>
  /** Gives up the state of a key that is blocked for it: closes its scope, so that the local copy goes. */
  readonly discard: (key: string) => Effect.Effect<void>
  readonly status: Effect.Effect<PoolStatus>
  /** The last 256 events and then all that come until the scope ends; a reader slower than 1,024 events loses the oldest. */
  readonly events: Stream.Stream<PoolEvent>
  /**
   * Whose token this is: of an incarnation that is being started, lives, or is being ended; none from the moment its tree
   * is empty. Takes as long for a token that nobody has.
   */
  readonly lookupToken: (
    token: string | Redacted.Redacted<string>
  ) => Effect.Effect<Option.Option<Pick<Incarnation, "key" | "incarnation">>>
}

/** Events that wait for a slow reader. */
const eventsCapacity = 1024

const invalid = (field: string, problem: string) => Result.fail(new InvalidSpec({ field, problem }))

const wholeNumber = (field: string, value: number, min: number): Result.Result<number, InvalidSpec> =>
  Number.isSafeInteger(value) && value >= min
    ? Result.succeed(value)
    : invalid(field, `must be a whole number of ${min} or more`)

/** As `millis`, and above 0. */
const period = (field: string, input: Duration.Input): Result.Result<number, InvalidSpec> =>
  Result.flatMap(millis(field, input), (ms) => ms > 0 ? Result.succeed(ms) : invalid(field, "must be above 0"))

const optional = <A, B>(
  value: A | undefined,
  check: (value: A) => Result.Result<B, InvalidSpec>
): Result.Result<B | undefined, InvalidSpec> => value === undefined ? Result.succeed(undefined) : check(value)

const capacityOf = (capacity: Capacity): Result.Result<PoolActor.Capacity, InvalidSpec> =>
  Result.gen(function*() {
    return {
      max: yield* wholeNumber("capacity.max", capacity.max, 1),
      waiting: yield* wholeNumber("capacity.waiting", capacity.waiting ?? 1000, 0),
      within: yield* millis("capacity.within", capacity.within ?? "30 seconds"),
      evictAfter: yield* millis("capacity.evictAfter", capacity.evictAfter ?? "1 second")
    }
  })

const settingsOf = <A, E, R, E2, R2, E3, R3, R4, R5>(
  options: Options<A, E, R, E2, R2, E3, R3, R4, R5>
): Result.Result<PoolActor.Settings<A, E | E2 | E3>, InvalidSpec> =>
  Result.gen(function*() {
    // What user code needs is in the context in which the pool is made.
    const { build, hooks = {}, idle, name = "pool", recycle = {} } = options as unknown as Options<
      A,
      E | E2 | E3,
      never,
      E | E2 | E3,
      Scope.Scope,
      E | E2 | E3,
      Scope.Scope,
      Scope.Scope,
      Scope.Scope
    >
    if (name.trim() === "") return yield* invalid("name", "must not be empty")
    const jitter = recycle.jitter ?? 0.2
    if (!(jitter >= 0 && jitter <= 1)) return yield* invalid("recycle.jitter", "must be a number from 0 to 1")
    const after = idle?.after
    const idleAfter = (key: string) =>
      optional(typeof after === "function" ? after(key) : after, (input) => millis("idle.after", input))
    // One that is the same for all keys is wrong from the beginning.
    if (typeof after !== "function") yield* idleAfter("")
    return {
      name,
      build,
      restore: hooks.restore,
      retire: hooks.retire,
      retry: hooks.retry ?? Schedule.upTo(Schedule.exponential("200 millis"), { times: 5 }),
      saveWithin: yield* period("hooks.within", hooks.within ?? "1 minute"),
      startWithin: yield* period("startWithin", options.startWithin ?? "1 minute"),
      idleAfter,
      activity: idle?.activity,
      activityWithin: yield* period("idle.activityWithin", idle?.activityWithin ?? "5 seconds"),
      age: yield* optional(recycle.age, (age) => period("recycle.age", age)),
      uses: yield* optional(recycle.uses, (uses) => wholeNumber("recycle.uses", uses, 1)),
      jitter,
      capacity: yield* optional(options.capacity, capacityOf)
    }
  })

/** Checks options, as `make` does; nothing is made. */
export const validate = <A, E, R, E2, R2, E3, R3, R4, R5>(
  options: Options<A, E, R, E2, R2, E3, R3, R4, R5>
): Result.Result<void, InvalidSpec> => Result.map(settingsOf(options), () => undefined)

/**
 * A pool; all its children are ended when the scope closes, side by side, each by its own shutdown plan, and their state
 * is saved.
 *
 * @example
 * ```ts
 * import { Child, Pool } from "@treeline/core"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect } from "effect"
 * import { ChildProcess } from "effect/process"
 *
 * const program = Effect.gen(function*() {
 *   const pool = yield* Pool.make({
 *     build: (tenant, { token }) =>
 *       Effect.succeed({
 *         child: Child.make("worker", {
 *           command: ChildProcess.make("sleep", ["60"], { env: { TENANT: tenant, TOKEN: token }, extendEnv: true })
 *         })
 *       }),
 *     idle: { after: "30 minutes" },
 *     capacity: { max: 100 }
 *   })
 *   const [one, same] = yield* Effect.all([pool.ensure("acme"), pool.ensure("acme")], { concurrency: "unbounded" })
 *   return one.incarnation === same.incarnation
 * })
 * const shared = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(PosixPlatform.layer)))
 * if (!shared) throw new Error("two processes for one key")
 * ```
 */
export const make = Effect.fnUntraced(function*<
  A = void,
  E = never,
  R = never,
  E2 = never,
  R2 = never,
  E3 = never,
  R3 = never,
  R4 = never,
  R5 = never
>(options: Options<A, E, R, E2, R2, E3, R3, R4, R5>) {
  const settings = yield* Effect.fromResult(settingsOf(options))
  const make = PoolActor.PoolActor.make(settings)
  const actor = yield* Effect.acquireRelease(make, (actor) => actor.close)
  // With the requirements of user code, which are in the context that the actor has taken.
  const services = yield* Effect.context<Exclude<R | R2 | R3 | R4 | R5, Scope.Scope>>()
  if (options.onEvent !== undefined) actor.events.listen(guarded(options.onEvent, services))
  return fromActor(actor)
})

const fromActor = <A, E>(actor: PoolActor.PoolActor<A, E>): Pool<A, E> => ({
  name: actor.settings.name,
  ensure: (key) => actor.ensure(key),
  lease: (key) => actor.lease(key),
  use: (key, f) => actor.use(key, f),
  touch: (key) => Effect.sync(() => actor.touch(key)),
  shutdown: Effect.fn("Pool.shutdown")(function*(key, plan) {
    yield* actor.shutdown(key, plan === undefined ? undefined : yield* Effect.fromResult(ShutdownPlan.validate(plan)))
  }),
  shutdownAll: actor.shutdownAll.pipe(Effect.withSpan("Pool.shutdownAll")),
  retrySave: Effect.fn("Pool.retrySave")((key: string) => actor.retrySave(key)),
  discard: Effect.fn("Pool.discard")((key: string) => actor.discard(key)),
  status: Effect.sync(() => actor.status),
  events: actor.events.stream(eventsCapacity),
  lookupToken: (token) =>
    Effect.sync(() => Option.fromUndefinedOr(actor.lookup(Redacted.isRedacted(token) ? Redacted.value(token) : token)))
})
