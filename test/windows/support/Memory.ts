/**
 * The command line and the environment of another process, from its own memory: what any process of the same user can see.
 */
import koffi from "koffi"

const kernel = koffi.load("kernel32.dll")
const ntdll = koffi.load("ntdll.dll")
const openProcess = kernel.func("uintptr_t __stdcall OpenProcess(uint32_t access, int inherit, uint32_t pid)")
const closeHandle = kernel.func("int __stdcall CloseHandle(uintptr_t handle)")
const readMemory = kernel.func(
  "int __stdcall ReadProcessMemory(uintptr_t process, uintptr_t address, void *out, size_t size, void *read)"
)
const information = ntdll.func(
  "int __stdcall NtQueryInformationProcess(uintptr_t process, int what, void *out, uint32_t length, void *needed)"
)

/** PROCESS_QUERY_INFORMATION | PROCESS_VM_READ */
const access = 0x400 | 0x10

/** Both as one text. */
export const startedWith = (pid: number): string => {
  const handle = openProcess(access, 0, pid)
  if (handle === 0) throw new Error(`process ${pid} can't be opened`)
  const read = (address: bigint, size: number): Buffer => {
    const out = Buffer.alloc(size)
    if (readMemory(handle, address, out, size, null) === 0) throw new Error(`the memory of ${pid} can't be read`)
    return out
  }
  try {
    const basic = Buffer.alloc(48)
    if (information(handle, 0, basic, basic.length, null) !== 0) throw new Error(`${pid} can't be looked at`)
    // PEB.ProcessParameters, and of those CommandLine, Environment and EnvironmentSize.
    const parameters = read(read(basic.readBigUInt64LE(8) + 0x20n, 8).readBigUInt64LE(), 0x3f8)
    const commandLine = read(parameters.readBigUInt64LE(0x78), parameters.readUInt16LE(0x70))
    const environment = read(parameters.readBigUInt64LE(0x80), Number(parameters.readBigUInt64LE(0x3f0)))
    return `${commandLine.toString("utf16le")}\n${environment.toString("utf16le").replaceAll("\0", "\n")}`
  } finally {
    closeHandle(handle)
  }
}
