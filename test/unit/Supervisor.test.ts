/** Children under supervisors on the simulated system. No real time passes. */
import { assert, describe, it } from "@effect/vitest"
import { Child, ChildSpec, Errors, Probe, Restart, ShutdownPlan, Supervisor } from "@treeline/core"
import { Program } from "@treeline/core/testing"
import { Effect, Exit, Fiber, Logger, References, Scope, Stream } from "effect"
import {
  advance,
  exits,
  inTurn,
  lives,
  named,
  onSystem,
  passing,
  path,
  process,
  settle,
  shifting,
  Simulation,
  stubborn,
  supervise,
  tagOf,
  timed,
  times
} from "../support/Actors.ts"

const after = (ms: number, times?: number) => Restart.exponential({ first: ms, factor: 1, jitter: 0, times })

const steady = (ms = 10) => Restart.permanent({ backoff: after(ms) })

/** Any number of restarts. */
const patient = { intensity: { max: 1_000_000, within: 1000 } }

const pidOf = (supervisor: Supervisor.Supervisor, id: string) =>
  Effect.map(supervisor.children, (children) => {
    const state = children.find((child) => child.id === id)?.state
    assert.isTrue(state !== undefined && "pid" in state && state.pid !== null, `${id} has a process`)
    return (state as { readonly pid: number }).pid
  })

const crash = Effect.fnUntraced(function*(supervisor: Supervisor.Supervisor, id: string) {
  const simulation = yield* Simulation
  yield* simulation.kill(yield* pidOf(supervisor, id), "SIGKILL")
})

const incarnations = (supervisor: Supervisor.Supervisor) =>
  Effect.map(
    supervisor.children,
    (children) => Object.fromEntries(children.map(({ id, incarnation }) => [id, incarnation]))
  )

describe("intensity", () => {
  it.effect(
    "peer 76: an exit loop is restarted max times, then all children stop and the failure is typed",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { events, supervisor, tags } = yield* supervise(
        [process("loop", exits(1, 1), { restart: steady() }), process("other", lives)],
        { intensity: { max: 3, within: 10_000 } }
      )
      const error = yield* passing(Effect.flip(supervisor.awaitEnd))
      assert.instanceOf(error, Errors.IntensityExceeded)
      assert.deepInclude(error, { child: "loop", max: 3, within: 10_000 })
      assert.deepStrictEqual(error.causes, [{ child: "loop", incarnation: 4, reason: "exited with code 1" }])
      assert.strictEqual(yield* simulation.launches, 5)
      assert.deepStrictEqual(yield* simulation.alive, [])
      assert.deepStrictEqual(yield* tags, { loop: "Stopped", other: "Stopped" })
      const stopping = events.find(({ _tag }) => _tag === "Stopping")
      assert.strictEqual(stopping?._tag === "Stopping" ? stopping.error?._tag : "", "IntensityExceeded")
      assert.strictEqual((yield* supervisor.status).phase, "ended")
    })
  )

  it.effect(
    "a supervisor that gives up says so in the log, and a nested one which it is",
    onSystem(function*() {
      const logs: Array<readonly [message: string, child: unknown]> = []
      const logger = Logger.make(({ fiber, logLevel, message }) => {
        if (logLevel === "Warn") logs.push([String(message), fiber.getRef(References.CurrentLogAnnotations)["child"]])
      })
      const intensity = { max: 0, within: 1000 }
      const inner = Supervisor.child("inner", [process("loop", exits(1))], { intensity })
      yield* Effect.gen(function*() {
        const { supervisor } = yield* supervise([inner], { intensity })
        yield* passing(Effect.exit(supervisor.awaitEnd))
      }).pipe(Effect.provide(Logger.layer([logger])))
      assert.deepStrictEqual(logs.map(([message, child]) => [message.split("\n")[0], child]), [
        ["more than 0 restarts within 1000 ms, the last one of loop", "inner"],
        ["more than 0 restarts within 1000 ms, the last one of inner", undefined]
      ])
    })
  )

  // The child ends after 10 ms and is restarted after `wait`, so its restarts are `wait + 10` ms apart.
  for (const [wait, outcome] of [[990, "ends"], [991, "goes on"]] as const) {
    it.effect(
      `peer 77: restarts ${wait + 10} ms apart with one allowed in 1000 ms: it ${outcome}`,
      onSystem(function*() {
        const { supervisor } = yield* supervise([process("loop", exits(1), { restart: steady(wait) })], {
          intensity: { max: 1, within: 1000 }
        })
        yield* advance(10_000)
        assert.strictEqual((yield* supervisor.status).phase, outcome === "ends" ? "ended" : "running")
      })
    )
  }

  it.effect("peer 78: a wall clock set back by an hour does not change the window", () =>
    Effect.gen(function*() {
      const { provide, shift } = yield* shifting
      const test = onSystem(function*() {
        const { supervisor } = yield* supervise([process("loop", exits(1), { restart: steady(990) })], {
          intensity: { max: 2, within: 1999 }
        })
        yield* advance(3500)
        shift.wall = -3_600_000
        yield* advance(10_000)
        assert.deepInclude(yield* supervisor.status, { phase: "running", restartsInWindow: 2 })
      })
      yield* provide(test())
    }))

  it.effect(
    "a child that fails for good, is stopped or is restarted by hand counts for nothing",
    onSystem(function*() {
      const { supervisor } = yield* supervise(
        [process("a", lives), process("b", exits(1), { restart: Restart.temporary() })],
        { intensity: { max: 0, within: 1000 } }
      )
      for (let n = 0; n < 5; n++) yield* passing(supervisor.restartChild("a"))
      yield* advance(100)
      assert.deepInclude(yield* supervisor.status, { phase: "running", restartsInWindow: 0 })
    })
  )

  it.effect(
    "peer 86: a storm of 50 children that share a cause is spread by jitter",
    onSystem(function*() {
      const restart = Restart.permanent({ backoff: Restart.exponential({ first: 1000, jitter: 0.5 }) })
      const ids = Array.from({ length: 50 }, (_, index) => `w${index}`)
      const { of, supervisor } = yield* supervise(ids.map((id) => process(id, lives, { restart })), patient)
      yield* passing(supervisor.awaitReady)
      const simulation = yield* Simulation
      for (const { pid } of yield* simulation.alive) yield* simulation.kill(pid)
      yield* advance(2000)
      const starts = ids.map((id) => times(of(id), "Starting")[1]!)
      assert.isTrue(starts.every((at) => at >= 500 && at <= 1600))
      const busiest = Math.max(
        ...Array.from({ length: 20 }, (_, index) => starts.filter((at) => Math.floor(at / 100) === index).length)
      )
      assert.isAtMost(busiest, 20, "no more than 20 of 50 in one tenth of a second")
      yield* passing(supervisor.awaitReady)
    })
  )
})

