/**
 * The control API over a Unix socket that only its user can reach, or over loopback TCP with a token that only its user
 * can read.
 *
 * A Unix socket is bound in a folder of mode 0700 that is made for it, gets the mode 0600 there, and is then renamed into
 * its place: at no moment can anybody else connect, whatever the umask is (unix(7): connecting needs the right to write).
 * The same folder lets only one of several starters go on.
 */
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import type * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as ControlClient from "@treeline/core/daemon/ControlClient"
import type * as ControlProtocol from "@treeline/core/daemon/ControlProtocol"
import type * as ControlServer from "@treeline/core/daemon/ControlServer"
import type * as ServiceHost from "@treeline/core/daemon/ServiceHost"
import { AlreadyRunning, ControlUnavailable, InvalidSpec, ListenError } from "@treeline/core/Errors"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import { Buffer } from "node:buffer"
import { createHash, randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import * as StartClaim from "./internal/StartClaim.ts"
import * as WindowsAccess from "./internal/WindowsAccess.ts"
import { type ControlAddress, longestSocketPath, make as makeFolder } from "./StateDirectory.ts"

/** An address that is listened at. Connections wait until they are served: 64, then the oldest is closed. */
export interface Listener {
  readonly server: SocketServer.SocketServer["Service"]
  /** What clients have to show; undefined where nobody else can connect. */
  readonly token: Redacted.Redacted<string> | undefined
  /** What errors and logs call it. */
  readonly address: string
}

/** How long somebody who listens already may take to say who it is, in ms. */
const probeWithin = 2000

/** How long a connection may take to be closed when all has been said, in ms. */
const closeWithin = 1000

/** How long a starter waits before it looks again whether another one is done, in ms. */
const claimPause = 20

const loopback = "127.0.0.1"

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException | undefined)?.code ?? String(error)

const listenReasons: Readonly<Record<string, ListenError["reason"]>> = {
  EADDRINUSE: "InUse",
  EACCES: "PermissionDenied",
  EPERM: "PermissionDenied",
  EROFS: "PermissionDenied",
  EADDRNOTAVAIL: "Unavailable",
  EAFNOSUPPORT: "Unavailable",
  ENOSPC: "Unavailable"
}

const listenError = (address: string) => (error: unknown): ListenError => {
  const detail = codeOf(error)
  return new ListenError({ address, reason: listenReasons[detail] ?? "Unknown", detail })
}

/** What is at a path, without following a link. */
const statOf = (file: string): fs.Stats | undefined => fs.lstatSync(file, { throwIfNoEntry: false })

const isSame = (one: fs.Stats | undefined, other: fs.Stats): boolean =>
  one !== undefined && one.ino === other.ino && one.dev === other.dev

/** Removes a file at the end of the scope, unless another one is in its place. */
const removeAtEnd = (file: string, own: fs.Stats) =>
  Effect.addFinalizer(() =>
    Effect.sync(() => {
      if (isSame(statOf(file), own)) fs.rmSync(file, { force: true })
    })
  )

// ------------------------------------------------------------------------------------------------------- the claim

/** The claim of an address, which one starter at a time has. It goes with the scope, at the latest. */
const claim = (
  address: string,
  folder: string
): Effect.Effect<StartClaim.StartClaim, ListenError, Scope.Scope> => {
  const attempt = Effect.try({ try: () => StartClaim.attempt(folder), catch: listenError(address) })
  return Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      for (let round = 0; round < StartClaim.within / claimPause; round++) {
        const won = yield* attempt
        if (won !== undefined) {
          yield* Effect.addFinalizer(() => Effect.sync(() => won.release()))
          return won
        }
        yield* restore(Effect.sleep(claimPause))
      }
      return yield* new ListenError({
        address,
        reason: "InUse",
        detail: `somebody else has been starting for ${StartClaim.within} ms`
      })
    })
  )
}

/** What a failure means while something is prepared: nothing but that the claim is lost, if it is. */
const unlessLost =
  (address: string, claim: StartClaim.StartClaim) =>
  <A, R>(preparing: Effect.Effect<A, ListenError, R>): Effect.Effect<A, ListenError, R> =>
    Effect.mapError(
      preparing,
      (error) =>
        claim.holds
          ? error
          : new ListenError({
            address,
            reason: "InUse",
            detail: `another one began to start here after this one had not gone on for ${StartClaim.stale} ms`
          })
    )

