/** What a client may say on a control connection, and what it is told when it says something else. Pure. */
import { assert, describe, it } from "@effect/vitest"
import { Control } from "@treeline/core/daemon"
import * as fc from "fast-check"
import * as ControlFrames from "../../packages/core/src/internal/ControlFrames.ts"

const rules = ControlFrames.rulesOf(Control.Control, {
  version: Control.protocol,
  versionHeader: Control.versionHeader,
  headers: [Control.versionHeader, Control.tokenHeader]
})

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

const headers = [[Control.versionHeader, String(Control.protocol)]]

const request = (fields: Readonly<Record<string, unknown>> = {}) => ({
  _tag: "Request",
  id: 1,
  tag: "Stop",
  payload: { names: ["web"] },
  headers,
  ...fields
})

/** What becomes of a frame: the message, or the reason of the refusal. */
const outcome = (frame: unknown) => {
  const parsed = ControlFrames.parse(typeof frame === "string" ? frame : JSON.stringify(frame), rules)
  if (parsed._tag !== "Refusal") return parsed
  return parsed.error._tag === "ControlDenied" ? parsed.error.reason : parsed.error._tag
}

/** All lines and the refusal of what comes in these chunks. */
const feed = (chunks: ReadonlyArray<Uint8Array>, limit = 1000) => {
  const lines = new ControlFrames.Lines(limit)
  const complete: Array<string> = []
  for (const chunk of chunks) {
    const fed = lines.feed(chunk)
    complete.push(...fed.lines)
    if (fed.refusal !== undefined) {
      const { error, http } = fed.refusal
      return { complete, http, reason: error._tag === "ControlDenied" ? error.reason : error._tag }
    }
  }
  return { complete, open: lines.open }
}

describe("the lines of a connection", () => {
  it("are the same however the bytes are cut", () => {
    fc.assert(fc.property(
      fc.array(fc.string({ unit: "grapheme" }).map((text) => JSON.stringify({ text })), { maxLength: 8 }),
      fc.array(fc.nat(400), { maxLength: 20 }),
      (frames, cuts) => {
        const all = bytes(frames.map((frame) => `${frame}\n`).join(""))
        const at = [0, ...cuts.map((cut) => cut % (all.length + 1)).toSorted((a, b) => a - b), all.length]
        const chunks = at.slice(1).map((end, n) => all.subarray(at[n], end))
        assert.deepStrictEqual(feed(chunks, 1e6), { complete: frames, open: false })
      }
    ))
  })

  it("have a limit, exact to the byte, whether or not they end", () => {
    const frame = (length: number) => bytes(`{${"x".repeat(length - 1)}`)
    assert.deepStrictEqual(feed([frame(1000)]), { complete: [], open: true })
    assert.strictEqual(feed([frame(1001)]).reason, "TooLarge")
    assert.strictEqual(feed([...frame(1001)].map((byte) => Uint8Array.of(byte))).reason, "TooLarge")
    assert.strictEqual(feed([bytes(`{}\n{${"x".repeat(1000)}}\n`)]).reason, "TooLarge")
    assert.deepStrictEqual(feed([bytes(`{}\r\n\n\r\n{"a":1}\n`)]).complete.map((line) => line.trim()), [
      "{}",
      "{\"a\":1}"
    ])
  })

  it("that are HTTP are seen after a few bytes, in whatever pieces they come", () => {
    for (
      const text of [
        "GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n",
        "POST /rpc HTTP/1.1\r\nOrigin: http://evil.example\r\n\r\n{\"_tag\":\"Ping\"}\n",
        "OPTIONS * HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
      ]
    ) {
      for (const chunks of [[bytes(text)], [...bytes(text)].map((byte) => Uint8Array.of(byte))]) {
        assert.deepStrictEqual(feed(chunks), { complete: [], http: true, reason: "ForeignRequest" })
      }
    }
  })

  it("that are anything else are malformed at their first byte", () => {
    const tls = Uint8Array.of(0x16, 3, 1, 2, 0, 1)
    for (
      const chunk of [tls, bytes("[1]"), bytes("\"x"), bytes("1"), bytes("\u0000"), bytes("get / "), bytes("HELLO\n")]
    ) {
      const { http, reason } = feed([chunk])
      assert.deepStrictEqual([http, reason], [false, "Malformed"])
    }
    assert.strictEqual(feed([bytes("A".repeat(30))]).reason, "Malformed")
    assert.strictEqual(feed([bytes("{}\nGET / HTTP/1.1")]).http, true)
  })
})

