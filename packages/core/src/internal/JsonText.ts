/**
 * JSON (RFC 8259) that remembers on which line each value stands, and may have comments and a comma after the last
 * item, as in `tsconfig.json`. Pure.
 */

export interface Position {
  /** From 1 on. */
  readonly line: number
  /** From 1 on, in UTF-16 units. */
  readonly column: number
}

export interface Parsed {
  readonly value: unknown
  /** Called with the place of each value, the outer one before those in it. */
  readonly places: ReadonlyArray<readonly [path: ReadonlyArray<string | number>, position: Position]>
}

/** The text is no JSON: what was expected, and where. */
export class Unexpected extends Error {
  readonly position: Position
  constructor(expected: string, position: Position) {
    super(expected)
    this.position = position
  }
}

/** Deeper than any configuration; the parser calls itself for each level. */
const maxDepth = 64

const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
// Control characters have to be escaped (RFC 8259, 7).
// oxlint-disable-next-line no-control-regex
const string = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y
const word = /true|false|null/y
const blank = /(?:[ \t\r\n]|\/\/[^\n]*|\/\*[^]*?\*\/)*/y

/** The value of a text; throws `Unexpected`. */
export const parse = (source: string): Parsed => {
  const text = source.startsWith("\ufeff") ? ` ${source.slice(1)}` : source
  const places: Array<readonly [ReadonlyArray<string | number>, Position]> = []
  let at = 0
  const position = (offset = at): Position => {
    const before = text.slice(0, offset)
    const start = before.lastIndexOf("\n") + 1
    return { line: before.split("\n").length, column: offset - start + 1 }
  }
  const fail = (expected: string, offset = at): never => {
    throw new Unexpected(expected, position(offset))
  }
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at
    const found = pattern.exec(text)?.[0]
    if (found !== undefined) at += found.length
    return found
  }
  const skip = () => void take(blank)
  const takes = (character: string): boolean => {
    skip()
    if (text[at] !== character) return false
    at++
    return true
  }
  const text_ = (): string | undefined => {
    const found = take(string)
    return found === undefined ? undefined : JSON.parse(found) as string
  }
  const list = (path: ReadonlyArray<string | number>): Array<unknown> => {
    const items: Array<unknown> = []
    while (!takes("]")) {
      items.push(value([...path, items.length]))
      if (!takes(",") && text[at] !== "]") fail("expected a comma or ]")
    }
    return items
  }
  const object = (path: ReadonlyArray<string | number>): Record<string, unknown> => {
    const fields: Record<string, unknown> = {}
    while (!takes("}")) {
      const start = at
      const name = text_() ?? fail("expected a name in double quotes, or }")
      if (name === "__proto__") fail("expected another name than __proto__", start)
      if (Object.hasOwn(fields, name)) fail("expected each name only once", start)
      if (!takes(":")) fail("expected a colon")
      fields[name] = value([...path, name])
      if (!takes(",") && text[at] !== "}") fail("expected a comma or }")
    }
    return fields
  }
  const value = (path: ReadonlyArray<string | number>): unknown => {
    skip()
    if (path.length > maxDepth) fail(`expected at most ${maxDepth} levels`)
    places.push([path, position()])
    if (takes("{")) return object(path)
    if (takes("[")) return list(path)
    const plain = take(word) ?? take(number)
    if (plain !== undefined) return JSON.parse(plain) as unknown
    return text_() ?? fail("expected a value")
  }
  const parsed = value([])
  skip()
  if (at < text.length) fail("expected the end of the file")
  return { value: parsed, places }
}
