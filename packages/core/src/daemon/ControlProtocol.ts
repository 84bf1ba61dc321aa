/**
 * effect/rpc over sockets that anybody may connect to: the `RpcServer.Protocol` of the control API.
 *
 * The server of effect/rpc trusts its clients: a frame that is no message, an id that is used twice or a client that never
 * reads ends in a defect or in memory without a bound. Here every frame is checked first, everything has a limit, and
 * whoever breaks a rule is told which one and not listened to any more. The others do not notice.
 *
 * One frame is one line of JSON. A connection begins with a request.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Redacted from "effect/Redacted"
import type * as Rpc from "effect/rpc/Rpc"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import type { FromClientEncoded, FromServerEncoded, RequestEncoded } from "effect/rpc/RpcMessage"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as RpcServer from "effect/rpc/RpcServer"
import * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import { ControlDenied } from "../Errors.ts"
import * as ControlFrames from "../internal/ControlFrames.ts"
import * as ControlToken from "../internal/ControlToken.ts"
import { Outbox } from "../internal/Outbox.ts"
import { monotonic } from "../internal/Time.ts"
import * as Web from "../internal/Web.ts"
import { Control, protocol as version, tokenHeader, versionHeader } from "./Control.ts"

/** What a client may do to a server. Times in ms. */
export interface Limits {
  /** Connections at once of those that have been let in, by their first request. Default: 64. */
  readonly connections?: number | undefined
  /**
   * Connections at once of all others: that have said nothing yet, or are told why they are not let in. Default: 128. When
   * one more comes, the oldest is closed without a word: whoever may be here says so at once, and is kept out by nobody.
   */
  readonly strangers?: number | undefined
  /** Requests of one connection at once, streams included. Default: 32. */
  readonly requests?: number | undefined
  /** Bytes of one frame of a client. Default: 256 KiB. */
  readonly frame?: number | undefined
  /** How long the first frame may take, and each one from its first byte to its last. Default: 10,000. */
  readonly frameWithin?: number | undefined
  /**
   * How long a client may take to take what there is for it. Default: 30,000. Its connection is closed after twice that,
   * so that a subscriber that was dropped may still read why.
   */
  readonly takeWithin?: number | undefined
}

export interface Options extends Limits {
  /** The token of the server, if it has one: nobody is let in without it. See `ControlServer.Options`. */
  readonly token?: Redacted.Redacted<string> | undefined
  /** Another group behind the same gate. Default: `Control`. */
  readonly group?: RpcGroup.RpcGroup<Rpc.Any> | undefined
}

const defaults = {
  connections: 64,
  strangers: 128,
  requests: 32,
  frame: 256 * 1024,
  frameWithin: 10_000,
  takeWithin: 30_000
}

/** How long whoever is refused, or was served until the end, may take to read the last words. */
const lastWords = 1000

/** How long the server waits at its end for all of them. */
const closeWithin = 3000

const encoder = Web.textEncoder()

type Send = (clientId: number, message: FromClientEncoded) => Effect.Effect<void>

/** One client. */
class Connection {
  readonly id: number
  readonly outbox = new Outbox()
  /** Requests without an answer. */
  readonly requests = new Set<string | number>()
  /** Opened when it has been refused something: nothing more is read. */
  readonly refused = Latch.makeUnsafe(false)
  /** Opened when another one needs its place. */
  readonly dropped = Latch.makeUnsafe(false)

  constructor(id: number) {
    this.id = id
  }

  /** An answer of the server. One that produces more waits until the client has taken this. */
  send(response: FromServerEncoded): Effect.Effect<void> {
    if (response._tag === "Chunk") {
      return Effect.andThen(
        this.outbox.empty,
        Effect.suspend(() => {
          this.outbox.post(`${JSON.stringify(response)}\n`)
          return this.outbox.empty
        })
      )
    }
    return Effect.sync(() => {
      if (response._tag === "Exit") this.requests.delete(response.requestId)
      this.outbox.post(`${JSON.stringify(response)}\n`)
      if (isRefusal(response)) this.refused.openUnsafe()
    })
  }
}

/** Whether an answer says that this client is not to be here. */
const isRefusal = (response: FromServerEncoded): boolean =>
  response._tag === "Exit" && response.exit._tag === "Failure" && response.exit.cause.some((reason) => {
    if (reason._tag !== "Fail" || typeof reason.error !== "object" || reason.error === null) return false
    const tag = "_tag" in reason.error ? reason.error._tag : undefined
    return tag === "ControlDenied" || tag === "VersionMismatch"
  })

