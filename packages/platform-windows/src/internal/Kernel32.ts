/**
 * The system calls of Windows, through koffi, loaded when they are first needed. Nothing here decides anything: these are
 * the functions with their constants, for 64-bit Windows.
 */
import { createRequire } from "node:module"
import type { Handle } from "./Structs.ts"

type Out = Buffer | BigUint64Array | Uint32Array | null

/** Functions that are used. Each returns what it returns in C; `lastError` is read right after a call. */
export interface Kernel32 {
  readonly lastError: () => number
  readonly CloseHandle: (handle: Handle) => number
  readonly GetCurrentProcess: () => Handle
  readonly DuplicateHandle: (
    source: Handle,
    handle: Handle,
    target: Handle,
    out: BigUint64Array,
    access: number,
    inherit: number,
    options: number
  ) => number
  readonly SetHandleInformation: (handle: Handle, mask: number, flags: number) => number
  readonly GetStdHandle: (which: number) => Handle
  readonly GetFileType: (handle: Handle) => number
  readonly GetConsoleMode: (handle: Handle, mode: Uint32Array) => number
  /** 0 without a console. */
  readonly GetConsoleCP: () => number
  readonly CreateFileW: (
    name: Buffer,
    access: number,
    share: number,
    security: Out,
    disposition: number,
    flags: number,
    template: Handle
  ) => Handle
  readonly CreateNamedPipeW: (
    name: Buffer,
    openMode: number,
    pipeMode: number,
    instances: number,
    out: number,
    into: number,
    timeout: number,
    security: Out
  ) => Handle

  readonly CreateJobObjectW: (security: Out, name: Out) => Handle
  readonly SetInformationJobObject: (job: Handle, what: number, info: Buffer, length: number) => number
  readonly QueryInformationJobObject: (job: Handle, what: number, info: Buffer, length: number, out: Out) => number
  readonly TerminateJobObject: (job: Handle, code: number) => number
  readonly IsProcessInJob: (process: Handle, job: Handle, out: Uint32Array) => number

  readonly InitializeProcThreadAttributeList: (
    list: Out,
    count: number,
    flags: number,
    size: BigUint64Array
  ) => number
  readonly UpdateProcThreadAttribute: (
    list: Buffer,
    flags: number,
    attribute: number,
    value: Buffer,
    size: number,
    previous: Out,
    returned: Out
  ) => number
  readonly DeleteProcThreadAttributeList: (list: Buffer) => void
  readonly CreateProcessW: (
    application: Buffer,
    commandLine: Buffer,
    processSecurity: Out,
    threadSecurity: Out,
    inherit: number,
    flags: number,
    environment: Buffer,
    directory: Out,
    startup: Buffer,
    information: Buffer
  ) => number

  readonly OpenProcess: (access: number, inherit: number, pid: number) => Handle
  readonly TerminateProcess: (process: Handle, code: number) => number
  readonly WaitForSingleObject: (handle: Handle, ms: number) => number
  readonly GetExitCodeProcess: (process: Handle, code: Uint32Array) => number
  readonly GetProcessTimes: (
    process: Handle,
    creation: BigUint64Array,
    exit: BigUint64Array,
    kernel: BigUint64Array,
    user: BigUint64Array
  ) => number
  readonly QueryFullProcessImageNameW: (process: Handle, flags: number, name: Buffer, size: Uint32Array) => number
  readonly K32GetProcessMemoryInfo: (process: Handle, counters: Buffer, size: number) => number
  readonly NtQueryInformationProcess: (
    process: Handle,
    what: number,
    info: Buffer,
    length: number,
    out: Out
  ) => number
  readonly CreateToolhelp32Snapshot: (flags: number, pid: number) => Handle
  readonly Process32FirstW: (snapshot: Handle, entry: Buffer) => number
  readonly Process32NextW: (snapshot: Handle, entry: Buffer) => number
  readonly GetFileAttributesW: (name: Buffer) => number
  readonly GetSystemDirectoryW: (out: Buffer, size: number) => number