describe("strategies", () => {
  const ids = ["a", "b", "c"]
  const affected = { one_for_one: ["b"], one_for_all: ["a", "b", "c"], rest_for_one: ["b", "c"] } as const
  const strategies = Object.keys(affected) as ReadonlyArray<Supervisor.Strategy>

  /** Everybody's incarnation after `b` has crashed. */
  const expected = (strategy: Supervisor.Strategy) =>
    Object.fromEntries(ids.map((id) => [id, (affected[strategy] as ReadonlyArray<string>).includes(id) ? 2 : 1]))

  for (const strategy of strategies) {
    it.effect(
      `${strategy}: a crash restarts ${affected[strategy].join(", ")}`,
      onSystem(function*() {
        const { events, supervisor } = yield* supervise(ids.map((id) => process(id, lives, { restart: steady() })), {
          strategy
        })
        yield* crash(supervisor, "b")
        yield* passing(Effect.andThen(Effect.sleep(20), supervisor.awaitReady))
        assert.deepStrictEqual(yield* incarnations(supervisor), expected(strategy))
        assert.strictEqual((yield* supervisor.status).restartsInWindow, 1)
        const rounds = events.flatMap((event) => event._tag === "Round" ? [event] : [])
        assert.deepStrictEqual(
          rounds,
          strategy === "one_for_one" ? [] : [{ _tag: "Round", origin: "b", children: affected[strategy] }]
        )
      })
    )

    it.effect(
      `peer 82: ${strategy}: a sibling that refuses to stop delays, it is not skipped`,
      onSystem(function*() {
        const simulation = yield* Simulation
        const { of, supervisor } = yield* supervise(
          ids.map((id) => process(id, id === "c" ? stubborn : lives, { restart: steady() })),
          { strategy }
        )
        yield* crash(supervisor, "b")
        yield* advance(100)
        const status = yield* supervisor.status
        assert.strictEqual(status.phase, strategy === "one_for_one" ? "running" : "restarting")
        assert.deepStrictEqual(
          status.blocking.map(({ child, step }) => [child, step]),
          strategy === "one_for_one" ? [] : [["c", "SIGTERM"]]
        )
        yield* advance(6000)
        assert.deepStrictEqual(yield* incarnations(supervisor), expected(strategy))
        const [, restarted] = times(of("b"), "Starting")
        assert.strictEqual(restarted! >= 5000, strategy !== "one_for_one")
        for (const id of ids) assert.strictEqual(yield* simulation.peakIncarnations(id), 1)
      })
    )

    it.effect(
      `peer 82: ${strategy}: a temporary sibling that is stopped is not started again`,
      onSystem(function*() {
        const { supervisor, tags } = yield* supervise(
          ids.map((id) => process(id, lives, { restart: id === "c" ? Restart.temporary() : steady() })),
          { strategy }
        )
        yield* crash(supervisor, "b")
        yield* advance(1000)
        assert.deepStrictEqual(yield* tags, {
          a: "Ready",
          b: "Ready",
          c: strategy === "one_for_one" ? "Ready" : "Stopped"
        })
      })
    )

    it.effect(
      `peer 83: ${strategy}: a sibling that fails during the round is started once and counted once`,
      onSystem(function*() {
        const simulation = yield* Simulation
        // `c` takes its time to end, and crashes meanwhile.
        const slow = [Program.trap("SIGTERM", [Program.sleep(50), Program.raise("SIGSEGV")]), ...lives]
        const { supervisor } = yield* supervise(
          ids.map((id) => process(id, id === "c" ? slow : lives, { restart: steady() })),
          { strategy }
        )
        yield* crash(supervisor, "b")
        yield* advance(20)
        if (strategy === "one_for_one") yield* crash(supervisor, "c")
        yield* advance(1000)
        assert.deepStrictEqual(
          yield* incarnations(supervisor),
          strategy === "one_for_one" ? { a: 1, b: 2, c: 2 } : expected(strategy)
        )
        assert.strictEqual((yield* supervisor.status).restartsInWindow, strategy === "one_for_one" ? 2 : 1)
        for (const id of ids) assert.strictEqual(yield* simulation.peakIncarnations(id), 1)
      })
    )
  }

  for (const strategy of ["one_for_all", "rest_for_one"] as const) {
    it.effect(
      `peer 83: ${strategy}: all crash at the same moment: one round`,
      onSystem(function*() {
        const { events, supervisor } = yield* supervise(ids.map((id) => process(id, lives, { restart: steady() })), {
          strategy
        })
        for (const id of ids) yield* crash(supervisor, id)
        yield* advance(1000)
        assert.deepStrictEqual(yield* incarnations(supervisor), { a: 2, b: 2, c: 2 })
        assert.strictEqual(events.filter(({ _tag }) => _tag === "Round").length, 1)
        assert.strictEqual((yield* supervisor.status).restartsInWindow, 1)
      })
    )
  }

  it.effect(
    "rest_for_one: a crash before the round's first child widens the round",
    onSystem(function*() {
      const { supervisor } = yield* supervise(
        ids.map((id) => process(id, id === "c" ? stubborn : lives, { restart: steady() })),
        { strategy: "rest_for_one" }
      )
      yield* crash(supervisor, "b")
      yield* advance(1000)
      yield* crash(supervisor, "a")
      yield* advance(10_000)
      assert.deepStrictEqual(yield* incarnations(supervisor), { a: 2, b: 2, c: 2 })
    })
  )

  it.effect(
    "a stop during a round beats it; the others come back",
    onSystem(function*() {
      const { supervisor, tags } = yield* supervise(
        ids.map((id) => process(id, id === "c" ? stubborn : lives, { restart: steady() })),
        { strategy: "one_for_all" }
      )
      yield* crash(supervisor, "b")
      yield* advance(1000)
      yield* supervisor.terminateChild("a")
      yield* passing(supervisor.terminateChild("c"))
      yield* advance(10_000)
      assert.deepStrictEqual(yield* tags, { a: "Stopped", b: "Ready", c: "Stopped" })
    })
  )

  it.effect(
    "a child that waits for its backoff is taken into the round and started with it",
    onSystem(function*() {
      const { supervisor } = yield* supervise(
        [process("a", lives, { restart: steady(60_000) }), process("b", lives, { restart: steady(100) })],
        { strategy: "rest_for_one", intensity: { max: 10, within: 1000 } }
      )
      yield* crash(supervisor, "b")
      yield* advance(10)
      yield* crash(supervisor, "a")
      yield* advance(61_000)
      assert.deepStrictEqual(yield* incarnations(supervisor), { a: 2, b: 2 })
    })
  )

  it.effect(
    "peer 9: a sibling that can't be killed has failed with its survivor, and the round goes on without it",
    onSystem(
      function*() {
        const simulation = yield* Simulation
        const { supervisor, tags } = yield* supervise(ids.map((id) => process(id, lives, { restart: steady() })), {
          strategy: "one_for_all"
        })
        const pid = yield* pidOf(supervisor, "c")
        yield* simulation.hang(pid)
        yield* crash(supervisor, "b")
        yield* advance(20_000)
        assert.deepStrictEqual(yield* tags, { a: "Ready", b: "Ready", c: "Failed" })
        assert.instanceOf(yield* Effect.flip(supervisor.restartChild("c")), Errors.ChildFailed)
        yield* simulation.hang(pid, false)
        yield* settle
        assert.strictEqual(yield* supervisor.restartChild("c"), 2)
      }
    )
  )
})

