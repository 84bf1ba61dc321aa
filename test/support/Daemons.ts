/** Daemons of a test: the fixture daemon.ts in a state folder of the test's own. */
import type * as Daemon from "@treeline/core/daemon/Daemon"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeDetached from "@treeline/platform-node/NodeDetached"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as PosixPlatform from "@treeline/platform-posix/PosixPlatform"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { ask } from "./Asking.ts"
import { engine } from "./Host.ts"
import { program } from "./Programs.ts"

/** Where a test keeps its files; a `Scratch` is one. */
export interface Place {
  readonly directory: string
  readonly report: string
  readonly file: (name: string) => string
}

export const folderOf = (scratch: Place): string => scratch.file("state")

/** The command of the fixture. */
export const commandOf = (scratch: Place, behaviour: string): ReadonlyArray<string> => [
  process.execPath,
  program("daemon"),
  folderOf(scratch),
  scratch.report,
  behaviour
]

/** The environment of the fixture: records of hosts are the test's own. */
export const environment = (scratch: Place): Record<string, string> => ({
  PATH: process.env["PATH"] ?? "/usr/bin:/bin",
  ...engine,
  TMPDIR: scratch.directory,
  HOME: scratch.directory,
  NODE_COMPILE_CACHE: fileURLToPath(new URL("../../node_modules/.cache/treeline/daemons", import.meta.url))
})

/** A daemon as commands know it. */
export const make = (scratch: Place, behaviour = "well") =>
  Effect.gen(function*() {
    const platform = yield* ProcessPlatform
    const folder = folderOf(scratch)
    const [command = "", ...args] = commandOf(scratch, behaviour)
    const daemon: Daemon.Daemon = {
      folder: NodeStateFolder.make(folder),
      self: Option.getOrThrow(yield* platform.identify(process.pid)),
      launch: (variables) =>
        NodeDetached.launch({
          command,
          args,
          cwd: scratch.directory,
          env: { ...environment(scratch), ...variables },
          output: path.join(folder, "daemon.err")
        }),
      ask: ask(path.join(folder, "control.sock"))
    }
    return daemon
  })

/** The platform of a test's commands. */
export const layer = PosixPlatform.layerWith({ sweepOrphaned: false })
