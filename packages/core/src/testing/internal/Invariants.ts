/**
 * What must hold in every lifecycle, checked against the journal by a reader that shares no code with the actors: it keeps
 * its own idea of each child and each supervisor and compares.
 */
import type { ChildEnd } from "../../ChildEnd.ts"
import * as ChildState from "../../ChildState.ts"
import type { ChildEvent } from "../../ChildStatus.ts"
import type { ExitStatus } from "../../ExitStatus.ts"
import type { Entry, Operation } from "./Journal.ts"

/** What a child promises; times in ms. */
export interface ChildFacts {
  readonly path: string
  /** The supervisor's path; empty for the outermost one. */
  readonly supervisor: string
  readonly mode: "permanent" | "transient" | "temporary"
  readonly successCodes: ReadonlyArray<number | string>
  readonly permanentFailureCodes: ReadonlyArray<number | string>
  /** Undefined where the schedule is not known. */
  readonly backoff: {
    readonly first: number
    readonly max: number
    readonly jitter: number
    readonly times: number | null
  } | undefined
  readonly resetAfter: number
  /** How long its end can take at most: its plan, the cap, the drain. */
  readonly stopWithin: number
  readonly dependsOn: ReadonlyArray<{ readonly child: string; readonly until: "ready" | "started" | "succeeded" }>
  readonly significant: boolean
}

/** What a supervisor promises; its children in their order. */
export interface SupervisorFacts {
  readonly path: string
  readonly strategy: "one_for_one" | "one_for_all" | "rest_for_one"
  readonly max: number
  readonly within: number
  readonly autoShutdown: "never" | "any" | "all"
  readonly children: ReadonlyArray<string>
}

export interface Facts {
  readonly children: ReadonlyArray<ChildFacts>
  readonly supervisors: ReadonlyArray<SupervisorFacts>
}

/** A promise that was broken: its name, and what was seen. */
export interface Violation {
  readonly invariant: string
  readonly detail: string
  readonly at: number
}

type Ended = { readonly end: ChildEnd | null; readonly survivors: number; counted: boolean }

/** What the reader knows of a child. */
class Child {
  readonly facts: ChildFacts
  state: ChildState.ChildState = { _tag: "Stopped", end: null }
  stateAt = 0
  starts = 0
  ends = 0
  readyAt: number | undefined = undefined
  healthyFor = 0
  paused = false
  pausedAt = 0
  probing = 0
  probedAt = 0
  /** The end whose consequence is still to come. */
  ended: Ended | undefined = undefined
  attempt: number | undefined = 0
  /** Something was asked for since the last backoff, so that its count may have begun anew. */
  touched = false
  removed = false
  over = false

  constructor(facts: ChildFacts) {
    this.facts = facts
  }
}

class Supervisor {
  readonly facts: SupervisorFacts
  restarts: ReadonlyArray<number> = []
  round: ReadonlySet<string> | undefined = undefined
  stopping = false
  mustShutDown = false

  constructor(facts: SupervisorFacts) {
    this.facts = facts
  }
}

interface Asked {
  readonly index: number
  readonly operation: Operation
  readonly child: string
  settledAt: number | undefined
  outcome: string | undefined
}

/** Whether it may still have its effect: what was asked for is done, though nobody waits for the answer any more. */
const isPending = (outcome: string | undefined): boolean => outcome === undefined || outcome === "abandoned"

const matches = (codes: ReadonlyArray<number | string>, status: ExitStatus): boolean =>
  status._tag === "Exited" ? codes.includes(status.code) : status._tag === "Signaled" && codes.includes(status.signal)

/** The restart rules, written a second time. */
const expects = (facts: ChildFacts, end: ChildEnd): "restart" | "complete" | "fail" => {
  if (end._tag === "Exited" && matches(facts.permanentFailureCodes, end.status)) return "fail"
  if (facts.mode === "permanent") return "restart"
  const well = end._tag === "Completed" || (end._tag === "Exited" && matches(facts.successCodes, end.status))
  if (well) return "complete"
  return facts.mode === "transient" ? "restart" : "fail"
}

