/** What `treeline up` and the commands make of what a host tells, without processes. */
import { assert, describe, it } from "@effect/vitest"
import { Errors } from "@treeline/core"
import { Effect } from "effect"
import * as LogFiles from "../../packages/treeline/src/internal/LogFiles.ts"
import * as Up from "../../packages/treeline/src/internal/Up.ts"
import * as ScriptedHost from "../support/ScriptedHost.ts"
import { failed, ready, service, status } from "../support/Statuses.ts"

const survivor = {
  pid: 30,
  parent: 1,
  group: 30,
  session: 30,
  startTime: "1",
  state: "D",
  alive: true,
  command: "stuck"
}

const unkillable = {
  _tag: "Failed" as const,
  error: new Errors.ChildFailed({ child: "db", reason: "it outlived the kill", causes: [], survivors: [survivor] })
}

/** Takes away again what a command does with the signals to its process. */
const sparingSignals = Effect.acquireRelease(
  Effect.sync(() => process.eventNames().flatMap((name) => process.listeners(name as NodeJS.Signals))),
  (before) =>
    Effect.sync(() => {
      for (const name of ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGCONT"] as const) {
        for (const listener of process.listeners(name)) {
          if (!before.includes(listener)) process.off(name, listener)
        }
      }
    })
)

/** Runs `up` on services that have ended as they are. */
const upOf = (services: Parameters<typeof status>[0]) =>
  Effect.gen(function*() {
    yield* sparingSignals
    const { end, host } = ScriptedHost.make({
      status: Effect.succeed(status(services, { phase: "ended" })),
      awaitEnd: Effect.succeed({ _tag: "Stopped" as const })
    })
    end()
    const options = { json: true, quiet: true, plain: true, file: "/srv/treeline.json" }
    return yield* Up.up(options, Effect.succeed(host), () => Effect.void)
  }).pipe(Effect.scoped)

describe("treeline up", () => {
  it.live("fails when something of a service could not be ended, whoever asked for the end", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(upOf([service("db", unkillable), service("web", failed("web", "code 1"))]))
      assert.deepStrictEqual(error.outcomes, [
        { service: "db", problem: "db has failed: it outlived the kill" },
        { service: "web", problem: null }
      ])
      // One that had failed before is down, as was asked for.
      const { ending } = yield* upOf([service("web", failed("web", "code 1")), service("db", ready(1, 1))])
      assert.deepStrictEqual(ending, { _tag: "Code", code: 0 })
    }))
})

describe("lines of log files", () => {
  it("K16: are of a stream as the layout of their file says", () => {
    const timed = LogFiles.isOf("stderr", { timestamps: true })
    const plain = LogFiles.isOf("stderr", { timestamps: false })
    const time = "2026-01-01T00:00:00.000Z"
    assert.deepStrictEqual([`${time} stderr x`, `${time} stdout stderr x`, "stderr x"].map(timed), [true, false, false])
    assert.deepStrictEqual(["stderr x", "stdout stderr is full", "stdout x"].map(plain), [true, false, false])
    assert.isTrue(LogFiles.isOf(undefined, { timestamps: true })("treeline: 3 lines are missing"))
  })
})
