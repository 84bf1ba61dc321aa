/** Services with their logs, pools and operations on the simulated system. No real time passes. */
import { assert, describe, it } from "@effect/vitest"
import { type HostStatus, type Keeper, type ServiceConfig, ServiceHost } from "@treeline/core/daemon"
import { KeeperFailed } from "@treeline/core/Errors"
import { Program } from "@treeline/core/testing"
import { Effect, Exit, Fiber, Layer, Path, Redacted, Stream } from "effect"
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
  type SystemOptions
} from "../support/Actors.ts"
import { configOf } from "../support/Configs.ts"
import { MemoryFiles } from "../support/MemoryFiles.ts"

/** Says that it is up, and ends a moment after it was asked to. */
const server = Program.make(
  Program.trap("SIGTERM", [Program.write("bye\n"), Program.sleep(20), Program.exit(0)]),
  Program.write("up\n"),
  Program.endure
)

const slow = Program.make(Program.sleep(2500), Program.write("up\n"), Program.endure)

const tells = Program.make(Program.write("the key is hunter22, really\n"), Program.exit(3))

const programs = { server, other: server, lives, stubborn, job: exits(0), crash: exits(1), slow, tells }

const onHost = <Eff extends Effect.Effect<unknown, unknown, SystemServices>>(
  test: () => Generator<Eff, void, never>,
  options: SystemOptions = {}
) => onSystem(test, { programs, ...options })

const startHost = Effect.fnUntraced(function*(input: ServiceConfig.Input) {
  const files = new MemoryFiles()
  let written = input
  const load = Effect.sync(() => ({ config: configOf(written), explained: [] }))
  const host = yield* ServiceHost.make({ load, version: "1.2.3", pid: 4711 }).pipe(
    Effect.provide(Layer.merge(files.layer, Path.layer))
  )
  yield* settle
  const states = Effect.map(
    host.status,
    ({ services }) => Object.fromEntries(services.map(({ child, name }) => [name, child.state._tag]))
  )
  const run = <E>(operation: Stream.Stream<HostStatus.Progress, E>) =>
    Effect.map(passing(Stream.runCollect(operation)), (all) => {
      const progress = [...all]
      const done = progress.pop()
      assert.strictEqual(done?._tag, "Done")
      return { progress, done: done as Extract<HostStatus.Progress, { _tag: "Done" }> }
    })
  return {
    host,
    files,
    states,
    run,
    write: (next: ServiceConfig.Input) => {
      written = next
    }
  }
})

const up = { line: "up" }
const db = { command: "server", readiness: up }
const web = { command: "server", readiness: up, dependsOn: ["db"] }

const story = (progress: ReadonlyArray<HostStatus.Progress>) =>
  progress.flatMap((one) => one._tag === "Changed" ? [`${one.service} ${one.state._tag}`] : [])

const fine = (...services: ReadonlyArray<string>) => services.map((service) => ({ service, problem: null }))

describe("a host of kept services", () => {
  it.effect(
    "peer 49: an end of what nobody wants holds up nothing, and what is wanted now is left to its own launch",
    onHost(function*() {
      let asked: ReadonlyArray<string> = []
      let interrupted = false
      const keepers: Keeper.Keepers = {
        keeper: () => ({
          find: () => Effect.succeedNone,
          launch: () => Effect.die("none is kept"),
          leaving: () => false
        }),
        unkept: (service) => ({
          find: () => Effect.fail(new KeeperFailed({ service, reason: "NotEnded", pid: 7, detail: "it lives" })),
          launch: () => Effect.die("beside the one that lives"),
          leaving: () => false
        }),
        kept: Effect.succeed([]),
        end: (which) =>
          Effect.suspend(() => {
            asked = ["db", "gone"].filter(which)
            return Effect.onInterrupt(Effect.never, () =>
              Effect.sync(() => {
                interrupted = true
              }))
          }),
        leave: Effect.void,
        stay: Effect.void
      }
      yield* Effect.scoped(Effect.gen(function*() {
        const load = Effect.sync(() => ({ config: configOf({ services: { db } }), explained: [] }))
        const host = yield* ServiceHost.make({ load, version: "1.2.3", pid: 4711, keepers }).pipe(
          Effect.provide(Layer.merge(new MemoryFiles().layer, Path.layer))
        )
        yield* settle
        assert.deepStrictEqual(asked, ["gone"])
        const { services } = yield* host.status
        assert.deepStrictEqual(services.map(({ child }) => child.state._tag), ["BackingOff"])
      }))
      assert.isTrue(interrupted)
    })
  )
})