/** Fails when somebody listens at a socket already: who it is, if it says so. */
const refuseSecond = (options: ControlClient.Options): Effect.Effect<void, AlreadyRunning> =>
  ControlClient.hello({ ...options, within: probeWithin }).pipe(
    Effect.matchEffect({
      onSuccess: ({ file, pid }) => new AlreadyRunning({ address: options.address, file, pid }),
      onFailure: (error) =>
        error._tag === "ControlUnavailable" && error.reason === "NotRunning"
          ? Effect.void
          // Somebody listens, whatever it is: its place is not taken.
          : new AlreadyRunning({ address: options.address, file: null, pid: null })
    })
  )

/** Whether a process has this pid. */
const isTaken = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return codeOf(error) !== "ESRCH"
  }
}

/**
 * Fails when the server that wrote a port down is still there. Its port may have become another program's since it was
 * killed, so nothing counts but an answer of this protocol to its token, and that nobody says what it is while a process
 * has the pid of the server: it may be stopped, or busy. The token is shown to nobody who does not ask for one.
 */
const refuseSecondAtPort = ({ options, pid }: Known): Effect.Effect<void, AlreadyRunning> => {
  const { address } = options
  const hello = (token: ControlClient.Options["token"]) =>
    ControlClient.hello({ ...options, token, within: probeWithin })
  return hello(undefined).pipe(
    Effect.catchIf(isBadToken, () => hello(options.token)),
    Effect.matchEffect({
      onSuccess: ({ file, pid }) => new AlreadyRunning({ address, file, pid }),
      onFailure: (error) =>
        isAnother(error) || !isTaken(pid) ? Effect.void : new AlreadyRunning({ address, file: null, pid })
    })
  )
}

const isBadToken = (error: ControlClient.Unserved): boolean =>
  error._tag === "ControlDenied" && error.reason === "BadToken"

/** Whether it is nobody, or certainly another program: one of other words, or a server with another token. */
const isAnother = (error: ControlClient.Unserved): boolean =>
  isBadToken(error) ||
  (error._tag === "ControlUnavailable" && (error.reason === "NotRunning" || error.reason === "Foreign"))

// ---------------------------------------------------------------------------------------------------- the listeners

/** Waits until the system has closed a connection, in bounded time also when the peer does not read what it was sent. */
const closed = Effect.flatMap(Effect.serviceOption(NodeSocket.NetSocket), (connection) =>
  Option.isNone(connection)
    ? Effect.void
    : Effect.callback<void>((resume) => {
      const socket = connection.value
      if (socket.closed) return resume(Effect.void)
      const limit = setTimeout(() => socket.destroy(), closeWithin)
      socket.once("close", () => {
        clearTimeout(limit)
        resume(Effect.void)
      })
      socket.destroySoon()
    }))

/** Connections that wait until they are served; when there are more, the oldest is closed. */
const waiting = 64

/** A server that takes connections from the beginning, so many as may wait, and gives them to whoever runs it. */
const receiving = Effect.fnUntraced(function*(
  server: SocketServer.SocketServer["Service"]
): Effect.fn.Return<SocketServer.SocketServer["Service"], never, Scope.Scope> {
  const serving = yield* Deferred.make<(socket: Socket.Socket) => Effect.Effect<void>>()
  const queue = new Set<Latch.Latch>()
  const receive = (socket: Socket.Socket): Effect.Effect<void> =>
    Effect.gen(function*() {
      const dropped = Latch.makeUnsafe(false)
      queue.add(dropped)
      const [oldest] = queue
      if (queue.size > waiting && oldest !== undefined) oldest.openUnsafe()
      const handler = yield* Deferred.await(serving).pipe(
        Effect.raceFirst(Effect.as(dropped.await, undefined)),
        Effect.ensuring(Effect.sync(() => queue.delete(dropped)))
      )
      if (handler !== undefined) yield* handler(socket)
    }).pipe(Effect.ensuring(Effect.uninterruptible(closed)))
  yield* Effect.forkScoped(Effect.orDie(server.run(receive)))
  return SocketServer.SocketServer.of({
    address: server.address,
    run: Effect.fnUntraced(function*<R, E, A>(handler: (socket: Socket.Socket) => Effect.Effect<A, E, R>) {
      const context = yield* Effect.context<R>()
      const over = Latch.makeUnsafe(false)
      const handle = (socket: Socket.Socket) => Effect.ensuring(handler(socket), Effect.uninterruptible(closed))
      yield* Deferred.succeed(serving, (socket) =>
        handler(socket).pipe(
          Effect.provideContext(context),
          Effect.ignoreCause,
          Effect.raceFirst(over.await)
        ))
      return yield* Effect.ensuring(server.run(handle), over.open)
    })
  })
})

