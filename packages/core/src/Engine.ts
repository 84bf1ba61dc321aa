/**
 * What a platform implements: the mechanism, free of policy.
 *
 * An engine starts a process so that its whole tree can be found again, tells when it ends, and sends signals. Shutdown
 * plans, drains, streams and errors are built on it by `ProcessPlatform.make`, so every platform behaves the same.
 */
import type * as Clock from "effect/Clock"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as PlatformError from "effect/PlatformError"
import type * as ChildProcess from "effect/process/ChildProcess"
import type * as Sink from "effect/Sink"
import type { Level, Report } from "./Containment.ts"
import type { ContainmentUnavailable, LaunchError } from "./Errors.ts"
import type { ExitStatus } from "./ExitStatus.ts"
import type { Limits, Usage } from "./Limits.ts"
import type { Network } from "./Network.ts"
import type { ProcessIdentity, ProcessInfo, Standing } from "./ProcessIdentity.ts"
import type { Target } from "./ShutdownPlan.ts"

/** How one descriptor of the child is set up. A `pipe` is read or written by the host, seen from the host. */
export type Descriptor =
  | { readonly _tag: "ignore" }
  | { readonly _tag: "inherit" }
  | { readonly _tag: "pipe"; readonly direction: "read" | "write" | "duplex" }

/**
 * The process group and session of the leader: its `own` (the default), or `shared` with the host, as a program in the
 * foreground of a terminal needs it. A shared tree has no group of its own, so it is found by mark and tag only.
 */
export type Session = "own" | "shared"

/** A command with everything resolved; nothing secret is wrapped any more. */
export interface LaunchRequest {
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly cwd: string | undefined
  /** Variables to set, or to remove when undefined. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Whether `env` is laid over the host's environment or replaces it. */
  readonly extendEnv: boolean
  /** Run `command` as a script of this shell; `true` is the system's shell. */
  readonly shell: boolean | string
  /** Descriptors 0, 1, 2 and further ones; a gap is `ignore`. */
  readonly stdio: ReadonlyArray<Descriptor>
  readonly session: Session
  readonly windowsHide: boolean
  /** The level that the tree must have. */
  readonly require: Level | undefined
  readonly limits: Limits | undefined
}

/** What a signal met: how many deliveries the system accepted (a group counts once), and who may not be signalled. */
export interface SignalReport {
  readonly delivered: number
  readonly denied: ReadonlyArray<ProcessInfo>
}

/** The host's end of a pipe that the child writes. Callbacks keep the hot path free of fibers. */
export interface PipeReader {
  /**
   * Starts delivery; called once. `onEnd` is called once, at end of file, on an error, or after `close`. Both are methods
   * of `handlers` and are called as such.
   */
  readonly start: (handlers: {
    readonly onChunk: (chunk: Uint8Array) => void
    readonly onEnd: (error?: PlatformError.PlatformError) => void
  }) => void
  readonly pause: () => void
  readonly resume: () => void
  /** Closes the descriptor: a child that writes on gets SIGPIPE. */
  readonly close: () => void
  /** Bytes that wait unread in the pipe, where the system tells them exactly. */
  readonly pending: Effect.Effect<Option.Option<number>>
  /** Completes when the host has been given everything that was ready when this was asked. */
  readonly turn: Effect.Effect<void>
}

/** The host's end of a pipe that the child reads. A child that has gone makes a write fail, never the host. */
export interface PipeWriter {
  readonly sink: (options: {
    readonly endOnDone: boolean
    readonly encoding: ChildProcess.Encoding
  }) => Sink.Sink<void, Uint8Array, never, PlatformError.PlatformError>
  /** Ends the input: the child reads end of file. */
  readonly end: Effect.Effect<void>
  readonly close: () => void
}

/** The host's ends of one descriptor. */
export interface Pipe {
  readonly reader: PipeReader | undefined
  readonly writer: PipeWriter | undefined
}

/** A started process and what it becomes. */
export interface EngineTree {
  readonly identity: ProcessIdentity
  /** What holds for this very launch. */
  readonly level: Level
  readonly pipes: ReadonlyMap<number, Pipe>
  /** The end of the leader, whoever still holds its pipes. */
  readonly exited: Effect.Effect<ExitStatus>
  /** Completes when no living process of the tree is left; interruptible, and costs nothing while nobody waits. */
  readonly awaitEmpty: Effect.Effect<void>
  /** The living processes of the tree, the leader included. */
  readonly members: Effect.Effect<ReadonlyArray<ProcessInfo>>
  readonly usage: Effect.Effect<Usage>
  /**
   * To the leader, its group (only the leader where it shares the host's), every living member, or one process that was
   * a member a moment ago.
   */
  readonly signal: (signal: ChildProcess.Signal, target: Target | ProcessInfo) => Effect.Effect<SignalReport>
  /** Asks windows to close; false where the system has no such thing. */
  readonly requestClose: Effect.Effect<boolean>
  /** Kills what is found until nothing is found, for at most `cap` ms; returns what still lives. */
  readonly kill: (cap: number) => Effect.Effect<ReadonlyArray<ProcessInfo>>
  /** Whether the tree keeps the host's event loop alive and ends with the host. */
  readonly setReferenced: (referenced: boolean) => Effect.Effect<void>
  /**
   * Stops all processes, and those that they start, without their knowing, or lets them go on; returns when that is so, or
   * after a second. There is no such member where the system can't.
   */
  readonly setFrozen?: ((frozen: boolean) => Effect.Effect<void>) | undefined
  /** Gives back descriptors and registrations; called once, last. */
  readonly release: Effect.Effect<void>
  /**
   * In the place of `release` for a tree that lives on: gives them back when nothing of it lives, and returns at once. There
   * is no such member where the end of a tree is only seen by looking for it again and again.
   */
  readonly releaseWhenEmpty?: Effect.Effect<void> | undefined
}

/** What became of a signal to one process. `Denied`: the system does not let this user, or has no such signal. */
export type Signalling = "Sent" | "Gone" | "Denied"

/** A platform's mechanism. */
export interface Engine {
  readonly report: Effect.Effect<Report>
  /** The clock of real processes: the live one on a real platform, the ambient one under simulation. */
  readonly clock: Effect.Effect<Clock.Clock>
  readonly spawn: (request: LaunchRequest) => Effect.Effect<EngineTree, LaunchError | ContainmentUnavailable>
  readonly find: (identity: ProcessIdentity) => Effect.Effect<Option.Option<ProcessInfo>>
  /** What a record of the process that has this pid now would hold; none when there is none, or it may not be looked at. */
  readonly identify: (pid: number) => Effect.Effect<Option.Option<ProcessIdentity>>
  /** Whether a process that was remembered for long still lives. */
  readonly standing: (identity: ProcessIdentity) => Effect.Effect<Standing>
  /** A signal to a process that need not be in a tree of this host, after its identity was compared once more. */
  readonly signalProcess: (identity: ProcessIdentity, signal: ChildProcess.Signal) => Effect.Effect<Signalling>
  readonly processes: Effect.Effect<ReadonlyArray<ProcessInfo>>
  /** See `ProcessPlatform.endLeftovers`. */
  readonly endLeftovers?: ((pids: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<number>>) | undefined
  /** See `ProcessPlatform.leftoversOf`. */
  readonly leftoversOf?: ((host: ProcessIdentity) => Effect.Effect<ReadonlyArray<ProcessInfo>>) | undefined
  /** What probes connect through; a platform without one has no `tcp` and `http` probes. */
  readonly network?: Network | undefined
}
