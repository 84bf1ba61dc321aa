import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ArchiveStore, DirectoryState, Errors } from "@treeline/core"
import { Deferred, Effect, Exit, Fiber, FileSystem, Logger, Option, PlatformError, Scope, Stream } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Directories from "../support/Directories.ts"

const acme = { key: "acme" }

/** A folder for directories and one for archives; each `host` is a host program of its own on them. */
const setUp = Effect.gen(function*() {
  const folder = yield* Directories.temporary
  const directory = path.join(folder, "tenants")
  const archives = path.join(folder, "archives")
  const store = yield* ArchiveStore.fromFileSystem(archives)
  const host = (options: Partial<DirectoryState.Options> = {}) => DirectoryState.make({ directory, store, ...options })
  return { folder, directory, archives, store, host, home: path.join(directory, "acme", "data") }
})

/** One life of a key as a pool lives it: restored, run, saved, gone. */
const life = <A>(state: DirectoryState.DirectoryState, run: () => A, key = "acme") =>
  state.restore({ key }).pipe(Effect.andThen(Effect.sync(run)), Effect.tap(() => state.retire({ key })), Effect.scoped)

/** A life that ends without being saved, as when the host dies: its scope is never closed. */
const cutOff = (state: DirectoryState.DirectoryState, run: () => void) =>
  state.restore(acme).pipe(Scope.provide(Scope.makeUnsafe()), Effect.andThen(Effect.sync(run)))

/** A store that fails until it is repaired. */
const breakable = (store: ArchiveStore.ArchiveStore) => {
  const state = { broken: true, puts: 0 }
  const put: ArchiveStore.ArchiveStore["put"] = (name, archive) => {
    state.puts++
    if (!state.broken) return store.put(name, archive)
    const refused = new Errors.StoreError({ operation: "put", name, detail: "503" })
    return Effect.andThen(Stream.runHead(archive), Effect.fail(refused))
  }
  return { state, store: { ...store, put } satisfies ArchiveStore.ArchiveStore }
}

/** Log messages of an effect. */
const logged = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  const messages: Array<string> = []
  const logger = Logger.make(({ message }) => void messages.push(String(message)))
  return Effect.map(Effect.provide(effect, Logger.layer([logger])), (value) => ({ value, messages }))
}

const write = (file: string, text: string) => () => fs.writeFileSync(file, text)

const readIn = (home: string) => () =>
  Directories.names(home).map((name) => `${name}: ${fs.readFileSync(path.join(home, name), "utf8")}`)

