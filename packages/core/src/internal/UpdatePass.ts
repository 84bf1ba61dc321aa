/**
 * One pass of an updater, from the fetch to the end of the update or the way back, and what is done after a death in it. Who
 * makes passes, and when, is in `Updater`.
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Claim from "../daemon/Claim.ts"
import * as Daemon from "../daemon/Daemon.ts"
import * as Kept from "../daemon/Kept.ts"
import * as ManagedInstall from "../daemon/ManagedInstall.ts"
import * as PidRecord from "../daemon/PidRecord.ts"
import type { StateFolder } from "../daemon/StateFolder.ts"
import * as UpdateDecision from "../daemon/UpdateDecision.ts"
import * as UpdateRecord from "../daemon/UpdateRecord.ts"
import {
  type ClaimUndecided,
  type InvalidSpec,
  LaunchError,
  type ManagedInstallError,
  type ManagedProgramUnusable,
  RollbackFailed,
  type StateFolderError,
  type UpdateFetchFailed,
  type UpdateRecordInvalid
} from "../Errors.ts"
import { equals } from "../ProcessIdentity.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import * as EndProcess from "./EndProcess.ts"
import { millis } from "./Time.ts"

export type Outcome = UpdateRecord.Outcome

/** Something that was tried and says in words why it failed. */
export interface Failure {
  readonly message: string
}

/** What an update is made with. */
export interface Options {
  /** Its `launch` starts the program of the version that is current then: see `ManagedInstall.resolve`. */
  readonly daemon: Daemon.Daemon
  readonly install: ManagedInstall.ManagedInstall
  /** The path of the program in a version. */
  readonly program: string
  readonly fetch: ManagedInstall.Fetch
  /** The kill switch, asked before each step that changes something. Default: true. */
  readonly enabled?: Effect.Effect<boolean> | undefined
  /**
   * Who else starts or ends services of the daemon keeps still from `pause` to `resume`. `resume` is called also when `pause`
   * has failed, and again by later passes until it has succeeded. Neither is when `isPaused`: that is somebody else's to end.
   */
  readonly supervision?: {
    /** Somebody has paused it already. Default: nobody has. */
    readonly isPaused?: Effect.Effect<boolean, Failure> | undefined
    readonly pause: Effect.Effect<void, Failure>
    readonly resume: Effect.Effect<void, Failure>
  } | undefined
  /** Whether a daemon that is started from here would live on; asked before anything is changed. Default: it would. */
  readonly preflight?: Effect.Effect<void, Failure> | undefined
  /**
   * Whether a daemon that was just started is as it should be; asked again and again within `validateWithin`. `isBack`: it is
   * of the version before, which has been gone back to.
   */
  readonly validate?: ((daemon: PidRecord.PidRecord, isBack: boolean) => Effect.Effect<void, Failure>) | undefined
  /** How long it may take, once it is ready, until it is found to be as it should. Default: 10 s. */
  readonly validateWithin?: Duration.Input | undefined
  /** How long a daemon may take to get ready. Default: 10 s. */
  readonly readyWithin?: Duration.Input | undefined
  /** From SIGTERM to SIGKILL of the old daemon. Default: what it has recorded. */
  readonly grace?: Duration.Input | undefined
  /** How long to try for the turn of another command before the pass is `busy`. Default: 1 s. */
  readonly lockWithin?: Duration.Input | undefined
  /** Tries a version again that did not hold before. Default: false. */
  readonly retryRejected?: boolean | undefined
  /** Told when a phase has been recorded and before it begins. */
  readonly onPhase?: ((phase: UpdateRecord.Phase) => Effect.Effect<void>) | undefined
}

/** Why a pass fails. Except for `RollbackFailed` the daemon is as it was. */
export type UpdateError =
  | ClaimUndecided
  | InvalidSpec
  | ManagedInstallError
  | ManagedProgramUnusable
  | RollbackFailed
  | StateFolderError
  | UpdateFetchFailed
  | UpdateRecordInvalid

/** A look again whether a daemon is as it should be, in ms. */
const poll = 100

export type Place = Pick<Claim.Place<unknown>, "folder" | "platform">

