/** The environment of a process as CreateProcessW takes it: names are the same in any case, sorted, in UTF-16. */

export type Environment = Readonly<Record<string, string | undefined>>

/** Without these, system libraries of the child fail in strange ways; Node adds the same ones. */
const required = [
  "HOMEDRIVE",
  "HOMEPATH",
  "LOGONSERVER",
  "PATH",
  "SYSTEMDRIVE",
  "SYSTEMROOT",
  "TEMP",
  "USERDOMAIN",
  "USERNAME",
  "USERPROFILE",
  "WINDIR"
]

/** Names are compared as the system does it: in upper case, by UTF-16 units. */
const key = (name: string): string => name.toUpperCase()

/** A variable, whatever the case of its name. */
export const get = (env: Environment, name: string): string | undefined => {
  const wanted = key(name)
  for (const [candidate, value] of Object.entries(env)) if (key(candidate) === wanted) return value
  return undefined
}

/** `changes` over `base`: undefined removes a variable, a name in another case is the same variable. */
export const merge = (base: Environment, changes: Environment): Record<string, string> => {
  const merged = new Map<string, readonly [string, string]>()
  for (const [name, value] of [...Object.entries(base), ...Object.entries(changes)]) {
    merged.delete(key(name))
    if (value !== undefined) merged.set(key(name), [name, value])
  }
  return Object.fromEntries(merged.values())
}

/** Adds what the system needs from the host's environment, unless it is there or was removed on purpose. */
export const withRequired = (
  env: Environment,
  host: Environment,
  removed: Environment = {}
): Record<string, string> => {
  const added: Record<string, string> = {}
  const gone = new Set(Object.entries(removed).flatMap(([name, value]) => value === undefined ? [key(name)] : []))
  for (const name of required) {
    const value = get(host, name)
    if (value !== undefined && get(env, name) === undefined && !gone.has(name)) added[name] = value
  }
  return merge(env, added)
}

/** `NAME=value\0...\0\0`, sorted. */
export const encode = (env: Environment): Buffer => {
  const entries = Object.entries(merge(env, {}))
    .map(([name, value]) => [key(name), `${name}=${value}\0`] as const)
    .sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0)
  // An empty block is two NULs as well.
  return Buffer.from(`${entries.map(([, text]) => text).join("")}${entries.length === 0 ? "\0" : ""}\0`, "utf16le")
}
