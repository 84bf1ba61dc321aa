/**
 * Where the records of services that run are, and where they are controlled. Server and client come to the same place from
 * the same configuration.
 */
import { InvalidSpec } from "@treeline/core/Errors"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { Buffer } from "node:buffer"
import { createHash } from "node:crypto"
import * as os from "node:os"
import * as path from "node:path"
import * as OwnFolder from "./internal/OwnFolder.ts"

/**
 * Where control is reached.
 *
 * - `Socket`: a Unix socket. `link` is there where the path that the configuration means is too long for one: the server
 *   puts a symbolic link there that leads to `path`.
 * - `Port`: on 127.0.0.1; null is one that the system chooses. `file` says which, and the token: see `NodeControl`.
 */
export type ControlAddress =
  | { readonly _tag: "Socket"; readonly path: string; readonly link: string | null }
  | { readonly _tag: "Port"; readonly port: number | null; readonly file: string }

/** Where things are. All paths are absolute. */
export interface StateDirectory {
  /** Of records, logs and, unless the configuration says otherwise, the socket. It may not be there yet. */
  readonly directory: string
  readonly control: ControlAddress
}

export interface Options {
  /** The configuration file. Relative paths of it are in its folder. */
  readonly file: string
  /** Of the configuration. */
  readonly daemon?: {
    readonly directory?: string | undefined
    readonly socket?: string | undefined
    readonly port?: number | undefined
  }
  /** Default: that of the process. `XDG_RUNTIME_DIR` is read. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined
  /** Default: that of the process. */
  readonly platform?: NodeJS.Platform | undefined
}

/** The folder beside the configuration file. */
export const defaultName = ".treeline"

/** The state folder of a configuration file; nothing is made. `named` is its `daemon.directory`. */
export const directoryOf = (file: string, named?: string): string =>
  path.resolve(path.dirname(path.resolve(file)), named ?? defaultName)

/** The socket, in it. */
export const socketName = "control.sock"

/** What a client of a port has to know, in it. */
export const portFileName = "control.json"

/**
 * The longest path of a Unix socket in bytes: `sun_path` of unix(7) without the zero at its end. macOS and the BSDs have
 * four bytes less than Linux.
 */
export const longestSocketPath = (platform: NodeJS.Platform = process.platform): number =>
  platform === "linux" || platform === "android" ? 107 : 103

/** The name of a folder in a shared one that is this user's only. */
const ownName = (): string => `treeline-${process.geteuid?.() ?? os.userInfo().username}`

/** Where a socket is whose own path is too long: always the same for the same path. */
const shortPath = (long: string, environment: NonNullable<Options["environment"]>): string => {
  const runtime = environment["XDG_RUNTIME_DIR"]
  const base = runtime !== undefined && path.isAbsolute(runtime) ? runtime : os.tmpdir()
  return path.join(base, ownName(), `${createHash("sha256").update(long).digest("hex").slice(0, 32)}.sock`)
}

/**
 * Where things are for a configuration. Nothing is made. Fails where the configuration asks for a socket whose path is too
 * long for the system (unix(7): 107 bytes on Linux, 103 elsewhere). A path that nobody asked for may be as long as it is:
 * the socket is then in `XDG_RUNTIME_DIR` or the folder for temporary files, in a folder that is this user's only.
 *
 * @example
 * ```ts
 * import { StateDirectory } from "@treeline/platform-node"
 * import { Effect } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const { control, directory } = await Effect.runPromise(
 *   StateDirectory.locate({ file: "/srv/shop/treeline.json", platform: "linux" })
 * )
 * deepStrictEqual(directory, "/srv/shop/.treeline")
 * deepStrictEqual(control, { _tag: "Socket", path: "/srv/shop/.treeline/control.sock", link: null })
 * ```
 */
export const locate = Effect.fn("StateDirectory.locate")(function*(
  options: Options
): Effect.fn.Return<StateDirectory, InvalidSpec> {
  return yield* Effect.fromResult(decide(options))
})

const decide = (
  { daemon = {}, environment = process.env, file, platform = process.platform }: Options
): Result.Result<StateDirectory, InvalidSpec> => {
  const here = path.dirname(path.resolve(file))
  const directory = directoryOf(file, daemon.directory)
  if (daemon.port !== undefined || (platform === "win32" && daemon.socket === undefined)) {
    const control = { _tag: "Port", port: daemon.port ?? null, file: path.join(directory, portFileName) } as const
    return Result.succeed({ directory, control })
  }
  const limit = longestSocketPath(platform)
  const wanted = path.resolve(here, daemon.socket ?? path.join(directory, socketName))
  if (fits(wanted, limit)) return Result.succeed({ directory, control: { _tag: "Socket", path: wanted, link: null } })
  const problem = `the path ${wanted} is longer than the ${limit} bytes that this system takes for a socket`
  if (daemon.socket !== undefined) return Result.fail(new InvalidSpec({ field: "daemon.socket", problem }))
  const short = shortPath(wanted, environment)
  return fits(short, limit)
    ? Result.succeed({ directory, control: { _tag: "Socket", path: short, link: wanted } })
    : Result.fail(new InvalidSpec({ field: "daemon.socket", problem: `${problem}, and so is ${short}` }))
}

/** The address of something else in a state folder that listens: a socket of this name, or a port that its file tells. */
export const addressIn = (
  directory: string,
  name: string,
  { environment = process.env, platform = process.platform }: Pick<Options, "environment" | "platform"> = {}
): ControlAddress => {
  if (platform === "win32") return { _tag: "Port", port: null, file: path.join(directory, `${name}.json`) }
  const wanted = path.join(directory, `${name}.sock`)
  return fits(wanted, longestSocketPath(platform))
    ? { _tag: "Socket", path: wanted, link: null }
    : { _tag: "Socket", path: shortPath(wanted, environment), link: wanted }
}

const fits = (file: string, limit: number): boolean => Buffer.byteLength(file) <= limit

/**
 * Makes a folder that only this user may enter, with those above it that are missing, and checks it: that it is this
 * user's, no symbolic link, and has the mode 0700. One that is there already is never changed. `field` is what the error
 * names.
 */
export const make = Effect.fn("StateDirectory.make")(function*(
  directory: string,
  field = "daemon.directory"
): Effect.fn.Return<void, InvalidSpec> {
  const problem = yield* Effect.sync(() => OwnFolder.make(directory))
  if (problem !== undefined) return yield* new InvalidSpec({ field, problem: `${directory} ${problem}` })
})
