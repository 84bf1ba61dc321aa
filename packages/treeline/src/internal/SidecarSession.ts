/**
 * One session of `treeline sidecar`: requests in, answers and events out, and no process left when it is over.
 *
 * Requests begin in the order in which they came, and are answered when they are done: a `cancel` that takes its time
 * holds nobody up. What waits is bounded everywhere; a client that reads no answers is not read any more.
 */
import * as Containment from "@treeline/core/Containment"
import { InvalidSpec, Unkillable, VersionMismatch } from "@treeline/core/Errors"
import type { Output } from "@treeline/core/Output"
import * as OutputPolicy from "@treeline/core/Output"
import type { ProcessInfo } from "@treeline/core/ProcessIdentity"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import type { ProcessTree } from "@treeline/core/ProcessTree"
import * as ShutdownPlan from "@treeline/core/ShutdownPlan"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Scope from "effect/Scope"
import * as Protocol from "../SidecarProtocol.ts"
import { InternalError } from "./Failure.ts"
import { SidecarInput, type Waiting } from "./SidecarInput.ts"
import { SidecarLines } from "./SidecarLines.ts"
import { Credit, tell } from "./SidecarOutput.ts"

/** The client's end. */
export interface Wire {
  /** What it sent; undefined when it has closed its end or is gone. */
  readonly read: Effect.Effect<Uint8Array | undefined>
  /** Sends one line of ASCII; waits while the client does not read. To a client that is gone nothing is sent. */
  readonly send: (line: string) => Effect.Effect<void>
  /** Completes when it has closed the end that it reads; that is seen at the next thing that it is told. */
  readonly gone: Effect.Effect<void>
}

export interface Options {
  readonly version: string
  readonly pid: number
  readonly limits: Protocol.Limits
  /** From the first signal to the kill, in ms, where a spawn has no plan of its own. */
  readonly plan: ShutdownPlan.ShutdownPlan
  /** Least containment of every spawn. */
  readonly require: Containment.Level | undefined
  /** Completes when the session is to end although the client has not closed it. */
  readonly stop: Effect.Effect<void>
  /** Completes when it is to end at once, too. */
  readonly kill: Effect.Effect<void>
  /** Told what is wrong with the sidecar itself. */
  readonly onDefect: (cause: Cause.Cause<unknown>) => Effect.Effect<void>
}

/** Why the session is over, and what could not be ended. */
export interface Over {
  readonly reason: "Closed" | "Refused" | "Stopped" | "Stalled"
  readonly left: ReadonlyArray<ProcessInfo>
}

/** How long a client may leave answers unread while there is no room for another one, in ms. */
const patience = 60_000

/** When all processes have ended, the client is told for as long as it takes a line within this time, in ms. */
const lastWords = 1000

interface Entry {
  readonly tree: ProcessTree
  readonly credits: ReadonlyMap<Protocol.OutputName, Credit>
  readonly input: SidecarInput | undefined
  /** The kill has given up, with these left. */
  readonly gaveUp: Deferred.Deferred<ReadonlyArray<ProcessInfo>>
}

