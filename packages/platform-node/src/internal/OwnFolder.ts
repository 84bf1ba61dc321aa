/** A folder that only its user may enter: what is in it was put there by nobody else, and is read by nobody else. */
import * as fs from "node:fs"

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error)

/** Why a folder is not safe to keep a secret in, or to be believed, or undefined. Systems without user ids are not judged. */
const unsafe = (stat: fs.Stats): string | undefined => {
  if (!stat.isDirectory()) return stat.isSymbolicLink() ? "is a symbolic link" : "is no folder"
  const own = process.geteuid?.()
  if (own === undefined) return undefined
  if (stat.uid !== own) return `belongs to another user (uid ${stat.uid})`
  return (stat.mode & 0o077) === 0
    ? undefined
    : `may be entered by others (mode ${(stat.mode & 0o777).toString(8)}): make it 0700`
}

/** What is wrong with the folder at a path, or undefined; nothing is where there is none. */
export const problemOf = (directory: string): string | undefined => {
  try {
    return unsafe(fs.lstatSync(directory))
  } catch (error) {
    const code = codeOf(error)
    return code === "ENOENT" || code === "ENOTDIR" ? undefined : `can't be looked at: ${code}`
  }
}

/**
 * Makes a folder and those above it that are missing, with the mode 0700 from the beginning, and checks it. One that is
 * there is never changed. Returns what is wrong with it, or undefined.
 */
export const make = (directory: string): string | undefined => {
  try {
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
    return unsafe(fs.lstatSync(directory))
  } catch (error) {
    return problemOf(directory) ?? `can't be made: ${codeOf(error)}`
  }
}
