/**
 * Asks services that another process runs, with types only: see `Control` for what there is to ask.
 *
 * The calls share one connection, and each has a limit. Each stream has a connection of its own: a reader that is slow
 * holds up nobody but itself, and when a stream ends, for whatever reason, its connection is closed.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Headers from "effect/http/Headers"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as RpcClient from "effect/rpc/RpcClient"
import { RpcClientError } from "effect/rpc/RpcClientError"
import * as RpcMiddleware from "effect/rpc/RpcMiddleware"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import {
  type CapacityExceeded,
  type ChildFailed,
  ControlDenied,
  ControlUnavailable,
  type InvalidConfig,
  type InvalidSpec,
  type NotRunning,
  type Overtaken,
  type PoolClosed,
  type ReopenFailed,
  type StartTimedOut,
  type SubscriberDropped,
  type Unfinished,
  type Unkillable,
  type UnknownChild,
  type UnknownPool,
  type UnsavedState,
  VersionMismatch
} from "../Errors.ts"
import type { Target } from "../ShutdownPlan.ts"
import type { Signal } from "../Signal.ts"
import {
  Control,
  credentials,
  Gate,
  type LogQuery,
  protocol,
  type Signalled,
  tokenHeader,
  versionHeader,
  type Welcome
} from "./Control.ts"
import type { HostEvent, HostStatus, Progress } from "./HostStatus.ts"
import type { Entry } from "./LogLine.ts"
import type { Names, ShutdownOptions } from "./ServiceHost.ts"

/** Why a call was not served, whatever it asks for. */
export type Unserved = ControlUnavailable | ControlDenied | VersionMismatch

/** How the server is reached. */
export interface Options {
  /** What errors call it. */
  readonly address: string
  /** A new connection each time that it is run. */
  readonly socket: Effect.Effect<Socket.Socket, ControlUnavailable>
  readonly token?: Redacted.Redacted<string> | undefined
  /** How long a call may take that is answered at once, in ms, default 10,000. */
  readonly within?: number | undefined
  /** How long a call may take that waits for a process or a configuration, in ms, default 600,000. */
  readonly longWithin?: number | undefined
}

/** Which lines; by default those that are kept, of all services. See `Logs`. */
export type LogOptions = Partial<LogQuery>

/** What an operation over services tells. It ends with `Done`. */
export type Operation<E> = Stream.Stream<Progress, E | Unserved>

/**
 * Services that another process runs. Every call has a limit and fails with `NoAnswer` after it; a stream ends when the
 * server ends it, when nobody reads it, and with `Lost` when the connection is. After that make another client.
 */
export interface Client {
  /** Who answered when the client was made. */
  readonly server: Welcome
  readonly status: Effect.Effect<HostStatus, Unserved>
  /** Snapshots: one at once, then one after changes, at most one in `every` ms, default 1,000. */
  readonly watch: (options?: { readonly every?: number | undefined }) => Stream.Stream<
    HostStatus,
    SubscriberDropped | Unserved
  >
  /** The last events; with `follow` also all that come, else it ends. */
  readonly events: (options?: { readonly follow?: boolean | undefined }) => Stream.Stream<
    HostEvent,
    SubscriberDropped | Unserved
  >
  readonly logs: (query?: LogOptions) => Stream.Stream<Entry, UnknownChild | SubscriberDropped | Unserved>
  /** Of these services and groups, or of all. What was begun goes on when nobody reads the stream any more. */
  readonly start: (names?: Names) => Operation<UnknownChild>
  readonly stop: (names?: Names) => Operation<UnknownChild>
  readonly restart: (names?: Names) => Operation<UnknownChild>
  readonly pause: (names?: Names) => Effect.Effect<void, UnknownChild | Unserved>
  /** With `reload` the configuration is read anew first, and nothing is resumed when it can't be used. */
  readonly resume: (
    names?: Names,
    options?: { readonly reload?: boolean | undefined }
  ) => Effect.Effect<void, UnknownChild | InvalidConfig | InvalidSpec | Unserved>
  /** To the whole tree of its process unless a `target` says otherwise. */
  readonly signal: (
    name: string,
    signal: Signal,
    target?: Target
  ) => Effect.Effect<Signalled, UnknownChild | NotRunning | Unserved>
  readonly reload: Operation<InvalidConfig | InvalidSpec>
  readonly reopenLogs: Effect.Effect<void, ReopenFailed | Unserved>
  /** Ends all, and the server with it; `force` kills. With `keep`, the services that are to go on do. */
  readonly shutdown: (options?: ShutdownOptions) => Operation<never>
  /** Brings the child of a key up. */
  readonly poolEnsure: (
    pool: string,
    key: string
  ) => Effect.Effect<{ readonly incarnation: number; readonly pid: number | null }, PoolFailure | Unserved>
  /** Ends the child of a key; nothing happens when there is none. */
  readonly poolShutdown: (
    pool: string,
    key: string
  ) => Effect.Effect<void, UnknownPool | UnsavedState | Unfinished | Unkillable | Unserved>
}

