/**
 * Looks at the process table for all trees of a platform at once: who belongs to which, which is empty, and kills.
 *
 * One pass serves every tree that waits, so N trees cost one scan, and nothing is scanned while nobody waits.
 */
import type { Entry } from "./Entry.ts"
import { Attribution, type Host, type Key } from "./Membership.ts"
import * as Signals from "./Signals.ts"
import type { Table } from "./Table.ts"

/** A tree as the watcher sees it. */
export interface Watched extends Key {
  /** The leader's exit has been seen. */
  ended: boolean
  reaped: boolean
}

/**
 * The orphans of all trees, where the host adopts them (a subreaper, prctl(2)). Then a tree is empty when its leader has
 * ended and none of its orphans lives, and no scan is needed to know it.
 */
export interface Orphans {
  /** Takes in what has changed and reaps the dead. */
  readonly look: () => void
  /** The leader has ended, which may not have been told yet, and no orphan lives. */
  readonly isGone: (tree: Watched) => boolean
  /** The living orphans of a tree. */
  readonly of: (tree: Watched) => ReadonlySet<number>
  /** The same, as entries; the leader stands for a tree that has not ended. */
  readonly entriesOf: (tree: Watched) => ReadonlyArray<Entry>
}

interface Waiter {
  readonly tree: Watched
  readonly done: () => void
}

/** Somebody wants to know the members of a tree. */
interface Question {
  readonly answer: Promise<ReadonlyArray<Entry>>
  readonly resolve: (members: ReadonlyArray<Entry>) => void
  readonly reject: (error: unknown) => void
}

interface Kill {
  readonly promise: Promise<ReadonlyArray<Entry>>
  readonly finish: (living: ReadonlyArray<Entry>) => void
  readonly endsAt: number
  quiet: number
  living: Array<Entry>
  readonly denied: Set<number>
}

/** Between two looks at a waiting tree, in ms: short at first, then longer, about a tenth of the time that has passed. */
const firstPause = 1
const lastPause = 20
const pauseGrowth = 1.1
/** And where one look follows another, this many times the time that it took. */
const pausePerScan = 6

/** While somebody unknown has vanished each time, nothing is said to be gone; a busy machine must not hold it for ever. */
const maxLooks = 40

/** A search that does not wait lets the event loop run after this time, in ms. */
const longestSearch = 10

/** Groups that are killed before the event loop runs again: a kill takes 40 us where the killed begin to run at once. */
const killsPerTurn = 128

/** Questions that are answered before the event loop runs again: what follows an answer takes 0.15 ms. */
const answersPerTurn = 64

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

export class Watcher {
  readonly table: Table
  readonly attribution: Attribution<Watched>
  private readonly orphans: Orphans | undefined
  private readonly waiters = new Map<Watched, Set<Waiter>>()
  private looping = false
  private timer: NodeJS.Timeout | undefined = undefined
  private wake: (() => void) | undefined = undefined
  private pause = firstPause
  /** Something has happened since the last look began. */
  private hurried = false
  private readonly questions = new Map<Watched, Question>()
  private answering = false
  private readonly killing = new Map<Watched, Kill>()

  constructor(table: Table, attribution: Attribution<Watched>, orphans: Orphans | undefined) {
    this.table = table
    this.attribution = attribution
    this.orphans = orphans
  }

  /** Orphans come to the host, so that a tree is empty is told and needs no look. */
  get adopts(): boolean {
    return this.orphans !== undefined
  }

  static attribution(host: Host, table: Table): Attribution<Watched> {
    return new Attribution(host, table.tolerance)
  }

  private since(): number {
    let since = Number.POSITIVE_INFINITY
    for (const key of this.attribution.keys()) since = Math.min(since, key.leader.start)
    return since - this.table.tolerance
  }

  /** One pass over the table; `visit` sees each process with its tree, right when it is read. */
  private async pass(foreign: Set<number>, visit: (tree: Watched, entry: Entry) => void): Promise<boolean> {
    const look = (entry: Entry): boolean => {
      const tree = this.attribution.ownerOf(entry)
      if (tree === undefined) return false
      visit(tree, entry)
      return true
    }
    try {
      const vanished = this.table.scan({ since: this.since(), foreign }, look)
      return typeof vanished === "boolean" ? vanished : await vanished
    } catch {
      this.passWithoutTable(visit)
      return false
    }
  }

  /** Without a table (no `ps`, or it hangs) the existence of the group is all that can be known: kill(2), signal 0. */
  private passWithoutTable(visit: (tree: Watched, entry: Entry) => void): void {
    for (const tree of this.attribution.keys()) {
      const { pid, start } = tree.leader
      if (tree.ownSession ? !Signals.groupExists(pid) : tree.ended) continue
      const known = { pid, parent: 0, group: pid, session: pid, start, state: "?", alive: true, command: "" }
      visit(tree, { ...known, tag: undefined, mark: [] })
    }
  }

