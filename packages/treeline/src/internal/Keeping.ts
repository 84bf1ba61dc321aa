/** Who keeps services that go on when their daemon ends: this very program, as `treeline shim`. */
import * as PidRecord from "@treeline/core/daemon/PidRecord"
import type { StateFolder } from "@treeline/core/daemon/StateFolder"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeKeeper from "@treeline/platform-node/NodeKeeper"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as DaemonPlace from "./DaemonPlace.ts"
import * as Detached from "./Detached.ts"

/** A shim passes output on and keeps no other young objects; this makes it 5 MiB smaller. */
const small = "--max-semi-space-size=1"

export const keepersOf = (folder: StateFolder) =>
  NodeKeeper.make({
    folder,
    shim: [process.execPath, ...process.execArgv, small, process.argv[1] ?? "", "shim"],
    launch: Detached.launch
  })

/**
 * Ends what is kept in other folders of this configuration, the usual one and that of the last start: a daemon whose
 * state is in `directory` would not find it, and start it a second time. What a living daemon keeps there is its own.
 * A folder that can't be read keeps nothing from its start. The names of those that were ended.
 */
export const endElsewhere = Effect.fnUntraced(function*(config: string, directory: string) {
  const platform = yield* ProcessPlatform
  const remembered = yield* DaemonPlace.remembered(config)
  const places = new Set([StateDirectory.directoryOf(config), ...remembered === undefined ? [] : [remembered]])
  places.delete(directory)
  const ended = yield* Effect.forEach(places, (place) =>
    Effect.gen(function*() {
      const folder = NodeStateFolder.make(place)
      const { _tag } = yield* PidRecord.read({ folder, platform })
      if (_tag !== "Missing" && _tag !== "Stale") return []
      return yield* (yield* keepersOf(folder)).end(() => true)
    }).pipe(
      Effect.catchTag("StateFolderError", ({ message }) =>
        Effect.as(Effect.logWarning(`what is kept there is not known: ${message}`), []))
    ))
  return ended.flat()
})
