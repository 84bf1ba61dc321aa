/** Ports that real children need: who holds them, and what becomes of him. */
import { assert, layer } from "@effect/vitest"
import { Child, type Network, ProcessPlatform, Restart } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Layer, References } from "effect"
import { ChildProcess } from "effect/process"
import * as fs from "node:fs"
import * as net from "node:net"
import { freePort, path } from "../support/Children.ts"
import { eventually } from "../support/Eventually.ts"
import * as Host from "../support/Host.ts"
import { isAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"

const platform = Layer.mergeAll(PosixPlatform.layer, Layer.succeed(References.MinimumLogLevel, "None"))

/** Somebody else who listens: this process itself. */
const squatter = (port: number, host = "127.0.0.1") =>
  Effect.acquireRelease(
    Effect.callback<net.Server>((resume) => {
      const server = net.createServer((socket) => socket.destroy())
      server.listen(port, host, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
  )

const serverCommand = (port: number) =>
  ChildProcess.make(process.execPath, [Host.fixture("server.ts"), "silent", String(port)], { extendEnv: true })

/** Writes a line when it runs, and listens nowhere. */
const marker = (file: string) => ChildProcess.make("sh", ["-c", "echo run >>\"$1\"; exec sleep 60", "sh", file])

const reasonOf = (child: Child.Child) =>
  Effect.map(
    Effect.flip(child.awaitReady),
    (error) => error._tag === "ChildFailed" ? error.reason : error._tag
  )

/** The platform as on a system that lists no listeners (macOS, Windows). */
const unlisted = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  ProcessPlatform.ProcessPlatform.use((platform) => {
    const network: Network.Network = { ...platform.network!, listeners: undefined }
    return Effect.provideService(effect, ProcessPlatform.ProcessPlatform, { ...platform, network })
  })

/** Whether somebody listens at the port, by the system's table. */
const listening = (port: number): boolean => {
  const hex = port.toString(16).toUpperCase().padStart(4, "0")
  const row = new RegExp(`: [0-9A-F]{8}:${hex} \\S+ 0A `)
  return fs.readFileSync("/proc/net/tcp", "latin1").split("\n").some((line) => row.test(line))
}

layer(platform, { excludeTestServices: true })("ports", (it) => {
  it.effect("K9: a stranger is named, not touched, and nothing is launched, at whatever address he listens", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const runs = scratch.file("runs")
      const squatted = Effect.fnUntraced(function*(host: string) {
        const port = yield* freePort
        const server = yield* squatter(port, host)
        let connections = 0
        server.on("connection", () => connections++)
        const child = yield* Child.start(
          Child.make("web", { command: marker(runs), ports: [port], restart: Restart.temporary() })
        )
        const reason = yield* reasonOf(child)
        const start = `did not start: port ${port}, which web needs, is in use by `
        assert.strictEqual(reason.slice(0, start.length), start, host)
        assert.strictEqual(reason.slice(start.length), `node (pid ${process.pid}); it is not restarted`, host)
        assert.deepStrictEqual([server.listening, connections], [true, 0], host)
      })
      yield* Effect.forEach(["127.0.0.1", "0.0.0.0", "::1", "::"], squatted, { concurrency: "unbounded" })
      assert.isFalse(fs.existsSync(runs))
    }))

  it.effect("K9: where the system lists no listeners it is said that somebody is there, whoever it is", () =>
    unlisted(Effect.gen(function*() {
      const port = yield* freePort
      yield* Effect.scoped(Effect.gen(function*() {
        yield* squatter(port, "0.0.0.0")
        const child = yield* Child.start(
          Child.make("web", { command: serverCommand(port), ports: [port], restart: Restart.temporary() })
        )
        assert.include(yield* reasonOf(child), `port ${port}, which web needs, is in use by another process`)
      }))
      const child = yield* Child.start(Child.make("web", { command: serverCommand(port), ports: [port] }))
      yield* child.awaitReady
    })))

  it.effect.skipIf(Host.whyNotUnprivileged() !== undefined)(
    "K9: whose descriptors an unprivileged host may not see is another process, and is not touched",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const port = yield* freePort
        const server = yield* squatter(port)
        const host = yield* Host.startProgram({
          program: ["portHost", String(port)],
          scratch,
          user: Host.unprivileged
        })
        assert.match(yield* host.awaitLine("failed"), /port \d+, which web needs, is in use by another process/)
        assert.isTrue(server.listening)
      }),
    20_000
  )

  it.effect(
    "K9: what a host left that was killed with its guardian is ended, and the port is the child's",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const port = yield* freePort
        const host = yield* Host.start({
          on: "treeline",
          scratch,
          spec: { command: [process.execPath, Host.fixture("server.ts"), "silent", String(port)] }
        })
        const left = yield* eventually("it listens", () => listening(port))
        const guardian = yield* Host.awaitGuardian(host, scratch)
        process.kill(guardian.pid, "SIGSTOP")
        host.signal("SIGKILL")
        process.kill(guardian.pid, "SIGKILL")
        yield* host.awaitDead
        yield* eventually("the guardian is dead", () => !isAlive(guardian))
        assert.isTrue(listening(port))
        // The records of hosts are in the temporary folder, and this test's is its own.
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            const before = process.env["TMPDIR"]
            process.env["TMPDIR"] = scratch.directory
            return before
          }),
          (before) =>
            Effect.sync(() => {
              if (before === undefined) delete process.env["TMPDIR"]
              else process.env["TMPDIR"] = before
            })
        )
        const child = yield* Child.start(
          Child.make("web", { command: serverCommand(port), ports: [port], restart: Restart.temporary() })
        )
        yield* child.awaitReady
        assert.isTrue(left)
        yield* eventually("the new one listens", () => listening(port))
        yield* host.awaitNoDescendants()
      }),
    30_000
  )

  it.effect(
    "peer 49: a restart does not wait for connections that were just closed",
    () =>
      Effect.gen(function*() {
        const port = yield* freePort
        const child = yield* Child.start(
          Child.make("web", { command: serverCommand(port), ports: [port], restart: Restart.temporary() })
        )
        yield* eventually("it listens", () => listening(port))
        const clients = Array.from({ length: 5 }, () => net.connect(port, "127.0.0.1").on("error", () => {}))
        yield* eventually("they are connected", () => clients.every(({ readyState }) => readyState === "open"))
        // The server ends first, so the closed connections are its own (TIME_WAIT).
        yield* child.restart
        yield* eventually("it listens again", () => listening(port))
        const events = yield* path(child, "Ready", { in: 2 })
        const at = (tag: string) =>
          events.find(({ change, incarnation }) =>
            incarnation === 2 && change._tag === "State" && change.to._tag === tag
          )!.at
        assert.isBelow(at("Running") - at("Starting"), 1000)
      }),
    20_000
  )
})
