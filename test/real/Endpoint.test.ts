import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Child, Endpoint, Pool, Probe, ProcessPlatform, Restart } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Layer, Scope } from "effect"
import { ChildProcess } from "effect/process"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { sh } from "../support/Children.ts"
import * as Directories from "../support/Directories.ts"

const services = Layer.mergeAll(PosixPlatform.layer, NodeServices.layer)

const rangeFile = "/proc/sys/net/ipv4/ip_local_port_range"

/** Listens until the scope closes. */
const listen = (options: net.ListenOptions) =>
  Effect.acquireRelease(
    Effect.callback<net.Server, Error>((resume) => {
      const server = net.createServer((socket) => socket.destroy())
      server.once("error", (error) => resume(Effect.fail(error)))
      server.listen(options, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
  )

/** A server of Node's with this program in front; `$PORT` is where it listens. */
const server = (script: string, env: Readonly<Record<string, string>> = {}) =>
  ChildProcess.make(
    process.execPath,
    [
      "-e",
      `const server = require("node:http").createServer((_, response) => response.end(process.env.NAME)); ${script}`
    ],
    { env, extendEnv: true }
  )

const textAt = (url: string) => Effect.promise(async () => (await fetch(url)).text())

describe("a port of this machine", () => {
  it.live("can be listened at, by each of 500 who asked at once", () =>
    Effect.gen(function*() {
      const ports = yield* Effect.all(Array.from({ length: 500 }, () => Endpoint.port()), { concurrency: "unbounded" })
      assert.strictEqual(new Set(ports.map(({ port }) => port)).size, 500)
      yield* Effect.forEach(ports, ({ host, port }) => listen({ host, port }), { concurrency: 50 })
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live.skipIf(!fs.existsSync(rangeFile))(
    "is none that the system gives to an outgoing connection",
    () =>
      Effect.gen(function*() {
        const [first = 0, last = 0] = fs.readFileSync(rangeFile, "utf8").trim().split(/\s+/).map(Number)
        if (last > 64_000) return
        const { port } = yield* Endpoint.port()
        assert.isFalse(port >= first && port <= last, `${port} is in ${first} to ${last}`)
      }).pipe(Effect.scoped, Effect.provide(services))
  )

  const others: Record<string, net.ListenOptions> = {
    "127.0.0.1": { host: "127.0.0.1" },
    "0.0.0.0": { host: "0.0.0.0" },
    "::": { host: "::" },
    "[::] alone": { host: "::", ipv6Only: true },
    "::1": { host: "::1" }
  }
  for (const [name, options] of Object.entries(others)) {
    it.live(`is not one where somebody listens at ${name}`, () =>
      Effect.gen(function*() {
        const taken = yield* Effect.exit(listen({ ...options, port: 0 }))
        // The machine may have no IPv6.
        if (Exit.isFailure(taken)) return
        const { port } = taken.value.address() as net.AddressInfo
        const error = yield* Effect.flip(Endpoint.port({ ports: { first: port, last: port } }))
        assert.deepInclude(error, { _tag: "EndpointUnavailable", reason: "NoFreePort" })
        assert.include(error.message, "EADDRINUSE")
      }).pipe(Effect.scoped, Effect.provide(services)))
  }

  it.live("is not sought at another machine", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Endpoint.port({ host: "192.0.2.1" }))
      assert.deepInclude(error, { _tag: "EndpointUnavailable", reason: "HostUnavailable" })
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("costs no descriptor over 300 cycles", () =>
    Effect.gen(function*() {
      const once = Effect.scoped(Endpoint.port({ rest: 0 }))
      yield* once
      const before = Directories.openDescriptors()
      for (let cycle = 0; cycle < 300; cycle++) yield* once
      assert.strictEqual(Directories.openDescriptors(), before)
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("serves a child of a pool; each key has its own", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({
        build: Effect.fnUntraced(function*(key: string) {
          const port = yield* Endpoint.port()
          return {
            child: Child.make("server", {
              command: server(`server.listen(process.env.PORT, "127.0.0.1")`, { NAME: key, PORT: String(port.port) }),
              readiness: Probe.http(port.http)
            }),
            endpoint: () => Effect.succeed(port)
          }
        })
      })
      const handles = yield* Effect.all([pool.ensure("one"), pool.ensure("two")], { concurrency: "unbounded" })
      const texts = yield* Effect.all(handles.map(({ endpoint }) => textAt(endpoint.http)))
      assert.deepStrictEqual(texts, ["one", "two"])
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("that a stranger takes first fails the start, and asking again gives another one", () =>
    Effect.gen(function*() {
      const given: Array<number> = []
      const pool = yield* Pool.make({
        build: Effect.fnUntraced(function*(key: string) {
          const port = yield* Endpoint.port()
          given.push(port.port)
          if (given.length === 1) yield* listen({ host: port.host, port: port.port })
          return {
            child: Child.make("server", {
              command: server(`server.listen(process.env.PORT, "127.0.0.1")`, { NAME: key, PORT: String(port.port) }),
              readiness: Probe.http(port.http)
            }),
            endpoint: () => Effect.succeed(port)
          }
        })
      })
      const { endpoint } = yield* Effect.retry(pool.ensure("acme"), { times: 2 })
      assert.strictEqual(given.length, 2)
      assert.strictEqual(endpoint.port, given[1])
      assert.notStrictEqual(given[0], given[1])
      assert.strictEqual(yield* textAt(endpoint.http), "acme")
    }).pipe(Effect.scoped, Effect.provide(services)))
})

describe("an address in the output of a real child", () => {
  const announces: Record<string, { readonly script: string; readonly pattern: RegExp }> = {
    "on stdout": {
      script:
        `server.listen(0, "127.0.0.1", () => console.log("ready at http://127.0.0.1:" + server.address().port + "/"))`,
      pattern: /ready at (\S+)/
    },
    "on stderr, as a WebSocket's": {
      script:
        `server.listen(0, "127.0.0.1", () => console.error("listening: ws://127.0.0.1:" + server.address().port))`,
      pattern: /(ws:\/\/\S+)/
    },
    "as a port after much else": {
      script: `process.stdout.write("x".repeat(200000) + "\\n".repeat(300), () =>
        server.listen(0, "127.0.0.1", () => console.log("port " + server.address().port)))`,
      pattern: /^port (\d+)$/
    },
    "in two pieces": {
      script: `server.listen(0, "127.0.0.1", () => {
        const { port } = server.address()
        process.stdout.write("port " + String(port).slice(0, 2))
        setTimeout(() => process.stdout.write(String(port).slice(2) + "\\n"), 100)
      })`,
      pattern: /^port (\d+)$/
    },
    "where it listens everywhere": {
      script: `server.listen(0, "0.0.0.0", () => console.log("Serving on 0.0.0.0:" + server.address().port))`,
      pattern: /Serving on (\S+)/
    }
  }
  for (const [name, { pattern, script }] of Object.entries(announces)) {
    it.live(name, () =>
      Effect.gen(function*() {
        const child = yield* Child.start(Child.make("server", { command: server(script, { NAME: "found" }) }))
        const { http } = yield* Endpoint.fromLine(pattern)(child)
        assert.strictEqual(yield* textAt(http), "found")
      }).pipe(Effect.scoped, Effect.provide(services)))
  }

  it.live("A17: is seen on stderr although stdout has ended before", () =>
    Effect.gen(function*() {
      const command = sh("exec 1>&-; sleep 0.3; echo listening on ws://127.0.0.1:4040/ >&2; exec sleep 60")
      const child = yield* Child.start(Child.make("server", { command }))
      assert.strictEqual((yield* Endpoint.fromLine(/on (\S+)/)(child)).ws, "ws://127.0.0.1:4040")
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("is that of the next incarnation when the first one ended without it", () =>
    Effect.gen(function*() {
      const folder = yield* Directories.temporary
      const command = sh("if mkdir \"$1/been\"; then printf 'port 1'; exit 1; fi; echo port 2; exec sleep 60", folder)
      const child = yield* Child.start(Child.make("server", {
        command,
        restart: Restart.permanent({ backoff: Restart.exponential({ first: 10, jitter: 0 }) })
      }))
      assert.strictEqual((yield* Endpoint.fromLine(/port (\d+)/)(child)).port, 2)
    }).pipe(Effect.scoped, Effect.provide(services)))
})

describe("a socket", () => {
  it.live("is in a folder for the host's user only, and goes with the scope", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { path: socket } = yield* Scope.provide(Endpoint.socket(), scope)
      assert.isAtMost(Buffer.byteLength(socket), 103)
      const folder = path.dirname(socket)
      assert.strictEqual(fs.statSync(folder).mode & 0o777, 0o700)
      const child = yield* Scope.provide(
        Child.start(Child.make("server", {
          command: ChildProcess.make(process.execPath, [
            "-e",
            `require("node:net").createServer().listen("${socket}")`
          ]),
          readiness: Probe.tcp({ path: socket })
        })),
        scope
      )
      yield* child.awaitReady
      assert.deepStrictEqual(fs.readdirSync(folder), ["socket"])
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(fs.existsSync(folder))
    }).pipe(Effect.provide(services)))

  it.live("has a path that fits, also where the folder for temporary files is deep", () =>
    Effect.gen(function*() {
      const deep = path.join(yield* Directories.temporary, "d".repeat(100))
      fs.mkdirSync(deep)
      const before = process.env["TMPDIR"]
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          if (before === undefined) delete process.env["TMPDIR"]
          else process.env["TMPDIR"] = before
        })
      )
      process.env["TMPDIR"] = deep
      const { path: socket } = yield* Endpoint.socket()
      assert.match(socket, /^\/tmp\/treeline-[^/]+\/socket$/)
      const error = yield* Effect.flip(Endpoint.socket({ directory: deep }))
      assert.deepInclude(error, { _tag: "EndpointUnavailable", reason: "PathTooLong" })
      const long = yield* Effect.flip(Endpoint.socket({ directory: "/tmp", name: "n".repeat(100) }))
      assert.deepInclude(long, { _tag: "EndpointUnavailable", reason: "PathTooLong" })
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("has a path that the system takes, up to the last byte", () =>
    Effect.gen(function*() {
      const folder = yield* Directories.temporary
      const room = 103 - Buffer.byteLength(path.join(folder, "treeline-XXXXXX/"))
      const { path: socket } = yield* Endpoint.socket({ directory: folder, name: "n".repeat(room) })
      assert.strictEqual(Buffer.byteLength(socket), 103)
      yield* listen({ path: socket })
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("says why there is none", () =>
    Effect.gen(function*() {
      const missing = yield* Effect.flip(Endpoint.socket({ directory: "/not/there" }))
      assert.deepInclude(missing, { _tag: "EndpointUnavailable", reason: "NoFolder" })
      for (const name of ["", "a/b", "a\\b", "a\0"]) {
        assert.deepInclude(yield* Effect.flip(Endpoint.socket({ name })), { _tag: "InvalidSpec", field: "name" })
      }
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("belongs to one incarnation in a pool, and nothing of it is left", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({
        build: Effect.fnUntraced(function*() {
          const socket = yield* Endpoint.socket()
          return {
            child: Child.make("server", {
              command: ChildProcess.make(process.execPath, [
                "-e",
                `require("node:net").createServer().listen("${socket.path}")`
              ]),
              readiness: Probe.tcp(socket)
            }),
            endpoint: () => Effect.succeed(socket)
          }
        })
      })
      const first = yield* pool.ensure("a")
      yield* pool.shutdown("a")
      const second = yield* pool.ensure("a")
      assert.notStrictEqual(first.endpoint.path, second.endpoint.path)
      assert.isFalse(fs.existsSync(path.dirname(first.endpoint.path)))
      const { network } = yield* ProcessPlatform.ProcessPlatform
      yield* network?.connect(second.endpoint) ?? Effect.die("no network")
      yield* pool.shutdown("a")
      assert.isFalse(fs.existsSync(path.dirname(second.endpoint.path)))
    }).pipe(Effect.scoped, Effect.provide(services)))
})
