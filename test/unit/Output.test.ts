import { assert, describe, it } from "@effect/vitest"
import { Output } from "@treeline/core"
import { Effect, Fiber, Option, Schema, Stream } from "effect"
import type { PipeReader } from "../../packages/core/src/Engine.ts"
import { Pump } from "../../packages/core/src/internal/Pump.ts"

const encode = (text: string) => new TextEncoder().encode(text)
const decode = (chunks: Iterable<Uint8Array>) => Buffer.concat([...chunks]).toString()

describe("Output.lines", () => {
  it.effect.prop(
    "however the bytes are cut, the lines are the same",
    { text: Schema.String, cuts: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 7 }))) },
    ({ cuts, text }) =>
      Effect.gen(function*() {
        const bytes = encode(text)
        const chunks: Array<Uint8Array> = []
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const size = cuts.length === 0 ? bytes.length : cuts[i % cuts.length]!
          chunks.push(bytes.subarray(at, at + size))
          at += size
        }
        const whole = new TextDecoder().decode(bytes)
        const expected = whole.split("\n").map((line, i, all) =>
          i < all.length - 1 && line.endsWith("\r") ? line.slice(0, -1) : line
        )
        if (expected.at(-1) === "") expected.pop()
        const lines = yield* Stream.runCollect(Output.lines(Stream.fromIterable(chunks)))
        assert.deepStrictEqual(
          lines.map((line) => line.replace(/\r$/, "")),
          expected.map((line) => line.replace(/\r$/, ""))
        )
      }),
    { arbitrary: { runs: 200 } }
  )

  it.effect("peer 89: a line longer than the limit comes in pieces, and nothing is lost", () =>
    Effect.gen(function*() {
      const long = "x".repeat(2500)
      const lines = yield* Stream.runCollect(Output.lines(Stream.make(encode(`${long}\nshort\n`)), { maxLength: 1000 }))
      assert.deepStrictEqual(lines.map((line) => line.length), [1000, 1000, 500, 5])
    }))

  it.effect("a piece never ends inside a surrogate pair", () =>
    Effect.gen(function*() {
      const lines = yield* Stream.runCollect(Output.lines(Stream.make(encode("😀".repeat(50))), { maxLength: 9 }))
      assert.strictEqual(lines.join(""), "😀".repeat(50))
      for (const line of lines) assert.isTrue(line.length <= 9 && line.isWellFormed())
    }))

  it.effect("an endless line without an end does not fill the memory", () =>
    Effect.gen(function*() {
      const chunk = encode("y".repeat(1000))
      let longest = 0
      const source = Stream.fromIterable(Array.from({ length: 500 }, () => chunk))
      yield* Stream.runForEach(Output.lines(source, { maxLength: 4096 }), (line) =>
        Effect.sync(() => {
          longest = Math.max(longest, line.length)
        }))
      assert.strictEqual(longest, 4096)
    }))
})

/** A pipe under the test's control. */
const fakePipe = () => {
  const state = { paused: false, closed: false, pauses: 0 }
  let handlers: Parameters<PipeReader["start"]>[0] | undefined = undefined
  const reader: PipeReader = {
    start: (given) => void (handlers = given),
    pause: () => void (state.paused = true, state.pauses++),
    resume: () => void (state.paused = false),
    close: () => {
      state.closed = true
      handlers!.onEnd()
    },
    pending: Effect.succeed(Option.none()),
    turn: Effect.void
  }
  return { reader, state, write: (text: string) => handlers!.onChunk(encode(text)), end: () => handlers!.onEnd() }
}

describe("Pump", () => {
  it.effect("ring: the child is never held, late readers get the last bytes", () =>
    Effect.gen(function*() {
      const pipe = fakePipe()
      const pump = new Pump(pipe.reader, Output.ring(10))
      for (let i = 0; i < 100; i++) pipe.write(`line ${i}\n`)
      assert.strictEqual(pipe.state.pauses, 0)
      pipe.end()
      assert.strictEqual(decode(yield* Stream.runCollect(pump.stream)), "line 98\nline 99\n")
      assert.strictEqual(decode([yield* pump.tail]), "8\nline 99\n")
      assert.strictEqual(yield* pump.bytes, 790)
    }))

  it.effect("ring: every reader gets everything that comes while it reads", () =>
    Effect.gen(function*() {
      const pipe = fakePipe()
      const pump = new Pump(pipe.reader, Output.ring(1000))
      const readers = yield* Effect.forEach([1, 2], () =>
        Effect.forkChild(Stream.runCollect(pump.stream), { startImmediately: true }))
      pipe.write("a")
      yield* Effect.yieldNow
      pipe.write("b")
      pipe.end()
      for (const reader of readers) {
        assert.strictEqual(decode(yield* Fiber.join(reader)), "ab")
      }
    }))

  it.effect("peer 54: backpressure holds the child at the bound and loses nothing", () =>
    Effect.gen(function*() {
      const pipe = fakePipe()
      const pump = new Pump(pipe.reader, Output.backpressure(10))
      pipe.write("12345")
      assert.isFalse(pipe.state.paused)
      pipe.write("67890")
      assert.isTrue(pipe.state.paused)
      const reader = yield* Effect.forkChild(Stream.runCollect(pump.stream), { startImmediately: true })
      yield* Effect.yieldNow
      assert.isFalse(pipe.state.paused)
      pipe.write("tail")
      pipe.end()
      assert.strictEqual(decode(yield* Fiber.join(reader)), "1234567890tail")
    }))

  it.effect("peer 56: a reader that leaves early lets the child go on, or closes the pipe, as set", () =>
    Effect.gen(function*() {
      const discarding = fakePipe()
      const pump = new Pump(discarding.reader, Output.backpressure(10))
      discarding.write("first")
      yield* Stream.runDrain(Stream.take(pump.stream, 1))
      for (let i = 0; i < 100; i++) discarding.write("0123456789")
      assert.isFalse(discarding.state.paused)
      assert.isFalse(discarding.state.closed)

      const closing = fakePipe()
      const strict = new Pump(closing.reader, Output.backpressure(10, { onReaderGone: "close" }))
      closing.write("first")
      yield* Stream.runDrain(Stream.take(strict.stream, 1))
      assert.isTrue(closing.state.closed)
    }))

  it.effect("after the leader's end the rest of the pipe is read whatever the reader does", () =>
    Effect.gen(function*() {
      const pipe = fakePipe()
      const pump = new Pump(pipe.reader, Output.backpressure(4))
      pipe.write("1234")
      assert.isTrue(pipe.state.paused)
      pump.release()
      assert.isFalse(pipe.state.paused)
      pipe.write("5678")
      assert.isFalse(pipe.state.paused)
      pump.cut()
      pipe.write("after the cut")
      assert.strictEqual(decode(yield* Stream.runCollect(pump.stream)), "12345678")
    }))
})

describe("bounds", () => {
  it("F12: sizes and times that can't be used are refused", () => {
    for (const bytes of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      assert.strictEqual(Output.validatePolicy("output", Output.ring(bytes))._tag, "Failure")
    }
    assert.strictEqual(Output.validateDrain({ idle: -1, limit: 1 })._tag, "Failure")
    assert.strictEqual(Output.validateDrain({ idle: 1, limit: Number.NaN })._tag, "Failure")
    assert.strictEqual(Output.validateDrain(Output.defaultDrain)._tag, "Success")
  })
})
