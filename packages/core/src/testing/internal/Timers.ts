/**
 * The simulated system's timers on an Effect Clock. Those of one instant fire in the order in which they were set, and
 * few fibers sleep: one for the next timer, not one for each.
 */
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

export interface Timer {
  readonly at: number
  readonly order: number
  /** Undefined when cancelled or fired. */
  run: (() => void) | undefined
}

/** A clock may wake by a rounding error too early, in ms. */
const tolerance = 0.001

export class Timers {
  private readonly heap: Array<Timer> = []
  private order = 0
  /** Timers in the heap that will not fire. */
  private cancelled = 0
  private readonly alarms = new Map<number, Fiber.Fiber<void>>()
  private closed = false
  private readonly clock: Clock.Clock
  private readonly run: <A>(effect: Effect.Effect<A>) => Fiber.Fiber<A>
  private readonly after: () => void

  /** `after` is called when timers have fired. The fibers run with `context`, so that a test clock can follow them. */
  constructor(clock: Clock.Clock, context: Context.Context<never>, after: () => void) {
    this.clock = clock
    this.run = Effect.runForkWith(context)
    this.after = after
  }

  /** ms on the monotonic clock. */
  now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1_000_000
  }

  set(at: number, run: () => void): Timer {
    const timer: Timer = { at, order: this.order++, run }
    const { heap } = this
    let index = heap.push(timer) - 1
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (!before(timer, heap[parent]!)) break
      heap[index] = heap[parent]!
      index = parent
    }
    heap[index] = timer
    if (index === 0) this.arm()
    return timer
  }

  cancel(timer: Timer | undefined): void {
    if (timer?.run === undefined) return
    timer.run = undefined
    this.cancelled++
    while (this.heap.length > 0 && this.heap[0]!.run === undefined) this.pop()
    if (this.cancelled > 64 && this.cancelled > this.heap.length / 2) this.compact()
  }

  /** A sorted list is a heap. */
  private compact(): void {
    const living = this.heap.filter((timer) => timer.run !== undefined).sort((a, b) => before(a, b) ? -1 : 1)
    this.heap.splice(0, this.heap.length, ...living)
    this.cancelled = 0
  }

  private pop(): Timer {
    const { heap } = this
    const first = heap[0]!
    if (first.run === undefined) this.cancelled--
    const last = heap.pop()!
    if (heap.length > 0) {
      let index = 0
      while (true) {
        let child = 2 * index + 1
        if (child >= heap.length) break
        if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
        if (!before(heap[child]!, last)) break
        heap[index] = heap[child]!
        index = child
      }
      heap[index] = last
    }
    return first
  }

  /** Sees to it that somebody wakes when the first timer is due. */
  private arm(): void {
    const first = this.heap[0]
    if (first === undefined || this.closed) return
    for (const at of this.alarms.keys()) if (at <= first.at) return
    const { at } = first
    // A clock that is behind by less than the tolerance still has to be slept on.
    const rest = Math.max(at - this.now(), 0)
    const alarm = this.run(
      Effect.andThen(
        this.clock.sleep(Duration.millis(rest)),
        Effect.sync(() => {
          this.alarms.delete(at)
          this.fire()
        })
      )
    )
    if (alarm.pollUnsafe() === undefined) this.alarms.set(at, alarm)
  }

  private fire(): void {
    if (this.closed) return
    const now = this.now()
    while (this.heap.length > 0) {
      const first = this.heap[0]!
      if (first.run !== undefined && first.at > now + tolerance) break
      const { run } = this.pop()
      first.run = undefined
      run?.()
    }
    this.after()
    this.arm()
  }

  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.closed = true
    return Fiber.interruptAll([...this.alarms.values()])
  })
}

const before = (self: Timer, that: Timer): boolean =>
  self.at < that.at || (self.at === that.at && self.order < that.order)
