/**
 * The process table of Linux, read from /proc (proc(5)).
 *
 * Reading is synchronous: the files are made by the kernel in memory, an asynchronous scan takes longer in total, and a
 * scan that is not interrupted by other work is the one that catches a process that keeps forking.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import type { Entry } from "./Entry.ts"
import * as Mark from "./Mark.ts"
import type { ScanOptions } from "./Table.ts"
import * as Tag from "./Tag.ts"

/** A thread of the kernel: no user process, never a member (PF_KTHREAD of linux/sched.h). */
const kernelThread = 0x0020_0000

const buffer = Buffer.allocUnsafe(16 * 1024)

/** The start of a /proc file as text; undefined when the process has gone or may not be looked at. */
const readText = (path: string): string | undefined => {
  let fd: number | undefined = undefined
  try {
    fd = fs.openSync(path, "r")
    return buffer.toString("latin1", 0, fs.readSync(fd, buffer, 0, buffer.length, 0))
  } catch {
    return undefined
  } finally {
    if (fd !== undefined) fs.closeSync(fd)
  }
}

/** The fields of /proc/PID/stat that matter here. */
export interface Stat {
  readonly pid: number
  readonly command: string
  readonly state: string
  readonly parent: number
  readonly group: number
  readonly session: number
  readonly flags: number
  readonly threads: number
  readonly start: number
  /** Time in user and kernel mode, in clock ticks. */
  readonly cpuTicks: number
}

/** Parses /proc/PID/stat; the name may hold spaces and parentheses, so fields are counted from the last `)`. */
export const parseStat = (text: string): Stat | undefined => {
  const open = text.indexOf("(")
  const close = text.lastIndexOf(")")
  if (open < 0 || close < open) return undefined
  const fields = text.slice(close + 2).split(" ")
  if (fields.length < 20) return undefined
  return {
    pid: Number(text.slice(0, open)),
    command: text.slice(open + 1, close),
    state: fields[0]!,
    parent: Number(fields[1]),
    group: Number(fields[2]),
    session: Number(fields[3]),
    flags: Number(fields[6]),
    threads: Number(fields[17]),
    start: Number(fields[19]),
    cpuTicks: Number(fields[11]) + Number(fields[12])
  }
}

/** A zombie is dead only when no other thread of it runs: its main thread may have ended alone. */
export const isAlive = (stat: Stat): boolean =>
  !((stat.state === "Z" || stat.state === "X" || stat.state === "x") && stat.threads <= 1)

export const readStat = (pid: number): Stat | undefined => {
  const text = readText(`/proc/${pid}/stat`)
  return text === undefined ? undefined : parseStat(text)
}

/** A process that was seen before is still there, and alive. */
export const stillLives = (seen: { readonly pid: number; readonly start: number }): boolean => {
  const stat = readStat(seen.pid)
  return stat !== undefined && stat.start === seen.start && isAlive(stat)
}

/** The soft limit of RLIMIT_LOCKS in the text of /proc/PID/limits. */
export const parseLocks = (text: string): string | undefined => /^Max file locks\s+(\S+)/m.exec(text)?.[1]

export const readTag = (pid: number): Tag.Tag | undefined => {
  const text = readText(`/proc/${pid}/limits`)
  const digits = text === undefined ? undefined : parseLocks(text)
  return digits === undefined ? undefined : Tag.decode(digits)
}

export const readMark = (pid: number): ReadonlyArray<Mark.Segment> => {
  try {
    const value = Mark.find(fs.readFileSync(`/proc/${pid}/environ`, "latin1"), "\0")
    return value === undefined ? [] : Mark.parse(value)
  } catch {
    return []
  }
}

export const entryOf = (stat: Stat): Entry => ({
  pid: stat.pid,
  parent: stat.parent,
  group: stat.group,
  session: stat.session,
  start: stat.start,
  state: stat.state,
  alive: isAlive(stat),
  command: stat.command,
  tag: readTag(stat.pid),
  mark: readMark(stat.pid)
})

/** The name of the file that a process runs; undefined where the host may not know. */
export const programOf = (pid: number): string | undefined => {
  try {
    return path.basename(fs.readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, ""))
  } catch {
    return undefined
  }
}

export const find = (pid: number): Entry | undefined => {
  const stat = readStat(pid)
  return stat === undefined ? undefined : entryOf(stat)
}

/**
 * Visits every process that could be a member, at once when it is found, so that a kill follows its discovery by
 * microseconds. `look` returns false for a process that belongs to nobody.
 */
export const scan = (options: ScanOptions, look: (entry: Entry) => boolean): boolean => {
  let vanished = false
  for (const name of fs.readdirSync("/proc")) {
    const first = name.charCodeAt(0)
    if (first < 49 || first > 57) continue
    const pid = Number(name)
    if (options.foreign.has(pid)) continue
    const stat = readStat(pid)
    if (stat === undefined) {
      vanished = true
      continue
    }
    if ((stat.flags & kernelThread) !== 0 || stat.start < options.since || !look(entryOf(stat))) {
      options.foreign.add(pid)
    }
  }
  return vanished
}

/** Clock ticks in a second: USER_HZ, which is 100 in the interface of every Linux that Node runs on (times(2)). */
const msPerTick = 10

/** Memory (bytes, resident) and processor time (ms) of some processes together. */
export const usageOf = (pids: ReadonlyArray<number>): { readonly memory: number; readonly cpu: number } => {
  let memory = 0
  let cpu = 0
  for (const pid of pids) {
    cpu += (readStat(pid)?.cpuTicks ?? 0) * msPerTick
    memory += Number(/^VmRSS:\s+(\d+) kB/m.exec(readText(`/proc/${pid}/status`) ?? "")?.[1] ?? 0) * 1024
  }
  return { memory, cpu }
}

/** The id of this boot, which start times are counted from. */
export const bootId = (): string => readText("/proc/sys/kernel/random/boot_id")?.trim() ?? ""

/** The pid namespace, for records that may be seen from another one. */
export const pidNamespace = (): string => {
  try {
    return fs.readlinkSync("/proc/self/ns/pid")
  } catch {
    return ""
  }
}

/** The process that /proc takes this one for: another number where it belongs to another pid namespace. */
const self = (): string | undefined => {
  try {
    return fs.readlinkSync("/proc/self")
  } catch {
    return undefined
  }
}

/** True where /proc is Linux's and shows this process, by the number that it has itself. */
export const isAvailable = (): boolean =>
  process.platform === "linux" && self() === String(process.pid) && readStat(process.pid)?.pid === process.pid

/** The start time of this process, by which others tell it from a later one of its number; in s without a /proc (`PsTable`). */
export const ownStart = (): number =>
  (isAvailable() ? readStat(process.pid)?.start : undefined) ?? Math.floor(Date.now() / 1000 - process.uptime())