const isDown = ({ _tag }: ChildState.ChildState): boolean =>
  _tag === "Stopped" || _tag === "Failed" || _tag === "Waiting" || _tag === "BackingOff"

class Reader {
  readonly violations: Array<Violation> = []
  private readonly children = new Map<string, Child>()
  private readonly supervisors = new Map<string, Supervisor>()
  private readonly asked = new Map<number, Asked>()
  private at = 0
  private position = 0

  constructor(facts: Facts) {
    for (const child of facts.children) this.children.set(child.path, new Child(child))
    for (const supervisor of facts.supervisors) this.supervisors.set(supervisor.path, new Supervisor(supervisor))
  }

  private violate(invariant: string, detail: string): void {
    this.violations.push({ invariant, detail, at: this.at })
  }

  read(entries: ReadonlyArray<Entry>): void {
    for (const entry of entries) {
      const index = this.position++
      this.at = entry.at
      switch (entry._tag) {
        case "Child":
          this.childEvent(index, entry.path, entry.event)
          break
        case "Supervisor":
          this.supervisorEvent(entry.path, entry.event)
          break
        case "Issued":
          this.asked.set(entry.id, {
            index,
            operation: entry.operation,
            child: entry.child,
            settledAt: undefined,
            outcome: undefined
          })
          this.touch(entry.child, entry.operation)
          break
        case "Settled":
          this.settled(index, entry.id, entry.outcome)
          break
        case "Probe":
          this.probe(entry.path, entry.phase)
          break
      }
    }
  }

  private touch(path: string, operation: Operation): void {
    for (const child of this.children.values()) {
      if (operation === "stopAll" || child.facts.path === path || child.facts.path.startsWith(`${path}/`)) {
        child.touched = true
      }
    }
  }

  private settled(index: number, id: number, outcome: string): void {
    const asked = this.asked.get(id)
    if (asked === undefined) return
    asked.settledAt = index
    asked.outcome = outcome
    if (asked.operation === "remove" && outcome === "ok") this.remove(asked.child)
    const child = this.children.get(asked.child)
    if (asked.operation !== "stop" || outcome !== "ok" || child === undefined) return
    if (child.state._tag !== "Stopped" && child.state._tag !== "Failed" && !this.wantedSince(asked)) {
      this.violate("stop wins", `${asked.child} is ${child.state._tag} when its stop has been answered`)
    }
  }

  private remove(path: string): void {
    for (const child of this.children.values()) {
      if (child.facts.path === path || child.facts.path.startsWith(`${path}/`)) child.removed = true
    }
  }

  /** Whether it is being removed, or was. */
  private isGoing({ facts: { path }, removed }: Child): boolean {
    return removed ||
      [...this.asked.values()].some(({ child, operation, outcome }) =>
        operation === "remove" && isPending(outcome) && (child === path || path.startsWith(`${child}/`))
      )
  }

  /** Whether a start or restart of the child was asked for after this operation. */
  private wantedSince({ child, index }: Asked): boolean {
    for (const other of this.asked.values()) {
      if (
        other.child === child && other.index > index && (other.operation === "start" || other.operation === "restart")
      ) {
        return true
      }
    }
    return false
  }

  private probe(path: string, phase: "begin" | "end"): void {
    const child = this.children.get(path)
    if (child === undefined) return
    child.probing += phase === "begin" ? 1 : -1
    if (phase === "end") return
    if (child.probing > 1 && this.at > child.probedAt) {
      this.violate("probes never overlap", `${child.probing} probes of ${path} at once`)
    }
    child.probedAt = this.at
    // What has been forked may begin before its interruption reaches it, in the same instant.
    if (!this.mayBeProbed(child) && this.at > child.stateAt) {
      this.violate("probes stop when stopping begins", `${path} is probed while it is ${child.state._tag}`)
    }
    if (child.paused && this.at > child.pausedAt) this.violate("a pause stops probes", `${path} is probed`)
  }