/** All in ASCII, so that no client has to know more. */
const line = (message: object): string => {
  const text = JSON.stringify(message)
  const escape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`
  return `${text.replaceAll(/[\u0080-\uffff]/g, escape)}\n`
}

const encodeError = Schema.encodeSync(Protocol.SidecarError)

const failure = (id: Protocol.Id | null, error: Protocol.SidecarError): string =>
  line({
    jsonrpc: "2.0",
    id,
    error: { code: Protocol.codeOf(error), message: error.message, data: encodeError(error) }
  })

const success = (id: Protocol.Id, result: object): string => line({ jsonrpc: "2.0", id, result })

/** What was wrong, without what was found there: it may be secret. */
const leafHook: SchemaIssue.LeafHook = (issue) => {
  switch (issue._tag) {
    case "MissingKey":
      return "is missing"
    case "UnexpectedKey":
      return "is not known here"
    default:
      return SchemaIssue.defaultLeafHook(issue).replace(/^Expected/, "expected")
  }
}
const formatter = SchemaIssue.makeFormatterStandardSchemaV1({ leafHook })

const problemOf = (issue: SchemaIssue.Issue): InvalidSpec => {
  const { message, path = [] } = formatter(issue).issues[0]!
  const names = path.map((part) => String(typeof part === "object" ? part.key : part).slice(0, 64))
  return new InvalidSpec({ field: ["params", ...names].join("."), problem: message })
}

const strict = { onExcessProperty: "error" } as const

const decoders = Object.fromEntries(
  Object.entries(Protocol.methods).map(([name, { params }]) => [
    name,
    Schema.decodeUnknownResult(params as Schema.Codec<unknown, unknown>)
  ])
)

/** A request, or why it is none and whom to tell. */
type Parsed =
  | { readonly id: Protocol.Id | undefined; readonly call: Protocol.Call }
  | { readonly id: Protocol.Id | null | undefined; readonly error: Protocol.SidecarError }

const decodeEnvelope = Schema.decodeUnknownResult(Protocol.Envelope)
const decodeId = Schema.decodeUnknownOption(Protocol.Id)
const utf8 = new TextDecoder("utf-8", { fatal: true })

const malformed = (
  reason: Protocol.MalformedMessage["reason"],
  detail: string,
  id: Protocol.Id | null = null
): Parsed => ({
  id,
  error: new Protocol.MalformedMessage({ reason, detail })
})

/** What a line asks. Pure, and total: any bytes are an answer. */
export const parse = (bytes: Uint8Array): Parsed => {
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    return malformed("NotUtf8", "a line is not UTF-8")
  }
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return malformed("NotJson", "a line is not JSON")
  }
  const envelope = decodeEnvelope(json, strict)
  if (Result.isFailure(envelope)) {
    const id = typeof json === "object" && json !== null ? Reflect.get(json, "id") as unknown : undefined
    const detail = "a line is no JSON-RPC 2.0 request: an object with jsonrpc, id, method and params"
    return malformed("NotRequest", detail, Option.getOrNull(decodeId(id)))
  }
  const { id, method, params } = envelope.success
  const decode = Object.hasOwn(decoders, method) ? decoders[method] : undefined
  if (decode === undefined) return { id, error: new Protocol.UnknownMethod({ method: method.slice(0, 64) }) }
  const decoded = decode(params ?? {}, strict)
  return Result.isFailure(decoded)
    ? { id, error: problemOf(decoded.failure.issue) }
    : { id, call: { method, params: decoded.success } as Protocol.Call }
}

/** A plan of the protocol as one of the library. */
const planOf = ({ cap, steps }: Protocol.Plan): ShutdownPlan.ShutdownPlan =>
  ShutdownPlan.make(steps.map(ShutdownPlan.named), { cap })

const commandOf = (spawn: Protocol.Spawn): ChildProcess.StandardCommand => {
  const { args = [], command, cwd, env = {}, inheritEnv = true, shell, stderr, stdin, stdout } = spawn
  return ChildProcess.make(command, args.map((arg) => Redacted.make(arg)), {
    ...cwd !== undefined && { cwd },
    ...shell !== undefined && { shell },
    env: Object.fromEntries(
      Object.entries(env).map(([name, value]) => [name, value === null ? undefined : Redacted.make(value)])
    ),
    extendEnv: inheritEnv,
    stdin: stdin ?? "ignore",
    stdout: stdout ?? "pipe",
    stderr: stderr ?? "pipe"
  })
}

/** The stricter of two requirements. */
const stricter = (
  one: Containment.Level | undefined,
  other: Containment.Level | undefined
): Containment.Level | undefined =>
  one === undefined || (other !== undefined && Containment.atLeast(other, one)) ? other : one

class Session {
  private readonly platform: ProcessPlatform["Service"]
  private readonly wire: Wire
  private readonly options: Options
  /** Of all trees; it closes them side by side. */
  private readonly trees: Scope.Closeable
  /** What is told of the processes. */
  private readonly lives: FiberSet.FiberSet<unknown, unknown>
  private readonly requests: FiberSet.FiberSet<unknown, unknown>
  private readonly entries = new Map<number, Entry>()
  private readonly waiting: Waiting
  private greeted = false
  private last = 0
  private starting = 0
  private open = 0
  /** Lines that the client, or its pipe, has taken. */
  private taken = 0
  private ending = false

  constructor(fields: {
    readonly platform: ProcessPlatform["Service"]
    readonly wire: Wire
    readonly options: Options
    readonly trees: Scope.Closeable
    readonly lives: FiberSet.FiberSet<unknown, unknown>
    readonly requests: FiberSet.FiberSet<unknown, unknown>
  }) {
    this.platform = fields.platform
    this.wire = fields.wire
    this.options = fields.options
    this.waiting = { bytes: 0, most: fields.options.limits.input }
    this.trees = fields.trees
    this.lives = fields.lives
    this.requests = fields.requests
  }

  private send(line: string): Effect.Effect<void> {
    return Effect.tap(this.wire.send(line), () => {
      this.taken++
      return Effect.void
    })
  }

  private tellEvent(method: Protocol.EventName, params: object): Effect.Effect<void> {
    return this.send(line({ jsonrpc: "2.0", method, params }))
  }

  /** A process by its number; undefined for one that has told its last event. */
  private find(process: number): Effect.Effect<Entry | undefined, Protocol.UnknownProcess> {
    return process < 1 || process > this.last
      ? Effect.fail(new Protocol.UnknownProcess({ process }))
      : Effect.succeed(this.entries.get(process))
  }

  private credit(
    process: number,
    stream: Protocol.OutputName,
    use: (credit: Credit) => void
  ): Effect.Effect<object, Protocol.UnknownProcess> {
    return Effect.map(this.find(process), (entry) => {
      const credit = entry?.credits.get(stream)
      if (credit !== undefined) use(credit)
      return {}
    })
  }

  private get hello(): Effect.Effect<Protocol.Welcome> {
    return Effect.map(this.platform.containment, ({ highest, level, platform }) => ({
      protocol: Protocol.protocol,
      version: this.options.version,
      pid: this.options.pid,
      platform,
      level,
      highest,
      limits: this.options.limits
    }))
  }

  /** Launches in a scope of its own; the number is given when it runs. */
  private spawn(spawn: Protocol.Spawn) {
    return Effect.gen({ self: this }, function*() {
      const most = this.options.limits.processes
      if (this.entries.size + this.starting >= most) {
        return yield* new Protocol.LimitReached({ limit: "processes", most })
      }
      const { credit, shutdown, whenLeaderEnds } = spawn
      const { bytes, whenFull } = spawn.output ?? Protocol.defaultOutput
      this.starting++
      const scope = yield* Scope.fork(this.trees)
      const tree = yield* this.platform.launch(commandOf(spawn), {
        require: stricter(this.options.require, spawn.require),
        limits: spawn.limits,
        shutdown: shutdown === undefined ? this.options.plan : planOf(shutdown),
        output: whenFull === "hold" ? OutputPolicy.backpressure(bytes) : OutputPolicy.ring(bytes),
        whenLeaderEnds
      }).pipe(
        Scope.provide(scope),
        Effect.onExit((exit) => {
          this.starting--
          return Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void
        })
      )
      const process = ++this.last
      const entry: Entry = {
        tree,
        credits: new Map(
          (["stdout", "stderr"] as const)
            .filter((name) => (spawn[name] ?? "pipe") === "pipe")
            .map((name) => [name, new Credit(credit?.[name] ?? 0)])
        ),
        input: spawn.stdin === "pipe" ? new SidecarInput(process, this.waiting) : undefined,
        gaveUp: Deferred.makeUnsafe()
      }
      this.entries.set(process, entry)
      if (this.ending) { for (const credit of entry.credits.values()) credit.finish() }
      const spawned: Protocol.Spawned = { process, pid: tree.pid, level: tree.level }
      return { spawned, begin: this.live(process, entry, scope) }
    })
  }

  /** Tells what becomes of a process, and forgets it. */
  private live(process: number, entry: Entry, scope: Scope.Closeable): Effect.Effect<void> {
    const { credits, gaveUp, input, tree } = entry
    const tellOutput = (name: Protocol.OutputName, output: Output, credit: Credit) =>
      tell(output, credit, {
        // Written by hand: this is what a sidecar does most.
        output: (offset, lost, bytes) =>
          this.send(
            `{"jsonrpc":"2.0","method":"output","params":{"process":${process},"stream":"${name}","offset":${offset},${
              lost === 0 ? "" : `"lost":${lost},`
            }"data":"${
              Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length).toString("base64")
            }"}}\n`
          ),
        end: (bytes, lost) => this.tellEvent("end", { process, stream: name, bytes, lost })
      }, this.options.limits.chunk)
    const outputs = Effect.forEach(credits, ([name, credit]) => tellOutput(name, tree[name], credit), {
      concurrency: "unbounded",
      discard: true
    })
    const drained = Effect.andThen(
      outputs,
      Effect.flatMap(tree.drained, (drained) => this.tellEvent("drained", { process, ...drained }))
    )
    const tellExited = Effect.flatMap(tree.exited, (status) => this.tellEvent("exited", { process, status }))
    // The tree is looked at from the leader's end on, so that waiting for it costs nothing before.
    const ended = Effect.gen({ self: this }, function*() {
      const left = yield* Effect.raceFirst(Effect.as(tree.exited, undefined), Deferred.await(gaveUp))
      if (left === undefined) yield* tellExited
      const survivors = left ?? (yield* Effect.raceFirst(tree.empty, Deferred.await(gaveUp)))
      if (survivors.length > 0) yield* Deferred.succeed(gaveUp, survivors)
      yield* this.tellEvent("empty", { process, survivors })
      if (left !== undefined) yield* tellExited
    })
    return Effect.gen({ self: this }, function*() {
      if (input !== undefined) yield* Effect.forkScoped(input.run(tree.stdin), { startImmediately: true })
      yield* Effect.all([ended, drained], { concurrency: 2, discard: true })
      yield* Scope.close(scope, Exit.void)
      // What could not be ended is known for as long as the session lasts.
      if (!Deferred.isDoneUnsafe(gaveUp)) this.entries.delete(process)
    }).pipe(Effect.scoped, Effect.catchCause(this.options.onDefect))
  }

  private end(entry: Entry, plan?: ShutdownPlan.ShutdownPlan): Effect.Effect<ReadonlyArray<ProcessInfo>, InvalidSpec> {
    return Effect.tap(
      entry.tree.shutdown(plan),
      (survivors) => survivors.length === 0 ? Effect.void : Deferred.succeed(entry.gaveUp, survivors)
    )
  }

  private cancel(process: number, plan: Protocol.Plan | undefined) {
    return Effect.gen({ self: this }, function*() {
      const entry = yield* this.find(process)
      if (entry === undefined) return {}
      const survivors = yield* this.end(entry, plan === undefined ? undefined : planOf(plan))
      if (survivors.length > 0) return yield* new Unkillable({ command: entry.tree.command, survivors })
      return {}
    })
  }

  private write({ data = "", end = false, process }: typeof Protocol.Write.Type) {
    return Effect.gen({ self: this }, function*() {
      const entry = yield* this.find(process)
      if (entry === undefined) return yield* new Protocol.InputClosed({ process, reason: "Gone" })
      if (entry.input === undefined) return yield* new Protocol.InputClosed({ process, reason: "NoPipe" })
      yield* entry.input.write(Buffer.from(data, "base64"), end)
      return {}
    })
  }

  private sendSignal({ process, signal, target }: typeof Protocol.SendSignal.Type) {
    return Effect.flatMap(this.find(process), (entry): Effect.Effect<Protocol.Signalled> =>
      entry === undefined
        ? Effect.succeed({ delivered: 0, denied: [] })
        : entry.tree.signal(signal, target))
  }

  /** Does what is asked; an answer, or a spawn whose events follow its answer. */
  private handle(call: Protocol.Call): Effect.Effect<object, Protocol.SidecarError> {
    switch (call.method) {
      case "hello":
        return this.hello
      case "spawn":
        return this.spawn(call.params)
      case "write":
        return this.write(call.params)
      case "credit": {
        const { bytes, process, stream } = call.params
        return this.credit(process, stream, (credit) => credit.grant(bytes))
      }
      case "discard": {
        const { process, stream } = call.params
        return this.credit(process, stream, (credit) => credit.discard())
      }
      case "signal":
        return this.sendSignal(call.params)
      case "cancel":
        return this.cancel(call.params.process, call.params.shutdown)
    }
  }

  private answer(id: Protocol.Id | undefined, call: Protocol.Call): Effect.Effect<void> {
    const send = (text: (id: Protocol.Id) => string) => id === undefined ? Effect.void : this.send(text(id))
    return Effect.matchCauseEffect(this.handle(call), {
      onSuccess: (result) => {
        if (!("begin" in result)) return send((id) => success(id, result))
        const { begin, spawned } = result as { readonly begin: Effect.Effect<void>; readonly spawned: object }
        return Effect.andThen(send((id) => success(id, spawned)), FiberSet.run(this.lives, begin))
      },
      onFailure: (cause) => {
        const error = Cause.findErrorOption(cause)
        if (Option.isSome(error)) return send((id) => failure(id, error.value))
        if (Cause.hasInterruptsOnly(cause)) return Effect.void
        const internal = new InternalError({ detail: "the sidecar has failed at this; its stderr says more" })
        return Effect.andThen(this.options.onDefect(cause), send((id) => failure(id, internal)))
      }
    })
  }

  /** One line; true when the session is over by it. What is answered at once is answered before the next line is read. */
  private receive(bytes: Uint8Array | undefined): Effect.Effect<boolean> {
    return Effect.gen({ self: this }, function*() {
      const { line, requests } = this.options.limits
      const parsed: Parsed = bytes === undefined
        ? { id: null, error: new Protocol.OversizedMessage({ limit: line }) }
        : parse(bytes)
      const refuse = (error: Protocol.SidecarError) =>
        parsed.id === undefined ? Effect.void : this.send(failure(parsed.id, error))
      if ("error" in parsed) yield* refuse(parsed.error)
      else if ((parsed.call.method === "hello") === this.greeted) {
        yield* refuse(new Protocol.UnexpectedMethod({ method: parsed.call.method }))
      } else if (parsed.call.method === "hello") {
        const client = parsed.call.params.protocol
        if (client !== Protocol.protocol) {
          yield* refuse(new VersionMismatch({ client, server: Protocol.protocol }))
          return true
        }
        this.greeted = true
        yield* this.answer(parsed.id, parsed.call)
      } else if (this.open >= requests) {
        yield* refuse(new Protocol.LimitReached({ limit: "requests", most: requests }))
      } else {
        this.open++
        const done = Effect.sync(() => {
          this.open--
        })
        yield* FiberSet.run(this.requests, Effect.ensuring(this.answer(parsed.id, parsed.call), done), {
          startImmediately: true
        })
      }
      return false
    })
  }

  /** Reads until the client closes its end, or is refused, or does not read what it is told. */
  private get listen(): Effect.Effect<Over["reason"]> {
    return Effect.gen({ self: this }, function*() {
      const lines = new SidecarLines(this.options.limits.line)
      while (true) {
        const chunk = yield* this.wire.read
        if (chunk === undefined) return "Closed"
        for (const bytes of lines.feed(chunk)) {
          const over = yield* Effect.timeoutOption(this.receive(bytes), patience)
          if (Option.isNone(over)) return "Stalled"
          if (over.value) return "Refused"
        }
      }
    })
  }

  /** Ends all trees, each by its own plan, and tells what there is to tell to a client that may still read. */
  private get finish(): Effect.Effect<ReadonlyArray<ProcessInfo>> {
    return Effect.gen({ self: this }, function*() {
      this.ending = true
      for (const { credits } of this.entries.values()) {
        for (const credit of credits.values()) credit.finish()
      }
      const kill = Effect.andThen(
        this.options.kill,
        Effect.suspend(() =>
          Effect.forEach(this.entries.values(), (entry) => Effect.ignore(this.end(entry, ShutdownPlan.kill)), {
            concurrency: "unbounded",
            discard: true
          })
        )
      )
      yield* Effect.forkScoped(kill)
      // These know what is left over; the scope ends also what is just being started.
      const ends = Effect.forEach(this.entries.values(), (entry) => Effect.ignore(this.end(entry)), {
        concurrency: "unbounded",
        discard: true
      })
      yield* Effect.all([ends, Scope.close(this.trees, Exit.void)], { concurrency: 2, discard: true })
      const told = Effect.andThen(FiberSet.awaitEmpty(this.requests), FiberSet.awaitEmpty(this.lives))
      const unread = Effect.gen({ self: this }, function*() {
        let seen: number
        do {
          seen = this.taken
          yield* Effect.sleep(lastWords)
        } while (this.taken > seen)
      })
      yield* Effect.raceFirst(told, unread)
      const left: Array<ProcessInfo> = []
      for (const { gaveUp } of this.entries.values()) {
        if (Deferred.isDoneUnsafe(gaveUp)) left.push(...yield* Deferred.await(gaveUp))
      }
      return left
    }).pipe(Effect.scoped)
  }

  get run(): Effect.Effect<Over> {
    return Effect.gen({ self: this }, function*() {
      const reason = yield* Effect.raceAllFirst([
        this.listen,
        Effect.as(this.wire.gone, "Closed" as const),
        Effect.as(this.options.stop, "Stopped" as const)
      ])
      return { reason, left: yield* this.finish }
    })
  }
}

/** Serves one client to the end of the session. */
export const serve = (wire: Wire, options: Options): Effect.Effect<Over, never, ProcessPlatform> =>
  Effect.gen(function*() {
    const platform = yield* ProcessPlatform
    const lives = yield* FiberSet.make<unknown, unknown>()
    const requests = yield* FiberSet.make<unknown, unknown>()
    const trees = yield* Effect.acquireRelease(
      Scope.make("parallel"),
      (scope, exit) => Scope.close(scope, exit)
    )
    return yield* new Session({ platform, wire, options, trees, lives, requests }).run
  }).pipe(Effect.scoped)
