/**
 * Control groups, version 2 (cgroups(7)): a group per tree, from which no descendant can leave without the right to write
 * to the hierarchy. It is what seals a tree, limits it, and kills all of it in one write.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import * as ProcTable from "../internal/ProcTable.ts"
import type { TagHost } from "../internal/Tag.ts"

/** Limits of a tree; what is undefined is not limited. */
export interface Limits {
  /** Bytes of memory. */
  readonly memory?: number | undefined
  /** Processes and threads. */
  readonly processes?: number | undefined
  /** Processors, such as 0.5. */
  readonly cpu?: number | undefined
}

const read = (file: string): string | undefined => {
  try {
    return fs.readFileSync(file, "utf8")
  } catch {
    return undefined
  }
}

/** Where version 2 is mounted, and which part of the hierarchy is seen there. */
const mountOf = (mountinfo: string): { readonly point: string; readonly root: string } | undefined => {
  for (const line of mountinfo.split("\n")) {
    const [fields, rest] = line.split(" - ")
    if (fields === undefined || rest?.startsWith("cgroup2 ") !== true) continue
    const [, , , root, point] = fields.split(" ")
    if (root !== undefined && point !== undefined) return { point, root }
  }
  return undefined
}

/** The folder of a group named in /proc/PID/cgroup (`0::/path`); undefined when it lies outside of the mount. */
export const folderOf = (mountinfo: string, cgroup: string): { readonly point: string; readonly own: string } | undefined => {
  const mount = mountOf(mountinfo)
  const own = /^0::(.*)$/m.exec(cgroup)?.[1]
  if (mount === undefined || own === undefined) return undefined
  const relative = mount.root === "/" ? own : own.startsWith(mount.root) ? own.slice(mount.root.length) : undefined
  return relative === undefined ? undefined : { point: mount.point, own: path.join(mount.point, relative) }
}

/** Names of the groups that hosts make: pid, start time and number of the platform in the host. */
const pattern = /^treeline-(\d+)-(\d+)-\d+$/

const controllersOf = (text: string): ReadonlyArray<string> => text.trim().split(" ").filter((name) => name !== "")

/** Why a group could not be made or used. */
export class CgroupProblem {
  readonly detail: string
  constructor(detail: string) {
    this.detail = detail
  }
}

