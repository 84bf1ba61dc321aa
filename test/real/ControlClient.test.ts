/** A client of control and servers that are none, are another version, or go away: it is told, and never hangs. */
import { assert, layer } from "@effect/vitest"
import { Control } from "@treeline/core/daemon"
import { NodeControl, StateDirectory } from "@treeline/platform-node"
import { Effect, Exit, Fiber, Layer, References, Scope, Stream } from "effect"
import { once } from "node:events"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { eventually } from "../support/Eventually.ts"
import * as Scratch from "../support/Scratch.ts"
import * as ScriptedHost from "../support/ScriptedHost.ts"

const quiet = Layer.succeed(References.MinimumLogLevel, "None")

const locate = Effect.gen(function*() {
  const scratch = yield* Scratch.make
  const { control, directory } = yield* StateDirectory.locate({ file: scratch.file("treeline.json") })
  yield* StateDirectory.make(directory)
  if (control._tag !== "Socket") throw new Error("no socket")
  return { control, scratch }
})

/** A server that is none of ours; `answer` gets each line. */
const server = (at: StateDirectory.ControlAddress, answer: (socket: net.Socket, line: string) => void) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets = new Set<net.Socket>()
      const server = net.createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {})
        socket.setEncoding("utf8").on("data", (text: string) => {
          for (const line of text.split("\n").slice(0, -1)) answer(socket, line)
        })
      })
      await once(server.listen(at._tag === "Socket" ? at.path : 0), "listening")
      return { server, sockets }
    }),
    ({ server, sockets }) =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
        server.close()
      })
  )

/** The kind of error, and its reason. */
const problem = <A, R>(effect: Effect.Effect<A, { readonly _tag: string; readonly reason?: string }, R>) =>
  Effect.map(Effect.flip(effect), ({ _tag, reason }) => reason === undefined ? _tag : `${_tag} ${reason}`)

const welcome = (protocol: number) => (socket: net.Socket, line: string) => {
  const { id, tag } = JSON.parse(line) as { readonly id: number; readonly tag?: string }
  if (tag !== "Hello") return
  const value = { protocol, version: "9", pid: 5, startedAt: 1, file: null }
  socket.write(`${JSON.stringify({ _tag: "Exit", requestId: id, exit: { _tag: "Success", value } })}\n`)
}

