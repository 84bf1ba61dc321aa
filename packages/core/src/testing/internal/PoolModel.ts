/**
 * What must hold in a lifecycle of a pool, seen from outside: from its events, from what is asked and answered, from what
 * its hooks and processes do. Events come in the transition itself, so between two of them nothing has happened.
 */
import * as PoolState from "../../PoolState.ts"
import type { PoolEvent, PoolStatus } from "../../PoolStatus.ts"
import type { PoolPlan } from "../PoolScenario.ts"
import type { Violation } from "./Invariants.ts"

/** How long the probe of activity takes, and how long it may take, ms. */
export const probeTime = { answers: 20, within: 100 } as const

/** What a probe delays at most: it may be asked for one reason while there is another. */
const probeSlack = 4 * probeTime.within

/** What is left behind takes so long to be given up, ms. */
const patience = 5_000

/** From the kill of a tree to its end, or until it is given up. */
const cap = 5_000

export interface Ask {
  readonly id: number
  readonly what: string
  readonly key: string
  readonly at: number
  readonly seq: number
}

interface Life {
  readonly key: string
  readonly incarnation: number
  liveAt: number | undefined
  liveSeq: number | undefined
  leftSeq: number | undefined
  reason: PoolState.Reason | undefined
  gone: boolean
  lastUse: number
  uses: number
  held: number
  token: string | undefined
}

interface Key {
  readonly asks: Map<number, Ask>
  state: PoolState.KeyState
  life: Life | undefined
  /** When the first one asked of those who share an answer; he may have gone. */
  askedSeq: number
  /** Who asked before this has been answered, or will be told at once. */
  answeredSeq: number
  /** Its leader was seen to have ended. */
  endedAt: number | undefined
  /** What user code is running for it. */
  hook: string | undefined
  /** It was live and its state was neither saved nor given up. */
  unsaved: boolean
  /** It is blocked, or was, for its state alone: it has no child. */
  placeless: boolean
  shutdownSeq: number
}

type HookName = "restore" | "build" | "retire"

/** Who waits for a key. */
const waits: ReadonlySet<string> = new Set(["ensure", "lease"])

export class PoolModel {
  readonly violations: Array<Violation> = []
  readonly lines: Array<string> = []
  starts = 0
  private readonly plan: PoolPlan
  private readonly noticeDelay: number
  private readonly now: () => number
  private readonly keys = new Map<string, Key>()
  private readonly lives = new Map<number, Life>()
  /** Scopes of incarnations that are open. */
  private readonly scopes = new Set<number>()
  private seq = 0
  private asked = 0
  private closing = false

  constructor(plan: PoolPlan, noticeDelay: number, now: () => number) {
    this.plan = plan
    this.noticeDelay = noticeDelay
    this.now = now
  }

  violate(invariant: string, detail: string): void {
    this.violations.push({ invariant, detail, at: this.now() })
    this.say(`! ${invariant}: ${detail}`)
  }

  say(line: string): void {
    this.lines.push(`${Math.round(this.now() * 1000) / 1000} ms  ${line}`)
  }

  private key(key: string): Key {
    let known = this.keys.get(key)
    if (known === undefined) {
      known = {
        asks: new Map(),
        state: { _tag: "Absent" },
        life: undefined,
        endedAt: undefined,
        askedSeq: 0,
        answeredSeq: 0,
        hook: undefined,
        unsaved: false,
        placeless: false,
        shutdownSeq: 0
      }
      this.keys.set(key, known)
    }
    return known
  }

  // ------------------------------------------------------------------------------------------------ events

