/**
 * The descriptors of a process that is started by Node's child_process. Node passes on to every child what it was itself
 * started with (only the first 16 are closed), such as the lock file of a shell.
 */
import type { StdioNull, StdioPipe } from "node:child_process"
import * as fs from "node:fs"

/** O_CLOEXEC in the flags of /proc/PID/fdinfo, which are octal (proc(5)). */
const closeOnExec = 0o2_000_000

/** Node closes the descriptors up to this number for its children when it starts. */
const lastClosed = 15

const flagsOf = (fd: number): number | undefined => {
  try {
    const digits = /^flags:\s+([0-7]+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))?.[1]
    return digits === undefined ? undefined : Number.parseInt(digits, 8)
  } catch {
    return undefined
  }
}

/** Descriptors above 2 that a child of this process gets unless they are covered: those it was itself started with. */
export const inherited = (): ReadonlyArray<number> => {
  try {
    if (fs.existsSync("/proc/self/fdinfo")) {
      return fs.readdirSync("/proc/self/fdinfo").map(Number).filter((fd) => {
        const flags = fd > 2 ? flagsOf(fd) : undefined
        return flags !== undefined && (flags & closeOnExec) === 0
      })
    }
    // Which of them are closed by themselves is not told here; one that is covered for nothing does no harm.
    return process.platform === "win32" ? [] : fs.readdirSync("/dev/fd").map(Number).filter((fd) => fd > lastClosed)
  } catch {
    return []
  }
}

/** What a child is given: `first`, and instead of anything that was inherited `nothing`, a descriptor of /dev/null. */
export const only = (
  first: ReadonlyArray<StdioPipe | StdioNull | number>,
  nothing: number
): Array<StdioPipe | StdioNull | number> => {
  const covered = new Set(inherited())
  const further = Math.max(first.length - 1, ...covered) + 1 - first.length
  return [
    ...first,
    ...Array.from({ length: further }, (_, at) => covered.has(at + first.length) ? nothing : "ignore" as const)
  ]
}
