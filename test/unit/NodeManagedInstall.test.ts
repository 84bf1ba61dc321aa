/** A managed install on a disk: versions are there whole or not at all, and one of them is current. */
import { assert, describe, it } from "@effect/vitest"
import type { ManagedInstall } from "@treeline/core/daemon"
import { UpdateFetchFailed } from "@treeline/core/Errors"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import { NodeManagedInstall } from "@treeline/platform-node"
import { Deferred, Effect, Exit, Fiber, Option, type Scope } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { Table } from "../support/MemoryFolder.ts"

const posix = process.platform !== "win32"

const make = (pointer?: "link" | "file") =>
  Effect.gen(function*() {
    const base = yield* Effect.acquireRelease(
      Effect.sync(() => fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), "treeline-install-"))),
      (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
    )
    const directory = path.join(base, "install")
    const table = new Table()
    const of = (pid: number) =>
      NodeManagedInstall.make({ directory, self: table.start(pid), platform: table.platform, pointer })
    return { directory, table, of, install: of(10) }
  })

type Content = Readonly<Record<string, string | Uint8Array>>

/** Files by name; those that begin with `#!` may be run. */
const fetch = (content: Content): ManagedInstall.Fetch => (folder) =>
  Effect.sync(() => {
    for (const [name, text] of Object.entries(content)) {
      const file = path.join(folder, name)
      fs.mkdirSync(path.dirname(file), { recursive: true })
      fs.writeFileSync(file, text, { mode: text.slice(0, 2) === "#!" ? 0o755 : 0o644 })
    }
  })

const one: Content = { app: "#!/bin/sh\necho 1.0.0\n", "lib/data": "one" }
const two: Content = { app: "#!/bin/sh\necho 2.0.0\n", "lib/data": "two" }

/** No process is needed. */
const test = (name: string, body: Effect.Effect<void, unknown, Scope.Scope | ProcessPlatform>) =>
  it.live(name, () => Effect.scoped(Effect.provideService(body, ProcessPlatform, {} as ProcessPlatform["Service"])))

const namesIn = (folder: string): ReadonlyArray<string> =>
  fs.existsSync(folder) ? fs.readdirSync(folder).toSorted() : []

