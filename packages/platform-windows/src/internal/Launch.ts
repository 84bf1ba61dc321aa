/**
 * Starts a program by one CreateProcessW, inside its job and with its descriptors from the first instruction on: there is
 * no instant at which it runs outside, and nothing else is inherited.
 */
import type { LaunchRequest, Pipe } from "@treeline/core/Engine"
import type * as net from "node:net"
import type { Job } from "./Job.ts"
import * as Kernel32 from "./Kernel32.ts"
import * as Pipes from "./Pipes.ts"
import * as Structs from "./Structs.ts"

/** A program with everything resolved. */
export interface Program {
  /** The image, absolute. */
  readonly file: string
  readonly commandLine: string
  readonly environment: Buffer
  readonly cwd: string | undefined
  readonly stdio: LaunchRequest["stdio"]
  readonly console: Console
  /** Never runs, but can be ended. */
  readonly suspended?: boolean
  /** Leaves the jobs that this host is in, as far as they allow it; where the nearest one does not nothing is started. */
  readonly breaksAway?: boolean
}

/** `own`: a console of its own without a window; `visible`: with one; `shared`: the host's; `none`. */
export type Console = "own" | "visible" | "shared" | "none"

const consoleFlags: Readonly<Record<Console, number>> = {
  own: Kernel32.CREATE_NO_WINDOW,
  visible: Kernel32.CREATE_NEW_CONSOLE,
  shared: 0,
  none: Kernel32.DETACHED_PROCESS
}

/** A started program. Its handle keeps its pid from being given to another process. */
export interface Launched {
  readonly pid: number
  readonly process: Structs.Handle
  readonly pipes: ReadonlyMap<number, Pipe>
  readonly sockets: ReadonlyArray<net.Socket>
}

/** Why nothing was started: the error of the system. */
export class LaunchFailed {
  readonly code: number
  constructor(code: number) {
    this.code = code
  }
}

const attributeCount = 2

/**
 * How often a launch is tried of which the system says ERROR_INTERNAL_ERROR. Wine does when the new process ended before
 * its first instruction (NtCreateUserProcess: its server was told nothing of it), as where fork(2) or the loader fails on
 * a machine under heavy load. Nothing was started then, and nothing of the program has run. Windows has no such case.
 */
const attempts = 3

/** Starts programs; one for each host. */
export class Launcher {
  readonly ends: Pipes.Ends
  private readonly kernel: Kernel32.Kernel32
  private readonly listSize = new BigUint64Array(1)
  /** Memory of the call that is going on: the system has only its addresses, so the collector must not move in. */
  private readonly held: { buffers: ReadonlyArray<Buffer> } = { buffers: [] }

  constructor(kernel: Kernel32.Kernel32) {
    this.kernel = kernel
    this.ends = new Pipes.Ends(kernel)
    // Fails by design: it tells the size.
    kernel.InitializeProcThreadAttributeList(null, attributeCount, 0, this.listSize)
  }

  launch(program: Program, job: Job): Launched | LaunchFailed {
    const ends = this.open(program.stdio)
    if (ends instanceof LaunchFailed) return ends
    const started = this.start(program, job, ends)
    if (started instanceof LaunchFailed) return started
    const pipes = new Map<number, Pipe>()
    const sockets: Array<net.Socket> = []
    for (const [fd, { socket }] of ends.entries()) {
      const descriptor = program.stdio[fd]!
      if (socket === undefined || descriptor._tag !== "pipe") continue
      sockets.push(socket)
      pipes.set(fd, Pipes.pipeOf(socket, fd, descriptor.direction))
    }
    return { ...started, pipes, sockets }
  }

  private open(stdio: LaunchRequest["stdio"]): ReadonlyArray<Pipes.End> | LaunchFailed {
    const ends: Array<Pipes.End> = []
    try {
      for (const [fd, descriptor] of stdio.entries()) {
        const end = this.ends.open(descriptor, fd)
        if (end instanceof Pipes.EndProblem) return new LaunchFailed(end.code)
        ends.push(end)
      }
      return ends
    } finally {
      if (ends.length < stdio.length) this.ends.close(ends, true)
    }
  }

