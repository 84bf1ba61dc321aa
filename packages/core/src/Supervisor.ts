/**
 * Supervises children as OTP's supervisor(3) does: which ones are restarted with one that ended, how often at most, and
 * what happens then.
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as Child from "./Child.ts"
import type { ChildEnd } from "./ChildEnd.ts"
import * as ChildSpec from "./ChildSpec.ts"
import type { ChildStatus } from "./ChildStatus.ts"
import {
  type ChildClosed,
  type ChildFailed,
  type ChildStopped,
  type IntensityExceeded,
  InvalidSpec,
  type Overtaken,
  type UnknownChild
} from "./Errors.ts"
import { guarded } from "./internal/Broadcast.ts"
import * as Dependencies from "./internal/Dependencies.ts"
import { type Settings, SupervisorActor } from "./internal/SupervisorActor.ts"
import { millis } from "./internal/Time.ts"
import * as ShutdownPlan from "./ShutdownPlan.ts"
import type { Blocking, SupervisorEnd, SupervisorEvent, SupervisorStatus } from "./SupervisorStatus.ts"

export { Blocking, SupervisorEnd, SupervisorEvent, SupervisorStatus } from "./SupervisorStatus.ts"

/**
 * Which children are restarted when one has ended and is restarted.
 *
 * - `one_for_one`: only that one.
 * - `one_for_all`: all others are stopped, and all are started again.
 * - `rest_for_one`: those after it in the list are stopped, and it and they are started again.
 */
export type Strategy = "one_for_one" | "one_for_all" | "rest_for_one"

export interface Options {
  /** Default: `one_for_one`. */
  readonly strategy?: Strategy | undefined
  /**
   * More than `max` restarts within a sliding window of `within` end the supervisor: all children are stopped, and it
   * fails. A restart exactly `within` ago counts. Default: 5 within a minute.
   */
  readonly intensity?: { readonly max: number; readonly within: Duration.Input } | undefined
  /**
   * `dependencies` (default): a child starts when those it depends on are ready, and is stopped before them; independent
   * children start and stop side by side. `sequence`: each child also depends on the one before it in the list.
   */
  readonly order?: "dependencies" | "sequence" | undefined
  /** Whether the end of any, or of all, of the significant children by themselves ends the supervisor. Default: never. */
  readonly autoShutdown?: "never" | "any" | "all" | undefined
  /** Called with each event as it happens, before anything else follows from it. What it throws is logged. */
  readonly onEvent?: ((event: SupervisorEvent) => void) | undefined
}

/** How a child is added. */
export interface Adding {
  /** It waits until it is resumed. Default: it starts. */
  readonly paused?: boolean | undefined
}

/** A running supervisor. */
export interface Supervisor {
  readonly status: Effect.Effect<SupervisorStatus>
  readonly children: Effect.Effect<ReadonlyArray<ChildStatus>>
  /** The last 256 events and then all that come until the scope ends; a reader slower than 1,024 events loses the oldest. */
  readonly events: Stream.Stream<SupervisorEvent>
  readonly child: (id: string) => Effect.Effect<Child.Child, UnknownChild>
  /** Adds a child and starts it. A temporary one is forgotten when it has ended. */
  readonly startChild: <R>(
    spec: ChildSpec.ChildSpec<R>,
    options?: Adding
  ) => Effect.Effect<Child.Child, InvalidSpec | ChildClosed, R>
  /** Stops a child; it stays known and can be restarted. */
  readonly terminateChild: (
    id: string,
    plan?: ShutdownPlan.ShutdownPlan
  ) => Effect.Effect<void, UnknownChild | ChildClosed | InvalidSpec>
  /** Starts or restarts a child; returns its incarnation. */
  readonly restartChild: (
    id: string
  ) => Effect.Effect<number, UnknownChild | ChildClosed | Overtaken | ChildFailed>
  /**
   * Stops the child of this name and starts another one in its place. Those that depend on it are not touched; refused
   * while what could not be ended of the old one lives.
   */
  readonly replaceChild: <R>(
    spec: ChildSpec.ChildSpec<R>,
    options?: Adding
  ) => Effect.Effect<Child.Child, UnknownChild | InvalidSpec | ChildClosed | ChildFailed, R>
  /** Stops a child and forgets it; refused while another child depends on it, or while what could not be ended lives. */
  readonly removeChild: (id: string) => Effect.Effect<void, UnknownChild | InvalidSpec | ChildFailed>
  /** Waits until every child is ready or has done its work; the caller bounds the wait. */
  readonly awaitReady: Effect.Effect<void, ChildFailed | ChildStopped | ChildClosed>
  /** Waits for the end of the supervisor; fails when restarts were too many. */
  readonly awaitEnd: Effect.Effect<SupervisorEnd, IntensityExceeded>
  /** Stops all children, the dependent ones first, and ends the supervisor. */
  readonly stopAll: Effect.Effect<void>
  /**
   * As `stopAll`, all children by one plan, those of nested supervisors too; while they are stopping, a shorter plan
   * shortens that. `shutdown(ShutdownPlan.kill)` is what a second Ctrl-C means.
   */
  readonly shutdown: (plan?: ShutdownPlan.ShutdownPlan) => Effect.Effect<void, InvalidSpec>
}

