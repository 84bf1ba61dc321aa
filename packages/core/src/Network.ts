/**
 * What probes and endpoints need of the network, as a platform gives it: the platform is the one boundary to the
 * operating system.
 */
import type * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import type * as Option from "effect/Option"
import type { ConnectError, ListenError } from "./Errors.ts"

/** A TCP port, or the path of a Unix socket. */
export type Address =
  | { readonly host: string; readonly port: number }
  | { readonly path: string }

/** For people: `127.0.0.1:80`, `[::1]:80`, or the path. */
export const format = (address: Address): string =>
  "path" in address
    ? address.path
    : `${address.host.includes(":") ? `[${address.host}]` : address.host}:${address.port}`

/** Ports from `first` to `last`, both included. */
export interface PortRange {
  readonly first: number
  readonly last: number
}

/** Connections for probes: never through a proxy, never kept alive. */
export interface Network {
  /** Connects and closes the connection again; interruptible, the caller bounds the wait. */
  readonly connect: (address: Address) => Effect.Effect<void, ConnectError>
  /**
   * A client that ignores proxy settings, follows no redirect and opens a connection of its own for each request. It is
   * made at its first use, because an HTTP client takes tens of milliseconds to load.
   */
  readonly http: Effect.Effect<HttpClient.HttpClient>
  /**
   * The pids that listen at an address of this machine: of `among` at least one that does, if there is one; without
   * `among` all of them, so that an empty list says that nobody listens. None where the system does not tell: an address of another machine, a listener
   * that it does not list, or a process of `among` that the host may not look into. Undefined where it never tells. A
   * port that another process serves is not a child's readiness.
   */
  readonly listeners:
    | ((
      address: Address,
      among?: ReadonlyArray<number>
    ) => Effect.Effect<Option.Option<ReadonlyArray<number>>>)
    | undefined
  /**
   * Listens at a port of this machine and stops again; 0 is a port that the system chooses. Tells the port. Undefined
   * where nothing can listen.
   */
  readonly tryListen?:
    | ((address: { readonly host: string; readonly port: number }) => Effect.Effect<number, ListenError>)
    | undefined
  /**
   * The ports that the system gives to outgoing connections, each of which keeps everybody else from listening there.
   * Undefined where it does not tell.
   */
  readonly ephemeralPorts?: Effect.Effect<PortRange | undefined> | undefined
}
