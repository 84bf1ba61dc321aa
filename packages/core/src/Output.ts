/**
 * What a child writes: read at once, kept within bounds, given to whoever asks.
 *
 * By default output is pumped: the host reads always, so a child never blocks on a reader that isn't there; the last
 * bytes wait in a ring for late readers, and a slow reader loses the oldest chunks. With `backpressure` nothing is lost:
 * the host reads ahead up to a bound and then holds the child back.
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as PlatformError from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { InvalidSpec } from "./Errors.ts"
import { millis } from "./internal/Time.ts"

/** What happens when output comes faster than it is read. `bytes` bounds what is kept for each stream. */
export type Policy =
  | { readonly _tag: "Ring"; readonly bytes: number }
  | { readonly _tag: "Backpressure"; readonly bytes: number; readonly onReaderGone: "discard" | "close" }

/** Always read; keep the last `bytes` (default 64 KiB) for late readers. */
export const ring = (bytes: number = 64 * 1024): Policy => ({ _tag: "Ring", bytes })

/**
 * Lose nothing: read ahead up to `bytes` (default 1 MiB), then hold the child back. When the reader goes away early the
 * rest is read and, past the bound, dropped, so the child is not held for ever; `onReaderGone: "close"` closes the pipe
 * instead, and a child that writes on gets SIGPIPE, as in a shell pipeline (peer case 56).
 */
export const backpressure = (
  bytes: number = 1024 * 1024,
  options?: { readonly onReaderGone?: "discard" | "close" | undefined }
): Policy => ({ _tag: "Backpressure", bytes, onReaderGone: options?.onReaderGone ?? "discard" })

/**
 * How long output is awaited after the leader's end while another process still holds the pipe: everything that the
 * leader left is delivered; where the system does not tell what is left, until nothing came for `idle`, and in any case
 * at most for `limit` (peer case 50).
 */
export interface DrainPolicy {
  readonly idle: Duration.Input
  readonly limit: Duration.Input
}

/** 100 ms without a byte, at most 2 s. */
export const defaultDrain: DrainPolicy = { idle: "100 millis", limit: "2 seconds" }

/** `bytes` read from stdout, stderr and further output descriptors; `truncated` when a survivor still held one. */
export interface Drained {
  readonly bytes: number
  readonly truncated: boolean
}

/** A chunk, and how many bytes of the stream came before it. */
export interface Piece {
  readonly offset: number
  readonly bytes: Uint8Array
}

/** One output stream of a child. */
export interface Output {
  /**
   * The chunks. Under `ring` each reader gets what the ring holds and then all that comes; under `backpressure` readers
   * share one queue, from the first byte on. Ends when the output was drained.
   */
  readonly stream: Stream.Stream<Uint8Array, PlatformError.PlatformError>
  /**
   * As `stream`; a reader that was too slow sees from the offsets how much it has lost. Under `ring`, `waiting` bytes may
   * wait for it, by default as many as the ring holds.
   */
  readonly pieces: (waiting?: number) => Stream.Stream<Piece, PlatformError.PlatformError>
  /** The last bytes (at most 64 KiB, or the ring's size), for a report of what went wrong. */
  readonly tail: Effect.Effect<Uint8Array>
  /** Bytes read from the child so far. */
  readonly bytes: Effect.Effect<number>
}

/** The same chunks with their offsets; for a stream that loses none. */
export const withOffsets = <E, R>(self: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Piece, E, R> =>
  Stream.mapAccum(self, () => 0, (offset, bytes): readonly [number, ReadonlyArray<Piece>] => [
    offset + bytes.length,
    [{ offset, bytes }]
  ])

/** State of a line splitter: the text of the last, unfinished line. */
export interface LineState {
  readonly rest: string
}

/** Splits text into lines; see `lines`. Pure: returns the new state and the whole lines. */
export const feedLines = (
  state: LineState,
  text: string,
  maxLength: number
): readonly [state: LineState, lines: ReadonlyArray<string>] => {
  const out: Array<string> = []
  const emit = (line: string) => {
    let rest = line
    while (rest.length > maxLength) {
      const cut = cutAt(rest, maxLength)
      out.push(rest.slice(0, cut))
      rest = rest.slice(cut)
    }
    out.push(rest)
  }
  const parts = (state.rest + text).split("\n")
  let rest = parts.pop() ?? ""
  for (const part of parts) emit(part.endsWith("\r") ? part.slice(0, -1) : part)
  // A carriage return at the very end may be half of a CRLF, so one character more is kept than a line may have.
  while (rest.length > maxLength + 1) {
    const cut = cutAt(rest, maxLength)
    out.push(rest.slice(0, cut))
    rest = rest.slice(cut)
  }
  return [{ rest }, out]
}

/** The end of a piece of at most `max` characters that does not part a surrogate pair. */
const cutAt = (text: string, max: number): number => {
  const last = text.charCodeAt(max - 1)
  return max > 1 && last >= 0xd800 && last <= 0xdbff ? max - 1 : max
}

/** The longest line that `lines` emits in one piece, in UTF-16 units. */
export const defaultMaxLineLength = 64 * 1024

/**
 * Bytes to lines: UTF-8 characters split across chunks are kept whole, CRLF counts as one line end, the last line comes
 * also without a newline, and a line longer than `maxLength` comes in pieces, so one endless line can't fill the memory.
 *
 * @example
 * ```ts
 * import { Output } from "@treeline/core"
 * import { Effect, Stream } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const bytes = Stream.make(...["héllo\r\nwor", "ld\nlast"].map((s) => new TextEncoder().encode(s)))
 * deepStrictEqual(await Effect.runPromise(Stream.runCollect(Output.lines(bytes))), ["héllo", "world", "last"])
 * ```
 */
export const lines = <E, R>(
  self: Stream.Stream<Uint8Array, E, R>,
  options?: { readonly maxLength?: number | undefined }
): Stream.Stream<string, E, R> => {
  const maxLength = options?.maxLength ?? defaultMaxLineLength
  return Stream.decodeText(self).pipe(
    Stream.mapAccum((): LineState => ({ rest: "" }), (state, text: string) => feedLines(state, text, maxLength), {
      onHalt: (state) => state.rest === "" ? [] : feedLines(state, "\n", maxLength)[1]
    })
  )
}

/** Checks bounds: whole bytes above 0, finite times that are not negative. */
export const validatePolicy = (field: string, policy: Policy): Result.Result<Policy, InvalidSpec> =>
  Number.isSafeInteger(policy.bytes) && policy.bytes > 0
    ? Result.succeed(policy)
    : Result.fail(new InvalidSpec({ field: `${field}.bytes`, problem: "must be a whole number of bytes above 0" }))

/** Checks a drain policy and gives its times in ms. */
export const validateDrain = (
  policy: DrainPolicy
): Result.Result<{ readonly idle: number; readonly limit: number }, InvalidSpec> =>
  Result.gen(function*() {
    return { idle: yield* millis("drain.idle", policy.idle), limit: yield* millis("drain.limit", policy.limit) }
  })
