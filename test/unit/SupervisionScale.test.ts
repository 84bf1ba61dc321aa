/** What many children cost grows with their number, and no faster. In real time, on the simulated system. */
import { assert, it } from "@effect/vitest"
import { Restart, Supervisor } from "@treeline/core"
import { SimulatedPlatform } from "@treeline/core/testing"
import { Effect, References } from "effect"
import { lives, process as child, Simulation } from "../support/Actors.ts"
import { eventually } from "../support/Eventually.ts"

const restart = Restart.permanent({ backoff: Restart.exponential({ first: 1, jitter: 0 }) })

const cpu = (): number => {
  const { system, user } = process.cpuUsage()
  return (user + system) / 1000
}

/** CPU ms for `count` children to start, crash once, come back, and stop. */
const lifecycle = (count: number) =>
  Effect.gen(function*() {
    const simulation = yield* Simulation
    let ready = 0
    const startedAt = cpu()
    const supervisor = yield* Supervisor.start(
      Array.from({ length: count }, (_, index) => child(`w${index}`, lives, { restart })),
      {
        intensity: { max: count, within: "1 hour" },
        onEvent: (event) => {
          if (event._tag !== "Child" || event.event.change._tag !== "State") return
          if (event.event.change.to._tag === "Ready") ready++
        }
      }
    )
    yield* eventually("all are ready", () => ready === count, { within: 60_000 })
    for (const { pid } of yield* simulation.alive) yield* simulation.kill(pid)
    yield* eventually("all are back", () => ready === 2 * count, { within: 60_000 })
    const { children, restartsInWindow } = yield* supervisor.status
    assert.strictEqual(restartsInWindow, count)
    assert.isTrue(children.every(({ incarnation, state }) => incarnation === 2 && state._tag === "Ready"))
    yield* supervisor.stopAll
    assert.deepStrictEqual(yield* simulation.alive, [])
    return cpu() - startedAt
  }).pipe(
    Effect.scoped,
    Effect.provide(SimulatedPlatform.layer({ journal: 1 })),
    // A line for each restart is no cost of supervision.
    Effect.provideService(References.MinimumLogLevel, "None")
  )

it.live(
  "5,000 children start, crash, come back and stop in at most twenty times the time of 500",
  () =>
    Effect.gen(function*() {
      yield* lifecycle(200)
      const few = yield* lifecycle(500)
      const many = yield* lifecycle(5000)
      assert.isBelow(many / few, 20, `${few} ms for 500, ${many} ms for 5,000`)
    }),
  180_000
)
