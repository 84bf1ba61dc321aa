/** The file that a detached process writes what it says to. */
import { Buffer } from "node:buffer"
import * as fs from "node:fs"
import * as path from "node:path"

/** How much of the end is read, in bytes. */
const tail = 8192

/** Makes the folder, and sets aside what is in the place where that is possible (seed C27). */
export const setAside = (file: string): void => {
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 })
  try {
    fs.renameSync(file, `${file}.previous`)
  } catch {
    // there is none, or it can't be kept: a start does not fail for it
  }
}

/** Its end; `complete` when that is all. */
export const endOf = (file: string): { readonly bytes: Uint8Array; readonly complete: boolean } => {
  try {
    const fd = fs.openSync(file, "r")
    try {
      const { size } = fs.fstatSync(fd)
      const bytes = Buffer.alloc(Math.min(size, tail))
      const read = fs.readSync(fd, bytes, 0, bytes.length, size - bytes.length)
      return { bytes: bytes.subarray(0, read), complete: size <= tail }
    } finally {
      fs.closeSync(fd)
    }
  } catch {
    return { bytes: new Uint8Array(0), complete: true }
  }
}
