/** One attempt of a probe, of every kind. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type ConnectError, InvalidSpec, type LaunchError, ProbeFailure, type ProbeReason } from "../Errors.ts"
import * as ExitStatus from "../ExitStatus.ts"
import { type Address, format, type Network } from "../Network.ts"
import type { Output } from "../Output.ts"
import type { Check, Exec, Fd, Http, Line, Probe, Target, Tcp } from "../Probe.ts"
import type { ProcessTree } from "../ProcessTree.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import * as LineScan from "./LineScan.ts"
import { parseUrl } from "./ProbeSpec.ts"
import * as Web from "./Web.ts"

export const describe = (probe: Probe): string => {
  switch (probe._tag) {
    case "Line": {
      const pattern = typeof probe.pattern === "string" ? JSON.stringify(probe.pattern) : String(probe.pattern)
      return `line ${pattern} on ${probe.stream === "any" ? "stdout or stderr" : probe.stream}`
    }
    case "Fd":
      return `newline on descriptor ${probe.fd}`
    case "Tcp":
      return `tcp ${format(probe.address)}`
    case "Http": {
      const url = parseUrl(probe.url)
      return url === undefined ? "http" : `${url.origin}${url.pathname}`
    }
    case "Exec":
      return probe.command.options.shell === undefined || probe.command.options.shell === false
        ? `exec ${probe.command.command}`
        : "exec shell"
    case "Check":
      return probe.name
  }
}

const failed = (probe: Probe, reason: ProbeReason, detail: string): ProbeFailure =>
  new ProbeFailure({ probe: describe(probe), reason, detail })

/** The failure of an attempt that did not end in `ms`. */
export const timedOut = (probe: Probe, ms: number): ProbeFailure =>
  failed(probe, "TimedOut", `no answer within ${ms} ms`)

/**
 * Starts to measure; the inner effect tells the ms since then. By both clocks, because the monotonic one stands still on
 * Linux and macOS while the machine sleeps, and the other one may be set back.
 */
export const stopwatch: Effect.Effect<Effect.Effect<number>> = Effect.map(Clock.Clock, (clock) => {
  const nanos = clock.monotonicTimeNanosUnsafe()
  const millis = clock.currentTimeMillisUnsafe()
  return Effect.sync(() =>
    Math.max(Number(clock.monotonicTimeNanosUnsafe() - nanos) / 1_000_000, clock.currentTimeMillisUnsafe() - millis)
  )
})

const needs = (what: string): InvalidSpec => new InvalidSpec({ field: "probe", problem: `needs ${what}` })

const networkOf = (target: Target): Effect.Effect<Network, InvalidSpec> =>
  target.platform?.network === undefined
    ? Effect.fail(needs("a platform with a network"))
    : Effect.succeed(target.platform.network)

/** A process of the tree must be among those that listen, where the system tells. */
const ofTree = (probe: Probe, network: Network, address: Address, tree: ProcessTree | undefined) =>
  Effect.gen(function*() {
    if (tree === undefined || network.listeners === undefined) return
    const members = yield* tree.members
    const listeners = yield* network.listeners(address, members.map(({ pid }) => pid))
    if (Option.isSome(listeners) && !members.some(({ pid }) => listeners.value.includes(pid))) {
      return yield* failed(probe, "OtherProcess", `a process outside the tree listens at ${format(address)}`)
    }
  })

const ofConnectError = (probe: Tcp, error: ConnectError): ProbeFailure => {
  switch (error.reason) {
    case "NotFound":
      return failed(probe, "path" in probe.address ? "Refused" : "Unreachable", error.detail)
    case "Refused":
    case "Unreachable":
      return failed(probe, error.reason, error.detail)
    default:
      return failed(probe, "Failed", error.detail)
  }
}

const tcp = (probe: Tcp, target: Target) =>
  Effect.gen(function*() {
    const network = yield* networkOf(target)
    yield* Effect.mapError(network.connect(probe.address), (error) => ofConnectError(probe, error))
    yield* ofTree(probe, network, probe.address, target.tree)
  })

