/** Probes of one supervised child on the simulated system. No real time passes. */
import { assert, describe, it } from "@effect/vitest"
import { Child, Errors, Probe, Restart } from "@treeline/core"
import { Program, SimulatedPlatform } from "@treeline/core/testing"
import { Clock, Effect } from "effect"
import { ChildProcess } from "effect/process"
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
  record,
  settle,
  shifting,
  Simulation,
  tagOf,
  times
} from "../support/Actors.ts"

const steady = (ms = 100, times?: number) =>
  Restart.permanent({ backoff: Restart.exponential({ first: ms, factor: 1, jitter: 0, times }) })

/** Gives these outcomes one after the other, then the last one: success, failure, or a hang. */
const scripted = (outcomes: string) => {
  const state = { attempts: 0, running: 0, most: 0, at: [] as Array<number> }
  const attempt = Effect.gen(function*() {
    const outcome = outcomes[Math.min(state.attempts, outcomes.length - 1)]
    state.attempts++
    state.at.push(yield* Clock.currentTimeMillis)
    if (outcome === "H") return yield* Effect.never
    if (outcome === "F") return yield* Effect.fail(`attempt ${state.attempts}`)
  })
  const probe = Probe.effect(
    "scripted",
    Effect.acquireUseRelease(
      Effect.sync(() => void (state.most = Math.max(state.most, ++state.running))),
      () => attempt,
      () => Effect.andThen(Effect.sleep(20), Effect.sync(() => void state.running--))
    )
  )
  return { probe, state }
}

describe("readiness", () => {
  const announcing = (...program: Program.Program) =>
    Child.make("worker", {
      command: SimulatedPlatform.command(program, { name: "worker", additionalFds: { fd3: { type: "output" } } }),
      readiness: Probe.fd(3),
      restart: steady(10_000)
    })

  for (const delay of [0, 1, 50]) {
    it.effect(
      `peer 87: ready, then dead ${delay} ms later: both are seen, in that order`,
      onSystem(function*() {
        const pause = delay === 0 ? [] : [Program.sleep(delay)]
        const child = yield* Child.start(announcing(Program.write("\n", 3), ...pause, Program.exit(1)))
        const events = yield* record(child)
        yield* advance(1000)
        assert.deepStrictEqual(path(events), ["Starting", "Running", "Ready", "Stopping", "BackingOff"])
      })
    )
  }

  it.effect(
    "P51: dead before it is ready is no readiness",
    onSystem(function*() {
      const child = yield* Child.start(announcing(Program.sleep(5), Program.exit(1)))
      const events = yield* record(child)
      yield* advance(1000)
      assert.deepStrictEqual(path(events), ["Starting", "Running", "Stopping", "BackingOff"])
      assert.strictEqual((yield* child.status).lastEnd?._tag, "Exited")
    })
  )

  it.effect(
    "peer 57, peer 81: without a way left to announce it is not ready; with a code that ends it for good it has failed",
    onSystem(function*() {
      const mute = yield* Child.start(announcing(Program.close(3), ...lives))
      const broken = yield* Child.start(process("broken", exits(125), {
        readiness: Probe.line("ready"),
        restart: Restart.permanent({ permanentFailureCodes: [125] })
      }))
      yield* advance(2000)
      assert.strictEqual((yield* mute.status).lastEnd?._tag, "NotReady")
      assert.strictEqual(yield* tagOf(broken), "Failed")
    })
  )

  const lines = {
    "split over chunks": [Program.write("rea"), Program.sleep(10), Program.write("dy\n")],
    "on stderr": [Program.write("ready\n", 2)],
    "after 64 KiB in one line": [Program.writeBytes(70_000), Program.write("ready\n")]
  }
  for (const [name, program] of Object.entries(lines)) {
    it.effect(
      `peer 89: a line ${name}`,
      onSystem(function*() {
        const child = yield* Child.start(process("worker", [...program, ...lives], { readiness: Probe.line("ready") }))
        yield* passing(child.awaitReady)
      })
    )
  }

  it.effect(
    "P47: only a whole line counts",
    onSystem(function*() {
      const program = [Program.write("ready"), Program.sleep(100), Program.write(" or not\n"), ...lives]
      const child = yield* Child.start(process("worker", program, { readiness: Probe.line(/^ready$/) }))
      yield* advance(1000)
      assert.strictEqual(yield* tagOf(child), "Running")
    })
  )

  it.effect(
    "peer 90, P48, K10: not ready in time: torn down, counted as a failed start, and that is the reason",
    onSystem(function*() {
      const simulation = yield* Simulation
      const readiness = Probe.readiness(Probe.line("ready"), { within: 500 })
      const program = [Program.write("warming up\n"), Program.fork(...lives), ...lives]
      const child = yield* Child.start(process("worker", program, { readiness, restart: steady(100, 2) }))
      const events = yield* record(child)
      const end = yield* passing(child.awaitEnd)
      assert.strictEqual(yield* simulation.launches, 3)
      assert.deepStrictEqual(yield* simulation.alive, [])
      const { lastEnd } = yield* child.status
      assert.match(lastEnd?._tag === "NotReady" ? lastEnd.message : "", /not ready within 500 ms/)
      assert.match(end._tag === "Failed" ? end.error.reason : "", /not ready.*2 times in a row/)
      assert.deepStrictEqual(times(events, "Starting"), [0, 600, 1200])
    })
  )

  it.effect(
    "peer 97: a child that answers only after the limit is not ready; a stop while it is probed ends the probing",
    onSystem(function*() {
      const { probe, state } = scripted("FFFFFFFF")
      const child = yield* Child.start(process("worker", lives, { readiness: probe }))
      yield* advance(500)
      yield* passing(child.stop())
      const { attempts } = state
      yield* advance(60_000)
      assert.strictEqual(state.attempts, attempts)
      assert.strictEqual(state.running, 0)
    })
  )
})

