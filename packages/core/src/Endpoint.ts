/**
 * How a child is reached: an address that is found for it before it starts, or one that it tells.
 *
 * - `port`: a port of this machine that nobody listens at, for the child to listen at.
 * - `socket`: the path of a Unix socket in a folder of its own.
 * - `fromLine`: the child takes a port by itself (it listens at port 0) and writes the address on a line.
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Child, Chunk } from "./Child.ts"
import { EndpointUnavailable, InvalidSpec, type ListenError, NotAnnounced } from "./Errors.ts"
import * as AddressText from "./internal/AddressText.ts"
import * as Announcement from "./internal/Announcement.ts"
import * as Detail from "./internal/Detail.ts"
import { candidates, CurrentLedger, type PortLedger, quietRange } from "./internal/PortLedger.ts"
import { randomName } from "./internal/RandomName.ts"
import { millis, monotonic } from "./internal/Time.ts"
import * as Web from "./internal/Web.ts"
import { format, type Network, type PortRange } from "./Network.ts"
import { ProcessPlatform } from "./ProcessPlatform.ts"

/** A TCP port, with the URLs of what may be served there; none of them ends in a slash. */
export class TcpAddress extends Schema.Class<TcpAddress>("@treeline/core/TcpAddress")({
  host: Schema.NonEmptyString,
  port: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65_535 }))
}) {
  /** `127.0.0.1:8080`, `[::1]:8080` */
  get authority(): string {
    return format(this)
  }

  get http(): string {
    return `http://${this.authority}`
  }

  get https(): string {
    return `https://${this.authority}`
  }

  get ws(): string {
    return `ws://${this.authority}`
  }

  get wss(): string {
    return `wss://${this.authority}`
  }
}

/** The path of a Unix socket, or of a named pipe on Windows. */
export class SocketAddress extends Schema.Class<SocketAddress>("@treeline/core/SocketAddress")({
  path: Schema.NonEmptyString
}) {}

/** What `Probe.tcp` takes, too. */
export const Address = Schema.Union([TcpAddress, SocketAddress])
export type Address = typeof Address.Type

/** How a port is chosen. All are optional. */
export interface PortOptions {
  /** Where the child will listen. Default: `127.0.0.1`. */
  readonly host?: string | undefined
  /**
   * The ports to choose from. Default: those that the system gives to no outgoing connection (61,000 to 65,535 on Linux),
   * so that none can take the port before the child does.
   */
  readonly ports?: PortRange | undefined
  /**
   * How long a port is not given again after its child has gone, so that nobody who remembers it reaches another's child,
   * and old connections are forgotten (TIME_WAIT, tcp(7)). Default: 1 minute.
   */
  readonly rest?: Duration.Input | undefined
}

/** Ports that are tried before there is said to be none. */
const maxTries = 64

const unavailable = (reason: EndpointUnavailable["reason"], detail: string) =>
  new EndpointUnavailable({ reason, detail })

/** The other name of this machine: a program may listen at both, and its clients try the wrong one first. */
const twins: Readonly<Record<string, string>> = { "127.0.0.1": "::1", "::1": "127.0.0.1", "localhost": "::1" }

/** Why a port can't be used now; undefined when it can. */
const problemOf = (
  tryListen: NonNullable<Network["tryListen"]>,
  host: string,
  port: number
): Effect.Effect<ListenError | undefined> =>
  Effect.gen(function*() {
    const refused = (host: string) =>
      Effect.match(tryListen({ host, port }), { onSuccess: () => undefined, onFailure: (error) => error })
    const problem = yield* refused(host)
    const twin = twins[host]
    if (problem !== undefined || twin === undefined) return problem
    const other = yield* refused(twin)
    // The machine may have no IPv6.
    return other?.reason === "InUse" ? other : undefined
  })