const Nothing = Schema.Struct({})

/** The name of the claim of the one that makes passes again and again, and what is read of it here. */
export const updaterName = "updater"
const Updating = Schema.Struct({ install: Schema.NullOr(Schema.String) })

/** One pass at a time. */
export const claimOf = (place: Place): Claim.Place<typeof Nothing.Type> => ({ ...place, name: "update", info: Nothing })

export const placeOf = (folder: StateFolder): Effect.Effect<Place, never, ProcessPlatform> =>
  Effect.map(ProcessPlatform, (platform) => ({ folder, platform }))

/** Times of the options in ms. */
interface Times {
  readonly validateWithin: number
}

/** Why a version did not hold. */
interface Refused {
  /** It is the version's fault, so it is not tried again. */
  readonly reject: boolean
  /**
   * `Restart`: the version before becomes current and is started. `Switch`: it only becomes current. `Leave`: somebody has
   * asked for the end while it was looked at; who comes next looks again.
   */
  readonly way: "Restart" | "Switch" | "Leave"
  readonly reason: string
}

const wasStopped = "the update was stopped"

type StepError = Refused | ClaimUndecided | StateFolderError

const isRefused = (error: StepError): error is Refused => !("_tag" in error)

/** What the steps that must not be cut off have. */
interface Attended {
  readonly turn: Daemon.Turn
  /** Somebody has asked for the end, so nothing is started any more. */
  readonly asked: () => boolean
  /** The version that a start has to be of. */
  readonly expect: (id: string) => void
  /** Why it was not even tried to start it. `Moved`: somebody has made another one current meanwhile. */
  readonly withheld: () => "Moved" | "Unknown" | undefined
}

/** What every step of a pass needs. */
export interface Pass {
  readonly options: Options
  readonly times: Times
  readonly place: Place
}

const read = ({ place }: Pass) => UpdateRecord.read(place.folder)

/** Records a phase; what it is about begins after. */
const enter = (
  { options, place }: Pass,
  record: UpdateRecord.UpdateRecord,
  phase: UpdateRecord.Phase,
  change: Partial<UpdateRecord.UpdateRecord> = {}
): Effect.Effect<UpdateRecord.UpdateRecord, StateFolderError> =>
  Effect.gen(function*() {
    const next = { ...record, ...change, phase, since: yield* Clock.currentTimeMillis }
    yield* UpdateRecord.write(place.folder, options.daemon.self.pid, next)
    if (options.onPhase !== undefined) yield* options.onPhase(phase)
    return next
  })

/** The end of a pass, whatever it was. */
const finish = (
  pass: Pass,
  record: UpdateRecord.UpdateRecord,
  end: Outcome | string,
  change: Partial<UpdateRecord.UpdateRecord> = {}
): Effect.Effect<UpdateRecord.UpdateRecord, StateFolderError> =>
  Effect.flatMap(Clock.currentTimeMillis, (lastAt) =>
    enter(pass, record, "done", {
      running: false,
      stopped: false,
      reason: "",
      blamed: false,
      recoveries: 0,
      to: null,
      last: typeof end === "string" ? null : end,
      lastError: typeof end === "string" ? end : "",
      lastAt,
      ...change
    }))

const currentOf = ({ options }: Pass): Effect.Effect<string | null, ManagedInstallError> =>
  Effect.map(options.install.current, (current) => Option.isSome(current) ? current.value.id : null)

/** The daemon that runs or starts, if any does. */
const runningOf = ({ place }: Pass): Effect.Effect<PidRecord.PidRecord | null, ClaimUndecided | StateFolderError> =>
  Effect.flatMap(PidRecord.read(place), (state) => {
    switch (state._tag) {
      case "Running":
      case "Starting":
        return Effect.succeed(state.record)
      case "Missing":
      case "Stale":
        return Effect.succeed(null)
      case "Unreadable":
      case "Unsure":
        return Effect.fail(PidRecord.undecided(state))
    }
  })

/** The version that a daemon is of, where that is known: by what was found when it was started, or by its program. */
const versionOf = (
  { options }: Pass,
  record: UpdateRecord.UpdateRecord,
  daemon: PidRecord.PidRecord
): string | null =>
  record.validated !== null && equals(record.validated.daemon, daemon.identity)
    ? record.validated.id
    : Option.getOrNull(options.install.versionOf(daemon.program))