const eventsCapacity = 1024

const settingsOf = (options: Options): Result.Result<Settings, InvalidSpec> =>
  Result.gen(function*() {
    const max = options.intensity?.max ?? 5
    if (!Number.isSafeInteger(max) || max < 0) {
      return yield* Result.fail(
        new InvalidSpec({ field: "intensity.max", problem: "must be a whole number of 0 or more" })
      )
    }
    const within = yield* millis("intensity.within", options.intensity?.within ?? "1 minute")
    if (within === 0) {
      return yield* Result.fail(new InvalidSpec({ field: "intensity.within", problem: "must be above 0" }))
    }
    return {
      strategy: options.strategy ?? "one_for_one",
      intensity: { max, within },
      order: options.order ?? "dependencies",
      autoShutdown: options.autoShutdown ?? "never"
    }
  })

interface Validated<R> {
  readonly children: ReadonlyArray<ChildSpec.Validated<R>>
  readonly settings: Settings
}

const validate = <Spec extends ChildSpec.ChildSpec<unknown>>(
  specs: ReadonlyArray<Spec>,
  options: Options
): Result.Result<Validated<ChildSpec.Services<Spec>>, InvalidSpec> =>
  Result.gen(function*() {
    // What one of them needs is not inferred from an array of several kinds; their union says the same.
    const children = specs as ReadonlyArray<ChildSpec.ChildSpec<unknown>> as ReadonlyArray<
      ChildSpec.ChildSpec<ChildSpec.Services<Spec>>
    >
    const settings = yield* settingsOf(options)
    yield* Dependencies.validate(children, settings.order)
    const validated: Array<ChildSpec.Validated<ChildSpec.Services<Spec>>> = []
    for (const child of children) validated.push(yield* ChildSpec.validate(child))
    return { children: validated, settings }
  })

const blockingOf = (statuses: ReadonlyArray<ChildStatus>, path = ""): ReadonlyArray<Blocking> =>
  statuses.flatMap(({ children, id, state }) => {
    const inner = blockingOf(children, `${path}${id}/`)
    if (inner.length > 0 || state._tag !== "Stopping") return inner
    return [{ child: `${path}${id}`, pid: state.pid, step: state.step, since: state.since }]
  })

const childrenOf = (actor: SupervisorActor): Effect.Effect<ReadonlyArray<ChildStatus>> =>
  Effect.suspend(() => Effect.forEach(actor.actors, (child) => child.status))

const awaitReady = (actor: SupervisorActor): Effect.Effect<void, ChildFailed | ChildStopped | ChildClosed> =>
  Effect.suspend(() =>
    Effect.forEach(actor.actors, (child) => child.awaitReady(true), { discard: true, concurrency: "unbounded" })
  )

const fromActor = (actor: SupervisorActor): Supervisor => ({
  status: Effect.map(childrenOf(actor), (children): SupervisorStatus => ({
    phase: actor.phase,
    restartsInWindow: actor.restartsInWindow,
    children,
    blocking: blockingOf(children)
  })),
  children: childrenOf(actor),
  events: actor.events.stream(eventsCapacity),
  child: (id) => Effect.map(actor.find(id), Child.fromActor),
  startChild: Effect.fn("Supervisor.startChild")((spec, options) =>
    Effect.map(actor.startChild(spec, options), Child.fromActor)
  ),
  terminateChild: Effect.fn("Supervisor.terminateChild")(function*(id, plan) {
    const child = yield* actor.find(id)
    yield* child.stop(plan === undefined ? undefined : yield* Effect.fromResult(ShutdownPlan.validate(plan)))
  }),
  restartChild: Effect.fn("Supervisor.restartChild")((id: string) =>
    Effect.flatMap(actor.find(id), (child) => child.restart)
  ),
  replaceChild: Effect.fn("Supervisor.replaceChild")((spec, options) =>
    Effect.map(actor.replaceChild(spec, options), Child.fromActor)
  ),
  removeChild: Effect.fn("Supervisor.removeChild")((id: string) => actor.removeChild(id)),
  awaitReady: awaitReady(actor),
  awaitEnd: actor.awaitEnd,
  stopAll: actor.stopAll(),
  shutdown: Effect.fn("Supervisor.shutdown")(function*(plan) {
    yield* actor.stopAll(plan === undefined ? undefined : yield* Effect.fromResult(ShutdownPlan.validate(plan)))
  })
})

