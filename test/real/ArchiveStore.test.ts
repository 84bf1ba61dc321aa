import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ArchiveStore, type Errors } from "@treeline/core"
import { Deferred, Effect, Fiber, type FileSystem, Layer, Option, type Scope, Stream } from "effect"
import { KeyValueStore } from "effect/persistence"
import * as fs from "node:fs"
import * as http from "node:http"
import type * as net from "node:net"
import * as path from "node:path"
import * as Directories from "../support/Directories.ts"

const bytes = (text: string) => new TextEncoder().encode(text)

const put = (store: ArchiveStore.ArchiveStore, name: string, text: string) =>
  store.put(name, Stream.fromIterable([bytes(text.slice(0, 2)), bytes(text.slice(2))]))

/** What is there, as text. */
const read = (store: ArchiveStore.ArchiveStore, name: string) =>
  Effect.flatMap(store.get(name), (found) =>
    Option.isNone(found)
      ? Effect.undefined
      : Effect.map(Stream.runCollect(found.value), (chunks) => Buffer.concat(chunks).toString()))

type Make = Effect.Effect<
  { readonly store: ArchiveStore.ArchiveStore; readonly left: () => number },
  never,
  Scope.Scope | FileSystem.FileSystem
>

/** A key-value store without promises: it loses the value that is being set when told to. */
const keyValueStore = Effect.map(KeyValueStore.KeyValueStore, (store) => store).pipe(
  Effect.provide(Layer.fresh(KeyValueStore.layerMemory))
)

/** An object store as one over HTTP: PUT and GET. */
const objectServer = Effect.acquireRelease(
  Effect.callback<{ readonly url: string; readonly objects: Map<string, Buffer>; readonly server: http.Server }>(
    (resume) => {
      const objects = new Map<string, Buffer>()
      const server = http.createServer((request, response) => {
        const name = request.url ?? ""
        if (name.endsWith("/broken")) {
          response.writeHead(507).end()
          return
        }
        if (request.method === "GET") {
          const found = objects.get(name)
          response.writeHead(found === undefined ? 404 : 200).end(found)
          return
        }
        const chunks: Array<Buffer> = []
        request.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => {
          objects.set(name, Buffer.concat(chunks))
          response.writeHead(200).end()
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as net.AddressInfo
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, objects, server }))
      })
    }
  ),
  ({ server }) => Effect.sync(() => server.close().closeAllConnections())
)

/** The store at this server. */
const objectStore = (url: string): ArchiveStore.ArchiveStore => {
  const ask = (name: string, init?: RequestInit) =>
    Effect.tryPromise(async (signal) => {
      const response = await fetch(`${url}/bucket/${name}`, { ...init, signal })
      return { status: response.status, body: new Uint8Array(await response.arrayBuffer()) }
    })
  const refused = (status: number) => Effect.fail(new Error(`status ${status}`))
  return ArchiveStore.fromObjects({
    put: (name, body) =>
      Effect.flatMap(
        ask(name, { method: "PUT", body: new Uint8Array(body) }),
        ({ status }) => status === 200 ? Effect.void : refused(status)
      ),
    get: (name) =>
      Effect.flatMap(
        ask(name),
        ({ body, status }) =>
          status === 200 ? Effect.succeed(body) : status === 404 ? Effect.undefined : refused(status)
      )
  })
}

const stores: Record<string, Make> = {
  "a folder": Effect.gen(function*() {
    const folder = path.join(yield* Directories.temporary, "deep", "archives")
    return {
      store: yield* ArchiveStore.fromFileSystem(folder),
      left: () => Directories.names(folder).length
    }
  }),
  "a key-value store": Effect.gen(function*() {
    const kv = yield* keyValueStore
    return { store: ArchiveStore.fromKeyValueStore(kv), left: () => Effect.runSync(Effect.orDie(kv.size)) / 2 }
  }),
  "an object store": Effect.map(objectServer, ({ objects, url }) => ({
    store: objectStore(url),
    left: () => objects.size
  }))
}

for (const [kind, make] of Object.entries(stores)) {
  describe(`${kind} as a store`, () => {
    it.live("gives back what was put last, and nothing under other names", () =>
      Effect.gen(function*() {
        const { left, store } = yield* make
        assert.isUndefined(yield* read(store, "acme"))
        for (const text of ["one", "two", "three", "four"]) {
          yield* put(store, "acme", text)
          assert.strictEqual(yield* read(store, "acme"), text)
        }
        assert.isUndefined(yield* read(store, "acm"))
        yield* put(store, "_41cme", "other")
        assert.strictEqual(yield* read(store, "acme"), "four")
        assert.strictEqual(left(), 2)
      }).pipe(Effect.provide(NodeServices.layer)))

    it.live("keeps the old one when the new one fails, and when it is interrupted", () =>
      Effect.gen(function*() {
        const { left, store } = yield* make
        yield* put(store, "acme", "old")
        const failing = Stream.concat(Stream.succeed(bytes("new")), Stream.fail("unreadable"))
        assert.strictEqual(yield* Effect.flip(store.put("acme", failing)), "unreadable")
        assert.strictEqual(yield* read(store, "acme"), "old")
        const half = yield* Deferred.make<void>()
        const stuck = Stream.concat(
          Stream.succeed(bytes("new")),
          Stream.fromEffect(Effect.andThen(Deferred.succeed(half, undefined), Effect.never))
        )
        const fiber = yield* Effect.forkChild(store.put("acme", stuck))
        yield* Deferred.await(half)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* read(store, "acme"), "old")
        assert.strictEqual(left(), 1)
      }).pipe(Effect.provide(NodeServices.layer)))
  })
}

