/**
 * Looks at the process table for all trees of a platform at once: who belongs to which, which is empty, and kills.
 *
 * One pass serves every tree that waits, so N trees cost one scan, and nothing is scanned while nobody waits.
 */
import type { Entry } from "./Entry.ts"
import { Attribution, type Host, type Key } from "./Membership.ts"
import * as ProcTable from "./ProcTable.ts"
import * as PsTable from "./PsTable.ts"
import * as Signals from "./Signals.ts"

/** A tree as the watcher sees it. */
export interface Watched extends Key {
  /** The leader's exit has been seen and its number given back to the system. */
  leaderGone: boolean
}

/** Where the table comes from. */
export type TableKind = "proc" | "ps"

interface Waiter {
  readonly tree: Watched
  readonly done: () => void
}

/** Between two looks at a waiting tree, in ms: short at first, then longer, about a tenth of the time that has passed. */
const firstPause = 1
const lastPause = 20
const pauseGrowth = 1.1
/** And where one look follows another, this many times the time that it took. */
const pausePerScan = 6

/** A look that finds nothing is repeated, because a process that forks and ends may hide its child from one pass. */
const emptyPasses = 2
const maxPasses = 8

export class Watcher {
  readonly kind: TableKind
  readonly attribution: Attribution<Watched>
  private readonly waiters = new Set<Waiter>()
  private looping = false
  private timer: NodeJS.Timeout | undefined = undefined
  private wake: (() => void) | undefined = undefined
  private pause = firstPause
  /** Something has happened since the last look began. */
  private hurried = false
  private nextCensus: Promise<Map<Watched, Array<Entry>>> | undefined = undefined

  constructor(host: Host, kind: TableKind) {
    this.kind = kind
    this.attribution = new Attribution(host, kind === "proc" ? 0 : 2)
  }

  private since(): number {
    let since = Number.POSITIVE_INFINITY
    for (const key of this.attribution.keys()) since = Math.min(since, key.leader.start)
    return since - (this.kind === "proc" ? 0 : 2)
  }

  /** One pass over the table; `visit` sees each process with its tree, right when it is read. */
  private async pass(foreign: Set<number>, visit: (tree: Watched, entry: Entry) => void): Promise<boolean> {
    const look = (entry: Entry): boolean => {
      const tree = this.attribution.ownerOf(entry)
      if (tree === undefined) return false
      visit(tree, entry)
      return true
    }
    if (this.kind === "proc") return ProcTable.scan({ since: this.since(), foreign }, look).vanished
    const entries = await PsTable.read().catch(() => undefined)
    if (entries === undefined) this.lookWithoutTable(visit)
    else for (const entry of entries) look(entry)
    return false
  }

  /** Without a table (no `ps`, or it hangs) the existence of the group is all that can be known: kill(2), signal 0. */
  private lookWithoutTable(visit: (tree: Watched, entry: Entry) => void): void {
    for (const tree of this.attribution.keys()) {
      const { pid, start } = tree.leader
      if (tree.ownSession ? !Signals.groupExists(pid) : tree.leaderGone) continue
      const known = { pid, parent: 0, group: pid, session: pid, start, state: "?", alive: true, command: "" }
      visit(tree, { ...known, tag: undefined, mark: [] })
    }
  }

  /** The living members of every tree. Requests of one turn of the event loop share a look; it is always a fresh one. */
  census(): Promise<ReadonlyMap<Watched, ReadonlyArray<Entry>>> {
    this.nextCensus ??= new Promise((resolve, reject) => {
      setImmediate(() => {
        this.nextCensus = undefined
        this.look().then(resolve, reject)
      })
    })
    return this.nextCensus
  }

  private async look(): Promise<Map<Watched, Array<Entry>>> {
    const foreign = new Set<number>()
    let found = new Map<Watched, Array<Entry>>()
    for (let passes = 1; passes <= maxPasses; passes++) {
      found = new Map()
      const numbersInUse = new Set<Watched>()
      const vanished = await this.pass(foreign, (tree, entry) => {
        if (entry.session === tree.leader.pid || entry.group === tree.leader.pid) numbersInUse.add(tree)
        if (!entry.alive) return
        const entries = found.get(tree)
        if (entries === undefined) found.set(tree, [entry])
        else entries.push(entry)
      })
      for (const tree of this.attribution.keys()) {
        if (tree.leaderGone && !numbersInUse.has(tree)) this.attribution.retireNumber(tree)
      }
      if (this.kind === "ps" || (passes >= emptyPasses && !vanished)) break
    }
    return found
  }

  async members(tree: Watched): Promise<ReadonlyArray<Entry>> {
    return (await this.census()).get(tree) ?? []
  }

  /** Calls `done` once when no member lives; returns how to stop waiting. */
  onEmpty(tree: Watched, done: () => void): () => void {
    const waiter: Waiter = { tree, done }
    this.waiters.add(waiter)
    this.hurry()
    return () => void this.waiters.delete(waiter)
  }

  /** A leader has ended, or somebody waits: look at once. */
  hurry(): void {
    this.pause = firstPause
    this.hurried = true
    if (!this.looping) void this.loop()
    else this.wake?.()
  }

  /** Waiting makes sense only for trees whose leader has ended; the others are reported by their exit. */
  private waiting(): ReadonlyArray<Waiter> {
    return [...this.waiters].filter(({ tree }) => tree.leaderGone)
  }

