/** Control over real sockets: who gets in, what a client may do to a server, and a client in another process. */
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { ServiceHost } from "@treeline/core/daemon"
import { NodeControl, StateDirectory } from "@treeline/platform-node"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Fiber, Layer, References, Scope, Stream } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as http from "node:http"
import * as net from "node:net"
import * as path from "node:path"
import { collect } from "../../bench/Garbage.ts"
import { eventually } from "../support/Eventually.ts"
import { fixture } from "../support/Host.ts"
import * as Programs from "../support/Programs.ts"
import * as Scratch from "../support/Scratch.ts"
import * as ScriptedHost from "../support/ScriptedHost.ts"

const platform = Layer.mergeAll(
  PosixPlatform.layer,
  NodeServices.layer,
  Layer.succeed(References.MinimumLogLevel, "None")
)

/** Frames of the load test, and connections that hang up. */
const frameCount = Number(process.env["TREELINE_CONTROL_FRAMES"] ?? 500)
const hangUps = 60

const locate = (scratch: Scratch.Scratch, daemon: NonNullable<StateDirectory.Options["daemon"]> = {}) =>
  StateDirectory.locate({
    file: scratch.file("treeline.json"),
    daemon,
    environment: { XDG_RUNTIME_DIR: scratch.file("run") }
  })

const socketPath = (address: StateDirectory.ControlAddress): string => {
  if (address._tag !== "Socket") throw new Error("no socket")
  return address.path
}

/** A scripted host that is served in the scope of the test. */
const serve = Effect.fnUntraced(function*(
  address: StateDirectory.ControlAddress,
  parts: Parameters<typeof ScriptedHost.make>[0] = {},
  options: NodeControl.ServeOptions = {}
) {
  const scripted = ScriptedHost.make({ reopenLogs: Effect.never, ...parts })
  const listener = yield* NodeControl.listen(address)
  yield* Layer.build(NodeControl.serve(scripted.host, listener, options))
  return { ...scripted, listener }
})

/** A program of a fixture, killed at the end of the test. */
const program = (command: string, args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] })
      let output = ""
      child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text))
      return { child, output: () => output }
    }),
    ({ child }) => Effect.promise(() => ended(child, "SIGKILL"))
  )

const ended = async (child: ChildProcess, signal?: NodeJS.Signals): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const closed = once(child, "close")
  if (signal !== undefined) child.kill(signal)
  await closed
}

const client = (address: StateDirectory.ControlAddress, mode: string) =>
  program(process.execPath, [Programs.program("controlClient"), JSON.stringify(address), mode])

/** A connection that says what it wants; `heard` is what has come, `over` once it is closed. */
const raw = (to: StateDirectory.ControlAddress | number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const socket = net.connect(typeof to === "number" ? { port: to, host: "127.0.0.1" } : { path: socketPath(to) })
      const state = { socket, heard: "", over: false }
      socket.setEncoding("utf8").on("data", (text: string) => (state.heard += text))
      socket.on("error", () => {})
      socket.on("close", () => (state.over = true))
      return state
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )

const frame = (value: unknown) => `${JSON.stringify(value)}\n`

const request = (id: number, tag: string, payload: unknown = null) =>
  frame({ _tag: "Request", id, tag, payload, headers: [["treeline-protocol", "1"]] })

const descriptors = () => fs.readdirSync("/proc/self/fd").length

/** Waits until no more descriptors are open than before. */
const settled = (before: number) =>
  eventually("the descriptors are closed", () => descriptors() <= before, { detail: () => [before, descriptors()] })

const refusedOf = <A>(effect: Effect.Effect<A, { readonly _tag: string; readonly reason?: string }>) =>
  Effect.map(Effect.flip(effect), ({ _tag, reason }) => reason === undefined ? _tag : `${_tag} ${reason}`)

/** No process can have it (proc(5): pid_max is at most 4,194,304). */
const deadPid = 2 ** 30

const oldToken = "0123456789abcdef".repeat(4)

/** What a server has left that was killed. */
const portFile = (control: StateDirectory.ControlAddress, known: { readonly pid: number; readonly port: number }) =>
  Effect.sync(() => {
    if (control._tag !== "Port") throw new Error("no port")
    fs.writeFileSync(control.file, JSON.stringify({ ...known, token: oldToken }), { mode: 0o600 })
  })

