/**
 * The state of a pool's keys in directories: brought in before each life, saved after it.
 *
 * Each key has a directory of its own below one folder. Before a child starts, its directory is made from the archive in
 * the store; after its end the directory is packed, stored and removed. A directory that could not be saved stays, also
 * when the host dies, and is what the next life of the key begins with. One host at a time may use the folder.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type * as Stream from "effect/Stream"
import * as Archive from "./Archive.ts"
import type { ArchiveStore } from "./ArchiveStore.ts"
import { ArchiveError, InvalidSpec, type StoreError } from "./Errors.ts"
import * as Detail from "./internal/Detail.ts"
import { randomName } from "./internal/RandomName.ts"
import * as SafeName from "./internal/SafeName.ts"

export interface Options {
  /** The folder of all keys' directories; it is made when it is needed, for the host's user only. */
  readonly directory: string
  readonly store: ArchiveStore
  /** Of one key's directory, for saving and for restoring. */
  readonly limits?: Archive.Limits | undefined
  /** What of a directory is not saved: true for its path within, with slashes. */
  readonly exclude?: ((path: string) => boolean) | undefined
  /** How many directories are saved or restored at once; others wait. Default: 8. */
  readonly concurrency?: number | undefined
}

/** Why state was not restored or saved. `InvalidSpec`: the key is too long for the name of a folder. */
export type Failure = ArchiveError | StoreError | InvalidSpec

/** What a pool takes as its `hooks`. */
export interface DirectoryState {
  /** The directory of a key: there from `restore` on, until its state is saved. */
  readonly path: (key: string) => Effect.Effect<string, InvalidSpec>
  /**
   * Makes the directory. What an earlier life left there and nobody saved is newer than its archive, and stays as it is,
   * unless somebody else has saved the key since: then that archive counts, and what was there is moved aside, with a
   * warning that says where to. Nothing stored yet: the directory is empty.
   *
   * When the scope closes the directory is removed: it was saved, or given up, or its child never got ready. Only what an
   * earlier life left is kept until it was tried to be saved.
   */
  readonly restore: (of: { readonly key: string }) => Effect.Effect<void, Failure, Scope.Scope>
  /** Saves the directory. Done again after a failure it goes on from there. */
  readonly retire: (of: { readonly key: string }) => Effect.Effect<void, Failure>
}

/** Which archives a directory has to do with: the one that it was made from, and the one that it is packed into. */
const Origin = Schema.fromJsonString(
  Schema.Struct({ restored: Schema.NullOr(Schema.String), saving: Schema.NullOr(Schema.String) })
)
type Origin = typeof Origin.Type

const unknownOrigin: Origin = { restored: null, saving: null }

type Stored = Stream.Stream<Uint8Array, StoreError>

/** The places of one key. Its name has no dot, so they are nobody else's. */
interface Places {
  readonly key: string
  readonly name: string
  /** Holds the directory and its origin, so that both appear and go at once. */
  readonly unit: string
  readonly data: string
  readonly origin: string
  /** A unit that is being made. */
  readonly next: string
  /** A unit that is being removed. */
  readonly last: string
}

