/** What is known of one key of a pool, and of one incarnation of it. What happens to them is in PoolActor. */
import * as Deferred from "effect/Deferred"
import type * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import type { ChildEnd } from "../ChildEnd.ts"
import type { PoolStep, Unfinished } from "../Errors.ts"
import type { Blocked, EnsureError, Handle } from "../Pool.ts"
import type * as PoolState from "../PoolState.ts"
import type * as ShutdownPlan from "../ShutdownPlan.ts"
import type { ChildActor } from "./ChildActor.ts"
import * as Policy from "./PoolPolicy.ts"

/** All who wait for a key. */
export interface Request<A, E> {
  readonly done: Deferred.Deferred<Life<A, E>, E | EnsureError>
  callers: number
  /** Callers who get a lease. */
  pins: number
  /** What they got. */
  life: Life<A, E> | undefined
}

/** Why an incarnation ends, and by which plan. */
export interface Leaving {
  readonly reason: PoolState.Reason
  readonly plan: ShutdownPlan.Validated | undefined
}

/** One incarnation of a key. */
export class Life<A, E> {
  readonly entry: Entry<A, E>
  readonly incarnation: number
  readonly startedAt: number
  readonly scope: Scope.Closeable = Scope.makeUnsafe()
  step: PoolStep
  /** Wrapped wherever it is kept: whoever prints what holds it prints no secret. */
  token: Redacted.Redacted<string> | undefined = undefined
  revoke: () => void = () => {}
  actor: ChildActor | undefined = undefined
  /** Whoever asks is given it. */
  isLive = false
  /** What they are given; it was live once if there is one, and may have changed the state of its key. */
  handle: Handle<A> | undefined = undefined
  /** Its state is saved, or given up. */
  saved = false
  limits: Policy.Limits = { idle: undefined, age: undefined, uses: undefined }
  readyAt = 0
  usedAt = 0
  uses = 0
  leases = 0
  /** Raised by everything that counts as use, so that a decision can tell whether there was any meanwhile. */
  stamp = 0
  /** It is to be ended to make room, if it says that it is not at work. */
  unwanted = false
  busyUntil = Number.NEGATIVE_INFINITY
  leaving: Leaving | undefined = undefined
  /** How its child ended by itself. */
  end: ChildEnd | null = null
  readonly left = Deferred.makeUnsafe<void>()
  /** Why it is not there any more. */
  readonly lost = Deferred.makeUnsafe<string>()
  /** Makes its fiber look again. */
  wake = Deferred.makeUnsafe<void>()
  /** Its fiber waits for the end of all leases, and for no time. */
  parked = false
  /** What was given up and takes no notice of it. */
  private readonly leftBehind: Array<readonly [step: Unfinished["step"], fiber: Fiber.Fiber<unknown, unknown>]> = []

  /** `startedAt`: monotonic ms. */
  constructor(entry: Entry<A, E>, incarnation: number, startedAt: number, step: PoolStep) {
    this.entry = entry
    this.incarnation = incarnation
    this.startedAt = startedAt
    this.step = step
  }

  /** A step was given up and goes on nevertheless. */
  leaveBehind(step: Unfinished["step"], fiber: Fiber.Fiber<unknown, unknown>): void {
    this.leftBehind.push([step, fiber])
  }

  /** Steps that were given up and have not ended. */
  get unfinished(): ReadonlyArray<Unfinished["step"]> {
    return this.leftBehind.flatMap(([step, fiber]) => fiber.pollUnsafe() === undefined ? [step] : [])
  }

  get isUsedUp(): boolean {
    return Policy.isUsedUp(this.limits, this)
  }

  use(now: number): void {
    this.usedAt = now
    this.stamp++
  }

  /** Whatever somebody's error says, the token is not in what the pool tells. */
  scrub(text: string): string {
    return this.token === undefined ? text : text.replaceAll(Redacted.value(this.token), "<redacted>")
  }
}

/** What is known of a key; there is none for a key of which there is nothing. */
export class Entry<A, E> {
  readonly key: string
  state: PoolState.KeyState = { _tag: "Absent" }
  request: Request<A, E> | undefined = undefined
  /** The incarnation in all states but `Absent` and `Waiting`. */
  life: Life<A, E> | undefined = undefined
  /** There is no child any more, and its state could not be saved. */
  isUnsaved = false
  /** In `Retiring`: what is left at its end. */
  over = Deferred.makeUnsafe<Blocked | undefined>()
  /** In `Waiting`: its limit. */
  timer: Fiber.Fiber<unknown> | undefined = undefined

  constructor(key: string) {
    this.key = key
  }
}
