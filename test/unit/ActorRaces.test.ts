/** Moments between two steps of an actor at which somebody else comes. No real time passes. */
import { assert, describe, it } from "@effect/vitest"
import { Child, Probe, ProcessPlatform, Restart, ShutdownPlan, Supervisor } from "@treeline/core"
import { Program, SimulatedPlatform } from "@treeline/core/testing"
import { Deferred, Effect, Exit, Fiber, Scheduler, Scope, Stream } from "effect"
import { ChildSpec } from "../../packages/core/src/index.ts"
import { ChildActor, noOwner } from "../../packages/core/src/internal/ChildActor.ts"
import {
  advance,
  exits,
  lives,
  onSystem,
  passing,
  path,
  process,
  record,
  settle,
  Simulation,
  stubborn,
  supervise,
  tagOf
} from "../support/Actors.ts"

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(Effect.exit(self), { startImmediately: true })

const after = (ms: number) => Restart.permanent({ backoff: Restart.exponential({ first: ms, factor: 1, jitter: 0 }) })

describe("a scope that closes", () => {
  it.effect(
    "answers everybody, also those for whom the mailbox has no room",
    onSystem(function*() {
      const scope = yield* Scope.make()
      const child = yield* Scope.provide(Child.start(process("a", lives)), scope)
      yield* passing(child.stop())
      const closing = yield* fork(Scope.close(scope, Exit.void))
      const asked = yield* Effect.forEach(Array.from({ length: 300 }), () => fork(child.pause))
      yield* passing(Fiber.join(closing))
      yield* settle
      assert.strictEqual(asked.filter((fiber) => fiber.pollUnsafe() === undefined).length, 0)
    })
  )

  it.effect(
    "refuses a start that comes after it, so that no incarnation begins",
    onSystem(function*() {
      const simulation = yield* Simulation
      const scope = yield* Scope.make()
      const child = yield* Scope.provide(Child.start(process("a", stubborn)), scope)
      const events = yield* record(child)
      yield* passing(child.awaitReady)
      const closing = yield* fork(Scope.close(scope, Exit.void))
      yield* advance(100)
      const again = yield* Effect.forEach([child.start, child.restart], (operation) => fork(operation))
      yield* passing(Fiber.join(closing))
      assert.deepStrictEqual(yield* simulation.alive, [])
      assert.strictEqual(yield* simulation.launches, 1)
      assert.deepStrictEqual(path(events), ["Starting", "Running", "Ready", "Stopping", "Stopped"])
      for (const fiber of again) {
        assert.strictEqual((yield* Effect.flip(Effect.flatten(Fiber.join(fiber))))._tag, "ChildClosed")
      }
    })
  )
})

describe("output", () => {
  it.effect(
    "a late reader is given what is kept of the newest incarnation once",
    onSystem(function*() {
      const program = Program.make(Program.write("up\n"), Program.sleep(10), Program.exit(1))
      const child = yield* Child.start(process("a", program, { restart: after(10) }))
      yield* advance(100)
      yield* passing(child.stop())
      const chunks: Array<string> = []
      yield* Effect.forkScoped(
        Stream.runForEach(child.output, ({ incarnation }) => Effect.sync(() => void chunks.push(String(incarnation)))),
        { startImmediately: true }
      )
      yield* settle
      const { incarnation } = yield* child.status
      assert.isAbove(incarnation, 1)
      assert.deepStrictEqual(chunks, [String(incarnation)])
    })
  )

  it.effect(
    "a slow reader is given every incarnation's, also when it has gone since",
    onSystem(function*() {
      const program = Program.make(Program.write("up\n"), Program.sleep(10), Program.exit(1))
      const child = yield* Child.start(process("a", program, { restart: after(10) }))
      const read: Array<number> = []
      yield* Effect.forkScoped(
        Stream.runForEach(
          child.output,
          ({ incarnation }) => Effect.andThen(Effect.sync(() => void read.push(incarnation)), Effect.sleep(100))
        ),
        { startImmediately: true }
      )
      yield* advance(100)
      yield* passing(child.stop())
      yield* advance(10_000)
      const { incarnation } = yield* child.status
      assert.isAbove(incarnation, 3)
      assert.deepStrictEqual(read, Array.from({ length: incarnation }, (_, index) => index + 1))
    })
  )
})

describe("a message that comes too late", () => {
  it.effect(
    "the failure of what a child waited for ends no stop early",
    onSystem(function*() {
      const actor = yield* ChildActor.make(
        yield* Effect.fromResult(ChildSpec.validate(process("a", stubborn))),
        noOwner
      )
      yield* Effect.addFinalizer(() => actor.close)
      yield* actor.start
      yield* advance(100)
      const stop = yield* fork(actor.stop())
      yield* fork(actor.fail("gone", []))
      yield* settle
      assert.isUndefined(stop.pollUnsafe(), "its tree lives")
      yield* passing(Fiber.join(stop))
    })
  )

  it.effect(
    "a probe that fails at the instant of a pause ends nothing",
    onSystem(function*() {
      const gate = yield* Deferred.make<void>()
      const child = yield* Child.start(process("a", lives, {
        liveness: Probe.liveness(Probe.effect("gate", Effect.andThen(Deferred.await(gate), Effect.fail("no"))), {
          initialDelay: 0,
          timeout: "1 hour",
          failureThreshold: 1
        })
      }))
      yield* passing(child.awaitReady)
      yield* settle
      const paused = yield* fork(child.pause)
      Deferred.doneUnsafe(gate, Exit.void)
      yield* Fiber.join(paused)
      yield* advance(10_000)
      assert.strictEqual(yield* tagOf(child), "Ready")
      assert.strictEqual((yield* child.status).incarnation, 1)
    })
  )
})

