/**
 * A job object: the kernel's own record of a tree. What a member starts is a member, whatever it does, and when the last
 * handle of the job is closed, by us or by the end of this host, the kernel ends every member.
 */
import type { Limits } from "@treeline/core/Limits"
import type { ProcessInfo } from "@treeline/core/ProcessIdentity"
import * as os from "node:os"
import { win32 as path } from "node:path"
import * as ExitCode from "./ExitCode.ts"
import * as Kernel32 from "./Kernel32.ts"
import type { Processes } from "./Processes.ts"
import * as Structs from "./Structs.ts"
import type { KeepAlive, Waits } from "./Waits.ts"

/** Why there is no job. */
export class JobProblem {
  readonly detail: string
  constructor(detail: string) {
    this.detail = detail
  }
}

const memberAccess = Kernel32.PROCESS_QUERY_LIMITED_INFORMATION | Kernel32.PROCESS_QUERY_INFORMATION |
  Kernel32.SYNCHRONIZE

/** How often members are looked at that can't be waited for, in ms. */
const lookAgain = 100

/** A living member; one that may not even be looked at has no handle. */
interface Member {
  readonly pid: number
  readonly process: Structs.Handle | undefined
}

/** Members that are held open. */
export interface Held {
  readonly pids: ReadonlyArray<number>
  readonly release: () => void
}

/** What all jobs of a host use. */
export interface Means {
  readonly kernel: Kernel32.Kernel32
  readonly processes: Processes
  readonly waits: Waits
  readonly keepAlive: KeepAlive
  /** The folder of the system's own programs. */
  readonly systemDirectory: string
}

export class Job {
  readonly handle: Structs.Handle
  private readonly means: Means
  private readonly limits: Limits
  private readonly word = new Uint32Array(1)
  private pids = Buffer.alloc(Structs.pidListSize(16))
  private closed = false

  private constructor(means: Means, handle: Structs.Handle, limits: Limits) {
    this.means = means
    this.handle = handle
    this.limits = limits
  }

  /** An unnamed job that no child inherits, with what it must not exceed. */
  static make(means: Means, limits: Limits = {}): Job | JobProblem {
    const { kernel } = means
    const handle = kernel.CreateJobObjectW(null, null)
    if (Kernel32.isInvalid(handle)) return new JobProblem(`CreateJobObjectW failed with error ${kernel.lastError()}`)
    const job = new Job(means, handle, limits)
    const problem = job.setKillOnClose(true) ?? job.keepLimits()
    if (problem === undefined) return job
    job.close()
    return problem
  }

  /** False lets the tree outlive this host. */
  setKillOnClose(killOnClose: boolean): JobProblem | undefined {
    const info = Structs.extendedLimits({ killOnClose, limits: this.limits })
    const { kernel } = this.means
    return kernel.SetInformationJobObject(this.handle, Kernel32.JobExtendedLimits, info, info.length) === 0
      ? new JobProblem(`SetInformationJobObject failed with error ${kernel.lastError()}`)
      : undefined
  }

  /** Limits are read back, because Wine accepts them and keeps none. */
  private keepLimits(): JobProblem | undefined {
    const { cpu, memory, processes } = this.limits
    const { kernel } = this.means
    if (memory !== undefined || processes !== undefined) {
      const info = Buffer.alloc(Structs.extendedLimitsSize)
      kernel.QueryInformationJobObject(this.handle, Kernel32.JobExtendedLimits, info, info.length, null)
      const kept = Structs.readExtendedLimits(info)
      if ((memory !== undefined && kept.memory === 0n) || (processes !== undefined && kept.processes === 0)) {
        return new JobProblem("this system accepts limits of a job and does not keep them (Wine)")
      }
    }
    if (cpu === undefined) return undefined
    const rate = Structs.cpuRate(cpu, os.availableParallelism())
    return kernel.SetInformationJobObject(this.handle, Kernel32.JobCpuRate, rate, rate.length) === 0
      ? new JobProblem(`this system can't limit the processor time of a job (error ${kernel.lastError()})`)
      : undefined
  }

  /** The pids of the job, also of the console hosts that serve it. */
  private list(): ReadonlyArray<number> {
    if (this.closed) return []
    const { kernel } = this.means
    while (true) {
      const { pids } = this
      const done = kernel.QueryInformationJobObject(
        this.handle,
        Kernel32.JobBasicProcessIdList,
        pids,
        pids.length,
        null
      )
      if (done !== 0) return Structs.pidList(pids).pids
      const code = kernel.lastError()
      // A job that does not tell its members must not pass for an empty one.
      if (code !== Kernel32.ERROR_MORE_DATA) throw new Error(`the members of a job can't be read (error ${code})`)
      this.pids = Buffer.alloc(Structs.pidListSize(2 * Structs.pidList(pids).assigned))
    }
  }

  private contains(process: Structs.Handle): boolean {
    return this.means.kernel.IsProcessInJob(process, this.handle, this.word) !== 0 && this.word[0] !== 0
  }

  /** conhost.exe shows the output of console programs: it belongs to the job, and ends with those it serves. */
  private isConsoleHost(process: Structs.Handle): boolean {
    const image = this.means.processes.image(process).toLowerCase()
    return image === path.join(this.means.systemDirectory, "conhost.exe").toLowerCase()
  }

