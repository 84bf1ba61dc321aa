/** The commands for services that run: they ask the process that runs them, over its control socket. */
import type { Client } from "@treeline/core/daemon/ControlClient"
import type { HostStatus, Outcome, Progress } from "@treeline/core/daemon/HostStatus"
import type { Report } from "@treeline/core/daemon/Services"
import type { Target } from "@treeline/core/ShutdownPlan"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Reports from "../CommandReport.ts"
import * as Cells from "./Cells.ts"
import * as Connection from "./Connection.ts"
import * as Console from "./Console.ts"
import * as Display from "./Display.ts"
import * as Ending from "./Ending.ts"
import * as Screen from "./Screen.ts"
import * as Text from "./Text.ts"
import * as Words from "./Words.ts"

/** What all of them take. */
export interface Options extends Connection.Options {
  readonly json: boolean
}

const print = (text: string) => Effect.promise(() => Console.print(1, text))

/** Progress, and what is no part of the answer. */
const note = (text: string) => Effect.promise(() => Console.print(2, text))

const answer = <S extends Schema.Codec<unknown, unknown>>(schema: S, value: S["Type"]): Effect.Effect<void> =>
  print(Schema.encodeSync(Schema.fromJsonString(schema))(value))

/** What goes to stdout: as wide as the terminal, or as it needs to be. */
const view = (): Screen.View => ({
  columns: Console.isTerminal(1) ? process.stdout.columns || 80 : 200,
  rows: Number.POSITIVE_INFINITY,
  colors: Console.canColor(1),
  unicode: !Console.isTerminal(1) || Display.isUnicode(process.env)
})

// ---------------------------------------------------------------------------------------------------- status

/** A snapshot for people. */
export const render = (status: HostStatus, view: Screen.View): string => {
  const paint = Text.painter(view.colors)
  const { file, paused, pid, startedAt, version } = status.host
  const phase = status.phase === "running" ? "" : `, ${status.phase}`
  const head = `${file ?? "services"}: in process ${pid} for ${Words.duration(status.at - startedAt)}${phase}${
    paused ? ", paused" : ""
  } (treeline ${version})`
  const waits = status.blocking.length === 0
    ? []
    : [`waits for the end of ${Words.blocking(status.blocking, status.at)}`]
  return [
    paint(2, Cells.truncate(head, view.columns, view.unicode ? "…" : "~")),
    ...Screen.services(status, view),
    ...waits,
    ...Screen.remarks(status, view)
  ].join("\n")
}

export const status = Effect.fn("treeline status")(function*(options: Options) {
  const { client } = yield* Connection.open(options)
  const status = yield* client.status
  yield* options.json ? answer(Reports.Status, status) : print(render(status, view()))
  return Ending.code(0)
}, Effect.scoped)

// ---------------------------------------------------------------------------------------------------- operations

type Operation = Reports.Operation["operation"]

const past: Readonly<Record<Operation, string>> = {
  start: "started",
  stop: "stopped",
  restart: "restarted",
  reload: "reloaded",
  down: "ended"
}

interface Done {
  readonly outcomes: ReadonlyArray<Outcome>
  readonly report: Report | null
}

/** Tells on stderr how far it is, unless that is for a program; what became of it when it is done. */
const follow = <E>(progress: Stream.Stream<Progress, E>, { json }: Options) =>
  Effect.gen(function*() {
    let last: string | undefined = undefined
    const done: Array<Done> = []
    yield* Stream.runForEach(progress, (step) => {
      if (step._tag === "Done") done.push(step)
      const text = json ? undefined : Words.progress(step)
      if (text === undefined || text === last) return Effect.void
      last = text
      return note(Cells.clean(text))
    })
    return done.at(-1)
  })

