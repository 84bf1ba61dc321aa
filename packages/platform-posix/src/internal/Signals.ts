/** kill(2), guarded: never to pid 0 or 1, never to the host or its group. Part of the sweeper, so it imports only Node. */
import * as ProcTable from "./ProcTable.ts"

export type Outcome = "sent" | "gone" | "denied" | "refused"

/**
 * Whether a pid may be signalled at all: never 0 (the caller's own group), 1 (init), a negative or fractional number, nor
 * this process (`kill(2)`; peer cases 23 and 24).
 */
const isSignalable = (pid: number | undefined): pid is number =>
  pid !== undefined && Number.isSafeInteger(pid) && pid > 1 && pid !== process.pid

const kill = (pid: number, signal: NodeJS.Signals): Outcome => {
  try {
    process.kill(pid, signal)
    return "sent"
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    // A process that ended between the look and the signal is no error (peer case 35).
    return code === "ESRCH" ? "gone" : code === "EPERM" ? "denied" : "refused"
  }
}

/** Signals one process that was seen just now. */
export const sendTo = (pid: number | undefined, signal: NodeJS.Signals): Outcome =>
  isSignalable(pid) ? kill(pid, signal) : "refused"

/** Signals the group of a leader that is not the host's own group. */
export const sendToGroup = (group: number | undefined, signal: NodeJS.Signals): Outcome =>
  isSignalable(group) ? kill(-group, signal) : "refused"

/** Whether a process has this pid; zombies count, and so do those that may not be signalled. */
export const exists = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** Whether a group has members; zombies count, and so do those that may not be signalled. */
export const groupExists = (group: number): boolean => {
  try {
    process.kill(-group, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** Signals a process that was seen some time ago, after its start time was read again. */
export const sendVerified = (
  process_: { readonly pid: number; readonly start: number },
  signal: NodeJS.Signals
): Outcome => ProcTable.readStat(process_.pid)?.start === process_.start ? sendTo(process_.pid, signal) : "gone"