describe("significant children, peer 84", () => {
  const worker = (id: string, ms: number) =>
    process(id, exits(0, ms), { restart: Restart.transient(), significant: true })

  for (const [autoShutdown, endsAt] of [["never", undefined], ["any", "a"], ["all", "b"]] as const) {
    it.effect(
      `peer 84: autoShutdown ${autoShutdown}`,
      onSystem(function*() {
        const { supervisor } = yield* supervise([worker("a", 100), worker("b", 200), process("c", lives)], {
          autoShutdown
        })
        yield* advance(1000)
        const { phase } = yield* supervisor.status
        assert.strictEqual(phase, endsAt === undefined ? "running" : "ended")
        if (endsAt !== undefined) {
          assert.deepStrictEqual(yield* supervisor.awaitEnd, { _tag: "Shutdown", child: endsAt })
          assert.deepStrictEqual(yield* (yield* Simulation).alive, [])
        }
      })
    )
  }

  it.effect(
    "peer 84: an end by a stop, of an insignificant child, or with a restart does not count",
    onSystem(
      function*() {
        const { supervisor } = yield* supervise([
          worker("a", 60_000),
          process("b", exits(0, 100), { restart: Restart.transient() }),
          named("c", { restart: Restart.transient({ backoff: after(10) }), significant: true })
        ], { autoShutdown: "any" })
        yield* passing(supervisor.terminateChild("a"))
        yield* advance(1000)
        assert.strictEqual((yield* supervisor.status).phase, "running")
      },
      { programs: { c: inTurn(exits(1, 100), lives) } }
    )
  )
})

