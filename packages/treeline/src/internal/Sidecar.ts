/** `treeline sidecar`: process trees for a program in another language, which speaks to it by lines of JSON. */
import type { Level } from "@treeline/core/Containment"
import * as Containment from "@treeline/core/Containment"
import { ContainmentUnavailable } from "@treeline/core/Errors"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import { limits, refusedExitCode } from "../SidecarProtocol.ts"
import * as Console from "./Console.ts"
import * as Ending from "./Ending.ts"
import * as Incoming from "./Incoming.ts"
import { planOf } from "./Run.ts"
import * as SidecarSession from "./SidecarSession.ts"
import * as SidecarWire from "./SidecarWire.ts"

export interface Options {
  readonly version: string
  /** ms */
  readonly grace: number
  readonly require: Level | undefined
}

const say = (text: string): Effect.Effect<void> => Effect.promise(() => Console.print(2, `treeline: ${text}`))

/** Where it happened, without what was said there: a message may quote an argument. */
const framesOf = (cause: Cause.Cause<unknown>): string =>
  Cause.prettyErrors(cause).map(({ name, stack = "" }) =>
    [name, ...stack.split("\n").filter((frame) => /^\s+at /.test(frame))].join("\n")
  ).join("\n")

/** Serves the client on stdin and stdout and tells how this process should end. */
export const sidecar = Effect.fn("treeline sidecar")(function*(options: Options) {
  const platform = yield* ProcessPlatform
  if (options.require !== undefined) {
    const { highest, raise } = yield* platform.containment
    if (!Containment.atLeast(highest, options.require)) {
      return yield* new ContainmentUnavailable({
        required: options.require,
        available: highest,
        reason: raise ?? "the platform has no higher level"
      })
    }
  }
  const incoming = yield* Incoming.signals(["SIGHUP", "SIGINT", "SIGTERM"])
  const stopped = yield* Deferred.make<NodeJS.Signals>()
  const killed = yield* Deferred.make<void>()
  yield* Effect.forkScoped(Effect.gen(function*() {
    yield* Deferred.succeed(stopped, yield* Queue.take(incoming))
    yield* Queue.take(incoming)
    yield* Deferred.succeed(killed, undefined)
  }))
  const wire = SidecarWire.open()
  const over = yield* SidecarSession.serve(wire, {
    version: options.version,
    pid: process.pid,
    limits,
    plan: planOf("SIGTERM", options.grace),
    require: options.require,
    stop: Effect.asVoid(Deferred.await(stopped)),
    kill: Deferred.await(killed),
    onDefect: (cause) => say(`the sidecar has failed: ${framesOf(cause)}`)
  })
  yield* wire.flush
  if (over.left.length > 0) {
    yield* say(`could not end ${over.left.map(({ command, pid }) => `${pid} (${command})`).join(", ")}`)
    return Ending.code(125)
  }
  switch (over.reason) {
    case "Closed":
      return Ending.code(0)
    case "Refused":
      return Ending.code(refusedExitCode)
    case "Stalled":
      yield* say("the client has not read for a minute while there was something to answer")
      return Ending.code(125)
    case "Stopped":
      return Ending.signal(yield* Deferred.await(stopped))
  }
}, Effect.scoped)
