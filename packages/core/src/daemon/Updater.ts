/**
 * Keeps a daemon at the newest version of a managed install: one pass by `update`, and again and again by `run`.
 *
 * A pass fetches a version, and when it is another one makes it current and restarts the daemon as it. What does not hold is
 * taken back. Each step is recorded before it is done (see `UpdateRecord`), so whoever comes after a death finishes or takes
 * back what was begun. In every state between, `current` is a whole version and a start of the daemon succeeds.
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import {
  AlreadyRunning,
  type ClaimLost,
  type ClaimUndecided,
  type DetachUnavailable,
  InvalidSpec,
  LaunchError,
  type ManagedInstallError,
  type ManagedProgramUnusable,
  NotReplaced,
  RollbackFailed,
  type StateFolderError,
  type UpdateFetchFailed,
  type UpdateRecordInvalid,
  UpdaterNotStopped
} from "../Errors.ts"
import * as ExitStatus from "../ExitStatus.ts"
import * as EndProcess from "../internal/EndProcess.ts"
import { randomName } from "../internal/RandomName.ts"
import * as Tail from "../internal/Tail.ts"
import { millis } from "../internal/Time.ts"
import { equals, ProcessIdentity } from "../ProcessIdentity.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import * as Claim from "./Claim.ts"
import * as Daemon from "./Daemon.ts"
import * as ManagedInstall from "./ManagedInstall.ts"
import * as PidRecord from "./PidRecord.ts"
import type { StateFolder } from "./StateFolder.ts"
import * as UpdateDecision from "./UpdateDecision.ts"
import * as UpdateRecord from "./UpdateRecord.ts"

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
   * Who else starts or ends services of the daemon keeps still from `pause` to `resume`. Both may be called more often than
   * the other; `resume` also when `pause` has failed.
   */
  readonly supervision?: {
    readonly pause: Effect.Effect<void, Failure>
    readonly resume: Effect.Effect<void, Failure>
  } | undefined
  /** Whether a daemon that was just started is as it should be; asked again and again within `validateWithin`. */
  readonly validate?: ((daemon: PidRecord.PidRecord) => Effect.Effect<void, Failure>) | undefined
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

/** What an updater tells of itself. */
const Info = Schema.Struct({
  /** Of its program. */
  version: Schema.String,
  /** The version of the install that it is of; null when it is of none. */
  install: Schema.NullOr(Schema.String),
  /** By which a successor shows that it was meant. */
  token: Schema.NullOr(Schema.String),
  /** False for a successor that is not ready yet. */
  ready: Schema.Boolean
})
type Info = typeof Info.Type

type Place = Pick<Claim.Place<unknown>, "folder" | "platform">

const updaterOf = (place: Place): Claim.Place<Info> => ({ ...place, name: "updater", info: Info })

/** One pass at a time. */
const Pass = Schema.Struct({})
const passOf = (place: Place): Claim.Place<typeof Pass.Type> => ({ ...place, name: "update", info: Pass })

const placeOf = (folder: StateFolder): Effect.Effect<Place, never, ProcessPlatform> =>
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
  /** It was not started, because somebody has made another one current meanwhile. */
  readonly moved: () => boolean
}

