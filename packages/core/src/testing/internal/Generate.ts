/** Draws scenarios: small ones, that meet in odd moments. */
import * as Program from "../Program.ts"
import type { ChildPlan, Command, Scenario, SupervisorPlan, SystemPlan } from "../Scenario.ts"
import { Draw } from "./Seed.ts"

/** What scenarios may hold. */
export interface Bounds {
  readonly children: number
  readonly commands: number
  readonly nested: boolean
}

const millis = [0, 1, 10, 50, 100, 200, 500, 1000] as const

const signals = ["SIGKILL", "SIGSEGV", "SIGTERM"] as const

/** How a program ends by itself, or that it does not. */
const finish = (draw: Draw): Program.Program =>
  draw.weighted<() => Program.Program>(
    [6, () => [Program.endure]],
    [2, () => [Program.exit(draw.pick([0, 1, 3, 125]))]],
    [1, () => [Program.raise(draw.pick(signals))]]
  )()

const program = (draw: Draw, ready: boolean): Program.Program => {
  const begin: Program.Program = [
    ...(draw.chance(0.2) ? [Program.ignore("SIGTERM")] : []),
    ...(draw.chance(0.15)
      ? [Program.trap("SIGTERM", Program.make(Program.sleep(draw.pick(millis)), Program.exit(draw.pick([0, 1]))))]
      : []),
    ...(draw.chance(0.25)
      ? [Program.fork(...(draw.chance(0.3) ? [Program.ignore("SIGTERM")] : []), Program.sleep(60_000))]
      : []),
    ...(draw.chance(0.1) ? [Program.daemonise(Program.sleep(60_000))] : []),
    ...(draw.chance(0.1) ? [Program.linger(draw.pick(millis))] : [])
  ]
  const announce = ready && !draw.chance(0.1)
    ? [Program.sleep(draw.pick(millis)), Program.write("ready\n")]
    : []
  return [...begin, ...announce, Program.sleep(draw.pick([...millis, 5000, 40_000])), ...finish(draw)]
}

const child = (draw: Draw, id: string, earlier: ReadonlyArray<string>, nested: boolean, bounds: Bounds): ChildPlan => {
  const readiness = draw.weighted<ChildPlan["readiness"]>(
    [3, null],
    [1, { kind: "line", within: draw.pick([200, 1000, 5000]) }],
    [1, { kind: "probe", within: draw.pick([200, 1000, 5000]) }]
  )
  const mode = draw.weighted<ChildPlan["mode"]>([4, "permanent"], [3, "transient"], [2, "temporary"])
  return {
    id,
    program: program(draw, readiness?.kind === "line"),
    mode,
    successCodes: draw.chance(0.2) ? [0, 3] : [0],
    permanentFailureCodes: draw.chance(0.2) ? [125] : [],
    backoff: {
      first: draw.pick([10, 100, 200]),
      max: draw.pick([200, 1000, 30_000]),
      jitter: draw.pick([0, 0.2]),
      times: draw.chance(0.15) ? draw.int(1, 3) : null
    },
    resetAfter: draw.pick([500, 5000, 30_000]),
    grace: draw.pick([0, 50, 300, 1000]),
    readiness: nested ? null : readiness,
    liveness: !nested && draw.chance(0.25)
      ? { interval: draw.pick([200, 1000, 2000]), failures: draw.int(1, 3) }
      : null,
    dependsOn: earlier.filter(() => draw.chance(0.25)).map((other) => ({
      child: other,
      until: draw.weighted<"ready" | "started" | "succeeded">([5, "ready"], [2, "started"], [1, "succeeded"])
    })),
    significant: mode !== "permanent" && draw.chance(0.2),
    nested: nested ? supervisor(draw, { ...bounds, children: 2, nested: false }) : null
  }
}