  /** `callback` is what `onWait` returned. */
  readonly RegisterWaitForSingleObject: (
    out: BigUint64Array,
    handle: Handle,
    callback: bigint,
    context: number,
    ms: number,
    flags: number
  ) => number
  readonly UnregisterWaitEx: (wait: Handle, completion: Handle) => number

  readonly address: (buffer: Uint8Array) => bigint
  /** Makes a function that waits can call; it stays for good. */
  readonly onWait: (listener: (context: number | bigint) => void) => bigint
  /** Functions for windows on the screen. */
  readonly user32: () => User32
}

export interface User32 {
  readonly FindWindowExW: (parent: Handle, after: Handle, name: Out, title: Out) => Handle
  readonly GetWindowThreadProcessId: (window: Handle, pid: Uint32Array) => number
  readonly GetWindow: (window: Handle, which: number) => Handle
  readonly IsWindowVisible: (window: Handle) => number
  readonly PostMessageW: (window: Handle, message: number, w: Handle, l: Handle) => number
}

export const INFINITE = 0xffff_ffff
export const HANDLE_FLAG_INHERIT = 1
export const DUPLICATE_SAME_ACCESS = 2
export const FILE_TYPE_DISK = 1
export const FILE_TYPE_CHAR = 2
export const GENERIC_READ_WRITE = 0xc000_0000
export const FILE_SHARE_READ_WRITE = 3
export const FILE_SHARE_ALL = 7
/** FILE_GENERIC_WRITE without FILE_WRITE_DATA: what is written goes to the end. */
export const FILE_APPEND = 0x12_0114
export const CREATE_ALWAYS = 2
export const OPEN_EXISTING = 3
export const PIPE_ACCESS_INBOUND = 1
export const PIPE_ACCESS_OUTBOUND = 2
export const PIPE_ACCESS_DUPLEX = 3
export const FILE_FLAG_FIRST_PIPE_INSTANCE = 0x8_0000
export const FILE_FLAG_OVERLAPPED = 0x4000_0000
export const PIPE_REJECT_REMOTE_CLIENTS = 8
export const JobBasicAccounting = 1
export const JobBasicProcessIdList = 3
export const JobExtendedLimits = 9
export const JobCpuRate = 15
export const ATTRIBUTE_HANDLE_LIST = 0x2_0002
export const ATTRIBUTE_JOB_LIST = 0x2_000d
export const CREATE_SUSPENDED = 0x4
export const CREATE_NEW_CONSOLE = 0x10
export const DETACHED_PROCESS = 0x8
export const CREATE_UNICODE_ENVIRONMENT = 0x400
export const EXTENDED_STARTUPINFO_PRESENT = 0x8_0000
export const CREATE_NO_WINDOW = 0x800_0000
export const CREATE_BREAKAWAY_FROM_JOB = 0x100_0000
export const PROCESS_TERMINATE = 0x1
export const PROCESS_QUERY_LIMITED_INFORMATION = 0x1000
/** IsProcessInJob needs it under Wine. */
export const PROCESS_QUERY_INFORMATION = 0x400
export const SYNCHRONIZE = 0x10_0000
export const WAIT_OBJECT_0 = 0
export const ERROR_ACCESS_DENIED = 5
export const ERROR_MORE_DATA = 234
export const ERROR_INTERNAL_ERROR = 1359
export const ERROR_INVALID_WINDOW_HANDLE = 1400
export const INVALID_FILE_ATTRIBUTES = 0xffff_ffff
export const FILE_ATTRIBUTE_DIRECTORY = 0x10
export const SNAP_PROCESS = 2
/** ONLYONCE | EXECUTEINWAITTHREAD: one callback of a wait thread at a time, so no more than koffi can queue. */
export const WAIT_FLAGS = 0x8 | 0x4
export const WM_CLOSE = 0x10
export const GW_OWNER = 4

