/** Ports that a child needs, on the simulated system. No real time passes. */
import { assert, describe, it } from "@effect/vitest"
import { Child, type Network, ProcessPlatform, Restart } from "@treeline/core"
import { ConnectError, ListenError } from "@treeline/core/Errors"
import { Program, SimulatedPlatform } from "@treeline/core/testing"
import { Effect, Option } from "effect"
import {
  advance,
  onSystem,
  passing,
  process,
  record,
  settle,
  Simulation,
  stateOf,
  tagOf,
  times
} from "../support/Actors.ts"

const listens = Program.make(Program.listen(8080), Program.endure)

const launch = (program: Program.Program, name: string) =>
  Effect.tap(
    ProcessPlatform.ProcessPlatform.use((platform) =>
      platform.launch(SimulatedPlatform.command(program, { name }), { shutdown: { steps: [], cap: 1000 } })
    ),
    () => advance(10)
  )

const server = (policies: Omit<Child.Options, "command"> = {}, program = listens) =>
  process("web", program, { ports: [8080], restart: Restart.temporary(), ...policies })

/** Why a child has failed. */
const failureOf = (child: Child.Child) =>
  Effect.gen(function*() {
    yield* passing(child.awaitEnd)
    const state = yield* stateOf(child)
    return state._tag === "Failed" ? state.error.reason : state._tag
  })

/** The platform with other words of its network about listeners. */
const withNetwork = <A, E, R>(
  change: (network: Network.Network) => Partial<Network.Network>,
  effect: Effect.Effect<A, E, R>,
  more: Partial<ProcessPlatform.ProcessPlatform["Service"]> = {}
) =>
  ProcessPlatform.ProcessPlatform.use((platform) =>
    Effect.provideService(effect, ProcessPlatform.ProcessPlatform, {
      ...platform,
      ...more,
      network: { ...platform.network!, ...change(platform.network!) }
    })
  )

const alive = Effect.map(Simulation.use(({ alive }) => alive), (all) => all.map(({ command }) => command))

