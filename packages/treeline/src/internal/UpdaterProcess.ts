/** The updater of a configuration: what it works with, and its process, which is launched beside the daemon. */
import type * as Daemon from "@treeline/core/daemon/Daemon"
import type { Config } from "@treeline/core/daemon/ServiceConfig"
import * as Updater from "@treeline/core/daemon/Updater"
import { DetachUnavailable, type StateFolderError } from "@treeline/core/Errors"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeControl from "@treeline/platform-node/NodeControl"
import type * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as path from "node:path"
import type * as Reports from "../CommandReport.ts"
import * as ConfigFile from "../ConfigFile.ts"
import * as Detached from "./Detached.ts"
import { InternalError, UpdaterNotStarted } from "./Failure.ts"
import * as ManagedDaemon from "./ManagedDaemon.ts"
import * as OwnProcess from "./OwnProcess.ts"

/** How long control may take to answer, in ms. */
const askWithin = 2000

/** The file for what it says before it has a log, and when it dies. */
const errorsName = "updater.err"

/** How long a launched one may take until it has its record, in ms, and how often that is looked at. */
const startWithin = 10_000
const poll = 50

/** A daemon as `daemonOf` gives it, with the configuration that it is launched by. */
export interface Place {
  readonly daemon: Daemon.Daemon
  readonly directory: string
  readonly file: string
  readonly flags: ReadonlyArray<string>
  readonly control: Effect.Effect<StateDirectory.ControlAddress, never, ProcessPlatform>
}

type Control = Effect.Effect<StateDirectory.ControlAddress>
type Connected = ReturnType<typeof NodeControl.connect>

const withClient = <A, E>(control: Control, use: (client: Effect.Success<Connected>) => Effect.Effect<A, E>) =>
  Effect.scoped(
    Effect.flatMap(control, (address) => Effect.flatMap(NodeControl.connect(address, { within: askWithin }), use))
  )

/** Whom nobody can talk to as this program does can't be paused by it, and is updated all the same. */
const isUnreachable = (error: Effect.Error<Connected>): boolean =>
  error._tag === "VersionMismatch" || (error._tag === "ControlUnavailable" && error.reason === "NoAnswer")

/** No restarts and no probes by the daemon while it is handed over (peer seed K17). */
export const supervisionOf = (control: Control) => ({
  isPaused: withClient(control, (client) => Effect.map(client.status, ({ host }) => host.paused)).pipe(
    Effect.catchIf(isUnreachable, () => Effect.succeed(true))
  ),
  pause: withClient(control, (client) => client.pause([])),
  resume: withClient(control, (client) => client.resume([])).pipe(
    // Nothing runs that could be paused, or it is another one than was paused.
    Effect.catchIf(
      (error) =>
        error._tag === "VersionMismatch" || (error._tag === "ControlUnavailable" && error.reason === "NotRunning"),
      () => Effect.void
    )
  )
})

/** The services that are ready now; none where nobody tells. */
const readyOf = (control: Control): Effect.Effect<ReadonlyArray<string>> =>
  withClient(control, (client) => client.status).pipe(
    Effect.map(({ services }) => services.flatMap(({ name, readySince }) => readySince === null ? [] : [name])),
    Effect.orElseSucceed(() => [])
  )

/**
 * Whether the daemon runs services and is not on its way out, and whether those of `ready` are ready. One that speaks another
 * protocol has shown who it is, and can't be asked for more: it is not judged by this program's.
 */
export const isServing = (control: Control, ready: ReadonlyArray<string>) =>
  withClient(control, (client) =>
    Effect.gen(function*() {
      const { phase, services } = yield* client.status
      if (phase !== "running") return yield* new InternalError({ detail: `its services are ${phase}` })
      const waits = services.filter(({ name, readySince }) => readySince === null && ready.includes(name))
      if (waits.length === 0) return
      const names = waits.map(({ name }) => name).join(", ")
      return yield* new InternalError({ detail: `ready before and not yet again: ${names}` })
    })).pipe(Effect.catchIf((error) => error._tag === "VersionMismatch", () => Effect.void))

