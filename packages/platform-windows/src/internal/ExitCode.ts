/** Exit codes of Windows as values. */
import * as ExitStatus from "@treeline/core/ExitStatus"

/**
 * What a process ends with that this library ends. Bit 29 marks codes of applications, so no status of the system is the
 * same; `TL` and 9, the number of SIGKILL.
 */
export const killed = 0xe054_4c09

/**
 * The status of an exit code, which Windows gives without its sign. `killedByHost`: this host has ended the process, or
 * its tree, before.
 *
 * - our own code after a kill: `Signaled` by SIGKILL, as on any other system
 * - an NTSTATUS of severity "error" (0xC... by the system, 0xE... by applications such as .NET): `Terminated`. Bit 28 is
 *   always clear in one, so -1 (0xFFFFFFFF) is an exit code
 * - everything else: `Exited`
 */
export const toStatus = (code: number, killedByHost: boolean): ExitStatus.ExitStatus => {
  if (killedByHost && code === killed) return ExitStatus.signaled("SIGKILL")
  const top = code >>> 28
  return top === 0xc || top === 0xe
    ? ExitStatus.ExitStatus.cases.Terminated.make({ ntstatus: code })
    : ExitStatus.exited(code)
}
