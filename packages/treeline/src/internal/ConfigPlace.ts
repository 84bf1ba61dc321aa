/** Where the configuration is. Apart from how it is read, so that a command that needs no more starts without that. */
import { InvalidConfig } from "@treeline/core/Errors"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import * as path from "node:path"

/** Modules, of which one may be in a folder beside no `treeline.json`. */
const modules = ["treeline.config.ts", "treeline.config.mts", "treeline.config.js", "treeline.config.mjs"]

/** The names that are looked for; a Procfile counts where there is none of the others. */
export const names: ReadonlyArray<string> = [...modules, "treeline.json", "Procfile"]

const invalid = (source: string, problem: string) => new InvalidConfig({ issues: [{ source, path: "", problem }] })

/** Whether the file is this user's or root's: one that is found in passing may be somebody else's trap. */
const isTrusted = (file: string): boolean => {
  const own = process.getuid?.()
  const { uid } = fs.statSync(file)
  return own === undefined || uid === own || uid === 0
}

/**
 * The configuration of a folder: its own or that of the nearest folder above it that has one. A file of another user is
 * refused, because a module is code.
 */
export const find = Effect.fn("ConfigFile.find")(function*(folder: string): Effect.fn.Return<string, InvalidConfig> {
  for (let at = path.resolve(folder), last = ""; at !== last; last = at, at = path.dirname(at)) {
    const here = names.filter((name) => fs.statSync(path.join(at, name), { throwIfNoEntry: false })?.isFile() === true)
    const [first, second] = here
    if (first === undefined) continue
    if (second !== undefined && second !== "Procfile") {
      return yield* invalid(at, `${here.join(" and ")} are both here; choose one with --config`)
    }
    const file = path.join(at, first)
    if (isTrusted(file)) return file
    return yield* invalid(file, "it belongs to another user; if you trust it, name it with --config")
  }
  return yield* invalid(
    path.resolve(folder),
    "there is no treeline.config.ts, treeline.json or Procfile here or in a folder above; \"treeline init\" writes one"
  )
})

export interface Options {
  /** The file; without it `TREELINE_CONFIG`, and then what `find` finds. */
  readonly file?: string | undefined
  /** Where a relative path begins, and the search. Default: the current folder. */
  readonly folder?: string | undefined
  /** Default: that of this process. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined
}

/** The file that holds, without reading it: the one that is named, that of `TREELINE_CONFIG`, or what `find` finds. */
export const locate = Effect.fn("ConfigFile.locate")(
  function*(options: Options = {}): Effect.fn.Return<string, InvalidConfig> {
    const folder = path.resolve(options.folder ?? process.cwd())
    const named = options.file ?? ((options.environment ?? process.env)["TREELINE_CONFIG"] || undefined)
    return named === undefined ? yield* find(folder) : path.resolve(folder, named)
  }
)

/** Whether variables say something of `daemon`, and so maybe where it is. Their case does not matter, as in `ConfigSource`. */
export const hasVariables = (environment: NonNullable<Options["environment"]> = process.env): boolean =>
  Object.keys(environment).some((name) => /^TREELINE_DAEMON__/i.test(name))

const real = (file: string): string => {
  try {
    return fs.realpathSync.native(file)
  } catch {
    return path.resolve(file)
  }
}

/**
 * Whether two paths mean the same configuration: the same path, which another file may be behind by now, or the same file
 * by a link.
 */
export const isSame = (one: string, other: string): boolean =>
  path.resolve(one) === path.resolve(other) || real(one) === real(other)
