/**
 * A managed install on Windows through the commands. Its program is Node itself, which runs what lies beside the
 * configuration as `daemon.js`: treeline. So it answers `--version`, and its process is the daemon.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { CommandReport } from "treeline"
import { eventually } from "../support/Eventually.ts"
import * as Command from "./support/Command.ts"
import { identify, isAlive, killIfAlive } from "./support/Processes.ts"

const program = "bin\\app.exe"

/** Each version is the same program with another file beside it. */
const fetch = `const fs = require("node:fs")
fs.mkdirSync("bin")
fs.copyFileSync(process.execPath, "bin/app.exe")
fs.copyFileSync(process.argv[1], "published")`

const publish = (place: Command.Place, what: string): void => {
  fs.writeFileSync(place.file("next"), what)
  fs.renameSync(place.file("next"), place.file("published"))
}

describe("a managed install", () => {
  it.live(
    "C22, C28: bootstrap, an update by the updater, which hands over to its new version, and a stop of both",
    () =>
      Effect.gen(function*() {
        const place = yield* Command.place
        publish(place, "1")
        fs.writeFileSync(
          place.file("daemon.js"),
          `process.argv = [process.argv[0], ${JSON.stringify(Command.command)}, "daemon", ...process.argv.slice(2)]
        import(${JSON.stringify(pathToFileURL(Command.command).href)})`
        )
        place.configure({
          services: { web: place.service("web", "polite") },
          daemon: {
            install: { program, fetch: { command: process.execPath, args: ["-e", fetch, place.file("published")] } },
            update: { first: "1 hour" }
          }
        })
        const asked = Command.asked(CommandReport.DaemonBootstrap)
        const first = yield* asked(place, ["daemon", "bootstrap", "--wait", "30s"])
        assert.deepStrictEqual(
          [first.status, first.install.status, first.daemon.status, first.updater.status],
          ["bootstrapped", "fetched", "started", "started"]
        )
        assert.isTrue(first.install.program.endsWith(program))
        const old = [first.daemon.pid!, first.updater.pid!].map((pid) => identify(pid)!)
        yield* Effect.addFinalizer(() => Effect.sync(() => old.forEach(killIfAlive)))
        const status = yield* Command.statusOf(place, 0)
        assert.deepStrictEqual([status.program, status.updater.pid], [first.install.program, first.updater.pid])

        yield* Command.awaitFamily(place, "web")
        publish(place, "2")
        const updated = yield* Command.asked(CommandReport.DaemonUpdate)(place, ["daemon", "update"])
        assert.strictEqual(updated.status, "updated")
        const second = yield* Command.statusOf(place, 0)
        assert.notStrictEqual(second.pid, first.daemon.pid)
        assert.notStrictEqual(second.program, first.install.program)
        assert.deepStrictEqual(old.map(isAlive), [false, false], "the updater is of the new version, too")
        assert.notInclude([null, first.updater.pid], second.updater.pid)
        yield* Command.awaitFamily(place, "web", 2)

        // From now on it looks each second. It is of another version than what is current.
        publish(place, "3")
        yield* Command.asked(CommandReport.SettingChange)(place, ["set", "daemon.update.first", "1 second"])
        const found = yield* eventually("its new version goes on", () => {
          const log = fs.readFileSync(place.file(".treeline/updater.log"), "utf8")
          return log.includes("another version goes on") && log
        }, { within: 60_000, detail: () => fs.readFileSync(place.file(".treeline/updater.log"), "utf8") })
        assert.include(found, "updated")
        const third = yield* Command.statusOf(place, 0)
        assert.notStrictEqual(third.pid, second.pid)
        const updater = identify(third.updater.pid!)!
        const install = path.join(place.file(".treeline"), "install")
        assert.strictEqual(
          third.program,
          path.join(install, "versions", fs.readFileSync(path.join(install, "current"), "utf8").trim(), program)
        )

        const stopped = yield* Command.changed(place, "stop")
        assert.deepStrictEqual([stopped.status, stopped.pid, stopped.updater], ["stopped", third.pid, updater.pid])
        assert.isFalse(isAlive(updater))
        yield* Command.awaitGone(place.family("web"))
      }).pipe(Effect.scoped),
    180_000
  )
})