  event({ change, key }: PoolEvent): void {
    this.seq++
    if (change._tag === "BuildFailed") return this.say(`${key} build failed: ${change.problem}`)
    if (change._tag === "SaveFailed") return this.say(`${key} save ${change.attempt} failed: ${change.problem}`)
    const { from, to } = change
    const known = this.key(key)
    this.say(`${key} ${from._tag} -> ${to._tag}${"reason" in to ? ` (${to.reason})` : ""}`)
    if (from._tag !== known.state._tag) {
      this.violate("events form a path", `${key} goes from ${from._tag}, and was ${known.state._tag}`)
    }
    const leads = from._tag === to._tag || Object.values(PoolState.table[from._tag]).includes(to._tag)
    if (!leads) this.violate("events form a path", `${key} goes from ${from._tag} to ${to._tag}`)
    known.state = to
    if (from._tag === to._tag) return
    const answered = to._tag === "Live" || to._tag === "Blocked" || from._tag === "Building" || from._tag === "Waiting"
    if (answered && to._tag !== "Building") known.answeredSeq = this.seq
    switch (to._tag) {
      case "Waiting":
        break
      case "Building":
        this.begins(key, known, to.incarnation, from._tag === "Waiting")
        break
      case "Live":
        this.becomesLive(known, to.incarnation)
        break
      case "Retiring":
        this.leaves(key, known, to, from)
        break
      case "Blocked":
        known.placeless = to.unsaved
        break
      case "Absent":
        if (from._tag === "Retiring" && known.life !== undefined) {
          known.life.gone = true
          known.life = undefined
          known.placeless = false
        }
    }
    this.checkCapacity()
  }

  private begins(key: string, known: Key, incarnation: number, waited: boolean): void {
    this.starts++
    if (known.life !== undefined) {
      this.violate(
        "one incarnation at a time",
        `${key}#${incarnation} begins and #${known.life.incarnation} is not gone`
      )
    }
    if (this.lives.has(incarnation)) this.violate("one incarnation at a time", `#${incarnation} begins twice`)
    if (this.closing) this.violate("a closed pool begins nothing", `${key}#${incarnation}`)
    known.life = {
      key,
      incarnation,
      liveAt: undefined,
      liveSeq: undefined,
      leftSeq: undefined,
      reason: undefined,
      gone: false,
      lastUse: 0,
      uses: 0,
      held: 0,
      token: undefined
    }
    this.lives.set(incarnation, known.life)
    if (!waited) return
    for (const [other, one] of this.keys) {
      if (one.state._tag === "Waiting" && one.askedSeq < known.askedSeq) {
        this.violate("who waits longest is first", `${key} gets a place before ${other}`)
      }
    }
  }

  private becomesLive(known: Key, incarnation: number): void {
    const { life } = known
    if (life?.incarnation !== incarnation) return this.violate("events form a path", `#${incarnation} was not built`)
    life.liveAt = this.now()
    life.lastUse = this.now()
    life.liveSeq = this.seq
    life.uses = 1
    known.unsaved = true
  }

  private leaves(
    key: string,
    known: Key,
    { reason }: Extract<PoolState.KeyState, { readonly _tag: "Retiring" }>,
    from: PoolState.KeyState
  ): void {
    const { life } = known
    if (life === undefined || from._tag === "Blocked") return
    life.leftSeq = this.seq
    life.reason = reason
    const { age, capacity, idle, uses } = this.plan
    const unused = this.now() - life.lastUse
    const lived = life.liveAt === undefined ? 0 : this.now() - life.liveAt
    const wrong = (why: string) => this.violate(`nobody is ended for nothing`, `${key} is ${reason}, ${why}`)
    if (["idle", "evicted", "recycled"].includes(reason)) {
      if (life.held > 0) this.violate("no lease on a dying child", `${key} is ${reason} with ${life.held} leases`)
      if (from._tag !== "Live") wrong(`and was ${from._tag}`)
    }
    switch (reason) {
      case "idle":
        if (idle === null || this.plan.activity === "busy") wrong("which it never is")
        else if (unused < idle) wrong(`${unused} ms after its last use`)
        break
      case "evicted":
        if (capacity === null || this.plan.activity === "busy") wrong("which it never is")
        else if (unused < capacity.evictAfter) wrong(`${unused} ms after its last use`)
        break
      case "recycled": {
        // Limits are spread by 20 %.
        const old = age !== null && lived >= age * 0.8
        const usedUp = uses !== null && life.uses >= Math.max(1, Math.floor(uses * 0.8))
        if (!old && !usedUp) wrong(`after ${lived} ms and ${life.uses} uses`)
        break
      }
      case "shutdown":
        if (known.shutdownSeq < (life.liveSeq ?? 0)) wrong("and nobody asked for it since it is live")
        break
      case "closed":
        if (!this.closing) wrong("and the pool is open")
    }
  }

