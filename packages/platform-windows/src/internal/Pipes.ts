/**
 * The descriptors of a child. Of a pipe, the child's end is the server of a named pipe and Node connects to it: its one
 * instance is taken at once, so nobody else can connect, nor listen under its random name. Other accounts may not open it
 * at all.
 */
import type { Descriptor, Pipe } from "@treeline/core/Engine"
import * as SecurityDescriptor from "@treeline/platform-node/internal/SecurityDescriptor"
import * as WindowsAccess from "@treeline/platform-node/internal/WindowsAccess"
import * as NodePipes from "@treeline/platform-node/NodePipes"
import { randomBytes } from "node:crypto"
import * as net from "node:net"
import * as Kernel32 from "./Kernel32.ts"
import * as Structs from "./Structs.ts"

/** The host's ends of a connection. A child that has gone makes a write fail, which is never uncaught. */
export const pipeOf = (socket: net.Socket, fd: number, direction: "read" | "write" | "duplex"): Pipe => {
  socket.on("error", () => {})
  // Node would wait for the other direction, which this pipe does not have.
  if (direction === "read") socket.once("end", () => socket.destroy())
  return {
    reader: direction === "write" ? undefined : NodePipes.reader(socket, fd),
    writer: direction === "read" ? undefined : NodePipes.writerOf(socket, fd)
  }
}

/** One descriptor of a child, ready for the launch. */
export interface End {
  /** The child's end; closed after the launch where `owned`. */
  readonly handle: Structs.Handle
  readonly owned: boolean
  readonly flags: number
  readonly socket: net.Socket | undefined
}

/** Why a descriptor could not be made: the error of the system. */
export class EndProblem {
  readonly code: number
  constructor(code: number) {
    this.code = code
  }
}

const bufferSize = 64 * 1024
const prefix = `\\\\.\\pipe\\treeline-${process.pid}-`

/**
 * Written and read by ordinary programs, so the child's end is for blocking calls; only an end for both directions is
 * overlapped, or a waiting read would hold up every write.
 */
const openModes = {
  write: Kernel32.PIPE_ACCESS_INBOUND,
  read: Kernel32.PIPE_ACCESS_OUTBOUND,
  duplex: Kernel32.PIPE_ACCESS_DUPLEX | Kernel32.FILE_FLAG_OVERLAPPED
} as const

/** Makes ends for children. Nothing that it makes is inherited by anybody before the launch says so. */
export class Ends {
  private readonly kernel: Kernel32.Kernel32
  private readonly out = new BigUint64Array(1)
  private readonly mode = new Uint32Array(1)
  /** Who may open a pipe; the system reads it at each one. */
  private readonly descriptor: Buffer | undefined
  private readonly security: Buffer | null

  constructor(kernel: Kernel32.Kernel32) {
    this.kernel = kernel
    const sid = WindowsAccess.ownSid()
    this.descriptor = sid === undefined ? undefined : SecurityDescriptor.onlyFor(sid)
    this.security = this.descriptor === undefined
      ? null
      : SecurityDescriptor.securityAttributes(kernel.address(this.descriptor))
  }

  private pipe(direction: "read" | "write" | "duplex"): End | EndProblem {
    const name = `${prefix}${randomBytes(16).toString("hex")}`
    const handle = this.kernel.CreateNamedPipeW(
      Structs.utf16(name),
      openModes[direction] | Kernel32.FILE_FLAG_FIRST_PIPE_INSTANCE,
      Kernel32.PIPE_REJECT_REMOTE_CLIENTS,
      1,
      bufferSize,
      bufferSize,
      0,
      this.security
    )
    if (Kernel32.isInvalid(handle)) return new EndProblem(this.kernel.lastError())
    // Node opens the pipe in this very call; only its event comes later.
    const socket = net.connect({ path: name, allowHalfOpen: true })
    return { handle, owned: true, flags: Structs.descriptorFlags.pipe, socket }
  }

  /** A file that is written at its end, whoever else writes there. */
  private file(name: string, disposition: number): End | EndProblem {
    const handle = this.kernel.CreateFileW(
      Structs.utf16(name),
      Kernel32.FILE_APPEND,
      Kernel32.FILE_SHARE_ALL,
      null,
      disposition,
      0,
      0
    )
    return Kernel32.isInvalid(handle)
      ? new EndProblem(this.kernel.lastError())
      : { handle, owned: true, flags: Structs.descriptorFlags.file, socket: undefined }
  }

  /** Nothing to read, and a new file for both outputs: a handle of its own for each, as no list may name one twice. */
  openOutput(name: string): ReadonlyArray<End> | EndProblem {
    const ends: Array<End> = []
    const opens = [
      () => this.nothing(),
      () => this.file(name, Kernel32.CREATE_ALWAYS),
      () => this.file(name, Kernel32.OPEN_EXISTING)
    ]
    for (const open of opens) {
      const end = open()
      if (end instanceof EndProblem) {
        this.close(ends, true)
        return end
      }
      ends.push(end)
    }
    return ends
  }

  private nothing(): End | EndProblem {
    const handle = this.kernel.CreateFileW(
      Structs.utf16("NUL"),
      Kernel32.GENERIC_READ_WRITE,
      Kernel32.FILE_SHARE_READ_WRITE,
      null,
      Kernel32.OPEN_EXISTING,
      0,
      0
    )
    return Kernel32.isInvalid(handle)
      ? new EndProblem(this.kernel.lastError())
      : { handle, owned: true, flags: Structs.descriptorFlags.device, socket: undefined }
  }

  private standard(fd: number): Structs.Handle {
    // STD_INPUT_HANDLE is -10, the others follow.
    return this.kernel.GetStdHandle(-10 - fd)
  }

  /** A copy of the host's own; where the host has none, nothing. */
  private inherited(fd: number): End | EndProblem {
    const own = fd <= 2 ? this.standard(fd) : 0
    if (Kernel32.isInvalid(own)) return this.nothing()
    const self = this.kernel.GetCurrentProcess()
    if (this.kernel.DuplicateHandle(self, own, self, this.out, 0, 0, Kernel32.DUPLICATE_SAME_ACCESS) === 0) {
      return new EndProblem(this.kernel.lastError())
    }
    const type = this.kernel.GetFileType(own)
    const { device, file, pipe } = Structs.descriptorFlags
    const flags = type === Kernel32.FILE_TYPE_CHAR ? device : type === Kernel32.FILE_TYPE_DISK ? file : pipe
    return { handle: this.out[0]!, owned: true, flags, socket: undefined }
  }

  /** Whether a descriptor of the host is its console, which a child can only use when it is attached to it. */
  isConsole(fd: number): boolean {
    const own = this.standard(fd)
    return !Kernel32.isInvalid(own) && this.kernel.GetConsoleMode(own, this.mode) !== 0
  }

  open(descriptor: Descriptor, fd: number): End | EndProblem {
    switch (descriptor._tag) {
      case "pipe":
        return this.pipe(descriptor.direction)
      case "ignore":
        return this.nothing()
      case "inherit":
        return this.inherited(fd)
    }
  }

  /** Gives back the child's ends, and where nothing was started the host's too. */
  close(ends: ReadonlyArray<End>, hostToo: boolean): void {
    for (const { handle, owned, socket } of ends) {
      if (owned) this.kernel.CloseHandle(handle)
      if (hostToo) socket?.on("error", () => {}).destroy()
    }
  }
}
