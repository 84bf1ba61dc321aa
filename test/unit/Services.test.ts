/** Services of a configuration on the simulated system, and their reload. No real time passes. */
import { assert, describe, it } from "@effect/vitest"
import { Pool } from "@treeline/core"
import { ServiceChild, type ServiceConfig, Services } from "@treeline/core/daemon"
import { Program } from "@treeline/core/testing"
import { Effect, Fiber, Result } from "effect"
import {
  advance,
  exits,
  lives,
  onSystem,
  passing,
  type Services as SystemServices,
  settle,
  Simulation,
  stubborn,
  type SystemOptions,
  timed
} from "../support/Actors.ts"
import { configOf } from "../support/Configs.ts"

/** Writes a line when it is up, and ends a moment after it was asked to. */
const server = Program.make(Program.trap("SIGTERM", [Program.sleep(20), Program.exit(0)]), Program.endure)

const slow = Program.make(Program.sleep(500), Program.write("up\n"), Program.endure)

const programs = { server, other: server, lives, stubborn, job: exits(0), slow }

/** A test on a system that has these programs. */
const onServices = <Eff extends Effect.Effect<unknown, unknown, SystemServices>>(
  test: () => Generator<Eff, void, never>,
  options: SystemOptions = {}
) => onSystem(test, { programs, ...options })

const startServices = Effect.fnUntraced(function*(input: ServiceConfig.Input) {
  const story: Array<string> = []
  const services = yield* Services.start(configOf(input), {
    onEvent: (event) => {
      if (event._tag !== "Child" || event.event.change._tag !== "State") return
      const { from, to } = event.event.change
      if (from._tag !== to._tag && ["Starting", "Stopping"].includes(to._tag)) {
        story.push(`${event.event.child} ${to._tag}`)
      }
    }
  })
  yield* settle
  const states = Effect.map(
    services.supervisor.children,
    (children) => Object.fromEntries(children.map(({ id, state }) => [id, state._tag]))
  )
  const pids = Effect.map(
    services.supervisor.children,
    (children) => Object.fromEntries(children.map(({ id, state }) => [id, "pid" in state ? state.pid : null]))
  )
  return {
    ...services,
    story,
    states,
    pids,
    apply: (next: ServiceConfig.Input) => passing(services.reload(configOf(next)))
  }
})

const db = { command: "server" }
const cache = { command: "server" }
const web = { command: "server", dependsOn: ["db", "cache"] }

const problems = (report: Services.Report) => report.applied.filter(({ problem }) => problem !== null)