  /** Opens a living member, if this pid is one; console hosts are none. */
  private open(pid: number): Member | undefined {
    const { kernel, processes } = this.means
    const process = kernel.OpenProcess(memberAccess, 0, pid)
    if (Kernel32.isInvalid(process)) {
      return kernel.lastError() === Kernel32.ERROR_ACCESS_DENIED ? { pid, process: undefined } : undefined
    }
    if (processes.isAlive(process) && this.contains(process) && !this.isConsoleHost(process)) return { pid, process }
    kernel.CloseHandle(process)
    return undefined
  }

  /** Gives a member's handle back. */
  private release({ process }: Member): void {
    if (process !== undefined) this.means.kernel.CloseHandle(process)
  }

  /** Runs `use` for each living member. */
  private each(use: (member: Member) => void): void {
    for (const pid of this.list()) {
      const member = this.open(pid)
      if (member === undefined) continue
      try {
        use(member)
      } finally {
        this.release(member)
      }
    }
  }

  /**
   * One living member, to be given back; undefined when there is none. What a list names may have started another process
   * and ended before it is looked at, so the next list has to name nobody new.
   */
  private any(): Member | undefined {
    const ended = new Set<number>()
    while (true) {
      const pids = this.list().filter((pid) => !ended.has(pid))
      if (pids.length === 0) return undefined
      for (const pid of pids) {
        const member = this.open(pid)
        if (member !== undefined) return member
        ended.add(pid)
      }
    }
  }

  /** The living members. `leader` is what they are held by. */
  members(leader: number): ReadonlyArray<ProcessInfo> {
    const members: Array<ProcessInfo> = []
    this.each(({ pid, process }) => {
      const info = process === undefined
        ? { pid, parent: 0, group: leader, session: 0, startTime: "", state: "R", alive: true, command: "" }
        : this.means.processes.info(pid, process, leader)
      if (info?.alive === true) members.push(info)
    })
    return members
  }

  /**
   * Keeps the living members of `wanted` (default: all) open until they are released: while a process is held, its pid
   * belongs to nobody else.
   */
  hold(wanted?: Pick<ProcessInfo, "pid" | "startTime">): Held {
    const held: Array<Member> = []
    for (const pid of this.list()) {
      if (wanted !== undefined && wanted.pid !== pid) continue
      const member = this.open(pid)
      if (member === undefined) continue
      const same = wanted === undefined || wanted.startTime === this.startOf(member)
      if (same && member.process !== undefined) held.push(member)
      else this.release(member)
    }
    return { pids: held.map(({ pid }) => pid), release: () => held.forEach((member) => this.release(member)) }
  }

  private startOf({ process }: Member): string | undefined {
    return process === undefined ? undefined : String(this.means.processes.timesOf(process)?.created)
  }

  /** Whether this process is a living member. */
  has(process: Structs.Handle): boolean {
    return !this.closed && this.contains(process)
  }

  get isEmpty(): boolean {
    const member = this.any()
    if (member !== undefined) this.release(member)
    return member === undefined
  }

  /**
   * Calls `listener` once when no living member is left: waits for one member after another, so it costs nothing while
   * they live. The messages of a completion port would say so too, but are not guaranteed to come.
   */
  onEmpty(listener: () => void): () => void {
    let cancel: (() => void) | undefined = undefined
    const next = (): void => {
      cancel = undefined
      const member = this.any()
      if (member === undefined) return listener()
      cancel = this.onEnd(member, next)
    }
    next()
    return () => cancel?.()
  }

  /** Calls `listener` once when a member has ended, and gives the member back. */
  private onEnd(member: Member, listener: () => void): () => void {
    const stop = member.process === undefined ? undefined : this.means.waits.add(member.process, () => {
      this.release(member)
      listener()
    })
    if (stop !== undefined) {
      return () => {
        stop()
        this.release(member)
      }
    }
    // Nobody may wait for it, or the system has no room for one more wait.
    this.release(member)
    const timer = setTimeout(listener, lookAgain)
    return () => clearTimeout(timer)
  }

  /** What the members use now, in bytes and ms; the processor time of those that have ended counts where it is told. */
  usage(): { readonly processes: number; readonly memory: number; readonly cpu: number } {
    const { kernel, processes } = this.means
    let count = 0
    let memory = 0
    let cpu = 0
    this.each(({ process }) => {
      count++
      if (process === undefined) return
      memory += processes.workingSet(process)
      cpu += processes.timesOf(process)?.cpu ?? 0
    })
    const info = Buffer.alloc(Structs.accountingSize)
    const told = !this.closed &&
      kernel.QueryInformationJobObject(this.handle, Kernel32.JobBasicAccounting, info, info.length, null) !== 0
    // Wine's jobs count no time, and a job on Windows has counted at least that of its living members.
    return { processes: count, memory, cpu: Math.max(cpu, told ? Structs.accounting(info).cpu : 0) }
  }

  /** Ends every member at once. */
  terminate(): boolean {
    return !this.closed && this.means.kernel.TerminateJobObject(this.handle, ExitCode.killed) !== 0
  }

  /** Ends what is left, unless the tree was let go. */
  close(): void {
    if (!this.closed) this.means.kernel.CloseHandle(this.handle)
    this.closed = true
  }
}
