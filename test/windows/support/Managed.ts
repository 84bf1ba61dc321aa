/**
 * A small program that is kept in a managed install on Windows: a daemon, and the updater of it. Its versions are folders
 * with `app.cmd`, which tells the version, `version`, and `behaviour`; what runs is the fixture windowsManaged.ts.
 */
import type * as Daemon from "@treeline/core/daemon/Daemon"
import * as ManagedInstall from "@treeline/core/daemon/ManagedInstall"
import * as UpdateFetch from "@treeline/core/daemon/UpdateFetch"
import type * as Updater from "@treeline/core/daemon/Updater"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeManagedInstall from "@treeline/platform-node/NodeManagedInstall"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as WindowsDetached from "@treeline/platform-windows/WindowsDetached"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as fs from "node:fs"
import * as path from "node:path"
import { ask } from "../../support/Asking.ts"

/** `exits` before it is ready; `shy` is an updater that does not go on. */
export type Behaviour = "well" | "exits" | "shy"

/** What a fetch finds, from now on. */
export const publish = (directory: string, version: string, behaviour: Behaviour = "well"): void => {
  const folder = path.join(directory, `source-${version}`)
  fs.mkdirSync(folder)
  fs.writeFileSync(path.join(folder, "app.cmd"), `@echo app ${version}\r\n`)
  fs.writeFileSync(path.join(folder, "version"), version)
  fs.writeFileSync(path.join(folder, "behaviour"), behaviour)
  fs.writeFileSync(path.join(directory, "source.next"), folder)
  fs.renameSync(path.join(directory, "source.next"), path.join(directory, "source"))
}

export const stateOf = (directory: string): string => path.join(directory, "state")

export const pipeOf = (directory: string): string => `\\\\.\\pipe\\treeline-test-${path.basename(directory)}`

const hosts = process.env["TREELINE_HOSTS"]
const fixture = hosts === undefined
  ? path.join(import.meta.dirname, "../../fixtures/windowsManaged.ts")
  : `${hosts}/dist/bin/windowsManaged.js`

/** Starts the fixture as a version. */
export const launch = (
  directory: string,
  role: "daemon" | "updater",
  { path: program }: Pick<ManagedInstall.Program, "path">,
  variables: Readonly<Record<string, string>>
) =>
  WindowsDetached.launch({
    command: process.execPath,
    args: ["--conditions=source", fixture, path.dirname(program), role, directory],
    cwd: directory,
    env: { ...process.env, ...variables },
    output: path.join(stateOf(directory), `${role}.err`)
  })

const copy = `const fs = require("node:fs")
fs.cpSync(fs.readFileSync(process.argv[1], "utf8"), ".", { recursive: true })`

/** Options of `Updater.update` for the install of a folder. */
export const options = (directory: string) =>
  Effect.gen(function*() {
    const platform = yield* ProcessPlatform
    const self = Option.getOrThrow(yield* platform.identify(process.pid))
    const install = NodeManagedInstall.make({ directory: path.join(directory, "install"), self, platform })
    const daemon: Daemon.Daemon = {
      folder: NodeStateFolder.make(stateOf(directory)),
      self,
      launch: ManagedInstall.launcher(
        install,
        "app.cmd",
        (program, variables) => launch(directory, "daemon", program, variables)
      ),
      ask: ask(pipeOf(directory))
    }
    const options: Updater.Options = {
      daemon,
      install,
      program: "app.cmd",
      fetch: yield* UpdateFetch.command(
        ChildProcess.make(process.execPath, ["-e", copy, path.join(directory, "source")])
      ),
      readyWithin: 30_000,
      validateWithin: 10_000,
      // Somebody else may be slow here.
      lockWithin: 30_000
    }
    return options
  })