const operate = <E>(operation: Operation, options: Options, progress: Stream.Stream<Progress, E>) =>
  Effect.gen(function*() {
    const startedAt = performance.now()
    const done = yield* follow(progress, options)
    const outcomes = done?.outcomes ?? []
    if (outcomes.some(({ problem }) => problem !== null)) {
      return yield* new Reports.OperationFailed({ operation, outcomes })
    }
    const milliseconds = Math.round(performance.now() - startedAt)
    const report = done?.report ?? null
    if (options.json) yield* answer(Reports.Operation, { operation, milliseconds, outcomes, report })
    else {
      const names = outcomes.map(({ service }) => service).join(", ") || "nothing"
      const what = report === null ? `${past[operation]} ${names}` : `${past[operation]}: ${Words.report(report)}`
      yield* print(`${what} (${Words.duration(milliseconds)})`)
    }
    return Ending.code(0)
  })

export interface NamedOptions extends Options {
  readonly names: ReadonlyArray<string>
}

type Verb = "start" | "stop" | "restart"

export const change = Effect.fn("treeline change")(function*(verb: Verb, options: NamedOptions) {
  const { client } = yield* Connection.open(options)
  return yield* Connection.named(client, operate(verb, options, client[verb](options.names)))
}, Effect.scoped)

export const reload = Effect.fn("treeline reload")(function*(options: Options) {
  const { client } = yield* Connection.open(options)
  return yield* operate("reload", options, client.reload)
}, Effect.scoped)

export const down = Effect.fn("treeline down")(function*(options: Options & { readonly force: boolean }) {
  const { awaitGone, client } = yield* Connection.open(options)
  const ending = yield* operate("down", options, client.shutdown({ force: options.force }))
  // Then the next "treeline up" finds its place free.
  yield* awaitGone
  return ending
}, Effect.scoped)

const pausedOf = ({ host, services }: HostStatus): Reports.Paused => ({
  all: host.paused,
  services: services.map(({ child, name }) => ({ name, paused: child.paused }))
})

const tellPaused = (client: Client, options: Options) =>
  Effect.gen(function*() {
    const paused = pausedOf(yield* client.status)
    if (options.json) yield* answer(Reports.Paused, paused)
    else {
      const names = paused.services.flatMap(({ name, paused }) => paused ? [name] : [])
      yield* print(names.length === 0 ? "nothing is paused" : `paused: ${names.join(", ")}`)
    }
    return Ending.code(0)
  })

export const pause = Effect.fn("treeline pause")(function*(options: NamedOptions) {
  const { client } = yield* Connection.open(options)
  yield* Connection.named(client, client.pause(options.names))
  return yield* tellPaused(client, options)
}, Effect.scoped)

export const resume = Effect.fn("treeline resume")(function*(options: NamedOptions & { readonly reload: boolean }) {
  const { client } = yield* Connection.open(options)
  yield* Connection.named(client, client.resume(options.names, { reload: options.reload }))
  return yield* tellPaused(client, options)
}, Effect.scoped)

export interface SignalOptions extends Options {
  readonly name: string
  readonly signal: Parameters<Client["signal"]>[1]
  readonly target: Target
}

export const signal = Effect.fn("treeline signal")(function*({ name, signal, target, ...options }: SignalOptions) {
  const { client } = yield* Connection.open(options)
  const { delivered, denied } = yield* Connection.named(client, client.signal(name, signal, target))
  if (options.json) yield* answer(Reports.Signal, { service: name, signal, delivered, denied })
  else {
    yield* print(`${signal} to ${Words.count(delivered, "process", "processes")} of ${name}`)
    if (denied.length > 0) {
      const who = denied.map(({ command, pid }) => `${pid} (${command})`).join(", ")
      yield* note(`treeline: not allowed to signal ${who}`)
    }
  }
  return Ending.code(0)
}, Effect.scoped)

// ---------------------------------------------------------------------------------------------------- logs, events

export interface LogsOptions extends NamedOptions {
  readonly follow: boolean
  readonly lines: number
  readonly stream: "stdout" | "stderr" | undefined
}

const fileLine = ({ child, text }: Reports.FileLine, prefix: Screen.Prefix, colors: boolean) =>
  Screen.logLine(
    { _tag: "Line", child, incarnation: 0, stream: "stdout", at: 0, order: 0, text },
    prefix,
    { colors, terminal: Console.isTerminal(1) }
  )

