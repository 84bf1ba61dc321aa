/**
 * Supervised children as a test sees them: what they tell, and waits for it.
 */
import type { Child, Supervisor } from "@treeline/core"
import { ChildEnd, Restart, ShutdownPlan } from "@treeline/core"
import { Effect, Option, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as net from "node:net"
import { fixture } from "./Host.ts"

/** A child that has been started. */
export type Started = Child.Child

type ChildEvent = Stream.Success<Child.Child["events"]>

/** A shell command; `args` are `$1` and so on. */
export const sh = (script: string, ...args: ReadonlyArray<string>) =>
  ChildProcess.make("sh", ["-c", script, "sh", ...args])

/** test/fixtures/service.mjs. */
export const service = (port: number, answers: string) =>
  ChildProcess.make(process.execPath, [fixture("service.mjs"), String(port), answers])

/** A short wait before each restart, always the same. */
export const soon = (options: { readonly times?: number; readonly ms?: number } = {}) =>
  Restart.exponential({ first: options.ms ?? 10, max: options.ms ?? 10, jitter: 0, times: options.times })

/** TERM, 200 ms, kill. */
export const brief = ShutdownPlan.make([ShutdownPlan.signal("SIGTERM", { within: "200 millis" })])

/** An event in a word or two: `Ready`, `BackingOff`, `Ended killed by SIGKILL`, `Health degraded`. */
export const nameOf = ({ change }: ChildEvent): string => {
  switch (change._tag) {
    case "State":
      return change.to._tag
    case "Ended":
      return `Ended ${change.end === null ? "as asked" : ChildEnd.describe(change.end)}`
    case "Health":
      return `Health ${change.health}`
    default:
      return change._tag
  }
}

/** Waits for the first event, past ones included, with this name, of this incarnation. */
export const event = (child: Child.Child, name: string, incarnation?: number): Effect.Effect<ChildEvent> =>
  child.events.pipe(
    Stream.filter((event) =>
      nameOf(event).startsWith(name) && (incarnation === undefined || event.incarnation === incarnation)
    ),
    Stream.runHead,
    Effect.map(Option.getOrThrow)
  )

/** Waits until an incarnation is ready; its pid. */
export const pidOf = (child: Child.Child, incarnation: number): Effect.Effect<number> =>
  Effect.map(event(child, "Ready", incarnation), ({ change }) => {
    if (change._tag === "State" && change.to._tag === "Ready" && change.to.pid !== null) return change.to.pid
    throw new Error("no pid")
  })

/**
 * The events of a child up to the first one with this name (of incarnation `in`), those of incarnation `of` where it is
 * given. A child remembers 32 events, so it is for children that have had no more.
 */
export const path = (
  child: Child.Child,
  last: string,
  { in: within, of }: { readonly in?: number; readonly of?: number } = {}
): Effect.Effect<ReadonlyArray<ChildEvent>> =>
  child.events.pipe(
    Stream.takeUntil((event) =>
      nameOf(event).startsWith(last) && (within === undefined || event.incarnation === within)
    ),
    Stream.filter((event) => of === undefined || event.incarnation === of),
    Stream.runCollect
  )

/** Their names; the steps of a teardown are one `Stopping`. */
export const names = (...args: Parameters<typeof path>): Effect.Effect<ReadonlyArray<string>> =>
  Effect.map(
    path(...args),
    (events) => events.map(nameOf).filter((name, index, all) => name !== "Stopping" || all[index - 1] !== "Stopping")
  )

/** The child of a supervisor. */
export const childOf = (supervisor: Supervisor.Supervisor, id: string): Effect.Effect<Child.Child> =>
  Effect.orDie(supervisor.child(id))

/** A port of 127.0.0.1 that nobody uses. */
export const freePort: Effect.Effect<number> = Effect.callback((resume) => {
  const server = net.createServer()
  server.listen(0, "127.0.0.1", () => {
    const { port } = server.address() as net.AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** Sends a signal to a process of a test. */
export const kill = (pid: number, signal: NodeJS.Signals): Effect.Effect<void> =>
  Effect.sync(() => void process.kill(pid, signal))
