/**
 * Command lines as text. Windows hands a program one string, and the program takes it apart: nearly all by the rules of
 * the C runtime, batch files by the rules of cmd.exe, which are others and dangerous.
 */
import * as Result from "effect/Result"

/** What CreateProcessW takes, in UTF-16 units, without the final NUL. */
export const longest = 32_766

/** What cmd.exe takes, in UTF-16 units. */
export const longestForCmd = 8_191

/** Why there is no command line. Never shows an argument. */
export class CommandLineProblem {
  readonly detail: string
  constructor(detail: string) {
    this.detail = detail
  }
}

type Line = Result.Result<string, CommandLineProblem>

const problem = (detail: string): Line => Result.fail(new CommandLineProblem(detail))

const bounded = (line: string, most: number): Line =>
  line.length <= most
    ? Result.succeed(line)
    : problem(`the command line has ${line.length} characters and at most ${most} can be passed`)

/** One argument so that the C runtime gives it back unchanged ("Parsing C command-line arguments"). */
export const quote = (argument: string): string => {
  if (argument !== "" && !/[ \t\n\v"]/.test(argument)) return argument
  // Backslashes count only before a quote: there they are doubled.
  return `"${argument.replace(/(\\*)"/g, "$1$1\\\"").replace(/\\+$/, "$&$&")}"`
}

/** The command line of a program. Its name has rules of its own: always in quotes, a backslash is a backslash. */
export const ofProgram = (name: string, args: ReadonlyArray<string>): Line =>
  name.includes("\"")
    ? problem("the name of the program contains a quote")
    : bounded([`"${name}"`, ...args.map(quote)].join(" "), longest)

/** Characters that mean nothing to cmd.exe; anything beyond ASCII means nothing either. */
const plainForCmd = /^[A-Za-z0-9#$*+\-./:?@\\_\u00a0-\uffff]+$/

/**
 * A percent sign that cmd.exe leaves alone: `%cd:~,%` is an empty part of a variable that always exists, so what is
 * around it can't become the name of a variable.
 */
const literalPercent = "%%cd:~,%"

/** One argument for a batch file: quoted for cmd.exe first, then for the C runtime of what the file starts. */
const quoteForCmd = (argument: string): string => {
  if (plainForCmd.test(argument) && !argument.endsWith("\\")) return argument
  const inner = argument
    .replace(/(\\*)"/g, "$1$1\"\"")
    .replace(/\\+$/, "$&$&")
    .replaceAll("%", literalPercent)
  return `"${inner}"`
}

/**
 * The command line that runs a batch file by cmd.exe, so that no argument is taken for a command (CVE-2024-24576): command
 * extensions on, delayed expansion and AutoRun off; what no quoting can protect is refused. `script` is absolute.
 */
export const ofBatch = (script: string, args: ReadonlyArray<string>): Line => {
  if (/["\r\n\0]/.test(script) || script.endsWith("\\")) return problem("the path of the batch file can't be quoted")
  const index = args.findIndex((argument) => /[\r\n\0]/.test(argument))
  if (index >= 0) return problem(`argument ${index + 1} contains a line break, which no batch file can be given`)
  const parts = [`"${script.replaceAll("%", literalPercent)}"`, ...args.map(quoteForCmd)]
  return bounded(`cmd.exe /e:ON /v:OFF /d /c "${parts.join(" ")}"`, longestForCmd)
}

/** The command line of a script for cmd.exe: the text is the caller's, as it is. Of several lines it would run the first. */
export const ofCmdScript = (script: string): Line =>
  /[\r\n]/.test(script)
    ? problem("the script contains a line break, and cmd.exe runs only the first line: join the commands with \"&\"")
    : bounded(`cmd.exe /d /s /c "${script}"`, longestForCmd)

/** What a file is by its name: trailing dots and spaces do not count for Windows (CVE-2024-43402). */
export const extensionOf = (file: string): string => {
  const name = file.slice(Math.max(file.lastIndexOf("\\"), file.lastIndexOf("/")) + 1).replace(/[. ]+$/, "")
  const dot = name.lastIndexOf(".")
  return dot < 0 ? "" : name.slice(dot).toLowerCase()
}

/** Whether Windows would give a file to cmd.exe. */
export const isBatch = (file: string): boolean => [".bat", ".cmd"].includes(extensionOf(file))

/** Whether a shell is cmd.exe, which takes a script in its own way. */
export const isCmd = (shell: string): boolean => /^(?:.*[\\/])?cmd(?:\.exe)?$/i.test(shell)