/** Removes a group that nothing lives in; dying tasks may hold it for a moment (EBUSY). */
const remove = (folder: string): void => {
  for (let tries = 0; tries < 50; tries++) {
    try {
      fs.rmdirSync(folder)
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EBUSY") return
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}

/** Kills everything in a group of a dead host, and removes it with its subgroups. */
const removeDead = (folder: string): void => {
  try {
    fs.writeFileSync(path.join(folder, "cgroup.kill"), "1")
    for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
      if (entry.isDirectory()) remove(path.join(folder, entry.name))
    }
  } catch {
    // another host of the same user may be at it
  }
  remove(folder)
}

/** The group of one tree. */
export class TreeGroup {
  readonly folder: string
  constructor(folder: string) {
    this.folder = folder
  }

  /** The file that a process writes 0 to in order to join. */
  get joinFile(): string {
    return path.join(this.folder, "cgroup.procs")
  }

  /** Host pids of all processes in the group. */
  pids(): ReadonlyArray<number> {
    return (read(this.joinFile) ?? "").split("\n").filter((line) => line !== "").map(Number)
  }

  /** Whether a living process is in the group; zombies do not count. */
  get populated(): boolean {
    return /^populated 1$/m.test(read(path.join(this.folder, "cgroup.events")) ?? "")
  }

  /** Kills every process in the group, forks included (cgroup.kill, Linux 5.14). Never the host. */
  kill(): void {
    if (this.pids().includes(process.pid)) return
    try {
      fs.writeFileSync(path.join(this.folder, "cgroup.kill"), "1")
    } catch {
      // removed already
    }
  }

  /** Memory in bytes and processor time in ms, where the controllers count them. */
  usage(): { readonly memory: number | undefined; readonly cpu: number | undefined } {
    const memory = read(path.join(this.folder, "memory.current"))
    const cpu = /^usage_usec (\d+)$/m.exec(read(path.join(this.folder, "cpu.stat")) ?? "")?.[1]
    return {
      memory: memory === undefined ? undefined : Number(memory),
      cpu: cpu === undefined ? undefined : Number(cpu) / 1000
    }
  }

  remove(): void {
    remove(this.folder)
  }
}

/** The group of a host, in which each tree gets one of its own. */
export class HostGroup {
  readonly folder: string
  /** The controllers that trees can be limited by. */
  readonly controllers: ReadonlyArray<string>

  private constructor(folder: string, controllers: ReadonlyArray<string>) {
    this.folder = folder
    this.controllers = controllers
  }

  /** Makes the host's group where it may be made, after removing those of dead hosts; else says why not. */
  static make(host: TagHost, instance: number): HostGroup | CgroupProblem {
    const places = folderOf(read("/proc/self/mountinfo") ?? "", read("/proc/self/cgroup") ?? "")
    if (places === undefined) return new CgroupProblem("cgroup v2 is not mounted, or not for this process")
    let problem = "no place"
    // Beside the host's own group controllers can be had; inside it they can't, because the host is in it.
    for (const parent of places.own === places.point ? [places.own] : [path.dirname(places.own), places.own]) {
      const folder = path.join(parent, `treeline-${host.pid}-${host.start}-${instance}`)
      try {
        for (const name of fs.readdirSync(parent)) {
          const match = pattern.exec(name)
          if (match !== null && ProcTable.readStat(Number(match[1]))?.start !== Number(match[2])) {
            removeDead(path.join(parent, name))
          }
        }
        fs.mkdirSync(folder)
      } catch (error) {
        problem = `no group can be made in ${parent} (${(error as NodeJS.ErrnoException).code ?? "unknown"})`
        continue
      }
      if (!fs.existsSync(path.join(folder, "cgroup.kill"))) {
        remove(folder)
        return new CgroupProblem("the kernel has no cgroup.kill (Linux 5.14)")
      }
      return new HostGroup(folder, HostGroup.enable(folder))
    }
    return new CgroupProblem(problem)
  }

  /** Hands the controllers that limits need down to the trees; returns those that are there. */
  private static enable(folder: string): ReadonlyArray<string> {
    const wanted = ["cpu", "memory", "pids"]
    const present = controllersOf(read(path.join(folder, "cgroup.controllers")) ?? "").filter((name) => wanted.includes(name))
    const enabled: Array<string> = []
    for (const name of present) {
      try {
        fs.writeFileSync(path.join(folder, "cgroup.subtree_control"), `+${name}`)
        enabled.push(name)
      } catch {
        // held by the parent
      }
    }
    return enabled
  }

  /** Why these limits can't be given; undefined when they can. */
  problemWith(limits: Limits): string | undefined {
    const needed = [
      limits.memory === undefined ? [] : ["memory"],
      limits.processes === undefined ? [] : ["pids"],
      limits.cpu === undefined ? [] : ["cpu"]
    ].flat()
    const missing = needed.filter((name) => !this.controllers.includes(name))
    return missing.length === 0
      ? undefined
      : `the cgroup v2 controller ${missing.join(" and ")} is not available here (bound to version 1, or not delegated)`
  }

  /** A group for a tree. */
  tree(number: number, limits: Limits): TreeGroup | CgroupProblem {
    const folder = path.join(this.folder, String(number))
    try {
      fs.mkdirSync(folder)
      for (const [file, value] of limitFiles(limits)) fs.writeFileSync(path.join(folder, file), value)
      return new TreeGroup(folder)
    } catch (error) {
      remove(folder)
      return new CgroupProblem(`the group of the tree can't be set up (${(error as NodeJS.ErrnoException).code ?? "unknown"})`)
    }
  }

  remove(): void {
    remove(this.folder)
  }
}

const cpuPeriod = 100_000

/** The files of a group and what limits write there (cgroup-v2.rst of the kernel). */
export const limitFiles = (limits: Limits): ReadonlyArray<readonly [file: string, value: string]> => [
  ...(limits.memory === undefined
    ? []
    : [["memory.max", String(limits.memory)], ["memory.oom.group", "1"]] as const),
  ...(limits.processes === undefined ? [] : [["pids.max", String(limits.processes)]] as const),
  ...(limits.cpu === undefined ? [] : [["cpu.max", `${Math.round(limits.cpu * cpuPeriod)} ${cpuPeriod}`]] as const)
]
