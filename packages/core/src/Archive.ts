/**
 * A directory as one stream of bytes, and back: a gzipped tar, which every tool can read.
 *
 * Kept are files, folders (empty ones too) and symbolic links, with permission bits and times of modification in seconds.
 * A file with several hard links is kept once for each. Sockets and FIFOs are left out: they hold nothing when nobody has
 * them open. What else there is (devices), and what can't be read, is an error, so an archive is never less than its
 * directory. Owners are not kept: what is unpacked belongs to the host's user.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import type * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"
import { ArchiveError, type ArchiveReason } from "./Errors.ts"
import * as Detail from "./internal/Detail.ts"
import * as EntryName from "./internal/EntryName.ts"
import * as Gzip from "./internal/Gzip.ts"

/** The most that an archive may hold, unpacked. */
export interface Limits {
  /** The sizes of all files together. Default: 1 GiB. */
  readonly bytes?: number | undefined
  /** Files, folders and links. Default: 100,000. */
  readonly entries?: number | undefined
}

/** What was packed or unpacked. */
export interface Contents {
  readonly bytes: number
  readonly entries: number
  /** What `pack` was given to tell this archive from every other; undefined for one that it was not given for. */
  readonly generation: string | undefined
}

/** Tools take no notice of a comment (pax, "Extended Header Keyword/Value"); ours has this in front. */
const generationPrefix = "treeline generation "

const commentOf = (generation: string): Readonly<Record<string, string>> => ({
  comment: `${generationPrefix}${generation}`
})

const generationIn = ({ pax: { comment } }: Tar.Header): string | undefined =>
  comment?.startsWith(generationPrefix) === true ? comment.slice(generationPrefix.length) : undefined

/** What an entry may take besides its bytes: its own header, an extended one with long names, padding. */
const overhead = 16 * 1024

/** Counts what an archive holds, and fails where it is too much. */
class Meter {
  private readonly limits: { readonly bytes: number; readonly entries: number }
  private raw = 0
  private readonly directory: string
  bytes = 0
  entries = 0

  constructor(directory: string, limits: Limits | undefined) {
    this.directory = directory
    this.limits = { bytes: limits?.bytes ?? 1024 ** 3, entries: limits?.entries ?? 100_000 }
  }

  add(entry: string, bytes: number): Effect.Effect<void, ArchiveError> {
    this.entries++
    this.bytes += bytes
    const over = (what: string) => Effect.fail(errorOf(this.directory, entry, "TooLarge", `it holds more than ${what}`))
    // A limit that is no number allows nothing.
    if (!(this.entries <= this.limits.entries)) return over(`${this.limits.entries} entries`)
    return this.bytes <= this.limits.bytes ? Effect.void : over(`${this.limits.bytes} bytes`)
  }

  /** Bytes of the tar itself: what is no entry and no file's content has to end somewhere, too. */
  addRaw(bytes: number): Effect.Effect<void, ArchiveError> {
    this.raw += bytes
    return this.raw <= this.limits.bytes + this.limits.entries * overhead
      ? Effect.void
      : Effect.fail(errorOf(this.directory, "", "TooLarge", "it goes on beyond all that its limits allow"))
  }
}

const errorOf = (directory: string, entry: string, reason: ArchiveReason, detail: string): ArchiveError =>
  new ArchiveError({ directory, entry, reason, detail })

const failing = (directory: string, entry: string, reason: ArchiveReason) => (error: PlatformError.PlatformError) =>
  errorOf(directory, entry, reason, Detail.of(error))

const ofTarError = (directory: string, { kind, message }: Tar.TarError): ArchiveError => {
  switch (kind) {
    case "SizeMismatch":
      return errorOf(directory, "", "Changed", message)
    case "Unsupported":
      return errorOf(directory, "", "Unsupported", message)
    default:
      return errorOf(directory, "", "Damaged", message)
  }
}

/** Errors of the archive format as ours, others as they are. */
const fromTar = (directory: string) => <E>(error: Tar.TarError | E): ArchiveError | E =>
  Tar.isTarError(error) ? ofTarError(directory, error) : error

/** `name` in `directory`; every system takes a slash. */
const at = (directory: string, name: string): string => name === "" ? directory : `${directory}/${name}`

type Entry = Tar.Entry<ArchiveError>

