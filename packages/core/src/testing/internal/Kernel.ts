/**
 * A simulated operating system: the process table, signals, descriptors and listeners. It knows nothing of fibers: time
 * comes in by timers, and what the host is told goes out through one queue, after the processes have run as far as they
 * can. So a fiber that the host resumes may call back at any time, and the order of events is always the same.
 */
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Containment from "../../Containment.ts"
import * as ExitStatus from "../../ExitStatus.ts"
import type { ProcessInfo } from "../../ProcessIdentity.ts"
import type { Instruction, Program } from "../Program.ts"
import * as Interpreter from "./Interpreter.ts"
import { Pipe } from "./Pipe.ts"
import { type File, isRunnable, type Launch, type Process, type System } from "./Process.ts"
import type { Timers } from "./Timers.ts"

type Signal = ChildProcess.Signal

/** What happened, for the journal. */
export type EventTag =
  | "launched"
  | "launch failed"
  | "forked"
  | "fork failed"
  | "became another program"
  | "left its session"
  | "left its group"
  | "signalled"
  | "not permitted"
  | "stopped"
  | "continued"
  | "hangs"
  | "released"
  | "ended"
  | "reaped"
  | "host ended"

/** One thing that happened to a process. Texts are made when somebody asks. */
export interface KernelEvent {
  readonly at: number
  readonly what: EventTag
  readonly pid: number
  readonly command: string
  readonly detail: string | ExitStatus.ExitStatus | undefined
}

export interface KernelOptions {
  readonly pidMax: number
  readonly pipeCapacity: number
  readonly reaps: boolean
  readonly journal: number
}

/** The host process of a platform: what it is told stops with its life. */
export interface Host {
  readonly process: Process
  alive: boolean
}

export interface Listener {
  readonly process: Process
  readonly status: number | undefined
  readonly delay: number
}

const ignoredByDefault: ReadonlySet<Signal> = new Set<Signal>(["SIGCHLD", "SIGURG", "SIGWINCH", "SIGINFO"])
const stopsByDefault: ReadonlySet<Signal> = new Set<Signal>(["SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"])

/** A queue that does not move its rest at every step. */
class Fifo<A> {
  private items: Array<A> = []
  private head = 0

  push(item: A): void {
    this.items.push(item)
  }

  shift(): A | undefined {
    const item = this.items[this.head]
    if (item === undefined) return undefined
    if (++this.head > 256 && this.head * 2 > this.items.length) {
      this.items.splice(0, this.head)
      this.head = 0
    } else if (this.head === this.items.length) {
      this.items = []
      this.head = 0
    }
    return item
  }
}

export const toInfo = (process: Process): ProcessInfo => ({
  pid: process.pid,
  parent: process.parent?.pid ?? 0,
  group: process.group,
  session: process.session,
  startTime: String(process.start),
  state: process.status !== undefined
    ? "Z"
    : process.hanging || process.dying
    ? "D"
    : process.stopped
    ? "T"
    : process.queued
    ? "R"
    : "S",
  alive: process.status === undefined,
  command: process.command
})

/** Whether a launch's process can be found at the level of the launch. */
const isMember = ({ leader, level, ownSession }: Launch, process: Process): boolean =>
  process === leader ||
  (ownSession && (process.group === leader.pid || process.session === leader.pid)) ||
  (process.mark && Containment.atLeast(level, "marked")) ||
  (process.tag && Containment.atLeast(level, "tagged")) ||
  level === "sealed"

/** The living processes of a launch that can be found. */
export const membersOf = (launch: Launch): Array<Process> => {
  const members: Array<Process> = []
  for (const process of launch.living) if (isMember(launch, process)) members.push(process)
  return members
}

/** Whether nothing that can be found of a launch lives. */
export const isEmpty = (launch: Launch): boolean => {
  for (const process of launch.living) if (isMember(launch, process)) return false
  return true
}

export class Kernel implements System {
  readonly table = new Map<number, Process>()
  readonly listeners = new Map<number | string, Listener>()
  readonly journal: Array<KernelEvent> = []
  readonly observers = new Set<(event: KernelEvent) => void>()
  readonly init: Process
  /** ms from the deadly event to the end of a process. */
  exitDelay = 0
  private births = 0
  private lastPid = 0
  private readonly ready = new Fifo<Process>()
  private readonly outbox = new Fifo<{ readonly host: Host; readonly run: () => void }>()
  private settling = false
  readonly options: KernelOptions
  readonly timers: Timers

