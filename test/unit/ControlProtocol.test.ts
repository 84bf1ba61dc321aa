/** A server of control and its clients on sockets of a test, under the test clock: what a client may do to a server. */
import { assert, describe, it } from "@effect/vitest"
import { Control, ControlProtocol, ControlServer } from "@treeline/core/daemon"
import { Effect, Exit, Fiber, Latch, Layer, Queue, Redacted, Scope, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Socket, SocketServer } from "effect/socket"
import { TestClock } from "effect/testing"
import { settle } from "../support/Actors.ts"
import * as ScriptedHost from "../support/ScriptedHost.ts"

const closed = new Socket.SocketError({ reason: new Socket.SocketCloseError({ code: 1000 }) })

/** One end of a connection, in the hands of the test. */
class Peer {
  readonly inbox = Effect.runSync(Queue.unbounded<Uint8Array, Socket.SocketError>())
  /** Closed: nothing is taken. */
  readonly taking = Latch.makeUnsafe(true)
  heard = ""
  isOpen = true

  readonly socket = Socket.make({
    reader: Effect.as(
      Effect.acquireRelease(Effect.void, () => Effect.sync(() => (this.isOpen = false))),
      { pull: Queue.takeAll(this.inbox), upgrade: () => Effect.die("no") }
    ),
    writer: Effect.succeed({
      write: (chunk) =>
        Effect.suspend(() => {
          this.heard += String(chunk)
          return this.taking.await
        }),
      writeAll: () => Effect.die("no")
    })
  })

  say(...frames: ReadonlyArray<unknown>) {
    const text = frames.map((frame) => typeof frame === "string" ? frame : `${JSON.stringify(frame)}\n`).join("")
    Queue.offerUnsafe(this.inbox, new TextEncoder().encode(text))
    return settle
  }

  get gone() {
    return Effect.andThen(Queue.fail(this.inbox, closed), settle)
  }

  /** The frames that have come. */
  get frames(): ReadonlyArray<{ readonly _tag: string; readonly requestId?: number; readonly [key: string]: unknown }> {
    return this.heard.split("\n").slice(0, -1).map((line) => JSON.parse(line))
  }

  /** The last frame: its kind, and the error that it is about. */
  get verdict(): string {
    const last = this.frames.at(-1)
    const text = JSON.stringify(last)
    return `${last?._tag} ${
      /"reason":"(\w+)"/.exec(text)?.[1] ?? /"_tag":"(VersionMismatch|SubscriberDropped)"/.exec(text)?.[1]
    }`
  }
}

const request = (id: number, tag: string, payload: unknown = null, version: unknown = String(Control.protocol)) => ({
  _tag: "Request",
  id,
  tag,
  payload,
  headers: [[Control.versionHeader, version]]
})

/** A server in the scope of the test. */
const serve = Effect.fnUntraced(function*(
  parts: Parameters<typeof ScriptedHost.make>[0] = {},
  options: ControlProtocol.Limits & ControlServer.Options = {}
) {
  const scripted = ScriptedHost.make(parts)
  const incoming = yield* Queue.unbounded<Peer>()
  const server = SocketServer.SocketServer.of({
    address: NetAddress.unixPathAddress("/test"),
    run: (handler) =>
      Effect.scoped(Effect.forever(
        Effect.flatMap(Queue.take(incoming), (peer) => Effect.forkScoped(handler(peer.socket)))
      ))
  })
  const scope = yield* Scope.fork(yield* Effect.scope)
  yield* Layer.buildWithScope(
    ControlServer.layer(scripted.host, options).pipe(
      Layer.provide(ControlProtocol.layer(options)),
      Layer.provide(Layer.succeed(SocketServer.SocketServer, server))
    ),
    scope
  )
  const connect = Effect.gen(function*() {
    const peer = new Peer()
    yield* Queue.offer(incoming, peer)
    yield* settle
    return peer
  })
  return { ...scripted, connect, close: Scope.close(scope, Exit.void) }
})

const hello = request(1, "Hello")

