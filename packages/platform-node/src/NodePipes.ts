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

/**
 * A descriptor closed while a read was under way, or by a peer that went without reading: the end, and no failure. EOF is
 * how libuv says it of a named pipe of Windows.
 */
const endCodes: ReadonlySet<unknown> = new Set(["ECONNRESET", "EOF", "EPIPE", "ERR_STREAM_PREMATURE_CLOSE"])

// Two turns, because the first may belong to the poll phase that is going on.
const turn: Effect.Effect<void> = Effect.callback<void>((resume) => {
  let immediate = setImmediate(() => {
    immediate = setImmediate(() => resume(Effect.void))
  })
  return Effect.sync(() => clearImmediate(immediate))
})

/** How many bytes wait in a pipe, where the system can be asked. */
type Pending = () => Option.Option<number>

class Reader implements PipeReader {
  private readonly socket: Socket
  private readonly fd: number
  private readonly ask: Pending
  private readonly onStart: (() => void) | undefined
  readonly turn = turn

  constructor(socket: Socket, fd: number, ask: Pending, onStart: (() => void) | undefined) {
    this.socket = socket
    this.fd = fd
    this.ask = ask
    this.onStart = onStart
  }

  start(handlers: Parameters<PipeReader["start"]>[0]): void {
    let ended = false
    const end = (error?: unknown) => {
      if (ended) return
      ended = true
      const failed = error instanceof Error && !endCodes.has((error as NodeJS.ErrnoException).code)
      handlers.onEnd(failed ? systemError(`read(fd${this.fd})`, error) : undefined)
    }
    this.onStart?.()
    this.socket.on("data", (chunk: Uint8Array) => handlers.onChunk(chunk))
    this.socket.on("end", end)
    this.socket.on("error", end)
    this.socket.on("close", end)
  }

  pause(): void {
    this.socket.pause()
  }

  resume(): void {
    this.socket.resume()
  }

  close(): void {
    this.socket.destroy()
  }

  get pending(): PipeReader["pending"] {
    return Effect.sync(this.ask)
  }
}

/** The end that the host reads; `onStart` is called when it begins to. */
export const reader = (
  socket: Socket,
  fd: number,
  pending: Pending = Option.none,
  onStart?: () => void
): PipeReader => new Reader(socket, fd, pending, onStart)

/** A socket that may not have been made yet: one that nobody writes to is closed without. */
export interface LazySocket {
  readonly get: () => Socket
  readonly close: () => void
}

class Writer implements PipeWriter {
  private readonly socket: LazySocket
  private readonly fd: number
  private handled = false

  constructor(socket: LazySocket, fd: number) {
    this.socket = socket
    this.fd = fd
  }

  private get(): Socket {
    const socket = this.socket.get()
    if (!this.handled) socket.on("error", () => {})
    this.handled = true
    return socket
  }

  sink({ encoding, endOnDone }: Parameters<PipeWriter["sink"]>[0]): ReturnType<PipeWriter["sink"]> {
    return NodeSink.fromWritable({
      evaluate: () => this.get(),
      onError: (error) => systemError(`write(fd${this.fd})`, error),
      endOnDone,
      encoding
    })
  }

  get end(): PipeWriter["end"] {
    return Effect.sync(() => void this.get().end())
  }

  close(): void {
    this.socket.close()
  }
}

/** The end that the host writes. A child that has gone makes a write fail with EPIPE, which is never uncaught. */
export const writer = (socket: LazySocket, fd: number): PipeWriter => new Writer(socket, fd)

/** The same for a socket that Node has made: its errors are never uncaught, whether it is written to or not. */
export const writerOf = (socket: Socket, fd: number): PipeWriter => {
  socket.on("error", () => {})
  return new Writer({ get: () => socket, close: () => void socket.destroy() }, fd)
}
