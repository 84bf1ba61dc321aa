/** Looks for a line in text that comes in pieces. */

/** How much of one line is kept and looked at, in UTF-16 units; what follows in that line is not. */
export const maxLine = 1024 * 1024

/** The unfinished line so far. */
export type State = string

/**
 * Feeds text; `found` when a line that ended in it matches. A line counts when its newline has come, never before: an
 * announcement that is cut in two would match early (seed P47).
 */
export const feed = (
  state: State,
  text: string,
  matches: (line: string) => boolean
): { readonly state: State; readonly found: boolean } => {
  let start = 0
  let line = state
  while (true) {
    const end = text.indexOf("\n", start)
    const room = maxLine - line.length
    line += text.slice(start, Math.min(end < 0 ? text.length : end, start + room))
    if (end < 0) return { state: line, found: false }
    if (matches(line.endsWith("\r") ? line.slice(0, -1) : line)) return { state: "", found: true }
    line = ""
    start = end + 1
  }
}

/** A string matches a line that contains it. */
export const matcher = (pattern: string | RegExp): (line: string) => boolean => {
  if (typeof pattern === "string") return (line) => line.includes(pattern)
  // A copy: a global or sticky expression remembers where it was.
  const own = new RegExp(pattern)
  return (line) => {
    own.lastIndex = 0
    return own.test(line)
  }
}