/** Another program at a port of its own. */
const listening = (answer: (socket: net.Socket) => void) =>
  Effect.gen(function*() {
    let heard = ""
    const sockets: Array<net.Socket> = []
    const server = net.createServer((socket) => {
      sockets.push(socket)
      socket.on("error", () => {}).setEncoding("utf8").on("data", (text: string) => (heard += text))
      answer(socket)
    })
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        server.close()
        for (const socket of sockets) socket.destroy()
      })
    )
    yield* Effect.promise(() => once(server.listen(0, "127.0.0.1"), "listening"))
    return { port: (server.address() as net.AddressInfo).port, heard: () => heard }
  })

/** One where nobody listens. */
const freePort = Effect.map(Effect.scoped(listening(() => {})), ({ port }) => port)

layer(platform, { excludeTestServices: true })("control over a socket", (it) => {
  it.effect("tells who serves, answers, and is gone with its scope", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control, directory } = yield* locate(scratch)
      assert.strictEqual(yield* refusedOf(Effect.scoped(NodeControl.connect(control))), "ControlUnavailable NotRunning")
      yield* Effect.scoped(Effect.gen(function*() {
        yield* serve(control)
        const client = yield* NodeControl.connect(control)
        assert.deepStrictEqual(client.server, { protocol: 1, version: "0.1.0", pid: 7, startedAt: 5, file: null })
        assert.strictEqual((yield* client.status).services.length, 3)
        assert.deepStrictEqual(yield* Stream.runCollect(client.shutdown()), [ScriptedHost.done])
      }))
      assert.deepStrictEqual(fs.readdirSync(directory), [])
      assert.strictEqual(yield* refusedOf(Effect.scoped(NodeControl.connect(control))), "ControlUnavailable NotRunning")
    }))

  it.effect("peer 104: takes the place of one that nobody listens at, and of a live one never", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control, directory } = yield* locate(scratch)
      yield* StateDirectory.make(directory)
      // A listener that was killed.
      const { child } = yield* program(process.execPath, [
        "-e",
        `require("net").createServer().listen(${
          JSON.stringify(socketPath(control))
        }, () => process.kill(process.pid, "SIGKILL"))`
      ])
      yield* Effect.promise(() => ended(child))
      assert.isTrue(fs.lstatSync(socketPath(control)).isSocket())
      yield* serve(control)
      const first = yield* NodeControl.connect(control)
      const second = yield* Effect.flip(Effect.scoped(NodeControl.listen(control)))
      assert.deepStrictEqual([second._tag, second._tag === "AlreadyRunning" && second.pid], ["AlreadyRunning", 7])
      assert.strictEqual((yield* first.status).phase, "running")
      assert.deepStrictEqual(fs.readdirSync(directory), ["control.sock"])
    }))

  it.effect("peer 104: what hangs there or speaks otherwise is not replaced, nor is what is no socket", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control, directory } = yield* locate(scratch)
      yield* StateDirectory.make(directory)
      const other = net.createServer((socket) => socket.on("error", () => {}).end("220 welcome\r\n"))
      yield* Effect.promise(() => once(other.listen(socketPath(control)), "listening"))
      yield* Effect.addFinalizer(() => Effect.sync(() => other.close()))
      const error = yield* Effect.flip(Effect.scoped(NodeControl.listen(control)))
      assert.deepStrictEqual([error._tag, error._tag === "AlreadyRunning" && error.pid], ["AlreadyRunning", null])
      assert.strictEqual(yield* refusedOf(Effect.scoped(NodeControl.connect(control))), "ControlUnavailable Foreign")
      fs.rmSync(socketPath(control))
      fs.writeFileSync(socketPath(control), "mine")
      assert.strictEqual((yield* Effect.flip(Effect.scoped(NodeControl.listen(control))))._tag, "InvalidSpec")
      assert.strictEqual(fs.readFileSync(socketPath(control), "utf8"), "mine")
    }))

  it.effect("peer 105: of ten that start at once, exactly one wins", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control } = yield* locate(scratch)
      for (let round = 0; round < 5; round++) {
        yield* Effect.scoped(Effect.gen(function*() {
          const exits = yield* Effect.forEach(
            Array.from({ length: 10 }, () => serve(control)),
            (start) => Effect.exit(start),
            { concurrency: "unbounded" }
          )
          assert.strictEqual(exits.filter(Exit.isSuccess).length, 1)
          assert.strictEqual((yield* NodeControl.connect(control)).server.pid, 7)
        }))
      }
    }))

  it.effect("peer 105: a starter that loses its claim while it asks who listens does not go on", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const locations = [
        (yield* locate(scratch)).control,
        (yield* StateDirectory.locate({ file: scratch.file("treeline.json"), platform: "win32" })).control
      ]
      for (const control of locations) {
        const file = control._tag === "Socket" ? control.path : control.file
        const directory = path.dirname(file)
        // So that it asks somebody: nobody who listens any more.
        yield* StateDirectory.make(directory)
        if (control._tag === "Port") yield* portFile(control, { pid: deadPid, port: yield* freePort })
        const before = fs.readdirSync(directory)
        const starting = yield* Effect.forkChild(refusedOf(Effect.scoped(NodeControl.listen(control))), {
          startImmediately: true
        })
        const claim = path.join(directory, fs.readdirSync(directory).find((name) => !before.includes(name))!)
        const room = path.join(claim, fs.readdirSync(claim)[0]!)
        // What another one does when this one has slept for long.
        fs.renameSync(room, `${room}-successor`)
        fs.writeFileSync(path.join(`${room}-successor`, "s"), "successor")
        assert.strictEqual(yield* Fiber.join(starting), "ListenError InUse")
        assert.strictEqual(fs.readFileSync(path.join(`${room}-successor`, "s"), "utf8"), "successor")
        fs.rmSync(claim, { recursive: true })
        assert.deepStrictEqual(fs.readdirSync(directory), before)
      }
    }))

  it.effect("peer 107: at no moment may another user connect, whatever the umask is", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control } = yield* locate(scratch)
      const open = scratch.file("open.sock")
      const gate = net.createServer((socket) => socket.destroy())
      const umask = process.umask(0)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          process.umask(umask)
          gate.close()
        })
      )
      yield* Effect.promise(() => once(gate.listen(open), "listening"))
      const asNobody = process.getuid?.() === 0
        ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "perl"]
        : undefined
      const run = (args: ReadonlyArray<string>) => program(args[0]!, args.slice(1))
      // The script is copied to where another user may read it.
      const script = scratch.file("intruder.pl")
      fs.copyFileSync(fixture("intruder.pl"), script)
      fs.chmodSync(script, 0o644)
      const watcher = yield* run(["perl", script, "stat", socketPath(control)])
      const intruder = asNobody === undefined
        ? undefined
        : yield* run([...asNobody, script, "connect", socketPath(control)])
      const guest = asNobody === undefined ? undefined : yield* run([...asNobody, script, "connect", open])
      for (const peer of [watcher, intruder, guest]) {
        if (peer !== undefined) yield* eventually("it has begun", () => peer.output().includes("ready"))
      }
      for (let round = 0; round < 40; round++) {
        yield* Effect.scoped(Effect.andThen(serve(control), Effect.sleep(5)))
      }
      const results: Array<string> = []
      for (const peer of [watcher, intruder, guest]) {
        if (peer === undefined) continue
        peer.child.stdin.end()
        yield* Effect.promise(() => ended(peer.child))
        results.push(peer.output().trim().split("\n").at(-1)!)
      }
      const [modes, intrusions, visits] = results
      assert.strictEqual(modes, "40700 140600")
      if (asNobody === undefined) return
      const [tries, entered] = intrusions!.split(" ").map(Number)
      assert.isAtLeast(tries!, 1000)
      assert.strictEqual(entered, 0)
      assert.isAtLeast(Number(visits!.split(" ")[1]), 100, "the intruder can connect where it may")
    }))

  it.effect("peer 107: nothing is served in a folder that others may enter", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control } = yield* locate(scratch, { socket: "control.sock" })
      const error = yield* Effect.flip(Effect.scoped(NodeControl.listen(control)))
      assert.strictEqual(error._tag, "InvalidSpec")
      assert.include(error.message, "daemon.socket")
      assert.include(error.message, "0700")
      assert.isFalse(fs.existsSync(socketPath(control)))
    }))

  it.effect("peer 108: a long path is served and found, also by a client with another environment", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const file = path.join(scratch.directory, "x".repeat(100), "treeline.json")
      const runtime = (name: string) =>
        StateDirectory.locate({ file, environment: { XDG_RUNTIME_DIR: scratch.file(name) } })
      const { control } = yield* runtime("run")
      yield* Effect.scoped(Effect.gen(function*() {
        yield* serve(control)
        for (const name of ["run", "other"]) {
          const client = yield* NodeControl.connect((yield* runtime(name)).control)
          assert.strictEqual(client.server.pid, 7)
        }
        const second = yield* Effect.flip(NodeControl.listen((yield* runtime("other")).control))
        assert.deepStrictEqual([second._tag, second._tag === "AlreadyRunning" && second.pid], ["AlreadyRunning", 7])
      }))
      assert(control._tag === "Socket" && control.link !== null)
      assert.isUndefined(fs.lstatSync(control.link, { throwIfNoEntry: false }))
      assert.deepStrictEqual(fs.readdirSync(path.dirname(control.path)), [])
      const error = yield* Effect.flip(
        NodeControl.listen({ _tag: "Socket", path: path.join(scratch.directory, "y".repeat(108)), link: null })
      )
      assert.strictEqual(error._tag, "InvalidSpec")
    }))

  it.effect(
    "peer 110: what a client had that was killed is given back, and the others do not notice",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const { control } = yield* locate(scratch)
        let open = 0
        const counted = <A, E>(stream: Stream.Stream<A, E>): Stream.Stream<A, E> =>
          Stream.unwrap(Effect.as(
            Effect.acquireRelease(Effect.sync(() => open++), () => Effect.sync(() => open--)),
            stream
          ))
        const { noLogs } = ScriptedHost.make()
        const { emit } = yield* serve(control, {
          events: counted(Stream.never),
          logs: {
            ...noLogs,
            follow: () => counted(Stream.concat(Stream.make(ScriptedHost.line(1, "x")), Stream.never))
          },
          start: () => counted(Stream.never),
          reopenLogs: Effect.acquireUseRelease(Effect.sync(() => open++), () =>
            Effect.never, () =>
            Effect.sync(() => open--))
        })
        emit(ScriptedHost.paused(1))
        const other = yield* NodeControl.connect(control)
        const before = descriptors()
        for (let round = 0; round < 2; round++) {
          const { child, output } = yield* client(control, "hold")
          yield* eventually("it holds", () =>
            output().includes("holding") && open >= 4, { detail: () => [output(), open] })
          child.kill("SIGKILL")
          yield* Effect.promise(() =>
            ended(child)
          )
          yield* eventually("all is given back", () => open === 0, { detail: () => open })
          yield* settled(before)
          assert.strictEqual((yield* other.status).phase, "running")
        }
      }),
    20_000
  )

  it.effect(
    "K13: clients that hang up in the middle of an answer or of a log leave nothing",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const { control } = yield* locate(scratch)
        const { noLogs } = ScriptedHost.make()
        const text = "x".repeat(200_000)
        yield* serve(control, {
          logs: {
            ...noLogs,
            follow: () => Stream.map(Stream.range(1, 1_000_000, 4), (n) => ScriptedHost.line(n, text))
          }
        })
        const other = yield* NodeControl.connect(control)
        yield* other.status
        const before = descriptors()
        const query = { services: [], from: "start", follow: true }
        for (let n = 0; n < hangUps; n++) {
          yield* Effect.scoped(Effect.gen(function*() {
            const peer = yield* raw(control)
            peer.socket.write(n % 3 === 0 ? request(1, "Status") : request(1, "Logs", query))
            if (n % 3 !== 1) yield* eventually("something comes", () => peer.heard.length > 10)
            peer.socket.destroy()
          }))
        }
        yield* settled(before)
        assert.strictEqual((yield* other.status).phase, "running")
      }),
    20_000
  )

  it.effect("peer 110: a client that reads nothing holds neither memory nor the end up", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control } = yield* locate(scratch)
      const { noLogs } = ScriptedHost.make()
      const text = "x".repeat(10_000)
      let pulled = 0
      const scope = yield* Scope.make()
      const { host } = yield* Scope.provide(
        serve(control, {
          logs: {
            ...noLogs,
            follow: () =>
              Stream.map(Stream.range(1, 1_000_000, 16), (n) => {
                pulled++
                return ScriptedHost.line(n, text)
              })
          }
        }),
        scope
      )
      const stuck = yield* raw(control)
      stuck.socket.pause()
      stuck.socket.write(request(1, "Logs", { services: [], from: "start", follow: true }))
      // Acknowledges what it has never read.
      stuck.socket.write(frame({ _tag: "Ack", requestId: 1 }).repeat(5000))
      for (let n = 2; n < 3000; n++) stuck.socket.write(request(n, "Status"))
      const snapshots = Effect.map(host.status, ({ at }) => at)
      yield* eventually("it reads logs", () => pulled > 0)
      yield* Effect.sleep(300)
      const asked = yield* snapshots
      yield* Effect.sleep(300)
      assert.isBelow((yield* snapshots) - asked, 3)
      assert.isBelow(pulled, 1000)
      assert.isBelow(asked, 1000)
      const began = performance.now()
      yield* Scope.close(scope, Exit.void)
      assert.isBelow(performance.now() - began, 4500)
    }))
})