describe("a host's status", () => {
  it.effect(
    "says since when, which groups, what it uses, and who the host is",
    onHost(function*() {
      yield* advance(5000)
      const { host } = yield* startHost({
        services: { db, web: { ...web, command: "slow" } },
        groups: { all: ["db", "web"], front: ["web"] },
        pools: { tenants: { command: "lives" } }
      })
      yield* advance(3000)
      const { pools, services, ...rest } = yield* host.status
      assert.deepStrictEqual(services.map(({ usage }) => usage?.processes), [1, 1])
      assert.deepStrictEqual(rest.host, {
        pid: 4711,
        version: "1.2.3",
        startedAt: 5000,
        file: null,
        reloadedAt: 5000,
        paused: false
      })
      assert.deepStrictEqual(
        services.map(({ groups, name, readySince, since }) => ({ name, groups, since, readySince })),
        [
          { name: "db", groups: ["all"], since: 5000, readySince: 5000 },
          { name: "web", groups: ["all", "front"], since: 7500, readySince: 7500 }
        ]
      )
      assert.deepStrictEqual(pools.map(({ pool }) => pool), ["tenants"])
      assert.deepStrictEqual(rest.logs.map(({ child, lines }) => [child, lines]), [["db", 1], ["web", 1]])
      // Nobody looks while nobody asks.
      yield* advance(60_000)
      yield* host.stop(["web"]).pipe(Stream.runDrain, passing)
      assert.deepStrictEqual((yield* host.status).services.map(({ usage }) => usage?.processes), [1, undefined])
    })
  )
})

