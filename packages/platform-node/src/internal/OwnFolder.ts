/** A folder that only its user may enter: what is in it was put there by nobody else, and is read by nobody else. */
import * as fs from "node:fs"
import * as path from "node:path"
import * as WindowsAccess from "./WindowsAccess.ts"

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error)

/** The same for Windows, where a mode says nothing. */
const unsafeOnWindows = (directory: string): string | undefined => {
  const problem = WindowsAccess.problemOf(directory)
  return problem === undefined
    ? undefined
    : `${problem}: move it away and one for you alone is made, or take the entries of others away with icacls`
}

/** Why a folder is not safe to keep a secret in, or to be believed, or undefined. */
const unsafe = (directory: string): string | undefined => {
  const stat = fs.lstatSync(directory)
  if (!stat.isDirectory()) return stat.isSymbolicLink() ? "is a symbolic link" : "is no folder"
  const own = process.geteuid?.()
  if (own === undefined) return unsafeOnWindows(directory)
  if (stat.uid !== own) return `belongs to another user (uid ${stat.uid})`
  return (stat.mode & 0o077) === 0
    ? undefined
    : `may be entered by others (mode ${(stat.mode & 0o777).toString(8)}): make it 0700`
}

/** What is wrong with the folder at a path, or undefined; nothing is where there is none. */
export const problemOf = (directory: string): string | undefined => {
  try {
    return unsafe(directory)
  } catch (error) {
    const code = codeOf(error)
    return code === "ENOENT" || code === "ENOTDIR" ? undefined : `can't be looked at: ${code}`
  }
}

/** As mkdir with a mode for all that is missing does elsewhere. */
const makeOnWindows = (directory: string): void => {
  const above = path.dirname(directory)
  if (above !== directory && !fs.existsSync(above)) makeOnWindows(above)
  if (!WindowsAccess.makeFolder(directory)) fs.mkdirSync(directory, { recursive: true })
}

/**
 * Makes a folder and those above it that are missing, with the mode 0700 from the beginning, on Windows for this account
 * only, and checks it. One that is there is never changed. Returns what is wrong with it, or undefined.
 */
export const make = (directory: string): string | undefined => {
  try {
    if (process.platform === "win32") makeOnWindows(path.resolve(directory))
    else fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
    return unsafe(directory)
  } catch (error) {
    return problemOf(directory) ?? `can't be made: ${codeOf(error)}`
  }
}
