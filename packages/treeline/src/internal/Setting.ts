/** What `treeline set` does. */
import * as ConfigMerge from "@treeline/core/daemon/ConfigMerge"
import * as ConfigOrigin from "@treeline/core/daemon/ConfigOrigin"
import * as ConfigPath from "@treeline/core/daemon/ConfigPath"
import * as ConfigSource from "@treeline/core/daemon/ConfigSource"
import * as Daemon from "@treeline/core/daemon/Daemon"
import * as PidRecord from "@treeline/core/daemon/PidRecord"
import type { Config } from "@treeline/core/daemon/ServiceConfig"
import * as Settings from "@treeline/core/daemon/Settings"
import * as Updater from "@treeline/core/daemon/Updater"
import { AlreadyRunning, InvalidConfig } from "@treeline/core/Errors"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Reports from "../CommandReport.ts"
import * as ConfigFile from "../ConfigFile.ts"
import * as ConfigPlace from "./ConfigPlace.ts"
import * as Connection from "./Connection.ts"
import * as DaemonPlace from "./DaemonPlace.ts"
import { daemonOf, onPlatform, preflight, print, sayWaiting, seconds } from "./DaemonVerbs.ts"
import * as Ending from "./Ending.ts"
import { OperationFailed, OtherConfiguration, SettingNotApplied, UsageError } from "./Failure.ts"
import * as Incoming from "./Incoming.ts"
import * as UpdaterProcess from "./UpdaterProcess.ts"

export interface Options {
  readonly file: string | undefined
  readonly key: string | undefined
  readonly value: string | undefined
  /** A key. */
  readonly remove: string | undefined
  readonly noRestart: boolean
  readonly json: boolean
}

// ---------------------------------------------------------------------------------------------- what is asked

/** A setting without its secrets: everything that a service's variables and headers may hold is one. */
export const shown = (key: string, value: Schema.Json): Schema.Json => {
  const path = ConfigSource.pathOf(key) ?? [key]
  const isFree = (name: string | number | undefined) => name === "env" || name === "headers"
  const hide = (at: ConfigPath.Path, inner: Schema.Json): Schema.Json => {
    if (inner !== null && isFree(at.at(-2))) return "<redacted>"
    if (Array.isArray(inner)) return inner.map((item: Schema.Json, index) => hide([...at, index], item))
    if (!ConfigPath.isTree(inner)) return inner
    const fields = Object.entries(inner as Readonly<Record<string, Schema.Json>>)
    return Object.fromEntries(fields.map(([name, item]) => [name, hide([...at, name], item)]))
  }
  return ConfigMerge.shown(path, hide(path, value))
}

/** What a change of this path touches. */
export interface Touched {
  /** Services, groups, pools: by a reload. */
  readonly services: boolean
  /** What a daemon takes when it starts. */
  readonly daemon: boolean
  readonly updater: boolean
}

export const touchedBy = (path: ConfigPath.Path): Touched => {
  const [section, field, part] = path
  if (section === "supervisor") return { services: false, daemon: true, updater: false }
  if (section !== "daemon") return { services: true, daemon: false, updater: false }
  const updater = field === "update" || field === "install"
  const daemon = field !== "update" && !(field === "install" && part === "fetch")
  return { services: false, daemon, updater }
}

interface Change {
  readonly key: string
  readonly path: ConfigPath.Path
  readonly apply: (settings: Settings.Settings) => Settings.Settings
  readonly removes: boolean
}

/** What the arguments ask for; undefined for the list. */
const changeOf = (options: Options): Effect.Effect<Change | undefined, InvalidConfig | UsageError> =>
  Effect.gen(function*() {
    const { key, remove, value } = options
    if (remove !== undefined) {
      if (key !== undefined) return yield* new UsageError({ problem: "--remove KEY takes no other argument" })
      // Also one that could not be set: somebody may have written it by hand.
      const path = ConfigSource.pathOf(remove) ?? [remove]
      return { key: remove, path, apply: (settings) => Settings.remove(settings, remove), removes: true }
    }
    if (key === undefined) return undefined
    if (value === undefined) {
      return yield* new UsageError({ problem: `a value for ${key} is missing; to take it away: --remove ${key}` })
    }
    const path = ConfigSource.pathOf(key) ?? []
    const read = ConfigSource.override(path, value, ConfigOrigin.Origin.cases.Setting.make({ file: key, key }))
    if (Result.isFailure(read)) return yield* new UsageError({ problem: `${key}: ${read.failure.problem}` })
    const json = read.success.value as Schema.Json
    const problem = Settings.problemOf(key)
    if (problem !== undefined) return yield* new UsageError({ problem: `${key} ${problem}` })
    return { key, path, apply: (settings) => Settings.put(settings, key, json), removes: false }
  })

