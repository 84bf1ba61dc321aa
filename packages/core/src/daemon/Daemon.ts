/**
 * The life of a detached daemon, seen from the commands that begin and end it. The daemon itself takes the pid record (see
 * `PidRecord`), so a command that dies leaves no daemon that nobody knows.
 *
 * `start`, `stop` and `restart` take turns (see `OperationLock`) and may be repeated: a second start finds the first
 * daemon, a second stop finds none. What is not the daemon of the state folder is never touched.
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import {
  type ClaimUndecided,
  DaemonNotReady,
  DaemonNotStopped,
  type DetachUnavailable,
  InvalidSpec,
  type KeeperFailed,
  type LaunchError,
  type OperationBusy,
  type StateFolderError,
  Unmanaged
} from "../Errors.ts"
import type { ExitStatus } from "../ExitStatus.ts"
import * as EndProcess from "../internal/EndProcess.ts"
import * as Tail from "../internal/Tail.ts"
import { millis } from "../internal/Time.ts"
import type { ProcessIdentity, ProcessInfo } from "../ProcessIdentity.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import { Kept } from "./Kept.ts"
import * as OperationLock from "./OperationLock.ts"
import * as PidRecord from "./PidRecord.ts"
import type { StateFolder } from "./StateFolder.ts"

/** A daemon's process that was just started, and does not end with whoever started it. */
export interface Launched {
  readonly pid: number
  /** Its end; known while this process lives. */
  readonly ended: Effect.Effect<ExitStatus>
  /** The end of what it wrote to stderr, at least 4 KiB if there is so much; `complete` when that is all. */
  readonly errors: Effect.Effect<{ readonly bytes: Uint8Array; readonly complete: boolean }>
}

/** Who answers at the control address. */
export interface Answer {
  readonly pid: number | null
  readonly version: string
}

/** A daemon, as the commands know it. */
export interface Daemon {
  readonly folder: StateFolder
  /** This process. */
  readonly self: ProcessIdentity
  /**
   * Starts its process with these variables beside its others; it has to take the record, and to hand over the variable
   * `PidRecord.starterVariable` when it does. Called only when it is needed, so that it finds what is there then.
   */
  readonly launch: (
    variables: Readonly<Record<string, string>>
  ) => Effect.Effect<Launched, DetachUnavailable | LaunchError | StateFolderError>
  /** Who answers at the control address; bounded, and none when nobody does. */
  readonly ask: Effect.Effect<Option.Option<Answer>>
  /** What an orderly end waits for, in words; bounded. Default: nothing is known. */
  readonly blocking?: Effect.Effect<ReadonlyArray<string>> | undefined
  /** Begins the orderly end where a signal can't; false when that failed. Default: SIGTERM. */
  readonly requestStop?: Effect.Effect<boolean> | undefined
  /**
   * Begins an end that leaves the services that are to go on; false when that failed, as when control does not answer.
   * A restart then ends them, too. Default: there are none.
   */
  readonly requestLeave?: Effect.Effect<boolean> | undefined
  /** The services that processes of their own keep, and the end of all of them. Default: there are none. */
  readonly kept?: {
    readonly list: Effect.Effect<ReadonlyArray<Kept>, StateFolderError>
    readonly end: Effect.Effect<ReadonlyArray<string>, KeeperFailed | ClaimUndecided | StateFolderError>
  } | undefined
}

/** How a command went. */
export const Outcome = Schema.Struct({
  status: Schema.Literals(["started", "alreadyRunning", "restarted", "stopped", "notRunning"]),
  /** Of the daemon that runs, or that was stopped. */
  pid: Schema.NullOr(Schema.Int),
  /** False when it runs, but was not started as the daemon of this folder. */
  managed: Schema.Boolean,
  version: Schema.NullOr(Schema.String),
  control: Schema.NullOr(Schema.String),
  folder: Schema.String,
  /** From the call to its end. */
  milliseconds: Schema.Int,
  /** It had to be killed. */
  forced: Schema.Boolean,
  /** What its end waited for, as it was told last. */
  blocking: Schema.Array(Schema.String),
  /** Services that no daemon had any more, and that were ended. */
  ended: Schema.Array(Schema.String)
})
export type Outcome = typeof Outcome.Type

/**
 * What there is. `unmanaged`: nobody holds the record, and somebody answers all the same. `unreadable` and `unsure`: see
 * `PidRecord`.
 */
