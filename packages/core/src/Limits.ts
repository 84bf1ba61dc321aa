/**
 * What a tree may use, and what it uses.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { InvalidSpec } from "./Errors.ts"

/**
 * Upper bounds of a whole tree, held by the kernel. They need a platform that can seal (cgroup v2, job object): where it
 * can't, the launch fails with `ContainmentUnavailable` and nothing runs.
 */
export interface Limits {
  /**
   * Bytes of memory; beyond it the kernel ends the whole tree (Linux), or refuses the allocation (Windows). On Linux a
   * tree with this limit gets no swap, where the kernel counts swap.
   */
  readonly memory?: number | undefined
  /** Processes and threads; beyond it fork fails. */
  readonly processes?: number | undefined
  /** Processors, such as 0.5; beyond it the tree is slowed down. */
  readonly cpu?: number | undefined
}

/**
 * `memory` in bytes and `processes` as they are now. `cpu` in ms: of the living processes, or of all that ever belonged
 * to the tree where the kernel counts for the tree (level `sealed`).
 */
export const Usage = Schema.Struct({
  processes: Schema.Int,
  memory: Schema.Number,
  cpu: Schema.Number
})
export type Usage = typeof Usage.Type

/** Checks limits: whole positive bytes and processes, positive finite processors. */
export const validate = (limits: Limits): Result.Result<Limits, InvalidSpec> => {
  const invalid = (field: string, problem: string) =>
    Result.fail(new InvalidSpec({ field: `limits.${field}`, problem }))
  for (const field of ["memory", "processes"] as const) {
    const value = limits[field]
    if (value !== undefined && (!Number.isSafeInteger(value) || value <= 0)) {
      return invalid(field, "must be a whole number above 0")
    }
  }
  return limits.cpu !== undefined && (!Number.isFinite(limits.cpu) || limits.cpu <= 0)
    ? invalid("cpu", "must be a number of processors above 0, such as 0.5")
    : Result.succeed(limits)
}
