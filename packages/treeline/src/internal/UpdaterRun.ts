/** `treeline daemon updater`: the process that updates the managed install again and again. */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import * as LogFile from "@treeline/core/daemon/LogFile"
import * as Updater from "@treeline/core/daemon/Updater"
import * as NodeReplace from "@treeline/platform-node/NodeReplace"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import { Buffer } from "node:buffer"
import * as path from "node:path"
import * as ConfigFile from "../ConfigFile.ts"
import { notFetched } from "./Bootstrap.ts"
import { daemonOf, onPlatform, type Options as DaemonOptions } from "./DaemonVerbs.ts"
import * as Ending from "./Ending.ts"
import * as Incoming from "./Incoming.ts"
import * as OwnProcess from "./OwnProcess.ts"
import * as Update from "./Update.ts"
import * as UpdaterProcess from "./UpdaterProcess.ts"

export type Options = Omit<DaemonOptions, "json">

/** Its log. */
const rotation = { maxBytes: 1024 * 1024, keep: 3 }

interface Started {
  /** Which file this is, where it is of a managed install. */
  readonly program: string | undefined
  readonly predecessor: string | undefined
}

/** One life of it: until somebody asks for the end, or another version is to take its place. */
const live = (options: Options, { predecessor, program }: Started, incoming: Queue.Dequeue<NodeJS.Signals>) =>
  Effect.gen(function*() {
    const loaded = yield* ConfigFile.load(options)
    const { config, file } = loaded
    const place = { ...yield* daemonOf(options, loaded), flags: options.flags }
    const asked = yield* UpdaterProcess.optionsOf(place, config)
    if (asked === undefined) return yield* notFetched
    yield* StateDirectory.make(place.directory)
    const log = yield* LogFile.make(path.join(place.directory, "updater.log"), rotation)
    const logger = Logger.map(Logger.formatLogFmt, (line) => log.append(Buffer.from(`${line}\n`), 1))
    const { first, interval, jitter } = config.daemon.update
    const own = program === undefined ? null : Option.getOrNull(asked.install.versionOf(program))
    const running = Updater.run({
      ...asked,
      version: options.version,
      first,
      interval,
      jitter,
      predecessor,
      replacing: {
        own,
        // A process that can't become another one starts it, and waits until it goes on.
        launch: NodeReplace.unavailable() === undefined
          ? undefined
          : (successor) =>
            UpdaterProcess.launch(
              place,
              { command: successor.program.path, args: [], file: successor.program.path },
              successor.variables
            )
      },
      onPass: (result) => Result.isSuccess(result) ? Effect.logInfo(Update.render(result.success)) : Effect.void
    })
    const end = yield* Effect.andThen(
      Effect.logInfo(`treeline ${options.version} updates ${file}, process ${process.pid}`),
      Incoming.untilAsked(running, Effect.succeed(incoming))
    ).pipe(
      Effect.tapError(({ message }) => Effect.logError(message)),
      Effect.tap((end) => Effect.logInfo(end._tag === "Asked" ? `${end.signal}: it ends` : "another version goes on")),
      Effect.provide(Logger.layer([logger]))
    )
    return { end, file }
  }).pipe(Effect.scoped, Effect.provide([NodeFileSystem.layer, NodePath.layer]), onPlatform)

/** Goes on until it is asked to end. A version that can't take its place leaves it as it is. */
export const run = Effect.fn("treeline daemon updater")(function*(options: Options) {
  let started: Started = {
    program: OwnProcess.takeVariable(OwnProcess.programVariable) || undefined,
    predecessor: OwnProcess.takeVariable(Updater.predecessorVariable) || undefined
  }
  const incoming = yield* Incoming.endings
  while (true) {
    const { end, file } = yield* live(options, started, incoming)
    if (end._tag === "Asked" || end.value._tag === "HandedOver") return Ending.code(0)
    // One that came since would be lost with this program.
    if (Option.isSome(yield* Queue.poll(incoming))) return Ending.code(0)
    const { program, variables } = end.value.successor
    yield* Effect.ignore(NodeReplace.become({
      command: program.path,
      args: UpdaterProcess.argumentsOf({ args: [] }, file, options.flags),
      env: { ...process.env, ...variables, [OwnProcess.programVariable]: program.path }
    }))
    // It has kept its claim for the successor, and takes it over itself.
    started = { program: started.program, predecessor: variables[Updater.predecessorVariable] }
  }
})