// ---------------------------------------------------------------------------------------------- what is told

const list = (words: ReadonlyArray<string>): string => words.join(", ")

/** What became of it, for people. No value is in it. */
export const render = (change: Reports.SettingChange): string => {
  const { daemon, key, milliseconds, needsRestart, overriddenBy, running, services, status, updater } = change
  switch (status) {
    case "alreadySet":
      return `${key} is set to this already; ${running ? "nothing was restarted" : "nothing runs"}`
    case "notSet":
      return `${key} is not set; nothing was changed`
    case "set":
    case "removed": {
      const restarted = [
        ...daemon === null ? [] : [`the daemon, now process ${daemon}`],
        ...updater === null ? [] : [`the updater, now process ${updater}`],
        ...services
      ]
      const what = restarted.length > 0
        ? `restarted ${list(restarted)} (${seconds(milliseconds)})`
        : needsRestart.length > 0
        ? `nothing was restarted`
        : running
        ? "it touches nothing that runs"
        : "nothing runs, it holds from the next start"
      return [
        `${status} ${key}; ${what}`,
        ...needsRestart.length === 0 ? [] : [`a restart is needed for ${list(needsRestart)}`],
        ...overriddenBy === null ? [] : [`${overriddenBy} wins over it`]
      ].join("; ")
    }
  }
}

const answer = (options: Options, change: Reports.SettingChange) =>
  Effect.as(
    print(
      options.json ? Schema.encodeSync(Schema.fromJsonString(Reports.SettingChange))(change) : render(change)
    ),
    Ending.code(0)
  )

const tellAll = (options: Options, file: string, settings: Settings.Settings) => {
  const all = [...settings].map(([key, value]) => ({ key, value: shown(key, value) }))
  const text = options.json
    ? Schema.encodeSync(Schema.fromJsonString(Reports.Settings))({ file, settings: all })
    : all.length === 0
    ? "nothing is set"
    : all.map(({ key, value }) => `${key} = ${JSON.stringify(value)}`).join("\n")
  return Effect.as(print(text), Ending.code(0))
}

// ---------------------------------------------------------------------------------------------- what is done

/** What was restarted. */
type Applied = Pick<Reports.SettingChange, "running" | "services" | "daemon" | "updater" | "needsRestart">

const nothing: Applied = { running: false, services: [], daemon: null, updater: null, needsRestart: [] }

/** Who runs the services of this configuration, daemon or not; none when nothing runs. */
const connect = ({ control, directory, file }: Effect.Success<ReturnType<typeof daemonOf>>) =>
  Effect.flatMap(control, (control) => Connection.attempt(file, { control, directory })).pipe(
    Effect.asSome,
    Effect.catchTag("NothingRuns", () => Effect.succeedNone)
  )

/** Has who runs the services read the configuration anew. */
const reload = (place: Effect.Success<ReturnType<typeof daemonOf>>) =>
  Effect.scoped(Effect.gen(function*() {
    const opened = yield* connect(place)
    if (Option.isNone(opened)) return nothing
    const last = yield* Stream.runLast(
      Stream.filter(opened.value.client.reload, (progress) => progress._tag === "Done")
    )
    const done = Option.isSome(last) && last.value._tag === "Done" ? last.value : undefined
    const outcomes = done?.outcomes ?? []
    if (outcomes.some(({ problem }) => problem !== null)) {
      return yield* new OperationFailed({ operation: "reload", outcomes })
    }
    return {
      ...nothing,
      running: true,
      services: outcomes.map(({ service }) => service),
      needsRestart: done?.report?.needsRestart ?? []
    }
  }))

/** A new value that is refused was never saved, so it can't be taken away. */
export const refused = (key: string, { issues: [first, ...others] }: InvalidConfig): InvalidConfig => {
  const removal = `; ${Settings.removal(key)}`
  const reworded = (issue: InvalidConfig["issues"][number]) =>
    issue.problem.endsWith(removal)
      ? { ...issue, problem: `${issue.problem.slice(0, -removal.length)}; nothing was changed` }
      : issue
  return new InvalidConfig({ issues: [reworded(first), ...others.map(reworded)] })
}