  /** Starts it on these descriptors and gives back the child's ends; in no job but those of this host without one. */
  start(
    program: Omit<Program, "stdio">,
    job: Job | undefined,
    ends: ReadonlyArray<Pipes.End>
  ): Pick<Launched, "pid" | "process"> | LaunchFailed {
    let isStarted = false
    try {
      const started = this.create(program, job, ends)
      isStarted = !(started instanceof LaunchFailed)
      return started
    } finally {
      this.ends.close(ends, !isStarted)
    }
  }

  private create(
    program: Omit<Program, "stdio">,
    job: Job | undefined,
    ends: ReadonlyArray<Pipes.End>
  ): Pick<Launched, "pid" | "process"> | LaunchFailed {
    const { kernel } = this
    const handles = Structs.handleArray(ends.map(({ handle }) => handle))
    const jobs = Structs.handleArray(job === undefined ? [] : [job.handle])
    const list = Buffer.alloc(Number(this.listSize[0]))
    if (kernel.InitializeProcThreadAttributeList(list, attributeCount, 0, this.listSize) === 0) {
      return new LaunchFailed(kernel.lastError())
    }
    try {
      if (
        (job !== undefined &&
          kernel.UpdateProcThreadAttribute(list, 0, Kernel32.ATTRIBUTE_JOB_LIST, jobs, jobs.length, null, null) ===
            0) ||
        kernel.UpdateProcThreadAttribute(
            list,
            0,
            Kernel32.ATTRIBUTE_HANDLE_LIST,
            handles,
            handles.length,
            null,
            null
          ) === 0
      ) {
        return new LaunchFailed(kernel.lastError())
      }
      const table = ends.length <= 3 ? undefined : Structs.descriptorTable(ends)
      this.held.buffers = table === undefined ? [handles, jobs, list] : [handles, jobs, list, table]
      const startup = Structs.startupInfo({
        std: [ends[0]!.handle, ends[1]!.handle, ends[2]!.handle],
        descriptors: table === undefined ? undefined : { address: kernel.address(table), size: table.length },
        attributes: kernel.address(list)
      })
      const information = Buffer.alloc(Structs.processInformationSize)
      const file = Structs.utf16(program.file)
      const commandLine = Structs.utf16(program.commandLine)
      const directory = program.cwd === undefined ? null : Structs.utf16(program.cwd)
      // Only for the length of the call, so that no other child of this thread gets them.
      for (const { handle } of ends) kernel.SetHandleInformation(handle, Kernel32.HANDLE_FLAG_INHERIT, 1)
      const flags = Kernel32.EXTENDED_STARTUPINFO_PRESENT | Kernel32.CREATE_UNICODE_ENVIRONMENT |
        consoleFlags[program.console] |
        (program.suspended === true ? Kernel32.CREATE_SUSPENDED : 0) |
        (program.breaksAway === true ? Kernel32.CREATE_BREAKAWAY_FROM_JOB : 0)
      let code: number = Kernel32.ERROR_INTERNAL_ERROR
      for (let attempt = 0; attempt < attempts && code === Kernel32.ERROR_INTERNAL_ERROR; attempt++) {
        const created = kernel.CreateProcessW(
          file,
          commandLine,
          null,
          null,
          1,
          flags,
          program.environment,
          directory,
          startup,
          information
        )
        code = created === 0 ? kernel.lastError() : 0
      }
      for (const { handle } of ends) kernel.SetHandleInformation(handle, Kernel32.HANDLE_FLAG_INHERIT, 0)
      if (code !== 0) return new LaunchFailed(code)
      const { pid, process, thread } = Structs.processInformation(information)
      kernel.CloseHandle(thread)
      return { pid, process }
    } finally {
      kernel.DeleteProcThreadAttributeList(list)
      this.held.buffers = []
    }
  }
}
