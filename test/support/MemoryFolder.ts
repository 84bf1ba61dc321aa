/**
 * A state folder in memory, for processes that take turns at every operation and may die before, between and in the
 * middle of any, and the table of those processes.
 */
import type { StateFolder } from "@treeline/core/daemon"
import { StateFolderError } from "@treeline/core/Errors"
import { judge, type ProcessIdentity } from "@treeline/core/ProcessIdentity"
import type { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import { Effect, Option } from "effect"

export const boot = "this boot"

/** Who lives. A pid may be given again to a later process. */
export class Table {
  private readonly starts = new Map<number, string>()
  private count = 0
  /** Pids whose process may not be looked at. */
  readonly hidden = new Set<number>()

  start(pid: number): ProcessIdentity {
    const identity = { pid, startTime: String(++this.count), boot }
    this.starts.set(pid, identity.startTime)
    return identity
  }

  end({ pid, startTime }: ProcessIdentity): void {
    if (this.starts.get(pid) === startTime) this.starts.delete(pid)
  }

  private identityOf(pid: number): ProcessIdentity | undefined {
    const startTime = this.hidden.has(pid) ? undefined : this.starts.get(pid)
    return startTime === undefined ? undefined : { pid, startTime, boot }
  }

  readonly platform: Pick<ProcessPlatform["Service"], "identify" | "standing"> = {
    identify: (pid) => Effect.sync(() => Option.fromUndefinedOr(this.identityOf(pid))),
    standing: (remembered) =>
      Effect.sync(() => {
        const identity = this.identityOf(remembered.pid)
        const exists = this.starts.has(remembered.pid)
        return judge(remembered, {
          found: identity && { identity, alive: true },
          exists,
          boot,
          tolerance: 0
        })
      })
  }
}

/** The folder; `undefined` is a folder within. */
export class MemoryFolder {
  readonly entries = new Map<string, string | undefined>()
  /** How many operations were done. */
  operations = 0

  /** What is there, folders with a slash. */
  get names(): ReadonlyArray<string> {
    return [...this.entries].map(([name, text]) => text === undefined ? `${name}/` : name).toSorted()
  }

  private inside(folder: string): ReadonlyArray<string> {
    const prefix = folder === "." ? "" : `${folder}/`
    return [...this.entries.keys()].filter((name) =>
      name.startsWith(prefix) && !name.slice(prefix.length).includes("/")
    )
      .map((name) => name.slice(prefix.length))
  }

  /** The folder as one process sees it; `turn` is awaited before each step. */
  asSeen(turn: () => Promise<void> = () => Promise.resolve()): StateFolder.StateFolder {
    const step = <A>(f: () => A): Effect.Effect<A, StateFolderError> =>
      Effect.flatMap(Effect.promise(turn), () =>
        Effect.try({
          try: () => {
            this.operations++
            return f()
          },
          catch: (error) => new StateFolderError({ path: "memory", operation: "write", detail: String(error) })
        }))
    const fileAt = (name: string): string => {
      const text = this.entries.get(name)
      if (text === undefined) throw new Error(`${name}: no such file`)
      return text
    }
    return {
      path: "/state",
      makeFolder: (name) => step(() => void (name !== "." && this.entries.set(name, undefined))),
      write: (name, text) =>
        Effect.andThen(
          step(() => {
            if (this.entries.has(name)) throw new Error(`${name}: exists`)
            this.entries.set(name, "")
          }),
          Effect.andThen(
            step(() => void this.entries.set(name, text.slice(0, 10))),
            step(() => void this.entries.set(name, text))
          )
        ),
      replace: (from, to) =>
        step(() => {
          this.entries.set(to, fileAt(from))
          this.entries.delete(from)
        }),
      moveFolder: (from, to) =>
        step(() => {
          if (this.entries.has(to) && this.inside(to).length > 0) return false
          if (!this.entries.has(from)) throw new Error(`${from}: no such folder`)
          for (const name of this.inside(from)) {
            this.entries.set(`${to}/${name}`, fileAt(`${from}/${name}`))
            this.entries.delete(`${from}/${name}`)
          }
          this.entries.delete(from)
          this.entries.set(to, undefined)
          return true
        }),
      list: (name) => step(() => this.inside(name)),
      read: (name) => step(() => this.entries.get(name)),
      removeFile: (name) => step(() => void this.entries.delete(name)),
      removeEmptyFolder: (name) => step(() => void (this.inside(name).length === 0 && this.entries.delete(name)))
    }
  }
}
