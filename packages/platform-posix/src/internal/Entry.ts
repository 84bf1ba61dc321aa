/** One row of the process table, with what tells to which tree it belongs. */
import type { ProcessInfo } from "@treeline/core/ProcessIdentity"
import type { Segment } from "./Mark.ts"
import type { Tag } from "./Tag.ts"

export interface Entry {
  readonly pid: number
  readonly parent: number
  readonly group: number
  readonly session: number
  /** Start time as a number that grows: clock ticks since boot, or seconds since 1970 where `ps` gives it. */
  readonly start: number
  readonly state: string
  readonly alive: boolean
  readonly command: string
  readonly tag: Tag | undefined
  readonly mark: ReadonlyArray<Segment>
}

export const toInfo = (entry: Entry): ProcessInfo => ({
  pid: entry.pid,
  parent: entry.parent,
  group: entry.group,
  session: entry.session,
  startTime: String(entry.start),
  state: entry.state,
  alive: entry.alive,
  command: entry.command
})
