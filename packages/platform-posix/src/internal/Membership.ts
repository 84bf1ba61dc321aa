/**
 * Which process belongs to which tree: the decision, without any system call.
 *
 * Membership is a union, so a process has to lose all of these to get away: its tag, its mark, and its session or group.
 */
import type { Entry } from "./Entry.ts"
import type { Segment } from "./Mark.ts"
import * as Tag from "./Tag.ts"

/** What identifies a tree of this host. */
export interface Key {
  /** Number of the tree in its host, above 0. */
  readonly tree: number
  readonly leader: { readonly pid: number; readonly start: number }
  /** The leader has a session and group of its own, which nobody from outside can join (setsid(2), setpgid(2)). */
  readonly ownSession: boolean
  /** The leader's number has been given back to the system and may become a stranger's. */
  readonly reaped: boolean
}

/** A host as its processes name it. */
export type Host = Tag.TagHost

const isSegmentOf = (segment: Segment, host: Host): boolean =>
  segment.hostPid === host.pid && segment.hostStart === host.start

/** A process of a guardian, which carries number 0: never a target, it ends by itself. */
export const isGuardian = (entry: Entry): boolean => entry.tag?.tree === 0

/**
 * Finds the owner of each process among some trees. It remembers the members it has seen, because a member may be a host
 * itself: a tag that names a member as its host belongs to the outer tree too.
 */
export class Attribution<K extends Key> {
  private readonly host: Host
  /** How far two readings of one start time may lie apart: 0 for clock ticks, seconds where they are guessed. */
  private readonly tolerance: number
  private readonly byTree = new Map<number, K>()
  private readonly byLeader = new Map<number, K>()
  private readonly innerHosts = new Map<number, { readonly start: number; readonly key: K }>()
  /** The pids of a tree in `innerHosts`. */
  private readonly seen = new Map<K, Array<number>>()
  /** Trees whose leader's number has passed to a stranger: session and group say nothing any more. */
  private readonly reused = new Set<K>()

  constructor(host: Host, tolerance: number) {
    this.host = host
    this.tolerance = tolerance
  }

  add(key: K): void {
    this.byTree.set(key.tree, key)
    if (key.ownSession) this.byLeader.set(key.leader.pid, key)
  }

  delete(key: K): void {
    this.byTree.delete(key.tree)
    this.reused.delete(key)
    if (this.byLeader.get(key.leader.pid) === key) this.byLeader.delete(key.leader.pid)
    for (const pid of this.seen.get(key) ?? []) if (this.innerHosts.get(pid)?.key === key) this.innerHosts.delete(pid)
    this.seen.delete(key)
  }

  get size(): number {
    return this.byTree.size
  }

  has(tree: number): boolean {
    return this.byTree.has(tree)
  }

  keys(): Iterable<K> {
    return this.byTree.values()
  }

  /** The session and group of a tree can still be told from a stranger's. */
  ownsNumber(key: K): boolean {
    return key.ownSession && !this.reused.has(key)
  }

  /** Nothing of the tree's session and group was left, so the number may be given to anybody from now on. */
  retireNumber(key: K): void {
    this.reused.add(key)
  }

  /** The tree that owns a process, or undefined. */
  ownerOf(entry: Entry): K | undefined {
    if (entry.pid <= 1 || entry.pid === this.host.pid || isGuardian(entry)) return undefined
    const owner = this.byTag(entry) ?? this.byNumber(entry) ?? this.byMark(entry)
    if (owner !== undefined) this.remember(entry, owner)
    return owner
  }

  private remember(entry: Entry, key: K): void {
    const known = this.innerHosts.get(entry.pid)
    // Of a leader whose number is held the start is known, and need not be read from a file for each of 1,000 trees.
    const start = entry.pid === key.leader.pid && !key.reaped ? key.leader.start : entry.start
    if (known?.key === key && known.start === start) return
    this.innerHosts.set(entry.pid, { start, key })
    const seen = this.seen.get(key)
    if (seen === undefined) this.seen.set(key, [entry.pid])
    else seen.push(entry.pid)
  }