describe("nested supervisors", () => {
  const loop = (id: string) => process(id, exits(1, 1), { restart: steady() })

  it.effect(
    "peer 85: restarts are bounded by the product of the intensities, and the causes lead from the innermost outwards",
    onSystem(function*() {
      const simulation = yield* Simulation
      const inner = Supervisor.child("inner", [loop("leaf")], {
        intensity: { max: 2, within: 60_000 },
        restart: steady()
      })
      const middle = Supervisor.child("middle", [inner], { intensity: { max: 1, within: 60_000 }, restart: steady() })
      const { supervisor } = yield* supervise([middle], { intensity: { max: 3, within: 60_000 } })
      const error = yield* passing(Effect.flip(supervisor.awaitEnd))
      assert.strictEqual(yield* simulation.launches, 3 * 2 * 4)
      assert.strictEqual(error.child, "middle")
      assert.deepStrictEqual(
        error.causes.map(({ child, incarnation }) => [child, incarnation]),
        [["leaf", 3], ["inner", 2], ["middle", 4]]
      )
      assert.strictEqual(error.causes[0]!.reason, "exited with code 1")
      assert.match(error.causes[1]!.reason, /more than 2 restarts/)
    })
  )

  it.effect(
    "events and status carry paths; it is ready when all of it is; a stop ends the inner ones first",
    onSystem(function*() {
      const inner = Supervisor.child("inner", [
        process("db", [Program.sleep(100), Program.write("ready\n"), ...lives], { readiness: Probe.line("ready") }),
        Supervisor.child("deep", [process("leaf", lives)])
      ])
      const { of, supervisor } = yield* supervise([inner, process("web", lives, { dependsOn: ["inner"] })])
      assert.strictEqual(yield* tagOf(yield* supervisor.child("web")), "Waiting")
      yield* passing(supervisor.awaitReady)
      assert.deepStrictEqual(path(of("inner/db")), ["Starting", "Running", "Ready"])
      assert.deepStrictEqual(path(of("inner/deep/leaf")), ["Starting", "Running", "Ready"])
      const [status] = yield* supervisor.children
      assert.deepStrictEqual(status!.children.map(({ id }) => id), ["db", "deep"])
      assert.deepStrictEqual(status!.children[1]!.children.map(({ id }) => id), ["leaf"])
      yield* passing(supervisor.terminateChild("inner"))
      assert.strictEqual(path(of("inner")).at(-1), "Stopped")
      assert.strictEqual(path(of("inner/deep/leaf")).at(-1), "Stopped")
    })
  )

  it.effect(
    "status.blocking names the innermost child, its step and since when",
    onSystem(function*() {
      const { supervisor } = yield* supervise([Supervisor.child("inner", [process("db", stubborn)])])
      yield* advance(1000)
      const pid = (yield* (yield* Simulation).alive)[0]!.pid
      const stopping = yield* Effect.forkChild(supervisor.stopAll, { startImmediately: true })
      yield* advance(100)
      const { blocking, phase } = yield* supervisor.status
      assert.deepStrictEqual({ blocking, phase }, {
        phase: "stopping",
        blocking: [{ child: "inner/db", pid, step: "SIGTERM", since: 1000 }]
      })
      yield* passing(Fiber.join(stopping))
    })
  )

  it.effect(
    "a plan that somebody gives reaches the children of a nested supervisor; its own default does not",
    onSystem(function*() {
      const nest = (id: string) => Supervisor.child(id, [process("db", stubborn)])
      const { supervisor } = yield* supervise([nest("inner"), nest("other")])
      yield* advance(10)
      assert.strictEqual((yield* timed(supervisor.terminateChild("inner", ShutdownPlan.kill))).took, 0)
      assert.isAtLeast((yield* timed(supervisor.terminateChild("other"))).took, 5000)
    })
  )

  it.effect(
    "peer 26, peer 32: a shorter plan for all shortens a stop of all, in nested supervisors too",
    onSystem(function*() {
      const { supervisor } = yield* supervise([
        process("web", stubborn, { dependsOn: ["inner"] }),
        Supervisor.child("inner", [process("db", stubborn)])
      ])
      yield* passing(supervisor.awaitReady)
      const stopping = yield* Effect.forkChild(supervisor.stopAll, { startImmediately: true })
      yield* advance(100)
      assert.strictEqual((yield* timed(supervisor.shutdown(ShutdownPlan.kill))).took, 0)
      yield* Fiber.join(stopping)
      const wrong = yield* Effect.flip(supervisor.shutdown(ShutdownPlan.terminate({ within: -1 })))
      assert.strictEqual(wrong._tag, "InvalidSpec")
    })
  )

  it.effect(
    "peer 9: a child that could not be ended keeps its name until it is gone",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { supervisor, tags } = yield* supervise([process("db", lives)])
      const { pid } = (yield* simulation.alive)[0]!
      yield* simulation.hang(pid)
      const error = yield* passing(Effect.flip(supervisor.removeChild("db")))
      assert.deepStrictEqual(error._tag === "ChildFailed" ? error.survivors.map((info) => info.pid) : [], [pid])
      assert.deepStrictEqual(yield* tags, { db: "Failed" })
      yield* simulation.hang(pid, false)
      yield* settle
      yield* supervisor.removeChild("db")
      assert.deepStrictEqual(yield* tags, {})
    })
  )

  it.effect(
    "peer 9: a child that could not be ended is not replaced until it is gone",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { supervisor, tags } = yield* supervise([process("db", lives)])
      const { pid } = (yield* simulation.alive)[0]!
      yield* simulation.hang(pid)
      const error = yield* passing(Effect.flip(supervisor.replaceChild(process("db", lives))))
      assert.strictEqual(error._tag, "ChildFailed")
      assert.strictEqual(yield* simulation.launches, 1)
      yield* simulation.hang(pid, false)
      yield* settle
      yield* supervisor.replaceChild(process("db", lives))
      yield* settle
      assert.deepStrictEqual(yield* tags, { db: "Ready" })
    })
  )

  it.effect(
    "a child is replaced in its place: those that depend on it go on, and a round takes along who comes after it",
    onSystem(function*() {
      const { supervisor, tags } = yield* supervise(
        ["a", "b", "c"].map((id) => process(id, lives, { dependsOn: id === "c" ? ["b"] : [], restart: steady() })),
        { strategy: "rest_for_one" }
      )
      const [a, c] = [yield* pidOf(supervisor, "a"), yield* pidOf(supervisor, "c")]
      yield* passing(supervisor.replaceChild(process("b", lives, { restart: steady() })))
      yield* settle
      assert.deepStrictEqual([yield* pidOf(supervisor, "a"), yield* pidOf(supervisor, "c")], [a, c])
      assert.deepStrictEqual(Object.keys(yield* tags), ["a", "b", "c"])
      yield* crash(supervisor, "b")
      yield* advance(100)
      assert.strictEqual(yield* pidOf(supervisor, "a"), a)
      assert.notStrictEqual(yield* pidOf(supervisor, "c"), c)
    })
  )

  it.effect(
    "a replacement that can't be is refused before anything is stopped",
    onSystem(function*() {
      const { supervisor } = yield* supervise([process("a", lives), process("b", lives, { dependsOn: ["a"] })])
      const a = yield* pidOf(supervisor, "a")
      const refusal = (spec: ReturnType<typeof process>) =>
        Effect.map(Effect.flip(supervisor.replaceChild(spec)), ({ _tag, message }) => [_tag, message])
      assert.deepStrictEqual(yield* refusal(process("c", lives)), ["UnknownChild", "there is no child c"])
      assert.deepStrictEqual(yield* refusal(process("a", lives, { dependsOn: ["b"] })), [
        "InvalidSpec",
        "a.dependsOn: children wait for each other in a circle: a -> b -> a"
      ])
      assert.deepStrictEqual(
        yield* refusal(process("a", lives, { shutdown: ShutdownPlan.terminate({ within: -1 }) })),
        [
          "InvalidSpec",
          "a.shutdown.steps[0].within: must not be negative; 0 means at once"
        ]
      )
      assert.strictEqual(yield* pidOf(supervisor, "a"), a)
    })
  )

  it.effect(
    "peer 9: a nested supervisor starts again when what it could not end is gone",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { supervisor, tags } = yield* supervise([Supervisor.child("inner", [process("db", lives)])])
      const { pid } = (yield* simulation.alive)[0]!
      yield* simulation.hang(pid)
      yield* passing(supervisor.terminateChild("inner"))
      assert.deepStrictEqual(yield* tags, { inner: "Failed" })
      const error = yield* Effect.flip(supervisor.restartChild("inner"))
      assert.deepStrictEqual(error._tag === "ChildFailed" ? error.survivors.map((info) => info.pid) : [], [pid])
      yield* simulation.hang(pid, false)
      yield* settle
      assert.strictEqual(yield* supervisor.restartChild("inner"), 2)
      yield* passing(supervisor.awaitReady)
    })
  )
})

