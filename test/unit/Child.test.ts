/** One supervised child on the simulated system. No real time passes. */
import { assert, describe, it } from "@effect/vitest"
import { Child, type ChildEnd, type ChildState, type Errors, Probe, Restart, ShutdownPlan } from "@treeline/core"
import { Program, type SimulatedPlatform } from "@treeline/core/testing"
import { Deferred, Effect, Exit, Fiber, Schedule, Scope, Stream } from "effect"
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
  stateOf,
  stubborn,
  tagOf,
  timed,
  times
} from "../support/Actors.ts"

/** Restarts after exactly so many ms. */
const every = (ms: number, times?: number) => Restart.exponential({ first: ms, factor: 1, jitter: 0, times })

const steady = (ms = 100) => Restart.permanent({ backoff: every(ms) })

/** The end of a child that is not coming back. */
const endOf = (child: Child.Child) => passing(child.awaitEnd)

const errorOf = (state: ChildState.ChildState): Errors.ChildFailed => {
  assert.strictEqual(state._tag, "Failed")
  return (state as Extract<ChildState.ChildState, { _tag: "Failed" }>).error
}

const pidOf = (child: Child.Child) =>
  Effect.map(stateOf(child), (state) => {
    assert.isTrue("pid" in state && state.pid !== null, `${child.id} has a process: ${state._tag}`)
    return (state as { readonly pid: number }).pid
  })

describe("lifecycle", () => {
  it.effect(
    "goes from start to stop through every state",
    onSystem(function*() {
      const child = yield* Child.start(process("worker", lives))
      const events = yield* record(child)
      yield* passing(child.awaitReady)
      yield* passing(child.stop())
      assert.deepStrictEqual(path(events), ["Starting", "Running", "Ready", "Stopping", "Stopped"])
      const status = yield* child.status
      assert.deepStrictEqual(status.state, { _tag: "Stopped", end: null })
      assert.deepInclude(status, { id: "worker", incarnation: 1, restarts: 0, lastEnd: null, paused: false })
    })
  )

  it.effect(
    "every incarnation that was launched has exactly one end, after its tree is empty",
    onSystem(function*() {
      const simulation = yield* Simulation
      const child = yield* Child.start(process("worker", exits(1), { restart: steady() }))
      const events = yield* record(child)
      yield* advance(500)
      yield* passing(child.stop())
      const ends = events.filter(({ change }) => change._tag === "Ended").map(({ incarnation }) => incarnation)
      const launches = yield* simulation.launches
      assert.isAbove(launches, 3)
      assert.deepStrictEqual(ends, Array.from({ length: launches }, (_, index) => index + 1))
      assert.strictEqual(yield* simulation.peakIncarnations("worker"), 1)
    })
  )

  it.effect(
    "the scope ends the child, shares one grace with its neighbours, and answers everybody",
    onSystem(function*() {
      const scope = yield* Scope.make()
      const start = (id: string) => Scope.provide(Child.start(process(id, stubborn)), scope)
      const child = yield* start("a")
      yield* Effect.forEach(["b", "c", "d"], start)
      yield* settle
      const end = yield* Effect.forkChild(Effect.exit(child.awaitEnd), { startImmediately: true })
      const { took } = yield* timed(Scope.close(scope, Exit.void))
      assert.isAtLeast(took, 5000)
      assert.isBelow(took, 6000)
      assert.deepStrictEqual(yield* Effect.flatten(Fiber.join(end)), { _tag: "Stopped", end: null })
      const tags = yield* Effect.forEach(
        [child.start, child.stop(), child.restart, child.pause, child.resume],
        (operation) =>
          Effect.map(Effect.flip(operation as Effect.Effect<unknown, Errors.ChildClosed>), ({ _tag }) => _tag)
      )
      assert.deepStrictEqual(tags, Array(5).fill("ChildClosed"))
      assert.strictEqual((yield* Effect.flip(child.awaitReady))._tag, "ChildStopped")
    })
  )

  it.effect(
    "somebody who waits when the scope closes is answered, and the streams end",
    onSystem(function*() {
      const scope = yield* Scope.make()
      const child = yield* Scope.provide(
        Child.start(process("a", lives, { readiness: Probe.effect("never", Effect.never) })),
        scope
      )
      const fork = <A, E>(self: Effect.Effect<A, E>) => Effect.forkChild(Effect.exit(self), { startImmediately: true })
      const ready = yield* fork(child.awaitReady)
      const events = yield* fork(Stream.runCollect(child.events))
      const output = yield* fork(Stream.runCollect(child.output))
      yield* settle
      yield* passing(Scope.close(scope, Exit.void))
      yield* settle
      assert.isDefined(ready.pollUnsafe(), "awaitReady is answered")
      assert.isDefined(events.pollUnsafe(), "events end")
      assert.isDefined(output.pollUnsafe(), "output ends")
      assert.isTrue(Exit.isSuccess(yield* fork(Stream.runCollect(child.events)).pipe(Effect.flatMap(Fiber.join))))
    })
  )

  it.effect(
    "output goes on over incarnations, writes reach the living one, signals too",
    onSystem(function*() {
      const program = Program.make(
        Program.trap("SIGUSR1", [Program.write("signal\n")]),
        Program.write("up\n"),
        Program.copy(),
        Program.endure
      )
      const child = yield* Child.start(process("worker", program, { restart: steady() }))
      let text = ""
      yield* Effect.forkScoped(
        Stream.runForEach(
          child.output,
          ({ bytes, incarnation }) =>
            Effect.sync(() => void (text += `${incarnation}:${new TextDecoder().decode(bytes)}`))
        )
      )
      yield* settle
      yield* child.write("hello\n")
      yield* settle
      assert.deepStrictEqual(yield* child.signal("SIGUSR1"), { delivered: 1, denied: [] })
      yield* settle
      yield* passing(child.restart)
      yield* settle
      assert.strictEqual(text, "1:up\n1:hello\n1:signal\n2:up\n")
      yield* passing(child.stop())
      assert.strictEqual((yield* Effect.flip(child.write("x")))._tag, "NotRunning")
      assert.strictEqual((yield* Effect.flip(child.signal("SIGTERM")))._tag, "NotRunning")
    })
  )
})