layer(platform, { excludeTestServices: true })("what is no request", (it) => {
  const wrong: ReadonlyArray<string> = [
    "null\n",
    "1\n",
    "\"x\"\n",
    "[]\n",
    "{}\n",
    "{\"_tag\":1}\n",
    "{\"_tag\":\"Eof\"}\n",
    "{\"_tag\":\"Ack\"}\n",
    "{\"_tag\":\"Ack\",\"requestId\":7}\n",
    "{\"_tag\":\"Interrupt\",\"requestId\":{}}\n",
    "{\"_tag\":\"Request\"}\n",
    "{\"_tag\":\"Request\",\"id\":null,\"tag\":\"Status\",\"headers\":null}\n",
    "{\"_tag\":\"Request\",\"id\":1,\"tag\":\"__proto__\",\"headers\":[[\"treeline-protocol\",\"1\"]]}\n",
    "{\"_tag\":\"Request\",\"id\":1,\"tag\":\"Stop\",\"payload\":{\"names\":[{}]},\"headers\":[[\"treeline-protocol\",\"1\"]]}\n",
    `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}\n`,
    "\u0016\u0003\u0001\u0002\u0000",
    "SSH-2.0-x\r\n",
    "{\u0000\n",
    `{${"x".repeat(300_000)}`
  ]

  it.effect(
    "peer 111: is told so and let go, many times over, and leaves neither descriptors nor memory",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const { control } = yield* locate(scratch)
        const { calls } = yield* serve(control, {}, { connections: 200 })
        const other = yield* NodeControl.connect(control)
        const attack = (count: number) =>
          Effect.forEach(
            Array.from({ length: count }, (_, n) => wrong[n % wrong.length]!),
            (text) =>
              Effect.callback<string>((resume) => {
                const socket = net.connect(socketPath(control), () => socket.write(text))
                let heard = ""
                socket.setEncoding("utf8").on("data", (data: string) => (heard += data))
                socket.on("error", () => {})
                socket.on("close", () => resume(Effect.succeed(heard)))
              }),
            { concurrency: 16 }
          )
        yield* attack(200)
        collect()
        const [before, memory] = [descriptors(), process.memoryUsage().heapUsed]
        const heard = yield* attack(frameCount)
        yield* settled(before)
        const refused = heard.filter((text) => /"_tag":"ControlDenied"/.test(text))
        assert.strictEqual(refused.length, frameCount)
        collect()
        assert.isBelow(process.memoryUsage().heapUsed - memory, 8e6)
        assert.strictEqual((yield* other.status).phase, "running")
        assert.deepStrictEqual(calls, [])
      }),
    30_000 + 60 * frameCount
  )
})