describe("the state of a key", () => {
  it.live("A4: is saved after the end, and its directory is gone", () =>
    Effect.gen(function*() {
      const { archives, directory, home, host } = yield* setUp
      yield* life(yield* host(), write(path.join(home, "orders"), "3"))
      assert.deepStrictEqual(Directories.names(directory), [])
      const listed = child_process.execFileSync("tar", ["tzf", path.join(archives, "acme.tar.gz")], {
        encoding: "utf8"
      })
      assert.deepStrictEqual(listed.split("\n"), ["./", "orders", ""])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("A5: is there again for a new pool, life after life", () =>
    Effect.gen(function*() {
      const { home, host } = yield* setUp
      for (let count = 0; count < 5; count++) {
        const found = yield* life(yield* host(), () => {
          const found = readIn(home)()
          fs.writeFileSync(path.join(home, `file-${count}`), "x")
          return found
        })
        assert.strictEqual(found.length, count)
      }
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("is an empty directory at first, for the host's user only", () =>
    Effect.gen(function*() {
      const { directory, home, host } = yield* setUp
      const state = yield* host()
      assert.strictEqual(yield* state.path("acme"), home)
      const modes = yield* life(state, () => [directory, home].map((folder) => fs.statSync(folder).mode & 0o777))
      assert.deepStrictEqual(modes, [0o700, 0o700])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("belongs to its key alone, whatever the key is", () =>
    Effect.gen(function*() {
      const { directory, folder, host } = yield* setUp
      const state = yield* host()
      const keys = ["a", "A", "../archives", "/etc", "", "..", "a/b", "ä", "con", "a.next", "a\0b"]
      for (const key of keys) {
        const file = path.join(yield* state.path(key), "key")
        assert.isTrue(file.startsWith(`${directory}/`), file)
        yield* life(state, write(file, key), key)
      }
      for (const key of keys) {
        const file = path.join(yield* state.path(key), "key")
        assert.strictEqual(yield* life(state, () => fs.readFileSync(file, "utf8"), key), key)
      }
      assert.deepStrictEqual(fs.readdirSync(folder).toSorted(), ["archives", "tenants"])
      const error = yield* Effect.flip(state.path("x".repeat(201)))
      assert.deepInclude(error, { _tag: "InvalidSpec", field: "key" })
      assert.strictEqual((yield* Effect.flip(life(state, () => {}, "x".repeat(201))))._tag, "InvalidSpec")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("is saved and restored by so many at once as are allowed", () =>
    Effect.gen(function*() {
      const { directory, host, store } = yield* setUp
      let running = 0
      let most = 0
      const counted = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.acquireUseRelease(
          Effect.sync(() => most = Math.max(most, ++running)),
          () => effect,
          () => Effect.sync(() => running--)
        )
      const state = yield* host({
        concurrency: 3,
        store: { ...store, put: (name, archive) => counted(store.put(name, archive)) }
      })
      const keys = Array.from({ length: 20 }, (_, index) => String(index))
      for (let round = 0; round < 2; round++) {
        yield* Effect.forEach(keys, (key) => life(state, () => {}, key), { concurrency: "unbounded" })
      }
      assert.strictEqual(most, 3)
      assert.deepStrictEqual(Directories.names(directory), [])
      for (const concurrency of [0, 1.5, Number.NaN]) {
        assert.deepInclude(yield* Effect.flip(host({ concurrency })), { _tag: "InvalidSpec", field: "concurrency" })
      }
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("leaves out what is excluded, and keeps to its limits", () =>
    Effect.gen(function*() {
      const { home, host } = yield* setUp
      const state = yield* host({ exclude: (name) => name === "cache", limits: { bytes: 10 } })
      yield* life(state, () =>
        Directories.write(home, { "cache/a": { content: "x".repeat(100) }, "b": { content: "1" } }))
      assert.deepStrictEqual(yield* life(state, readIn(home)), ["b: 1"])
      const error = yield* Effect.flip(life(state, write(path.join(home, "b"), "x".repeat(11))))
      assert.deepInclude(error, { _tag: "ArchiveError", reason: "TooLarge", entry: "b" })
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("state that can't be saved", () => {
  it.live("stays while saving is tried again, and goes when it succeeds", () =>
    Effect.gen(function*() {
      const { directory, home, host, store } = yield* setUp
      const broken = breakable(store)
      const state = yield* host({ store: broken.store })
      const scope = yield* Scope.make()
      yield* Scope.provide(state.restore(acme), scope)
      write(path.join(home, "orders"), "3")()
      for (let attempt = 0; attempt < 3; attempt++) {
        const error = yield* Effect.flip(state.retire(acme))
        assert.strictEqual(error.message, "acme was not stored: 503")
        assert.deepStrictEqual(readIn(home)(), ["orders: 3"])
      }
      broken.state.broken = false
      yield* state.retire(acme)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(Directories.names(directory), [])
      assert.deepStrictEqual(yield* life(state, readIn(home)), ["orders: 3"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("is what the next life begins with when the host died before", () =>
    Effect.gen(function*() {
      const { home, host, store } = yield* setUp
      yield* life(yield* host(), write(path.join(home, "orders"), "1"))
      const broken = yield* host({ store: breakable(store).store })
      yield* cutOff(broken, write(path.join(home, "orders"), "2"))
      yield* Effect.flip(broken.retire(acme))
      const { messages, value } = yield* logged(Effect.flatMap(host(), (state) => life(state, readIn(home))))
      assert.deepStrictEqual(value, ["orders: 2"])
      assert.deepStrictEqual(messages, [])
      assert.deepStrictEqual(yield* life(yield* host(), readIn(home)), ["orders: 2"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("is not removed by a next life that never gets ready", () =>
    Effect.gen(function*() {
      const { home, host } = yield* setUp
      yield* cutOff(yield* host(), write(path.join(home, "orders"), "2"))
      const state = yield* host()
      for (let attempt = 0; attempt < 3; attempt++) {
        yield* Effect.scoped(state.restore(acme))
        assert.deepStrictEqual(readIn(home)(), ["orders: 2"])
      }
      assert.deepStrictEqual(yield* life(state, readIn(home)), ["orders: 2"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("is not taken for another's when the store had it, and its answer was lost", () =>
    Effect.gen(function*() {
      const { home, host, store } = yield* setUp
      const lost: ArchiveStore.ArchiveStore = {
        ...store,
        put: (name, archive) =>
          Effect.andThen(
            store.put(name, archive),
            Effect.fail(new Errors.StoreError({ operation: "put", name, detail: "no answer" }))
          )
      }
      const dying = yield* host({ store: lost })
      yield* cutOff(dying, write(path.join(home, "orders"), "2"))
      yield* Effect.flip(dying.retire(acme))
      // Nothing arrives any more, and the host dies.
      yield* Effect.flip((yield* host({ store: breakable(store).store })).retire(acme))
      const { messages, value } = yield* logged(Effect.flatMap(host(), (state) => life(state, readIn(home))))
      assert.deepStrictEqual([value, messages], [["orders: 2"], []])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("makes way for what was saved elsewhere since, and is kept aside", () =>
    Effect.gen(function*() {
      const { directory, folder, home, host } = yield* setUp
      yield* life(yield* host(), write(path.join(home, "orders"), "1"))
      yield* cutOff(yield* host(), write(path.join(home, "orders"), "here"))
      const elsewhere = path.join(folder, "elsewhere")
      yield* life(yield* host({ directory: elsewhere }), () => {
        fs.writeFileSync(path.join(elsewhere, "acme/data/orders"), "there")
      })
      const { messages, value } = yield* logged(Effect.flatMap(host(), (state) => life(state, readIn(home))))
      assert.deepStrictEqual(value, ["orders: there"])
      const [aside] = fs.readdirSync(directory)
      assert.match(aside ?? "", /^acme\.aside-/)
      assert.deepStrictEqual(readIn(path.join(directory, aside ?? "", "data"))(), ["orders: here"])
      assert.strictEqual(messages.length, 1)
      assert.include(messages[0], aside)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("is still removed when it is given up", () =>
    Effect.gen(function*() {
      const { directory, home, host, store } = yield* setUp
      yield* cutOff(yield* host(), write(path.join(home, "orders"), "2"))
      const state = yield* host({ store: breakable(store).store })
      const scope = yield* Scope.make()
      yield* Scope.provide(state.restore(acme), scope)
      yield* Effect.flip(state.retire(acme))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(Directories.names(directory), [])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("is kept, and the old archive is, when saving is interrupted in the middle", () =>
    Effect.gen(function*() {
      const { archives, home, host, store } = yield* setUp
      yield* life(yield* host(), write(path.join(home, "orders"), "1"))
      const half = yield* Deferred.make<void>()
      const stalling: ArchiveStore.ArchiveStore = {
        ...store,
        put: (name, archive) =>
          store.put(
            name,
            Stream.concat(
              Stream.take(archive, 1),
              Stream.fromEffect(Effect.andThen(Deferred.succeed(half, undefined), Effect.never))
            )
          )
      }
      const state = yield* host({ store: stalling })
      yield* cutOff(state, write(path.join(home, "orders"), "2"))
      const before = Directories.openDescriptors()
      const fiber = yield* Effect.forkChild(state.retire(acme))
      yield* Deferred.await(half)
      assert.include(Directories.names(archives), "acme.tar.gz.partial")
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(Directories.openDescriptors(), before)
      assert.deepStrictEqual(Directories.names(archives), ["acme.tar.gz"])
      assert.deepStrictEqual(readIn(home)(), ["orders: 2"])
      assert.deepStrictEqual(yield* life(yield* host(), readIn(home)), ["orders: 2"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("fails when the child has removed its directory, and the archive is kept", () =>
    Effect.gen(function*() {
      const { home, host } = yield* setUp
      yield* life(yield* host(), write(path.join(home, "orders"), "1"))
      const error = yield* Effect.flip(life(yield* host(), () => fs.rmSync(home, { recursive: true })))
      assert.deepInclude(error, { _tag: "ArchiveError", reason: "Unreadable", entry: "" })
      assert.deepStrictEqual(yield* life(yield* host(), readIn(home)), ["orders: 1"])
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("state that can't be restored", () => {
  it.live("fails for a damaged archive, and nothing starts from nothing", () =>
    Effect.gen(function*() {
      const { archives, directory, home, host } = yield* setUp
      yield* life(yield* host(), write(path.join(home, "orders"), "1".repeat(1000)))
      const file = path.join(archives, "acme.tar.gz")
      fs.truncateSync(file, fs.statSync(file).size - 4)
      const error = yield* Effect.flip(life(yield* host(), () => {}))
      assert.deepInclude(error, { _tag: "ArchiveError", reason: "Damaged" })
      assert.deepStrictEqual(Directories.names(directory), [])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("goes on with what an earlier life left where the archive is damaged", () =>
    Effect.gen(function*() {
      const { archives, home, host } = yield* setUp
      yield* life(yield* host(), write(path.join(home, "orders"), "1"))
      yield* cutOff(yield* host(), write(path.join(home, "orders"), "2"))
      fs.writeFileSync(path.join(archives, "acme.tar.gz"), "torn")
      const { messages, value } = yield* logged(Effect.flatMap(host(), (state) => life(state, readIn(home))))
      assert.deepStrictEqual(value, ["orders: 2"])
      assert.strictEqual(messages.length, 1)
      assert.deepStrictEqual(yield* life(yield* host(), readIn(home)), ["orders: 2"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("fails when the store does, and what an earlier life left stays", () =>
    Effect.gen(function*() {
      const { home, host, store } = yield* setUp
      yield* cutOff(yield* host(), write(path.join(home, "orders"), "2"))
      const down: ArchiveStore.ArchiveStore = {
        ...store,
        get: (name) => Effect.fail(new Errors.StoreError({ operation: "get", name, detail: "503" }))
      }
      const error = yield* Effect.flip(life(yield* host({ store: down }), () => {}))
      assert.strictEqual(error.message, "acme was not read from the store: 503")
      assert.deepStrictEqual(readIn(home)(), ["orders: 2"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("leaves nothing behind when it is interrupted, and starts anew", () =>
    Effect.gen(function*() {
      const { directory, home, host, store } = yield* setUp
      yield* life(yield* host(), () => Directories.write(home, { one: { content: "1" }, two: { content: "2" } }))
      const half = yield* Deferred.make<void>()
      const stalling: ArchiveStore.ArchiveStore = {
        ...store,
        get: (name) =>
          Effect.map(
            store.get(name),
            Option.map((archive) =>
              Stream.concat(
                Stream.map(archive, (chunk) => chunk.subarray(0, chunk.length - 20)),
                Stream.fromEffect(Effect.andThen(Deferred.succeed(half, undefined), Effect.never))
              )
            )
          )
      }
      const fiber = yield* Effect.forkChild(life(yield* host({ store: stalling }), () => {}))
      yield* Deferred.await(half)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(Directories.names(directory), [])
      assert.deepStrictEqual(yield* life(yield* host(), readIn(home)), ["one: 1", "two: 2"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("takes no half-made and no half-removed directory for a state", () =>
    Effect.gen(function*() {
      const { directory, home, host } = yield* setUp
      yield* life(yield* host(), write(path.join(home, "orders"), "1"))
      // As a host leaves it that dies while it restores, while it removes, and after its child removed all.
      Directories.write(path.join(directory, "acme.next", "data"), { half: { content: "" } })
      Directories.write(path.join(directory, "acme.last", "data"), { half: { content: "" } })
      Directories.write(path.join(directory, "acme"), { "origin.json": { content: "{" } })
      assert.deepStrictEqual(yield* life(yield* host(), readIn(home)), ["orders: 1"])
      assert.deepStrictEqual(Directories.names(directory), [])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("is not half of a directory that could not be removed", () =>
    Effect.gen(function*() {
      const { directory, home, host } = yield* setUp
      const real = yield* FileSystem.FileSystem
      // Removes one file, and then its host dies.
      const dying: FileSystem.FileSystem = {
        ...real,
        remove: (path, options) =>
          Effect.suspend(() => {
            const one = Directories.names(path).find((name) => name.endsWith("/a"))
            if (one === undefined) return real.remove(path, options)
            fs.rmSync(`${path}/${one}`)
            return Effect.fail(
              PlatformError.systemError({
                _tag: "Unknown",
                module: "FileSystem",
                method: "remove",
                pathOrDescriptor: path
              })
            )
          })
      }
      const state = yield* Effect.provideService(host(), FileSystem.FileSystem, dying)
      const { messages } = yield* logged(
        life(state, () => Directories.write(home, { a: { content: "1" }, b: { content: "2" } }))
      )
      assert.strictEqual(messages.length, 1)
      assert.include(messages[0], "could not be removed")
      assert.deepStrictEqual(yield* life(yield* host(), readIn(home)), ["a: 1", "b: 2"])
      assert.deepStrictEqual(Directories.names(directory), [])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("says where the disk is full", () =>
    Effect.gen(function*() {
      const { directory, home, host } = yield* setUp
      yield* life(yield* host(), write(path.join(home, "orders"), "1"))
      const real = yield* FileSystem.FileSystem
      const full: FileSystem.FileSystem = {
        ...real,
        open: (path, options) =>
          path.endsWith("orders")
            ? Effect.map(real.open("/dev/full", { flag: "w" }), (file) => file)
            : real.open(path, options)
      }
      const state = yield* Effect.provideService(host(), FileSystem.FileSystem, full)
      const error = yield* Effect.flip(life(state, () => {}))
      assert.deepInclude(error, { _tag: "ArchiveError", reason: "Unwritable", entry: "orders" })
      assert.include(error.message, "no space left on device")
      assert.deepStrictEqual(Directories.names(directory), [])
    }).pipe(Effect.provide(NodeServices.layer)))
})