describe("operations", () => {
  it.effect(
    "stop and start take names, groups, or all, in their order, and tell how far they are",
    onHost(function*() {
      const { host, run, states } = yield* startHost({
        services: { web, db, other: { command: "lives" } },
        groups: { site: ["web", "db"] }
      })
      const stopped = yield* run(host.stop(["site"]))
      assert.deepStrictEqual(stopped.done.outcomes, fine("db", "web"))
      assert.deepStrictEqual(story(stopped.progress).filter((one) => one.endsWith("Stopped")), [
        "web Stopped",
        "db Stopped"
      ])
      assert.deepStrictEqual(yield* states, { web: "Stopped", db: "Stopped", other: "Ready" })
      const started = yield* run(host.start([]))
      assert.deepStrictEqual(started.done.outcomes, fine("db", "other", "web"))
      assert.deepStrictEqual(story(started.progress).filter((one) => one.endsWith("Ready")), ["db Ready", "web Ready"])
    })
  )

  it.effect(
    "an unknown name: nothing is done",
    onHost(function*() {
      const { host, states } = yield* startHost({ services: { db } })
      const error = yield* Effect.flip(Stream.runDrain(host.stop(["db", "nobody"])))
      assert.deepStrictEqual([error._tag, error.child], ["UnknownChild", "nobody"])
      assert.deepStrictEqual(yield* states, { db: "Ready" })
      assert.strictEqual((yield* Effect.flip(host.pause(["nobody"])))._tag, "UnknownChild")
    })
  )

  it.effect(
    "what a service needs is started with it",
    onHost(function*() {
      const { host, run, states } = yield* startHost({ services: { db, web } })
      yield* run(host.stop([]))
      const { done } = yield* run(host.start(["web"]))
      assert.deepStrictEqual(done.outcomes, fine("db", "web"))
      assert.deepStrictEqual(yield* states, { db: "Ready", web: "Ready" })
    })
  )

  it.effect(
    "a start that fails is told at once, and so are those that wait for it",
    onHost(function*() {
      const { host, run } = yield* startHost({
        services: {
          db: { command: "crash", readiness: up, restart: { backoff: { first: "10 seconds" } } },
          web: { ...web, dependsOn: [{ service: "db", until: "ready" as const }] }
        }
      })
      yield* run(host.stop([]))
      const { done } = yield* run(host.start([]))
      assert.match(String(done.outcomes.find(({ service }) => service === "db")?.problem), /code 1.*tried again/)
      assert.match(String(done.outcomes.find(({ service }) => service === "web")?.problem), /it waits for db/)
    })
  )

  it.effect(
    "goes to its end although its reader is gone",
    onHost(function*() {
      const { host, states } = yield* startHost({ services: { db } })
      const reader = yield* Effect.forkChild(Stream.runDrain(host.stop([])), { startImmediately: true })
      yield* Effect.yieldNow
      yield* Fiber.interrupt(reader)
      yield* advance(100)
      assert.deepStrictEqual(yield* states, { db: "Stopped" })
    })
  )

  it.effect(
    "a restart stops from the top down and starts from the bottom up; a stop in the middle wins",
    onHost(function*() {
      const { host, run, states } = yield* startHost({ services: { db, web } })
      const { done, progress } = yield* run(host.restart([]))
      assert.deepStrictEqual(done.outcomes, fine("db", "web"))
      assert.deepStrictEqual(story(progress).filter((one) => /Stopping|Starting/.test(one)).slice(0, 4), [
        "web Stopping",
        "web Stopping",
        "db Stopping",
        "db Stopping"
      ])
      const restarting = yield* Effect.forkChild(Stream.runCollect(host.restart([])), { startImmediately: true })
      yield* settle
      yield* Effect.forkChild(Stream.runDrain(host.stop(["db"])), { startImmediately: true })
      const last = [...yield* passing(Fiber.join(restarting))].at(-1)
      assert.deepStrictEqual(last?._tag === "Done" && last.outcomes.find(({ service }) => service === "db"), {
        service: "db",
        problem: "it was stopped"
      })
      assert.strictEqual((yield* states)["db"], "Stopped")
    })
  )

  it.effect(
    "peer 112: whoever refuses to end is told with pid, step and time, then the host kills",
    onHost(function*() {
      const { host, run } = yield* startHost({
        services: {
          web: { command: "stubborn", shutdown: { steps: [{ action: "SIGTERM", within: "1 hour" }] } },
          db
        },
        daemon: { stopWithin: "3 seconds" }
      })
      const pid = (yield* host.status).services.find(({ name }) => name === "web")?.child.state
      const { done, progress } = yield* run(host.shutdown())
      const waits = progress.flatMap((one) => one._tag === "Waiting" ? [one] : [])
      assert.deepStrictEqual(
        waits.map(({ at, blocking }) =>
          blocking.map(({ child, pid, since, step }) => ({ child, pid, step, for: at - since }))
        ),
        // The other one was gone after 20 ms.
        [1020, 2020].map((elapsed) => [{
          child: "web",
          pid: pid !== undefined && "pid" in pid ? pid.pid : null,
          step: "SIGTERM",
          for: elapsed
        }])
      )
      assert.deepStrictEqual(done.outcomes, fine("web", "db"))
      assert.strictEqual(done.at, 3000)
      assert.deepStrictEqual(yield* host.awaitEnd, { _tag: "Stopped" })
      assert.deepStrictEqual(yield* (yield* Simulation).alive, [])
    })
  )

  it.effect(
    "force kills at once, also in the middle of an orderly end",
    onHost(function*() {
      const { host, run } = yield* startHost({
        services: { web: { command: "stubborn", shutdown: { steps: [{ action: "SIGTERM", within: "1 hour" }] } } },
        pools: { tenants: { command: "stubborn", shutdown: { steps: [{ action: "SIGTERM", within: "1 hour" }] } } }
      })
      yield* (yield* host.pools).get("tenants")!.ensure("acme")
      yield* Effect.forkChild(Stream.runDrain(host.shutdown()), { startImmediately: true })
      yield* advance(1000)
      const blocking = (yield* host.status).blocking.map(({ child }) => child)
      assert.deepStrictEqual(blocking, ["web", "tenants/acme"])
      const { done } = yield* run(host.shutdown({ force: true }))
      assert.isBelow(done.at, 1500)
      assert.deepStrictEqual(yield* (yield* Simulation).alive, [])
    })
  )
})