/** What a transport says of its failure: a code such as ECONNREFUSED where there is one, for it quotes nothing. */
const ofTransport = (probe: Http, { reason }: HttpClientError.HttpClientError): ProbeFailure => {
  const cause = "cause" in reason ? reason.cause : undefined
  const code = typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : undefined
  return code === "ECONNREFUSED"
    ? failed(probe, "Refused", code)
    : failed(probe, "Failed", `no usable response: ${code ?? reason._tag}`)
}

/** The body is looked at up to here, in bytes. */
const bodyLimit = 64 * 1024

const textOf = <E>(body: Stream.Stream<Uint8Array, E>): Effect.Effect<string, E> => {
  const decoder = Web.textDecoder()
  let text = ""
  let room = bodyLimit
  return Effect.map(
    Stream.runForEachWhile(body, (chunk) =>
      Effect.sync(() => {
        text += decoder.decode(chunk.subarray(0, room), { stream: true })
        room -= chunk.length
        return room > 0
      })),
    () => text
  )
}

const addressOf = (url: Web.Url): Address => ({
  host: url.hostname.replace(/^\[|\]$/g, ""),
  port: url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port)
})

const isGoodStatus = ({ status: wanted }: Http, status: number): boolean =>
  typeof wanted === "function" ? wanted(status) : status >= wanted.min && status <= wanted.max

const isGoodBody = (wanted: RegExp | ((body: string) => boolean), body: string): boolean =>
  // A copy: a global or sticky expression remembers where it was.
  typeof wanted === "function" ? wanted(body) : new RegExp(wanted).test(body)

const http = (probe: Http, target: Target) =>
  Effect.gen(function*() {
    const network = yield* networkOf(target)
    const url = parseUrl(probe.url)
    if (url === undefined) {
      return yield* new InvalidSpec({ field: "probe.url", problem: "must be a URL of http or https" })
    }
    const headers: Record<string, string> = {}
    for (const [name, value] of Object.entries(probe.headers)) {
      headers[name] = Redacted.isRedacted(value) ? Redacted.value(value) : value
    }
    const client = yield* network.http
    const { body, response } = yield* Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        restore(client.get(probe.url, { headers })),
        // Opened at once, because closing the body is what closes the connection when nobody reads to the end.
        (response: HttpClientResponse.HttpClientResponse) =>
          Effect.map(Stream.toPull(response.stream), (pull) => ({
            response,
            body: Stream.fromPull(Effect.succeed(pull))
          }))
      )
    ).pipe(Effect.mapError((error) => ofTransport(probe, error)))
    yield* ofTree(probe, network, addressOf(url), target.tree)
    if (!isGoodStatus(probe, response.status)) return yield* failed(probe, "WrongStatus", `status ${response.status}`)
    if (probe.body === undefined) return
    const text = yield* Effect.mapError(textOf(body), (error) => ofTransport(probe, error))
    if (!isGoodBody(probe.body, text)) {
      return yield* failed(probe, "WrongBody", `status ${response.status}, but the body does not match`)
    }
  })

const ofLaunchError = (probe: Exec, error: LaunchError): ProbeFailure =>
  failed(probe, error.reason === "NotFound" ? "CommandMissing" : "Failed", error.message)

const exec = (probe: Exec, target: Target) =>
  Effect.gen(function*() {
    if (target.platform === undefined) return yield* needs("a process platform")
    const tree = yield* target.platform.launch(probe.command, { shutdown: ShutdownPlan.kill }).pipe(
      Effect.catchTag("LaunchError", (error) => Effect.fail(ofLaunchError(probe, error))),
      Effect.catchTag("ContainmentUnavailable", (error) => Effect.fail(failed(probe, "Failed", error.message)))
    )
    const status = yield* tree.exited
    if (!ExitStatus.isSuccess(status)) return yield* failed(probe, "ExitCode", ExitStatus.describe(status))
  })

/** The longest detail that somebody else's error may make. */
const detailLimit = 500

const messageOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  const text = error instanceof Error ? error.message : String(error)
  return text.length > detailLimit ? `${text.slice(0, detailLimit)}...` : text
}

const custom = (probe: Check) =>
  Effect.catchCause(Effect.asVoid(probe.effect), (cause) => Effect.fail(failed(probe, "Failed", messageOf(cause))))