export const Status = Schema.Struct({
  status: Schema.Literals(["running", "starting", "notRunning", "stale", "unmanaged", "unreadable", "unsure"]),
  pid: Schema.NullOr(Schema.Int),
  /** Control answers. */
  answers: Schema.Boolean,
  version: Schema.NullOr(Schema.String),
  program: Schema.NullOr(Schema.String),
  config: Schema.NullOr(Schema.String),
  control: Schema.NullOr(Schema.String),
  startedAt: Schema.NullOr(Schema.Number),
  readyAt: Schema.NullOr(Schema.Number),
  folder: Schema.String,
  /** The services that processes of their own keep, also where no daemon runs. */
  kept: Schema.Array(Kept),
  /** Empty when all is well. */
  detail: Schema.String
})
export type Status = typeof Status.Type

export interface StartOptions {
  /** How long it may take to get ready. Default: 10 s. */
  readonly readyWithin?: Duration.Input | undefined
  /** How long to wait for another command. Default: 75 s. */
  readonly lockWithin?: Duration.Input | undefined
}

export interface StopOptions {
  /** From SIGTERM to SIGKILL, from 0, which kills at once, to 300 s. Default: what the daemon has recorded. */
  readonly grace?: Duration.Input | undefined
  /** How long to wait for another command. Default: 75 s. */
  readonly lockWithin?: Duration.Input | undefined
  /** Told once a second what the end waits for. */
  readonly onWaiting?: ((blocking: ReadonlyArray<string>) => Effect.Effect<void>) | undefined
}

/** The longest grace, in ms. */
const longestGrace = 300_000

/** How long a daemon that did not get ready has to end in order, in ms. */
const failedGrace = 2000

/** How often a start or stop begins anew because another daemon came or went in between. */
const rounds = 10

/** The tail of stderr in an error, in bytes. */
const tailBytes = 4096

/** Checks a grace: finite and from 0 to 300 s (seed C25). */
export const grace = (input: Duration.Input): Effect.Effect<number, InvalidSpec> =>
  Effect.flatMap(Effect.fromResult(millis("grace", input)), (ms) =>
    ms <= longestGrace
      ? Effect.succeed(ms)
      : Effect.fail(new InvalidSpec({ field: "grace", problem: "must be at most 300 seconds" })))

interface Ended {
  readonly forced: boolean
  readonly blocking: ReadonlyArray<string>
}

const survived = (pid: number, survivors: ReadonlyArray<ProcessInfo>): DaemonNotStopped =>
  new DaemonNotStopped({
    pid,
    reason: "Survived",
    blocking: survivors.map(({ command, pid }) => `${command} (pid ${pid})`)
  })

/** An end as `EndProcess` has it, and what it waited for, which is asked once a second. */
const end = (
  identity: ProcessIdentity,
  within: number,
  daemon: Pick<Daemon, "blocking" | "requestStop">,
  onWaiting: StopOptions["onWaiting"]
): Effect.Effect<Ended, DaemonNotStopped, ProcessPlatform> =>
  Effect.gen(function*() {
    let blocking: ReadonlyArray<string> = []
    let asksAt = 1000
    const each = (elapsed: number) =>
      Effect.gen(function*() {
        if (elapsed < asksAt || daemon.blocking === undefined) return
        asksAt = elapsed + 1000
        blocking = yield* daemon.blocking
        if (onWaiting !== undefined) yield* onWaiting(blocking)
      })
    const { requestStop } = daemon
    const { how, survivors } = yield* EndProcess.end(identity, { within, requestStop, each })
    switch (how) {
      case "Ended":
      case "Killed":
        return { forced: how === "Killed", blocking }
      case "Survived":
        return yield* survived(identity.pid, survivors)
      case "Denied":
      case "TimedOut":
        return yield* new DaemonNotStopped({ pid: identity.pid, reason: how, blocking })
    }
  })

const place = (daemon: Daemon): Effect.Effect<PidRecord.Place, never, ProcessPlatform> =>
  Effect.map(ProcessPlatform, (platform) => ({ folder: daemon.folder, platform }))

const tailOf = (launched: Launched): Effect.Effect<string> =>
  Effect.map(launched.errors, ({ bytes, complete }) => Tail.lastLines(bytes, tailBytes, complete))

const outcomeOf = (
  daemon: Daemon,
  status: Outcome["status"],
  milliseconds: number,
  record: PidRecord.PidRecord | undefined,
  more: Partial<Outcome> = {}
): Outcome => ({
  status,
  pid: record?.identity.pid ?? null,
  managed: true,
  version: record?.version ?? null,
  control: record?.control ?? null,
  folder: daemon.folder.path,
  milliseconds: Math.round(milliseconds),
  forced: false,
  blocking: [],
  ended: [],
  ...more
})