describe("somebody who is interrupted", () => {
  it.effect(
    "is no longer kept among those who wait for a restart",
    onSystem(function*() {
      const child = yield* Effect.fromResult(ChildSpec.validate(process("a", lives)))
      const actor = yield* ChildActor.make(child, { ...noOwner, blockers: () => ["something"] })
      yield* Effect.addFinalizer(() => actor.close)
      for (let index = 0; index < 100; index++) {
        const restart = yield* fork(actor.restart)
        yield* settle
        yield* Fiber.interrupt(restart)
      }
      assert.isAtMost(actor.waiting, 1)
    })
  )
})

describe("a stop", () => {
  it.effect(
    "returns when nothing of a probe is left either",
    onSystem(function*() {
      const simulation = yield* Simulation
      const check = SimulatedPlatform.command([Program.linger(500), ...lives], { name: "check" })
      const child = yield* Child.start(process("a", lives, {
        liveness: Probe.liveness(Probe.exec(check), { initialDelay: 0, timeout: "1 hour" })
      }))
      yield* passing(child.awaitReady)
      yield* settle
      const alive = Effect.map(simulation.alive, (all) => all.map(({ command }) => command))
      assert.include(yield* alive, "check")
      yield* passing(child.stop())
      assert.notInclude(yield* alive, "check")
    })
  )

  it.effect(
    "P35: a step that can't be interrupted is left behind at its end",
    onSystem(function*() {
      const plan = ShutdownPlan.make([
        ShutdownPlan.run("hang", Effect.uninterruptible(Effect.never), "1 second")
      ])
      const child = yield* Child.start(process("a", lives, { shutdown: plan }))
      yield* passing(child.awaitReady)
      yield* passing(child.stop())
      assert.strictEqual(yield* tagOf(child), "Stopped")
    })
  )

  it.effect(
    "kills the tree where its plan breaks off",
    onSystem(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const tree = yield* platform.launch(SimulatedPlatform.command(lives), {
        onStep: () => {
          throw new Error("listener")
        }
      })
      assert.deepStrictEqual(yield* passing(tree.shutdown()), [])
      assert.deepStrictEqual(yield* tree.members, [])
      const simulation = yield* Simulation
      assert.deepStrictEqual(yield* simulation.alive, [])
    })
  )
})

describe("names that are used again", () => {
  const job = (id: string, dependsOn: ReadonlyArray<string> = []) =>
    process(id, exits(0), { restart: Restart.temporary(), dependsOn })

  it.effect(
    "of two that are added at once under one name one is refused, whenever a fiber makes way for another",
    onSystem(function*() {
      const { supervisor } = yield* supervise<never>([])
      for (let turns = 8; turns < 60; turns++) {
        const add = Effect.provideService(
          supervisor.startChild(process("a", lives)),
          Scheduler.MaxOpsBeforeYield,
          turns
        )
        const first = yield* fork(add)
        const second = yield* fork(add)
        const exits = yield* passing(Effect.forEach([first, second], (fiber) => Fiber.join(fiber)))
        assert.strictEqual(exits.filter(Exit.isSuccess).length, 1, `after ${turns} turns`)
        yield* passing(supervisor.removeChild("a"))
      }
    })
  )

  it.effect(
    "a child that depended on one of this name is in no circle with the new one",
    onSystem(function*() {
      const { supervisor } = yield* supervise<never>([])
      yield* supervisor.startChild(job("a"))
      yield* supervisor.startChild(process("b", lives, { dependsOn: ["a"] }))
      yield* advance(1000)
      yield* supervisor.startChild(process("a", lives, { dependsOn: ["b"] }))
      yield* advance(1000)
      yield* passing(supervisor.awaitReady)
      yield* passing(supervisor.stopAll)
    })
  )

  it.effect(
    "a removal that is interrupted leaves the child known, or ended",
    onSystem(function*() {
      for (let turns = 0; turns < 30; turns++) {
        const { supervisor } = yield* supervise([process("a", lives)])
        const child = yield* supervisor.child("a")
        yield* passing(child.stop())
        const removal = yield* fork(supervisor.removeChild("a"))
        yield* Effect.repeat(Effect.yieldNow, { times: turns })
        yield* Fiber.interrupt(removal)
        yield* settle
        if (Exit.isSuccess(yield* Effect.exit(supervisor.child("a")))) continue
        assert.strictEqual((yield* Effect.exit(child.start))._tag, "Failure", `after ${turns} turns`)
      }
    })
  )
})

describe("a listener that throws", () => {
  it.effect(
    "disturbs nothing",
    onSystem(function*() {
      const scope = yield* Scope.make()
      const supervisor = yield* Scope.provide(
        Supervisor.start([process("a", lives)], {
          onEvent: () => {
            throw new Error("listener")
          }
        }),
        scope
      )
      yield* passing(supervisor.awaitReady)
      yield* passing(Scope.close(scope, Exit.void))
      assert.deepStrictEqual(yield* supervisor.awaitEnd, { _tag: "Stopped" })
    })
  )
})