describe("restart policy, peer 80", () => {
  const ends = {
    "code 0": [Program.exit(0)],
    "code 1": [Program.exit(1)],
    "listed code 3": [Program.exit(3)],
    "a signal": [Program.raise("SIGSEGV"), Program.endure],
    "listed SIGUSR1": [Program.raise("SIGUSR1"), Program.endure],
    "permanent failure 125": [Program.exit(125)],
    "a stop": [Program.endure]
  } as const satisfies Record<string, Program.Program>

  const modes = { permanent: Restart.permanent, transient: Restart.transient, temporary: Restart.temporary }
  const codes = { successCodes: [0, 3, "SIGUSR1"], permanentFailureCodes: [125] } as const
  const again = "BackingOff"
  const expected: Record<keyof typeof ends, readonly [permanent: string, transient: string, temporary: string]> = {
    "code 0": [again, "Stopped", "Stopped"],
    "code 1": [again, again, "Failed"],
    "listed code 3": [again, "Stopped", "Stopped"],
    "a signal": [again, again, "Failed"],
    "listed SIGUSR1": [again, "Stopped", "Stopped"],
    "permanent failure 125": ["Failed", "Failed", "Failed"],
    "a stop": ["Stopped", "Stopped", "Stopped"]
  }

  for (const [name, program] of Object.entries(ends)) {
    for (const [index, mode] of (["permanent", "transient", "temporary"] as const).entries()) {
      const outcome = expected[name as keyof typeof ends][index]!
      it.effect(
        `peer 80, peer 81: ${mode}, ended by ${name}: ${outcome}`,
        onSystem(function*() {
          const restart = modes[mode]({ ...codes, backoff: every(1000) })
          const child = yield* Child.start(process("worker", [Program.sleep(5), ...program], { restart }))
          const events = yield* record(child)
          if (name === "a stop") yield* passing(child.stop())
          else yield* advance(10)
          const { lastEnd, restarts, state } = yield* child.status
          assert.strictEqual(state._tag, outcome)
          assert.strictEqual(restarts, outcome === again ? 1 : 0)
          assert.strictEqual(lastEnd?._tag, name === "a stop" ? undefined : "Exited")
          if (state._tag === "Stopped") assert.strictEqual(state.end === null, name === "a stop")
          yield* advance(2000)
          assert.strictEqual((yield* child.status).incarnation > 1, outcome === again)
          assert.strictEqual(times(events, "Ended").length > 1, outcome === again)
        })
      )
    }
  }
})

