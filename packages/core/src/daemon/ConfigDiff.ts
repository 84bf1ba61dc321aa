/**
 * What a new configuration changes, and in which order it is applied. Pure.
 */
import * as Equal from "effect/Equal"
import type { Dependency } from "../ChildSpec.ts"
import * as ServiceChild from "./ServiceChild.ts"
import type { Config, Service } from "./ServiceConfig.ts"

/** A service with what its groups and the order of services add to it. */
export interface Planned {
  readonly service: Service
  /** `dependsOn` with the services of groups in their place. */
  readonly dependsOn: ReadonlyArray<Dependency>
  /** The services that are started before it, and stopped after it. */
  readonly after: ReadonlyArray<string>
}

export type Plan = ReadonlyMap<string, Planned>

/** The services of a configuration. */
export const plan = ({ groups, services, supervisor }: Pick<Config, "services" | "groups" | "supervisor">): Plan => {
  let previous: string | undefined
  return new Map(
    Object.entries(services).map(([name, service]) => {
      const dependsOn = ServiceChild.dependenciesOf(name, service, groups)
      const before = supervisor.order === "sequence" && previous !== undefined ? [previous] : []
      previous = name
      return [name, { service, dependsOn, after: [...dependsOn.map(({ child }) => child), ...before] }]
    })
  )
}

/** A service that runs by one configuration and is described otherwise by another one. */
export interface Changed {
  readonly service: string
  /** The fields that differ; empty when it is not known what runs. */
  readonly fields: ReadonlyArray<string>
}

export interface Diff {
  readonly unchanged: ReadonlyArray<string>
  readonly changed: ReadonlyArray<Changed>
  readonly added: ReadonlyArray<string>
  readonly removed: ReadonlyArray<string>
  /** What is stopped: one group after the other, those that depend on others first. */
  readonly stops: ReadonlyArray<ReadonlyArray<string>>
  /** What is started: changed and added ones, those that others depend on first. */
  readonly starts: ReadonlyArray<string>
}

const differing = (old: Planned, next: Planned): ReadonlyArray<string> => {
  const names = new Set([...Object.keys(old.service), ...Object.keys(next.service)]) as Set<keyof Service>
  return [...names].filter((name) =>
    name === "dependsOn"
      ? !Equal.equals(old.dependsOn, next.dependsOn)
      : !Equal.equals(old.service[name], next.service[name])
  )
}

/**
 * How many services have to come before each, one after the other. After a reload that failed in part there may be a
 * circle of old and new; it is cut somewhere.
 */
const depths = (services: ReadonlyMap<string, Pick<Planned, "after">>): ReadonlyMap<string, number> => {
  const found = new Map<string, number>()
  const entered = new Set<string>()
  for (const name of services.keys()) {
    // Depth first, with a stack of its own: a chain may be as long as the list.
    const stack = [name]
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const before = (services.get(top)?.after ?? []).filter((other) => services.has(other))
      entered.add(top)
      const open = before.filter((other) => !entered.has(other))
      if (open.length > 0 && !found.has(top)) stack.push(...open)
      else {
        stack.pop()
        if (!found.has(top)) found.set(top, 1 + Math.max(-1, ...before.map((other) => found.get(other) ?? -1)))
      }
    }
  }
  return found
}

/** The services in their order: those of one level are independent of each other, and each needs only levels before it. */
export const levels = (services: Plan): ReadonlyArray<ReadonlyArray<string>> => {
  const found: Array<Array<string>> = []
  for (const [name, depth] of depths(services)) (found[depth] ??= []).push(name)
  return found
}

/**
 * The difference. `old` is what runs; a service that is known there by its name only counts as changed.
 *
 * @example
 * ```ts
 * import { ConfigDiff, ServiceConfig } from "@treeline/core/daemon"
 * import { Schema } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const plan = (services: ServiceConfig.Input["services"]) =>
 *   ConfigDiff.plan(Schema.decodeUnknownSync(ServiceConfig.Config)({ services }))
 * const diff = ConfigDiff.between(
 *   plan({ db: { command: "postgres" }, web: { command: "node", dependsOn: ["db"] } }),
 *   plan({ db: { command: "postgres" }, web: { command: "node", dependsOn: ["db"], args: ["-v"] }, job: { command: "true" } })
 * )
 * deepStrictEqual(diff.changed, [{ service: "web", fields: ["args"] }])
 * deepStrictEqual([diff.unchanged, diff.stops, diff.starts], [["db"], [["web"]], ["job", "web"]])
 * ```
 */
export const between = (old: ReadonlyMap<string, Planned | undefined>, next: Plan): Diff => {
  const unchanged: Array<string> = []
  const changed: Array<Changed> = []
  const added: Array<string> = []
  for (const [name, planned] of next) {
    const running = old.get(name)
    if (!old.has(name)) added.push(name)
    else if (running === undefined) changed.push({ service: name, fields: [] })
    else {
      const fields = differing(running, planned)
      if (fields.length === 0) unchanged.push(name)
      else changed.push({ service: name, fields })
    }
  }
  const removed = [...old.keys()].filter((name) => !next.has(name))
  const down = depths(new Map([...old].map(([name, planned]) => [name, planned ?? { after: [] }])))
  const levels = new Map<number, Array<string>>()
  for (const name of [...changed.map(({ service }) => service), ...removed]) {
    const level = down.get(name) ?? 0
    levels.set(level, [...levels.get(level) ?? [], name])
  }
  const up = depths(next)
  const starting = new Set([...changed.map(({ service }) => service), ...added])
  return {
    unchanged,
    changed,
    added,
    removed,
    stops: [...levels].sort(([a], [b]) => b - a).map(([, names]) => names),
    starts: [...next.keys()].filter((name) => starting.has(name)).sort((a, b) => (up.get(a) ?? 0) - (up.get(b) ?? 0))
  }
}
