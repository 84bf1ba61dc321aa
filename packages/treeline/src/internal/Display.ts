/**
 * Where `treeline up` tells what happens: lines with a table below them on a terminal, or lines only. Nobody else writes to
 * the terminal meanwhile, and it is given back however this ends.
 */
import type { HostStatus } from "@treeline/core/daemon/HostStatus"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as fs from "node:fs"
import * as Console from "./Console.ts"
import * as Processor from "./Processor.ts"
import * as Screen from "./Screen.ts"

export interface Options {
  readonly fd: 1 | 2
  /** Whether a table is drawn; only on the terminal of standard output. */
  readonly table: boolean
  readonly status: Effect.Effect<HostStatus>
  /** What Ctrl-C would do now. */
  readonly interrupt: () => Screen.Interrupt
}

export interface Display {
  /** Prints a line above the table. Waits while the terminal is slower than what comes. */
  readonly print: (line: string) => Effect.Effect<void>
  /** Something has changed. */
  readonly touch: Effect.Effect<void>
  /** Gives the terminal to somebody else. */
  readonly leave: Effect.Effect<void>
  /** Takes it back; without `table` only lines are written from now on. */
  readonly enter: (table: boolean) => Effect.Effect<void>
}

/** Lines that wait for a slow terminal. */
const capacity = 2048

/** Between two pictures: at least; while something changes; while nothing does. In ms. */
const pauses = { least: 80, busy: 250, quiet: 1000 }

/** How long the end waits for a terminal that takes nothing, in ms. */
const flushWithin = 3000

const encoder = new TextEncoder()

/** The window; a terminal that does not know its size says 0. */
const windowOf = (): Pick<Screen.View, "columns" | "rows"> => ({
  columns: process.stdout.columns || 80,
  rows: process.stdout.rows || 24
})

/** Whether the terminal shows more than ASCII (locale(7)). */
export const isUnicode = (environment: Readonly<Record<string, string | undefined>>): boolean =>
  process.platform === "win32" ||
  /utf-?8/i.test(environment["LC_ALL"] || environment["LC_CTYPE"] || environment["LANG"] || "")

const isQuiet = ({ phase, services }: HostStatus): boolean =>
  phase === "running" && services.every(({ child: { state } }) => /^(?:Ready|Stopped|Failed)$/.test(state._tag))

/** In a fiber of its own, because a write can't be interrupted: whoever waits for it does so for `flushWithin` at most. */
const soon = (effect: Effect.Effect<unknown>): Effect.Effect<void> =>
  Effect.flatMap(
    Effect.forkDetach(effect, { startImmediately: true }),
    (fiber) => Effect.asVoid(Effect.timeoutOption(Effect.interruptible(Fiber.await(fiber)), flushWithin))
  )

/**
 * The display in this scope; what was printed is on the terminal when the scope has closed, unless that takes nothing for
 * `flushWithin`.
 */
export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<Display, never, Scope.Scope> {
  const { fd } = options
  const colors = Console.canColor(fd)
  const unicode = isUnicode(process.env)
  const queue = yield* Queue.bounded<string>(capacity)
  const touched = yield* Latch.make(false)
  const write = (text: string) =>
    text === "" ? Effect.void : Effect.promise(() => Console.writeAll(fd, encoder.encode(text)))
  /** One at a time writes. */
  const writing = yield* Semaphore.make(1)
  const alone = <A>(effect: Effect.Effect<A>) => Effect.uninterruptible(Semaphore.withPermits(writing, 1)(effect))
  let table = options.table
  let left = false
  let drawn = Screen.nothingDrawn
  let panel: ReadonlyArray<string> = []
  let samples: Processor.Samples = new Map()
  let pause = pauses.quiet

  /** Prints what waits, and draws the table if it has changed. */
  const draw = alone(Effect.gen(function*() {
    if (left) return
    const lines = yield* Queue.clear(queue)
    if (!table) return yield* write(lines.map((line) => `${line}\n`).join(""))
    const status = yield* options.status
    pause = isQuiet(status) ? pauses.quiet : pauses.busy
    samples = Processor.sample(samples, status)
    const view: Screen.View = { ...windowOf(), colors, unicode }
    const next = Screen.panel(status, view, { interrupt: options.interrupt(), processor: Processor.column(samples) })
    if (lines.length === 0 && next.join("\n") === panel.join("\n")) return
    const frame = Screen.frame(drawn, lines, next, view.columns)
    panel = next
    drawn = frame.drawn
    yield* write(frame.text)
  }))

  /** Takes the table away; the cursor is where the next line goes. */
  const clear = alone(Effect.suspend(() => {
    const text = table ? Screen.farewell(drawn, windowOf().columns) : ""
    drawn = Screen.nothingDrawn
    panel = []
    return write(text)
  }))

  const restore = () => {
    try {
      fs.writeSync(fd, Screen.showCursor)
    } catch {
      // The terminal has gone.
    }
  }
  const touch = () => touched.openUnsafe()
  if (table) {
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        process.once("exit", restore)
        process.stdout.on("resize", touch)
      }),
      () =>
        Effect.sync(() => {
          process.off("exit", restore)
          process.stdout.off("resize", touch)
        })
    )
  }
  const loop = yield* Effect.forever(Effect.gen(function*() {
    yield* draw
    yield* Effect.sleep(pauses.least)
    const more = Effect.raceFirst(Effect.asVoid(Queue.peek(queue)), touched.await)
    yield* table ? Effect.timeoutOption(more, pause) : more
    touched.closeUnsafe()
  })).pipe(Effect.forkDetach)
  yield* Effect.addFinalizer(() => soon(Fiber.interrupt(loop).pipe(Effect.andThen(draw), Effect.andThen(clear))))
  return {
    print: (line) => Effect.asVoid(Queue.offer(queue, line)),
    touch: Effect.sync(touch),
    leave: Effect.suspend(() => {
      left = true
      return soon(clear)
    }),
    enter: (again) =>
      Effect.sync(() => {
        left = false
        table = options.table && again
        touch()
      })
  }
})
