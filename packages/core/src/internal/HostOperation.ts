/** What becomes of services that were asked to come up. Pure. */
import * as ChildEnd from "../ChildEnd.ts"
import type { ChildStatus } from "../ChildStatus.ts"
import type * as ConfigDiff from "../daemon/ConfigDiff.ts"
import type { Outcome } from "../daemon/HostStatus.ts"

/** What became of a service by itself: see `problemsOf`. */
const problemOf = ({ paused, state }: ChildStatus): string | null | undefined => {
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
    case "Waiting":
      return state.on.includes("resume")
        ? "it is paused"
        : state.on.includes("shutdown")
        ? "all services are being ended"
        : undefined
    default:
      return undefined
  }
}

/**
 * What became of each: a problem, or null when it is up or has done its work; undefined while it may still come up. One
 * whose start has failed is not waited for, although it may be tried again, and neither is what waits for it.
 */
const problemsOf = (children: ReadonlyArray<ChildStatus>): ReadonlyMap<string, string | null | undefined> => {
  const problems = new Map(children.map((child) => [child.id, problemOf(child)]))
  const waiters = new Map<string, Array<string>>()
  for (const { id, state } of children) {
    // Such as `db ready`.
    for (const on of state._tag === "Waiting" ? state.on : []) {
      const name = on.split(" ", 1)[0]!
      const known = waiters.get(name)
      if (known === undefined) waiters.set(name, [id])
      else known.push(id)
    }
  }
  const stuck = children.map(({ id }) => id).filter((id) => typeof problems.get(id) === "string")
  // The list grows while it is gone through.
  for (const name of stuck) {
    for (const waiter of waiters.get(name) ?? []) {
      if (problems.get(waiter) !== undefined) continue
      problems.set(waiter, `it waits for ${name}`)
      stuck.push(waiter)
    }
  }
  return problems
}

/** The outcomes when all are known; undefined before. One that is not there any more is nobody's problem. */
export const settled = (
  names: ReadonlyArray<string>,
  children: ReadonlyArray<ChildStatus>
): ReadonlyArray<Outcome> | undefined => {
  const problems = problemsOf(children)
  const outcomes: Array<Outcome> = []
  for (const service of names) {
    const problem = problems.has(service) ? problems.get(service) : null
    if (problem === undefined) return undefined
    outcomes.push({ service, problem })
  }
  return outcomes
}

/** Those that are not up yet. */
export const starting = (names: ReadonlySet<string>, children: ReadonlyArray<ChildStatus>) => {
  const problems = problemsOf(children)
  return children.filter(({ id }) => names.has(id) && problems.get(id) === undefined)
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
