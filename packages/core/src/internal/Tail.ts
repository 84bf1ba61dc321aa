/** The last output of a child as text for a report. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Output } from "../Output.ts"
import type { ProcessTree } from "../ProcessTree.ts"
import * as Web from "./Web.ts"

const newline = 0x0a

/** True for a byte that continues a UTF-8 character. */
const continues = (byte: number): boolean => (byte & 0xc0) === 0x80

/** The last whole lines of at most `limit` bytes; `complete` when `bytes` are all that was written. */
export const lastLines = (bytes: Uint8Array, limit: number, complete: boolean): string => {
  let start = Math.max(0, bytes.length - limit)
  if (start > 0 || !complete) {
    // A newline right before the cut makes the first line a whole one.
    const end = bytes.indexOf(newline, Math.max(0, start - 1))
    if (end >= 0 && end < bytes.length - 1) start = end + 1
    else while (start < bytes.length && continues(bytes[start]!)) start++
  }
  // Not flushed: a character that is cut at the end is left out.
  return Web.textDecoder().decode(bytes.subarray(start), { stream: true })
}

const of = (output: Output): Effect.Effect<{ readonly bytes: Uint8Array; readonly complete: boolean }> =>
  Effect.gen(function*() {
    const bytes = yield* output.tail
    return { bytes, complete: (yield* output.bytes) === bytes.length }
  })

/** What takes secrets out of a text before it becomes part of an error or an event. */
export const CurrentRedaction = Context.Reference<((text: string) => string) | undefined>(
  "@treeline/core/internal/Redaction",
  { defaultValue: () => undefined }
)

/** How much more is looked at where something may be taken out, in bytes: a secret must not be cut into a remainder. */
const margin = 4096

/** The most that `ofTree` returns, in bytes of UTF-8. */
const limit = 4096

/** Room for the names of the two outputs. */
const headings = 32

/** The last lines of stderr and stdout, at most 4 KiB together; one may use what the other leaves. */
export const ofTree = (tree: ProcessTree): Effect.Effect<string> =>
  Effect.gen(function*() {
    const stdout = yield* of(tree.stdout)
    const stderr = yield* of(tree.stderr)
    const redact = yield* CurrentRedaction
    const room = limit - headings
    const last = (bytes: Uint8Array, size: number, complete: boolean) =>
      redact === undefined
        ? lastLines(bytes, size, complete)
        : lastLines(Web.textEncoder().encode(redact(lastLines(bytes, size + margin, complete))), size, true)
    const forStderr = Math.min(stderr.bytes.length, Math.max(room / 2, room - stdout.bytes.length))
    const parts: Array<string> = []
    const add = (name: string, text: string) => {
      if (text !== "") parts.push(`${name}:\n${text}${text.endsWith("\n") ? "" : "\n"}`)
    }
    add("stderr", last(stderr.bytes, forStderr, stderr.complete))
    add("stdout", last(stdout.bytes, room - forStderr, stdout.complete))
    return parts.join("")
  })