export type StartError = ClaimUndecided | DaemonNotReady | DetachUnavailable | LaunchError | StateFolderError

/** Waits until the record says that a daemon runs and control answers as it. `launched` is the one that should. */
const awaitReady = (
  daemon: Daemon,
  within: number,
  launched: Launched | undefined
): Effect.Effect<PidRecord.PidRecord, ClaimUndecided | DaemonNotReady | StateFolderError, ProcessPlatform> =>
  Effect.gen(function*() {
    const timer = yield* EndProcess.makeTimer
    const ended = Deferred.makeUnsafe<ExitStatus>()
    if (launched !== undefined) {
      yield* Effect.forkScoped(Effect.flatMap(launched.ended, (status) => Deferred.succeed(ended, status)))
    }
    let pid = launched?.pid ?? 0
    while (true) {
      // Looked at before the record: who has ended has told all that it will.
      const status = yield* Effect.map(Deferred.poll(ended), Option.isSome)
      const state = yield* PidRecord.read(yield* place(daemon))
      switch (state._tag) {
        case "Running": {
          const answer = yield* daemon.ask
          if (Option.isSome(answer) && (answer.value.pid ?? state.record.identity.pid) === state.record.identity.pid) {
            return state.record
          }
          pid = state.record.identity.pid
          break
        }
        case "Starting":
          pid = state.record.identity.pid
          break
        case "Unreadable":
        case "Unsure":
          return yield* PidRecord.undecided(state)
        case "Missing":
        case "Stale":
          if (launched === undefined || status) {
            return yield* new DaemonNotReady({
              reason: "Ended",
              pid,
              within,
              status: launched === undefined ? null : yield* Deferred.await(ended),
              errorTail: launched === undefined ? "" : yield* tailOf(launched)
            })
          }
      }
      const left = within - timer.elapsed()
      if (left <= 0) {
        const errorTail = launched === undefined ? "" : yield* tailOf(launched)
        return yield* new DaemonNotReady({ reason: "TimedOut", pid, within, status: null, errorTail })
      }
      yield* timer.pause(Math.min(EndProcess.poll, left))
    }
  }).pipe(Effect.scoped)

/**
 * Launches it and waits; when that fails or is given up, it is ended. `started` is false when somebody else, who does not
 * wait for the lock, has taken the record first.
 */
const launchReady = (
  daemon: Daemon,
  within: number
): Effect.Effect<
  { readonly record: PidRecord.PidRecord; readonly started: boolean },
  StartError,
  ProcessPlatform
> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform
      const launched = yield* daemon.launch({ [PidRecord.starterVariable]: PidRecord.encodeStarter(daemon.self) })
      const identity = yield* platform.identify(launched.pid)
      // One that has ended may have given its pid to a stranger before it was looked at.
      const ended = Effect.raceFirst(Effect.as(launched.ended, true), Effect.as(Effect.yieldNow, false))
      const record = yield* Effect.onExit(restore(awaitReady(daemon, within, launched)), (exit) =>
        Effect.gen(function*() {
          if (Exit.isSuccess(exit) || Option.isNone(identity) || (yield* ended)) return
          yield* Effect.ignore(end(identity.value, failedGrace, {}, undefined))
        }))
      return { record, started: record.identity.pid === launched.pid }
    })
  )

const startLocked = (
  daemon: Daemon,
  options: StartOptions,
  elapsed: () => number,
  left = rounds
): Effect.Effect<Outcome, StartError | InvalidSpec, ProcessPlatform> =>
  Effect.gen(function*() {
    const within = yield* Effect.fromResult(millis("readyWithin", options.readyWithin ?? "10 seconds"))
    const state = yield* PidRecord.read(yield* place(daemon))
    switch (state._tag) {
      case "Starting":
      case "Running": {
        const found = yield* Effect.result(awaitReady(daemon, within, undefined))
        if (Result.isSuccess(found)) return outcomeOf(daemon, "alreadyRunning", elapsed(), found.success)
        const error = found.failure
        // One whose own starter had gone, or that was killed: now there is room for another.
        if (error._tag === "DaemonNotReady" && error.reason === "Ended" && left > 0) {
          return yield* startLocked(daemon, options, elapsed, left - 1)
        }
        return yield* error
      }
      case "Unreadable":
      case "Unsure":
        return yield* PidRecord.undecided(state)
      case "Missing":
      case "Stale": {
        const answer = yield* daemon.ask
        if (Option.isSome(answer)) {
          const { pid, version } = answer.value
          return outcomeOf(daemon, "alreadyRunning", elapsed(), undefined, { pid, version, managed: false })
        }
        const { record, started } = yield* launchReady(daemon, within)
        return outcomeOf(daemon, started ? "started" : "alreadyRunning", elapsed(), record)
      }
    }
  })

