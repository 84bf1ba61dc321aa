/** What becomes of services that were asked to come up. Pure. */
import * as ChildEnd from "../ChildEnd.ts"
import type { ChildStatus } from "../ChildStatus.ts"
import type * as ConfigDiff from "../daemon/ConfigDiff.ts"
import type { Outcome } from "../daemon/HostStatus.ts"

/**
 * What became of each: a problem, or null when it is up or has done its work; undefined while it may still come up. One
 * whose start has failed is not waited for, although it may be tried again.
 */
const problemsOf = (children: ReadonlyArray<ChildStatus>): (name: string) => string | null | undefined => {
  const known = new Map(children.map((child) => [child.id, child]))
  const entered = new Set<string>()
  const problemOf = (name: string): string | null | undefined => {
    const child = known.get(name)
    if (child === undefined) return null
    const { paused, state } = child
    switch (state._tag) {
      case "Ready":
        return null
      case "Stopped":
        return state.end === null ? "it was stopped" : null
      case "Failed":
        return state.error.message
      case "BackingOff":
        return `${ChildEnd.describe(state.end)}; it is tried again`
      case "Running":
        return paused ? "it is paused, so nobody asks whether it is ready" : undefined
      case "Waiting": {
        if (state.on.includes("resume")) return "it is paused"
        if (state.on.includes("shutdown")) return "all services are being ended"
        if (entered.has(name)) return undefined
        entered.add(name)
        const stuck = state.on.filter((on) => typeof problemOf(on.split(" ", 1)[0]!) === "string")
        return stuck.length === 0 ? undefined : `it waits: ${stuck.join(", ")}`
      }
      default:
        return undefined
    }
  }
  return problemOf
}

/** The outcomes when all are known; undefined before. */
export const settled = (
  names: ReadonlyArray<string>,
  children: ReadonlyArray<ChildStatus>
): ReadonlyArray<Outcome> | undefined => {
  const outcomes: Array<Outcome> = []
  for (const service of names) {
    const problem = problemsOf(children)(service)
    if (problem === undefined) return undefined
    outcomes.push({ service, problem })
  }
  return outcomes
}

/** Those that are not up yet. */
export const starting = (names: ReadonlyArray<string>, children: ReadonlyArray<ChildStatus>) => {
  const problemOf = problemsOf(children)
  return children.filter(({ id }) => names.includes(id) && problemOf(id) === undefined)
    .map(({ id, state }) => ({ service: id, state }))
}

/** What became of services that were to end. */
export const ended = (names: ReadonlyArray<string>, children: ReadonlyArray<ChildStatus>): ReadonlyArray<Outcome> =>
  names.map((service) => {
    const state = children.find(({ id }) => id === service)?.state
    // One that has failed is down, unless something of it lives.
    const problem = state?._tag === "Failed" && state.error.survivors.length > 0 ? state.error.message : null
    return { service, problem }
  })

/** These and what has to be started with them, because nobody else will: what they need and what is down. */
export const needed = (
  names: ReadonlyArray<string>,
  children: ReadonlyArray<ChildStatus>,
  plan: ConfigDiff.Plan
): ReadonlySet<string> => {
  const known = new Map(children.map((child) => [child.id, child]))
  const found = new Set(names)
  // A set goes on with what is added to it.
  for (const name of found) {
    for (const before of plan.get(name)?.after ?? []) {
      const state = known.get(before)?.state
      const down = state?._tag === "Failed" || state?._tag === "Waiting" ||
        (state?._tag === "Stopped" && state.end === null)
      if (down) found.add(before)
    }
  }
  return found
}
