/** What probes connect through: Node's own sockets. */
import { ConnectError, ListenError } from "@treeline/core/Errors"
import { type Address, format, type Network } from "@treeline/core/Network"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import * as Scope from "effect/Scope"
import * as net from "node:net"

const reasons: Readonly<Record<string, ConnectError["reason"]>> = {
  ECONNREFUSED: "Refused",
  ENOENT: "NotFound",
  ENOTFOUND: "NotFound",
  EAI_AGAIN: "NotFound",
  EACCES: "PermissionDenied",
  EPERM: "PermissionDenied",
  ENETUNREACH: "Unreachable",
  EHOSTUNREACH: "Unreachable",
  EADDRNOTAVAIL: "Unreachable",
  ETIMEDOUT: "Unreachable"
}

const connect = (address: Address): Effect.Effect<void, ConnectError> =>
  Effect.callback<void, ConnectError>((resume) => {
    const socket = net.connect("path" in address ? { path: address.path } : address)
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.void)
    })
    socket.on("error", (error: NodeJS.ErrnoException) => {
      socket.destroy()
      const detail = error.code ?? error.message
      resume(Effect.fail(new ConnectError({ address: format(address), reason: reasons[detail] ?? "Unknown", detail })))
    })
    return Effect.sync(() => socket.destroy())
  })

const listenReasons: Readonly<Record<string, ListenError["reason"]>> = {
  EADDRINUSE: "InUse",
  EACCES: "PermissionDenied",
  EPERM: "PermissionDenied",
  EADDRNOTAVAIL: "Unavailable",
  ENOTFOUND: "Unavailable",
  EAFNOSUPPORT: "Unavailable"
}

const tryListen: NonNullable<Network["tryListen"]> = ({ host, port }) =>
  Effect.callback<number, ListenError>((resume) => {
    // Nobody is to be served here.
    const server = net.createServer((socket) => socket.destroy())
    server.once("error", (error) => {
      const detail = "code" in error ? String(error.code) : error.message
      const reason = listenReasons[detail] ?? "Unknown"
      resume(Effect.fail(new ListenError({ address: format({ host, port }), reason, detail })))
    })
    // Exclusive: a cluster's worker asks the system, and not its primary.
    server.listen({ host, port, exclusive: true }, () => {
      const address = server.address()
      server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : port)))
    })
    return Effect.sync(() => server.close())
  })

/** Agents of our own know no proxy and keep neither a connection nor a timer, so their scope is never closed. */
const makeHttp: Effect.Effect<HttpClient.HttpClient> = Effect.gen(function*() {
  const node = yield* Effect.promise(() => import("@effect/platform-node/NodeHttpClient"))
  const agent = yield* Scope.provide(node.makeAgent({ keepAlive: false }), Scope.makeUnsafe())
  return yield* Effect.provideService(node.makeNodeHttp, node.HttpAgent, agent)
})

/** One for each platform. Who listens at a port is not told here. */
export const make = (): Network => {
  let http: Promise<HttpClient.HttpClient> | undefined = undefined
  return { connect, tryListen, http: Effect.promise(() => http ??= Effect.runPromise(makeHttp)), listeners: undefined }
}
