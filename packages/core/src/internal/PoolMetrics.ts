/** The metrics of pools. Series of one pool are removed with it. */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { Reason, Tag } from "../PoolState.ts"

const keys = Metric.gauge("treeline_pool_keys", { description: "keys of pools by state" })
const ends = Metric.counter("treeline_pool_ends_total", {
  description: "children of pools that were ended, by reason",
  incremental: true
})
const saveFailures = Metric.counter("treeline_pool_save_failures_total", {
  description: "attempts to save the state of a key that failed",
  incremental: true
})
const startTime = Metric.histogram("treeline_pool_start_ms", {
  description: "time from the decision to build until the child was there for everybody, ms",
  boundaries: Metric.exponentialBoundaries({ start: 1, factor: 2, count: 16 })
})

export class PoolMetrics {
  private readonly pool: string
  private readonly services: Context.Context<never>
  /** Made once each, because keys of metrics are dear. */
  private readonly byState = new Map<Tag, typeof keys>()
  private readonly byReason = new Map<Reason, typeof ends>()
  private readonly saveFailures: typeof saveFailures
  private readonly startTime: typeof startTime

  constructor(pool: string, services: Context.Context<never>) {
    this.pool = pool
    this.services = services
    this.saveFailures = Metric.withAttributes(saveFailures, { pool }) as typeof saveFailures
    this.startTime = Metric.withAttributes(startTime, { pool }) as typeof startTime
  }

  private count(state: Tag, change: number): void {
    // What is not there is not counted.
    if (state === "Absent") return
    let gauge = this.byState.get(state)
    if (gauge === undefined) {
      gauge = Metric.withAttributes(keys, { pool: this.pool, state }) as typeof keys
      this.byState.set(state, gauge)
    }
    gauge.modifyUnsafe(change, this.services)
  }

  move(from: Tag, to: Tag): void {
    this.count(from, -1)
    this.count(to, 1)
  }

  ended(reason: Reason): void {
    let counter = this.byReason.get(reason)
    if (counter === undefined) {
      counter = Metric.withAttributes(ends, { pool: this.pool, reason }) as typeof ends
      this.byReason.set(reason, counter)
    }
    counter.updateUnsafe(1, this.services)
  }

  started(ms: number): void {
    this.startTime.updateUnsafe(ms, this.services)
  }

  saveFailed(): void {
    this.saveFailures.updateUnsafe(1, this.services)
  }

  close(): void {
    for (const gauge of this.byState.values()) Metric.removeUnsafe(gauge, this.services)
    for (const counter of this.byReason.values()) Metric.removeUnsafe(counter, this.services)
    Metric.removeUnsafe(this.saveFailures, this.services)
    Metric.removeUnsafe(this.startTime, this.services)
  }
}
