/** For how long a shard is a runner's own. Pure; all times are ms, points in time on the monotonic clock. */
import type { ShardingConfig } from "effect/cluster/ShardingConfig"
import type * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import { InvalidSpec } from "../../Errors.ts"
import { millis } from "../../internal/Time.ts"

/** What the configuration of the cluster means for the processes of a runner. */
export interface Timing {
  /** How long the store keeps others out after a renewal. */
  readonly expiration: number
  /** How long before that everything is ended. */
  readonly margin: number
  /** How long a shutdown plan may take until it kills, if it is never to be cut short. */
  readonly stopWithin: number
}

const invalid = (field: string, problem: string) => Result.fail(new InvalidSpec({ field, problem }))

/**
 * Checks the configuration. A runner whose store does not answer learns it in the worst case two refresh intervals after
 * its last renewal: one until it asks again, and one until that times out. Its children are stopped then, and have to be
 * gone `margin` before the lease ends.
 */
export const timing = (
  config: typeof ShardingConfig.Service,
  marginInput: Duration.Input
): Result.Result<Timing, InvalidSpec> =>
  Result.gen(function*() {
    if (!config.shardLockDisableAdvisory) {
      return yield* invalid(
        "shardLockDisableAdvisory",
        "must be true: an advisory lock is free as soon as its connection breaks, and the runner learns it later"
      )
    }
    const expiration = yield* millis("shardLockExpiration", config.shardLockExpiration)
    const refresh = Math.min(
      yield* millis("shardLockRefreshInterval", config.shardLockRefreshInterval),
      expiration / 3
    )
    const margin = yield* millis("margin", marginInput)
    const termination = yield* millis("entityTerminationTimeout", config.entityTerminationTimeout)
    const left = expiration - margin - 2 * refresh
    if (margin <= 0 || left <= 0) {
      return yield* invalid(
        "margin",
        `must be above 0 and below ${expiration - 2 * refresh} ms: shardLockExpiration without two refresh intervals`
      )
    }
    return { expiration, margin, stopWithin: Math.min(termination, left) }
  })

/**
 * `until`: nobody else can have the shard before. `killHostAt`: when the host is killed, if it has not killed what is in
 * the shard. `ending`: that is being killed. `ended`: it has been, and nothing is started until a renewal.
 */
export interface Lease {
  readonly until: number
  readonly killHostAt: number
  readonly phase: "held" | "ending" | "ended"
}

/**
 * After a renewal that was asked for at `asked`: the store counts from a later moment, never from an earlier one. Half of
 * the margin is left for the guardian of a killed host.
 */
export const renewed = (lease: Lease | undefined, asked: number, { expiration, margin }: Timing): Lease => {
  const until = Math.max(lease?.until ?? -Infinity, asked + expiration)
  return { until, killHostAt: until - margin / 2, phase: lease?.phase === "ending" ? "ending" : "held" }
}

/** After the store has said that it is not this runner's: no time is left, and the host gets some for what it does now. */
export const lost = (lease: Lease, now: number, { margin }: Timing): Lease => ({
  ...lease,
  until: Math.min(lease.until, now),
  killHostAt: now + margin / 2
})

/** When everything in it is killed. */
export const killAt = (lease: Lease, { margin }: Timing): number => lease.until - margin

/** When work that needs it, such as saving, is cut off: before the host is killed for going on. */
export const workUntil = (lease: Lease, { margin }: Timing): number => lease.until - 0.75 * margin

/** Whether something may be started in it. */
export const isHeld = (lease: Lease | undefined, now: number, timing: Timing): lease is Lease =>
  lease?.phase === "held" && now < killAt(lease, timing)