  private mayBeProbed({ state }: Child): boolean {
    return state._tag === "Running" || state._tag === "Ready"
  }

  // ------------------------------------------------------------------------------------------------ children

  private childEvent(index: number, path: string, event: ChildEvent): void {
    const child = this.children.get(path)
    if (child === undefined) return
    const { change } = event
    switch (change._tag) {
      case "State":
        return this.transition(index, child, change.from, change.to, event)
      case "Ended": {
        child.ends++
        if (child.ends !== child.starts) {
          this.violate("every start has one end", `${path}: end ${child.ends} of start ${child.starts}`)
        }
        child.ended = { end: change.end, survivors: change.survivors.length, counted: false }
        return
      }
      case "Paused":
        child.paused = true
        child.pausedAt = this.at
        child.touched = true
        return
      case "Resumed":
        child.paused = false
        return
      case "Health":
        return
    }
  }

  private transition(
    index: number,
    child: Child,
    from: ChildState.ChildState,
    to: ChildState.ChildState,
    event: ChildEvent
  ): void {
    const { path } = child.facts
    if (from._tag !== child.state._tag && !(from._tag === "Waiting" && child.state._tag === "Waiting")) {
      this.violate("events form a path", `${path} was ${child.state._tag} and goes on from ${from._tag}`)
    }
    const steps: ReadonlyArray<string> = Object.values(ChildState.table[from._tag])
    if (!steps.includes(to._tag)) this.violate("events form a path", `${path}: ${from._tag} -> ${to._tag}`)
    if (to._tag === "Starting") this.starting(index, child, event)
    if (to._tag === "Ready") child.readyAt = this.at
    if (to._tag === "Stopping" && from._tag !== "Stopping") this.stopping(child, to.why)
    if (child.ended !== undefined && from._tag === "Stopping" && to._tag !== "Stopping") this.consequence(child, to)
    if (to._tag === "BackingOff") this.backingOff(child, to, event)
    child.state = to
    child.stateAt = this.at
  }

  private starting(index: number, child: Child, event: ChildEvent): void {
    const { facts } = child
    child.starts++
    child.readyAt = undefined
    child.over = false
    if (event.incarnation !== child.starts) {
      this.violate("incarnations are numbered", `${facts.path}: ${event.incarnation} is start ${child.starts}`)
    }
    if (child.ends !== child.starts - 1) {
      this.violate("a restart begins when the old tree is empty", `${facts.path} starts before its end was told`)
    }
    if (child.paused) this.violate("a pause stops restarts", `${facts.path} starts`)
    for (const { child: other, until } of facts.dependsOn) {
      const dependency = this.children.get(this.sibling(facts, other))
      if (dependency !== undefined && !this.isGoing(dependency) && !this.satisfies(dependency, until)) {
        this.violate("dependencies first", `${facts.path} starts while ${other} is ${dependency.state._tag}`)
      }
    }
    if (child.state._tag === "BackingOff" && !child.touched) {
      const early = child.state.until - event.at
      // Only where the wall clock was not set: then both are on the same clock.
      if (early > 1 && early < facts.resetAfter) {
        this.violate("backoff", `${facts.path} starts ${early} ms too early`)
      }
    }
    this.noStopForbids(index, child)
    const supervisor = this.supervisors.get(facts.supervisor)
    if (supervisor?.stopping === true) this.violate("a stopping supervisor starts nothing", `${facts.path} starts`)
    if (supervisor?.round?.has(this.name(facts)) === true) {
      this.violate("a round starts its children together", `${facts.path} starts before the round is over`)
    }
  }

  private noStopForbids(index: number, child: Child): void {
    for (const stop of this.asked.values()) {
      if (stop.operation !== "stop" || stop.child !== child.facts.path || stop.settledAt === undefined) continue
      if (stop.outcome === "ok" && stop.settledAt < index && !this.wantedSince(stop)) {
        this.violate("stop wins", `${child.facts.path} starts after its stop, and nobody asked for it since`)
        return
      }
    }
    // The restart of a temporary child is always somebody's wish.
    if (child.facts.mode === "temporary" && child.starts > 1) {
      const wanted = [...this.asked.values()].some(({ child: path, operation }) =>
        path === child.facts.path && (operation === "start" || operation === "restart")
      )
      if (!wanted && child.facts.supervisor === "") {
        this.violate("a temporary child is not restarted", `${child.facts.path} starts again`)
      }
    }
  }

