/** One output of a child, told to the client as far as it has granted bytes. */
import type { Output } from "@treeline/core/Output"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { OutputName } from "../SidecarProtocol.ts"

/** How many bytes the client takes. */
export class Credit {
  private granted: number
  private discarding = false
  private last = false
  private readonly more = Latch.makeUnsafe(false)

  constructor(granted: number) {
    this.granted = granted
  }

  grant(bytes: number): void {
    this.granted = Math.min(this.granted + bytes, Number.MAX_SAFE_INTEGER)
    this.more.openUnsafe()
  }

  /** Nothing more is taken. */
  discard(): void {
    this.discarding = true
    this.more.openUnsafe()
  }

  /** No grant will come any more: what is granted is taken, and the rest is not. */
  finish(): void {
    this.last = true
    this.more.openUnsafe()
  }

  /** Waits until something may be told, and takes at most `most`; 0 when nothing may be told any more. */
  take(most: number): Effect.Effect<number> {
    return Effect.suspend(() => {
      if (this.discarding) return Effect.succeed(0)
      if (this.granted > 0 || this.last) {
        const taken = Math.min(this.granted, most)
        this.granted -= taken
        return Effect.succeed(taken)
      }
      this.more.closeUnsafe()
      return Effect.andThen(this.more.await, this.take(most))
    })
  }
}

/** What is told of an output. */
export interface Teller {
  readonly output: (offset: number, lost: number, bytes: Uint8Array) => Effect.Effect<void>
  readonly end: (bytes: number, lost: number) => Effect.Effect<void>
}

/** Tells an output to its end, at most `chunk` bytes at a time. What waits for credit here is one reading: no more than the output's policy keeps. */
export const tell = (
  output: Output,
  credit: Credit,
  teller: Teller,
  chunk: number
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const pull = yield* Stream.toPull(output.pieces())
    // A read that fails is an end: nothing more comes, and the bytes that came were told.
    const read = pull.pipe(Effect.catch(() => Effect.undefined))
    /** Where the next byte of the child is expected, and how many before it were dropped and not told. */
    let next = 0
    let lost = 0
    while (true) {
      const pieces = yield* read
      if (pieces === undefined) return yield* teller.end(next, lost)
      const [first] = pieces
      const bytes = pieces.length === 1 ? first.bytes : Buffer.concat(pieces.map((piece) => piece.bytes))
      lost += first.offset - next
      next = first.offset
      const end = next + bytes.length
      while (next < end) {
        const taken = yield* credit.take(Math.min(end - next, chunk))
        if (taken === 0) {
          lost += end - next
          next = end
        } else {
          const from = next - first.offset
          yield* teller.output(next, lost, bytes.subarray(from, from + taken))
          next += taken
          lost = 0
        }
      }
    }
  })

/** The credits of one process by the name of the output. */
export type Credits = ReadonlyMap<OutputName, Credit>
