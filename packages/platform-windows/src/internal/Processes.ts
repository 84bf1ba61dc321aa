/**
 * Processes by pid and creation time. Nothing is done to a process by its pid alone: a handle is opened, and what it is
 * of is compared first. Looking needs no right to terminate.
 */
import type { Signalling } from "@treeline/core/Engine"
import { isPid, judge, type ProcessIdentity, type ProcessInfo, type Standing } from "@treeline/core/ProcessIdentity"
import { win32 as path } from "node:path"
import * as ExitCode from "./ExitCode.ts"
import * as Kernel32 from "./Kernel32.ts"
import * as Structs from "./Structs.ts"

const look = Kernel32.PROCESS_QUERY_LIMITED_INFORMATION | Kernel32.SYNCHRONIZE

/** What an open process tells of itself. */
export interface Times {
  /** FILETIME: 100 ns since 1601. */
  readonly created: bigint
  /** Processor time, in ms. */
  readonly cpu: number
}

export class Processes {
  private readonly kernel: Kernel32.Kernel32
  private readonly times = Array.from({ length: 4 }, () => new BigUint64Array(1)) as [
    BigUint64Array,
    BigUint64Array,
    BigUint64Array,
    BigUint64Array
  ]
  private readonly word = new Uint32Array(1)
  private readonly name = Buffer.alloc(2 * 32_768)
  private readonly memory = Buffer.alloc(Structs.memoryCountersSize)
  private readonly basic = Buffer.alloc(Structs.basicInformationSize)

  constructor(kernel: Kernel32.Kernel32) {
    this.kernel = kernel
  }

  /** Runs `use` with a handle of the process; undefined when there is no such process or it may not be opened. */
  opened<A>(pid: number, access: number, use: (handle: Structs.Handle) => A): A | undefined {
    const handle = this.kernel.OpenProcess(access, 0, pid)
    if (Kernel32.isInvalid(handle)) return undefined
    try {
      return use(handle)
    } finally {
      this.kernel.CloseHandle(handle)
    }
  }

  /** A dead process may still be opened; only the wait tells. */
  isAlive(process: Structs.Handle): boolean {
    return this.kernel.WaitForSingleObject(process, 0) !== Kernel32.WAIT_OBJECT_0
  }

  timesOf(process: Structs.Handle): Times | undefined {
    const [created, exit, kernel, user] = this.times
    if (this.kernel.GetProcessTimes(process, created, exit, kernel, user) === 0) return undefined
    return { created: created[0]!, cpu: Number(kernel[0]! + user[0]!) / 10_000 }
  }

  exitCode(process: Structs.Handle): number | undefined {
    return this.kernel.GetExitCodeProcess(process, this.word) === 0 ? undefined : this.word[0]
  }

  /** The file that the process runs; empty where it is not told. */
  image(process: Structs.Handle): string {
    this.word[0] = this.name.length / 2
    return this.kernel.QueryFullProcessImageNameW(process, 0, this.name, this.word) === 0
      ? ""
      : this.name.toString("utf16le", 0, 2 * this.word[0])
  }

  /** Bytes in memory. */
  workingSet(process: Structs.Handle): number {
    return this.kernel.K32GetProcessMemoryInfo(process, this.memory, this.memory.length) === 0
      ? 0
      : Structs.workingSet(this.memory)
  }

  private parent(process: Structs.Handle): number {
    const status = this.kernel.NtQueryInformationProcess(process, 0, this.basic, this.basic.length, null)
    return status === 0 ? Structs.parentOf(this.basic) : 0
  }

  /** Windows has no process groups: `group` is what the caller holds the process by, and there is one session. */
  info(pid: number, process: Structs.Handle, group: number): ProcessInfo | undefined {
    const times = this.timesOf(process)
    return times === undefined ? undefined : {
      pid,
      parent: this.parent(process),
      group,
      session: 0,
      startTime: String(times.created),
      state: "R",
      alive: this.isAlive(process),
      command: path.basename(this.image(process))
    }
  }

  /** Runs `use` with a handle of this very process while it lives; undefined when it has ended. */
  withSame<A>(
    identity: Pick<ProcessIdentity, "pid" | "startTime">,
    access: number,
    use: (handle: Structs.Handle) => A
  ): A | undefined {
    return this.opened(identity.pid, access | look, (handle) => {
      const times = this.timesOf(handle)
      return times !== undefined && String(times.created) === identity.startTime && this.isAlive(handle)
        ? use(handle)
        : undefined
    })
  }

  /** The living process of this identity. */
  find(identity: ProcessIdentity): ProcessInfo | undefined {
    return this.withSame(identity, 0, (handle) => this.info(identity.pid, handle, identity.pid))
  }

  /** Who has this pid now. */
  identify(pid: number): ProcessIdentity | undefined {
    if (!isPid(pid)) return undefined
    return this.opened(pid, look, (handle) => {
      const times = this.timesOf(handle)
      return times === undefined ? undefined : { pid, startTime: String(times.created), boot: "" }
    })
  }

  /** A process that may not be opened exists all the same. Looking needs no right to terminate (seed C28). */
  standing(identity: ProcessIdentity): Standing {
    if (!isPid(identity.pid)) return "Gone"
    const found = this.opened(identity.pid, look, (handle) => {
      const times = this.timesOf(handle)
      const known = { pid: identity.pid, startTime: String(times?.created ?? ""), boot: "" }
      return { identity: known, alive: this.isAlive(handle) }
    })
    // Asked at once, before another call changes it.
    const exists = found !== undefined || this.kernel.lastError() === Kernel32.ERROR_ACCESS_DENIED
    return judge(identity, { found, exists, boot: "", tolerance: 0 })
  }

  /** Windows has no other signal for a process that is not this one's. */
  signal(identity: ProcessIdentity, name: string): Signalling {
    const standing = this.standing(identity)
    if (standing !== "Alive") return standing === "Gone" ? "Gone" : "Denied"
    if (name !== "SIGKILL" || identity.pid === process.pid) return "Denied"
    const ended = this.withSame(
      identity,
      Kernel32.PROCESS_TERMINATE,
      (handle) => this.kernel.TerminateProcess(handle, ExitCode.killed) !== 0
    )
    if (ended === true) return "Sent"
    return this.standing(identity) === "Gone" ? "Gone" : "Denied"
  }

  /** Every process that the system lists. One that may not be opened has no start time. */
  all(): ReadonlyArray<ProcessInfo> {
    const snapshot = this.kernel.CreateToolhelp32Snapshot(Kernel32.SNAP_PROCESS, 0)
    if (Kernel32.isInvalid(snapshot)) return []
    const entry = Buffer.alloc(Structs.processEntrySize)
    entry.writeUInt32LE(entry.length, 0)
    const found: Array<ProcessInfo> = []
    try {
      for (let more = this.kernel.Process32FirstW(snapshot, entry); more !== 0;) {
        const { name, parent, pid } = Structs.processEntry(entry)
        const seen = this.opened(pid, look, (handle) => {
          const times = this.timesOf(handle)
          return times === undefined ? undefined : { startTime: String(times.created), alive: this.isAlive(handle) }
        })
        found.push({
          pid,
          parent,
          group: pid,
          session: 0,
          startTime: seen?.startTime ?? "",
          state: "R",
          alive: seen?.alive ?? true,
          command: name
        })
        more = this.kernel.Process32NextW(snapshot, entry)
      }
    } finally {
      this.kernel.CloseHandle(snapshot)
    }
    return found
  }
}
