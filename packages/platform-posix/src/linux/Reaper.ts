/**
 * Sees the end of children without taking it away: leaders stay zombies until their trees are empty, orphans of trees
 * come to the host, which is a subreaper (see Subreaper.ts), and are reaped when they die.
 *
 * Nothing is waited for but pids that this host started or adopted: Node's own children stay Node's.
 */
import * as ExitStatus from "@treeline/core/ExitStatus"
import { channel } from "node:diagnostics_channel"
import * as fs from "node:fs"
import { constants } from "node:os"
import type { Entry } from "../internal/Entry.ts"
import type { Attribution } from "../internal/Membership.ts"
import * as ProcTable from "../internal/ProcTable.ts"
import * as Tag from "../internal/Tag.ts"
import type { Orphans, Watched } from "../internal/Watcher.ts"
import * as Libc from "./Libc.ts"
import * as Subreaper from "./Subreaper.ts"

/** Offsets in siginfo_t on 64-bit Linux. */
const siCode = 8
const siPid = 16
const siStatus = 24
const CLD_EXITED = 1
const CLD_DUMPED = 3

const signalNames = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]))

/** If a signal is lost, exits are seen after this time all the same, in ms. */
const safetyPoll = 500

/** Each reading but the last has reaped somebody; a tree that forks for ever must not hold the host for ever. */
const maxReads = 1000

/** After a look at all children this many times its own time passes before the next: 1,000 children cost 1 ms a look. */
const restPerTick = 8

/** Ends of leaders that are told in one turn of the event loop; what follows one takes 0.2 ms. */
const endsPerTurn = 32

/** A zombie that nobody has taken for this long has no one who will, in ms. */
const unclaimedAfter = 2000

const childrenPath = `/proc/self/task/${process.pid}/children`

const none: ReadonlySet<number> = new Set()

interface Foreign {
  /** The tree of this process that its tag names. */
  readonly tree: number | undefined
  /** Since when it has been a zombie; undefined while it lives. */
  zombieSince: number | undefined
}

/** A child that is told of its end. */
export interface Leader {
  /** `held` when it stays a zombie until it is reaped here, and not when somebody else has done so. */
  readonly ended: (status: ExitStatus.ExitStatus, held: boolean) => void
}

export class Reaper implements Orphans {
  private readonly libc: Libc.Libc
  private readonly host: Tag.TagHost
  private readonly attribution: Attribution<Watched>
  private readonly onBereft: (tree: Watched) => void
  /** Leaders whose exit has not been seen. */
  private readonly running = new Map<number, Leader>()
  /** Leaders that are held or run: never taken for orphans. */
  private readonly leaders = new Map<number, Leader>()
  /** Leaders that have been watched and not given back, also those that somebody else has reaped. */
  private watched = 0
  /** Ends that have been seen and are told soon. */
  private readonly untold: Array<() => void> = []
  private telling = false
  /** Trees whose last orphan has gone since the last turn. */
  private readonly bereft = new Set<Watched>()
  private readonly adopted = new Map<number, Watched>()
  private readonly byTree = new Map<Watched, Set<number>>()
  private readonly foreign = new Map<number, Foreign>()
  /** Children that Node started, which Node will reap. */
  private readonly nodeChildren = new Set<WeakRef<{ readonly pid?: number }>>()
  private readonly info = Buffer.alloc(Libc.sizes.signalInfo)
  private readonly limits = new BigUint64Array(2)
  private readonly buffer = Buffer.alloc(16 * 1024)
  private childrenFile = -1
  private scheduled = false
  /** On performance.now(). */
  private restUntil = 0
  private stopping = false
  private referenced = 0
  private timer: NodeJS.Timeout | undefined = undefined
  private readonly owns = (tree: number) => this.attribution.has(tree)
  private readonly onSignal = () => this.schedule()
  private readonly onNodeChild = (message: unknown) => {
    const { process: child } = message as { readonly process: { readonly pid?: number } }
    this.nodeChildren.add(new WeakRef(child))
  }

  /** `onBereft` is told of a tree that has no orphan any more. */
  constructor(
    libc: Libc.Libc,
    host: Tag.TagHost,
    attribution: Attribution<Watched>,
    onBereft: (tree: Watched) => void
  ) {
    this.libc = libc
    this.host = host
    this.attribution = attribution
    this.onBereft = onBereft
  }

  /** Whether this system lists the children of a process, without which orphans can't be known. */
  static isAvailable(): boolean {
    return fs.existsSync(childrenPath)
  }

  start(): void {
    this.childrenFile = fs.openSync(childrenPath, "r")
    Subreaper.join(this.libc, this.owns)
    process.on("SIGCHLD", this.onSignal)
    channel("child_process").subscribe(this.onNodeChild)
    this.timer = setInterval(() => {
      this.forgetCollected()
      this.tick()
    }, safetyPoll)
    this.timer.unref()
  }

