/**
 * The tag: a number in a resource limit that no Linux enforces any more.
 *
 * RLIMIT_LOCKS has had no effect since Linux 2.4.25 (getrlimit(2)), but its soft limit is still inherited by fork and
 * exec, untouched by a cleared environment, setsid, double forks and closed descriptors, and readable for every process
 * in /proc/PID/limits. So the processes of a tree can be told from all others.
 *
 * Format, decimal, 19 digits, so that it stays below 2^63 and `grep` can match a prefix:
 * `7`, host pid (7), host start time modulo 10^4 (4), number of the tree in its host (7). Number 0 is a guardian and
 * never a target.
 */

/** Which host a tag belongs to. */
export interface TagHost {
  readonly pid: number
  /** The host's start time in clock ticks since boot. */
  readonly start: number
}

export interface Tag {
  readonly hostPid: number
  /** The last four digits of the host's start time. */
  readonly hostStart: number
  readonly tree: number
}

/** The largest number of a tree; then counting begins again. */
export const maxTree = 9_999_999

/** The first 12 digits of every tag of a host. */
export const prefix = (host: TagHost): string =>
  `7${String(host.pid).padStart(7, "0")}${String(host.start % 10_000).padStart(4, "0")}`

/** The tag of a tree as decimal digits. */
export const encode = (host: TagHost, tree: number): string => prefix(host) + String(tree).padStart(7, "0")

/** Reads a tag; undefined for any other number and for `unlimited`. */
export const decode = (digits: string): Tag | undefined =>
  digits.length === 19 && digits.charCodeAt(0) === 55 && /^\d+$/.test(digits)
    ? {
      hostPid: Number(digits.slice(1, 8)),
      hostStart: Number(digits.slice(8, 12)),
      tree: Number(digits.slice(12))
    }
    : undefined

/** True when the tag was given by this host. */
export const isOf = (tag: Tag, host: TagHost): boolean =>
  tag.hostPid === host.pid && tag.hostStart === host.start % 10_000
