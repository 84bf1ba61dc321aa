/**
 * The states of a key in a pool and every transition between them, as one total table.
 *
 * The pool classifies what happens into an event, and the table says what state follows. An incarnation begins only in
 * `Building`, which is reached only from states in which there is none: so there is never more than one of a key.
 */
import * as Schema from "effect/Schema"
import { PoolStep } from "./Errors.ts"
import * as StateTable from "./internal/StateTable.ts"
import { ProcessInfo } from "./ProcessIdentity.ts"

/**
 * Why a child is ended: not used for long; to make room; too old or used up; somebody asked; the pool closes; it ended by
 * itself; it did not come up; nobody waited for it any more.
 */
export const Reason = Schema.Literals([
  "idle",
  "evicted",
  "recycled",
  "shutdown",
  "closed",
  "ended",
  "failed",
  "abandoned"
])
export type Reason = typeof Reason.Type

/**
 * - `Absent`: there is nothing of it.
 * - `Waiting`: asked for, and there is no room yet.
 * - `Building`: its state is restored, it is built and started; it is not ready yet.
 * - `Live`: it is there for everybody who asks.
 * - `Retiring`: it is being ended, or its state is being saved.
 * - `Blocked`: something of it is left, processes or state that is not saved, and nothing is built before that is gone.
 *
 * `since` is ms, wall clock.
 */
export const KeyState = Schema.TaggedUnion({
  Absent: {},
  Waiting: { since: Schema.Number },
  Building: { since: Schema.Number, incarnation: Schema.Int, step: PoolStep },
  Live: { since: Schema.Number, incarnation: Schema.Int, pid: Schema.NullOr(Schema.Int) },
  Retiring: { since: Schema.Number, incarnation: Schema.Int, reason: Reason },
  Blocked: {
    since: Schema.Number,
    incarnation: Schema.Int,
    problem: Schema.String,
    unsaved: Schema.Boolean,
    survivors: Schema.Array(ProcessInfo)
  }
})
export type KeyState = typeof KeyState.Type

export type Tag = KeyState["_tag"]

/**
 * - `wait`, `build`: it is asked for, and there is no room, or there is.
 * - `drop`: nobody wants it any more.
 * - `live`: its child is ready.
 * - `leave`: its child is to end, or has ended; a build has failed or is given up.
 * - `gone`, `block`: nothing is left of the incarnation; something is.
 * - `retry`: what is left is looked at again.
 */
export type Event = "wait" | "build" | "drop" | "live" | "leave" | "gone" | "block" | "retry"

/** A row in which every event that is not named leaves the state as it is. */
const row = (stay: Tag, changes: { readonly [K in Event]?: Tag }): Readonly<Record<Event, Tag>> => ({
  wait: stay,
  build: stay,
  drop: stay,
  live: stay,
  leave: stay,
  gone: stay,
  block: stay,
  retry: stay,
  ...changes
})

/** Every state and every event. */
export const table: Readonly<Record<Tag, Readonly<Record<Event, Tag>>>> = {
  Absent: row("Absent", { wait: "Waiting", build: "Building" }),
  Waiting: row("Waiting", { build: "Building", drop: "Absent" }),
  Building: row("Building", { live: "Live", leave: "Retiring" }),
  Live: row("Live", { leave: "Retiring" }),
  Retiring: row("Retiring", { gone: "Absent", block: "Blocked" }),
  Blocked: row("Blocked", { retry: "Retiring" })
}

/** The state that follows. */
export const next = (from: Tag, event: Event): Tag => table[from][event]

/** Whether there may be something of an incarnation in this state. */
export const isOccupied = (tag: Tag): boolean => tag !== "Absent" && tag !== "Waiting"

/** The table as a Mermaid state diagram. */
export const toMermaid = (): string => StateTable.toMermaid(table, "Absent")
