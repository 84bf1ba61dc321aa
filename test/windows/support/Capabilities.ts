/**
 * What WindowsPlatform has.
 */
import type { Conformance } from "@treeline/core/testing"
import { Effect } from "effect"
import * as os from "node:os"
import { windowsPrograms } from "../../fixtures/windowsPrograms.ts"
import { identify, killIfAlive } from "./Processes.ts"

export const capabilities: Conformance.Capabilities = {
  programs: windowsPrograms,
  level: "sealed",
  signals: false,
  politeRequests: true,
  escapes: true,
  additionalFds: true,
  release: true,
  directory: os.tmpdir(),
  // Three times Node, one after the other.
  reportsWithin: 4_000,
  isAlive: (pid) => Effect.sync(() => identify(pid) !== undefined),
  kill: (pid) =>
    Effect.sync(() => {
      const identity = identify(pid)
      if (identity !== undefined) killIfAlive(identity)
    })
}
