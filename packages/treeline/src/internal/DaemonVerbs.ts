/** The commands of `treeline daemon`. */
import * as ControlClient from "@treeline/core/daemon/ControlClient"
import * as Daemon from "@treeline/core/daemon/Daemon"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeControl from "@treeline/platform-node/NodeControl"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import type * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as path from "node:path"
import * as Reports from "../CommandReport.ts"
import * as ConfigFile from "../ConfigFile.ts"
import * as Treeline from "../Treeline.ts"
import * as Console from "./Console.ts"
import * as DaemonPlace from "./DaemonPlace.ts"
import * as Detached from "./Detached.ts"
import * as Ending from "./Ending.ts"
import { InternalError } from "./Failure.ts"
import { keepersOf } from "./Keeping.ts"

/** What all of them take. */
export interface Options {
  readonly file: string | undefined
  readonly flags: ReadonlyArray<string>
  readonly json: boolean
  readonly version: string
}

/** How long an answer of the daemon is awaited, in ms. */
const askWithin = 2000

/** The file for what it says before it has a log, and when it dies. */
export const errorsName = "daemon.err"

/** The daemon is a process of its own, so its platform is nobody's here; what dead hosts left is for it to sweep. */
export const onPlatform = <A, E>(effect: Effect.Effect<A, E, ProcessPlatform>): Effect.Effect<A, E> =>
  Effect.provide(effect, Treeline.layerWith({ sweepOrphaned: false }))

export const print = (text: string) => Effect.promise(() => Console.print(1, text))

const note = (text: string) => Effect.promise(() => Console.print(2, `treeline: ${text}`))

/** This process, for records. */
export const self = Effect.gen(function*() {
  const platform = yield* ProcessPlatform
  const identity = yield* platform.identify(process.pid)
  if (Option.isSome(identity)) return identity.value
  return yield* new InternalError({ detail: "the system does not tell when this process was started" })
})

/** Who answers at the control address. Another version is somebody, too. */
const ask = (control: StateDirectory.ControlAddress): Effect.Effect<Option.Option<Daemon.Answer>> =>
  NodeControl.reach(control).pipe(
    Effect.flatMap((options) => ControlClient.hello({ ...options, within: askWithin })),
    Effect.map(({ pid, version }): Option.Option<Daemon.Answer> => Option.some({ pid, version })),
    Effect.catch((error) =>
      Effect.succeed(
        error._tag === "VersionMismatch"
          ? Option.some({ pid: null, version: `protocol ${error.server}` })
          : Option.none()
      )
    )
  )

/** What the end of the daemon waits for. */
const blocking = (control: StateDirectory.ControlAddress): Effect.Effect<ReadonlyArray<string>> =>
  NodeControl.connect(control, { within: askWithin }).pipe(
    Effect.flatMap(({ status }) => status),
    Effect.map(({ blocking }) =>
      blocking.map(({ child, pid, step }) => `${child}${pid === null ? "" : ` (pid ${pid})`} in ${step}`)
    ),
    Effect.scoped,
    Effect.orElseSucceed(() => [])
  )

/** The daemon is asked to end, and what it tells is not awaited: where a signal would kill it, or says too little. */
const requestEnd = (control: StateDirectory.ControlAddress, keep: boolean): Effect.Effect<boolean> =>
  Effect.scoped(Effect.gen(function*() {
    const client = yield* NodeControl.connect(control, { within: askWithin })
    yield* Stream.runDrain(Stream.take(client.shutdown({ keep }), 1))
  })).pipe(Effect.as(true), Effect.timeout(askWithin), Effect.orElseSucceed(() => false))