const supervisor = (draw: Draw, bounds: Bounds): SupervisorPlan => {
  const ids = ["a", "b", "c", "d", "e", "f", "g", "h"].slice(
    0,
    // Mostly few: two children already meet in every way that a strategy knows.
    Math.min(draw.int(1, Math.min(8, bounds.children)), draw.int(1, Math.min(8, bounds.children)))
  )
  return {
    strategy: draw.pick(["one_for_one", "one_for_one", "one_for_all", "rest_for_one"]),
    max: draw.pick([0, 1, 2, 3, 5, 20]),
    within: draw.pick([500, 1000, 5000, 60_000]),
    order: draw.chance(0.2) ? "sequence" : "dependencies",
    autoShutdown: draw.weighted<SupervisorPlan["autoShutdown"]>([4, "never"], [1, "any"], [1, "all"]),
    children: ids.map((id, index) => child(draw, id, ids.slice(0, index), bounds.nested && draw.chance(0.12), bounds))
  }
}

const system = (draw: Draw): SystemPlan => ({
  level: draw.pick(["tagged", "tagged", "sealed", "marked"]),
  reaps: draw.chance(0.5),
  spawnTime: draw.weighted([4, 0], [1, 1], [1, 50]),
  exitDelay: draw.weighted([4, 0], [1, 1], [1, 30]),
  noticeDelay: draw.weighted([5, 0], [1, 20]),
  launchFailureRate: draw.weighted([5, 0], [1, 0.2])
})

/** What commands can be about: children that operations reach, and those that can be signalled and probed. */
export interface Targets {
  readonly tops: ReadonlyArray<string>
  readonly leaves: ReadonlyArray<string>
  /** Whether the probes are the kit's own, which a command flips. */
  readonly probes: boolean
  /** Whether the wall clock can be set. */
  readonly wallClock: boolean
}

const command = (draw: Draw, targets: Targets, depth: number): Command => {
  const { leaves, tops } = targets
  const top = () => draw.pick(tops)
  const leaf = () => draw.pick(leaves)
  return draw.weighted<() => Command>(
    [depth === 0 ? 6 : 0, () => ({ _tag: "Step", ms: draw.pick([...millis, 200, 500, 1000, 5000, 10_000]) })],
    [4, () => ({ _tag: "Crash", child: leaf(), signal: draw.pick(signals) })],
    [2, () => ({ _tag: "Start", child: top() })],
    [2.5, () => ({ _tag: "Stop", child: top(), grace: draw.chance(0.3) ? draw.pick([0, 50, 1000]) : null })],
    [2.5, () => ({ _tag: "Restart", child: top() })],
    [0.8, () => ({ _tag: "Pause", child: top() })],
    [0.8, () => ({ _tag: "Resume", child: top() })],
    [targets.probes ? 1 : 0, () => ({ _tag: "Flip", child: leaf(), healthy: draw.chance(0.4) })],
    [0.5, () => ({ _tag: "Freeze", child: leaf() })],
    [0.4, () => ({ _tag: "Thaw", child: leaf() })],
    [0.2, () => ({ _tag: "Remove", child: top() })],
    [0.2, () => ({ _tag: "StopAll" })],
    [targets.wallClock ? 0.2 : 0, () => ({ _tag: "SetBack", ms: 3_600_000 })],
    [depth === 0 ? 2.5 : 0, () => ({
      _tag: "Together",
      commands: Array.from({ length: draw.int(2, 3) }, () => command(draw, targets, 1))
    })],
    [depth === 0 ? 0.6 : 0, () => ({ _tag: "Abandon", command: command(draw, targets, 1) })]
  )()
}

const leavesOf = (plan: SupervisorPlan, prefix = ""): ReadonlyArray<string> =>
  plan.children.flatMap(({ id, nested }) => nested === null ? [`${prefix}${id}`] : leavesOf(nested, `${prefix}${id}/`))

/** At least one command, and at most so many. */
export const commands = (draw: Draw, targets: Targets, count: number): ReadonlyArray<Command> =>
  Array.from({ length: Math.min(draw.int(1, count), draw.int(1, count)) }, () => command(draw, targets, 0))

/** The scenario of a seed. */
export const scenario = (seed: number, bounds: Bounds): Scenario => {
  const draw = new Draw(seed)
  const plan = supervisor(draw, bounds)
  const targets = {
    tops: plan.children.map(({ id }) => id),
    leaves: leavesOf(plan),
    probes: true,
    wallClock: true
  }
  const script = commands(draw, targets, bounds.commands)
  return {
    seed,
    system: system(draw),
    supervisor: plan,
    commands: draw.chance(0.05) ? [...script, { _tag: "HostDeath" }] : script
  }
}