/** Reads until `sees` is true of a chunk; fails when the output ends before. */
const awaitIn = <A>(
  probe: Line | Fd,
  stream: Stream.Stream<A, unknown>,
  sees: (chunk: A) => boolean
): Effect.Effect<void, ProbeFailure> =>
  Effect.suspend(() => {
    let seen = false
    return Stream.runForEachWhile(stream, (chunk) => Effect.sync(() => !(seen = sees(chunk)))).pipe(
      Effect.ignore,
      Effect.andThen(
        Effect.suspend(() =>
          seen ? Effect.void : Effect.fail(failed(probe, "Ended", "the output ended without the announcement"))
        )
      )
    )
  })

const inLines = (probe: Line, output: Output): Effect.Effect<void, ProbeFailure> =>
  Effect.suspend(() => {
    const matches = LineScan.matcher(probe.pattern)
    let state: LineScan.State = ""
    return awaitIn(probe, Stream.decodeText(output.stream), (text) => {
      const fed = LineScan.feed(state, text, matches)
      state = fed.state
      return fed.found
    })
  })

const newline = 0x0a

const announce = (probe: Line | Fd, target: Target): Effect.Effect<void, ProbeFailure | InvalidSpec> => {
  const { tree } = target
  if (tree === undefined) return Effect.fail(needs("a process, whose output it reads"))
  if (probe._tag === "Fd") {
    const output = probe.fd === 1 ? tree.stdout : probe.fd === 2 ? tree.stderr : tree.output(probe.fd)
    return awaitIn(probe, output.stream, (chunk) => chunk.includes(newline))
  }
  const outputs = probe.stream === "any" ? [tree.stdout, tree.stderr] : [tree[probe.stream]]
  // The end of one output says nothing of the other (seed A17).
  return Effect.raceAll(outputs.map((output) => inLines(probe, output)))
}

/** One attempt; what it opened is closed with the scope. */
const ask = (probe: Probe, target: Target): Effect.Effect<void, ProbeFailure | InvalidSpec, Scope.Scope> => {
  switch (probe._tag) {
    case "Line":
    case "Fd":
      return announce(probe, target)
    case "Tcp":
      return tcp(probe, target)
    case "Http":
      return http(probe, target)
    case "Exec":
      return exec(probe, target)
    case "Check":
      return custom(probe)
  }
}

/** Every failure as a value, also what a predicate throws, for an error of a probe is a failure of it. */
const judge = (
  probe: Probe,
  self: Effect.Effect<void, ProbeFailure | InvalidSpec, Scope.Scope>
): Effect.Effect<ProbeFailure | undefined, InvalidSpec, Scope.Scope> =>
  Effect.flatMap(Effect.exit(self), (exit) => {
    if (Exit.isSuccess(exit)) return Effect.undefined
    const error = Cause.findErrorOption(exit.cause)
    if (Option.isNone(error)) return Effect.succeed(failed(probe, "Failed", messageOf(exit.cause)))
    return error.value._tag === "InvalidSpec" ? Effect.fail(error.value) : Effect.succeed(error.value)
  })

/** How an attempt ended and after how many ms, the time to clean up after it not counted. */
export interface Ended {
  readonly failure: ProbeFailure | undefined
  readonly took: number
}

/** One attempt with its limit in ms. It is over when all that it started is gone. */
export const run = Effect.fn("Probe.attempt")(
  function*(probe: Probe, timeout: number, target: Target): Effect.fn.Return<Ended, InvalidSpec, Scope.Scope> {
    const elapsed = yield* stopwatch
    const failure = yield* judge(
      probe,
      Effect.timeoutOrElse(ask(probe, target), {
        duration: timeout,
        orElse: () => Effect.fail(timedOut(probe, timeout))
      })
    )
    return { failure, took: yield* elapsed }
  },
  Effect.scoped
)

/** The wait for an announcement, without a limit of its own. */
export const announcement = (probe: Probe, target: Target): Effect.Effect<ProbeFailure | undefined, InvalidSpec> =>
  Effect.scoped(judge(probe, ask(probe, target)))
