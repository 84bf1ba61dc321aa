/** The control API in memory, under the test clock: its calls, its gate, and its subscriptions. */
import { assert, describe, it } from "@effect/vitest"
import type { Pool } from "@treeline/core"
import { Control, ControlServer, type LogLine } from "@treeline/core/daemon"
import { InvalidSpec } from "@treeline/core/Errors"
import { Cause, Effect, Exit, Fiber, Layer, Redacted, Stream } from "effect"
import * as Headers from "effect/http/Headers"
import { RpcMiddleware, RpcTest } from "effect/rpc"
import { TestClock } from "effect/testing"
import { settle } from "../support/Actors.ts"
import * as ScriptedHost from "../support/ScriptedHost.ts"

const token = "fedcba9876543210".repeat(4)

const sending = (headers: Record<string, string>) =>
  RpcMiddleware.layerClient(
    Control.Gate,
    ({ next, request }) => next({ ...request, headers: Headers.merge(request.headers, Headers.fromInput(headers)) })
  )

const versioned = { [Control.versionHeader]: String(Control.protocol) }

/** A client of a scripted host, in memory. */
const clientOf = Effect.fnUntraced(function*(
  parts: Parameters<typeof ScriptedHost.make>[0] = {},
  options: ControlServer.Options = {},
  headers: Record<string, string> = versioned
) {
  const scripted = ScriptedHost.make(parts)
  const context = yield* Layer.build(Layer.mergeAll(
    ControlServer.handlers(scripted.host, options),
    ControlServer.gate(options.token),
    sending(headers)
  ))
  const client = yield* Effect.provideContext(
    RpcTest.makeClient(Control.Control, { disableFatalDefects: true }),
    context
  )
  return { ...scripted, client }
})

/** How a stream ended: `done`, or the tag of its error with what it says. */
const ending = <A, E>(fiber: Fiber.Fiber<A, E>) =>
  Effect.map(Fiber.await(fiber), (exit) => {
    if (Exit.isSuccess(exit)) return "done"
    const error = Cause.squash(exit.cause) as { readonly _tag?: string; readonly missed?: number }
    return `${error._tag} ${error.missed}`
  })

/** Reads a stream and puts aside what comes; `pause` is how long it takes for each element. */
const reading = <A, E>(
  stream: Stream.Stream<A, E>,
  pause: (count: number) => Effect.Effect<unknown> = () => Effect.void
) =>
  Effect.gen(function*() {
    const seen: Array<A> = []
    const fiber = yield* Effect.forkChild(
      Stream.runForEach(stream, (element) => Effect.suspend(() => pause(seen.push(element)))),
      { startImmediately: true }
    )
    yield* settle
    return { seen, fiber }
  })

describe("the gate", () => {
  const outcome = (headers: Record<string, string>, asked?: string) =>
    Effect.gen(function*() {
      const { client } = yield* clientOf({}, asked === undefined ? {} : { token: Redacted.make(asked) }, headers)
      const tag = (exit: Exit.Exit<unknown, { readonly _tag: string }>) =>
        Exit.isSuccess(exit) ? "ok" : (Cause.squash(exit.cause) as { readonly _tag: string })._tag
      return [tag(yield* Effect.exit(client.Hello())), tag(yield* Effect.exit(client.Status()))]
    })

  it.effect("lets in whoever shows the token and speaks this version; Hello is for every version", () =>
    Effect.gen(function*() {
      const shown = { [Control.tokenHeader]: `Bearer ${token}` }
      assert.deepStrictEqual(yield* outcome(versioned), ["ok", "ok"])
      assert.deepStrictEqual(yield* outcome({}), ["ok", "VersionMismatch"])
      assert.deepStrictEqual(yield* outcome({ [Control.versionHeader]: "2" }), ["ok", "VersionMismatch"])
      assert.deepStrictEqual(yield* outcome({ ...versioned, ...shown }, token), ["ok", "ok"])
      assert.deepStrictEqual(yield* outcome(shown, token), ["ok", "VersionMismatch"])
      assert.deepStrictEqual(yield* outcome(versioned, token), ["ControlDenied", "ControlDenied"])
      assert.deepStrictEqual(
        yield* outcome({ ...versioned, [Control.tokenHeader]: `Bearer ${"0".repeat(64)}` }, token),
        ["ControlDenied", "ControlDenied"]
      )
    }))

  it.effect("is not made with a token that it could not compare", () =>
    Effect.gen(function*() {
      for (const bad of ["", "secret", token.slice(1), `${token}0`, `${token.slice(1)}g`]) {
        const error = yield* Effect.flip(Effect.scoped(Layer.build(ControlServer.gate(Redacted.make(bad)))))
        assert.deepStrictEqual([error._tag, error.field], ["InvalidSpec", "token"])
        if (bad !== "") assert.notInclude(error.message, bad)
      }
    }))
})