describe("a message", () => {
  it("is built anew from what was checked", () => {
    const more = {
      extra: 1,
      traceId: "x",
      constructor: 1,
      headers: [...headers, ["X-Other", "1"], ["Authorization", "t"]]
    }
    assert.deepStrictEqual(outcome(request(more)), {
      _tag: "Request",
      id: 1,
      tag: "Stop",
      payload: { names: ["web"] },
      headers: [["treeline-protocol", "1"], ["authorization", "t"]]
    })
    assert.deepStrictEqual(outcome({ _tag: "Ping", requestId: {} }), { _tag: "Ping" })
    assert.deepStrictEqual(outcome({ _tag: "Ack", requestId: 3, x: 1 }), { _tag: "Ack", requestId: 3 })
    assert.deepStrictEqual(outcome({ _tag: "Interrupt", requestId: "a" }), { _tag: "Interrupt", requestId: "a" })
    assert.strictEqual((outcome(request({ tag: "Status", payload: undefined })) as { tag: string }).tag, "Status")
  })

  const malformed: Readonly<Record<string, unknown>> = {
    "no JSON": "{\"_tag\":",
    "null": null,
    "a number": 1,
    "an array": [request()],
    "an empty object": {},
    "_tag is a number": { _tag: 1 },
    "_tag is inherited": "{\"__proto__\":{\"_tag\":\"Ping\"}}",
    "an unknown _tag": { _tag: "Chunk", requestId: 1, values: [1] },
    "an end that nobody sends": { _tag: "Eof" },
    "no id": request({ id: undefined }),
    "an id that is an object": request({ id: {} }),
    "an id that is a fraction": request({ id: 1.5 }),
    "an id that is no safe integer": request({ id: 1e300 }),
    "an empty id": request({ id: "" }),
    "a long id": request({ id: "x".repeat(65) }),
    "an ack without an id": { _tag: "Ack" },
    "an interrupt of null": { _tag: "Interrupt", requestId: null },
    "an unknown call": request({ tag: "Erase" }),
    "a call named as a method of objects": request({ tag: "toString" }),
    "a call that is no text": request({ tag: ["Stop"] }),
    "no payload": request({ payload: undefined }),
    "a wrong payload": request({ payload: { names: "web" } }),
    "a payload with a wrong element": request({ payload: { names: [null] } }),
    "a signal that is none": request({ tag: "Signal", payload: { name: "web", signal: "rm -rf", target: "tree" } }),
    "a notification": request({ isNotification: true }),
    "an answer that is not wanted": request({ discard: true }),
    "a million brackets": `${"[".repeat(1e6)}${"]".repeat(1e6)}`,
    "a hundred thousand objects": `${"{\"a\":".repeat(1e5)}1${"}".repeat(1e5)}`,
    "what is nested too deep, where nobody asked for it": request({
      payload: { names: ["web"], more: JSON.parse(`${"[".repeat(100)}${"]".repeat(100)}`) as unknown }
    })
  }
  for (const [name, frame] of Object.entries(malformed)) {
    it(`peer 111: is refused: ${name}`, () => assert.strictEqual(outcome(frame), "Malformed"))
  }

  it("peer 111: of another version is told so, also when it looks different; one that can be read goes on to the gate", () => {
    for (const [said, client] of [["2", 2], ["x", null], [undefined, null], ["1e9", null]] as const) {
      const other = said === undefined ? [] : [[Control.versionHeader, said]]
      const parsed = ControlFrames.parse(JSON.stringify(request({ tag: "Erase", headers: other })), rules)
      assert(parsed._tag === "Refusal" && parsed.error._tag === "VersionMismatch")
      assert.deepStrictEqual([parsed.id, parsed.error.client, parsed.error.server], [1, client, Control.protocol])
      assert.strictEqual((outcome(request({ headers: other })) as { _tag: string })._tag, "Request")
    }
  })

  it("with headers that are none has none", () => {
    for (const headers of [undefined, null, 1, "x", {}, [1], [[]], [["a"]], [[1, 2]], [["treeline-protocol", 1]]]) {
      assert.deepStrictEqual((outcome(request({ headers })) as { headers: unknown }).headers, [])
    }
  })
})

describe("a refusal", () => {
  const refusalOf = (frame: unknown) => {
    const parsed = ControlFrames.parse(JSON.stringify(frame), rules)
    assert(parsed._tag === "Refusal")
    return ControlFrames.encodeRefusal(parsed)
  }

  it("is the answer to a request, where there is one, and else of the connection", () => {
    const denied = { _tag: "ControlDenied", reason: "Malformed", detail: "there is no such call" }
    assert.deepStrictEqual(JSON.parse(refusalOf(request({ tag: "Erase" }))), {
      _tag: "Exit",
      requestId: 1,
      exit: { _tag: "Failure", cause: [{ _tag: "Fail", error: denied }] }
    })
    assert.deepStrictEqual(JSON.parse(refusalOf({ _tag: "Eof" })), {
      _tag: "Defect",
      defect: { ...denied, detail: "_tag is none of Request, Ack, Interrupt and Ping" }
    })
  })

  it("of HTTP is an answer of HTTP that no page of another origin may read", () => {
    const { refusal } = new ControlFrames.Lines(1000).feed(bytes("GET / HTTP/1.1\r\n"))
    const [head, body] = ControlFrames.encodeRefusal(refusal!).split("\r\n\r\n")
    assert.match(
      head!,
      /^HTTP\/1\.1 403 Forbidden\r\nContent-Type: application\/json\r\nContent-Length: (\d+)\r\nConnection: close$/
    )
    assert.strictEqual(Number(/Length: (\d+)/.exec(head!)![1]), bytes(body!).length)
    assert.notInclude(head!.toLowerCase(), "access-control")
    assert.strictEqual((JSON.parse(body!) as { reason: string }).reason, "ForeignRequest")
  })
})
