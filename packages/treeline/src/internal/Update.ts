/** `treeline daemon update`: one update, in the foreground. */
import * as Daemon from "@treeline/core/daemon/Daemon"
import type { Config } from "@treeline/core/daemon/ServiceConfig"
import * as Updater from "@treeline/core/daemon/Updater"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Reports from "../CommandReport.ts"
import * as ConfigFile from "../ConfigFile.ts"
import { notFetched, notManaged } from "./Bootstrap.ts"
import { daemonOf, onPlatform, type Options, print } from "./DaemonVerbs.ts"
import * as Ending from "./Ending.ts"
import * as Incoming from "./Incoming.ts"
import * as UpdaterProcess from "./UpdaterProcess.ts"

/** The exit code of each outcome; 75 as for every command that another one is in the way of. */
export const codes: Readonly<Record<Reports.DaemonUpdate["status"], number>> = {
  updated: 0,
  noUpdate: 0,
  disabled: 0,
  rolledBack: 1,
  busy: 75
}

/** An update for people. */
export const render = ({ current, detail, pid, status, version }: Reports.DaemonUpdate): string => {
  const what = version ?? current ?? "nothing"
  const why = detail === "" ? "" : `: ${detail}`
  switch (status) {
    case "updated":
      return `updated to ${what}${pid === null ? "; no daemon runs" : `; the daemon is process ${pid}`}`
    case "noUpdate":
      return `nothing new${why === "" ? `: ${what} is current` : why}`
    case "rolledBack":
      return `rolled back to ${what}${why}`
    case "busy":
      return `nothing was done${why === "" ? ": something else is at work" : why}`
    case "disabled":
      return `nothing was done: daemon.update.enabled is false${why}`
  }
}

/** One that runs is of the old version, whose folder a later update removes. */
const renewUpdater = (place: UpdaterProcess.Place, config: Config) =>
  Daemon.exclusively(place.daemon, "update", () =>
    Effect.gen(function*() {
      const { status } = yield* Updater.status(place.daemon)
      if (status !== "running") return
      yield* Updater.stop(place.daemon)
      yield* UpdaterProcess.ensure(place, config)
    }))

export const update = Effect.fn("treeline daemon update")((options: Options) =>
  onPlatform(Effect.gen(function*() {
    const loaded = yield* ConfigFile.load(options)
    const place = yield* daemonOf(options, loaded)
    const asked = yield* UpdaterProcess.optionsOf({ ...place, flags: options.flags }, loaded.config)
    if (asked === undefined) return yield* loaded.config.daemon.install === undefined ? notManaged : notFetched
    const done = yield* Incoming.untilAsked(Updater.update(asked))
    if (done._tag === "Asked") return Ending.signal(done.signal)
    const outcome = done.value
    if (outcome.status === "updated") yield* renewUpdater({ ...place, flags: options.flags }, loaded.config)
    yield* print(
      options.json ? Schema.encodeSync(Schema.fromJsonString(Reports.DaemonUpdate))(outcome) : render(outcome)
    )
    return Ending.code(codes[outcome.status])
  }))
)