/** Reads what a client says until it is gone, or must not be listened to any more. */
const listen = Effect.fnUntraced(function*(
  connection: Connection,
  pull: Socket.Reader["pull"],
  rules: ControlFrames.Rules,
  limits: typeof defaults,
  admit: (request: RequestEncoded) => ControlDenied | undefined,
  send: Send
): Effect.fn.Return<ControlFrames.Refusal | undefined> {
  const clock = yield* Clock.Clock
  const lines = new ControlFrames.Lines(limits.frame)
  const refuse = (reason: ControlDenied["reason"], detail: string, id?: string | number) =>
    ControlFrames.refuse(new ControlDenied({ reason, detail }), id)
  let spoken = false
  let deadline: number | undefined = monotonic(clock) + limits.frameWithin
  while (true) {
    const chunks = yield* pull.pipe(
      Effect.catch(() => Effect.succeed("gone" as const)),
      deadline === undefined
        ? (effect) => effect
        : Effect.timeoutOrElse({
          duration: Math.max(0, deadline - monotonic(clock)),
          orElse: () => Effect.succeed("late" as const)
        })
    )
    if (chunks === "gone") return undefined
    if (chunks === "late") return refuse("Malformed", `a frame takes at most ${limits.frameWithin} ms`)
    let ended = false
    for (const chunk of chunks) {
      const { lines: complete, refusal } = lines.feed(typeof chunk === "string" ? encoder.encode(chunk) : chunk)
      for (const line of complete) {
        ended = true
        const message = ControlFrames.parse(line, rules)
        if (message._tag === "Refusal") return message
        if (!spoken && message._tag !== "Request") return refuse("Malformed", "a connection begins with a request")
        switch (message._tag) {
          case "Request":
            if (!spoken) {
              const denied = admit(message)
              if (denied !== undefined) return ControlFrames.refuse(denied, message.id)
            }
            spoken = true
            if (connection.requests.has(message.id)) {
              return refuse("Malformed", "the id of a request is in use", message.id)
            }
            if (connection.requests.size >= limits.requests) {
              return refuse("TooMany", `a connection has at most ${limits.requests} requests at once`, message.id)
            }
            // Who does not read the answers is not asked what else it wants.
            yield* connection.outbox.empty
            connection.requests.add(message.id)
            break
          case "Ping":
            yield* connection.outbox.empty
            connection.outbox.post("{\"_tag\":\"Pong\"}\n")
            break
          default:
            // It was answered a moment ago, or never asked.
            if (!connection.requests.has(message.requestId)) continue
        }
        if (message._tag !== "Ping") yield* send(connection.id, message)
      }
      if (refusal !== undefined) return refusal
    }
    if (!lines.open) deadline = spoken ? undefined : deadline
    // Single bytes are no new beginning.
    else if (deadline === undefined || ended) deadline = monotonic(clock) + limits.frameWithin
  }
})

/** Serves one connection until it is over; its scope is the connection's. */
const serve = Effect.fnUntraced(function*(
  { outbox, refused }: Connection,
  socket: Socket.Socket,
  closing: Latch.Latch,
  takeWithin: number,
  listening: (pull: Socket.Reader["pull"]) => Effect.Effect<ControlFrames.Refusal | undefined>,
  onOver: Effect.Effect<void>
) {
  const speaking = yield* Scope.fork(yield* Effect.scope)
  const writer = yield* Scope.provide(socket.writer, speaking)
  const { pull } = yield* socket.reader
  const writing = yield* Effect.forkScoped(outbox.run(writer, 2 * takeWithin))
  const end = yield* listening(pull).pipe(
    Effect.raceFirst(Effect.as(Effect.raceFirst(closing.await, refused.await), undefined)),
    Effect.raceFirst(Effect.as(Fiber.await(writing), undefined))
  )
  if (end !== undefined) outbox.post(ControlFrames.encodeRefusal(end))
  outbox.close()
  yield* onOver
  // The peer is told that this was all. What still comes in is thrown away: a system may throw away our last words, too,
  // when a connection is closed that has unread input.
  const farewell = Effect.andThen(
    Scope.close(speaking, Exit.void),
    Effect.raceFirst(Effect.ignore(Effect.forever(pull)), closing.await)
  )
  yield* outbox.empty.pipe(
    Effect.andThen(farewell),
    Effect.raceFirst(Fiber.await(writing)),
    Effect.timeoutOption(lastWords)
  )
})

