/**
 * A supervised stack: a web server, a worker that depends on it, and a flaky job. Things go wrong, and are put right.
 *
 * Exit code 0 means that nothing is left.
 */
import { NodeRuntime } from "@effect/platform-node"
import { ProcessPlatform, type Supervisor } from "@treeline/core"
import type { ProcessInfo } from "@treeline/core/ProcessIdentity"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Fiber, References, Stream } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Screen from "./Screen.ts"
import * as Stack from "./Stack.ts"

/** A port that nobody uses. */
const freePort = Effect.callback<number>((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "treeline-stack-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Prints what happens until the supervisor has ended; every process that was up, as the process table had it. */
const watch = Effect.fn("watch")(function*(supervisor: Supervisor.Supervisor) {
  const platform = yield* ProcessPlatform.ProcessPlatform
  const seen: Array<ProcessInfo> = []
  yield* supervisor.events.pipe(
    Stream.takeUntil((event) => event._tag === "Ended"),
    Stream.runForEach((event) =>
      Effect.gen(function*() {
        Screen.event(event)
        if (event._tag !== "Child" || event.event.change._tag !== "State") return
        const { to } = event.event.change
        if (to._tag !== "Running" || to.pid === null) return
        const info = (yield* platform.processes).find(({ pid }) => pid === to.pid)
        if (info !== undefined) seen.push(info)
      })
    )
  )
  return seen
})

/** Waits until an incarnation of a child is ready, or the child is done. */
const settled = Effect.fn("settled")(function*(supervisor: Supervisor.Supervisor, name: string, wanted: number) {
  const child = yield* supervisor.child(name)
  yield* child.events.pipe(
    Stream.takeUntil(({ change, incarnation }) =>
      incarnation >= wanted && change._tag === "State" &&
      (change.to._tag === "Stopped" || (name !== "job" && change.to._tag === "Ready"))
    ),
    Stream.runDrain
  )
  // A moment for the reader.
  yield* Effect.sleep("200 millis")
})

const example = Effect.gen(function*() {
  const platform = yield* ProcessPlatform.ProcessPlatform
  const port = yield* freePort
  const file = join(yield* folder, "runs")
  Screen.begin()
  Screen.heading("the stack starts; the job fails twice")
  const supervisor = yield* Stack.start(port, file)
  const watching = yield* Effect.forkChild(watch(supervisor), { startImmediately: true })
  yield* settled(supervisor, "job", 3)

  Screen.heading("the web server is killed; the worker goes with it")
  Screen.action("SIGKILL to web")
  yield* (yield* supervisor.child("web")).signal("SIGKILL")
  yield* settled(supervisor, "worker", 2)

  Screen.heading("the web server falls ill: it runs, and answers 503")
  Screen.action("GET /spoil")
  yield* Stack.spoil(port)
  yield* settled(supervisor, "worker", 3)

  Screen.heading("the stack is stopped: who depends on others first")
  yield* supervisor.stopAll
  const seen = yield* Fiber.join(watching)
  const table = yield* platform.processes
  const alive = seen.filter(({ pid, startTime }) =>
    table.some((info) => info.alive && info.pid === pid && info.startTime === startTime)
  )
  Screen.heading("and then")
  Screen.left(alive.length, seen.length)
  if (alive.length > 0) process.exitCode = 1
})

NodeRuntime.runMain(
  example.pipe(
    Effect.scoped,
    Effect.provide(PosixPlatform.layer),
    // What the supervisor logs is on the screen in other words.
    Effect.provideService(References.MinimumLogLevel, "Warn")
  )
)
