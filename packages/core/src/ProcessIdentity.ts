/**
 * Which process is meant, for longer than its pid is its own.
 *
 * A pid is reused after its process was reaped, so a remembered pid is never signalled: the start time is read again
 * and compared first (peer cases 22 and 24, seed C18).
 */
import * as Schema from "effect/Schema"

/**
 * - `pid`: the process id in the host's pid namespace.
 * - `startTime`: the system's own start time as an opaque token: clock ticks since boot on Linux (`proc(5)`, stat field
 *   22), `ps` lstart in UTC and the C locale on other POSIX systems, a FILETIME on Windows.
 * - `boot`: identifies the boot that the start time belongs to; empty where the system has none.
 */
export const ProcessIdentity = Schema.Struct({
  pid: Schema.Int,
  startTime: Schema.String,
  boot: Schema.String
})
export type ProcessIdentity = typeof ProcessIdentity.Type

/** True when a number can be the pid of somebody else's process; 0 and 1 are nobody's to remember (kill(2)). */
export const isPid = (pid: number): boolean => Number.isInteger(pid) && pid > 1 && pid <= 0x7fff_ffff

/** True when both name the same process. */
export const equals = (self: ProcessIdentity, that: ProcessIdentity): boolean =>
  self.pid === that.pid && self.startTime === that.startTime && self.boot === that.boot

/**
 * One living or dead entry of the process table.
 *
 * `state` is the system's own letter (`R`, `S`, `T`, `Z`, ...). A zombie is not alive unless another thread of it is.
 */
export const ProcessInfo = Schema.Struct({
  pid: Schema.Int,
  parent: Schema.Int,
  group: Schema.Int,
  session: Schema.Int,
  startTime: Schema.String,
  state: Schema.String,
  alive: Schema.Boolean,
  command: Schema.String
})
export type ProcessInfo = typeof ProcessInfo.Type

/**
 * What became of a remembered process. `Gone`: it has ended, also when it is a zombie or its pid is another's now. `Unsure`:
 * there is a process of this pid, and whether it is the one can't be told.
 */
export type Standing = "Alive" | "Gone" | "Unsure"

/** What the system tells of a pid: who has it now, living or not, and whether anybody has it. */
export interface Look {
  readonly found: { readonly identity: ProcessIdentity; readonly alive: boolean } | undefined
  /** Somebody has it, though it may not be looked at: what `kill(pid, 0)` says, where EPERM means yes (`kill(2)`). */
  readonly exists: boolean
  /** This boot; empty where the system has no name for it. */
  readonly boot: string
  /** How far two readings of one start time may lie apart. */
  readonly tolerance: number
}

/** Whether the remembered process lives, from a look at its pid. */
export const judge = (remembered: ProcessIdentity, look: Look): Standing => {
  // Of another boot nothing is left.
  if (remembered.boot !== "" && look.boot !== "" && remembered.boot !== look.boot) return "Gone"
  if (look.found === undefined) return look.exists ? "Unsure" : "Gone"
  if (!look.found.alive) return "Gone"
  const { startTime } = look.found.identity
  if (remembered.startTime === "" || startTime === "") return "Unsure"
  const same = startTime === remembered.startTime ||
    (look.tolerance > 0 && Math.abs(Number(startTime) - Number(remembered.startTime)) <= look.tolerance)
  if (!same) return "Gone"
  // Ticks since an unknown boot may be the same by chance.
  return remembered.boot === look.boot ? "Alive" : "Unsure"
}
