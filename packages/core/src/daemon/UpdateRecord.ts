/**
 * What an updater has begun, in one file of the state folder: written before each step, so that whoever comes after a death
 * knows what may have been done. It is replaced as a whole.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { type StateFolderError, UpdateRecordInvalid } from "../Errors.ts"
import { randomName } from "../internal/RandomName.ts"
import { ProcessIdentity } from "../ProcessIdentity.ts"
import type { StateFolder } from "./StateFolder.ts"

/**
 * What is being done, or was when the updater died.
 *
 * - `fetching`: a version is fetched and checked. Nothing has been changed.
 * - `pausing`: supervision is paused. Nothing has been changed.
 * - `switching`: `to` becomes current; it may be or not.
 * - `restarting`: the daemon is restarted as `to`.
 * - `validating`: whether it runs as it should.
 * - `rollingBack`: `from` becomes current again, and the daemon is restarted as it.
 * - `done`: nothing is going on.
 */
export const Phase = Schema.Literals([
  "fetching",
  "pausing",
  "switching",
  "restarting",
  "validating",
  "rollingBack",
  "done"
])
export type Phase = typeof Phase.Type

/** How a pass went; `disabled` by the kill switch, `busy` because another command was at work. */
export const Outcome = Schema.Struct({
  status: Schema.Literals(["updated", "noUpdate", "rolledBack", "busy", "disabled"]),
  /** The version that was current before, if any was. */
  from: Schema.NullOr(Schema.String),
  /** The version that is current now, if any is. */
  current: Schema.NullOr(Schema.String),
  /** What the program of the current version answers to `--version`, where it was asked. */
  version: Schema.NullOr(Schema.String),
  /** A daemon was started as the current version, and was found to run as it should. */
  restarted: Schema.Boolean,
  /** Of the daemon that was started. */
  pid: Schema.NullOr(Schema.Int),
  /** Why, in words; empty when all is well. */
  detail: Schema.String
})
export type Outcome = typeof Outcome.Type

/** A version that was tried and did not hold. */
export const Rejected = Schema.Struct({
  id: Schema.String,
  /** ms, wall clock. */
  at: Schema.Number,
  reason: Schema.String
})
export type Rejected = typeof Rejected.Type

export const UpdateRecord = Schema.Struct({
  phase: Phase,
  /** Of the phase; ms, wall clock. */
  since: Schema.Number,
  /** Current before this update; also when it is done, so that it is kept. */
  from: Schema.NullOr(Schema.String),
  /** To be current. */
  to: Schema.NullOr(Schema.String),
  /** A daemon ran when the update began, so one has to run when it ends. */
  running: Schema.Boolean,
  /** Somebody has stopped the update since: no service may be started for it (peer seed K17). */
  stopped: Schema.Boolean,
  /** Why it is rolled back. */
  reason: Schema.String,
  /** Supervision was paused for an update, and has not been resumed since. */
  paused: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  /** `to` is at fault, so it is rejected once the version before has been found to hold. */
  blamed: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  /** How often somebody has tried to finish it after a death. */
  recoveries: Schema.Int,
  /** The daemon that was last found to run as it should, and its version. */
  validated: Schema.NullOr(Schema.Struct({ id: Schema.String, daemon: ProcessIdentity })),
  /** The latest are last. */
  rejected: Schema.Array(Rejected),
  /** How the last pass went; null when it failed with an error, which `lastError` tells. */
  last: Schema.NullOr(Outcome),
  lastError: Schema.String,
  /** When the last pass ended; ms, wall clock. */
  lastAt: Schema.NullOr(Schema.Number)
})
export type UpdateRecord = typeof UpdateRecord.Type

/** Nothing has ever been updated. */
export const empty: UpdateRecord = {
  phase: "done",
  since: 0,
  from: null,
  to: null,
  running: false,
  stopped: false,
  reason: "",
  paused: false,
  blamed: false,
  recoveries: 0,
  validated: null,
  rejected: [],
  last: null,
  lastError: "",
  lastAt: null
}

/** Its name in the state folder. */
export const fileName = "update.json"

/** How many rejected versions are remembered. */
const remembered = 16

/** How much is kept of what was said, in characters. */
const longestReason = 1000

const Text = Schema.fromJsonString(UpdateRecord)

/** Remembers a version that did not hold. */
export const reject = (record: UpdateRecord, id: string, at: number, reason: string): UpdateRecord => ({
  ...record,
  rejected: [...record.rejected.filter((known) => known.id !== id), { id, at, reason: reason.slice(0, longestReason) }]
    .slice(-remembered)
})

/** The record, or `empty` where there is none. */
export const read = (
  folder: StateFolder
): Effect.Effect<UpdateRecord, UpdateRecordInvalid | StateFolderError> =>
  Effect.flatMap(folder.read(fileName), (text) => {
    if (text === undefined) return Effect.succeed(empty)
    return Option.match(Schema.decodeOption(Text)(text), {
      onSome: Effect.succeed,
      onNone: () =>
        Effect.fail(
          new UpdateRecordInvalid({ path: `${folder.path}/${fileName}`, detail: "its content is no record of updates" })
        )
    })
  })

/**
 * Writes it whole. `pid` is this process's: what it leaves when it dies here has a name by which `Claim.take` of `update`
 * removes it.
 */
export const write = (folder: StateFolder, pid: number, record: UpdateRecord): Effect.Effect<void, StateFolderError> =>
  Effect.uninterruptible(Effect.gen(function*() {
    const next = `update.${pid}-${yield* randomName}.next`
    yield* folder.makeFolder(".")
    const bounded: UpdateRecord = {
      ...record,
      reason: record.reason.slice(0, longestReason),
      lastError: record.lastError.slice(0, longestReason),
      last: record.last === null ? null : { ...record.last, detail: record.last.detail.slice(0, longestReason) }
    }
    yield* folder.write(next, Schema.encodeSync(Text)(bounded))
    yield* folder.replace(next, fileName)
  }))
