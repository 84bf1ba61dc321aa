/** `treeline set` as a process of its own, on daemons with real services. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { CommandReport } from "treeline"
import { answer, failure } from "../support/Answers.ts"
import { eventually } from "../support/Eventually.ts"
import { identify, killIfAlive } from "../support/Processes.ts"
import * as Random from "../support/Random.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"
import * as Up from "../support/Up.ts"

type Test = (scratch: Scratch.Scratch) => Effect.Effect<void, unknown, Scope.Scope>

/** How many commands are killed. */
const deaths = Number(process.env["TREELINE_SETTING_DEATHS"] ?? 2)

const stateFolder = (scratch: Scratch.Scratch): string => scratch.file(".treeline")

const settingsFile = (scratch: Scratch.Scratch, folder = stateFolder(scratch)): string =>
  path.join(folder, "settings.json")

/** The pid in the record of a folder. */
const recorded = (folder: string): number | undefined => {
  try {
    return Number(/^(\d+)-/.exec(fs.readdirSync(path.join(folder, "daemon"))[0]!)?.[1])
  } catch {
    return undefined
  }
}

const real = (name: string, test: Test, limit = 60_000) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const folder of [stateFolder(scratch), scratch.file("elsewhere")]) {
            const pid = recorded(folder)
            const daemon = pid === undefined ? undefined : identify(pid)
            if (daemon !== undefined) killIfAlive(daemon)
          }
        })
      )
      yield* test(scratch)
    }).pipe(Effect.scoped), limit)

/** As a command over ssh: without a terminal, and with the input closed. */
const detached = { program: ["setsid", "--wait", "sh", "-c", "exec \"$@\" <&-", "sh", ...Command.treeline] }

const set = (scratch: Scratch.Scratch, ...argv: ReadonlyArray<string>) =>
  answer(scratch, ["set", ...argv], "SettingChange", CommandReport.SettingChange, detached)

const daemon = (scratch: Scratch.Scratch, ...argv: ReadonlyArray<string>) =>
  answer(scratch, ["daemon", ...argv], "DaemonOutcome", CommandReport.DaemonOutcome)

/** The pid of each service, and of the process that runs them. */
const pidsOf = (scratch: Scratch.Scratch): Effect.Effect<Readonly<Record<string, number | string | null>>> =>
  Effect.map(answer(scratch, ["status"], "Status", CommandReport.Status), ({ host, services }) => ({
    host: host.pid,
    ...Object.fromEntries(
      services.map(({ child: { state }, name }) => [name, state._tag === "Ready" ? state.pid : state._tag])
    )
  }))

const settingsIn = (scratch: Scratch.Scratch): unknown =>
  fs.existsSync(settingsFile(scratch)) ? JSON.parse(fs.readFileSync(settingsFile(scratch), "utf8")) : {}

