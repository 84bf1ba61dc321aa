/**
 * The folder in which a daemon keeps what outlives a moment: who runs, and who is at work on it. A few small files, of
 * which every operation is whole or not done, however its process ends.
 */
import type * as Effect from "effect/Effect"
import type { StateFolderError } from "../Errors.ts"

/** Names are relative to the folder, with `/` between them. */
export interface StateFolder {
  /** Where it is, for people. */
  readonly path: string
  /** Makes a folder, and the state folder itself if need be, for its user only; one that is there is left as it is. */
  readonly makeFolder: (name: string) => Effect.Effect<void, StateFolderError>
  /** Writes a new file for its user only; it is on the disk when this is done. */
  readonly write: (name: string, text: string) => Effect.Effect<void, StateFolderError>
  /** A file over a file, in one step; it is on the disk when this is done, where the system can say so. */
  readonly replace: (from: string, to: string) => Effect.Effect<void, StateFolderError>
  /**
   * A folder to a name where there is none, in one step; `false` when there is something. An empty folder may be replaced,
   * as rename(2) does on POSIX systems.
   */
  readonly moveFolder: (from: string, to: string) => Effect.Effect<boolean, StateFolderError>
  /** What is in a folder; nothing when it is not there. */
  readonly list: (name: string) => Effect.Effect<ReadonlyArray<string>, StateFolderError>
  /** The text of a file of at most 64 KiB; undefined when it is not there. */
  readonly read: (name: string) => Effect.Effect<string | undefined, StateFolderError>
  /** One that is not there is no failure. */
  readonly removeFile: (name: string) => Effect.Effect<void, StateFolderError>
  /** One that is not there, or not empty, is left as it is. */
  readonly removeEmptyFolder: (name: string) => Effect.Effect<void, StateFolderError>
}
