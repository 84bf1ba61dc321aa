/**
 * Time and order of a simulated run: a clock that only goes when it is told to, and a scheduler that runs what is ready in
 * an order drawn by a seed. The same seed gives the same run.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import * as Scheduler from "effect/Scheduler"
import { monotonic } from "../../internal/Time.ts"
import { random } from "./Seed.ts"

/** How often a fiber that could go on gives way to another one. */
const yieldRate = 0.1

/** Runs ready tasks in a random order; tells when none is left. */
class SeededScheduler implements Scheduler.Scheduler {
  readonly executionMode = "async"
  private readonly next: () => number
  private readonly tasks: Array<() => void> = []
  private readonly idle: Array<() => void> = []
  private armed = false
  private readonly dispatcher: Scheduler.SchedulerDispatcher = {
    scheduleTask: (task) => {
      this.tasks.push(task)
      this.arm()
    },
    flush: () => this.flush()
  }

  constructor(seed: number) {
    this.next = random(seed)
  }

  shouldYield(): boolean {
    return this.next() < yieldRate
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return this.dispatcher
  }

  private arm(): void {
    if (this.armed) return
    this.armed = true
    void Promise.resolve().then(() => this.flush())
  }

  private flush(): void {
    this.armed = false
    while (true) {
      if (this.tasks.length === 0) {
        const waiter = this.idle.shift()
        if (waiter === undefined) return
        waiter()
        continue
      }
      const index = Math.floor(this.next() * this.tasks.length)
      const task = this.tasks[index]!
      // The order is random anyway.
      this.tasks[index] = this.tasks[this.tasks.length - 1]!
      this.tasks.pop()
      task()
    }
  }

  /** Completes when nothing is ready to run. */
  readonly whenIdle: Effect.Effect<void> = Effect.callback<void>((resume) => {
    this.idle.push(() => resume(Effect.void))
    this.arm()
  })
}

interface Sleeper {
  readonly at: number
  readonly wake: () => void
}

const startsAt = 1_000_000_000_000

class SteppedClock implements Clock.Clock {
  /** Monotonic ms. */
  now = 0
  /** How far the wall clock has been set away from its start, ms. */
  shift = 0
  private readonly sleepers: Array<Sleeper> = []

  currentTimeMillisUnsafe(): number {
    return startsAt + this.now + this.shift
  }

  currentTimeNanosUnsafe(): bigint {
    return BigInt(Math.round(this.currentTimeMillisUnsafe() * 1_000_000))
  }

  monotonicTimeNanosUnsafe(): bigint {
    return BigInt(Math.round(this.now * 1_000_000))
  }

  readonly currentTimeMillis = Effect.sync(() => this.currentTimeMillisUnsafe())
  readonly currentTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())
  readonly monotonicTimeNanos = Effect.sync(() => this.monotonicTimeNanosUnsafe())

  sleep(duration: Duration.Duration): Effect.Effect<void> {
    const ms = Duration.toMillis(duration)
    if (ms <= 0) return Effect.yieldNow
    if (!Number.isFinite(ms)) return Effect.never
    return Effect.callback<void>((resume) => {
      const sleeper: Sleeper = { at: this.now + ms, wake: () => resume(Effect.void) }
      // Kept in order; most sleeps are short, so the place is near the start.
      let index = this.sleepers.findIndex(({ at }) => at > sleeper.at)
      if (index < 0) index = this.sleepers.length
      this.sleepers.splice(index, 0, sleeper)
      return Effect.sync(() => {
        const at = this.sleepers.indexOf(sleeper)
        if (at >= 0) this.sleepers.splice(at, 1)
      })
    })
  }

  /** Goes to the next moment up to `limit` at which somebody wants to wake, and wakes them; false when there is none. */
  wakeNext(limit: number): boolean {
    const first = this.sleepers[0]
    if (first === undefined || first.at > limit) return false
    this.now = first.at
    const count = this.sleepers.findIndex(({ at }) => at > first.at)
    for (const { wake } of this.sleepers.splice(0, count < 0 ? this.sleepers.length : count)) wake()
    return true
  }
}

/** What drives a run. */
export interface Timeline {
  /** Whether time stands still between two steps, so that nothing is ready to run after each. */
  readonly stepped: boolean
  /** Lets so many ms pass; whatever falls due happens in its order. */
  readonly advance: (ms: number) => Effect.Effect<void>
  /** Monotonic ms since the start. */
  readonly now: () => number
  /** Wall clock, ms. */
  readonly wallNow: () => number
  /** Sets the wall clock, and no other, by so many ms. */
  readonly shiftWallClock: (ms: number) => void
  /** The clock and the scheduler. */
  readonly services: Context.Context<never>
}

/** A timeline that stands still until it is advanced. */
export const make = (seed: number): Timeline => {
  const scheduler = new SeededScheduler(seed)
  const clock = new SteppedClock()
  return {
    stepped: true,
    advance: (ms) =>
      Effect.gen(function*() {
        const until = clock.now + ms
        yield* scheduler.whenIdle
        while (clock.wakeNext(until)) yield* scheduler.whenIdle
        clock.now = until
      }),
    now: () => clock.now,
    wallNow: () => clock.currentTimeMillisUnsafe(),
    shiftWallClock: (ms) => {
      clock.shift += ms
    },
    // Spans and logs of thousands of runs are of no use to anybody.
    services: Context.make(Clock.Clock, clock).pipe(
      Context.add(Scheduler.Scheduler, scheduler),
      Context.add(References.TracerEnabled, false),
      Context.add(References.MinimumLogLevel, "None")
    )
  }
}

/** A step of live time takes so long at least and at most, ms. */
const liveSteps = { min: 10, max: 50 } as const

/** Time passes by itself, in short steps: for platforms whose processes are real. */
export const live = (): Timeline => {
  const clock = Clock.Clock.defaultValue()
  const now = () => monotonic(clock)
  const start = now()
  return {
    stepped: false,
    advance: (ms) => clock.sleep(Duration.millis(Math.min(Math.max(ms, liveSteps.min), liveSteps.max))),
    now: () => now() - start,
    wallNow: () => clock.currentTimeMillisUnsafe(),
    shiftWallClock: () => {},
    services: Context.make(Clock.Clock, clock)
  }
}
