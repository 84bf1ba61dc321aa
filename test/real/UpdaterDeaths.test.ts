/** Deaths of an updater, at each step and at any instant: who comes next finishes what it had begun. */
import { assert, describe } from "@effect/vitest"
import { Daemon, Updater, UpdateRecord } from "@treeline/core/daemon"
import { Effect, Option } from "effect"
import * as fs from "node:fs"
import * as Managed from "../support/Managed.ts"
import { identify } from "../support/Processes.ts"
import * as Random from "../support/Random.ts"
import { assertClean, assertWhole, kill, real, recordOf, running, runs, spawn } from "../support/Updaters.ts"

/** Deaths at random instants. */
const deaths = Number(process.env["TREELINE_UPDATER_DEATHS"] ?? 3)

describe("an updater that dies", () => {
  for (const phase of ["fetching", "pausing", "switching", "restarting", "validating", "rollingBack"] as const) {
    real(`while it is ${phase}: a start succeeds, and the next pass finishes it`, (scratch) =>
      Effect.gen(function*() {
        const { id, options } = yield* running(scratch)
        Managed.publish(scratch, "2.0.0", phase === "rollingBack" ? "exits" : "well")
        const process = yield* spawn(scratch, options, "update", { [Managed.stopVariable]: phase })
        yield* scratch.awaitNamed(`at-${phase}`)
        assert.strictEqual((yield* UpdateRecord.read(options.daemon.folder)).phase, phase)
        yield* kill(process.identity)
        const between = yield* assertWhole(options)
        const started = yield* Effect.result(Daemon.start(options.daemon))
        if (phase !== "rollingBack") assert.strictEqual(started._tag, "Success")
        const recovered = yield* Updater.recover(options)
        const after = yield* assertWhole(options)
        switch (phase) {
          case "fetching":
          case "pausing":
          case "switching":
            assert.deepStrictEqual([between, after, Option.isNone(recovered)], [id, id, true])
            break
          case "restarting":
          case "validating":
            assert.notStrictEqual(after, id)
            assert.strictEqual(Option.getOrThrow(recovered).status, "updated")
            break
          case "rollingBack":
            assert.strictEqual(after, id)
            assert.strictEqual(Option.getOrThrow(recovered).status, "rolledBack")
        }
        assert.strictEqual(yield* runs(options), after === id ? "1.0.0" : "2.0.0")
        const next = yield* Updater.update(options)
        assert.strictEqual(next.status, after === id && phase !== "rollingBack" ? "updated" : "noUpdate")
        assert.strictEqual((yield* UpdateRecord.read(options.daemon.folder)).phase, "done")
        assertClean(scratch)
      }))
  }

  real(
    "K17: after the switch, and the daemon is then ended by a user: the switch is taken back, nothing is started",
    (scratch) =>
      Effect.gen(function*() {
        const { options } = yield* running(scratch)
        Managed.publish(scratch, "2.0.0")
        const process = yield* spawn(scratch, options, "update", { [Managed.stopVariable]: "restarting" })
        yield* scratch.awaitNamed("at-restarting")
        yield* kill(process.identity)
        yield* Updater.stop(options.daemon)
        yield* Daemon.stop(options.daemon)
        assert.strictEqual(Option.getOrThrow(yield* Updater.recover(options)).status, "rolledBack")
        assert.strictEqual((yield* Daemon.status(options.daemon)).status, "notRunning")
        yield* Daemon.start(options.daemon)
        assert.strictEqual(yield* runs(options), "1.0.0")
        assert.deepStrictEqual((yield* UpdateRecord.read(options.daemon.folder)).rejected, [])
        assert.strictEqual((yield* Updater.update(options)).status, "updated", "it is tried again")
      })
  )

  real(
    `at ${deaths} random instants, or its daemon: the next start always succeeds and nothing is left`,
    (scratch) =>
      Effect.gen(function*() {
        const { options } = yield* running(scratch)
        const random = Random.make()
        for (let round = 0; round < deaths; round++) {
          Managed.publish(scratch, `2.${round}.0`, random() < 0.2 ? "exits" : "well")
          const updater = yield* spawn(scratch, options, "update")
          const waits = Math.round(random() * 1200)
          yield* Effect.sleep(waits)
          const state = yield* recordOf(options)
          const victim = random() < 0.3 && state._tag === "Running"
            ? identify(state.record.identity.pid)
            : updater.identity
          if (victim !== undefined) yield* kill(victim)
          if (victim !== updater.identity) yield* updater.ended
          yield* assertWhole(options)
          const started = yield* Effect.result(Daemon.start(options.daemon))
          const behaviour = (id: string) => fs.readFileSync(scratch.file(`install/versions/${id}/behaviour`), "utf8")
          // Only a version that can't start may not.
          if (started._tag === "Failure") assert.strictEqual(behaviour(yield* assertWhole(options)), "exits")
          yield* Updater.recover(options)
          if (behaviour(yield* assertWhole(options)) === "exits") {
            // It became current while no daemon ran, so nobody has tried it.
            Managed.publish(scratch, `3.${round}.0`)
            assert.strictEqual((yield* Updater.update(options)).status, "updated")
          }
          yield* Daemon.start(options.daemon)
          yield* assertWhole(options)
          assert.match(yield* runs(options), /^\d/)
        }
        assertClean(scratch)
      }),
    30_000 + deaths * 8000
  )
})