  private async loop(): Promise<void> {
    this.looping = true
    try {
      while (this.waiting().length > 0) {
        // The last look was asked for because all members had ended, and not because of the time or an event.
        const expectedEmpty = !this.hurried
        this.hurried = false
        const startedAt = performance.now()
        const found = await this.census()
        const known = new Map<Waiter, Array<Entry>>()
        for (const waiter of this.waiting()) {
          const members = found.get(waiter.tree)
          if (members !== undefined) known.set(waiter, [...members])
          else {
            this.waiters.delete(waiter)
            waiter.done()
          }
        }
        // Who keeps forking must not make the host look all the time.
        const rest = expectedEmpty || this.kind === "ps" ? (performance.now() - startedAt) * pausePerScan : 0
        await this.sleep(Math.max(this.pause, rest))
        this.slowDown()
        // A tree is not empty while one member that is known lives, which is seen without a look at the whole table.
        while (this.kind === "proc" && this.areKnown(this.waiting(), known)) {
          await this.sleep(this.pause)
          this.slowDown()
        }
      }
    } finally {
      this.looping = false
    }
  }

  /** Each of these trees still has a known member that lives; the dead ones are taken out. */
  private areKnown(waiting: ReadonlyArray<Waiter>, known: ReadonlyMap<Waiter, Array<Entry>>): boolean {
    return !this.hurried && waiting.length > 0 && waiting.every((waiter) => {
      const members = known.get(waiter) ?? []
      while (members.length > 0 && !ProcTable.stillLives(members.at(-1)!)) members.pop()
      return members.length > 0
    })
  }

  private slowDown(): void {
    this.pause = Math.min(lastPause, this.pause * pauseGrowth)
  }

  /** Waits, at most until somebody is in a hurry. */
  private sleep(ms: number): Promise<void> {
    if (this.hurried) return Promise.resolve()
    return new Promise((resolve) => {
      this.wake = () => {
        clearTimeout(this.timer)
        this.wake = undefined
        resolve()
      }
      this.timer = setTimeout(this.wake, ms)
    })
  }

  /** The group may be signalled as one: its number can't be a stranger's. */
  ownsGroup(tree: Watched, entries: ReadonlyArray<Entry>): boolean {
    return tree.ownSession &&
      (!tree.leaderGone ||
        (this.attribution.ownsNumber(tree) && entries.some((entry) => entry.group === tree.leader.pid)))
  }

  private readonly killing = new Map<Watched, Kill>()

  /**
   * Kills every member that is found until two passes find none, for at most `cap` ms; returns who still lives. All
   * trees that are being killed share the passes.
   */
  kill(tree: Watched, cap: number): Promise<ReadonlyArray<Entry>> {
    const running = this.killing.get(tree)
    if (running !== undefined) return running.promise
    let finish: Kill["finish"] = () => {}
    const promise = new Promise<ReadonlyArray<Entry>>((resolve) => {
      finish = resolve
    })
    this.killing.set(tree, {
      promise,
      finish,
      endsAt: performance.now() + cap,
      quiet: 0,
      living: [],
      denied: new Set()
    })
    if (this.killing.size === 1) void this.killLoop()
    return promise
  }

  private async killLoop(): Promise<void> {
    let foreign = new Set<number>()
    let foreignSince = performance.now()
    let busySince = performance.now()
    while (this.killing.size > 0) {
      const now = performance.now()
      // Pids come round in time; what was nobody's may be somebody's then.
      if (now - foreignSince > 500) {
        foreign = new Set()
        foreignSince = now
      }
      const last = new Map<Watched, ReadonlyArray<Entry>>()
      for (const [tree, kill] of this.killing) {
        last.set(tree, kill.living)
        if (this.ownsGroup(tree, kill.living)) Signals.sendToGroup(tree.leader.pid, "SIGKILL")
        kill.living = []
      }
      let fresh = false
      const vanished = await this.pass(foreign, (tree, entry) => {
        const kill = this.killing.get(tree)
        if (kill === undefined || !entry.alive) return
        kill.living.push(entry)
        const outcome = Signals.sendTo(entry.pid, "SIGKILL")
        if (outcome === "denied") kill.denied.add(entry.pid)
        else if (last.get(tree)?.some((known) => known.pid === entry.pid) !== true) fresh = true
      })
      for (const [tree, kill] of this.killing) {
        // One that came during the pass is judged by the next one: the table may be older than its kill.
        if (!last.has(tree)) continue
        kill.quiet = kill.living.length === 0 && !vanished ? kill.quiet + 1 : 0
        const onlyDenied = kill.living.length > 0 && kill.living.every((entry) => kill.denied.has(entry.pid))
        if (kill.quiet >= emptyPasses || onlyDenied || performance.now() >= kill.endsAt) {
          this.killing.delete(tree)
          kill.finish(kill.living)
        }
      }
      // Who has been killed needs a moment to die; who is new is followed at once, but not so long that the loop stalls.
      const searching = fresh || vanished || [...this.killing.values()].some((kill) => kill.living.length === 0)
      if (!searching) {
        await new Promise((resolve) => setTimeout(resolve, this.kind === "proc" ? 1 : 20))
        busySince = performance.now()
      } else if (performance.now() - busySince > 10) {
        await new Promise((resolve) => setImmediate(resolve))
        busySince = performance.now()
      }
    }
  }
}

interface Kill {
  readonly promise: Promise<ReadonlyArray<Entry>>
  readonly finish: (living: ReadonlyArray<Entry>) => void
  readonly endsAt: number
  quiet: number
  living: Array<Entry>
  readonly denied: Set<number>
}
