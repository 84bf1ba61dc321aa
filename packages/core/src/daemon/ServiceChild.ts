/** What a configured service is as a supervised child. */
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Child from "../Child.ts"
import { type ChildSpec, type Dependency, validate as validateChild } from "../ChildSpec.ts"
import { InvalidSpec } from "../Errors.ts"
import * as Pools from "../Pool.ts"
import * as Probe from "../Probe.ts"
import type { ProcessPlatform } from "../ProcessPlatform.ts"
import * as Restart from "../Restart.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import type { Keepers } from "./Keeper.ts"
import type { Config, Liveness, Pool, Readiness, Service, Value } from "./ServiceConfig.ts"

type Common = Pick<Service, keyof Service & keyof Pool>

class Problem extends Error {
  readonly field: string
  constructor(field: string, problem: string) {
    super(problem)
    this.field = field
  }
}

const texts = (
  field: string,
  values: Readonly<Record<string, Value>>
): Record<string, string | Redacted.Redacted<string>> =>
  Object.fromEntries(
    Object.entries(values).map(([name, value]) => {
      if (typeof value === "string" || Redacted.isRedacted(value)) return [name, value]
      throw new Problem(`${field}.${name}`, "the value has not been looked up; see ConfigLoad.load")
    })
  )

const pattern = (field: string, source: string): RegExp => {
  try {
    return new RegExp(source)
  } catch {
    throw new Problem(field, "expected a regular expression")
  }
}

const programOf = (service: Common, command: string, args: ReadonlyArray<string>, shell: boolean) =>
  ChildProcess.make(command, args, {
    cwd: service.cwd,
    env: texts("env", service.env),
    extendEnv: service.inheritEnv,
    shell
  })

const askedOf = (
  field: string,
  service: Common,
  { exec, http, tcp }: Pick<Readiness | Liveness, "exec" | "http" | "tcp">
): Probe.Probe | undefined => {
  if (tcp !== undefined) return Probe.tcp(tcp)
  if (exec !== undefined) {
    const [program = "", ...args] = exec
    return Probe.exec(programOf(service, program, args, false))
  }
  if (http === undefined) return undefined
  return Probe.http(
    typeof http === "string" ? http : {
      url: http.url,
      status: http.status,
      headers: texts(`${field}.http.headers`, http.headers),
      body: http.body === undefined ? undefined : pattern(`${field}.http.body`, http.body)
    }
  )
}

const readinessOf = (service: Common, readiness: Readiness): Probe.Readiness => {
  const { fd, line } = readiness
  const probe = line !== undefined
    ? typeof line === "string"
      ? Probe.line(line)
      : Probe.line(pattern("readiness.line.pattern", line.pattern), { stream: line.stream })
    : fd !== undefined
    ? Probe.fd(fd)
    : askedOf("readiness", service, readiness)
  if (probe === undefined) throw new Problem("readiness", "expected a probe")
  return Probe.readiness(probe, readiness)
}

const livenessOf = (service: Common, liveness: Liveness, index: number): Probe.Liveness => {
  const probe = askedOf(`liveness[${index}]`, service, liveness)
  if (probe === undefined) throw new Problem(`liveness[${index}]`, "expected a probe")
  return Probe.liveness(probe, liveness)
}

const modes = { permanent: Restart.permanent, transient: Restart.transient, temporary: Restart.temporary }

const restartOf = ({ backoff, mode, ...codes }: Service["restart"]): Restart.Policy =>
  modes[mode]({ ...codes, backoff: Restart.exponential(backoff) })

/** The ports that must be a service's own: those it names, and those of this machine that its probes connect to. */
export const portsOf = ({ liveness, ports, readiness }: Pick<Common, "liveness" | "ports" | "readiness">) => {
  const found = new Set<Child.Port>(ports)
  for (const probe of [readiness, ...liveness]) if (typeof probe?.tcp === "number") found.add(probe.tcp)
  return [...found]
}

const optionsOf = (service: Common): Child.Options => ({
  command: programOf(service, service.command, service.args, service.shell),
  ports: portsOf(service),
  readiness: service.readiness === undefined ? undefined : readinessOf(service, service.readiness),
  liveness: service.liveness.map((liveness, index) => livenessOf(service, liveness, index)),
  restart: restartOf(service.restart),
  shutdown: ShutdownPlan.make(service.shutdown.steps.map(ShutdownPlan.named), { cap: service.shutdown.cap }),
  limits: Object.keys(service.limits).length === 0 ? undefined : service.limits,
  require: service.require
})