describe("a call", () => {
  it.effect("reaches the host, and its errors are typed", () =>
    Effect.gen(function*() {
      const { calls, client } = yield* clientOf()
      assert.deepStrictEqual(yield* client.Hello(), {
        protocol: 1,
        version: "0.1.0",
        pid: 7,
        startedAt: 5,
        file: null
      })
      yield* Stream.runDrain(client.Start({ names: ["db"] }))
      yield* Stream.runDrain(client.Stop({ names: [] }))
      yield* Stream.runDrain(client.Restart({ names: ["web"] }))
      yield* client.Pause({ names: ["web"] })
      yield* client.Resume({ names: [], reload: true })
      yield* client.Signal({ name: "web", signal: "SIGHUP", target: "leader" })
      yield* Stream.runDrain(client.Reload())
      yield* client.ReopenLogs()
      assert.deepStrictEqual(yield* Stream.runCollect(client.Shutdown({ force: true })), [ScriptedHost.done])
      assert.deepStrictEqual(calls, [
        "start db",
        "stop",
        "restart web",
        "pause web",
        "reload",
        "resume",
        "signal web SIGHUP leader",
        "reload",
        "reopenLogs",
        "shutdown true"
      ])
      const unknown = yield* Effect.flip(client.Pause({ names: ["nobody"] }))
      assert.deepStrictEqual([unknown._tag, unknown._tag === "UnknownChild" && unknown.child], [
        "UnknownChild",
        "nobody"
      ])
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(client.Stop({ names: ["x"] }))))._tag, "UnknownChild")
      assert.strictEqual((yield* Effect.flip(client.PoolEnsure({ pool: "p", key: "k" })))._tag, "UnknownPool")
      assert.strictEqual((yield* Effect.flip(client.PoolShutdown({ pool: "p", key: "k" })))._tag, "UnknownPool")
    }))

  it.effect("brings the child of a key up, and ends it", () =>
    Effect.gen(function*() {
      const asked: Array<string> = []
      const child = { status: Effect.succeed({ state: { _tag: "Ready", pid: 77 } }) }
      const pool = {
        ensure: (key: string) => Effect.sync(() => ({ incarnation: asked.push(`ensure ${key}`), child })),
        shutdown: (key: string) => Effect.sync(() => void asked.push(`shutdown ${key}`))
      } as unknown as Pool.Pool<void, InvalidSpec>
      const { client } = yield* clientOf({ pools: Effect.succeed(new Map([["tenants", pool]])) })
      assert.deepStrictEqual(yield* client.PoolEnsure({ pool: "tenants", key: "a" }), { incarnation: 1, pid: 77 })
      yield* client.PoolShutdown({ pool: "tenants", key: "a" })
      assert.deepStrictEqual(asked, ["ensure a", "shutdown a"])
    }))

  it.effect("resumes nothing when the configuration can't be used", () =>
    Effect.gen(function*() {
      const { calls, client } = yield* clientOf({ reload: Stream.fail(new InvalidSpec({ field: "f", problem: "p" })) })
      assert.strictEqual((yield* Effect.flip(client.Resume({ names: [], reload: true })))._tag, "InvalidSpec")
      assert.deepStrictEqual(calls, [])
    }))

  it.effect("for the status is answered while a start takes long", () =>
    Effect.gen(function*() {
      const { client } = yield* clientOf({ start: () => Stream.never })
      yield* Effect.forkChild(Stream.runDrain(client.Start({ names: [] })), { startImmediately: true })
      yield* settle
      assert.strictEqual((yield* client.Status()).services.length, 3)
    }))
})

