/** A session of the sidecar on the simulated system: what a real one shows too rarely, or only after a long time. */
import { assert, describe, it } from "@effect/vitest"
import type { ProcessPlatform } from "@treeline/core"
import { Program, SimulatedPlatform } from "@treeline/core/testing"
import { Deferred, Effect, Fiber, Queue, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { ShutdownPlan, SidecarProtocol } from "treeline"
import * as SidecarSession from "../../packages/treeline/src/internal/SidecarSession.ts"

const { Simulation } = SimulatedPlatform
const { endure, exit, fork, ignore, sleep, trap, write } = Program

const programs = {
  quick: Program.make(write("hello"), exit(0)),
  obedient: Program.make(endure),
  stubborn: Program.make(ignore("SIGTERM"), endure),
  parent: Program.make(fork(endure), endure),
  tidy: Program.make(trap("SIGTERM", [sleep(300), exit(0)]), endure)
}

const limits: SidecarProtocol.Limits = { ...SidecarProtocol.limits, processes: 20, requests: 30 }

type Message = Readonly<Record<string, unknown>>

interface Client {
  /** Everything that was told. */
  readonly told: Array<Message>
  readonly say: (method: string, params: object, id?: number) => void
  /** Says it, lets it begin, and returns the answer if there is one already. */
  readonly ask: (method: string, params: object) => Effect.Effect<Message | undefined>
  readonly answerTo: (id: number) => Message | undefined
  readonly events: (name: string) => ReadonlyArray<unknown>
  readonly close: Effect.Effect<SidecarSession.Over>
  readonly stop: Effect.Effect<void>
  readonly kill: Effect.Effect<void>
  readonly over: Fiber.Fiber<SidecarSession.Over>
}

/** A session that has been greeted; its client takes each line after `taking`. */
const session = (taking: Effect.Effect<void> = Effect.void): Effect.Effect<
  Client,
  never,
  ProcessPlatform.ProcessPlatform | Scope.Scope
> =>
  Effect.gen(function*() {
    const input = yield* Queue.unbounded<Uint8Array | undefined>()
    const stopped = yield* Deferred.make<void>()
    const killed = yield* Deferred.make<void>()
    const told: Array<Message> = []
    const wire: SidecarSession.Wire = {
      read: Queue.take(input),
      send: (line) => Effect.andThen(taking, Effect.sync(() => void told.push(JSON.parse(line) as Message))),
      gone: Effect.never
    }
    const over = yield* Effect.forkScoped(
      SidecarSession.serve(wire, {
        version: "0",
        pid: 1,
        limits,
        plan: ShutdownPlan.default,
        require: undefined,
        stop: Deferred.await(stopped),
        kill: Deferred.await(killed),
        onDefect: Effect.die
      })
    )
    let last = 0
    const say: Client["say"] = (method, params, id) => {
      const text = JSON.stringify({ jsonrpc: "2.0", ...id !== undefined && { id }, method, params })
      Queue.offerUnsafe(input, new TextEncoder().encode(`${text}\n`))
    }
    const answerTo: Client["answerTo"] = (id) => told.find((message) => message["id"] === id)
    const ask: Client["ask"] = (method, params) =>
      Effect.gen(function*() {
        const id = ++last
        say(method, params, id)
        yield* TestClock.adjust(1)
        return answerTo(id)
      })
    yield* ask("hello", { protocol: SidecarProtocol.protocol })
    return {
      told,
      say,
      ask,
      answerTo,
      events: (name) => told.filter(({ method }) => method === name).map(({ params }) => params),
      close: Effect.sync(() => Queue.offerUnsafe(input, undefined)).pipe(
        Effect.andThen(TestClock.adjust("1 minute")),
        Effect.andThen(Fiber.join(over))
      ),
      stop: Effect.asVoid(Deferred.succeed(stopped, undefined)),
      kill: Effect.asVoid(Deferred.succeed(killed, undefined)),
      over
    }
  })

const tagOf = (answer: Message | undefined): unknown =>
  (answer?.["error"] as { readonly data: { readonly _tag: string } } | undefined)?.data._tag

const on = <A, E>(
  test: Effect.Effect<A, E, ProcessPlatform.ProcessPlatform | SimulatedPlatform.Simulation | Scope.Scope>,
  options: SimulatedPlatform.Options = {}
) => Effect.provide(Effect.scoped(test), SimulatedPlatform.layer({ programs, ...options }))

const spawn = (client: Client, command: string, params: object = {}) =>
  Effect.map(
    client.ask("spawn", { command, credit: { stdout: 100, stderr: 100 }, ...params }),
    (answer) => answer?.["result"] as SidecarProtocol.Spawned
  )

describe("a session of the sidecar", () => {
  it.effect.each(["leader", "child"] as const)(
    "what can't be killed is told by the cancel, by empty, and at the end: the %s",
    (who) =>
      on(Effect.gen(function*() {
        const client = yield* session()
        const simulation = yield* Simulation
        const { pid, process } = yield* spawn(client, "parent")
        const child = (yield* simulation.descendants(pid)).find((info) => info.pid !== pid)
        const stuck = who === "leader" ? pid : child!.pid
        yield* simulation.hang(stuck)
        const shutdown = { steps: [], cap: 1000 }
        yield* client.ask("cancel", { process, shutdown })
        yield* TestClock.adjust("2 seconds")
        const answer = client.told.find((message) => tagOf(message) === "Unkillable")
        const { survivors } =
          (answer!["error"] as { readonly data: { readonly survivors: ReadonlyArray<Message> } }).data
        assert.deepStrictEqual(survivors.map(({ pid }) => pid), [stuck])
        assert.deepStrictEqual(client.events("empty"), [{ process, survivors }])
        assert.strictEqual(client.events("exited").length, who === "leader" ? 0 : 1)
        yield* TestClock.adjust("1 minute")
        // It is not forgotten: a second cancel does not say that all is well.
        assert.strictEqual(tagOf(yield* client.ask("cancel", { process, shutdown })), "Unkillable")
        const { left, reason } = yield* client.close
        assert.deepStrictEqual([reason, left.map(({ pid }) => pid)], ["Closed", [stuck]])
        yield* simulation.hang(stuck, false)
      }))
  )

  it.effect("P36: numbers are not given again, and what has told its last event holds no place", () =>
    on(Effect.gen(function*() {
      const client = yield* session()
      const first = yield* spawn(client, "quick")
      for (let count = 1; count <= limits.processes; count++) client.say("spawn", { command: "quick" })
      yield* TestClock.adjust("1 minute")
      // Without credit the output waits, so all but the first one have their places.
      assert.strictEqual(client.events("exited").length, limits.processes + 1)
      assert.strictEqual(client.events("drained").length, 1)
      assert.strictEqual(tagOf(yield* client.ask("spawn", { command: "quick" })), "LimitReached")
      client.say("discard", { process: 2, stream: "stdout" })
      const { process } = yield* spawn(client, "obedient")
      assert.strictEqual(process, limits.processes + 2)
      assert.deepStrictEqual((yield* client.ask("cancel", { process: first.process }))?.["result"], {})
      assert.deepStrictEqual(yield* client.close, { reason: "Closed", left: [] })
    })))

  it.effect("requests without an answer have a limit, and one more is refused at once", () =>
    on(Effect.gen(function*() {
      const client = yield* session()
      const { process } = yield* spawn(client, "stubborn")
      for (let id = 10_000; id < 10_000 + limits.requests; id++) client.say("cancel", { process }, id)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(tagOf(yield* client.ask("cancel", { process })), "LimitReached")
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(client.answerTo(10_000)?.["result"], {})
      assert.deepStrictEqual((yield* client.ask("cancel", { process }))?.["result"], {})
    })))

  it.effect("P49, P50: a pipe that is closed during a launch: what comes of it is ended, and told", () =>
    on(
      Effect.gen(function*() {
        const client = yield* session()
        client.say("spawn", { command: "tidy" }, 7)
        yield* TestClock.adjust("500 millis")
        assert.deepStrictEqual(yield* client.close, { reason: "Closed", left: [] })
        assert.deepStrictEqual(yield* (yield* Simulation).alive, [])
        assert.strictEqual((client.answerTo(7)!["result"] as SidecarProtocol.Spawned).process, 1)
        assert.deepStrictEqual(client.events("exited"), [{ process: 1, status: { _tag: "Exited", code: 0 } }])
      }),
      { spawnTime: 1000 }
    ))

  it.effect("P45: a stop ends by the plans, and a kill does not wait for them", () =>
    on(Effect.gen(function*() {
      const simulation = yield* Simulation
      const client = yield* session()
      yield* spawn(client, "stubborn")
      yield* client.stop
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual((yield* simulation.alive).length, 1)
      yield* client.kill
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(yield* simulation.alive, [])
      assert.deepStrictEqual(yield* Fiber.join(client.over), { reason: "Stopped", left: [] })
    })))

  it.effect("a client that reads slowly hears all of it after its end, too", () =>
    on(Effect.gen(function*() {
      const client = yield* session(Effect.sleep(400))
      for (let count = 0; count < 5; count++) client.say("spawn", { command: "quick", credit: { stdout: 9 } })
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* client.close, { reason: "Closed", left: [] })
      for (const event of ["output", "exited", "empty", "drained"]) {
        assert.strictEqual(client.events(event).length, 5, event)
      }
    })))

  it.effect("a client that does not read an answer for a minute is taken for gone, and its trees end", () =>
    on(Effect.gen(function*() {
      const simulation = yield* Simulation
      let reads = true
      const client = yield* session(Effect.suspend(() => reads ? Effect.void : Effect.never))
      client.say("spawn", { command: "obedient" })
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* simulation.alive).length, 1)
      reads = false
      client.say("no such method", {}, 1)
      yield* TestClock.adjust("59 seconds")
      assert.isUndefined(client.over.pollUnsafe())
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Fiber.join(client.over), { reason: "Stalled", left: [] })
      assert.deepStrictEqual(yield* simulation.alive, [])
    })))
})
