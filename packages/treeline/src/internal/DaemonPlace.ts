/** Where the daemon of a configuration keeps its state, and where it is talked to. */
import * as PidRecord from "@treeline/core/daemon/PidRecord"
import type { StateFolder } from "@treeline/core/daemon/StateFolder"
import type { StateFolderError } from "@treeline/core/Errors"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as path from "node:path"
import * as ConfigFile from "../ConfigFile.ts"

export interface Options {
  readonly file: string | undefined
  readonly flags: ReadonlyArray<string>
}

/** Variables that say where the daemon's folder is; see `daemon` of the configuration. */
const hasVariables = (): boolean => Object.keys(process.env).some((name) => name.startsWith("TREELINE_DAEMON__"))

// ---------------------------------------------------------------------------------------------- a folder elsewhere

/** In the usual folder: where the daemon was started last, when that was elsewhere. */
const pointerName = "place.json"

const Pointer = Schema.fromJsonString(Schema.Struct({ config: Schema.String, directory: Schema.String }))

/**
 * Remembers a folder that is not the usual one, so that the daemon is found when its configuration can't be read any more
 * (seed C31). Called by who has the record of that folder.
 */
export const remember = (config: string, directory: string): Effect.Effect<void, StateFolderError> =>
  Effect.gen(function*() {
    const usual = StateDirectory.directoryOf(config)
    if (usual === directory) return
    const folder = NodeStateFolder.make(usual)
    const text = Schema.encodeSync(Pointer)({ config, directory })
    if ((yield* folder.read(pointerName)) === text) return
    // Daemons of two folders may be started at once: each has a draft of its own.
    const draft = `${pointerName}.${process.pid}.next`
    yield* folder.makeFolder(".")
    yield* folder.removeFile(draft)
    yield* folder.write(draft, text)
    yield* folder.replace(draft, pointerName)
  })

/** The folder that was remembered for this configuration. */
const remembered = (config: string): Effect.Effect<string | undefined> =>
  NodeStateFolder.make(StateDirectory.directoryOf(config)).read(pointerName).pipe(
    Effect.orElseSucceed(() => undefined),
    Effect.map((text) => {
      const pointer = Schema.decodeUnknownOption(Pointer)(text)
      return Option.isSome(pointer) && pointer.value.config === config ? pointer.value.directory : undefined
    })
  )

// ---------------------------------------------------------------------------------------------- where things are

const stateAt = (directory: string) =>
  Effect.flatMap(
    ProcessPlatform,
    (platform) => PidRecord.read({ folder: NodeStateFolder.make(directory), platform })
  )

/**
 * Where things are. First where they are unless the configuration says otherwise: when a daemon has its record there the
 * configuration need not be read at all. When it can't be read, where the daemon was started last (seed C31).
 * `loaded` is what it says, where it has been read.
 */
export const locate = (options: Options, loaded?: ConfigFile.Loaded) =>
  Effect.gen(function*() {
    const file = loaded?.file ?? (yield* ConfigFile.locate(options))
    const usual = options.flags.length > 0 || hasVariables() ? undefined : yield* StateDirectory.locate({ file })
    const state = usual === undefined ? undefined : yield* stateAt(usual.directory)
    const isDead = state?._tag === "Missing" || state?._tag === "Stale"
    if (usual !== undefined && !isDead) return { file, ...usual }
    if (loaded !== undefined) return { file, ...yield* StateDirectory.locate({ file, daemon: loaded.config.daemon }) }
    const found = yield* Effect.result(ConfigFile.place({ ...options, file }))
    if (Result.isSuccess(found)) return { file, ...yield* StateDirectory.locate({ file, daemon: found.success }) }
    if (usual !== undefined && state?._tag === "Stale") return { file, ...usual }
    const directory = yield* remembered(file)
    if (directory === undefined || (yield* stateAt(directory))._tag === "Missing") return yield* found.failure
    return { file, ...yield* StateDirectory.locate({ file, daemon: { directory } }) }
  })

/**
 * Where the daemon is talked to that has the record, which may have been started with another configuration; `configured`
 * when none has it.
 */
export const controlOf = (
  folder: StateFolder,
  configured: StateDirectory.ControlAddress
): Effect.Effect<StateDirectory.ControlAddress, never, ProcessPlatform> =>
  Effect.gen(function*() {
    const state = yield* PidRecord.read({ folder, platform: yield* ProcessPlatform })
    if ((state._tag !== "Running" && state._tag !== "Starting") || state.record.control === null) return configured
    const { control } = state.record
    const port = path.join(folder.path, StateDirectory.portFileName)
    return path.isAbsolute(control) && control !== port
      ? { _tag: "Socket", path: control, link: null } as const
      : { _tag: "Port", port: null, file: port } as const
  }).pipe(Effect.orElseSucceed(() => configured))