/** Until the end: one that ended between a stop and a start would leave the services down. */
const hold = Incoming.signals(["SIGHUP", "SIGINT", "SIGTERM"])

/** How long a daemon that is starting is waited for, in ms. */
const startingWithin = 10_000

/** Whether something other than a setting holds at the path. */
const overriding = (path: ConfigPath.Path, explained: ConfigFile.Loaded["explained"]): string | null => {
  const at = ConfigPath.format(path)
  const found = explained.find((value) =>
    (value.path === at || value.path.startsWith(`${at}.`) || value.path.startsWith(`${at}[`)) &&
    (value.origin._tag === "Variable" || value.origin._tag === "Flag")
  )
  return found === undefined ? null : ConfigOrigin.describe(found.origin)
}

const change = (options: Options, asked: Change) =>
  Effect.gen(function*() {
    const startedAt = performance.now()
    /** What a launch is made with: that of the settings that hold then. */
    let launched: Config | undefined = undefined
    const daemonPlace = yield* daemonOf({ file: options.file, flags: [] }, undefined, () => launched)
    const place = { ...daemonPlace, flags: [] }
    const { daemon, directory, file } = place
    const { folder } = daemon
    const platform = yield* ProcessPlatform
    const answerWith = (status: Reports.SettingChange["status"], applied: Applied, overriddenBy: string | null) =>
      answer(options, {
        status,
        key: asked.key,
        file: `${folder.path}/${Settings.name}`,
        ...applied,
        overriddenBy,
        milliseconds: Math.round(performance.now() - startedAt)
      })

    /** The record of the daemon that runs, when it is no longer starting. */
    const settled = Effect.gen(function*() {
      const until = performance.now() + startingWithin
      while (true) {
        const state = yield* PidRecord.read({ folder, platform })
        if (state._tag === "Running") return state
        if (state._tag !== "Starting") return undefined
        if (performance.now() > until) return state
        yield* Effect.sleep("50 millis")
      }
    })

    const withTurn = (turn: Daemon.Turn) =>
      Effect.gen(function*() {
        const found = yield* settled
        const runs = found !== undefined
        if (found !== undefined) {
          const { config: other, control, identity } = found.record
          if (other !== null && !ConfigPlace.isSame(file, other)) {
            return yield* new OtherConfiguration({ file, other, pid: identity.pid, address: control ?? directory })
          }
        }
        // Services that run all the same are no daemon's; those of another configuration are left alone.
        const running = runs || (yield* connect(place).pipe(
          Effect.scoped,
          Effect.map(Option.isSome),
          // What can't be talked to may be what this setting is about.
          Effect.catchIf(
            (error) => error._tag !== "OtherConfiguration",
            () => Effect.map(daemon.ask, Option.isSome)
          )
        ))
        const before = yield* Settings.read(folder)
        const after = asked.apply(before)
        const unchanged = { ...nothing, running }
        if (after === before) return yield* answerWith(asked.removes ? "notSet" : "alreadySet", unchanged, null)
        const loaded = yield* Effect.result(ConfigFile.load({ file, settings: after }))
        if (Result.isFailure(loaded)) {
          // Of two that can't be used one has to be the first to go.
          const usable = yield* Effect.result(ConfigFile.load({ file, settings: before }))
          if (!asked.removes || Result.isSuccess(usable)) return yield* refused(asked.key, loaded.failure)
          yield* Settings.write(folder, after)
          return yield* answerWith("removed", { ...unchanged, needsRestart: running ? [asked.key] : [] }, null)
        }
        const wanted = StateDirectory.directoryOf(file, loaded.success.config.daemon.directory)
        if (wanted !== directory) {
          const problem =
            `is ${wanted} by now, and the daemon is in ${directory}: end it first ("treeline daemon restart" `
            + "starts it anew there); nothing was changed"
          return yield* new InvalidConfig({ issues: [{ source: file, path: "daemon.directory", problem }] })
        }
        const status = asked.removes ? "removed" : "set"
        const overriddenBy = asked.removes ? null : overriding(asked.path, loaded.success.explained)
        if (options.noRestart) {
          yield* Settings.write(folder, after)
          return yield* answerWith(status, { ...unchanged, needsRestart: running ? [asked.key] : [] }, overriddenBy)
        }

        const touched = touchedBy(asked.path)
        const { config } = loaded.success
        const former = yield* Effect.option(ConfigFile.load({ file, settings: before }))
        const formerConfig = Option.getOrUndefined(former)?.config

        /** Ends the updater and starts the one that the settings want now; its pid. */
        const restartUpdater = (config: Config | undefined) =>
          Effect.gen(function*() {
            yield* Updater.stop(daemon)
            return config === undefined ? null : (yield* UpdaterProcess.ensure(place, config)).pid
          })
        // What has no room is told before anything is ended.
        const staged = yield* Settings.stage(folder, after)
        yield* Effect.addFinalizer(() => Effect.ignore(staged.discard))
        let committed = false
        const commit = Effect.tap(staged.commit, () => Effect.sync(() => void (committed = true)))
        /** What ran before runs again with the settings of before, also when those can't be put back. */
        const failed = (error: { readonly message: string }, again: Effect.Effect<unknown, unknown, ProcessPlatform>) =>
          Effect.gen(function*() {
            const written = yield* Effect.result(committed ? Settings.write(folder, before) : Effect.void)
            const unsaved = Result.isFailure(written) ? written.failure.message : null
            launched = formerConfig
            const restored = Result.isSuccess(yield* Effect.result(again))
            return yield* new SettingNotApplied({ key: asked.key, problem: error.message, unsaved, restored })
          })

        // One that another program has started is for that to start anew: it would be taken away from it.
        if (touched.daemon && (!runs || found.record.supervised === true)) {
          yield* commit
          // Whoever runs them has to be started anew.
          const needsRestart = running ? [String(asked.path[0])] : []
          return yield* answerWith(status, { ...unchanged, needsRestart }, overriddenBy)
        }
        if (touched.daemon) {
          yield* preflight(config, directory, daemon.self)
          yield* hold
          if (touched.updater) yield* Updater.stop(daemon)
          // Saved only when the old one has ended: a stop that fails leaves all as it is.
          const stopped = yield* Effect.result(turn.stop({ onWaiting: sayWaiting(options), leave: true }))
          if (Result.isFailure(stopped)) {
            const error = stopped.failure
            // The daemon has gone, and what it has left must go before the next one.
            const isGone = error._tag === "DaemonNotStopped" && error.reason === "Survived"
            if (isGone) return yield* failed(error, Effect.fail(error))
            return yield* touched.updater ? failed(error, restartUpdater(formerConfig)) : Effect.fail(error)
          }
          launched = config
          const started = yield* Effect.result(Effect.gen(function*() {
            yield* commit
            const { pid, status } = yield* turn.start()
            // Somebody else may have begun meanwhile, and what he read is not known.
            if (status !== "started") {
              return yield* new AlreadyRunning({ address: folder.path, pid, file: null })
            }
            return { pid, updater: touched.updater ? yield* restartUpdater(config) : null }
          }))
          if (Result.isSuccess(started)) {
            const { pid, updater } = started.success
            return yield* answerWith(status, { ...nothing, running: true, daemon: pid, updater }, overriddenBy)
          }
          const again = Effect.gen(function*() {
            yield* turn.start()
            if (touched.updater) yield* restartUpdater(formerConfig)
          })
          return yield* failed(started.failure, again)
        }
        if (touched.updater) {
          yield* hold
          yield* commit
          const restarted = yield* Effect.result(restartUpdater(runs ? config : undefined))
          if (Result.isSuccess(restarted)) {
            return yield* answerWith(status, { ...nothing, running: runs, updater: restarted.success }, overriddenBy)
          }
          return yield* failed(restarted.failure, restartUpdater(runs ? formerConfig : undefined))
        }
        yield* commit
        if (found?._tag === "Starting") {
          return yield* answerWith(status, { ...unchanged, needsRestart: [asked.key] }, overriddenBy)
        }
        const applied = yield* Effect.result(reload(place))
        if (Result.isSuccess(applied)) return yield* answerWith(status, applied.success, overriddenBy)
        return yield* failed(applied.failure, reload(place))
      }).pipe(Effect.scoped)
    return yield* Daemon.exclusively(daemon, "set", withTurn)
  })

export const set = Effect.fn("treeline set")((options: Options) =>
  onPlatform(Effect.gen(function*() {
    const asked = yield* changeOf(options)
    if (asked !== undefined) return yield* change(options, asked)
    const { directory } = yield* DaemonPlace.locate({ file: options.file, flags: [] })
    const folder = NodeStateFolder.make(directory)
    return yield* tellAll(options, `${folder.path}/${Settings.name}`, yield* Settings.read(folder))
  }))
)
