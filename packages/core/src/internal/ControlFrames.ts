/**
 * What a client may say on a control connection: lines of JSON, each one message of effect/rpc. Everything here is pure.
 *
 * Whoever can connect can say anything, so nothing goes on to the server of effect/rpc but messages that are built anew
 * from the parts that were checked.
 */
import * as Exit from "effect/Exit"
import type * as Rpc from "effect/rpc/Rpc"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import type { FromClientEncoded, RequestEncoded } from "effect/rpc/RpcMessage"
import * as Schema from "effect/Schema"
import { ControlDenied, VersionMismatch } from "../Errors.ts"
import * as Web from "./Web.ts"

export type RefusalReason = "Malformed" | "TooLarge" | "ForeignRequest"

/** Why nothing more is read. `id` is the request that it is about, where one could be seen. */
export interface Refusal {
  readonly _tag: "Refusal"
  readonly error: ControlDenied | VersionMismatch
  readonly id: string | number | undefined
  /** Whether it is a browser or something else that speaks HTTP. */
  readonly http: boolean
}

const refusal = (
  error: Refusal["error"],
  more: Partial<Pick<Refusal, "id" | "http">> = {}
): Refusal => ({ _tag: "Refusal", error, id: undefined, http: false, ...more })

const denied = (reason: RefusalReason, detail: string) => new ControlDenied({ reason, detail })

// ------------------------------------------------------------------------------------------------------- lines

const newline = 10
const brace = 123

/** How much of a first line decides what it is: no method of HTTP is longer. */
const peek = 24

/** Cuts what comes in into lines. */
export class Lines {
  private readonly limit: number
  private readonly decoder = Web.textDecoder()
  private parts: Array<Uint8Array> = []
  private bytes = 0

  /** `limit`: bytes of one line. */
  constructor(limit: number) {
    this.limit = limit
  }

  /** Whether a line has begun and not ended. */
  get open(): boolean {
    return this.bytes > 0
  }

  /** The lines that end in this chunk, and what is wrong with the one after them. */
  feed(chunk: Uint8Array): { readonly lines: ReadonlyArray<string>; readonly refusal: Refusal | undefined } {
    const lines: Array<string> = []
    let from = 0
    while (from < chunk.length) {
      const end = chunk.indexOf(newline, from)
      const part = chunk.subarray(from, end < 0 ? chunk.length : end)
      if (this.bytes + part.length > this.limit) return { lines, refusal: this.tooLarge() }
      if (part.length > 0) {
        this.parts.push(part)
        this.bytes += part.length
      }
      const foreign = this.foreign(end >= 0)
      if (foreign !== undefined) return { lines, refusal: foreign }
      if (end < 0) break
      const line = this.take()
      if (line !== "" && line !== "\r") lines.push(line)
      from = end + 1
    }
    // A peer that sends single bytes does not make thousands of parts.
    if (this.parts.length > 64) this.parts = [this.joined()]
    return { lines, refusal: undefined }
  }

  private take(): string {
    const text = this.bytes === 0 ? "" : this.decoder.decode(this.joined(), { stream: false })
    this.parts = []
    this.bytes = 0
    return text
  }

  private joined(): Uint8Array {
    if (this.parts.length === 1) return this.parts[0]!
    const all = new Uint8Array(this.bytes)
    let at = 0
    for (const part of this.parts) {
      all.set(part, at)
      at += part.length
    }
    return all
  }

  private tooLarge(): Refusal {
    return refusal(denied("TooLarge", `a frame has at most ${this.limit} bytes`))
  }

  /** A line that begins as none of ours does is judged as soon as it can be, not when it ends. */
  private foreign(ended: boolean): Refusal | undefined {
    const first = this.parts[0]?.[0]
    if (first === undefined || first === brace || (first === 13 && this.bytes === 1)) return undefined
    const text = this.decoder.decode(this.joined().subarray(0, peek), { stream: false })
    // RFC 9112, section 3: a method in capital letters and a space; "PRI * HTTP/2.0" begins HTTP/2.
    if (/^[A-Z]+ /.test(text)) {
      return refusal(denied("ForeignRequest", "control is not spoken over HTTP, and not from web pages"), {
        http: true
      })
    }
    if (!ended && this.bytes < peek && /^[A-Z]+$/.test(text)) return undefined
    return refusal(denied("Malformed", "a frame is a JSON object on one line"))
  }
}

// ---------------------------------------------------------------------------------------------------- messages

/** Deeper than any message of ours; what recurses over values must not meet a million brackets. */
const deepest = 32

/** Whether a value is nested deeper than is allowed; does not recurse. */
const isDeep = (value: unknown): boolean => {
  let level: Array<unknown> = [value]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > deepest) return true
    level = level.flatMap((item) => typeof item === "object" && item !== null ? Object.values(item) : [])
  }
  return false
}

const isId = (id: unknown): id is string | number =>
  typeof id === "number" ? Number.isSafeInteger(id) : typeof id === "string" && id !== "" && id.length <= 64