describe("a subscription to the status", () => {
  it.effect("gets a snapshot at once, then after changes, at most one in each interval, and a last one", () =>
    Effect.gen(function*() {
      const { client, emit, end } = yield* clientOf()
      const { fiber, seen } = yield* reading(client.Watch({ every: 1000 }))
      assert.strictEqual(seen.length, 1)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(seen.length, 1)
      for (let n = 0; n < 100; n++) emit(ScriptedHost.paused(n))
      yield* settle
      assert.strictEqual(seen.length, 2)
      for (let n = 0; n < 100; n++) emit(ScriptedHost.paused(n))
      yield* TestClock.adjust(999)
      yield* settle
      assert.strictEqual(seen.length, 2)
      yield* TestClock.adjust(1)
      yield* settle
      assert.strictEqual(seen.length, 3)
      end()
      yield* TestClock.adjust(1000)
      yield* settle
      assert.strictEqual(yield* ending(fiber), "done")
      assert.strictEqual(seen.length, 4)
    }))

  it.effect("peer 110: that does not take what there is is dropped after its time; the others go on", () =>
    Effect.gen(function*() {
      const { client, emit } = yield* clientOf({}, { takeWithin: 5000 })
      const slow = yield* reading(client.Watch({ every: 20 }), () => Effect.never)
      const other = yield* reading(client.Watch({ every: 20 }))
      for (let n = 0; n < 200; n++) {
        emit(ScriptedHost.paused(n))
        yield* TestClock.adjust(50)
        yield* settle
      }
      assert.strictEqual(other.seen.length, 201)
      assert.strictEqual(slow.fiber.pollUnsafe(), undefined, "it still reads the one that it has")
      yield* Fiber.interrupt(slow.fiber)
      yield* Fiber.interrupt(other.fiber)
    }))
})

