/** Structures of the 64-bit Windows API, as bytes. Sizes and offsets are those of the Windows SDK. */
import type { Limits } from "@treeline/core/Limits"

/** A handle as koffi gives it: a number where it fits. */
export type Handle = number | bigint

export const utf16 = (text: string): Buffer => Buffer.from(`${text}\0`, "utf16le")

/** Reads up to the first NUL. */
export const fromUtf16 = (buffer: Buffer, from: number = 0, to: number = buffer.length): string => {
  const text = buffer.toString("utf16le", from, to)
  const end = text.indexOf("\0")
  return end < 0 ? text : text.slice(0, end)
}

export const handleArray = (handles: ReadonlyArray<Handle>): Buffer => {
  const buffer = Buffer.alloc(8 * handles.length)
  for (const [index, handle] of handles.entries()) buffer.writeBigUInt64LE(BigInt(handle), 8 * index)
  return buffer
}

const STARTF_USESTDHANDLES = 0x100
const startupSize = 112

/** STARTUPINFOEXW. The two addresses are of memory that must stay where it is during the call. */
export const startupInfo = (options: {
  readonly std: readonly [Handle, Handle, Handle]
  readonly descriptors: { readonly address: bigint; readonly size: number } | undefined
  readonly attributes: bigint
}): Buffer => {
  const buffer = Buffer.alloc(startupSize)
  buffer.writeUInt32LE(startupSize, 0)
  buffer.writeUInt32LE(STARTF_USESTDHANDLES, 60)
  if (options.descriptors !== undefined) {
    buffer.writeUInt16LE(options.descriptors.size, 66)
    buffer.writeBigUInt64LE(options.descriptors.address, 72)
  }
  for (const [index, handle] of options.std.entries()) buffer.writeBigUInt64LE(BigInt(handle), 80 + 8 * index)
  buffer.writeBigUInt64LE(options.attributes, 104)
  return buffer
}

/** What a C runtime knows of a descriptor: open, and a pipe or a device where it is one. */
export const descriptorFlags = { file: 0x01, pipe: 0x09, device: 0x41 } as const

/** The table by which C runtimes, Node's included, take over descriptors beyond 2 (lpReserved2). */
export const descriptorTable = (
  entries: ReadonlyArray<{ readonly handle: Handle; readonly flags: number }>
): Buffer => {
  const count = entries.length
  const buffer = Buffer.alloc(4 + 9 * count)
  buffer.writeUInt32LE(count, 0)
  for (const [index, { flags, handle }] of entries.entries()) {
    buffer.writeUInt8(flags, 4 + index)
    buffer.writeBigUInt64LE(BigInt(handle), 4 + count + 8 * index)
  }
  return buffer
}

export const processInformationSize = 24

export const processInformation = (buffer: Buffer) => ({
  process: buffer.readBigUInt64LE(0),
  thread: buffer.readBigUInt64LE(8),
  pid: buffer.readUInt32LE(16)
})

const LIMIT_ACTIVE_PROCESS = 0x8
const LIMIT_JOB_MEMORY = 0x200
const LIMIT_DIE_ON_UNHANDLED_EXCEPTION = 0x400
export const LIMIT_BREAKAWAY_OK = 0x800
export const LIMIT_SILENT_BREAKAWAY_OK = 0x1000
export const LIMIT_KILL_ON_JOB_CLOSE = 0x2000

export const extendedLimitsSize = 144

/**
 * JOBOBJECT_EXTENDED_LIMIT_INFORMATION. No process of it may break away: neither flag that allows it is ever set. What
 * crashes ends at once, without the dialog of Windows Error Reporting.
 */
export const extendedLimits = (options: { readonly killOnClose: boolean; readonly limits: Limits }): Buffer => {
  const { memory, processes } = options.limits
  const buffer = Buffer.alloc(extendedLimitsSize)
  buffer.writeUInt32LE(
    LIMIT_DIE_ON_UNHANDLED_EXCEPTION |
      (options.killOnClose ? LIMIT_KILL_ON_JOB_CLOSE : 0) |
      (processes === undefined ? 0 : LIMIT_ACTIVE_PROCESS) |
      (memory === undefined ? 0 : LIMIT_JOB_MEMORY),
    16
  )
  if (processes !== undefined) buffer.writeUInt32LE(Math.min(processes, 0xffff_ffff), 40)
  if (memory !== undefined) buffer.writeBigUInt64LE(BigInt(memory), 120)
  return buffer
}

/** The flags and bounds that a job has, as it tells them. */
export const readExtendedLimits = (buffer: Buffer) => ({
  flags: buffer.readUInt32LE(16),
  processes: buffer.readUInt32LE(40),
  memory: buffer.readBigUInt64LE(120)
})

/** JOBOBJECT_CPU_RATE_CONTROL_INFORMATION: a hard cap, in hundredths of a percent of all processors. */
export const cpuRate = (cpu: number, processors: number): Buffer => {
  const ENABLE = 0x1
  const HARD_CAP = 0x4
  const buffer = Buffer.alloc(8)
  buffer.writeUInt32LE(ENABLE | HARD_CAP, 0)
  buffer.writeUInt32LE(Math.min(10_000, Math.max(1, Math.round((cpu / processors) * 10_000))), 4)
  return buffer
}

export const accountingSize = 48

/** JOBOBJECT_BASIC_ACCOUNTING_INFORMATION; `cpu` in ms. */
export const accounting = (buffer: Buffer) => ({
  cpu: Number(buffer.readBigUInt64LE(0) + buffer.readBigUInt64LE(8)) / 10_000,
  active: buffer.readUInt32LE(40)
})

/** Room for so many pids in a JOBOBJECT_BASIC_PROCESS_ID_LIST. */
export const pidListSize = (pids: number): number => 8 + 8 * Math.max(2, pids)

export const pidList = (buffer: Buffer) => {
  const assigned = buffer.readUInt32LE(0)
  const listed = Math.min(buffer.readUInt32LE(4), (buffer.length - 8) / 8)
  return { assigned, pids: Array.from({ length: listed }, (_, index) => Number(buffer.readBigUInt64LE(8 + 8 * index))) }
}

export const processEntrySize = 568

/** PROCESSENTRY32W. */
export const processEntry = (buffer: Buffer) => ({
  pid: buffer.readUInt32LE(8),
  parent: buffer.readUInt32LE(32),
  name: fromUtf16(buffer, 44, 564)
})

export const memoryCountersSize = 72

/** PROCESS_MEMORY_COUNTERS: bytes in memory now. */
export const workingSet = (buffer: Buffer): number => Number(buffer.readBigUInt64LE(16))

export const basicInformationSize = 48

/** PROCESS_BASIC_INFORMATION: the pid that the process was started by, which may be another's by now. */
export const parentOf = (buffer: Buffer): number => Number(buffer.readBigUInt64LE(40))
