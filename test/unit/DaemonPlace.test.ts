/** Where a daemon is remembered whose folder is not the usual one. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as DaemonPlace from "../../packages/treeline/src/internal/DaemonPlace.ts"

describe("a folder that is remembered", () => {
  it.effect("each configuration has its own; one that is back in the usual folder, or has gone, has none", () =>
    Effect.gen(function*() {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "treeline-place-")))),
        (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true }))
      )
      const [one, other] = ["one.json", "other.json"].map((name) => path.join(folder, name)) as [string, string]
      for (const file of [one, other]) fs.writeFileSync(file, "{}")
      const usual = path.join(folder, ".treeline")
      const kept = (): unknown => JSON.parse(fs.readFileSync(path.join(usual, "place.json"), "utf8"))
      yield* DaemonPlace.remember(one, usual)
      assert.isFalse(fs.existsSync(usual), "nothing is made for the usual one")
      yield* DaemonPlace.remember(one, "/srv/a")
      yield* DaemonPlace.remember(other, "/srv/b")
      assert.deepStrictEqual(kept(), { [one]: "/srv/a", [other]: "/srv/b" })
      yield* DaemonPlace.remember(one, usual)
      assert.deepStrictEqual(kept(), { [other]: "/srv/b" })
      fs.rmSync(other)
      yield* DaemonPlace.remember(one, "/srv/c")
      assert.deepStrictEqual(kept(), { [one]: "/srv/c" })
    }).pipe(Effect.scoped))
})
