/** Where processes are looked up. */
import type { Entry } from "./Entry.ts"
import * as ProcTable from "./ProcTable.ts"
import * as PsTable from "./PsTable.ts"

/** What a scan may leave out. */
export interface ScanOptions {
  /** Processes that started earlier can't be members. */
  readonly since: number
  /** Pids known to be no members; the scan adds to it. Keep one only for as long as pids can't come round. */
  readonly foreign: Set<number>
}

export interface Consumed {
  readonly memory: number
  readonly cpu: number
}

export interface Table {
  /** For people: `/proc`, `ps`. */
  readonly name: string
  /** How far two readings of one start time may lie apart: 0 for clock ticks, seconds where they are guessed. */
  readonly tolerance: number
  /** What is killed needs a moment to die; how long to wait before the next look, in ms. */
  readonly killPause: number
  /** Trees that are looked at in one pass when somebody asks for very many; one pass for all where it is dear. */
  readonly treesPerLook: number
  /** Looks in a row that a result rests on: a process that forks and ends may hide its child from one. */
  readonly looks: number
  /** The start time of a child that has just been started. */
  readonly startOf: (pid: number) => number
  /** One process; undefined when there is none of this pid. */
  readonly find: (pid: number) => Entry | undefined | Promise<Entry | undefined>
  /** Whether a process that was seen is still there and alive; undefined where that takes a look at the whole table. */
  readonly stillLives: ((seen: { readonly pid: number; readonly start: number }) => boolean) | undefined
  /** Whether a process that was seen some time ago is still the same one. */
  readonly isSame: (pid: number, start: number) => boolean
  /** Memory (bytes) and processor time (ms) of some processes together. */
  readonly usageOf: (pids: ReadonlyArray<number>) => Consumed | Promise<Consumed>
  /**
   * Shows every process that could be a member, as soon as it is read; `look` returns false for one that belongs to
   * nobody. Returns whether an unknown process vanished before it could be read: it may have left a child. Throws, or
   * rejects, when there is no table.
   */
  readonly scan: (options: ScanOptions, look: (entry: Entry) => boolean) => boolean | Promise<boolean>
}

/** Linux's /proc, read without native code. */
export const proc: Table = {
  name: "/proc",
  tolerance: 0,
  killPause: 1,
  treesPerLook: Number.POSITIVE_INFINITY,
  looks: 2,
  startOf: (pid) => ProcTable.readStat(pid)?.start ?? 0,
  find: ProcTable.find,
  stillLives: ProcTable.stillLives,
  usageOf: ProcTable.usageOf,
  isSame: (pid, start) => ProcTable.readStat(pid)?.start === start,
  scan: ProcTable.scan
}

/** One call of `ps` for each look. Start times are whole seconds. */
export const ps: Table = {
  name: "ps",
  tolerance: 2,
  killPause: 20,
  treesPerLook: Number.POSITIVE_INFINITY,
  looks: 2,
  startOf: () => Math.floor(Date.now() / 1000),
  stillLives: undefined,
  find: async (pid) => (await PsTable.read()).find((entry) => entry.pid === pid),
  usageOf: PsTable.usageOf,
  // A call of `ps` would take longer than the look from which the process is known is old.
  isSame: () => true,
  scan: async ({ foreign }, look) => {
    for (const entry of await PsTable.read()) if (!look(entry)) foreign.add(entry.pid)
    return false
  }
}
