import { assert, describe, it } from "@effect/vitest"
import { type ChildEnd, ExitStatus, Restart } from "@treeline/core"
import { Duration, Effect, Exit, Random, Result, Schedule } from "effect"

const exited = (code: number): ChildEnd.ChildEnd => ({ _tag: "Exited", status: ExitStatus.exited(code) })
const killed = (signal: string): ChildEnd.ChildEnd => ({ _tag: "Exited", status: ExitStatus.signaled(signal) })

const codes = { successCodes: [0, 3, "SIGTERM" as const], permanentFailureCodes: [125] }

const ends: ReadonlyArray<readonly [string, ChildEnd.ChildEnd]> = [
  ["0", exited(0)],
  ["non-zero", exited(1)],
  ["listed code", exited(3)],
  ["listed signal", killed("SIGTERM")],
  ["other signal", killed("SIGKILL")],
  ["permanent failure", exited(125)],
  ["completed", { _tag: "Completed" }],
  ["failed", { _tag: "Failed", message: "no", causes: [] }],
  ["start failed", { _tag: "StartFailed", reason: "NotFound", message: "no" }],
  ["not ready", { _tag: "NotReady", message: "no" }],
  ["unhealthy", { _tag: "Unhealthy", message: "no" }]
]

/** What follows from each end, in the order of `ends`: r restart, c complete, f fail. */
const expected: Readonly<Record<Restart.Mode, string>> = {
  permanent: "rrrrrfrrrrr",
  transient: "crccrfcrrrr",
  temporary: "cfccffcffff"
}

const policies = { permanent: Restart.permanent, transient: Restart.transient, temporary: Restart.temporary }

describe("Restart", () => {
  for (const mode of ["permanent", "transient", "temporary"] as const) {
    it(`peer 80, 79: ${mode} x every end`, () => {
      const policy = policies[mode](codes)
      const verdicts = ends.map(([, end]) => Restart.decide(policy, end)[0]).join("")
      assert.strictEqual(verdicts, expected[mode])
    })
  }

  it("peer 81: a permanent failure code wins over every mode", () => {
    for (const mode of ["permanent", "transient", "temporary"] as const) {
      assert.strictEqual(Restart.decide(policies[mode](codes), exited(125)), "fail")
    }
  })

  it("a spec that contradicts itself is refused", () => {
    const problem = (policy: Restart.Policy) => {
      const result = Restart.validate(policy)
      return Result.isFailure(result) ? result.failure.field : undefined
    }
    assert.strictEqual(problem(Restart.permanent({ successCodes: [-1] })), "restart.successCodes")
    assert.strictEqual(problem(Restart.permanent({ permanentFailureCodes: [1.5] })), "restart.permanentFailureCodes")
    assert.strictEqual(problem(Restart.permanent({ permanentFailureCodes: [0] })), "restart.permanentFailureCodes")
    assert.strictEqual(problem(Restart.permanent({ resetAfter: -1 })), "restart.resetAfter")
    assert.strictEqual(problem(Restart.permanent()), undefined)
  })

  it("a backoff that would not wait, or never ends waiting, is refused", () => {
    const problem = (options: Restart.Exponential) => {
      const result = Restart.validate(Restart.permanent({ backoff: Restart.exponential(options) }))
      return Result.isFailure(result) ? result.failure.field : undefined
    }
    const wrong: ReadonlyArray<readonly [field: string, options: Restart.Exponential]> = [
      ["first", { first: 0 }],
      ["first", { first: Number.NaN }],
      ["max", { first: 500, max: 100 }],
      ["max", { max: "Infinity" }],
      ["factor", { factor: 0.5 }],
      ["factor", { factor: Number.NaN }],
      ["jitter", { jitter: 1.5 }],
      ["jitter", { jitter: Number.NaN }],
      ["times", { times: -1 }],
      ["times", { times: 2.5 }]
    ]
    for (const [field, options] of wrong) assert.strictEqual(problem(options), `restart.backoff.${field}`)
    assert.strictEqual(problem({ first: 1, max: 1, factor: 1, jitter: 1, times: 0 }), undefined)
  })

  const delays = (schedule: Restart.Policy["backoff"], count: number) =>
    Effect.gen(function*() {
      const step = yield* Schedule.toStep(schedule)
      const out: Array<number> = []
      for (let index = 0; index < count; index++) {
        const exit = yield* Effect.exit(step(0, exited(1)))
        if (Exit.isFailure(exit)) break
        out.push(Duration.toMillis(exit.value[1]))
      }
      return out
    })

  it.effect("peer 78: the waits double from 200 ms to 30 s", () =>
    Effect.gen(function*() {
      const waits = yield* delays(Restart.exponential({ jitter: 0 }), 10)
      assert.deepStrictEqual(waits, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000])
    }))

  it.effect("peer 78: jitter is 20 % up or down, at the cap too, and not always the same", () =>
    Effect.gen(function*() {
      const plain = yield* delays(Restart.exponential({ jitter: 0 }), 12)
      const seen = new Set<number>()
      for (let seed = 0; seed < 50; seed++) {
        const spread = yield* Random.withSeed(delays(Restart.exponential(), 12), `seed ${seed}`)
        for (const [index, wait] of spread.entries()) {
          const ratio = wait / plain[index]!
          assert.isAtLeast(ratio, 0.8)
          assert.isAtMost(ratio, 1.2)
          seen.add(Math.round(ratio * 100))
        }
      }
      assert.isAbove(seen.size, 30)
    }))

  it.effect("a backoff with a number of times ends", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* delays(Restart.exponential({ times: 3 }), 10)).length, 3)
    }))
})
