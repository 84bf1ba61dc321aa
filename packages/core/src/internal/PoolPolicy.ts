/** When a child of a pool is ended, and which one makes room. Pure; times are monotonic ms. */

/** The limits of one incarnation; undefined where there is none. */
export interface Limits {
  /** ms without use. */
  readonly idle: number | undefined
  /** ms since it was ready. */
  readonly age: number | undefined
  readonly uses: number | undefined
}

/** What is known of a living child. */
export interface Usage {
  readonly readyAt: number
  readonly usedAt: number
  readonly uses: number
  readonly leases: number
  /** It said that it is at work, and is not asked before this time. */
  readonly busyUntil: number
}

/** Limits that are up to the share `jitter` smaller, so that children that began together do not end together. */
export const spread = (limits: Limits, jitter: number, draw: () => number): Limits => {
  const less = (value: number | undefined, whole: (value: number) => number) =>
    value === undefined ? undefined : Math.max(1, whole(value * (1 - jitter * draw())))
  // Whole ms, as those of the clock: a part of one would be waited for once more.
  return { idle: limits.idle, age: less(limits.age, Math.floor), uses: less(limits.uses, Math.ceil) }
}

/** It was given out as often as it may be. */
export const isUsedUp = ({ uses }: Limits, usage: Pick<Usage, "uses">): boolean =>
  uses !== undefined && usage.uses >= uses

/** It has lived as long as it may. */
export const isOld = ({ age }: Limits, { readyAt }: Pick<Usage, "readyAt">, now: number): boolean =>
  age !== undefined && now - readyAt >= age

/** What is to be done about a living child: end it, ask first whether it is at work, or look again in `ms`. */
export type Verdict =
  | { readonly _tag: "Retire"; readonly reason: "recycled" }
  | { readonly _tag: "Idle" }
  | { readonly _tag: "Keep"; readonly ms: number }

/**
 * A lease pins a child whatever its limits. Uses are not looked at here: whoever was given the last one has it until
 * somebody asks again.
 */
export const judge = (limits: Limits, usage: Usage, now: number): Verdict => {
  if (usage.leases > 0) return { _tag: "Keep", ms: Number.POSITIVE_INFINITY }
  if (isOld(limits, usage, now)) return { _tag: "Retire", reason: "recycled" }
  const idle = limits.idle === undefined
    ? Number.POSITIVE_INFINITY
    : Math.max(usage.usedAt + limits.idle, usage.busyUntil) - now
  if (idle <= 0) return { _tag: "Idle" }
  const age = limits.age === undefined ? Number.POSITIVE_INFINITY : usage.readyAt + limits.age - now
  return { _tag: "Keep", ms: Math.min(idle, age) }
}

/** How full a pool is: keys by what they take or give. */
export interface Occupancy {
  readonly max: number
  /** Keys that have a child, or may still have one. */
  readonly occupied: number
  /** Of these, the ones that are being ended or may be soon. */
  readonly leaving: number
  /** Keys that are asked for and have no child yet, those among the leaving ones included. */
  readonly wanted: number
}

/** Places that are free. */
export const free = ({ max, occupied }: Pick<Occupancy, "max" | "occupied">): number => Math.max(0, max - occupied)

/** How many children have to be ended so that all keys that wait get a place, beside those that are leaving anyway. */
export const shortage = (self: Occupancy): number => Math.max(0, self.wanted - free(self) - self.leaving)

/** A child that may be ended to make room. */
export type Candidate = Pick<Usage, "usedAt" | "busyUntil">

/**
 * At most `count` candidates that are idle, those that were used longest ago; when there are not enough, the time after
 * which another one may be. Who was used less than `evictAfter` ago is not idle: whoever asked for it should have
 * something of it.
 */
export const chooseIdle = <A extends Candidate>(
  candidates: ReadonlyArray<A>,
  count: number,
  evictAfter: number,
  now: number
): { readonly chosen: ReadonlyArray<A>; readonly lookAgainIn: number | undefined } => {
  const idleFrom = (candidate: Candidate) => Math.max(candidate.usedAt + evictAfter, candidate.busyUntil)
  const idle = candidates.filter((candidate) => idleFrom(candidate) <= now)
  const chosen = idle.toSorted((a, b) => a.usedAt - b.usedAt).slice(0, count)
  const others = chosen.length < count ? candidates.filter((candidate) => idleFrom(candidate) > now) : []
  return {
    chosen,
    lookAgainIn: others.length === 0 ? undefined : Math.min(...others.map(idleFrom)) - now
  }
}
