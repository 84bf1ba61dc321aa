/** Where things are, for a configuration; and a folder that is this user's only. */
import { assert, describe, it } from "@effect/vitest"
import { StateDirectory } from "@treeline/platform-node"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

const locate = (options: StateDirectory.Options) =>
  StateDirectory.locate({ platform: "linux", environment: { XDG_RUNTIME_DIR: "/run/user/7" }, ...options })

const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "treeline-state-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
)

describe("the state directory", () => {
  it.effect("is beside the configuration file, with the socket in it", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* locate({ file: "/srv/shop/treeline.json" }), {
        directory: "/srv/shop/.treeline",
        control: { _tag: "Socket", path: "/srv/shop/.treeline/control.sock", link: null }
      })
    }))

  it.effect("is where the configuration says, relative to its file", () =>
    Effect.gen(function*() {
      const daemon = { directory: "../state", socket: "run/s.sock" }
      assert.deepStrictEqual(yield* locate({ file: "/srv/shop/treeline.json", daemon }), {
        directory: "/srv/state",
        control: { _tag: "Socket", path: "/srv/shop/run/s.sock", link: null }
      })
      assert.deepStrictEqual(
        (yield* locate({ file: "/srv/shop/treeline.json", daemon: { ...daemon, port: 70 } })).control,
        {
          _tag: "Port",
          port: 70,
          file: "/srv/state/control.json"
        }
      )
    }))

  it.effect("K14: without Unix sockets control is at a port that the system chooses", () =>
    Effect.gen(function*() {
      const { control } = yield* locate({ file: "/srv/shop/treeline.json", platform: "win32" })
      assert.deepStrictEqual(control, { _tag: "Port", port: null, file: "/srv/shop/.treeline/control.json" })
    }))

  it.effect("peer 108: a path that is too long by one byte has a short one in its place, always the same", () =>
    Effect.gen(function*() {
      const at = (bytes: number) => {
        const tail = "/.treeline/control.sock".length
        return `/${"x".repeat(bytes - tail - 1)}/treeline.json`
      }
      for (const [platform, limit] of [["linux", 107], ["darwin", 103], ["freebsd", 103]] as const) {
        const fits = (yield* locate({ file: at(limit), platform })).control
        assert.deepStrictEqual(fits._tag === "Socket" && [fits.path.length, fits.link], [limit, null])
        const long = (yield* locate({ file: at(limit + 1), platform })).control
        assert(long._tag === "Socket" && long.link !== null)
        assert.match(long.path, /^\/run\/user\/7\/treeline-\d+\/[0-9a-f]{32}\.sock$/)
        assert.deepStrictEqual((yield* locate({ file: at(limit + 1), platform })).control, long)
        assert.notDeepEqual((yield* locate({ file: at(limit + 2), platform })).control, long)
        const elsewhere = (yield* locate({ file: at(limit + 1), platform, environment: {} })).control
        assert(elsewhere._tag === "Socket" && elsewhere.path.startsWith(`${os.tmpdir()}/treeline-`))
      }
    }))

  it.effect("peer 108: bytes are counted, not characters", () =>
    Effect.gen(function*() {
      const { control } = yield* locate({ file: `/${"ü".repeat(50)}/treeline.json` })
      assert(control._tag === "Socket" && control.link !== null)
    }))

  it.effect("peer 108: a path that somebody asked for and that is too long is an error that says so", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        locate({ file: "/srv/treeline.json", daemon: { socket: `/${"x".repeat(107)}` } })
      )
      assert.deepStrictEqual([error._tag, error.field], ["InvalidSpec", "daemon.socket"])
      assert.include(error.problem, "107 bytes")
    }))
})

describe.skipIf(process.getuid === undefined)("the folder", () => {
  it.effect("peer 107: is made with the mode 0700, also under an umask that would leave more", () =>
    Effect.gen(function*() {
      const base = yield* folder
      const directory = path.join(base, "a", "b")
      const umask = process.umask(0)
      yield* Effect.addFinalizer(() => Effect.sync(() => process.umask(umask)))
      yield* StateDirectory.make(directory)
      for (const made of [directory, path.dirname(directory)]) assert.strictEqual(fs.statSync(made).mode & 0o777, 0o700)
      yield* StateDirectory.make(directory)
    }))

  it.effect("peer 107: is refused when others may enter it, when it is a link, and when it is none; and not changed", () =>
    Effect.gen(function*() {
      const base = yield* folder
      const problemOf = (name: string) =>
        Effect.map(Effect.flip(StateDirectory.make(path.join(base, name))), ({ problem }) => problem)
      fs.mkdirSync(path.join(base, "open"))
      fs.chmodSync(path.join(base, "open"), 0o710)
      assert.include(yield* problemOf("open"), "may be entered by others (mode 710)")
      assert.strictEqual(fs.statSync(path.join(base, "open")).mode & 0o777, 0o710)
      yield* StateDirectory.make(path.join(base, "own"))
      fs.symlinkSync(path.join(base, "own"), path.join(base, "link"))
      assert.include(yield* problemOf("link"), "is a symbolic link")
      fs.writeFileSync(path.join(base, "file"), "")
      assert.include(yield* problemOf("file"), "is no folder")
      assert.include(yield* problemOf("file/below"), "can't be made: E")
    }))

  it.effect.skipIf(process.getuid?.() !== 0)(
    "peer 107: is refused when it is somebody else's",
    () =>
      Effect.gen(function*() {
        const directory = path.join(yield* folder, "foreign")
        fs.mkdirSync(directory, { mode: 0o700 })
        fs.chownSync(directory, 65534, 65534)
        const { problem } = yield* Effect.flip(StateDirectory.make(directory))
        assert.include(problem, "belongs to another user (uid 65534)")
      })
  )
})