describe("liveness", () => {
  const watched = (
    outcomes: string,
    options: Parameters<typeof Probe.liveness>[1],
    program: Program.Program = lives
  ) => {
    const { probe, state } = scripted(outcomes)
    const liveness = Probe.liveness(probe, { interval: 1000, ...options })
    return { state, spec: process("worker", program, { liveness, restart: steady() }) }
  }

  it.effect(
    "peer 94: F F S F F F restarts once, at the sixth probe",
    onSystem(function*() {
      const { spec, state } = watched("FFSFFFS", { failureThreshold: 3 })
      const child = yield* Child.start(spec)
      const events = yield* record(child)
      yield* advance(20_000)
      const { health, lastEnd, restarts } = yield* child.status
      assert.strictEqual(restarts, 1)
      assert.strictEqual(health, "healthy")
      assert.strictEqual(lastEnd?._tag === "Unhealthy" ? lastEnd.message : "", "scripted: attempt 6 (Failed)")
      assert.strictEqual(times(events, "Stopping")[0], state.at[5]! + 20)
      const healths = events.flatMap(({ change }) => change._tag === "Health" ? [change.health] : [])
      assert.deepStrictEqual(healths, ["degraded", "healthy", "degraded", "healthy"])
    })
  )

  it.effect(
    "K2: one failure is tolerated",
    onSystem(function*() {
      const { spec } = watched("SFSFSFS", { failureThreshold: 2 })
      const child = yield* Child.start(spec)
      yield* advance(20_000)
      assert.deepInclude(yield* child.status, { restarts: 0, health: "healthy", incarnation: 1 })
    })
  )

  it.effect(
    "peer 91: a probe that hangs fails by its timeout; attempts never overlap",
    onSystem(function*() {
      const { spec, state } = watched("H", { timeout: 500, failureThreshold: 3 })
      const child = yield* Child.start(spec)
      const events = yield* record(child)
      yield* advance(6000)
      assert.strictEqual(state.most, 1)
      // Three attempts of 500 ms that take 20 ms to clean up after, 1 s between them.
      assert.deepStrictEqual(times(events, "Stopping").slice(0, 1), [1000 + 3 * 520 + 2 * 1000])
      const { lastEnd } = yield* child.status
      assert.match(lastEnd?._tag === "Unhealthy" ? lastEnd.message : "", /TimedOut/)
    })
  )

  it.effect(
    "peer 91: not even after a pause that cut one off",
    onSystem(function*() {
      const { spec, state } = watched("H", { timeout: 500, initialDelay: 0 })
      const child = yield* Child.start(spec)
      yield* advance(10)
      assert.strictEqual(state.running, 1)
      yield* child.pause
      yield* child.resume
      yield* advance(100)
      assert.strictEqual(state.attempts, 2)
      assert.strictEqual(state.most, 1)
    })
  )

  it.effect(
    "K1: a port that is lost is found out, and the child is restarted",
    onSystem(
      function*() {
        const child = yield* Child.start(named("worker", {
          readiness: Probe.tcp(80),
          liveness: Probe.liveness(Probe.http("http://127.0.0.1/"), { interval: 1000, failureThreshold: 2 }),
          restart: steady()
        }))
        yield* passing(child.awaitReady)
        yield* advance(10_000)
        const { health, incarnation, lastEnd } = yield* child.status
        assert.deepStrictEqual([health, incarnation], ["healthy", 2])
        assert.match(lastEnd?._tag === "Unhealthy" ? lastEnd.message : "", /Refused|Failed/)
      },
      {
        programs: {
          worker: inTurn(
            [Program.listen(80, { status: 200 }), Program.sleep(3500), Program.stopListening(80), Program.endure],
            [Program.listen(80, { status: 200 }), Program.endure]
          )
        }
      }
    )
  )

  it.effect(
    "peer 92: what an exec probe leaves behind is gone before the next attempt",
    onSystem(function*() {
      const simulation = yield* Simulation
      const check = SimulatedPlatform.command([Program.fork(...lives), Program.exit(0)], { name: "check" })
      const liveness = Probe.liveness(Probe.exec(check), { interval: 1000 })
      const child = yield* Child.start(process("worker", lives, { liveness }))
      yield* advance(10_500)
      assert.strictEqual((yield* child.status).health, "healthy")
      assert.isAbove(yield* simulation.launches, 8)
      assert.strictEqual(yield* simulation.peakIncarnations("check"), 1)
      assert.deepStrictEqual((yield* simulation.alive).map(({ command }) => command), ["worker"])
    })
  )

  it.effect(
    "peer 93: a probe whose command is missing has failed, and says so",
    onSystem(function*() {
      const liveness = Probe.liveness(Probe.exec(ChildProcess.make("no-such-check")), { interval: 1000 })
      const child = yield* Child.start(process("worker", lives, { liveness, restart: steady() }))
      yield* advance(3100)
      const { lastEnd } = yield* child.status
      assert.match(lastEnd?._tag === "Unhealthy" ? lastEnd.message : "", /CommandMissing/)
    })
  )

  it.effect(
    "peer 95: probes stop when stopping begins; a late failure restarts nothing",
    onSystem(function*() {
      const program = [Program.trap("SIGTERM", [Program.sleep(3000), Program.exit(0)]), ...lives]
      const { spec, state } = watched("SF", { failureThreshold: 1 }, program)
      const child = yield* Child.start(spec)
      yield* advance(1500)
      const stopping = yield* Effect.forkChild(child.stop(), { startImmediately: true })
      yield* advance(2000)
      assert.strictEqual(yield* tagOf(child), "Stopping")
      assert.strictEqual(state.attempts, 1)
      yield* passing(Effect.asVoid(child.awaitEnd))
      yield* advance(60_000)
      assert.deepInclude(yield* child.status, { restarts: 0, incarnation: 1 })
      assert.strictEqual(stopping.pollUnsafe()?._tag, "Success")
    })
  )

  it.effect(
    "K3: paused, it is not probed; resumed, it is again",
    onSystem(function*() {
      const { spec, state } = watched("SF", { failureThreshold: 1 })
      const child = yield* Child.start(spec)
      yield* advance(1500)
      yield* child.pause
      yield* advance(60_000)
      assert.strictEqual(state.attempts, 1)
      assert.strictEqual(yield* tagOf(child), "Ready")
      yield* child.resume
      yield* advance(2000)
      assert.strictEqual((yield* child.status).lastEnd?._tag, "Unhealthy")
    })
  )

  it.effect("peer 97: an attempt that failed because the host was suspended counts for nothing", () =>
    Effect.gen(function*() {
      const { provide, shift } = yield* shifting
      let attempts = 0
      const probe = Probe.effect(
        "heartbeat",
        Effect.suspend(() => {
          attempts++
          if (attempts !== 2) return Effect.void
          // The machine sleeps for an hour while the probe is under way.
          shift.monotonic = 3_600_000_000_000n
          return Effect.fail("missed")
        })
      )
      const liveness = Probe.liveness(probe, { interval: 1000, failureThreshold: 1 })
      const child = yield* Child.start(Child.effect("worker", Effect.never, { liveness, restart: steady() })).pipe(
        provide
      )
      yield* advance(10_000)
      assert.isAbove(attempts, 5)
      assert.deepInclude(yield* child.status, { restarts: 0, health: "healthy" })
    }).pipe(Effect.scoped))

  it.effect(
    "two probes: degraded as long as one of them is, and either ends the child",
    onSystem(function*() {
      const first = scripted("SFSSSSSSSSSSSS")
      const second = scripted("SSSFSSSFFF")
      const liveness = [first, second].map(({ probe }) =>
        Probe.liveness(probe, { interval: 1000, failureThreshold: 3 })
      )
      const child = yield* Child.start(process("worker", lives, { liveness, restart: steady(60_000) }))
      const events = yield* record(child)
      yield* advance(20_000)
      assert.strictEqual((yield* child.status).lastEnd?._tag, "Unhealthy")
      const healths = events.flatMap(({ change }) => change._tag === "Health" ? [change.health] : [])
      assert.deepStrictEqual(healths, ["healthy", "degraded", "healthy", "degraded", "healthy", "degraded"])
    })
  )
})

