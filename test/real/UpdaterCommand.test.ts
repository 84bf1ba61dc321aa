/** Updates through the commands, and the updater beside the daemon. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { CommandReport } from "treeline"
import type { StateDirectory } from "treeline/daemon"
import * as UpdaterProcess from "../../packages/treeline/src/internal/UpdaterProcess.ts"
import { answer, failure } from "../support/Answers.ts"
import { eventually } from "../support/Eventually.ts"
import * as Managed from "../support/ManagedCommands.ts"
import { identify } from "../support/Processes.ts"
import * as Command from "../support/TreelineCommand.ts"
import * as Up from "../support/Up.ts"

describe("the updater and its commands", () => {
  Managed.real(
    "C14, C15: an update through the command, nothing new, a version that does not hold, and the kill switch",
    (scratch) =>
      Effect.gen(function*() {
        Managed.publish(scratch, "1.0.0")
        Managed.configure(scratch, { update: { first: "1 hour", validateWithin: "5 seconds" } })
        const first = yield* Managed.bootstrap(scratch)
        assert.strictEqual((yield* Managed.update(scratch)).status, "noUpdate")
        Managed.publish(scratch, "1.1.0")
        const updated = yield* Managed.update(scratch)
        assert.deepStrictEqual([updated.status, updated.version, updated.restarted], ["updated", "1.1.0", true])
        const running = yield* Managed.statusOf(scratch)
        assert.strictEqual(running.pid, updated.pid)
        assert.include(fs.readFileSync(scratch.file(".treeline/daemon.log"), "utf8"), "all are paused")
        assert.notStrictEqual(running.pid, first.daemon.pid)
        assert.include(running.program!, updated.current!)
        // The updater of the old version would lose its folder to a later update.
        assert.notStrictEqual(running.updater.pid, first.updater.pid)
        const updater = Managed.processesOf(scratch).find(({ pid }) => pid === running.updater.pid)?.command
        assert.include(updater, "daemon updater --config")

        Managed.publish(scratch, "1.2.0", "echo it is broken >&2; exit 9")
        const back = yield* Managed.update(scratch, 1)
        assert.deepStrictEqual([back.status, back.current], ["rolledBack", updated.current])
        const after = yield* Managed.statusOf(scratch)
        assert.deepStrictEqual([after.status, after.answers, after.program], ["running", true, running.program])
        assert.strictEqual(after.updater?.last?.status, "rolledBack")

        yield* answer(
          scratch,
          ["set", "daemon.update.enabled", "false"],
          "SettingChange",
          CommandReport.SettingChange
        )
        Managed.publish(scratch, "1.3.0")
        assert.strictEqual((yield* Managed.update(scratch)).status, "disabled")
        assert.strictEqual((yield* Managed.statusOf(scratch)).pid, after.pid)
        yield* Managed.daemon(scratch, "stop")
        yield* scratch.awaitNoneLiving()
      })
  )

  Managed.real(
    "C6, K17: a setting of the updater restarts the updater only, and switches it off and on; supervision is paused",
    (scratch) =>
      Effect.gen(function*() {
        Managed.publish(scratch, "1.0.0")
        Managed.configure(scratch)
        const first = yield* Managed.bootstrap(scratch)
        const set = (...argv: ReadonlyArray<string>) =>
          answer(scratch, ["set", ...argv], "SettingChange", CommandReport.SettingChange)
        const changed = yield* set("daemon.update.interval", "2 hours")
        assert.isNull(changed.daemon)
        assert.isNotNull(changed.updater)
        assert.notStrictEqual(changed.updater, first.updater.pid)
        assert.isUndefined(identify(first.updater.pid!))
        const command = Managed.processesOf(scratch).find(({ pid }) => pid === changed.updater)?.command
        assert.include(command, "daemon updater --config")
        assert.isNull((yield* set("daemon.update.enabled", "false")).updater)
        assert.isNull((yield* Managed.statusOf(scratch)).updater?.pid ?? null)
        assert.isNotNull((yield* set("--remove", "daemon.update.enabled")).updater)
        assert.strictEqual((yield* Managed.statusOf(scratch)).pid, first.daemon.pid)

        // What both are of: both are restarted, or neither.
        const refused = yield* failure(scratch, ["set", "daemon.install.program", "bin/none"], 1)
        assert.strictEqual(refused.error._tag, "ManagedProgramUnusable")
        assert.strictEqual((yield* Managed.statusOf(scratch)).pid, first.daemon.pid)
        const both = yield* set("daemon.install.program", "bin/other")
        assert.notStrictEqual(both.daemon, first.daemon.pid)
        const now = yield* Managed.statusOf(scratch)
        assert.deepStrictEqual([now.pid, now.updater.pid], [both.daemon, both.updater])
        assert.match(now.program!, /bin\/other$/)

        // K17: supervision is paused for a hand-over and resumed when that fails; a pause of somebody else stays.
        const address: StateDirectory.ControlAddress = {
          _tag: "Socket",
          path: scratch.file(".treeline/control.sock"),
          link: null
        }
        const isPaused = Effect.map(
          answer(scratch, ["status"], "Status", CommandReport.Status),
          ({ host }) => host.paused
        )
        const supervision = UpdaterProcess.supervisionOf(Effect.succeed(address))
        yield* supervision.pause
        assert.isTrue(yield* isPaused)
        yield* supervision.resume
        assert.isFalse(yield* isPaused)
        assert.isFalse(yield* supervision.isPaused)
        yield* answer(scratch, ["pause"], "Paused", CommandReport.Paused)
        assert.isTrue(yield* supervision.isPaused, "so it is neither paused nor resumed for an update")
        yield* UpdaterProcess.isServing(Effect.succeed(address), ["web", "gone"])
        yield* Command.run(["stop", "web"], { scratch })
        const missed = yield* Effect.flip(UpdaterProcess.isServing(Effect.succeed(address), ["web"]))
        assert.include(missed.message, "ready before and not yet again: web")
        yield* UpdaterProcess.isServing(Effect.succeed(address), [])
        yield* Managed.daemon(scratch, "stop")
        yield* scratch.awaitNoneLiving()
        yield* supervision.resume
        assert.strictEqual((yield* Effect.flip(supervision.pause))._tag, "ControlUnavailable")
      })
  )

  Managed.real(
    "a start after a death of the machine during an update to what can't start goes back to what ran",
    (scratch) =>
      Effect.gen(function*() {
        Managed.publish(scratch, "1.0.0")
        Managed.configure(scratch, { update: { first: "1 hour", validateWithin: "5 seconds" } })
        const first = yield* Managed.bootstrap(scratch)
        yield* Managed.daemon(scratch, "stop")
        Managed.publish(scratch, "1.1.0", "exit 9")
        const { current } = yield* Managed.update(scratch)
        const file = scratch.file(".treeline/update.json")
        const record = JSON.parse(fs.readFileSync(file, "utf8"))
        const from = first.install.current
        fs.writeFileSync(file, JSON.stringify({ ...record, phase: "validating", from, to: current, running: true }))
        yield* Managed.daemon(scratch, "start")
        const running = yield* Managed.statusOf(scratch)
        assert.deepStrictEqual([running.status, running.updater.phase], ["running", "done"])
        assert.include(running.program!, from)
        yield* Managed.daemon(scratch, "stop")
        yield* scratch.awaitNoneLiving()
      })
  )

  Managed.real(
    "C10: the updater updates by itself, and then becomes its new version in the same process",
    (scratch) =>
      Effect.gen(function*() {
        Managed.publish(scratch, "1.0.0")
        Managed.configure(scratch, { update: { first: "500 millis", interval: "1 second", jitter: 0 } })
        const first = yield* Managed.bootstrap(scratch)
        Managed.publish(scratch, "1.1.0")
        const versions = path.join(first.install.folder, "versions")
        const commandOf = (pid: number | null) =>
          Managed.processesOf(scratch).find((process) => process.pid === pid)?.command ?? ""
        yield* eventually("the updater is another program", () => {
          const command = commandOf(first.updater.pid)
          return command.includes("daemon updater") && fs.readdirSync(versions).length === 2 &&
            Managed.log(scratch).includes("updated to 1.1.0") && Managed.log(scratch).split(" updates ").length === 3
        }, { within: 30_000, detail: () => [Managed.processesOf(scratch), Managed.log(scratch)] })
        const running = yield* Managed.statusOf(scratch)
        assert.deepStrictEqual([running.updater.status, running.updater.pid], ["running", first.updater.pid])
        assert.notInclude(running.program!, first.install.current)
        assert.include(running.program!, versions)
        yield* Managed.daemon(scratch, "stop")
        yield* Managed.nothingLeft(scratch)
      })
  )

  Managed.real(
    "C26: a fetch ends with all of it when its command is asked to end, and when the daemon is stopped",
    (scratch) =>
      Effect.gen(function*() {
        Managed.publish(scratch, "1.0.0")
        Managed.configure(scratch)
        const first = yield* Managed.bootstrap(scratch)
        const slow = Up.role(scratch, "grandchild")
        Managed.configure(scratch, { update: { first: "100 millis", jitter: 0 } }, { fetch: slow })
        const fetching = (count: number) =>
          eventually(
            `fetch ${count} is going on`,
            () => scratch.reported().filter(({ name }) => name === "leaf").length === count,
            { within: 20_000 }
          )
        const ended = Effect.asVoid(
          eventually("nothing of the fetch is left", () => scratch.living().every(({ name }) => name === "plain"))
        )
        const command = yield* Command.start(["daemon", "update"], { scratch, sparesOthers: true })
        yield* fetching(1)
        command.signal("SIGTERM")
        assert.strictEqual((yield* command.ended).signal, "SIGTERM")
        yield* ended
        assert.strictEqual((yield* Managed.statusOf(scratch)).pid, first.daemon.pid)
        // The updater takes over when it first fetches.
        yield* answer(scratch, ["set", "daemon.update.interval", "1 day"], "SettingChange", CommandReport.SettingChange)
        yield* fetching(2)
        assert.strictEqual((yield* Managed.statusOf(scratch)).updater.phase, "fetching")
        yield* Managed.daemon(scratch, "stop")
        yield* Managed.nothingLeft(scratch)
      })
  )
})
