/** The state folder on a disk: what is in it is believed only where nobody else can have put it there. */
import { assert, describe, it } from "@effect/vitest"
import { NodeStateFolder, StateDirectory } from "@treeline/platform-node"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

const base = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "treeline-folder-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
)

/** A folder with a file in it that somebody has planted. */
const planted = (directory: string) => {
  fs.mkdirSync(path.join(directory, "daemon"), { recursive: true, mode: 0o700 })
  fs.writeFileSync(path.join(directory, "daemon", "9.json"), "planted")
}

describe.skipIf(process.getuid === undefined)("the state folder", () => {
  const places: Readonly<Record<string, [prepare: (directory: string) => void, problem: string]>> = {
    "is a symbolic link": [
      (directory) => {
        planted(`${directory}-of-another`)
        fs.symlinkSync(`${directory}-of-another`, directory)
      },
      "is a symbolic link"
    ],
    "others may write to": [
      (directory) => {
        planted(directory)
        fs.chmodSync(directory, 0o770)
      },
      "may be entered by others (mode 770): make it 0700"
    ],
    "others may only enter": [
      (directory) => {
        planted(directory)
        fs.chmodSync(directory, 0o711)
      },
      "may be entered by others (mode 711): make it 0700"
    ],
    "is somebody else's": [
      (directory) => {
        planted(directory)
        if (process.getuid?.() === 0) fs.chownSync(directory, 65534, 65534)
        else fs.chmodSync(directory, 0o777)
      },
      process.getuid?.() === 0 ? "belongs to another user (uid 65534)" : "may be entered by others"
    ]
  }
  for (const [name, [prepare, problem]] of Object.entries(places)) {
    it.effect(`peer 107: one that ${name} is neither read nor written, and by the same rule as that of control`, () =>
      Effect.gen(function*() {
        const directory = path.join(yield* base, "state")
        prepare(directory)
        const folder = NodeStateFolder.make(directory)
        const refused = [
          folder.list("daemon"),
          folder.read("daemon/9.json"),
          folder.write("daemon/8.json", ""),
          folder.makeFolder("daemon"),
          folder.moveFolder("daemon", "other"),
          folder.replace("daemon/9.json", "9.json"),
          folder.removeFile("daemon/9.json"),
          folder.removeEmptyFolder("daemon")
        ]
        for (const operation of refused) {
          const error = yield* Effect.flip(Effect.asVoid(operation))
          assert.include(error.message, `${directory} ${problem}`)
        }
        assert.strictEqual(fs.readFileSync(path.join(directory, "daemon", "9.json"), "utf8"), "planted")
        assert.deepStrictEqual(fs.readdirSync(path.join(directory, "daemon")), ["9.json"])
        const { problem: told } = yield* Effect.flip(StateDirectory.make(directory))
        assert.include(told, `${directory} ${problem}`)
      }))
  }

  it.effect("is nothing where there is none, and is made with those above it for its user only", () =>
    Effect.gen(function*() {
      const above = path.join(yield* base, "a")
      const umask = process.umask(0)
      yield* Effect.addFinalizer(() => Effect.sync(() => process.umask(umask)))
      const folder = NodeStateFolder.make(path.join(above, "state"))
      assert.deepStrictEqual(yield* folder.list("daemon"), [])
      assert.isUndefined(yield* folder.read("daemon/9.json"))
      assert.isFalse(fs.existsSync(above), "a look makes nothing")
      yield* folder.makeFolder("daemon")
      for (const made of [above, path.join(above, "state"), path.join(above, "state", "daemon")]) {
        assert.strictEqual(fs.statSync(made).mode & 0o777, 0o700)
      }
    }))
})