describe("validation", () => {
  const effect = Probe.effect("check", Effect.void)
  const fields: ReadonlyArray<readonly [field: string, options: Omit<Child.Options, "command">]> = [
    ["worker.restart.resetAfter", { restart: Restart.permanent({ resetAfter: -1 }) }],
    ["worker.restart.successCodes", { restart: Restart.permanent({ successCodes: [1.5] }) }],
    ["worker.restart.permanentFailureCodes", { restart: Restart.permanent({ permanentFailureCodes: [-1] }) }],
    ["worker.restart.permanentFailureCodes", {
      restart: Restart.permanent({ successCodes: [3], permanentFailureCodes: [3] })
    }],
    ["worker.shutdown.cap", { shutdown: { steps: [], cap: Number.POSITIVE_INFINITY } }],
    ["worker.shutdown.steps[0].within", {
      shutdown: { steps: [{ action: { _tag: "CloseStdin" }, within: -1 }], cap: 0 }
    }],
    ["worker.readiness.within", { readiness: Probe.readiness(effect, { within: 0 }) }],
    ["worker.readiness.successThreshold", { readiness: Probe.readiness(effect, { successThreshold: 0 }) }],
    ["worker.readiness.probe", { readiness: Probe.line("x"), output: { _tag: "Backpressure", bytes: 10 } as never }],
    ["worker.liveness.interval", { liveness: Probe.liveness(effect, { interval: Number.NaN }) }],
    ["worker.liveness.failureThreshold", { liveness: Probe.liveness(effect, { failureThreshold: 1.5 }) }],
    ["worker.liveness.probe", { liveness: Probe.liveness(Probe.line("x")) }],
    ["worker.significant", { significant: true }]
  ]
  for (const [index, [field, options]] of fields.entries()) {
    it.effect(
      `InvalidSpec ${index + 1}: ${field}`,
      onSystem(function*() {
        const simulation = yield* Simulation
        const error = yield* Effect.flip(Child.start(process("worker", lives, options)))
        assert.instanceOf(error, Errors.InvalidSpec)
        assert.strictEqual(error.field, field)
        assert.strictEqual(yield* simulation.launches, 0)
      })
    )
  }

  it.effect(
    "names are not empty and have no slash",
    onSystem(function*() {
      for (const id of ["", "  ", "a/b"]) {
        const error = yield* Effect.flip(Child.start(process(id, lives)))
        assert.strictEqual(error.field, "id")
      }
      const error = yield* Effect.flip(Child.start(Child.effect("a", Effect.void, { readiness: Probe.line("x") })))
      assert.strictEqual(error.field, "a.readiness.probe")
    })
  )

  it.effect(
    "a probe that can't be asked here is a reason to fail, not to hang",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const child = yield* Child.start(
          Child.effect("a", Effect.never, { readiness: Probe.tcp(80), restart: Restart.temporary() })
        )
        yield* settle
        const { lastEnd } = yield* child.status
        assert.match(lastEnd?._tag === "NotReady" ? lastEnd.message : "", /needs a platform/)
      }))
  )

  it.effect(
    "exits at once and for ever: each restart waits",
    onSystem(function*() {
      const simulation = yield* Simulation
      const child = yield* Child.start(process("worker", exits(1, 0), { restart: steady(1000) }))
      yield* advance(9500)
      assert.strictEqual(yield* simulation.launches, 10)
      yield* passing(child.stop())
    })
  )
})