// What only a server needs is loaded by one: a client starts sooner.
const bind = (address: string, options: Parameters<typeof NodeSocketServer.make>[0]) =>
  Effect.promise(() => import("@effect/platform-node/NodeSocketServer")).pipe(
    Effect.flatMap((servers) => servers.make(options)),
    Effect.mapError(({ reason }) => listenError(address)(reason.cause)),
    Effect.flatMap(receiving)
  )

/** The name of a claim; as long as `control.sock` with the name of a socket in its room. */
const claimName = (file: string): string => `.${createHash("sha256").update(file).digest("hex").slice(0, 4)}`

/** In a room. */
const boundName = "s"

const listenSocket = Effect.fnUntraced(function*(
  file: string,
  link: string | null
): Effect.fn.Return<Listener, AlreadyRunning | InvalidSpec | ListenError, Scope.Scope> {
  const field = "daemon.socket"
  const folder = path.dirname(file)
  const claimed = path.join(folder, claimName(file))
  const limit = longestSocketPath()
  for (const name of [file, path.join(claimed, "room", boundName)]) {
    if (Buffer.byteLength(name) > limit) {
      return yield* new InvalidSpec({ field, problem: `the path ${name} is longer than ${limit} bytes` })
    }
  }
  yield* makeFolder(folder, field)
  if (link !== null) yield* makeFolder(path.dirname(link))
  const prepared = Effect.gen(function*() {
    const won = yield* claim(file, claimed)
    // Another starter may have had another folder for short paths.
    const other = yield* Effect.sync(() => leadsTo(link))
    for (const path of new Set([file, other ?? file])) yield* refuseSecond({ address: path, socket: dial({ path }) })
    const there = yield* Effect.sync(() => statOf(file))
    if (there !== undefined && !there.isSocket()) {
      return yield* new InvalidSpec({ field, problem: `${file} is there and is no socket` })
    }
    return won
  })
  const scope = yield* Effect.scope
  return yield* Effect.scoped(Effect.gen(function*() {
    const won = yield* prepared
    // Another path each time: Node removes what it has bound when it closes, whosever it is then.
    const bound = path.join(won.room, boundName)
    const server = yield* Scope.provide(unlessLost(file, won)(bind(file, { path: bound })), scope)
    const own = yield* Effect.try({
      try: () => {
        fs.chmodSync(bound, 0o600)
        fs.renameSync(bound, file)
        return statOf(file)!
      },
      catch: listenError(file)
    }).pipe(unlessLost(file, won))
    yield* Scope.provide(removeAtEnd(file, own), scope)
    if (link !== null) yield* Scope.provide(leadTo(link, file), scope)
    return { server, token: undefined, address: file }
  }))
})

/** Where a symbolic link leads; undefined where there is none. */
const leadsTo = (link: string | null): string | undefined =>
  link !== null && statOf(link)?.isSymbolicLink() === true ? fs.readlinkSync(link) : undefined

/** A symbolic link for as long as the scope lives. */
const leadTo = (link: string, file: string) =>
  Effect.gen(function*() {
    const made = yield* Effect.try({
      try: () => {
        const there = statOf(link)
        if (there !== undefined && !there.isSymbolicLink()) return undefined
        const temporary = `${link}-${randomBytes(4).toString("hex")}`
        fs.symlinkSync(file, temporary)
        fs.renameSync(temporary, link)
        return statOf(link)!
      },
      catch: listenError(link)
    })
    if (made === undefined) {
      return yield* new InvalidSpec({ field: "daemon.socket", problem: `${link} is there and is no symbolic link` })
    }
    yield* removeAtEnd(link, made)
  })

