/** How a process is started and its end is seen: the part in which the engines differ. */
import type { LaunchRequest, Pipe } from "@treeline/core/Engine"
import type { ExitStatus } from "@treeline/core/ExitStatus"
import type * as Effect from "effect/Effect"
import type { Environment } from "./Environment.ts"
import type * as Executable from "./Executable.ts"

/** A program that has been found, with everything it gets. */
export interface Program {
  /** The name it was called by, which it sees as its own. */
  readonly name: string
  /** The file, absolute. */
  readonly file: string
  readonly args: ReadonlyArray<string>
  readonly env: Environment
  readonly cwd: string | undefined
  readonly stdio: LaunchRequest["stdio"]
  readonly ownSession: boolean
  /** The digits of the tag; undefined where there is none. */
  readonly tag: string | undefined
}

export interface Launched {
  readonly pid: number
  readonly pipes: ReadonlyMap<number, Pipe>
  /**
   * Called once, when the leader has ended; `held` when it stays a zombie until `reap`, so that its pid, group and session
   * can't become a stranger's.
   */
  readonly onExit: (listener: (status: ExitStatus, held: boolean) => void) => void
  /** Whether the child keeps the event loop of the host alive. */
  readonly setReferenced: (referenced: boolean) => void
  /** The tree is empty: the leader's number may be given back to the system. */
  readonly reap: () => void
}

/** Why the system did not start a program; `code` is its errno name. */
export interface LaunchProblem {
  readonly code: string | undefined
}

export interface Launcher {
  /** Finds the program; as much is checked beforehand as the launcher can't tell afterwards. */
  readonly find: typeof Executable.resolve
  /** For people. */
  readonly name: string
  /** How the tag is set; undefined where it can't be. */
  readonly tagging: string | undefined
  /**
   * What was started is a plain value, so that it can be registered in the same turn of the event loop, before its end or
   * an orphan of it is seen. Why nothing was started may take a turn to know.
   */
  readonly launch: (program: Program) => Launched | Effect.Effect<never, LaunchProblem>
}
