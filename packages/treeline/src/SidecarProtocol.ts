/**
 * What `treeline sidecar` and its client say to each other: JSON-RPC 2.0 (https://www.jsonrpc.org/specification), one
 * message in one line, the client's on stdin, the sidecar's on stdout. docs/sidecar.md tells it for people; the same
 * Schemas are published as schema/sidecar.schema.json.
 *
 * Output and input travel as base64: every byte sequence has one form, offsets count the bytes that a child wrote, and
 * a chunk may end in the middle of a character. Text would need a second form for what is no UTF-8, and six bytes for each
 * control character; base64 always takes a third more.
 *
 * Why this is not an `effect/rpc` server on `layerProtocolStdio` with `ndJsonRpc`: there a line that is no JSON fails
 * the parser, which drops the good lines of the same chunk, answers nothing and reads on after half a second; requests
 * run side by side, so two writes may change places; streams need acknowledgements of its own kind from the client, and
 * count chunks where credits count bytes; and what a Schema refuses comes back as a defect.
 */
import { Level } from "@treeline/core/Containment"
import { ContainmentUnavailable, InvalidSpec, LaunchError, Unkillable, VersionMismatch } from "@treeline/core/Errors"
import { ExitStatus } from "@treeline/core/ExitStatus"
import { ProcessInfo } from "@treeline/core/ProcessIdentity"
import { Signal as PersonSignal } from "@treeline/core/Signal"
import * as Schema from "effect/Schema"
import { InternalError } from "./internal/Failure.ts"

/** The version of this protocol. A client and a sidecar talk only when theirs are equal. */
export const protocol = 1

/** What one session may hold; a client learns it from `hello`. All but `processes` and `requests` are bytes. */
export const limits = {
  /** A line of the client; a longer one is refused, and the session goes on. */
  line: 4 * 1024 * 1024,
  /** Of a child's output in one message. */
  chunk: 64 * 1024,
  /** Processes that have not told their last event. */
  processes: 1000,
  /** Requests that are not answered. */
  requests: 1024,
  /** Input that children have not taken, of all processes together. */
  input: 16 * 1024 * 1024
}
export type Limits = Readonly<typeof limits>

/** The largest memory that one output of a child may be given. */
const mostOutput = 64 * 1024 * 1024

/** Output that waits for the client if `spawn` does not say how much may. */
export const defaultOutput = { whenFull: "hold", bytes: 256 * 1024 } as const

const expected = (what: string) => ({ expected: what, message: `expected ${what}` })

const about = <S extends Schema.Top>(schema: S, description: string) =>
  Schema.optionalKey(schema.annotate({ description }))

/** The signals that a client may send. */
export const Signal = Schema.Literals([...PersonSignal.literals, "SIGSTOP"])

const Target = Schema.Literals(["leader", "group", "tree"])

/** A timer ends at 2^31 ms. */
const expectedTime = expected("a number of ms from 0 to 24 days")
const Milliseconds = Schema.Finite.check(
  Schema.isBetween({ minimum: 0, maximum: 24 * 24 * 3_600_000 }, expectedTime)
).annotate(expectedTime)

const Bytes = (minimum: number, maximum: number) => {
  const what = expected(`a whole number of bytes from ${minimum} to ${maximum}`)
  return Schema.Int.check(Schema.isBetween({ minimum, maximum }, what)).annotate(what)
}

const Count = Bytes(0, Number.MAX_SAFE_INTEGER)

/** One class of characters and no groups: this is matched against megabytes. */
const Base64 = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9+/]*={0,2}$/u, expected("base64")),
  Schema.makeFilter((text) => text.length % 4 === 0, expected("base64, padded"))
).annotate({ ...expected("base64"), description: "Bytes in base64 (RFC 4648, section 4), padded" })

/** How a tree is ended: steps, then the kill of what still lives; see `ShutdownPlan` of the library. */
export const Plan = Schema.Struct({
  steps: Schema.Array(Schema.Struct({
    action: Schema.Literals([...Signal.literals, "closeStdin", "interrupt", "requestClose"]),
    target: about(Target, "Who gets a signal; the tree if left out"),
    within: about(Milliseconds, "ms until the next step, unless the tree has ended before; 5000 if left out")
  })),
  cap: about(Milliseconds, "ms that the kill may take before the tree is given up; 5000 if left out")
})
export type Plan = typeof Plan.Type

