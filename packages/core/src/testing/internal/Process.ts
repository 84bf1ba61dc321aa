/** The records of a simulated system, and what a program may ask of it. */
import type * as ChildProcess from "effect/process/ChildProcess"
import type { Level } from "../../Containment.ts"
import type { ExitStatus } from "../../ExitStatus.ts"
import type { Instruction, Program } from "../Program.ts"
import type { Pipe } from "./Pipe.ts"
import type { Timer } from "./Timers.ts"

type Signal = ChildProcess.Signal

/** What a descriptor refers to: a pipe or two of them, the host's own descriptor, or nothing at all. */
export interface File {
  readonly reads: Pipe | undefined
  readonly writes: Pipe | undefined
  /** Takes what is written where there is no pipe. */
  readonly host: ((bytes: Uint8Array) => void) | undefined
}

/** A program that is being run: its instructions, where it is, and what the current instruction has done so far. */
export interface Frame {
  readonly program: Program
  index: number
  /** How often the instructions are still to be run, this time included. */
  times: number
  /** The signal whose trap this is. */
  readonly handles: Signal | undefined
  progress: unknown
}

/** The launch that a process descends from. */
export interface Launch {
  readonly number: number
  readonly level: Level
  readonly leader: Process
  /** Every living process that the leader brought about, those that have escaped included. */
  readonly living: Set<Process>
  readonly ownSession: boolean
  /** Processes that may live at once. */
  readonly maxProcesses: number
  /** The host does not wait for the tree any more: it is reaped at once. */
  settled: boolean
  /** Membership may have changed. */
  onChange: (() => void) | undefined
  onLeaderEnd: ((status: ExitStatus) => void) | undefined
}

export interface Process {
  readonly pid: number
  /** A number of its own: a pid may be used again, this is not. */
  readonly start: number
  parent: Process | undefined
  group: number
  session: number
  readonly children: Set<Process>
  command: string
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  readonly launch: Launch | undefined
  mark: boolean
  tag: boolean
  readonly files: Map<number, File>
  frames: Array<Frame>
  readonly traps: Map<Signal, Program | "ignore">
  readonly pending: Set<Signal>
  /** Signals whose trap is running. */
  readonly handling: Set<Signal>
  stopped: boolean
  hanging: boolean
  protected: boolean
  /** ms that its end takes; undefined for what the system says. */
  linger: number | undefined
  /** Its end has begun. */
  dying: boolean
  /** Set when it is a zombie. */
  status: ExitStatus | undefined
  timer: Timer | undefined
  queued: boolean
  /** Instructions and KiB that are left for this instant. */
  budget: number
  budgetAt: number
  lastChild: Process | undefined
  /** Lets it look again at what it waits for. */
  readonly wake: () => void
}

/** What the instructions of a program need of the system. */
export interface System {
  readonly now: () => number
  /** Wakes the process at a time; it has one timer. */
  readonly wakeAt: (process: Process, at: number) => void
  readonly fork: (parent: Process, program: Program) => Process | undefined
  readonly exec: (process: Process, program: Program) => void
  readonly exit: (process: Process, code: number) => void
  readonly reap: (process: Process) => void
  /** A process sends itself a signal, which always arrives. */
  readonly raise: (process: Process, signal: Signal) => void
  readonly trap: (process: Process, signal: Signal, program: Program | "ignore" | "default") => void
  readonly handled: (process: Process, signal: Signal) => void
  readonly setsid: (process: Process) => void
  readonly setpgid: (process: Process) => void
  readonly shed: (process: Process, what: "mark" | "tag") => void
  readonly close: (process: Process, fd: number) => void
  readonly listen: (process: Process, instruction: Extract<Instruction, { _tag: "Listen" }>) => boolean
  readonly stopListening: (process: Process, port: number | string) => void
}

/** Whether a process can run its next instruction. */
export const isRunnable = (process: Process): boolean =>
  process.status === undefined && !process.dying && !process.stopped && !process.hanging