  /** The living members of a tree. Questions of one turn of the event loop share a look, which is always a fresh one. */
  private census(tree: Watched): Promise<ReadonlyArray<Entry>> {
    const asked = this.questions.get(tree)
    if (asked !== undefined) return asked.answer
    let resolve: Question["resolve"] = () => {}
    let reject: Question["reject"] = () => {}
    const answer = new Promise<ReadonlyArray<Entry>>((succeed, fail) => {
      resolve = succeed
      reject = fail
    })
    this.questions.set(tree, { answer, resolve, reject })
    if (!this.answering) void this.answerAll()
    return answer
  }

  /** Of very many questions only a part is looked up and answered in one turn, because each answer makes somebody act. */
  private async answerAll(): Promise<void> {
    this.answering = true
    while (this.questions.size > 0) {
      await nextTurn()
      const some = new Map<Watched, Question>()
      for (const [tree, question] of this.questions) {
        if (some.size >= this.table.treesPerLook) break
        this.questions.delete(tree)
        // Many trees that were told to end have done so before it is their turn.
        if (this.orphans?.isGone(tree) === true) question.resolve([])
        else some.set(tree, question)
      }
      if (some.size > 0) await this.answer(some)
    }
    this.answering = false
  }

  private async answer(some: ReadonlyMap<Watched, Question>): Promise<void> {
    try {
      const found = await this.look(some)
      let answers = 0
      for (const [tree, question] of some) {
        question.resolve(found.get(tree) ?? [])
        if (++answers % answersPerTurn === 0 && answers < some.size) await nextTurn()
      }
    } catch (error) {
      for (const question of some.values()) question.reject(error)
    }
  }

  /** The living members of some trees; one of which nothing is found has no entry. */
  private async look(wanted: ReadonlyMap<Watched, unknown>): Promise<ReadonlyMap<Watched, ReadonlyArray<Entry>>> {
    const foreign = this.heldByOthers(wanted)
    let found = new Map<Watched, Array<Entry>>()
    for (let looks = 1; looks <= maxLooks; looks++) {
      found = new Map()
      const numbersInUse = new Set<Watched>()
      const vanished = await this.pass(foreign, (tree, entry) => {
        if (tree.reaped && (entry.session === tree.leader.pid || entry.group === tree.leader.pid)) {
          numbersInUse.add(tree)
        }
        // Who lives is read from a file, so it is asked for nobody else.
        if (!wanted.has(tree) || !entry.alive) return
        const entries = found.get(tree)
        if (entries === undefined) found.set(tree, [entry])
        else entries.push(entry)
      })
      for (const tree of this.attribution.keys()) {
        if (tree.reaped && !numbersInUse.has(tree)) this.attribution.retireNumber(tree)
      }
      // A second look is for those of which nothing was found.
      const allFound = wanted.size === found.size
      if ((allFound || looks >= this.table.looks) && !vanished) break
    }
    return found
  }

  /** The numbers of leaders that belong to other trees for certain: they need not be looked at. */
  private heldByOthers(wanted: ReadonlyMap<Watched, unknown>): Set<number> {
    const held = new Set<number>()
    for (const tree of this.attribution.keys()) if (!tree.reaped && !wanted.has(tree)) held.add(tree.leader.pid)
    return held
  }

  /**
   * True when nothing lives, by what the host has adopted; undefined where that is not known. Orphans come to the host
   * before the end of their parent can be seen, so what was known then is enough to tell.
   */
  isEmptyExactly(tree: Watched): boolean | undefined {
    return this.orphans === undefined ? undefined : tree.ended && this.orphans.of(tree).size === 0
  }

  async members(tree: Watched): Promise<ReadonlyArray<Entry>> {
    if (this.orphans?.isGone(tree) === true || this.isEmptyExactly(tree) === true) return []
    const found = await this.census(tree)
    // A tree that forks faster than it can be looked at is not empty for that.
    return found.length > 0 || this.orphans === undefined ? found : this.orphans.entriesOf(tree)
  }

  /** Calls `done` once when no member lives; returns how to stop waiting. */
  onEmpty(tree: Watched, done: () => void): () => void {
    const waiter: Waiter = { tree, done }
    const others = this.waiters.get(tree)
    if (others === undefined) this.waiters.set(tree, new Set([waiter]))
    else others.add(waiter)
    this.hurry(tree)
    return () => this.forget(waiter)
  }

  private forget(waiter: Waiter): void {
    const waiters = this.waiters.get(waiter.tree)
    waiters?.delete(waiter)
    if (waiters?.size === 0) this.waiters.delete(waiter.tree)
  }

  /** The leader or an orphan of this tree has ended, or somebody waits for it: look at once. */
  hurry(tree: Watched): void {
    if (this.orphans !== undefined) {
      if (this.isEmptyExactly(tree) === true) { for (const waiter of this.waiters.get(tree) ?? []) this.tell(waiter) }
      return
    }
    this.pause = firstPause
    this.hurried = true
    if (!this.looping) void this.loop()
    else this.wake?.()
  }

  private tell(waiter: Waiter): void {
    this.forget(waiter)
    waiter.done()
  }

  /** Waiting makes sense only for trees whose leader has ended; the others are reported by their exit. */
  private waiting(): ReadonlyArray<Waiter> {
    return [...this.waiters.values()].flatMap((waiters) => [...waiters]).filter(({ tree }) => tree.ended)
  }

