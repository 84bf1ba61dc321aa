/**
 * Reads one pipe of a child into bounded memory and feeds its readers. See `Output` for what a policy promises.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as PlatformError from "effect/PlatformError"
import * as Stream from "effect/Stream"
import type { PipeReader } from "../Engine.ts"
import type { Output, Piece, Policy } from "../Output.ts"

type Chunks = [Uint8Array, ...Array<Uint8Array>]
type Pull<A> = Effect.Effect<[A, ...Array<A>], PlatformError.PlatformError | Cause.Done>

/** Of all pumps that nobody has read yet; never added to. */
const noReaders = new Set<Reader>()

const nothing = (): void => {}

/** A queue of chunks that knows its size in bytes. */
class ChunkQueue {
  chunks: Array<Uint8Array> = []
  size = 0
  /** How many bytes of the stream there are up to its end. */
  end = 0

  push(chunk: Uint8Array): void {
    this.chunks.push(chunk)
    this.size += chunk.length
    this.end += chunk.length
  }

  /** Drops the oldest chunks for as long as the rest still holds `bytes`. */
  trim(bytes: number): void {
    let drop = 0
    while (drop < this.chunks.length - 1 && this.size - this.chunks[drop]!.length >= bytes) {
      this.size -= this.chunks[drop]!.length
      drop++
    }
    if (drop > 0) this.chunks.splice(0, drop)
  }

  takeAll(): Array<Uint8Array> {
    const taken = this.chunks
    this.chunks = []
    this.size = 0
    return taken
  }
}

/** One consumer that waits for a chunk, or the chunks that wait for it. */
class Reader {
  readonly queue: ChunkQueue
  /** Bytes that may wait for it. */
  readonly limit: number
  wake: (() => void) | undefined = undefined
  constructor(queue: ChunkQueue, limit: number) {
    this.queue = queue
    this.limit = limit
  }
}

const piecesOf = (chunks: Chunks, offset: number): [Piece, ...Array<Piece>] => {
  let at = offset
  return chunks.map((bytes) => {
    const piece = { offset: at, bytes }
    at += bytes.length
    return piece
  }) as [Piece, ...Array<Piece>]
}

/** How much of the last output is kept for reports under backpressure. */
const tailBytes = 64 * 1024

/** What the dead leader's pipe may still hold beyond the bound: more than any system's default pipe or socket buffer. */
const drainReserve = 4 * 1024 * 1024

/** 1,000 trees have 2,000 of these, most of which nobody reads: what only a reader needs is made when it is asked for. */
export class Pump implements Output {
  private readonly source: PipeReader | undefined
  private readonly policy: Policy
  private readonly ring = new ChunkQueue()
  private readers: Set<Reader> = noReaders
  /** Under backpressure all readers share this queue. */
  private readonly shared: ChunkQueue
  private limit: number
  private paused = false
  /** A reader came and went before the end: nobody holds the child back any more. */
  private abandoned = false
  private error: PlatformError.PlatformError | undefined = undefined
  private endListeners: Array<() => void> | undefined = undefined
  private readonly onEnded: () => void
  count = 0
  /** No more output will be given to readers. */
  ended = false
  /** The pipe itself has ended. */
  closed = false
  /** ms of no chunk are counted by whoever drains; this changes with every chunk. */
  activity = 0

  /** `onEnded` is called once, when no more output will be given to readers. */
  constructor(source: PipeReader | undefined, policy: Policy, onEnded: () => void = nothing) {
    this.source = source
    this.onEnded = onEnded
    this.policy = policy
    this.shared = policy._tag === "Backpressure" ? new ChunkQueue() : this.ring
    this.limit = policy.bytes
    if (source === undefined) {
      this.ended = true
      this.closed = true
    } else {
      source.start(this)
    }
  }

  onChunk(chunk: Uint8Array): void {
    this.count += chunk.length
    this.activity++
    this.ring.push(chunk)
    this.ring.trim(this.policy._tag === "Ring" ? this.policy.bytes : tailBytes)
    if (this.ended) return
    if (this.policy._tag === "Ring") {
      for (const reader of this.readers) {
        reader.queue.push(chunk)
        reader.queue.trim(reader.limit)
        reader.wake?.()
      }
      return
    }
    this.shared.push(chunk)
    if (this.abandoned) this.shared.trim(this.limit)
    else if (this.shared.size >= this.limit && !this.paused) {
      this.paused = true
      this.source?.pause()
    }
    for (const reader of this.readers) reader.wake?.()
  }