const makeService = (
  fs: FileSystem.FileSystem,
  platform: Path.Path,
  { concurrency = 8, directory, exclude, limits, store }: Options
): DirectoryState => {
  const turns = Semaphore.makeUnsafe(concurrency)

  const placesOf = (key: string): Effect.Effect<Places, InvalidSpec> => {
    const name = SafeName.encode(key)
    if (name === undefined) {
      return Effect.fail(
        new InvalidSpec({ field: "key", problem: `is too long for a folder's name: ${key.slice(0, 40)}...` })
      )
    }
    const unit = platform.join(directory, name)
    return Effect.succeed({
      key,
      name,
      unit,
      data: platform.join(unit, "data"),
      origin: platform.join(unit, "origin.json"),
      next: `${unit}.next`,
      last: `${unit}.last`
    })
  }

  const orFail = (at: string) => <A>(effect: Effect.Effect<A, PlatformError.PlatformError>) =>
    Effect.mapError(
      effect,
      (error) => new ArchiveError({ directory: at, entry: "", reason: "Unwritable", detail: Detail.of(error) })
    )

  const removeAll = (path: string) => fs.remove(path, { recursive: true, force: true })

  /** One that can't be read says nothing. */
  const readOrigin = (path: string): Effect.Effect<Origin> =>
    fs.readFileString(path).pipe(
      Effect.flatMap(Schema.decodeEffect(Origin)),
      Effect.orElseSucceed(() => unknownOrigin)
    )

  const writeOrigin = (path: string, origin: Origin) =>
    Effect.flatMap(Effect.orDie(Schema.encodeEffect(Origin)(origin)), (text) =>
      orFail(path)(
        Effect.andThen(fs.writeFileString(`${path}.next`, text, { mode: 0o600 }), fs.rename(`${path}.next`, path))
      ))

  /** Renamed first, so that what is half removed is never taken for a state. */
  const drop = ({ last, unit }: Places) =>
    removeAll(last).pipe(
      Effect.andThen(fs.rename(unit, last)),
      Effect.andThen(removeAll(last)),
      Effect.catch((error) => Effect.logWarning(`the saved directory ${unit} could not be removed`, error))
    )

  /** Whether the archive in the store is one that this directory came from or went into. */
  const isOwn = ({ data, key }: Places, origin: Origin, stored: Stored) =>
    Archive.generationOf(stored).pipe(
      Effect.map((found) => {
        const generation = found ?? null
        return { own: generation === origin.restored || generation === origin.saving, generation }
      }),
      // What is here is better than what can't be read.
      Effect.catchTag("ArchiveError", (error) =>
        Effect.as(
          Effect.logWarning(`the archive of ${key} is unusable, what is in ${data} is kept`, error),
          { own: true, generation: origin.restored }
        ))
    )

  /** What an earlier life left, made ready for one more; false where it does not count any more. */
  const keep = Effect.fnUntraced(function*(places: Places, stored: Option.Option<Stored>) {
    const origin = yield* readOrigin(places.origin)
    const { generation, own } = Option.isNone(stored)
      ? { own: true, generation: origin.restored }
      : yield* isOwn(places, origin, stored.value)
    if (own) {
      yield* writeOrigin(places.origin, { restored: generation, saving: null })
      return true
    }
    const aside = `${places.unit}.aside-${yield* randomName}`
    yield* orFail(places.unit)(fs.rename(places.unit, aside))
    yield* Effect.logWarning(
      `${places.key} was saved elsewhere since ${places.data} was left; that archive is used, and what was there is in ${aside}`
    )
    return false
  })

  /** A new unit, from the archive where there is one. */
  const create = Effect.fnUntraced(function*(places: Places, stored: Option.Option<Stored>) {
    const data = platform.join(places.next, "data")
    yield* orFail(places.next)(fs.makeDirectory(places.next, { recursive: true, mode: 0o700 }))
    let restored: string | null = null
    if (Option.isSome(stored)) {
      restored = (yield* Archive.unpack(stored.value, data, { limits })).generation ?? null
    } else {
      yield* orFail(data)(fs.makeDirectory(data, { mode: 0o700 }))
    }
    yield* writeOrigin(platform.join(places.next, "origin.json"), { restored, saving: null })
    // Something may be left there, but no directory.
    yield* orFail(places.unit)(Effect.andThen(removeAll(places.unit), fs.rename(places.next, places.unit)))
  })

  /** Makes the directory of a key; true where it is what an earlier life left. */
  const bring = Effect.fnUntraced(
    function*(places: Places) {
      // Left by a host that died meanwhile. Nobody waits for what is only to be removed.
      yield* orFail(places.next)(removeAll(places.next))
      yield* Effect.ignore(removeAll(places.last))
      const stored = yield* store.get(places.name)
      if ((yield* orFail(places.data)(fs.exists(places.data))) && (yield* keep(places, stored))) return true
      yield* Effect.onError(create(places, stored), () => Effect.ignore(removeAll(places.next)))
      return false
    },
    Effect.provideService(FileSystem.FileSystem, fs),
    Effect.provideService(Path.Path, platform)
  )

  return {
    path: (key) => Effect.map(placesOf(key), ({ data }) => data),

    restore: Effect.fn("DirectoryState.restore")(function*({ key }) {
      const places = yield* placesOf(key)
      yield* Effect.acquireRelease(
        Effect.interruptible(turns.withPermit(bring(places))),
        (found) =>
          Effect.flatMap(
            readOrigin(places.origin),
            ({ saving }) => found && saving === null ? Effect.void : drop(places)
          )
      )
    }),

    retire: Effect.fn("DirectoryState.retire")(function*({ key }) {
      const places = yield* placesOf(key)
      const origin = yield* readOrigin(places.origin)
      // The same for each repetition: one whose answer was lost may have arrived.
      const saving = origin.saving ?? (yield* randomName)
      yield* writeOrigin(places.origin, { ...origin, saving })
      yield* turns.withPermit(
        store.put(places.name, Archive.pack(places.data, { limits, exclude, generation: saving }))
      )
    }, Effect.provideService(FileSystem.FileSystem, fs))
  }
}

/**
 * Directories for keys, kept in a store.
 *
 * @example
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { ArchiveStore, DirectoryState } from "@treeline/core"
 * import { Effect, FileSystem } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const fs = yield* FileSystem.FileSystem
 *   const folder = yield* fs.makeTempDirectoryScoped()
 *   const state = yield* DirectoryState.make({
 *     directory: `${folder}/tenants`,
 *     store: yield* ArchiveStore.fromFileSystem(`${folder}/archives`)
 *   })
 *   const acme = { key: "acme" }
 *   const file = `${yield* state.path(acme.key)}/orders`
 *   // What a pool does around each life of a key.
 *   const life = <A, E, R>(run: Effect.Effect<A, E, R>) =>
 *     state.restore(acme).pipe(Effect.andThen(run), Effect.tap(() => state.retire(acme)), Effect.scoped)
 *   yield* life(fs.writeFileString(file, "3 teapots"))
 *   if (yield* fs.exists(file)) throw new Error("saved, and still here")
 *   return yield* life(fs.readFileString(file))
 * })
 * const text = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
 * if (text !== "3 teapots") throw new Error(text)
 * ```
 */
export const make = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<DirectoryState, InvalidSpec, FileSystem.FileSystem | Path.Path> {
  const { concurrency } = options
  if (concurrency !== undefined && !(Number.isSafeInteger(concurrency) && concurrency >= 1)) {
    return yield* new InvalidSpec({ field: "concurrency", problem: "must be a whole number of 1 or more" })
  }
  return makeService(yield* FileSystem.FileSystem, yield* Path.Path, options)
})
