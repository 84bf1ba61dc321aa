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
