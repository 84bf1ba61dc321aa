/**
 * Processes as a test on Windows sees them, independent of the code under test.
 */
import koffi from "koffi"

/** A process that can't be mistaken for a later one with the same number: `start` is its creation time. */
export interface Identity {
  readonly pid: number
  readonly start: string
}

const kernel = koffi.load("kernel32.dll")
const openProcess = kernel.func("uintptr_t __stdcall OpenProcess(uint32_t access, int inherit, uint32_t pid)")
const closeHandle = kernel.func("int __stdcall CloseHandle(uintptr_t handle)")
const wait = kernel.func("uint32_t __stdcall WaitForSingleObject(uintptr_t handle, uint32_t ms)")
const getTimes = kernel.func(
  "int __stdcall GetProcessTimes(uintptr_t handle, void *creation, void *exit, void *kernel, void *user)"
)
const terminate = kernel.func("int __stdcall TerminateProcess(uintptr_t handle, uint32_t code)")

const access = {
  /** SYNCHRONIZE, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_TERMINATE */
  look: 0x10_0000 | 0x1000,
  end: 0x10_0000 | 0x1000 | 1
}
const waitTimeout = 0x102

/**
 * Under Wine a process that has not started yet, or was ended before, has no creation time: 0, or what the memory of a new
 * object of Wine's server is filled with.
 */
const noTimes: ReadonlySet<bigint> = new Set([0n, 0x5555_5555_5555_5555n])

/** Calls with a handle of a process that lives; undefined when there is none. */
const withLiving = <A>(
  pid: number,
  rights: number,
  use: (handle: number | bigint, start: string) => A
): A | undefined => {
  const handle = openProcess(rights, 0, pid)
  if (handle === 0) return undefined
  try {
    // A process that has ended can be opened as long as somebody holds it.
    if (wait(handle, 0) !== waitTimeout) return undefined
    const [creation, ...others] = Array.from({ length: 4 }, () => Buffer.alloc(8))
    getTimes(handle, creation, ...others)
    const start = creation!.readBigUInt64LE()
    return noTimes.has(start) ? undefined : use(handle, start.toString())
  } finally {
    closeHandle(handle)
  }
}

/** The identity of a process that lives now. */
export const identify = (pid: number): Identity | undefined =>
  withLiving(pid, access.look, (_handle, start) => ({ pid, start }))

/** It lives and is the same one. */
export const isAlive = (identity: Identity): boolean => identify(identity.pid)?.start === identity.start

/** Ends a process if it is still the same one. */
export const killIfAlive = (identity: Identity): void => {
  withLiving(identity.pid, access.end, (handle, start) => {
    if (start === identity.start) terminate(handle, 1)
  })
}

const snapshotOf = kernel.func("uintptr_t __stdcall CreateToolhelp32Snapshot(uint32_t what, uint32_t pid)")
const first = kernel.func("int __stdcall Process32FirstW(uintptr_t snapshot, void *entry)")
const next = kernel.func("int __stdcall Process32NextW(uintptr_t snapshot, void *entry)")

/**
 * The living children of a process that run `image`. Only the pid of a parent is known, and it may have been another's
 * before: a child that is older than its parent is a stranger's.
 */
export const childrenOf = (parent: Identity, image: string): ReadonlyArray<Identity> => {
  const snapshot = snapshotOf(2, 0)
  const entry = Buffer.alloc(568)
  entry.writeUInt32LE(entry.length, 0)
  const found: Array<number> = []
  for (let more = first(snapshot, entry); more !== 0; more = next(snapshot, entry)) {
    const name = entry.toString("utf16le", 44, 564).split("\0", 1)[0]!
    if (entry.readUInt32LE(32) === parent.pid && name.toLowerCase() === image) found.push(entry.readUInt32LE(8))
  }
  closeHandle(snapshot)
  return found.map(identify).filter((child) => child !== undefined)
    .filter(({ start }) => BigInt(start) >= BigInt(parent.start))
}

const createEvent = kernel.func("uintptr_t __stdcall CreateEventW(void *security, int manual, int state, void *name)")
const self = kernel.func("uintptr_t __stdcall GetCurrentProcess()")
const getHandleCount = kernel.func("int __stdcall GetProcessHandleCount(uintptr_t handle, _Out_ uint32_t *count)")

/**
 * How many handles this process has open. Wine says 0, but always gives the lowest number that is free, so the numbers of
 * many new ones tell.
 */
export const handleCount = (): number => {
  const count = [0]
  getHandleCount(self(), count)
  if (count[0] !== 0) return count[0]!
  const many = Array.from({ length: 2_000 }, (): number => createEvent(null, 0, 0, null))
  for (const handle of many) closeHandle(handle)
  return Math.max(...many) / 4 - many.length
}