/** The first message of a client. */
export const Hello = Schema.Struct({
  protocol: Schema.Int,
  client: about(Schema.String, "The client's name and version; nothing depends on it")
})

/** Who answers, what it promises, and what it holds at most. */
export const Welcome = Schema.Struct({
  protocol: Schema.Int,
  version: Schema.String,
  pid: Schema.Int,
  platform: Schema.String,
  /** The containment of an ordinary spawn, and the highest that one can require. */
  level: Level,
  highest: Level,
  limits: Schema.Struct({
    line: Schema.Int,
    chunk: Schema.Int,
    processes: Schema.Int,
    requests: Schema.Int,
    input: Schema.Int
  })
})
export type Welcome = typeof Welcome.Type

const Pipe = Schema.Literals(["pipe", "ignore"])

/** A program to start. Only `command` is needed. */
export const Spawn = Schema.Struct({
  command: Schema.String.annotate({ description: "The program; with \"shell\" a line for the shell" }),
  args: about(Schema.Array(Schema.String), "Its arguments, as they are"),
  shell: about(Schema.Boolean, "Whether the command is a line for the shell"),
  cwd: about(Schema.String, "Its folder; the sidecar's if left out"),
  env: about(Schema.Record(Schema.String, Schema.NullOr(Schema.String)), "Variables; null takes one away"),
  inheritEnv: about(Schema.Boolean, "Whether it has the sidecar's own environment as well; true if left out"),
  stdin: about(Pipe, "A pipe for `write`, or nothing; \"ignore\" if left out"),
  stdout: about(Pipe, "A pipe, told as `output`, or nothing; \"pipe\" if left out"),
  stderr: about(
    Schema.Literals(["pipe", "ignore", "inherit"]),
    "As stdout, or \"inherit\": the sidecar's own stderr; \"pipe\" if left out"
  ),
  output: about(
    Schema.Struct({
      whenFull: Schema.Literals(["hold", "drop"]).annotate({
        description:
          "What happens when the client grants less than the child writes: hold the child, or drop the oldest"
      }),
      bytes: Bytes(1, mostOutput).annotate({ description: "What waits for the client at most, for each output" })
    }),
    "Output that waits for the client; {\"whenFull\": \"hold\", \"bytes\": 262144} if left out"
  ),
  credit: about(
    Schema.Struct({ stdout: Schema.optionalKey(Count), stderr: Schema.optionalKey(Count) }),
    "Bytes of output that the client takes from the start; 0 if left out"
  ),
  shutdown: about(Plan, "How its tree ends when nothing else is said; SIGTERM, the grace time, kill if left out"),
  whenLeaderEnds: about(
    Schema.Literals(["keep", "end", "endIfFailed"]),
    "What becomes of the rest of the tree when the program has ended; \"keep\" if left out"
  ),
  require: about(Level, "The containment without which nothing is started"),
  limits: about(
    Schema.Struct({
      memory: Schema.optionalKey(Schema.Finite),
      processes: Schema.optionalKey(Schema.Finite),
      cpu: Schema.optionalKey(Schema.Finite)
    }),
    "Upper bounds of the whole tree: bytes, processes, processors"
  )
})
export type Spawn = typeof Spawn.Type

/** The number of a process in this session: from 1 on, never given twice. */
const Process = Schema.Int.annotate(expected("the number of a process, as spawn has returned it"))

export const Spawned = Schema.Struct({
  process: Schema.Int,
  pid: Schema.Int,
  /** The containment that this tree has. */
  level: Level
})
export type Spawned = typeof Spawned.Type

/** The two outputs of a process. */
export const OutputName = Schema.Literals(["stdout", "stderr"])
export type OutputName = typeof OutputName.Type

/** Bytes for the standard input of a process, its end, or both. */
export const Write = Schema.Struct({
  process: Process,
  data: Schema.optionalKey(Base64),
  end: about(Schema.Boolean, "Closes the input after the data")
})