/** What an update is made with; undefined where nothing is fetched. */
export const optionsOf = (place: Place, config: Config) =>
  Effect.gen(function*() {
    const { daemon, file, flags } = place
    const managed = yield* ManagedDaemon.managedOf(config, place.directory, daemon.self)
    if (managed?.fetch === undefined) return undefined
    const platform = yield* ProcessPlatform
    const control = Effect.provideService(place.control, ProcessPlatform, platform)
    const { validateWithin } = config.daemon.update
    /** Before the update: what had failed already is not the fault of a version. */
    let ready: ReadonlyArray<string> = []
    const supervision = supervisionOf(control)
    const options: Updater.Options = {
      daemon,
      install: managed.install,
      program: managed.program,
      fetch: managed.fetch,
      // As it is set now. One that can't be read any more is no reason to go on.
      enabled: ConfigFile.load({ file, flags }).pipe(
        Effect.map(({ config }) => config.daemon.update.enabled),
        Effect.orElseSucceed(() => false)
      ),
      preflight: Effect.gen(function*() {
        const reason = yield* Detached.unavailable
        if (reason !== undefined) return yield* new DetachUnavailable({ command: managed.program, reason })
        ready = yield* readyOf(control)
      }),
      supervision,
      validate: (_, isBack) => isServing(control, isBack ? [] : ready),
      validateWithin,
      readyWithin: validateWithin
    }
    return options
  })

/**
 * Finishes or takes back what an updater had begun that died, before the current version is looked at or started: it may be one
 * that can't start, and then nobody else would go back. An update that is going on is left to who makes it.
 */
export const recover = (place: Place, config: Config) =>
  Effect.gen(function*() {
    const options = yield* optionsOf(place, config)
    if (options !== undefined) yield* Updater.recover(options)
  })

// ---------------------------------------------------------------------------------------------- its process

/** Whether an updater belongs to the daemon of a configuration. */
export const isWanted = ({ daemon }: Config): boolean => daemon.install?.fetch !== undefined && daemon.update.enabled

/** Starts it as a program of the install; it is told which, and whatever else its variables say. */
export const launch = (
  { directory, file, flags }: Place,
  program: ManagedDaemon.Program,
  variables: Readonly<Record<string, string>> = {}
) =>
  Detached.launch({
    command: program.command,
    args: argumentsOf(program, file, flags),
    cwd: path.dirname(file),
    env: { ...process.env, ...variables, [OwnProcess.programVariable]: program.file },
    output: path.join(directory, errorsName)
  })

/** What it is called with (seed C6). */
export const argumentsOf = (
  program: Pick<ManagedDaemon.Program, "args">,
  file: string,
  flags: ReadonlyArray<string>
): ReadonlyArray<string> => [...program.args, ...OwnProcess.daemonArguments("updater", file, flags)]

const tailOf = (launched: Daemon.Launched) =>
  Effect.map(launched.errors, ({ bytes }) => new TextDecoder().decode(bytes).trimEnd().replace(/^treeline: /, ""))

type Ensured = Reports.DaemonBootstrap["updater"]

/** Waits until it has its claim, or somebody else does. */
const awaitReady = (
  { daemon }: Place,
  launched: Daemon.Launched
): Effect.Effect<Ensured, UpdaterNotStarted | StateFolderError, ProcessPlatform> =>
  Effect.scoped(Effect.gen(function*() {
    const platform = yield* ProcessPlatform
    const identity = yield* platform.identify(launched.pid)
    const ended = yield* Effect.forkScoped(launched.ended)
    const until = performance.now() + startWithin
    while (true) {
      // Looked at before the claim: who has ended has told all that it will.
      const isOver = ended.pollUnsafe() !== undefined
      const { pid, status } = yield* Updater.status(daemon)
      if (status === "running") return { status: pid === launched.pid ? "started" : "alreadyRunning", pid }
      if (isOver) return yield* new UpdaterNotStarted({ pid: launched.pid, detail: yield* tailOf(launched) })
      if (performance.now() > until) {
        if (Option.isSome(identity)) yield* platform.signalProcess(identity.value, "SIGKILL")
        const detail = `it has said nothing within ${startWithin} ms`
        return yield* new UpdaterNotStarted({ pid: launched.pid, detail })
      }
      yield* Effect.sleep(poll)
    }
  }))

/** Starts it where it is wanted and does not run. The caller has the turn of the daemon. */
export const ensure = (place: Place, config: Config) =>
  Effect.gen(function*() {
    if (!isWanted(config)) return { status: "disabled", pid: null } satisfies Ensured
    const found = yield* Updater.status(place.daemon)
    if (found.status === "running") return { status: "alreadyRunning", pid: found.pid } satisfies Ensured
    const managed = yield* ManagedDaemon.managedOf(config, place.directory, place.daemon.self)
    return yield* awaitReady(place, yield* launch(place, yield* ManagedDaemon.programOf(managed)))
  })
