/** A managed install through the commands: bootstrap, and what is refused. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { failure } from "../support/Answers.ts"
import * as Managed from "../support/ManagedCommands.ts"
import * as Up from "../support/Up.ts"

describe("treeline daemon bootstrap", () => {
  Managed.real("bootstrap twice; restart leaves the updater, stop leaves nothing", (scratch) =>
    Effect.gen(function*() {
      Managed.publish(scratch, "1.0.0")
      Managed.configure(scratch)
      const missing = yield* failure(scratch, ["daemon", "start"], 1)
      assert.include(missing.message, "treeline daemon bootstrap")
      const first = yield* Managed.bootstrap(scratch)
      assert.deepStrictEqual(
        [first.status, first.install.status, first.install.version, first.daemon.status, first.updater.status],
        ["bootstrapped", "fetched", "1.0.0", "started", "started"]
      )
      const running = yield* Managed.statusOf(scratch)
      assert.deepStrictEqual([running.pid, running.updater?.pid], [first.daemon.pid, first.updater.pid])
      assert.strictEqual(running.program, path.join(first.install.folder, "versions", first.install.current, "bin/app"))
      assert.strictEqual(running.program, first.install.program)

      const second = yield* Managed.bootstrap(scratch)
      assert.deepStrictEqual(second, {
        ...first,
        status: "alreadyBootstrapped",
        install: { ...first.install, status: "present" },
        daemon: { ...first.daemon, status: "alreadyRunning" },
        updater: { ...first.updater, status: "alreadyRunning" },
        milliseconds: second.milliseconds
      })
      const again = yield* Managed.daemon(scratch, "start")
      assert.deepStrictEqual([again.status, again.pid, again.updater], [
        "alreadyRunning",
        first.daemon.pid,
        first.updater.pid
      ])
      const restarted = yield* Managed.daemon(scratch, "restart")
      assert.deepStrictEqual([restarted.status, restarted.updater], ["restarted", first.updater.pid])
      assert.notStrictEqual(restarted.pid, first.daemon.pid)

      // What is in its own folder is what it was started from, also when the link is switched later.
      const stopped = yield* Managed.daemon(scratch, "stop")
      assert.deepStrictEqual([stopped.status, stopped.pid, stopped.updater], [
        "stopped",
        restarted.pid,
        first.updater.pid
      ])
      yield* Managed.nothingLeft(scratch)
      const started = yield* Managed.daemon(scratch, "start")
      assert.isNotNull(started.updater)
      yield* Managed.daemon(scratch, "stop")
      yield* Managed.nothingLeft(scratch)
    }))

  Managed.real(
    "refused before anything is ended: no program, one that does not answer, a fetch that fails",
    (scratch) =>
      Effect.gen(function*() {
        Managed.publish(scratch, "1.0.0")
        const reasonOf = (argv: ReadonlyArray<string>, code: number) =>
          Effect.map(failure(scratch, argv, code), ({ error, message }) => {
            assert.notInclude(message, "at Object")
            return "reason" in error ? `${error._tag} ${error.reason}` : error._tag
          })
        Managed.configure(scratch, {}, { fetch: { command: "sh", args: ["-c", "echo no network >&2; exit 7"] } })
        assert.strictEqual(yield* reasonOf(["daemon", "bootstrap"], 1), "UpdateFetchFailed Exited")
        Managed.configure(scratch, {}, { program: "bin/none" })
        assert.strictEqual(yield* reasonOf(["daemon", "bootstrap"], 1), "ManagedProgramUnusable Missing")
        assert.strictEqual((yield* Managed.statusOf(scratch, 3)).status, "notRunning")
        Managed.configure(scratch)
        Managed.publish(scratch, "of nothing")
        assert.strictEqual(yield* reasonOf(["daemon", "bootstrap"], 1), "ManagedProgramUnusable NoVersion")
        Managed.publish(scratch, "1.0.0")
        const { daemon: { pid }, install } = yield* Managed.bootstrap(scratch)
        fs.chmodSync(install.program, 0o644)
        assert.strictEqual(yield* reasonOf(["daemon", "restart"], 1), "ManagedProgramUnusable NotExecutable")
        assert.strictEqual(yield* reasonOf(["daemon", "bootstrap"], 1), "ManagedProgramUnusable NotExecutable")
        assert.strictEqual(
          yield* reasonOf(["set", "daemon.stopWithin", "9 seconds"], 1),
          "ManagedProgramUnusable NotExecutable"
        )
        assert.strictEqual((yield* Managed.statusOf(scratch)).pid, pid)
        yield* Managed.daemon(scratch, "stop")
        yield* Managed.nothingLeft(scratch)
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        for (const verb of ["bootstrap", "update"]) {
          assert.strictEqual(yield* reasonOf(["daemon", verb], 2), "UsageError")
        }
      })
  )

  Managed.real(
    "C33: a record of the updater that is none: the daemon starts and stops, and it is told what to do",
    (scratch) =>
      Effect.gen(function*() {
        Managed.publish(scratch, "1.0.0")
        Managed.configure(scratch)
        fs.mkdirSync(scratch.file(".treeline"), { mode: 0o700 })
        fs.mkdirSync(scratch.file(".treeline/updater"), { mode: 0o700 })
        const wrong = scratch.file(".treeline/updater/1-aa.json")
        fs.writeFileSync(wrong, "none")
        const refused = yield* failure(scratch, ["daemon", "bootstrap"], 1)
        assert.strictEqual(refused.error._tag, "UpdaterNotStarted")
        assert.include(refused.message, wrong)
        const status = yield* Managed.statusOf(scratch)
        assert.deepStrictEqual([status.status, status.answers, status.updater.status], ["running", true, "unreadable"])
        const stop = yield* failure(scratch, ["daemon", "stop"], 4)
        assert.strictEqual(stop.error._tag, "ClaimUndecided")
        assert.strictEqual((yield* Managed.statusOf(scratch, 3)).status, "notRunning")
        fs.rmSync(scratch.file(".treeline/updater"), { recursive: true })
        yield* Managed.daemon(scratch, "stop")
        yield* Managed.nothingLeft(scratch)
      })
  )
})
