/**
 * Starts programs by posix_spawn(3), which shares the host's memory with the child until it executes, instead of copying
 * its page tables as fork does: the cost does not grow with the host.
 *
 * Pipes are pipes and no sockets, so a child can open /dev/stdout; every descriptor that was not asked for is closed;
 * signal mask and dispositions are the defaults; an inherited environment is the host's, byte by byte.
 */
import type { Pipe } from "@treeline/core/Engine"
import type { ExitStatus } from "@treeline/core/ExitStatus"
import * as Descriptors from "@treeline/platform-node/Descriptors"
import * as NodePipes from "@treeline/platform-node/NodePipes"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as fs from "node:fs"
import * as net from "node:net"
import { constants } from "node:os"
import { getSystemErrorName } from "node:util"
import * as Environment from "../internal/Environment.ts"
import * as Executable from "../internal/Executable.ts"
import type { Launched, Launcher, LaunchProblem, Program } from "../internal/Launcher.ts"
import * as CStrings from "./CStrings.ts"
import { HostEnvironment } from "./HostEnvironment.ts"
import * as Libc from "./Libc.ts"
import type { Reaper } from "./Reaper.ts"

/** An error of a system call; no exception, because launches fail in the ordinary course of things. */
class Failed {
  readonly code: string
  constructor(errno: number) {
    this.code = getSystemErrorName(-errno)
  }
}

const attributesOf = (libc: Libc.Libc, ownSession: boolean): Buffer => {
  const attributes = Buffer.alloc(Libc.sizes.attributes)
  libc.attrInit(attributes)
  const all = Buffer.alloc(Libc.sizes.signalSet, 0xff)
  for (const signal of [constants.signals.SIGKILL, constants.signals.SIGSTOP]) {
    all[(signal - 1) >> 3]! &= ~(1 << ((signal - 1) & 7))
  }
  libc.attrSetFlags(
    attributes,
    Libc.POSIX_SPAWN_SETSIGDEF | Libc.POSIX_SPAWN_SETSIGMASK | (ownSession ? Libc.POSIX_SPAWN_SETSID : 0)
  )
  libc.attrSetSigDefault(attributes, all)
  libc.attrSetSigMask(attributes, Buffer.alloc(Libc.sizes.signalSet))
  return attributes
}

/** A program that has been started. */
class Child implements Launched {
  readonly pid: number
  readonly pipes = new Map<number, Pipe>()
  readonly sockets: Array<net.Socket> = []
  referenced = true
  private readonly reaper: Reaper
  private end: { readonly status: ExitStatus; readonly held: boolean } | undefined = undefined
  private listener: ((status: ExitStatus, held: boolean) => void) | undefined = undefined

  constructor(pid: number, reaper: Reaper) {
    this.pid = pid
    this.reaper = reaper
    reaper.reference()
    reaper.watch(pid, this)
  }

  /** The reaper has seen the end. */
  ended(status: ExitStatus, held: boolean): void {
    this.end = { status, held }
    this.unreference()
    this.listener?.(status, held)
  }

  onExit(listener: (status: ExitStatus, held: boolean) => void): void {
    this.listener = listener
    if (this.end !== undefined) listener(this.end.status, this.end.held)
  }

  private unreference(): void {
    if (!this.referenced) return
    this.referenced = false
    this.reaper.unreference()
  }

  setReferenced(next: boolean): void {
    for (const socket of this.sockets) socket[next ? "ref" : "unref"]()
    if (!next) this.unreference()
    else if (!this.referenced && this.end === undefined) {
      this.referenced = true
      this.reaper.reference()
    }
  }

  reap(): void {
    this.unreference()
    this.reaper.reap(this.pid, this)
  }
}

/**
 * The host's end of an input. Most programs are never written to, so the socket is made by the first write: that saves
 * 2.5 KiB and 15 us for each launch.
 */
class Input implements NodePipes.LazySocket {
  private readonly libc: Libc.Libc
  private readonly child: Child
  private readonly host: number
  private socket: net.Socket | undefined = undefined
  private closed = false

  constructor(libc: Libc.Libc, child: Child, host: number) {
    this.libc = libc
    this.child = child
    this.host = host
  }

  get(): net.Socket {
    if (this.socket !== undefined) return this.socket
    // After the close the number may be another file's.
    this.socket = this.closed
      ? new net.Socket().destroy()
      : new net.Socket({ fd: this.host, readable: false, writable: true })
    this.child.sockets.push(this.socket)
    if (!this.child.referenced) this.socket.unref()
    return this.socket
  }