describe("restart policy", () => {
  /** ms from each end to the next start. */
  const pauses = (events: Parameters<typeof times>[0]) => {
    const ended = times(events, "Ended")
    return times(events, "Starting").slice(1).map((at, index) => at - ended[index]!)
  }

  it.effect(
    "peer 78: waits 200, 400, 800, ... ms up to the maximum",
    onSystem(function*() {
      const restart = Restart.permanent({ backoff: Restart.exponential({ max: 3000, jitter: 0 }) })
      const child = yield* Child.start(process("worker", exits(1), { restart }))
      const events = yield* record(child)
      yield* advance(20_000)
      assert.deepStrictEqual(pauses(events).slice(0, 7), [200, 400, 800, 1600, 3000, 3000, 3000])
      const { state } = yield* child.status
      assert.include(["BackingOff", "Ready"], state._tag)
    })
  )

  it.effect(
    "peer 78: jitter stays within its bounds and is not always the same",
    onSystem(function*() {
      const restart = Restart.permanent({ backoff: Restart.exponential({ first: 1000, factor: 1, jitter: 0.2 }) })
      const child = yield* Child.start(process("worker", exits(1, 1), { restart }))
      const events = yield* record(child)
      yield* advance(60_000)
      const waits = pauses(events)
      assert.isAbove(waits.length, 40)
      for (const wait of waits) {
        assert.isAtLeast(wait, 800)
        assert.isAtMost(wait, 1200)
      }
      assert.isAbove(new Set(waits.map(Math.round)).size, 5)
    })
  )

  it.effect(
    "peer 78: begins anew after a healthy time, not one ms before",
    onSystem(
      function*() {
        const restart = Restart.permanent({
          backoff: Restart.exponential({ first: 100, jitter: 0 }),
          resetAfter: 1000
        })
        const child = yield* Child.start(named("worker", { restart }))
        const events = yield* record(child)
        yield* advance(20_000)
        assert.deepStrictEqual(pauses(events).slice(0, 5), [100, 200, 400, 100, 200])
      },
      { programs: { worker: inTurn(exits(1), exits(1), exits(1, 999), exits(1, 1000), exits(1)) } }
    )
  )

  it.effect(
    "peer 78: what it takes to end the tree is no healthy time",
    onSystem(function*() {
      const restart = Restart.permanent({ backoff: Restart.exponential({ first: 100, jitter: 0 }), resetAfter: 1000 })
      const program = Program.make(Program.fork(...stubborn), Program.sleep(10), Program.exit(1))
      const child = yield* Child.start(process("worker", program, { restart }))
      const events = yield* record(child)
      yield* advance(30_000)
      assert.deepStrictEqual(pauses(events).slice(0, 3), [100, 200, 400])
    })
  )

  it.effect(
    "peer 78: a wall clock that is set by an hour, forward or back, changes nothing",
    () =>
      Effect.gen(function*() {
        const { provide, shift } = yield* shifting
        const test = onSystem(function*() {
          const simulation = yield* Simulation
          const restart = Restart.permanent({
            backoff: Restart.exponential({ first: 100, jitter: 0 }),
            resetAfter: 5000
          })
          yield* Child.start(process("worker", exits(1), { restart }))
          // An hour forward while it runs, and back while it waits.
          yield* advance(115)
          shift.wall = 3_600_000
          yield* advance(135)
          const before = yield* simulation.launches
          shift.wall = -3_600_000
          yield* advance(3000)
          // Started at 0, 110, 320, 730, 1540, 3150.
          assert.strictEqual(before, 2)
          assert.strictEqual(yield* simulation.launches, 6)
        })
        yield* provide(test())
      })
  )

  it.effect(
    "P53, peer 78: start forgives: the backoff begins anew, and at once",
    onSystem(function*() {
      const restart = Restart.permanent({ backoff: Restart.exponential({ first: 1000, jitter: 0 }) })
      const child = yield* Child.start(process("worker", exits(1), { restart }))
      const events = yield* record(child)
      yield* advance(1100)
      assert.strictEqual(yield* tagOf(child), "BackingOff")
      yield* child.start
      yield* advance(1050)
      assert.deepStrictEqual(pauses(events).slice(2), [1000])
    })
  )

  it.effect(
    "peer 79, P46: a launch that fails counts like a crash, and its reason is told",
    onSystem(
      function*() {
        const restart = Restart.permanent({ backoff: every(100, 2) })
        const child = yield* Child.start(Child.make("worker", { command: ChildProcess.make("missing"), restart }))
        const events = yield* record(child)
        const error = errorOf(yield* endOf(child))
        assert.match(
          error.reason,
          /^did not start: could not start missing: .*NotFound.*; it was restarted 2 times in a row$/
        )
        assert.deepStrictEqual(path(events).filter((tag) => tag === "Starting").length, 3)
        assert.notInclude(path(events), "Running")
        const { lastEnd } = yield* child.status
        assert.strictEqual(lastEnd?._tag === "StartFailed" ? lastEnd.reason : "", "LaunchError")
        assert.deepStrictEqual(error.survivors, [])
      }
    )
  )

  it.effect(
    "a launch that fails once is tried again",
    onSystem(function*() {
      const simulation = yield* Simulation
      yield* simulation.failNext("ResourceExhausted")
      const child = yield* Child.start(process("worker", lives, { restart: steady() }))
      yield* passing(child.awaitReady)
      assert.strictEqual((yield* child.status).incarnation, 2)
    })
  )

  it.effect(
    "a temporary child that fails can be started by hand",
    onSystem(function*() {
      const child = yield* Child.start(process("worker", exits(1), { restart: Restart.temporary() }))
      assert.strictEqual(errorOf(yield* endOf(child)).reason, "exited with code 1; it is not restarted")
      yield* child.start
      assert.strictEqual((yield* child.status).incarnation, 2)
    })
  )

  it.effect(
    "a backoff of one's own sees how the child ended",
    onSystem(function*() {
      const seen: Array<ChildEnd.ChildEnd> = []
      const backoff = Schedule.modifyDelay(
        Schedule.setInputType<ChildEnd.ChildEnd>()(Schedule.spaced(50)),
        ({ duration, input }) =>
          Effect.sync(() => {
            seen.push(input)
            return duration
          })
      )
      const child = yield* Child.start(process("worker", exits(7), { restart: Restart.permanent({ backoff }) }))
      yield* advance(100)
      assert.deepStrictEqual(seen[0], { _tag: "Exited", status: { _tag: "Exited", code: 7 } })
      yield* passing(child.stop())
    })
  )
})

