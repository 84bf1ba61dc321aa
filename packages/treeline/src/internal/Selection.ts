/** A part of a configuration: named services and what they need. */
import { dependenciesOf } from "@treeline/core/daemon/ServiceChild"
import type { Config } from "@treeline/core/daemon/ServiceConfig"
import * as Result from "effect/Result"
import { UnknownName } from "./Failure.ts"

/** The names that can be said of a configuration. */
export const namesOf = ({ groups, services }: Config): ReadonlyArray<string> => [
  ...Object.keys(services),
  ...Object.keys(groups)
]

/** The services that names of services and groups mean, in the order of the configuration; no name means all. */
export const servicesOf = (
  config: Config,
  names: ReadonlyArray<string>
): Result.Result<ReadonlyArray<string>, UnknownName> => {
  const all = Object.keys(config.services)
  if (names.length === 0) return Result.succeed(all)
  const wanted = new Set<string>()
  for (const name of names) {
    const members = Object.hasOwn(config.groups, name)
      ? config.groups[name]!
      : Object.hasOwn(config.services, name)
      ? [name]
      : undefined
    if (members === undefined) return Result.fail(new UnknownName({ kind: "service", name, known: namesOf(config) }))
    for (const member of members) wanted.add(member)
  }
  return Result.succeed(all.filter((name) => wanted.has(name)))
}

/** The configuration with only these services, what they depend on, and groups of those. */
export const select = (config: Config, names: ReadonlyArray<string>): Result.Result<Config, UnknownName> =>
  Result.map(servicesOf(config, names), (wanted) => {
    const kept = new Set<string>()
    const keep = (name: string): void => {
      if (kept.has(name)) return
      kept.add(name)
      for (const { child } of dependenciesOf(name, config.services[name]!, config.groups)) keep(child)
    }
    for (const name of wanted) keep(name)
    const services = Object.entries(config.services).filter(([name]) => kept.has(name))
    const groups = Object.entries(config.groups).flatMap(([group, members]) => {
      const left = members.filter((member) => kept.has(member))
      return left.length === 0 ? [] : [[group, left] as const]
    })
    return { ...config, services: Object.fromEntries(services), groups: Object.fromEntries(groups) }
  })