interface Library {
  readonly func: (prototype: string) => never
}

interface Koffi {
  readonly load: (path: string) => Library
  readonly address: (value: unknown) => bigint
  readonly proto: (prototype: string) => unknown
  readonly pointer: (type: unknown) => unknown
  readonly register: (callback: (...args: Array<never>) => unknown, type: unknown) => bigint
}

/** True for what CreateFileW and its like return on failure, and for NULL. */
export const isInvalid = (handle: Handle): boolean =>
  handle === 0 || handle === 0n || handle === -1 || handle === 0xffff_ffff_ffff_ffffn

const open = (): Kernel32 => {
  const koffi = createRequire(import.meta.url)("koffi") as Koffi
  const kernel32 = koffi.load("kernel32.dll")
  const ntdll = koffi.load("ntdll.dll")
  // koffi checks arguments against the prototype at run time; the interface above says the same to the compiler.
  const bind = (prototype: string) => kernel32.func(prototype)
  let user: User32 | undefined = undefined
  return {
    lastError: bind("uint32_t __stdcall GetLastError()"),
    CloseHandle: bind("int __stdcall CloseHandle(uintptr_t handle)"),
    GetCurrentProcess: bind("uintptr_t __stdcall GetCurrentProcess()"),
    DuplicateHandle: bind(
      "int __stdcall DuplicateHandle(uintptr_t source, uintptr_t handle, uintptr_t target, void *out, uint32_t access, int inherit, uint32_t options)"
    ),
    SetHandleInformation: bind("int __stdcall SetHandleInformation(uintptr_t handle, uint32_t mask, uint32_t flags)"),
    GetStdHandle: bind("uintptr_t __stdcall GetStdHandle(int32_t which)"),
    GetFileType: bind("uint32_t __stdcall GetFileType(uintptr_t handle)"),
    GetConsoleMode: bind("int __stdcall GetConsoleMode(uintptr_t handle, void *mode)"),
    GetConsoleCP: bind("uint32_t __stdcall GetConsoleCP()"),
    CreateFileW: bind(
      "uintptr_t __stdcall CreateFileW(void *name, uint32_t access, uint32_t share, void *security, uint32_t disposition, uint32_t flags, uintptr_t template)"
    ),
    CreateNamedPipeW: bind(
      "uintptr_t __stdcall CreateNamedPipeW(void *name, uint32_t openMode, uint32_t pipeMode, uint32_t instances, uint32_t out, uint32_t into, uint32_t timeout, void *security)"
    ),
    CreateJobObjectW: bind("uintptr_t __stdcall CreateJobObjectW(void *security, void *name)"),
    SetInformationJobObject: bind(
      "int __stdcall SetInformationJobObject(uintptr_t job, int what, void *info, uint32_t length)"
    ),
    QueryInformationJobObject: bind(
      "int __stdcall QueryInformationJobObject(uintptr_t job, int what, void *info, uint32_t length, void *out)"
    ),
    TerminateJobObject: bind("int __stdcall TerminateJobObject(uintptr_t job, uint32_t code)"),
    IsProcessInJob: bind("int __stdcall IsProcessInJob(uintptr_t process, uintptr_t job, void *out)"),
    InitializeProcThreadAttributeList: bind(
      "int __stdcall InitializeProcThreadAttributeList(void *list, uint32_t count, uint32_t flags, void *size)"
    ),
    UpdateProcThreadAttribute: bind(
      "int __stdcall UpdateProcThreadAttribute(void *list, uint32_t flags, uintptr_t attribute, void *value, size_t size, void *previous, void *returned)"
    ),
    DeleteProcThreadAttributeList: bind("void __stdcall DeleteProcThreadAttributeList(void *list)"),
    CreateProcessW: bind(
      "int __stdcall CreateProcessW(void *application, void *commandLine, void *processSecurity, void *threadSecurity, int inherit, uint32_t flags, void *environment, void *directory, void *startup, void *information)"
    ),
    OpenProcess: bind("uintptr_t __stdcall OpenProcess(uint32_t access, int inherit, uint32_t pid)"),
    TerminateProcess: bind("int __stdcall TerminateProcess(uintptr_t process, uint32_t code)"),
    WaitForSingleObject: bind("uint32_t __stdcall WaitForSingleObject(uintptr_t handle, uint32_t ms)"),
    GetExitCodeProcess: bind("int __stdcall GetExitCodeProcess(uintptr_t process, void *code)"),
    GetProcessTimes: bind(
      "int __stdcall GetProcessTimes(uintptr_t process, void *creation, void *exit, void *kernel, void *user)"
    ),
    QueryFullProcessImageNameW: bind(
      "int __stdcall QueryFullProcessImageNameW(uintptr_t process, uint32_t flags, void *name, void *size)"
    ),
    K32GetProcessMemoryInfo: bind(
      "int __stdcall K32GetProcessMemoryInfo(uintptr_t process, void *counters, uint32_t size)"
    ),
    NtQueryInformationProcess: ntdll.func(
      "int __stdcall NtQueryInformationProcess(uintptr_t process, int what, void *info, uint32_t length, void *out)"
    ),
    CreateToolhelp32Snapshot: bind("uintptr_t __stdcall CreateToolhelp32Snapshot(uint32_t flags, uint32_t pid)"),
    Process32FirstW: bind("int __stdcall Process32FirstW(uintptr_t snapshot, void *entry)"),
    Process32NextW: bind("int __stdcall Process32NextW(uintptr_t snapshot, void *entry)"),
    GetFileAttributesW: bind("uint32_t __stdcall GetFileAttributesW(void *name)"),
    GetSystemDirectoryW: bind("uint32_t __stdcall GetSystemDirectoryW(void *out, uint32_t size)"),
    RegisterWaitForSingleObject: bind(
      "int __stdcall RegisterWaitForSingleObject(void *out, uintptr_t handle, void *callback, uintptr_t context, uint32_t ms, uint32_t flags)"
    ),
    UnregisterWaitEx: bind("int __stdcall UnregisterWaitEx(uintptr_t wait, uintptr_t completion)"),
    address: koffi.address,
    onWait: (listener) => {
      // A name is for one type, and another copy of this package may have been loaded.
      const name = `TreelineWait${process.hrtime.bigint()}`
      const type = koffi.proto(`void __stdcall ${name}(uintptr_t context, uint8_t fired)`)
      return koffi.register(listener, koffi.pointer(type))
    },
    user32: () => {
      if (user !== undefined) return user
      const library = koffi.load("user32.dll")
      return user = {
        FindWindowExW: library.func(
          "uintptr_t __stdcall FindWindowExW(uintptr_t parent, uintptr_t after, void *name, void *title)"
        ),
        GetWindowThreadProcessId: library.func(
          "uint32_t __stdcall GetWindowThreadProcessId(uintptr_t window, void *pid)"
        ),
        GetWindow: library.func("uintptr_t __stdcall GetWindow(uintptr_t window, uint32_t which)"),
        IsWindowVisible: library.func("int __stdcall IsWindowVisible(uintptr_t window)"),
        PostMessageW: library.func(
          "int __stdcall PostMessageW(uintptr_t window, uint32_t message, uintptr_t w, uintptr_t l)"
        )
      }
    }
  }
}

let loaded: Kernel32 | Error | undefined = undefined

/** The functions, or why they can't be had: koffi is an optional dependency and has no build for every system. */
export const load = (): Kernel32 | Error => {
  if (loaded === undefined) {
    try {
      loaded = process.platform === "win32" && (process.arch === "x64" || process.arch === "arm64")
        ? open()
        : new Error(`job objects are for 64-bit Windows, this is ${process.platform} ${process.arch}`)
    } catch (error) {
      loaded = error instanceof Error ? error : new Error(String(error))
    }
  }
  return loaded
}
