import { ActorConformance, Conformance } from "@treeline/core/testing"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import { posixPrograms } from "../fixtures/posixPrograms.ts"
import { identify, killIfAlive } from "../support/Processes.ts"

const posix: Omit<Conformance.Capabilities, "level"> = {
  programs: posixPrograms,
  signals: true,
  escapes: true,
  additionalFds: true,
  release: true,
  directory: fs.realpathSync(os.tmpdir()),
  isAlive: (pid) => Effect.sync(() => identify(pid) !== undefined),
  kill: (pid) =>
    Effect.sync(() => {
      const identity = identify(pid)
      if (identity !== undefined) killIfAlive(identity)
    })
}

/** Both suites. */
const holdAgainst = (name: string, options: PosixPlatform.Options, level: Conformance.Capabilities["level"]) => {
  const layer = PosixPlatform.layerWith(options)
  Conformance.suite(name, layer, { ...posix, level })
  ActorConformance.suite(name, layer, { ...posix, level })
}

holdAgainst("PosixPlatform", {}, "tagged")
holdAgainst("PosixPlatform without native code", { engine: "portable" }, "tagged")
holdAgainst("PosixPlatform without the tag", { tag: false }, "marked")

// As on macOS, but for the environment of the system's own programs, which `ps` shows on Linux.
holdAgainst("PosixPlatform with ps", { table: "ps", tag: false }, "marked")