layer(quiet, { excludeTestServices: true })("a client", (it) => {
  const strangers: Readonly<Record<string, [answer: (socket: net.Socket, line: string) => void, error: string]>> = {
    "says nothing": [() => {}, "ControlUnavailable NoAnswer"],
    "closes": [(socket) => socket.end(), "ControlUnavailable Lost"],
    "closes in the middle of an answer": [
      (socket) => socket.end("{\"_tag\":\"Exit\",\"reque"),
      "ControlUnavailable Lost"
    ],
    "speaks HTTP": [(socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"), "ControlUnavailable Foreign"],
    "says null": [(socket) => socket.write("null\n"), "ControlUnavailable Foreign"],
    "answers with something else": [
      (socket, line) =>
        socket.write(
          `${
            JSON.stringify({
              _tag: "Exit",
              requestId: (JSON.parse(line) as { readonly id: number }).id,
              exit: { _tag: "Success", value: { pid: "x" } }
            })
          }\n`
        ),
      "ControlUnavailable Foreign"
    ],
    "is another version": [welcome(2), "VersionMismatch"]
  }
  for (const [name, [answer, expected]] of Object.entries(strangers)) {
    it.effect(`peer 111: is told that a server ${name}`, () =>
      Effect.gen(function*() {
        const { control } = yield* locate
        yield* server(control, answer)
        assert.strictEqual(yield* problem(Effect.scoped(NodeControl.connect(control, { within: 300 }))), expected)
      }))
  }

  it.effect("may ask for much at once, also while calls that take long are under way", () =>
    Effect.gen(function*() {
      const { control } = yield* locate
      const { host } = ScriptedHost.make({ pools: Effect.never })
      const listener = yield* NodeControl.listen(control)
      yield* Layer.build(NodeControl.serve(host, listener))
      const client = yield* NodeControl.connect(control)
      const many = Array.from({ length: 100 })
      const long = yield* Effect.forEach(many, () => Effect.forkChild(client.poolEnsure("p", "k")))
      const answers = yield* Effect.forEach(many, () => client.status, { concurrency: "unbounded" })
      assert.deepStrictEqual(new Set(answers.map(({ phase }) => phase)), new Set(["running"]))
      yield* Fiber.interruptAll(long)
      assert.strictEqual((yield* client.status).phase, "running")
    }))

  it.effect("has a limit for each call, and goes on after it", () =>
    Effect.gen(function*() {
      const { control } = yield* locate
      yield* server(control, welcome(Control.protocol))
      const client = yield* NodeControl.connect(control, { within: 200 })
      assert.deepStrictEqual([client.server.pid, client.server.version], [5, "9"])
      assert.strictEqual(yield* problem(client.status), "ControlUnavailable NoAnswer")
      assert.strictEqual(yield* problem(client.reopenLogs), "ControlUnavailable NoAnswer")
    }))

  it.effect("peer 110: whose server goes away loses every call and every stream, at once", () =>
    Effect.gen(function*() {
      for (const violent of [false, true]) {
        const { control } = yield* locate
        const scope = yield* Scope.make()
        const { noLogs } = ScriptedHost.make()
        let asked = 0
        const never = Effect.suspend(() => {
          asked++
          return Effect.never
        })
        const waiting = Stream.fromEffect(never)
        const { host } = ScriptedHost.make({
          events: waiting,
          start: () => waiting,
          shutdown: () => waiting,
          reopenLogs: never,
          logs: { ...noLogs, follow: () => waiting }
        })
        const connections = new Set<net.Socket>()
        if (violent) {
          // Between client and server, so that the connections can be cut.
          const inner = path.join(path.dirname(control.path), "inner.sock")
          const listener = yield* Scope.provide(NodeControl.listen({ ...control, path: inner }), scope)
          yield* Layer.buildWithScope(NodeControl.serve(host, listener), scope)
          const relay = net.createServer((socket) => {
            const to = net.connect(inner)
            for (const end of [socket, to]) {
              connections.add(end)
              end.on("error", () => {})
            }
            socket.pipe(to).pipe(socket)
          })
          yield* Effect.promise(() => once(relay.listen(control.path), "listening"))
          yield* Scope.addFinalizer(scope, Effect.sync(() => relay.close()))
        } else {
          const listener = yield* Scope.provide(NodeControl.listen(control), scope)
          yield* Layer.buildWithScope(NodeControl.serve(host, listener), scope)
        }
        const client = yield* NodeControl.connect(control)
        const asking = [
          client.reopenLogs,
          Stream.runDrain(client.events({ follow: true })),
          Stream.runDrain(client.logs({ follow: true })),
          Stream.runDrain(client.start()),
          Stream.runDrain(client.shutdown()),
          Stream.runDrain(Stream.drop(client.watch(), 1))
        ]
        const fibers = yield* Effect.forEach(asking, (effect) => Effect.forkChild(problem(effect)))
        yield* eventually("all is asked", () => asked >= 6, { detail: () => asked })
        if (violent) { for (const socket of connections) socket.destroy() }
        else yield* Effect.forkChild(Scope.close(scope, Exit.void))
        const problems = yield* Effect.forEach(fibers, Fiber.join)
        assert.deepStrictEqual([...new Set(problems)], ["ControlUnavailable Lost"])
        // It stays lost: another client is needed.
        assert.strictEqual(yield* problem(client.status), "ControlUnavailable Lost")
        yield* Scope.close(scope, Exit.void)
      }
    }))

  it.effect("peer 110: that reads a stream slowly is dropped and told so; its calls and other clients go on", () =>
    Effect.gen(function*() {
      const { control } = yield* locate
      const { noLogs } = ScriptedHost.make()
      const text = "x".repeat(1000)
      const { host } = ScriptedHost.make({
        logs: {
          ...noLogs,
          follow: () => Stream.map(Stream.range(1, 100_000, 100), (n) => ScriptedHost.line(n, text))
        }
      })
      const listener = yield* NodeControl.listen(control)
      yield* Layer.build(NodeControl.serve(host, listener, { takeWithin: 1500 }))
      const client = yield* NodeControl.connect(control)
      let seen = 0
      const slow = yield* Effect.forkChild(problem(
        Stream.runForEach(
          client.logs({ follow: true }),
          () => ++seen === 10 ? Effect.sleep(2200) : Effect.void
        )
      ))
      for (let n = 0; n < 20; n++) {
        assert.strictEqual((yield* client.status).phase, "running")
        yield* Effect.sleep(50)
      }
      const other = yield* NodeControl.connect(control)
      const lines = yield* Stream.runCollect(Stream.take(other.logs({ follow: true }), 1000))
      assert.strictEqual(lines.length, 1000)
      const end = yield* Fiber.join(slow)
      assert.strictEqual(end, "SubscriberDropped")
      assert.isBelow(seen, 5000)
    }))

  it.effect.skipIf(process.getuid?.() !== 0)(
    "may be root, and ask services of another user",
    () =>
      Effect.gen(function*() {
        const { control } = yield* locate
        const listener = yield* NodeControl.listen(control)
        yield* Layer.build(NodeControl.serve(ScriptedHost.make().host, listener))
        fs.lchownSync(control.path, 65534, 65534)
        assert.strictEqual((yield* NodeControl.connect(control)).server.pid, 7)
      })
  )

  it.effect.skipIf(process.getuid?.() !== 0)(
    "peer 107: of another user is told that it may not",
    () =>
      Effect.gen(function*() {
        const { control, scratch } = yield* locate
        const listener = yield* NodeControl.listen(control)
        yield* Layer.build(NodeControl.serve(ScriptedHost.make().host, listener))
        // The folder belongs to nobody else; a relay of a third user in an open one is not trusted.
        const open = path.join(scratch.directory, "open.sock")
        yield* server({ ...control, path: open }, welcome(Control.protocol))
        fs.lchownSync(open, 1234, 1234)
        const asked = yield* Effect.sync(() => {
          process.seteuid!(65534)
          try {
            return [control, { ...control, path: open }].map((address) =>
              Effect.runSyncExit(NodeControl.reach(address))
            )
          } finally {
            process.seteuid!(0)
          }
        })
        const reasons = yield* Effect.forEach(asked, (exit) => problem(exit))
        assert.deepStrictEqual(reasons, ["ControlUnavailable PermissionDenied", "ControlUnavailable Foreign"])
      })
  )
})
