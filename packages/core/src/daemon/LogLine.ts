/**
 * One line of a child's log: how bytes become lines, what is taken out of them, and how a line looks in a file.
 *
 * Everything here is pure. The lines do not depend on how the bytes were cut into chunks.
 */
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { InvalidSpec } from "../Errors.ts"
import * as Web from "../internal/Web.ts"

/** A line that a child wrote. */
export interface Line {
  readonly _tag: "Line"
  readonly child: string
  readonly incarnation: number
  readonly stream: "stdout" | "stderr"
  /** When its end was read: ms, wall clock. */
  readonly at: number
  /** Its place among all lines of all children of the same logs; rises by time of arrival, whatever the clock does. */
  readonly order: number
  /** Without its newline. */
  readonly text: string
}

/**
 * Something is not there. `reader`: whoever reads the log was slower than its ring, `lines` are missing, 0 when it is not
 * known how many. `output`: nobody read what the child wrote in time, `bytes` of one of its streams are missing.
 */
export interface Gap {
  readonly _tag: "Gap"
  readonly child: string
  readonly at: number
  readonly order: number
  readonly cause: "reader" | "output"
  readonly lines: number
  readonly bytes: number
}

export type Entry = Line | Gap

const common = { child: Schema.String, at: Schema.Number, order: Schema.Int }

/** Entries as data that crosses a socket unchanged. */
export const Entry: Schema.Codec<Entry, unknown> = Schema.Union([
  Schema.TaggedStruct("Line", {
    ...common,
    incarnation: Schema.Int,
    stream: Schema.Literals(["stdout", "stderr"]),
    text: Schema.String
  }),
  Schema.TaggedStruct("Gap", {
    ...common,
    cause: Schema.Literals(["reader", "output"]),
    lines: Schema.Int,
    bytes: Schema.Int
  })
])

// ---------------------------------------------------------------------------------------------------- redaction

/**
 * What must not be in a log. A text is replaced wherever it stands; a text of several lines line by line, for it is
 * written so. An expression is replaced wherever it matches inside one line; let it match what it needs around the secret,
 * and put that back with `replacement` (`$1`), rather than look behind.
 */
export type Rule =
  | string
  | RegExp
  | Redacted.Redacted<string>
  | { readonly match: string | RegExp | Redacted.Redacted<string>; readonly replacement: string }

interface Substitution {
  readonly literal: string | undefined
  readonly expression: RegExp
  readonly replace: (match: RegExpExecArray) => string
}

const redacted = "<redacted>"

/** `$1`, `$<name>`, `$&` and `$$`, as in `String.replace`. */
const expand = (replacement: string) => (match: RegExpExecArray): string =>
  replacement.replace(
    /\$(?:([$&])|(\d{1,2})|<([^>]*)>)/g,
    (_, sign?: string, digits?: string, name?: string) =>
      sign === "$"
        ? "$"
        : sign === "&"
        ? match[0]
        : (digits === undefined ? match.groups?.[name ?? ""] : match[Number(digits)]) ?? ""
  )