  private name(facts: ChildFacts): string {
    return facts.path.slice(facts.supervisor === "" ? 0 : facts.supervisor.length + 1)
  }

  private sibling(facts: ChildFacts, name: string): string {
    return facts.supervisor === "" ? name : `${facts.supervisor}/${name}`
  }

  private satisfies({ state }: Child, until: "ready" | "started" | "succeeded"): boolean {
    const done = state._tag === "Stopped" && state.end !== null
    return done || (until !== "succeeded" && state._tag === "Ready") ||
      (until === "started" && state._tag === "Running")
  }

  private stopping(child: Child, why: string): void {
    child.healthyFor = child.readyAt === undefined ? 0 : this.at - child.readyAt
    const supervisor = this.supervisors.get(child.facts.supervisor)
    if (supervisor?.stopping !== true || why !== "stop") return
    const asked = [...this.asked.values()].some(({ child: path, operation, outcome }) =>
      path === child.facts.path && isPending(outcome) && (operation === "stop" || operation === "remove")
    )
    if (asked) return
    for (const other of this.children.values()) {
      const depends = other.facts.supervisor === child.facts.supervisor &&
        other.facts.dependsOn.some((dependency) => dependency.child === this.name(child.facts))
      if (depends && !other.removed && !isDown(other.state)) {
        this.violate("dependents stop first", `${child.facts.path} is stopped while ${other.facts.path} is up`)
      }
    }
  }

  private backingOff(child: Child, { attempt, until }: { attempt: number; until: number }, event: ChildEvent): void {
    const { backoff, path, resetAfter } = child.facts
    if (backoff === undefined) return
    const base = Math.min(backoff.max, backoff.first * 2 ** (attempt - 1))
    const wait = until - event.at
    if (wait < base * (1 - backoff.jitter) - 2 || wait > base * (1 + backoff.jitter) + 2) {
      this.violate("backoff", `${path} waits ${wait} ms before restart ${attempt}, about ${base} were expected`)
    }
    if (!child.touched && child.attempt !== undefined) {
      const expected = child.healthyFor >= resetAfter ? 1 : child.attempt + 1
      if (attempt !== expected) {
        this.violate("backoff", `${path}: restart ${attempt} in a row, ${expected} was expected`)
      }
    }
    child.attempt = attempt
    // What was asked for and is not answered may still have its effect.
    child.touched = [...this.asked.values()].some((asked) => isPending(asked.outcome) && asked.child === path)
  }

  /** What follows from an end that nobody asked for. */
  private consequence(child: Child, to: ChildState.ChildState): void {
    const { end, survivors } = child.ended!
    this.countOnce(child)
    child.ended = undefined
    if (survivors > 0) {
      if (to._tag !== "Failed") {
        this.violate("unkillable", `${child.facts.path} goes to ${to._tag}, and it is not empty`)
      }
      return
    }
    if (end === null) return
    const supervisor = this.supervisors.get(child.facts.supervisor)
    const verdict = expects(child.facts, end)
    const allowed: ReadonlyArray<ChildState.Tag> = verdict === "restart"
      ? ["BackingOff", "Waiting", ...(child.facts.backoff?.times === null ? [] : ["Failed" as const])]
      : verdict === "complete"
      ? ["Stopped"]
      : ["Failed"]
    if (!allowed.includes(to._tag)) {
      this.violate("restart policy", `${child.facts.path} (${child.facts.mode}) goes to ${to._tag} after ${end._tag}`)
    }
    if (to._tag === "Waiting") child.attempt = undefined
    if (verdict !== "restart" || to._tag === "Failed") this.isOver(child, supervisor)
  }

