/** Draws lifecycles of pools: small ones, that meet in odd moments; and makes what fails smaller. */
import type { Command, KeyPlan, PoolPlan, PoolScenario } from "../PoolScenario.ts"
import * as Program from "../Program.ts"
import { Draw } from "./Seed.ts"
import { replaced, smallerList, without } from "./Shrink.ts"

const millis = [0, 0, 1, 10, 50, 100, 200, 500] as const

const signals = ["SIGKILL", "SIGSEGV", "SIGTERM"] as const

const program = (draw: Draw): Program.Program => [
  ...(draw.chance(0.25) ? [Program.ignore("SIGTERM")] : []),
  ...(draw.chance(0.25)
    ? [Program.fork(...(draw.chance(0.3) ? [Program.ignore("SIGTERM")] : []), Program.endure)]
    : []),
  ...(draw.chance(0.1) ? [Program.daemonise(Program.endure)] : []),
  ...(draw.chance(0.1) ? [Program.linger(draw.pick(millis))] : []),
  ...draw.weighted<() => Program.Program>(
    [8, () => [Program.endure]],
    [2, () => [Program.sleep(draw.pick([...millis, 3000])), Program.exit(draw.pick([0, 1]))]],
    [1, () => [Program.sleep(draw.pick(millis)), Program.raise(draw.pick(signals))]]
  )()
]

const keyPlan = (draw: Draw, key: string): KeyPlan => ({
  key,
  program: program(draw),
  restore: draw.pick(millis),
  build: draw.pick(millis),
  endpoint: draw.pick(millis),
  save: draw.pick(millis),
  failedBuilds: draw.chance(0.2) ? draw.int(1, 2) : 0,
  failedSaves: draw.chance(0.2) ? draw.int(1, 5) : 0
})

const poolPlan = (draw: Draw): PoolPlan => {
  const keys = ["a", "b", "c", "d"].slice(0, draw.int(1, 4))
  return {
    keys: keys.map((key) => keyPlan(draw, key)),
    startWithin: draw.pick([300, 1000, 10_000]),
    saveWithin: draw.pick([300, 5000]),
    grace: draw.pick([0, 50, 300, 1000]),
    idle: draw.chance(0.6) ? draw.pick([100, 500, 2000]) : null,
    activity: draw.weighted<PoolPlan["activity"]>([5, "none"], [2, "idle"], [1, "busy"], [1, "fails"], [1, "hangs"]),
    age: draw.chance(0.3) ? draw.pick([500, 2000]) : null,
    uses: draw.chance(0.3) ? draw.int(1, 4) : null,
    capacity: draw.chance(0.6)
      ? {
        max: draw.int(1, keys.length),
        waiting: draw.chance(0.2) ? draw.int(0, 1) : 10,
        within: draw.pick([500, 10_000]),
        evictAfter: draw.pick([0, 0, 200])
      }
      : null
  }
}

const operation = (draw: Draw, keys: ReadonlyArray<string>): Command => {
  const key = draw.pick(keys)
  return draw.weighted<() => Command>(
    [8, () => ({ _tag: "Ensure", key })],
    [5, () => ({ _tag: "Lease", key, held: draw.pick([0, 10, 200, 1000, 3000]) })],
    [2, () => ({ _tag: "Touch", key })],
    [2, () => ({ _tag: "Shutdown", key, grace: draw.chance(0.3) ? draw.pick([0, 100]) : null })],
    [1, () => ({ _tag: "RetrySave", key })],
    [1, () => ({ _tag: "Discard", key })],
    [1, () => ({ _tag: "ShutdownAll" })]
  )()
}

/** Moments at which something of a pool falls due, ms from its beginning, and a little later. */
const moments = ({ age, capacity, idle, keys }: PoolPlan): ReadonlyArray<number> => {
  const limits = [0, idle ?? 0, idle ?? 0, age ?? 0, capacity?.evictAfter ?? 0]
  return keys.flatMap(({ build, endpoint, restore }) => limits.map((limit) => restore + build + endpoint + limit))
    .flatMap((ms) => [ms, ms + 10])
}