/** Programs and waits that lead a child into each state. */
const into: Record<ChildState.Tag, {
  readonly program: Program.Program
  readonly policies?: Omit<Child.Options, "command">
  readonly lead: (child: Child.Child) => Effect.Effect<unknown, unknown, SimulatedPlatform.Simulation>
}> = {
  Waiting: {
    program: lives,
    lead: (child) => Effect.andThen(passing(child.stop()), Effect.andThen(child.start, waiting(child)))
  },
  Starting: { program: lives, lead: () => Effect.void },
  Running: { program: lives, policies: { readiness: Probe.effect("never", Effect.never) }, lead: () => advance(1) },
  Ready: { program: lives, lead: () => advance(1) },
  Stopping: {
    program: [Program.fork(...stubborn), Program.sleep(10), Program.exit(1)],
    lead: () => advance(20)
  },
  BackingOff: { program: exits(1), lead: () => advance(20) },
  Stopped: { program: lives, lead: (child) => passing(child.stop()) },
  Failed: { program: exits(125), policies: {}, lead: () => advance(20) }
}

/** Parked by a pause in its backoff. */
function waiting(child: Child.Child) {
  return Effect.gen(function*() {
    const simulation = yield* Simulation
    yield* advance(1)
    yield* simulation.kill(yield* pidOf(child))
    yield* advance(1)
    yield* child.pause
  })
}

const inState = (tag: ChildState.Tag) =>
  Effect.gen(function*() {
    const simulation = yield* Simulation
    const { lead, policies, program } = into[tag]
    if (tag === "Starting") yield* simulation.setFaults({ spawnTime: 1000 })
    const restart = Restart.permanent({ backoff: every(60_000), permanentFailureCodes: [125] })
    const child = yield* Child.start(process("worker", program, { restart, ...policies }))
    const events = yield* record(child)
    yield* lead(child)
    yield* settle
    assert.strictEqual(yield* tagOf(child), tag)
    return { child, events, incarnation: (yield* child.status).incarnation }
  })

describe("operations from every state", () => {
  const tags = Object.keys(into) as ReadonlyArray<ChildState.Tag>

  for (const tag of tags) {
    it.effect(
      `stop from ${tag}: down, its tree empty, and it stays down`,
      onSystem(function*() {
        const simulation = yield* Simulation
        const { child, events } = yield* inState(tag)
        yield* passing(child.stop())
        assert.strictEqual(yield* tagOf(child), tag === "Failed" ? "Failed" : "Stopped")
        assert.deepStrictEqual(yield* simulation.alive, [])
        const launches = yield* simulation.launches
        yield* advance(120_000)
        assert.strictEqual(yield* simulation.launches, launches)
        assert.strictEqual(times(events, "Ended").length, launches)
      })
    )

    it.effect(
      `start from ${tag}: it comes up, once`,
      onSystem(function*() {
        const simulation = yield* Simulation
        const { child, incarnation } = yield* inState(tag)
        yield* passing(child.start)
        yield* advance(5010)
        const isUp = tag === "Starting" || tag === "Running" || tag === "Ready"
        assert.strictEqual((yield* child.status).incarnation, isUp ? incarnation : incarnation + 1)
        assert.strictEqual(yield* simulation.peakIncarnations("worker"), 1)
      })
    )

    it.effect(
      `restart from ${tag}: one new incarnation, whose number is returned`,
      onSystem(function*() {
        const simulation = yield* Simulation
        const { child, incarnation } = yield* inState(tag)
        assert.strictEqual(yield* passing(child.restart), incarnation + 1)
        assert.strictEqual((yield* child.status).incarnation, incarnation + 1)
        assert.strictEqual(yield* simulation.peakIncarnations("worker"), 1)
      })
    )

    it.effect(
      `pause from ${tag}: what runs goes on, nothing starts; resume brings back what was wanted`,
      onSystem(function*() {
        const simulation = yield* Simulation
        const { child, events, incarnation } = yield* inState(tag)
        yield* child.pause
        yield* child.pause
        assert.isTrue((yield* child.status).paused)
        const launches = yield* simulation.launches
        yield* advance(120_000)
        const paused = yield* child.status
        assert.strictEqual(paused.incarnation, incarnation)
        assert.isAtMost(yield* simulation.launches, tag === "Starting" ? 1 : launches)
        const lasting: Record<ChildState.Tag, ChildState.Tag> = {
          Waiting: "Waiting",
          Starting: "Ready",
          Running: "Running",
          Ready: "Ready",
          Stopping: "Waiting",
          BackingOff: "Waiting",
          Stopped: "Stopped",
          Failed: "Failed"
        }
        assert.strictEqual(paused.state._tag, lasting[tag])
        if (paused.state._tag === "Waiting") assert.deepStrictEqual(paused.state.on, ["resume"])
        yield* child.resume
        yield* advance(1)
        const resumed = yield* child.status
        assert.isFalse(resumed.paused)
        assert.strictEqual(resumed.incarnation, lasting[tag] === "Waiting" ? incarnation + 1 : incarnation)
        const changes = events.map(({ change }) => change._tag).filter((name) =>
          name === "Paused" || name === "Resumed"
        )
        assert.deepStrictEqual(changes.slice(-2), ["Paused", "Resumed"])
        assert.strictEqual(yield* simulation.peakIncarnations("worker"), 1)
      })
    )
  }

  it.effect(
    "a stop that is going on can be paused and resumed: it stays a stop",
    onSystem(function*() {
      const child = yield* Child.start(process("worker", stubborn))
      yield* settle
      const stopping = yield* Effect.forkChild(child.stop(), { startImmediately: true })
      yield* advance(10)
      yield* child.pause
      assert.strictEqual(yield* tagOf(child), "Stopping")
      yield* child.resume
      yield* passing(Fiber.join(stopping))
      yield* advance(120_000)
      const { incarnation, state } = yield* child.status
      assert.deepStrictEqual([state._tag, incarnation], ["Stopped", 1])
    })
  )

  it.effect(
    "paused, a child that crashes is not restarted; resume starts it",
    onSystem(function*() {
      const simulation = yield* Simulation
      const child = yield* Child.start(process("worker", lives, { restart: steady() }))
      yield* advance(1)
      yield* child.pause
      yield* simulation.kill(yield* pidOf(child))
      yield* advance(60_000)
      assert.deepStrictEqual(yield* stateOf(child), { _tag: "Waiting", on: ["resume"] })
      yield* child.resume
      yield* passing(child.awaitReady)
      assert.strictEqual((yield* child.status).incarnation, 2)
    })
  )
})

