/** What it costs to ask for a key that is there, in a pool and in Effect's RcMap: prints rates per second as JSON. */
import { Child, Pool } from "@treeline/core"
import { Effect, Option, RcMap, References, type Scope } from "effect"
import { performance } from "node:perf_hooks"
import { collect } from "./Garbage.ts"

/** Keys that are there. */
const keys = Array.from({ length: 1000 }, (_, index) => `tenant-${index}`)

const asks = 200_000
const rounds = 7

/** Asks per second, in the best round: the others were disturbed. */
const rate = <E>(ask: (key: string) => Effect.Effect<unknown, E>): Effect.Effect<number, E> =>
  Effect.gen(function*() {
    let best = 0
    for (let round = 0; round < rounds; round++) {
      collect()
      const startedAt = performance.now()
      for (let at = 0; at < asks; at++) yield* ask(keys[at % keys.length]!)
      best = Math.max(best, asks / (performance.now() - startedAt) * 1000)
    }
    return best
  })

const program: Effect.Effect<Record<string, number>, unknown, Scope.Scope> = Effect.gen(function*() {
  const pool = yield* Pool.make({
    build: () => Effect.succeed({ child: Child.effect("worker", Effect.never) }),
    idle: { after: "1 hour" },
    capacity: { max: 2000 }
  })
  const map = yield* RcMap.make({
    lookup: (key: string) => Effect.acquireRelease(Effect.succeed(key), () => Effect.void),
    idleTimeToLive: "1 hour"
  })
  yield* Effect.forEach(keys, (key) => pool.ensure(key), { concurrency: "unbounded" })
  yield* Effect.forEach(keys, (key) => Effect.scoped(RcMap.get(map, key)))
  const { token } = yield* pool.ensure("tenant-999")
  const found = yield* pool.lookupToken(token)
  if (Option.isNone(found)) throw new Error("no token")
  return {
    ensure: yield* rate(pool.ensure),
    touch: yield* rate(pool.touch),
    lease: yield* rate((key) => Effect.scoped(pool.lease(key))),
    use: yield* rate((key) => pool.use(key, () => Effect.void)),
    lookup: yield* rate(() => pool.lookupToken(token)),
    get: yield* rate((key) => Effect.scoped(RcMap.get(map, key))),
    mapTouch: yield* rate((key) => RcMap.touch(map, key))
  }
})

const rates = await Effect.runPromise(
  program.pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
)
console.log(JSON.stringify(rates))
