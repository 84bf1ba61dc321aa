/**
 * A supervisor that runs what a configuration says, and takes another one while it runs: only what differs is touched.
 */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Child } from "../Child.ts"
import * as ChildSpec from "../ChildSpec.ts"
import { InvalidSpec } from "../Errors.ts"
import * as Dependencies from "../internal/Dependencies.ts"
import type { ProcessPlatform } from "../ProcessPlatform.ts"
import * as Supervisor from "../Supervisor.ts"
import * as ConfigDiff from "./ConfigDiff.ts"
import type { Keepers } from "./Keeper.ts"
import type { Applied, Report } from "./ReloadReport.ts"
import * as ServiceChild from "./ServiceChild.ts"
import type { Config } from "./ServiceConfig.ts"

export { Applied, Report } from "./ReloadReport.ts"

/** Services that run. */
export interface Services {
  readonly supervisor: Supervisor.Supervisor
  /** What was asked for last. */
  readonly config: Effect.Effect<Config>
  /**
   * Takes another configuration. First all that changed or is no longer there is stopped, those that depend on others
   * first; then what changed or is new is started in its order; new ones come last in the list. Services that did not
   * change are not touched, whatever state they are in: their processes stay, a paused one stays paused.
   *
   * One that changed starts also when it was stopped or paused. A configuration that can't be used fails with
   * `InvalidSpec`, and nothing is touched. A service for which something failed is named in the report, the others go
   * on; the next reload tries it again. A reload that has begun goes to its end, one reload after the other; each is
   * bounded by the shutdown plans of what it stops.
   */
  readonly reload: (next: Config) => Effect.Effect<Report, InvalidSpec>
}

export interface Options extends Pick<Supervisor.Options, "onEvent"> {
  /** Called with each child when it is there, those of reloads too; the next one waits for its end. */
  readonly onChild?: ((child: Child) => Effect.Effect<void>) | undefined
  /** Whether what a reload starts waits until it is resumed. Default: no. */
  readonly paused?: Effect.Effect<boolean> | undefined
  /** Who keeps the services that are to go on when this process ends. Without them these end with it, too. */
  readonly keepers?: Keepers | undefined
}

type Spec = ChildSpec.ChildSpec<ProcessPlatform>

/** All services as children, checked, before anything runs. */
const specsOf = (config: Config, keepers: Keepers | undefined): Result.Result<ReadonlyMap<string, Spec>, InvalidSpec> =>
  Result.gen(function*() {
    const specs = new Map<string, Spec>()
    for (const [name, service] of Object.entries(config.services)) {
      const spec = yield* Result.mapError(
        ServiceChild.make(name, service, config.groups, keepers),
        ({ field, problem }) => new InvalidSpec({ field: `${name}.${field}`, problem })
      )
      yield* ChildSpec.validate(spec)
      specs.set(name, spec)
    }
    yield* Dependencies.validate([...specs.values()], config.supervisor.order)
    return specs
  })

/** How one step went: what to say of it when it failed. */
const outcome = <A, R>(
  effect: Effect.Effect<A, { readonly message: string }, R>
): Effect.Effect<string | null, never, R> =>
  Effect.match(effect, { onFailure: ({ message }) => message, onSuccess: () => null })

/**
 * Starts the services of a configuration under one supervisor; all are stopped when the scope closes. Pools are not
 * started: nobody has asked for a key yet.
 *
 * @example
 * ```ts
 * import { ServiceConfig, Services } from "@treeline/core/daemon"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect, Schema } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const config = (greeting: string) =>
 *   Schema.decodeUnknownSync(ServiceConfig.Config)({
 *     services: {
 *       db: { command: "sleep", args: ["60"] },
 *       web: { command: "sleep", args: ["60"], env: { GREETING: greeting }, dependsOn: ["db"] }
 *     }
 *   })
 * const program = Effect.gen(function*() {
 *   const services = yield* Services.start(config("hello"))
 *   yield* services.supervisor.awaitReady
 *   return yield* services.reload(config("good morning"))
 * })
 * const report = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(PosixPlatform.layer)))
 * deepStrictEqual(report.unchanged, ["db"])
 * deepStrictEqual(report.applied, [{ service: "web", change: "changed", fields: ["env"], problem: null }])
 * ```
 */
