/** A service that goes on without its daemon, on Windows: its host is a process of its own, which is talked to by a port. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as Command from "./support/Command.ts"
import { identify, isAlive, killIfAlive } from "./support/Processes.ts"

describe("a kept service", () => {
  it.live(
    "peer 48: lives on through a restart and a kill of its daemon, and ends with a stop",
    () =>
      Effect.gen(function*() {
        const place = yield* Command.place
        place.configure({
          services: {
            web: { ...place.service("web", "polite"), whenDaemonEnds: "keep" },
            db: place.service("db", "polite")
          }
        })
        const first = yield* Command.changed(place, "start", "--wait", "30s")
        const web = yield* Command.awaitFamily(place, "web")
        const db = yield* Command.awaitFamily(place, "db")
        const restarted = yield* Command.changed(place, "restart", "--wait", "30s")
        assert.deepStrictEqual([restarted.status, restarted.forced], ["restarted", false])
        assert.notStrictEqual(restarted.pid, first.pid)
        yield* Command.awaitFamily(place, "db", 2)
        assert.deepStrictEqual([...web, ...db].map(isAlive), [true, true, false, false])
        killIfAlive(identify(restarted.pid!)!)
        yield* Command.awaitGone(place.family("db"))
        assert.strictEqual((yield* Command.changed(place, "start", "--wait", "30s")).status, "started")
        yield* Command.awaitFamily(place, "db", 3)
        assert.deepStrictEqual(web.map(isAlive), [true, true])
        assert.lengthOf(place.family("web"), 2, "never a second one")
        yield* Command.changed(place, "stop")
        yield* Command.awaitGone([...web, ...place.family("db")])
        assert.deepStrictEqual(fs.readdirSync(place.file(".treeline")).filter((name) => name.endsWith(".json")), [])
      }).pipe(Effect.scoped),
    120_000
  )
})