/** The protocol over the `SocketServer` that is given, for as long as the scope lives. */
export const make = Effect.fn("ControlProtocol.make")(function*(
  options: Options = {}
): Effect.fn.Return<RpcServer.Protocol["Service"], never, SocketServer.SocketServer | Scope.Scope> {
  const limits = {
    connections: options.connections ?? defaults.connections,
    strangers: options.strangers ?? defaults.strangers,
    requests: options.requests ?? defaults.requests,
    frame: options.frame ?? defaults.frame,
    frameWithin: options.frameWithin ?? defaults.frameWithin,
    takeWithin: options.takeWithin ?? defaults.takeWithin
  }
  const server = yield* SocketServer.SocketServer
  const rules = ControlFrames.rulesOf(options.group ?? (Control as unknown as RpcGroup.RpcGroup<Rpc.Any>), {
    version,
    versionHeader,
    headers: [versionHeader, tokenHeader]
  })
  const disconnects = yield* Queue.make<number>()
  /** Those that have been let in. */
  const connections = new Map<number, Connection>()
  /** All others, the oldest first. */
  const strangers = new Map<number, Connection>()
  const closing = Latch.makeUnsafe(false)
  const none = Latch.makeUnsafe(true)
  let count = 0
  let lastId = 0
  let send: Send = () => Effect.void

  const check = ControlToken.check(options.token)

  const admit = (connection: Connection, { headers }: RequestEncoded): ControlDenied | undefined => {
    const denied = check(headers.find(([name]) => name === tokenHeader)?.[1])
    if (denied !== undefined) return denied
    if (connections.size >= limits.connections) {
      return new ControlDenied({
        reason: "TooMany",
        detail: `at most ${limits.connections} connections are open at once`
      })
    }
    strangers.delete(connection.id)
    connections.set(connection.id, connection)
    return undefined
  }

  /** It has no business here, or none yet. */
  const estrange = (connection: Connection): void => {
    strangers.set(connection.id, connection)
    if (strangers.size <= limits.strangers) return
    for (const oldest of strangers.values()) {
      strangers.delete(oldest.id)
      oldest.dropped.openUnsafe()
      return
    }
  }

  const onSocket = (socket: Socket.Socket): Effect.Effect<void> =>
    Effect.suspend(() => {
      const connection = new Connection(++lastId)
      const { id } = connection
      count++
      none.closeUnsafe()
      estrange(connection)
      const onOver = Effect.suspend(() => {
        if (!connections.delete(id)) return Effect.void
        estrange(connection)
        return Queue.offer(disconnects, id)
      })
      return serve(
        connection,
        socket,
        closing,
        limits.takeWithin,
        (pull) =>
          listen(
            connection,
            pull,
            rules,
            limits,
            (request) => admit(connection, request),
            (id, message) => send(id, message)
          ),
        Effect.asVoid(onOver)
      ).pipe(
        Effect.scoped,
        Effect.raceFirst(connection.dropped.await),
        Effect.ensuring(onOver),
        Effect.ensuring(Effect.sync(() => {
          strangers.delete(id)
          if (--count === 0) none.openUnsafe()
        })),
        Effect.catchCause((cause) => Effect.logDebug("a control connection has ended", cause))
      )
    })

  const protocol = yield* RpcServer.Protocol.make((write) => {
    send = write
    return Effect.succeed({
      disconnects,
      send: (clientId, response) => connections.get(clientId)?.send(response) ?? Effect.void,
      end: () => Effect.void,
      clientIds: Effect.sync(() => new Set(connections.keys())),
      initialMessage: Effect.succeedNone,
      supportsAck: true,
      supportsTransferables: false,
      supportsSpanPropagation: false,
      supportsNotifications: false,
      codecFor: RpcSerialization.json.codecFor
    })
  })
  yield* Effect.forkScoped(Effect.orDie(server.run(onSocket)))
  // Before the sockets are closed, and all at once.
  yield* Effect.addFinalizer(() =>
    Effect.andThen(closing.open, none.await).pipe(Effect.interruptible, Effect.timeoutOption(closeWithin))
  )
  return protocol
})

/** `make` as a layer. */
export const layer = (options: Options = {}): Layer.Layer<RpcServer.Protocol, never, SocketServer.SocketServer> =>
  Layer.effect(RpcServer.Protocol, make(options))
