/**
 * A managed install on a disk.
 *
 * `versions/ID` are the versions, `current` says which one is current, `staging/PID-…` is what is being fetched, with
 * `owner.json` that says by which process: what a dead one has left is rubbish.
 *
 * `current` is a symbolic link that is replaced by rename(2), in one step. On Windows it is a small file with the id: there
 * a file can be replaced in one step (MoveFileEx), a junction, which is a folder, can't.
 */
import type { Fetch, ManagedInstall, Version } from "@treeline/core/daemon/ManagedInstall"
import { ManagedInstallError, ManagedProgramUnusable } from "@treeline/core/Errors"
import { ProcessIdentity } from "@treeline/core/ProcessIdentity"
import type { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { randomBytes } from "node:crypto"
import { constants, realpathSync, type Stats } from "node:fs"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import * as ContentDigest from "./internal/ContentDigest.ts"
import { busy, codeOf, persistently, syncFolder } from "./internal/Disk.ts"
import * as OwnFolder from "./internal/OwnFolder.ts"

export interface Options {
  /** Its folder; made when something is to be stored. For its user only. */
  readonly directory: string
  /** This process. */
  readonly self: ProcessIdentity
  readonly platform: Pick<ProcessPlatform["Service"], "identify" | "standing">
  /** How it is kept which version is current. Default: `file` on Windows, else `link`. */
  readonly pointer?: "link" | "file" | undefined
}

/** Characters of a digest in an id: 160 bits. */
const idLength = 40

const idPattern = /^[0-9a-f]{40}$/

const Owner = Schema.fromJsonString(ProcessIdentity)
const encodeOwner = Schema.encodeSync(Owner)
const decodeOwner = Schema.decodeUnknownOption(Owner)

const isMissing = (error: unknown): boolean => ["ENOENT", "ENOTDIR"].includes(codeOf(error))

/** Undefined where there is nothing. */
const orMissing = async <A>(promise: Promise<A>): Promise<A | undefined> => {
  try {
    return await promise
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

/** Also of folders that are read-only. */
const remove = async (target: string): Promise<void> => {
  const remaining = () => persistently(() => fs.rm(target, { recursive: true, force: true }))
  try {
    await remaining()
  } catch (error) {
    if (!busy.has(codeOf(error))) throw error
    await makeWritable(target)
    await remaining()
  }
}

const makeWritable = async (folder: string): Promise<void> => {
  await fs.chmod(folder, 0o700)
  for (const entry of await fs.readdir(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) await makeWritable(path.join(folder, entry.name))
  }
}

/** A path without links, as far as it is there. */
const resolved = (file: string): string => {
  try {
    // The system's own: on Windows also its letters and short names are as they are there.
    return realpathSync.native(file)
  } catch {
    return file
  }
}

/** Whether a path is below a folder. */
const isInside = (folder: string, file: string): boolean => {
  const relative = path.relative(folder, file)
  return relative !== "" && !path.isAbsolute(relative) && relative.split(path.sep)[0] !== ".."
}

/**
 * The install in a folder; nothing is made before something is fetched.
 *
 * @example
 * ```ts
 * import { ProcessPlatform } from "@treeline/core"
 * import { NodeManagedInstall } from "@treeline/platform-node"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect, Option } from "effect"
 * import { strictEqual } from "node:assert"
 * import * as fs from "node:fs"
 * import * as os from "node:os"
 * import * as path from "node:path"
 *
 * const directory = fs.mkdtempSync(path.join(os.tmpdir(), "install-"))
 * const program = Effect.gen(function*() {
 *   const platform = yield* ProcessPlatform.ProcessPlatform
 *   const self = Option.getOrThrow(yield* platform.identify(process.pid))
 *   const install = NodeManagedInstall.make({ directory: path.join(directory, "install"), self, platform })
 *   const { id } = yield* install.stage((folder) =>
 *     Effect.sync(() => fs.writeFileSync(path.join(folder, "app"), "#!/bin/sh\necho app 1.2.3\n", { mode: 0o755 }))
 *   )
 *   yield* install.switchTo(id)
 *   const current = Option.getOrThrow(yield* install.current)
 *   strictEqual(yield* install.locate(current.id, "app"), path.join(current.path, "app"))
 * })
 * await Effect.runPromise(program.pipe(Effect.provide(PosixPlatform.layer)))
 * fs.rmSync(directory, { recursive: true })
 * ```
 */
export const make = (options: Options): ManagedInstall => {
  const { directory, platform, self } = options
  const pointer = options.pointer ?? (process.platform === "win32" ? "file" : "link")
  const versions = path.join(directory, "versions")
  const staging = path.join(directory, "staging")
  const current = path.join(directory, "current")
  const folderOf = (id: string) => path.join(versions, id)
  const ownName = () => `${self.pid}-${randomBytes(16).toString("hex")}`

  const attempt = <A>(
    operation: ManagedInstallError["operation"],
    target: string,
    f: () => Promise<A>
  ): Effect.Effect<A, ManagedInstallError> =>
    Effect.tryPromise({
      try: async () => {
        // What others may have put there is not run.
        const problem = OwnFolder.problemOf(directory)
        if (problem !== undefined) throw new Error(`${directory} ${problem}`)
        return await f()
      },
      catch: (error) =>
        new ManagedInstallError({
          path: target,
          operation,
          detail: error instanceof Error ? error.message : String(error)
        })
    })

  const listVersions = async (): Promise<ReadonlyArray<string>> =>
    ((await orMissing(fs.readdir(versions))) ?? []).filter((name) => idPattern.test(name)).toSorted()

  const readCurrent = async (): Promise<Version | undefined> => {
    const stat: Stats | undefined = await orMissing(fs.lstat(current))
    if (stat === undefined) return undefined
    const repair = "remove it; then nothing is current until the next update"
    const text = stat.isSymbolicLink()
      ? path.relative("versions", await fs.readlink(current))
      : stat.isFile() && stat.size <= 256
      ? (await persistently(() => fs.readFile(current, "utf8"))).trim()
      : ""
    if (!idPattern.test(text)) throw new Error(`it does not lead to a version of ${versions}; ${repair}`)
    const folder = await orMissing(fs.realpath(folderOf(text)))
    if (folder === undefined) throw new Error(`it leads to version ${text}, which is not there; ${repair}`)
    return { id: text, path: folder }
  }

  /** Whether what a name in `staging` or a draft of `current` belongs to has ended. */
  const isAbandoned = (name: string, owner: string | undefined): Effect.Effect<boolean> =>
    Effect.gen(function*() {
      const identity = owner === undefined ? Option.none<ProcessIdentity>() : decodeOwner(owner)
      if (Option.isSome(identity)) return (yield* platform.standing(identity.value)) === "Gone"
      // Who died before it had said who it is.
      const pid = Number(/^(\d+)-/.exec(name)?.[1])
      return Number.isInteger(pid) && Option.isNone(yield* platform.identify(pid))
    })

  const sweep: Effect.Effect<void, ManagedInstallError> = Effect.gen(function*() {
    for (const name of yield* attempt("list", staging, async () => (await orMissing(fs.readdir(staging))) ?? [])) {
      const folder = path.join(staging, name)
      const owner = yield* attempt(
        "list",
        folder,
        () => orMissing(fs.readFile(path.join(folder, "owner.json"), "utf8"))
      )
      if (yield* isAbandoned(name, owner)) yield* attempt("remove", folder, () => remove(folder))
    }
    for (const name of yield* attempt("list", directory, async () => (await orMissing(fs.readdir(directory))) ?? [])) {
      const draft = /^current\.(.+)\.new$/.exec(name)?.[1]
      if (draft === undefined || !(yield* isAbandoned(draft, undefined))) continue
      yield* attempt("remove", name, () => remove(path.join(directory, name)))
    }
  })

  /** A fresh folder of this process, until the scope closes. */
  const makeStaging = Effect.acquireRelease(
    attempt("make", staging, async () => {
      const problem = OwnFolder.make(directory)
      if (problem !== undefined) throw new Error(`${directory} ${problem}`)
      await fs.mkdir(versions, { recursive: true, mode: 0o700 })
      const folder = path.join(staging, ownName())
      const content = path.join(folder, "content")
      await fs.mkdir(folder, { recursive: true, mode: 0o700 })
      await fs.writeFile(path.join(folder, "owner.json"), encodeOwner(self), { flag: "wx", mode: 0o600 })
      await fs.mkdir(content, { mode: 0o755 })
      return { folder, content }
    }),
    ({ folder }) => Effect.ignore(attempt("remove", folder, () => remove(folder)))
  )

  const stage = (fetch: Fetch) =>
    Effect.scoped(Effect.gen(function*() {
      yield* sweep
      const { content } = yield* makeStaging
      yield* fetch(content)
      const digest = yield* attempt("digest", content, async () => {
        if ((await fs.readdir(content)).length === 0) throw new Error("nothing was fetched: the folder is empty")
        return ContentDigest.of(content)
      })
      const id = digest.slice(0, idLength)
      const folder = folderOf(id)
      return yield* Effect.uninterruptible(attempt("store", folder, async (): Promise<Version> => {
        // A folder has this name only when it is whole.
        if ((await orMissing(fs.lstat(folder))) === undefined) {
          await persistently(async () => {
            try {
              await fs.rename(content, folder)
            } catch (error) {
              // Somebody else has stored the same at the same time.
              if ((await orMissing(fs.lstat(folder))) === undefined) throw error
            }
          })
          await syncFolder(versions)
        }
        return { id, path: await fs.realpath(folder) }
      }))
    }))

  const switchTo = (id: string) =>
    Effect.uninterruptible(Effect.gen(function*() {
      const draft = path.join(directory, `current.${ownName()}.new`)
      const made = yield* Effect.exit(attempt("switch", current, async () => {
        if (!idPattern.test(id) || (await orMissing(fs.lstat(folderOf(id)))) === undefined) {
          throw new Error(`there is no version ${id}`)
        }
        if (pointer === "link") await fs.symlink(path.join("versions", id), draft)
        else await fs.writeFile(draft, `${id}\n`, { flag: "wx", mode: 0o600, flush: true })
        await persistently(() => fs.rename(draft, current))
        await syncFolder(directory)
      }))
      if (Exit.isFailure(made)) yield* Effect.ignore(attempt("remove", draft, () => fs.rm(draft, { force: true })))
      return yield* made
    }))

  const prune = (keep: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      yield* sweep
      return yield* attempt("remove", versions, async () => {
        const kept = new Set([...keep, (await readCurrent())?.id])
        const removed = (await listVersions()).filter((id) => !kept.has(id))
        for (const id of removed) {
          // By another name first: a version that is there is whole.
          const rubbish = path.join(staging, ownName())
          await fs.mkdir(rubbish, { recursive: true, mode: 0o700 })
          await fs.writeFile(path.join(rubbish, "owner.json"), encodeOwner(self), { flag: "wx", mode: 0o600 })
          await persistently(() => fs.rename(folderOf(id), path.join(rubbish, "content")))
          await remove(rubbish)
        }
        return removed
      })
    })

  const locate = (id: string, program: string) =>
    Effect.gen(function*() {
      const folder = folderOf(id)
      const unusable = (reason: ManagedProgramUnusable["reason"], detail: string) =>
        Effect.fail(new ManagedProgramUnusable({ program: path.join(folder, program), reason, detail }))
      if (program === "" || path.isAbsolute(program) || !isInside(folder, path.resolve(folder, program))) {
        return yield* unusable("Outside", `${JSON.stringify(program)} is no path in a version`)
      }
      const found = yield* attempt("current", path.join(folder, program), async () => {
        const file = await orMissing(fs.realpath(path.join(folder, program)))
        if (file === undefined) return undefined
        return {
          file,
          inside: isInside(await fs.realpath(folder), file),
          regular: (await fs.stat(file)).isFile(),
          executable: await fs.access(file, constants.X_OK).then(() => true, () => false)
        }
      })
      if (found === undefined) return yield* unusable("Missing", "there is no such file")
      if (!found.inside) return yield* unusable("Outside", `it leads to ${found.file}`)
      if (!found.regular) return yield* unusable("NotExecutable", "it is no regular file")
      if (!found.executable) return yield* unusable("NotExecutable", "it may not be run")
      return found.file
    })

  return {
    path: directory,
    current: Effect.map(attempt("current", current, readCurrent), Option.fromUndefinedOr),
    versions: attempt("list", versions, listVersions),
    stage,
    switchTo,
    prune,
    sweep,
    locate,
    versionOf: (file) => {
      const [id = "", ...rest] = path.relative(resolved(versions), file).split(path.sep)
      return idPattern.test(id) && rest.length > 0 ? Option.some(id) : Option.none()
    }
  }
}