/** The entry of one name, and what stands in it if it is a folder; no entry for what holds nothing. */
const read = Effect.fnUntraced(function*(
  fs: FileSystem.FileSystem,
  directory: string,
  name: string,
  generation: string | undefined
): Effect.fn.Return<{ readonly entry: Entry | undefined; readonly names: ReadonlyArray<string> }, ArchiveError> {
  const path = at(directory, name)
  const orFail = Effect.mapError(failing(directory, name, "Unreadable"))
  const info = yield* orFail(fs.lstat(path))
  const options = {
    mode: info.mode,
    ...Option.match(info.mtime, { onNone: () => ({}), onSome: (mtime) => ({ mtime }) })
  }
  const leaf = (entry: Entry | undefined) => ({ entry, names: [] })
  switch (info.type) {
    case "Directory": {
      const names = yield* orFail(fs.readDirectory(path))
      const pax = name === "" && generation !== undefined ? commentOf(generation) : {}
      return {
        entry: Tar.directory(name === "" ? "./" : name, { ...options, pax }),
        names: names.sort().map((child) => name === "" ? child : `${name}/${child}`)
      }
    }
    case "File": {
      const body = Stream.mapError(
        fs.stream(path, { bytesToRead: info.size }),
        failing(directory, name, "Unreadable")
      )
      return leaf(Tar.fileStream(name, Number(info.size), body, options))
    }
    case "SymbolicLink":
      return leaf(Tar.symlink(name, yield* orFail(fs.readLink(path)), options))
    case "Socket":
    case "FIFO":
      return leaf(undefined)
    default:
      return yield* errorOf(directory, name, "Unsupported", `a ${info.type} can't be kept`)
  }
})

/**
 * The directory as a gzipped tar. Memory is bounded: files are read as the archive is taken. Nobody should write in the
 * directory meanwhile; a file that gets shorter while it is read is an error.
 *
 * `exclude` leaves out what it is true of; it gets the path within the directory, with slashes. `generation` goes into the
 * archive and is given back by `unpack`.
 *
 * @example
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { Archive } from "@treeline/core"
 * import { Effect, FileSystem } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const fs = yield* FileSystem.FileSystem
 *   const folder = yield* fs.makeTempDirectoryScoped()
 *   yield* fs.makeDirectory(`${folder}/home/notes`, { recursive: true })
 *   yield* fs.writeFileString(`${folder}/home/notes/today`, "tea")
 *   yield* Archive.unpack(Archive.pack(`${folder}/home`), `${folder}/copy`)
 *   return yield* fs.readFileString(`${folder}/copy/notes/today`)
 * })
 * const text = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
 * if (text !== "tea") throw new Error(text)
 * ```
 */
export const pack = (directory: string, options?: {
  readonly limits?: Limits | undefined
  readonly exclude?: ((path: string) => boolean) | undefined
  readonly generation?: string | undefined
}): Stream.Stream<Uint8Array, ArchiveError, FileSystem.FileSystem> =>
  Stream.unwrap(Effect.map(FileSystem.FileSystem, (fs) => {
    const meter = new Meter(directory, options?.limits)
    // Depth first, so it holds the rest of the folders that are on the way.
    const waiting = [""]
    const next: Pull.Pull<readonly [Entry], ArchiveError> = Effect.gen(function*() {
      while (true) {
        const name = waiting.pop()
        if (name === undefined) return yield* Cause.done()
        const { entry, names } = yield* read(fs, directory, name, options?.generation)
        for (const child of names.toReversed()) {
          if (options?.exclude?.(child) !== true) waiting.push(child)
        }
        if (entry === undefined) continue
        yield* meter.add(name, entry.header.size)
        return [entry]
      }
    })
    return Stream.fromPull(Effect.succeed(next)).pipe(
      Stream.pipeThroughChannel(Tar.encode<ArchiveError, unknown, Entry>()),
      Stream.mapError(fromTar(directory)),
      Gzip.compress
    )
  }))

const entriesOf = <E, R>(archive: Stream.Stream<Uint8Array, E, R>, directory: string, meter: Meter) =>
  Gzip.decompress(archive, (error) => errorOf(directory, "", "Damaged", `it is not whole: ${String(error)}`)).pipe(
    Stream.tap((chunk) => meter.addRaw(chunk.length)),
    Stream.pipeThroughChannel(Tar.decode<E | ArchiveError>()),
    Stream.mapError(fromTar(directory))
  )

/** What of an archive was unpacked so far. */
class Unpacking {
  readonly meter: Meter
  private readonly fs: FileSystem.FileSystem
  private readonly directory: string
  private readonly separator: string
  generation: string | undefined = undefined
  private readonly names = new Set<string>()
  /** Parents come before their children. */
  private readonly folders = new Map<string, Tar.Header>()

  constructor(fs: FileSystem.FileSystem, separator: string, directory: string, limits: Limits | undefined) {
    this.fs = fs
    this.separator = separator
    this.directory = directory
    this.meter = new Meter(directory, limits)
  }

  private orFail<A, R>(name: string, effect: Effect.Effect<A, PlatformError.PlatformError, R>) {
    return Effect.mapError(effect, failing(this.directory, name, "Unwritable"))
  }

  private refuse(name: string, reason: "Unsafe" | "Unsupported" | "Damaged", problem: string) {
    return Effect.fail(errorOf(this.directory, name, reason, problem))
  }