  /** Ends the watch, when the last leader has been reaped: a tree may outlive the scope of its platform. */
  stop(): void {
    this.stopping = true
    if (this.watched === 0) this.close()
  }

  private close(): void {
    process.off("SIGCHLD", this.onSignal)
    channel("child_process").unsubscribe(this.onNodeChild)
    clearInterval(this.timer)
    Subreaper.leave(this.libc, this.owns)
    fs.closeSync(this.childrenFile)
    this.childrenFile = -1
  }

  /** A leader keeps the event loop of the host alive, which Node's listener for SIGCHLD does not. */
  reference(): void {
    if (++this.referenced === 1) this.timer?.ref()
  }

  unreference(): void {
    if (--this.referenced === 0) this.timer?.unref()
  }

  /** Called in the turn of the spawn, so that the SIGCHLD of its end comes later. */
  watch(pid: number, leader: Leader): void {
    this.watched++
    this.leaders.set(pid, leader)
    this.running.set(pid, leader)
  }

  /** Gives a leader's number back to the system; called once for each. */
  reap(pid: number, leader: Leader): void {
    this.watched--
    // One that somebody else has reaped may have passed its number on, even to another leader.
    if (this.leaders.get(pid) === leader) {
      this.running.delete(pid)
      this.leaders.delete(pid)
      this.info.fill(0)
      // One that still runs (unkillable) becomes an orphan like others.
      this.libc.waitid(Libc.P_PID, pid, this.info, Libc.WEXITED | Libc.WNOHANG)
    }
    if (this.stopping && this.watched === 0) this.close()
  }

  /** A burst of exits is taken in once per turn of the event loop, and less often where there are very many children. */
  private schedule(): void {
    if (this.scheduled) return
    this.scheduled = true
    const run = () => {
      this.scheduled = false
      if (this.childrenFile < 0) return
      this.tick()
    }
    const rest = Math.floor(this.restUntil - performance.now())
    if (rest >= 1) setTimeout(run, rest)
    else setImmediate(run)
  }

  private tick(): void {
    const startedAt = performance.now()
    for (const [pid, leader] of this.running) {
      const status = this.peek(pid)
      if (status === undefined) continue
      this.running.delete(pid)
      const held = status !== "taken"
      if (!held) this.leaders.delete(pid)
      this.untold.push(() => leader.ended(held ? status : ExitStatus.unknown, held))
    }
    // Whoever hears of an end may ask at once what it has left, so the orphans are taken in before.
    this.look()
    const endedAt = performance.now()
    this.restUntil = endedAt + restPerTick * (endedAt - startedAt)
    if (!this.telling) this.tellSome()
    const bereft = [...this.bereft]
    this.bereft.clear()
    for (const tree of bereft) this.onBereft(tree)
  }

  /** Tells of ends in portions, so that the end of 1,000 trees does not stop the event loop. */
  private tellSome(): void {
    for (const tell of this.untold.splice(0, endsPerTurn)) tell()
    this.telling = this.untold.length > 0
    if (this.telling) setImmediate(() => this.tellSome())
  }

  /** How a child ended, if it has; it stays a zombie (waitid(2), WNOWAIT). `taken` when somebody else has reaped it. */
  private peek(pid: number): ExitStatus.ExitStatus | "taken" | undefined {
    const { info } = this
    info.writeInt32LE(0, siPid)
    if (this.libc.waitid(Libc.P_PID, pid, info, Libc.WEXITED | Libc.WNOHANG | Libc.WNOWAIT) !== 0) {
      return "taken"
    }
    if (info.readInt32LE(siPid) !== pid) return undefined
    const code = info.readInt32LE(siCode)
    const status = info.readInt32LE(siStatus)
    return code === CLD_EXITED
      ? ExitStatus.exited(status)
      : ExitStatus.signaled(signalNames.get(status) ?? `SIG${status}`, code === CLD_DUMPED)
  }

  /**
   * The children of the main thread, which this engine's leaders are, and which the kernel gives orphans to. Those of
   * Workers are Node's.
   */
  private children(): ReadonlyArray<number> {
    let text = ""
    for (let position = 0;;) {
      const length = fs.readSync(this.childrenFile, this.buffer, 0, this.buffer.length, position)
      if (length === 0) break
      text += this.buffer.toString("latin1", 0, length)
      position += length
    }
    const pids: Array<number> = []
    for (const word of text.split(" ")) if (word !== "") pids.push(Number(word))
    return pids
  }

  /**
   * An orphan that is seen in the list and found dead a moment later may have left a child that was not in the list yet,
   * so the list is read again until no orphan of it has died.
   */
  look(): void {
    if (this.childrenFile < 0) return
    for (let reads = 0; reads < maxReads; reads++) if (!this.readChildren()) return
    this.schedule()
  }

