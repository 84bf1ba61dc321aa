/**
 * The process table by one call of `ps`, for POSIX systems without Linux's /proc: macOS and the BSDs.
 *
 * The environment is asked for too; systems show it for the user's own processes, except that macOS hides it for its
 * own system binaries. Locale and time zone are fixed, or start times would change with them (seed C20).
 */
import * as child_process from "node:child_process"
import type { Entry } from "./Entry.ts"
import * as Mark from "./Mark.ts"

const columns = ["pid=", "ppid=", "pgid=", "stat=", "lstart=", "command="]

/** Arguments of `ps`: every process, wide, with environments. `-E` is macOS's, `e` everyone else's. */
const args: ReadonlyArray<string> = [
  ...(process.platform === "darwin" ? ["-A", "-E", "-ww"] : ["-A", "eww"]),
  ...columns.flatMap((column) => ["-o", column])
]

const environment = { PATH: process.env["PATH"] ?? "/bin:/usr/bin", LC_ALL: "C", TZ: "UTC" }

const row = /^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+\S+\s+(\S+)\s+(\d+)\s+(\d+):(\d+):(\d+)\s+(\d+)\s?(.*)$/

const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

/** Parses the output of `ps`; `lstart` is `Sat Nov 21 06:37:57 2026`. Lines of another form are left out. */
export const parse = (text: string): Array<Entry> => {
  const entries: Array<Entry> = []
  for (const line of text.split("\n")) {
    const match = row.exec(line)
    if (match === null) continue
    const [, pid, parent, group, state, month, day, hour, minute, second, year, command] = match
    const mark = Mark.find(command!, " ")
    entries.push({
      pid: Number(pid),
      parent: Number(parent),
      group: Number(group),
      // `ps` has no session id that is the same on all systems; the group takes its place.
      session: Number(group),
      start: Date.UTC(Number(year), months.indexOf(month!), Number(day), Number(hour), Number(minute), Number(second)) /
        1000,
      state: state!,
      alive: !state!.startsWith("Z"),
      command: command!.split(" ", 1)[0]!,
      tag: undefined,
      mark: mark === undefined ? [] : Mark.parse(mark)
    })
  }
  return entries
}

const options = { env: environment, encoding: "utf8" as const, maxBuffer: 64 * 1024 * 1024, timeout: 10_000 }

/** One call of `ps`; rejects when there is no `ps`. */
export const read = (): Promise<Array<Entry>> =>
  new Promise((resolve, reject) => {
    child_process.execFile("ps", args, options, (error, stdout) =>
      error === null ? resolve(parse(stdout)) : reject(error))
  })

/** The same, blocking: for the sweeper, which has nothing else to do. */
export const readSync = (): Array<Entry> =>
  parse(child_process.execFileSync("ps", args, { ...options, stdio: ["ignore", "pipe", "ignore"] }))

/** Whether `ps` shows the environment of other processes: it is given a mark and has to see it on itself. */
export const showsEnvironment = (): Promise<boolean> =>
  new Promise((resolve) => {
    const mark = { hostPid: process.pid, hostStart: 0, tree: 0 }
    const env = { ...environment, [Mark.variable]: Mark.extend(undefined, mark) }
    child_process.execFile("ps", args, { ...options, env }, (error, stdout) =>
      resolve(
        error === null && parse(stdout).some((entry) => entry.mark.some((segment) => segment.hostPid === mark.hostPid))
      ))
  })

/** Seconds in `[[dd-]hh:]mm:ss[.cc]`, as `ps` prints processor time. */
export const parseTime = (text: string): number => {
  const [days, clock] = text.includes("-") ? text.split("-") as [string, string] : ["0", text]
  return clock.split(":").reduce((sum, part) => sum * 60 + Number(part), 0) + Number(days) * 86_400
}

/** Memory (bytes, resident) and processor time (ms) of some processes together. */
export const usageOf = (pids: ReadonlyArray<number>): Promise<{ readonly memory: number; readonly cpu: number }> =>
  new Promise((resolve) => {
    const only = ["-o", "rss=", "-o", "time=", "-p", pids.join(",")]
    // An error means that some of them have ended; the others are listed all the same.
    child_process.execFile("ps", only, options, (_error, stdout) => {
      let memory = 0
      let cpu = 0
      for (const line of stdout.split("\n")) {
        const [rss, time] = line.trim().split(/\s+/)
        if (rss === undefined || time === undefined) continue
        memory += Number(rss) * 1024
        cpu += parseTime(time) * 1000
      }
      resolve({ memory, cpu })
    })
  })
