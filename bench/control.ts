/**
 * Services that are controlled over a Unix socket, for the question `control`: `FOLDER KIND`. `many` is 200 children, one of
 * which is never ready; `chatty` is one that writes as fast as it can. Beside the socket of control there is a bare one,
 * `FOLDER/bare.sock`, which answers a line with as many bytes as the line says. A message over IPC asks for the memory.
 */
import { NodeServices } from "@effect/platform-node"
import { ServiceConfig, ServiceHost } from "@treeline/core/daemon"
import { NodeControl, StateDirectory } from "@treeline/platform-node"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Layer, References, Schema } from "effect"
import * as net from "node:net"
import * as path from "node:path"
import { collect } from "./Garbage.ts"

const [folder, kind] = process.argv.slice(2) as [string, string]

const sleeper = { command: "/bin/sleep", args: ["600"] }

const services: ServiceConfig.Input["services"] = kind === "chatty"
  ? { chatty: { command: `exec yes ${"x".repeat(99)}`, shell: true } }
  : {
    ...Object.fromEntries(Array.from({ length: 199 }, (_, n) => [`service-${n}`, sleeper])),
    slow: { ...sleeper, readiness: { line: "never", within: "1 minute" } }
  }

const bare = net.createServer((socket) => {
  socket.setEncoding("utf8").on("data", (text: string) => {
    for (const line of text.split("\n").slice(0, -1)) socket.write(Buffer.alloc(Number(line), "x"))
  })
  socket.on("error", () => {})
})

process.on("message", () => {
  collect()
  const { arrayBuffers, heapUsed, rss } = process.memoryUsage()
  process.send!({ kept: (heapUsed + arrayBuffers) / 1024 / 1024, resident: rss / 1024 / 1024 })
})

const program = Effect.gen(function*() {
  const { control } = yield* StateDirectory.locate({ file: path.join(folder, "treeline.json") })
  const listener = yield* NodeControl.listen(control)
  const config = Schema.decodeUnknownSync(ServiceConfig.Config)({ services })
  const host = yield* ServiceHost.make({
    load: Effect.succeed({ config, explained: [] }),
    version: "0",
    pid: process.pid
  })
  yield* Layer.build(NodeControl.serve(host, listener))
  yield* Effect.promise(() => new Promise<void>((resolve) => bare.listen(path.join(folder, "bare.sock"), resolve)))
  process.send!("ready")
  yield* Effect.callback<void>((resume) => void process.once("SIGTERM", () => resume(Effect.void)))
  bare.close()
})

await Effect.runPromise(
  program.pipe(
    Effect.scoped,
    Effect.provide([PosixPlatform.layer, NodeServices.layer, Layer.succeed(References.MinimumLogLevel, "None")])
  )
)
process.disconnect()