describe("a server of control", () => {
  it.effect("answers, also requests that come in pieces and several at once", () =>
    Effect.gen(function*() {
      const { connect } = yield* serve()
      const peer = yield* connect
      const text = `${JSON.stringify(hello)}\n`
      yield* peer.say(text.slice(0, 7))
      yield* peer.say(text.slice(7), request(2, "Stop", { names: ["web"] }))
      const [first, ...others] = peer.frames
      assert.deepStrictEqual(first, {
        _tag: "Exit",
        requestId: 1,
        exit: { _tag: "Success", value: { protocol: 1, version: "0.1.0", pid: 7, startedAt: 5, file: null } }
      })
      assert.deepStrictEqual(others.map(({ _tag, requestId }) => [_tag, requestId]), [["Chunk", 2]])
      yield* peer.say({ _tag: "Ack", requestId: 2 }, { _tag: "Ping" })
      assert.deepStrictEqual(peer.frames.slice(2).map(({ _tag }) => _tag).toSorted(), ["Exit", "Pong"])
      assert.isTrue(peer.isOpen)
    }))

  const wrong: Readonly<Record<string, [frames: ReadonlyArray<unknown>, verdict: string]>> = {
    "null": [["null\n"], "Defect Malformed"],
    "no protocol": [["\u0016\u0003\u0001"], "Defect Malformed"],
    "an unknown call": [[request(9, "Erase")], "Exit Malformed"],
    "a wrong payload": [[request(9, "Stop", { names: 1 })], "Exit Malformed"],
    "an end": [[hello, { _tag: "Eof" }], "Defect Malformed"],
    "a ping as its first word": [[{ _tag: "Ping" }], "Defect Malformed"],
    "an acknowledgement as its first word": [[{ _tag: "Ack", requestId: 7 }], "Defect Malformed"],
    "a frame that is too large": [[`{${"x".repeat(300_000)}`], "Defect TooLarge"],
    "an id twice": [[request(3, "Events", { follow: true }), request(3, "Status")], "Exit Malformed"],
    "another version": [[request(4, "Status", null, "2")], "Exit VersionMismatch"],
    "no version": [[{ ...request(4, "Status"), headers: [] }], "Exit VersionMismatch"]
  }
  for (const [name, [frames, verdict]] of Object.entries(wrong)) {
    it.effect(`peer 111: refuses ${name}, closes that connection, and no other`, () =>
      Effect.gen(function*() {
        const { connect } = yield* serve()
        const other = yield* connect
        const peer = yield* connect
        yield* peer.say(...frames)
        assert.strictEqual(peer.verdict, verdict)
        yield* TestClock.adjust(1000)
        yield* settle
        assert.isFalse(peer.isOpen)
        yield* other.say(hello)
        assert.deepStrictEqual([other.frames.length, other.isOpen], [1, true])
      }))
  }

  it.effect("peer 111: Hello is answered to another version", () =>
    Effect.gen(function*() {
      const { connect } = yield* serve()
      const peer = yield* connect
      yield* peer.say(request(1, "Hello", null, "99"))
      assert.deepInclude(peer.frames[0]?.["exit"], { _tag: "Success" })
    }))

  it.effect("answers whoever speaks HTTP with 403, and does not read on", () =>
    Effect.gen(function*() {
      const { calls, connect } = yield* serve()
      const peer = yield* connect
      yield* peer.say("POST / HTTP/1.1\r\nHost: a.example\r\n\r\n", request(1, "Stop", { names: [] }))
      assert.match(peer.heard, /^HTTP\/1\.1 403 Forbidden\r\n[^]*"reason":"ForeignRequest"/)
      yield* TestClock.adjust(1000)
      assert.deepStrictEqual([peer.isOpen, calls], [false, []])
    }))

  it.effect("does not wait for a frame that never ends, and waits for the next one", () =>
    Effect.gen(function*() {
      const { connect } = yield* serve()
      const [silent, slow, idle] = [yield* connect, yield* connect, yield* connect]
      yield* idle.say(hello)
      for (let n = 0; n < 9; n++) {
        yield* slow.say(n === 0 ? "{" : " ")
        yield* TestClock.adjust(1000)
      }
      assert.deepStrictEqual([silent.isOpen, slow.isOpen], [true, true])
      yield* TestClock.adjust(1000)
      yield* settle
      assert.deepStrictEqual([silent.verdict, slow.verdict], ["Defect Malformed", "Defect Malformed"])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual([silent.isOpen, slow.isOpen, idle.isOpen], [false, false, true])
      yield* idle.say("{")
      yield* TestClock.adjust("9 seconds")
      assert.isTrue(idle.isOpen)
      yield* TestClock.adjust("2 seconds")
      yield* settle
      assert.strictEqual(idle.verdict, "Defect Malformed")
    }))

  it.effect("lets only so many in, says so to the others, and gives a place back", () =>
    Effect.gen(function*() {
      const { connect } = yield* serve({}, { connections: 2 })
      const [one, two, three] = [yield* connect, yield* connect, yield* connect]
      for (const peer of [one, two, three]) yield* peer.say(hello)
      assert.strictEqual(three.verdict, "Exit TooMany")
      yield* two.gone
      const four = yield* connect
      yield* four.say(hello)
      assert.deepStrictEqual([one.frames.length, four.frames.length, two.isOpen], [1, 1, false])
    }))

  it.effect("peer 110: is not taken up by those that say nothing or show no token: the oldest of them goes", () =>
    Effect.gen(function*() {
      const token = "0123456789abcdef".repeat(4)
      const { connect } = yield* serve({}, { token: Redacted.make(token), connections: 2, strangers: 3 })
      const shown = {
        ...request(1, "Status"),
        headers: [[Control.versionHeader, "1"], [Control.tokenHeader, `Bearer ${token}`]]
      }
      const owner = yield* connect
      yield* owner.say(shown)
      const silent = [yield* connect, yield* connect, yield* connect]
      const refused = yield* connect
      // Reads nothing, so that it stays while it is told.
      refused.taking.closeUnsafe()
      yield* refused.say(request(1, "Status"))
      const open = () => [...silent, refused].map((peer) => peer.isOpen)
      assert.deepStrictEqual(open(), [false, true, true, true])
      const other = yield* connect
      assert.deepStrictEqual(open(), [false, false, true, true])
      yield* other.say(shown)
      assert.deepStrictEqual([other.frames.length, other.isOpen], [1, true])
      for (let n = 0; n < 10; n++) yield* connect
      assert.deepStrictEqual(open(), [false, false, false, false])
      yield* owner.say({ ...shown, id: 2 })
      yield* other.say({ ...shown, id: 2 })
      assert.deepStrictEqual([owner.frames.length, other.frames.length], [2, 2])
    }))

  it.effect("takes only so many requests of one connection", () =>
    Effect.gen(function*() {
      const { connect } = yield* serve({}, { requests: 3 })
      const peer = yield* connect
      yield* peer.say(...[1, 2, 3].map((id) => request(id, "Events", { follow: true })))
      assert.isTrue(peer.isOpen)
      yield* peer.say({ _tag: "Interrupt", requestId: 2 })
      yield* peer.say(request(4, "Events", { follow: true }))
      assert.deepStrictEqual(peer.frames.map(({ _tag, requestId }) => [_tag, requestId]), [["Exit", 2]])
      yield* peer.say(request(5, "Status"))
      assert.deepStrictEqual([peer.verdict, peer.frames.at(-1)?.requestId], ["Exit TooMany", 5])
    }))

  it.effect("peer 110: does not do for a client that reads nothing what it asks for, and lets it go after a while", () =>
    Effect.gen(function*() {
      let asked = 0
      const { connect, host } = yield* serve({
        pools: Effect.sync(() => {
          asked++
          return new Map()
        })
      })
      const [peer, other] = [yield* connect, yield* connect]
      yield* other.say(hello)
      peer.taking.closeUnsafe()
      yield* peer.say(...Array.from({ length: 10_000 }, (_, n) => request(n, "PoolShutdown", { pool: "x", key: "y" })))
      assert.isBelow(asked, 40)
      assert.isBelow(peer.heard.length, 100_000)
      yield* TestClock.adjust("59 seconds")
      yield* other.say(hello)
      assert.deepStrictEqual([peer.isOpen, other.frames.length], [true, 2])
      yield* TestClock.adjust("2 seconds")
      yield* settle
      assert.deepStrictEqual([peer.isOpen, other.isOpen], [false, true])
      assert.strictEqual((yield* host.status).phase, "running")
    }))

  it.effect("peer 110: ends what was done for a client that is gone", () =>
    Effect.gen(function*() {
      const ended: Array<string> = []
      const { connect } = yield* serve({
        events: Stream.ensuring(Stream.never, Effect.sync(() => ended.push("events"))),
        reopenLogs: Effect.ensuring(Effect.never, Effect.sync(() => ended.push("call")))
      })
      const peer = yield* connect
      yield* peer.say(request(1, "Events", { follow: true }), request(2, "ReopenLogs"))
      assert.deepStrictEqual(ended, [])
      yield* peer.gone
      assert.deepStrictEqual([ended.toSorted(), peer.isOpen], [["call", "events"], false])
    }))

  it.effect("refuses who shows no token or a wrong one, in every call, and lets the right one in", () =>
    Effect.gen(function*() {
      const token = "0123456789abcdef".repeat(4)
      const { calls, connect } = yield* serve({}, { token: Redacted.make(token) })
      const shown = (value: string, tag: string, payload: unknown = null) => ({
        ...request(1, tag, payload),
        headers: [[Control.versionHeader, "1"], [Control.tokenHeader, value]]
      })
      const all = [...Control.Control.requests.keys()]
      const payloads: Readonly<Record<string, unknown>> = {
        Watch: { every: 1 },
        Events: { follow: true },
        Logs: { services: [], from: "now", follow: false },
        Resume: { names: [], reload: false },
        Signal: { name: "web", signal: "SIGHUP", target: "tree" },
        Shutdown: { force: true },
        PoolEnsure: { pool: "p", key: "k" },
        PoolShutdown: { pool: "p", key: "k" }
      }
      for (const tag of all) {
        const payload = payloads[tag] ?? (["Start", "Stop", "Restart", "Pause"].includes(tag) ? { names: [] } : null)
        for (const wrong of ["", "Bearer ", token, `Bearer ${token.slice(1)}0`, `Bearer ${token} `, "Bearer é"]) {
          const peer = yield* connect
          yield* peer.say(wrong === "" ? request(1, tag, payload) : shown(wrong, tag, payload))
          assert.strictEqual(peer.verdict, "Exit BadToken", `${tag} ${wrong}`)
          assert.notInclude(peer.heard, token.slice(1))
          yield* TestClock.adjust(1000)
          assert.isFalse(peer.isOpen)
        }
      }
      assert.deepStrictEqual(calls, [])
      const peer = yield* connect
      yield* peer.say(shown(`Bearer ${token}`, "Stop", { names: ["web"] }))
      assert.deepStrictEqual([calls, peer.isOpen], [["stop web"], true])
    }))

  it.effect("tells everybody at its end, and does not wait for who reads nothing", () =>
    Effect.gen(function*() {
      const { close, connect } = yield* serve()
      const [reader, stuck] = [yield* connect, yield* connect]
      stuck.taking.closeUnsafe()
      yield* reader.say(request(1, "Events", { follow: true }))
      yield* stuck.say(hello)
      const closing = yield* Effect.forkChild(close)
      yield* settle
      assert.deepStrictEqual([reader.frames.map(({ _tag }) => _tag), reader.isOpen], [["Exit"], false])
      yield* TestClock.adjust("3 seconds")
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(closing)))
      assert.isFalse(stuck.isOpen)
    }))

  it.effect("at its end waits until whoever asked for it has heard of it, but not for ever", () =>
    Effect.gen(function*() {
      for (const acknowledges of [true, false]) {
        const { close, connect } = yield* serve()
        const peer = yield* connect
        yield* peer.say(request(1, "Shutdown", { force: false }))
        const closing = yield* Effect.forkChild(close)
        yield* settle
        assert.deepStrictEqual([peer.frames.map(({ _tag }) => _tag), peer.isOpen], [["Chunk"], true])
        if (acknowledges) {
          yield* peer.say({ _tag: "Ack", requestId: 1 })
          assert.deepInclude(peer.frames.at(-1)?.["exit"], { _tag: "Success" })
        } else yield* TestClock.adjust("2 seconds")
        yield* Fiber.await(closing)
        assert.isFalse(peer.isOpen)
      }
    }))
})