describe("dependencies", () => {
  const slow = [Program.sleep(100), Program.write("ready\n"), ...lives]
  const slowly = (id: string, options: Omit<Child.Options, "command"> = {}) =>
    process(id, slow, { readiness: Probe.line("ready"), ...options })

  const conditions = {
    ready: { at: 100, db: slowly("db") },
    started: { at: 0, db: slowly("db") },
    succeeded: { at: 250, db: process("db", exits(0, 250), { restart: Restart.transient() }) }
  } as const
  for (const [until, { at, db }] of Object.entries(conditions)) {
    it.effect(
      `until ${until}: starts ${at} ms later, whatever the order of the list`,
      onSystem(function*() {
        const web = process("web", lives, { dependsOn: [{ child: "db", until: until as keyof typeof conditions }] })
        const { of, supervisor } = yield* supervise([web, db])
        if (at > 0) {
          const { state } = yield* (yield* supervisor.child("web")).status
          assert.deepStrictEqual(state, { _tag: "Waiting", on: [`db ${until}`] })
        }
        yield* passing(supervisor.awaitReady)
        assert.deepStrictEqual(times(of("web"), "Starting"), [at])
      })
    )
  }

  it.effect(
    "one that has failed fails those that depend on it, with the chain of causes",
    onSystem(function*() {
      const { supervisor, tags } = yield* supervise([
        process("db", exits(125), {
          readiness: Probe.line("ready"),
          restart: Restart.permanent({ permanentFailureCodes: [125] })
        }),
        slowly("api", { dependsOn: ["db"] }),
        slowly("web", { dependsOn: ["api"] }),
        process("other", lives)
      ])
      const error = yield* passing(Effect.flip(supervisor.awaitReady))
      assert.instanceOf(error, Errors.ChildFailed)
      yield* advance(10)
      assert.deepStrictEqual(yield* tags, { db: "Failed", api: "Failed", web: "Failed", other: "Ready" })
      const { state } = yield* (yield* supervisor.child("web")).status
      assert.deepStrictEqual(
        state._tag === "Failed" ? state.error.causes.map(({ child }) => child) : [],
        ["db", "api"]
      )
      // What begins to wait later is told as well, and so is who asked.
      const refused = yield* passing(Effect.flip(supervisor.restartChild("web")))
      assert.strictEqual(refused._tag, "ChildFailed")
      const late = yield* supervisor.startChild(slowly("late", { dependsOn: ["db"] }))
      yield* settle
      assert.strictEqual(yield* tagOf(late), "Failed")
    })
  )

  it.effect(
    "starts in order and stops in reverse",
    onSystem(function*() {
      const { story, supervisor } = yield* supervise([
        slowly("web", { dependsOn: ["api"] }),
        slowly("api", { dependsOn: ["db", "cache"] }),
        slowly("db"),
        slowly("cache")
      ])
      yield* passing(supervisor.awaitReady)
      const of = (tag: string) => story().filter((line) => line.endsWith(` ${tag}`)).map((line) => line.split(" ")[0])
      assert.deepStrictEqual(of("Starting"), ["db", "cache", "api", "web"])
      yield* passing(supervisor.stopAll)
      const stopped = of("Stopped")
      assert.deepStrictEqual([stopped.slice(0, 2), stopped.slice(2).toSorted((a, b) => a!.localeCompare(b!))], [[
        "web",
        "api"
      ], ["cache", "db"]])
    })
  )

  it.effect(
    "sequence: one after the other, and in reverse one after the other",
    onSystem(function*() {
      const { of, supervisor } = yield* supervise(["a", "b", "c"].map((id) => slowly(id)), { order: "sequence" })
      yield* passing(supervisor.awaitReady)
      assert.deepStrictEqual(["a", "b", "c"].map((id) => times(of(id), "Starting")[0]), [0, 100, 200])
      yield* passing(supervisor.stopAll)
      const stops = ["c", "b", "a"].map((id) => [times(of(id), "Stopping")[0]!, times(of(id), "Stopped")[0]!])
      assert.isTrue(stops[0]![1]! <= stops[1]![0]! && stops[1]![1]! <= stops[2]![0]!)
    })
  )

  it.effect(
    "peer 30: independent stubborn children cost one grace, a chain one for each",
    onSystem(function*() {
      const many = yield* supervise(Array.from({ length: 20 }, (_, index) => process(`w${index}`, stubborn)))
      const { took } = yield* timed(many.supervisor.stopAll)
      assert.isAtLeast(took, 5000)
      assert.isBelow(took, 5500)
      const chain = yield* supervise(["a", "b", "c"].map((id) => process(id, stubborn)), { order: "sequence" })
      yield* passing(chain.supervisor.awaitReady)
      assert.isAtLeast((yield* timed(chain.supervisor.stopAll)).took, 15_000)
    })
  )

  it.effect(
    "a dependency that restarts does not take those that depend on it along",
    onSystem(function*() {
      const { supervisor } = yield* supervise([
        slowly("db", { restart: steady() }),
        slowly("web", { dependsOn: ["db"] })
      ])
      yield* passing(supervisor.awaitReady)
      yield* crash(supervisor, "db")
      yield* advance(1000)
      assert.deepStrictEqual(yield* incarnations(supervisor), { db: 2, web: 1 })
    })
  )
})

