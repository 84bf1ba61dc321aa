import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { type ArchiveStore, Errors, type Pool } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Fiber, Layer, References, Schedule, Stream } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Directories from "../support/Directories.ts"
import { startProgram } from "../support/Host.ts"
import * as Scratch from "../support/Scratch.ts"
import * as TenantPool from "../support/TenantPool.ts"

const services = Layer.mergeAll(
  PosixPlatform.layer,
  NodeServices.layer,
  // What the pool says when it can't save is looked at in its errors.
  Layer.succeed(References.MinimumLogLevel, "None")
)

/** What the archive of a key says its children did. */
const savedLog = (folder: string, key: string): ReadonlyArray<string> =>
  child_process.execFileSync("tar", ["xzOf", path.join(folder, "archives", `${key}.tar.gz`), "log"], {
    encoding: "utf8"
  })
    .trim().split("\n")

const localLog = (folder: string, key: string): ReadonlyArray<string> =>
  fs.readFileSync(path.join(folder, "tenants", key, "data", "log"), "utf8").trim().split("\n")

const names = (folder: string, which: "tenants" | "archives") => Directories.names(path.join(folder, which))

/** One pool that has a life of a key, and closes. */
const poolLife = (folder: string, life: string, ...keys: ReadonlyArray<string>) =>
  TenantPool.make({ folder, life }).pipe(
    Effect.flatMap((pool) => Effect.forEach(keys, (key) => pool.ensure(key), { concurrency: "unbounded" })),
    Effect.scoped
  )

/** A store that refuses while it is down. */
const unreliable = () => {
  const state = { down: true, puts: 0 }
  const wrap = (store: ArchiveStore.ArchiveStore): ArchiveStore.ArchiveStore => ({
    ...store,
    put: (name, archive) => {
      state.puts++
      return state.down
        ? Effect.andThen(
          Stream.runHead(archive),
          Effect.fail(new Errors.StoreError({ operation: "put", name, detail: "503" }))
        )
        : store.put(name, archive)
    }
  })
  return { state, wrap }
}

const soon: Pool.Hooks = { retry: Schedule.upTo(Schedule.spaced("10 millis"), { times: 2 }) }

