/**
 * Writes to the standard descriptors without `process.stdout` and its kin: those make the descriptor non-blocking, and
 * the program that shares it with this one would fail with EAGAIN.
 */
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as tty from "node:tty"

/** A look again at a full pipe that someone has made non-blocking, in ms. */
const pause = 5

/** What is being written: nobody may read it, and then it waits for as long as this process lives. */
const writing = new Set<Promise<void>>()

/** Whether something that was to be written has not been taken yet. */
export const isWriting = (): boolean => writing.size > 0

/** Writes all of it; a reader that has gone is no failure. */
export const writeAll = async (fd: number, bytes: Uint8Array): Promise<void> => {
  const written = write(fd, bytes)
  writing.add(written)
  try {
    await written
  } finally {
    writing.delete(written)
  }
}

const write = async (fd: number, bytes: Uint8Array): Promise<void> => {
  let offset = 0
  while (offset < bytes.length) {
    const outcome = await new Promise<number | string | undefined>((resolve) => {
      fs.write(fd, bytes, offset, (error, written) => resolve(error === null ? written : error.code))
    })
    if (typeof outcome === "number") offset += outcome
    else if (outcome === "EAGAIN") await new Promise((resolve) => setTimeout(resolve, pause))
    else return
  }
}

export const print = (fd: 1 | 2, line: string): Promise<void> => writeAll(fd, Buffer.from(`${line}\n`))

/** How long the last words of a command may take to be taken, in ms. */
const lastWithin = 3000

/** Prints what a command says last. A reader that takes nothing does not keep it from ending. */
export const printLast = async (fd: 1 | 2, line: string): Promise<void> => {
  let limit: NodeJS.Timeout | undefined = undefined
  const over = new Promise<void>((resolve) => (limit = setTimeout(resolve, lastWithin)))
  await Promise.race([print(fd, line), over])
  clearTimeout(limit)
}

export const isTerminal = (fd: 0 | 1 | 2): boolean => tty.isatty(fd)

/**
 * Whether this process belongs to the group that has the terminal: one in the background is stopped when it changes the
 * terminal's mode (tcsetattr(3)). Where the system does not tell, it does.
 */
export const isForeground = (): boolean => {
  if (process.platform === "win32") return true
  try {
    // proc_pid_stat(5): after the name in parentheses come state, parent, group, session, terminal, its foreground group.
    const [, , group, , , foreground] = fs.readFileSync("/proc/self/stat", "utf8").replace(/^.*\) /s, "").split(" ")
    return group === foreground
  } catch {
    // ps(1) of macOS and the BSDs marks it with a plus.
    const { stdout } = child_process.spawnSync("ps", ["-o", "stat=", "-p", String(process.pid)], { encoding: "utf8" })
    return typeof stdout !== "string" || stdout.trim() === "" || stdout.includes("+")
  }
}

/** Whether text on this descriptor may have colours (https://no-color.org). */
export const canColor = (fd: 1 | 2): boolean =>
  (process.env["NO_COLOR"] ?? "") === "" && process.env["TERM"] !== "dumb" && tty.isatty(fd)

/** One of the standard descriptors is a terminal, and this process belongs to a terminal's session (tty(4)). */
export const inTerminal = (): boolean => {
  if (![0, 1, 2].some((fd) => tty.isatty(fd))) return false
  try {
    fs.closeSync(fs.openSync("/dev/tty", fs.constants.O_RDONLY | fs.constants.O_NOCTTY))
    return true
  } catch {
    return false
  }
}
