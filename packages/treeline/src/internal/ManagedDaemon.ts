/** The managed install of a configuration: which program the daemon is, and whether it can be used. */
import * as ManagedInstall from "@treeline/core/daemon/ManagedInstall"
import type { Config } from "@treeline/core/daemon/ServiceConfig"
import * as UpdateFetch from "@treeline/core/daemon/UpdateFetch"
import type { InvalidSpec, ManagedInstallError, ManagedProgramUnusable } from "@treeline/core/Errors"
import type { ProcessIdentity } from "@treeline/core/ProcessIdentity"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeManagedInstall from "@treeline/platform-node/NodeManagedInstall"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as path from "node:path"

export interface Managed {
  readonly install: ManagedInstall.ManagedInstall
  /** The path of the program in a version. */
  readonly program: string
  /** How a version is fetched; undefined where nothing is. */
  readonly fetch: ManagedInstall.Fetch | undefined
}

/** The install in the state folder, or where the configuration says; undefined where there is none. */
export const managedOf = (
  config: Config,
  directory: string,
  self: ProcessIdentity
): Effect.Effect<Managed | undefined, InvalidSpec, ProcessPlatform> =>
  Effect.gen(function*() {
    const { install } = config.daemon
    if (install === undefined) return undefined
    const platform = yield* ProcessPlatform
    const fetch = install.fetch === undefined
      ? undefined
      : yield* UpdateFetch.command(ChildProcess.make(install.fetch.command, install.fetch.args), {
        within: install.fetch.within
      })
    return {
      install: NodeManagedInstall.make({
        directory: install.directory ?? path.join(directory, "install"),
        self,
        platform
      }),
      program: install.program,
      fetch
    }
  })

/** Refuses a current version whose program is missing or does not answer; nothing was ended yet then. */
export const preflight = (
  { install, program }: Managed
): Effect.Effect<ManagedInstall.Checked, ManagedInstallError | ManagedProgramUnusable, ProcessPlatform> =>
  Effect.flatMap(ManagedInstall.resolve(install, program), ({ id }) => ManagedInstall.check(install, id, program))

/** Which program runs as treeline: its first arguments are there, the others are for it. */
export interface Program {
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** The file, links resolved, where it is of a managed install. */
  readonly file: string | undefined
}

/**
 * The program of the version that is current now, or this one where nothing is managed. Asked at each launch (seeds C22,
 * C29).
 */
export const programOf = (
  managed: Managed | undefined
): Effect.Effect<Program, ManagedInstallError | ManagedProgramUnusable> =>
  managed === undefined
    ? Effect.succeed({ command: process.execPath, args: [...process.execArgv, process.argv[1] ?? ""], file: undefined })
    : Effect.map(
      ManagedInstall.resolve(managed.install, managed.program),
      ({ path }) => ({ command: path, args: [], file: path })
    )

/** The version of the install that a program is of; none when it is of no install. */
export const versionOf = ({ install }: Managed, program: string): string | undefined =>
  Option.getOrUndefined(install.versionOf(program))
