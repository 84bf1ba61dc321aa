/** Writes data as the source of a test that can be pasted. */

/** How long a line gets, in characters. */
const width = 100

const key = (name: string): string => /^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name)

/** A value as an expression that begins in column `column` of a line with this indent. */
const print = (value: unknown, indent: string, column: number): string => {
  if (typeof value !== "object" || value === null) return JSON.stringify(value)
  const entries: ReadonlyArray<readonly [prefix: string, value: unknown]> = Array.isArray(value)
    ? value.map((item: unknown) => ["", item])
    : Object.entries(value).filter(([, item]) => item !== undefined).map(([name, item]) => [`${key(name)}: `, item])
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"]
  if (entries.length === 0) return `${open}${close}`
  const space = Array.isArray(value) ? "" : " "
  const flat = `${open}${space}${
    entries.map(([prefix, item]) => `${prefix}${print(item, "", Number.NEGATIVE_INFINITY)}`).join(", ")
  }${space}${close}`
  if (column + flat.length <= width) return flat
  const inner = `${indent}  `
  const lines = entries.map(([prefix, item]) => `${inner}${prefix}${print(item, inner, inner.length + prefix.length)}`)
  return `${open}\n${lines.join(",\n")}\n${indent}${close}`
}

/** The expression, its further lines indented. */
export const expression = (value: unknown, indent = ""): string => print(value, indent, indent.length)

/** A test of `@effect/vitest` that runs an effect. */
export const test = (effect: string): string => `it.effect("replay", () =>\n  ${effect})`