/** Why a key of a pool has no child. */
export type PoolFailure =
  | UnknownPool
  | PoolClosed
  | CapacityExceeded
  | ChildFailed
  | InvalidSpec
  | Overtaken
  | StartTimedOut
  | Unkillable
  | UnsavedState
  | Unfinished

/** The client as a service. */
export class ControlClient extends Context.Service<ControlClient, Client>()("@treeline/core/daemon/ControlClient") {}

// ---------------------------------------------------------------------------------------------------------- errors

const codeOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "code" in error ? String(error.code) : ""

const decodeRefusal = Schema.decodeUnknownExit(Schema.toCodecJson(Schema.Union([ControlDenied, VersionMismatch])))

/** The longest text of a foreign error that is passed on. */
const longestDetail = 300

const textOf = (error: unknown): string =>
  (error instanceof Error ? error.message : typeof error === "string" ? error : "it does not say why")
    .slice(0, longestDetail)

/** What a failure of the connection means, or a defect. */
const unserved = (address: string, error: unknown): Unserved => {
  const unavailable = (reason: ControlUnavailable["reason"], detail: string) =>
    new ControlUnavailable({ address, reason, detail })
  const reason = error instanceof RpcClientError || Socket.isSocketError(error) ? error.reason : undefined
  switch (reason?._tag) {
    case "SocketOpenError": {
      if (reason.kind === "Timeout") return unavailable("NoAnswer", "no connection in time")
      const code = codeOf(reason.cause)
      switch (code) {
        case "ENOENT":
        case "ECONNREFUSED":
          return unavailable("NotRunning", "nobody listens")
        case "EACCES":
        case "EPERM":
          return unavailable("PermissionDenied", "this user may not connect")
        case "EAGAIN":
          return unavailable("NoAnswer", "too many wait to be let in")
        default:
          return unavailable("Foreign", code === "" ? "no connection" : `no connection: ${code}`)
      }
    }
    case "SocketReadError":
    case "SocketWriteError":
    case "SocketCloseError":
      return unavailable("Lost", "the connection has ended")
    case "RpcClientDefect":
      return unavailable("Foreign", "what answers does not speak this protocol")
    default: {
      if (reason !== undefined) return unavailable("Lost", textOf(error))
      const refusal = decodeRefusal(error)
      if (Exit.isSuccess(refusal)) return refusal.value
      return Schema.isSchemaError(error)
        ? unavailable("Foreign", "the answer is none of this protocol")
        : unavailable("Fault", textOf(error))
    }
  }
}

/** The errors of a call, with those of the connection as a person needs them. */
const translate = (address: string) => <E>(cause: Cause.Cause<E | RpcClientError>): Cause.Cause<E | Unserved> => {
  const { reasons } = cause
  const failed = reasons.find(Cause.isFailReason)
  if (failed !== undefined) {
    return Cause.fail(
      failed.error instanceof RpcClientError ? unserved(address, failed.error) : failed.error
    )
  }
  const died = reasons.find(Cause.isDieReason)
  if (died !== undefined) return Cause.fail(unserved(address, died.defect))
  // Not this fiber is interrupted, or nobody would ask: the server has let the request go.
  return Cause.fail(new ControlUnavailable({ address, reason: "Lost", detail: "the server ends" }))
}

// ------------------------------------------------------------------------------------------------------ connections

/** The largest frame of a server, in characters. */
const largestFrame = 64 * 1024 * 1024

/** Calls at once: together half of what `ControlProtocol` takes on one connection, for those that were let go count, too. */
const quickCalls = 8
const longCalls = 8

/** Elements of a stream that are read before somebody asks for them. */
const readAhead = 512

/** Nobody asks whether the other end of a local socket is still there: the system tells. */
const never = "20 days"

/** A connection for the calls of a group that is behind the gate of `Control`. */
export const connection = Effect.fnUntraced(function*({ socket, token }: Pick<Options, "socket" | "token">) {
  const headers = {
    [versionHeader]: String(protocol),
    ...(token === undefined ? {} : { [tokenHeader]: credentials(token) })
  }
  const wire = yield* RpcClient.makeProtocolSocket({ pingInterval: never, retryPolicy: Schedule.recurs(0) }).pipe(
    Effect.provideService(Socket.Socket, yield* socket),
    Effect.provideService(
      RpcSerialization.RpcSerialization,
      RpcSerialization.makeNdjson({ maxBufferSize: largestFrame })
    )
  )
  const gate = yield* Layer.build(
    RpcMiddleware.layerClient(
      Gate,
      ({ next, request }) => next({ ...request, headers: Headers.merge(request.headers, Headers.fromInput(headers)) })
    )
  )
  return Context.add(gate, RpcClient.Protocol, wire)
})