/** `bytes` more of an output may be told. */
export const Credit = Schema.Struct({ process: Process, stream: OutputName, bytes: Count })

/** The client wants no more of an output: what waits and what comes is dropped, and the child is never held. */
export const Discard = Schema.Struct({ process: Process, stream: OutputName })

/** A signal, and nothing else: no waiting, no SIGCONT. */
export const SendSignal = Schema.Struct({
  process: Process,
  signal: Signal,
  target: about(Target, "The group if left out")
})

/** How many deliveries the system accepted, and who may not be signalled. */
export const Signalled = Schema.Struct({ delivered: Schema.Int, denied: Schema.Array(ProcessInfo) })
export type Signalled = typeof Signalled.Type

/** Ends the tree by this plan, or by that of its spawn. */
export const Cancel = Schema.Struct({ process: Process, shutdown: Schema.optionalKey(Plan) })

/** Nothing is to be told. */
export const Done = Schema.Struct({})

/** What a client may ask: what it has to say, and what it is answered. */
export const methods = {
  hello: { params: Hello, result: Welcome },
  spawn: { params: Spawn, result: Spawned },
  write: { params: Write, result: Done },
  credit: { params: Credit, result: Done },
  discard: { params: Discard, result: Done },
  signal: { params: SendSignal, result: Signalled },
  cancel: { params: Cancel, result: Done }
} as const
export type Method = keyof typeof methods

/** A method with its parameters, decoded. */
export type Call = {
  [M in Method]: { readonly method: M; readonly params: (typeof methods)[M]["params"]["Type"] }
}[Method]

/** Which request an answer belongs to. */
export const Id = Schema.Union([
  Schema.String.check(Schema.isMaxLength(128)),
  Schema.Int
]).annotate(expected("a whole number, or a string of at most 128 characters"))
export type Id = typeof Id.Type

const version = { jsonrpc: Schema.Literal("2.0") }

/** A request; without an id it is a notification and gets no answer. */
export const Request = Schema.Union(
  Object.entries(methods).map(([name, { params }]) =>
    Schema.Struct({
      ...version,
      id: Schema.optionalKey(Id),
      method: Schema.Literal(name as Method),
      params
    }).annotate({ identifier: `${name}Request` })
  )
)

/** Any request, before its parameters are looked at. */
export const Envelope = Schema.Struct({
  ...version,
  id: Schema.optionalKey(Id),
  method: Schema.String,
  params: Schema.optionalKey(Schema.Unknown)
})