/** What every step of a pass needs. */
interface Pass {
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

/** A failure of the way back, or of the pause, is told; the pass goes on as it has to. */
const resume = ({ options }: Pass): Effect.Effect<void> =>
  options.supervision === undefined
    ? Effect.void
    : options.supervision.resume.pipe(
      Effect.catch(({ message }) => Effect.logWarning(`supervision was not resumed: ${message}`))
    )

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
  asked: () => boolean
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
          (options.validate?.(record) ?? Effect.void).pipe(
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

const startFailed = ({ asked, moved }: Attended, error: Daemon.StartError | InvalidSpec): StepError => {
  switch (error._tag) {
    case "DaemonNotReady":
    case "DetachUnavailable":
    case "LaunchError":
      // From the moment that somebody has asked for the end nothing is started, the old one neither.
      return { reject: !asked() && !moved(), way: asked() ? "Switch" : "Restart", reason: error.message }
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
    const at = yield* Clock.currentTimeMillis
    const rejecting = refused.reject ? UpdateRecord.reject(record, to, at, reason) : record
    const back = yield* enter(pass, rejecting, "rollingBack", { reason })
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
    const switched = yield* Effect.result(pass.options.install.switchTo(from))
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
    if (refused.way === "Switch" || !running || asked()) {
      yield* finish(pass, back, outcome)
      return outcome
    }
    const again = yield* Effect.result(Effect.gen(function*() {
      const restarted = yield* restartAs(pass, attended, from)
      return yield* validate(pass, from, startedBy(restarted), asked)
    }))
    if (Result.isSuccess(again)) {
      const { identity } = again.success
      const whole = { ...outcome, pid: identity.pid }
      yield* finish(pass, back, whole, { validated: { id: from, daemon: identity } })
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
const inTurn = <E>(
  pass: Pass,
  use: (attended: Attended) => Effect.Effect<Outcome, E, ProcessPlatform>
): Effect.Effect<Outcome, E | ClaimUndecided | InvalidSpec | ManagedInstallError | StateFolderError, ProcessPlatform> =>
  attend((asked) => {
    const { daemon, lockWithin = "1 second" } = pass.options
    const refuse = (detail: string) => new LaunchError({ command: "the daemon", reason: "Unknown", detail })
    let expected: string | undefined
    let moved = false
    const launch: Daemon.Daemon["launch"] = (variables) =>
      Effect.gen(function*() {
        if (asked()) return yield* refuse(wasStopped)
        // Again, and as late as can be: somebody may have switched by hand (seed C29).
        const current = yield* Effect.mapError(currentOf(pass), ({ message }) => refuse(message))
        moved = current !== expected
        if (moved) return yield* refuse(`version ${current ?? "none"} became current meanwhile`)
        return yield* daemon.launch(variables)
      })
    const expect = (id: string) => {
      expected = id
    }
    return Daemon.exclusively(
      { ...daemon, launch },
      "update",
      (turn) => Effect.result(Effect.ensuring(use({ turn, asked, expect, moved: () => moved }), resume(pass))),
      { lockWithin }
    ).pipe(
      Effect.catchTag(
        "OperationBusy",
        ({ message }) => Effect.map(currentOf(pass), (current) => Result.succeed(nothingDone("busy", current, message)))
      ),
      Effect.flatMap(Effect.fromResult)
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
        goBack(
          pass,
          record,
          attended,
          isRefused(error) ? error : { reject: false, way: "Restart", reason: error.message }
        )
    })
  )
}

const isEnabled = ({ options }: Pass): Effect.Effect<boolean> => options.enabled ?? Effect.succeed(true)

/** Finishes or takes back what a dead updater had begun; none when there is nothing. */
const recoverPass = (
  pass: Pass
): Effect.Effect<Option.Option<Outcome>, UpdateError, ProcessPlatform> =>
  Effect.gen(function*() {
    const record = yield* read(pass)
    const current = yield* currentOf(pass)
    if (record.phase === "done") return Option.none()
    const interrupted = `the updater ended while it was ${record.phase}`
    const runs = (yield* runningOf(pass)) !== null
    // One that somebody has ended since is not started again; one that somebody has started since is looked at.
    const wanted = { ...record, running: runs || (record.running && !record.stopped) }
    switch (UpdateDecision.recovery(wanted, current)) {
      case "Nothing":
        return Option.none()
      case "Forget": {
        yield* resume(pass)
        yield* pass.options.install.sweep
        yield* finish(pass, record, interrupted, { from: record.phase === "fetching" ? record.from : current })
        return Option.none()
      }
      case "Keep": {
        yield* resume(pass)
        yield* finish(pass, record, `${interrupted}; version ${current} is kept, and nothing was started`)
        return Option.none()
      }
      case "Forward":
        return Option.some(
          yield* inTurn(pass, (attended) =>
            Effect.gen(function*() {
              const tried = yield* enter(pass, wanted, record.phase, {
                recoveries: record.recoveries + 1,
                stopped: false
              })
              const to = record.to ?? ""
              // It may run already as it should.
              const daemon = yield* runningOf(pass)
              if (daemon !== null && versionOf(pass, record, daemon) === to) {
                const valid = yield* Effect.option(validate(pass, to, daemon.identity, attended.asked))
                if (Option.isSome(valid)) return yield* succeed(pass, tried, to, null, valid.value)
              }
              return yield* forward(pass, tried, attended, null)
            }))
        )
      case "Back":
        return Option.some(
          yield* inTurn(pass, (attended) =>
            goBack(pass, wanted, attended, {
              reject: record.phase !== "rollingBack",
              way: "Restart",
              reason: record.reason === "" ? interrupted : record.reason
            }))
        )
    }
  })

/** The version that it is gone back to: the one that is current, or, when that one is restarted, the one before. */
const before = (
  { options }: Pass,
  record: UpdateRecord.UpdateRecord,
  current: string | null,
  to: string
): Effect.Effect<string | null, ManagedInstallError> =>
  current !== to
    ? Effect.succeed(current)
    : Effect.map(options.install.versions, (versions) =>
      record.from !== null && record.from !== to && versions.includes(record.from) ? record.from : null)

/** Makes a checked version current and runs it. */
const activate = (
  pass: Pass,
  given: UpdateRecord.UpdateRecord,
  { id: to, version }: ManagedInstall.Checked,
  decide: Effect.Effect<UpdateDecision.Step, ClaimUndecided | ManagedInstallError | StateFolderError>
): Effect.Effect<Outcome, UpdateError, ProcessPlatform> =>
  inTurn(pass, (attended) =>
    Effect.gen(function*() {
      const { install, supervision } = pass.options
      const current = yield* currentOf(pass)
      const end = (outcome: Outcome) => Effect.as(finish(pass, given, outcome), outcome)
      // Who had the turn before may have changed everything (seed C29).
      const step = yield* decide
      if (step === "NothingNew" || step === "Rejected") return yield* end(nothingDone("noUpdate", current, "", version))
      const running = step !== "Switch"
      const from = yield* before(pass, given, current, to)
      const pausing = yield* enter(pass, given, "pausing", { from, to, running })
      if (running && supervision !== undefined) {
        const paused = yield* Effect.result(supervision.pause)
        if (Result.isFailure(paused)) {
          const detail = `supervision could not be paused: ${paused.failure.message}`
          return yield* end({ ...nothingDone("noUpdate", current, detail), status: "rolledBack" })
        }
      }
      if (attended.asked() || !(yield* isEnabled(pass))) return yield* end(nothingDone("disabled", current))
      if (current === to) return yield* forward(pass, pausing, attended, version)
      const switching = yield* enter(pass, pausing, "switching")
      yield* install.switchTo(to)
      return running
        ? yield* forward(pass, switching, attended, version)
        : yield* succeed(pass, switching, to, version, null)
    }))

/** The pass of the only one who makes one. */
const updateAlone = (pass: Pass): Effect.Effect<Outcome, UpdateError, ProcessPlatform> =>
  Effect.gen(function*() {
    const { install, program } = pass.options
    const disabled = Effect.map(currentOf(pass), (current) => nothingDone("disabled", current))
    if (!(yield* isEnabled(pass))) return yield* disabled
    const recovered = yield* recoverPass(pass)
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
            if (error._tag !== "ManagedProgramUnusable" || staged.id === current) return
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
 * Removes all versions but the current one, the one before, that of the daemon that runs, and what dead processes have left.
 * That it can't is no reason to say that a pass has failed.
 */
const tidy = (pass: Pass): Effect.Effect<void> =>
  Effect.gen(function*() {
    if (!(yield* isEnabled(pass))) return
    const record = yield* read(pass)
    const daemon = yield* runningOf(pass)
    const keep = [record.from, record.to, daemon === null ? null : versionOf(pass, record, daemon)]
    yield* pass.options.install.prune(keep.filter((id) => id !== null))
  }).pipe(Effect.catch(({ message }) => Effect.logWarning(message)))

/** Makes a pass alone; when somebody else makes one, that is an outcome. */
const alone = <A, E>(
  options: Options,
  use: (pass: Pass) => Effect.Effect<A, E, ProcessPlatform>
): Effect.Effect<
  Result.Result<A, Outcome>,
  E | ClaimUndecided | InvalidSpec | ManagedInstallError | StateFolderError,
  ProcessPlatform
> =>
  Effect.scoped(Effect.gen(function*() {
    const pass = yield* passWith(options)
    const claim = yield* Claim.take(passOf(pass.place), options.daemon.self, {})
    if (Result.isSuccess(claim)) return Result.succeed(yield* Effect.ensuring(use(pass), tidy(pass)))
    const { holder } = claim.failure
    return Result.fail(nothingDone("busy", yield* currentOf(pass), `process ${holder.pid} updates already`))
  }))

/**
 * One pass: finishes what a dead updater had begun, fetches, and updates the daemon if there is something new. A daemon that
 * does not run is not started.
 *
 * - `updated`: the version is current, and a daemon that ran was restarted as it and found to be as it should.
 * - `noUpdate`: nothing new, or a version that did not hold before.
 * - `rolledBack`: the version did not hold; the one before is current and runs again.
 * - `busy`: another command or updater is at work. `disabled`: the kill switch.
 *
 * When it is interrupted its fetch and all that was started for it end; between the first change and the last it ends by
 * itself, and starts nothing from then on (peer seed K17).
 *
 * @example
 * ```ts
 * import { ProcessPlatform } from "@treeline/core"
 * import { ManagedInstall, UpdateFetch, Updater } from "@treeline/core/daemon"
 * import { NodeDetached, NodeManagedInstall, NodeStateFolder } from "@treeline/platform-node"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect, Option } from "effect"
 * import { ChildProcess } from "effect/process"
 * import { deepStrictEqual } from "node:assert"
 * import * as fs from "node:fs"
 * import * as os from "node:os"
 * import * as path from "node:path"
 *
 * const home = fs.mkdtempSync(path.join(os.tmpdir(), "app-"))
 * const program = Effect.gen(function*() {
 *   const platform = yield* ProcessPlatform.ProcessPlatform
 *   const self = Option.getOrThrow(yield* platform.identify(process.pid))
 *   const install = NodeManagedInstall.make({ directory: path.join(home, "install"), self, platform })
 *   const release = "printf '#!/bin/sh\necho app 1.2.3\n' > app && chmod +x app"
 *   return yield* Updater.update({
 *     install,
 *     program: "app",
 *     fetch: yield* UpdateFetch.command(ChildProcess.make("sh", ["-c", release]), { within: "1 minute" }),
 *     daemon: {
 *       folder: NodeStateFolder.make(path.join(home, "state")),
 *       self,
 *       launch: ManagedInstall.launcher(install, "app", ({ path: command }, variables) =>
 *         NodeDetached.launch({
 *           command,
 *           args: ["serve"],
 *           env: { ...process.env, ...variables },
 *           output: path.join(home, "state", "app.err")
 *         })),
 *       ask: Effect.succeedNone
 *     }
 *   })
 * })
 * const { restarted, status, version } = await Effect.runPromise(program.pipe(Effect.provide(PosixPlatform.layer)))
 * deepStrictEqual([status, version, restarted], ["updated", "1.2.3", false])
 * fs.rmSync(home, { recursive: true })
 * ```
 */
export const update = Effect.fn("Updater.update")((
  options: Options
): Effect.Effect<Outcome, UpdateError, ProcessPlatform> =>
  Effect.map(alone(options, updateAlone), Result.getOrElse((outcome) => outcome))
)

/**
 * Only finishes, or takes back, what a dead updater had begun; none when there was nothing. A start of the daemon succeeds
 * without it, too.
 */
export const recover = Effect.fn("Updater.recover")((
  options: Options
): Effect.Effect<Option.Option<Outcome>, UpdateError, ProcessPlatform> =>
  Effect.map(alone(options, recoverPass), Result.getOrElse(Option.some))
)

// ------------------------------------------------------------------------------------------------ the loop

/** The program that an updater becomes, and how it shows that it was meant. */
export interface Successor {
  readonly program: ManagedInstall.Program
  /** To be given beside the environment. */
  readonly variables: Readonly<Record<string, string>>
}

/** How an updater puts its new version in its own place. */
export interface Replacing {
  /** The version of the install that this process is of; null when it is of none. See `ManagedInstall.versionOf`. */
  readonly own: string | null
  /**
   * Starts the successor as a process of its own, that is to call `run` with the variable that it is given: a hand-over.
   * Undefined where this process itself becomes the successor (execve(2)) after `run` has returned.
   */
  readonly launch?:
    | ((successor: Successor) => Effect.Effect<Daemon.Launched, DetachUnavailable | LaunchError | StateFolderError>)
    | undefined
}

export interface RunOptions extends Options {
  /** The version of this program, for people. */
  readonly version: string
  /** From the start to the first pass. Default: 5 minutes. */
  readonly first?: Duration.Input | undefined
  /** From one pass to the next. Default: 60 minutes. */
  readonly interval?: Duration.Input | undefined
  /** The share by which each pause differs, from 0 to 1. Default: 0.1. */
  readonly jitter?: number | undefined
  /** The pause after a failed pass, twice as long after each further one. Default: 5 minutes. */
  readonly backoff?: Duration.Input | undefined
  /** The longest pause after failures. Default: 6 hours. */
  readonly backoffCap?: Duration.Input | undefined
  /** Undefined: it stays as it is. */
  readonly replacing?: Replacing | undefined
  /** The value of `predecessorVariable`, where there is one: whom this process is to replace. */
  readonly predecessor?: string | undefined
  /** What a successor has to have done before it says that it goes on, such as to read its settings. */
  readonly prepare?: Effect.Effect<void, Failure> | undefined
  /** Told how each pass went. */
  readonly onPass?: ((result: Result.Result<Outcome, UpdateError>) => Effect.Effect<void>) | undefined
}

/**
 * How a loop ends but by interruption. `Replace`: this process has to become the successor now; its claim is kept for it.
 * `HandedOver`: the process `pid` goes on.
 */
export type End =
  | { readonly _tag: "Replace"; readonly successor: Successor }
  | { readonly _tag: "HandedOver"; readonly pid: number }

/** The environment variable by which a successor knows whom it replaces; its value is for `run`. Nobody else is to have it. */
export const predecessorVariable = "TREELINE_UPDATER_PREDECESSOR"

const Predecessor = Schema.fromJsonString(Schema.Struct({ holder: ProcessIdentity, token: Schema.String }))

/** How long a successor may take to say that it goes on, in ms (seed C28). */
const acknowledgeWithin = 10_000

/** How much of what it has said on stderr is told, in bytes. */
const tailBytes = 4096

/** How long one that has not said it has to end in order, in ms. */
const successorGrace = 1000

const timingOf = (options: RunOptions): Effect.Effect<UpdateDecision.Timing, InvalidSpec> =>
  Effect.gen(function*() {
    const time = (field: string, input: Duration.Input) => Effect.fromResult(millis(field, input))
    const jitter = options.jitter ?? 0.1
    if (!(jitter >= 0 && jitter <= 1)) {
      return yield* new InvalidSpec({ field: "jitter", problem: "must be a number from 0 to 1" })
    }
    const interval = yield* time("interval", options.interval ?? "60 minutes")
    if (interval < 1000) return yield* new InvalidSpec({ field: "interval", problem: "must be at least 1 second" })
    return {
      first: yield* time("first", options.first ?? "5 minutes"),
      interval,
      jitter,
      backoff: yield* time("backoff", options.backoff ?? "5 minutes"),
      backoffCap: yield* time("backoffCap", options.backoffCap ?? "6 hours")
    }
  })

/** The claim of the updater: from whoever it replaces, or its own. */
const takeClaim = (
  place: Place,
  options: RunOptions,
  info: Info
): Effect.Effect<
  Claim.Claim<Info>,
  AlreadyRunning | ClaimLost | ClaimUndecided | StateFolderError | NotReplaced,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const { self } = options.daemon
    const known = Option.flatMap(Option.fromUndefinedOr(options.predecessor), Schema.decodeOption(Predecessor))
    if (Option.isSome(known)) {
      const { holder, token } = known.value
      const taken = yield* Claim.takeOver(
        updaterOf(place),
        holder,
        self,
        { ...info, token, ready: false },
        (found) => found.token === token
      )
      if (Option.isSome(taken)) {
        yield* Effect.mapError(
          options.prepare ?? Effect.void,
          ({ message }) => new NotReplaced({ reason: "NotAcknowledged", detail: message })
        )
        yield* taken.value.tell({ ...info, token })
        return taken.value
      }
    }
    const taken = yield* Claim.take(updaterOf(place), self, info)
    if (Result.isSuccess(taken)) return taken.success
    return yield* new AlreadyRunning({ address: place.folder.path, pid: taken.failure.holder.pid, file: null })
  })

/** Starts a successor and waits until it goes on; else it is ended, and this process goes on (seed C28). */
const handOver = (
  place: Place,
  claim: Claim.Claim<Info>,
  info: Info,
  launch: NonNullable<Replacing["launch"]>,
  successor: Successor,
  token: string
): Effect.Effect<number, NotReplaced | ClaimLost | StateFolderError, ProcessPlatform> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform
      const launched = yield* Effect.mapError(
        launch(successor),
        ({ message }) => new NotReplaced({ reason: "NotLaunched", detail: message })
      )
      const identity = yield* platform.identify(launched.pid)
      const acknowledged = Effect.gen(function*() {
        const timer = yield* EndProcess.makeTimer
        while (true) {
          const holders = yield* Claim.holders(updaterOf(place))
          if (
            holders.some(({ holder, info }) => holder.pid === launched.pid && info.token === token && info.ready)
          ) return
          const left = acknowledgeWithin - timer.elapsed()
          if (left <= 0) {
            const detail = `the successor, process ${launched.pid}, did not go on within ${acknowledgeWithin} ms`
            return yield* new NotReplaced({ reason: "NotAcknowledged", detail })
          }
          yield* timer.pause(Math.min(EndProcess.poll, left))
        }
      })
      const ended = Effect.flatMap(launched.ended, (status) =>
        Effect.flatMap(launched.errors, ({ bytes, complete }) =>
          Effect.fail(
            new NotReplaced({
              reason: "NotAcknowledged",
              detail: `the successor, process ${launched.pid}, was ${ExitStatus.describe(status)}\n${
                Tail.lastLines(bytes, tailBytes, complete)
              }`.trimEnd()
            })
          )))
      yield* Effect.onExit(restore(Effect.raceFirst(acknowledged, ended)), (exit) =>
        Exit.isSuccess(exit) ? Effect.void : Effect.gen(function*() {
          const gone = yield* Effect.raceFirst(Effect.as(launched.ended, true), Effect.as(Effect.yieldNow, false))
          if (!gone && Option.isSome(identity)) {
            yield* EndProcess.end(identity.value, { within: successorGrace })
          }
          yield* Effect.ignore(Claim.clean(updaterOf(place)))
        }))
      return launched.pid
    })
  ).pipe(Effect.tapError(() => claim.tell(info)))

/** After a pass: what becomes of this process. */
const replace = (
  place: Place,
  claim: Claim.Claim<Info>,
  info: Info,
  options: RunOptions,
  replacing: Replacing
): Effect.Effect<
  End,
  NotReplaced | ClaimLost | StateFolderError | ManagedInstallError | ManagedProgramUnusable,
  ProcessPlatform
> =>
  Effect.gen(function*() {
    const program = yield* ManagedInstall.resolve(options.install, options.program)
    const token = yield* randomName
    const value = Schema.encodeSync(Predecessor)({ holder: options.daemon.self, token })
    const successor: Successor = { program, variables: { [predecessorVariable]: value } }
    yield* claim.tell({ ...info, token })
    if (replacing.launch === undefined) {
      yield* claim.setKept(true)
      return { _tag: "Replace", successor }
    }
    const pid = yield* handOver(place, claim, info, replacing.launch, successor, token)
    return { _tag: "HandedOver", pid }
  })

/**
 * Makes passes until it is interrupted, or replaced by a new version of itself. At most one updater runs for a state folder.
 *
 * What a dead updater had begun is finished at once. The first pass is made after `first`, then one each `interval`; after a
 * failure sooner, and then later and later. A version of itself takes its place only after the daemon was restarted as it
 * and found to be as it should (seeds C10, C11): see `Replacing`.
 */
export const run = Effect.fn("Updater.run")((
  options: RunOptions
): Effect.Effect<
  End,
  AlreadyRunning | ClaimLost | ClaimUndecided | InvalidSpec | NotReplaced | StateFolderError,
  ProcessPlatform
> =>
  Effect.scoped(Effect.gen(function*() {
    const timing = yield* timingOf(options)
    const place = yield* placeOf(options.daemon.folder)
    const info: Info = { version: options.version, install: options.replacing?.own ?? null, token: null, ready: true }
    const claim = yield* takeClaim(place, options, info)
    const { replacing } = options
    let passes = 0
    let failures = 0
    const told = (result: Result.Result<Outcome, UpdateError>) =>
      Effect.gen(function*() {
        if (Result.isFailure(result)) {
          failures++
          yield* Effect.logWarning(result.failure.message)
        } else failures = result.success.status === "busy" ? Math.max(1, failures) : 0
        if (options.onPass !== undefined) yield* options.onPass(result)
      })
    const considered = (outcome: Outcome) =>
      Effect.gen(function*() {
        if (replacing === undefined || !UpdateDecision.replacesItself(outcome, replacing.own)) return undefined
        return yield* Effect.matchEffect(replace(place, claim, info, options, replacing), {
          onSuccess: (end): Effect.Effect<End | undefined, ClaimLost> => Effect.succeed(end),
          // Without its claim there may be another one.
          onFailure: (error) =>
            error._tag === "ClaimLost" ? Effect.fail(error) : Effect.as(Effect.logWarning(error.message), undefined)
        })
      })
    if (yield* options.enabled ?? Effect.succeed(true)) {
      const recovered = yield* Effect.result(recover(options))
      if (Result.isFailure(recovered)) yield* told(Result.fail(recovered.failure))
      else if (Option.isSome(recovered.success)) {
        yield* told(Result.succeed(recovered.success.value))
        const end = yield* considered(recovered.success.value)
        if (end !== undefined) return end
      }
    }
    while (true) {
      yield* Effect.sleep(UpdateDecision.pause(timing, passes, failures, yield* Random.next))
      const result = yield* Effect.result(update(options))
      passes++
      yield* told(result)
      const end = Result.isSuccess(result) ? yield* considered(result.success) : undefined
      if (end !== undefined) return end
    }
  }))
)

// ------------------------------------------------------------------------------------------------ who runs

export interface StopOptions {
  /** From SIGTERM to SIGKILL. A restart of the daemon that has begun is waited for. Default: 75 s. */
  readonly grace?: Duration.Input | undefined
}

/** What became of an updater. */
export interface Stopped {
  readonly status: "stopped" | "notRunning"
  readonly pid: number | null
  /** It had to be killed. */
  readonly forced: boolean
}

/** How often one is ended that another one has replaced meanwhile. */
const rounds = 10

/**
 * Ends the updater, and with it all that it has started to fetch (seed C26). What it leaves half done is finished later, and
 * nothing is started for it (peer seed K17). `self` is this process.
 */
export const stop = Effect.fn("Updater.stop")(function*(
  { folder, self }: Pick<Daemon.Daemon, "folder" | "self">,
  options: StopOptions = {}
): Effect.fn.Return<
  Stopped,
  ClaimUndecided | InvalidSpec | StateFolderError | UpdaterNotStopped,
  ProcessPlatform
> {
  const within = yield* Effect.fromResult(millis("grace", options.grace ?? "75 seconds"))
  const place = yield* placeOf(folder)
  let stopped: Stopped = { status: "notRunning", pid: null, forced: false }
  for (let round = 0;; round++) {
    const state = yield* Claim.look(updaterOf(place))
    if (state._tag === "Undecided") return yield* state.error
    if (state._tag === "Free") break
    if (state._tag === "Stale") {
      yield* Claim.clean(updaterOf(place))
      if (round >= rounds) break
      continue
    }
    const { holder } = state.holding
    if (round >= rounds) return yield* new UpdaterNotStopped({ pid: holder.pid, reason: "TimedOut" })
    const { how } = yield* EndProcess.end(holder, { within })
    if (how !== "Ended" && how !== "Killed") {
      return yield* new UpdaterNotStopped({ pid: holder.pid, reason: how === "Denied" ? how : "TimedOut" })
    }
    stopped = { status: "stopped", pid: holder.pid, forced: stopped.forced || how === "Killed" }
  }
  yield* Effect.scoped(Effect.gen(function*() {
    const record = yield* UpdateRecord.read(folder)
    if (record.phase === "done" || record.stopped) return
    // Nobody else may be at work on the record.
    const alone = yield* Claim.take(passOf(place), self, {})
    if (Result.isFailure(alone)) return
    const now = yield* UpdateRecord.read(folder)
    if (now.phase !== "done") yield* UpdateRecord.write(folder, self.pid, { ...now, stopped: true })
  })).pipe(
    // Nothing can be read from it by the next pass, either.
    Effect.catchTag("UpdateRecordInvalid", () => Effect.void)
  )
  return stopped
})

/** What there is of an updater. `unreadable` and `unsure`: as of a daemon, see `Daemon.Status`. */
export const Status = Schema.Struct({
  status: Schema.Literals(["running", "notRunning", "stale", "unreadable", "unsure"]),
  pid: Schema.NullOr(Schema.Int),
  /** ms, wall clock. */
  since: Schema.NullOr(Schema.Number),
  /** Of its program. */
  version: Schema.NullOr(Schema.String),
  /** What it does, or was doing when it died. */
  phase: Schema.NullOr(UpdateRecord.Phase),
  /** How the last pass went. */
  last: Schema.NullOr(UpdateRecord.Outcome),
  lastAt: Schema.NullOr(Schema.Number),
  /** Why the last pass failed, or the record can't be read; empty when all is well. */
  detail: Schema.String
})
export type Status = typeof Status.Type

/** Looks, and changes nothing. */
export const status = Effect.fn("Updater.status")(function*(
  { folder }: Pick<Daemon.Daemon, "folder">
): Effect.fn.Return<Status, StateFolderError, ProcessPlatform> {
  const state = yield* Claim.look(updaterOf(yield* placeOf(folder)))
  const record = yield* Effect.result(UpdateRecord.read(folder))
  if (Result.isFailure(record) && record.failure._tag === "StateFolderError") return yield* record.failure
  const known = Result.isSuccess(record) ? record.success : undefined
  const detail = Result.isFailure(record) ? record.failure.message : known?.lastError ?? ""
  const common = { phase: known?.phase ?? null, last: known?.last ?? null, lastAt: known?.lastAt ?? null, detail }
  const nobody = { pid: null, since: null, version: null }
  switch (state._tag) {
    case "Free":
      return { status: "notRunning", ...nobody, ...common }
    case "Stale":
      return { status: "stale", ...nobody, pid: state.holding?.holder.pid ?? null, ...common }
    case "Held": {
      const { holder, info, since } = state.holding
      return { status: "running", pid: holder.pid, since, version: info.version, ...common }
    }
    case "Undecided":
      return {
        status: state.error.reason === "Unreadable" ? "unreadable" : "unsure",
        ...nobody,
        pid: state.error.pid,
        ...common,
        detail: state.error.message
      }
  }
})