describe("a folder of archives", () => {
  it.live("is for the host's user only", () =>
    Effect.gen(function*() {
      const folder = path.join(yield* Directories.temporary, "archives")
      const store = yield* ArchiveStore.fromFileSystem(folder)
      yield* put(store, "acme", "text")
      assert.strictEqual(fs.statSync(folder).mode & 0o777, 0o700)
      assert.strictEqual(fs.statSync(path.join(folder, "acme.tar.gz")).mode & 0o777, 0o600)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live.skipIf(!fs.existsSync("/dev/full"))("keeps the old one when the disk is full", () =>
    Effect.gen(function*() {
      const folder = path.join(yield* Directories.temporary, "archives")
      const store = yield* ArchiveStore.fromFileSystem(folder)
      yield* put(store, "acme", "old")
      // Every write fails with ENOSPC, see full(4).
      fs.symlinkSync("/dev/full", path.join(folder, "acme.tar.gz.partial"))
      const error = yield* Effect.flip(put(store, "acme", "new"))
      assert.deepInclude(error, { _tag: "StoreError", operation: "put", name: "acme" })
      assert.include(error.message, "no space left")
      assert.strictEqual(yield* read(store, "acme"), "old")
      yield* put(store, "acme", "new")
      assert.strictEqual(yield* read(store, "acme"), "new")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("says why it can't be used", () =>
    Effect.gen(function*() {
      const file = path.join(yield* Directories.temporary, "file")
      fs.writeFileSync(file, "")
      const store = yield* ArchiveStore.fromFileSystem(path.join(file, "archives"))
      const error = yield* Effect.flip(put(store, "acme", "new"))
      assert.deepInclude(error, { _tag: "StoreError", operation: "put", name: "acme" })
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("archives in an object store", () => {
  it.live("says what the store says, and why it is not reached", () =>
    Effect.gen(function*() {
      const { server, url } = yield* objectServer
      const store = objectStore(url)
      const refused = yield* Effect.flip(put(store, "broken", "text"))
      assert.strictEqual(refused.message, "broken was not stored: status 507")
      const unread = yield* Effect.flip(store.get("broken"))
      assert.strictEqual(unread.message, "broken was not read from the store: status 507")
      server.close().closeAllConnections()
      const unreached = yield* Effect.flip(put(store, "acme", "text"))
      assert.match(unreached.message, /^acme was not stored: .*fetch failed/)
    }).pipe(Effect.scoped))
})

describe("archives in a key-value store", () => {
  it.live("keeps the old one when a value is cut off in the middle", () =>
    Effect.gen(function*() {
      const kv = yield* keyValueStore
      yield* put(ArchiveStore.fromKeyValueStore(kv), "acme", "old")
      // It dies after a part of the value.
      const dying: KeyValueStore.KeyValueStore = {
        ...kv,
        set: (key, value) => Effect.andThen(kv.set(key, value.slice(0, 1)), Effect.die("power cut"))
      }
      yield* Effect.exit(put(ArchiveStore.fromKeyValueStore(dying), "acme", "new"))
      assert.strictEqual(yield* read(ArchiveStore.fromKeyValueStore(kv), "acme"), "old")
      yield* put(ArchiveStore.fromKeyValueStore(kv), "acme", "newer")
      assert.strictEqual(yield* read(ArchiveStore.fromKeyValueStore(kv), "acme"), "newer")
      assert.strictEqual(yield* kv.size, 2)
    }))

  it.live("says when its archive is gone", () =>
    Effect.gen(function*() {
      const kv = yield* keyValueStore
      const store = ArchiveStore.fromKeyValueStore(kv, { prefix: "p/" })
      yield* put(store, "acme", "text")
      for (const key of yield* kv.keys) if (key !== "p/acme") yield* kv.remove(key)
      const error: Errors.StoreError = yield* Effect.flip(store.get("acme"))
      assert.deepInclude(error, { operation: "get", name: "acme" })
    }))

  it.live("takes no archive beyond its limit", () =>
    Effect.gen(function*() {
      const store = ArchiveStore.fromKeyValueStore(yield* keyValueStore, { maxBytes: 4 })
      yield* put(store, "acme", "1234")
      const error = yield* Effect.flip(put(store, "acme", "12345"))
      assert.include(error.message, "larger than 4 bytes")
      assert.strictEqual(yield* read(store, "acme"), "1234")
    }))
})
