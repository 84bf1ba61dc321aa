/**
 * A file system in memory that can be full, slow to take what is written, and broken, and whose user can die at any
 * operation.
 */
import { ByteSize, Effect, FileSystem, Layer, Option, Path, PlatformError, type Scope } from "effect"

interface Inode {
  readonly ino: bigint
  readonly born: number
  data: Uint8Array
  links: number
}

export type Operation = "open" | "write" | "stat" | "rename" | "exists" | "remove" | "makeDirectory" | "close"

const codes = {
  ENOENT: "NotFound",
  EACCES: "PermissionDenied",
  ENOSPC: "Unknown",
  EROFS: "Unknown",
  EIO: "Unknown"
} as const

export type Code = keyof typeof codes

export const failure = (code: Code, method: string, path = ""): PlatformError.PlatformError =>
  PlatformError.systemError({
    _tag: codes[code],
    module: "FileSystem",
    method,
    pathOrDescriptor: path,
    cause: Object.assign(new Error(code), { code })
  })

export class MemoryFiles {
  private readonly names = new Map<string, Inode>()
  private readonly directories = new Set(["/"])
  private inodes = 0n
  /** Bytes that all files may have. */
  capacity = Number.POSITIVE_INFINITY
  /** The most that one write takes. */
  longestWrite = Number.POSITIVE_INFINITY
  /** Asked before each operation. */
  fault: (operation: Operation, path: string) => Code | undefined = () => undefined
  /** Operations until now. */
  operations = 0
  /** Open descriptors. */
  open = 0
  /** What was done, without stats. */
  readonly story: Array<string> = []
  /** From this operation on nothing happens any more and nothing answers. */
  diesAt = Number.POSITIVE_INFINITY
  /** Writes wait while this is set. */
  hold: Effect.Effect<void> = Effect.void
  now: () => number = () => 0

  /** The content of every file by its name. */
  contents(): Record<string, string> {
    return Object.fromEntries([...this.names].map(([name, { data }]) => [name, new TextDecoder().decode(data)]))
  }

  read(path: string): string {
    return this.contents()[path] ?? ""
  }

  /** By somebody else. */
  rename(from: string, to: string): void {
    const inode = this.names.get(from)
    if (inode === undefined) return
    this.names.delete(from)
    const old = this.names.get(to)
    if (old !== undefined) old.links--
    this.names.set(to, inode)
  }

  /** By somebody else. */
  remove(path: string): void {
    const inode = this.names.get(path)
    if (inode !== undefined) inode.links--
    this.names.delete(path)
  }

  /** By somebody else. */
  write(path: string, text: string, born = this.now()): void {
    this.directories.add(path.slice(0, path.lastIndexOf("/")))
    this.names.set(path, { ino: ++this.inodes, born, data: new TextEncoder().encode(text), links: 1 })
  }

  private used(): number {
    return [...this.names.values()].reduce((sum, { data }) => sum + data.length, 0)
  }

  private operation<A>(
    operation: Operation,
    path: string,
    run: () => A
  ): Effect.Effect<A, PlatformError.PlatformError> {
    return Effect.suspend(() => {
      if (++this.operations >= this.diesAt) return Effect.never
      const code = this.fault(operation, path)
      if (code !== undefined) return Effect.fail(failure(code, operation, path))
      if (operation !== "stat" && operation !== "exists") this.story.push(`${operation} ${path}`)
      return Effect.try({
        try: run,
        catch: (error) => error as PlatformError.PlatformError
      })
    }).pipe(Effect.tap(Effect.yieldNow))
  }

  private info({ born, data, ino, links }: Inode): FileSystem.File.Info {
    return {
      type: "File",
      mtime: Option.some(new Date(born)),
      atime: Option.none(),
      birthtime: Option.some(new Date(born)),
      dev: 1n,
      rdev: Option.none(),
      ino: Option.some(ino),
      mode: 0o600,
      nlink: Option.some(BigInt(links)),
      uid: Option.none(),
      gid: Option.none(),
      size: ByteSize.bytes(data.length),
      blksize: Option.none(),
      blocks: Option.none()
    }
  }

  private fileOf(path: string, inode: Inode): FileSystem.File {
    return {
      [FileSystem.FileTypeId]: FileSystem.FileTypeId,
      stat: this.operation("stat", path, () => this.info(inode)),
      write: (bytes: Uint8Array) =>
        Effect.andThen(
          Effect.suspend(() => this.hold),
          this.operation("write", path, () => {
            const taken = bytes.subarray(0, Math.min(this.longestWrite, Math.max(0, this.capacity - this.used())))
            if (taken.length === 0) throw failure("ENOSPC", "write", path)
            const data = new Uint8Array(inode.data.length + taken.length)
            data.set(inode.data)
            data.set(taken, inode.data.length)
            inode.data = data
            return taken.length
          })
        ),
      read: (into: Uint8Array, options?: { readonly position?: bigint | undefined }) =>
        Effect.sync(() => {
          const from = Number(options?.position ?? 0n)
          const part = inode.data.subarray(from, from + into.length)
          into.set(part)
          return part.length
        })
    } as unknown as FileSystem.File
  }

  get service(): FileSystem.FileSystem {
    const open = (
      path: string,
      options?: { readonly flag?: FileSystem.OpenFlag | undefined }
    ): Effect.Effect<FileSystem.File, PlatformError.PlatformError, Scope.Scope> =>
      Effect.acquireRelease(
        this.operation("open", path, () => {
          let inode = this.names.get(path)
          const directory = path.slice(0, path.lastIndexOf("/"))
          if (inode === undefined) {
            if (options?.flag !== "a" || !this.directories.has(directory)) throw failure("ENOENT", "open", path)
            inode = { ino: ++this.inodes, born: this.now(), data: new Uint8Array(), links: 1 }
            this.names.set(path, inode)
          }
          this.open++
          return this.fileOf(path, inode)
        }),
        () =>
          Effect.sync(() => {
            this.open--
          })
      )
    return FileSystem.makeNoop({
      open,
      stat: (path) =>
        this.operation("stat", path, () => {
          const inode = this.names.get(path)
          if (inode === undefined) throw failure("ENOENT", "stat", path)
          return this.info(inode)
        }),
      exists: (path) => this.operation("exists", path, () => this.names.has(path)),
      rename: (from, to) =>
        this.operation("rename", from, () => {
          if (!this.names.has(from)) throw failure("ENOENT", "rename", from)
          this.rename(from, to)
        }),
      remove: (path) => this.operation("remove", path, () => this.remove(path)),
      makeDirectory: (path) => this.operation("makeDirectory", path, () => void this.directories.add(path))
    })
  }

  get layer(): Layer.Layer<FileSystem.FileSystem | Path.Path> {
    return Layer.merge(Layer.succeed(FileSystem.FileSystem, this.service), Path.layer)
  }
}
