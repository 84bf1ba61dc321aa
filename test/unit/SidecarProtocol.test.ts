/** The sidecar's protocol: its published JSON Schema, and that a line can be anything at all. */
import { assert, describe, it } from "@effect/vitest"
import { Ajv } from "ajv"
import * as fc from "fast-check"
import * as fs from "node:fs"
import * as path from "node:path"
import { SidecarProtocol } from "treeline"
import { SidecarLines } from "../../packages/treeline/src/internal/SidecarLines.ts"
import * as SidecarSession from "../../packages/treeline/src/internal/SidecarSession.ts"
import { file, render } from "../../tools/sidecar-schema.ts"

const text = fs.readFileSync(file, "utf8")
const validate = new Ajv({ strict: true, strictTypes: false, strictRequired: false }).compile(JSON.parse(text))

const bytes = (text: string) => new TextEncoder().encode(text)
const parse = (value: unknown) => SidecarSession.parse(bytes(JSON.stringify(value)))
const request = (method: string, params: unknown) => ({ jsonrpc: "2.0", id: 1, method, params })

/** A request of each kind that uses every field. */
const requests: ReadonlyArray<unknown> = [
  request("hello", { protocol: 1, client: "test" }),
  request("spawn", {
    command: "make",
    args: ["all"],
    shell: false,
    cwd: "/tmp",
    env: { A: "1", B: null },
    inheritEnv: false,
    stdin: "pipe",
    stdout: "ignore",
    stderr: "inherit",
    output: { whenFull: "drop", bytes: 1000 },
    credit: { stdout: 1, stderr: 0 },
    shutdown: { steps: [{ action: "closeStdin" }, { action: "SIGTERM", target: "leader", within: 0 }], cap: 1.5 },
    whenLeaderEnds: "endIfFailed",
    require: "group",
    limits: { memory: 1, processes: 1, cpu: 0.5 }
  }),
  request("write", { process: 1, data: "eA==", end: true }),
  request("credit", { process: 1, stream: "stderr", bytes: 0 }),
  request("discard", { process: 1, stream: "stdout" }),
  request("signal", { process: 1, signal: "SIGHUP", target: "tree" }),
  request("cancel", { process: 1, shutdown: { steps: [] } })
]

describe("packages/treeline/schema/sidecar.schema.json", () => {
  it("is what the Schemas give; else run `npm run sidecar-schema`", () => {
    assert.strictEqual(text, render())
  })

  it("accepts every request that the sidecar accepts, and a request of each method is among them", () => {
    for (const value of requests) {
      assert.isTrue(validate(value), JSON.stringify(validate.errors))
      assert.property(parse(value), "call", JSON.stringify(value))
    }
    const methods = requests.map((value) => (value as { readonly method: string }).method)
    assert.deepStrictEqual(methods, Object.keys(SidecarProtocol.methods))
  })

  it("refuses what the sidecar refuses", () => {
    for (
      const value of [
        request("spawn", {}),
        request("spawn", { command: "x", colour: "red" }),
        request("write", { process: 1, data: "no base64" }),
        request("cancel", { process: 1, shutdown: { steps: [{ action: "SIGTERM", within: -1 }] } }),
        request("signal", { process: 1, signal: "TERM" }),
        request("explode", {}),
        { ...request("cancel", { process: 1 }), extra: 1 },
        { ...request("cancel", { process: 1 }), id: {} },
        { ...request("cancel", { process: 1 }), jsonrpc: "1.0" }
      ]
    ) {
      assert.isFalse(validate(value), JSON.stringify(value))
      assert.property(parse(value), "error", JSON.stringify(value))
    }
  })

  it("accepts every example of docs/sidecar.md", () => {
    const page = fs.readFileSync(path.resolve(import.meta.dirname, "../../docs/sidecar.md"), "utf8")
    const lines = [...page.matchAll(/^```jsonl\n([^]*?)^```$/gm)].flatMap(([, block]) =>
      block!.trim().split("\n").map((line) => line.replace(/^[<>] /, ""))
    )
    assert.isAbove(lines.length, 10)
    for (const line of lines) assert.isTrue(validate(JSON.parse(line)), `${line}: ${JSON.stringify(validate.errors)}`)
  })
})

describe("a line of a client", () => {
  it("any bytes are answered, and never with a failure", () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array(), fc.json().map(bytes), fc.string().map(bytes)), (line) => {
        assert.property(SidecarSession.parse(line), "error")
      }),
      { numRuns: 500 }
    )
  })

  it("what is refused is not quoted, wherever it stands", () => {
    const secret = "s3cr3t"
    for (const value of requests) {
      const whole = value as { readonly params: Readonly<Record<string, unknown>>; readonly method: string }
      for (const field of [...Object.keys(whole.params), "unknown"]) {
        for (const wrong of [secret, [secret], { [field]: secret }, [{ action: secret }], { steps: secret }]) {
          const parsed = parse({ ...whole, params: { ...whole.params, [field]: wrong } })
          if (!("error" in parsed)) continue
          assert.notInclude(parsed.error.message + JSON.stringify(parsed.error), secret)
        }
      }
    }
  })

  it("lines are the same however the bytes are cut", () => {
    const lines = fc.array(fc.string({ maxLength: 12 }).map((text) => text.replaceAll(/[\r\n]/g, "")), { maxLength: 8 })
    fc.assert(
      fc.property(lines, fc.array(fc.nat(60)), fc.constantFrom("\n", "\r\n"), (lines, cuts, end) => {
        const all = bytes(lines.map((line) => line + end).join(""))
        const reader = new SidecarLines(16)
        const seen: Array<string> = []
        const places = [0, ...cuts.map((cut) => Math.min(cut, all.length)).toSorted((a, b) => a - b), all.length]
        for (const [index, from] of places.entries()) {
          for (const line of reader.feed(all.subarray(from, places[index + 1]))) {
            seen.push(line === undefined ? "too long" : new TextDecoder().decode(line))
          }
        }
        const size = (line: string) => bytes(line).length + end.length - 1
        const expected = lines.filter((line) => line !== "").map((line) => size(line) > 16 ? "too long" : line)
        assert.deepStrictEqual(seen, expected)
      })
    )
  })
})
