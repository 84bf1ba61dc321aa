/**
 * Finds the program of a command and decides how it is run, before anything is started.
 *
 * The search is that of the child's own PATH and PATHEXT. The working directory is not searched, unlike cmd.exe and
 * libuv do: what lies there by chance is not what was meant (as with NoDefaultCurrentDirectoryInExePath).
 */
import type { LaunchReason } from "@treeline/core/Errors"
import * as fs from "node:fs"
import { win32 as path } from "node:path"
import * as CommandLine from "./CommandLine.ts"
import * as EnvironmentBlock from "./EnvironmentBlock.ts"

/** An image is started, a batch file is given to cmd.exe. */
export type Resolution =
  | { readonly _tag: "Image" | "Batch"; readonly file: string }
  | { readonly _tag: "Failed"; readonly reason: LaunchReason; readonly detail: string }

/** What the look-up asks the file system. */
export interface Files {
  readonly kind: (file: string) => "file" | "directory" | "denied" | "missing"
  /** The first two bytes, or nothing where the file can't be read. */
  readonly head: (file: string) => string
}

export const nodeFiles: Files = {
  kind: (file) => {
    try {
      const stat = fs.statSync(file)
      return stat.isDirectory() ? "directory" : "file"
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      return code === "EACCES" || code === "EPERM" ? "denied" : "missing"
    }
  },
  head: (file) => {
    try {
      const fd = fs.openSync(file, "r")
      try {
        const bytes = Buffer.alloc(2)
        return bytes.toString("latin1", 0, fs.readSync(fd, bytes, 0, 2, 0))
      } finally {
        fs.closeSync(fd)
      }
    } catch {
      return ""
    }
  }
}

const failed = (reason: LaunchReason, detail: string): Resolution => ({ _tag: "Failed", reason, detail })

/** What runs files that Windows does not run by itself. */
const interpreters: Readonly<Record<string, string>> = {
  ".js": "node",
  ".cjs": "node",
  ".mjs": "node",
  ".ts": "node",
  ".ps1": "powershell -File",
  ".py": "python",
  ".sh": "bash",
  ".vbs": "cscript"
}

/** How one existing file is run. A file that can't be is told from one that is not there. */
const classify = (file: string, files: Files): Resolution => {
  const kind = files.kind(file)
  if (kind === "directory") return failed("PermissionDenied", `${file} is a directory`)
  if (kind === "denied") return failed("PermissionDenied", `${file} may not be read`)
  if (kind === "missing") return failed("NotFound", `${file} does not exist`)
  const extension = CommandLine.extensionOf(file)
  if (CommandLine.isBatch(file)) return { _tag: "Batch", file }
  if (extension === ".exe" || extension === ".com") return { _tag: "Image", file }
  const head = files.head(file)
  if (head === "MZ") return { _tag: "Image", file }
  const interpreter = interpreters[extension]
  if (interpreter !== undefined) {
    return failed("NotExecutable", `${file} is a script: run it by its interpreter, such as "${interpreter}"`)
  }
  return failed(
    "NotExecutable",
    head === "#!"
      ? `${file} is a script, and Windows does not read its "#!" line: run it by its interpreter`
      : `${file} is not a program of this system`
  )
}

/** What may follow a name that has no extension, in the order of PATHEXT; only what can be run. */
const extensionsOf = (env: EnvironmentBlock.Environment): ReadonlyArray<string> => {
  const runnable = new Set([".com", ".exe", ".bat", ".cmd"])
  const wanted = (EnvironmentBlock.get(env, "PATHEXT") ?? ".COM;.EXE;.BAT;.CMD").toLowerCase().split(";")
  const extensions = wanted.filter((extension) => runnable.has(extension))
  return extensions.length > 0 ? extensions : [...runnable]
}

/** The file as it is named, where the name has an extension, then with each extension; the first that can be run. */
const tryFile = (file: string, extensions: ReadonlyArray<string>, files: Files): Resolution => {
  const candidates = extensions.map((extension) => `${file}${extension}`)
  // `tool` and `tool.cmd` side by side are a script for other systems and the one for Windows.
  const ordered = CommandLine.extensionOf(file) === "" ? [...candidates, file] : [file, ...candidates]
  let refused: Resolution | undefined = undefined
  for (const candidate of ordered) {
    const resolution = classify(candidate, files)
    if (resolution._tag !== "Failed") return resolution
    if (resolution.reason !== "NotFound") refused ??= resolution
  }
  return refused ?? failed("NotFound", `${file} does not exist`)
}

/** The directories of a PATH; an entry may be quoted. */
const directoriesOf = (searchPath: string): ReadonlyArray<string> =>
  (searchPath.match(/(?:"[^"]*"|[^;])+/g) ?? []).map((entry) => entry.replaceAll("\"", "")).filter((entry) =>
    entry !== ""
  )

/** The file that `command` names in `cwd` (absolute), by the environment of the child. */
export const resolve = (
  command: string,
  cwd: string,
  env: EnvironmentBlock.Environment,
  files: Files = nodeFiles
): Resolution => {
  const afterDrive = command.replace(/^(?:\\\\[?.]\\)?(?:[A-Za-z]:)?/, "")
  if (/["<>|*?:]/.test(afterDrive)) {
    return failed("InvalidArgument", "the command has a character that no file name has")
  }
  const extensions = extensionsOf(env)
  if (/[\\/]/.test(command) || afterDrive !== command) return tryFile(path.resolve(cwd, command), extensions, files)
  let refused: Resolution | undefined = undefined
  for (const directory of directoriesOf(EnvironmentBlock.get(env, "PATH") ?? "")) {
    const resolution = tryFile(path.resolve(cwd, directory, command), extensions, files)
    if (resolution._tag !== "Failed") return resolution
    if (resolution.reason !== "NotFound") refused ??= resolution
  }
  return refused ?? failed("NotFound", `${command} is not in the PATH of the child`)
}

/** Checks a working directory; undefined when it can be entered. */
export const checkDirectory = (cwd: string, files: Files = nodeFiles): string | undefined => {
  switch (files.kind(cwd)) {
    case "directory":
      return undefined
    case "missing":
      return `the working directory ${cwd} does not exist`
    case "denied":
      return `the working directory ${cwd} may not be entered`
    case "file":
      return `the working directory ${cwd} is not a directory`
  }
}

/** What the error of a failed CreateProcessW means. */
export const reasonOf = (code: number): { readonly reason: LaunchReason; readonly detail: string } => {
  const is = (reason: LaunchReason, detail: string) => ({ reason, detail: `${detail} (error ${code})` })
  switch (code) {
    case 2:
    case 3:
      return is("NotFound", "the file does not exist")
    case 5:
      return is("PermissionDenied", "access is denied, by the file or by a job that this host is in")
    case 740:
      return is("PermissionDenied", "the program demands the rights of an administrator")
    case 1260:
    case 225:
      return is("PermissionDenied", "the program is blocked by a policy of this system")
    case 11:
    case 191:
    case 192:
    case 193:
    case 216:
      return is("NotExecutable", "the file is not a program of this system")
    case 267:
      return is("BadWorkingDirectory", "the working directory can't be entered")
    case 87:
    case 206:
      return is("InvalidArgument", "the system refused the arguments, the environment or the length of a path")
    case 4:
    case 8:
    case 14:
    case 231:
    case 1450:
    case 1453:
    case 1455:
    case 1816:
      return is("ResourceExhausted", "the system has no memory or handles left for it")
    default:
      return is("Unknown", "the system refused")
  }
}