  private get occupied(): number {
    return [...this.keys.values()].filter(({ placeless, state }) => PoolState.isOccupied(state._tag) && !placeless)
      .length
  }

  private checkCapacity(): void {
    const { capacity } = this.plan
    if (capacity === null) return
    if (this.occupied > capacity.max) {
      this.violate("no more children than places", `${this.occupied} of ${capacity.max}`)
    }
    const waiting = [...this.keys.values()].filter(({ state }) => state._tag === "Waiting").length
    // Keys that are asked for while they end are not refused.
    if (waiting > capacity.waiting + capacity.max) {
      this.violate("no more keys wait than may", `${waiting} of ${capacity.waiting}`)
    }
  }

  // ------------------------------------------------------------------------------------------------ asked, answered

  issue(what: string, key: string): Ask {
    const ask: Ask = { id: ++this.asked, what, key, at: this.now(), seq: ++this.seq }
    this.say(`asked ${ask.id}: ${what} ${key}`)
    const known = this.key(key)
    if (waits.has(what)) {
      if (![...known.asks.values()].some(({ seq }) => seq > known.answeredSeq)) known.askedSeq = ask.seq
      known.asks.set(ask.id, ask)
    }
    const overtaken = what === "shutdown" ? [known] : what === "shutdownAll" ? [...this.keys.values()] : []
    for (const one of overtaken) one.shutdownSeq = one.answeredSeq = ask.seq
    return ask
  }

  /** An `ensure` or a `lease` got a child. */
  given(ask: Ask, incarnation: number): void {
    const life = this.lives.get(incarnation)
    const who = `${ask.what} ${ask.id} of ${ask.key} got #${incarnation}`
    if (life === undefined || life.key !== ask.key || life.liveSeq === undefined) {
      return this.violate("who asks for a key gets its child", `${who}, which is no living child of it`)
    }
    if (life.leftSeq !== undefined && life.leftSeq < ask.seq) {
      this.violate("nobody gets a child that is being ended", `${who}, which had left before it was asked for`)
    }
    if (life.liveSeq > ask.seq) {
      const { shutdownSeq } = this.key(ask.key)
      if (shutdownSeq > ask.seq && shutdownSeq < life.liveSeq) {
        this.violate("a shutdown overtakes who asked before it", who)
      }
    } else if (life.leftSeq === undefined) {
      life.uses++
    }
    if (life.leftSeq === undefined) life.lastUse = this.now()
    if (ask.what !== "lease") return
    if (life.leftSeq !== undefined && ["idle", "evicted", "recycled"].includes(life.reason ?? "")) {
      this.violate("no lease on a dying child", `${who}, which is ${life.reason}`)
    }
    life.held++
  }

  released(incarnation: number): void {
    const life = this.lives.get(incarnation)
    if (life === undefined) return
    life.held--
    if (life.leftSeq === undefined) life.lastUse = this.now()
  }

  touched(key: string, live: boolean): void {
    const known = this.key(key)
    if (live !== (known.state._tag === "Live")) {
      this.violate("a touch tells the truth", `${key} is ${known.state._tag}, and the touch says ${live}`)
    }
    if (live && known.life !== undefined) known.life.lastUse = this.now()
  }

  /** Who asked waits no longer. */
  settled({ id, key }: Ask): void {
    this.key(key).asks.delete(id)
  }