describe("a child's ports", () => {
  it.effect(
    "K9: while a stranger listens there it is not launched, and the error says who that is",
    onSystem(function*() {
      const squatter = yield* launch(listens, "squatter")
      const child = yield* Child.start(server())
      const events = yield* record(child)
      assert.strictEqual(
        yield* failureOf(child),
        `did not start: port 8080, which web needs, is in use by squatter (pid ${squatter.pid}); it is not restarted`
      )
      assert.deepStrictEqual(times(events, "Failed"), [2010])
      assert.deepStrictEqual(times(events, "Running"), [])
      assert.deepStrictEqual(yield* alive, ["squatter"])
    })
  )

  it.effect(
    "a start that fails for a port is tried again as the policy says, and comes up when the port is free",
    onSystem(function*() {
      yield* launch(Program.make(Program.listen(8080), Program.sleep(5000), Program.exit(0)), "squatter")
      const child = yield* Child.start(server({ restart: Restart.permanent() }))
      yield* passing(child.awaitReady)
      const { incarnation, lastEnd } = yield* child.status
      assert.deepStrictEqual([lastEnd?._tag === "StartFailed" && lastEnd.reason, incarnation], ["PortInUse", 3])
    })
  )

  it.effect(
    "peer 49: who is about to end is waited for; its own next incarnation does not wait",
    onSystem(function*() {
      yield* launch(Program.make(Program.listen(8080), Program.sleep(1000), Program.exit(0)), "squatter")
      const child = yield* Child.start(server())
      const events = yield* record(child)
      yield* passing(child.awaitReady)
      assert.deepStrictEqual(times(events, "Ready").map((at) => at - 10), [1000])
      yield* passing(child.restart)
      yield* passing(child.awaitReady)
      const [stopping, ready] = [times(events, "Stopping").at(-1)!, times(events, "Ready").at(-1)!]
      assert.isBelow(ready - stopping, 20)
    })
  )

  it.effect(
    "a stop in the middle of the wait is done at once",
    onSystem(function*() {
      yield* launch(listens, "squatter")
      const child = yield* Child.start(server())
      yield* advance(500)
      assert.strictEqual(yield* tagOf(child), "Starting")
      yield* child.stop()
      assert.strictEqual(yield* tagOf(child), "Stopped")
      yield* advance(5000)
      assert.deepStrictEqual(yield* alive, ["squatter"])
    })
  )

  it.effect(
    "K9: who listens can't be looked into: said so, and nothing is launched",
    onSystem(function*() {
      yield* launch(listens, "squatter")
      yield* withNetwork(
        () => ({ listeners: () => Effect.succeed(Option.none()) }),
        Effect.gen(function*() {
          const child = yield* Child.start(server({ ports: [{ host: "127.0.0.1", port: 8080 }] }))
          assert.include(yield* failureOf(child), "127.0.0.1:8080, which web needs, is in use by another process")
        })
      )
      assert.deepStrictEqual(yield* alive, ["squatter"])
    })
  )

  it.effect(
    "a system that lists no listeners: a connection that is taken is somebody's, a refused one is nobody's",
    onSystem(function*() {
      const listed = { listeners: undefined, tryListen: undefined }
      const squatter = yield* launch(listens, "squatter")
      yield* withNetwork(
        () => listed,
        Effect.gen(function*() {
          const child = yield* Child.start(server())
          assert.include(yield* failureOf(child), "port 8080, which web needs, is in use by another process")
          yield* passing(squatter.shutdown())
          yield* child.start
          yield* passing(child.awaitReady)
        })
      )
    })
  )

  it.effect(
    "one whose queue is full does not answer, and is somebody",
    onSystem(function*() {
      yield* withNetwork(
        () => ({ listeners: undefined, connect: () => Effect.never }),
        Effect.gen(function*() {
          const child = yield* Child.start(server())
          assert.include(yield* failureOf(child), "is in use by another process")
        })
      )
    })
  )

  it.effect(
    "peer 49: connections that were just closed are nobody, although the port can't be listened at yet",
    onSystem(function*() {
      const refused = () =>
        Effect.fail(new ListenError({ address: "port 8080", reason: "InUse", detail: "EADDRINUSE" }))
      const nobody = () => Effect.fail(new ConnectError({ address: "port 8080", reason: "Refused", detail: "" }))
      for (
        const network of [
          { listeners: () => Effect.succeed(Option.some([])), tryListen: refused },
          { listeners: undefined, connect: nobody, tryListen: refused }
        ]
      ) {
        yield* withNetwork(
          () => network,
          Effect.scoped(Effect.gen(function*() {
            const child = yield* Child.start(server())
            yield* settle
            assert.strictEqual(yield* tagOf(child), "Ready")
            yield* passing(child.stop())
          }))
        )
      }
    })
  )

  it.effect(
    "K9: what a dead host has left is ended first, and may take longer than a stranger",
    onSystem(function*() {
      const left = yield* launch(listens, "left")
      const asked: Array<ReadonlyArray<number>> = []
      yield* withNetwork(
        () => ({}),
        Effect.gen(function*() {
          const child = yield* Child.start(server())
          yield* advance(4000)
          assert.strictEqual(yield* tagOf(child), "Starting")
          yield* passing(left.shutdown())
          yield* passing(child.awaitReady)
        }),
        { endLeftovers: (pids) => Effect.sync(() => (asked.push(pids), pids)) }
      )
      assert.deepStrictEqual(asked[0], [left.pid])
    })
  )

  it.effect(
    "ports are from 1 to 65535",
    onSystem(function*() {
      const { field, problem } = yield* Effect.flip(Child.start(server({ ports: [80, { host: "::1", port: 0 }] })))
      assert.deepStrictEqual([field, problem], ["web.ports[1]", "must be a port from 1 to 65535"])
    })
  )
})
