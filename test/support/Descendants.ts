/** Who descends from a process, seen again and again in Linux's table of processes. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import { type Identity, isAlive } from "./Processes.ts"

const interval = 20

interface Row extends Identity {
  readonly parent: number
}

const rowOf = (name: string): Row | undefined => {
  try {
    const text = fs.readFileSync(`/proc/${name}/stat`, "latin1")
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ")
    return { pid: Number(name), parent: Number(fields[1]), start: fields[19]! }
  } catch {
    return undefined // it has gone
  }
}

const table = (): ReadonlyArray<Row> =>
  fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((name) => rowOf(name) ?? [])

export interface Descendants {
  /** All that were ever seen, up to this moment. */
  readonly seen: () => ReadonlyArray<Identity>
  /** Those that live now. */
  readonly living: () => ReadonlyArray<Identity>
  /** A process and all below it, now. */
  readonly tree: (pid: number) => ReadonlyArray<Identity>
  /** Those that it has started, now. */
  readonly children: (pid: number) => ReadonlyArray<number>
}

const below = (rows: ReadonlyArray<Row>, roots: ReadonlySet<number>): ReadonlyArray<Row> => {
  const found = new Map(rows.filter(({ pid }) => roots.has(pid)).map((row) => [row.pid, row]))
  for (let size = -1; size !== found.size;) {
    size = found.size
    for (const row of rows) if (found.has(row.parent)) found.set(row.pid, row)
  }
  return [...found.values()]
}

/** Watches until the scope closes. One that was seen counts also when its parent has gone. */
export const watch = (root: number): Effect.Effect<Descendants, never, Scope.Scope> =>
  Effect.gen(function*() {
    const seen = new Map<string, Identity>()
    const look = () => {
      const rows = table()
      const known = rows.filter(({ pid, start }) => pid === root || seen.has(`${pid} ${start}`))
      for (const row of below(rows, new Set(known.map(({ pid }) => pid)))) seen.set(`${row.pid} ${row.start}`, row)
    }
    look()
    yield* Effect.acquireRelease(
      Effect.sync(() => setInterval(look, interval)),
      (timer) => Effect.sync(() => clearInterval(timer))
    )
    return {
      seen: () => {
        look()
        return [...seen.values()]
      },
      living: () => {
        look()
        return [...seen.values()].filter(isAlive)
      },
      tree: (pid) => below(table(), new Set([pid])),
      children: (pid) => table().filter(({ parent }) => parent === pid).map(({ pid }) => pid)
    }
  })