  /** `outcome`: `ok`, the tag of an error, or `abandoned`. */
  settle(ask: Ask, outcome: string): void {
    this.seq++
    this.say(`answered ${ask.id}: ${outcome}`)
    this.settled(ask)
    const expected: ReadonlyArray<string> = [
      "ok",
      "abandoned",
      ...(waits.has(ask.what)
        ? ["NoBuild", "StartTimedOut", "ChildFailed", "Overtaken", "UnsavedState"]
        : ["UnsavedState"]),
      ...(this.closing ? ["PoolClosed"] : []),
      ...(this.plan.capacity === null ? [] : ["CapacityExceeded"])
    ]
    if (!expected.includes(outcome)) {
      this.violate("answers make sense", `${ask.what} ${ask.id} of ${ask.key} was answered with ${outcome}`)
    }
  }

  // ------------------------------------------------------------------------------------------------ what is run

  hook(name: HookName, key: string, incarnation: number, phase: "begins" | "ends" | "fails", alive: number): void {
    this.say(`${key}#${incarnation} ${name} ${phase}`)
    const known = this.key(key)
    if (phase !== "begins") {
      known.hook = undefined
      if (name === "retire" && phase === "ends") known.unsaved = false
      return
    }
    if (known.hook !== undefined) this.violate("one hook at a time", `${name} of ${key} begins in ${known.hook}`)
    known.hook = name
    if (alive > 0) this.violate("hooks run when the tree is empty", `${name} of ${key} begins, and ${alive} live`)
    if (name === "retire") {
      if (known.state._tag !== "Retiring") {
        this.violate("hooks have their time", `${key} is saved in ${known.state._tag}`)
      }
      if (!known.unsaved) this.violate("state is saved once", `${key}#${incarnation}`)
    } else {
      if (known.unsaved) this.violate("unsaved state is not overwritten", `${name} of ${key}#${incarnation}`)
    }
  }

  discarded(key: string): void {
    const known = this.key(key)
    if (known.state._tag === "Blocked") known.unsaved = false
  }

  scopeOpened(incarnation: number): void {
    this.scopes.add(incarnation)
  }

  scopeClosed(incarnation: number): void {
    this.scopes.delete(incarnation)
    const life = this.lives.get(incarnation)
    if (life !== undefined && life.leftSeq === undefined) {
      this.violate("the scope of an incarnation outlives it", `#${incarnation} is released before it ends`)
    }
  }

  token(incarnation: number, token: string): void {
    const life = this.lives.get(incarnation)
    if (life !== undefined) life.token = token
  }

  // ------------------------------------------------------------------------------------------------ at rest

  /** Whether the leader of the newest tree of a key lives. */
  leader(key: string, alive: boolean): void {
    const known = this.key(key)
    if (known.state._tag !== "Live" || alive) known.endedAt = undefined
    else {
      known.endedAt ??= this.now()
      if (this.now() - known.endedAt > this.noticeDelay || this.noticeDelay === 0) {
        this.violate("who has ended leaves", `${key} is live and its leader ended ${this.now() - known.endedAt} ms ago`)
      }
    }
  }

  /** Nothing is ready to run. */
  quiescent(
    status: PoolStatus,
    lookup: (token: string) => { readonly key: string; readonly incarnation: number } | undefined
  ): void {
    const told = new Map(status.keys.map((one) => [one.key, one]))
    for (const [key, known] of this.keys) {
      const one = told.get(key)
      if ((one?.state._tag ?? "Absent") !== known.state._tag) {
        this.violate("status tells what events told", `${key} is ${one?.state._tag}, and was ${known.state._tag}`)
      }
      if ((one?.callers ?? 0) !== known.asks.size) {
        this.violate("who waits is known", `${one?.callers ?? 0} of ${known.asks.size} wait for ${key}`)
      }
      if (known.asks.size === 0 && (known.state._tag === "Building" || known.state._tag === "Waiting")) {
        this.violate("nothing is built for nobody", `${key} is ${known.state._tag}`)
      }
      if (known.state._tag === "Live" && one?.leases !== known.life?.held) {
        this.violate("leases are known", `${one?.leases} of ${known.life?.held} for ${key}`)
      }
      for (const ask of known.asks.values()) {
        if (this.now() - ask.at > this.bound) {
          this.violate("everybody is answered", `${ask.what} ${ask.id} of ${key} waits for ${this.now() - ask.at} ms`)
        }
      }
      this.atRest(key, known)
    }
    this.roomIsMade()
    for (const life of this.lives.values()) {
      if (life.token === undefined) continue
      const found = lookup(life.token)
      const right = found?.key === life.key && found.incarnation === life.incarnation
      if (life.gone ? found !== undefined : life.leftSeq === undefined && !right) {
        this.violate("a token is good for its incarnation", `that of ${life.key}#${life.incarnation}`)
      }
    }
  }

