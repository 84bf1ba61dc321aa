/** The tokens of pools: who has one, how long it is good, and that nobody sees it. */
import { assert, describe, it } from "@effect/vitest"
import { Child, Pool } from "@treeline/core"
import { SimulatedPlatform } from "@treeline/core/testing"
import { Effect, Exit, Logger, Option, Redacted, Schedule, Stream, Tracer } from "effect"
import { SecureRandom } from "effect/crypto"
import { ChildProcess } from "effect/process"
import * as util from "node:util"
import { advance, exits, lives, onSystem, passing, Simulation, stubborn } from "../support/Actors.ts"
import { record } from "../support/Pools.ts"

describe("whose token it is", () => {
  it.effect("a child gets its token, and is found by it from before its first step to its last", () =>
    Effect.suspend(() => {
      const given: Array<string> = []
      const program = ({ env }: SimulatedPlatform.Invocation) => {
        given.push(env["TOKEN"] ?? "")
        return stubborn
      }
      return onSystem(function*() {
        const pool = yield* Pool.make({
          build: (key, { token }) =>
            Effect.succeed({
              child: Child.make("worker", {
                command: ChildProcess.make("worker", [], { env: { TENANT: key, TOKEN: token } })
              }),
              endpoint: () => Effect.sleep(100)
            })
        })
        const asked = yield* Effect.forkChild(pool.ensure("a"), { startImmediately: true })
        yield* advance(50)
        assert.match(given[0]!, /^[0-9a-f]{64}$/)
        assert.deepStrictEqual(yield* pool.lookupToken(given[0]!), Option.some({ key: "a", incarnation: 1 }))
        yield* advance(50)
        const handle = Option.getOrThrow(Exit.getSuccess(asked.pollUnsafe()!))
        assert.strictEqual(Redacted.value(handle.token), given[0])
        assert.deepStrictEqual(yield* pool.lookupToken(handle.token), Option.some({ key: "a", incarnation: 1 }))
        const down = yield* Effect.forkChild(pool.shutdown("a"), { startImmediately: true })
        yield* advance(4000)
        assert.isTrue(Option.isSome(yield* pool.lookupToken(handle.token)), "it is being ended")
        yield* advance(1100)
        assert.isTrue(Exit.isSuccess(down.pollUnsafe()!))
        assert.isTrue(Option.isNone(yield* pool.lookupToken(handle.token)), "it is gone")
        yield* passing(pool.ensure("a").pipe(Effect.andThen(pool.ensure("b"))))
        assert.strictEqual(new Set(given).size, 3, "each incarnation has its own")
        assert.isTrue(Option.isNone(yield* pool.lookupToken(given[0]!)))
        assert.deepStrictEqual(yield* pool.lookupToken(given[2]!), Option.some({ key: "b", incarnation: 3 }))
      }, { programs: { worker: program } })()
    }))

  it.effect(
    "what revoked tokens leave behind is nobody's token",
    onSystem(function*() {
      const pool = yield* Pool.make({
        build: () => Effect.succeed({ child: Child.make("worker", { command: ChildProcess.make("lives", []) }) })
      })
      for (const key of ["a", "b", "c"]) yield* passing(pool.ensure(key))
      for (const key of ["a", "b"]) yield* passing(pool.shutdown(key))
      assert.isTrue(Option.isNone(yield* pool.lookupToken("0".repeat(64))))
    }, { programs: { lives } })
  )

  it.effect(
    "the token of a build that failed is nobody's",
    onSystem(function*() {
      let token = ""
      const pool = yield* Pool.make({
        build: (_, identity) => {
          token = Redacted.value(identity.token)
          return Effect.fail("no")
        }
      })
      yield* passing(Effect.exit(pool.ensure("a")))
      assert.strictEqual(token.length, 64)
      assert.isTrue(Option.isNone(yield* pool.lookupToken(token)))
    })
  )
})

describe("nobody sees a token", () => {
  it.effect(
    "not in status, events, errors, logs and spans, whatever fails",
    onSystem(function*() {
      const simulation = yield* Simulation
      const tokens = new Set<string>()
      const shown: Array<unknown> = []
      // The source of chance can be given; so the test knows every token, that of a hook too.
      const random = SecureRandom.make((size) => {
        const bytes = SecureRandom.randomBytesUnsafe(size)
        tokens.add(Buffer.from(bytes).toString("hex"))
        return bytes
      })
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          shown.push(span)
          return span
        }
      })
      const logger = Logger.make((entry) => void shown.push(Logger.formatLogFmt.log(entry), entry.message, entry.cause))
      const story = Effect.gen(function*() {
        const pool = yield* Pool.make({
          hooks: {
            retire: ({ key, token }) => Effect.fail(new Error(`can't save ${key} with ${Redacted.value(token)}`)),
            retry: Schedule.recurs(1)
          },
          build: (key, { token }) => {
            const command = SimulatedPlatform.command(key === "short" ? exits(1, 20) : lives, {
              name: key,
              env: { TOKEN: token }
            })
            if (key === "missing") {
              return Effect.succeed({
                child: Child.make(key, { command: ChildProcess.make("no-such", [], { env: { TOKEN: token } }) })
              })
            }
            return Effect.succeed({ child: Child.make(key, { command }) })
          }
        })
        const events = yield* record(pool)
        const note = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          Effect.map(passing(Effect.exit(effect)), (exit) => void shown.push(exit))
        yield* note(pool.ensure("a"))
        yield* note(pool.ensure("short"))
        yield* note(pool.ensure("missing"))
        yield* note(pool.use("b", ({ child }) => Effect.andThen(child.stop(), Effect.never)))
        yield* advance(1000)
        shown.push(yield* pool.status)
        yield* note(pool.shutdown("a"))
        yield* note(pool.ensure("a"))
        yield* note(pool.shutdownAll)
        shown.push(yield* pool.status, events, pool)
        shown.push(yield* Stream.runHead(pool.events))
      })
      yield* story.pipe(
        Effect.provideService(SecureRandom.SecureRandom, random),
        Effect.provideService(Tracer.Tracer, tracer),
        Effect.provide(Logger.layer([logger]))
      )
      shown.push(yield* simulation.journal)
      assert.strictEqual(tokens.size, 4)
      assert.isAbove(shown.length, 20)
      const text = shown.map((one) => `${util.inspect(one, { depth: 12, showHidden: false })} ${safely(one)}`).join(
        "\n"
      )
      assert.include(text, "can't save a with <redacted>")
      assert.include(text, "Pool.start")
      for (const token of tokens) {
        const at = text.indexOf(token)
        assert.strictEqual(at < 0 ? "" : text.slice(Math.max(0, at - 400), at + 80), "")
      }
    })
  )
})

/** As a program would print it that knows no better. */
const safely = (value: unknown): string => {
  try {
    return JSON.stringify(value) ?? ""
  } catch {
    return String(value)
  }
}
