/** The state folder of a daemon on a disk. */
import type { StateFolder } from "@treeline/core/daemon/StateFolder"
import { StateFolderError } from "@treeline/core/Errors"
import * as Effect from "effect/Effect"
import { existsSync } from "node:fs"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { busy, codeOf, persistently, retries, syncFolder } from "./internal/Disk.ts"
import * as OwnFolder from "./internal/OwnFolder.ts"

/** A larger file is none of ours, in bytes. */
const readLimit = 64 * 1024

/** Something is there already (rename(2)); Windows says that access is denied. */
const occupied = (error: unknown, to: string): boolean => {
  const code = codeOf(error)
  if (code === "ENOTEMPTY" || code === "EEXIST" || code === "ENOTDIR") return true
  return busy.has(code) && existsSync(to)
}

/**
 * The state folder at a path; nothing is made before something is to be written.
 *
 * Nothing is done in a folder that others may enter, that is somebody else's, or that is a symbolic link: what is in it may
 * have been put there by anybody.
 *
 * @example
 * ```ts
 * import { NodeStateFolder } from "@treeline/platform-node"
 * import { Effect } from "effect"
 * import { deepStrictEqual } from "node:assert"
 * import * as fs from "node:fs"
 * import * as os from "node:os"
 * import * as path from "node:path"
 *
 * const directory = fs.mkdtempSync(path.join(os.tmpdir(), "state-"))
 * const folder = NodeStateFolder.make(path.join(directory, "state"))
 * const program = Effect.gen(function*() {
 *   yield* folder.makeFolder("one")
 *   yield* folder.write("one/file", "text")
 *   return [yield* folder.moveFolder("one", "two"), yield* folder.read("two/file"), yield* folder.list("one")]
 * })
 * deepStrictEqual(await Effect.runPromise(program), [true, "text", []])
 * fs.rmSync(directory, { recursive: true })
 * ```
 */
export const make = (directory: string): StateFolder => {
  const at = (name: string) => path.join(directory, name)
  const attempt = <A>(
    operation: StateFolderError["operation"],
    name: string,
    f: (file: string) => Promise<A>
  ): Effect.Effect<A, StateFolderError> =>
    Effect.tryPromise({
      try: async () => {
        // Before anything in it is believed, too.
        const problem = operation === "make" ? OwnFolder.make(directory) : OwnFolder.problemOf(directory)
        if (problem !== undefined) throw new Error(`${directory} ${problem}`)
        return f(at(name))
      },
      catch: (error) =>
        new StateFolderError({
          path: at(name),
          operation,
          detail: error instanceof Error ? error.message : String(error)
        })
    })
  /** Those codes are as good as success. */
  const except = (codes: ReadonlyArray<string>) => <A>(other: A) => (error: unknown): A => {
    if (codes.includes(codeOf(error))) return other
    throw error
  }

  return {
    path: directory,
    makeFolder: (name) =>
      attempt("make", name, async (folder) => {
        await fs.mkdir(folder, { recursive: true, mode: 0o700 })
      }),
    write: (name, text) =>
      attempt("write", name, async (file) => {
        const handle = await fs.open(file, "wx", 0o600)
        try {
          await handle.writeFile(text)
          await handle.sync()
        } finally {
          await handle.close()
        }
      }),
    replace: (from, to) =>
      attempt("replace", to, async (file) => {
        await persistently(() => fs.rename(at(from), file))
        await syncFolder(path.dirname(file))
      }),
    moveFolder: (from, to) =>
      attempt("move", to, (folder) =>
        persistently(async () => {
          try {
            await fs.rename(at(from), folder)
            return true
          } catch (error) {
            if (occupied(error, folder)) return false
            throw error
          }
        })),
    list: (name) => attempt("list", name, (folder) => fs.readdir(folder).catch(except(["ENOENT"])<Array<string>>([]))),
    read: (name) =>
      attempt("read", name, async (file) => {
        const handle = await persistently(() => fs.open(file, "r")).catch(except(["ENOENT", "ENOTDIR"])(undefined))
        if (handle === undefined) return undefined
        try {
          if ((await handle.stat()).size > readLimit) throw new Error("it is too large to be one of treeline's")
          return await handle.readFile("utf8")
        } finally {
          await handle.close()
        }
      }),
    removeFile: (name) =>
      attempt(
        "remove",
        name,
        (file) => persistently(() => fs.unlink(file)).catch(except(["ENOENT", "ENOTDIR"])(undefined))
      ),
    removeEmptyFolder: (name) =>
      attempt(
        "remove",
        name,
        (folder) =>
          fs.rmdir(folder).catch(
            except(["ENOENT", "ENOTEMPTY", "EEXIST", "ENOTDIR", ...retries > 0 ? busy : []])(undefined)
          )
      )
  }
}