/** The last value of a header, by its name in lower case. */
const headerOf = (headers: unknown, name: string): string | undefined => {
  if (!Array.isArray(headers)) return undefined
  for (const pair of headers.toReversed() as Array<unknown>) {
    if (!Array.isArray(pair) || pair.length !== 2) continue
    const [key, value] = pair as [unknown, unknown]
    if (typeof key === "string" && key.toLowerCase() === name && typeof value === "string") return value
  }
  return undefined
}

/** What the messages of one group look like. */
export interface Rules {
  readonly version: number
  readonly versionHeader: string
  /** Names of headers, in lower case; others are left out. */
  readonly headers: ReadonlyArray<string>
  /** For each call whether this is a payload of it. */
  readonly payloads: ReadonlyMap<string, (payload: unknown) => boolean>
}

export const rulesOf = <Rpcs extends Rpc.Any>(
  group: RpcGroup.RpcGroup<Rpcs>,
  options: Pick<Rules, "version" | "versionHeader" | "headers">
): Rules => ({
  ...options,
  payloads: new Map(
    [...group.requests].map(([tag, rpc]) => {
      const schema = (rpc as unknown as Rpc.AnyWithProps).payloadSchema as Schema.Codec<unknown>
      const decode = Schema.decodeUnknownExit(Schema.toCodecJson(schema))
      return [tag, (payload: unknown) => Exit.isSuccess(decode(payload))]
    })
  )
})

/** A message as it may go on to the server. */
export const parse = (line: string, rules: Rules): Exclude<FromClientEncoded, { readonly _tag: "Eof" }> | Refusal => {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return refusal(denied("Malformed", "a frame is not JSON"))
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return refusal(denied("Malformed", "a frame is a JSON object"))
  }
  if (isDeep(value)) return refusal(denied("Malformed", `a frame is nested deeper than ${deepest}`))
  const message = value as Readonly<Record<string, unknown>>
  const own = (key: string) => Object.hasOwn(message, key) ? message[key] : undefined
  switch (own("_tag")) {
    case "Ping":
      return { _tag: "Ping" }
    case "Ack":
    case "Interrupt": {
      const requestId = own("requestId")
      return isId(requestId)
        ? { _tag: own("_tag") as "Ack" | "Interrupt", requestId }
        : refusal(denied("Malformed", "requestId is an integer or a short text"))
    }
    case "Request":
      return request(own, rules)
    default:
      return refusal(denied("Malformed", "_tag is none of Request, Ack, Interrupt and Ping"))
  }
}

const request = (own: (key: string) => unknown, rules: Rules): RequestEncoded | Refusal => {
  const id = own("id")
  if (!isId(id)) return refusal(denied("Malformed", "the id of a request is an integer or a short text"))
  const said = headerOf(own("headers"), rules.versionHeader)
  // One of another version may look different, and is told so instead.
  const malformed = (detail: string) =>
    refusal(versionProblem(said, rules.version) ?? denied("Malformed", detail), { id })
  const tag = own("tag")
  const isPayload = typeof tag === "string" ? rules.payloads.get(tag) : undefined
  if (isPayload === undefined) return malformed("there is no such call")
  const payload = own("payload") ?? null
  if (!isPayload(payload)) return malformed(`this is no payload of ${String(tag)}`)
  if (own("isNotification") !== undefined || own("discard") !== undefined) return malformed("every call has an answer")
  const headers = rules.headers.flatMap((name): Array<[string, string]> => {
    const value = headerOf(own("headers"), name)
    return value === undefined ? [] : [[name, value]]
  })
  return { _tag: "Request", id, tag: tag as string, payload, headers }
}

/** What is wrong with the version that a client says it speaks. */
export const versionProblem = (said: string | undefined, version: number): VersionMismatch | undefined => {
  if (said === String(version)) return undefined
  const client = said !== undefined && /^\d{1,9}$/.test(said) ? Number(said) : null
  return new VersionMismatch({ client, server: version })
}

// ----------------------------------------------------------------------------------------------------- answers

const encodeError = Schema.encodeSync(Schema.toCodecJson(Schema.Union([ControlDenied, VersionMismatch])))

/** What whoever is refused reads last: the answer to a request, a defect of the connection, or an answer of HTTP. */
export const encodeRefusal = ({ error, http, id }: Refusal): string => {
  const encoded = encodeError(error)
  if (http) {
    const body = JSON.stringify(encoded)
    return [
      "HTTP/1.1 403 Forbidden",
      "Content-Type: application/json",
      `Content-Length: ${Web.textEncoder().encode(body).length}`,
      "Connection: close",
      "",
      body
    ].join("\r\n")
  }
  const frame = id === undefined
    ? { _tag: "Defect", defect: encoded }
    : { _tag: "Exit", requestId: id, exit: { _tag: "Failure", cause: [{ _tag: "Fail", error: encoded }] } }
  return `${JSON.stringify(frame)}\n`
}

/** A refusal of a connection, or of one request. */
export const refuse = (error: Refusal["error"], id?: string | number): Refusal => refusal(error, { id })
