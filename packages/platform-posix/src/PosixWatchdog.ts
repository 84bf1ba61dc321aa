/**
 * `Watchdog` for Linux, macOS and other POSIX systems: a small Node process beside the host.
 */
import { WatchdogUnavailable } from "@treeline/core/cluster/Errors"
import { type Running, Watchdog } from "@treeline/core/cluster/Watchdog"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as child_process from "node:child_process"
import type { Readable, Writable } from "node:stream"
import { fileURLToPath } from "node:url"
import * as ProcTable from "./internal/ProcTable.ts"

/** The program beside this module: TypeScript in the sources, JavaScript when published. */
const program = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "./watchdog.ts" : "./watchdog.js", import.meta.url)
)

/** How long a watchdog may take to start, and the pause before another takes the place of one that has died, in ms. */
const startWithin = 10_000
const restartPause = 100

/** A process that kills this one at a deadline, started again when it dies. */
class Dog implements Running {
  private child: child_process.ChildProcess | undefined = undefined
  private restart: NodeJS.Timeout | undefined = undefined
  private deadline: number | undefined = undefined
  private closed = false
  private readonly started: (problem?: string) => void

  constructor(started: (problem?: string) => void) {
    this.started = started
    this.start()
  }

  private start(): void {
    const host = ProcTable.ownStart()
    let child: child_process.ChildProcessByStdio<Writable, Readable, null>
    try {
      // A session of its own: what stops or ends the host's group leaves it alone. Little memory: it does nothing.
      child = child_process.spawn(
        process.execPath,
        ["--max-semi-space-size=1", "--max-old-space-size=16", program, String(process.pid), String(host)],
        { stdio: ["pipe", "pipe", "inherit"], cwd: "/", detached: true, env: { PATH: process.env["PATH"] ?? "" } }
      )
    } catch (error) {
      return this.startLater(String(error))
    }
    // Without a descriptor left there is no pid, and there are not even streams.
    if (child.pid === undefined) {
      child.once("error", (error) => this.startLater(error.message))
      return
    }
    this.child = child
    child.on("error", () => {}) // a failed kill
    child.on("close", () => {
      if (this.child !== child) return
      this.child = undefined
      this.startLater("it has ended")
    })
    child.stdin.on("error", () => {}) // it has died; `close` follows
    child.stdout.once("data", () => this.started())
    child.unref()
    for (const stream of [child.stdin, child.stdout]) (stream as unknown as { unref: () => void }).unref()
    this.tell()
  }

  private startLater(problem: string): void {
    this.started(problem)
    if (!this.closed) this.restart = setTimeout(() => this.start(), restartPause).unref()
  }

  /** The line is in the pipe when this returns, and is read even when the host is stopped in the next instant. */
  private tell(): void {
    this.child?.stdin?.write(`${this.deadline ?? "-"}\n`)
  }

  readonly set = (deadline: number | undefined): Effect.Effect<void> =>
    Effect.sync(() => {
      this.deadline = deadline
      this.tell()
    })

  close(): void {
    this.closed = true
    clearTimeout(this.restart)
    this.child?.stdin?.end()
    this.child = undefined
  }
}

const start: Effect.Effect<Running, WatchdogUnavailable, Scope.Scope> = Effect.gen(function*() {
  const started = yield* Deferred.make<void, WatchdogUnavailable>()
  const dog = yield* Effect.acquireRelease(
    Effect.sync(() =>
      new Dog((problem) =>
        void Deferred.doneUnsafe(
          started,
          problem === undefined ? Effect.void : Effect.fail(new WatchdogUnavailable({ reason: problem }))
        )
      )
    ),
    (dog) => Effect.sync(() => dog.close())
  )
  yield* Deferred.await(started).pipe(Effect.timeoutOrElse({
    duration: startWithin,
    orElse: () => Effect.fail(new WatchdogUnavailable({ reason: `it did not start within ${startWithin} ms` }))
  }))
  return dog
})

/**
 * A watchdog costs a host one more Node process, with some 10 MB of memory of its own. When it dies, another one takes its
 * place; between the two the host is without.
 */
export const layer: Layer.Layer<Watchdog> = Layer.succeed(Watchdog, { start })