describe("a reload", () => {
  it.effect(
    "K11: a changed configuration restarts what it changes, and nothing else",
    onServices(function*() {
      const { apply, pids, story } = yield* startServices({ services: { db, cache, web } })
      const before = yield* pids
      story.length = 0
      const report = yield* apply({ services: { db: { ...db, args: ["-v"] }, cache, web } })
      const after = yield* pids
      assert.deepStrictEqual(report.applied, [{ service: "db", change: "changed", fields: ["args"], problem: null }])
      assert.deepStrictEqual(report.unchanged, ["cache", "web"])
      assert.deepStrictEqual([after["cache"], after["web"]], [before["cache"], before["web"]])
      assert.notStrictEqual(after["db"], before["db"])
      assert.deepStrictEqual(story, ["db Stopping", "db Starting"])
    })
  )

  it.effect(
    "the same configuration again touches nothing",
    onServices(function*() {
      const { apply, pids, story } = yield* startServices({ services: { db, cache, web } })
      const before = yield* pids
      story.length = 0
      const report = yield* apply({ services: { web, cache, db } })
      assert.deepStrictEqual([report.applied, yield* pids, story], [[], before, []])
    })
  )

  it.effect(
    "changed and removed ones stop from the top down, changed and new ones start from the bottom up",
    onServices(function*() {
      const { apply, states, story } = yield* startServices({
        services: {
          web: { command: "server", dependsOn: ["api"] },
          api: { command: "server", dependsOn: ["db"] },
          db,
          old: { command: "server", dependsOn: ["web"] }
        }
      })
      yield* passing(settle)
      story.length = 0
      const report = yield* apply({
        services: {
          web: { command: "other", dependsOn: ["api", "queue"] },
          api: { command: "other", dependsOn: ["db"] },
          db: { command: "other" },
          queue: { command: "server", dependsOn: ["db"] }
        }
      })
      yield* settle
      assert.deepStrictEqual(problems(report), [])
      assert.deepStrictEqual(story, [
        "old Stopping",
        "web Stopping",
        "api Stopping",
        "db Stopping",
        "db Starting",
        "api Starting",
        "queue Starting",
        "web Starting"
      ])
      assert.deepStrictEqual(yield* states, { web: "Ready", api: "Ready", db: "Ready", queue: "Ready" })
    })
  )

  it.effect(
    "the end of N independent ones takes as long as one",
    onServices(function*() {
      const all = (command: string) =>
        Object.fromEntries(
          ["a", "b", "c", "d"].map((
            name
          ) => [name, { command, shutdown: { steps: [{ action: "SIGTERM" as const, within: 1000 }] } }])
        )
      const { reload } = yield* startServices({ services: all("stubborn") })
      const { took } = yield* timed(reload(configOf({ services: all("lives") })))
      assert.isAtLeast(took, 1000)
      assert.isBelow(took, 1200)
    })
  )

  it.effect(
    "two services that swap their places: both are down before either starts",
    onServices(function*() {
      const { apply, story } = yield* startServices({ services: { a: { command: "server" }, b: { command: "other" } } })
      story.length = 0
      yield* apply({ services: { a: { command: "other" }, b: { command: "server" } } })
      assert.deepStrictEqual([story.slice(0, 2).sort(), story.slice(2).sort()], [
        ["a Stopping", "b Stopping"],
        ["a Starting", "b Starting"]
      ])
    })
  )

  it.effect(
    "K3: an unchanged paused one stays paused, a stopped one stopped; one that changed runs again",
    onServices(function*() {
      const { apply, states, supervisor } = yield* startServices({ services: { a: db, b: db, c: db, d: db } })
      const child = (name: string) => Effect.orDie(supervisor.child(name))
      for (const name of ["a", "b"]) yield* (yield* child(name)).pause
      for (const name of ["c", "d"]) yield* passing(supervisor.terminateChild(name))
      yield* apply({ services: { a: db, b: { command: "other" }, c: db, d: { command: "other" } } })
      yield* settle
      assert.deepStrictEqual(yield* states, { a: "Ready", b: "Ready", c: "Stopped", d: "Ready" })
      const paused = (yield* supervisor.children).map(({ id, paused }) => [id, paused])
      assert.deepStrictEqual(Object.fromEntries(paused), { a: true, b: false, c: false, d: false })
    })
  )

  it.effect(
    "a configuration that can't be used changes nothing",
    onServices(function*() {
      const { config, pids, reload, story } = yield* startServices({ services: { db, cache, web } })
      const before = yield* pids
      const first = yield* config
      story.length = 0
      const circle = { ...web, dependsOn: ["db"] }
      for (
        const services of [
          { db: { ...db, dependsOn: ["web"] }, web: circle, cache: { command: "other" } },
          { db, cache: { command: "other" }, web: { ...web, dependsOn: ["none"] } },
          { db, cache: { command: "other" }, web: { ...web, significant: true } },
          { db, cache: { command: "other" }, web: { ...web, readiness: { http: "ftp://x" } } },
          { db, cache: { command: "other" }, web: { ...web, env: { A: { fromEnv: "A" } } } }
        ]
      ) {
        const error = yield* Effect.flip(reload(configOf({ services })))
        assert.strictEqual(error._tag, "InvalidSpec")
        assert.match(error.message, /^(?:db|web)\./)
      }
      assert.deepStrictEqual([yield* pids, story, yield* config], [before, [], first])
    })
  )

  it.effect(
    "one that can't be ended is named, the others go on, and the next reload tries it again",
    onServices(function*() {
      const simulation = yield* Simulation
      const { apply, pids, states } = yield* startServices({
        services: { a: { command: "server", shutdown: { cap: 100 } }, b: db, c: db }
      })
      const before = yield* pids
      yield* simulation.protect(before["a"]!)
      const next = { services: { a: { command: "other", shutdown: { cap: 100 } }, b: { command: "other" }, c: db } }
      const report = yield* apply(next)
      assert.deepStrictEqual(problems(report).map(({ service }) => service), ["a"])
      assert.deepInclude(yield* states, { a: "Failed", b: "Ready", c: "Ready" })
      assert.strictEqual((yield* pids)["c"], before["c"])
      yield* simulation.protect(before["a"]!, false)
      yield* simulation.kill(before["a"]!, "SIGKILL")
      yield* advance(1000)
      const again = yield* apply(next)
      yield* settle
      assert.deepStrictEqual(again.applied, [{ service: "a", change: "changed", fields: [], problem: null }])
      assert.deepInclude(yield* states, { a: "Ready" })
    })
  )

  it.effect(
    "new dependencies hold: a changed one waits for a new one until that is ready",
    onServices(function*() {
      const { apply, states } = yield* startServices({ services: { web: db } })
      yield* apply({
        services: { web: { ...db, dependsOn: ["slow"] }, slow: { command: "slow", readiness: { line: "up" } } }
      })
      yield* advance(400)
      assert.deepStrictEqual(yield* states, { web: "Waiting", slow: "Running" })
      yield* advance(200)
      assert.deepStrictEqual(yield* states, { web: "Ready", slow: "Ready" })
    })
  )

  it.effect(
    "who holds the replaced one can't start it again beside the new one",
    onServices(function*() {
      const { apply, supervisor } = yield* startServices({ services: { db } })
      const old = yield* Effect.orDie(supervisor.child("db"))
      yield* apply({ services: { db: { command: "other" } } })
      assert.strictEqual((yield* Effect.flip(old.start))._tag, "ChildClosed")
    })
  )

  it.effect(
    "a job that came later and has ended can be changed and removed",
    onServices(function*() {
      const job = (args: ReadonlyArray<string>) => ({ command: "job", args, restart: { mode: "temporary" as const } })
      const { apply, states } = yield* startServices({ services: { db } })
      yield* apply({ services: { db, job: job([]) } })
      yield* advance(100)
      const changed = yield* apply({ services: { db, job: job(["again"]) } })
      yield* advance(100)
      const removed = yield* apply({ services: { db } })
      assert.deepStrictEqual([problems(changed), problems(removed)], [[], []])
      assert.deepStrictEqual(yield* states, { db: "Ready" })
    })
  )

  it.effect(
    "reloads at the same time come one after the other, and the last one holds",
    onServices(function*() {
      const { config, reload, supervisor } = yield* startServices({ services: { db } })
      const inputs = Array.from(
        { length: 5 },
        (_, index) => configOf({ services: { db: { ...db, args: [`${index}`] } } })
      )
      yield* passing(Effect.forEach(inputs, reload, { concurrency: "unbounded" }))
      assert.deepStrictEqual((yield* config).services["db"]?.args, ["4"])
      assert.lengthOf(yield* supervisor.children, 1)
    })
  )

  it.effect(
    "one that is interrupted has gone to its end",
    onServices(function*() {
      const { pids, reload } = yield* startServices({ services: { db, cache } })
      const before = yield* pids
      const fiber = yield* Effect.forkChild(
        reload(configOf({ services: { db: { command: "other" }, cache: { command: "other" } } })),
        { startImmediately: true }
      )
      yield* advance(1)
      yield* passing(Fiber.interrupt(fiber))
      yield* settle
      const after = yield* pids
      assert.notStrictEqual(after["db"], before["db"])
      assert.notStrictEqual(after["cache"], before["cache"])
    })
  )

  it.effect(
    "another strategy is named as what needs a restart of the whole",
    onServices(function*() {
      const { apply } = yield* startServices({ services: { db } })
      const next = { services: { db }, supervisor: { strategy: "one_for_all" as const } }
      assert.deepStrictEqual((yield* apply(next)).needsRestart, ["supervisor"])
      assert.deepStrictEqual((yield* apply(next)).needsRestart, ["supervisor"], "it does not hold yet")
      assert.deepStrictEqual((yield* apply({ services: { db } })).needsRestart, [])
    })
  )

  it.effect(
    "200 reloads leave nothing behind",
    onServices(function*() {
      const simulation = yield* Simulation
      const { apply, supervisor } = yield* startServices({
        services: { db, web: { command: "lives", dependsOn: ["db"] } }
      })
      for (let n = 0; n < 200; n++) {
        yield* apply({
          services: { db: { command: "lives", args: [`${n}`] }, web: { command: "lives", dependsOn: ["db"] } }
        })
      }
      assert.lengthOf(yield* supervisor.children, 2)
      assert.lengthOf(yield* simulation.alive, 2)
    })
  )

  it.effect(
    "a reload while all stop is named for each service, and starts nothing",
    onServices(function*() {
      const simulation = yield* Simulation
      const { apply, supervisor } = yield* startServices({ services: { db } })
      yield* passing(supervisor.stopAll)
      const launches = yield* simulation.launches
      const report = yield* apply({ services: { db: { command: "other" }, cache } })
      assert.deepStrictEqual(problems(report).map(({ service }) => service), ["db", "cache"])
      assert.strictEqual(yield* simulation.launches, launches)
    })
  )
})

