/**
 * Sends console events, for one host. An event goes to all processes of the sender's console, and a process has one
 * console at a time: so this is a process of its own, without a console, that joins the console of a tree for the length
 * of one event. It ends when its input ends, and with its host by the job that it is in.
 *
 * A request is a line `ID EVENT HOST PID...`, the answer `ID CONSOLES`: how many consoles were given the event.
 */
import { createRequire } from "node:module"
import * as readline from "node:readline"

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

let leaving: NodeJS.Timeout | undefined = undefined

const leave = (): void => {
  clearTimeout(leaving)
  leaving = undefined
  FreeConsole()
  protect()
}

/** Our own event must have met the handler before it is gone, so the console is left a little later. */
const lingering = 100

const pids = new Uint32Array(4096)

/** Sends `event` to the console of `pid`; the pids that got it, or undefined when it has none or is the host's. */
const send = (event: string, host: number, pid: number): ReadonlyArray<number> | undefined => {
  leave()
  if (AttachConsole(pid) === 0) return undefined
  protect()
  const count = GetConsoleProcessList(pids, pids.length)
  const attached = count <= pids.length ? [...pids.subarray(0, count)] : []
  if (attached.includes(host)) return undefined
  // Wine has no Ctrl+Break.
  const sent = (event === "break" && GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, 0) !== 0) ||
    GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0) !== 0
  return sent ? attached : undefined
}

protect()
const lines = readline.createInterface({ input: process.stdin })
lines.on("line", (line) => {
  const [id, event = "", host, ...targets] = line.split(" ")
  const asked = new Set<number>()
  let consoles = 0
  for (const target of targets.map(Number)) {
    if (asked.has(target)) continue
    const attached = send(event, Number(host), target)
    if (attached === undefined) continue
    consoles++
    for (const pid of attached) asked.add(pid)
  }
  leaving = setTimeout(leave, lingering)
  process.stdout.write(`${id} ${consoles}\n`)
})
lines.on("close", () => process.exit(0))
