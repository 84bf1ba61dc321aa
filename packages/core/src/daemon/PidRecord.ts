/**
 * Which process is the daemon of a state folder. The daemon itself takes the record when it begins, so there is none that
 * runs without; it tells when it is ready, and gives the record back when it ends. That of a dead one is stale: the next
 * start takes its place.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import {
  AlreadyRunning,
  type ClaimLost,
  ClaimUndecided,
  StartAbandoned,
  type StateFolderError,
  Unkillable
} from "../Errors.ts"
import * as Leftovers from "../internal/Leftovers.ts"
import { ProcessIdentity } from "../ProcessIdentity.ts"
import * as Claim from "./Claim.ts"

/** What a daemon says of itself. No argument, environment value or secret is in it. */
export const Facts = Schema.Struct({
  version: Schema.String,
  /** The file that runs, links resolved when it began (seed C22). */
  program: Schema.String,
  /** Where it can be talked to. */
  control: Schema.NullOr(Schema.String),
  /** What it runs; a file. */
  config: Schema.NullOr(Schema.String),
  /** How long its orderly end may take, in ms; so that a stop needs no settings (seed C31). */
  grace: Schema.Int,
  /** No command has started it, but another program that starts it anew by itself, such as systemd. */
  supervised: Schema.optionalKey(Schema.Boolean)
})
export type Facts = typeof Facts.Type

/** `readyAt` is ms, wall clock; null while it is starting. */
const Info = Schema.Struct({ ...Facts.fields, readyAt: Schema.NullOr(Schema.Number) })

/** The record of one daemon. */
export const PidRecord = Schema.Struct({
  identity: ProcessIdentity,
  startedAt: Schema.Number,
  ...Info.fields
})
export type PidRecord = typeof PidRecord.Type

/**
 * - `Missing`: no daemon.
 * - `Starting`, `Running`: a living one, not yet or by now ready.
 * - `Stale`: its process has ended; null when it had written nothing. The next start removes it.
 * - `Unreadable`: something else is where the record should be. It is kept.
 * - `Unsure`: there is a process of its pid, and whether it is the daemon can't be told. It is kept.
 */
export const State = Schema.TaggedUnion({
  Missing: {},
  Starting: { record: PidRecord },
  Running: { record: PidRecord },
  Stale: { record: Schema.NullOr(PidRecord) },
  Unreadable: { path: Schema.String, detail: Schema.String },
  Unsure: { path: Schema.String, pid: Schema.NullOr(Schema.Int), detail: Schema.String }
})
export type State = typeof State.Type

export type Place = Pick<Claim.Place<unknown>, "folder" | "platform">

const claimOf = ({ folder, platform }: Place): Claim.Place<typeof Info.Type> => ({
  folder,
  platform,
  name: "daemon",
  info: Info
})

const recordOf = ({ holder, info, since }: Claim.Holding<typeof Info.Type>): PidRecord => ({
  identity: holder,
  startedAt: since,
  ...info
})

/** What a claim says of the daemon. */
export const stateOf = (claim: Claim.State<typeof Info.Type>): State => {
  switch (claim._tag) {
    case "Free":
      return { _tag: "Missing" }
    case "Held":
      return { _tag: claim.holding.info.readyAt === null ? "Starting" : "Running", record: recordOf(claim.holding) }
    case "Stale":
      return { _tag: "Stale", record: claim.holding === null ? null : recordOf(claim.holding) }
    case "Undecided": {
      const { detail, path, pid, reason } = claim.error
      return reason === "Unreadable" ? { _tag: reason, path, detail } : { _tag: reason, path, pid, detail }
    }
  }
}

/** The error of a record that can't be judged. */
export const undecided = (state: State & { readonly _tag: "Unreadable" | "Unsure" }): ClaimUndecided =>
  new ClaimUndecided({
    path: state.path,
    pid: state._tag === "Unsure" ? state.pid : null,
    reason: state._tag,
    detail: state.detail
  })

/** Looks and changes nothing. */
export const read = (place: Place): Effect.Effect<State, StateFolderError> =>
  Effect.map(Claim.look(claimOf(place)), stateOf)

/** Removes the record of a daemon that has ended; any other is left as it is. */
export const clean = (place: Place): Effect.Effect<void, StateFolderError> => Claim.clean(claimOf(place))

/** How long what a dead daemon had started may take to end before the next one gives up, in ms. */
const leftoversWithin = 8000

/** The record of this process. */
export interface Held {
  /** From now on it is `Running`. `control` is where it can be talked to, if that was not known before. */
  readonly ready: (control?: string) => Effect.Effect<void, ClaimLost | StateFolderError>
}

/** The environment variable by which a starter says who it is; its value is for `take`. */
export const starterVariable = "TREELINE_DAEMON_STARTER"

const Starter = Schema.fromJsonString(ProcessIdentity)

/** What a starter says of itself. */
export const encodeStarter: (self: ProcessIdentity) => string = Schema.encodeSync(Starter)

/** Who a value of `starterVariable` names, where there is one. */
export const decodeStarter = (value: string | undefined): Option.Option<ProcessIdentity> =>
  Option.flatMap(Option.fromUndefinedOr(value), Schema.decodeOption(Starter))

/**
 * Takes the record for this process, `self`, until the scope closes. Of two at once only one succeeds; the other is told
 * who did (peer case 105).
 *
 * What the one before has left, if it died, is ended first: there are never two copies of a service (peer case 49).
 *
 * `starter` is the value of `starterVariable`, where there is one. When that process has died before the record was taken,
 * the start was given up: somebody may have been told since that nothing runs, so nothing may begin to.
 */
export const take = Effect.fn("PidRecord.take")(function*(
  place: Place & { readonly platform: Partial<Leftovers.Platform> },
  self: ProcessIdentity,
  facts: Facts,
  starter?: string
): Effect.fn.Return<
  Held,
  AlreadyRunning | ClaimUndecided | StartAbandoned | StateFolderError | Unkillable,
  Scope.Scope
> {
  const before = yield* read(place)
  const outcome = yield* Claim.take(claimOf(place), self, { ...facts, readyAt: null })
  if (Result.isFailure(outcome)) {
    return yield* new AlreadyRunning({ address: place.folder.path, pid: outcome.failure.holder.pid, file: null })
  }
  const claim = outcome.success
  const known = decodeStarter(starter)
  if (Option.isSome(known) && (yield* place.platform.standing(known.value)) === "Gone") {
    return yield* new StartAbandoned({ starter: known.value.pid })
  }
  if (before._tag === "Stale" && before.record !== null) {
    const { clock = Clock.Clock } = place.platform
    const left = yield* Leftovers.awaitGone({ ...place.platform, clock }, before.record.identity, leftoversWithin)
    if (left.length > 0) return yield* new Unkillable({ command: "the daemon that died", survivors: left })
  }
  return {
    ready: (control) =>
      Effect.flatMap(
        Clock.currentTimeMillis,
        (readyAt) => claim.tell({ ...facts, control: control ?? facts.control, readyAt })
      )
  }
})
