/** A managed install through the commands: bootstrap, updates, and the updater beside the daemon. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { CommandReport } from "treeline"
import type { ServiceConfig } from "treeline/daemon"
import { answer, failure } from "../support/Answers.ts"
import { eventually } from "../support/Eventually.ts"
import { identify, killIfAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"
import * as Up from "../support/Up.ts"

type Test = (scratch: Scratch.Scratch) => Effect.Effect<void, unknown, Scope.Scope>

/** Processes of this test: their command lines name its folder. */
const processesOf = (scratch: Scratch.Scratch): ReadonlyArray<{ readonly pid: number; readonly command: string }> =>
  fs.readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return []
    try {
      const command = fs.readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ")
      return command.includes(scratch.directory) ? [{ pid: Number(name), command }] : []
    } catch {
      return []
    }
  })

const real = (name: string, test: Test, limit = 90_000) =>
  it.live.skipIf(process.platform !== "linux")(name, () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const { pid } of processesOf(scratch)) {
            const identity = identify(pid)
            if (identity !== undefined) killIfAlive(identity)
          }
        })
      )
      yield* test(scratch)
    }).pipe(Effect.scoped), limit)

/** What is fetched: a program that answers `--version`, and is this checkout's treeline for all else. */
const publish = (scratch: Scratch.Scratch, version: string, run = `exec "$@"`): void => {
  const words = Command.treeline.map((word) => `'${word}'`).join(" ")
  fs.mkdirSync(scratch.file("source/bin"), { recursive: true })
  fs.writeFileSync(
    scratch.file("source/bin/app"),
    `#!/bin/sh\nif [ "$1" = --version ]; then echo "app ${version}"; exit; fi\nset -- ${words} "$@"\n${run}\n`,
    { mode: 0o755 }
  )
}

const configure = (
  scratch: Scratch.Scratch,
  daemon: NonNullable<ServiceConfig.Input["daemon"]> = {},
  install: Partial<NonNullable<NonNullable<ServiceConfig.Input["daemon"]>["install"]>> = {}
): void =>
  Up.configure(scratch, {
    services: { web: Up.role(scratch, "plain") },
    daemon: {
      install: {
        program: "bin/app",
        fetch: { command: "cp", args: ["-R", `${scratch.file("source")}/.`, "."] },
        ...install
      },
      update: { first: "1 hour" },
      ...daemon
    }
  })

/** As a command over ssh: without a terminal, and with the input closed. */
const detached = { program: ["setsid", "--wait", "sh", "-c", "exec \"$@\" <&-", "sh", ...Command.treeline] }

const bootstrap = (scratch: Scratch.Scratch) =>
  answer(scratch, ["daemon", "bootstrap"], "DaemonBootstrap", CommandReport.DaemonBootstrap, detached)

const daemon = (scratch: Scratch.Scratch, ...argv: ReadonlyArray<string>) =>
  answer(scratch, ["daemon", ...argv], "DaemonOutcome", CommandReport.DaemonOutcome)

const update = (scratch: Scratch.Scratch, code = 0) =>
  answer(scratch, ["daemon", "update"], "DaemonUpdate", CommandReport.DaemonUpdate, { ...detached, code })

const statusOf = (scratch: Scratch.Scratch, code = 0) =>
  answer(scratch, ["daemon", "status"], "DaemonStatus", CommandReport.DaemonStatus, { code })

const log = (scratch: Scratch.Scratch): string => {
  const file = scratch.file(".treeline/updater.log")
  return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : ""
}

const nothingLeft = (scratch: Scratch.Scratch) =>
  Effect.gen(function*() {
    yield* scratch.awaitNoneLiving()
    yield* eventually("no process is left", () => processesOf(scratch).length === 0, {
      detail: () => processesOf(scratch)
    })
    assert.deepStrictEqual(
      fs.readdirSync(scratch.file(".treeline")).filter((name) => !/\.(err|log)(\.\w+)?$/.test(name)).toSorted(),
      fs.existsSync(scratch.file(".treeline/update.json")) ? ["install", "update.json"] : ["install"]
    )
  })