/** A connection as the calls of effect/rpc. */
const connect = Effect.fnUntraced(function*(options: Options) {
  return yield* Effect.provideContext(RpcClient.make(Control), yield* connection(options))
})

/** A limit for a call, and the errors of the connection as ours. */
const bounded =
  (address: string, limit: number) =>
  <A, E>(call: Effect.Effect<A, E | RpcClientError>): Effect.Effect<A, E | Unserved> =>
    call.pipe(
      Effect.catchCause((cause) => Effect.failCause(translate(address)<E>(cause))),
      Effect.timeoutOrElse({
        duration: limit,
        orElse: () =>
          Effect.fail(
            new ControlUnavailable({ address, reason: "NoAnswer", detail: `no answer within ${limit} ms` })
          )
      })
    )

const defaultWithin = 10_000

/** Asks who answers, of whatever version it is, within `within`. */
export const hello = Effect.fn("ControlClient.hello")(function*(
  options: Options
): Effect.fn.Return<Welcome, Unserved> {
  const asked = Effect.flatMap(connect(options), (calls) => calls.Hello())
  return yield* bounded(options.address, options.within ?? defaultWithin)(Effect.scoped(asked))
})

/**
 * Connects, and is told who answers. Fails when that is nobody, somebody else, or one of another version; it takes at
 * most `within`.
 */
export const make = Effect.fn("ControlClient.make")(function*(
  options: Options
): Effect.fn.Return<Client, Unserved, Scope.Scope> {
  const { address, longWithin = 600_000, within = defaultWithin } = options
  // So many on one connection as a server takes, whoever asks how much at once; those that wait long keep no others back.
  const quick = yield* Semaphore.make(quickCalls)
  const long = yield* Semaphore.make(longCalls)
  const soon = <A, E>(call: Effect.Effect<A, E | RpcClientError>) =>
    bounded(address, within)(quick.withPermits(1)(call))
  const late = <A, E>(call: Effect.Effect<A, E | RpcClientError>) =>
    bounded(address, longWithin)(long.withPermits(1)(call))

  type Calls = Effect.Success<ReturnType<typeof connect>>
  const streamed = <A, E>(
    call: (calls: Calls) => Stream.Stream<A, E | RpcClientError>
  ): Stream.Stream<A, E | Unserved> =>
    Stream.unwrap(Effect.map(connect(options), call)).pipe(
      Stream.catchCause((cause) => Stream.failCause(translate(address)<E>(cause as Cause.Cause<E | RpcClientError>)))
    )

  const calls = yield* connect(options)
  const server = yield* soon(calls.Hello())
  if (server.protocol !== protocol) {
    return yield* new VersionMismatch({ client: protocol, server: server.protocol })
  }
  return {
    server,
    status: soon(calls.Status()),
    watch: ({ every = 1000 } = {}) => streamed((calls) => calls.Watch({ every })),
    events: ({ follow = false } = {}) => streamed((calls) => calls.Events({ follow }, { streamBufferSize: readAhead })),
    logs: ({ follow = false, from = "start", services = [], stream } = {}) =>
      streamed((calls) =>
        calls.Logs(
          { follow, from, services, ...(stream === undefined ? {} : { stream }) },
          { streamBufferSize: readAhead }
        )
      ),
    start: (names = []) => streamed((calls) => calls.Start({ names })),
    stop: (names = []) => streamed((calls) => calls.Stop({ names })),
    restart: (names = []) => streamed((calls) => calls.Restart({ names })),
    pause: (names = []) => soon(calls.Pause({ names })),
    resume: (names = [], { reload = false } = {}) => (reload ? late : soon)(calls.Resume({ names, reload })),
    signal: (name, signal, target = "tree") => soon(calls.Signal({ name, signal, target })),
    reload: streamed((calls) => calls.Reload()),
    reopenLogs: soon(calls.ReopenLogs()),
    shutdown: ({ force = false, keep } = {}) =>
      streamed((calls) => calls.Shutdown(keep === undefined ? { force } : { force, keep })),
    poolEnsure: (pool, key) => late(calls.PoolEnsure({ pool, key })),
    poolShutdown: (pool, key) => late(calls.PoolShutdown({ pool, key }))
  }
})

/** A client for as long as the layer lives. */
export const layer = (options: Options): Layer.Layer<ControlClient, Unserved> =>
  Layer.effect(ControlClient, make(options))