export const start = Effect.fn("Services.start")(function*(
  first: Config,
  { keepers, onChild = () => Effect.void, onEvent, paused = Effect.succeed(false) }: Options = {}
): Effect.fn.Return<Services, InvalidSpec, ProcessPlatform | Scope.Scope> {
  const specs = yield* Effect.fromResult(specsOf(first, keepers))
  const supervisor = yield* Supervisor.start([...specs.values()], { ...first.supervisor, onEvent })
  for (const id of specs.keys()) {
    // A temporary one may have come and gone.
    yield* Effect.flatMap(supervisor.child(id), onChild).pipe(Effect.catchTag("UnknownChild", () => Effect.void))
  }
  const context = yield* Effect.context<ProcessPlatform>()
  const reloading = yield* Semaphore.make(1)
  /** What each known service runs by; undefined when that failed half-way. */
  const running = new Map<string, ConfigDiff.Planned | undefined>(ConfigDiff.plan(first))
  let config = first

  /** Puts a service where there is none, or in the place of the one that was stopped. */
  const put = Effect.fnUntraced(function*(spec: Spec, known: boolean) {
    const options = { paused: yield* paused }
    const added = supervisor.startChild(spec, options)
    // A temporary one that was added later is forgotten when it has ended.
    const placed = known ? Effect.catchTag(supervisor.replaceChild(spec, options), "UnknownChild", () => added) : added
    yield* Effect.flatMap(placed, onChild)
  })

  const apply = Effect.fnUntraced(function*(next: Config, specs: ReadonlyMap<string, Spec>) {
    const plan = ConfigDiff.plan(next)
    const diff = ConfigDiff.between(running, plan)
    const problems = new Map<string, string>()
    const note = (name: string) => (problem: string | null) => {
      if (problem !== null) problems.set(name, problem)
    }
    for (const level of diff.stops) {
      for (const name of level) running.set(name, undefined)
      yield* Effect.forEach(
        level,
        (name) =>
          supervisor.terminateChild(name).pipe(
            Effect.catchTag("UnknownChild", () => Effect.void),
            outcome,
            Effect.map(note(name))
          ),
        { concurrency: "unbounded", discard: true }
      )
    }
    for (const name of diff.starts) {
      const spec = specs.get(name)!
      note(name)(yield* outcome(put(spec, running.has(name))))
      if (!problems.has(name)) running.set(name, plan.get(name))
    }
    for (const name of diff.stops.flat().filter((name) => !plan.has(name))) {
      const problem = yield* supervisor.removeChild(name).pipe(
        Effect.catchTag("UnknownChild", () => Effect.void),
        outcome
      )
      note(name)(problem)
      if (problem === null) running.delete(name)
    }
    const needsRestart = Equal.equals(first.supervisor, next.supervisor) ? [] : ["supervisor"]
    config = next
    const applied = (change: Applied["change"]) => (service: string, fields: ReadonlyArray<string> = []): Applied => ({
      service,
      change,
      fields,
      problem: problems.get(service) ?? null
    })
    return {
      unchanged: diff.unchanged,
      applied: [
        ...diff.removed.map((name) => applied("removed")(name)),
        ...diff.changed.map(({ fields, service }) => applied("changed")(service, fields)),
        ...diff.added.map((name) => applied("added")(name))
      ],
      needsRestart
    }
  })

  return {
    supervisor,
    config: Effect.sync(() => config),
    reload: Effect.fn("Services.reload")(function*(next) {
      const specs = yield* Effect.fromResult(
        specsOf({ ...next, supervisor: { ...next.supervisor, order: first.supervisor.order } }, keepers)
      )
      return yield* Semaphore.withPermits(reloading, 1)(
        Effect.uninterruptible(Effect.provide(apply(next, specs), context))
      )
    })
  }
})