describe("dynamic children", () => {
  it.effect(
    "start, terminate, restart, remove",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { of, supervisor, tags } = yield* supervise([process("a", lives)])
      const child = yield* supervisor.startChild(process("b", lives, { dependsOn: ["a"] }))
      yield* passing(child.awaitReady)
      assert.strictEqual((yield* Effect.flip(supervisor.removeChild("a")))._tag, "InvalidSpec")
      yield* passing(supervisor.terminateChild("b", ShutdownPlan.kill))
      assert.deepStrictEqual(yield* tags, { a: "Ready", b: "Stopped" })
      assert.strictEqual(yield* supervisor.restartChild("b"), 2)
      yield* passing(supervisor.removeChild("b"))
      yield* passing(supervisor.removeChild("a"))
      assert.deepStrictEqual(yield* tags, {})
      assert.deepStrictEqual(yield* simulation.alive, [])
      assert.strictEqual(path(of("b")).at(-1), "Stopped")
      assert.strictEqual((yield* Effect.flip(child.start))._tag, "ChildClosed")
      for (const operation of [supervisor.terminateChild("b"), supervisor.removeChild("b"), supervisor.child("b")]) {
        assert.strictEqual(
          (yield* Effect.flip(operation as Effect.Effect<unknown, Errors.UnknownChild>))._tag,
          "UnknownChild"
        )
      }
    })
  )

  it.effect(
    "K3: one that is added paused, or put in the place of another, waits until it is resumed",
    onSystem(function*() {
      const { supervisor, tags } = yield* supervise([process("a", lives)])
      const added = yield* supervisor.startChild(process("b", lives), { paused: true })
      const replaced = yield* passing(supervisor.replaceChild(process("a", lives), { paused: true }))
      yield* advance(10_000)
      assert.deepStrictEqual(yield* tags, { a: "Waiting", b: "Waiting" })
      assert.deepStrictEqual(yield* (yield* Simulation).alive, [])
      yield* added.resume
      yield* replaced.start
      yield* settle
      assert.deepStrictEqual(yield* tags, { a: "Ready", b: "Ready" })
      assert.deepStrictEqual((yield* supervisor.children).map(({ incarnation, paused }) => [incarnation, paused]), [
        [1, false],
        [1, false]
      ])
    })
  )

  it.effect(
    "a temporary one is forgotten when it has ended, and its name is free",
    onSystem(function*() {
      const { supervisor, tags } = yield* supervise<never>([])
      for (let n = 0; n < 3; n++) {
        const job = process("job", exits(n), { restart: Restart.temporary() })
        const child = yield* supervisor.startChild(job)
        const end = yield* passing(child.awaitEnd)
        assert.strictEqual(end._tag, n === 0 ? "Stopped" : "Failed")
        yield* settle
        assert.deepStrictEqual(yield* tags, {})
      }
    })
  )

  it.effect(
    "A10: of twenty that start the same name at the same time one is let in",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { supervisor } = yield* supervise<never>([])
      const exits = yield* Effect.forEach(
        Array.from({ length: 20 }),
        () => Effect.exit(supervisor.startChild(process("job", lives))),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(exits.filter(Exit.isSuccess).length, 1)
      assert.strictEqual(yield* simulation.launches, 1)
    })
  )

  it.effect(
    "A12, A13: while all are stopped nothing is added, and nothing comes back",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { supervisor } = yield* supervise([process("a", stubborn)])
      const stopping = yield* Effect.forkChild(supervisor.stopAll, { startImmediately: true })
      yield* advance(100)
      assert.strictEqual((yield* Effect.flip(supervisor.startChild(process("b", lives))))._tag, "ChildClosed")
      yield* Effect.forkChild(supervisor.restartChild("a"), { startImmediately: true })
      yield* passing(Fiber.join(stopping))
      yield* advance(60_000)
      assert.strictEqual(yield* simulation.launches, 1)
      assert.deepStrictEqual(yield* simulation.alive, [])
    })
  )

  it.effect(
    "paths of children that a child starts are those of the supervisor",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const seen: Array<string | undefined> = []
        const supervisor = yield* Supervisor.start<never>([])
        const leaf = Child.effect(
          "leaf",
          Effect.gen(function*() {
            seen.push((yield* ChildSpec.CurrentChild)?.child)
            return yield* Effect.never
          })
        )
        yield* supervisor.startChild(
          Child.effect("manager", Effect.andThen(supervisor.startChild(leaf), Effect.never))
        )
        yield* advance(1)
        assert.deepStrictEqual(seen, ["leaf"])
        yield* passing(supervisor.stopAll)
      }))
  )
})

