/**
 * The mark: an environment variable that says which trees a process belongs to.
 *
 * Its value is a chain, the outermost tree first, because a host may itself run inside a tree of another host:
 * `PID.START.TREE/PID.START.TREE`. A program that clears its environment loses it; the tag is there for that.
 */

export const variable = "TREELINE_TREE"

export interface Segment {
  readonly hostPid: number
  readonly hostStart: number
  readonly tree: number
}

const format = (segment: Segment): string => `${segment.hostPid}.${segment.hostStart}.${segment.tree}`

/** The chain of a tree started by a host whose own chain is `outer` (undefined or empty when it is in no tree). */
export const extend = (outer: string | undefined, segment: Segment): string =>
  outer === undefined || outer === "" ? format(segment) : `${outer}/${format(segment)}`

/** Reads a chain; what is no segment is left out. */
export const parse = (value: string): ReadonlyArray<Segment> =>
  value.split("/").flatMap((text) => {
    const match = /^(\d+)\.(\d+)\.(\d+)$/.exec(text)
    return match === null ? [] : [{ hostPid: Number(match[1]), hostStart: Number(match[2]), tree: Number(match[3]) }]
  })

/** The mark in the text of an environment whose entries are separated by `separator` (NUL in /proc, a space in `ps`). */
export const find = (environment: string, separator: "\0" | " "): string | undefined => {
  const needle = `${variable}=`
  const start = environment.startsWith(needle) ? 0 : environment.indexOf(separator + needle) + 1
  if (start === 0 && !environment.startsWith(needle)) return undefined
  const end = environment.indexOf(separator, start)
  return environment.slice(start + needle.length, end === -1 ? undefined : end)
}
