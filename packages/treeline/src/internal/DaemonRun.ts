/** `treeline daemon run`: the process of the daemon. */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import * as LogFile from "@treeline/core/daemon/LogFile"
import * as PidRecord from "@treeline/core/daemon/PidRecord"
import * as ServiceHost from "@treeline/core/daemon/ServiceHost"
import { DetachUnavailable } from "@treeline/core/Errors"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeControl from "@treeline/platform-node/NodeControl"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { Buffer } from "node:buffer"
import * as path from "node:path"
import * as ConfigFile from "../ConfigFile.ts"
import * as Treeline from "../Treeline.ts"
import * as DaemonPlace from "./DaemonPlace.ts"
import * as Detached from "./Detached.ts"
import * as Ending from "./Ending.ts"
import * as Incoming from "./Incoming.ts"
import { endElsewhere, keepersOf } from "./Keeping.ts"
import * as OwnIdentity from "./OwnIdentity.ts"
import * as OwnProcess from "./OwnProcess.ts"
import * as Words from "./Words.ts"

export interface Options {
  readonly file: string | undefined
  readonly flags: ReadonlyArray<string>
  readonly version: string
}

/** Its own log: what happens to the services, not what they write. */
const rotation = { maxBytes: 1024 * 1024, keep: 3 }

/** What a stop waits beyond the time that the services have, so that the daemon itself can end what is late, in ms. */
const margin = 5000

/**
 * The file that runs, links resolved: a link may lead somewhere else later (seed C22). A managed one is told which it is,
 * because it may be a script around this.
 */
const program = (): string => {
  const managed = OwnProcess.takeVariable(OwnProcess.programVariable)
  return managed === undefined || managed === "" ? OwnProcess.ownFile() : managed
}

/**
 * What systemd or the like is told, where it asks for it (sd_notify(3)); nothing elsewhere. The variables are not for the
 * services: what they would say would be taken for this process's word.
 */
const makeNotifier = Effect.gen(function*() {
  const socket = OwnProcess.takeVariable("NOTIFY_SOCKET")
  const pid = OwnProcess.takeVariable("WATCHDOG_PID")
  const period = OwnProcess.takeVariable("WATCHDOG_USEC")
  if (socket === undefined || socket === "" || process.platform !== "linux") return () => Effect.void
  const { send } = yield* Effect.promise(() => import("@treeline/platform-posix/ServiceNotify"))
  const notify = (message: string) =>
    Effect.suspend(() =>
      send(socket, message) ? Effect.void : Effect.logWarning(`${message} could not be sent to ${socket}`)
    )
  const watched = Number(period) / 1000
  // A third of the time: one that is late is no death yet.
  if (watched > 0 && (pid === undefined || Number(pid) === process.pid)) {
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(notify("WATCHDOG=1"), Effect.sleep(watched / 3))))
  }
  return notify
})

const daemon = Effect.fnUntraced(function*(options: Options) {
  const incoming = yield* Incoming.signals(["SIGHUP", "SIGINT", "SIGTERM"])
  const starter = OwnProcess.takeVariable(PidRecord.starterVariable)
  // Of the jobs around its starter only this process can know the outer ones.
  const confined = starter === undefined ? undefined : yield* Detached.unavailable
  if (confined !== undefined) return yield* new DetachUnavailable({ command: "the daemon", reason: confined })
  const notify = yield* makeNotifier
  const platform = yield* ProcessPlatform
  const loaded = yield* ConfigFile.load(options)
  const { config, file } = loaded
  const { control, directory } = yield* StateDirectory.locate({ file, daemon: config.daemon })
  yield* StateDirectory.make(directory)
  // Before anything else: of two only one goes on.
  const record = yield* PidRecord.take(
    { folder: NodeStateFolder.make(directory), platform },
    yield* OwnIdentity.identity,
    {
      version: options.version,
      program: program(),
      control: control._tag === "Socket" ? control.path : control.file,
      config: file,
      grace: config.daemon.stopWithin + margin,
      supervised: starter === undefined
    },
    starter
  )
  // Before the folder of before is forgotten.
  yield* endElsewhere(file, directory)
  const remembered = yield* Effect.result(DaemonPlace.remember(file, directory))
  const log = yield* LogFile.make(path.join(directory, "daemon.log"), rotation)
  const logger = Logger.map(Logger.formatLogFmt, (line) => log.append(Buffer.from(`${line}\n`), 1))

  return yield* Effect.scoped(Effect.gen(function*() {
    if (Result.isFailure(remembered)) {
      yield* Effect.logWarning(`with a broken configuration it won't be found: ${remembered.failure.message}`)
    }
    const listener = yield* NodeControl.listen(control)
    const keepers = yield* keepersOf(NodeStateFolder.make(directory))
    const begin = Effect.gen(function*() {
      const host = yield* ServiceHost.make({
        keepers,
        // A reload reads the same file, also when there is another one nearer by then.
        load: ConfigFile.load({ ...options, file }),
        loaded,
        file,
        version: options.version,
        pid: process.pid
      })
      yield* Effect.forkScoped(Stream.runForEach(host.events, (event) => {
        const text = Words.event(event)
        return text === undefined ? Effect.void : Effect.logInfo(text)
      }))
      yield* Layer.build(NodeControl.serve(host, listener))
      yield* record.ready(listener.address)
      return host
    })
    // What has gone on until now goes on when a restart or an update fails.
    const host = yield* Effect.onError(begin, () => keepers.leave)
    // So it does when the starter has given up meanwhile.
    let early = starter === undefined ? 0 : yield* Queue.size(incoming)
    yield* notify(`READY=1\nSTATUS=runs ${file}`)
    yield* Effect.logInfo(`treeline ${options.version} runs ${file}, process ${process.pid}`)

    let asked = false
    const end = (signal: string, keep: boolean) =>
      Effect.suspend(() => {
        const force = asked
        asked = true
        return Effect.all([
          notify("STOPPING=1\nSTATUS=ends its services"),
          Effect.logInfo(`${signal}: all services are ${force ? "killed" : "being ended"}`),
          Effect.forkScoped(Stream.runDrain(host.shutdown({ force, keep })))
        ], { discard: true })
      })
    const reload = Effect.gen(function*() {
      yield* Effect.logInfo("SIGHUP: the configuration is read anew")
      yield* notify(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`)
      yield* log.reopen.pipe(Effect.catch(({ message }) => Effect.logWarning(message)))
      yield* host.reopenLogs.pipe(Effect.catch(({ message }) => Effect.logWarning(message)))
      yield* Stream.runDrain(host.reload).pipe(
        Effect.catch(({ message }) => Effect.logWarning(`nothing was changed: ${message}`))
      )
      yield* notify("READY=1")
    })
    yield* Effect.forkScoped(Effect.forever(Effect.flatMap(
      Queue.take(incoming),
      (signal) => {
        const keep = early-- > 0
        return signal === "SIGHUP" ? Effect.forkScoped(reload) : end(signal, keep)
      }
    )))
    yield* Effect.tapError(host.awaitEnd, ({ message }) => Effect.logError(message))
    yield* Effect.logInfo("all services have ended")
    return Ending.code(0)
  })).pipe(Effect.provide(Logger.layer([logger])))
})

/** Runs the services until somebody asks for the end. */
export const run = Effect.fn("treeline daemon run")((options: Options) =>
  daemon(options).pipe(
    Effect.scoped,
    Effect.provide([Treeline.layer, NodeFileSystem.layer, NodePath.layer])
  )
)