const substitutionsOf = (rule: Rule): Array<Substitution> => {
  const { match, replacement } = typeof rule === "object" && "match" in rule
    ? rule
    : { match: rule, replacement: redacted }
  if (match instanceof RegExp) {
    // A copy, global and not sticky: it replaces all matches and remembers nothing.
    const expression = new RegExp(match.source, `${match.flags.replace(/[gy]/g, "")}g`)
    return [{ literal: undefined, expression, replace: expand(replacement) }]
  }
  const text = typeof match === "string" ? match : Redacted.value(match)
  return text.split(/\r?\n/).filter((part) => part !== "").map((literal) => ({
    literal,
    expression: new RegExp(literal.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"), "g"),
    replace: () => replacement
  }))
}

/** Replaces by one rule; `cut` is a place in the text, which moves behind a replacement that it would be inside of. */
const substitute = (
  text: string,
  cut: number,
  { expression, replace }: Substitution
): { readonly text: string; readonly cut: number } => {
  let out = ""
  let done = 0
  let moved: number | undefined = undefined
  for (const match of text.matchAll(expression)) {
    const end = match.index + match[0].length
    if (end === match.index) continue
    if (moved === undefined && match.index >= cut) moved = out.length + cut - done
    out += text.slice(done, match.index) + replace(match)
    done = end
    if (moved === undefined && end > cut) moved = out.length
  }
  return { cut: moved ?? out.length + cut - done, text: out + text.slice(done) }
}

// ---------------------------------------------------------------------------------------------------- colours

/**
 * Escape sequences of a terminal: CSI (colours, cursor), OSC (titles, links) up to its end, and the short ones. ECMA-48
 * sections 5.4 and 8.3.
 */
// oxlint-disable-next-line no-control-regex
const escapes = /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|\u001b[ -/]*[0-~]/g

/** The text without colours and other commands to a terminal. */
export const stripColours = (text: string): string =>
  text.includes("\u001b") || text.includes("\u009b") ? text.replace(escapes, "") : text

// ---------------------------------------------------------------------------------------------------- bytes to lines

/** How lines are made. */
export interface Options {
  /** The longest line in bytes, default 64 KiB. Of a longer one the rest is left out, and it says so. */
  readonly maxLine?: number | undefined
  /** Default: `strip`. A secret that is written with colours inside is not found when they are kept. */
  readonly colours?: "keep" | "strip" | undefined
  readonly redact?: ReadonlyArray<Rule> | undefined
}

/** Checked and compiled options; one for all children. */
export interface Rules {
  readonly maxLine: number
  /** How far beyond `maxLine` a line is looked at, in bytes: a secret that begins before the cut is found as a whole. */
  readonly lookahead: number
  readonly strip: boolean
  readonly substitutions: ReadonlyArray<Substitution>
}

const defaultMaxLine = 64 * 1024

const minLookahead = 4096

/** Checks the options: `maxLine` in whole bytes from 1 to 16 MiB, rules that are not empty. */
export const validate = (options: Options = {}): Result.Result<Rules, InvalidSpec> => {
  const maxLine = options.maxLine ?? defaultMaxLine
  if (!Number.isSafeInteger(maxLine) || maxLine < 1 || maxLine > 16 * 1024 * 1024) {
    return Result.fail(
      new InvalidSpec({ field: "logs.maxLine", problem: "must be a whole number of bytes from 1 to 16 MiB" })
    )
  }
  const substitutions: Array<Substitution> = []
  for (const [index, rule] of (options.redact ?? []).entries()) {
    const made = substitutionsOf(rule)
    if (made.length === 0) {
      return Result.fail(new InvalidSpec({ field: `logs.redact[${index}]`, problem: "must not be an empty text" }))
    }
    substitutions.push(...made)
  }
  // Where one secret contains another the longer one goes first.
  substitutions.sort((a, b) => (b.literal?.length ?? 0) - (a.literal?.length ?? 0))
  const longest = Math.max(0, ...substitutions.map(({ literal }) => (literal?.length ?? 0) * 3))
  return Result.succeed({
    maxLine,
    lookahead: Math.max(minLookahead, longest),
    strip: options.colours !== "keep",
    substitutions
  })
}

/** What is appended to a line of which the rest was left out. */
export const cutMark = " [the rest of this line was left out]"

/** The text of a whole line as it goes into the log. */
export const clean = (rules: Rules, text: string): string => {
  let out = rules.strip ? stripColours(text) : text
  for (const substitution of rules.substitutions) {
    const { expression, literal } = substitution
    const found = literal === undefined ? out.search(expression) >= 0 : out.includes(literal)
    if (found) ({ text: out } = substitute(out, 0, substitution))
  }
  return out
}

/** A byte order mark is a character like others: what begins a chunk must not be looked at differently. */
const decoder = Web.textDecoder({ ignoreBOM: true })

const decode = (bytes: Uint8Array): string => decoder.decode(bytes, { stream: false })

const maxPieces = 64

const newline = 0x0a
const carriageReturn = 0x0d

/** The place at or before `end` where no UTF-8 character is cut. */
const boundary = (bytes: Uint8Array, end: number): number => {
  if (end >= bytes.length) return bytes.length
  for (let at = end; at > end - 4 && at > 0; at--) {
    if ((bytes[at]! & 0xc0) !== 0x80) return at
  }
  return end
}

/** Of a line that is too long: its beginning. `window` is the line up to `maxLine + lookahead` bytes. */
const cleanLong = (rules: Rules, window: Uint8Array): string => {
  const upTo = (end: number) => {
    const text = decode(window.subarray(0, boundary(window, end)))
    return rules.strip ? stripColours(text) : text
  }
  let text = upTo(window.length)
  let cut = Math.min(text.length, upTo(rules.maxLine).length)
  for (const substitution of rules.substitutions) ({ cut, text } = substitute(text, cut, substitution))
  return text.slice(0, cut) + cutMark
}

/**
 * Cuts the bytes of one stream into lines. It keeps at most one unfinished line, which is at most `maxLine` and a few KiB
 * long: of an endless line the beginning is given at once, and the rest is left out up to the next newline.
 *
 * A newline is never part of another UTF-8 character, so whole lines are decoded as a whole, wherever chunks end. What
 * is not UTF-8 becomes U+FFFD. CRLF counts as one line end.
 *
 * @example
 * ```ts
 * import { LogLine } from "@treeline/core/daemon"
 * import { Result } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const rules = Result.getOrThrow(LogLine.validate({ redact: ["hunter2", /(token=)\S+/] }))
 * const splitter = new LogLine.Splitter(rules)
 * const bytes = new TextEncoder().encode("\u001b[32mpassword hunter2\u001b[0m\nlast")
 * deepStrictEqual(splitter.feed(bytes.subarray(0, 18)), [])
 * deepStrictEqual(splitter.feed(bytes.subarray(18)), ["password <redacted>"])
 * deepStrictEqual(splitter.end(), ["last"])
 * ```
 */
export class Splitter {
  private current: Rules
  /** Never smaller than it was, for an unfinished line may be as long. */
  private window: number
  /** The unfinished line, without its beginning when that was given already. */
  private rest: Array<Uint8Array> = []
  private size = 0
  private skipping = false
  private skipped = 0

  constructor(rules: Rules) {
    this.current = rules
    this.window = rules.maxLine + rules.lookahead
  }

  get rules(): Rules {
    return this.current
  }

  /** Other rules, from the next line on that ends. */
  set rules(rules: Rules) {
    this.current = rules
    this.window = Math.max(this.window, rules.maxLine + rules.lookahead)
  }

  /** Bytes that were left out of lines that were too long. */
  get leftOut(): number {
    return this.skipped
  }

  /** Bytes of the unfinished line that are kept. */
  get held(): number {
    return this.size
  }

  private take(): Uint8Array {
    const [first] = this.rest
    let all = first ?? new Uint8Array()
    if (this.rest.length > 1) {
      all = new Uint8Array(this.size)
      let offset = 0
      for (const part of this.rest) {
        all.set(part, offset)
        offset += part.length
      }
    }
    this.rest = []
    this.size = 0
    return all
  }

  /** The lines that end in this chunk. The chunk is not kept. */
  feed(chunk: Uint8Array): Array<string> {
    const lines: Array<string> = []
    let start = 0
    if (this.skipping) {
      const end = chunk.indexOf(newline)
      this.skipped += end < 0 ? chunk.length : end
      if (end < 0) return lines
      this.skipping = false
      start = end + 1
    }
    const last = chunk.lastIndexOf(newline)
    if (last >= start) {
      let whole = chunk.subarray(start, last)
      if (this.size > 0) {
        this.rest.push(whole)
        this.size += whole.length
        whole = this.take()
      }
      this.whole(whole, lines)
      start = last + 1
    }
    if (start < chunk.length) this.keep(chunk.subarray(start), lines)
    return lines
  }

  /** Lines without the newline of the last one. */
  private whole(bytes: Uint8Array, lines: Array<string>): void {
    const { maxLine } = this.rules
    let from = 0
    // In every stretch of `maxLine` bytes there has to be a newline, so that few of them are looked for.
    for (let at = 0; bytes.length - at > maxLine;) {
      const end = bytes.lastIndexOf(newline, at + maxLine)
      if (end >= at) {
        at = end + 1
        continue
      }
      if (at > from) this.decode(bytes.subarray(from, at - 1), lines)
      const found = bytes.indexOf(newline, at)
      const stop = found < 0 ? bytes.length : found
      // A carriage return before the newline is no part of the line.
      const length = stop - at - (bytes[stop - 1] === carriageReturn ? 1 : 0)
      const line = bytes.subarray(at, at + length)
      lines.push(
        length > maxLine ? this.long(line) : clean(this.rules, decode(line))
      )
      at = stop + 1
      from = at
    }
    if (from <= bytes.length) this.decode(bytes.subarray(from), lines)
  }

  private decode(bytes: Uint8Array, lines: Array<string>): void {
    const { rules } = this
    const text = decode(bytes)
    const plain = rules.substitutions.every(({ literal }) => literal !== undefined && !text.includes(literal)) &&
      !(rules.strip && (text.includes("\u001b") || text.includes("\u009b")))
    const returns = text.includes("\r")
    if (plain && !returns) {
      for (const line of text.split("\n")) lines.push(line)
      return
    }
    for (const line of text.split("\n")) {
      lines.push(clean(rules, line.endsWith("\r") ? line.slice(0, -1) : line))
    }
  }

  private long(line: Uint8Array): string {
    this.skipped += line.length - this.rules.maxLine
    return cleanLong(this.rules, line.subarray(0, this.window))
  }

  private keep(bytes: Uint8Array, lines: Array<string>): void {
    // One byte more, for a carriage return that belongs to the line's end.
    const room = this.window + 1 - this.size
    if (bytes.length <= room) {
      this.rest.push(bytes.slice())
      this.size += bytes.length
      // Many small pieces weigh more than what they hold.
      if (this.rest.length > maxPieces) {
        const { size } = this
        this.rest = [this.take()]
        this.size = size
      }
      return
    }
    this.rest.push(bytes.slice(0, room))
    this.size += room
    const length = this.size + bytes.length - room
    lines.push(cleanLong(this.rules, this.take().subarray(0, this.window)))
    this.skipped += length - this.rules.maxLine
    this.skipping = true
  }

  /** The last line, which had no newline; the splitter can be used for another stream afterwards. */
  end(): Array<string> {
    const lines: Array<string> = []
    if (this.size > 0) this.whole(this.take(), lines)
    this.skipping = false
    return lines
  }
}

// ---------------------------------------------------------------------------------------------------- layout

/**
 * How an entry looks in a file or on a terminal. `timestamps` (ISO 8601, UTC) and `stream` are on by default, `child` is
 * not. `json`: one object in each line, with everything.
 */
export type Layout =
  | "json"
  | {
    readonly timestamps?: boolean | undefined
    readonly stream?: boolean | undefined
    readonly child?: boolean | undefined
  }

/** What a gap is called in a log. */
export const describeGap = ({ bytes, cause, lines }: Gap): string =>
  cause === "reader"
    ? `${lines === 0 ? "" : `${lines} `}lines are missing: the reader was too slow`
    : `${bytes} bytes are missing: nobody read them in time`

const iso = (at: number): string => new Date(at).toISOString()

/** A function that makes the text of an entry, without a newline at its end. */
export const formatter = (layout: Layout = {}): (entry: Entry) => string => {
  if (layout === "json") {
    return (entry) => {
      const { _tag, at, child } = entry
      return JSON.stringify(
        _tag === "Line"
          ? { at: iso(at), child, incarnation: entry.incarnation, stream: entry.stream, text: entry.text }
          : { at: iso(at), child, gap: entry.cause, lines: entry.lines, bytes: entry.bytes }
      )
    }
  }
  const { child = false, stream = true, timestamps = true } = layout
  // Many lines have the same time.
  let lastAt = Number.NaN
  let time = ""
  return (entry) => {
    let out = ""
    if (timestamps) {
      if (entry.at !== lastAt) {
        lastAt = entry.at
        time = `${iso(lastAt)} `
      }
      out = time
    }
    if (child) out += `[${entry.child}] `
    if (entry._tag === "Gap") return `${out}treeline: ${describeGap(entry)}`
    if (stream) out += entry.stream === "stdout" ? "stdout " : "stderr "
    return out + entry.text
  }
}