  /** Takes in the list of children once; returns whether an orphan was reaped. */
  private readChildren(): boolean {
    const seen = new Set<number>()
    let reaped = false
    for (const pid of this.children()) {
      seen.add(pid)
      if (this.leaders.has(pid)) continue
      const tree = this.adopted.get(pid) ?? this.adopt(pid)
      if (tree === undefined) this.considerForeign(pid)
      else if (this.hasEnded(pid)) {
        this.forget(pid, tree)
        reaped = true
      }
    }
    for (const [pid, tree] of this.adopted) if (!seen.has(pid)) this.forget(pid, tree)
    for (const pid of this.foreign.keys()) if (!seen.has(pid)) this.foreign.delete(pid)
    return reaped
  }

  /** Takes an orphan in, by its tag, which a zombie still has; else by session and mark. */
  private adopt(pid: number): Watched | undefined {
    if (this.foreign.has(pid)) return undefined
    const tree = this.attribution.ownerOf(this.tagOnly(pid)) ?? this.ownerByAll(pid)
    if (tree === undefined) return undefined
    this.adopted.set(pid, tree)
    const orphans = this.byTree.get(tree)
    if (orphans === undefined) this.byTree.set(tree, new Set([pid]))
    else orphans.add(pid)
    return tree
  }

  private ownerByAll(pid: number): Watched | undefined {
    const entry = ProcTable.find(pid)
    return entry === undefined ? undefined : this.attribution.ownerOf(entry)
  }

  private tagOnly(pid: number): Entry {
    const tag = this.libc.prlimit(pid, Libc.RLIMIT_LOCKS, null, this.limits) === 0
      ? Tag.decode(String(this.limits[0]))
      : undefined
    const unknown = { parent: this.host.pid, group: 0, session: 0, start: 0, state: "?", alive: true, command: "" }
    return { ...unknown, pid, tag, mark: [] }
  }

  /** Reaps an orphan of ours that has ended. */
  private hasEnded(pid: number): boolean {
    this.info.writeInt32LE(0, siPid)
    const result = this.libc.waitid(Libc.P_PID, pid, this.info, Libc.WEXITED | Libc.WNOHANG)
    return result !== 0 || this.info.readInt32LE(siPid) === pid
  }

  private forget(pid: number, tree: Watched): void {
    this.adopted.delete(pid)
    const orphans = this.byTree.get(tree)
    orphans?.delete(pid)
    if (orphans?.size !== 0) return
    this.byTree.delete(tree)
    this.bereft.add(tree)
  }

  /**
   * A child that belongs to no tree: Node's, or one that came to the host because it is a subreaper: a daemon that the user
   * started, an orphan of a tree of the portable engine, what could not be killed in a tree that has been given up. Nobody
   * waits for the latter, so they would stay zombies for as long as the host lives.
   */
  private considerForeign(pid: number): void {
    const known = this.foreign.get(pid)
    if (known === undefined) {
      const { tag } = this.tagOnly(pid)
      // A guardian is nobody's leader; one of what this process was before an execve(2) has nobody else.
      const tree = tag !== undefined && tag.tree !== 0 && Tag.isOf(tag, this.host) ? tag.tree : undefined
      this.foreign.set(pid, { tree, zombieSince: undefined })
      return
    }
    // Another platform of this process reaps it, such as one of a second copy of the library.
    if (known.tree !== undefined && Subreaper.isOwned(known.tree)) return
    if (known.zombieSince === undefined) {
      const stat = ProcTable.readStat(pid)
      if (stat !== undefined && !ProcTable.isAlive(stat)) known.zombieSince = performance.now()
    } else if (performance.now() - known.zombieSince > unclaimedAfter && !this.isNodes(pid)) {
      this.hasEnded(pid)
      this.foreign.delete(pid)
    }
  }

  private isNodes(pid: number): boolean {
    for (const reference of this.nodeChildren) if (reference.deref()?.pid === pid) return true
    return false
  }

  private forgetCollected(): void {
    for (const reference of this.nodeChildren) if (reference.deref() === undefined) this.nodeChildren.delete(reference)
  }

  of(tree: Watched): ReadonlySet<number> {
    return this.byTree.get(tree) ?? none
  }

  isGone(tree: Watched): boolean {
    const { pid } = tree.leader
    return !tree.reaped && this.leaders.has(pid) && !this.running.has(pid) && this.of(tree).size === 0
  }

  entriesOf(tree: Watched): ReadonlyArray<Entry> {
    const pids = tree.ended ? this.of(tree) : new Set([tree.leader.pid])
    return [...pids].map((pid) => ({ ...(ProcTable.find(pid) ?? this.tagOnly(pid)), alive: true }))
  }
}