/** What a client of a port has to know. */
const PortFile = Schema.Struct({
  port: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65_535 })),
  token: Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/)),
  pid: Schema.Int.check(Schema.isGreaterThan(0))
})

/** A new file, made here and by nobody else, that only its user may read from the beginning. */
const writeSecret = (file: string, text: string): void =>
  fs.writeFileSync(file, text, WindowsAccess.makeFile(file) ? { flag: "r+" } : { mode: 0o600, flag: "wx" })

/** A larger one is none, in bytes. */
const largestPortFile = 4096

const decodePortFile = Schema.decodeUnknownOption(Schema.fromJsonString(PortFile))

/** Why a file with a secret is not to be trusted, or undefined. */
const exposed = (file: string, stat: fs.Stats): string | undefined => {
  if (!stat.isFile()) return "is no regular file"
  const own = process.geteuid?.()
  if (own === undefined) return WindowsAccess.problemOf(file)
  if (stat.uid !== own && own !== 0) return `belongs to another user (uid ${stat.uid})`
  return (stat.mode & 0o077) === 0 ? undefined : `may be read by others (mode ${(stat.mode & 0o777).toString(8)})`
}

/** How a port is reached, and the pid of its server. */
interface Known {
  readonly options: ControlClient.Options
  readonly pid: number
}

/** What a server has written down; undefined when there is no such file. */
const readPortFile = (file: string): Effect.Effect<Known | undefined, ControlUnavailable> =>
  Effect.suspend(() => {
    const foreign = (detail: string, reason: ControlUnavailable["reason"] = "Foreign") =>
      new ControlUnavailable({ address: file, reason, detail })
    let descriptor: number | undefined = undefined
    try {
      descriptor = fs.openSync(
        file,
        fs.constants.O_RDONLY | (fs.constants.O_NOFOLLOW ?? 0) | (fs.constants.O_NONBLOCK ?? 0)
      )
      const stat = fs.fstatSync(descriptor)
      const problem = exposed(file, stat)
      if (problem !== undefined) return foreign(`${file} ${problem}`)
      const text = Buffer.alloc(Math.min(stat.size, largestPortFile))
      fs.readSync(descriptor, text, 0, text.length, 0)
      const found = decodePortFile(text.toString())
      if (Option.isNone(found)) return foreign(`${file} does not say a port and a token`)
      const { pid, port, token } = found.value
      const address = `${loopback}:${port}`
      return Effect.succeed({
        options: { address, socket: dial({ host: loopback, port }), token: Redacted.make(token) },
        pid
      })
    } catch (error) {
      const code = codeOf(error)
      if (code === "ENOENT") return Effect.undefined
      return foreign(code, code === "EACCES" ? "PermissionDenied" : "Foreign")
    } finally {
      if (descriptor !== undefined) fs.closeSync(descriptor)
    }
  })

const listenPort = Effect.fnUntraced(function*(
  port: number | null,
  file: string
): Effect.fn.Return<Listener, AlreadyRunning | InvalidSpec | ListenError, Scope.Scope> {
  const folder = path.dirname(file)
  yield* makeFolder(folder)
  const scope = yield* Effect.scope
  return yield* Effect.scoped(Effect.gen(function*() {
    const wanted = `${loopback}:${port ?? 0}`
    const won = yield* claim(wanted, path.join(folder, claimName(file)))
    const known = yield* Effect.option(readPortFile(file))
    if (Option.isSome(known) && known.value !== undefined) yield* refuseSecondAtPort(known.value)
    const server = yield* Scope.provide(bind(wanted, { host: loopback, port: port ?? 0, exclusive: true }), scope)
    const chosen = "port" in server.address ? server.address.port : port ?? 0
    const token = randomBytes(32).toString("hex")
    const own = yield* Effect.try({
      try: () => {
        const temporary = path.join(won.room, path.basename(file))
        writeSecret(temporary, JSON.stringify({ port: chosen, token, pid: process.pid }))
        fs.renameSync(temporary, file)
        return statOf(file)!
      },
      catch: listenError(file)
    }).pipe(unlessLost(wanted, won))
    yield* Scope.provide(removeAtEnd(file, own), scope)
    return { server, token: Redacted.make(token), address: `${loopback}:${chosen}` }
  }))
})