describe("the end", () => {
  it.effect(
    "everybody waits for the one end; nothing begins any more",
    onHost(function*() {
      const { host, states, write } = yield* startHost({
        services: { db },
        pools: { tenants: { command: "stubborn", shutdown: { steps: [{ action: "SIGTERM", within: "2 seconds" }] } } }
      })
      const tenants = (yield* host.pools).get("tenants")!
      yield* tenants.ensure("acme")
      const ends = yield* Effect.forkChild(
        Effect.all([Stream.runLast(host.shutdown()), Stream.runLast(host.shutdown())], { concurrency: "unbounded" }),
        { startImmediately: true }
      )
      yield* advance(1000)
      assert.deepStrictEqual(yield* states, { db: "Stopped" })
      write({ services: { db, web }, pools: { fresh: { command: "lives" } } })
      const error = yield* Effect.flip(Stream.runDrain(host.reload))
      assert.match(error.message, /all are being ended/)
      const started = yield* Stream.runLast(host.start([]))
      assert.deepStrictEqual(
        started._tag === "Some" && started.value._tag === "Done" && started.value.outcomes,
        [{ service: "db", problem: "all services are being ended" }]
      )
      assert.isUndefined(ends.pollUnsafe())
      for (const last of yield* passing(Fiber.join(ends))) {
        assert.strictEqual(last._tag === "Some" && last.value._tag === "Done" && last.value.at, 2000)
      }
      assert.deepStrictEqual([...(yield* host.pools).keys()], ["tenants"])
      assert.strictEqual((yield* Effect.flip(tenants.ensure("acme")))._tag, "PoolClosed")
    })
  )

  it.effect(
    "waits for a pool that a reload is ending",
    onHost(function*() {
      const stubborn = {
        command: "stubborn",
        shutdown: { steps: [{ action: "SIGTERM" as const, within: "2 seconds" }] }
      }
      const { host, write } = yield* startHost({ pools: { tenants: stubborn } })
      yield* (yield* host.pools).get("tenants")!.ensure("acme")
      write({ pools: { tenants: { ...stubborn, args: ["-v"] } } })
      const reload = yield* Effect.forkChild(Stream.runLast(host.reload), { startImmediately: true })
      yield* advance(1000)
      const last = yield* passing(Stream.runLast(host.shutdown()))
      assert.strictEqual(last._tag === "Some" && last.value._tag === "Done" && last.value.at, 2000)
      const reloaded = yield* passing(Fiber.join(reload))
      assert.deepStrictEqual(reloaded._tag === "Some" && reloaded.value._tag === "Done" && reloaded.value.outcomes, [
        { service: "pools.tenants", problem: "pools.tenants: all pools are being ended" }
      ])
    })
  )

  it.effect(
    "too many restarts end all, pools too",
    onHost(function*() {
      const { host } = yield* startHost({
        services: { web: { command: "crash", restart: { backoff: { first: "10 millis" } } } },
        pools: { tenants: { command: "lives" } },
        supervisor: { intensity: { max: 2, within: "1 minute" } }
      })
      yield* (yield* host.pools).get("tenants")!.ensure("acme")
      const error = yield* passing(Effect.flip(host.awaitEnd))
      assert.strictEqual(error._tag, "IntensityExceeded")
      assert.deepStrictEqual(yield* (yield* Simulation).alive, [])
      assert.strictEqual((yield* host.status).phase, "ended")
    })
  )
})

describe("a pause", () => {
  it.effect(
    "K3: really stops restarts, also of a service that is added meanwhile; what runs goes on",
    onHost(function*() {
      const { host, run, states, write } = yield* startHost({ services: { db, job: { command: "crash" } } })
      yield* host.pause([])
      yield* advance(60_000)
      assert.deepStrictEqual(yield* states, { db: "Ready", job: "Waiting" })
      write({ services: { db, job: { command: "crash" }, web } })
      yield* run(host.reload)
      yield* advance(60_000)
      assert.deepStrictEqual(yield* states, { db: "Ready", job: "Waiting", web: "Waiting" })
      assert.isTrue((yield* host.status).host.paused)
      yield* host.resume([])
      yield* advance(50)
      assert.strictEqual((yield* states)["web"], "Ready")
      assert.isFalse((yield* host.status).host.paused)
    })
  )
})

