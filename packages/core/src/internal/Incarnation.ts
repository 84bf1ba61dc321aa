/** One life of a child's body, and the probes that watch it. */
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { ChildEnd } from "../ChildEnd.ts"
import type { Running } from "../ChildSpec.ts"
import type { ProbeFailure } from "../Errors.ts"

export class Incarnation {
  readonly number: number
  readonly scope: Scope.Closeable
  readonly startedAt: number
  fiber: Fiber.Fiber<unknown> | undefined = undefined
  running: Running | undefined = undefined
  /** The actor knows of the launch and watches for readiness, where there is any to watch for. */
  readonly watched = Deferred.makeUnsafe<void>()
  readiness: Fiber.Fiber<unknown> | undefined = undefined
  liveness: ReadonlyArray<Fiber.Fiber<unknown>> = []
  /** Probes that were interrupted and may still be cleaning up after an attempt. */
  private retired: ReadonlyArray<Fiber.Fiber<unknown>> = []
  /** What each liveness probe that is not content says. */
  readonly degraded = new Map<number, ProbeFailure>()
  /** Monotonic ms. */
  readyAt: number | undefined = undefined
  /** How long it was ready, ms; the time in which its tree was ended does not count. */
  readyFor = 0
  end: ChildEnd | undefined = undefined
  /** The last lines that it wrote, when it ended by itself. */
  outputTail = ""
  step = ""

  /** `startedAt`: monotonic ms. */
  constructor(number: number, scope: Scope.Closeable, startedAt: number) {
    this.number = number
    this.scope = scope
    this.startedAt = startedAt
  }

  /** In states and events. */
  get identity() {
    return { incarnation: this.number, pid: this.running?.tree?.pid ?? null }
  }

  /** Of logs about it, beside the child's path. */
  get annotations(): Record<string, unknown> {
    const tree = this.running?.tree
    return { incarnation: this.number, ...(tree === undefined ? {} : { pid: tree.pid }) }
  }

  stopProbes(): void {
    const fibers = this.readiness === undefined ? this.liveness : [...this.liveness, this.readiness]
    for (const fiber of fibers) fiber.interruptUnsafe()
    this.readiness = undefined
    this.liveness = []
    this.retired = [...this.retired, ...fibers].filter((fiber) => fiber.pollUnsafe() === undefined)
  }

  /** The probes that were stopped are gone, so that the next ones overlap with none. */
  get probesGone(): Effect.Effect<void> {
    return Effect.suspend(() => Effect.asVoid(Fiber.awaitAll(this.retired)))
  }

  /** The same within `cap` ms: an attempt that can't be interrupted is left behind. */
  awaitProbes(clock: Clock.Clock, cap: number): Effect.Effect<void> {
    return Effect.raceFirst(this.probesGone, clock.sleep(Duration.millis(cap)))
  }
}
