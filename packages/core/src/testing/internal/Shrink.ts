/** Makes a failing scenario smaller while it still fails. */
import * as Effect from "effect/Effect"
import type { ChildPlan, Command, Scenario, SupervisorPlan } from "../Scenario.ts"

export const without = <A>(values: ReadonlyArray<A>, index: number): ReadonlyArray<A> =>
  values.filter((_, at) => at !== index)

export const replaced = <A>(values: ReadonlyArray<A>, index: number, value: A): ReadonlyArray<A> =>
  values.map((old, at) => at === index ? value : old)

/** Fewer of them, or smaller ones, the much smaller lists first. */
export function* smallerList<A>(
  values: ReadonlyArray<A>,
  smaller: (value: A) => Iterable<A>
): Generator<ReadonlyArray<A>> {
  // Halves first: most of a long script is noise.
  for (let size = Math.floor(values.length / 2); size > 1; size = Math.floor(size / 2)) {
    for (let at = 0; at < values.length; at += size) yield [...values.slice(0, at), ...values.slice(at + size)]
  }
  for (let at = 0; at < values.length; at++) yield without(values, at)
  for (const [at, value] of values.entries()) {
    for (const less of smaller(value)) yield replaced(values, at, less)
  }
}

function* smallerCommand(command: Command): Generator<Command> {
  if (command._tag === "Together") yield* command.commands
  if (command._tag === "Abandon") yield command.command
  if (command._tag === "Step") { for (const ms of [1, 100, 1000]) if (ms < command.ms) yield { ...command, ms } }
  if (command._tag === "Together") {
    for (const commands of smallerList(command.commands, smallerCommand)) {
      if (commands.length > 0) yield { ...command, commands }
    }
  }
}

/** Fewer commands, or smaller ones. */
export const smallerCommands = (commands: ReadonlyArray<Command>): Generator<ReadonlyArray<Command>> =>
  smallerList(commands, smallerCommand)

function* smallerChild(child: ChildPlan): Generator<ChildPlan> {
  if (child.nested !== null) {
    for (const nested of smallerSupervisor(child.nested)) yield { ...child, nested }
    return
  }
  if (child.liveness !== null) yield { ...child, liveness: null }
  if (child.readiness !== null) yield { ...child, readiness: null }
  for (let at = 0; at < child.dependsOn.length; at++) yield { ...child, dependsOn: without(child.dependsOn, at) }
  for (let at = 0; at < child.program.length; at++) yield { ...child, program: without(child.program, at) }
  if (child.significant) yield { ...child, significant: false }
  if (child.permanentFailureCodes.length > 0) yield { ...child, permanentFailureCodes: [] }
  if (child.successCodes.length > 1) yield { ...child, successCodes: [0] }
  if (child.backoff.times !== null) yield { ...child, backoff: { ...child.backoff, times: null } }
  if (child.backoff.jitter > 0) yield { ...child, backoff: { ...child.backoff, jitter: 0 } }
  if (child.grace > 0) yield { ...child, grace: 0 }
}

function* smallerSupervisor(plan: SupervisorPlan): Generator<SupervisorPlan> {
  for (const [at, { id }] of plan.children.entries()) {
    if (plan.children.length === 1) break
    const children = without(plan.children, at).map((child) => ({
      ...child,
      dependsOn: child.dependsOn.filter((dependency) => dependency.child !== id)
    }))
    yield { ...plan, children }
  }
  if (plan.autoShutdown !== "never") yield { ...plan, autoShutdown: "never" }
  if (plan.order !== "dependencies") yield { ...plan, order: "dependencies" }
  if (plan.strategy !== "one_for_one") yield { ...plan, strategy: "one_for_one" }
  for (const [at, child] of plan.children.entries()) {
    for (const smaller of smallerChild(child)) yield { ...plan, children: replaced(plan.children, at, smaller) }
  }
}

/** Smaller scenarios, the much smaller ones first. */
export function* smaller(scenario: Scenario): Generator<Scenario> {
  for (const commands of smallerCommands(scenario.commands)) yield { ...scenario, commands }
  for (const supervisor of smallerSupervisor(scenario.supervisor)) yield { ...scenario, supervisor }
  const calm = {
    level: "tagged",
    reaps: true,
    spawnTime: 0,
    exitDelay: 0,
    noticeDelay: 0,
    launchFailureRate: 0
  } as const
  for (const key of ["launchFailureRate", "noticeDelay", "exitDelay", "spawnTime", "reaps", "level"] as const) {
    if (scenario.system[key] !== calm[key]) yield { ...scenario, system: { ...scenario.system, [key]: calm[key] } }
  }
}

/** The smallest scenario that was found within `budget` runs and that `fails`. */
export const shrink = <S, E, R>(
  first: S,
  candidates: (scenario: S) => Iterable<S>,
  fails: (scenario: S) => Effect.Effect<boolean, E, R>,
  budget: number
): Effect.Effect<S, E, R> =>
  Effect.gen(function*() {
    let best = first
    let rest = budget
    let progress = true
    while (progress && rest > 0) {
      progress = false
      for (const candidate of candidates(best)) {
        if (rest-- <= 0) break
        if (yield* fails(candidate)) {
          best = candidate
          progress = true
          break
        }
      }
    }
    return best
  })