  constructor(options: KernelOptions, timers: (after: () => void) => Timers) {
    this.options = options
    this.timers = timers(() => this.settle())
    this.init = this.create("init", undefined, { cwd: "/", env: {} })!
  }

  readonly now = (): number => this.timers.now()

  note(what: EventTag, process: Pick<Process, "pid" | "command">, detail?: KernelEvent["detail"]): void {
    const event: KernelEvent = { at: this.now(), what, pid: process.pid, command: process.command, detail }
    if (this.options.journal > 0) {
      this.journal.push(event)
      // Cut now and then, so that a full journal costs little.
      if (this.journal.length >= 2 * this.options.journal) {
        this.journal.splice(0, this.journal.length - this.options.journal)
      }
    }
    for (const observer of this.observers) observer(event)
  }

  // --- running -----------------------------------------------------------------------------------------------------

  /** Tells the host something, once the processes have run as far as they can. */
  post(host: Host, run: () => void): void {
    this.outbox.push({ host, run })
  }

  /** Runs everything that can run at this instant. */
  settle(): void {
    if (this.settling) return
    this.settling = true
    try {
      while (true) {
        const process = this.ready.shift()
        if (process !== undefined) {
          process.queued = false
          Interpreter.run(this, process)
          continue
        }
        const told = this.outbox.shift()
        if (told === undefined) return
        if (told.host.alive) told.run()
      }
    } finally {
      this.settling = false
    }
  }

  private enqueue(process: Process): void {
    if (process.queued || !isRunnable(process) || process.frames.length === 0) return
    process.queued = true
    this.ready.push(process)
  }

  readonly wakeAt = (process: Process, at: number): void => {
    if (process.timer?.run !== undefined && process.timer.at === at) return
    this.timers.cancel(process.timer)
    process.timer = this.timers.set(at, process.wake)
  }

  // --- the process table -------------------------------------------------------------------------------------------

  /** A number that no process, group or session bears, as Linux gives them: upwards, and then from the start again. */
  private nextPid(): number | undefined {
    const { pidMax } = this.options
    for (let tries = 0; tries < pidMax; tries++) {
      this.lastPid = this.lastPid >= pidMax ? 2 : this.lastPid + 1
      const pid = this.lastPid
      if (this.table.has(pid)) continue
      let taken = false
      // Only numbers that were used before can be a group's or session's.
      if (this.births >= pidMax - 1) {
        for (const other of this.table.values()) taken ||= other.group === pid || other.session === pid
      }
      if (!taken) return pid
    }
    return undefined
  }

  /** A process that runs nothing yet. */
  create(
    command: string,
    parent: Process | undefined,
    from: {
      readonly cwd: string
      readonly env: Readonly<Record<string, string>>
      readonly launch?: ((leader: Process) => Launch) | Launch | undefined
    }
  ): Process | undefined {
    const pid = this.nextPid()
    if (pid === undefined) return undefined
    const process: Process = {
      pid,
      start: ++this.births,
      parent,
      group: parent?.group ?? pid,
      session: parent?.session ?? pid,
      children: new Set(),
      command,
      cwd: from.cwd,
      env: from.env,
      launch: undefined,
      mark: false,
      tag: false,
      files: new Map(),
      frames: [],
      traps: new Map(),
      pending: new Set(),
      handling: new Set(),
      stopped: false,
      hanging: false,
      protected: false,
      linger: undefined,
      dying: false,
      status: undefined,
      timer: undefined,
      queued: false,
      budget: 0,
      budgetAt: -1,
      lastChild: undefined,
      wake: () => this.enqueue(process)
    }
    this.table.set(pid, process)
    parent?.children.add(process)
    if (from.launch !== undefined) {
      const launch = typeof from.launch === "function" ? from.launch(process) : from.launch
      ;(process as { launch: Launch }).launch = launch
      launch.living.add(process)
      process.mark = true
      process.tag = true
    }
    return process
  }

  /** Gives a process its program. */
  begin(process: Process, program: Program): void {
    process.frames = [{ program, index: 0, times: 1, handles: undefined, progress: undefined }]
    this.enqueue(process)
  }