/** Ends the pause of this update or of one before it. One that fails is told; later passes try it again. */
const resume = (pass: Pass): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { daemon, supervision } = pass.options
    const record = yield* read(pass)
    if (supervision === undefined || !record.paused) return
    yield* supervision.resume
    yield* UpdateRecord.write(pass.place.folder, daemon.self.pid, { ...record, paused: false })
  }).pipe(Effect.catch(({ message }) => Effect.logWarning(`supervision was not resumed: ${message}`)))

/**
 * Runs what must not be cut off in the middle. Who interrupts it waits for its end; it is told by `asked`, and starts
 * nothing from then on.
 */
const attend = <A, E, R>(
  body: (asked: () => boolean) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      let asked = false
      const fiber = yield* Effect.forkChild(body(() => asked), { startImmediately: true, uninterruptible: false })
      return yield* restore(Fiber.join(fiber)).pipe(
        Effect.onInterrupt(() => {
          asked = true
          return Fiber.await(fiber)
        })
      )
    })
  )

/** Waits until the daemon of the record is found to be as it should, as version `id`. */
const validate = (
  { options, place, times }: Pass,
  id: string,
  started: { readonly pid: number } | undefined,
  asked: () => boolean,
  isBack = false
): Effect.Effect<PidRecord.PidRecord, StepError, ProcessPlatform> =>
  Effect.gen(function*() {
    const timer = yield* EndProcess.makeTimer
    const refused = (reason: string): Refused => ({ reject: true, way: "Restart", reason })
    let last = "it did not answer"
    while (true) {
      const state = yield* PidRecord.read(place)
      if (state._tag === "Unreadable" || state._tag === "Unsure") return yield* PidRecord.undecided(state)
      if (state._tag === "Missing" || state._tag === "Stale") {
        return yield* Effect.fail(refused("the new daemon was ready, and has ended since"))
      }
      const { record } = state
      // What was started here is of this version; anything else has to show it by its program.
      const known = record.identity.pid === started?.pid
        ? id
        : Option.getOrNull(options.install.versionOf(record.program))
      if (known !== id) {
        return yield* Effect.fail<Refused>({
          ...refused(`process ${record.identity.pid} took the daemon's place, and is not of this version`),
          reject: false
        })
      }
      const answer = state._tag === "Running" ? yield* options.daemon.ask : Option.none()
      if (Option.isSome(answer) && (answer.value.pid ?? record.identity.pid) === record.identity.pid) {
        const checked = yield* Effect.result(
          (options.validate?.(record, isBack) ?? Effect.void).pipe(
            Effect.timeout(Math.max(1, times.validateWithin - timer.elapsed()))
          )
        )
        if (Result.isSuccess(checked)) return record
        last = checked.failure.message
      }
      if (asked()) return yield* Effect.fail<Refused>({ reject: false, way: "Leave", reason: wasStopped })
      const left = times.validateWithin - timer.elapsed()
      if (left <= 0) return yield* Effect.fail(refused(`the new daemon is not as it should be: ${last}`))
      yield* timer.pause(Math.min(poll, left))
    }
  })

const startFailed = ({ asked, withheld }: Attended, error: Daemon.StartError | InvalidSpec): StepError => {
  switch (error._tag) {
    case "DaemonNotReady":
    case "LaunchError": {
      const isFault = !asked() && withheld() === undefined &&
        !(error._tag === "LaunchError" && error.reason === "ResourceExhausted")
      // From the moment that somebody has asked for the end nothing is started, the old one neither.
      return { reject: isFault, way: asked() ? "Switch" : "Restart", reason: error.message }
    }
    case "DetachUnavailable":
    case "InvalidSpec":
      return { reject: false, way: "Restart", reason: error.message }
    case "ClaimUndecided":
    case "StateFolderError":
      return error
  }
}