describe("ends and isolation", () => {
  it.effect(
    "P28: a failing child leaves the others alone; P29: one that fails once serves again",
    onSystem(
      function*() {
        const { supervisor, tags } = yield* supervise([
          process("bad", exits(1), { restart: Restart.permanent({ backoff: after(10, 2) }) }),
          process("good", lives),
          named("once", { restart: steady() })
        ])
        yield* advance(1000)
        assert.deepStrictEqual(yield* tags, { bad: "Failed", good: "Ready", once: "Ready" })
        assert.deepStrictEqual(yield* incarnations(supervisor), { bad: 3, good: 1, once: 2 })
      },
      { programs: { once: inTurn(exits(1), lives) } }
    )
  )

  it.effect(
    "P35: removal is bounded when a child never ends",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const body = Effect.andThen(Effect.addFinalizer(() => Effect.never), Effect.never)
        const supervisor = yield* Supervisor.start([Child.effect("a", body), Child.effect("b", Effect.never)])
        yield* advance(1)
        const { took } = yield* timed(supervisor.removeChild("a"))
        assert.isBelow(took, 10_100)
        assert.strictEqual(yield* tagOf(yield* supervisor.child("b")), "Ready")
      }))
  )

  it.effect(
    "stopAll and the scope answer everybody; events end",
    onSystem(function*() {
      const scope = yield* Scope.make()
      const supervisor = yield* Scope.provide(
        Supervisor.start([process("a", lives), process("b", lives, { readiness: Probe.line("never") })]),
        scope
      )
      const fork = <A, E>(self: Effect.Effect<A, E>) => Effect.forkChild(Effect.exit(self), { startImmediately: true })
      const fibers = yield* Effect.all([
        fork(supervisor.awaitReady),
        fork(supervisor.awaitEnd),
        fork(Stream.runCollect(supervisor.events)),
        fork(Effect.flatMap(supervisor.child("b"), (child) => child.awaitReady))
      ])
      yield* settle
      yield* passing(Scope.close(scope, Exit.void))
      yield* settle
      assert.deepStrictEqual(fibers.map((fiber) => fiber.pollUnsafe() === undefined), [false, false, false, false])
      assert.deepStrictEqual(yield* supervisor.awaitEnd, { _tag: "Stopped" })
      yield* supervisor.stopAll
      assert.strictEqual((yield* Effect.flip(supervisor.startChild(process("c", lives))))._tag, "ChildClosed")
    })
  )

  it.effect(
    "stopAll while children start, wait, back off and restart: all down, at once where nothing runs",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { supervisor, tags } = yield* supervise([
        process("up", lives),
        process("starting", lives, { readiness: Probe.line("never") }),
        process("waiting", lives, { dependsOn: ["starting"] }),
        process("backing", exits(1), { restart: steady(60_000) }),
        process("done", exits(0), { restart: Restart.transient() }),
        process("failed", exits(1), { restart: Restart.temporary() })
      ])
      yield* advance(100)
      assert.isBelow((yield* timed(supervisor.stopAll)).took, 100)
      assert.deepStrictEqual(yield* simulation.alive, [])
      const { failed, ...others } = yield* tags
      assert.strictEqual(failed, "Failed")
      assert.deepStrictEqual(new Set(Object.values(others)), new Set(["Stopped"]))
      const launches = yield* simulation.launches
      yield* advance(120_000)
      assert.strictEqual(yield* simulation.launches, launches)
    })
  )

  it.effect(
    "a supervisor without children runs until it is stopped",
    () =>
      Effect.gen(function*() {
        const supervisor = yield* Supervisor.start<never>([])
        yield* supervisor.awaitReady
        yield* supervisor.stopAll
        assert.deepStrictEqual(yield* supervisor.awaitEnd, { _tag: "Stopped" })
      }).pipe(Effect.scoped)
  )
})