  readonly fork = (parent: Process, program: Program): Process | undefined => {
    const { launch } = parent
    if (launch !== undefined && launch.living.size >= launch.maxProcesses) {
      this.note("fork failed", parent, "limit of processes")
      return undefined
    }
    const child = this.create(parent.command, parent, { cwd: parent.cwd, env: parent.env, launch })
    if (child === undefined) {
      this.note("fork failed", parent, "no free pid")
      return undefined
    }
    child.mark = parent.mark
    child.tag = parent.tag
    child.protected = parent.protected
    child.linger = parent.linger
    for (const [fd, file] of parent.files) this.open(child, fd, file)
    for (const [signal, action] of parent.traps) if (action === "ignore") child.traps.set(signal, "ignore")
    parent.lastChild = child
    this.note("forked", child, `by ${parent.pid}`)
    this.begin(child, program)
    return child
  }

  readonly exec = (process: Process, program: Program): void => {
    for (const [signal, action] of process.traps) if (action !== "ignore") process.traps.delete(signal)
    process.handling.clear()
    this.note("became another program", process)
    this.begin(process, program)
    // What waited for a trap to end finds none now.
    this.flush(process)
  }

  readonly setsid = (process: Process): void => {
    if (this.isGroup(process.pid)) return
    process.group = process.pid
    process.session = process.pid
    this.note("left its session", process)
    process.launch?.onChange?.()
  }

  readonly setpgid = (process: Process): void => {
    // The leader of a session leads its group too.
    if (process.group === process.pid) return
    process.group = process.pid
    this.note("left its group", process)
    process.launch?.onChange?.()
  }

  private isGroup(pid: number): boolean {
    for (const process of this.table.values()) if (process.group === pid) return true
    return false
  }

  readonly shed = (process: Process, what: "mark" | "tag"): void => {
    process[what] = false
    process.launch?.onChange?.()
  }

  readonly exit = (process: Process, code: number): void => this.die(process, ExitStatus.exited(code))

  /** The end of a process begins; it takes as long as the process lingers. */
  private die(process: Process, status: ExitStatus.ExitStatus): void {
    if (process.status !== undefined || process.dying) return
    process.dying = true
    process.hanging = false
    process.stopped = false
    process.frames = []
    this.timers.cancel(process.timer)
    process.timer = undefined
    const delay = process.linger ?? this.exitDelay
    if (delay > 0) this.timers.set(this.now() + delay, () => this.finish(process, status))
    else this.finish(process, status)
  }

  private finish(process: Process, status: ExitStatus.ExitStatus): void {
    process.status = status
    for (const [port, listener] of this.listeners) if (listener.process === process) this.listeners.delete(port)
    for (const fd of process.files.keys()) this.close(process, fd)
    for (const child of process.children) {
      child.parent = this.init
      this.init.children.add(child)
      if (child.status !== undefined && this.options.reaps) this.reap(child)
    }
    process.children.clear()
    this.note("ended", process, status)
    const { launch, parent } = process
    if (launch !== undefined) {
      launch.living.delete(process)
      if (process === launch.leader) launch.onLeaderEnd?.(status)
      launch.onChange?.()
    }
    if (parent === undefined) return this.reap(process)
    if (parent === this.init) {
      if (this.options.reaps) this.reap(process)
    } else if (launch?.leader === process) {
      // The host holds the number of a leader until nothing is left of its tree.
      if (launch.settled) this.reap(process)
    } else if (parent.traps.get("SIGCHLD") === "ignore") {
      this.reap(process)
      this.enqueue(parent)
    } else {
      this.deliver(parent, "SIGCHLD")
      this.enqueue(parent)
    }
  }

  /** Takes a zombie out of the table; its number is free. */
  readonly reap = (process: Process): void => {
    if (process.status === undefined || this.table.get(process.pid) !== process) return
    this.table.delete(process.pid)
    process.parent?.children.delete(process)
    this.note("reaped", process)
  }

  /** The host process ends, and tells nobody. */
  endHost(host: Host): void {
    host.alive = false
    host.process.linger = 0
    this.die(host.process, ExitStatus.signaled("SIGKILL"))
  }

  // --- signals -----------------------------------------------------------------------------------------------------

  /** The process of a number, dead or not, if it is still the same one. */
  same(process: Process): boolean {
    return this.table.get(process.pid) === process
  }

  /** A signal from outside; `asHost` may be refused. */
  send(process: Process, signal: Signal, asHost: boolean): "sent" | "denied" | "gone" {
    if (!this.same(process)) return "gone"
    if (asHost && process.protected) {
      this.note("not permitted", process, signal)
      return "denied"
    }
    this.note("signalled", process, signal)
    this.deliver(process, signal)
    return "sent"
  }

  readonly raise = (process: Process, signal: Signal): void => {
    this.note("signalled", process, signal)
    this.deliver(process, signal)
  }

