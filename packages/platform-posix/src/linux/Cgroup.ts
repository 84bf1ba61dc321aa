/**
 * Control groups, version 2 (cgroups(7)): a group per tree, from which no descendant can leave without the right to write
 * to the hierarchy. It is what seals a tree, limits it, and kills all of it in one write.
 */
import type { Limits } from "@treeline/core/Limits"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Environment from "../internal/Environment.ts"
import type { Program } from "../internal/Launcher.ts"
import * as ProcTable from "../internal/ProcTable.ts"
import { type Seal, type Sealer, SealProblem } from "../internal/Seal.ts"
import type { TagHost } from "../internal/Tag.ts"
import { shellVariables } from "../internal/Tagging.ts"
import { groupsOf, isPopulated, removeBare, removeGroup } from "./ControlGroups.ts"

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
export const folderOf = (
  mountinfo: string,
  cgroup: string
): { readonly point: string; readonly own: string } | undefined => {
  const mount = mountOf(mountinfo)
  const own = /^0::(.*)$/m.exec(cgroup)?.[1]
  if (mount === undefined || own === undefined) return undefined
  const relative = mount.root === "/" ? own : own.startsWith(mount.root) ? own.slice(mount.root.length) : undefined
  return relative === undefined ? undefined : { point: mount.point, own: path.resolve(mount.point, `.${relative}`) }
}

/** Names of the groups that hosts make: pid namespace, pid, start time and number of the platform in the host. */
const pattern = /^treeline-(\d+)-(\d+)-(\d+)-\d+$/

const namespace = (): string => ProcTable.pidNamespace().replace(/\D/g, "") || "0"

/** A host of this pid namespace that has gone; of another one nothing can be told. */
const isOfDeadHost = (name: string): boolean => {
  const match = pattern.exec(name)
  return match !== null && match[1] === namespace() &&
    !ProcTable.stillLives({ pid: Number(match[2]), start: Number(match[3]) })
}

const controllersOf = (text: string): ReadonlyArray<string> => text.trim().split(" ").filter((name) => name !== "")

/** Names that every shell hands on to the programs it starts; some drop the others. */
const identifier = /^[A-Za-z_][A-Za-z0-9_]*$/

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** The group of one tree. */
class TreeGroup implements Seal {
  readonly folder: string
  readonly remove: () => void
  constructor(folder: string, remove: () => void) {
    this.folder = folder
    this.remove = remove
  }

  private get joinFile(): string {
    return path.join(this.folder, "cgroup.procs")
  }

  /** A shell joins the group and then becomes the program, so that nothing of the tree ever runs outside. */
  wrap(program: Program): Program {
    const { args, name } = program
    const env = Environment.toRecord(program.env)
    const added = shellVariables.filter((variable) => env[variable] === undefined)
    const unset = added.length > 0 ? `unset ${added.join(" ")}; ` : ""
    // bash hands on every variable; a smaller shell is faster and does as well where all names are identifiers.
    const shell = Object.keys(env).every((variable) => identifier.test(variable)) ? "/bin/sh" : "/bin/bash"
    // Outside of the group nothing runs.
    const script = `echo 0 > ${quote(this.joinFile)} || exit 126; ${unset}exec "$@"`
    return { ...program, name: shell, file: shell, args: ["-c", script, "sh", name, ...args] }
  }

  /** Whoever has been inside has used the processor there; cpu.stat counts it in every group, whatever the controllers. */
  entered(): boolean {
    return this.populated() || (this.usage().cpu ?? 0) > 0
  }

  /** Also of groups that a program has made inside. */
  pids(): ReadonlyArray<number> {
    const groups = new Set([this.folder, ...groupsOf(this.folder)])
    const lists = [...groups].map((group) => read(path.join(group, "cgroup.procs")) ?? "")
    return lists.join("").split("\n").filter((line) => line !== "").map(Number)
  }

  populated(): boolean {
    return isPopulated(this.folder)
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

  setFrozen(frozen: boolean): void {
    try {
      fs.writeFileSync(path.join(this.folder, "cgroup.freeze"), frozen ? "1" : "0")
    } catch {
      // removed already
    }
  }

  isFrozen(): boolean {
    return /^frozen 1$/m.test(read(path.join(this.folder, "cgroup.events")) ?? "")
  }

  usage(): { readonly memory: number | undefined; readonly cpu: number | undefined } {
    const memory = read(path.join(this.folder, "memory.current"))
    const cpu = /^usage_usec (\d+)$/m.exec(read(path.join(this.folder, "cpu.stat")) ?? "")?.[1]
    return {
      memory: memory === undefined ? undefined : Number(memory),
      cpu: cpu === undefined ? undefined : Number(cpu) / 1000
    }
  }
}

/** The group of a host, in which each tree gets one of its own. */
export class HostGroup implements Sealer {
  readonly name = "cgroup v2"
  readonly folder: string
  /** The controllers that trees can be limited by. */
  readonly controllers: ReadonlyArray<string>
  /** Trees whose groups are there. */
  private trees = 0
  private readonly removals = new Set<Promise<void>>()
  private closed = false

  private constructor(folder: string, controllers: ReadonlyArray<string>) {
    this.folder = folder
    this.controllers = controllers
  }