  close(): void {
    if (this.socket !== undefined) this.socket.destroy()
    else if (!this.closed) this.libc.close(this.host)
    this.closed = true
  }
}

/** The host's and the child's end of one descriptor. */
interface Ends {
  readonly host: number | undefined
  readonly child: number
  /** The child's end was opened for this launch and is closed after it. */
  readonly owned: boolean
}

/** What a pipe holds, and what a busy one is given, in bytes; and how many are given that at most. */
const ordinaryPipe = 64 * 1024
const widePipe = 256 * 1024
const maxWide = 64

export const make = (libc: Libc.Libc, reaper: Reaper): Launcher => {
  const ownSession = attributesOf(libc, true)
  const sharedSession = attributesOf(libc, false)
  const actions = Buffer.alloc(Libc.sizes.actions)
  const pidOut = new Int32Array(1)
  const pair = new Int32Array(2)
  const baseLimit = new BigUint64Array(2)
  const tagLimit = new BigUint64Array(2)
  const pendingOut = new Int32Array(1)
  /** Pipes that have been widened and are open. */
  let wide = 0
  const nullDevice = fs.openSync("/dev/null", "r+")
  /** The strings of the call that is going on: C has only their addresses, so the collector must not move in. */
  const held: { strings: ReadonlyArray<CStrings.CStrings> } = { strings: [] }
  const hostEnvironment = new HostEnvironment(libc)
  // Node opens nothing that children get, so what it was started with is all there is to close.
  if (libc.actionsAddCloseFrom === undefined) {
    for (const fd of Descriptors.inherited()) libc.fcntl(fd, Libc.F_SETFD, Libc.FD_CLOEXEC)
  }

  const environmentOf = (env: Environment.Environment): CStrings.CStrings =>
    (env.inherits ? hostEnvironment.extend(env.changes) : undefined) ??
      CStrings.make(libc, Object.entries(Environment.toRecord(env)).map(([name, value]) => `${name}=${value}`))

  /** Programs expect blocking descriptors, and Node may have changed the host's own, which the child shares. */
  const makeBlocking = (fd: number): void => {
    const flags = libc.fcntl(fd, Libc.F_GETFL, 0)
    if (flags >= 0 && (flags & Libc.O_NONBLOCK) !== 0) libc.fcntl(fd, Libc.F_SETFL, flags & ~Libc.O_NONBLOCK)
  }

  /** A copy of the child's end above all target numbers. */
  const lift = (child: number, host: number | undefined, above: number): Ends | Failed => {
    const lifted = libc.fcntl(child, Libc.F_DUPFD_CLOEXEC, above)
    if (lifted >= 0) return { host, child: lifted, owned: true }
    const failed = new Failed(libc.errno())
    if (host !== undefined) libc.close(host)
    return failed
  }

  /** Opens both ends; the child's is moved above all target numbers, so that no target overwrites a source. */
  const open = (descriptor: Program["stdio"][number], fd: number, above: number): Ends | Failed => {
    if (descriptor._tag === "inherit") {
      makeBlocking(fd)
      return { host: undefined, child: fd, owned: false }
    }
    if (descriptor._tag === "ignore") {
      return nullDevice >= above
        ? { host: undefined, child: nullDevice, owned: false }
        : lift(nullDevice, undefined, above)
    }
    const failed = descriptor.direction === "duplex"
      ? libc.socketpair(Libc.AF_UNIX, Libc.STREAM_CLOEXEC, 0, pair) !== 0
      : libc.pipe2(pair, Libc.O_CLOEXEC) !== 0
    if (failed) return new Failed(libc.errno())
    const [host, child] = descriptor.direction === "write" ? [pair[1]!, pair[0]!] : [pair[0]!, pair[1]!]
    if (child >= above) return { host, child, owned: true }
    const ends = lift(child, host, above)
    libc.close(child)
    return ends
  }

  const closeAll = (ends: ReadonlyArray<Ends>, hostToo: boolean): void => {
    for (const { child, host, owned } of ends) {
      if (owned) libc.close(child)
      if (hostToo && host !== undefined) libc.close(host)
    }
  }

  const spawnWith = (
    program: Program,
    ends: ReadonlyArray<Ends>,
    file: string,
    args: ReadonlyArray<string>
  ): number => {
    const argv = CStrings.make(libc, args)
    const envp = environmentOf(program.env)
    const path = CStrings.one(file)
    held.strings = [argv, envp]
    libc.actionsInit(actions)
    // Each target is written once, and a source is the target itself or above all targets.
    for (const [fd, end] of ends.entries()) libc.actionsAddDup2(actions, end.child, fd)
    if (program.cwd !== undefined) libc.actionsAddChdir(actions, CStrings.one(program.cwd))
    libc.actionsAddCloseFrom?.(actions, ends.length)
    const attributes = program.ownSession ? ownSession : sharedSession
    // From here to the restored limit nothing else of this thread runs, so no other child can get the tag.
    if (program.tag !== undefined) {
      libc.prlimit(0, Libc.RLIMIT_LOCKS, null, baseLimit)
      tagLimit[0] = BigInt(program.tag)
      tagLimit[1] = baseLimit[1]!
      libc.prlimit(0, Libc.RLIMIT_LOCKS, tagLimit, null)
    }
    const errno = libc.posix_spawn(pidOut, path, actions, attributes, argv.pointers, envp.pointers)
    if (program.tag !== undefined) libc.prlimit(0, Libc.RLIMIT_LOCKS, baseLimit, null)
    libc.actionsDestroy(actions)
    held.strings = []
    return errno
  }

  const pending = (fd: number) => (): Option.Option<number> =>
    libc.ioctl(fd, Libc.FIONREAD, pendingOut) === 0 ? Option.some(pendingOut[0]!) : Option.none()

  /**
   * Room for a child that writes more than a pipe holds: the shares of 50 busy pipes get less unequal (the least one was
   * 0.07 to 0.28 of the mean at half time, and is 0.29 to 0.53). Few have it, because all pipes of an unprivileged user
   * share 64 MiB (pipe(7), pipe-user-pages-soft).
   */
  const widen = (socket: net.Socket, host: number): void => {
    const onFull = (chunk: Uint8Array) => {
      if (chunk.length < ordinaryPipe) return
      socket.off("data", onFull)
      if (wide >= maxWide || socket.destroyed || libc.fcntl(host, Libc.F_SETPIPE_SZ, widePipe) < 0) return
      wide++
      socket.once("close", () => wide--)
    }
    socket.on("data", onFull)
  }

  const pipeOf = (child: Child, direction: "read" | "write" | "duplex", fd: number, host: number): Pipe => {
    if (direction === "write") {
      return { reader: undefined, writer: NodePipes.writer(new Input(libc, child, host), fd) }
    }
    const writable = direction === "duplex"
    const socket = new net.Socket({ fd: host, readable: true, writable, allowHalfOpen: writable })
    child.sockets.push(socket)
    return {
      reader: NodePipes.reader(socket, fd, pending(host), writable ? undefined : () => widen(socket, host)),
      writer: writable ? NodePipes.writerOf(socket, fd) : undefined
    }
  }

  const launch = (program: Program): Launched | LaunchProblem => {
    const above = program.stdio.length
    const ends: Array<Ends> = []
    for (const [fd, descriptor] of program.stdio.entries()) {
      const end = open(descriptor, fd, above)
      if (end instanceof Failed) {
        closeAll(ends, true)
        return end
      }
      ends.push(end)
    }
    let errno = spawnWith(program, ends, program.file, [program.name, ...program.args])
    // A script without `#!`: the shell runs it, as execvp(3) does.
    if (errno === constants.errno.ENOEXEC && Executable.isScript(program.file)) {
      errno = spawnWith(program, ends, "/bin/sh", ["/bin/sh", program.file, ...program.args])
    }
    closeAll(ends, errno !== 0)
    if (errno !== 0) return new Failed(errno)

    const child = new Child(pidOut[0]!, reaper)
    for (const [fd, { host }] of ends.entries()) {
      const descriptor = program.stdio[fd]!
      if (host !== undefined && descriptor._tag === "pipe") {
        child.pipes.set(fd, pipeOf(child, descriptor.direction, fd, host))
      }
    }
    return child
  }

  return {
    name: "posix_spawn",
    tagging: "setrlimit(2)",
    // The system's own answer is exact, so nothing is tried twice.
    find: Executable.locate,
    launch: (program) => {
      const outcome = launch(program)
      return "pid" in outcome ? outcome : Effect.fail(outcome)
    }
  }
}