/** Takes a port that is free, and marks it before it is tried, so that nobody else here tries it, too. */
const find = (
  ledger: PortLedger,
  tryListen: NonNullable<Network["tryListen"]>,
  host: string,
  range: PortRange | undefined,
  now: number
): Effect.Effect<number, EndpointUnavailable> =>
  Effect.gen(function*() {
    const start = range === undefined ? 0 : yield* Random.nextIntBetween(0, range.last - range.first + 1)
    const ports = range === undefined ? undefined : candidates(ledger, range, start, now)
    let last = "every port in the range is given to a child or rests"
    for (let tries = 0; tries < maxTries; tries++) {
      const port = ports === undefined
        ? yield* Effect.mapError(tryListen({ host, port: 0 }), (error) => unavailable("NoFreePort", error.message))
        : ports.next().value
      if (port === undefined) break
      if (!ledger.isFree(port, now)) continue
      ledger.take(port)
      const problem = yield* problemOf(tryListen, host, port)
      if (problem === undefined) return port
      ledger.putBack(port)
      if (problem.reason === "Unavailable") return yield* unavailable("HostUnavailable", problem.message)
      last = problem.message
    }
    return yield* unavailable("NoFreePort", last)
  })

const isPort = (value: number): boolean => Number.isSafeInteger(value) && value >= 1 && value <= 65_535

/**
 * A port of this machine that nobody listens at. It is the caller's until the scope closes (in `build` of a pool: as long
 * as the incarnation), and rests after that: no other child of this process gets it meanwhile.
 *
 * Between the finding and the child's own binding another program may take it, because a port can't be kept for somebody
 * else. By default that takes a program that wants this very port; see `PortOptions.ports`. The child fails then like any
 * that does not start, and who asks again gets another port: `Effect.retry(pool.ensure(key), { times: 2 })`. A child that
 * can listen at port 0 has no such gap: see `fromLine`.
 *
 * @example
 * ```ts
 * import { Child, Endpoint, Pool, Probe } from "@treeline/core"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect } from "effect"
 * import { ChildProcess } from "effect/process"
 *
 * const script = `require("node:http").createServer((_, response) => response.end("hello"))
 *   .listen(process.env.PORT, "127.0.0.1")`
 *
 * const program = Effect.gen(function*() {
 *   const pool = yield* Pool.make({
 *     build: Effect.fnUntraced(function*() {
 *       const port = yield* Endpoint.port()
 *       const env = { PORT: String(port.port) }
 *       return {
 *         child: Child.make("server", {
 *           command: ChildProcess.make(process.execPath, ["-e", script], { env, extendEnv: true }),
 *           readiness: Probe.http(port.http)
 *         }),
 *         endpoint: () => Effect.succeed(port)
 *       }
 *     })
 *   })
 *   const { endpoint } = yield* pool.ensure("acme")
 *   return yield* Effect.promise(async () => (await fetch(endpoint.http)).text())
 * })
 * const text = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(PosixPlatform.layer)))
 * if (text !== "hello") throw new Error(text)
 * ```
 */
export const port = Effect.fn("Endpoint.port")(function*(
  options: PortOptions = {}
): Effect.fn.Return<TcpAddress, EndpointUnavailable | InvalidSpec, ProcessPlatform | Scope.Scope> {
  const { network } = yield* ProcessPlatform
  const rest = yield* Effect.fromResult(millis("rest", options.rest ?? "1 minute"))
  const { host = "127.0.0.1", ports } = options
  if (host === "") return yield* new InvalidSpec({ field: "host", problem: "must not be empty" })
  if (ports !== undefined && !(isPort(ports.first) && isPort(ports.last) && ports.first <= ports.last)) {
    return yield* new InvalidSpec({
      field: "ports",
      problem: "must be from 1 to 65535, the first one not above the last"
    })
  }
  if (network?.tryListen === undefined) return yield* unavailable("NoNetwork", "the platform has nothing that listens")
  const { tryListen } = network
  const ephemeral = network.ephemeralPorts === undefined ? undefined : yield* network.ephemeralPorts
  const range = ports ?? quietRange(ephemeral)
  const ledger = yield* CurrentLedger
  const clock = yield* Clock.Clock
  const found = yield* Effect.acquireRelease(
    find(ledger, tryListen, host, range, monotonic(clock)),
    (port) => Effect.sync(() => ledger.rest(port, monotonic(clock) + rest))
  )
  return new TcpAddress({ host, port: found })
})

/** The most bytes that a path may have: 104 with the NUL on macOS, 108 on Linux (unix(7), sun_path). */
const maxPath = 103

const byteLength = (text: string): number => Web.textEncoder().encode(text).length

/** How a socket's path is made. All are optional. */
export interface SocketOptions {
  /** Where its folder is made. Default: the system's folder for temporary files; `/tmp` where that is too deep. */
  readonly directory?: string | undefined
  /** Its file name. Default: `socket`. */
  readonly name?: string | undefined
}

