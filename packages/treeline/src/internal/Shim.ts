/**
 * `treeline shim FOLDER SERVICE`: the process that keeps one service; see `NodeKeeper`. For Treeline itself only, so it
 * is in no help, and it begins without the command line.
 */
import * as Claim from "@treeline/core/daemon/Claim"
import * as ControlProtocol from "@treeline/core/daemon/ControlProtocol"
import * as ControlServer from "@treeline/core/daemon/ControlServer"
import * as Kept from "@treeline/core/daemon/Kept"
import * as PidRecord from "@treeline/core/daemon/PidRecord"
import * as Shim from "@treeline/core/daemon/Shim"
import * as ShimHost from "@treeline/core/daemon/ShimHost"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as NodeControl from "@treeline/platform-node/NodeControl"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Rpc from "effect/rpc/Rpc"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import * as SocketServer from "effect/socket/SocketServer"
import * as fs from "node:fs"
import * as Treeline from "../Treeline.ts"
import * as Incoming from "./Incoming.ts"
import * as OwnProcess from "./OwnProcess.ts"

/** Lines that a shim writes at most: one that is attended ten times a day writes for a year. */
const mostLines = 10_000

/** What happens, to stderr: a file beside the claim. */
const logger = () => {
  let lines = 0
  return Logger.map(Logger.formatLogFmt, (line) => {
    if (lines++ >= mostLines) return
    try {
      fs.writeSync(2, `${line}\n`)
    } catch {
      // a full disk must not end what it keeps
    }
  })
}

/** A launch has all arguments and variables: the system takes 2 MiB of them (execve(2)). */
const largestFrame = 8 * 1024 * 1024

/** A daemon that is stopped, or on a machine that sleeps, is no reason to close its connection, in ms. */
const takeWithin = 24 * 3_600_000

const keep = Effect.fnUntraced(function*(directory: string, service: string, version: string) {
  const incoming = yield* Incoming.signals(["SIGHUP", "SIGINT", "SIGTERM"])
  // What it hosts is not told.
  const starter = PidRecord.decodeStarter(OwnProcess.takeVariable(PidRecord.starterVariable))
  const platform = yield* ProcessPlatform
  const folder = NodeStateFolder.make(directory)
  const self = yield* platform.identify(process.pid)
  if (Option.isNone(self)) return yield* Effect.die("the system does not tell when this process was started")
  const facts: Kept.Facts = { service, version, program: OwnProcess.ownFile(), listens: false, launched: null }
  const taken = yield* Claim.take(Kept.claimOf({ folder, platform }, service), self.value, facts)
  if (Result.isFailure(taken)) return yield* Effect.die(`process ${taken.failure.holder.pid} keeps it already`)
  const claim = taken.success
  const { server, token } = yield* NodeControl.listen(StateDirectory.addressIn(directory, Kept.nameOf(service)))
  const ready = { ...facts, listens: true }
  const host = yield* ShimHost.make({ claim, facts: ready, starter: Option.getOrUndefined(starter) })
  yield* Layer.build(host.layer.pipe(
    Layer.provide(ControlServer.gate(token)),
    Layer.provide(ControlProtocol.layer({
      token,
      frame: largestFrame,
      takeWithin,
      group: Shim.Shim as unknown as RpcGroup.RpcGroup<Rpc.Any>
    })),
    Layer.provide(Layer.succeed(SocketServer.SocketServer, server))
  ))
  yield* claim.tell(ready)
  let asked = false
  yield* Effect.forkScoped(Effect.forever(Effect.flatMap(Queue.take(incoming), (signal) => {
    const force = asked
    asked = true
    return Effect.andThen(Effect.logInfo(`${signal}: the end`), Effect.forkScoped(host.end({ force })))
  })))
  yield* host.awaitEnd
}, Effect.scoped)

/** Keeps a service to its end, then ends the process. */
export const main = async (argv: ReadonlyArray<string>): Promise<never> => {
  const [directory = "", service = ""] = argv
  const { version } = JSON.parse(fs.readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    readonly version: string
  }
  const exit = await Effect.runPromiseExit(
    keep(directory, service, version).pipe(
      Effect.provide(Treeline.layer),
      Effect.provide(Logger.layer([logger()]))
    )
  )
  if (exit._tag === "Failure") fs.writeSync(2, `${Cause.pretty(exit.cause)}\n`)
  process.exit(exit._tag === "Failure" ? 1 : 0)
}
