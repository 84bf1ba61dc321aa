import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Archive, Errors } from "@treeline/core"
import { Cause, Deferred, Effect, Exit, Fiber, FileSystem, PlatformError, Stream } from "effect"
import { Tar } from "effect/encoding"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { describe } from "vitest"
import * as Directories from "../support/Directories.ts"

const bytesOf = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.map(Stream.runCollect(stream), (chunks) => new Uint8Array(Buffer.concat(chunks)))

const gzip = <E>(stream: Stream.Stream<Uint8Array, E>): Stream.Stream<Uint8Array, unknown> =>
  Stream.suspend(() => {
    const readable = Stream.toReadableStream(stream)
    return Stream.fromReadableStream({
      evaluate: () => readable.pipeThrough(new CompressionStream("gzip")),
      onError: (error) => error
    })
  })

/** A gzipped tar of these entries, as somebody else may write it. */
const archiveOf = (...entries: ReadonlyArray<Tar.Entry>): Stream.Stream<Uint8Array, unknown> =>
  gzip(Stream.pipeThroughChannel(Stream.fromIterable(entries), Tar.encode()))

const root = Tar.directory("./")

const failureOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Errors.ArchiveError, never, R> =>
  Effect.map(Effect.exit(effect), (exit) => {
    const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
    if (error instanceof Errors.ArchiveError) return error
    throw new Error(`no ArchiveError: ${String(error)}`)
  })

const enospc = (pathOrDescriptor: string) =>
  PlatformError.systemError({
    _tag: "Unknown",
    module: "FileSystem",
    method: "writeAll",
    description: "ENOSPC: no space left on device",
    pathOrDescriptor
  })

const scratch = Effect.map(Directories.temporary, (folder) => ({
  folder,
  home: path.join(folder, "home"),
  copy: path.join(folder, "copy")
}))

