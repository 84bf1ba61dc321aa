/**
 * What a supervised child is: a body that can be started again and again, and the policies around it. Data; nothing here
 * runs anything.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { ChildEnd } from "./ChildEnd.ts"
import type { ChildEvent, ChildStatus } from "./ChildStatus.ts"
import { InvalidSpec } from "./Errors.ts"
import * as Probe from "./Probe.ts"
import type { ProcessInfo } from "./ProcessIdentity.ts"
import type { ProcessTree } from "./ProcessTree.ts"
import * as Restart from "./Restart.ts"
import * as ShutdownPlan from "./ShutdownPlan.ts"

/**
 * The child whose body is running: its path (`inner/db` in a nested supervisor) and its incarnation. Undefined outside of
 * every child.
 */
export const CurrentChild = Context.Reference<
  { readonly child: string; readonly incarnation: number } | undefined
>("@treeline/core/CurrentChild", { defaultValue: () => undefined })

/** What was left after an incarnation was ended; `problem` is undefined when nothing was. */
export interface Remainder {
  readonly problem: string | undefined
  readonly survivors: ReadonlyArray<ProcessInfo>
}

/** One incarnation of a body. It lives in the scope it was started in. */
export interface Running {
  /** The processes; undefined where the body is an effect. */
  readonly tree: ProcessTree | undefined
  /** Its end, by itself. */
  readonly ended: Effect.Effect<ChildEnd>
  /** The body's own announcement that it is ready, for bodies that make one. */
  readonly ready: Effect.Effect<void> | undefined
  /**
   * Ends it by the plan; bounded, shared by all callers, never fails. A later plan can only shorten it. `asked`: somebody
   * gave this plan, it is not the child's own.
   */
  readonly stop: (plan: ShutdownPlan.Validated, asked: boolean) => Effect.Effect<Remainder>
  /** What is still left of what `stop` could not end. */
  readonly remains: Effect.Effect<Remainder>
  /**
   * Of processes that may be older than this one: whether an earlier process has seen them ready, so that an announcement
   * is not awaited again, and what tells the next one.
   */
  readonly kept?: { readonly wasReady: boolean; readonly ready: Effect.Effect<void> } | undefined
  /** The children of a nested supervisor. */
  readonly children: Effect.Effect<ReadonlyArray<ChildStatus>>
}

/** Why a body did not start. */
export interface StartFailure {
  readonly _tag: string
  readonly message: string
}

/** Something that can be started again and again: a process tree, an effect, a nested supervisor. */
export interface Body<R> {
  readonly _tag: "Process" | "Effect" | "Supervisor"
  /**
   * Starts one incarnation. It returns soon and is not interrupted, but for waits that it makes interruptible itself while
   * it owns nothing.
   */
  readonly start: (options: {
    readonly incarnation: number
    /** Called at each step of the teardown. */
    readonly onStep: (step: string) => void
    /** Takes the events of a nested supervisor's children. */
    readonly onEvent: (event: ChildEvent) => void
  }) => Effect.Effect<Running, StartFailure, R | Scope.Scope>
  /** What the probes must know about the body before anything runs. */
  readonly validate: (readiness: Probe.ValidatedReadiness | undefined) => Result.Result<void, InvalidSpec>
}

/**
 * What has to be true of another child of the same supervisor first: it is ready (or has done its work), it has been
 * launched, or it has ended well.
 */
export type Condition = "ready" | "started" | "succeeded"

export interface Dependency {
  readonly child: string
  readonly until: Condition
}

/** A supervised child, as data. */
export interface ChildSpec<R = never> {
  readonly id: string
  readonly body: Body<R>
  readonly restart: Restart.Policy
  readonly shutdown: ShutdownPlan.ShutdownPlan
  readonly readiness: Probe.Readiness | undefined
  readonly liveness: ReadonlyArray<Probe.Liveness>
  readonly dependsOn: ReadonlyArray<Dependency>
  /** Whether its end by itself can end its supervisor (`autoShutdown`). */
  readonly significant: boolean
}

/** What specs need: of several kinds of children, what any of them needs. */
export type Services<Spec> = Spec extends ChildSpec<infer R> ? R : never

/** A spec whose numbers and times (ms) have been checked. */
export interface Validated<R> {
  readonly spec: ChildSpec<R>
  readonly restart: Restart.Validated
  readonly shutdown: ShutdownPlan.Validated
  readonly readiness: Probe.ValidatedReadiness | undefined
  readonly liveness: ReadonlyArray<Probe.ValidatedLiveness>
}

/** The field of the error with the child's name before it. */
const within = <A>(id: string, result: Result.Result<A, InvalidSpec>): Result.Result<A, InvalidSpec> =>
  Result.mapError(result, ({ field, problem }) => new InvalidSpec({ field: `${id}.${field}`, problem }))

/** Checks a spec before anything runs. */
export const validate = <R>(spec: ChildSpec<R>): Result.Result<Validated<R>, InvalidSpec> =>
  Result.gen(function*() {
    if (spec.id.trim() === "" || spec.id.includes("/")) {
      return yield* Result.fail(
        new InvalidSpec({
          field: "id",
          problem: `"${spec.id}" is no name: give one that is not empty and has no slash`
        })
      )
    }
    if (spec.significant && spec.restart.mode === "permanent") {
      return yield* Result.fail(
        new InvalidSpec({
          field: `${spec.id}.significant`,
          problem: "a permanent child never ends by itself; make it transient or temporary"
        })
      )
    }
    const readiness = spec.readiness === undefined
      ? undefined
      : yield* within(spec.id, Probe.validateReadiness(spec.readiness))
    const liveness: Array<Probe.ValidatedLiveness> = []
    for (const probe of spec.liveness) liveness.push(yield* within(spec.id, Probe.validateLiveness(probe)))
    yield* within(spec.id, spec.body.validate(readiness))
    return {
      spec,
      restart: yield* within(spec.id, Restart.validate(spec.restart)),
      shutdown: yield* within(spec.id, ShutdownPlan.validate(spec.shutdown)),
      readiness,
      liveness
    }
  })
