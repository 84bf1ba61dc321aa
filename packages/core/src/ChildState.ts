/**
 * The states of a child and every transition between them, as one total table.
 *
 * The actor classifies what happens into an event (for instance the end of a tree, by the restart policy, into `backOff`,
 * `finish` or `giveUp`), and the table says what state follows. Nothing else decides about states, so the diagram that is
 * made from the table is the truth.
 */
import * as Schema from "effect/Schema"
import { ChildEnd } from "./ChildEnd.ts"
import { ChildFailed } from "./Errors.ts"
import * as StateTable from "./internal/StateTable.ts"

/** An incarnation that exists: its number, its leader's pid where it has one, and since when (ms, wall clock). */
const alive = { incarnation: Schema.Int, pid: Schema.NullOr(Schema.Int), since: Schema.Number }

/**
 * - `Waiting`: wanted up, but something has to come first: `on` names it.
 * - `Starting`: being launched.
 * - `Running`: launched, readiness not yet seen.
 * - `Ready`: up.
 * - `Stopping`: its tree is being ended, `why`; `step` of the shutdown plan.
 * - `BackingOff`: ended; the restart number `attempt` in a row begins at `until` (ms, wall clock).
 * - `Stopped`: down, by request or because it was done; `end` is null when it never ran or was stopped.
 * - `Failed`: down for good, or until somebody starts it.
 */
export const ChildState = Schema.TaggedUnion({
  Waiting: { on: Schema.Array(Schema.String) },
  Starting: { incarnation: Schema.Int, since: Schema.Number },
  Running: alive,
  Ready: alive,
  Stopping: { ...alive, why: Schema.String, step: Schema.String },
  BackingOff: { until: Schema.Number, attempt: Schema.Int, end: ChildEnd },
  Stopped: { end: Schema.NullOr(ChildEnd) },
  Failed: { error: ChildFailed }
})
export type ChildState = typeof ChildState.Type

export type Tag = ChildState["_tag"]

/**
 * - `start`, `wait`: it is to run, and may, or has to wait for something first.
 * - `launched`, `ready`: the incarnation is up; it is ready.
 * - `exited`, `failing`: it ended by itself; its start, readiness or liveness failed, so that it is ended.
 * - `stop`, `restart`, `halt`: asked to be down, to be another incarnation, to make way for a round of restarts.
 * - `backOff`, `startAgain`, `park`, `finish`, `giveUp`: its tree is empty; a restart follows after a wait, at once, or when
 *   something else allows it; none follows because all is well; none because it is not. `park` also ends a backoff
 *   early, when the child is paused.
 * - `due`: the backoff is over.
 */
export type Event =
  | "start"
  | "wait"
  | "launched"
  | "ready"
  | "exited"
  | "failing"
  | "stop"
  | "restart"
  | "halt"
  | "backOff"
  | "startAgain"
  | "park"
  | "finish"
  | "giveUp"
  | "due"

/** A row in which every event that is not named leaves the state as it is. */
const row = (stay: Tag, changes: { readonly [K in Event]?: Tag }): Readonly<Record<Event, Tag>> => ({
  start: stay,
  wait: stay,
  launched: stay,
  ready: stay,
  exited: stay,
  failing: stay,
  stop: stay,
  restart: stay,
  halt: stay,
  backOff: stay,
  startAgain: stay,
  park: stay,
  finish: stay,
  giveUp: stay,
  due: stay,
  ...changes
})

/** All that ends an incarnation. */
const ends = {
  exited: "Stopping",
  failing: "Stopping",
  stop: "Stopping",
  restart: "Stopping",
  halt: "Stopping"
} as const

/** Every state and every event. */
export const table: Readonly<Record<Tag, Readonly<Record<Event, Tag>>>> = {
  Waiting: row("Waiting", { start: "Starting", stop: "Stopped", giveUp: "Failed" }),
  Starting: row("Starting", { launched: "Running", ...ends }),
  Running: row("Running", { ready: "Ready", ...ends }),
  Ready: row("Ready", ends),
  Stopping: row("Stopping", {
    backOff: "BackingOff",
    startAgain: "Starting",
    park: "Waiting",
    finish: "Stopped",
    giveUp: "Failed"
  }),
  BackingOff: row("BackingOff", {
    due: "Starting",
    start: "Starting",
    wait: "Waiting",
    stop: "Stopped",
    halt: "Waiting",
    park: "Waiting"
  }),
  Stopped: row("Stopped", { start: "Starting", wait: "Waiting" }),
  Failed: row("Failed", { start: "Starting", wait: "Waiting" })
}

/** The state that follows. */
export const next = (from: Tag, event: Event): Tag => table[from][event]

/** Whether a tree of the child may exist in this state. */
export const isUp = (tag: Tag): boolean =>
  tag === "Starting" || tag === "Running" || tag === "Ready" || tag === "Stopping"

/** The table as a Mermaid state diagram. */
export const toMermaid = (): string => StateTable.toMermaid(table, "Stopped")
