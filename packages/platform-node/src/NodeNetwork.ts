/** The network by Node's own sockets. */
import { ConnectError, ListenError } from "@treeline/core/Errors"
import { type Address, format, type Network, type PortRange } from "@treeline/core/Network"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import * as Scope from "effect/Scope"
import * as fs from "node:fs/promises"
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
    const fail = (reason: ConnectError["reason"], detail: string) =>
      resume(Effect.fail(new ConnectError({ address: format(address), reason, detail })))
    const socket = net.connect("path" in address ? { path: address.path } : { host: address.host, port: address.port })
    socket.once("connect", () => {
      // A port of the range that the kernel takes for outgoing connections may be connected to itself (RFC 9293, 3.5).
      const self = !("path" in address) && socket.localPort === socket.remotePort &&
        socket.localAddress === socket.remoteAddress
      socket.destroy()
      if (self) fail("Refused", "nobody listens: the connection met itself")
      else resume(Effect.void)
    })
    socket.on("error", (error) => {
      socket.destroy()
      const code = "code" in error ? String(error.code) : error.message
      fail(reasons[code] ?? "Unknown", code)
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

/** See ip(7); other systems have no file for it. */
const portRangeFile = "/proc/sys/net/ipv4/ip_local_port_range"

const readPortRange = async (): Promise<PortRange | undefined> => {
  const text = await fs.readFile(portRangeFile, "utf8").catch(() => "")
  const [first, last] = text.trim().split(/\s+/).map(Number)
  return Number.isSafeInteger(first) && Number.isSafeInteger(last) ? { first: first!, last: last! } : undefined
}

/**
 * Without a proxy: agents of our own know none, also where Node was told to use one (NODE_USE_ENV_PROXY). They keep
 * neither a connection nor a timer, so their scope is never closed.
 */
const makeHttp: Effect.Effect<HttpClient.HttpClient> = Effect.gen(function*() {
  const node = yield* Effect.promise(() => import("@effect/platform-node/NodeHttpClient"))
  const agent = yield* Scope.provide(node.makeAgent({ keepAlive: false }), Scope.makeUnsafe())
  return yield* Effect.provideService(node.makeNodeHttp, node.HttpAgent, agent)
})

/**
 * The network of a platform on Node; one for each platform. Who listens at a port is for the platform to tell, where its
 * system does.
 */
export const make = (listeners: Network["listeners"]): Network => {
  let http: Promise<HttpClient.HttpClient> | undefined = undefined
  return {
    connect,
    tryListen,
    ephemeralPorts: Effect.promise(readPortRange),
    // Loaded and made once; a fiber that is interrupted while it waits leaves the others their client.
    http: Effect.promise(() => http ??= Effect.runPromise(makeHttp)),
    listeners
  }
}
