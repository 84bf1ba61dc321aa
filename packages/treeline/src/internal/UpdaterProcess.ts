/** The updater of a configuration: what it works with, and its process, which is launched beside the daemon. */
import type * as Daemon from "@treeline/core/daemon/Daemon"
import type { Config } from "@treeline/core/daemon/ServiceConfig"
import * as Updater from "@treeline/core/daemon/Updater"
import type { StateFolderError } from "@treeline/core/Errors"
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

/**
 * No restarts and no probes by the daemon while it is handed over (peer seed K17). A pause that somebody else has asked for
 * is theirs to end.
 */
export const supervisionOf = (control: Effect.Effect<StateDirectory.ControlAddress>) => {
  let paused = true
  const withClient = <A, E>(
    use: (client: Effect.Success<ReturnType<typeof NodeControl.connect>>) => Effect.Effect<A, E>
  ) =>
    Effect.scoped(
      Effect.flatMap(control, (address) => Effect.flatMap(NodeControl.connect(address, { within: askWithin }), use))
    )
  return {
    pause: withClient((client) =>
      Effect.gen(function*() {
        const { host } = yield* client.status
        paused = !host.paused
        if (paused) yield* client.pause([])
      })
    ),
    resume: Effect.suspend(() => paused ? withClient((client) => client.resume([])) : Effect.void).pipe(
      // Nothing runs that could be paused.
      Effect.catchIf((error) => error._tag === "ControlUnavailable" && error.reason === "NotRunning", () => Effect.void)
    )
  }
}

/** Whether the daemon runs services, and is not on its way out. */
const isServing = (control: Effect.Effect<StateDirectory.ControlAddress>) =>
  Effect.scoped(Effect.gen(function*() {
    const client = yield* NodeControl.connect(yield* control, { within: askWithin })
    const { phase } = yield* client.status
    if (phase !== "running") return yield* new InternalError({ detail: `its services are ${phase}` })
  }))

/** What an update is made with; undefined where nothing is fetched. */
export const optionsOf = (place: Place, config: Config) =>
  Effect.gen(function*() {
    const { daemon, file, flags } = place
    const managed = yield* ManagedDaemon.managedOf(config, place.directory, daemon.self)
    if (managed?.fetch === undefined) return undefined
    const platform = yield* ProcessPlatform
    const control = Effect.provideService(place.control, ProcessPlatform, platform)
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
      supervision: supervisionOf(control),
      validate: () => isServing(control),
      validateWithin: config.daemon.update.validateWithin
    }
    return options
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
    env: { ...process.env, ...variables, [ManagedDaemon.programVariable]: program.file },
    output: path.join(directory, errorsName)
  })

/** What it is called with (seed C6). */
export const argumentsOf = (
  program: Pick<ManagedDaemon.Program, "args">,
  file: string,
  flags: ReadonlyArray<string>
): ReadonlyArray<string> => [
  ...program.args,
  "daemon",
  "updater",
  "--config",
  file,
  ...flags.flatMap((flag) => ["--set", flag])
]

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