/** A folder that only the host's user may enter (mkdtemp(3)), removed with the scope. */
const socketIn = (directory: string | undefined, name: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const folder = yield* Effect.acquireRelease(
      Effect.mapError(
        fs.makeTempDirectory({ directory, prefix: "treeline-" }),
        (error) => unavailable("NoFolder", Detail.of(error))
      ),
      (folder) => Effect.ignore(fs.remove(folder, { recursive: true, force: true }))
    )
    return (yield* Path.Path).join(folder, name)
  })

/**
 * A path for the child's Unix socket, in a folder of its own that only the host's user may enter. Both are removed when
 * the scope closes. On Windows it is the name of a pipe, which nobody can guess, but anybody can list.
 *
 * @example
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { Child, Endpoint, Probe } from "@treeline/core"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect } from "effect"
 * import { ChildProcess } from "effect/process"
 *
 * const program = Effect.gen(function*() {
 *   const socket = yield* Endpoint.socket()
 *   const script = `require("node:net").createServer().listen(process.argv[1])`
 *   const child = yield* Child.start(Child.make("server", {
 *     command: ChildProcess.make(process.execPath, ["-e", script, socket.path]),
 *     readiness: Probe.tcp(socket)
 *   }))
 *   yield* child.awaitReady
 * })
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide([PosixPlatform.layer, NodeServices.layer])))
 * ```
 */
export const socket = Effect.fn("Endpoint.socket")(function*(
  options: SocketOptions = {}
): Effect.fn.Return<
  SocketAddress,
  EndpointUnavailable | InvalidSpec,
  FileSystem.FileSystem | Path.Path | Scope.Scope
> {
  const { directory, name = "socket" } = options
  if (name === "" || /[/\\\0]/.test(name)) {
    return yield* new InvalidSpec({ field: "name", problem: "must be a file name" })
  }
  if ((yield* Path.Path).sep === "\\") {
    return new SocketAddress({ path: `\\\\.\\pipe\\treeline-${yield* randomName}-${name}` })
  }
  const path = yield* socketIn(directory, name)
  if (byteLength(path) <= maxPath) return new SocketAddress({ path })
  const shorter = directory === undefined ? yield* socketIn("/tmp", name) : path
  if (byteLength(shorter) <= maxPath) return new SocketAddress({ path: shorter })
  return yield* unavailable(
    "PathTooLong",
    `${shorter} has ${byteLength(shorter)} bytes, and a socket's path may have ${maxPath}`
  )
})

/** What is looked for: a line that matches, or what a function makes of a line. */
export interface LineOptions {
  /** Where it is looked for. Default: `any`. */
  readonly stream?: "stdout" | "stderr" | "any" | undefined
  /** How long it is awaited. Default: 30 s. */
  readonly within?: Duration.Input | undefined
}

/**
 * The address in a text: a URL, `host:port`, `[host]:port`, `:port`, or a port of 127.0.0.1. A URL's path is not kept. A
 * server that listens everywhere (`0.0.0.0`, `[::]`) is reached at 127.0.0.1 or [::1].
 *
 * @example
 * ```ts
 * import { Endpoint } from "@treeline/core"
 * import { strictEqual } from "node:assert"
 *
 * strictEqual(Endpoint.parse("ws://127.0.0.1:4040/rpc")?.ws, "ws://127.0.0.1:4040")
 * strictEqual(Endpoint.parse("0.0.0.0:80")?.http, "http://127.0.0.1:80")
 * strictEqual(Endpoint.parse("none"), undefined)
 * ```
 */
export const parse = (text: string): TcpAddress | undefined => {
  const parsed = AddressText.parse(text)
  return parsed === undefined ? undefined : new TcpAddress(parsed)
}

/** An address, or why the line that should have it has none. */
type Found<A> = Result.Result<A, string>

/** In a match: groups named `port` and `host`, else the first group, else all of it. */
const inMatch = ({ 0: whole, 1: first, groups }: RegExpMatchArray): Found<TcpAddress> => {
  const text = groups?.["port"] === undefined
    ? first ?? whole
    : `${groups["host"] ?? ""}:${groups["port"]}`
  const address = parse(text)
  return address === undefined ? Result.fail(`no address in ${JSON.stringify(text)}`) : Result.succeed(address)
}

