/**
 * The C library, through koffi, loaded when it is first needed. Nothing here decides anything: these are the system calls
 * with their constants, for 64-bit Linux with glibc or musl (the sizes of the opaque structures are the same in both).
 */
import { createRequire } from "node:module"

/** Numbers that may be above 2^53 come as bigint. */
type Long = number | bigint

type Pointer = Uint8Array | BigUint64Array | Int32Array | null

/** The functions that are used. Each returns what the C function returns; `errno` is read right after a call. */
export interface Libc {
  readonly pipe2: (fds: Int32Array, flags: number) => number
  readonly socketpair: (domain: number, type: number, protocol: number, fds: Int32Array) => number
  readonly socket: (domain: number, type: number, protocol: number) => number
  readonly sendto: (
    fd: number,
    bytes: Uint8Array,
    length: number,
    flags: number,
    address: Uint8Array,
    addressLength: number
  ) => number
  readonly close: (fd: number) => number
  readonly fcntl: (fd: number, command: number, argument: number) => number
  readonly ioctl: (fd: number, request: number, value: Int32Array) => number
  readonly kill: (pid: number, signal: number) => number
  readonly getsid: (pid: number) => number
  readonly getpgid: (pid: number) => number
  readonly prlimit: (pid: number, resource: number, next: Pointer, previous: Pointer) => number
  readonly prctl: (option: number, a: Long, b: number, c: number, d: number) => number
  readonly waitid: (type: number, id: number, info: Uint8Array, options: number) => number
  readonly posix_spawn: (
    pid: Int32Array,
    path: Uint8Array,
    actions: Uint8Array,
    attributes: Uint8Array,
    argv: BigUint64Array,
    envp: BigUint64Array
  ) => number
  readonly actionsInit: (actions: Uint8Array) => number
  readonly actionsDestroy: (actions: Uint8Array) => number
  readonly actionsAddDup2: (actions: Uint8Array, from: number, to: number) => number
  readonly actionsAddChdir: (actions: Uint8Array, path: Uint8Array) => number
  /** Absent before glibc 2.34 and in musl. */
  readonly actionsAddCloseFrom: ((actions: Uint8Array, from: number) => number) | undefined
  readonly attrInit: (attributes: Uint8Array) => number
  readonly attrSetFlags: (attributes: Uint8Array, flags: number) => number
  readonly attrSetSigDefault: (attributes: Uint8Array, set: Uint8Array) => number
  readonly attrSetSigMask: (attributes: Uint8Array, set: Uint8Array) => number
  /** Absent before glibc 2.39 and in musl. */
  readonly attrSetCgroup: ((attributes: Uint8Array, fd: number) => number) | undefined
  /** The address of the value, 0 where there is none. */
  readonly getenv: (name: Uint8Array) => Long
  /** memcpy(3) from an address. */
  readonly copy: (to: Uint8Array | BigUint64Array, from: bigint, length: number) => void
  readonly strlen: (string: bigint) => Long
  /** Where the address of the environment stands (environ(7)). */
  readonly environ: bigint
  readonly errno: () => number
  readonly address: (buffer: Uint8Array | Int32Array) => bigint
}

export const O_CLOEXEC = 0o2000000
export const AF_UNIX = 1
/** SOCK_STREAM | SOCK_CLOEXEC */
export const STREAM_CLOEXEC = 1 | 0o2000000
/** SOCK_DGRAM | SOCK_CLOEXEC */
export const DGRAM_CLOEXEC = 2 | 0o2000000
/** MSG_DONTWAIT | MSG_NOSIGNAL */
export const MSG_DONTWAIT_NOSIGNAL = 0x40 | 0x4000
export const F_DUPFD_CLOEXEC = 1030
export const F_SETFD = 2
export const FD_CLOEXEC = 1
export const F_GETFL = 3
export const F_SETFL = 4
export const F_SETPIPE_SZ = 1031
export const O_NONBLOCK = 0o4000
export const FIONREAD = 0x541b
export const RLIMIT_LOCKS = 10
export const PR_SET_CHILD_SUBREAPER = 36
export const PR_GET_CHILD_SUBREAPER = 37
export const P_PID = 1
export const WNOHANG = 1
export const WEXITED = 4
export const WNOWAIT = 0x0100_0000
export const POSIX_SPAWN_SETSIGDEF = 0x04
export const POSIX_SPAWN_SETSIGMASK = 0x08
export const POSIX_SPAWN_SETSID = 0x80
export const POSIX_SPAWN_SETCGROUP = 0x100