/**
 * Listens at an address for as long as the scope lives. Fails before anything else is done: with `AlreadyRunning` when
 * somebody does already, with `InvalidSpec` when the place can't be made safe. A socket that nobody listens at any more is
 * replaced.
 *
 * Do it first, start the services, then serve them: so a second one starts nothing.
 */
export const listen = Effect.fn("NodeControl.listen")(function*(
  address: ControlAddress
): Effect.fn.Return<Listener, AlreadyRunning | InvalidSpec | ListenError, Scope.Scope> {
  return yield* address._tag === "Socket"
    ? listenSocket(address.path, address.link)
    : listenPort(address.port, address.file)
})

export interface ServeOptions extends Omit<ControlServer.Options, "token">, ControlProtocol.Limits {}

/** Serves services at an address that is listened at, for as long as the layer lives. */
export const serve = (
  host: ServiceHost.ServiceHost,
  { server, token }: Listener,
  options: ServeOptions = {}
): Layer.Layer<never, InvalidSpec> =>
  Layer.unwrap(Effect.promise(async () => {
    const [ControlServer, ControlProtocol] = await Promise.all([
      import("@treeline/core/daemon/ControlServer"),
      import("@treeline/core/daemon/ControlProtocol")
    ])
    return ControlServer.layer(host, { ...options, token }).pipe(
      Layer.provide(ControlProtocol.layer({ ...options, token })),
      Layer.provide(Layer.succeed(SocketServer.SocketServer, server))
    )
  }))

// ------------------------------------------------------------------------------------------------------ the client

/** How long the system may take to connect. */
const connectWithin = "5 seconds"

const dial = (to: { readonly path: string } | { readonly host: string; readonly port: number }) =>
  NodeSocket.makeNet({ ...to, openTimeout: connectWithin })

const socketAt = (file: string, link: string | null): Effect.Effect<ControlClient.Options, ControlUnavailable> =>
  Effect.suspend(() => {
    const unavailable = (reason: ControlUnavailable["reason"], detail: string) =>
      new ControlUnavailable({ address: file, reason, detail })
    try {
      // Where the server put it, which may have had another environment.
      const found = leadsTo(link) ?? file
      const stat = statOf(found)
      if (stat === undefined) return unavailable("NotRunning", "there is no socket")
      if (!stat.isSocket()) return unavailable("Foreign", `${found} is no socket`)
      const own = process.geteuid?.()
      if (own !== undefined && own !== 0 && stat.uid !== own && stat.uid !== 0) {
        return unavailable("Foreign", `${found} belongs to another user (uid ${stat.uid})`)
      }
      return Effect.succeed({ address: found, socket: dial({ path: found }) })
    } catch (error) {
      const code = codeOf(error)
      return code === "EACCES"
        ? unavailable("PermissionDenied", "this user may not look there")
        : unavailable(code === "ENOTDIR" ? "NotRunning" : "Foreign", code)
    }
  })

/** How the server at an address is reached: for `ControlClient.make`. */
export const reach = (address: ControlAddress): Effect.Effect<ControlClient.Options, ControlUnavailable> =>
  address._tag === "Socket"
    ? socketAt(address.path, address.link)
    : Effect.flatMap(readPortFile(address.file), (known) =>
      known === undefined
        ? new ControlUnavailable({ address: address.file, reason: "NotRunning", detail: "nobody listens" })
        : Effect.succeed(known.options))

export interface ClientOptions extends Pick<ControlClient.Options, "within" | "longWithin"> {}

/** A client of the server at an address. */
export const connect = Effect.fn("NodeControl.connect")(function*(
  address: ControlAddress,
  options: ClientOptions = {}
): Effect.fn.Return<ControlClient.Client, ControlClient.Unserved, Scope.Scope> {
  return yield* ControlClient.make({ ...yield* reach(address), ...options })
})

/** `connect` as a layer. */
export const layerClient = (
  address: ControlAddress,
  options: ClientOptions = {}
): Layer.Layer<ControlClient.ControlClient, ControlClient.Unserved> =>
  Layer.effect(ControlClient.ControlClient, connect(address, options))
