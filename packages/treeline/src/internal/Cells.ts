/** Text as a terminal shows it: how many cells it takes, and what must not reach a terminal. */
import { displayWidth } from "effect/cli/CliOutput"

const plain = /^[\u0020-\u007e]*$/

/** The number of cells; colours take none, what is wide (CJK, emoji) takes two. */
export const width = (text: string): number => plain.test(text) ? text.length : displayWidth(text)

const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" })

/** At most `cells` wide, with `mark` in the place of what was cut off. The text has no colours. */
export const truncate = (text: string, cells: number, mark = "…"): string => {
  if (width(text) <= cells) return text
  const room = cells - width(mark)
  if (room < 0) return ""
  if (plain.test(text)) return text.slice(0, room) + mark
  let out = ""
  let used = 0
  for (const { segment } of graphemes.segment(text)) {
    used += width(segment)
    if (used > room) break
    out += segment
  }
  return out + mark
}

/** Filled with spaces to `cells`. */
export const padEnd = (text: string, cells: number): string => text + " ".repeat(Math.max(0, cells - width(text)))

export const padStart = (text: string, cells: number): string => " ".repeat(Math.max(0, cells - width(text))) + text

const tabStop = 8

// oxlint-disable-next-line no-control-regex
const colour = /\u001b\[[\d;:]*m/g

// oxlint-disable-next-line no-control-regex
const controls = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/

// oxlint-disable-next-line no-control-regex
const control = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g

/** A visible sign for a character that would move the cursor or turn the text around. */
const pictureOf = (char: string): string => {
  const code = char.charCodeAt(0)
  if (code < 0x20) return String.fromCharCode(0x2400 + code)
  return code === 0x7f ? "␡" : "�"
}

const withoutTabs = (text: string): string => {
  let out = ""
  let at = 0
  for (const [index, part] of text.split("\t").entries()) {
    const skip = index > 0 ? tabStop - at % tabStop : 0
    out += " ".repeat(skip) + part
    at += skip + width(part)
  }
  return out
}

const made = (text: string): string => (text.includes("\t") ? withoutTabs(text) : text).replace(control, pictureOf)

/**
 * One line that a program wrote, as it may go to a terminal: tabs are spaces, and everything that would move the cursor,
 * change the title or turn the text around is a visible sign. Colours stay where `colors` says so, and end with the line.
 */
export const clean = (text: string, colors = false): string => {
  if (!controls.test(text)) return text
  if (!colors || !text.includes("\u001b[")) return made(text.replace(colour, ""))
  let out = ""
  let from = 0
  for (const match of text.matchAll(colour)) {
    out += made(text.slice(from, match.index)) + match[0]
    from = match.index + match[0].length
  }
  return `${out}${made(text.slice(from))}\u001b[0m`
}
