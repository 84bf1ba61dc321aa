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
import * as fs from "node:fs"
import * as path from "node:path"
import * as ConfigFile from "../ConfigFile.ts"
import * as ConfigPlace from "./ConfigPlace.ts"

export interface Options {
  readonly file: string | undefined
  readonly flags: ReadonlyArray<string>
}

// ---------------------------------------------------------------------------------------------- a folder elsewhere

/** In the usual folder: where the daemon was started last, when that was elsewhere. */
const pointerName = "place.json"

/** The folder of each configuration, by its file: several may be side by side. */
const Pointers = Schema.fromJsonString(Schema.Record(Schema.String, Schema.String))

const pointersOf = (text: string | undefined): Readonly<Record<string, string>> =>
  Option.getOrElse(Schema.decodeUnknownOption(Pointers)(text), () => ({}))

/**
 * Remembers a folder that is not the usual one, so that the daemon is found when its configuration can't be read any more
 * (seed C31). Called by who has the record of that folder.
 */
export const remember = (config: string, directory: string): Effect.Effect<void, StateFolderError> =>
  Effect.gen(function*() {
    const usual = StateDirectory.directoryOf(config)
    const folder = NodeStateFolder.make(usual)
    const before = pointersOf(yield* folder.read(pointerName))
    if (before[config] === (usual === directory ? undefined : directory)) return
    // A configuration that has gone has no daemon to be found.
    const others = Object.entries(before).filter(([file]) => file !== config && fs.existsSync(file))
    const text = Schema.encodeSync(Pointers)(
      Object.fromEntries(usual === directory ? others : [...others, [config, directory]])
    )
    // Daemons of two folders may be started at once: each has a draft of its own.
    const draft = `${pointerName}.${process.pid}.next`
    yield* folder.makeFolder(".")
    yield* folder.removeFile(draft)
    yield* folder.write(draft, text)
    yield* folder.replace(draft, pointerName)
  })

/** The folder that was remembered for this configuration. */
export const remembered = (config: string): Effect.Effect<string | undefined> =>
  NodeStateFolder.make(StateDirectory.directoryOf(config)).read(pointerName).pipe(
    Effect.orElseSucceed(() => undefined),
    Effect.map((text) => pointersOf(text)[config])
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
    const usual = options.flags.length > 0 || ConfigPlace.hasVariables()
      ? undefined
      : yield* StateDirectory.locate({ file })
    const state = usual === undefined ? undefined : yield* stateAt(usual.directory)
    const isDead = state?._tag === "Missing" || state?._tag === "Stale"
    if (usual !== undefined && !isDead) return { file, ...usual }
    if (loaded !== undefined) return { file, ...yield* StateDirectory.locate({ file, daemon: loaded.config.daemon }) }
    const found = yield* Effect.result(ConfigFile.place({ ...options, file }))
    if (Result.isSuccess(found)) return { file, ...yield* StateDirectory.locate({ file, daemon: found.success }) }
    // First where it was remembered: the record of a dead one may have stayed in the usual folder.
    const directory = yield* remembered(file)
    if (directory !== undefined && (yield* stateAt(directory))._tag !== "Missing") {
      return { file, ...yield* StateDirectory.locate({ file, daemon: { directory } }) }
    }
    return usual !== undefined && state?._tag === "Stale" ? { file, ...usual } : yield* found.failure
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
