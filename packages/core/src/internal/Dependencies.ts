/** Which children have to come before which. Pure. */
import * as Result from "effect/Result"
import type { ChildSpec, Dependency } from "../ChildSpec.ts"
import type { ChildState } from "../ChildState.ts"
import { InvalidSpec } from "../Errors.ts"

/** What a supervisor's order asks of each child beside its own `dependsOn`. */
export type Order = "dependencies" | "sequence"

type Node = Pick<ChildSpec, "id" | "dependsOn">

/** The dependencies of one child, which under `sequence` has a previous one. */
export const edgesOf = ({ dependsOn }: Node, previous: string | undefined): ReadonlyArray<Dependency> =>
  previous === undefined || dependsOn.some(({ child }) => child === previous)
    ? dependsOn
    : [...dependsOn, { child: previous, until: "ready" }]

/** The dependencies of each child; under `sequence` each one also depends on the one before it. */
export const edges = (
  children: ReadonlyArray<Node>,
  order: Order
): ReadonlyMap<string, ReadonlyArray<Dependency>> =>
  new Map(children.map((child, index) => [
    child.id,
    edgesOf(child, order === "sequence" ? children[index - 1]?.id : undefined)
  ]))

const invalid = (field: string, problem: string) => Result.fail(new InvalidSpec({ field, problem }))

const nameTaken = (id: string) =>
  invalid(`${id}.id`, "another child has this name; names are unique within a supervisor")

const unknownName = (id: string, child: string) => invalid(`${id}.dependsOn`, `there is no child "${child}" beside it`)

/** Checks a child that comes to children that have been checked: none of them can depend on it, so there is no circle. */
export const validateNext = (
  { dependsOn, id }: Node,
  isKnown: (id: string) => boolean
): Result.Result<void, InvalidSpec> => {
  if (isKnown(id)) return nameTaken(id)
  const unknown = dependsOn.find(({ child }) => !isKnown(child))
  return unknown === undefined ? Result.succeed(undefined) : unknownName(id, unknown.child)
}

/** Checks that names are unique and known and that nobody waits for itself; the error names the circle. */
export const validate = (children: ReadonlyArray<Node>, order: Order): Result.Result<void, InvalidSpec> => {
  const graph = edges(children, order)
  if (graph.size < children.length) {
    const twice = children.find(({ id }, index) => children.findIndex((other) => other.id === id) !== index)
    return nameTaken(twice?.id ?? "")
  }
  for (const { dependsOn, id } of children) {
    const unknown = dependsOn.find(({ child }) => !graph.has(child))
    if (unknown !== undefined) return unknownName(id, unknown.child)
  }
  const done = new Set<string>()
  for (const { id } of children) {
    // Depth first, with a stack of its own: a chain may be as long as the list.
    const path: Array<string> = []
    const stack: Array<{ readonly id: string; readonly leave: boolean }> = [{ id, leave: false }]
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      if (at.leave) {
        done.add(at.id)
        path.pop()
        continue
      }
      if (done.has(at.id)) continue
      if (path.includes(at.id)) {
        return invalid(
          `${at.id}.dependsOn`,
          `children wait for each other in a circle: ${[...path.slice(path.indexOf(at.id)), at.id].join(" -> ")}`
        )
      }
      path.push(at.id)
      stack.push({ id: at.id, leave: true })
      for (const { child } of graph.get(at.id) ?? []) stack.push({ id: child, leave: false })
    }
  }
  return Result.succeed(undefined)
}

/** Done by itself, and well. */
const hasSucceeded = (state: ChildState): boolean => state._tag === "Stopped" && state.end !== null

/** Whether a dependency holds while the other child is in `state`. */
export const isSatisfied = (until: Dependency["until"], state: ChildState): boolean => {
  switch (until) {
    case "ready":
      return state._tag === "Ready" || hasSucceeded(state)
    case "started":
      return state._tag === "Running" || state._tag === "Ready" || hasSucceeded(state)
    case "succeeded":
      return hasSucceeded(state)
  }
}