describe("archives", () => {
  it.live("bring back files, modes, times, links and empty folders", () =>
    Effect.gen(function*() {
      const { copy, home } = yield* scratch
      const deep = Array.from({ length: 12 }, (_, index) => `level-${index}-${"x".repeat(30)}`).join("/")
      Directories.write(home, {
        "plain": { content: "text" },
        "empty": { content: "" },
        "secret": { content: "x", mode: 0o400 },
        "program": { content: "#!/bin/sh\n", mode: 0o755 },
        "shared": { content: "y", mode: 0o664 },
        "empty folder": { folder: true, mode: 0o700 },
        "read only/kept": { content: "z" },
        "read only/link": { link: "kept" },
        "read only": { folder: true, mode: 0o555 },
        [`${deep}/end`]: { content: "deep" },
        "ünï©ode 木 🌲": { content: "✓" },
        "back\\slash\nnewline -rf *": { content: "odd" },
        ".hidden/.more": { content: "." },
        "bytes": { content: new Uint8Array(200_000).map((_, index) => (index * 7919) >> 3) },
        "to/absolute": { link: "/usr/bin/env" },
        "to/nowhere": { link: "../../../not/there" },
        "to/folder": { link: "../read only" }
      })
      fs.utimesSync(path.join(home, "plain"), 1_000_000_000, 1_000_000_000)
      fs.utimesSync(path.join(home, "empty folder"), 1_100_000_000, 1_100_000_000)
      fs.chmodSync(home, 0o750)
      const contents = yield* Archive.unpack(Archive.pack(home, { generation: "g 1" }), copy)
      assert.deepStrictEqual(Directories.snapshot(copy), Directories.snapshot(home))
      assert.strictEqual(contents.entries, Directories.snapshot(home).length)
      assert.strictEqual(contents.generation, "g 1")
      assert.strictEqual(yield* Archive.generationOf(Archive.pack(home, { generation: "ünï" })), "ünï")
      assert.isUndefined(yield* Archive.generationOf(Archive.pack(home)))
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("bring back 5,000 files", () =>
    Effect.gen(function*() {
      const { copy, home } = yield* scratch
      const nodes: Record<string, Directories.Node> = {}
      for (let index = 0; index < 5000; index++) {
        nodes[`${index % 50}/${index % 7}/file-${index}`] = { content: `${index}\n`.repeat(index % 90) }
      }
      Directories.write(home, nodes)
      const { entries } = yield* Archive.unpack(Archive.pack(home), copy)
      assert.strictEqual(entries, 5000 + 50 + 350 + 1)
      assert.deepStrictEqual(Directories.snapshot(copy), Directories.snapshot(home))
    }).pipe(Effect.provide(NodeServices.layer)), 60_000)

  it.live("are what tar reads and writes", () =>
    Effect.gen(function*() {
      const { copy, folder, home } = yield* scratch
      Directories.write(home, {
        "a/b": { content: "b", mode: 0o640 },
        "a/link": { link: "b" },
        [`a/${"n".repeat(90)}/${"m".repeat(90)}`]: { content: "long" }
      })
      fs.writeFileSync(path.join(folder, "ours.tgz"), yield* bytesOf(Archive.pack(home, { generation: "1" })))
      const theirs = path.join(folder, "theirs")
      fs.mkdirSync(theirs)
      child_process.execFileSync("tar", ["xpzf", path.join(folder, "ours.tgz"), "-C", theirs])
      assert.deepStrictEqual(Directories.snapshot(theirs), Directories.snapshot(home))
      for (const format of ["gnu", "pax", "ustar"]) {
        const tar = child_process.execFileSync("tar", [`--format=${format}`, "-czf", "-", "-C", home, "."])
        yield* Archive.unpack(Stream.succeed(new Uint8Array(tar)), `${copy}-${format}`)
        assert.deepStrictEqual(Directories.snapshot(`${copy}-${format}`), Directories.snapshot(home))
      }
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("of large files need no memory for them", () =>
    Effect.gen(function*() {
      const { copy, home } = yield* scratch
      const size = 400 * 1024 * 1024
      fs.mkdirSync(home)
      fs.closeSync(fs.openSync(path.join(home, "large"), "w"))
      fs.truncateSync(path.join(home, "large"), size)
      const before = process.memoryUsage.rss()
      let most = before
      const timer = setInterval(() => most = Math.max(most, process.memoryUsage.rss()), 10)
      const contents = yield* Effect.ensuring(
        Archive.unpack(Archive.pack(home), copy),
        Effect.sync(() => clearInterval(timer))
      )
      assert.strictEqual(contents.bytes, size)
      assert.strictEqual(fs.statSync(path.join(copy, "large")).size, size)
      assert.isBelow(most - before, size / 2)
    }).pipe(Effect.provide(NodeServices.layer)), 120_000)

  it.live("leave out sockets and FIFOs, and what is excluded", () =>
    Effect.gen(function*() {
      const { copy, home } = yield* scratch
      Directories.write(home, {
        "kept": { content: "1" },
        "cache/one": { content: "2" },
        "cache/two": { content: "3" },
        "sub/cache": { content: "4" }
      })
      child_process.execFileSync("mkfifo", [path.join(home, "fifo")])
      const server = net.createServer()
      yield* Effect.callback<void>((resume) => {
        server.listen(path.join(home, "socket"), () => resume(Effect.void))
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => server.close()))
      yield* Archive.unpack(Archive.pack(home, { exclude: (name) => name === "cache" }), copy)
      assert.deepStrictEqual(Directories.names(copy), ["kept", "sub", "sub/cache"])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})

describe("a directory that can't be packed as it is", () => {
  it.live("fails for a name that is not UTF-8, and does not skip it", () =>
    Effect.gen(function*() {
      const { home } = yield* scratch
      fs.mkdirSync(home)
      fs.writeFileSync(Buffer.concat([Buffer.from(`${home}/caf`), Buffer.from([0xe9])]), "x")
      const error = yield* failureOf(Stream.runDrain(Archive.pack(home)))
      assert.strictEqual(error.reason, "Unreadable")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("fails for a file that may not be read, and names it", () =>
    Effect.gen(function*() {
      const { home } = yield* scratch
      Directories.write(home, { "a/locked": { content: "x" }, "b": { content: "y" } })
      const real = yield* FileSystem.FileSystem
      const refusing = FileSystem.make({
        ...real,
        open: (path, options) =>
          path.endsWith("locked")
            ? Effect.fail(
              PlatformError.systemError({
                _tag: "PermissionDenied",
                module: "FileSystem",
                method: "open",
                pathOrDescriptor: path
              })
            )
            : real.open(path, options)
      })
      const error = yield* failureOf(Stream.runDrain(Archive.pack(home))).pipe(
        Effect.provideService(FileSystem.FileSystem, refusing)
      )
      assert.deepInclude(error, { directory: home, entry: "a/locked", reason: "Unreadable" })
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("fails for a directory that is not there", () =>
    Effect.gen(function*() {
      const { home } = yield* scratch
      const error = yield* failureOf(Stream.runDrain(Archive.pack(home)))
      assert.deepInclude(error, { directory: home, entry: "", reason: "Unreadable" })
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live.skipIf(!fs.existsSync("/dev/pts/ptmx"))("fails for a device", () =>
    Effect.gen(function*() {
      const error = yield* failureOf(Stream.runDrain(Archive.pack("/dev/pts")))
      assert.strictEqual(error.reason, "Unsupported")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("fails for a file that gets shorter while it is read", () =>
    Effect.gen(function*() {
      const { home } = yield* scratch
      Directories.write(home, { log: { content: "x".repeat(100_000) } })
      const real = yield* FileSystem.FileSystem
      const shrinking = FileSystem.make({
        ...real,
        open: (path, options) => Effect.tap(real.open(path, options), Effect.sync(() => fs.truncateSync(path, 10)))
      })
      const error = yield* failureOf(Stream.runDrain(Archive.pack(home))).pipe(
        Effect.provideService(FileSystem.FileSystem, shrinking)
      )
      assert.strictEqual(error.reason, "Changed")
      assert.include(error.message, "log")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("fails when it is larger than allowed", () =>
    Effect.gen(function*() {
      const { home } = yield* scratch
      Directories.write(home, { one: { content: "x".repeat(600) }, two: { content: "x".repeat(500) } })
      const pack = (limits: Archive.Limits) => Stream.runDrain(Archive.pack(home, { limits }))
      yield* pack({ bytes: 1100, entries: 3 })
      assert.deepInclude(yield* failureOf(pack({ bytes: 1099 })), { reason: "TooLarge", entry: "two" })
      assert.deepInclude(yield* failureOf(pack({ entries: 2 })), { reason: "TooLarge", entry: "two" })
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("hostile archives", () => {
  const hostile: Record<string, { readonly entries: ReadonlyArray<Tar.Entry>; readonly reason: Errors.ArchiveReason }> =
    {
      "a name that climbs out": { entries: [root, Tar.file("../escaped", "x")], reason: "Unsafe" },
      "a name that climbs out further in": {
        entries: [root, Tar.directory("a"), Tar.file("a/../../escaped", "x")],
        reason: "Unsafe"
      },
      "a folder that climbs out": { entries: [root, Tar.directory("../escaped")], reason: "Unsafe" },
      "an absolute name": { entries: [root, Tar.file("/tmp/treeline-escaped", "x")], reason: "Unsafe" },
      "a link that climbs out": { entries: [root, Tar.symlink("../escaped", "/etc/passwd")], reason: "Unsafe" },
      "a file through a link": {
        entries: [root, Tar.symlink("a", ".."), Tar.file("a/escaped", "x")],
        reason: "Unsafe"
      },
      "a file through a link of the same name as a folder": {
        entries: [root, Tar.directory("a"), Tar.symlink("a", ".."), Tar.file("a/escaped", "x")],
        reason: "Unsafe"
      },
      "a file in place of a link": {
        entries: [root, Tar.symlink("a", "../escaped"), Tar.file("a", "x")],
        reason: "Unsafe"
      },
      "a folder in place of a link": {
        entries: [root, Tar.symlink("a", ".."), Tar.directory("a"), Tar.file("a/escaped", "x")],
        reason: "Unsafe"
      },
      "a link in place of a file": {
        entries: [root, Tar.file("a", "x"), Tar.symlink("a", "../escaped")],
        reason: "Unsafe"
      },
      "the directory itself as a link": { entries: [Tar.symlink("./", "..")], reason: "Damaged" },
      "the directory itself twice": { entries: [root, Tar.directory("./")], reason: "Unsafe" },
      "a file without its folder": { entries: [root, Tar.file("a/b", "x")], reason: "Unsafe" },
      "no directory": { entries: [Tar.file("a", "x")], reason: "Damaged" },
      "nothing": { entries: [], reason: "Damaged" },
      "a hard link": { entries: [root, Tar.hardlink("a", "/etc/passwd")], reason: "Unsupported" },
      "a device": {
        entries: [root, {
          ...Tar.file("a", ""),
          header: { ...Tar.file("a", "").header, type: "CharDevice", typeflag: "3" }
        }],
        reason: "Unsupported"
      }
    }
  for (const [name, { entries, reason }] of Object.entries(hostile)) {
    it.live(`${name}: ${reason}, and nothing is left`, () =>
      Effect.gen(function*() {
        const { copy, folder } = yield* scratch
        const error = yield* failureOf(Archive.unpack(archiveOf(...entries), copy))
        assert.strictEqual(error.reason, reason, error.message)
        assert.deepStrictEqual(fs.readdirSync(folder), [])
        assert.isFalse(fs.existsSync("/tmp/treeline-escaped"))
      }).pipe(Effect.provide(NodeServices.layer)))
  }

  it.live("a link that leads out is made, and nothing is written through it", () =>
    Effect.gen(function*() {
      const { copy, folder } = yield* scratch
      yield* Archive.unpack(archiveOf(root, Tar.symlink("a", "../outside"), Tar.directory("b")), copy)
      assert.deepStrictEqual(fs.readdirSync(folder), ["copy"])
      assert.strictEqual(fs.readlinkSync(path.join(copy, "a")), "../outside")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("set-user-ID, set-group-ID and sticky bits are dropped", () =>
    Effect.gen(function*() {
      const { copy } = yield* scratch
      yield* Archive.unpack(
        archiveOf(root, Tar.file("a", "x", { mode: 0o6755 }), Tar.directory("b", { mode: 0o3777 })),
        copy
      )
      assert.strictEqual(fs.statSync(path.join(copy, "a")).mode & 0o7777, 0o755)
      assert.strictEqual(fs.statSync(path.join(copy, "b")).mode & 0o7777, 0o777)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("too much of anything is refused before it is written", () =>
    Effect.gen(function*() {
      const { copy, folder } = yield* scratch
      const many = Array.from({ length: 20 }, (_, index) => Tar.file(`f${index}`, "x".repeat(100)))
      const unpack = (limits: Archive.Limits) => failureOf(Archive.unpack(archiveOf(root, ...many), copy, { limits }))
      assert.strictEqual((yield* unpack({ bytes: 1999 })).reason, "TooLarge")
      assert.strictEqual((yield* unpack({ entries: 20 })).reason, "TooLarge")
      const endless = Stream.forever(Stream.succeed(new Uint8Array(64 * 1024)))
      const huge = Stream.pipeThroughChannel(
        Stream.fromIterable([root, Tar.fileStream("huge", 2 ** 33, endless)]),
        Tar.encode()
      )
      assert.deepInclude(yield* failureOf(Archive.unpack(gzip(huge), copy)), { reason: "TooLarge", entry: "huge" })
      assert.deepStrictEqual(fs.readdirSync(folder), [])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("zeros without end behind the archive end somewhere", () =>
    Effect.gen(function*() {
      const { copy } = yield* scratch
      const tar = yield* bytesOf(Stream.pipeThroughChannel(Stream.fromIterable([root]), Tar.encode()))
      const zeros = new Uint8Array(1024 * 1024)
      let taken = 0
      const endless = Stream.concat(
        Stream.succeed(tar),
        Stream.map(Stream.rechunk(Stream.range(1, 100_000), 1), () => {
          taken++
          return zeros
        })
      )
      const limits = { bytes: 10_000_000, entries: 10 }
      assert.strictEqual((yield* failureOf(Archive.unpack(gzip(endless), copy, { limits }))).reason, "TooLarge")
      assert.isBelow(taken, 1000)
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("damaged archives", () => {
  const archive = Effect.gen(function*() {
    const paths = yield* scratch
    Directories.write(paths.home, {
      "a/one": { content: "x".repeat(3000) },
      "a/two": { content: Uint8Array.from({ length: 3000 }, (_, index) => (index * 2654435761) >>> 7) },
      "three": { content: "end" }
    })
    return { ...paths, bytes: yield* bytesOf(Archive.pack(paths.home)) }
  })

  it.live("cut off anywhere, they are Damaged, and nothing is left", () =>
    Effect.gen(function*() {
      const { bytes, copy, folder } = yield* archive
      for (let end = 0; end < bytes.length; end += 97) {
        const error = yield* failureOf(Archive.unpack(Stream.succeed(bytes.subarray(0, end)), copy))
        assert.strictEqual(error.reason, "Damaged", `${end} of ${bytes.length}: ${error.message}`)
      }
      const last = yield* failureOf(Archive.unpack(Stream.succeed(bytes.subarray(0, -1)), copy))
      assert.strictEqual(last.reason, "Damaged")
      assert.deepStrictEqual(fs.readdirSync(folder), ["home"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("with one bit changed anywhere, they are never taken for whole", () =>
    Effect.gen(function*() {
      const { bytes, copy, home } = yield* archive
      let refused = 0
      for (let at = 0; at < bytes.length; at += 61) {
        const changed = bytes.slice()
        changed[at]! ^= 0x10
        const exit = yield* Effect.exit(Archive.unpack(Stream.succeed(changed), copy))
        if (Exit.isFailure(exit)) {
          refused++
          assert.isFalse(fs.existsSync(copy))
          continue
        }
        // The header of gzip has fields without any meaning here, its time for one.
        assert.isBelow(at, 10)
        assert.deepStrictEqual(Directories.snapshot(copy), Directories.snapshot(home))
        fs.rmSync(copy, { recursive: true })
      }
      assert.isAbove(refused, 20)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("what is no archive at all is Damaged", () =>
    Effect.gen(function*() {
      const { copy } = yield* scratch
      for (const text of ["", "hello", "\u0000".repeat(10_000)]) {
        const stream = Stream.succeed(new TextEncoder().encode(text))
        assert.strictEqual((yield* failureOf(Archive.unpack(stream, copy))).reason, "Damaged")
        assert.strictEqual((yield* failureOf(Archive.generationOf(stream))).reason, "Damaged")
      }
      assert.strictEqual((yield* failureOf(Archive.unpack(Stream.empty, copy))).reason, "Damaged")
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("unpacking that does not get to its end", () => {
  it.live("because the disk is full leaves nothing", () =>
    Effect.gen(function*() {
      const { copy, folder, home } = yield* scratch
      Directories.write(home, { one: { content: "1" }, two: { content: "2" } })
      const real = yield* FileSystem.FileSystem
      const full = FileSystem.make({
        ...real,
        open: (path, options) =>
          Effect.map(
            real.open(path, options),
            (file) => path.endsWith("copy/two") ? { ...file, writeAll: () => Effect.fail(enospc(path)) } : file
          )
      })
      const bytes = yield* bytesOf(Archive.pack(home))
      const error = yield* failureOf(Archive.unpack(Stream.succeed(bytes), copy)).pipe(
        Effect.provideService(FileSystem.FileSystem, full)
      )
      assert.deepInclude(error, { reason: "Unwritable", entry: "two" })
      assert.include(error.message, "no space left")
      assert.deepStrictEqual(fs.readdirSync(folder), ["home"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("because it is interrupted leaves nothing, and no descriptor", () =>
    Effect.gen(function*() {
      const { copy, folder, home } = yield* scratch
      Directories.write(home, {
        one: { content: "1" },
        two: { content: Uint8Array.from({ length: 300_000 }, (_, index) => (index * 2654435761) >>> 5) }
      })
      const bytes = yield* bytesOf(Archive.pack(home))
      const before = Directories.openDescriptors()
      const half = yield* Deferred.make<void>()
      const stuck = Stream.concat(
        Stream.succeed(bytes.subarray(0, bytes.length / 2)),
        Stream.fromEffect(Effect.andThen(Deferred.succeed(half, undefined), Effect.never))
      )
      const fiber = yield* Effect.forkChild(Archive.unpack(stuck, copy))
      yield* Deferred.await(half)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(fs.readdirSync(folder), ["home"])
      assert.strictEqual(Directories.openDescriptors(), before)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("because its source fails has that error, and leaves nothing", () =>
    Effect.gen(function*() {
      const { copy, folder } = yield* scratch
      const failing = Stream.fail("no connection")
      assert.strictEqual(yield* Effect.flip(Archive.unpack(failing, copy)), "no connection")
      assert.deepStrictEqual(fs.readdirSync(folder), [])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("never touches what is there already", () =>
    Effect.gen(function*() {
      const { copy, home } = yield* scratch
      Directories.write(home, { one: { content: "1" } })
      Directories.write(copy, { mine: { content: "2" } })
      const error = yield* failureOf(Archive.unpack(Archive.pack(home), copy))
      assert.strictEqual(error.reason, "Unwritable")
      assert.deepStrictEqual(fs.readdirSync(copy), ["mine"])
    }).pipe(Effect.provide(NodeServices.layer)))
})