export const logs = Effect.fn("treeline logs")(function*(options: LogsOptions) {
  const colors = Console.canColor(1)
  const opened = yield* Connection.open(options).pipe(
    Effect.asSome,
    Effect.catchTag(["NothingRuns", "OtherConfiguration"], (absent) =>
      Effect.gen(function*() {
        const { read } = yield* Effect.promise(() => import("./LogFiles.ts"))
        const entries = yield* read(options, absent)
        if (options.follow) return yield* absent
        if (options.json) yield* answer(Reports.Logs, { source: "files", entries })
        else {
          yield* note(`treeline: nothing runs here; these are the last lines of the log files`)
          const prefix = Screen.prefixOf([...new Set(entries.map(({ child }) => child))])
          for (const entry of entries) yield* print(fileLine(entry, prefix, colors))
        }
        return Option.none()
      }))
  )
  if (Option.isNone(opened)) return Ending.code(0)
  const { client } = opened.value
  const entries = Connection.namedStream(
    client,
    client.logs({
      services: options.names,
      ...options.stream === undefined ? {} : { stream: options.stream },
      from: { lines: options.lines },
      follow: options.follow
    })
  )
  if (options.json && !options.follow) {
    yield* answer(Reports.Logs, { source: "running", entries: yield* Stream.runCollect(entries) })
    return Ending.code(0)
  }
  const names = options.json ? [] : (yield* client.status).services.map(({ name }) => name)
  const prefix = Screen.prefixOf(
    options.names.length === 1 && names.includes(options.names[0]!) ? options.names : names
  )
  const terminal = Console.isTerminal(1)
  const encode = Schema.encodeSync(Schema.fromJsonString(Reports.LogEntry))
  yield* Stream.runForEachArray(
    entries,
    (some) =>
      print(
        some.map((entry) => options.json ? encode(entry) : Screen.logLine(entry, prefix, { colors, terminal })).join(
          "\n"
        )
      )
  )
  return Ending.code(0)
}, Effect.scoped)

const clock = (at: number): string => new Date(at).toTimeString().slice(0, 8)

export const events = Effect.fn("treeline events")(function*(options: Options & { readonly follow: boolean }) {
  const { client } = yield* Connection.open(options)
  const events = client.events({ follow: options.follow })
  if (options.json && !options.follow) {
    yield* answer(Reports.Events, { events: yield* Stream.runCollect(events) })
    return Ending.code(0)
  }
  const encode = Schema.encodeSync(Schema.fromJsonString(Reports.Event))
  yield* Stream.runForEach(events, (event) => {
    if (options.json) return print(encode(event))
    const text = Words.event(event)
    return text === undefined ? Effect.void : print(`${clock(Words.timeOf(event))} ${Cells.clean(text)}`)
  })
  return Ending.code(0)
}, Effect.scoped)

// ---------------------------------------------------------------------------------------------------- pools

export interface KeyOptions extends Options {
  readonly pool: string
  readonly key: string
}

export const ensure = Effect.fn("treeline pool ensure")(function*({ key, pool, ...options }: KeyOptions) {
  const { client } = yield* Connection.open(options)
  const up = yield* Connection.named(client, client.poolEnsure(pool, key))
  if (options.json) yield* answer(Reports.PoolKey, { pool, key, ...up })
  else yield* print(`${key} of the pool ${pool} is up${up.pid === null ? "" : ` (pid ${up.pid})`}`)
  return Ending.code(0)
}, Effect.scoped)

export const shutdownKey = Effect.fn("treeline pool shutdown")(function*({ key, pool, ...options }: KeyOptions) {
  const { client } = yield* Connection.open(options)
  yield* Connection.named(client, client.poolShutdown(pool, key))
  if (options.json) yield* answer(Reports.PoolKeyDown, { pool, key })
  else yield* print(`${key} of the pool ${pool} is down`)
  return Ending.code(0)
}, Effect.scoped)
