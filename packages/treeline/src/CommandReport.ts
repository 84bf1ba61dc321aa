/**
 * What the `treeline` command prints under `--json`, as Schemas: one object on stdout when it did what was asked, or one
 * `Failure` on stderr when it did not. `schema/commands.schema.json` has them as JSON Schema.
 */
import { Report as Containment } from "@treeline/core/Containment"
import { Explained } from "@treeline/core/daemon/ConfigOrigin"
import * as Daemon from "@treeline/core/daemon/Daemon"
import { HostEvent, HostStatus, Outcome } from "@treeline/core/daemon/HostStatus"
import { Entry } from "@treeline/core/daemon/LogLine"
import { Report } from "@treeline/core/daemon/ReloadReport"
import * as Updater from "@treeline/core/daemon/Updater"
import * as UpdateRecord from "@treeline/core/daemon/UpdateRecord"
import { ProcessInfo } from "@treeline/core/ProcessIdentity"
import { SupervisorEnd } from "@treeline/core/SupervisorStatus"
import * as Schema from "effect/Schema"

export * from "./internal/Failure.ts"
export * from "./internal/RunReport.ts"

/** The configuration that holds, as it would be written, with all defaults and without secrets (`treeline config`). */
export const Config = Schema.Struct({
  file: Schema.String,
  config: Schema.Json
})
export type Config = typeof Config.Type

/** Every value of the configuration and where it came from (`treeline config --explain`). */
export const ConfigExplained = Schema.Struct({
  file: Schema.String,
  values: Schema.Array(Explained)
})
export type ConfigExplained = typeof ConfigExplained.Type

/** The file that `treeline init` has written. */
export const Written = Schema.Struct({ file: Schema.String })
export type Written = typeof Written.Type

/** What can be promised on a system (`treeline doctor`). */
export const Doctor = Containment
export type Doctor = typeof Doctor.Type

/** Services that have run in the foreground and have ended (`treeline up`). */
export const Up = Schema.Struct({
  file: Schema.String,
  /** From the first start to the end of all. */
  milliseconds: Schema.Int,
  /** The signal to `treeline` that began the end; null when it was something else. */
  stoppedBy: Schema.NullOr(Schema.String),
  /** Whether the orderly end was cut short by a kill. */
  forced: Schema.Boolean,
  end: SupervisorEnd,
  services: Schema.Array(Schema.Struct({ name: Schema.String, restarts: Schema.Int }))
})
export type Up = typeof Up.Type

/** What runs at this moment (`treeline status`). */
export const Status = HostStatus
export type Status = typeof Status.Type

/** What became of each service (`treeline start`, `stop`, `restart`, `reload`, `down`). `report` is there after a reload. */
export const Operation = Schema.Struct({
  operation: Schema.Literals(["start", "stop", "restart", "reload", "down"]),
  milliseconds: Schema.Int,
  outcomes: Schema.Array(Outcome),
  report: Schema.NullOr(Report)
})
export type Operation = typeof Operation.Type

/** Which services are paused now (`treeline pause`, `resume`); `all` also holds for those that are added later. */
export const Paused = Schema.Struct({
  all: Schema.Boolean,
  services: Schema.Array(Schema.Struct({ name: Schema.String, paused: Schema.Boolean }))
})
export type Paused = typeof Paused.Type

/** To how many processes a signal went, and which ones refused it (`treeline signal`). */
export const Signal = Schema.Struct({
  service: Schema.String,
  signal: Schema.String,
  delivered: Schema.Int,
  denied: Schema.Array(ProcessInfo)
})
export type Signal = typeof Signal.Type

/** A line of a log file, as it is there. */
export const FileLine = Schema.TaggedStruct("FileLine", { child: Schema.String, text: Schema.String })
export type FileLine = typeof FileLine.Type

/** What services have written. With `--follow` each line of the output is one of these. */
export const LogEntry = Schema.Union([Entry, FileLine])
export type LogEntry = typeof LogEntry.Type

/** The last lines (`treeline logs`); `files` when nothing runs and they were read from the log files. */
export const Logs = Schema.Struct({
  source: Schema.Literals(["running", "files"]),
  entries: Schema.Array(LogEntry)
})
export type Logs = typeof Logs.Type

/** One event; with `--follow` each line of the output is one (`treeline events --follow`). */
export const Event = HostEvent
export type Event = typeof Event.Type

/** The last events (`treeline events`). */
export const Events = Schema.Struct({ events: Schema.Array(HostEvent) })
export type Events = typeof Events.Type

/** A key that is up (`treeline pool ensure`). */
export const PoolKey = Schema.Struct({
  pool: Schema.String,
  key: Schema.String,
  incarnation: Schema.Int,
  pid: Schema.NullOr(Schema.Int)
})
export type PoolKey = typeof PoolKey.Type