export type StopError = ClaimUndecided | DaemonNotStopped | InvalidSpec | KeeperFailed | StateFolderError | Unmanaged

const stopLocked = (
  daemon: Daemon,
  options: StopOptions,
  elapsed: () => number,
  leave: boolean
): Effect.Effect<Outcome, StopError, ProcessPlatform> =>
  Effect.gen(function*() {
    const given = options.grace === undefined ? undefined : yield* grace(options.grace)
    const at = yield* place(daemon)
    let stopped: Outcome | undefined = undefined
    for (let round = 0;; round++) {
      const state = yield* PidRecord.read(at)
      if (state._tag === "Unreadable" || state._tag === "Unsure") return yield* PidRecord.undecided(state)
      if (state._tag === "Missing") break
      if (round >= rounds) {
        const pid = state.record?.identity.pid ?? 0
        return yield* new DaemonNotStopped({ pid, reason: "Replaced", blocking: [] })
      }
      if (state._tag === "Stale") {
        if (state.record !== null) {
          const { identity } = state.record
          const survivors = yield* EndProcess.awaitLeftovers(identity)
          if (survivors.length > 0) return yield* survived(identity.pid, survivors)
        }
        yield* PidRecord.clean(at)
        continue
      }
      const { record } = state
      const { identity } = record
      // What can't be left so is ended by the signal, as every other service is.
      const asks = leave && daemon.requestLeave !== undefined
        ? {
          ...daemon,
          requestStop: Effect.flatMap(
            daemon.requestLeave,
            (left) => left ? Effect.succeed(true) : daemon.requestStop ?? Effect.succeed(false)
          )
        }
        : daemon
      const ended: Ended = yield* end(identity, given ?? record.grace, asks, options.onWaiting)
      stopped = outcomeOf(daemon, "stopped", elapsed(), record, {
        forced: ended.forced || (stopped?.forced ?? false),
        blocking: ended.blocking
      })
    }
    if (stopped === undefined) {
      const answer = yield* daemon.ask
      if (Option.isSome(answer)) return yield* new Unmanaged({ pid: answer.value.pid, folder: daemon.folder.path })
    }
    // Of those that a daemon had, nothing is left now; others were left by one that died.
    const ended = leave || daemon.kept === undefined ? [] : yield* daemon.kept.end
    return stopped === undefined
      ? outcomeOf(daemon, "notRunning", elapsed(), undefined, { ended })
      : { ...stopped, ended, milliseconds: Math.round(elapsed()) }
  })

