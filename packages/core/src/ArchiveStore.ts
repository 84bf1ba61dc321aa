/**
 * Where archives are kept: a folder, a key-value store, or any object store by two functions.
 *
 * A store is all or nothing: until a `put` has succeeded, `get` gives what was there before, whatever happens to the
 * writer. Names have small letters, digits, `-` and `_` only, and at most 200 of them, so they fit everywhere.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Stream from "effect/Stream"
import { StoreError } from "./Errors.ts"
import * as Detail from "./internal/Detail.ts"

/** A store of archives. */
export interface ArchiveStore {
  /** Takes the place of what was there under this name, once all of it is there. Its stream's failure leaves the old one. */
  readonly put: <E, R>(
    name: string,
    archive: Stream.Stream<Uint8Array, E, R>
  ) => Effect.Effect<void, StoreError | E, R>
  /** None where nothing was ever put. */
  readonly get: (name: string) => Effect.Effect<Option.Option<Stream.Stream<Uint8Array, StoreError>>, StoreError>
}

const failing = (operation: StoreError["operation"], name: string) => (error: { readonly message: string }) =>
  new StoreError({ operation, name, detail: Detail.of(error) })

/**
 * A folder, which is made when it is needed, for the host's user only. One host at a time may write a name.
 *
 * An archive is written beside the old one, brought to the disk (fsync(2)) and then takes its place (rename(2)).
 */
export const fromFileSystem = (folder: string): Effect.Effect<ArchiveStore, never, FileSystem.FileSystem> =>
  Effect.map(FileSystem.FileSystem, (fs): ArchiveStore => {
    const file = (name: string) => `${folder}/${name}.tar.gz`

    const write = <E, R>(path: string, name: string, archive: Stream.Stream<Uint8Array, E, R>) =>
      Effect.gen(function*() {
        const orFail = Effect.mapError(failing("put", name))
        const open = yield* orFail(fs.open(path, { flag: "w", mode: 0o600 }))
        yield* Stream.runForEach(archive, (chunk) => orFail(open.writeAll(chunk)))
        yield* orFail(open.sync)
      })

    return {
      put: Effect.fn("ArchiveStore.put")(function*(name, archive) {
        const orFail = Effect.mapError(failing("put", name))
        const partial = `${file(name)}.partial`
        yield* orFail(fs.makeDirectory(folder, { recursive: true, mode: 0o700 }))
        yield* Effect.scoped(write(partial, name, archive)).pipe(
          Effect.andThen(orFail(fs.rename(partial, file(name)))),
          Effect.onError(() => Effect.ignore(fs.remove(partial, { force: true })))
        )
        // The new name is on the disk, too, before anybody drops what the archive was made of. Not every system can.
        yield* Effect.ignore(Effect.scoped(Effect.flatMap(fs.open(folder), (open) => open.sync)))
      }),
      get: Effect.fn("ArchiveStore.get")(function*(name) {
        const there = yield* Effect.mapError(fs.exists(file(name)), failing("get", name))
        return there
          ? Option.some(Stream.mapError(fs.stream(file(name)), failing("get", name)))
          : Option.none()
      })
    }
  })

/** What an object store does: whole values by name. A value takes the place of the old one at once, or not at all. */
export interface Objects {
  readonly put: (name: string, bytes: Uint8Array) => Effect.Effect<void, { readonly message: string }>
  /** Undefined where there is none. */
  readonly get: (name: string) => Effect.Effect<Uint8Array | undefined, { readonly message: string }>
}

/** All of a stream in memory, up to a limit. */
const collect = <E, R>(name: string, archive: Stream.Stream<Uint8Array, E, R>, maxBytes: number) =>
  Effect.gen(function*() {
    const chunks: Array<Uint8Array> = []
    let size = 0
    yield* Stream.runForEach(archive, (chunk) => {
      chunks.push(chunk)
      size += chunk.length
      return size <= maxBytes ? Effect.void : Effect.fail(
        new StoreError({
          operation: "put",
          name,
          detail: `it is larger than ${maxBytes} bytes, the limit of this store`
        })
      )
    })
    const bytes = new Uint8Array(size)
    let at = 0
    for (const chunk of chunks) {
      bytes.set(chunk, at)
      at += chunk.length
    }
    return bytes
  })

/**
 * A store of whole objects, such as S3 by its client: an archive is held in memory, so it may have `maxBytes` (default
 * 64 MiB) at most. For larger ones write an `ArchiveStore` that streams.
 *
 * @example
 * ```ts
 * import { ArchiveStore } from "@treeline/core"
 * import { Effect, Option, Stream } from "effect"
 *
 * const bucket = new Map<string, Uint8Array>()
 * const store = ArchiveStore.fromObjects({
 *   put: (name, bytes) => Effect.sync(() => void bucket.set(`tenants/${name}`, bytes)),
 *   get: (name) => Effect.sync(() => bucket.get(`tenants/${name}`))
 * })
 * const program = Effect.gen(function*() {
 *   yield* store.put("acme", Stream.succeed(new Uint8Array([1, 2])))
 *   return Option.isSome(yield* store.get("acme"))
 * })
 * if (!await Effect.runPromise(program)) throw new Error("not there")
 * ```
 */
export const fromObjects = (
  objects: Objects,
  options?: { readonly maxBytes?: number | undefined }
): ArchiveStore => ({
  put: Effect.fn("ArchiveStore.put")(function*(name, archive) {
    const bytes = yield* collect(name, archive, options?.maxBytes ?? 64 * 1024 * 1024)
    yield* Effect.mapError(objects.put(name, bytes), failing("put", name))
  }),
  get: Effect.fn("ArchiveStore.get")(function*(name) {
    const bytes = yield* Effect.mapError(objects.get(name), failing("get", name))
    return bytes === undefined ? Option.none() : Option.some(Stream.succeed(bytes))
  })
})

/**
 * A key-value store. Its values need not be written all or nothing: an archive goes into one of two places by turns, and
 * a key of its own says which of them counts. An archive may have `maxBytes` (default 64 MiB) at most; keys begin with
 * `prefix` (default `archives/`).
 */
export const fromKeyValueStore = (
  store: KeyValueStore.KeyValueStore,
  options?: { readonly maxBytes?: number | undefined; readonly prefix?: string | undefined }
): ArchiveStore => {
  const key = (name: string) => `${options?.prefix ?? "archives/"}${name}`
  const place = (name: string, which: string) => `${key(name)}.${which}`
  return fromObjects({
    put: Effect.fnUntraced(function*(name, bytes) {
      const old = yield* store.get(key(name))
      const which = old === "a" ? "b" : "a"
      yield* store.set(place(name, which), bytes)
      yield* store.set(key(name), which)
      if (old !== undefined) yield* store.remove(place(name, old))
    }),
    get: Effect.fnUntraced(function*(name) {
      const which = yield* store.get(key(name))
      if (which === undefined) return undefined
      const bytes = yield* store.getUint8Array(place(name, which))
      if (bytes === undefined) {
        return yield* Effect.fail({ message: `${key(name)} says "${which}", and nothing is there` })
      }
      return bytes
    })
  }, options)
}
