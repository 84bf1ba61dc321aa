/**
 * Directories as tests see them, independent of the code under test.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

/** A folder that is removed with the scope, whatever its modes are then. */
export const temporary: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "treeline-test-"))),
  (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 20 }))
)

/** A file with content and mode, a link with a target, or a folder. */
export type Node =
  | { readonly content: string | Uint8Array; readonly mode?: number }
  | { readonly link: string }
  | { readonly folder: true; readonly mode?: number }

/** Makes what is described; names are paths in `root`, and folders on the way need no mention. */
export const write = (root: string, nodes: Readonly<Record<string, Node>>): void => {
  fs.mkdirSync(root, { recursive: true })
  const modes: Array<readonly [string, number]> = []
  for (const [name, node] of Object.entries(nodes)) {
    const at = path.join(root, name)
    fs.mkdirSync(path.dirname(at), { recursive: true })
    if ("link" in node) fs.symlinkSync(node.link, at)
    else if ("folder" in node) fs.mkdirSync(at, { recursive: true })
    else fs.writeFileSync(at, node.content)
    if ("mode" in node) modes.push([at, node.mode])
  }
  for (const [at, mode] of modes.toReversed()) fs.chmodSync(at, mode)
}

/** The names of all that is in a directory; links are not followed. */
const namesIn = (root: string, folder = ""): ReadonlyArray<string> =>
  fs.readdirSync(path.join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(folder, entry.name)
    return entry.isDirectory() ? [name, ...namesIn(root, name)] : [name]
  })

/** The same, sorted; none where there is no directory. */
export const names = (root: string): ReadonlyArray<string> => fs.existsSync(root) ? [...namesIn(root)].sort() : []

/** All that is in a directory, itself included: `path kind mode time content`, sorted. */
export const snapshot = (root: string): ReadonlyArray<string> =>
  ["", ...names(root)].map((name) => {
    const at = path.join(root, name)
    const stat = fs.lstatSync(at)
    const mode = (stat.mode & 0o7777).toString(8)
    const time = Math.floor(stat.mtimeMs / 1000)
    if (stat.isSymbolicLink()) return `${name} link ${fs.readlinkSync(at)}`
    if (stat.isDirectory()) return `${name} folder ${mode} ${time}`
    return `${name} file ${mode} ${time} ${stat.size} ${fs.readFileSync(at).toString("base64").slice(0, 2000)}`
  })

/** Descriptors that this process has open. */
export const openDescriptors = (): number => fs.readdirSync("/proc/self/fd").length
