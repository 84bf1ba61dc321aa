/** The updater with a real daemon of a managed install: updates, and the way back. */
import { assert, describe } from "@effect/vitest"
import { Daemon, Updater, UpdateRecord } from "@treeline/core/daemon"
import { Deferred, Effect, Fiber } from "effect"
import * as Managed from "../support/Managed.ts"
import { assertClean, assertWhole, real, running, runs } from "../support/Updaters.ts"

describe("an update", () => {
  real(
    "C14, C15, C22: new content restarts the daemon as it, the same content does not; two versions are kept",
    (scratch) =>
      Effect.gen(function*() {
        const { id, options, pid } = yield* running(scratch)
        const same = yield* Updater.update(options)
        assert.deepStrictEqual([same.status, same.current, same.detail], ["noUpdate", id, ""])
        assert.strictEqual((yield* Daemon.status(options.daemon)).pid, pid)
        Managed.publish(scratch, "2.0.0")
        const second = yield* Updater.update(options)
        assert.deepStrictEqual(
          [second.status, second.from, second.version, second.restarted],
          ["updated", id, "2.0.0", true]
        )
        const status = yield* Daemon.status(options.daemon)
        assert.deepStrictEqual([status.pid, status.version], [second.pid, "2.0.0"])
        assert.notStrictEqual(status.pid, pid)
        assert.strictEqual(status.program, yield* options.install.locate(second.current!, "app"))
        Managed.publish(scratch, "3.0.0")
        const third = yield* Updater.update(options)
        assert.strictEqual(third.status, "updated")
        assert.deepStrictEqual(yield* options.install.versions, [second.current!, third.current!].toSorted())
        assertClean(scratch)
      })
  )

  real("C12: the same content, but a daemon of another version: it is restarted", (scratch) =>
    Effect.gen(function*() {
      const { options, pid } = yield* running(scratch)
      Managed.publish(scratch, "2.0.0")
      // Switched by hand, while the old one runs.
      const { id } = yield* options.install.stage(options.fetch)
      yield* options.install.switchTo(id)
      const outcome = yield* Updater.update(options)
      assert.deepStrictEqual([outcome.status, outcome.current, outcome.restarted], ["updated", id, true])
      assert.notStrictEqual(outcome.pid, pid)
      assert.strictEqual(yield* runs(options), "2.0.0")
    }))

  for (const behaviour of ["hangs", "exits", "failing"] as const) {
    real(`a version that ${behaviour} is taken back, and is not tried again`, (scratch) =>
      Effect.gen(function*() {
        const calls: Array<string> = []
        const call = (name: string) => Effect.sync(() => void calls.push(name))
        const { id, options } = yield* running(scratch, "1.0.0", {
          readyWithin: 1200,
          validateWithin: 300,
          supervision: { pause: call("pause"), resume: call("resume") }
        })
        calls.length = 0
        Managed.publish(scratch, "2.0.0", behaviour)
        const outcome = yield* Updater.update(options)
        assert.deepStrictEqual([outcome.status, outcome.current], ["rolledBack", id])
        assert.match(
          outcome.detail,
          { hangs: /was not ready within/, exits: /the new version has a defect/, failing: /its answers are wrong/ }[
            behaviour
          ]
        )
        assert.deepStrictEqual(calls, ["pause", "resume"])
        assert.strictEqual(yield* assertWhole(options), id)
        const { pid, version } = yield* Daemon.status(options.daemon)
        assert.deepStrictEqual([pid, version], [outcome.pid, "1.0.0"])
        const again = yield* Updater.update(options)
        assert.strictEqual(again.status, "noUpdate")
        assert.match(again.detail, /did not hold before/)
        assert.strictEqual((yield* Daemon.status(options.daemon)).pid, pid)
        Managed.publish(scratch, "3.0.0")
        assert.strictEqual((yield* Updater.update(options)).version, "3.0.0")
        assertClean(scratch)
      }))
  }

  real(
    "C17: a version that does not answer --version is refused before anything is switched",
    (scratch) =>
      Effect.gen(function*() {
        const { id, options, pid } = yield* running(scratch)
        Managed.publish(scratch, "2.0.0", "rubbish")
        assert.strictEqual((yield* Effect.flip(Updater.update(options)))._tag, "ManagedProgramUnusable")
        assert.strictEqual(yield* assertWhole(options), id)
        assert.strictEqual((yield* Daemon.status(options.daemon)).pid, pid)
        assert.match((yield* Updater.update(options)).detail, /did not hold before/)
        assert.strictEqual((yield* Updater.status(options.daemon)).phase, "done")
      })
  )

  real("C10: a daemon that does not run is not started, and the switch is made", (scratch) =>
    Effect.gen(function*() {
      const { options } = yield* running(scratch)
      yield* Daemon.stop(options.daemon)
      Managed.publish(scratch, "2.0.0")
      const outcome = yield* Updater.update(options)
      assert.deepStrictEqual([outcome.status, outcome.version, outcome.restarted], ["updated", "2.0.0", false])
      assert.strictEqual((yield* Daemon.status(options.daemon)).status, "notRunning")
      yield* Daemon.start(options.daemon)
      assert.strictEqual(yield* runs(options), "2.0.0")
    }))

  real(
    "C10, C29: while another command is at work a pass is busy, and changes nothing",
    (scratch) =>
      Effect.gen(function*() {
        const { id, options, pid } = yield* running(scratch, "1.0.0", { lockWithin: 200 })
        Managed.publish(scratch, "2.0.0")
        const done = yield* Deferred.make<void>()
        const begun = yield* Deferred.make<void>()
        const other = yield* Effect.forkChild(
          Daemon.exclusively(
            options.daemon,
            "other",
            () => Effect.andThen(Deferred.succeed(begun, undefined), Deferred.await(done))
          )
        )
        yield* Deferred.await(begun)
        const outcome = yield* Updater.update(options)
        assert.deepStrictEqual([outcome.status, outcome.current], ["busy", id])
        assert.match(outcome.detail, /the other of process/)
        yield* Deferred.succeed(done, undefined)
        yield* Fiber.join(other)
        assert.strictEqual((yield* Daemon.status(options.daemon)).pid, pid)
        assert.strictEqual((yield* Updater.update(options)).status, "updated")
      })
  )

  real(
    "K17: a supervision that can't be paused, and a kill switch, change nothing",
    (scratch) =>
      Effect.gen(function*() {
        const { id, options, pid } = yield* running(scratch)
        Managed.publish(scratch, "2.0.0")
        let resumed = 0
        const outcome = yield* Updater.update({
          ...options,
          supervision: { pause: Effect.fail({ message: "no answer" }), resume: Effect.sync(() => void resumed++) }
        })
        assert.deepStrictEqual([outcome.status, outcome.current], ["rolledBack", id])
        assert.strictEqual(resumed, 1)
        assert.strictEqual((yield* Updater.update({ ...options, enabled: Effect.succeed(false) })).status, "disabled")
        let asked = 0
        const late = Effect.sync(() => ++asked < 4)
        assert.strictEqual((yield* Updater.update({ ...options, enabled: late })).status, "disabled")
        assert.isAtLeast(asked, 4, "asked before each step")
        assert.deepStrictEqual([yield* assertWhole(options), (yield* Daemon.status(options.daemon)).pid], [id, pid])
      })
  )

  real(
    "K17: an update that is stopped after the old daemon has ended starts nothing, and takes the switch back",
    (scratch) =>
      Effect.gen(function*() {
        const { id, options } = yield* running(scratch)
        Managed.publish(scratch, "2.0.0")
        const restarting = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkChild(Updater.update({
          ...options,
          onPhase: (phase) => phase === "restarting" ? Deferred.succeed(restarting, undefined) : Effect.void
        }))
        yield* Deferred.await(restarting)
        yield* Fiber.interrupt(fiber)
        const left = yield* runs(options)
        assert.include(["1.0.0", "Missing"], left, "the old one, or nothing")
        assert.strictEqual(yield* assertWhole(options), id)
        assert.strictEqual((yield* UpdateRecord.read(options.daemon.folder)).phase, "done")
      })
  )
})