const byPattern = (pattern: RegExp) => {
  // A copy without the flags that make an expression remember where it was.
  const own = new RegExp(pattern.source, pattern.flags.replaceAll(/[gy]/g, ""))
  return (line: string): Found<TcpAddress> | undefined => {
    const match = line.match(own)
    return match === null ? undefined : inMatch(match)
  }
}

const byFunction = <A>(f: (line: string) => A | undefined) => (line: string): Found<A> | undefined => {
  try {
    const value = f(line)
    return value === undefined ? undefined : Result.succeed(value)
  } catch (error) {
    return Result.fail(`the function that looks for it has thrown: ${String(error)}`)
  }
}

/**
 * The address that a child tells in its output, from the first whole line that matches: in groups named `port` (and
 * `host`), else in the first group, else in all of the match, as `parse` reads it; or what a function gives for the line,
 * of any type. The result is what a pool takes as `endpoint`.
 *
 * A line counts when its newline has come; its first 1 MiB is looked at. Of a child that is started again only the lines
 * of its last incarnation count. The child's output policy must be `ring` (the default).
 *
 * @example
 * ```ts
 * import { Child, Endpoint, Pool } from "@treeline/core"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect } from "effect"
 * import { ChildProcess } from "effect/process"
 *
 * const script = `const server = require("node:http").createServer((_, response) => response.end("hello"))
 *   server.listen(0, "127.0.0.1", () => console.error("listening on http://127.0.0.1:" + server.address().port + "/"))`
 *
 * const program = Effect.gen(function*() {
 *   const pool = yield* Pool.make({
 *     build: () =>
 *       Effect.succeed({
 *         child: Child.make("server", { command: ChildProcess.make(process.execPath, ["-e", script]) }),
 *         endpoint: Endpoint.fromLine(/^listening on (http:\S+)/)
 *       })
 *   })
 *   const { endpoint } = yield* pool.ensure("acme")
 *   return yield* Effect.promise(async () => (await fetch(endpoint.http)).text())
 * })
 * const text = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(PosixPlatform.layer)))
 * if (text !== "hello") throw new Error(text)
 * ```
 */
export const fromLine: {
  (pattern: RegExp, options?: LineOptions): (child: Child) => Effect.Effect<TcpAddress, NotAnnounced | InvalidSpec>
  <A>(
    match: (line: string) => A | undefined,
    options?: LineOptions
  ): (child: Child) => Effect.Effect<A, NotAnnounced | InvalidSpec>
} = <A>(
  pattern: RegExp | ((line: string) => A | undefined),
  options: LineOptions = {}
) => {
  const match = pattern instanceof RegExp ? byPattern(pattern) : byFunction(pattern)
  const name = pattern instanceof RegExp ? String(pattern) : "a function"
  return (child: Child) => announced<TcpAddress | A>(child, name, match, options)
}

const outputs = (stream: LineOptions["stream"]): ReadonlySet<Chunk["stream"]> =>
  new Set(stream === undefined || stream === "any" ? ["stdout", "stderr"] : [stream])

const announced = Effect.fn("Endpoint.fromLine")(function*<A>(
  child: Child,
  pattern: string,
  match: (line: string) => Found<A> | undefined,
  options: LineOptions
): Effect.fn.Return<A, NotAnnounced | InvalidSpec> {
  const within = yield* Effect.fromResult(millis("within", options.within ?? "30 seconds"))
  const announcement = new Announcement.Announcement(match, outputs(options.stream))
  const fail = (reason: NotAnnounced["reason"], detail: string) =>
    Effect.suspend(() =>
      Effect.fail(new NotAnnounced({ pattern, reason, detail, within, outputTail: announcement.tail }))
    )
  const read = Stream.runForEachWhile(child.output, (chunk) =>
    Effect.sync(() => {
      announcement.feed(chunk)
      return announcement.found === undefined
    }))
  yield* Effect.raceAllFirst([
    Effect.ignore(read),
    Effect.ignore(child.awaitEnd),
    Effect.andThen(Effect.sleep(within), fail("TimedOut", `no such line within ${within} ms`))
  ])
  const { found } = announcement
  if (found === undefined) return yield* fail("Ended", "the child has ended without such a line")
  return Result.isSuccess(found) ? found.success : yield* fail("Unusable", found.failure)
})