const stopFailed = (error: Daemon.StopError): StepError => {
  switch (error._tag) {
    case "DaemonNotStopped":
    case "KeeperFailed":
    case "Unmanaged":
    case "InvalidSpec":
      // The old one is there still: nothing is started beside it (peer seed K17).
      return { reject: false, way: "Switch", reason: error.message }
    case "ClaimUndecided":
    case "StateFolderError":
      return error
  }
}

/** Restarts the daemon as version `id`, which is current. */
const restartAs = (
  { options }: Pass,
  attended: Attended,
  id: string
): Effect.Effect<Daemon.Outcome, StepError, ProcessPlatform> =>
  Effect.gen(function*() {
    const { asked, expect, turn } = attended
    if (asked()) return yield* Effect.fail<Refused>({ reject: false, way: "Switch", reason: wasStopped })
    expect(id)
    yield* Effect.mapError(turn.stop({ grace: options.grace, leave: true }), stopFailed)
    const outcome = yield* Effect.mapError(
      turn.start({ readyWithin: options.readyWithin }),
      (error) => startFailed(attended, error)
    )
    if (outcome.managed) return outcome
    const reason = `process ${outcome.pid ?? "unknown"}, which is no daemon of this folder, answers in its place`
    return yield* Effect.fail<Refused>({ reject: false, way: "Switch", reason })
  })

const startedBy = (outcome: Daemon.Outcome): { readonly pid: number } | undefined =>
  outcome.status === "alreadyRunning" || outcome.pid === null ? undefined : { pid: outcome.pid }

/** Restart and validation, as phases. */
const runAs = (pass: Pass, record: UpdateRecord.UpdateRecord, attended: Attended, id: string) =>
  Effect.gen(function*() {
    const restarting = yield* enter(pass, record, "restarting")
    const outcome = yield* restartAs(pass, attended, id)
    yield* enter(pass, restarting, "validating")
    return yield* validate(pass, id, startedBy(outcome), attended.asked)
  })

/** Takes a version back that did not hold. */
const goBack = (
  pass: Pass,
  record: UpdateRecord.UpdateRecord,
  attended: Attended,
  refused: Refused
): Effect.Effect<Outcome, ClaimUndecided | ManagedInstallError | RollbackFailed | StateFolderError, ProcessPlatform> =>
  Effect.gen(function*() {
    const { asked } = attended
    const { from, running } = record
    if (refused.way === "Leave") {
      yield* enter(pass, record, "validating", { stopped: true })
      return nothingDone("disabled", record.to, refused.reason)
    }
    const to = record.to ?? ""
    const reason = refused.reason
    const back = yield* enter(pass, record, "rollingBack", {
      reason,
      blamed: refused.reject,
      recoveries: record.phase === "rollingBack" ? record.recoveries : 0
    })
    // Where the version before does not hold either, the fault may be elsewhere.
    const rejected = Effect.map(
      Clock.currentTimeMillis,
      (at) => refused.reject ? UpdateRecord.reject(back, to, at, reason) : back
    )
    const failed = (detail: string, given: boolean) =>
      Effect.gen(function*() {
        const current = yield* currentOf(pass)
        const daemon = yield* runningOf(pass)
        const pid = daemon?.identity.pid ?? null
        const error = new RollbackFailed({ from, to, current, pid, reason, detail })
        // What can't be done at all is not tried for ever; else the next pass tries again.
        if (given || back.recoveries >= UpdateDecision.forwardTries) yield* finish(pass, back, error.message, { from })
        else {
          yield* enter(pass, back, "rollingBack", {
            recoveries: back.recoveries + 1,
            lastError: error.message,
            last: null
          })
        }
        return yield* error
      })
    if (from === null) return yield* failed("there was no version before", true)
    const isThere = Effect.orElseSucceed(Effect.map(currentOf(pass), (current) => current === from), () => false)
    const switched = yield* Effect.result(Effect.flatMap(
      isThere,
      (there) => there ? Effect.void : pass.options.install.switchTo(from)
    ))
    if (Result.isFailure(switched)) return yield* failed(switched.failure.message, false)
    const outcome: Outcome = {
      status: "rolledBack",
      from,
      current: from,
      version: null,
      restarted: false,
      pid: null,
      detail: reason
    }
    if (!running) {
      yield* finish(pass, yield* rejected, outcome)
      return outcome
    }
    if (refused.way === "Switch" || asked()) {
      if (!asked() && (yield* runningOf(pass)) === null) {
        return yield* failed("the old daemon has ended, and nothing is started in its place", false)
      }
      yield* finish(pass, back, outcome)
      return outcome
    }
    const again = yield* Effect.result(Effect.gen(function*() {
      const restarted = yield* restartAs(pass, attended, from)
      return yield* validate(pass, from, startedBy(restarted), asked, true)
    }))
    if (Result.isSuccess(again)) {
      const { identity } = again.success
      const whole = { ...outcome, pid: identity.pid }
      yield* finish(pass, yield* rejected, whole, { validated: { id: from, daemon: identity } })
      return whole
    }
    const error = again.failure
    if (asked()) {
      yield* finish(pass, back, outcome)
      return outcome
    }
    return yield* failed(isRefused(error) ? error.reason : error.message, false)
  })