describe("a subscription to the events", () => {
  const flood = (emit: (event: ReturnType<typeof ScriptedHost.paused>) => void, count: number) =>
    Effect.gen(function*() {
      for (let n = 0; n < count; n++) {
        emit(ScriptedHost.paused(n))
        if (n % 100 === 99) yield* settle
      }
      yield* settle
    })

  it.effect("gets all of them", () =>
    Effect.gen(function*() {
      const { client, emit, end } = yield* clientOf()
      const { fiber, seen } = yield* reading(client.Events({ follow: true }))
      yield* flood(emit, 5000)
      end()
      assert.strictEqual(yield* ending(fiber), "done")
      assert.deepStrictEqual(
        seen.map((event) => event._tag === "Paused" && event.at),
        Array.from({ length: 5000 }, (_, n) => n)
      )
    }))

  it.effect("that does not follow gets those that are kept, at once, and ends", () =>
    Effect.gen(function*() {
      const { client, emit } = yield* clientOf()
      assert.deepStrictEqual(yield* Stream.runCollect(client.Events({ follow: false })), [])
      yield* flood(emit, 300)
      const kept = yield* Stream.runCollect(client.Events({ follow: false }))
      assert.deepStrictEqual(kept, Array.from({ length: 256 }, (_, n) => ScriptedHost.paused(44 + n)))
    }))

  it.effect("peer 110: whose reader lets too many wait is dropped and told so; the others go on", () =>
    Effect.gen(function*() {
      const { client, emit } = yield* clientOf({}, { events: 500 })
      // The second element is never done with.
      const slow = yield* reading(
        client.Events({ follow: true }),
        (count) => count === 2 ? Effect.sleep(1) : Effect.void
      )
      const other = yield* reading(client.Events({ follow: true }))
      yield* flood(emit, 2000)
      yield* TestClock.adjust(1)
      assert.match(yield* ending(slow.fiber), /^SubscriberDropped \d{3,4}$/)
      assert.isBelow(slow.seen.length, 1000)
      assert.strictEqual(other.seen.length, 2000)
      yield* Fiber.interrupt(other.fiber)
    }))

  it.effect("peer 110: whose reader takes nothing is dropped after its time, however little there is", () =>
    Effect.gen(function*() {
      const { client, emit } = yield* clientOf({}, { takeWithin: 5000 })
      // More than the client reads ahead.
      const slow = yield* reading(client.Events({ follow: true }), () => Effect.sleep("1 minute"))
      yield* flood(emit, 40)
      yield* TestClock.adjust("1 minute")
      yield* TestClock.adjust("1 hour")
      assert.match(yield* ending(slow.fiber), /^SubscriberDropped \d+$/)
    }))

  it.effect("whose reader is slow and takes what there is in time stays", () =>
    Effect.gen(function*() {
      const { client, emit, end } = yield* clientOf({}, { takeWithin: 5000 })
      const slow = yield* reading(client.Events({ follow: true }), () => Effect.sleep(100))
      yield* flood(emit, 40)
      yield* TestClock.adjust("1 minute")
      end()
      assert.deepStrictEqual([yield* ending(slow.fiber), slow.seen.length], ["done", 40])
    }))
})

describe("the logs", () => {
  const entries = (count: number): Array<LogLine.Entry> =>
    Array.from({ length: count }, (_, n) => ScriptedHost.line(n + 1, `line ${n + 1}`))

  it.effect("are asked for by services and groups", () =>
    Effect.gen(function*() {
      const asked: Array<unknown> = []
      const { noLogs } = ScriptedHost.make()
      const { client } = yield* clientOf({
        logs: {
          ...noLogs,
          read: (query) =>
            Effect.sync(() => {
              asked.push(query)
              return entries(1000)
            })
        }
      })
      const read = (services: ReadonlyArray<string>) =>
        Stream.runCollect(client.Logs({ services, from: { lines: 10 }, follow: false, stream: "stderr" }))
      assert.strictEqual((yield* read(["db", "front"])).length, 1000)
      yield* read([])
      assert.deepStrictEqual(asked, [
        { children: ["db", "web", "worker"], stream: "stderr", from: { lines: 10 } },
        { stream: "stderr", from: { lines: 10 } }
      ])
      const error = yield* Effect.flip(read(["db", "nobody"]))
      assert.deepStrictEqual([error._tag, error._tag === "UnknownChild" && error.child], ["UnknownChild", "nobody"])
    }))

  it.effect("peer 110: are not read on for a follower that takes nothing, and it is dropped", () =>
    Effect.gen(function*() {
      let pulled = 0
      const { noLogs } = ScriptedHost.make()
      const follow = () =>
        Stream.tap(Stream.rechunk(Stream.fromArray(entries(10_000)), 100), () => Effect.sync(() => pulled++))
      const { client } = yield* clientOf({ logs: { ...noLogs, follow } }, { takeWithin: 5000 })
      const slow = yield* reading(
        client.Logs({ services: [], from: "start", follow: true }),
        (count) => count === 1 ? Effect.sleep("1 minute") : Effect.void
      )
      assert.isAtMost(pulled, 200)
      yield* TestClock.adjust("1 minute")
      assert.match(yield* ending(slow.fiber), /^SubscriberDropped \d+$/)
      assert.isAtMost(pulled, 200)
    }))
})
