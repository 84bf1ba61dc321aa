/** The commands of `treeline daemon`. */
import * as ControlClient from "@treeline/core/daemon/ControlClient"
import * as Daemon from "@treeline/core/daemon/Daemon"
import type { Config } from "@treeline/core/daemon/ServiceConfig"
import * as Updater from "@treeline/core/daemon/Updater"
import * as UpdateRecord from "@treeline/core/daemon/UpdateRecord"
import { LaunchError } from "@treeline/core/Errors"
import type { ProcessIdentity } from "@treeline/core/ProcessIdentity"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeControl from "@treeline/platform-node/NodeControl"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
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
import * as Incoming from "./Incoming.ts"
import { endElsewhere, keepersOf } from "./Keeping.ts"
import * as ManagedDaemon from "./ManagedDaemon.ts"
import * as OwnIdentity from "./OwnIdentity.ts"
import * as OwnProcess from "./OwnProcess.ts"

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

/**
 * The daemon of a configuration, for the commands that begin and end it. `config` is what a launch is made with, asked each
 * time; who launches nothing has none.
 */
export const daemonOf = (
  options: DaemonPlace.Options,
  loaded?: ConfigFile.Loaded,
  config: () => Config | undefined = () => loaded?.config
) =>
  Effect.gen(function*() {
    return yield* daemonAt(yield* DaemonPlace.locate(options, loaded), options.flags, config)
  })

