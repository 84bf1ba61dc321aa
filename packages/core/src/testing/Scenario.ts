/**
 * A lifecycle as data: supervised children, the system they run on, and what happens to them. A generator makes it, a
 * failure prints it, and the same scenario with the same seed runs the same way again (docs/test-lifecycles.md).
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Child from "../Child.ts"
import type { ChildSpec } from "../ChildSpec.ts"
import * as Probe from "../Probe.ts"
import type { ProcessPlatform } from "../ProcessPlatform.ts"
import * as Restart from "../Restart.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import * as Supervisor from "../Supervisor.ts"
import * as Script from "./internal/Script.ts"
import * as Program from "./Program.ts"
import * as SimulatedPlatform from "./SimulatedPlatform.ts"

/** How a child becomes ready: at once, by the line `ready`, or by a probe that a command can flip. */
export type ReadinessPlan = { readonly kind: "line" | "probe"; readonly within: number }

/** A child; times in ms. */
export type ChildPlan = {
  readonly id: string
  readonly program: Program.Program
  readonly mode: Restart.Mode
  readonly successCodes: ReadonlyArray<number>
  readonly permanentFailureCodes: ReadonlyArray<number>
  readonly backoff: {
    readonly first: number
    readonly max: number
    readonly jitter: number
    readonly times: number | null
  }
  readonly resetAfter: number
  /** From SIGTERM to the kill. */
  readonly grace: number
  readonly readiness: ReadinessPlan | null
  readonly liveness: { readonly interval: number; readonly failures: number } | null
  readonly dependsOn: ReadonlyArray<{ readonly child: string; readonly until: "ready" | "started" | "succeeded" }>
  readonly significant: boolean
  /** A nested supervisor instead of the program. */
  readonly nested: SupervisorPlan | null
}

export type SupervisorPlan = {
  readonly strategy: Supervisor.Strategy
  readonly max: number
  readonly within: number
  readonly order: "dependencies" | "sequence"
  readonly autoShutdown: "never" | "any" | "all"
  readonly children: ReadonlyArray<ChildPlan>
}

const ChildPlan: Schema.Codec<ChildPlan> = Schema.Struct({
  id: Schema.String,
  program: Program.Program,
  mode: Schema.Literals(["permanent", "transient", "temporary"]),
  successCodes: Schema.Array(Schema.Int),
  permanentFailureCodes: Schema.Array(Schema.Int),
  backoff: Schema.Struct({
    first: Schema.Finite,
    max: Schema.Finite,
    jitter: Schema.Finite,
    times: Schema.NullOr(Schema.Int)
  }),
  resetAfter: Schema.Finite,
  grace: Schema.Finite,
  readiness: Schema.NullOr(Schema.Struct({ kind: Schema.Literals(["line", "probe"]), within: Schema.Finite })),
  liveness: Schema.NullOr(Schema.Struct({ interval: Schema.Finite, failures: Schema.Int })),
  dependsOn: Schema.Array(
    Schema.Struct({ child: Schema.String, until: Schema.Literals(["ready", "started", "succeeded"]) })
  ),
  significant: Schema.Boolean,
  nested: Schema.NullOr(Schema.suspend((): Schema.Codec<SupervisorPlan> => SupervisorPlan))
})

export const SupervisorPlan: Schema.Codec<SupervisorPlan> = Schema.Struct({
  strategy: Schema.Literals(["one_for_one", "one_for_all", "rest_for_one"]),
  max: Schema.Int,
  within: Schema.Finite,
  order: Schema.Literals(["dependencies", "sequence"]),
  autoShutdown: Schema.Literals(["never", "any", "all"]),
  children: Schema.Array(ChildPlan)
})

