/**
 * The process table of Linux with native calls: a tag is one prlimit(2) of half a microsecond, a session one getsid(2),
 * and a file of /proc is opened only for a process that is a member.
 */
import * as fs from "node:fs"
import type { Entry } from "../internal/Entry.ts"
import type * as Mark from "../internal/Mark.ts"
import * as ProcTable from "../internal/ProcTable.ts"
import * as Table from "../internal/Table.ts"
import * as Tag from "../internal/Tag.ts"
import * as Libc from "./Libc.ts"

const noMark: ReadonlyArray<Mark.Segment> = []
const limits = new BigUint64Array(2)
const ESRCH = 3

/** The tag of a process; `gone` when there is no such process. */
const readTag = (libc: Libc.Libc, pid: number): Tag.Tag | "gone" | undefined => {
  if (libc.prlimit(pid, Libc.RLIMIT_LOCKS, null, limits) === 0) return Tag.decode(String(limits[0]))
  // Another user's process: its limits can be read in /proc by everybody.
  return libc.errno() === ESRCH ? "gone" : ProcTable.readTag(pid)
}

/** Reads what is asked for, when it is asked for. A process that goes meanwhile is dead. */
class NativeEntry implements Entry {
  readonly pid: number
  readonly tag: Tag.Tag | undefined
  /** Marks matter for orphans only; see `Reaper`. */
  readonly mark = noMark
  private readonly libc: Libc.Libc
  private stat: ProcTable.Stat | null | undefined = undefined

  constructor(libc: Libc.Libc, pid: number, tag: Tag.Tag | undefined) {
    this.libc = libc
    this.pid = pid
    this.tag = tag
  }

  private read(): ProcTable.Stat | null {
    this.stat ??= ProcTable.readStat(this.pid) ?? null
    return this.stat
  }

  get session(): number {
    return this.libc.getsid(this.pid)
  }

  get group(): number {
    return this.libc.getpgid(this.pid)
  }

  get parent(): number {
    return this.read()?.parent ?? 0
  }

  get start(): number {
    return this.read()?.start ?? 0
  }

  get state(): string {
    return this.read()?.state ?? "X"
  }

  get alive(): boolean {
    const stat = this.read()
    return stat !== null && ProcTable.isAlive(stat)
  }

  get command(): string {
    return this.read()?.command ?? ""
  }
}

/** The table over the C library. */
export const make = (libc: Libc.Libc): Table.Table => ({
  ...Table.proc,
  name: "/proc and prlimit(2)",
  // A pass costs 1 ms at 1,000 processes, and 0.04 ms for each tree that is looked for.
  treesPerLook: 128,
  // That nothing is left is known by the orphans, not by a look that finds nothing.
  looks: 1,
  scan: ({ foreign }, look) => {
    let vanished = false
    for (const name of fs.readdirSync("/proc")) {
      const first = name.charCodeAt(0)
      if (first < 49 || first > 57) continue
      const pid = Number(name)
      if (foreign.has(pid)) continue
      const tag = readTag(libc, pid)
      if (tag === "gone") vanished = true
      else if (!look(new NativeEntry(libc, pid, tag))) foreign.add(pid)
    }
    return vanished
  }
})