describe("a reload", () => {
  it.effect(
    "how an install is fetched and when concerns its updater: no restart of the daemon is needed",
    onHost(function*() {
      const daemon = (program: string, command: string, interval: string) => ({
        install: { program, fetch: { command } },
        update: { interval }
      })
      const { host, run, write } = yield* startHost({ services: { db }, daemon: daemon("bin/x", "a", "1 hour") })
      write({ services: { db }, daemon: daemon("bin/x", "b", "2 hours") })
      assert.deepStrictEqual((yield* run(host.reload)).done.report?.needsRestart, [])
      write({ services: { db }, daemon: daemon("bin/y", "b", "2 hours") })
      assert.deepStrictEqual((yield* run(host.reload)).done.report?.needsRestart, ["daemon"])
    })
  )

  it.effect(
    "takes services, pools, groups and logs over; what can't be used changes nothing",
    onHost(function*() {
      const { files, host, run, states, write } = yield* startHost({
        services: { db, web },
        pools: { tenants: { command: "lives" }, gone: { command: "lives" }, same: { command: "lives" } }
      })
      const tenants = (yield* host.pools).get("tenants")!
      yield* tenants.ensure("acme")
      const same = (yield* host.pools).get("same")!
      yield* same.ensure("acme")
      write({
        services: {
          db: { ...db, logs: { file: "/log/db.log", timestamps: false } },
          job: { command: "job", restart: { mode: "transient" } }
        },
        groups: { all: ["db", "job"] },
        pools: { tenants: { command: "lives", args: ["-v"] }, same: { command: "lives" }, fresh: { command: "lives" } },
        daemon: { port: 4000 }
      })
      const { done } = yield* run(host.reload)
      assert.deepStrictEqual(done.report?.applied.map(({ change, service }) => `${service} ${change}`), [
        "web removed",
        "db changed",
        "job added",
        "pools.tenants changed",
        "pools.gone removed",
        "pools.fresh added"
      ])
      assert.deepStrictEqual([done.report?.unchanged, done.report?.needsRestart], [["pools.same"], ["daemon"]])
      yield* advance(50)
      assert.deepStrictEqual(yield* states, { db: "Ready", job: "Stopped" })
      assert.deepStrictEqual([...(yield* host.pools).keys()].sort(), ["fresh", "same", "tenants"])
      assert.strictEqual((yield* same.status).keys.length, 1)
      assert.strictEqual((yield* Effect.flip(tenants.ensure("acme")))._tag, "PoolClosed")
      assert.strictEqual(files.read("/log/db.log"), "stdout up\n")
      write({ services: { db: { ...db, args: ["a", "b"], command: "" } } })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Stream.runDrain(host.reload))))
      assert.deepStrictEqual(yield* states, { db: "Ready", job: "Stopped" })
      // Nor does a pool that can't be made, and the one that is there goes on.
      write({ services: { db }, pools: { same: { command: "lives", startWithin: 0 } } })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Stream.runDrain(host.reload))))
      assert.strictEqual((yield* same.ensure("acme")).key, "acme")
      assert.deepStrictEqual((yield* host.status).services.map(({ groups }) => groups), [["all"], ["all"]])
    })
  )
})

describe("secrets", () => {
  it.effect(
    "are in no log and in no tail of output, also those that a reload brings",
    onHost(function*() {
      const of = (key: string) => ({
        services: {
          tells: { command: "tells", env: { KEY: Redacted.make(key) }, restart: { mode: "temporary" as const } }
        }
      })
      const { host, run, write } = yield* startHost(of("other-secret"))
      yield* advance(100)
      const texts = Effect.map(host.logs.read(), (all) => all.map((entry) => entry._tag === "Line" ? entry.text : ""))
      assert.deepStrictEqual(yield* texts, ["the key is hunter22, really"])
      write(of("hunter22"))
      yield* run(host.reload)
      yield* advance(100)
      assert.deepStrictEqual((yield* texts).slice(1), ["the key is <redacted>, really"])
      const { services } = yield* host.status
      const state = services[0]?.child.state
      assert.include(state?._tag === "Failed" ? state.error.outputTail : "", "the key is <redacted>, really")
    })
  )
})
