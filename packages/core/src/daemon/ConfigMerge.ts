/**
 * Which value holds: defaults < file < settings < environment < flags. Every value keeps where it came from, so that it can be
 * explained.
 */
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { type Explained, Origin } from "./ConfigOrigin.ts"
import * as ConfigPath from "./ConfigPath.ts"
import type { Layer, Override } from "./ConfigSource.ts"
import { Config } from "./ServiceConfig.ts"

/** The values of all layers, and the layer that each came from. */
export interface Merged {
  readonly tree: unknown
  /** By path, as `ConfigPath.format` writes it; also of the objects and lists around the values. */
  readonly origins: ReadonlyMap<string, Origin>
}

/** Forgets the origins of what was at a path and below it. */
const forget = (origins: Map<string, Origin>, path: ConfigPath.Path, value: unknown): void =>
  ConfigPath.walk(value, (inner) => origins.delete(ConfigPath.format(inner)), path)

const remember = (
  origins: Map<string, Origin>,
  path: ConfigPath.Path,
  value: unknown,
  originOf: (path: ConfigPath.Path) => Origin
): void => ConfigPath.walk(value, (inner) => origins.set(ConfigPath.format(inner), originOf(inner)), path)

/**
 * Merges layers, the lowest first. Objects are merged field by field; everything else, lists too, is replaced.
 *
 * @example
 * ```ts
 * import { ConfigMerge, ConfigOrigin, ConfigSource } from "@treeline/core/daemon"
 * import { deepStrictEqual, strictEqual } from "node:assert"
 *
 * const base = ConfigSource.values("base", { services: { web: { command: "node", args: ["a", "b"] } } })
 * const local = ConfigSource.values("local", { services: { web: { args: ["c"] } } })
 * const { origins, tree } = ConfigMerge.merge([base, local])
 * deepStrictEqual(tree, { services: { web: { command: "node", args: ["c"] } } })
 * strictEqual(ConfigOrigin.describe(origins.get("services.web.args")!), "local")
 * ```
 */
export const merge = (layers: ReadonlyArray<Layer>): Merged => {
  const origins = new Map<string, Origin>()
  const put = (below: unknown, above: unknown, path: ConfigPath.Path, layer: Layer): unknown => {
    if (!ConfigPath.isTree(below) || !ConfigPath.isTree(above)) {
      forget(origins, path, below)
      remember(origins, path, above, layer.originOf)
      return above
    }
    const merged: Record<string, unknown> = { ...below }
    for (const [name, value] of Object.entries(above)) merged[name] = put(merged[name], value, [...path, name], layer)
    return merged
  }
  const tree = layers.reduce<unknown>((below, layer) => put(below, layer.tree, [], layer), undefined)
  return { tree, origins }
}

/** The tree with a value at a path, or without what is there. What stands in the way of the path is replaced. */
const setAt = (tree: unknown, path: ConfigPath.Path, value: unknown): unknown => {
  const [name, ...inner] = path
  if (name === undefined) return value
  const fields: Record<string, unknown> = ConfigPath.isTree(tree) ? { ...tree } : {}
  if (inner.length === 0 && value === null) delete fields[name]
  else if (value !== null || Object.hasOwn(fields, name)) fields[name] = setAt(fields[name], inner, value)
  return fields
}

/** The tree with these values in place of those that are there, in lists too. */
export const withValues = (
  tree: unknown,
  values: ReadonlyArray<readonly [path: ConfigPath.Path, value: unknown]>
): unknown => {
  const known = new Map(values.map(([path, value]) => [ConfigPath.format(path), value]))
  const copy = (item: unknown, path: ConfigPath.Path): unknown => {
    const name = ConfigPath.format(path)
    if (known.has(name)) return known.get(name)
    if (Array.isArray(item)) return item.map((inner, index) => copy(inner, [...path, index]))
    if (!ConfigPath.isTree(item)) return item
    return Object.fromEntries(Object.entries(item).map(([name, inner]) => [name, copy(inner, [...path, name])]))
  }
  return known.size === 0 ? tree : copy(tree, [])
}