/** The daemon of a configuration, for the commands that begin and end it. */
export const daemonOf = (options: DaemonPlace.Options, loaded?: ConfigFile.Loaded) =>
  Effect.gen(function*() {
    const { control: configured, directory, file } = yield* DaemonPlace.locate(options, loaded)
    const folder = NodeStateFolder.make(directory)
    const keepers = yield* keepersOf(folder)
    const platform = yield* ProcessPlatform
    /** Looked up each time: a daemon that is replaced meanwhile may be talked to elsewhere. */
    const at = <A>(use: (control: StateDirectory.ControlAddress) => Effect.Effect<A>) =>
      Effect.provideService(
        Effect.flatMap(DaemonPlace.controlOf(folder, configured), use),
        ProcessPlatform,
        platform
      )
    const daemon: Daemon.Daemon = {
      folder,
      self: yield* self,
      launch: (variables) =>
        Detached.launch({
          command: process.execPath,
          args: [
            ...process.execArgv,
            process.argv[1] ?? "",
            "daemon",
            "run",
            "--config",
            file,
            ...options.flags.flatMap((flag) => ["--set", flag])
          ],
          cwd: path.dirname(file),
          env: { ...process.env, ...variables },
          output: path.join(directory, errorsName)
        }),
      ask: at(ask),
      blocking: at(blocking),
      requestStop: process.platform === "win32" ? at((control) => requestEnd(control, false)) : undefined,
      requestLeave: at((control) => requestEnd(control, true)),
      kept: { list: keepers.kept, end: keepers.end(() => true) }
    }
    return { daemon, directory, file }
  })

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`

/** An outcome for people. */
export const render = (outcome: Daemon.Outcome): string => {
  const { blocking, control, ended, forced, managed, milliseconds, pid, status, version } = outcome
  const who = `process ${pid ?? "unknown"}${version === null ? "" : ` (treeline ${version})`}`
  const killed = forced ? `, killed${blocking.length === 0 ? "" : `: it waited for ${blocking.join(", ")}`}` : ""
  const left = ended.length === 0 ? "" : `; ended ${ended.join(", ")}, kept without a daemon`
  switch (status) {
    case "started":
      return `started ${who} in ${seconds(milliseconds)}${control === null ? "" : `; control is at ${control}`}`
    case "restarted":
      return `restarted as ${who} in ${seconds(milliseconds)}${forced ? `; the old one was${killed.slice(1)}` : ""}`
    case "alreadyRunning":
      return managed ? `runs already: ${who}` : `the services run already, not as a daemon: ${who}`
    case "stopped":
      return `ended ${who} in ${seconds(milliseconds)}${killed}${left}`
    case "notRunning":
      return `no daemon runs here${left}`
  }
}

const tell = (options: Options, outcome: Daemon.Outcome) =>
  Effect.as(
    print(options.json ? Schema.encodeSync(Schema.fromJsonString(Reports.DaemonOutcome))(outcome) : render(outcome)),
    Ending.code(0)
  )

/** What a stop waits for, said when it is something else than before; nothing where one object is wanted. */
export const sayWaiting = ({ json }: Pick<Options, "json">) => {
  let last = ""
  return (blocking: ReadonlyArray<string>) => {
    const text = blocking.join(", ")
    if (json || text === last || text === "") return Effect.void
    last = text
    return note(`waits for the end of ${text}`)
  }
}

export interface StartOptions extends Options {
  readonly readyWithin: number | undefined
}

export interface StopOptions extends Options {
  readonly grace: number | undefined
}

export const start = Effect.fn("treeline daemon start")((options: StartOptions) =>
  onPlatform(Effect.gen(function*() {
    // What is wrong in it is told here, and not by a daemon that does not come up.
    const { daemon } = yield* daemonOf(options, yield* ConfigFile.load(options))
    return yield* tell(options, yield* Daemon.start(daemon, options))
  }))
)

export const stop = Effect.fn("treeline daemon stop")((options: StopOptions) =>
  onPlatform(Effect.gen(function*() {
    const { daemon } = yield* daemonOf(options)
    return yield* tell(options, yield* Daemon.stop(daemon, { grace: options.grace, onWaiting: sayWaiting(options) }))
  }))
)

export const restart = Effect.fn("treeline daemon restart")((options: StartOptions & StopOptions) =>
  onPlatform(Effect.gen(function*() {
    const { daemon } = yield* daemonOf(options, yield* ConfigFile.load(options))
    const { grace, readyWithin } = options
    return yield* tell(options, yield* Daemon.restart(daemon, { grace, readyWithin, onWaiting: sayWaiting(options) }))
  }))
)

/** The exit code of each state (Linux Standard Base, init script actions). */
export const statusCodes: Readonly<Record<Daemon.Status["status"], number>> = {
  running: 0,
  starting: 0,
  stale: 1,
  notRunning: 3,
  unmanaged: 4,
  unreadable: 4,
  unsure: 4
}

/** A status for people. */
export const renderStatus = (status: Daemon.Status): string => {
  const { answers, control, detail, folder, kept, pid, startedAt, version } = status
  const words: Readonly<Record<Daemon.Status["status"], string>> = {
    running: "running",
    starting: "starting",
    notRunning: "not running",
    stale: "dead",
    unmanaged: "running, but not as a daemon",
    unreadable: "unknown",
    unsure: "unknown"
  }
  const rows = [
    ["process", pid === null ? undefined : String(pid)],
    ["version", version],
    ["since", startedAt === null ? undefined : new Date(startedAt).toISOString()],
    ["control", control === null ? undefined : `${control}${answers ? "" : " (no answer)"}`],
    ["folder", folder],
    ...kept.map(({ host, pid, service }, index) =>
      [index === 0 ? "kept" : "", `${service}, process ${pid ?? "not launched yet"}, by ${host}`] as const
    ),
    ["note", detail === "" ? undefined : detail]
  ] as const
  return [
    words[status.status],
    ...rows.flatMap(([name, text]) => text === undefined || text === null ? [] : [`  ${name.padEnd(9)}${text}`])
  ].join("\n")
}

export const status = Effect.fn("treeline daemon status")((options: Options) =>
  onPlatform(Effect.gen(function*() {
    const { daemon } = yield* daemonOf(options)
    const found = yield* Daemon.status(daemon)
    yield* print(
      options.json ? Schema.encodeSync(Schema.fromJsonString(Reports.DaemonStatus))(found) : renderStatus(found)
    )
    return Ending.code(statusCodes[found.status])
  }))
)

export const versions = Effect.fn("treeline daemon version")((options: Options) =>
  onPlatform(Effect.gen(function*() {
    const { daemon } = yield* daemonOf(options)
    const { pid, program, version } = yield* Daemon.status(daemon)
    const report: Reports.DaemonVersion = { command: options.version, daemon: version, pid, program }
    yield* print(
      options.json
        ? Schema.encodeSync(Schema.fromJsonString(Reports.DaemonVersion))(report)
        : `command ${options.version}, daemon ${version ?? "does not run"}`
    )
    return Ending.code(0)
  }))
)

export const run = (options: Omit<Options, "json">) =>
  Effect.flatMap(Effect.promise(() => import("./DaemonRun.ts")), ({ run }) => run(options))
