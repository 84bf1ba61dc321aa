/** `treeline daemon bootstrap`. */
import * as Daemon from "@treeline/core/daemon/Daemon"
import * as ManagedInstall from "@treeline/core/daemon/ManagedInstall"
import * as PidRecord from "@treeline/core/daemon/PidRecord"
import { Unmanaged } from "@treeline/core/Errors"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Reports from "../CommandReport.ts"
import * as ConfigFile from "../ConfigFile.ts"
import { daemonOf, onPlatform, print, sayWaiting, seconds, type StartOptions } from "./DaemonVerbs.ts"
import * as Ending from "./Ending.ts"
import { UsageError } from "./Failure.ts"
import * as ManagedDaemon from "./ManagedDaemon.ts"
import * as UpdaterProcess from "./UpdaterProcess.ts"

export const notManaged = new UsageError({
  problem: "the configuration has no daemon.install: it says which program is managed, and how it is fetched"
})

export const notFetched = new UsageError({
  problem: "the configuration has no daemon.install.fetch: it says how a version is fetched"
})

/** What was set up, for people. */
export const render = (report: Reports.DaemonBootstrap): string => {
  const { daemon, install, milliseconds, updater } = report
  const words = { started: "started", restarted: "restarted", alreadyRunning: "ran already" }
  const rows = [
    ["version", `${install.version}, ${install.status === "fetched" ? "fetched" : "was there"}: ${install.program}`],
    ["daemon", `${words[daemon.status]}: process ${daemon.pid ?? "unknown"}`],
    [
      "updater",
      updater.status === "disabled" ? "not wanted" : `${words[updater.status]}: process ${updater.pid ?? "unknown"}`
    ]
  ] as const
  const head = report.status === "bootstrapped" ? `set up in ${seconds(milliseconds)}` : "all was set up already"
  return [head, ...rows.map(([name, text]) => `  ${name.padEnd(9)}${text}`)].join("\n")
}

/** The version that is current; a first one is fetched when there is none. */
const install = ({ fetch, install, program }: ManagedDaemon.Managed) =>
  Effect.gen(function*() {
    const there = yield* install.current
    if (Option.isSome(there)) {
      return { status: "present" as const, checked: yield* ManagedInstall.check(install, there.value.id, program) }
    }
    if (fetch === undefined) return yield* notFetched
    const { id } = yield* install.stage(fetch)
    // One that can't be used does not become current.
    const checked = yield* ManagedInstall.check(install, id, program)
    return { status: "fetched" as const, checked }
  })

export const bootstrap = Effect.fn("treeline daemon bootstrap")((options: StartOptions) =>
  onPlatform(Effect.gen(function*() {
    const startedAt = performance.now()
    const loaded = yield* ConfigFile.load(options)
    const place = yield* daemonOf(options, loaded)
    const { daemon, directory } = place
    const managed = yield* ManagedDaemon.managedOf(loaded.config, directory, daemon.self)
    if (managed === undefined) return yield* notManaged
    const platform = yield* ProcessPlatform
    // Not in the turn: a fetch may take as long as it may.
    const found = yield* install(managed)
    const turn = (turn: Daemon.Turn) =>
      Effect.gen(function*() {
        // Of two that fetch at once the first one's version stays.
        const current = yield* managed.install.current
        if (Option.isNone(current)) yield* managed.install.switchTo(found.checked.id)
        const checked = Option.isNone(current) || current.value.id === found.checked.id
          ? found.checked
          : yield* ManagedDaemon.preflight(managed)
        const state = yield* PidRecord.read({ folder: daemon.folder, platform })
        const isOther = (state._tag === "Running" || state._tag === "Starting") &&
          ManagedDaemon.versionOf(managed, state.record.program) === undefined
        if (isOther) yield* turn.stop({ onWaiting: sayWaiting(options), leave: true })
        const started = yield* turn.start({ readyWithin: options.readyWithin })
        if (!started.managed) return yield* new Unmanaged({ pid: started.pid, folder: directory })
        // A stop comes before both or after both.
        const updater = yield* UpdaterProcess.ensure({ ...place, flags: options.flags }, loaded.config)
        return { checked, updater, status: isOther ? "restarted" as const : started.status, started }
      })
    const { checked, started, status, updater } = yield* Daemon.exclusively(daemon, "bootstrap", turn)
    const isNew = found.status === "fetched" || status !== "alreadyRunning" || updater.status === "started"
    const report: Reports.DaemonBootstrap = {
      status: isNew ? "bootstrapped" : "alreadyBootstrapped",
      install: {
        status: found.status,
        folder: managed.install.path,
        current: checked.id,
        version: checked.version,
        program: checked.path
      },
      daemon: {
        status: status === "started" || status === "restarted" ? status : "alreadyRunning",
        pid: started.pid,
        version: started.version,
        control: started.control
      },
      updater,
      folder: directory,
      milliseconds: Math.round(performance.now() - startedAt)
    }
    yield* print(
      options.json
        ? Schema.encodeSync(Schema.fromJsonString(Reports.DaemonBootstrap))(report)
        : render(report)
    )
    return Ending.code(0)
  }))
)