  private isOver(child: Child, supervisor: Supervisor | undefined): void {
    child.over = true
    if (supervisor === undefined || supervisor.stopping || !child.facts.significant) return
    if (supervisor.facts.autoShutdown === "never") return
    const others = [...this.children.values()].filter(({ facts, over, removed }) =>
      facts.supervisor === supervisor.facts.path && facts.significant && !over && !removed
    )
    supervisor.mustShutDown = supervisor.facts.autoShutdown === "any" || others.length === 0
  }

  // ------------------------------------------------------------------------------------------------ supervisors

  /**
   * Counts an end against the window, when its supervisor has taken notice of it: with the round that it begins, with the
   * failure of the supervisor, or before the child goes on. True when the restarts are too many now.
   */
  private count(child: Child): boolean {
    const { ended, facts } = child
    const supervisor = this.supervisors.get(facts.supervisor)
    if (supervisor === undefined || ended === undefined || ended.counted) return false
    ended.counted = true
    const { end, survivors } = ended
    if (end === null || survivors > 0 || expects(facts, end) !== "restart") return false
    if (this.backoffIsOver(child, supervisor)) return false
    const { max, within } = supervisor.facts
    supervisor.restarts = [...supervisor.restarts.filter((at) => this.at - at <= within), this.at]
    return supervisor.restarts.length > max && !this.unsure.has(supervisor)
  }

  private countOnce(child: Child): void {
    const supervisor = this.supervisors.get(child.facts.supervisor)
    // What ends while it is to be stopped for a round counts with the round.
    if (supervisor === undefined || supervisor.stopping || supervisor.round?.has(this.name(child.facts)) === true) {
      return
    }
    if (this.count(child)) {
      this.violate("intensity", `more than ${supervisor.facts.max} restarts, and ${child.facts.path} goes on`)
    }
  }

  /** Whether a limited backoff is over: then it is no restart. Where that is not known, neither is the count. */
  private backoffIsOver(child: Child, supervisor: Supervisor): boolean {
    const { backoff, resetAfter } = child.facts
    if (backoff?.times === null) return false
    if (backoff === undefined || child.attempt === undefined || child.touched) {
      this.unsure.add(supervisor)
      return false
    }
    return (child.healthyFor >= resetAfter ? 1 : child.attempt + 1) > backoff.times
  }

  /** Supervisors whose count can't be told from outside. */
  private readonly unsure = new Set<Supervisor>()

  private supervisorEvent(path: string, event: Extract<Entry, { readonly _tag: "Supervisor" }>["event"]): void {
    const supervisor = this.supervisors.get(path)
    if (supervisor === undefined) return
    const { facts } = supervisor
    switch (event._tag) {
      case "Round": {
        const first = this.children.get(path === "" ? event.origin : `${path}/${event.origin}`)
        if (first !== undefined && this.count(first)) {
          this.violate("intensity", `more than ${facts.max} restarts, and ${event.origin} begins a round`)
        }
        const origin = facts.children.indexOf(event.origin)
        const present = facts.children.filter((name) => {
          const child = this.children.get(path === "" ? name : `${path}/${name}`)
          return child !== undefined && !this.isGoing(child)
        })
        const takes = (name: string) =>
          facts.strategy === "one_for_all" || facts.children.indexOf(name) >= origin ||
          supervisor.round?.has(name) === true
        const isUp = (name: string) => {
          const tag = this.children.get(path === "" ? name : `${path}/${name}`)?.state._tag
          return tag !== "Stopped" && tag !== "Failed"
        }
        const wrong = !event.children.every(takes) ||
          present.some((name) => takes(name) && isUp(name) && !event.children.includes(name))
        if (facts.strategy === "one_for_one" || wrong) {
          this.violate("strategy", `${facts.strategy}: ${event.origin} takes along ${event.children.join(", ")}`)
        }
        supervisor.round = new Set(facts.children.filter(takes))
        return
      }
      case "RoundOver":
        supervisor.round = undefined
        for (const name of event.children) {
          const child = this.children.get(path === "" ? name : `${path}/${name}`)
          if (child !== undefined && ChildState.isUp(child.state._tag) && !child.touched) {
            this.violate("strategy", `${child.facts.path} is still ${child.state._tag} when its round is over`)
          }
        }
        return
      case "Stopping":
        supervisor.stopping = true
        if (event.error === null) {
          supervisor.mustShutDown = false
          return
        }
        if (!this.exceeds(path, event.error.child) && !this.unsure.has(supervisor)) {
          this.violate(
            "intensity",
            `${supervisor.restarts.length} restarts within ${facts.within} ms end a supervisor that allows ${facts.max}`
          )
        }
        return
      case "Ended":
        for (const child of this.children.values()) {
          if (child.facts.supervisor === path && ChildState.isUp(child.state._tag)) {
            this.violate("a supervisor ends after its children", `${child.facts.path} is ${child.state._tag}`)
          }
        }
        // The next incarnation of a nested supervisor begins with a clean sheet.
        if (path !== "") this.forget(path)
        return
    }
  }

