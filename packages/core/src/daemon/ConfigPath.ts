/** Where a value is in a configuration: `services.web.liveness[0].tcp`. */

export type Path = ReadonlyArray<string | number>

const plain = /^[A-Za-z_$][\w$-]*$/

/** The path for people; a name that could be taken for something else stands in brackets. */
export const format = (path: Path): string =>
  path.map((part, index) =>
    typeof part === "number"
      ? `[${part}]`
      : plain.test(part)
      ? `${index === 0 ? "" : "."}${part}`
      : `[${JSON.stringify(part)}]`
  ).join("")

/** Whether the value is an object that others may be merged with: neither a list nor an instance of a class. */
export const isTree = (value: unknown): value is Readonly<Record<string, unknown>> => {
  if (typeof value !== "object" || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** Calls `visit` for a value and for everything in it, from the outside to the inside. */
export const walk = (value: unknown, visit: (path: Path, value: unknown) => void, path: Path = []): void => {
  visit(path, value)
  if (Array.isArray(value)) value.forEach((item, index) => walk(item, visit, [...path, index]))
  else if (isTree(value)) { for (const [name, item] of Object.entries(value)) walk(item, visit, [...path, name]) }
}
