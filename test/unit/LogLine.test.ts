/** How bytes become the lines of a log. */
import { assert, describe, it } from "@effect/vitest"
import { LogLine } from "@treeline/core/daemon"
import { Redacted, Result } from "effect"
import * as fc from "fast-check"

const encoder = new TextEncoder()

const rulesOf = (options?: LogLine.Options): LogLine.Rules => Result.getOrThrow(LogLine.validate(options))

/** The lines of `bytes`, cut after each of `cuts`. */
const split = (rules: LogLine.Rules, bytes: Uint8Array, cuts: ReadonlyArray<number> = []): ReadonlyArray<string> => {
  const splitter = new LogLine.Splitter(rules)
  const lines: Array<string> = []
  let from = 0
  for (const cut of [...cuts].sort((a, b) => a - b).concat(bytes.length)) {
    // A copy that is overwritten afterwards, as a buffer that is used again is.
    const chunk = bytes.slice(from, Math.max(from, cut))
    lines.push(...splitter.feed(chunk))
    chunk.fill(0x21)
    from = Math.max(from, cut)
  }
  return [...lines, ...splitter.end()]
}

const linesOf = (text: string, options?: LogLine.Options) => split(rulesOf(options), encoder.encode(text))

describe("lines", () => {
  it("end with LF or CRLF; empty ones count; the last comes without a newline", () => {
    assert.deepStrictEqual(linesOf("a\r\n\nb\rc\n\r\nlast"), ["a", "", "b\rc", "", "last"])
    assert.deepStrictEqual(linesOf(""), [])
    assert.deepStrictEqual(linesOf("\n"), [""])
  })

  it("are whole whatever the chunks are: 500 random texts, each cut at random places", () => {
    const text = fc.array(
      fc.oneof(
        fc.constantFrom(
          "\n",
          "\r\n",
          "\r",
          "ü",
          "€",
          "🎈",
          "\u001b[31m",
          "\u001b[0m",
          "hunter2",
          "token=abc ",
          "\ufeff"
        ),
        fc.string({ maxLength: 12 })
      ),
      { maxLength: 40 }
    ).map((parts) => parts.join(""))
    const bytes = fc.oneof(text.map((text) => encoder.encode(text)), fc.uint8Array({ maxLength: 200 }))
    fc.assert(
      fc.property(
        bytes,
        fc.array(fc.nat(400), { maxLength: 12 }),
        fc.integer({ min: 1, max: 60 }),
        (bytes, cuts, max) => {
          const rules = rulesOf({ maxLine: max, redact: ["hunter2", /token=\w+/] })
          const whole = split(rules, bytes)
          assert.deepStrictEqual(split(rules, bytes, cuts), whole)
          assert.deepStrictEqual(split(rules, bytes, Array.from(bytes.keys())), whole)
        }
      ),
      { numRuns: 300 }
    )
  })

  it("are those that splitting the text gives, where none is too long", () => {
    fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 200 }), fc.array(fc.nat(400)), (text, cuts) => {
      const bytes = encoder.encode(text)
      const parts = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes).split("\n")
      const last = parts.pop() ?? ""
      const expected = [...parts, ...(last === "" ? [] : [last])].map((line) => line.replace(/\r$/, ""))
      assert.deepStrictEqual(split(rulesOf({ colours: "keep" }), bytes, cuts), expected)
    }))
  })

  it("are bounded: of a long line the beginning comes at once, then nothing up to the newline", () => {
    const splitter = new LogLine.Splitter(rulesOf({ maxLine: 10 }))
    const cut = `aaaaaaaaaa${LogLine.cutMark}`
    const chunk = encoder.encode("a".repeat(5000))
    assert.deepStrictEqual(splitter.feed(chunk), [cut])
    for (let n = 0; n < 100; n++) assert.deepStrictEqual(splitter.feed(chunk), [])
    assert.strictEqual(splitter.held, 0)
    assert.strictEqual(splitter.leftOut, 101 * 5000 - 10)
    assert.deepStrictEqual(splitter.feed(encoder.encode("a\nb\n")), ["b"])
  })

  it("a line of exactly the longest length is whole, with LF, CRLF and without", () => {
    for (const end of ["\n", "\r\n", ""]) {
      assert.deepStrictEqual(linesOf(`0123456789${end}`, { maxLine: 10 }), ["0123456789"])
      assert.deepStrictEqual(linesOf(`0123456789a${end}`, { maxLine: 10 }), [`0123456789${LogLine.cutMark}`])
    }
  })

  it("a long line is not cut inside a character", () => {
    assert.deepStrictEqual(linesOf("aé€🎈", { maxLine: 9 }), [`aé€${LogLine.cutMark}`])
    assert.deepStrictEqual(linesOf("aé€🎈", { maxLine: 10 }), ["aé€🎈"])
    assert.deepStrictEqual(linesOf("aé€", { maxLine: 2 }), [`a${LogLine.cutMark}`])
  })

  it("hold what they have to, however small the pieces are", () => {
    const splitter = new LogLine.Splitter(rulesOf())
    for (let n = 0; n < 60_000; n++) splitter.feed(encoder.encode("x"))
    assert.strictEqual(splitter.held, 60_000)
    assert.deepStrictEqual(splitter.feed(encoder.encode("\n")), ["x".repeat(60_000)])
  })
})

