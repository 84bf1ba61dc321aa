/** A `ServiceHost` without processes, which tells what a test says: for what lies in front of a host. */
import { type HostStatus, type LogLine, type Logs, type ServiceHost } from "@treeline/core/daemon"
import { UnknownChild } from "@treeline/core/Errors"
import { Effect, Stream } from "effect"
import { Broadcast } from "../../packages/core/src/internal/Broadcast.ts"

const serviceOf = (name: string, groups: ReadonlyArray<string>): HostStatus.ServiceStatus => ({
  name,
  groups,
  child: {
    id: name,
    state: { _tag: "Stopped", end: null },
    health: "unknown",
    paused: false,
    incarnation: 1,
    restarts: 0,
    lastEnd: null,
    children: []
  },
  since: 1,
  readySince: null,
  usage: null
})

export const line = (order: number, text: string, child = "web"): LogLine.Line => ({
  _tag: "Line",
  child,
  incarnation: 1,
  stream: "stdout",
  at: order,
  order,
  text
})

/** An event of which only the time matters. */
export const paused = (at: number): HostStatus.HostEvent => ({ _tag: "Paused", at })

export const done: HostStatus.Progress = { _tag: "Done", at: 1, outcomes: [], report: null }

/** `calls` is what it was asked to do, in short. */
export const make = (parts: Partial<ServiceHost.ServiceHost> = {}) => {
  const events = new Broadcast<HostStatus.HostEvent>(256)
  const calls: Array<string> = []
  let snapshots = 0
  const names = new Set(["db", "web", "worker"])
  const known = (asked: ReadonlyArray<string>) => {
    const child = asked.find((name) => !names.has(name))
    return child === undefined ? Effect.void : Effect.fail(new UnknownChild({ child }))
  }
  const operation = (name: string) => (asked: ReadonlyArray<string>) =>
    Stream.unwrap(Effect.as(
      Effect.tap(known(asked), () => Effect.sync(() => calls.push([name, ...asked].join(" ")))),
      Stream.make(done)
    ))
  const noLogs: Logs.Logs = {
    add: () => Effect.void,
    read: () => Effect.succeed([]),
    follow: () => Stream.never,
    status: Effect.succeed([]),
    file: (child) => Effect.fail(new UnknownChild({ child })),
    reopen: Effect.void,
    setRules: () => Effect.void,
    awaitClosed: () => Effect.void,
    waiting: Effect.succeed(0)
  }
  const host: ServiceHost.ServiceHost = {
    status: Effect.sync(() => ({
      at: ++snapshots,
      host: { pid: 7, version: "0.1.0", startedAt: 5, file: null, reloadedAt: 5, paused: false },
      phase: "running" as const,
      restartsInWindow: 0,
      services: [serviceOf("db", []), serviceOf("web", ["front"]), serviceOf("worker", ["front"])],
      pools: [],
      logs: [],
      blocking: []
    })),
    recent: Effect.sync(() => events.recent),
    events: events.stream(1024),
    logs: noLogs,
    pools: Effect.succeed(new Map()),
    start: operation("start"),
    stop: operation("stop"),
    restart: operation("restart"),
    pause: (asked) => Effect.tap(known(asked), () => Effect.sync(() => calls.push(["pause", ...asked].join(" ")))),
    resume: (asked) => Effect.tap(known(asked), () => Effect.sync(() => calls.push(["resume", ...asked].join(" ")))),
    signal: (name, signal, target) =>
      Effect.as(
        Effect.tap(known([name]), () => Effect.sync(() => calls.push(`signal ${name} ${signal} ${target}`))),
        { delivered: 1, denied: [] }
      ),
    reload: Stream.unwrap(Effect.sync(() => {
      calls.push("reload")
      return Stream.make(done)
    })),
    reopenLogs: Effect.sync(() => void calls.push("reopenLogs")),
    shutdown: ({ force = false } = {}) =>
      Stream.unwrap(Effect.sync(() => {
        calls.push(`shutdown ${force}`)
        return Stream.make(done)
      })),
    awaitEnd: Effect.never,
    ...parts
  }
  return { host, calls, noLogs, emit: (event: HostStatus.HostEvent) => events.publish(event), end: () => events.end() }
}