/** Sizes of the opaque structures, in bytes, rounded up. */
export const sizes = { attributes: 512, actions: 128, signalSet: 128, signalInfo: 128 }

interface Koffi {
  readonly load: (path: string | null) => {
    readonly func: (prototype: string) => (...args: Array<unknown>) => unknown
    readonly symbol: (name: string, type: string) => unknown
  }
  readonly errno: () => number
  readonly address: (value: unknown) => bigint
}

const open = (): Libc => {
  const koffi = createRequire(import.meta.url)("koffi") as Koffi
  const library = koffi.load(null)
  // koffi checks arguments against the prototype at run time; the interface above says the same to the compiler.
  const bind = (prototype: string) => library.func(prototype) as never
  const maybe = (prototype: string) => {
    try {
      return bind(prototype)
    } catch {
      return undefined
    }
  }
  return {
    pipe2: bind("int pipe2(void *fds, int flags)"),
    socketpair: bind("int socketpair(int domain, int type, int protocol, void *fds)"),
    socket: bind("int socket(int domain, int type, int protocol)"),
    sendto: bind(
      "long sendto(int fd, const void *bytes, unsigned long length, int flags, const void *address, unsigned int addressLength)"
    ),
    close: bind("int close(int fd)"),
    fcntl: bind("int fcntl(int fd, int cmd, int arg)"),
    ioctl: bind("int ioctl(int fd, unsigned long request, void *value)"),
    kill: bind("int kill(int pid, int sig)"),
    getsid: bind("int getsid(int pid)"),
    getpgid: bind("int getpgid(int pid)"),
    prlimit: bind("int prlimit(int pid, int resource, void *next, void *previous)"),
    prctl: bind("int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)"),
    waitid: bind("int waitid(int type, int id, void *info, int options)"),
    posix_spawn: bind(
      "int posix_spawn(void *pid, const void *path, const void *actions, const void *attr, void *argv, void *envp)"
    ),
    actionsInit: bind("int posix_spawn_file_actions_init(void *actions)"),
    actionsDestroy: bind("int posix_spawn_file_actions_destroy(void *actions)"),
    actionsAddDup2: bind("int posix_spawn_file_actions_adddup2(void *actions, int from, int to)"),
    actionsAddChdir: bind("int posix_spawn_file_actions_addchdir_np(void *actions, const void *path)"),
    actionsAddCloseFrom: maybe("int posix_spawn_file_actions_addclosefrom_np(void *actions, int from)"),
    attrInit: bind("int posix_spawnattr_init(void *attr)"),
    attrSetFlags: bind("int posix_spawnattr_setflags(void *attr, short flags)"),
    attrSetSigDefault: bind("int posix_spawnattr_setsigdefault(void *attr, const void *set)"),
    attrSetSigMask: bind("int posix_spawnattr_setsigmask(void *attr, const void *set)"),
    attrSetCgroup: maybe("int posix_spawnattr_setcgroup_np(void *attr, int fd)"),
    getenv: bind("unsigned long getenv(const void *name)"),
    copy: bind("void memcpy(void *to, unsigned long from, unsigned long length)"),
    strlen: bind("unsigned long strlen(unsigned long string)"),
    environ: koffi.address(library.symbol("environ", "void *")),
    errno: koffi.errno,
    address: koffi.address
  }
}

let loaded: Libc | Error | undefined = undefined

/** The library, or why it can't be had: koffi is an optional dependency and has no build for every system. */
export const load = (): Libc | Error => {
  if (loaded === undefined) {
    try {
      loaded = process.platform === "linux" && (process.arch === "x64" || process.arch === "arm64")
        ? open()
        : new Error(`native calls are made on 64-bit Linux only, this is ${process.platform} ${process.arch}`)
    } catch (error) {
      loaded = error instanceof Error ? error : new Error(String(error))
    }
  }
  return loaded
}
