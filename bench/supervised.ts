/**
 * Many children under one supervisor, on the simulated system so that no process costs anything: how long they take to
 * start, to crash once and be up again, and to stop; what a child costs in heap. Prints one line of JSON.
 */
import { Child, Restart, ShutdownPlan, Supervisor } from "@treeline/core"
import { Program, SimulatedPlatform } from "@treeline/core/testing"
import { Effect, Exit, References, Scope } from "effect"
import * as v8 from "node:v8"
import * as vm from "node:vm"

const count = Number(process.argv[2])
v8.setFlagsFromString("--expose-gc")
const collect = vm.runInNewContext("gc") as () => void

const heap = (): number => {
  collect()
  collect()
  return process.memoryUsage().heapUsed / 1024
}

const { Simulation } = SimulatedPlatform

const childAt = (index: number) =>
  Child.make(`child-${index}`, {
    command: SimulatedPlatform.command([Program.endure]),
    restart: Restart.permanent({ backoff: Restart.exponential({ first: 1, jitter: 0 }) }),
    shutdown: ShutdownPlan.terminate()
  })

/** CPU time in ms, which other programs on the machine do not change. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const before = process.cpuUsage()
    return Effect.map(effect, () => {
      const { system, user } = process.cpuUsage(before)
      return (user + system) / 1000
    })
  })

/** Until every child is ready in its incarnation `number`. */
const awaitAll = (supervisor: Supervisor.Supervisor, number: number): Effect.Effect<void> =>
  Effect.flatMap(
    supervisor.children,
    (statuses) =>
      statuses.every(({ incarnation, state }) => incarnation === number && state._tag === "Ready")
        ? Effect.void
        : Effect.andThen(Effect.sleep(5), awaitAll(supervisor, number))
  )

const round = (count: number) =>
  Effect.gen(function*() {
    const simulation = yield* Simulation
    const scope = yield* Scope.make()
    const before = heap()
    let supervisor!: Supervisor.Supervisor
    const started = yield* timed(Effect.gen(function*() {
      const children = Array.from({ length: count }, (_, index) => childAt(index))
      supervisor = yield* Scope.provide(
        Supervisor.start(children, { intensity: { max: 2 * count, within: "1 minute" } }),
        scope
      )
      yield* awaitAll(supervisor, 1)
    }))
    const each = (heap() - before) / count
    const restarted = yield* timed(Effect.gen(function*() {
      for (const { pid } of yield* simulation.alive) yield* simulation.kill(pid)
      yield* awaitAll(supervisor, 2)
    }))
    const stopped = yield* timed(supervisor.stopAll)
    yield* Scope.close(scope, Exit.void)
    return { started, restarted, stopped, each }
  }).pipe(Effect.provide(SimulatedPlatform.layer({ journal: 1 })))

/** What is logged would be in the answer. */
const measure = (count: number) =>
  Effect.runPromise(Effect.provideService(round(count), References.MinimumLogLevel, "None"))

// The first round warms up the code.
await measure(300)
console.log(JSON.stringify(await measure(count)))