  private async loop(): Promise<void> {
    this.looping = true
    try {
      while (this.waiting().length > 0) {
        // The last look was asked for because all members had ended, and not because of the time or an event.
        const expectedEmpty = !this.hurried
        this.hurried = false
        const startedAt = performance.now()
        const known = new Map<Waiter, Array<Entry>>()
        await Promise.all(
          this.waiting().map(async (waiter) => {
            const members = await this.census(waiter.tree)
            if (this.waiters.get(waiter.tree)?.has(waiter) !== true) return
            if (members.length === 0) this.tell(waiter)
            else known.set(waiter, [...members])
          })
        )
        // Who keeps forking must not make the host look all the time.
        const canPeek = this.table.stillLives !== undefined
        const rest = expectedEmpty || !canPeek ? (performance.now() - startedAt) * pausePerScan : 0
        await this.sleep(Math.max(this.pause, rest))
        this.slowDown()
        // A tree is not empty while one member that is known lives, which is seen without a look at the whole table.
        while (this.areKnown(this.waiting(), known)) {
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
    const { stillLives } = this.table
    return stillLives !== undefined && !this.hurried && waiting.length > 0 && waiting.every((waiter) => {
      const members = known.get(waiter) ?? []
      while (members.length > 0 && !stillLives(members.at(-1)!)) members.pop()
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
      (!tree.reaped ||
        (this.attribution.ownsNumber(tree) && entries.some((entry) => entry.group === tree.leader.pid)))
  }

  /**
   * Kills every member that is found until nothing is found any more, for at most `cap` ms; returns who still lives. All
   * trees that are being killed share the passes.
   */
  kill(tree: Watched, cap: number): Promise<ReadonlyArray<Entry>> {
    const running = this.killing.get(tree)
    if (running !== undefined) return running.promise
    let finish: Kill["finish"] = () => {}
    const promise = new Promise<ReadonlyArray<Entry>>((resolve) => {
      finish = resolve
    })
    const endsAt = performance.now() + cap
    this.killing.set(tree, { promise, finish, endsAt, quiet: 0, living: [], denied: new Set() })
    if (this.killing.size === 1) void this.killLoop()
    return promise
  }

  private async killLoop(): Promise<void> {
    let foreign = new Set<number>()
    let foreignSince = performance.now()
    let busySince = performance.now()
    for (let round = 0; this.killing.size > 0; round++) {
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
        if (last.size % killsPerTurn === 0) await nextTurn()
      }
      let fresh = this.killOrphans()
      let vanished = false
      // A group and its orphans are gone without any scan; who is in neither is found by one.
      if (this.orphans === undefined || round > 0) {
        vanished = await this.pass(foreign, (tree, entry) => {
          const kill = this.killing.get(tree)
          if (kill === undefined || !entry.alive) return
          kill.living.push(entry)
          const outcome = Signals.sendTo(entry.pid, "SIGKILL")
          if (outcome === "denied") kill.denied.add(entry.pid)
          else if (last.get(tree)?.some((known) => known.pid === entry.pid) !== true) fresh = true
        })
      }
      this.finishKills(vanished, last)
      // Who has been killed needs a moment to die; who is new is followed at once, but not so long that the loop stalls.
      if (fresh || vanished || (this.orphans === undefined && this.someSeemGone())) {
        if (performance.now() - busySince > longestSearch) {
          await nextTurn()
          busySince = performance.now()
        }
      } else if (this.killing.size > 0) {
        // With very many to kill a round takes long, and others must have their turn.
        const rest = this.killing.size > killsPerTurn ? performance.now() - now : 0
        await new Promise((resolve) => setTimeout(resolve, Math.max(this.table.killPause, rest)))
        busySince = performance.now()
      }
    }
  }

  /** Kills the orphans of all trees that are being killed; returns whether there were any. */
  private killOrphans(): boolean {
    if (this.orphans === undefined) return false
    this.orphans.look()
    let found = false
    for (const [tree, kill] of this.killing) {
      for (const pid of this.orphans.of(tree)) {
        if (Signals.sendTo(pid, "SIGKILL") === "denied") kill.denied.add(pid)
        else found = true
      }
    }
    return found
  }

  private someSeemGone(): boolean {
    for (const kill of this.killing.values()) if (kill.living.length === 0) return true
    return false
  }

  private finishKills(vanished: boolean, judged: ReadonlyMap<Watched, unknown>): void {
    for (const [tree, kill] of this.killing) {
      // One that came during the pass is judged by the next one: the table may be older than its kill.
      if (!judged.has(tree)) continue
      kill.quiet = kill.living.length === 0 && !vanished ? kill.quiet + 1 : 0
      const gone = this.isEmptyExactly(tree) ?? kill.quiet >= 2
      const onlyDenied = kill.living.length > 0 && kill.living.every((entry) => kill.denied.has(entry.pid))
      if (!gone && !onlyDenied && performance.now() < kill.endsAt) continue
      this.killing.delete(tree)
      kill.finish(gone ? [] : kill.living)
    }
  }
}