describe("treeline set", () => {
  real(
    "C7, C9, C13: one service is restarted, the others keep their pids; again changes nothing; what can't be used neither",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain"), other: Up.role(scratch, "plain") } })
        const early = yield* set(scratch, "services.web.env.SECRET", "hunter2")
        assert.deepStrictEqual([early.status, early.running, early.services], ["set", false, []])
        assert.strictEqual(fs.statSync(settingsFile(scratch)).mode & 0o777, 0o600)
        yield* daemon(scratch, "start")
        const before = yield* pidsOf(scratch)
        assert.strictEqual(
          fs.readFileSync(`/proc/${before["web"]}/environ`, "utf8").split("\0").includes("SECRET=hunter2"),
          true
        )

        const changed = yield* set(scratch, "services.web.env.SECRET", "hunter3")
        assert.deepStrictEqual([changed.status, changed.services, changed.daemon], ["set", ["web"], null])
        const after = yield* pidsOf(scratch)
        assert.notStrictEqual(after["web"], before["web"])
        assert.deepStrictEqual({ ...after, web: 0 }, { ...before, web: 0 })

        const again = yield* set(scratch, "services.web.env.SECRET", "hunter3")
        assert.deepStrictEqual([again.status, again.services], ["alreadySet", []])
        const kept = fs.readFileSync(settingsFile(scratch), "utf8")
        for (
          const [key, value] of [
            ["services.web.restart.mode", "sometimes"],
            ["daemon.directory", "/elsewhere"],
            ["daemon..x", "1"]
          ] as const
        ) {
          const refused = yield* failure(scratch, ["set", key, value], 2)
          assert.include(["InvalidConfig", "UsageError"], refused.error._tag)
          assert.include(refused.message, key.replace("daemon..x", "path"))
          assert.notInclude(JSON.stringify(refused), "hunter")
        }
        assert.strictEqual(fs.readFileSync(settingsFile(scratch), "utf8"), kept)
        assert.deepStrictEqual(yield* pidsOf(scratch), after)

        // What only the running daemon can tell: the variable is there for the command only.
        const failed = yield* failure(
          scratch,
          ["set", "services.web.env.TOKEN", "{\"fromEnv\":\"ONLY_HERE\"}"],
          1,
          { env: { ONLY_HERE: "hunter2" } }
        )
        assert.isTrue(failed.error._tag === "SettingNotApplied" && failed.error.restored)
        assert.include(failed.message, "expected the variable ONLY_HERE")
        assert.strictEqual(fs.readFileSync(settingsFile(scratch), "utf8"), kept)
        assert.deepStrictEqual(yield* pidsOf(scratch), after)

        const listed = yield* answer(scratch, ["set"], "Settings", CommandReport.Settings)
        assert.deepStrictEqual(listed, {
          file: settingsFile(scratch),
          settings: [{ key: "services.web.env.SECRET", value: "<redacted>" }]
        })
        const explained = yield* Command.run(["config", "--explain"], { scratch, sparesOthers: true })
        assert.match(explained.stdout, /env\.SECRET +"<redacted>" +settings\.json\n/)

        const removed = yield* set(scratch, "--remove", "services.web.env.SECRET")
        assert.deepStrictEqual([removed.status, removed.services], ["removed", ["web"]])
        assert.isFalse(fs.existsSync(settingsFile(scratch)))
        assert.strictEqual((yield* set(scratch, "--remove", "services.web.env.SECRET")).status, "notSet")
        yield* daemon(scratch, "stop")
        yield* scratch.awaitNoneLiving()
      })
  )

  real(
    "a daemon's own value: it is restarted after the old one has ended; what fails puts the old settings back",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        const { pid } = yield* daemon(scratch, "start")
        const changed = yield* set(scratch, "daemon.stopWithin", "30 seconds")
        assert.strictEqual(changed.status, "set")
        assert.notStrictEqual(changed.daemon, pid)
        assert.isUndefined(identify(pid!), "the old one has gone")
        assert.strictEqual(recorded(stateFolder(scratch)), changed.daemon)
        assert.deepStrictEqual((yield* set(scratch, "daemon.stopWithin", "30 seconds")).status, "alreadySet")
        assert.strictEqual(recorded(stateFolder(scratch)), changed.daemon)

        // Where control moves to, it is found.
        const moved = yield* set(scratch, "daemon.socket", scratch.file("run/s"))
        assert.strictEqual((yield* pidsOf(scratch)).host, moved.daemon)
        const back = yield* set(scratch, "--remove", "daemon.socket")

        // Something else is where the socket should be.
        fs.writeFileSync(scratch.file("run/no"), "")
        const failed = yield* failure(scratch, ["set", "daemon.socket", scratch.file("run/no")], 1)
        assert.isTrue(failed.error._tag === "SettingNotApplied" && failed.error.restored, failed.message)
        assert.include(failed.message, "is no socket")
        assert.deepStrictEqual(settingsIn(scratch), { "daemon.stopWithin": "30 seconds" })
        const status = yield* answer(scratch, ["daemon", "status"], "DaemonStatus", CommandReport.DaemonStatus)
        assert.deepStrictEqual([status.status, status.answers], ["running", true])
        assert.notStrictEqual(status.pid, back.daemon)

        // What has no room is told before anything is ended.
        yield* set(scratch, "services.web.env.LONG", "x".repeat(16_300), "--no-restart")
        const long = yield* failure(scratch, ["set", "daemon.port", "1"], 2)
        assert.include(long.message, "would have more than")
        assert.strictEqual(recorded(stateFolder(scratch)), status.pid)
        yield* set(scratch, "--remove", "services.web.env.LONG", "--no-restart")

        // Another configuration in the same folder is left alone.
        fs.writeFileSync(scratch.file("other.json"), fs.readFileSync(scratch.file("treeline.json")))
        for (const argv of [["daemon.stopWithin", "9 seconds"], ["services.web.env.A", "1"]]) {
          const { error } = yield* failure(scratch, ["set", "--config", scratch.file("other.json"), ...argv], 2)
          assert.strictEqual(error._tag, "OtherConfiguration")
        }
        assert.strictEqual(recorded(stateFolder(scratch)), status.pid)

        // One that is asked to end between the stop and the start does both.
        const asked = yield* Command.start(["set", "daemon.stopWithin", "20 seconds"], { scratch, sparesOthers: true })
        yield* eventually("the old one has gone", () => identify(status.pid!) === undefined)
        for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) asked.signal(signal)
        yield* asked.ended
        const next = yield* answer(scratch, ["daemon", "status"], "DaemonStatus", CommandReport.DaemonStatus)
        assert.strictEqual(next.status, "running")
        assert.deepStrictEqual(settingsIn(scratch), { "daemon.stopWithin": "20 seconds" })
        yield* daemon(scratch, "stop")
        yield* scratch.awaitNoneLiving()
      })
  )

  real(
    "the daemon is found where it is although the file says another place by now; a restart moves it",
    (scratch) =>
      Effect.gen(function*() {
        const services = { web: Up.role(scratch, "plain") }
        Up.configure(scratch, { services, daemon: { socket: "run/first.sock" } })
        const { pid } = yield* daemon(scratch, "start")
        Up.configure(scratch, { services, daemon: { socket: "run/other.sock" } })
        assert.deepStrictEqual((yield* set(scratch, "services.web.env.A", "1")).services, ["web"])

        Up.configure(scratch, { services, daemon: { directory: "elsewhere" } })
        for (const argv of [["daemon.stopWithin", "9 seconds"], ["services.web.env.A", "2"]]) {
          const { message } = yield* failure(scratch, ["set", ...argv], 2)
          assert.include(message, "treeline daemon restart")
        }
        assert.strictEqual(recorded(stateFolder(scratch)), pid)
        const moved = yield* daemon(scratch, "restart")
        assert.deepStrictEqual([moved.status, moved.folder], ["restarted", scratch.file("elsewhere")])
        assert.isUndefined(identify(pid!))
        // With the record of a dead one in the usual folder, and a file that can't be read any more.
        fs.cpSync(path.join(scratch.file("elsewhere"), "daemon"), path.join(stateFolder(scratch), "daemon"), {
          recursive: true
        })
        for (const name of fs.readdirSync(path.join(stateFolder(scratch), "daemon"))) {
          const file = path.join(stateFolder(scratch), "daemon", name)
          fs.writeFileSync(file, fs.readFileSync(file, "utf8").replaceAll(String(moved.pid), "4194303"))
          fs.renameSync(file, file.replaceAll(String(moved.pid), "4194303"))
        }
        fs.writeFileSync(scratch.file("treeline.json"), "{ not a configuration")
        assert.strictEqual((yield* daemon(scratch, "stop")).pid, moved.pid)
        yield* scratch.awaitNoneLiving()
      })
  )

  real(
    "a daemon that no command has started is left to who did",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        const own = yield* Command.start(["daemon", "run"], { scratch, sparesOthers: true })
        yield* scratch.awaitNamed("plain")
        yield* daemon(scratch, "start")
        const pid = recorded(stateFolder(scratch))
        const kept = yield* set(scratch, "daemon.stopWithin", "9 seconds")
        assert.deepStrictEqual([kept.status, kept.running, kept.daemon, kept.needsRestart], ["set", true, null, [
          "daemon"
        ]])
        assert.strictEqual(recorded(stateFolder(scratch)), pid)
        own.signal("SIGTERM")
        yield* own.ended
        yield* scratch.awaitNoneLiving()
      })
  )

  real(
    "C31: with settings that can't be read stop and status work, start says what to do",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        const { pid } = yield* daemon(scratch, "start")
        fs.writeFileSync(settingsFile(scratch), "{ \"daemon.stopWithin\": ")
        const status = yield* answer(scratch, ["daemon", "status"], "DaemonStatus", CommandReport.DaemonStatus)
        assert.deepStrictEqual([status.status, status.pid, status.answers], ["running", pid, true])
        assert.strictEqual((yield* daemon(scratch, "stop")).status, "stopped")
        assert.strictEqual((yield* daemon(scratch, "stop")).status, "notRunning")
        yield* answer(scratch, ["daemon", "status"], "DaemonStatus", CommandReport.DaemonStatus, { code: 3 })
        for (
          const argv of [["daemon", "start"], ["set", "daemon.port", "1"]]
        ) {
          const { error, message } = yield* failure(scratch, argv, 2)
          assert.strictEqual(error._tag, "InvalidConfig")
          assert.include(message, `${settingsFile(scratch)}:1:24: `)
          assert.include(message, "put it right or remove the file")
        }
        // A value that can't be used any more is named, and can be taken away.
        fs.writeFileSync(settingsFile(scratch), "{ \"services.gone.cwd\": \"/\", \"daemon.port\": \"x\" }")
        assert.include(
          (yield* failure(scratch, ["daemon", "start"], 2)).message,
          "\"treeline set --remove daemon.port\""
        )
        assert.strictEqual((yield* set(scratch, "--remove", "daemon.port")).status, "removed")
        assert.strictEqual((yield* set(scratch, "--remove", "services.gone.cwd")).status, "removed")
        assert.isFalse(fs.existsSync(settingsFile(scratch)))
      })
  )

  real(
    "C31: a daemon in a folder of its own is found when neither its configuration nor its settings can be read",
    (scratch) =>
      Effect.gen(function*() {
        const elsewhere = scratch.file("elsewhere")
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") }, daemon: { directory: "elsewhere" } })
        yield* set(scratch, "services.web.env.A", "1")
        assert.isTrue(fs.existsSync(settingsFile(scratch, elsewhere)))
        const { pid } = yield* daemon(scratch, "start")
        fs.writeFileSync(settingsFile(scratch, elsewhere), "{")
        fs.writeFileSync(scratch.file("treeline.json"), "{ not a configuration")
        const status = yield* answer(scratch, ["daemon", "status"], "DaemonStatus", CommandReport.DaemonStatus)
        assert.deepStrictEqual([status.status, status.pid, status.answers], ["running", pid, true])
        assert.strictEqual((yield* daemon(scratch, "stop")).pid, pid)
        yield* scratch.awaitNoneLiving()
        assert.strictEqual((yield* failure(scratch, ["daemon", "stop"], 2)).error._tag, "InvalidConfig")
      })
  )

  real(
    "services of treeline up are changed, too; what takes a restart of it is said",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        const up = yield* Up.start(scratch, "web")
        yield* scratch.awaitNamed("plain")
        assert.deepStrictEqual((yield* set(scratch, "services.web.env.A", "1")).services, ["web"])
        const own = yield* set(scratch, "daemon.stopWithin", "5 seconds")
        assert.deepStrictEqual([own.status, own.running, own.daemon, own.needsRestart], ["set", true, null, ["daemon"]])
        up.signal("SIGTERM")
        yield* up.ended
      })
  )

  real(
    `SIGKILL at a random instant: the settings are the old or the new ones, and whole; ${deaths} deaths`,
    (scratch) =>
      Effect.gen(function*() {
        const random = Random.make()
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        yield* daemon(scratch, "start")
        const long = "x".repeat(10_000)
        let value = yield* Effect.as(set(scratch, "services.web.env.A", `0${long}`), `0${long}`)
        const startedAt = performance.now()
        yield* set(scratch, "services.web.env.A", `0${long}`)
        const span = 1.5 * (performance.now() - startedAt)
        for (let death = 1; death <= deaths; death++) {
          const next = `${death}${long}`
          const command = yield* Command.start(["set", "services.web.env.A", next], { scratch, sparesOthers: true })
          const at = performance.now() + random() * span
          yield* eventually("the moment comes", () => performance.now() >= at)
          command.signal("SIGKILL")
          yield* command.ended
          const found = (settingsIn(scratch) as Readonly<Record<string, string>>)["services.web.env.A"]!
          assert.isTrue(found === value || found === next, `seed ${Random.seed}, death ${death}`)
          value = found
        }
        assert.strictEqual((yield* set(scratch, "services.web.env.A", "last")).status, "set")
        const pids = yield* pidsOf(scratch)
        assert.include(fs.readFileSync(`/proc/${pids["web"]}/environ`, "utf8"), "A=last")
        assert.deepStrictEqual(fs.readdirSync(stateFolder(scratch)).filter((name) => /settings|operation/.test(name)), [
          "settings.json"
        ])
        yield* daemon(scratch, "stop")
        yield* scratch.awaitNoneLiving()
      }),
    60_000 + 5000 * deaths
  )
})
