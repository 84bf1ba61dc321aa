/**
 * Sends console events, for one host. An event goes to all processes of the sender's console, and a process has one
 * console at a time: so this is a process of its own, without a console, that joins the console of a tree for the length
 * of one event. It ends when its input ends, and with its host by the job that it is in.
 *
 * It says `ready` first: a host whose own program is not Node would start something else here.
 */
import { createRequire } from "node:module"
import * as readline from "node:readline"
import { setTimeout } from "node:timers/promises"
import * as ConsoleEvents from "./internal/ConsoleEvents.ts"

interface Library {
  readonly func: (prototype: string) => never
}

const koffi = createRequire(import.meta.url)("koffi") as { readonly load: (path: string) => Library }
const kernel32 = koffi.load("kernel32.dll")
const AttachConsole: (pid: number) => number = kernel32.func("int __stdcall AttachConsole(uint32_t pid)")
const FreeConsole: () => number = kernel32.func("int __stdcall FreeConsole()")
const GetConsoleProcessList: (pids: Uint32Array, count: number) => number = kernel32.func(
  "uint32_t __stdcall GetConsoleProcessList(void *pids, uint32_t count)"
)
const GenerateConsoleCtrlEvent: (event: number, group: number) => number = kernel32.func(
  "int __stdcall GenerateConsoleCtrlEvent(uint32_t event, uint32_t group)"
)
const SetConsoleCtrlHandler: (handler: bigint | number, add: number) => number = kernel32.func(
  "int __stdcall SetConsoleCtrlHandler(uintptr_t handler, int add)"
)
const GetModuleHandleW: (name: Buffer) => bigint | number = kernel32.func(
  "uintptr_t __stdcall GetModuleHandleW(void *name)"
)
const GetProcAddress: (module: bigint | number, name: Buffer) => bigint | number = kernel32.func(
  "uintptr_t __stdcall GetProcAddress(uintptr_t module, void *name)"
)

const CTRL_C_EVENT = 0
const CTRL_BREAK_EVENT = 1

/** A handler that never fails and always says "handled", which is any number but 0. No JavaScript can be that quick. */
const handled = GetProcAddress(
  GetModuleHandleW(Buffer.from("kernel32.dll\0", "utf16le")),
  Buffer.from("GetCurrentProcessId\0")
)

/** Joining a console and leaving it both reset the handlers. */
const protect = (): void => {
  SetConsoleCtrlHandler(handled, 1)
  SetConsoleCtrlHandler(0, 1)
}

const pids = new Uint32Array(4096)

const itsConsole: ConsoleEvents.Console = {
  join: (pid) => {
    const joined = AttachConsole(pid) !== 0
    if (joined) protect()
    return joined
  },
  leave: () => {
    FreeConsole()
    protect()
  },
  attached: () => {
    const count = GetConsoleProcessList(pids, pids.length)
    // 0 is an error, and of more than there is room for none is told.
    return count === 0 || count > pids.length ? undefined : [...pids.subarray(0, count)]
  },
  // Wine has no Ctrl+Break.
  send: (event) =>
    (event === "break" && GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, 0) !== 0) ||
    GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0) !== 0
}

const answer = (line: string) => void process.stdout.write(`${line}\n`)

protect()
answer("ready")
for await (const line of readline.createInterface({ input: process.stdin })) {
  await ConsoleEvents.handle(line, itsConsole, answer, setTimeout)
}
process.exit(0)
