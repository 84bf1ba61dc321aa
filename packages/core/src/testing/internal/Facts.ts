/** What specs promise, as the invariants read it. */
import * as Duration from "effect/Duration"
import type { ChildSpec } from "../../ChildSpec.ts"
import * as Output from "../../Output.ts"
import type { Options } from "../../Supervisor.ts"
import type { ChildPlan, Scenario, SupervisorPlan } from "../Scenario.ts"
import type { ChildFacts, Facts } from "./Invariants.ts"

/** What an end takes beside its plan: the exit that the system is slow to tell, and the turns of the loop; ms. */
const slack = 2000

const drainLimit = Duration.toMillis(Duration.fromInputUnsafe(Output.defaultDrain.limit))

/** A later plan of a stop can only be shorter. */
const stopWithin = (steps: number, cap: number): number => steps + 2 * cap + drainLimit + slack

const defaultCap = 5000

const withPrevious = <D extends { readonly child: string }>(
  dependsOn: ReadonlyArray<D>,
  previous: string | undefined
): ReadonlyArray<D | { readonly child: string; readonly until: "ready" }> =>
  previous === undefined || dependsOn.some(({ child }) => child === previous)
    ? dependsOn
    : [...dependsOn, { child: previous, until: "ready" }]

const factsOfPlan = (plan: SupervisorPlan, path: string, exitDelay: number): Facts => {
  const prefix = path === "" ? "" : `${path}/`
  const factsOf = (child: ChildPlan, index: number): ChildFacts => ({
    path: `${prefix}${child.id}`,
    supervisor: path,
    mode: child.mode,
    successCodes: child.successCodes,
    permanentFailureCodes: child.permanentFailureCodes,
    backoff: child.backoff,
    resetAfter: child.resetAfter,
    stopWithin: child.nested === null
      ? stopWithin(child.grace, defaultCap) + exitDelay
      : child.nested.children.reduce((sum, { grace }) => sum + stopWithin(grace, defaultCap) + exitDelay, slack),
    dependsOn: withPrevious(
      child.dependsOn,
      plan.order === "sequence" ? plan.children[index - 1]?.id : undefined
    ),
    significant: child.significant
  })
  const nested = plan.children.flatMap((child) =>
    child.nested === null ? [] : [factsOfPlan(child.nested, `${prefix}${child.id}`, exitDelay)]
  )
  return {
    children: [...plan.children.map(factsOf), ...nested.flatMap(({ children }) => children)],
    supervisors: [
      {
        path,
        strategy: plan.strategy,
        max: plan.max,
        within: plan.within,
        autoShutdown: plan.autoShutdown,
        children: plan.children.map(({ id }) => id)
      },
      ...nested.flatMap(({ supervisors }) => supervisors)
    ]
  }
}

export const ofScenario = ({ supervisor, system }: Scenario): Facts => factsOfPlan(supervisor, "", system.exitDelay)

const ms = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input))

/** Of anybody's specs: backoff schedules and the insides of nested supervisors are not known. */
export const ofSpecs = (children: ReadonlyArray<ChildSpec<unknown>>, options: Options): Facts => ({
  children: children.map((spec, index): ChildFacts => ({
    path: spec.id,
    supervisor: "",
    mode: spec.restart.mode,
    successCodes: spec.restart.successCodes,
    permanentFailureCodes: spec.restart.permanentFailureCodes,
    backoff: undefined,
    resetAfter: ms(spec.restart.resetAfter),
    stopWithin: spec.body._tag === "Supervisor" ? Number.POSITIVE_INFINITY : stopWithin(
      spec.shutdown.steps.reduce((sum, step) => sum + ms(step.within), 0),
      ms(spec.shutdown.cap)
    ),
    dependsOn: withPrevious(spec.dependsOn, options.order === "sequence" ? children[index - 1]?.id : undefined),
    significant: spec.significant
  })),
  supervisors: [{
    path: "",
    strategy: options.strategy ?? "one_for_one",
    max: options.intensity?.max ?? 5,
    within: ms(options.intensity?.within ?? "1 minute"),
    autoShutdown: options.autoShutdown ?? "never",
    children: children.map(({ id }) => id)
  }]
})
