/** `treeline set` on Windows: settings beside the configuration, over the daemon's port. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import { CommandReport } from "treeline"
import * as Command from "./support/Command.ts"
import { isAlive } from "./support/Processes.ts"

describe("treeline set", () => {
  it.live(
    "C7, C9: restarts what it touches, the daemon too, says what is set already, and outlives the daemon",
    () =>
      Effect.gen(function*() {
        const place = yield* Command.place
        const set = (...argv: ReadonlyArray<string>) =>
          Command.asked(CommandReport.SettingChange)(place, ["set", ...argv])
        place.configure({ services: { web: place.service("web", "polite"), db: place.service("db", "polite") } })
        const first = yield* Command.changed(place, "start", "--wait", "30s")
        const db = yield* Command.awaitFamily(place, "db")
        const web = yield* Command.awaitFamily(place, "web")

        const changed = yield* set("services.web.env.COLOUR", "blue")
        assert.deepStrictEqual([changed.status, changed.services, changed.daemon], ["set", ["web"], null])
        yield* Command.awaitFamily(place, "web", 2)
        assert.deepStrictEqual(db.map(isAlive), [true, true])
        assert.deepStrictEqual(web.map(isAlive), [false, false])
        assert.strictEqual((yield* set("services.web.env.COLOUR", "blue")).status, "alreadySet")

        const moved = yield* set("daemon.stopWithin", "30 seconds")
        assert.strictEqual(moved.status, "set")
        assert.notStrictEqual(moved.daemon, first.pid)
        assert.deepStrictEqual(db.map(isAlive), [false, false])
        yield* Command.awaitFamily(place, "web", 3)
        const stopped = yield* Command.changed(place, "stop")
        assert.deepStrictEqual([stopped.pid, stopped.forced], [moved.daemon, false])

        const { settings } = yield* Command.asked(CommandReport.Settings)(place, ["set"])
        assert.deepStrictEqual(settings.map(({ key, value }) => [key, value]), [
          ["services.web.env.COLOUR", "<redacted>"],
          ["daemon.stopWithin", "30 seconds"]
        ])
        fs.writeFileSync(place.file(".treeline/settings.json"), "{ not settings")
        const refused = yield* Command.run(place, "daemon", "start")
        assert.strictEqual(refused.code, 2)
        assert.match(refused.stderr, /settings\.json/)
      }).pipe(Effect.scoped),
    120_000
  )
})
