/** `treeline up` from its arguments to its end: the configuration, the control socket, the services. */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import type * as ConfigLoad from "@treeline/core/daemon/ConfigLoad"
import * as PidRecord from "@treeline/core/daemon/PidRecord"
import * as ServiceHost from "@treeline/core/daemon/ServiceHost"
import { AlreadyRunning, InvalidConfig } from "@treeline/core/Errors"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeControl from "@treeline/platform-node/NodeControl"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ConfigFile from "../ConfigFile.ts"
import * as ConfigPlace from "./ConfigPlace.ts"
import * as Console from "./Console.ts"
import { OtherConfiguration, UsageError } from "./Failure.ts"
import { keepersOf } from "./Keeping.ts"
import * as Selection from "./Selection.ts"
import * as Up from "./Up.ts"

export interface Options extends Up.Options {
  readonly file: string | undefined
  readonly flags: ReadonlyArray<string>
  readonly names: ReadonlyArray<string>
  readonly version: string
}

const chosen = <L extends ConfigLoad.Loaded>(loaded: L, names: ReadonlyArray<string>) =>
  Effect.map(Effect.fromResult(Selection.select(loaded.config, names)), (config) => ({ ...loaded, config }))

export const upCommand = Effect.fn("treeline up")(function*(options: Options) {
  const loaded = yield* Effect.flatMap(ConfigFile.load(options), (loaded) => chosen(loaded, options.names))
  const { config, file } = loaded
  if (Object.keys(config.services).length + Object.keys(config.pools).length === 0) {
    return yield* new UsageError({ problem: `${file} has no services` })
  }
  // A reload reads the same file, also when there is another one nearer by then.
  const load = ConfigFile.load({ ...options, file }).pipe(
    Effect.flatMap((loaded) => chosen(loaded, options.names)),
    Effect.catchTag(
      "UnknownName",
      ({ message }) => new InvalidConfig({ issues: [{ source: file, path: "services", problem: message }] })
    )
  )
  const { control, directory } = yield* StateDirectory.locate({ file, daemon: config.daemon })
  const { ending, report } = yield* Effect.scoped(Effect.gen(function*() {
    // Before anything starts: two that run the same services would fight over their ports.
    const listener = yield* Effect.mapError(NodeControl.listen(control), (error) => {
      if (error._tag !== "AlreadyRunning") return error
      const { address, file: other, pid } = error
      return other === null || ConfigPlace.isSame(file, other)
        ? error
        : new OtherConfiguration({ file, other, pid, address })
    })
    const folder = NodeStateFolder.make(directory)
    // One that listens elsewhere, or does not listen yet: what is kept is its own.
    const state = yield* PidRecord.read({ folder, platform: yield* ProcessPlatform })
    if (state._tag === "Starting" || state._tag === "Running") {
      const { config: other, control, identity } = state.record
      return yield* new AlreadyRunning({ address: control ?? directory, pid: identity.pid, file: other })
    }
    if (state._tag === "Unreadable" || state._tag === "Unsure") return yield* PidRecord.undecided(state)
    // A daemon that died may have left what is to run here now.
    const keepers = yield* keepersOf(folder)
    yield* keepers.end((service) => Object.hasOwn(config.services, service))
    return yield* Up.up(
      { ...options, file },
      ServiceHost.make({ load, loaded, file, version: options.version, pid: process.pid }),
      (host) => Layer.build(NodeControl.serve(host, listener))
    )
  }))
  if (options.json) yield* Effect.promise(() => Console.printLast(1, report))
  return ending
}, Effect.provide([NodeFileSystem.layer, NodePath.layer]))
