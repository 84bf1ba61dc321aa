/** Pools on the simulated system, and what is seen of them. */
import { Pool, type PoolStatus } from "@treeline/core"
import { type Program } from "@treeline/core/testing"
import { Effect, Stream } from "effect"
import { lives, process } from "./Actors.ts"

/** Keeps the state of keys, as a store elsewhere would. */
export class Store {
  readonly saved = new Map<string, string>()
  /** What the next savings fail with, one after another. */
  readonly failures: Array<string> = []
  /** Local copies by key. */
  readonly local = new Map<string, string>()
  /** What happened, in order. */
  readonly log: Array<string> = []
  /** How long a saving takes, ms. */
  slow = 0

  readonly hooks: Pool.Hooks<never, never> = {
    restore: ({ key }) =>
      Effect.sync(() => {
        this.log.push(`restore ${key}`)
        this.local.set(key, this.saved.get(key) ?? "")
      }),
    retire: ({ key }) =>
      Effect.andThen(
        Effect.sleep(this.slow),
        Effect.suspend(() => {
          const failure = this.failures.shift()
          this.log.push(failure === undefined ? `save ${key}` : `save ${key}: ${failure}`)
          if (failure !== undefined) return Effect.fail(new Error(failure))
          this.saved.set(key, this.local.get(key) ?? "")
          return Effect.void
        })
      )
  }
}

type Options = Omit<Parameters<typeof Pool.make<void>>[0], "build" | "hooks"> & {
  /** Default: a program that lives until it is ended. */
  readonly program?: (key: string) => Program.Program
  /** ms that a build takes; default 0. */
  readonly buildTime?: number
  readonly store?: Store
}

/** A pool whose children run a program under the name of their key; `builds` are the keys as they were built. */
export const tenants = ({ buildTime = 0, program = () => lives, store, ...options }: Options = {}) =>
  Effect.gen(function*() {
    const builds: Array<string> = []
    const pool = yield* Pool.make({
      ...options,
      hooks: store?.hooks,
      build: (key) =>
        Effect.as(
          Effect.andThen(Effect.sync(() => builds.push(key)), buildTime === 0 ? Effect.void : Effect.sleep(buildTime)),
          { child: process(key, program(key)) }
        )
    })
    return { pool, builds, events: yield* record(pool) }
  })

/** The events of a pool, as they come. */
export const record = <A, E>(pool: Pool.Pool<A, E>) =>
  Effect.gen(function*() {
    const events: Array<PoolStatus.PoolEvent> = []
    yield* Effect.forkScoped(
      Stream.runForEach(pool.events, (event) => Effect.sync(() => void events.push(event))),
      { startImmediately: true }
    )
    return events
  })

/** The states that a key went through; of those in which it is ended, why. */
export const path = (events: ReadonlyArray<PoolStatus.PoolEvent>, key: string): ReadonlyArray<string> =>
  events.flatMap(({ change, key: of }) => {
    if (of !== key || change._tag !== "State" || change.from._tag === change.to._tag) return []
    return [change.to._tag === "Retiring" ? `Retiring ${change.to.reason}` : change.to._tag]
  })

/** The states of all keys: `a Live, b Waiting`. */
export const states = <A, E>(pool: Pool.Pool<A, E>): Effect.Effect<string> =>
  Effect.map(pool.status, ({ keys }) => keys.map(({ key, state }) => `${key} ${state._tag}`).join(", "))

/** One key, as it is now. */
export const keyOf = <A, E>(pool: Pool.Pool<A, E>, key: string) =>
  Effect.map(pool.status, ({ keys }) => keys.find((one) => one.key === key))