/** The services that a service depends on; a group stands for all of its services, but for this one itself. */
export const dependenciesOf = (
  name: string,
  service: Service,
  groups: Config["groups"]
): ReadonlyArray<Dependency> => {
  const found = new Map<string, Dependency>()
  for (const dependency of service.dependsOn) {
    const { service: on, until } = typeof dependency === "string"
      ? { service: dependency, until: "ready" as const }
      : dependency
    const members = groups[on]
    const children = members === undefined ? [on] : members.filter((member) => member !== name)
    for (const child of children) found.set(`${child} ${until}`, { child, until })
  }
  return [...found.values()]
}

const attempt = <A>(make: () => A): Result.Result<A, InvalidSpec> => {
  try {
    return Result.succeed(make())
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    return Result.fail(new InvalidSpec({ field: error.field, problem: error.message }))
  }
}

/**
 * A service as a child; what is left to be checked is checked when it is started. `keepers` keep those that are to go on
 * when the daemon ends; without them these end with it, too.
 */
export const make = (
  name: string,
  service: Service,
  groups: Config["groups"] = {},
  keepers?: Keepers
): Result.Result<ChildSpec<ProcessPlatform>, InvalidSpec> =>
  attempt(() =>
    Child.make(name, {
      ...optionsOf(service),
      keeper: service.whenDaemonEnds === "keep" ? keepers?.keeper(name) : keepers?.unkept(name),
      dependsOn: dependenciesOf(name, service, groups),
      significant: service.significant
    })
  )

/**
 * The child of a pool for a key: `{key}` stands for it in the command, the arguments, the folder, the environment and
 * the probes. A pool with a command for the shell can't have it in the command, because the shell would run what it says.
 */
export const forKey = (pool: Pool, key: string): Result.Result<ChildSpec<ProcessPlatform>, InvalidSpec> => {
  if (pool.shell && pool.command.includes("{key}")) {
    return Result.fail(
      new InvalidSpec({ field: "command", problem: "a line for the shell can't hold {key}; give it in \"env\"" })
    )
  }
  const replaced = <A>(value: A): A => {
    if (typeof value === "string") return value.replaceAll("{key}", () => key) as A
    if (Array.isArray(value)) return value.map(replaced) as A
    if (typeof value !== "object" || value === null || Redacted.isRedacted(value)) return value
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, replaced(item)])) as A
  }
  return attempt(() => Child.make(key, optionsOf(replaced(pool))))
}

/**
 * A configured pool, for `Pool.make`.
 *
 * @example
 * ```ts
 * import { Pool } from "@treeline/core"
 * import { ServiceChild, ServiceConfig } from "@treeline/core/daemon"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect, Schema } from "effect"
 *
 * const { pools } = Schema.decodeUnknownSync(ServiceConfig.Config)({
 *   pools: { tenants: { command: "sleep", args: ["60"], env: { TENANT: "{key}" }, idle: "5 minutes" } }
 * })
 * const program = Effect.gen(function*() {
 *   const pool = yield* Pool.make(ServiceChild.poolOptions("tenants", pools["tenants"]!))
 *   return (yield* pool.ensure("acme")).key
 * })
 * const key = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(PosixPlatform.layer)))
 * if (key !== "acme") throw new Error(key)
 * ```
 */
export const poolOptions = (name: string, pool: Pool) => ({
  name,
  build: (key: string) => Effect.map(Effect.fromResult(forKey(pool, key)), (child) => ({ child })),
  startWithin: pool.startWithin,
  idle: pool.idle === undefined ? undefined : { after: pool.idle },
  capacity: pool.capacity,
  recycle: Object.keys(pool.recycle).length === 0 ? undefined : pool.recycle
})

/** Checks a configured pool, with a child of it; `field` of the error begins with its name. */
export const validatePool = (name: string, pool: Pool): Result.Result<void, InvalidSpec> =>
  Pools.validate(poolOptions(name, pool)).pipe(
    Result.mapError(({ field, problem }) => new InvalidSpec({ field: `${name}.${field}`, problem })),
    Result.flatMap(() => forKey(pool, name)),
    Result.flatMap(validateChild),
    Result.map(() => undefined)
  )
