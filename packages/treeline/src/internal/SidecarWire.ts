/**
 * The sidecar's standard input and output. They belong to it alone, so their pipes may be made non-blocking: a client
 * that does not read holds up what is sent to it and nothing else.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import * as fs from "node:fs"
import * as net from "node:net"
import type { Readable } from "node:stream"
import * as Console from "./Console.ts"
import type { Wire } from "./SidecarSession.ts"

/** A pipe or a socket: what the system tells about without a thread. */
const isPipe = (fd: number): boolean => {
  try {
    const stat = fs.fstatSync(fd)
    return stat.isFIFO() || stat.isSocket()
  } catch {
    return false
  }
}

/** Bytes that wait in this process before a sender has to. */
const ahead = 256 * 1024

/** The last bytes are waited for as long as some are taken within this time, in ms. */
const lastBytes = 1000

/** It stays open: the next file to be opened must not become the standard input. */
const openInput = (): Readable =>
  isPipe(0)
    ? new net.Socket({ fd: 0, readable: true, writable: false })
    : fs.createReadStream("", { fd: 0, autoClose: false })

const readFrom = (input: Readable): Wire["read"] => {
  let failed = false
  input.on("error", () => {
    failed = true
  })
  const events = ["readable", "end", "error", "close"] as const
  return Effect.callback<Uint8Array | undefined>((resume) => {
    const clear = () => {
      for (const event of events) input.off(event, look)
    }
    const look = () => {
      const chunk = failed ? null : input.read() as Buffer | null
      if (chunk === null && !failed && !input.readableEnded && !input.destroyed) return
      clear()
      resume(Effect.succeed(chunk ?? undefined))
    }
    for (const event of events) input.on(event, look)
    look()
    return Effect.sync(clear)
  })
}

interface Sender {
  readonly send: Wire["send"]
  readonly gone: Wire["gone"]
  /** Waits, with a bound, until everything was read. */
  readonly flush: Effect.Effect<void>
}

const sendToPipe = (): Sender => {
  const options = { fd: 1, readable: false, writable: true, writableHighWaterMark: ahead }
  const socket = new net.Socket(options)
  const closed = Deferred.makeUnsafe<void>()
  let gone = false
  const lose = () => {
    gone = true
    Deferred.doneUnsafe(closed, Effect.void)
  }
  socket.on("error", lose).on("close", lose)
  const drained = Effect.callback<void>((resume) => {
    const done = () => {
      socket.off("drain", done)
      socket.off("close", done)
      resume(Effect.void)
    }
    socket.on("drain", done)
    socket.on("close", done)
    return Effect.sync(() => {
      socket.off("drain", done)
      socket.off("close", done)
    })
  })
  const turn = Semaphore.makeUnsafe(1)
  return {
    send: (line) =>
      Effect.suspend(() =>
        gone ?
          Effect.void :
          turn.withPermit(
            Effect.suspend(() =>
              gone || (socket.write(line, "latin1"), !socket.writableNeedDrain) ? Effect.void : drained
            )
          )
      ),
    gone: Deferred.await(closed),
    flush: Effect.raceFirst(
      Effect.callback<void>((resume) => {
        if (gone) return resume(Effect.void)
        socket.end(() => resume(Effect.void))
      }),
      Effect.raceFirst(
        Deferred.await(closed),
        Effect.gen(function*() {
          let left: number
          do {
            left = socket.writableLength
            yield* Effect.sleep(lastBytes)
          } while (socket.writableLength < left)
        })
      )
    )
  }
}

/** To a file or a terminal. */
const sendToFile = (): Sender => {
  const turn = Semaphore.makeUnsafe(1)
  return {
    send: (line) => turn.withPermit(Effect.promise(() => Console.writeAll(1, Buffer.from(line, "latin1")))),
    gone: Effect.never,
    flush: Effect.void
  }
}

/** Takes over the standard input and output. */
export const open = (): Wire & Pick<Sender, "flush"> => {
  const sender = isPipe(1) ? sendToPipe() : sendToFile()
  return { read: readFrom(openInput()), ...sender }
}