describe("races", () => {
  it.effect(
    "peer 71: a stop during the backoff ends at once, and nothing is spawned later",
    onSystem(function*() {
      const { child } = yield* inState("BackingOff")
      assert.strictEqual((yield* timed(child.stop())).took, 0)
      yield* advance(120_000)
      assert.strictEqual((yield* child.status).incarnation, 1)
    })
  )

  for (const tag of ["Starting", "Running"] as const) {
    it.effect(
      `peer 72, P50: a stop while it is ${tag} ends it and tells those who wait`,
      onSystem(function*() {
        const simulation = yield* Simulation
        const { child } = yield* inState(tag)
        const ready = yield* Effect.forkChild(Effect.flip(child.awaitReady), { startImmediately: true })
        yield* passing(child.stop())
        assert.strictEqual((yield* Fiber.join(ready))._tag, "ChildStopped")
        assert.deepStrictEqual(yield* simulation.alive, [])
        yield* advance(60_000)
        assert.strictEqual(yield* tagOf(child), "Stopped")
      })
    )
  }

  /** Orders of operations at the same moment; `x` is the stop. */
  const orders = ["rx", "xr", "rrx", "rxr", "sx", "xs", "rsx", "xx", "rxx", "srx"]
  for (const tag of ["Ready", "Stopping", "BackingOff", "Starting"] as const) {
    it.effect(
      `peer 73: from ${tag}, a stop beats every start and restart that was asked for before it`,
      onSystem(function*() {
        const simulation = yield* Simulation
        const { child } = yield* inState(tag)
        for (const order of orders) {
          const fibers = yield* Effect.forEach(order.split(""), (operation) =>
            Effect.forkChild(
              Effect.exit<unknown, unknown, never>(
                operation === "x" ? child.stop() : operation === "r" ? child.restart : child.start
              ),
              { startImmediately: true }
            ))
          const exits = yield* passing(Effect.forEach(fibers, (fiber) => Fiber.join(fiber)))
          yield* advance(5010)
          // Only what was asked for after the last stop, and was not refused, can have brought it up again.
          const brought = exits.slice(order.lastIndexOf("x") + 1).some(Exit.isSuccess)
          assert.strictEqual((yield* tagOf(child)) === "Stopped", !brought, order)
          for (const [index, exit] of exits.entries()) {
            if (order[index] === "x") assert.isTrue(Exit.isSuccess(exit), order)
          }
          yield* passing(child.stop())
          yield* simulation.setFaults({ spawnTime: 0 })
          yield* child.start
          yield* advance(1)
        }
        assert.strictEqual(yield* simulation.peakIncarnations("worker"), 1)
      })
    )
  }

  for (const tag of ["Ready", "Running", "BackingOff", "Stopped", "Failed"] as const) {
    it.effect(
      `peer 74, A10: from ${tag}, restarts and starts asked for at the same time make one new incarnation`,
      onSystem(function*() {
        const { child, incarnation } = yield* inState(tag)
        const twenty = Array.from({ length: 20 })
        const numbers = yield* passing(Effect.forEach(twenty, () => child.restart, { concurrency: "unbounded" }))
        assert.deepStrictEqual(new Set(numbers), new Set([incarnation + 1]))
        yield* Effect.forEach(twenty, () => child.start, { concurrency: "unbounded" })
        assert.strictEqual((yield* child.status).incarnation, incarnation + 1)
      })
    )
  }

  it.effect(
    "A11: who waits for a child that dies before it is ready is given the next one, and not the dead one",
    onSystem(function*() {
      const simulation = yield* Simulation
      const child = yield* Child.start(
        process("worker", [Program.sleep(100), Program.write("ready\n"), Program.endure], {
          readiness: Probe.line("ready"),
          restart: Restart.permanent({ backoff: every(50) })
        })
      )
      yield* settle
      const [first] = yield* simulation.alive
      const waiting = yield* Effect.forkChild(child.awaitReady, { startImmediately: true })
      yield* simulation.kill(first!.pid)
      yield* advance(40)
      assert.isUndefined(waiting.pollUnsafe())
      yield* passing(Fiber.join(waiting))
      assert.strictEqual((yield* child.status).incarnation, 2)
      assert.deepInclude((yield* child.status).state, { _tag: "Ready", incarnation: 2 })
      assert.strictEqual((yield* simulation.alive).length, 1)
    })
  )

  it.effect(
    "peer 73: a start that a stop overtakes is told so, and launches nothing",
    onSystem(function*() {
      const simulation = yield* Simulation
      const { child } = yield* inState("Stopped")
      const [start, restart, stop] = yield* Effect.all(
        [Effect.exit(child.start), Effect.exit(child.restart), Effect.exit(child.stop())],
        { concurrency: "unbounded" }
      )
      assert.isTrue(Exit.isSuccess(stop))
      for (const exit of [start, restart]) {
        assert.strictEqual(
          (yield* Effect.flip(exit as Exit.Exit<unknown, { readonly _tag: string }>))._tag,
          "Overtaken"
        )
      }
      assert.strictEqual(yield* simulation.launches, 1)
    })
  )

  it.effect(
    "A14: a caller that is interrupted while it waits changes nothing for the others",
    onSystem(function*() {
      const child = yield* Child.start(process("worker", stubborn))
      yield* advance(1)
      const first = yield* Effect.forkChild(child.restart, { startImmediately: true })
      const second = yield* Effect.forkChild(child.restart, { startImmediately: true })
      yield* advance(10)
      yield* Fiber.interrupt(first)
      assert.strictEqual(yield* passing(Fiber.join(second)), 2)
      const stop = yield* Effect.forkChild(child.stop(), { startImmediately: true })
      yield* advance(10)
      yield* Fiber.interrupt(stop)
      yield* advance(5010)
      assert.strictEqual(yield* tagOf(child), "Stopped")
    })
  )

  it.effect(
    "peer 75: a child that crashes while it is stopped was stopped",
    onSystem(function*() {
      const program = [Program.trap("SIGTERM", [Program.raise("SIGSEGV"), Program.exit(1)]), Program.endure]
      const child = yield* Child.start(process("worker", program, { restart: steady() }))
      yield* advance(1)
      yield* passing(child.stop())
      yield* advance(10_000)
      assert.deepInclude(yield* child.status, { restarts: 0, incarnation: 1, state: { _tag: "Stopped", end: null } })
    })
  )

  it.effect(
    "P52: a stop while a crashed child is torn down shares that teardown and wins",
    onSystem(function*() {
      const { child, events } = yield* inState("Stopping")
      const { took } = yield* timed(child.stop())
      assert.isBelow(took, 5000)
      assert.strictEqual(yield* tagOf(child), "Stopped")
      assert.strictEqual(times(events, "Ended").length, 1)
    })
  )

  it.effect(
    "P44: stops at the same time and again end the child once",
    onSystem(function*() {
      const simulation = yield* Simulation
      const child = yield* Child.start(process("worker", stubborn))
      const events = yield* record(child)
      yield* advance(1)
      yield* passing(Effect.forEach([1, 2, 3, 4], () => child.stop(), { concurrency: "unbounded" }))
      yield* child.stop()
      assert.strictEqual(times(events, "Ended").length, 1)
      const terms = (yield* simulation.journal).filter(({ detail, what }) =>
        what.includes("signal") && detail === "SIGTERM"
      )
      assert.isAtMost(terms.length, 1)
    })
  )

  it.effect(
    "P49: a listener that stops the child when it is starting leaves nothing running",
    onSystem(function*() {
      const simulation = yield* Simulation
      const child = yield* Child.start(process("worker", lives))
      yield* passing(child.stop())
      const stopped = yield* Deferred.make<void, Errors.ChildClosed | Errors.InvalidSpec>()
      yield* Effect.forkScoped(
        child.events.pipe(
          Stream.filter(({ change, incarnation }) =>
            incarnation === 2 && change._tag === "State" && change.to._tag === "Starting"
          ),
          Stream.runForEach(() => Effect.flatMap(Effect.exit(child.stop()), (exit) => Deferred.done(stopped, exit)))
        ),
        { startImmediately: true }
      )
      yield* settle
      yield* child.start
      yield* passing(Deferred.await(stopped))
      yield* advance(60_000)
      assert.strictEqual(yield* tagOf(child), "Stopped")
      assert.deepStrictEqual(yield* simulation.alive, [])
      assert.isAtMost(yield* simulation.launches, 2)
    })
  )
})