  /** Everyone in a group, the dead who have not been reaped included. */
  group(pid: number): Array<Process> {
    const found: Array<Process> = []
    for (const process of this.table.values()) if (process.group === pid) found.push(process)
    return found
  }

  private deliver(process: Process, signal: Signal): void {
    if (process.status !== undefined || process.dying || process === this.init) return
    if (process.hanging) {
      process.pending.add(signal)
      return
    }
    if (signal === "SIGKILL") return this.die(process, ExitStatus.signaled(signal))
    if (signal === "SIGCONT") {
      for (const stop of stopsByDefault) process.pending.delete(stop)
      if (process.stopped) {
        process.stopped = false
        this.note("continued", process)
        this.flush(process)
      }
    } else if (stopsByDefault.has(signal)) process.pending.delete("SIGCONT")
    const action = signal === "SIGSTOP" ? undefined : process.traps.get(signal)
    if (action !== undefined || signal !== "SIGCONT") {
      if (action === "ignore" || (action === undefined && ignoredByDefault.has(signal))) return
      if ((process.stopped && signal !== "SIGCONT") || process.handling.has(signal)) process.pending.add(signal)
      else if (action !== undefined) {
        process.handling.add(signal)
        process.frames.push({ program: action, index: 0, times: 1, handles: signal, progress: undefined })
      } else if (stopsByDefault.has(signal)) this.stop(process, signal)
      else return this.die(process, ExitStatus.signaled(signal))
    }
    this.enqueue(process)
  }

  private stop(process: Process, signal: Signal): void {
    // Nobody could continue an orphaned group, so only SIGSTOP stops it (POSIX, XSH 2.4.3).
    if (signal !== "SIGSTOP" && this.isOrphaned(process.group, process.session)) return
    process.stopped = true
    this.note("stopped", process)
  }

  /** No member of the group has a parent in another group of the session. */
  private isOrphaned(group: number, session: number): boolean {
    for (const { parent } of this.group(group)) {
      if (parent !== undefined && parent.session === session && parent.group !== group) return false
    }
    return true
  }

  /** Delivers what waited. */
  private flush(process: Process): void {
    if (process.pending.size === 0) return
    const pending = [...process.pending]
    process.pending.clear()
    // What kills comes first; the others have no order.
    if (pending.includes("SIGKILL")) return this.deliver(process, "SIGKILL")
    for (const signal of pending) this.deliver(process, signal)
  }

  readonly handled = (process: Process, signal: Signal): void => {
    process.handling.delete(signal)
    this.flush(process)
  }

  readonly trap = (process: Process, signal: Signal, program: Program | "ignore" | "default"): void => {
    if (signal === "SIGKILL" || signal === "SIGSTOP") return
    if (program === "default") process.traps.delete(signal)
    else process.traps.set(signal, program)
  }

  /** Lets a process wait in the kernel, where no signal reaches it. */
  hang(process: Process): void {
    if (process.status !== undefined || process.dying || process.hanging) return
    process.hanging = true
    this.note("hangs", process)
  }

  /** Ends a wait in the kernel; what was sent meanwhile arrives. */
  release(process: Process): void {
    if (!process.hanging) return
    process.hanging = false
    this.note("released", process)
    this.flush(process)
    this.enqueue(process)
  }

  // --- descriptors -------------------------------------------------------------------------------------------------

  pipe(): Pipe {
    return new Pipe(this.options.pipeCapacity)
  }

  open(process: Process, fd: number, file: File): void {
    this.close(process, fd)
    if (file.reads !== undefined) file.reads.readers++
    if (file.writes !== undefined) file.writes.writers++
    process.files.set(fd, file)
  }

  readonly close = (process: Process, fd: number): void => {
    const file = process.files.get(fd)
    if (file === undefined) return
    process.files.delete(fd)
    file.reads?.closeReader()
    file.writes?.closeWriter()
  }

  // --- listeners ---------------------------------------------------------------------------------------------------

  readonly listen = (process: Process, instruction: Extract<Instruction, { _tag: "Listen" }>): boolean => {
    const present = this.listeners.get(instruction.port)
    if (present !== undefined && present.process !== process) return false
    this.listeners.set(instruction.port, { process, status: instruction.status, delay: instruction.delay ?? 0 })
    return true
  }

  readonly stopListening = (process: Process, port: number | string): void => {
    if (this.listeners.get(port)?.process === process) this.listeners.delete(port)
  }
}