/** One command at a time. */
const locked = <A, E, R>(
  daemon: Daemon,
  operation: string,
  within: Duration.Input | undefined,
  use: (elapsed: () => number) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | OperationBusy | ClaimUndecided | StateFolderError | InvalidSpec, R | ProcessPlatform> =>
  Effect.scoped(Effect.gen(function*() {
    const { elapsed } = yield* EndProcess.makeTimer
    yield* OperationLock.take({ ...yield* place(daemon), self: daemon.self, operation, within })
    return yield* use(elapsed)
  }))

/** What the holder of the lock may do, with no other command in between. */
export interface Turn {
  /** See `start`. */
  readonly start: (
    options?: Pick<StartOptions, "readyWithin">
  ) => Effect.Effect<Outcome, StartError | InvalidSpec, ProcessPlatform>
  /** See `stop`. With `leave`, services that are kept go on, as in a restart. */
  readonly stop: (
    options?: Pick<StopOptions, "grace" | "onWaiting"> & { readonly leave?: boolean | undefined }
  ) => Effect.Effect<Outcome, StopError, ProcessPlatform>
}

/**
 * Takes the lock of `start`, `stop` and `restart` for an operation of one's own, such as a change of what the daemon reads
 * when it starts.
 */
export const exclusively = Effect.fn("Daemon.exclusively")(
  <A, E, R>(
    daemon: Daemon,
    operation: string,
    use: (turn: Turn) => Effect.Effect<A, E, R>,
    options: Pick<StartOptions, "lockWithin"> = {}
  ): Effect.Effect<A, E | OperationBusy | ClaimUndecided | StateFolderError | InvalidSpec, R | ProcessPlatform> =>
    locked(daemon, operation, options.lockWithin, (elapsed) =>
      use({
        start: (options = {}) => startLocked(daemon, options, elapsed),
        stop: ({ leave = false, ...options } = {}) => stopLocked(daemon, options, elapsed, leave)
      }))
)

/**
 * Starts the daemon and waits until it is ready: its record says so and control answers. One that runs, or is starting, is
 * waited for instead. One that does not get ready is ended.
 */
export const start = Effect.fn("Daemon.start")(
  (daemon: Daemon, options: StartOptions = {}): Effect.Effect<
    Outcome,
    StartError | InvalidSpec | OperationBusy,
    ProcessPlatform
  > => locked(daemon, "start", options.lockWithin, (elapsed) => startLocked(daemon, options, elapsed))
)

/**
 * Ends the daemon: an orderly end, and the kill when that takes longer than the grace. Needs nothing but the record, so it
 * works with settings that can't be read (seed C31). Returns when nothing of its process is left, nor of what it had started,
 * and the record is gone.
 * Services that are kept end, too, also those that a daemon has left that died.
 */
export const stop = Effect.fn("Daemon.stop")(
  (daemon: Daemon, options: StopOptions = {}): Effect.Effect<Outcome, StopError | OperationBusy, ProcessPlatform> =>
    locked(daemon, "stop", options.lockWithin, (elapsed) => stopLocked(daemon, options, elapsed, false))
)

/**
 * Stops it and starts it, with no other command in between. One that is not running is started. Services that are kept go
 * on, and the new one finds them.
 */
export const restart = Effect.fn("Daemon.restart")(
  (
    daemon: Daemon,
    options: StartOptions & StopOptions = {}
  ): Effect.Effect<Outcome, StartError | StopError | OperationBusy, ProcessPlatform> =>
    locked(daemon, "restart", options.lockWithin, (elapsed) =>
      Effect.gen(function*() {
        const stopped = yield* stopLocked(daemon, options, elapsed, true)
        const started = yield* startLocked(daemon, options, elapsed)
        if (stopped.status === "notRunning") return started
        return { ...started, status: "restarted", forced: stopped.forced, blocking: stopped.blocking }
      }))
)

const nothing: Omit<Status, "status" | "folder"> = {
  pid: null,
  answers: false,
  version: null,
  program: null,
  config: null,
  control: null,
  startedAt: null,
  readyAt: null,
  kept: [],
  detail: ""
}

/** What is known, from the record and from who answers. */
export const statusOf = (
  folder: string,
  state: PidRecord.State,
  answer: Option.Option<Answer>,
  kept: ReadonlyArray<Kept> = []
): Status => ({ ...withoutKept(folder, state, answer), kept })

const withoutKept = (folder: string, state: PidRecord.State, answer: Option.Option<Answer>): Status => {
  const answers = Option.isSome(answer)
  const of = (record: PidRecord.PidRecord): Omit<Status, "status"> => ({
    pid: record.identity.pid,
    answers,
    version: record.version,
    program: record.program,
    config: record.config,
    control: record.control,
    startedAt: record.startedAt,
    readyAt: record.readyAt,
    folder,
    kept: [],
    detail: ""
  })
  const other = (status: "notRunning" | "stale", detail: string): Status =>
    Option.match(answer, {
      onNone: () => ({ ...nothing, folder, status, detail }),
      onSome: ({ pid, version }) => ({
        ...nothing,
        folder,
        status: "unmanaged",
        pid,
        version,
        answers,
        detail: "it was not started as a daemon; end it where it was started"
      })
    })
  switch (state._tag) {
    case "Running":
      return { ...of(state.record), status: "running", detail: answers ? "" : "control does not answer" }
    case "Starting":
      return { ...of(state.record), status: "starting" }
    case "Missing":
      return other("notRunning", "")
    case "Stale":
      return other(
        "stale",
        `process ${state.record?.identity.pid ?? "unknown"} has ended without an orderly end; the next start cleans up`
      )
    case "Unreadable":
      return { ...nothing, folder, status: "unreadable", answers, detail: `${state.path}: ${state.detail}` }
    case "Unsure":
      return { ...nothing, folder, status: "unsure", pid: state.pid, answers, detail: `${state.path}: ${state.detail}` }
  }
}

/** Looks, and changes nothing; never waits for another command. */
export const status = Effect.fn("Daemon.status")(
  function*(
    daemon: Pick<Daemon, "folder" | "ask" | "kept">
  ): Effect.fn.Return<Status, StateFolderError, ProcessPlatform> {
    const platform = yield* ProcessPlatform
    const state = yield* PidRecord.read({ folder: daemon.folder, platform })
    const kept = daemon.kept === undefined ? [] : yield* daemon.kept.list
    return statusOf(daemon.folder.path, state, yield* daemon.ask, kept)
  }
)
