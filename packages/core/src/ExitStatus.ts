/**
 * How a process ended, as a value.
 *
 * A program that returns 143 and one that SIGTERM killed are different things, so a status is never a string and never a
 * number that might be a signal (`wait(2)`: WIFEXITED and WIFSIGNALED exclude each other).
 */
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Schema from "effect/Schema"

/**
 * `Exited{code}`: the program returned. `Signaled{signal, coreDumped}`: a signal ended it; `coreDumped` is absent where
 * the system does not tell. `Terminated{ntstatus}`: Windows ended it with an NTSTATUS. `Unknown`: the end was seen, its
 * cause was not (a process that this host did not start).
 *
 * @example
 * ```ts
 * import { ExitStatus } from "@treeline/core"
 * import { strictEqual } from "node:assert"
 *
 * const text = ExitStatus.match(ExitStatus.signaled("SIGKILL"), {
 *   Exited: ({ code }) => `code ${code}`,
 *   Signaled: ({ signal }) => `killed by ${signal}`,
 *   Terminated: ({ ntstatus }) => `terminated ${ntstatus}`,
 *   Unknown: () => "gone"
 * })
 * strictEqual(text, "killed by SIGKILL")
 * ```
 */
export const ExitStatus = Schema.TaggedUnion({
  Exited: { code: Schema.Int },
  Signaled: { signal: Schema.String, coreDumped: Schema.optionalKey(Schema.Boolean) },
  Terminated: { ntstatus: Schema.Int },
  Unknown: {}
})
export type ExitStatus = typeof ExitStatus.Type

/** Folds a status, one function for each case. */
export const match: typeof ExitStatus.match = ExitStatus.match

/** The program returned `code`. */
export const exited = (code: number): ExitStatus => ({ _tag: "Exited", code })

/** `signal` ended the process; `coreDumped` only where the system told. */
export const signaled = (signal: ChildProcess.Signal | (string & {}), coreDumped?: boolean): ExitStatus =>
  coreDumped === undefined ? { _tag: "Signaled", signal } : { _tag: "Signaled", signal, coreDumped }

/** The end was seen, its cause was not. */
export const unknown: ExitStatus = { _tag: "Unknown" }

/** True for `Exited{code: 0}` only. */
export const isSuccess = (self: ExitStatus): boolean => self._tag === "Exited" && self.code === 0

/** True when `signal` ended the process, whether or not a core was dumped. */
export const isSignaledBy = (self: ExitStatus, signal: ChildProcess.Signal | (string & {})): boolean =>
  self._tag === "Signaled" && self.signal === signal

/** A short English description: `exited with code 3`, `killed by SIGSEGV (core dumped)`. */
export const describe = (self: ExitStatus): string =>
  ExitStatus.match(self, {
    Exited: ({ code }) => `exited with code ${code}`,
    Signaled: ({ coreDumped, signal }) => `killed by ${signal}${coreDumped === true ? " (core dumped)" : ""}`,
    Terminated: ({ ntstatus }) => `terminated with status 0x${(ntstatus >>> 0).toString(16).padStart(8, "0")}`,
    Unknown: () => "ended in an unknown way"
  })

const signalNumbers: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGILL: 4,
  SIGTRAP: 5,
  SIGABRT: 6,
  SIGFPE: 8,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGALRM: 14,
  SIGTERM: 15
}

/**
 * The status as a shell reports it: the code, or 128 + signal number (POSIX XCU 2.8.2). Only the signals whose numbers
 * every POSIX system shares are known here; another one gives 128, an unknown end 255.
 */
export const toShellCode = (self: ExitStatus): number =>
  ExitStatus.match(self, {
    Exited: ({ code }) => code & 0xff,
    Signaled: ({ signal }) => 128 + (signalNumbers[signal] ?? 0),
    Terminated: () => 255,
    Unknown: () => 255
  })
