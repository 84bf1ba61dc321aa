/**
 * Imports a configuration module in a thread of its own: a reload sees the module and all that it imports anew, nothing
 * of an earlier one stays in memory, and one that never comes to its end can be given up.
 */
import * as ConfigPath from "@treeline/core/daemon/ConfigPath"
import * as Redacted from "effect/Redacted"
import { parentPort, workerData } from "node:worker_threads"

/** What the thread answers with. Secrets stand apart, because a class does not cross. */
export type Answer =
  | {
    readonly _tag: "Read"
    readonly tree: unknown
    readonly secrets: ReadonlyArray<readonly [ConfigPath.Path, string]>
  }
  | { readonly _tag: "Refused"; readonly path: ConfigPath.Path; readonly problem: string }

class Refusal extends Error {
  readonly path: ConfigPath.Path
  constructor(path: ConfigPath.Path, problem: string) {
    super(problem)
    this.path = path
  }
}

const answerOf = async (url: string): Promise<Answer> => {
  const exported = ((await import(url)) as { readonly default?: unknown }).default
  const value: unknown = typeof exported === "function" ? await (exported as () => unknown)() : exported
  if (value === undefined) {
    throw new Refusal([], "expected a default export: the configuration, or a function that returns it")
  }
  const secrets: Array<readonly [ConfigPath.Path, string]> = []
  const plain = (item: unknown, path: ConfigPath.Path): unknown => {
    if (Redacted.isRedacted(item)) {
      const secret = Redacted.value(item)
      if (typeof secret !== "string") throw new Refusal(path, "expected a text in Redacted")
      secrets.push([path, secret])
      return null
    }
    if (Array.isArray(item)) return item.map((inner, index) => plain(inner, [...path, index]))
    if (ConfigPath.isTree(item)) {
      // What is undefined is not there.
      return Object.fromEntries(
        Object.entries(item).flatMap(([name, inner]) =>
          inner === undefined ? [] : [[name, plain(inner, [...path, name])]]
        )
      )
    }
    if (item !== null && !["string", "number", "boolean"].includes(typeof item)) {
      throw new Refusal(
        path,
        `expected plain data, not a ${typeof item === "object" ? "class's instance" : typeof item}`
      )
    }
    return item
  }
  return { _tag: "Read", tree: plain(value, []), secrets }
}

/** To the command; a port between threads has no origin. */
// oxlint-disable-next-line unicorn/require-post-message-target-origin
const answer = (answer: Answer): void => parentPort!.postMessage(answer)

try {
  answer(await answerOf(workerData as string))
} catch (error) {
  answer(
    error instanceof Refusal
      ? { _tag: "Refused", path: error.path, problem: error.message }
      : {
        _tag: "Refused",
        path: [],
        problem: `the module failed: ${error instanceof Error ? error.message : String(error)}`
      }
  )
}