  private byTag({ tag }: Entry): K | undefined {
    if (tag === undefined) return undefined
    if (Tag.isOf(tag, this.host)) return this.byTree.get(tag.tree)
    const inner = this.innerHosts.get(tag.hostPid)
    return inner !== undefined && inner.start % 10_000 === tag.hostStart ? inner.key : undefined
  }

  private byNumber(entry: Entry): K | undefined {
    const key = this.byLeader.get(entry.session) ?? this.byLeader.get(entry.group)
    if (key === undefined || this.reused.has(key) || entry.start < key.leader.start - this.tolerance) {
      return undefined
    }
    if (entry.pid === key.leader.pid && entry.start > key.leader.start + this.tolerance) {
      this.reused.add(key)
      return undefined
    }
    // A process with a tag of this host belongs to the tree that the tag names, and to no other.
    return entry.tag !== undefined && Tag.isOf(entry.tag, this.host) ? undefined : key
  }

  private byMark(entry: Entry): K | undefined {
    for (const segment of entry.mark) {
      if (!isSegmentOf(segment, this.host)) continue
      const key = this.byTree.get(segment.tree)
      if (key !== undefined) return key
    }
    return undefined
  }
}

/** What a host has left behind, for the sweep after its death. */
export interface Remains {
  readonly host: Host
  /** Leaders of the groups that were registered, with their start times. */
  readonly groups: ReadonlyMap<number, number>
  /** The start time of whoever has a leader's number now; undefined when nobody has it. */
  readonly holderOf: (leader: number) => number | undefined
  /**
   * Whether the session and group of a leader that has gone are still the tree's: only in the moment of the host's death.
   * Later the number may have been a stranger's, who has gone as well.
   */
  readonly goneLeadersCount: boolean
  /** How far two readings of one start time may lie apart. */
  readonly tolerance: number
  /** Trees that were released on purpose and live on. */
  readonly kept: ReadonlySet<number>
  /**
   * Only these trees, when the host itself lives and only a part of it, such as a Worker, has ended; undefined for all
   * trees of the host.
   */
  readonly only: ReadonlySet<number> | undefined
}

/** Decides what of a dead host has to end. */
export class RemainsAttribution {
  private readonly remains: Remains
  private readonly innerHosts = new Map<number, number>()

  constructor(remains: Remains) {
    this.remains = remains
  }

  isMember(entry: Entry): boolean {
    if (entry.pid <= 1 || isGuardian(entry)) return false
    const member = this.decide(entry)
    if (member) this.innerHosts.set(entry.pid, entry.start)
    return member
  }

  /** Whether a tree of the host has to end. */
  ends(tree: number): boolean {
    const { kept, only } = this.remains
    return !kept.has(tree) && (only === undefined || only.has(tree))
  }

  private decide(entry: Entry): boolean {
    const { host } = this.remains
    const { tag } = entry
    if (tag !== undefined) {
      if (Tag.isOf(tag, host)) return this.ends(tag.tree)
      const inner = this.innerHosts.get(tag.hostPid)
      if (inner !== undefined && inner % 10_000 === tag.hostStart) return true
    }
    const own = entry.mark.filter((segment) => isSegmentOf(segment, host))
    if (own.length > 0) return own.some((segment) => this.ends(segment.tree))
    return this.isLedBy(entry, entry.session) || this.isLedBy(entry, entry.group)
  }

  /** The number is that of a registered leader, and not a stranger's by now. It is looked up for those in question only. */
  private isLedBy(entry: Entry, leader: number): boolean {
    const { goneLeadersCount, groups, holderOf, tolerance } = this.remains
    const start = groups.get(leader)
    if (start === undefined || entry.start < start - tolerance) return false
    const holder = holderOf(leader)
    return holder === undefined ? goneLeadersCount : Math.abs(holder - start) <= tolerance
  }
}