describe("other rules", () => {
  it("hold for the line that ends next, however long it is already", () => {
    const splitter = new LogLine.Splitter(rulesOf({ maxLine: 100_000, redact: ["a-very-long-secret".repeat(1000)] }))
    assert.deepStrictEqual(splitter.feed(encoder.encode(`hunter2 ${"x".repeat(50_000)}`)), [])
    splitter.rules = rulesOf({ maxLine: 20, redact: ["hunter2"] })
    assert.deepStrictEqual(splitter.feed(encoder.encode("y")), [])
    const [line, ...more] = splitter.feed(encoder.encode("yy\nhunter2\n"))
    assert.deepStrictEqual(more, ["<redacted>"])
    assert.strictEqual(line, `<redacted> ${"x".repeat(12)}${LogLine.cutMark}`)
    assert.strictEqual(splitter.held, 0)
  })
})

describe("colours", () => {
  it("are stripped with all other commands to a terminal, or kept", () => {
    const text =
      "\u001b[1;31mred\u001b[0m \u001b]8;;https://example.org\u0007link\u001b]8;;\u001b\\ \u001b[2K\u001b(Bend \u009b32mgreen"
    assert.deepStrictEqual(linesOf(text), ["red link end green"])
    assert.deepStrictEqual(linesOf(text, { colours: "keep" }), [text])
  })
})

describe("redaction", () => {
  it("replaces texts, secrets and what an expression matches", () => {
    const redact: ReadonlyArray<LogLine.Rule> = [
      Redacted.make("s3cr$t.*"),
      "hunter2",
      /password=\S+/i,
      { match: /(bearer )(?<token>\w+)/gi, replacement: "$1$$<$&>".slice(0, 4) + "[$1]" },
      { match: "pin 1234", replacement: "pin $1" }
    ]
    assert.deepStrictEqual(
      linesOf("s3cr$t.* hunter2 hunter2 Password=x\nBearer abc bearer def\npin 1234", { redact }),
      ["<redacted> <redacted> <redacted> <redacted>", "Bearer $[Bearer ] bearer $[bearer ]", "pin $1"]
    )
  })

  it("finds a secret that is cut by chunks, anywhere", () => {
    const rules = rulesOf({ redact: ["hunter2", /key-\d+/] })
    const bytes = encoder.encode("a hunter2 b key-123 c\n")
    for (const cut of bytes.keys()) {
      assert.deepStrictEqual(split(rules, bytes, [cut]), ["a <redacted> b <redacted> c"])
    }
  })

  it("finds a secret where the line is cut: no part of it is left", () => {
    const rules = rulesOf({ maxLine: 20, redact: ["hunter2", /key-\d+/] })
    for (let before = 0; before < 30; before++) {
      for (const secret of ["hunter2", "key-1234567"]) {
        const [line] = split(rules, encoder.encode(`${".".repeat(before)}${secret} ${"z".repeat(50)}`))
        const kept = line!.replace(LogLine.cutMark, "")
        assert.match(kept, /^\.*(<redacted>)?( z*)?$/, `${before} ${secret}: ${line}`)
        assert.strictEqual(kept.includes("<redacted>"), before < 20, `${before} ${secret}: ${line}`)
      }
    }
  })

  it("takes the longer of two secrets that begin alike, and the lines of a secret of several", () => {
    assert.deepStrictEqual(linesOf("abc abcdef", { redact: ["abc", "abcdef"] }), ["<redacted> <redacted>"])
    const key = "-----BEGIN-----\nMIIEpAIB\n-----END-----\n"
    assert.deepStrictEqual(linesOf(`the key\n${key}`, { redact: [key] }), ["the key", ...Array(3).fill("<redacted>")])
  })

  it("finds a secret with colours inside when they are stripped", () => {
    assert.deepStrictEqual(linesOf("hun\u001b[31mter2", { redact: ["hunter2"] }), ["<redacted>"])
  })

  it("an expression with state, or one that matches nothing, harms nothing", () => {
    const redact = [/a/y, /b*/g]
    assert.deepStrictEqual(linesOf("cab\ncab", { redact }), ["c<redacted><redacted>", "c<redacted><redacted>"])
  })

  it("a rule that is empty, and a bound that is none, are refused", () => {
    for (const options of [{ redact: ["\n"] }, { maxLine: 0 }, { maxLine: 1.5 }, { maxLine: Number.NaN }]) {
      assert.isTrue(Result.isFailure(LogLine.validate(options)), JSON.stringify(options))
    }
  })
})

describe("layout", () => {
  const line = { _tag: "Line", child: "web", incarnation: 2, stream: "stderr", at: 0, order: 1, text: "hi" } as const
  const gap = { _tag: "Gap", child: "web", at: 1, order: 2, cause: "reader", lines: 3, bytes: 0 } as const

  it("shows what is asked for", () => {
    const all = LogLine.formatter({ child: true })
    assert.strictEqual(all(line), "1970-01-01T00:00:00.000Z [web] stderr hi")
    assert.strictEqual(
      all(gap),
      "1970-01-01T00:00:00.001Z [web] treeline: 3 lines are missing: the reader was too slow"
    )
    assert.strictEqual(LogLine.formatter({ timestamps: false, stream: false })(line), "hi")
    assert.deepStrictEqual(JSON.parse(LogLine.formatter("json")(line)), {
      at: "1970-01-01T00:00:00.000Z",
      child: "web",
      incarnation: 2,
      stream: "stderr",
      text: "hi"
    })
  })
})
