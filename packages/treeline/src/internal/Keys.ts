/**
 * What is typed into a terminal while `treeline up` draws on it. The terminal hands over every key as it is: its echo would
 * be in the middle of the picture.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as tty from "node:tty"

/** What a key means; all others mean nothing. */
export type Key = "interrupt" | "quit" | "suspend" | "enter"

/** Ctrl-C, Ctrl-\, Ctrl-Z, Enter (as termios(3) has them by default). */
const meanings: Readonly<Record<number, Key>> = {
  3: "interrupt",
  28: "quit",
  26: "suspend",
  10: "enter",
  13: "enter"
}

export const meaningsOf = (bytes: Uint8Array): ReadonlyArray<Key> => [...bytes].flatMap((byte) => meanings[byte] ?? [])

export interface Keyboard {
  readonly keys: Queue.Dequeue<Key>
  /** Takes the keys, or leaves them to the terminal. */
  readonly set: (taking: boolean) => Effect.Effect<void>
}

/** Keys that wait; what is typed beyond that is lost. */
const capacity = 64

/**
 * The keyboard of standard input, which is the terminal's until it is taken, and again when the scope has closed. None
 * where there is no terminal.
 */
export const make: Effect.Effect<Keyboard | undefined, never, Scope.Scope> = Effect.gen(function*() {
  if (!tty.isatty(0)) return undefined
  const keys = yield* Queue.dropping<Key>(capacity)
  const onData = (bytes: Buffer) => {
    for (const key of meaningsOf(bytes)) Queue.offerUnsafe(keys, key)
  }
  const input = new tty.ReadStream(0)
  // A terminal that has gone has no mode to be restored.
  input.on("error", () => {})
  const set = (taking: boolean) =>
    Effect.sync(() => {
      input.setRawMode(taking)
      input.off("data", onData)
      // Nobody reads in the background: that would stop the process (termios(3), SIGTTIN).
      if (taking) input.on("data", onData).resume()
      else input.pause()
    })
  yield* Effect.addFinalizer(() => Effect.andThen(set(false), Effect.sync(() => input.destroy())))
  return { keys, set }
})
