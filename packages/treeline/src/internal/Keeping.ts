/** Who keeps services that go on when their daemon ends: this very program, as `treeline shim`. */
import type { StateFolder } from "@treeline/core/daemon/StateFolder"
import * as NodeKeeper from "@treeline/platform-node/NodeKeeper"
import * as Detached from "./Detached.ts"

export const keepersOf = (folder: StateFolder) =>
  NodeKeeper.make({
    folder,
    shim: [process.execPath, ...process.execArgv, process.argv[1] ?? "", "shim"],
    launch: Detached.launch
  })