  /** The last of what makes an entry what it was: permission bits (never set-user-ID and the like) and its time. */
  private finish(name: string, { mode, mtime }: Tar.Header) {
    const path = at(this.directory, name)
    return this.orFail(
      name,
      Effect.andThen(this.fs.utimes(path, mtime, mtime), this.fs.chmod(path, mode & 0o777))
    )
  }

  private makeFolder(name: string, header: Tar.Header) {
    this.folders.set(name, header)
    return this.orFail(name, this.fs.makeDirectory(at(this.directory, name), { mode: 0o700 }))
  }

  private write<E>(name: string, body: Stream.Stream<Uint8Array, E>) {
    return Effect.flatMap(
      this.orFail(name, this.fs.open(at(this.directory, name), { flag: "wx", mode: 0o600 })),
      (file) => Stream.runForEach(body, (chunk) => this.orFail(name, file.writeAll(chunk)))
    )
  }

  add<E>({ body, header }: Tar.Entry<Tar.TarError | ArchiveError | E>) {
    return Effect.gen({ self: this }, function*() {
      const name = EntryName.normalize(header.path)
      yield* this.meter.add(name, header.size)
      if (this.folders.size === 0) {
        if (name !== "" || header.type !== "Directory") {
          return yield* this.refuse(name, "Damaged", "it does not begin with the directory itself")
        }
        this.generation = generationIn(header)
        return yield* this.makeFolder(name, header)
      }
      const problem = EntryName.problemOf(name, this.separator)
      if (problem !== undefined) return yield* this.refuse(name, "Unsafe", problem)
      // Every folder on the way was made here, and all that is made must be new, so no write goes through a link.
      if (!this.folders.has(EntryName.parentOf(name))) {
        return yield* this.refuse(name, "Unsafe", "what it stands in is not a folder of the archive")
      }
      if (this.names.has(name)) return yield* this.refuse(name, "Unsafe", "it comes twice")
      this.names.add(name)
      switch (header.type) {
        case "Directory":
          return yield* this.makeFolder(name, header)
        case "File":
          yield* Effect.scoped(this.write(name, Stream.mapError(body, fromTar(this.directory))))
          return yield* this.finish(name, header)
        case "Symlink":
          return yield* this.orFail(name, this.fs.symlink(header.linkTarget ?? "", at(this.directory, name)))
        default:
          return yield* this.refuse(name, "Unsupported", `a ${header.type} is not unpacked`)
      }
    })
  }

  /** Nothing more is written into them, so folders may be read-only now, and have their time. */
  end() {
    return Effect.gen({ self: this }, function*() {
      if (this.folders.size === 0) return yield* this.refuse("", "Damaged", "it is empty")
      for (const [name, header] of [...this.folders].toReversed()) yield* this.finish(name, header)
    })
  }
}

/**
 * Makes `directory`, which must not exist, from an archive of `pack` or of any tar whose entries come after the folders
 * that they stand in. Nothing is left when it fails.
 *
 * An archive is not trusted: names that lead out of the directory, come twice, or stand in a link are refused (`Unsafe`),
 * and so is one that holds too much (`TooLarge`), is cut off or was altered (`Damaged`). Links are made as they were,
 * wherever they lead; nothing is ever written through one. Set-user-ID, set-group-ID and sticky bits are left out.
 */
export const unpack = Effect.fn("Archive.unpack")(function*<E, R>(
  archive: Stream.Stream<Uint8Array, E, R>,
  directory: string,
  options?: { readonly limits?: Limits | undefined }
): Effect.fn.Return<Contents, ArchiveError | E, R | FileSystem.FileSystem | Path.Path> {
  const fs = yield* FileSystem.FileSystem
  const { sep } = yield* Path.Path
  if (yield* Effect.mapError(fs.exists(directory), failing(directory, "", "Unwritable"))) {
    return yield* errorOf(directory, "", "Unwritable", "it exists already")
  }
  const unpacking = new Unpacking(fs, sep, directory, options?.limits)
  yield* Stream.runForEach(entriesOf(archive, directory, unpacking.meter), (entry) => unpacking.add(entry)).pipe(
    Effect.andThen(unpacking.end()),
    Effect.onError(() => Effect.ignore(fs.remove(directory, { recursive: true, force: true })))
  )
  const { generation, meter: { bytes, entries } } = unpacking
  return { bytes, entries, generation }
})

/** The generation that `pack` was given, from the first bytes of an archive. */
export const generationOf = Effect.fn("Archive.generationOf")(function*<E, R>(
  archive: Stream.Stream<Uint8Array, E, R>
): Effect.fn.Return<string | undefined, ArchiveError | E, R> {
  const first = yield* entriesOf(archive, "", new Meter("", { bytes: 0, entries: 1000 })).pipe(
    Stream.map(({ header }) => generationIn(header)),
    Stream.runHead
  )
  return Option.getOrUndefined(first)
})
