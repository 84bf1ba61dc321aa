/** A state folder whose process is killed by SIGKILL at one of its changes. */
import type { StateFolder } from "@treeline/core/daemon/StateFolder"
import * as Effect from "effect/Effect"

/** At the change with number `at`, from 1: after it, or when half of the text of a file is written (no other has halves). */
export interface Death {
  readonly at: number
  readonly when: "After" | "Half"
}

/** As one word, for a command line. */
export const encode = ({ at, when }: Death): string => `dies-${at}-${when}`

export const decode = (word: string): Death | undefined => {
  const match = /^dies-(\d+)-(After|Half)$/.exec(word)
  return match === null ? undefined : { at: Number(match[1]), when: match[2] as Death["when"] }
}

// The signal is there before kill(2) returns to this thread.
const die = Effect.sync(() => process.kill(process.pid, "SIGKILL"))

/** Looks are no changes. */
export const make = (folder: StateFolder, death: Death | undefined): StateFolder => {
  if (death === undefined) return folder
  let count = 0
  const change = <A, E>(whole: Effect.Effect<A, E>, half: Effect.Effect<unknown, E> = whole): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      if (++count !== death.at) return whole
      return death.when === "After" ? Effect.tap(whole, () => die) : Effect.andThen(half, Effect.andThen(die, whole))
    })
  return {
    ...folder,
    makeFolder: (name) => change(folder.makeFolder(name)),
    write: (name, text) => change(folder.write(name, text), folder.write(name, text.slice(0, text.length / 2))),
    replace: (from, to) => change(folder.replace(from, to)),
    moveFolder: (from, to) => change(folder.moveFolder(from, to)),
    removeFile: (name) => change(folder.removeFile(name)),
    removeEmptyFolder: (name) => change(folder.removeEmptyFolder(name))
  }
}
