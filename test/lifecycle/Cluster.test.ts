/**
 * Runners that come, go, stop and lose the store, at random: no key ever has two processes, no state is overwritten by an
 * older one, and in the end each key that is kept is up once. The same runs find the violation when a runner has no lease
 * or no watchdog.
 */
import { assert, describe, it } from "@effect/vitest"
import { Child, ShutdownPlan } from "@treeline/core"
import { PoolEntity } from "@treeline/core/cluster"
import { SimulatedPlatform } from "@treeline/core/testing"
import { Effect, Exit, type Fiber, Layer, Logger, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { advance, lives, Simulation, stubborn } from "../support/Actors.ts"
import * as Cluster from "../support/Cluster.ts"
import * as Random from "../support/Random.ts"

const Work = PoolEntity.make("Work", { endpoint: Schema.String })

const runs = Number(process.env["TREELINE_CLUSTER_RUNS"] ?? 12)
const steps = 40
const keys = Array.from({ length: 6 }, (_, index) => `key-${index}`)

/** One run, as it follows from its seed: what was violated, and what was done. */
const run = (seed: number, options: Cluster.RunnerOptions) =>
  Effect.gen(function*() {
    const random = Random.make(seed)
    const draw = (below: number) => Math.floor(random() * below)
    const pick = <A>(items: ReadonlyArray<A>): A | undefined => items[draw(items.length)]
    const simulation = yield* Simulation
    const cluster = yield* Cluster.make
    const script: Array<string> = []
    const violations: Array<string> = []
    const saved = new Map<string, number>()
    let now = 0

    const live = () => {
      const copies = new Map<string, number>()
      return PoolEntity.layer(Work, {
        build: (key) =>
          Effect.as(Effect.sleep(draw(500)), {
            child: Child.make("child", {
              command: SimulatedPlatform.command(random() < 0.5 ? lives : stubborn, { name: key }),
              shutdown: ShutdownPlan.terminate({ within: draw(3000) })
            }),
            endpoint: () => Effect.succeed(key)
          }),
        hooks: {
          restore: ({ key }) => Effect.sync(() => void copies.set(key, (saved.get(key) ?? 0) + 1)),
          retire: ({ key }) =>
            Effect.andThen(
              Effect.sleep(draw(1500)),
              Effect.sync(() => {
                const version = copies.get(key)!
                if (version <= (saved.get(key) ?? 0)) violations.push(`${key} is overwritten by an older state`)
                saved.set(key, version)
              })
            )
        },
        idle: { after: "2 minutes" }
      })
    }
    type Started = Cluster.Runner & {
      readonly client: Effect.Success<
        ReturnType<typeof PoolEntity.client<"Work", typeof Schema.String, typeof Schema.Never>>
      >
    }
    const runners: Array<Started> = []
    const start = Effect.gen(function*() {
      // The address of one that has gone is used again, if it left one.
      const taken = new Set(runners.flatMap((one) => one.isDead() ? [] : [one.address]))
      const port = [1, 2, 3, 4, 5].find((port) => !taken.has(`localhost:${port}`))!
      const runner = yield* cluster.runner(port, live(), options)
      runners.push({ ...runner, client: yield* Effect.provideContext(PoolEntity.client(Work), runner.context) })
    })
    const calls: Array<Fiber.Fiber<unknown, unknown>> = []
    const call = Effect.fnUntraced(function*(effect: Effect.Effect<unknown, unknown>) {
      calls.push(yield* Effect.forkDetach(Effect.timeout(Effect.exit(effect), 60_000)))
    })

    yield* start
    yield* start
    yield* advance(3000)
    for (let step = 0; step < steps && violations.length === 0; step++) {
      const key = pick(keys)!
      const runner = pick(runners.filter((one) => !one.isDead()))
      const what = draw(23)
      const say = (text: string) => script.push(`${now} ms: ${text}`)
      if (runner === undefined || (what < 2 && runners.length < 4)) {
        say(`a runner starts`)
        yield* start
      } else if (what < 10) {
        say(`${runner.address} asks for ${key}`)
        yield* call(runner.client(key).ensure)
      } else if (what < 11) {
        say(`${runner.address} touches ${key}`)
        yield* call(runner.client(key).touch)
      } else if (what < 12) {
        say(`${runner.address} shuts ${key} down`)
        yield* call(runner.client(key).shutdown)
      } else if (what < 14) {
        runner.link.broken = random() < 0.5 ? "requests" : "answers"
        say(`${runner.address} loses its ${runner.link.broken}`)
      } else if (what < 16) {
        runner.link.broken = undefined
        say(`${runner.address} reaches the store`)
      } else if (what < 17) {
        runner.link.latency = draw(1500)
        say(`${runner.address} waits ${runner.link.latency} ms for the store`)
      } else if (what < 19) {
        say(`${runner.address} stops`)
        yield* runner.stop
      } else if (what < 21) {
        say(`${runner.address} goes on`)
        yield* runner.resume
      } else if (what < 22) {
        say(`${runner.address} closes`)
        runners.splice(runners.indexOf(runner), 1)
        yield* Effect.forkDetach(runner.close)
      } else {
        const process = pick(yield* simulation.alive)
        say(`${process?.command} crashes`)
        if (process !== undefined) yield* simulation.kill(process.pid)
      }
      const ms = 100 + draw(4000)
      yield* advance(ms)
      now += ms
      for (const key of keys) {
        if ((yield* simulation.peakIncarnations(key)) > 1) violations.push(`${key} has two processes`)
      }
    }
    if (violations.length === 0) {
      for (const runner of runners) {
        runner.link.broken = undefined
        runner.link.latency = 0
        yield* runner.resume
      }
      if (runners.every((runner) => runner.isDead())) yield* start
      yield* advance(30_000)
      yield* advance(30_000)
      for (const key of keys) {
        if ((yield* simulation.peakIncarnations(key)) > 1) violations.push(`${key} has two processes`)
      }
      const kept = [...new Set(cluster.unanswered().flatMap((line) => line.startsWith("Keep ") ? [line.slice(5)] : []))]
      const up = (yield* simulation.alive).map(({ command }) => command)
      if (up.sort().join() !== kept.sort().join()) violations.push(`kept are ${kept.join()}, up are ${up.join()}`)
    }
    for (const fiber of calls) fiber.interruptUnsafe()
    yield* advance(5000)
    return { violations, script, runners, launches: yield* simulation.launches }
  })

/** Runs it on a system of its own, and looks that nothing is left of it. */
const alone = (seed: number, options: Cluster.RunnerOptions = {}) =>
  Effect.gen(function*() {
    const simulation = yield* Simulation
    const scope = yield* Scope.make()
    const result = yield* Scope.provide(run(seed, options), scope)
    const closing = yield* Effect.forkDetach(
      Effect.andThen(
        Effect.forEach(result.runners, ({ close }) => close, { concurrency: "unbounded", discard: true }),
        Scope.close(scope, Exit.void)
      )
    )
    for (let waited = 0; closing.pollUnsafe() === undefined && waited < 120_000; waited += 1000) yield* advance(1000)
    const left = (yield* simulation.alive).map(({ command }) => command)
    return { ...result, violations: [...result.violations, ...left.map((command) => `${command} is left`)] }
  }).pipe(
    Effect.provide([SimulatedPlatform.layer(), Logger.layer([])]),
    Effect.provide(Layer.fresh(TestClock.layer()))
  )

describe("a cluster", () => {
  it.effect(
    `never two, nothing overwritten, all up in the end: ${runs} runs from seed ${Random.seed}`,
    () =>
      Effect.gen(function*() {
        let launches = 0
        for (let at = 0; at < runs; at++) {
          const seed = (Random.seed + at) >>> 0
          const result = yield* alone(seed)
          assert.deepStrictEqual(result.violations, [], `TREELINE_SEED=${seed}\n${result.script.join("\n")}`)
          launches += result.launches
        }
        assert.isAbove(launches, runs)
      }),
    300_000
  )

  for (const without of ["watchdog", "lease"] as const) {
    it.effect(
      `control: without a ${without} it is found`,
      () =>
        Effect.gen(function*() {
          for (let seed = 1; seed <= 40; seed++) {
            const { violations } = yield* alone(seed, { without })
            if (violations.some((violation) => violation.endsWith("has two processes"))) return
          }
          assert.fail("not within 40 runs")
        }),
      300_000
    )
  }
})