  /** Makes the host's group beside its own or inside; else says why not. */
  static make(host: TagHost, instance: number): HostGroup | SealProblem {
    const places = folderOf(read("/proc/self/mountinfo") ?? "", read("/proc/self/cgroup") ?? "")
    if (places === undefined) return new SealProblem("cgroup v2 is not mounted, or not for this process")
    // Beside the host's own group controllers can be had; inside it they can't, because the host is in it.
    const parents = places.own === places.point ? [places.own] : [path.dirname(places.own), places.own]
    return HostGroup.makeIn(parents, host, instance)
  }

  /** Makes the host's group in the first of these that lets a process join, after removing what dead hosts have left. */
  static makeIn(parents: ReadonlyArray<string>, host: TagHost, instance: number): HostGroup | SealProblem {
    let problem = "no place"
    for (const parent of parents) {
      const folder = path.join(parent, `treeline-${namespace()}-${host.pid}-${host.start}-${instance}`)
      try {
        for (const name of fs.readdirSync(parent)) {
          if (isOfDeadHost(name)) removeBare(path.join(parent, name))
        }
        fs.mkdirSync(folder)
      } catch (error) {
        problem = `no group can be made in ${parent} (${(error as NodeJS.ErrnoException).code ?? "unknown"})`
        continue
      }
      if (!fs.existsSync(path.join(folder, "cgroup.kill"))) {
        removeBare(folder)
        return new SealProblem("the kernel has no cgroup.kill (Linux 5.14)")
      }
      const group = new HostGroup(folder, HostGroup.enable(folder))
      const joined = group.tryJoin()
      if (joined === undefined) return group
      void group.remove()
      problem = joined
    }
    return new SealProblem(problem)
  }

  /** Hands the controllers that limits need down to the trees; returns those that are there. */
  private static enable(folder: string): ReadonlyArray<string> {
    const wanted = new Set(["cpu", "memory", "pids"])
    const present = controllersOf(read(path.join(folder, "cgroup.controllers")) ?? "").filter((name) =>
      wanted.has(name)
    )
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

  /** Moves a process of its own into a group, as every launch will, and asks it where it is; says what went wrong. */
  private tryJoin(): string | undefined {
    const probe = this.seal(0, {})
    if (probe instanceof SealProblem) return probe.detail
    const program = {
      name: "cat",
      file: "cat",
      args: ["/proc/self/cgroup"],
      env: { inherits: false, changes: {} },
      cwd: undefined,
      stdio: [],
      ownSession: false
    }
    const { args, file } = probe.wrap({ ...program, tag: undefined })
    const result = child_process.spawnSync(file, args, {
      stdio: ["ignore", "pipe", "ignore"],
      encoding: "utf8",
      timeout: 5000
    })
    const place = folderOf(read("/proc/self/mountinfo") ?? "", result.stdout ?? "")?.own
    const entered = probe.entered()
    probe.remove()
    return result.status === 0 && place === probe.folder && entered
      ? undefined
      : `a process can't be moved into ${this.folder}`
  }

  /** Why these limits can't be given; undefined when they can. */
  private problemWith(limits: Limits): string | undefined {
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
  seal(tree: number, limits: Limits): TreeGroup | SealProblem {
    const problem = this.problemWith(limits)
    if (problem !== undefined) return new SealProblem(problem)
    const folder = path.join(this.folder, String(tree))
    try {
      fs.mkdirSync(folder)
      const exists = (file: string) => fs.existsSync(path.join(folder, file))
      for (const [file, value] of limitFiles(limits, exists)) fs.writeFileSync(path.join(folder, file), value)
      this.trees++
      return new TreeGroup(folder, () => void this.removeTree(folder))
    } catch (error) {
      removeBare(folder)
      return new SealProblem(
        `the group of the tree can't be set up (${(error as NodeJS.ErrnoException).code ?? "unknown"})`
      )
    }
  }

  /** Removes the group of a tree that has ended, beside everything else. */
  private removeTree(folder: string): Promise<void> {
    const removal = removeGroup(folder).then(() => {
      this.removals.delete(removal)
      this.trees--
      // A tree may outlive the scope of its platform.
      return this.closed && this.trees === 0 ? removeGroup(this.folder) : undefined
    })
    this.removals.add(removal)
    return removal
  }

  /** The group of the host goes with the last tree. */
  async remove(): Promise<void> {
    this.closed = true
    await Promise.all(this.removals)
    if (this.trees === 0) await removeGroup(this.folder)
  }
}

const cpuPeriod = 100_000

/**
 * The files of a group and what limits write there (cgroup-v2.rst of the kernel). Without swap.max a tree at its limit
 * would go on in swap; the file is missing where the kernel does not count swap.
 */
export const limitFiles = (
  limits: Limits,
  exists: (file: string) => boolean
): ReadonlyArray<readonly [file: string, value: string]> => [
  ...(limits.memory === undefined
    ? []
    : [["memory.max", String(limits.memory)], ["memory.oom.group", "1"]] as const),
  ...(limits.memory === undefined || !exists("memory.swap.max") ? [] : [["memory.swap.max", "0"]] as const),
  ...(limits.processes === undefined ? [] : [["pids.max", String(limits.processes)]] as const),
  ...(limits.cpu === undefined ? [] : [["cpu.max", `${Math.round(limits.cpu * cpuPeriod)} ${cpuPeriod}`]] as const)
]