/** A key that is down (`treeline pool shutdown`). */
export const PoolKeyDown = Schema.Struct({ pool: Schema.String, key: Schema.String })
export type PoolKeyDown = typeof PoolKeyDown.Type

/** A value that was set by hand; what may be secret in it is `<redacted>`. */
export const Setting = Schema.Struct({ key: Schema.String, value: Schema.Json })
export type Setting = typeof Setting.Type

/** What is set (`treeline set`). */
export const Settings = Schema.Struct({ file: Schema.String, settings: Schema.Array(Setting) })
export type Settings = typeof Settings.Type

/**
 * What became of a setting (`treeline set KEY VALUE`, `treeline set --remove KEY`). `alreadySet` and `notSet`: nothing was
 * changed and nothing was restarted.
 */
export const SettingChange = Schema.Struct({
  status: Schema.Literals(["set", "alreadySet", "removed", "notSet"]),
  key: Schema.String,
  file: Schema.String,
  /** Whether something runs for this configuration; else it holds from the next start. */
  running: Schema.Boolean,
  /** The services and pools that were ended and started anew, started, or ended. */
  services: Schema.Array(Schema.String),
  /** The pid of the new daemon, when it was restarted. */
  daemon: Schema.NullOr(Schema.Int),
  /** The pid of the new updater, when it was restarted. */
  updater: Schema.NullOr(Schema.Int),
  /** The parts of the configuration that take a restart that is left to somebody else. */
  needsRestart: Schema.Array(Schema.String),
  /** The variable or flag that wins over it. */
  overriddenBy: Schema.NullOr(Schema.String),
  milliseconds: Schema.Int
})
export type SettingChange = typeof SettingChange.Type

/**
 * How `treeline daemon start`, `stop` or `restart` went. `updater` is the pid of the updater that runs, or that was ended;
 * null when there is none.
 */
export const DaemonOutcome = Schema.Struct({ ...Daemon.Outcome.fields, updater: Schema.NullOr(Schema.Int) })
export type DaemonOutcome = typeof DaemonOutcome.Type

/** Whether the daemon runs, and what its updater does (`treeline daemon status`). */
export const DaemonStatus = Schema.Struct({ ...Daemon.Status.fields, updater: Updater.Status })
export type DaemonStatus = typeof DaemonStatus.Type

/** How one update went (`treeline daemon update`). */
export const DaemonUpdate = UpdateRecord.Outcome
export type DaemonUpdate = typeof DaemonUpdate.Type

/** What `treeline daemon bootstrap` has set up; what was there already is left as it was. */
export const DaemonBootstrap = Schema.Struct({
  status: Schema.Literals(["bootstrapped", "alreadyBootstrapped"]),
  install: Schema.Struct({
    status: Schema.Literals(["fetched", "present"]),
    folder: Schema.String,
    /** The id of the current version. */
    current: Schema.String,
    /** What its program answers to `--version`. */
    version: Schema.String,
    program: Schema.String
  }),
  daemon: Schema.Struct({
    status: Schema.Literals(["started", "restarted", "alreadyRunning"]),
    pid: Schema.NullOr(Schema.Int),
    version: Schema.NullOr(Schema.String),
    control: Schema.NullOr(Schema.String)
  }),
  /** `disabled`: by `daemon.update.enabled`, or because nothing says how a version is fetched. */
  updater: Schema.Struct({
    status: Schema.Literals(["started", "alreadyRunning", "disabled"]),
    pid: Schema.NullOr(Schema.Int)
  }),
  folder: Schema.String,
  milliseconds: Schema.Int
})
export type DaemonBootstrap = typeof DaemonBootstrap.Type

/** The version of the command and that of the daemon, null when none runs (`treeline daemon version`). */
export const DaemonVersion = Schema.Struct({
  command: Schema.String,
  daemon: Schema.NullOr(Schema.String),
  pid: Schema.NullOr(Schema.Int),
  /** The file that the daemon runs. */
  program: Schema.NullOr(Schema.String)
})
export type DaemonVersion = typeof DaemonVersion.Type

/** The daemon as a service of the system (`treeline daemon install`). `written` is false when it was there, or was only shown. */
export const DaemonUnit = Schema.Struct({
  manager: Schema.Literals(["systemd", "launchd", "windows"]),
  name: Schema.String,
  file: Schema.String,
  text: Schema.String,
  written: Schema.Boolean,
  /** What to do next, as commands. */
  next: Schema.Array(Schema.String)
})
export type DaemonUnit = typeof DaemonUnit.Type
