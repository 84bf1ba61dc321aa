/** The host's ends of a child's pipes, as Node gives them. */
import * as NodeSink from "@effect/platform-node/NodeSink"
import type { PipeReader, PipeWriter } from "@treeline/core/Engine"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as PlatformError from "effect/PlatformError"
import type { Socket } from "node:net"

const systemError = (method: string, error: unknown): PlatformError.PlatformError =>
  PlatformError.systemError({
    _tag: "Unknown",
    module: "ChildProcess",
    method,
    description: error instanceof Error ? error.message : String(error),
    cause: error
  })

/** A descriptor closed while a read was under way, or by a peer that went without reading: the end, and no failure. */
const endCodes: ReadonlySet<unknown> = new Set(["ECONNRESET", "EPIPE", "ERR_STREAM_PREMATURE_CLOSE"])

/** The end that the host reads. `pending` tells what waits in the pipe, where the system can be asked. */
export const reader = (
  socket: Socket,
  fd: number,
  pending: PipeReader["pending"] = Effect.succeed(Option.none())
): PipeReader => ({
  start: ({ onChunk, onEnd }) => {
    let ended = false
    const end = (error?: NodeJS.ErrnoException) => {
      if (ended) return
      ended = true
      onEnd(error === undefined || endCodes.has(error.code) ? undefined : systemError(`read(fd${fd})`, error))
    }
    socket.on("data", onChunk)
    socket.on("end", () => end())
    socket.on("error", end)
    socket.on("close", () => end())
  },
  pause: () => void socket.pause(),
  resume: () => void socket.resume(),
  close: () => void socket.destroy(),
  pending,
  // Two turns, because the first may belong to the poll phase that is going on.
  turn: Effect.callback<void>((resume) => {
    let immediate = setImmediate(() => {
      immediate = setImmediate(() => resume(Effect.void))
    })
    return Effect.sync(() => clearImmediate(immediate))
  })
})

/** The end that the host writes. A child that has gone makes a write fail with EPIPE, which is never uncaught. */
export const writer = (socket: Socket, fd: number): PipeWriter => {
  socket.on("error", () => {})
  return {
    sink: ({ encoding, endOnDone }) =>
      NodeSink.fromWritable({
        evaluate: () => socket,
        onError: (error) => systemError(`write(fd${fd})`, error),
        endOnDone,
        encoding
      }),
    end: Effect.sync(() => void socket.end()),
    close: () => void socket.destroy()
  }
}