layer(platform, { excludeTestServices: true })("control over a port", (it) => {
  /** As where there are no Unix sockets. */
  const locatePort = Effect.fnUntraced(function*(scratch: Scratch.Scratch) {
    const { control, directory } = yield* StateDirectory.locate({
      file: scratch.file("treeline.json"),
      platform: "win32"
    })
    assert(control._tag === "Port")
    return { control, directory }
  })

  const portOf = (address: string) => Number(address.split(":")[1])

  it.effect("K14: is there where there is no Unix socket, for whoever can read its file", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control, directory } = yield* locatePort(scratch)
      assert.strictEqual(yield* refusedOf(Effect.scoped(NodeControl.connect(control))), "ControlUnavailable NotRunning")
      yield* Effect.scoped(Effect.gen(function*() {
        const { listener } = yield* serve(control)
        assert.strictEqual(fs.statSync(control.file).mode & 0o777, 0o600)
        const { pid, port, token } = JSON.parse(fs.readFileSync(control.file, "utf8")) as Record<string, unknown>
        assert.deepStrictEqual([pid, port], [process.pid, portOf(listener.address)])
        const connection = yield* NodeControl.connect(control)
        const status = yield* connection.status
        const second = yield* Effect.flip(Effect.scoped(NodeControl.listen(control)))
        assert.deepStrictEqual([second._tag, second._tag === "AlreadyRunning" && second.pid], ["AlreadyRunning", 7])
        assert.strictEqual((yield* NodeControl.connect(control)).server.pid, 7)
        const told = JSON.stringify([
          status,
          second,
          String(second),
          listener,
          fs.readFileSync("/proc/self/cmdline", "utf8")
        ])
        assert.notInclude(told, String(token))
        fs.chmodSync(control.file, 0o644)
        assert.strictEqual(yield* refusedOf(Effect.scoped(NodeControl.connect(control))), "ControlUnavailable Foreign")
      }))
      assert.deepStrictEqual(fs.readdirSync(directory), [])
    }))

  it.effect("a wrong token is refused, one of an earlier server too, and so is none", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control } = yield* locatePort(scratch)
      yield* serve(control)
      const known = JSON.parse(fs.readFileSync(control.file, "utf8")) as {
        readonly port: number
        readonly token: string
      }
      const other = path.join(path.dirname(control.file), "other.json")
      const token = known.token.startsWith("0") ? `1${known.token.slice(1)}` : `0${known.token.slice(1)}`
      fs.writeFileSync(other, JSON.stringify({ ...known, token, pid: 1 }), { mode: 0o600 })
      assert.strictEqual(
        yield* refusedOf(Effect.scoped(NodeControl.connect({ ...control, file: other }))),
        "ControlDenied BadToken"
      )
      const peer = yield* raw(known.port)
      peer.socket.write(request(1, "Status"))
      yield* eventually("it is refused and let go", () => peer.over && /BadToken/.test(peer.heard), {
        detail: () => peer.heard
      })
    }))

  const strangers: Readonly<Record<string, (socket: net.Socket) => void>> = {
    "speaks otherwise": (socket) => socket.end("220 welcome\r\n"),
    "hangs up": (socket) => socket.end(),
    "says nothing": () => {}
  }
  for (const [name, answer] of Object.entries(strangers)) {
    it.effect(`a port that a killed server has left, and another program has now, holds nobody up: it ${name}`, () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const { control, directory } = yield* locatePort(scratch)
        yield* StateDirectory.make(directory)
        const stranger = yield* listening(answer)
        yield* portFile(control, { pid: deadPid, port: stranger.port })
        yield* serve(control)
        assert.strictEqual((yield* NodeControl.connect(control)).server.pid, 7)
        assert.notInclude(stranger.heard(), oldToken)
      }))
  }

  it.effect("a port that somebody else's server has now holds nobody up", () =>
    Effect.gen(function*() {
      const [scratch, other] = [yield* Scratch.make, yield* Scratch.make]
      const { control, directory } = yield* locatePort(scratch)
      const { listener } = yield* serve((yield* locatePort(other)).control)
      yield* StateDirectory.make(directory)
      yield* portFile(control, { pid: process.pid, port: portOf(listener.address) })
      yield* serve(control)
      assert.strictEqual((yield* NodeControl.connect(control)).server.pid, 7)
    }))

  it.effect("a server that is stopped or busy is not replaced while there is a process with its pid", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control, directory } = yield* locatePort(scratch)
      yield* StateDirectory.make(directory)
      const stopped = yield* listening(() => {})
      yield* portFile(control, { pid: process.pid, port: stopped.port })
      const error = yield* Effect.flip(Effect.scoped(NodeControl.listen(control)))
      assert.deepStrictEqual([error._tag, error._tag === "AlreadyRunning" && error.pid], [
        "AlreadyRunning",
        process.pid
      ])
    }))

  it.effect("peer 110: whoever holds connections open, also before they are served, keeps nobody out", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control } = yield* locatePort(scratch)
      const listener = yield* NodeControl.listen(control)
      const port = portOf(listener.address)
      const silent: Array<Effect.Success<ReturnType<typeof raw>>> = []
      const overIs = (count: number) =>
        eventually(`${count} are closed`, () => silent.filter(({ over }) => over).length === count, {
          detail: () => silent.filter(({ over }) => over).length
        })
      for (let n = 0; n < 70; n++) silent.push(yield* raw(port))
      yield* overIs(70 - 64)
      const early = yield* Effect.forkChild(NodeControl.connect(control))
      yield* overIs(70 - 63)
      yield* Layer.build(NodeControl.serve(ScriptedHost.make().host, listener))
      assert.strictEqual((yield* Fiber.join(early)).server.pid, 7)
      for (let n = 0; n < 200; n++) silent.push(yield* raw(port))
      yield* overIs(270 - 128)
      assert.strictEqual((yield* NodeControl.connect(control)).server.pid, 7)
    }))

  it.effect("a port that another program has is not taken", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const squatter = net.createServer()
      yield* Effect.promise(() => once(squatter.listen(0, "127.0.0.1"), "listening"))
      yield* Effect.addFinalizer(() => Effect.sync(() => squatter.close()))
      const { control } = yield* locate(scratch, { port: (squatter.address() as net.AddressInfo).port })
      assert.strictEqual(yield* refusedOf(Effect.scoped(NodeControl.listen(control))), "ListenError InUse")
    }))

  it.effect("web pages are refused, whatever Host and Origin they show", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control } = yield* locatePort(scratch)
      const { calls, listener } = yield* serve(control)
      const port = portOf(listener.address)
      const ask = (method: string, headers: Record<string, string>, body = "") =>
        Effect.promise(() =>
          new Promise<readonly [number, string, http.IncomingHttpHeaders]>((resolve, reject) => {
            const request = http.request({ host: "127.0.0.1", port, method, path: "/rpc", headers }, (response) => {
              let text = ""
              response.setEncoding("utf8").on("data", (data: string) => (text += data))
              response.on("end", () => resolve([response.statusCode!, text, response.headers]))
            })
            request.on("error", reject)
            request.end(body)
          })
        )
      for (const origin of ["http://evil.example", `http://127.0.0.1:${port}`, "null"]) {
        for (const method of ["GET", "POST", "OPTIONS"]) {
          const host = origin === "null" ? `127.0.0.1:${port}` : "rebound.example"
          const [status, body, headers] = yield* ask(
            method,
            { Host: host, Origin: origin, "Content-Type": "text/plain" },
            method === "POST" ? request(1, "Shutdown", { force: true }).repeat(2000) : ""
          )
          assert.deepStrictEqual([status, headers["access-control-allow-origin"]], [403, undefined])
          assert.deepStrictEqual(
            [
              (JSON.parse(body) as Record<string, unknown>)["_tag"],
              (JSON.parse(body) as Record<string, unknown>)["reason"]
            ],
            ["ControlDenied", "ForeignRequest"]
          )
        }
      }
      assert.deepStrictEqual(calls, [])
    }))
})