/** The daemon runs as it should. */
const succeed = (
  pass: Pass,
  record: UpdateRecord.UpdateRecord,
  id: string,
  version: string | null,
  daemon: PidRecord.PidRecord | null
): Effect.Effect<Outcome, StateFolderError> =>
  Effect.gen(function*() {
    const outcome: Outcome = {
      status: "updated",
      from: record.from,
      current: id,
      version,
      restarted: daemon !== null,
      pid: daemon?.identity.pid ?? null,
      detail: ""
    }
    yield* finish(pass, record, outcome, {
      validated: daemon === null ? record.validated : { id, daemon: daemon.identity }
    })
    return outcome
  })

const nothingDone = (
  status: "busy" | "disabled" | "noUpdate",
  current: string | null,
  detail = "",
  version: string | null = null
): Outcome => ({ status, from: current, current, version, restarted: false, pid: null, detail })

/** Has the turn of all commands, and is not cut off in it; when another one has it for too long, that is an outcome. */
const inTurn = <A, E>(
  pass: Pass,
  use: (attended: Attended) => Effect.Effect<A, E, ProcessPlatform>
): Effect.Effect<
  A | Outcome,
  E | ClaimUndecided | InvalidSpec | ManagedInstallError | StateFolderError,
  ProcessPlatform
> =>
  attend((asked) => {
    const { daemon, lockWithin = "1 second" } = pass.options
    const refuse = (detail: string) => new LaunchError({ command: "the daemon", reason: "Unknown", detail })
    let expected: string | undefined
    let withheld: ReturnType<Attended["withheld"]>
    const launch: Daemon.Daemon["launch"] = (variables) =>
      Effect.gen(function*() {
        if (asked()) return yield* refuse(wasStopped)
        // Again, and as late as can be: somebody may have switched by hand (seed C29).
        withheld = "Unknown"
        const current = yield* Effect.mapError(currentOf(pass), ({ message }) => refuse(message))
        withheld = current === expected ? undefined : "Moved"
        if (withheld !== undefined) return yield* refuse(`version ${current ?? "none"} became current meanwhile`)
        return yield* daemon.launch(variables)
      })
    const expect = (id: string) => {
      expected = id
    }
    return Daemon.exclusively(
      { ...daemon, launch },
      "update",
      (turn) => Effect.result(Effect.ensuring(use({ turn, asked, expect, withheld: () => withheld }), resume(pass))),
      { lockWithin }
    ).pipe(
      Effect.catchTag(
        "OperationBusy",
        ({ message }) =>
          Effect.map(
            currentOf(pass),
            (current): Result.Result<A | Outcome, E> => Result.succeed(nothingDone("busy", current, message))
          )
      ),
      Effect.flatMap((result: Result.Result<A | Outcome, E>) => Effect.fromResult(result))
    )
  })