/**
 * What happens. `child` is a path: `a`, or `a/b` in a nested supervisor; operations (`Start` to `Remove`) reach only
 * children of the supervisor itself.
 *
 * - `Start`, `Stop`, `Restart`, `Pause`, `Resume`, `Remove`, `StopAll`: operations; `Stop` with its own grace, in ms.
 * - `Crash`: a signal from outside to the leader. `Freeze`, `Thaw`: SIGSTOP and SIGCONT to it.
 * - `Flip`: its probe says from now on that it is healthy, or not.
 * - `Step`: time passes, in ms. Until a step nothing has to have happened yet.
 * - `Together`: operations at the same moment. `Abandon`: an operation whose caller is interrupted.
 * - `SetBack`: the wall clock is set back, in ms.
 * - `HostDeath`: the host is killed; nothing after it counts.
 */
export type Command =
  | { readonly _tag: "Start" | "Restart" | "Pause" | "Resume" | "Remove"; readonly child: string }
  | { readonly _tag: "Stop"; readonly child: string; readonly grace: number | null }
  | { readonly _tag: "Crash"; readonly child: string; readonly signal: "SIGKILL" | "SIGSEGV" | "SIGTERM" }
  | { readonly _tag: "Freeze" | "Thaw"; readonly child: string }
  | { readonly _tag: "Flip"; readonly child: string; readonly healthy: boolean }
  | { readonly _tag: "Step" | "SetBack"; readonly ms: number }
  | { readonly _tag: "StopAll" | "HostDeath" }
  | { readonly _tag: "Together"; readonly commands: ReadonlyArray<Command> }
  | { readonly _tag: "Abandon"; readonly command: Command }

const onChild = { child: Schema.String }

export const Command: Schema.Codec<Command> = Schema.Union([
  Schema.TaggedStruct("Start", onChild),
  Schema.TaggedStruct("Restart", onChild),
  Schema.TaggedStruct("Pause", onChild),
  Schema.TaggedStruct("Resume", onChild),
  Schema.TaggedStruct("Remove", onChild),
  Schema.TaggedStruct("Stop", { ...onChild, grace: Schema.NullOr(Schema.Finite) }),
  Schema.TaggedStruct("Crash", { ...onChild, signal: Schema.Literals(["SIGKILL", "SIGSEGV", "SIGTERM"]) }),
  Schema.TaggedStruct("Freeze", onChild),
  Schema.TaggedStruct("Thaw", onChild),
  Schema.TaggedStruct("Flip", { ...onChild, healthy: Schema.Boolean }),
  Schema.TaggedStruct("Step", { ms: Schema.Finite }),
  Schema.TaggedStruct("SetBack", { ms: Schema.Finite }),
  Schema.TaggedStruct("StopAll", {}),
  Schema.TaggedStruct("HostDeath", {}),
  Schema.TaggedStruct("Together", { commands: Schema.Array(Schema.suspend((): Schema.Codec<Command> => Command)) }),
  Schema.TaggedStruct("Abandon", { command: Schema.suspend((): Schema.Codec<Command> => Command) })
])

/** The system under the children; times in ms. */
export type SystemPlan = {
  readonly level: "group" | "marked" | "tagged" | "sealed"
  readonly reaps: boolean
  readonly spawnTime: number
  readonly exitDelay: number
  readonly noticeDelay: number
  readonly launchFailureRate: number
}

export const SystemPlan: Schema.Codec<SystemPlan> = Schema.Struct({
  level: Schema.Literals(["group", "marked", "tagged", "sealed"]),
  reaps: Schema.Boolean,
  spawnTime: Schema.Finite,
  exitDelay: Schema.Finite,
  noticeDelay: Schema.Finite,
  launchFailureRate: Schema.Finite
})

/** `seed` draws the order in which ready fibers run, the jitter, and the faults. */
export type Scenario = {
  readonly seed: number
  readonly system: SystemPlan
  readonly supervisor: SupervisorPlan
  readonly commands: ReadonlyArray<Command>
}

