/**
 * A small program that is kept in a managed install: a daemon, and the updater of it. Its versions are folders with
 * `app`, a script for the shell that becomes the fixture managed.ts, `version`, and `behaviour`.
 */
import type * as Daemon from "@treeline/core/daemon/Daemon"
import * as ManagedInstall from "@treeline/core/daemon/ManagedInstall"
import * as UpdateFetch from "@treeline/core/daemon/UpdateFetch"
import type * as Updater from "@treeline/core/daemon/Updater"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeDetached from "@treeline/platform-node/NodeDetached"
import * as NodeManagedInstall from "@treeline/platform-node/NodeManagedInstall"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as fs from "node:fs"
import * as path from "node:path"
import { ask } from "./Asking.ts"
import * as Daemons from "./Daemons.ts"
import { program } from "./Programs.ts"

/**
 * How a version behaves: `well`; `hangs` never gets ready; `exits` before that; `mute` and `rubbish` don't answer
 * `--version`; `failing` is found not to be as it should; `shy` is an updater that does not go on.
 */
export type Behaviour = "well" | "hangs" | "exits" | "mute" | "rubbish" | "failing" | "shy"

const answers: Partial<Record<Behaviour, string>> = { mute: "exec sleep 60", rubbish: "echo hello; exit" }

const scriptOf = (version: string, behaviour: Behaviour): string =>
  `#!/bin/sh
[ "$1" = --version ] && { ${answers[behaviour] ?? `echo "app ${version}"; exit`}; }
exec '${process.execPath}' '${program("managed")}' "\${0%/*}" "$@"
`

/** What a fetch finds: the version, from now on. It is replaced in one step. */
export const publish = (place: Daemons.Place, version: string, behaviour: Behaviour = "well"): void => {
  const source = place.file("source")
  const next = place.file(`source-${version}`)
  fs.mkdirSync(next)
  fs.writeFileSync(path.join(next, "app"), scriptOf(version, behaviour), { mode: 0o755 })
  fs.writeFileSync(path.join(next, "version"), version)
  fs.writeFileSync(path.join(next, "behaviour"), behaviour)
  fs.symlinkSync(next, `${source}.next`)
  fs.renameSync(`${source}.next`, source)
}

/** How a process that is told to stop somewhere is told it: the phase, or nothing. */
export const stopVariable = "TEST_STOP_AT"

/** A script for the shell that fetches, where it is not a copy of what is published. */
export const fetchVariable = "TEST_FETCH"

/** Options of `Updater.update` for the install of a place. */
export const options = (place: Daemons.Place, more: Partial<Updater.Options> = {}) =>
  Effect.gen(function*() {
    const platform = yield* ProcessPlatform
    const folder = Daemons.folderOf(place)
    const self = Option.getOrThrow(yield* platform.identify(process.pid))
    const install = NodeManagedInstall.make({ directory: place.file("install"), self, platform })
    const daemon: Daemon.Daemon = {
      folder: NodeStateFolder.make(folder),
      self,
      launch: ManagedInstall.launcher(install, "app", ({ path: command }, variables) =>
        NodeDetached.launch({
          command,
          args: ["daemon", place.directory],
          cwd: place.directory,
          env: { ...Daemons.environment(place), ...variables },
          output: path.join(folder, "daemon.err")
        })),
      ask: ask(path.join(folder, "control.sock"))
    }
    const script = process.env[fetchVariable]
    const fetch = yield* UpdateFetch.command(
      script === undefined
        ? ChildProcess.make("cp", ["-R", `${place.file("source")}/.`, "."])
        : ChildProcess.make("sh", [script])
    )
    const options: Updater.Options = {
      daemon,
      install,
      program: "app",
      fetch,
      readyWithin: 5000,
      validateWithin: 5000,
      grace: 5000,
      validate: ({ version }) =>
        version.endsWith("-failing") ? Effect.fail({ message: "its answers are wrong" }) : Effect.void,
      ...more
    }
    return options
  })