  private exceeds(path: string, name: string): boolean {
    const child = this.children.get(path === "" ? name : `${path}/${name}`)
    return child !== undefined && this.count(child)
  }

  private forget(path: string): void {
    const old = this.supervisors.get(path)
    if (old !== undefined) this.supervisors.set(path, new Supervisor(old.facts))
    for (const [name, child] of this.children) {
      if (child.facts.supervisor === path) this.children.set(name, new Child(child.facts))
    }
  }

  // ------------------------------------------------------------------------------------------------ the end

  /** When nothing is ready to run: nobody may be overdue. */
  quiescent(now: number, wallNow: number): void {
    this.at = now
    for (const child of this.children.values()) {
      const supervisor = this.supervisors.get(child.facts.supervisor)
      if (child.removed || supervisor === undefined || supervisor.stopping) continue
      if (child.state._tag === "BackingOff" && child.state.until < wallNow - 1 && !child.paused) {
        this.violate("nothing is forgotten", `${child.facts.path} has not been restarted when it was due`)
      }
      if (child.state._tag === "Waiting" && !child.paused && supervisor.round === undefined) {
        const satisfied = child.facts.dependsOn.every(({ child: other, until }) => {
          const dependency = this.children.get(this.sibling(child.facts, other))
          return dependency === undefined || dependency.removed || this.satisfies(dependency, until)
        })
        if (satisfied) this.violate("nothing is forgotten", `${child.facts.path} waits and nothing is in its way`)
      }
      if (supervisor.mustShutDown) {
        this.violate("automatic shutdown", `the significant children have ended, and the supervisor goes on`)
        supervisor.mustShutDown = false
      }
    }
    for (const child of this.children.values()) {
      if (child.probing > 0 && (child.paused || !this.mayBeProbed(child))) {
        this.violate("probes stop when stopping begins", `a probe of ${child.facts.path} goes on`)
      }
    }
  }

  /** At any time: nobody is stopping for longer than its plan allows. */
  bounded(now: number): void {
    this.at = now
    for (const child of this.children.values()) {
      if (child.state._tag === "Stopping" && now - child.stateAt > child.facts.stopWithin) {
        this.violate("every stop is bounded", `${child.facts.path} has been stopping for ${now - child.stateAt} ms`)
      }
    }
  }

  /** When the scope has closed. */
  closed(): void {
    for (const child of this.children.values()) {
      if (child.removed && child.starts === 0) continue
      if (child.starts !== child.ends) {
        this.violate("every start has one end", `${child.facts.path}: ${child.starts} starts, ${child.ends} ends`)
      }
      if (child.probing !== 0) this.violate("probes stop when stopping begins", `one of ${child.facts.path} goes on`)
    }
    for (const [id, { child, operation, outcome }] of this.asked) {
      if (outcome === undefined) this.violate("everybody is answered", `[${id}] ${operation} ${child} never was`)
    }
  }
}

/** Reads a journal as it grows. */
export const reader = (facts: Facts): Reader => new Reader(facts)
export type { Reader }
