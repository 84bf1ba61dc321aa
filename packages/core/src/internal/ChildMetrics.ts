/** The metrics of children. Series of one child are removed with it. */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import { table, type Tag } from "../ChildState.ts"

const children = Metric.gauge("treeline_children", { description: "children by state" })
/** The gauge of each state; made once, because keys of metrics are dear. */
const byState = new Map(
  (Object.keys(table) as ReadonlyArray<Tag>).map((state) => [state, Metric.withAttributes(children, { state })])
)

const starts = Metric.counter("treeline_child_starts_total", {
  description: "incarnations launched",
  incremental: true
})
const restarts = Metric.counter("treeline_child_restarts_total", {
  description: "restarts after ends that nobody asked for",
  incremental: true
})
const kills = Metric.counter("treeline_teardown_steps_total", {
  description: "trees by the step of the shutdown plan at which they were empty; none: they ended by themselves",
  incremental: true
})
const spawnTime = Metric.histogram("treeline_spawn_ms", {
  description: "time from the decision to start until the child was launched, ms",
  boundaries: Metric.exponentialBoundaries({ start: 1, factor: 2, count: 12 })
})

const drainTime = Metric.histogram("treeline_drain_ms", {
  description: "time from the empty tree until its output was drained, ms",
  boundaries: Metric.exponentialBoundaries({ start: 1, factor: 2, count: 12 })
})

export class ChildMetrics {
  private readonly services: Context.Context<never>
  private readonly child: string
  private readonly starts: typeof starts
  /** Made at the first one, because keys of metrics are dear and most children are never restarted. */
  private restarts: typeof restarts | undefined = undefined

  constructor(child: string, services: Context.Context<never>) {
    this.child = child
    this.services = services
    this.starts = Metric.withAttributes(starts, { child }) as typeof starts
  }

  private count(state: Tag, change: number): void {
    byState.get(state)?.modifyUnsafe(change, this.services)
  }

  enter(state: Tag): void {
    this.count(state, 1)
  }

  move(from: Tag, to: Tag): void {
    this.count(from, -1)
    this.count(to, 1)
  }

  started(ms: number): void {
    this.starts.updateUnsafe(1, this.services)
    spawnTime.updateUnsafe(ms, this.services)
  }

  restarted(): void {
    this.restarts ??= Metric.withAttributes(restarts, { child: this.child }) as typeof restarts
    this.restarts.updateUnsafe(1, this.services)
  }

  ended(step: string): void {
    Metric.withAttributes(kills, { step: step === "" ? "none" : step }).updateUnsafe(1, this.services)
  }

  drained(ms: number): void {
    drainTime.updateUnsafe(ms, this.services)
  }

  close(state: Tag): void {
    this.count(state, -1)
    Metric.removeUnsafe(this.starts, this.services)
    if (this.restarts !== undefined) Metric.removeUnsafe(this.restarts, this.services)
  }
}