describe("a managed install", () => {
  for (const pointer of posix ? ["link", "file"] as const : ["file"] as const) {
    test(
      `one version is current, switched in one step by a ${pointer}; two are kept`,
      Effect.gen(function*() {
        const { directory, install } = yield* make(pointer)
        assert.deepStrictEqual(yield* install.current, Option.none())
        const ids: Array<string> = []
        for (const content of [one, two, { ...two, more: "" }]) {
          const { id, path: folder } = yield* install.stage(fetch(content))
          assert.strictEqual(folder, path.join(directory, "versions", id))
          const before = yield* install.current
          assert.notStrictEqual(Option.getOrUndefined(before)?.id, id, "staging switches nothing")
          yield* install.switchTo(id)
          assert.deepStrictEqual(yield* install.current, Option.some({ id, path: folder }))
          ids.push(id)
        }
        assert.deepStrictEqual(yield* install.versions, ids.toSorted())
        assert.deepStrictEqual(yield* install.prune([ids[1]!]), [ids[0]!])
        assert.deepStrictEqual(yield* install.versions, ids.slice(1).toSorted())
        assert.deepStrictEqual(namesIn(directory), ["current", "staging", "versions"])
        assert.deepStrictEqual(namesIn(path.join(directory, "staging")), [])
        const error = yield* Effect.flip(install.switchTo(ids[0]!))
        assert.match(error.message, /there is no version/)
        assert.strictEqual(Option.getOrThrow(yield* install.current).id, ids[2])
      })
    )
  }

  test(
    "C16: bytes are kept exactly, and equal content is not kept twice",
    Effect.gen(function*() {
      const { install } = yield* make()
      const bytes = Uint8Array.from({ length: 3 * 1024 * 1024 }, (_, at) => (at * 7 + (at >> 8)) & 255)
      const first = yield* install.stage(fetch({ data: bytes }))
      assert.isTrue(fs.readFileSync(path.join(first.path, "data")).equals(bytes))
      fs.utimesSync(path.join(first.path, "data"), 1, 1)
      const { ino } = fs.statSync(first.path)
      const second = yield* install.stage(fetch({ data: bytes }))
      assert.deepStrictEqual(second, first)
      assert.strictEqual(fs.statSync(second.path).ino, ino)
    })
  )

  test(
    "its id is of names, kinds, permission to run, links and bytes, not of times",
    Effect.gen(function*() {
      const { install } = yield* make()
      const files = (more: (folder: string) => void = () => {}): ManagedInstall.Fetch => (folder) =>
        Effect.andThen(fetch(one)(folder), Effect.sync(() => more(folder)))
      const variants: ReadonlyArray<(folder: string) => void> = [
        () => {},
        (folder) => fs.renameSync(path.join(folder, "lib/data"), path.join(folder, "lib/date")),
        (folder) => fs.mkdirSync(path.join(folder, "empty")),
        (folder) => fs.writeFileSync(path.join(folder, "empty"), ""),
        (folder) => fs.appendFileSync(path.join(folder, "lib/data"), "\0"),
        ...posix
          ? [
            (folder: string) => fs.chmodSync(path.join(folder, "lib/data"), 0o755),
            (folder: string) => fs.symlinkSync("lib/data", path.join(folder, "empty")),
            (folder: string) => fs.symlinkSync("lib/date", path.join(folder, "empty"))
          ]
          : []
      ]
      const ids = yield* Effect.forEach(
        variants,
        (variant) => Effect.map(install.stage(files(variant)), ({ id }) => id)
      )
      assert.strictEqual(new Set(ids).size, variants.length)
      const touched = yield* install.stage(files((folder) => fs.utimesSync(path.join(folder, "app"), 5, 5)))
      assert.strictEqual(touched.id, ids[0])
    })
  )

  test(
    "a fetch that fails, is given up or leaves nothing keeps nothing",
    Effect.gen(function*() {
      const { directory, install } = yield* make()
      const failed = new UpdateFetchFailed({
        command: "fetch",
        reason: "Failed",
        status: null,
        within: null,
        detail: "no network",
        outputTail: ""
      })
      const half: ManagedInstall.Fetch = (folder) => Effect.andThen(fetch(one)(folder), Effect.fail(failed))
      assert.strictEqual(yield* Effect.flip(install.stage(half)), failed)
      assert.match((yield* Effect.flip(install.stage(() => Effect.void))).message, /nothing was fetched/)
      const fiber = yield* Effect.forkChild(
        install.stage((folder) => Effect.andThen(fetch(one)(folder), Effect.never)),
        { startImmediately: true }
      )
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* install.versions, [])
      assert.deepStrictEqual(namesIn(path.join(directory, "staging")), [])
    })
  )

  test(
    "what a dead process has left is removed by the next one, what a living one does is not",
    Effect.gen(function*() {
      const { directory, install, of, table } = yield* make()
      const dies = of(20)
      const lives = of(30)
      const begin = (other: ManagedInstall.ManagedInstall) =>
        Effect.gen(function*() {
          const begun = yield* Deferred.make<void>()
          yield* Effect.forkScoped(other.stage(() => Effect.andThen(Deferred.succeed(begun, undefined), Effect.never)))
          yield* Deferred.await(begun)
        })
      yield* begin(dies)
      yield* begin(lives)
      const staging = path.join(directory, "staging")
      // One that died before it had said who it is, and one in the middle of a switch.
      fs.mkdirSync(path.join(staging, `40-${"a".repeat(32)}`))
      fs.writeFileSync(path.join(directory, `current.40-${"a".repeat(32)}.new`), "")
      const identity = JSON.parse(
        fs.readFileSync(
          path.join(staging, namesIn(staging).find((name) => name.startsWith("20-"))!, "owner.json"),
          "utf8"
        )
      )
      table.end(identity)
      const { id } = yield* install.stage(fetch(two))
      yield* install.switchTo(id)
      assert.deepStrictEqual(namesIn(staging).map((name) => name.split("-", 1)[0]), ["30"])
      assert.deepStrictEqual(namesIn(directory), ["current", "staging", "versions"])
    })
  )

  test(
    "a switch that dies in the middle leaves what was current",
    Effect.gen(function*() {
      const { directory, install } = yield* make()
      const first = yield* install.stage(fetch(one))
      const second = yield* install.stage(fetch(two))
      yield* install.switchTo(first.id)
      // What is there between the two steps of a switch.
      fs.symlinkSync(path.join("versions", second.id), path.join(directory, `current.40-${"b".repeat(32)}.new`))
      assert.strictEqual(Option.getOrThrow(yield* install.current).id, first.id)
      yield* install.sweep
      assert.deepStrictEqual(namesIn(directory), ["current", "staging", "versions"])
    })
  )

  test(
    "a current that is no link of the install is told, and what to do",
    Effect.gen(function*() {
      const { directory, install } = yield* make()
      const { id, path: folder } = yield* install.stage(fetch(one))
      const current = path.join(directory, "current")
      fs.writeFileSync(current, "../../elsewhere\n")
      assert.match((yield* Effect.flip(install.current)).message, /does not lead to a version .*; remove it/)
      yield* install.switchTo(id)
      fs.rmSync(folder, { recursive: true })
      assert.match((yield* Effect.flip(install.current)).message, /which is not there; remove it/)
    })
  )

  test(
    "the program of a version is a regular file inside it that may be run",
    Effect.gen(function*() {
      const { install } = yield* make()
      const { id, path: folder } = yield* install.stage(fetch({ ...one, "bin/app": "#!/bin/sh\n" }))
      const reason = (program: string) =>
        Effect.map(
          Effect.flip(install.locate(id, program)),
          (error) => error._tag === "ManagedProgramUnusable" && error.reason
        )
      assert.strictEqual(yield* install.locate(id, "bin/app"), path.join(folder, "bin", "app"))
      assert.strictEqual(yield* reason("bin/none"), "Missing")
      assert.strictEqual(yield* reason("app/none"), "Missing")
      assert.strictEqual(yield* reason("lib"), "NotExecutable")
      for (const outside of ["", ".", "..", "../../current", "/bin/sh", "bin/../../x"]) {
        assert.strictEqual(yield* reason(outside), "Outside", outside)
      }
      if (posix) {
        assert.strictEqual(yield* reason("lib/data"), "NotExecutable")
        fs.symlinkSync("bin/app", path.join(folder, "inside"))
        fs.symlinkSync("/bin/sh", path.join(folder, "outside"))
        assert.strictEqual(yield* install.locate(id, "inside"), path.join(folder, "bin", "app"))
        assert.strictEqual(yield* reason("outside"), "Outside")
      }
      assert.deepStrictEqual(install.versionOf(path.join(folder, "bin", "app")), Option.some(id))
      assert.deepStrictEqual(install.versionOf(folder), Option.none())
      assert.deepStrictEqual(install.versionOf("/bin/sh"), Option.none())
    })
  )

  it.live.skipIf(!posix)(
    "nothing is done in a folder that others may enter",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const { directory, install } = yield* make()
        fs.mkdirSync(directory, { mode: 0o777 })
        fs.chmodSync(directory, 0o777)
        const exit = yield* Effect.exit(install.current)
        assert.isTrue(Exit.isFailure(exit))
        assert.match((yield* Effect.flip(install.switchTo("0".repeat(40)))).message, /may be entered by others/)
      }))
  )
})
