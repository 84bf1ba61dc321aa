/**
 * Values that were set by hand and outlive it: a layer of the configuration between the file and the variables, kept in the
 * state folder. A flat object of path and value; a later one wins over an earlier one. Who changes it holds the lock of
 * operations (`Daemon.exclusively`).
 */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import { type ConfigIssue, InvalidConfig, type StateFolderError } from "../Errors.ts"
import * as JsonText from "../internal/JsonText.ts"
import { Origin } from "./ConfigOrigin.ts"
import * as ConfigPath from "./ConfigPath.ts"
import * as ConfigSource from "./ConfigSource.ts"
import type { StateFolder } from "./StateFolder.ts"

/** By their paths as `--set` has them, in the order in which they were set. */
export type Settings = ReadonlyMap<string, Schema.Json>

export const none: Settings = new Map()

/** The file, in the state folder. */
export const name = "settings.json"

/** What is written before it takes the place of the file. Only the holder of the lock writes, so one name is enough. */
const draft = `${name}.next`

/** In UTF-16 units, of which each takes up to 3 bytes: a state folder reads no file of more than 64 KiB. */
const longest = 16 * 1024

/** What is done about a single setting. */
export const removal = (key: string): string => `"treeline set --remove ${key}" takes it away`

const remedy = "put it right or remove the file: it has nothing but what \"treeline set\" was told"

const refused = (source: string, path: string, problem: string): Result.Result<never, InvalidConfig> =>
  Result.fail(new InvalidConfig({ issues: [{ source, path, problem }] }))

/** What is in the file; the keys are not judged, so that a wrong one can be removed. */
export const parse = (file: string, text: string): Result.Result<Settings, InvalidConfig> => {
  try {
    const { value } = JsonText.parse(text)
    if (!ConfigPath.isTree(value)) return refused(file, "", `expected an object of paths and values; ${remedy}`)
    return Result.succeed(new Map(Object.entries(value as Readonly<Record<string, Schema.Json>>)))
  } catch (error) {
    if (!(error instanceof JsonText.Unexpected)) throw error
    const { column, line } = error.position
    return refused(`${file}:${line}:${column}`, "", `${error.message}; ${remedy}`)
  }
}

/** Why a path can't be set; undefined when it can. The value is judged with the whole configuration. */
export const problemOf = (key: string): string | undefined => {
  const path = ConfigSource.pathOf(key)
  if (path === undefined) return "expected a path, such as services.web.restart.mode"
  const [section, field] = path
  if (section !== "daemon") return undefined
  // A whole "daemon" would take the folder away, and the settings with it.
  if (field === undefined) return "can't be set as a whole: set its fields, such as daemon.stopWithin"
  return field === "directory"
    ? "says where the settings are, so it can't be one: put it in the configuration, or set TREELINE_DAEMON__DIRECTORY"
    : undefined
}

/** As values of the layer; `file` is its name for people. */
export const overrides = (
  file: string,
  settings: Settings
): Result.Result<ReadonlyArray<ConfigSource.Override>, InvalidConfig> => {
  const [first, ...others] = [...settings.keys()].flatMap((key): ReadonlyArray<ConfigIssue> => {
    const problem = problemOf(key)
    return problem === undefined ? [] : [{ source: file, path: key, problem: `${problem}; ${removal(key)}` }]
  })
  return first !== undefined
    ? Result.fail(new InvalidConfig({ issues: [first, ...others] }))
    : Result.succeed([...settings].map(([key, value]) => ({
      path: ConfigSource.pathOf(key) ?? [],
      value,
      origin: Origin.cases.Setting.make({ file, key })
    })))
}

const isBelow = (key: string, other: string): boolean => {
  const path = ConfigSource.pathOf(key) ?? [key]
  const inner = ConfigSource.pathOf(other) ?? [other]
  return inner.length > path.length && path.every((part, index) => inner[index] === part)
}

/**
 * With one more value, which wins over those of before; what was set for parts of it has no meaning any more and is left
 * out. The same settings when it is set already.
 *
 * @example
 * ```ts
 * import { Settings } from "@treeline/core/daemon"
 * import { deepStrictEqual, strictEqual } from "node:assert"
 *
 * const one = Settings.put(new Map(), "services.web.restart.mode", "transient")
 * strictEqual(Settings.put(one, "services.web.restart.mode", "transient"), one)
 * const whole = Settings.put(one, "services.web.restart", { mode: "permanent" })
 * deepStrictEqual([...whole], [["services.web.restart", { mode: "permanent" }]])
 * ```
 */
export const put = (settings: Settings, key: string, value: Schema.Json): Settings => {
  const kept = [...settings].filter(([other]) => other !== key && !isBelow(key, other))
  const isSet = kept.length === settings.size - 1 && settings.has(key) && Equal.equals(settings.get(key), value) &&
    // A later one for something around it would win.
    !kept.slice([...settings.keys()].indexOf(key)).some(([other]) => isBelow(other, key))
  return isSet ? settings : new Map([...kept, [key, value]])
}

/** Without a value; the same settings when it is not there. */
export const remove = (settings: Settings, key: string): Settings =>
  settings.has(key) ? new Map([...settings].filter(([other]) => other !== key)) : settings

/** What is kept in a state folder; nothing where there is none. */
export const read = (folder: StateFolder): Effect.Effect<Settings, InvalidConfig> =>
  folder.read(name).pipe(
    Effect.catch(({ detail, path }) => Effect.fromResult(refused(path, "", `can't be read: ${detail}; ${remedy}`))),
    Effect.flatMap((text) =>
      text === undefined ? Effect.succeed(none) : Effect.fromResult(parse(`${folder.path}/${name}`, text))
    )
  )

/** Settings that are on the disk, beside those that hold. */
export interface Staged {
  /** From now on they hold. */
  readonly commit: Effect.Effect<void, StateFolderError>
  /** They are dropped. */
  readonly discard: Effect.Effect<void, StateFolderError>
}

/**
 * All of `write` that can fail for want of room, before anything that depends on it is done: what is left for `commit` is
 * to put one file in the place of another. The caller holds the lock.
 */
export const stage = (
  folder: StateFolder,
  settings: Settings
): Effect.Effect<Staged, InvalidConfig | StateFolderError> =>
  Effect.uninterruptible(Effect.gen(function*() {
    const discard = folder.removeFile(draft)
    yield* discard
    if (settings.size === 0) return { commit: folder.removeFile(name), discard }
    const text = `${JSON.stringify(Object.fromEntries(settings), null, 2)}\n`
    if (text.length > longest) {
      return yield* Effect.fromResult(
        refused(`${folder.path}/${name}`, "", `would have more than ${longest} characters`)
      )
    }
    yield* folder.makeFolder(".")
    yield* Effect.onError(folder.write(draft, text), () => Effect.ignore(discard))
    return { commit: folder.replace(draft, name), discard }
  }))

/**
 * Keeps them, for this user only: in one step, whatever becomes of this process, and on the disk when it is done. None at
 * all leave no file. The caller holds the lock.
 */
export const write = (
  folder: StateFolder,
  settings: Settings
): Effect.Effect<void, InvalidConfig | StateFolderError> =>
  Effect.uninterruptible(Effect.flatMap(stage(folder, settings), ({ commit }) => commit))
