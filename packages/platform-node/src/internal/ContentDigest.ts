/**
 * What a folder holds, as one number: names, kinds, whether a file may be run, where links lead, and every byte. Times and
 * owners don't count.
 */
import { createHash, type Hash } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { syncFolder } from "./Disk.ts"

/** More entries than this are no version of a program. */
const mostEntries = 200_000

/** Files are read by this many bytes. */
const chunk = 1024 * 1024

const addFile = async (hash: Hash, file: string, buffer: Buffer): Promise<void> => {
  const handle = await fs.open(file, "r")
  try {
    const content = createHash("sha256")
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length)
      if (bytesRead === 0) break
      content.update(buffer.subarray(0, bytesRead))
    }
    hash.update(content.digest("hex"))
    // It is to be there also after a loss of power, when its folder has its name.
    await handle.sync().catch(() => {})
  } finally {
    await handle.close()
  }
}

/** A folder's entries as directory listings give them: what is in it follows a folder. */
const addFolder = async (
  hash: Hash,
  root: string,
  relative: string,
  state: { entries: number; readonly buffer: Buffer }
): Promise<void> => {
  const entries = await fs.readdir(path.join(root, relative), { withFileTypes: true })
  // By code units: the same everywhere, whatever the locale.
  entries.sort((a, b) => a.name < b.name ? -1 : 1)
  for (const entry of entries) {
    if (++state.entries > mostEntries) throw new Error(`more than ${mostEntries} files`)
    const name = relative === "" ? entry.name : `${relative}/${entry.name}`
    const file = path.join(root, name)
    const field = (kind: string, detail: string) => hash.update(`${kind}\0${name}\0${detail}\0`)
    if (entry.isDirectory()) {
      field("folder", "")
      await addFolder(hash, root, name, state)
    } else if (entry.isSymbolicLink()) field("link", await fs.readlink(file))
    else if (entry.isFile()) {
      const { mode } = await fs.lstat(file)
      field("file", process.platform !== "win32" && (mode & 0o100) !== 0 ? "x" : "")
      await addFile(hash, file, state.buffer)
    } else throw new Error(`${name} is neither a file, a folder nor a symbolic link`)
  }
  await syncFolder(path.join(root, relative))
}

/** SHA-256 in hex of what is in a folder; all of it is on the disk when this is done. */
export const of = async (root: string): Promise<string> => {
  const hash = createHash("sha256")
  await addFolder(hash, root, "", { entries: 0, buffer: Buffer.allocUnsafe(chunk) })
  return hash.digest("hex")
}
