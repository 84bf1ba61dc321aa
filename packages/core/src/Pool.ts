/**
 * One child per key: a tenant, a workspace, a user. A child is started when its key is asked for, shared by everybody who
 * asks, and ended when nobody does any more. The guide is docs/pools.md.
 *
 * At any instant there is at most one incarnation of a key, the dying one included: whoever asks for a key whose child is
 * being ended waits until its tree is empty and its state is saved, and gets the next one.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Child from "./Child.ts"
import type { ChildEnd } from "./ChildEnd.ts"
import type { ChildSpec } from "./ChildSpec.ts"
import type {
  CapacityExceeded,
  ChildFailed,
  ChildLost,
  InvalidSpec,
  Overtaken,
  PoolClosed,
  StartTimedOut,
  Unkillable,
  UnsavedState
} from "./Errors.ts"
import type { PoolEvent, PoolStatus } from "./PoolStatus.ts"
import type * as ShutdownPlan from "./ShutdownPlan.ts"

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
  /** Its restart policy does not count: the next `ensure` is the restart. */
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
  /** Without use for this long; a function is asked once for each incarnation, and undefined means never. */
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
  | Unkillable

/** What is left of a key that can't be built anew: processes that do not end, or state that could not be saved. */
export type Blocked = Unkillable | UnsavedState

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
  /** Ends all children side by side; the pool stays open. Tells what is left, nothing when all is well. */
  readonly shutdownAll: Effect.Effect<ReadonlyArray<Blocked>>
  /** Tries again to save the state of a key that is blocked for that. */
  readonly retrySave: (key: string) => Effect.Effect<void, Blocked>
  /** Gives up the state of a key that could not be saved: closes its scope, so that the local copy goes. */
  readonly discard: (key: string) => Effect.Effect<void, Unkillable>
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

/**
 * A pool; all its children are ended when the scope closes, side by side, each by its own shutdown plan, and their state
 * is saved.
 */
export const make = <
  A = void,
  E = never,
  R = never,
  E2 = never,
  R2 = never,
  E3 = never,
  R3 = never,
  R4 = never,
  R5 = never
>(
  _options: Options<A, E, R, E2, R2, E3, R3, R4, R5>
): Effect.Effect<
  Pool<A, E | E2 | E3>,
  InvalidSpec,
  Scope.Scope | Exclude<R | R2 | R3 | R4 | R5, Scope.Scope>
> => Effect.die("not built yet")