const acquire = <R>(
  { children, settings }: Validated<R>,
  onEvent: ReadonlyArray<((event: SupervisorEvent) => void) | undefined>
): Effect.Effect<SupervisorActor, never, R | Scope.Scope> =>
  Effect.acquireRelease(SupervisorActor.make(children, settings), (actor) => actor.close).pipe(
    Effect.tap((actor) =>
      Effect.contextWith((services: Context.Context<never>) =>
        Effect.sync(() => {
          for (const listener of onEvent) {
            if (listener !== undefined) actor.events.listen(guarded(listener, services))
          }
        })
      )
    )
  )

/**
 * Starts children under one supervisor; all are stopped when the scope closes, the dependent ones first.
 *
 * It returns when the first children are starting: `awaitReady` waits for all, `awaitEnd` for the end, which fails with
 * `IntensityExceeded` when restarts were too many.
 *
 * @example
 * ```ts
 * import { Child, Supervisor } from "@treeline/core"
 * import { Effect } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const log: Array<string> = []
 * const service = (id: string, dependsOn: ReadonlyArray<string>) =>
 *   Child.effect(id, Effect.andThen(Effect.sync(() => log.push(id)), Effect.never), { dependsOn })
 * const program = Effect.gen(function*() {
 *   const supervisor = yield* Supervisor.start([service("web", ["db"]), service("db", [])], { strategy: "rest_for_one" })
 *   yield* supervisor.awaitReady
 * })
 * await Effect.runPromise(Effect.scoped(program))
 * deepStrictEqual(log, ["db", "web"])
 * ```
 */
export const start = Effect.fn("Supervisor.start")(function*<Spec extends ChildSpec.ChildSpec<unknown>>(
  children: ReadonlyArray<Spec>,
  options: Options = {}
) {
  const validated = yield* Effect.fromResult(validate(children, options))
  const actor = yield* acquire(validated, [options.onEvent])
  yield* actor.startAll
  return fromActor(actor)
})

/** A nested supervisor's end as its parent sees it. */
const endOf = (exit: Exit.Exit<SupervisorEnd, IntensityExceeded>): ChildEnd => {
  if (Exit.isSuccess(exit)) return { _tag: "Completed" }
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  return { _tag: "Failed", message: error?.message ?? Cause.pretty(exit.cause), causes: error?.causes ?? [] }
}

/** What stopped children could not end and what is still there. */
const remainderOf = (actor: SupervisorActor): Effect.Effect<ChildSpec.Remainder> =>
  Effect.map(Effect.forEach(actor.actors, (child) => child.remains), (all) => {
    const problems = all.flatMap(({ problem }) => problem ?? [])
    return {
      problem: problems.length === 0 ? undefined : problems.join("; "),
      survivors: all.flatMap(({ survivors }) => survivors)
    }
  })

/**
 * A supervisor as a child of another one. It is ready when all its children are; when its restarts are too many it has
 * failed, and its own restart policy and its parent's strategy decide, so the restarts of a tree of supervisors are
 * bounded by the product of their intensities.
 */
export const child = <Spec extends ChildSpec.ChildSpec<unknown>>(
  id: string,
  children: ReadonlyArray<Spec>,
  options: Options & Omit<Child.Policies, "shutdown" | "readiness" | "liveness"> = {}
): ChildSpec.ChildSpec<ChildSpec.Services<Spec>> => {
  const checked = validate(children, options)
  const body: ChildSpec.Body<ChildSpec.Services<Spec>> = {
    _tag: "Supervisor",
    validate: () => Result.map(checked, () => undefined),
    start: ({ onEvent }) =>
      Effect.gen(function*() {
        const tell = (event: SupervisorEvent) => {
          if (event._tag === "Child") onEvent(event.event)
        }
        const actor = yield* acquire(yield* Effect.fromResult(checked), [options.onEvent, tell])
        yield* actor.startAll
        const remains = remainderOf(actor)
        return {
          tree: undefined,
          ended: Effect.map(Effect.exit(actor.awaitEnd), endOf),
          // A child that has failed for good leaves the others as they are; it is never ready then.
          ready: awaitReady(actor).pipe(Effect.catch(() => Effect.never)),
          // Its children have plans of their own.
          stop: (plan, asked) => Effect.andThen(actor.stopAll(asked ? plan : undefined), remains),
          remains,
          children: childrenOf(actor)
        }
      })
  }
  return Child.custom(id, body, options)
}