describe("validation", () => {
  const bad: ReadonlyArray<
    readonly [field: string, children: ReadonlyArray<ChildSpec.ChildSpec<never>>, options?: Supervisor.Options]
  > = [
    ["intensity.max", [], { intensity: { max: -1, within: 1 } }],
    ["intensity.max", [], { intensity: { max: 1.5, within: 1 } }],
    ["intensity.within", [], { intensity: { max: 1, within: 0 } }],
    ["intensity.within", [], { intensity: { max: 1, within: Number.NaN } }],
    ["a.id", [Child.effect("a", Effect.void), Child.effect("a", Effect.void)]],
    ["a.dependsOn", [Child.effect("a", Effect.void, { dependsOn: ["x"] })]],
    ["a.dependsOn", [
      Child.effect("a", Effect.void, { dependsOn: ["b"] }),
      Child.effect("b", Effect.void, { dependsOn: ["a"] })
    ]],
    ["a.restart.resetAfter", [Child.effect("a", Effect.void, { restart: Restart.permanent({ resetAfter: -1 }) })]],
    ["inner.intensity.max", [Supervisor.child("inner", [], { intensity: { max: -1, within: 1 } })]],
    ["inner.a.id", [Supervisor.child("inner", [Child.effect("a", Effect.void), Child.effect("a", Effect.void)])]]
  ]
  for (const [index, [field, children, options]] of bad.entries()) {
    it.effect(`InvalidSpec ${index + 1}: ${field}`, () =>
      Effect.scoped(Effect.gen(function*() {
        const error = yield* Effect.flip(Supervisor.start(children, options))
        assert.instanceOf(error, Errors.InvalidSpec)
        assert.strictEqual(error.field, field)
      })))
  }
})
