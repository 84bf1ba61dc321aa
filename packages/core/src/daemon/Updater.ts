/**
 * Keeps a daemon at the newest version of a managed install: one pass by `update`, and again and again by `run`.
 *
 * A pass fetches a version, and when it is another one makes it current and restarts the daemon as it. What does not hold is
 * taken back. Each step is recorded before it is done (see `UpdateRecord`), so whoever comes after a death finishes or takes
 * back what was begun. In every state between, `current` is a whole version and a start of the daemon succeeds.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import {
  AlreadyRunning,
  ClaimLost,
  type ClaimUndecided,
  type DetachUnavailable,
  InvalidSpec,
  type LaunchError,
  type ManagedInstallError,
  type ManagedProgramUnusable,
  NotReplaced,
  type StateFolderError,
  UpdaterNotStopped
} from "../Errors.ts"
import * as ExitStatus from "../ExitStatus.ts"
import * as EndProcess from "../internal/EndProcess.ts"
import { randomName } from "../internal/RandomName.ts"
import * as Tail from "../internal/Tail.ts"
import { millis } from "../internal/Time.ts"
import * as UpdatePass from "../internal/UpdatePass.ts"
import type { Failure, Options, Outcome, UpdateError } from "../internal/UpdatePass.ts"
import { equals, ProcessIdentity } from "../ProcessIdentity.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import * as Claim from "./Claim.ts"
import type * as Daemon from "./Daemon.ts"
import * as ManagedInstall from "./ManagedInstall.ts"
import * as UpdateDecision from "./UpdateDecision.ts"
import * as UpdateRecord from "./UpdateRecord.ts"

export type { Failure, Options, Outcome, UpdateError }

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

const updaterOf = (place: UpdatePass.Place): Claim.Place<Info> => ({
  ...place,
  name: UpdatePass.updaterName,
  info: Info
})

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
  Effect.map(UpdatePass.alone(options, UpdatePass.update), Result.getOrElse((outcome) => outcome))
)

/**
 * Only finishes, or takes back, what a dead updater had begun; none when there was nothing. A start of the daemon succeeds
 * without it, too.
 */
export const recover = Effect.fn("Updater.recover")((
  options: Options
): Effect.Effect<Option.Option<Outcome>, UpdateError, ProcessPlatform> =>
  Effect.map(UpdatePass.alone(options, UpdatePass.recover), Result.getOrElse(Option.some))
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
  place: UpdatePass.Place,
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
      // Whoever has ended the one that it was to replace wants none.
      if (!equals(holder, self) && (yield* place.platform.standing(holder)) === "Gone") {
        const detail = `process ${holder.pid}, which it was to replace, has ended`
        return yield* new NotReplaced({ reason: "NotAcknowledged", detail })
      }
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
  place: UpdatePass.Place,
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
  place: UpdatePass.Place,
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
    const place = yield* UpdatePass.placeOf(options.daemon.folder)
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
      // Without its claim there may be another one.
      if (!(yield* Effect.orElseSucceed(claim.isThere, () => true))) {
        return yield* new ClaimLost({ path: `${place.folder.path}/${UpdatePass.updaterName}` })
      }
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
  const place = yield* UpdatePass.placeOf(folder)
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
    const alone = yield* Claim.take(UpdatePass.claimOf(place), self, {})
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

/**
 * Looks, and changes nothing.
 *
 * @example
 * ```ts
 * import { ProcessPlatform } from "@treeline/core"
 * import { Updater } from "@treeline/core/daemon"
 * import { NodeStateFolder } from "@treeline/platform-node"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect, Option } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const program = Effect.gen(function*() {
 *   const platform = yield* ProcessPlatform.ProcessPlatform
 *   const self = Option.getOrThrow(yield* platform.identify(process.pid))
 *   const daemon = { folder: NodeStateFolder.make("/tmp/no-such-folder/state"), self }
 *   const { status } = yield* Updater.status(daemon)
 *   return [status, (yield* Updater.stop(daemon)).status]
 * })
 * const said = await Effect.runPromise(program.pipe(Effect.provide(PosixPlatform.layer)))
 * deepStrictEqual(said, ["notRunning", "notRunning"])
 * ```
 */
export const status = Effect.fn("Updater.status")(function*(
  { folder }: Pick<Daemon.Daemon, "folder">
): Effect.fn.Return<Status, StateFolderError, ProcessPlatform> {
  const state = yield* Claim.look(updaterOf(yield* UpdatePass.placeOf(folder)))
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