  /** So many bytes were lost on the way here: readers see it from the offsets. */
  skip(bytes: number): void {
    this.ring.end += bytes
    if (this.shared !== this.ring) this.shared.end += bytes
    for (const reader of this.readers) if (reader.queue !== this.shared) reader.queue.end += bytes
  }

  onEnd(error?: PlatformError.PlatformError): void {
    this.closed = true
    if (!this.ended) this.error = error
    this.cut()
  }

  private resume(): void {
    if (!this.paused) return
    this.paused = false
    this.source?.resume()
  }

  /** Ends the output for readers; the pipe is read on and dropped, so that a survivor is neither held nor killed by it. */
  cut(): void {
    if (this.ended) return
    this.ended = true
    this.resume()
    for (const reader of this.readers) reader.wake?.()
    const listeners = this.endListeners ?? []
    this.endListeners = undefined
    this.onEnded()
    for (const listener of listeners) listener()
  }

  /** Closes the pipe. */
  close(): void {
    if (!this.closed) this.source?.close()
    this.cut()
  }

  /** The leader is dead: what it left is bounded by the pipe, so it is read whatever the readers do. */
  release(): void {
    this.limit += drainReserve
    this.resume()
  }

  /** True when the system says that the pipe holds nothing; undefined where it does not tell. */
  get drainedExactly(): Effect.Effect<boolean | undefined> {
    return Effect.suspend(() =>
      this.source === undefined || this.ended
        ? Effect.succeed(true)
        : Effect.map(this.source.pending, (pending) => pending._tag === "Some" ? pending.value === 0 : undefined)
    )
  }

  get turn(): Effect.Effect<void> {
    return Effect.suspend(() => this.source?.turn ?? Effect.void)
  }

  get awaitEnd(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.ended) return resume(Effect.void)
      const listener = () => resume(Effect.void)
      const listeners = this.endListeners ??= []
      listeners.push(listener)
      return Effect.sync(() => {
        const index = listeners.indexOf(listener)
        if (index >= 0) listeners.splice(index, 1)
      })
    })
  }

  private attach(limit: number): Reader {
    const reader = new Reader(this.policy._tag === "Ring" ? new ChunkQueue() : this.shared, limit)
    if (this.policy._tag === "Ring") {
      for (const chunk of this.ring.chunks) reader.queue.push(chunk)
      reader.queue.end = this.ring.end
    }
    if (this.readers === noReaders) this.readers = new Set()
    this.readers.add(reader)
    return reader
  }

  private detach(reader: Reader): void {
    this.readers.delete(reader)
    if (this.policy._tag === "Ring" || this.readers.size > 0 || this.ended) return
    if (this.policy.onReaderGone === "close") return this.close()
    this.abandoned = true
    this.shared.trim(this.limit)
    this.resume()
  }

  private pull<A>(reader: Reader, as: (chunks: Chunks, offset: number) => [A, ...Array<A>]): Pull<A> {
    const next: Pull<A> = Effect.suspend(() => {
      const { queue } = reader
      if (queue.size > 0) {
        const offset = queue.end - queue.size
        const taken = as(queue.takeAll() as Chunks, offset)
        if (this.policy._tag === "Backpressure") this.resume()
        return Effect.succeed(taken)
      }
      if (this.ended) return this.error === undefined ? Cause.done() : Effect.fail(this.error)
      return Effect.callback<void>((resume) => {
        reader.wake = () => {
          reader.wake = undefined
          resume(Effect.void)
        }
        return Effect.sync(() => {
          reader.wake = undefined
        })
      }).pipe(Effect.flatMap(() => next))
    })
    return next
  }

  private read<A>(
    as: (chunks: Chunks, offset: number) => [A, ...Array<A>],
    limit: number
  ): Stream.Stream<A, PlatformError.PlatformError> {
    return Stream.unwrap(
      Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => this.attach(limit)),
          (reader) => Effect.sync(() => this.detach(reader))
        ),
        (reader) => Stream.fromPull(Effect.succeed(this.pull(reader, as)))
      )
    )
  }

  get stream(): Output["stream"] {
    return this.read((chunks) => chunks, this.policy.bytes)
  }

  get pieces(): Output["pieces"] {
    return (limit = this.policy.bytes) => this.read(piecesOf, limit)
  }

  get tail(): Output["tail"] {
    return Effect.sync(() => {
      const out = new Uint8Array(this.ring.size)
      let offset = 0
      for (const chunk of this.ring.chunks) {
        out.set(chunk, offset)
        offset += chunk.length
      }
      return out.subarray(Math.max(0, out.length - (this.policy._tag === "Ring" ? this.policy.bytes : tailBytes)))
    })
  }

  get bytes(): Output["bytes"] {
    return Effect.sync(() => this.count)
  }
}
