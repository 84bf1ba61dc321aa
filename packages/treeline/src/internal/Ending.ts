/** How this process ends, so that its caller learns how the program ended. */
import type { ExitStatus } from "@treeline/core/ExitStatus"
import * as os from "node:os"
import * as Console from "./Console.ts"

export type Ending = { readonly _tag: "Code"; readonly code: number } | {
  readonly _tag: "Signal"
  readonly signal: NodeJS.Signals
}

export const code = (code: number): Ending => ({ _tag: "Code", code })

/** Of this signal, so that a shell stops its script. */
export const signal = (signal: NodeJS.Signals): Ending => ({ _tag: "Signal", signal })

/**
 * Signals that a caller acts on: a shell stops its script when a command died of SIGINT, but not when it returned 130.
 * Others would dump core or can't be had back from Node.
 */
const passedOn: ReadonlySet<string> = new Set<NodeJS.Signals>(["SIGHUP", "SIGINT", "SIGTERM"])

/** The code, or 128 and the number that the signal has on this system. */
export const shellCode = (status: ExitStatus): number => {
  switch (status._tag) {
    case "Exited":
      return status.code & 0xff
    case "Signaled":
      return 128 + (os.constants.signals[status.signal as NodeJS.Signals] ?? 0)
    case "Terminated":
    case "Unknown":
      return 255
  }
}

/** Ends as the program did: with its code, or of the same signal. */
export const like = (status: ExitStatus): Ending =>
  status._tag === "Signaled" && passedOn.has(status.signal)
    ? { _tag: "Signal", signal: status.signal as NodeJS.Signals }
    : code(shellCode(status))

/** What a shell makes of it. */
export const shellCodeOf = (ending: Ending): number =>
  ending._tag === "Code" ? ending.code : 128 + os.constants.signals[ending.signal]

/**
 * Ends with a code, also while a thread hangs in a write that nobody reads: `process.exit` would wait for that thread. One
 * that is replaced by another program has none (execve(2)). Windows ends the threads by itself.
 */
const exit = (code: number): never => {
  if (Console.isWriting() && process.platform !== "win32" && process.execve !== undefined) {
    const { NODE_OPTIONS: _, ...environment } = process.env
    process.execve(process.execPath, [process.execPath, "--eval", `process.exit(${code})`], environment)
  }
  process.exit(code)
}

/** Ends this process now. */
export const end = (ending: Ending): never => {
  if (ending._tag === "Code") return exit(ending.code)
  process.removeAllListeners(ending.signal)
  process.kill(process.pid, ending.signal)
  // The first process of a container is not ended by its own signals (pid_namespaces(7)).
  return exit(shellCodeOf(ending))
}
