/** What the kernel itself can hold a tree in. A seal is added to the other means of finding a tree, not put in their place. */
import type { Limits } from "@treeline/core/Limits"
import type { Program } from "./Launcher.ts"

/** The seal of one tree. */
export interface Seal {
  /** The program as it has to be started to be inside from its first instruction on. */
  readonly wrap: (program: Program) => Program
  /** Whether somebody is or was inside, where a launch that has been accepted may still fail to get in. */
  readonly entered?: (() => boolean) | undefined
  /** Host pids of everything inside. */
  readonly pids: () => ReadonlyArray<number>
  /** Whether a living process is inside. */
  readonly populated: () => boolean
  readonly kill: () => void
  /** Stops everything inside or lets it go on; where the kernel can't, there is no such member. */
  readonly setFrozen?: ((frozen: boolean) => void) | undefined
  /** Whether everything inside stands still. */
  readonly isFrozen?: (() => boolean) | undefined
  /** Memory (bytes) and processor time (ms) of everything that was ever inside, where the kernel counts it. */
  readonly usage: () => { readonly memory: number | undefined; readonly cpu: number | undefined }
  /** Gives back what the kernel holds for the tree, beside everything else. */
  readonly remove: () => void
}

/** Why there is no seal. */
export class SealProblem {
  readonly detail: string
  constructor(detail: string) {
    this.detail = detail
  }
}

/** Makes seals. */
export interface Sealer {
  /** For people: what seals. */
  readonly name: string
  readonly seal: (tree: number, limits: Limits) => Seal | SealProblem
  /** The folder of the host's group, which the guardian removes when the host has died. */
  readonly folder: string | undefined
  /** Resolves when what can be removed is, in bounded time; what still lives is left. */
  readonly remove: () => Promise<void>
}