/** Goes forward to `record.to`, else back. */
const forward = (
  pass: Pass,
  record: UpdateRecord.UpdateRecord,
  attended: Attended,
  version: string | null
) => {
  const to = record.to ?? ""
  return runAs(pass, record, attended, to).pipe(
    Effect.matchEffect({
      onSuccess: (daemon) => succeed(pass, record, to, version, daemon),
      onFailure: (error) =>
        Effect.gen(function*() {
          // What somebody has made current by hand stays so, and runs.
          const chosen = attended.withheld() === "Moved" ? yield* currentOf(pass) : null
          return yield* goBack(
            pass,
            { ...record, from: chosen ?? record.from },
            attended,
            isRefused(error) ? error : { reject: false, way: "Restart", reason: error.message }
          )
        })
    })
  )
}

const isEnabled = ({ options }: Pass): Effect.Effect<boolean> => options.enabled ?? Effect.succeed(true)

/** Finishes or takes back what a dead updater had begun; none when there is nothing. Has the turn. */
const recoverInTurn = (pass: Pass, attended: Attended) =>
  Effect.gen(function*() {
    const record = yield* read(pass)
    const current = yield* currentOf(pass)
    const interrupted = `the updater ended while it was ${record.phase}`
    const daemon = yield* runningOf(pass)
    const runs = daemon !== null
    // One that somebody has ended since is not started again; one that somebody has started since is looked at.
    const wanted = {
      ...record,
      running: runs || (record.running && !record.stopped),
      stopped: record.stopped && !runs
    }
    const reason = record.reason === "" ? interrupted : record.reason
    switch (UpdateDecision.recovery(wanted, current)) {
      case "Nothing":
        return undefined
      case "Forget":
        yield* pass.options.install.sweep
        yield* finish(pass, record, interrupted, { from: record.phase === "fetching" ? record.from : current })
        return undefined
      case "Keep":
        yield* finish(pass, record, `${interrupted}; version ${current} is kept, and nothing was started`)
        return undefined
      case "Unlink":
        return yield* goBack(pass, wanted, attended, { reject: false, way: "Switch", reason: wasStopped })
      case "Forward": {
        const tried = yield* enter(pass, wanted, record.phase, { recoveries: record.recoveries + 1 })
        const to = record.to ?? ""
        // It may run already as it should.
        if (daemon !== null && versionOf(pass, record, daemon) === to) {
          const valid = yield* Effect.result(validate(pass, to, daemon.identity, attended.asked))
          if (Result.isSuccess(valid)) return yield* succeed(pass, tried, to, null, valid.success)
          const { failure } = valid
          if (isRefused(failure) && failure.way === "Leave") return yield* goBack(pass, tried, attended, failure)
        }
        return yield* forward(pass, tried, attended, null)
      }
      case "Back": {
        const reject = record.phase === "rollingBack" ? record.blamed : true
        return yield* goBack(pass, wanted, attended, { reject, way: "Restart", reason })
      }
    }
  })

/** As `recoverInTurn`; what is to be done is decided in the turn, from what is there then. */
export const recover = (
  pass: Pass
): Effect.Effect<Option.Option<Outcome>, UpdateError, ProcessPlatform> =>
  Effect.gen(function*() {
    const { paused, phase } = yield* read(pass)
    if (phase === "done" && !(paused && pass.options.supervision !== undefined)) return Option.none()
    return Option.fromUndefinedOr(yield* inTurn(pass, (attended) => recoverInTurn(pass, attended)))
  })

/** The version that it is gone back to: that of the daemon that runs, the one that is current, or the one before it. */
const before = (
  pass: Pass,
  record: UpdateRecord.UpdateRecord,
  current: string | null,
  to: string
): Effect.Effect<string | null, ClaimUndecided | ManagedInstallError | StateFolderError> =>
  Effect.gen(function*() {
    const daemon = yield* runningOf(pass)
    const running = daemon === null ? null : versionOf(pass, record, daemon)
    const there = yield* pass.options.install.versions
    const candidates = current === to ? [running, record.from] : [running, current]
    return candidates.find((id) => id !== null && id !== to && there.includes(id)) ?? null
  })

