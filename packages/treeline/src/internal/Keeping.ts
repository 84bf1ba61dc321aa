/** Who keeps services that go on when their daemon ends: this very program, as `treeline shim`. */
import type { StateFolder } from "@treeline/core/daemon/StateFolder"
import * as NodeKeeper from "@treeline/platform-node/NodeKeeper"
import * as Detached from "./Detached.ts"

/** A shim passes output on and keeps no other young objects; this makes it 5 MiB smaller. */
const small = "--max-semi-space-size=1"

export const keepersOf = (folder: StateFolder) =>
  NodeKeeper.make({
    folder,
    shim: [process.execPath, ...process.execArgv, small, process.argv[1] ?? "", "shim"],
    launch: Detached.launch
  })
