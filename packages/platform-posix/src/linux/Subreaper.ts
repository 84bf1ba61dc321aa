/**
 * Orphans come to this process, which is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), for as long as a platform in it
 * has somebody who reaps them. Platforms may come from two copies of this library, so they know of each other by a
 * well-known symbol.
 */
import * as Libc from "./Libc.ts"

/** Whether a living tree of this number is a platform's own. */
type Owns = (tree: number) => boolean

interface Shared {
  /** It was one before the first platform came, and stays one. */
  before: boolean
  readonly platforms: Set<Owns>
}

const key = Symbol.for("@treeline/platform-posix/Subreaper")
const global = globalThis as { [key]?: Shared }
const shared: Shared = global[key] ??= { before: false, platforms: new Set() }

const set = (libc: Libc.Libc, on: boolean): boolean =>
  libc.prctl(Libc.PR_SET_CHILD_SUBREAPER, on ? 1 : 0, 0, 0, 0) === 0

const isSet = (libc: Libc.Libc): boolean => {
  const value = new Int32Array(1)
  return libc.prctl(Libc.PR_GET_CHILD_SUBREAPER, libc.address(value), 0, 0, 0) === 0 && value[0] === 1
}

/** Whether the system lets this process be one: it is tried, and taken back. */
export const isAvailable = (libc: Libc.Libc): boolean => {
  if (shared.platforms.size > 0 || isSet(libc)) return true
  const available = set(libc, true)
  if (available) set(libc, false)
  return available
}

/** One more platform reaps. */
export const join = (libc: Libc.Libc, owns: Owns): void => {
  if (shared.platforms.size === 0) {
    shared.before = isSet(libc)
    set(libc, true)
  }
  shared.platforms.add(owns)
}

/** Nobody would reap after the last one. */
export const leave = (libc: Libc.Libc, owns: Owns): void => {
  if (shared.platforms.delete(owns) && shared.platforms.size === 0 && !shared.before) set(libc, false)
}

/** Whether any platform that reaps has a living tree of this number. */
export const isOwned = (tree: number): boolean => {
  for (const owns of shared.platforms) if (owns(tree)) return true
  return false
}