describe("stopping", () => {
  it.effect(
    "peer 26: a second stop with a shorter plan shortens the first, a longer one changes nothing",
    onSystem(function*() {
      const simulation = yield* Simulation
      const child = yield* Child.start(process("worker", stubborn))
      yield* advance(1)
      const first = yield* Effect.forkChild(child.stop(), { startImmediately: true })
      yield* advance(100)
      const longer = yield* Effect.forkChild(child.stop(ShutdownPlan.terminate({ within: "1 hour" })), {
        startImmediately: true
      })
      yield* advance(100)
      assert.isAbove((yield* simulation.alive).length, 0)
      const { took } = yield* timed(child.stop(ShutdownPlan.kill))
      assert.isBelow(took, 100)
      yield* passing(Effect.all([Fiber.join(first), Fiber.join(longer)]))
      assert.strictEqual(yield* tagOf(child), "Stopped")
    })
  )

  it.effect(
    "peer 26: a shorter plan also counts while the launch is under way",
    onSystem(function*() {
      const simulation = yield* Simulation
      yield* simulation.setFaults({ spawnTime: 1000 })
      const child = yield* Child.start(process("worker", stubborn))
      yield* settle
      const first = yield* Effect.forkChild(child.stop(ShutdownPlan.terminate({ within: "1 hour" })), {
        startImmediately: true
      })
      yield* advance(10)
      const { took } = yield* timed(child.stop(ShutdownPlan.kill))
      assert.isBelow(took, 1100)
      yield* passing(Fiber.join(first))
    })
  )

  it.effect(
    "a bad plan is refused and nothing is stopped",
    onSystem(function*() {
      const child = yield* Child.start(process("worker", lives))
      yield* advance(1)
      const error = yield* Effect.flip(child.stop(ShutdownPlan.terminate({ within: Number.NaN })))
      assert.strictEqual(error._tag === "InvalidSpec" ? error.field : error._tag, "shutdown.steps[0].within")
      assert.strictEqual(yield* tagOf(child), "Ready")
    })
  )

  it.effect(
    "P45: the state tells the step of the teardown and since when",
    onSystem(function*() {
      const plan = ShutdownPlan.make([
        ShutdownPlan.closeStdin("1 second"),
        ShutdownPlan.signal("SIGINT", { within: "2 seconds" })
      ])
      const program = [Program.ignore("SIGINT"), Program.linger(500), Program.endure]
      const child = yield* Child.start(process("worker", program, { shutdown: plan }))
      yield* advance(100)
      const stopping = yield* Effect.forkChild(child.stop(), { startImmediately: true })
      const steps: Array<string> = []
      for (const wait of [100, 1000, 2000]) {
        yield* advance(wait)
        const state = yield* stateOf(child)
        if (state._tag === "Stopping") steps.push(`${state.step} since ${state.since}: ${state.why}`)
      }
      yield* passing(Fiber.join(stopping))
      assert.deepStrictEqual(steps, ["close stdin", "SIGINT", "kill"].map((step) => `${step} since 100: stop`))
    })
  )

  it.effect(
    "peer 9: what can't be killed is reported and survived; it starts again when that is gone",
    onSystem(function*() {
      const simulation = yield* Simulation
      const child = yield* Child.start(process("worker", lives))
      yield* advance(1)
      const pid = yield* pidOf(child)
      yield* simulation.hang(pid)
      const { took } = yield* timed(child.stop())
      // Grace, cap, and the drain of the pipes that it holds.
      assert.isBelow(took, 12_100)
      const error = errorOf(yield* stateOf(child))
      assert.deepStrictEqual(error.survivors.map((survivor) => survivor.pid), [pid])
      for (const operation of [child.start, child.restart]) {
        const refused = yield* Effect.flip(operation as Effect.Effect<unknown, Errors.ChildFailed>)
        assert.deepStrictEqual([refused._tag, refused.survivors.length], ["ChildFailed", 1])
      }
      assert.strictEqual((yield* Effect.flip(child.awaitReady))._tag, "ChildFailed")
      yield* simulation.hang(pid, false)
      yield* advance(1)
      yield* child.start
      yield* passing(child.awaitReady)
      assert.strictEqual((yield* child.status).incarnation, 2)
    })
  )

  it.effect(
    "peer 9: a crashed child of which something can't be killed is not restarted beside it",
    onSystem(
      function*() {
        const program = Program.make(Program.fork(Program.hang), Program.sleep(10), Program.exit(1))
        const child = yield* Child.start(process("worker", program, { restart: steady() }))
        const error = errorOf(yield* endOf(child))
        assert.strictEqual(error.survivors.length, 1)
        yield* advance(60_000)
        assert.strictEqual((yield* child.status).incarnation, 1)
      },
      { survivors: true }
    )
  )
})

