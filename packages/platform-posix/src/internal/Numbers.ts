/**
 * Numbers of trees, unique in the whole process: two copies of this library in one program must not give the same tag,
 * so the counter is shared by a well-known symbol. Worker threads have globals of their own and get blocks of their own.
 */
import { threadId } from "node:worker_threads"

interface Counter {
  next: number
  readonly used: Set<number>
  instances: number
}

const key = Symbol.for("@treeline/platform-posix/Numbers")
const shared = globalThis as { [key]?: Counter }
const counter: Counter = shared[key] ??= { next: 0, used: new Set(), instances: 0 }

/** Trees of one thread at the same time; 100 threads share the seven digits of a tag. */
const block = 100_000

/** A number that no living tree of this process has; undefined when all are taken. */
export const take = (): number | undefined => {
  if (counter.used.size >= block - 1) return undefined
  do counter.next = counter.next % (block - 1) + 1
  while (counter.used.has(counter.next))
  counter.used.add(counter.next)
  return threadId % 100 * block + counter.next
}

/** Gives a number back. */
export const giveBack = (tree: number): void => void counter.used.delete(tree % block)

/** A number for one more platform in this process. */
export const instance = (): number => threadId % 100 * 1000 + ++counter.instances
