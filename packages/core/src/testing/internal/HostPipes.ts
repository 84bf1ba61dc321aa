/** The host's ends of the simulated pipes. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as PlatformError from "effect/PlatformError"
import * as Sink from "effect/Sink"
import type { PipeReader, PipeWriter } from "../../Engine.ts"
import type { Host, Kernel } from "./Kernel.ts"
import type { Pipe } from "./Pipe.ts"

type Handlers = Parameters<PipeReader["start"]>[0]

export const reader = (kernel: Kernel, host: Host, pipe: Pipe): PipeReader => {
  let handlers: Handlers | undefined
  let paused = false
  let closed = false
  let posted = false
  pipe.readers++

  const close = () => {
    if (closed) return
    closed = true
    pipe.onReadable = undefined
    pipe.closeReader()
    kernel.post(host, () => handlers?.onEnd())
  }
  const deliver = () => {
    posted = false
    if (handlers === undefined || paused || closed) return
    if (pipe.size > 0) handlers.onChunk(pipe.read())
    if (pipe.size === 0 && pipe.writers === 0) close()
  }
  const poke = () => {
    if (posted || handlers === undefined || paused || closed) return
    if (pipe.size === 0 && pipe.writers > 0) return
    posted = true
    kernel.post(host, deliver)
  }
  pipe.onReadable = poke

  return {
    start: (given) => {
      handlers = given
      poke()
      kernel.settle()
    },
    pause: () => {
      paused = true
    },
    resume: () => {
      paused = false
      poke()
      kernel.settle()
    },
    close: () => {
      close()
      kernel.settle()
    },
    pending: Effect.sync(() => Option.some(pipe.size)),
    turn: Effect.callback<void>((resume) => {
      kernel.post(host, () => resume(Effect.void))
      kernel.settle()
    })
  }
}

const brokenPipe = (fd: number) =>
  PlatformError.systemError({
    _tag: "Unknown",
    module: "ChildProcess",
    method: `write(fd${fd})`,
    description: "EPIPE: nobody reads this pipe any more"
  })

interface Pending {
  rest: Uint8Array
  readonly done: (ok: boolean) => void
}

export const writer = (kernel: Kernel, host: Host, pipe: Pipe, fd: number): PipeWriter => {
  const queue: Array<Pending> = []
  let ending = false
  let closed = false
  pipe.writers++

  const tell = (pending: Pending, ok: boolean) => kernel.post(host, () => pending.done(ok))
  const close = () => {
    if (closed) return
    closed = true
    pipe.onWritable = undefined
    for (const pending of queue.splice(0)) tell(pending, false)
    pipe.closeWriter()
  }
  let flushing = false
  const flush = () => {
    if (closed || flushing) return
    if (pipe.readers === 0) return close()
    // A write tells the pipe's ends of a change, this one included.
    flushing = true
    while (queue.length > 0) {
      const first = queue[0]!
      const taken = pipe.write(first.rest)
      first.rest = first.rest.subarray(taken)
      if (first.rest.length > 0) break
      queue.shift()
      tell(first, true)
    }
    flushing = false
    if (ending && queue.length === 0) close()
  }
  pipe.onWritable = flush
  const end = () => {
    ending = true
    flush()
    kernel.settle()
  }

  // What has been handed over is written even when the one who waits for it is interrupted, as by an event loop.
  const write = (bytes: Uint8Array) =>
    Effect.callback<void, PlatformError.PlatformError>((resume) => {
      if (closed || ending) return resume(Effect.fail(brokenPipe(fd)))
      queue.push({
        rest: bytes.slice(),
        done: (ok) => resume(ok ? Effect.void : Effect.fail(brokenPipe(fd)))
      })
      flush()
      kernel.settle()
    })

  return {
    sink: ({ endOnDone }) => {
      const all = Sink.forEachArray((chunks: ReadonlyArray<Uint8Array>) =>
        Effect.forEach(chunks, write, { discard: true })
      )
      return endOnDone ? Sink.ensuring(all, Effect.sync(end)) : all
    },
    end: Effect.sync(end),
    close: () => {
      close()
      kernel.settle()
    }
  }
}
