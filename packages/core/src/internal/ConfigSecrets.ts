/** The secrets of a configuration, as texts that must not be in a log. Pure. */
import * as Redacted from "effect/Redacted"
import type { Config } from "../daemon/ServiceConfig.ts"

/** A shorter text, in characters, says nothing by itself: to take out each "1" or "3000" would only make logs unreadable. */
const shortest = 6

/** All of them, each line of one that has several; in no order. */
export const secretsOf = ({ pools, services }: Pick<Config, "services" | "pools">): ReadonlySet<string> => {
  const found = new Set<string>()
  const visit = (value: unknown): void => {
    if (Redacted.isRedacted(value)) {
      const secret = Redacted.value(value)
      for (const line of typeof secret === "string" ? secret.split(/\r?\n/) : []) {
        if (line.trim().length >= shortest) found.add(line)
      }
    } else if (Array.isArray(value)) value.forEach(visit)
    else if (typeof value === "object" && value !== null) Object.values(value).forEach(visit)
  }
  visit(services)
  visit(pools)
  return found
}
