/** The terminal of `treeline up`: what is printed and drawn there, what is typed, and that it is lent to others. */
import type { HostStatus } from "@treeline/core/daemon/HostStatus"
import type { Entry } from "@treeline/core/daemon/LogLine"
import * as Effect from "effect/Effect"
import type * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Console from "./Console.ts"
import * as Display from "./Display.ts"
import * as Keys from "./Keys.ts"
import * as Screen from "./Screen.ts"

export interface Options {
  /** Standard output, or standard error where something else is written to that. */
  readonly fd: 1 | 2
  /** Lines only, on a terminal too. */
  readonly plain: boolean
  /** The names that lines begin with. */
  readonly names: ReadonlyArray<string>
  readonly status: Effect.Effect<HostStatus>
  /** What Ctrl-C would do now. */
  readonly interrupt: () => Screen.Interrupt
}

export interface UpTerminal {
  /** A line of treeline's own; none for nothing. Waits while the terminal is slower than what comes. */
  readonly say: (text: string | undefined) => Effect.Effect<void>
  /** A line of a service. */
  readonly log: (entry: Entry) => Effect.Effect<void>
  readonly newLine: Effect.Effect<void>
  /** Something has changed. */
  readonly touch: Effect.Effect<void>
  /** Whether a table shows what is going on. */
  readonly hasTable: () => boolean
  /** What is typed; undefined where the terminal keeps its keys. */
  readonly keys: Queue.Dequeue<Keys.Key> | undefined
  /** Stops the whole job, as the terminal would do it at Ctrl-Z. The services go on. */
  readonly suspend: Effect.Effect<void>
  /** The job goes on, in the foreground or in the background. */
  readonly resume: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<UpTerminal, never, Scope.Scope> {
  const { fd, interrupt, names, plain, status } = options
  const terminal = Console.isTerminal(fd)
  const canDraw = fd === 1 && terminal && !plain && process.env["TERM"] !== "dumb"
  const colors = Console.canColor(fd)
  const prefix = Screen.prefixOf(names)
  const display = yield* Display.make({ fd, table: canDraw, status, interrupt })
  const keyboard = canDraw ? yield* Keys.make : undefined

  let table = false
  const enter = Effect.gen(function*() {
    table = canDraw && Console.isForeground()
    if (keyboard !== undefined && table) yield* keyboard.set(true)
    yield* display.enter(table)
  })
  yield* enter
  return {
    say: (text) => text === undefined ? Effect.void : display.print(Screen.ownLine(text, prefix, colors)),
    log: (entry) => display.print(Screen.logLine(entry, prefix, { colors, terminal })),
    newLine: display.print(""),
    touch: display.touch,
    hasTable: () => table,
    keys: keyboard?.keys,
    suspend: Effect.gen(function*() {
      yield* display.leave
      if (keyboard !== undefined) yield* keyboard.set(false)
      yield* Effect.sync(() => process.kill(0, "SIGTSTP"))
    }),
    resume: enter
  }
})