describe("the state of a pool's real children", () => {
  it.live("A4: is saved by shutdown, with what they wrote last", () =>
    Effect.gen(function*() {
      const folder = yield* Directories.temporary
      const pool = yield* TenantPool.make({ folder, life: "1" })
      yield* pool.ensure("acme")
      assert.deepStrictEqual(names(folder, "archives"), [])
      yield* pool.shutdown("acme")
      assert.deepStrictEqual(savedLog(folder, "acme"), ["1 starts", "1 ends"])
      assert.deepStrictEqual(names(folder, "tenants"), [])
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("A5: is restored by a new pool, and goes on", () =>
    Effect.gen(function*() {
      const folder = yield* Directories.temporary
      yield* poolLife(folder, "1", "acme")
      yield* poolLife(folder, "2", "acme")
      const pool = yield* TenantPool.make({ folder, life: "3" })
      yield* pool.ensure("acme")
      assert.deepStrictEqual(localLog(folder, "acme"), ["1 starts", "1 ends", "2 starts", "2 ends", "3 starts"])
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("A18: is saved for all of them side by side when the pool closes", () =>
    Effect.gen(function*() {
      const folder = yield* Directories.temporary
      const keys = Array.from({ length: 12 }, (_, index) => `tenant-${index}`)
      yield* poolLife(folder, "1", ...keys)
      for (const key of keys) assert.deepStrictEqual(savedLog(folder, key), ["1 starts", "1 ends"])
      assert.deepStrictEqual(names(folder, "tenants"), [])
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("A12: is what an ensure during the end gets, for it waits for the saving", () =>
    Effect.gen(function*() {
      const folder = yield* Directories.temporary
      const pool = yield* TenantPool.make({ folder, life: "1" })
      yield* pool.ensure("acme")
      const ending = yield* Effect.forkChild(pool.shutdown("acme"), { startImmediately: true })
      yield* pool.ensure("acme")
      yield* Fiber.join(ending)
      assert.deepStrictEqual(localLog(folder, "acme"), ["1 starts", "1 ends", "1 starts"])
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("stays where it is while the store is down, is tried again by the schedule, and blocks its key", () =>
    Effect.gen(function*() {
      const folder = yield* Directories.temporary
      const { state, wrap } = unreliable()
      const pool = yield* TenantPool.make({ folder, life: "1", store: wrap, hooks: soon })
      yield* pool.ensure("acme")
      const error = yield* Effect.flip(pool.shutdown("acme"))
      assert.deepInclude(error, { _tag: "UnsavedState", key: "acme" })
      assert.include(error.message, "503")
      assert.strictEqual(state.puts, 3)
      assert.deepStrictEqual(localLog(folder, "acme"), ["1 starts", "1 ends"])
      assert.strictEqual((yield* Effect.flip(pool.ensure("acme")))._tag, "UnsavedState")
      assert.strictEqual(state.puts, 4)
      state.down = false
      yield* pool.retrySave("acme")
      assert.deepStrictEqual(savedLog(folder, "acme"), ["1 starts", "1 ends"])
      assert.deepStrictEqual(names(folder, "tenants"), [])
      yield* pool.ensure("acme")
      assert.deepStrictEqual(localLog(folder, "acme"), ["1 starts", "1 ends", "1 starts"])
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("is not dropped by a pool that closes while the store is down; the next pool has it", () =>
    Effect.gen(function*() {
      const folder = yield* Directories.temporary
      yield* poolLife(folder, "1", "acme")
      const { wrap } = unreliable()
      yield* Effect.scoped(Effect.gen(function*() {
        const pool = yield* TenantPool.make({ folder, life: "2", store: wrap, hooks: soon })
        yield* pool.ensure("acme")
      }))
      assert.deepStrictEqual(localLog(folder, "acme"), ["1 starts", "1 ends", "2 starts", "2 ends"])
      yield* poolLife(folder, "3", "acme")
      assert.deepStrictEqual(savedLog(folder, "acme").slice(2), ["2 starts", "2 ends", "3 starts", "3 ends"])
      assert.deepStrictEqual(names(folder, "tenants"), [])
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("is given up by discard, and the key goes on with its last archive", () =>
    Effect.gen(function*() {
      const folder = yield* Directories.temporary
      yield* poolLife(folder, "1", "acme")
      const { wrap } = unreliable()
      const pool = yield* TenantPool.make({ folder, life: "2", store: wrap, hooks: soon })
      yield* pool.ensure("acme")
      yield* Effect.flip(pool.shutdown("acme"))
      yield* pool.discard("acme")
      assert.deepStrictEqual(names(folder, "tenants"), [])
      yield* pool.ensure("acme")
      assert.deepStrictEqual(localLog(folder, "acme"), ["1 starts", "1 ends", "2 starts"])
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("is not changed by a child that never gets ready", () =>
    Effect.gen(function*() {
      const folder = yield* Directories.temporary
      yield* poolLife(folder, "1", "acme")
      const mute = Effect.flatMap(TenantPool.make({ folder, life: "2", mute: true }), (pool) => pool.ensure("acme"))
      assert.strictEqual((yield* Effect.flip(Effect.scoped(mute)))._tag, "ChildFailed")
      assert.deepStrictEqual(names(folder, "tenants"), [])
      assert.deepStrictEqual(savedLog(folder, "acme"), ["1 starts", "1 ends"])
      yield* poolLife(folder, "3", "acme")
      assert.deepStrictEqual(savedLog(folder, "acme"), ["1 starts", "1 ends", "3 starts", "3 ends"])
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("is there after the host was killed by SIGKILL before anything was saved", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const folder = scratch.file("state")
      yield* poolLife(folder, "1", "acme")
      const host = yield* startProgram({ program: ["tenantHost", folder, "2", "acme", "other"], scratch })
      host.signal("SIGKILL")
      // The guardian ends its children, with or without a chance to say so.
      yield* host.awaitNoDescendants()
      assert.deepStrictEqual(savedLog(folder, "acme"), ["1 starts", "1 ends"])
      yield* poolLife(folder, "3", "acme", "other")
      const starts = (key: string) => savedLog(folder, key).filter((line) => line.endsWith("starts"))
      assert.deepStrictEqual(starts("acme"), ["1 starts", "2 starts", "3 starts"])
      assert.deepStrictEqual(starts("other"), ["2 starts", "3 starts"])
      assert.deepStrictEqual(names(folder, "tenants"), [])
    }).pipe(Effect.scoped, Effect.provide(services)))
})