describe("effects as children", () => {
  it.effect("P29, P32: a throw, a failure and a defect are ends like any other", () =>
    Effect.scoped(Effect.gen(function*() {
      const thrower = (): Effect.Effect<void> => {
        throw new Error("thrown")
      }
      const bodies = {
        throw: Child.effect("a", () => thrower(), { restart: steady() }),
        fail: Child.effect("a", Effect.fail(new Error("failed")), { restart: steady() }),
        die: Child.effect("a", Effect.die("died"), { restart: steady() })
      }
      for (const [name, spec] of Object.entries(bodies)) {
        const child = yield* Child.start(spec)
        yield* advance(250)
        const { lastEnd, restarts } = yield* child.status
        assert.strictEqual(restarts, 3, name)
        assert.match(lastEnd?._tag === "Failed" ? lastEnd.message : "", /thrown|failed|died/)
      }
    })))

  it.effect("P30: an effect that completes is done", () =>
    Effect.scoped(Effect.gen(function*() {
      const child = yield* Child.start(Child.effect("a", Effect.sleep(10), { restart: Restart.transient() }))
      assert.deepStrictEqual(yield* endOf(child), { _tag: "Stopped", end: { _tag: "Completed" } })
      assert.strictEqual((yield* child.status).restarts, 0)
    })))

  it.effect("P31: it announces its readiness once, however often it says so", () =>
    Effect.scoped(Effect.gen(function*() {
      const body = (ready: Effect.Effect<void>) =>
        Effect.sleep(100).pipe(Effect.andThen(ready), Effect.andThen(ready), Effect.andThen(Effect.never))
      const child = yield* Child.start(Child.effect("a", body))
      const events = yield* record(child)
      yield* advance(50)
      assert.strictEqual(yield* tagOf(child), "Running")
      yield* advance(100)
      assert.strictEqual(yield* tagOf(child), "Ready")
      assert.strictEqual(path(events).filter((tag) => tag === "Ready").length, 1)
    })))

  it.effect("P36: what a retired incarnation announces late makes no other one ready", () =>
    Effect.scoped(Effect.gen(function*() {
      const announces: Array<Effect.Effect<void>> = []
      const body = (ready: Effect.Effect<void>) =>
        Effect.andThen(Effect.sync(() => void announces.push(ready)), Effect.never)
      const child = yield* Child.start(Child.effect("a", body))
      yield* settle
      yield* passing(child.restart)
      yield* settle
      assert.strictEqual(announces.length, 2)
      yield* announces[0]!
      yield* settle
      assert.strictEqual(yield* tagOf(child), "Running")
      yield* announces[1]!
      yield* settle
      assert.strictEqual(yield* tagOf(child), "Ready")
    })))

  it.effect("P33: each incarnation has a scope of its own, closed when it ends", () =>
    Effect.scoped(Effect.gen(function*() {
      const log = { opened: 0, open: 0 }
      const body = Effect.acquireRelease(
        Effect.sync(() => {
          log.opened++
          log.open++
        }),
        () => Effect.sync(() => void log.open--)
      ).pipe(Effect.andThen(Effect.sleep(10)), Effect.andThen(Effect.fail("over")))
      const child = yield* Child.start(Child.effect("a", body, { restart: steady() }))
      yield* advance(1000)
      assert.isAbove(log.opened, 5)
      yield* passing(child.stop())
      assert.strictEqual(log.open, 0)
    })))

  it.effect("P34: a stop while it starts interrupts it", () =>
    Effect.scoped(Effect.gen(function*() {
      const child = yield* Child.start(Child.effect("a", () => Effect.never))
      assert.strictEqual((yield* timed(child.stop())).took, 0)
      assert.strictEqual(yield* tagOf(child), "Stopped")
    })))

  it.effect("P35: a finalizer that never ends is waited for as long as the plan says, and reported", () =>
    Effect.scoped(Effect.gen(function*() {
      const release = yield* Deferred.make<void>()
      const body = Effect.andThen(Effect.addFinalizer(() => Deferred.await(release)), Effect.never)
      const child = yield* Child.start(
        Child.effect("a", body, { shutdown: ShutdownPlan.terminate({ within: 1000, cap: 500 }) })
      )
      yield* settle
      const { took } = yield* timed(child.stop())
      assert.isAtLeast(took, 1500)
      assert.isBelow(took, 1600)
      assert.match(errorOf(yield* stateOf(child)).reason, /does not end/)
      assert.strictEqual((yield* Effect.flip(child.start))._tag, "ChildFailed")
      yield* Deferred.succeed(release, undefined)
      yield* settle
      yield* child.start
      yield* settle
      assert.strictEqual(yield* tagOf(child), "Ready")
    })))

  it.effect("peer 26: a second stop with a shorter plan shortens the first", () =>
    Effect.scoped(Effect.gen(function*() {
      const release = yield* Deferred.make<void>()
      const body = Effect.andThen(Effect.addFinalizer(() => Deferred.await(release)), Effect.never)
      const child = yield* Child.start(Child.effect("a", body))
      yield* settle
      const first = yield* Effect.forkChild(child.stop(), { startImmediately: true })
      yield* advance(100)
      const { took } = yield* timed(child.stop(ShutdownPlan.make([], { cap: 100 })))
      assert.isBelow(took, 200)
      yield* Fiber.join(first)
      yield* Deferred.succeed(release, undefined)
    })))

  it.effect("the state says that its interruption is awaited", () =>
    Effect.scoped(Effect.gen(function*() {
      const body = Effect.andThen(Effect.addFinalizer(() => Effect.sleep(1000)), Effect.never)
      const child = yield* Child.start(Child.effect("a", body))
      yield* advance(1)
      const stop = yield* Effect.forkChild(child.stop(), { startImmediately: true })
      yield* advance(10)
      const state = yield* stateOf(child)
      assert.strictEqual(state._tag === "Stopping" ? state.step : state._tag, "interrupt")
      yield* passing(Fiber.join(stop))
    })))
})