/** A whole probe is one value: another kind of probe replaces it, its times stay. */
const probes: ReadonlySet<string | number> = new Set(["line", "fd", "tcp", "http", "exec"])

/** Puts single values on top; each replaces what was at its path, and null takes it away. */
export const override = (self: Merged, overrides: ReadonlyArray<Override>): Merged => {
  const origins = new Map(self.origins)
  let tree = self.tree
  const put = (path: ConfigPath.Path, value: unknown, origin: Origin) => {
    forget(origins, path, at(tree, path))
    tree = setAt(tree, path, value)
    if (value === null) return
    for (let length = 1; length < path.length; length++) {
      const outer = ConfigPath.format(path.slice(0, length))
      if (!origins.has(outer)) origins.set(outer, origin)
    }
    remember(origins, path, value, () => origin)
  }
  for (const { origin, path, value } of overrides) {
    const kind = path[3]
    if (path[2] === "readiness" && kind !== undefined && probes.has(kind) && value !== null) {
      for (const other of probes) if (other !== kind) put([...path.slice(0, 3), other], null, origin)
    }
    put(path, value, origin)
  }
  return { tree, origins }
}

/** The value at a path. */
export const at = (tree: unknown, path: ConfigPath.Path): unknown =>
  path.reduce<unknown>(
    (value, part) =>
      ConfigPath.isTree(value) && Object.hasOwn(value, part)
        ? value[part]
        : Array.isArray(value) && typeof part === "number"
        ? value[part]
        : undefined,
    tree
  )

/** The origin of the value at a path, or of the nearest one around it. */
export const originOf = (origins: ReadonlyMap<string, Origin>, path: ConfigPath.Path): Origin | undefined => {
  for (let length = path.length; length >= 0; length--) {
    const found = origins.get(ConfigPath.format(path.slice(0, length)))
    if (found !== undefined) return found
  }
  return undefined
}

const hidden = "<redacted>"

/** Names of variables and headers that hold secrets more often than not. */
const secretName = /pass(?:wd|word|phrase)?|secret|token|credential|private|api_?key|auth|cookie/i

/** The user and password of a URL. */
const credentials = /(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/@]+@/gi

/** A value that can be shown: no secret in it. */
export const shown = (path: ConfigPath.Path, value: unknown): Schema.Json => {
  if (Redacted.isRedacted(value)) return hidden
  if (typeof value === "string") {
    const free = path.at(-2) === "env" || path.at(-2) === "headers"
    return free && secretName.test(String(path.at(-1))) ? hidden : value.replaceAll(credentials, `$1${hidden}@`)
  }
  if (Array.isArray(value)) return value.map((item, index) => shown([...path, index], item))
  if (ConfigPath.isTree(value)) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, shown([...path, name], item)]))
  }
  return value as Schema.Json
}

/** The whole configuration as it would be written, without its secrets. */
export const redact = (config: Config): Schema.Json => shown([], Schema.encodeSync(Config)(config))

const isLeaf = (value: unknown): boolean =>
  Array.isArray(value)
    ? value.every((item) => !ConfigPath.isTree(item))
    : !ConfigPath.isTree(value) || Object.keys(value).length === 0

/** Every value of a configuration with its origin, in the order of the Schema; what no layer said is a default. */
export const explain = (config: Config, origins: ReadonlyMap<string, Origin>): ReadonlyArray<Explained> => {
  const all: Array<Explained> = []
  const collect = (path: ConfigPath.Path, value: unknown): void => {
    if (isLeaf(value)) {
      const name = ConfigPath.format(path)
      all.push({ path: name, value: shown(path, value), origin: origins.get(name) ?? Origin.cases.Default.make({}) })
    } else if (Array.isArray(value)) value.forEach((item, index) => collect([...path, index], item))
    else for (const [name, item] of Object.entries(value as object)) collect([...path, name], item)
  }
  for (const [name, value] of Object.entries(Schema.encodeSync(Config)(config))) {
    // An empty section says nothing.
    if (!isLeaf(value) || origins.has(name)) collect([name], value)
  }
  return all
}