export const Scenario: Schema.Codec<Scenario> = Schema.Struct({
  seed: Schema.Int,
  system: SystemPlan,
  supervisor: SupervisorPlan,
  commands: Schema.Array(Command)
})

/** What the specs of a scenario tell the one who runs it. */
export interface Listeners {
  /** What the probes of a child say; true unless flipped. */
  readonly isHealthy: (child: string) => boolean
  /** A probe of a child begins or ends. */
  readonly onProbe: (child: string, phase: "begin" | "end") => void
  /** An event of the nested supervisor at this path. */
  readonly onEvent: (path: string, event: Supervisor.SupervisorEvent) => void
}

/** How long a probe of a scenario takes, in ms. */
const probeTime = 5

const probeOf = (child: string, listeners: Listeners): Probe.Probe =>
  Probe.effect(
    "flip",
    Effect.suspend(() => {
      let begun = false
      // An interruption may come before the beginning, or right after it.
      return Effect.onExit(
        Effect.suspend(() => {
          begun = true
          listeners.onProbe(child, "begin")
          return Effect.andThen(
            Effect.sleep(probeTime),
            Effect.suspend(() => listeners.isHealthy(child) ? Effect.void : Effect.fail("flipped"))
          )
        }),
        () => Effect.sync(() => begun ? listeners.onProbe(child, "end") : undefined)
      )
    })
  )

const policies = { permanent: Restart.permanent, transient: Restart.transient, temporary: Restart.temporary }

const specOf = (plan: ChildPlan, parent: string, listeners: Listeners): ChildSpec<ProcessPlatform> => {
  const path = `${parent}${plan.id}`
  const restart = policies[plan.mode]({
    successCodes: plan.successCodes,
    permanentFailureCodes: plan.permanentFailureCodes,
    backoff: Restart.exponential({ ...plan.backoff, times: plan.backoff.times ?? undefined }),
    resetAfter: plan.resetAfter
  })
  const shared = { restart, dependsOn: plan.dependsOn, significant: plan.significant }
  if (plan.nested !== null) {
    return Supervisor.child(plan.id, toSpecs(plan.nested, listeners, `${path}/`), {
      ...toOptions(plan.nested),
      onEvent: (event) => listeners.onEvent(path, event),
      ...shared
    })
  }
  return Child.make(plan.id, {
    command: SimulatedPlatform.command(plan.program),
    shutdown: ShutdownPlan.terminate({ within: plan.grace }),
    readiness: plan.readiness === null ? undefined : Probe.readiness(
      plan.readiness.kind === "line" ? Probe.line("ready") : probeOf(path, listeners),
      { within: plan.readiness.within, interval: 50, timeout: 500 }
    ),
    liveness: plan.liveness === null ? undefined : Probe.liveness(probeOf(path, listeners), {
      interval: plan.liveness.interval,
      timeout: 500,
      failureThreshold: plan.liveness.failures
    }),
    ...shared
  })
}

/** The children as specs. */
export const toSpecs = (
  plan: SupervisorPlan,
  listeners: Listeners,
  parent = ""
): ReadonlyArray<ChildSpec<ProcessPlatform>> => plan.children.map((child) => specOf(child, parent, listeners))

export const toOptions = (plan: SupervisorPlan): Supervisor.Options => ({
  strategy: plan.strategy,
  intensity: { max: plan.max, within: plan.within },
  order: plan.order,
  autoShutdown: plan.autoShutdown
})

/** The paths of all children that are processes. */
export const paths = (plan: SupervisorPlan, parent = ""): ReadonlyArray<string> =>
  plan.children.flatMap(({ id, nested }) => nested === null ? [`${parent}${id}`] : paths(nested, `${parent}${id}/`))

/** A test that runs this very scenario again, to be pasted; it needs `it` and `Lifecycle`. */
export const toScript = (scenario: Scenario): string =>
  Script.test(`Lifecycle.replay(${Script.expression(scenario, "  ")})`)