describe("a pool of a configuration", () => {
  it.effect(
    "runs a child for each key, with the key in its texts, and ends it when nobody uses it",
    onServices(function*() {
      const simulation = yield* Simulation
      const { pools } = configOf({
        pools: {
          tenants: { command: "lives", args: ["{key}"], env: { A: "{key}" }, idle: "1 minute", capacity: { max: 1 } }
        }
      })
      const pool = yield* Pool.make(ServiceChild.poolOptions("tenants", pools["tenants"]!))
      const first = yield* passing(pool.ensure("a"))
      assert.strictEqual(first.key, "a")
      yield* advance(10_000)
      yield* passing(pool.ensure("b"))
      assert.lengthOf(yield* simulation.alive, 1, "there is room for one")
      yield* advance(61_000)
      assert.lengthOf(yield* simulation.alive, 0)
    })
  )

  it("a key is a text and nothing more: no pattern of a replacement, and no part of a line for the shell", () => {
    const { pools } = configOf({
      pools: { a: { command: "x", args: ["--key={key}"] }, b: { command: "x {key}", shell: true } }
    })
    assert.isTrue(Result.isSuccess(ServiceChild.forKey(pools["a"]!, "$&")))
    const refused = ServiceChild.forKey(pools["b"]!, "; rm -rf /")
    assert.strictEqual(
      Result.isFailure(refused) && refused.failure.message,
      "command: a line for the shell can't hold {key}; give it in \"env\""
    )
  })
})
