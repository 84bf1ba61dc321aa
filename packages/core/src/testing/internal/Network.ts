/** The network of a simulated system: what its processes listen at. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Option from "effect/Option"
import { ConnectError, ListenError } from "../../Errors.ts"
import * as Network from "../../Network.ts"
import type { Host, Kernel, Listener } from "./Kernel.ts"
import { isRunnable } from "./Process.ts"

/** How often a stopped server is looked at by a request that waits for it, in ms. */
const stoppedPause = Duration.millis(10)

/** As Linux has them. */
const ephemeral: Network.PortRange = { first: 32_768, last: 60_999 }

export const make = (options: {
  readonly kernel: Kernel
  readonly clock: Clock.Clock
  readonly host: Host
}): Network.Network => {
  const { clock, host, kernel } = options
  const at = (address: Network.Address): Listener | undefined =>
    kernel.listeners.get("path" in address ? address.path : address.port)
  const whileAlive = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => host.alive ? effect : Effect.never)

  // The kernel accepts for a stopped process too, as long as it listens (`listen(2)`, backlog).
  const connect: Network.Network["connect"] = (address) =>
    whileAlive(Effect.suspend(() =>
      at(address) !== undefined ? Effect.void : Effect.fail(
        new ConnectError({
          address: Network.format(address),
          reason: "path" in address ? "NotFound" : "Refused",
          detail: "nobody listens"
        })
      )
    ))

  const http = HttpClient.make((request, url) => {
    const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port)
    const refused = (description: string) =>
      Effect.fail(
        new HttpClientError.HttpClientError({ reason: new HttpClientError.TransportError({ request, description }) })
      )
    return whileAlive(Effect.gen(function*() {
      const accepted = kernel.listeners.get(port)?.process
      if (accepted === undefined) return yield* refused(`nobody listens at port ${port}`)
      while (true) {
        if (accepted.status !== undefined) return yield* refused("the connection was reset")
        const listener = kernel.listeners.get(port)
        if (listener?.process !== accepted) return yield* refused("the connection was reset")
        if (!isRunnable(accepted) || listener.status === undefined) {
          yield* clock.sleep(stoppedPause)
          continue
        }
        if (listener.delay > 0) {
          yield* clock.sleep(Duration.millis(listener.delay))
          if (accepted.status !== undefined) return yield* refused("the connection was reset")
        }
        return HttpServerResponse.toClientResponse(HttpServerResponse.empty({ status: listener.status }), { request })
      }
    }))
  })

  const isTaken = (port: number): boolean => kernel.listeners.has(port)

  /** The first port that is free, as the kernel finds one. */
  const anyPort = (): number => {
    for (let port = ephemeral.first; port <= ephemeral.last; port++) if (!isTaken(port)) return port
    return 0
  }

  return {
    connect,
    tryListen: ({ host, port: wanted }) =>
      whileAlive(Effect.suspend(() => {
        const port = wanted === 0 ? anyPort() : wanted
        return port === 0 || isTaken(port)
          ? Effect.fail(
            new ListenError({ address: Network.format({ host, port: wanted }), reason: "InUse", detail: "EADDRINUSE" })
          )
          : Effect.succeed(port)
      })),
    ephemeralPorts: Effect.succeed(ephemeral),
    http: Effect.succeed(http),
    listeners: (address, among) =>
      whileAlive(Effect.sync(() => {
        const listener = at(address)
        const pids = listener === undefined ? [] : [listener.process.pid]
        return Option.some(among === undefined ? pids : pids.filter((pid) => among.includes(pid)))
      }))
  }
}
