/**
 * How a child is reached on Windows: a port, a named pipe, and what it tells.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { ArchiveStore, Child, DirectoryState, Endpoint, Pool, Probe } from "@treeline/core"
import { WindowsPlatform } from "@treeline/platform-windows"
import { Effect, FileSystem, Layer } from "effect"
import { ChildProcess } from "effect/process"

const services = Layer.mergeAll(WindowsPlatform.layer, NodeServices.layer)

/** Node starts slowly under Wine. */
const within = "60 seconds"

const server = (listen: string, ...args: ReadonlyArray<string>) =>
  ChildProcess.make(process.execPath, [
    "-e",
    `const server = require("node:net").createServer(); server.listen(${listen}, () => {
      const address = server.address()
      console.log("listening on " + (typeof address === "string" ? address : "127.0.0.1:" + address.port))
    })`,
    ...args
  ])

layer(services, { excludeTestServices: true })("endpoints", (it) => {
  it.effect("a port can be listened at, and is not given while it is", () =>
    Effect.gen(function*() {
      const port = yield* Endpoint.port()
      const child = yield* Child.start(Child.make("server", {
        command: server(`{ host: "127.0.0.1", port: Number(process.argv[1]) }`, String(port.port)),
        readiness: Probe.readiness(Probe.tcp(port), { within })
      }))
      yield* child.awaitReady
      const taken = yield* Effect.flip(Endpoint.port({ ports: { first: port.port, last: port.port } }))
      assert.strictEqual(taken._tag, "EndpointUnavailable")
      const other = yield* Endpoint.port()
      assert.notStrictEqual(other.port, port.port)
    }))

  it.effect("a socket is a named pipe", () =>
    Effect.gen(function*() {
      const socket = yield* Endpoint.socket()
      assert.match(socket.path, /^\\\\\.\\pipe\\treeline-/)
      const child = yield* Child.start(Child.make("server", {
        command: server("process.argv[1]", socket.path),
        readiness: Probe.readiness(Probe.tcp(socket), { within })
      }))
      yield* child.awaitReady
    }))

  it.effect("an address is read from the output", () =>
    Effect.gen(function*() {
      const child = yield* Child.start(Child.make("server", { command: server(`{ host: "127.0.0.1", port: 0 }`) }))
      const { port } = yield* Endpoint.fromLine(/^listening on (\S+)$/, { within })(child)
      assert.isAbove(port, 0)
    }))

  it.effect("A4, A5: a directory is saved after the end and restored for the next life", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* fs.makeTempDirectoryScoped()
      const state = yield* DirectoryState.make({
        directory: `${folder}\\running`,
        store: yield* ArchiveStore.fromFileSystem(`${folder}\\archives`)
      })
      const script = `const fs = require("node:fs")
        fs.appendFileSync("log", "life\\n")
        console.log(fs.readFileSync("log", "utf8").length + " bytes")
        setInterval(() => {}, 1000)`
      const pool = yield* Pool.make({
        build: Effect.fnUntraced(function*(key: string) {
          const cwd = yield* state.path(key)
          return {
            child: Child.make("server", {
              command: ChildProcess.make(process.execPath, ["-e", script], { cwd })
            }),
            endpoint: Endpoint.fromLine((line) => /^(\d+) bytes$/.exec(line)?.[1], { within })
          }
        }),
        hooks: state
      })
      const sizes: Array<string> = []
      for (let life = 0; life < 2; life++) {
        sizes.push((yield* pool.ensure("Acme/1")).endpoint)
        yield* pool.shutdown("Acme/1")
      }
      assert.deepStrictEqual(sizes, ["5", "10"])
      assert.deepStrictEqual(yield* fs.readDirectory(`${folder}\\running`), [])
    }))
})