/** Makes a checked version current and runs it. */
const activate = (
  pass: Pass,
  given: UpdateRecord.UpdateRecord,
  { id: to, version }: ManagedInstall.Checked,
  decide: Effect.Effect<UpdateDecision.Step, ClaimUndecided | ManagedInstallError | StateFolderError>
): Effect.Effect<Outcome, UpdateError, ProcessPlatform> =>
  inTurn(pass, (attended) =>
    Effect.gen(function*() {
      const { install, preflight, supervision } = pass.options
      const current = yield* currentOf(pass)
      const end = (outcome: Outcome) => Effect.as(finish(pass, given, outcome), outcome)
      // Who had the turn before may have changed everything (seed C29).
      const step = yield* decide
      if (step === "NothingNew" || step === "Rejected") return yield* end(nothingDone("noUpdate", current, "", version))
      const running = step !== "Switch"
      const from = yield* before(pass, given, current, to)
      if (step === "Restart" && from === null) {
        const detail = "the daemon that runs is of another program, and there is no version to go back to; " +
          "treeline daemon bootstrap restarts it as the current one"
        return yield* end(nothingDone("noUpdate", current, detail, version))
      }
      const untouched = (detail: string, record = given): Effect.Effect<Outcome, StateFolderError> => {
        const outcome: Outcome = { ...nothingDone("noUpdate", current, detail), status: "rolledBack" }
        return Effect.as(finish(pass, record, outcome, { from: given.from }), outcome)
      }
      if (running && preflight !== undefined) {
        const possible = yield* Effect.result(preflight)
        if (Result.isFailure(possible)) return yield* untouched(possible.failure.message)
      }
      const known = running && supervision !== undefined
        ? yield* Effect.result(supervision.isPaused ?? Effect.succeed(false))
        : Result.succeed(true)
      if (Result.isFailure(known)) {
        return yield* untouched(`supervision could not be paused: ${known.failure.message}`)
      }
      const pauses = !known.success
      // What a pass before could not resume is still to be resumed.
      const paused = given.paused || pauses
      const pausing = yield* enter(pass, given, "pausing", { from, to, running, paused })
      if (pauses && supervision !== undefined) {
        const done = yield* Effect.result(supervision.pause)
        if (Result.isFailure(done)) {
          return yield* untouched(`supervision could not be paused: ${done.failure.message}`, pausing)
        }
      }
      if (attended.asked() || !(yield* isEnabled(pass))) {
        return yield* Effect.as(
          finish(pass, pausing, nothingDone("disabled", current), { from: given.from }),
          nothingDone("disabled", current)
        )
      }
      if (current === to) return yield* forward(pass, pausing, attended, version)
      const switching = yield* enter(pass, pausing, "switching")
      yield* install.switchTo(to)
      return running
        ? yield* forward(pass, switching, attended, version)
        : yield* succeed(pass, switching, to, version, null)
    }))

/** It is so whenever it is looked at; what else is wrong with a program may be the machine's fault. */
const isUnfit = ({ reason }: ManagedProgramUnusable): boolean =>
  reason === "Missing" || reason === "Outside" || reason === "NotExecutable" || reason === "NoVersion"