layer(platform, { excludeTestServices: true })("a client in another process", (it) => {
  it.effect("peer 110: drives services with types only", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { control } = yield* locate(scratch)
      const service = { command: "echo up; exec sleep 60", shell: true, readiness: { line: "up" } }
      fs.writeFileSync(
        scratch.file("treeline.json"),
        JSON.stringify({ services: { db: service, web: { ...service, dependsOn: ["db"] } } })
      )
      const { ConfigFile } = yield* Effect.promise(() => import("treeline/daemon"))
      const host = yield* ServiceHost.make({
        load: ConfigFile.load({ folder: scratch.directory }),
        version: "0.1.0",
        pid: process.pid
      })
      const listener = yield* NodeControl.listen(control)
      yield* Layer.build(NodeControl.serve(host, listener))
      yield* Stream.runDrain(host.start([]))
      const { child, output } = yield* client(control, "drive")
      yield* Effect.promise(() => ended(child))
      assert.deepStrictEqual(JSON.parse(output()), {
        server: process.pid,
        before: { db: "Ready", web: "Ready" },
        stopped: "Done",
        between: { db: "Ready", web: "Stopped" },
        started: "Done",
        lines: ["1 up", "2 up"],
        unknown: "UnknownChild",
        delivered: true
      })
    }))
})
