/** The pools of a configuration, and how they follow another one. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type { Child } from "../Child.ts"
import * as ServiceChild from "../daemon/ServiceChild.ts"
import type { Config, Pool as PoolConfig } from "../daemon/ServiceConfig.ts"
import type { Applied } from "../daemon/Services.ts"
import { type ChildClosed, InvalidSpec } from "../Errors.ts"
import * as Pool from "../Pool.ts"
import type { PoolEvent, PoolStatus } from "../PoolStatus.ts"
import type { ProcessPlatform } from "../ProcessPlatform.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import type { Blocking } from "../Supervisor.ts"

type ConfiguredPool = Pool.Pool<void, InvalidSpec>

interface Entry {
  readonly config: PoolConfig
  readonly pool: ConfiguredPool
  /** Ends all its children; all who ask wait for the one end. */
  readonly close: Effect.Effect<void>
}

/** What another configuration has changed. */
export interface Changes {
  readonly unchanged: ReadonlyArray<string>
  readonly applied: ReadonlyArray<Applied>
}

export interface Hooks {
  readonly onEvent: (pool: string, event: PoolEvent) => void
  /** Called with each child when it starts. */
  readonly onChild: (child: Child) => Effect.Effect<void>
}

/** The name of a pool's child among all children. */
export const childName = (pool: string, key: string): string => `${pool}/${key}`

export class HostPools {
  private readonly hooks: Hooks
  private readonly services: Context.Context<ProcessPlatform>
  private readonly entries = new Map<string, Entry>()
  private closing = false
  /** The children that are there, by their names. */
  private readonly children = new Map<string, Child>()

  constructor(services: Context.Context<ProcessPlatform>, hooks: Hooks) {
    this.services = services
    this.hooks = hooks
  }

  get all(): ReadonlyMap<string, ConfiguredPool> {
    return new Map([...this.entries].map(([name, { pool }]) => [name, pool]))
  }

  /** What this one begins is ended by `close`. */
  add(name: string, config: PoolConfig): Effect.Effect<void, InvalidSpec> {
    return Effect.uninterruptible(Effect.gen({ self: this }, function*() {
      const scope = yield* Scope.make()
      const options = ServiceChild.poolOptions(name, config)
      const pool = yield* Pool.make({
        ...options,
        build: (key: string) =>
          Effect.map(options.build(key), (built) => ({
            ...built,
            endpoint: (child: Child) =>
              Effect.suspend(() => {
                this.children.set(childName(name, key), child)
                return this.hooks.onChild({ ...child, id: childName(name, key) })
              })
          })),
        onEvent: (event) => {
          const { change, key } = event
          if (change._tag === "State" && change.to._tag === "Absent") this.children.delete(childName(name, key))
          this.hooks.onEvent(name, event)
        }
      }).pipe(Effect.provideContext(Context.add(this.services, Scope.Scope, scope)))
      const close = yield* Effect.cached(Effect.uninterruptible(Scope.close(scope, Exit.void)))
      if (this.closing) {
        yield* close
        return yield* new InvalidSpec({ field: shownName(name), problem: "all pools are being ended" })
      }
      this.entries.set(name, { config, pool, close })
    }))
  }

  /** Whether all of them can be made, before anything is touched. */
  static check(pools: Config["pools"]): Result.Result<void, InvalidSpec> {
    return Result.gen(function*() {
      for (const [name, config] of Object.entries(pools)) {
        yield* Result.mapError(
          ServiceChild.validatePool(name, config),
          ({ field, problem }) => new InvalidSpec({ field: `pools.${field}`, problem })
        )
      }
    })
  }

  /** One that changed is ended before the next one begins, so that no key has two children. */
  readonly apply = (next: Config["pools"]): Effect.Effect<Changes> =>
    Effect.gen({ self: this }, function*() {
      const unchanged: Array<string> = []
      const changes: Array<Effect.Effect<Applied>> = []
      for (const [name, entry] of this.entries) {
        const config = next[name]
        if (config === undefined) {
          changes.push(Effect.as(this.remove(name), applied(name, "removed")))
        } else if (Equal.equals(config, entry.config)) unchanged.push(shownName(name))
        else {
          const fields = Object.keys({ ...config, ...entry.config }) as Array<keyof PoolConfig>
          const differing = fields.filter((field) => !Equal.equals(config[field], entry.config[field]))
          // Until then the old one refuses who asks for a key. Where none follows, the next reload adds it.
          const next = Effect.tapError(this.add(name, config), () => Effect.sync(() => void this.entries.delete(name)))
          changes.push(this.tried(Effect.andThen(entry.close, next), applied(name, "changed", differing)))
        }
      }
      for (const [name, config] of Object.entries(next)) {
        if (!this.entries.has(name)) changes.push(this.tried(this.add(name, config), applied(name, "added")))
      }
      return { unchanged, applied: yield* Effect.all(changes, { concurrency: "unbounded" }) }
    })

  private tried(change: Effect.Effect<void, InvalidSpec>, done: Applied): Effect.Effect<Applied> {
    return Effect.match(change, {
      onFailure: ({ message }) => ({ ...done, problem: message }),
      onSuccess: () => done
    })
  }

  private remove(name: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      const close = this.entries.get(name)?.close ?? Effect.void
      return Effect.andThen(close, Effect.sync(() => void this.entries.delete(name)))
    })
  }

  readonly status: Effect.Effect<ReadonlyArray<PoolStatus>> = Effect.suspend(() =>
    Effect.forEach([...this.entries.values()], ({ pool }) => pool.status)
  )

  /** The children that are being ended. */
  readonly blocking: Effect.Effect<ReadonlyArray<Blocking>> = Effect.gen({ self: this }, function*() {
    const found: Array<Blocking> = []
    for (const { keys, pool } of yield* this.status) {
      for (const { key, state } of keys) {
        if (state._tag !== "Retiring") continue
        const name = childName(pool, key)
        const child = this.children.get(name)
        const stopping = child === undefined ? undefined : (yield* child.status).state
        const { pid, since, step } = stopping?._tag === "Stopping"
          ? stopping
          : { pid: null, since: state.since, step: state.reason }
        found.push({ child: name, pid, step, since })
      }
    }
    return found
  })

  /** Ends all children, each by its own plan, side by side. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.closing = true
    return Effect.forEach([...this.entries.values()], ({ close }) => close, { concurrency: "unbounded", discard: true })
  })

  /** Tells the children that there are something; one that is on its way out need not hear it. */
  tell(what: (child: Child) => Effect.Effect<void, ChildClosed>): Effect.Effect<void> {
    return Effect.suspend(() =>
      Effect.forEach([...this.children.values()], (child) => Effect.ignore(what(child)), {
        concurrency: "unbounded",
        discard: true
      })
    )
  }

  /** Kills all children, also while they are being ended. */
  readonly kill: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach(
      [...this.entries.values()],
      ({ pool }) =>
        Effect.flatMap(pool.status, ({ keys }) =>
          Effect.forEach(keys, ({ key }) =>
            Effect.ignore(pool.shutdown(key, ShutdownPlan.kill)), {
            concurrency: "unbounded",
            discard: true
          })),
      { concurrency: "unbounded", discard: true }
    )
  )
}

/** A pool among the services of a report. */
const shownName = (name: string): string => `pools.${name}`

const applied = (name: string, change: Applied["change"], fields: ReadonlyArray<string> = []): Applied => ({
  service: shownName(name),
  change,
  fields,
  problem: null
})