/** The pass of the only one who makes one. */
export const update = (pass: Pass): Effect.Effect<Outcome, UpdateError, ProcessPlatform> =>
  Effect.gen(function*() {
    const { install, program } = pass.options
    const disabled = Effect.map(currentOf(pass), (current) => nothingDone("disabled", current))
    if (!(yield* isEnabled(pass))) return yield* disabled
    const recovered = yield* recover(pass)
    // Somebody else's turn: what was begun has to be finished first.
    if (Option.isSome(recovered) && recovered.value.status === "busy") return recovered.value
    if (!(yield* isEnabled(pass))) return yield* disabled
    const record = yield* enter(pass, yield* read(pass), "fetching")
    return yield* Effect.gen(function*() {
      const staged = yield* install.stage(pass.options.fetch)
      const current = yield* currentOf(pass)
      const rejected = pass.options.retryRejected !== true && record.rejected.some(({ id }) => id === staged.id)
      if (rejected && staged.id !== current) {
        const why = record.rejected.find(({ id }) => id === staged.id)?.reason ?? ""
        const outcome = nothingDone("noUpdate", current, `version ${staged.id} did not hold before: ${why}`)
        yield* finish(pass, record, outcome)
        return outcome
      }
      const checked = yield* ManagedInstall.check(install, staged.id, program).pipe(
        Effect.tapError((error) =>
          Effect.gen(function*() {
            if (error._tag !== "ManagedProgramUnusable" || staged.id === current || !isUnfit(error)) return
            const at = yield* Clock.currentTimeMillis
            yield* finish(pass, UpdateRecord.reject(record, staged.id, at, error.message), error.message)
          })
        )
      )
      const decide = Effect.gen(function*() {
        const daemon = yield* runningOf(pass)
        return UpdateDecision.decide({
          current: yield* currentOf(pass),
          staged: staged.id,
          version: checked.version,
          rejected,
          running: daemon === null ? null : { id: versionOf(pass, record, daemon), version: daemon.version }
        })
      })
      if ((yield* decide) === "NothingNew") {
        const outcome = nothingDone("noUpdate", current, "", checked.version)
        yield* finish(pass, record, outcome)
        return outcome
      }
      if (!(yield* isEnabled(pass))) {
        const outcome = nothingDone("disabled", current)
        yield* finish(pass, record, outcome)
        return outcome
      }
      const outcome = yield* activate(pass, record, checked, decide)
      if (outcome.status === "busy") yield* finish(pass, record, outcome)
      return outcome
    }).pipe(
      // Nothing has been changed, but the record says that something is going on.
      Effect.onExit((exit) =>
        Exit.isSuccess(exit) ? Effect.void : Effect.ignore(Effect.gen(function*() {
          const left = yield* read(pass)
          const unchanged = left.phase === "fetching" || left.phase === "pausing" ||
            (left.phase === "switching" && (yield* currentOf(pass)) !== left.to)
          if (!unchanged) return
          const error = Exit.findErrorOption(exit)
          yield* finish(pass, left, Option.isSome(error) ? error.value.message : wasStopped)
        }))
      )
    )
  })

const passWith = (options: Options): Effect.Effect<Pass, InvalidSpec, ProcessPlatform> =>
  Effect.gen(function*() {
    const validateWithin = yield* Effect.fromResult(millis("validateWithin", options.validateWithin ?? "10 seconds"))
    return { options, times: { validateWithin }, place: yield* placeOf(options.daemon.folder) }
  })

/**
 * Removes what dead processes have left, and all versions but the current one, the one before, the one that was last found to
 * hold, and those of the daemon, the updaters and the kept services that run.
 * That it can't is no reason to say that a pass has failed.
 */
const tidy = (pass: Pass): Effect.Effect<void> =>
  Effect.gen(function*() {
    if (!(yield* isEnabled(pass))) return
    const { install } = pass.options
    const record = yield* read(pass)
    const daemon = yield* runningOf(pass)
    const kept = yield* Kept.look(pass.place)
    const updaters = yield* Claim.holders<typeof Updating.Type>({ ...pass.place, name: updaterName, info: Updating })
    const keep = [
      record.from,
      record.to,
      record.validated?.id ?? null,
      daemon === null ? null : versionOf(pass, record, daemon),
      ...updaters.map(({ info }) => info.install),
      ...kept.flatMap(({ state }) =>
        state._tag === "Held" ? Option.toArray(install.versionOf(state.holding.info.program)) : []
      )
    ]
    yield* install.prune(keep.filter((id) => id !== null))
  }).pipe(Effect.catch(({ message }) => Effect.logWarning(message)))

/** Makes a pass alone; when somebody else makes one, that is an outcome. */
export const alone = <A, E>(
  options: Options,
  use: (pass: Pass) => Effect.Effect<A, E, ProcessPlatform>
): Effect.Effect<
  Result.Result<A, Outcome>,
  E | ClaimUndecided | InvalidSpec | ManagedInstallError | StateFolderError,
  ProcessPlatform
> =>
  Effect.scoped(Effect.gen(function*() {
    const pass = yield* passWith(options)
    const claim = yield* Claim.take(claimOf(pass.place), options.daemon.self, {})
    if (Result.isSuccess(claim)) return Result.succeed(yield* Effect.ensuring(use(pass), tidy(pass)))
    const { holder } = claim.failure
    return Result.fail(nothingDone("busy", yield* currentOf(pass), `process ${holder.pid} updates already`))
  }))
