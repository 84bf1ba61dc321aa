/**
 * Where the process tree of a child lives that is to go on when this process ends: in a process of its own, which is
 * found again by the next one. See `Kept` for how, and `NodeKeeper` of `@treeline/platform-node` for what does it.
 */
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as ChildProcess from "effect/process/ChildProcess"
import type * as Scope from "effect/Scope"
import type { ClaimUndecided, DetachUnavailable, KeeperFailed, StateFolderError } from "../Errors.ts"
import type { LaunchFailure, LaunchOptions } from "../ProcessPlatform.ts"
import type { ProcessTree } from "../ProcessTree.ts"
import type { Kept } from "./Kept.ts"

/** Why a kept tree could not be found or launched. */
export type Failure = LaunchFailure | DetachUnavailable | KeeperFailed | ClaimUndecided | StateFolderError

/** A tree, and what an earlier process knew of it. */
export interface KeptTree {
  readonly tree: ProcessTree
  /** An earlier process has seen it ready. */
  readonly wasReady: boolean
  /** Tells that it is ready, for the next one. */
  readonly ready: Effect.Effect<void>
}

/** Keeps one service. Its trees end with their scope, unless they are left. */
export interface Keeper {
  /**
   * The tree that lives already and was launched as it is wanted now. One that was launched otherwise is ended, so that
   * there are never two.
   */
  readonly find: (
    command: ChildProcess.StandardCommand,
    options: LaunchOptions
  ) => Effect.Effect<Option.Option<KeptTree>, Failure, Scope.Scope>
  /** Launches it where there is none. */
  readonly launch: (
    command: ChildProcess.StandardCommand,
    options: LaunchOptions
  ) => Effect.Effect<KeptTree, Failure, Scope.Scope>
  /** Whether trees are left from now on: the end of their scope does not end them. */
  readonly leaving: () => boolean
}

/** All services that are kept in one state folder. */
export interface Keepers {
  readonly keeper: (service: string) => Keeper
  /** For a service that is not kept: what was kept of it is ended before it is launched in this process. */
  readonly unkept: (service: string) => Keeper
  /** Those that live now. */
  readonly kept: Effect.Effect<ReadonlyArray<Kept>, StateFolderError>
  /**
   * Ends the kept services that `which` is true of, and removes what dead ones have left; the names of those that were
   * ended. For services that nobody wants any more.
   */
  readonly end: (
    which: (service: string) => boolean
  ) => Effect.Effect<ReadonlyArray<string>, KeeperFailed | ClaimUndecided | StateFolderError>
  /** From now on trees are left. */
  readonly leave: Effect.Effect<void>
  /** Takes `leave` back. */
  readonly stay: Effect.Effect<void>
}