/** A line is no message of this protocol. The session goes on. */
export class MalformedMessage extends Schema.TaggedError<MalformedMessage>()("MalformedMessage", {
  reason: Schema.Literals(["NotUtf8", "NotJson", "NotRequest"]),
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** A line has more than `limit` bytes. It was dropped up to its end, and the session goes on. */
export class OversizedMessage extends Schema.TaggedError<OversizedMessage>()("OversizedMessage", {
  limit: Schema.Int
}) {
  override get message(): string {
    return `a line has more than ${this.limit} bytes; it was dropped`
  }
}

/** There is no such method. */
export class UnknownMethod extends Schema.TaggedError<UnknownMethod>()("UnknownMethod", {
  method: Schema.String
}) {
  override get message(): string {
    return `there is no method ${this.method}; there are ${Object.keys(methods).join(", ")}`
  }
}

/** A request came before `hello`, or a second `hello`. */
export class UnexpectedMethod extends Schema.TaggedError<UnexpectedMethod>()("UnexpectedMethod", {
  method: Schema.String
}) {
  override get message(): string {
    return this.method === "hello"
      ? "hello was said before"
      : "the first request must be hello, with the protocol version"
  }
}

/** No process of this session has had this number. One that has ended is not unknown. */
export class UnknownProcess extends Schema.TaggedError<UnknownProcess>()("UnknownProcess", {
  process: Schema.Int
}) {
  override get message(): string {
    return `there is no process ${this.process} in this session`
  }
}

/**
 * Bytes could not be written. `NoPipe`: the process was started without an input. `Closed`: the client has closed it
 * before. `Gone`: the process has ended or has closed it.
 */
export class InputClosed extends Schema.TaggedError<InputClosed>()("InputClosed", {
  process: Schema.Int,
  reason: Schema.Literals(["NoPipe", "Closed", "Gone"])
}) {
  override get message(): string {
    const why = { NoPipe: "it has none", Closed: "it was closed before", Gone: "nobody reads it any more" }[this.reason]
    return `process ${this.process} takes no input: ${why}`
  }
}

/** The session holds as much as it may. Nothing was done; less at a time will go. */
export class LimitReached extends Schema.TaggedError<LimitReached>()("LimitReached", {
  limit: Schema.Literals(["processes", "requests", "input"]),
  most: Schema.Int
}) {
  override get message(): string {
    const what = { processes: "processes", requests: "requests without an answer", input: "bytes of input that wait" }
    return `there are ${this.most} ${what[this.limit]} already`
  }
}

/** Everything that an answer may say went wrong. */
export const SidecarError = Schema.Union([
  MalformedMessage,
  OversizedMessage,
  UnknownMethod,
  UnexpectedMethod,
  VersionMismatch,
  InvalidSpec,
  LaunchError,
  ContainmentUnavailable,
  Unkillable,
  UnknownProcess,
  InputClosed,
  LimitReached,
  InternalError
])
export type SidecarError = typeof SidecarError.Type

const codes: Readonly<Record<SidecarError["_tag"], number>> = {
  MalformedMessage: -32700,
  OversizedMessage: -32600,
  UnknownMethod: -32601,
  InvalidSpec: -32602,
  InternalError: -32603,
  UnexpectedMethod: -32000,
  VersionMismatch: -32001,
  LaunchError: -32002,
  ContainmentUnavailable: -32003,
  Unkillable: -32004,
  UnknownProcess: -32005,
  InputClosed: -32006,
  LimitReached: -32007
}

/** The number of an error: those of JSON-RPC 2.0, section 5.1, and those that it leaves to servers. */
export const codeOf = (error: SidecarError): number =>
  error._tag === "MalformedMessage" && error.reason === "NotRequest" ? -32600 : codes[error._tag]

/** A request was done. */
export const Success = Schema.Struct({
  ...version,
  id: Id,
  result: Schema.Union([Welcome, Spawned, Signalled, Done])
})

/** A request was not done, or a line was none; then the id is null. */
export const Failure = Schema.Struct({
  ...version,
  id: Schema.NullOr(Id),
  error: Schema.Struct({ code: Schema.Int, message: Schema.String, data: SidecarError })
})

const event = <const Name extends string, Fields extends Schema.Struct.Fields>(method: Name, fields: Fields) =>
  Schema.Struct({
    ...version,
    method: Schema.Literal(method),
    params: Schema.Struct({ process: Schema.Int, ...fields })
  }).annotate({ identifier: `${method}Event` })

/**
 * What the sidecar tells unasked, each of a process:
 *
 * - `output`: bytes of an output from `offset` on; `lost` bytes right before them were dropped.
 * - `end`: nothing more comes of this output; `bytes` were read in all, `lost` of them dropped since the last `output`.
 * - `exited`: the program has ended. Told at once, whoever still holds its pipes.
 * - `empty`: no process of its tree lives; or the kill gave up, and `survivors` live.
 * - `drained`: its outputs were read and told, so this comes after both `end`; `truncated` when somebody still holds one.
 */
export const Event = Schema.Union([
  event("output", {
    stream: OutputName,
    offset: Schema.Int,
    lost: Schema.optionalKey(Schema.Int),
    data: Base64
  }),
  event("end", { stream: OutputName, bytes: Schema.Int, lost: Schema.Int }),
  event("exited", { status: ExitStatus }),
  event("empty", { survivors: Schema.Array(ProcessInfo) }),
  event("drained", { bytes: Schema.Int, truncated: Schema.Boolean })
])
export type Event = typeof Event.Type
export type EventName = Event["method"]

/** Every message of a sidecar. */
export const ServerMessage = Schema.Union([Success, Failure, Event])
export type ServerMessage = typeof ServerMessage.Type

/** The exit code after another version of the protocol was asked for. */
export const refusedExitCode = 3