  private atRest(key: string, { life, state }: Key): void {
    const { activity, age, idle } = this.plan
    if (state._tag !== "Live" || life === undefined || life.held > 0) return
    const slack = activity === "none" ? 0 : probeSlack
    if (idle !== null && activity !== "busy" && this.now() - life.lastUse >= idle + slack) {
      this.violate("idle children are ended", `${key} was not used for ${this.now() - life.lastUse} ms`)
    }
    if (age !== null && this.now() - (life.liveAt ?? 0) >= age + slack) {
      this.violate("old children are replaced", `${key} lives for ${this.now() - (life.liveAt ?? 0)} ms`)
    }
  }

  private roomIsMade(): void {
    const { activity, capacity } = this.plan
    if (capacity === null) return
    const all = [...this.keys.values()]
    const waiting = all.filter(({ state }) => state._tag === "Waiting").length
    const unsaved = all.filter(({ placeless }) => placeless).length
    if (waiting === 0 || unsaved >= capacity.max) return
    if (this.occupied < capacity.max) {
      this.violate("a free place is given", `${waiting} wait, ${this.occupied} are taken`)
    }
    const leaving =
      all.filter(({ asks, placeless, state }) => state._tag === "Retiring" && asks.size === 0 && !placeless).length
    if (leaving >= waiting || activity !== "none") return
    const idle =
      all.filter(({ life, state }) =>
        state._tag === "Live" && life?.held === 0 && this.now() - life.lastUse >= capacity.evictAfter
      ).length
    if (idle > 0) this.violate("who is idle makes room", `${waiting} wait, ${leaving} are leaving, ${idle} are idle`)
  }

  /** How long anything may take, ms. */
  private get bound(): number {
    const { capacity, grace, saveWithin, startWithin } = this.plan
    const ends = patience + grace + cap + saveWithin + patience
    // A key may have to wait for its own end, for a place, and for its start.
    return ends + (capacity?.within ?? 0) + startWithin + 2 * patience + 1000
  }

  close(): void {
    this.say("the scope closes")
    this.closing = true
  }

  /** The pool is closed, and nothing is ready to run. */
  closed(status: PoolStatus): void {
    for (const { asks } of this.keys.values()) {
      for (const { id, key, what } of asks.values()) this.violate("everybody is answered", `${what} ${id} of ${key}`)
    }
    const kept = new Set<number>()
    for (const [key, { hook, life, state }] of this.keys) {
      if (hook !== undefined) this.violate("nothing is left", `${hook} of ${key} runs`)
      if (state._tag === "Blocked" && state.unsaved) kept.add(state.incarnation)
      else if (state._tag !== "Absent") this.violate("nothing is left", `${key} is ${state._tag}`)
      if (state._tag === "Absent" && life !== undefined) this.violate("nothing is left", `${key}#${life.incarnation}`)
    }
    for (const incarnation of this.scopes) {
      if (!kept.has(incarnation)) this.violate("nothing is left", `the scope of #${incarnation} is open`)
    }
    for (const incarnation of kept) {
      if (!this.scopes.has(incarnation)) this.violate("a local copy is kept", `the scope of #${incarnation} is closed`)
    }
    if (status.open) this.violate("nothing is left", "the pool is open")
  }
}
