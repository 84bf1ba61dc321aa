/**
 * How much a platform can promise about the end of a tree.
 *
 * Levels are ordered: each one includes those before it. A tree reports the level that it has, and a launch can require
 * one; there is no silent downgrade.
 */
import * as Schema from "effect/Schema"

/**
 * - `group`: the leader's process group and session. The floor of any POSIX system.
 * - `marked`: and every process whose environment carries the tree's mark.
 * - `tagged`: and every process with the tree's inherited tag, which `env -i`, setsid and double forks do not shake off.
 * - `sealed`: the kernel itself holds every descendant (cgroup, pid namespace, job object).
 */
export const Level = Schema.Literals(["group", "marked", "tagged", "sealed"])
export type Level = typeof Level.Type

const order: Readonly<Record<Level, number>> = { group: 0, marked: 1, tagged: 2, sealed: 3 }

/**
 * True when `self` promises at least what `required` does.
 *
 * @example
 * ```ts
 * import { Containment } from "@treeline/core"
 * import { strictEqual } from "node:assert"
 *
 * strictEqual(Containment.atLeast("tagged", "marked"), true)
 * strictEqual(Containment.atLeast("group", "tagged"), false)
 * ```
 */
export const atLeast = (self: Level, required: Level): boolean => order[self] >= order[required]

/** One means of finding or holding a tree's processes, as detected on this system. */
export const Mechanism = Schema.Struct({
  name: Schema.String,
  available: Schema.Boolean,
  /** What it is for, or why it is missing and what would bring it. */
  detail: Schema.String
})
export type Mechanism = typeof Mechanism.Type

/** What a platform found at its start: the level of an ordinary launch, and each mechanism behind it. */
export const Report = Schema.Struct({
  platform: Schema.String,
  level: Level,
  /** The highest level that a launch can require. */
  highest: Level,
  mechanisms: Schema.Array(Mechanism),
  /** What would raise the level here; absent at the highest. */
  raise: Schema.optionalKey(Schema.String)
})
export type Report = typeof Report.Type
