/**
 * Finds the program of a command before anything is spawned, so that a mistake is a typed error and not the exit code of
 * some helper. Rules: exec(3p) for the search, execve(2) for what can be run.
 */
import type { LaunchReason } from "@treeline/core/Errors"
import * as fs from "node:fs"
import * as path from "node:path"

export type Resolution =
  | { readonly _tag: "Found"; readonly file: string }
  | { readonly _tag: "Failed"; readonly reason: LaunchReason; readonly detail: string }

const failed = (reason: LaunchReason, detail: string): Resolution => ({ _tag: "Failed", reason, detail })

/** Where a command without a slash is looked for when the child's environment has no PATH (confstr _CS_PATH). */
const defaultPath = "/bin:/usr/bin"

/** Checks a working directory; undefined when it can be entered. */
export const checkDirectory = (cwd: string): Resolution | undefined => {
  try {
    if (!fs.statSync(cwd).isDirectory()) {
      return failed("BadWorkingDirectory", `the working directory ${cwd} is not a directory`)
    }
    fs.accessSync(cwd, fs.constants.X_OK)
    return undefined
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    return code === "EACCES"
      ? failed("BadWorkingDirectory", `the working directory ${cwd} may not be entered`)
      : failed("BadWorkingDirectory", `the working directory ${cwd} does not exist`)
  }
}

const headBytes = 256

/** Why a file that may be executed can't be: an image or interpreter that the system will refuse. */
const checkImage = (file: string): Resolution => {
  const head = Buffer.alloc(headBytes)
  let length: number
  try {
    const fd = fs.openSync(file, "r")
    try {
      length = fs.readSync(fd, head, 0, headBytes, 0)
    } finally {
      fs.closeSync(fd)
    }
  } catch {
    return { _tag: "Found", file } // executable but not readable: the system decides
  }
  const text = head.toString("latin1", 0, length)
  if (text.startsWith("#!")) {
    const interpreter = text.slice(2).split("\n", 1)[0]!.trim().split(/\s+/, 1)[0]!
    return interpreter === "" || fs.existsSync(interpreter)
      ? { _tag: "Found", file }
      : failed("NotFound", `the interpreter ${interpreter} of ${file} does not exist`)
  }
  const isImage = text.startsWith("\x7fELF") || /^(\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe|\xce\xfa\xed\xfe)/.test(text)
  if (text.startsWith("\x7fELF") && length < 52) return failed("NotExecutable", `${file} is a cut-off program`)
  // A text without `#!` is run by the shell (exec(3p), ENOEXEC); bytes with a NUL are no text.
  return !isImage && text.split("\n", 1)[0]!.includes("\0")
    ? failed("NotExecutable", `${file} is neither a program of this system nor a script`)
    : { _tag: "Found", file }
}

/** Whether a file that is no image is meant for the shell (exec(3p), ENOEXEC). */
export const isScript = (file: string): boolean => checkImage(file)._tag === "Found"

const check = (file: string): Resolution => {
  try {
    if (fs.statSync(file).isDirectory()) return failed("PermissionDenied", `${file} is a directory`)
    fs.accessSync(file, fs.constants.X_OK)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    return code === "EACCES" || code === "EPERM"
      ? failed("PermissionDenied", `${file} may not be executed`)
      : failed("NotFound", `${file} does not exist`)
  }
  return checkImage(file)
}

/**
 * The file that `command` names: looked up in the child's own PATH; a name with a slash is relative to the child's
 * working directory. An entry that may not be executed is passed over, but remembered as the reason (exec(3p)).
 */
export const resolve = (command: string, cwd: string, searchPath: string | undefined): Resolution => {
  if (command.includes("/")) return check(path.resolve(cwd, command))
  let denied: Resolution | undefined = undefined
  for (const directory of (searchPath ?? defaultPath).split(":")) {
    const resolution = check(path.resolve(cwd, directory, command))
    if (resolution._tag === "Found" || resolution.reason === "NotExecutable") return resolution
    if (resolution.reason === "PermissionDenied") denied ??= resolution
  }
  return denied ?? failed("NotFound", `${command} is not in the PATH of the child`)
}

const isProgram = (file: string): boolean => {
  try {
    const stat = fs.statSync(file, { throwIfNoEntry: false })
    return stat?.isFile() === true && (stat.mode & 0o111) !== 0
  } catch {
    return false // in a folder that may not be entered
  }
}

/**
 * The file that `command` probably names, at least cost: the first one in the PATH that anybody may execute. Whether this
 * user may, and whether it can be run, is for the system to say; when it says no, `resolve` has the last word.
 */
export const locate = (command: string, cwd: string, searchPath: string | undefined): Resolution => {
  if (command.includes("/")) return { _tag: "Found", file: path.resolve(cwd, command) }
  for (const directory of (searchPath ?? defaultPath).split(":")) {
    const file = directory.startsWith("/") ? `${directory}/${command}` : path.resolve(cwd, directory, command)
    if (isProgram(file)) return { _tag: "Found", file }
  }
  // Nothing so simple; the full search finds the reason.
  return resolve(command, cwd, searchPath)
}

/** Whether two absolute paths are one, which `locate` does not normalise. */
export const isSame = (one: string, other: string): boolean => path.resolve(one) === path.resolve(other)

/** What the error code of a failed spawn means. */
export const reasonOf = (code: string | undefined): LaunchReason => {
  switch (code) {
    case "ENOENT":
    case "ENOTDIR":
      return "NotFound"
    case "EACCES":
    case "EPERM":
      return "PermissionDenied"
    case "ENOEXEC":
      return "NotExecutable"
    case "E2BIG":
    case "ENAMETOOLONG":
    case "ERR_INVALID_ARG_VALUE":
    case "ERR_INVALID_ARG_TYPE":
      return "InvalidArgument"
    case "EAGAIN":
    case "ENOMEM":
    case "EMFILE":
    case "ENFILE":
      return "ResourceExhausted"
    default:
      return "Unknown"
  }
}
