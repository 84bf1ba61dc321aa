import { Conformance } from "@treeline/core/testing"
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

Conformance.suite("PosixPlatform", PosixPlatform.layer, { ...posix, level: "tagged" })

Conformance.suite("PosixPlatform without native code", PosixPlatform.layerWith({ engine: "portable" }), {
  ...posix,
  level: "tagged"
})

Conformance.suite("PosixPlatform without the tag", PosixPlatform.layerWith({ tag: false }), {
  ...posix,
  level: "marked"
})

// As on macOS, but for the environment of the system's own programs, which `ps` shows on Linux.
Conformance.suite("PosixPlatform with ps", PosixPlatform.layerWith({ table: "ps", tag: false }), {
  ...posix,
  level: "marked"
})