describe("a managed install", () => {
  real("bootstrap twice; restart leaves the updater, stop leaves nothing", (scratch) =>
    Effect.gen(function*() {
      publish(scratch, "1.0.0")
      configure(scratch)
      const missing = yield* failure(scratch, ["daemon", "start"], 1)
      assert.include(missing.message, "treeline daemon bootstrap")
      const first = yield* bootstrap(scratch)
      assert.deepStrictEqual(
        [first.status, first.install.status, first.install.version, first.daemon.status, first.updater.status],
        ["bootstrapped", "fetched", "1.0.0", "started", "started"]
      )
      const running = yield* statusOf(scratch)
      assert.deepStrictEqual([running.pid, running.updater?.pid], [first.daemon.pid, first.updater.pid])
      assert.strictEqual(running.program, path.join(first.install.folder, "versions", first.install.current, "bin/app"))
      assert.strictEqual(running.program, first.install.program)

      const second = yield* bootstrap(scratch)
      assert.deepStrictEqual(second, {
        ...first,
        status: "alreadyBootstrapped",
        install: { ...first.install, status: "present" },
        daemon: { ...first.daemon, status: "alreadyRunning" },
        updater: { ...first.updater, status: "alreadyRunning" },
        milliseconds: second.milliseconds
      })
      const again = yield* daemon(scratch, "start")
      assert.deepStrictEqual([again.status, again.pid, again.updater], [
        "alreadyRunning",
        first.daemon.pid,
        first.updater.pid
      ])
      const restarted = yield* daemon(scratch, "restart")
      assert.deepStrictEqual([restarted.status, restarted.updater], ["restarted", first.updater.pid])
      assert.notStrictEqual(restarted.pid, first.daemon.pid)

      // What is in its own folder is what it was started from, also when the link is switched later.
      const stopped = yield* daemon(scratch, "stop")
      assert.deepStrictEqual([stopped.status, stopped.pid, stopped.updater], [
        "stopped",
        restarted.pid,
        first.updater.pid
      ])
      yield* nothingLeft(scratch)
      const started = yield* daemon(scratch, "start")
      assert.isNotNull(started.updater)
      yield* daemon(scratch, "stop")
      yield* nothingLeft(scratch)
    }))

  real(
    "refused before anything is ended: no program, one that does not answer, a fetch that fails",
    (scratch) =>
      Effect.gen(function*() {
        publish(scratch, "1.0.0")
        const reasonOf = (argv: ReadonlyArray<string>, code: number) =>
          Effect.map(failure(scratch, argv, code), ({ error, message }) => {
            assert.notInclude(message, "at Object")
            return "reason" in error ? `${error._tag} ${error.reason}` : error._tag
          })
        configure(scratch, {}, { fetch: { command: "sh", args: ["-c", "echo no network >&2; exit 7"] } })
        assert.strictEqual(yield* reasonOf(["daemon", "bootstrap"], 1), "UpdateFetchFailed Exited")
        configure(scratch, {}, { program: "bin/other" })
        assert.strictEqual(yield* reasonOf(["daemon", "bootstrap"], 1), "ManagedProgramUnusable Missing")
        assert.strictEqual((yield* statusOf(scratch, 3)).status, "notRunning")
        configure(scratch)
        publish(scratch, "of nothing")
        assert.strictEqual(yield* reasonOf(["daemon", "bootstrap"], 1), "ManagedProgramUnusable NoVersion")
        publish(scratch, "1.0.0")
        const { daemon: { pid }, install } = yield* bootstrap(scratch)
        fs.chmodSync(install.program, 0o644)
        assert.strictEqual(yield* reasonOf(["daemon", "restart"], 1), "ManagedProgramUnusable NotExecutable")
        assert.strictEqual(yield* reasonOf(["daemon", "bootstrap"], 1), "ManagedProgramUnusable NotExecutable")
        assert.strictEqual(
          yield* reasonOf(["set", "daemon.stopWithin", "9 seconds"], 1),
          "ManagedProgramUnusable NotExecutable"
        )
        assert.strictEqual((yield* statusOf(scratch)).pid, pid)
        yield* daemon(scratch, "stop")
        yield* nothingLeft(scratch)
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        for (const verb of ["bootstrap", "update"]) {
          assert.strictEqual(yield* reasonOf(["daemon", verb], 2), "UsageError")
        }
      })
  )

  real(
    "C14, C15: an update through the command, nothing new, a version that does not hold, and the kill switch",
    (scratch) =>
      Effect.gen(function*() {
        publish(scratch, "1.0.0")
        configure(scratch, { update: { first: "1 hour", validateWithin: "5 seconds" } })
        const first = yield* bootstrap(scratch)
        assert.strictEqual((yield* update(scratch)).status, "noUpdate")
        publish(scratch, "1.1.0")
        const updated = yield* update(scratch)
        assert.deepStrictEqual([updated.status, updated.version, updated.restarted], ["updated", "1.1.0", true])
        const running = yield* statusOf(scratch)
        assert.strictEqual(running.pid, updated.pid)
        assert.notStrictEqual(running.pid, first.daemon.pid)
        assert.include(running.program!, updated.current!)

        publish(scratch, "1.2.0", "echo it is broken >&2; exit 9")
        const back = yield* update(scratch, 1)
        assert.deepStrictEqual([back.status, back.current], ["rolledBack", updated.current])
        const after = yield* statusOf(scratch)
        assert.deepStrictEqual([after.status, after.answers, after.program], ["running", true, running.program])
        assert.strictEqual(after.updater?.last?.status, "rolledBack")

        yield* answer(
          scratch,
          ["set", "daemon.update.enabled", "false"],
          "SettingChange",
          CommandReport.SettingChange
        )
        publish(scratch, "1.3.0")
        assert.strictEqual((yield* update(scratch)).status, "disabled")
        assert.strictEqual((yield* statusOf(scratch)).pid, after.pid)
        yield* daemon(scratch, "stop")
        yield* scratch.awaitNoneLiving()
      })
  )

  real(
    "C6: a setting of the updater restarts the updater only, and switches it off and on",
    (scratch) =>
      Effect.gen(function*() {
        publish(scratch, "1.0.0")
        configure(scratch)
        const first = yield* bootstrap(scratch)
        const set = (...argv: ReadonlyArray<string>) =>
          answer(scratch, ["set", ...argv], "SettingChange", CommandReport.SettingChange)
        const changed = yield* set("daemon.update.interval", "2 hours")
        assert.isNull(changed.daemon)
        assert.isNotNull(changed.updater)
        assert.notStrictEqual(changed.updater, first.updater.pid)
        assert.isUndefined(identify(first.updater.pid!))
        const command = processesOf(scratch).find(({ pid }) => pid === changed.updater)?.command
        assert.include(command, "daemon updater --config")
        assert.isNull((yield* set("daemon.update.enabled", "false")).updater)
        assert.isNull((yield* statusOf(scratch)).updater?.pid ?? null)
        assert.isNotNull((yield* set("--remove", "daemon.update.enabled")).updater)
        assert.strictEqual((yield* statusOf(scratch)).pid, first.daemon.pid)
        yield* daemon(scratch, "stop")
        yield* scratch.awaitNoneLiving()
      })
  )

  real(
    "C10: the updater updates by itself, and then becomes its new version in the same process",
    (scratch) =>
      Effect.gen(function*() {
        publish(scratch, "1.0.0")
        configure(scratch, { update: { first: "500 millis", interval: "1 second", jitter: 0 } })
        const first = yield* bootstrap(scratch)
        publish(scratch, "1.1.0")
        const versions = path.join(first.install.folder, "versions")
        const commandOf = (pid: number | null) =>
          processesOf(scratch).find((process) => process.pid === pid)?.command ?? ""
        yield* eventually("the updater is another program", () => {
          const command = commandOf(first.updater.pid)
          return command.includes("daemon updater") && fs.readdirSync(versions).length === 2 &&
            log(scratch).includes("updated to 1.1.0") && log(scratch).split(" updates ").length === 3
        }, { within: 30_000, detail: () => [processesOf(scratch), log(scratch)] })
        const running = yield* statusOf(scratch)
        assert.deepStrictEqual([running.updater.status, running.updater.pid], ["running", first.updater.pid])
        assert.notInclude(running.program!, first.install.current)
        assert.include(running.program!, versions)
        yield* daemon(scratch, "stop")
        yield* nothingLeft(scratch)
      })
  )
})