/** The daemon of a configuration in a folder that is known; see `daemonOf`. */
export const daemonAt = (
  { control: configured, directory, file }: StateDirectory.StateDirectory & { readonly file: string },
  flags: ReadonlyArray<string>,
  config: () => Config | undefined
) =>
  Effect.gen(function*() {
    const folder = NodeStateFolder.make(directory)
    const keepers = yield* keepersOf(folder)
    const platform = yield* ProcessPlatform
    const elsewhere = Effect.provideService(endElsewhere(file, directory), ProcessPlatform, platform)
    const own = yield* OwnIdentity.identity
    /** Looked up each time: a daemon that is replaced meanwhile may be talked to elsewhere. */
    const at = <A>(use: (control: StateDirectory.ControlAddress) => Effect.Effect<A>) =>
      Effect.provideService(
        Effect.flatMap(DaemonPlace.controlOf(folder, configured), use),
        ProcessPlatform,
        platform
      )
    const daemon: Daemon.Daemon = {
      folder,
      self: own,
      launch: (variables) =>
        Effect.gen(function*() {
          const known = config()
          const managed = known === undefined
            ? undefined
            : yield* Effect.orDie(ManagedDaemon.managedOf(known, directory, own))
          const program = yield* ManagedDaemon.programOf(managed).pipe(
            Effect.mapError(({ message }) =>
              new LaunchError({ command: managed?.program ?? "", reason: "NotFound", detail: message })
            )
          )
          return yield* Detached.launch({
            command: program.command,
            args: [...program.args, ...OwnProcess.daemonArguments("run", file, flags)],
            cwd: path.dirname(file),
            env: { ...process.env, ...variables, [OwnProcess.programVariable]: program.file },
            output: path.join(directory, errorsName)
          })
        }).pipe(Effect.provideService(ProcessPlatform, platform)),
      ask: at(ask),
      blocking: at(blocking),
      requestStop: process.platform === "win32" ? at((control) => requestEnd(control, false)) : undefined,
      requestLeave: at((control) => requestEnd(control, true)),
      kept: {
        list: keepers.kept,
        end: Effect.zipWith(keepers.end(() => true), elsewhere, (here, there) => [...here, ...there])
      }
    }
    return { daemon, directory, file, elsewhere, control: DaemonPlace.controlOf(folder, configured) }
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

/** What became of the updater, where there is one. */
const updaterOf = ({ status, updater }: Reports.DaemonOutcome): string =>
  updater === null
    ? ""
    : status === "stopped" || status === "notRunning"
    ? `; ended its updater, process ${updater}`
    : `; the updater is process ${updater}`

const tell = (options: Options, outcome: Reports.DaemonOutcome) =>
  Effect.as(
    print(
      options.json
        ? Schema.encodeSync(Schema.fromJsonString(Reports.DaemonOutcome))(outcome)
        : `${render(outcome)}${updaterOf(outcome)}`
    ),
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

const updaters = Effect.promise(() => import("./UpdaterProcess.ts"))

/** What is wrong with a managed program is told before anything is ended or started. */
export const preflight = (config: Config, directory: string, own: ProcessIdentity) =>
  Effect.flatMap(
    ManagedDaemon.managedOf(config, directory, own),
    (managed) => managed === undefined ? Effect.undefined : ManagedDaemon.preflight(managed)
  )

/** What a dead updater had begun is finished first. That it can't be is told; the start says what else is wrong. */
const recovered = (place: Effect.Success<ReturnType<typeof daemonOf>>, flags: Options["flags"], config: Config) =>
  Effect.gen(function*() {
    const { paused, phase } = yield* UpdateRecord.read(place.daemon.folder)
    if (phase === "done" && !paused) return
    const { recover } = yield* updaters
    yield* recover({ ...place, flags }, config)
  }).pipe(Effect.catch(({ message }) => note(`the update that had begun was not finished: ${message}`)))

export const start = Effect.fn("treeline daemon start")((options: StartOptions) =>
  onPlatform(Effect.gen(function*() {
    // What is wrong in it is told here, and not by a daemon that does not come up.
    const loaded = yield* ConfigFile.load(options)
    const place = yield* daemonOf(options, loaded)
    const { daemon, directory } = place
    yield* recovered(place, options.flags, loaded.config)
    yield* preflight(loaded.config, directory, daemon.self)
    const { ensure } = yield* updaters
    // In one turn: a stop comes before both or after both.
    const outcome = yield* Daemon.exclusively(daemon, "start", (turn) =>
      Effect.gen(function*() {
        // The daemon would do it, too, in the time that it has to get ready.
        yield* place.elsewhere
        const started = yield* turn.start(options)
        const updater = started.managed ? yield* ensure({ ...place, flags: options.flags }, loaded.config) : undefined
        return { ...started, updater: updater?.pid ?? null }
      }))
    return yield* tell(options, outcome)
  }))
)

export const stop = Effect.fn("treeline daemon stop")((options: StopOptions) =>
  onPlatform(Effect.gen(function*() {
    const { daemon } = yield* daemonOf(options)
    // First, so that nothing of an update is at work on the daemon; what keeps it is no reason to leave the daemon.
    const first = yield* Effect.result(Updater.stop(daemon))
    const outcome = yield* Daemon.exclusively(daemon, "stop", (turn) =>
      Effect.gen(function*() {
        // One that was started meanwhile.
        const second = Result.isSuccess(first) ? yield* Updater.stop(daemon) : undefined
        const stopped = yield* turn.stop({ grace: options.grace, onWaiting: sayWaiting(options) })
        return { ...stopped, updater: second?.pid ?? null }
      }))
    const ended = yield* Effect.fromResult(first)
    return yield* tell(options, { ...outcome, updater: outcome.updater ?? ended.pid })
  }))
)

export const restart = Effect.fn("treeline daemon restart")((options: StartOptions & StopOptions) =>
  onPlatform(Effect.gen(function*() {
    const loaded = yield* ConfigFile.load(options)
    const place = yield* daemonOf(options, loaded)
    const { daemon, directory } = place
    // Where it runs, and where it is to run: the configuration may say another folder by now.
    const { file } = loaded
    const next = { file, ...yield* StateDirectory.locate({ file, daemon: loaded.config.daemon }) }
    if (next.directory === directory) yield* recovered(place, options.flags, loaded.config)
    yield* preflight(loaded.config, next.directory, daemon.self)
    const moved = next.directory === directory
      ? undefined
      : yield* daemonAt(next, options.flags, () => loaded.config)
    const { grace, readyWithin } = options
    const outcome = yield* Daemon.exclusively(daemon, "restart", (turn) =>
      Effect.gen(function*() {
        // One that ended between the stop and the start would leave the services down.
        yield* Incoming.signals(["SIGHUP", "SIGINT", "SIGTERM"])
        if (moved !== undefined) yield* Updater.stop(daemon)
        // In another folder nobody would find what is kept here.
        const stopped = yield* turn.stop({ grace, onWaiting: sayWaiting(options), leave: moved === undefined })
        const started = moved === undefined
          ? yield* turn.start({ readyWithin })
          : yield* Daemon.start(moved.daemon, { readyWithin })
        if (stopped.status === "notRunning") return started
        return { ...started, status: "restarted" as const, forced: stopped.forced, blocking: stopped.blocking }
      }))
    if (moved !== undefined) yield* (yield* updaters).ensure({ ...moved, flags: options.flags }, loaded.config)
    const updater = yield* Updater.status(moved?.daemon ?? daemon)
    return yield* tell(options, { ...outcome, updater: updater.status === "running" ? updater.pid : null })
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

/** What an updater does, for people; nothing where none runs and nothing was ever updated. */
export const renderUpdater = (updater: Updater.Status): ReadonlyArray<string> => {
  const { detail, last, lastAt, phase, pid, status } = updater
  if (status === "notRunning" && lastAt === null && detail === "") return []
  const words: Readonly<Record<Updater.Status["status"], string>> = {
    running: `process ${pid ?? "unknown"}`,
    notRunning: "not running",
    stale: `dead, it was process ${pid ?? "unknown"}`,
    unreadable: "unknown",
    unsure: "unknown"
  }
  const doing = phase === null || phase === "done" ? "" : `, ${phase}`
  const ago = lastAt === null ? undefined : `${last?.status ?? "failed"} at ${new Date(lastAt).toISOString()}`
  return [
    `updater: ${words[status]}${doing}`,
    ...ago === undefined ? [] : [`  ${"last".padEnd(9)}${ago}`],
    ...detail === "" ? [] : [`  ${"note".padEnd(9)}${detail}`]
  ]
}

export const status = Effect.fn("treeline daemon status")((options: Options) =>
  onPlatform(Effect.gen(function*() {
    const { daemon } = yield* daemonOf(options)
    const found: Reports.DaemonStatus = { ...yield* Daemon.status(daemon), updater: yield* Updater.status(daemon) }
    yield* print(
      options.json
        ? Schema.encodeSync(Schema.fromJsonString(Reports.DaemonStatus))(found)
        : [renderStatus(found), ...renderUpdater(found.updater)].join("\n")
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