const command = (draw: Draw, plan: PoolPlan): Command => {
  const keys = plan.keys.map(({ key }) => key)
  const due = moments(plan)
  return draw.weighted<() => Command>(
    [10, () => operation(draw, keys)],
    [3, () => ({ _tag: "Step", ms: draw.pick([...millis, 300, 1000, 2000]) })],
    [3, () => ({ _tag: "Step", ms: draw.pick(due) })],
    [2, () => ({ _tag: "Crash", key: draw.pick(keys), signal: draw.pick(signals) })],
    [4, () => ({
      _tag: "Together",
      commands: Array.from({ length: draw.int(2, 5) }, () => operation(draw, keys))
    })],
    [3, () => ({
      _tag: "Abandon",
      command: operation(draw, keys),
      after: draw.chance(0.4) ? 0 : draw.pick([...millis, ...due])
    })]
  )()
}

/** The scenario of a seed, with at most so many commands. */
export const scenario = (seed: number, commands: number): PoolScenario => {
  const draw = new Draw(seed)
  const pool = poolPlan(draw)
  return {
    seed,
    system: {
      level: draw.pick(["tagged", "sealed"]),
      reaps: draw.chance(0.9),
      spawnTime: draw.chance(0.3) ? draw.pick(millis) : 0,
      exitDelay: draw.chance(0.3) ? draw.pick(millis) : 0,
      noticeDelay: draw.chance(0.2) ? draw.pick(millis) : 0,
      launchFailureRate: draw.chance(0.1) ? 0.3 : 0
    },
    pool,
    commands: Array.from({ length: draw.int(1, commands) }, () => command(draw, pool))
  }
}

function* smallerCommand(command: Command): Generator<Command> {
  if (command._tag === "Together") yield* command.commands
  if (command._tag === "Abandon") {
    yield command.command
    if (command.after > 0) yield { ...command, after: 0 }
  }
  if (command._tag === "Step") { for (const ms of [1, 100, 1000]) if (ms < command.ms) yield { ...command, ms } }
  if (command._tag === "Lease" && command.held > 0) yield { ...command, held: 0 }
  if (command._tag === "Shutdown" && command.grace !== null) yield { ...command, grace: null }
  if (command._tag === "Together") {
    for (const commands of smallerList(command.commands, smallerCommand)) {
      if (commands.length > 0) yield { ...command, commands }
    }
  }
}

const keyOf = (command: Command): ReadonlyArray<string> => {
  switch (command._tag) {
    case "Together":
      return command.commands.flatMap(keyOf)
    case "Abandon":
      return keyOf(command.command)
    case "Step":
    case "ShutdownAll":
      return []
    default:
      return [command.key]
  }
}

function* smallerKey(plan: KeyPlan): Generator<KeyPlan> {
  for (let at = 0; at < plan.program.length; at++) {
    if (plan.program.length > 1) yield { ...plan, program: without(plan.program, at) }
  }
  for (const field of ["restore", "build", "endpoint", "save", "failedBuilds", "failedSaves"] as const) {
    if (plan[field] > 0) yield { ...plan, [field]: 0 }
  }
}

function* smallerPool(plan: PoolPlan, used: ReadonlySet<string>): Generator<PoolPlan> {
  for (const [at, { key }] of plan.keys.entries()) {
    if (!used.has(key) && plan.keys.length > 1) yield { ...plan, keys: without(plan.keys, at) }
  }
  if (plan.capacity !== null) yield { ...plan, capacity: null }
  for (const field of ["idle", "age", "uses"] as const) if (plan[field] !== null) yield { ...plan, [field]: null }
  if (plan.activity !== "none") yield { ...plan, activity: "none" }
  if (plan.grace > 0) yield { ...plan, grace: 0 }
  for (const [at, key] of plan.keys.entries()) {
    for (const smaller of smallerKey(key)) yield { ...plan, keys: replaced(plan.keys, at, smaller) }
  }
}

/** Smaller scenarios, the much smaller ones first. */
export function* smaller(scenario: PoolScenario): Generator<PoolScenario> {
  for (const commands of smallerList(scenario.commands, smallerCommand)) yield { ...scenario, commands }
  const used = new Set(scenario.commands.flatMap(keyOf))
  for (const pool of smallerPool(scenario.pool, used)) yield { ...scenario, pool }
  const calm = {
    launchFailureRate: 0,
    noticeDelay: 0,
    exitDelay: 0,
    spawnTime: 0,
    reaps: true,
    level: "tagged"
  } as const
  for (const key of ["launchFailureRate", "noticeDelay", "exitDelay", "spawnTime", "reaps", "level"] as const) {
    if (scenario.system[key] !== calm[key]) yield { ...scenario, system: { ...scenario.system, [key]: calm[key] } }
  }
}
