/**
 * The texts that a configuration is read from: JSON, a Procfile, `.env` files, environment variables, flags. Pure: text
 * in, data with the place of each value out. No error holds a value, which may be secret.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type ConfigIssue, InvalidConfig } from "../Errors.ts"
import * as JsonText from "../internal/JsonText.ts"
import { describe, Origin } from "./ConfigOrigin.ts"
import * as ConfigPath from "./ConfigPath.ts"
import { Config, namePattern } from "./ServiceConfig.ts"

/** Values and where each comes from; a higher layer wins over a lower one. */
export interface Layer {
  readonly tree: unknown
  readonly originOf: (path: ConfigPath.Path) => Origin
}

const invalid = (source: string, path: string, problem: string): Result.Result<never, InvalidConfig> =>
  Result.fail(new InvalidConfig({ issues: [{ source, path, problem }] }))

/** A value with a place in a file. */
const place = (file: string, position: JsonText.Position | undefined): Origin =>
  Origin.cases.File.make({ file, line: position?.line ?? null, column: position?.column ?? null })

/** A file, read as a whole: `originOf` gives the place of the value, or of the nearest one around it. */
const layerOf = (
  file: string,
  tree: unknown,
  places: ReadonlyArray<readonly [ConfigPath.Path, JsonText.Position]>
): Layer => {
  const known = new Map(places.map(([path, position]) => [ConfigPath.format(path), position]))
  return {
    tree,
    originOf: (path) => {
      for (let length = path.length; length > 0; length--) {
        const found = known.get(ConfigPath.format(path.slice(0, length)))
        if (found !== undefined) return place(file, found)
      }
      return place(file, known.get(""))
    }
  }
}

/** Values that have no text of their own, such as those of a module. `file` is its name for people. */
export const values = (file: string, tree: unknown): Layer => layerOf(file, tree, [])

/**
 * JSON. Comments, and a comma after the last item, are allowed, as in `tsconfig.json`.
 *
 * @example
 * ```ts
 * import { ConfigOrigin, ConfigSource } from "@treeline/core/daemon"
 * import { Result } from "effect"
 * import { strictEqual } from "node:assert"
 *
 * const layer = Result.getOrThrow(ConfigSource.json("treeline.json", `{
 *   // what it is
 *   "services": { "web": { "command": "node" } },
 * }`))
 * strictEqual(ConfigOrigin.describe(layer.originOf(["services", "web", "command"])), "treeline.json:3:37")
 * const wrong = ConfigSource.json("treeline.json", `{ "services": }`)
 * strictEqual(Result.isFailure(wrong) && wrong.failure.message, "treeline.json:1:15: expected a value")
 * ```
 */
export const json = (file: string, text: string): Result.Result<Layer, InvalidConfig> => {
  try {
    const { places, value } = JsonText.parse(text)
    return Result.succeed(layerOf(file, value, places))
  } catch (error) {
    if (!(error instanceof JsonText.Unexpected)) throw error
    return invalid(describe(place(file, error.position)), "", error.message)
  }
}

/** One line of a `.env` file. */
export interface EnvEntry {
  readonly name: string
  readonly value: string
  readonly origin: Origin
}

const escapes: Readonly<Record<string, string>> = {
  n: "\n",
  r: "\r",
  t: "\t",
  "\"": "\"",
  "\\": "\\",
  $: "$",
  "`": "`"
}

/** What follows a value on its line. */
const rest = /[ \t]*(?:#[^\n]*)?(?:\n|$)/y
const assignment = /(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=[ \t]*/y
const emptyLine = /[ \t]*(?:#[^\n]*)?(?:\n|$)/y
const single = /'([^']*)'/y
const double = /"((?:[^"\\]|\\[^])*)"/y
const bare = /[^\n]*/y

/**
 * A `.env` file: `NAME=value` lines, with `export` before the name if wanted. In single quotes a value is taken as it is,
 * in double quotes `\n`, `\t`, `\"` and `\\` are known; both may span lines. Elsewhere ` #` begins a comment. `$NAME` is
 * not replaced.
 */
export const dotEnv = (file: string, source: string): Result.Result<ReadonlyArray<EnvEntry>, InvalidConfig> => {
  const text = source.replace(/^\ufeff/, "").replaceAll("\r\n", "\n")
  const entries: Array<EnvEntry> = []
  let at = 0
  const take = (pattern: RegExp): RegExpExecArray | undefined => {
    pattern.lastIndex = at
    const found = pattern.exec(text) ?? undefined
    if (found !== undefined) at += found[0].length
    return found
  }
  const line = () => text.slice(0, at).split("\n").length
  while (at < text.length) {
    if (take(emptyLine) !== undefined) continue
    take(/[ \t]*/y)
    const start = line()
    const origin = Origin.cases.File.make({ file, line: start, column: null })
    const fail = (problem: string) => invalid(`${file}:${start}`, "", problem)
    const name = take(assignment)?.[1]
    if (name === undefined) return fail("expected NAME=value, or # and a comment")
    const quoted = text[at] === "'" || text[at] === "\""
    const found = text[at] === "'" ? take(single) : text[at] === "\"" ? take(double) : take(bare)
    if (found === undefined) return fail(`expected a closing quote after the value of ${name}`)
    const value = !quoted
      ? found[0].replace(/(?:^|[ \t]+)#.*$/, "").trimEnd()
      : found[0].startsWith("\"")
      ? found[1]!.replaceAll(/\\([^])/g, (all, character: string) => escapes[character] ?? all)
      : found[1]!
    if (quoted ? take(rest) === undefined : (at < text.length && text[at++] !== "\n")) {
      return fail(`expected the end of the line after the value of ${name}`)
    }
    entries.push({ name, value, origin })
  }
  return Result.succeed(entries)
}

/** How a Procfile is read. */
export interface ProcfileOptions {
  /** `PORT` of the first process; each further one has 100 more, as with foreman. Default: 5000. */
  readonly port?: number | undefined
  /** Files with variables of all processes; foreman's is `.env`. */
  readonly envFile?: ReadonlyArray<string> | undefined
}

/**
 * A Procfile: `name: command line` for each process, run by the shell.
 *
 * @example
 * ```ts
 * import { ConfigSource } from "@treeline/core/daemon"
 * import { Result } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const { tree } = Result.getOrThrow(ConfigSource.procfile("Procfile", "web: npm start\nworker: npm run work\n"))
 * deepStrictEqual(tree, {
 *   services: {
 *     web: { command: "npm start", shell: true, env: { PORT: "5000" } },
 *     worker: { command: "npm run work", shell: true, env: { PORT: "5100" } }
 *   }
 * })
 * ```
 */
export const procfile = (
  file: string,
  text: string,
  options: ProcfileOptions = {}
): Result.Result<Layer, InvalidConfig> => {
  const services: Record<string, unknown> = {}
  const places: Array<readonly [ConfigPath.Path, JsonText.Position]> = []
  for (const [index, line] of text.replace(/^\ufeff/, "").split(/\r?\n/).entries()) {
    if (/^\s*(?:#|$)/.test(line)) continue
    const source = `${file}:${index + 1}`
    const [, name, command] = /^([^:\s]+)\s*:\s*(\S.*?)\s*$/.exec(line) ?? []
    if (name === undefined || command === undefined) return invalid(source, "", "expected \"name: command\"")
    if (!namePattern.test(name)) return invalid(source, "", "expected a name of letters, digits, _ and -")
    if (Object.hasOwn(services, name)) return invalid(source, `services.${name}`, "expected each name only once")
    const port = (options.port ?? 5000) + 100 * Object.keys(services).length
    places.push([["services", name], { line: index + 1, column: 1 }])
    services[name] = {
      command,
      shell: true,
      env: { PORT: String(port) },
      ...options.envFile === undefined ? {} : { envFile: options.envFile }
    }
  }
  return Object.keys(services).length === 0
    ? invalid(file, "", "expected at least one line \"name: command\"")
    : Result.succeed(layerOf(file, { services }, places))
}

/** One value from outside of the files. */
export interface Override {
  readonly path: ConfigPath.Path
  /** null takes away what lower layers say. */
  readonly value: unknown
  readonly origin: Origin
}

/** Fields of free names, whose values are texts. */
const isFree = (name: string | number | undefined): boolean => name === "env" || name === "headers"

/** The path that a text such as `services.web.env.PORT` means; undefined when it is none. The name of a variable may have dots. */
export const pathOf = (name: string): ConfigPath.Path | undefined => {
  const parts = name.split(".")
  const path = parts.length > 3 && isFree(parts[2]) ? [...parts.slice(0, 3), parts.slice(3).join(".")] : parts
  return path.includes("") ? undefined : path
}

/**
 * What a text means: `true`, `false`, `null`, numbers, and JSON that begins with [, { or " are what they are in JSON,
 * everything else is text. The value of a service's variable is text whatever it looks like, but for null and references.
 */
const valueOf = (text: string, path: ConfigPath.Path): unknown => {
  const trimmed = text.trim()
  const json = isFree(path.at(-2))
    ? /^(?:null$|\{\s*"from(?:Env|File)"\s*:)/
    : /^(?:(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?)$|[[{"])/
  if (!json.test(trimmed)) return text
  return JsonText.parse(trimmed).value
}

/** One value for a path, as text. */
export const override = (
  path: ConfigPath.Path,
  text: string,
  origin: Origin
): Result.Result<Override, ConfigIssue> => {
  try {
    return Result.succeed({ path, value: valueOf(text, path), origin })
  } catch (error) {
    if (!(error instanceof JsonText.Unexpected)) throw error
    return Result.fail({
      source: describe(origin),
      path: ConfigPath.format(path),
      problem: `${error.message} at character ${error.position.column} of the JSON`
    })
  }
}

const all = (
  results: ReadonlyArray<Result.Result<Override, ConfigIssue>>
): Result.Result<ReadonlyArray<Override>, InvalidConfig> => {
  const [first, ...others] = results.flatMap((result) => Result.isFailure(result) ? [result.failure] : [])
  return first === undefined
    ? Result.succeed(results.flatMap((result) => Result.isSuccess(result) ? [result.success] : []))
    : Result.fail(new InvalidConfig({ issues: [first, ...others] }))
}

/**
 * Flags of the form `PATH=VALUE`, such as `services.web.restart.mode=transient`.
 *
 * @example
 * ```ts
 * import { ConfigSource } from "@treeline/core/daemon"
 * import { Result } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const [port, args] = Result.getOrThrow(ConfigSource.flags(["services.web.env.PORT=80", "services.web.args=[\"-v\"]"]))
 * deepStrictEqual([port?.value, args?.value], ["80", ["-v"]])
 * ```
 */
export const flags = (texts: ReadonlyArray<string>): Result.Result<ReadonlyArray<Override>, InvalidConfig> =>
  all(texts.map((text) => {
    const end = text.indexOf("=")
    const name = end < 0 ? text : text.slice(0, end)
    const path = pathOf(name)
    if (end < 0 || path === undefined) {
      return Result.fail({
        source: `--set ${name}`,
        path: "",
        problem: "expected PATH=VALUE, such as services.web.restart.mode=transient"
      })
    }
    return override(path, text.slice(end + 1), Origin.cases.Flag.make({ text: name }))
  }))

const prefix = "TREELINE_"

/** The same for `dependsOn`, `DEPENDS_ON` and `dependson`. */
const plainName = (name: string): string => name.toLowerCase().replaceAll(/[_-]/g, "")

/** The names of all fields, by their plain names. */
const fieldNames = (): ReadonlyMap<string, string> => {
  const names = new Map<string, string>()
  const collect = (schema: unknown): void => {
    if (Array.isArray(schema)) return schema.forEach(collect)
    if (!ConfigPath.isTree(schema)) return
    for (const [key, value] of Object.entries(schema)) {
      if (key === "properties" && ConfigPath.isTree(value)) {
        for (const name of Object.keys(value)) names.set(plainName(name), name)
      }
      if (key !== "default") collect(value)
    }
  }
  collect(Schema.toJsonSchemaDocument(Config))
  return names
}

/**
 * Variables that override a configuration: `TREELINE_`, and the path with `__` between its parts. Case and single `_`
 * don't matter in the names of fields and services: `TREELINE_SERVICES__WEB__DEPENDS_ON`. `tree` is the configuration so
 * far, whose services, groups and pools can be named.
 *
 * @example
 * ```ts
 * import { ConfigSource } from "@treeline/core/daemon"
 * import { Result } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const tree = { services: { "my-api": { command: "node" } } }
 * const variables = { TREELINE_SERVICES__MY_API__ENV__PORT: "8080", PATH: "/bin" }
 * const [port] = Result.getOrThrow(ConfigSource.variables(variables, tree))
 * deepStrictEqual(port?.path, ["services", "my-api", "env", "PORT"])
 * ```
 */
export const variables = (
  environment: Readonly<Record<string, string | undefined>>,
  tree: unknown
): Result.Result<ReadonlyArray<Override>, InvalidConfig> => {
  const tops = /^TREELINE_(?:SERVICES|GROUPS|POOLS|SUPERVISOR|DAEMON)__/i
  const found = Object.entries(environment).flatMap(([name, text]) =>
    text !== undefined && tops.test(name) ? [[name, text] as const] : []
  )
  if (found.length === 0) return Result.succeed([])
  const names = fieldNames()
  const resolve = (variable: string): Result.Result<ConfigPath.Path, ConfigIssue> => {
    const fail = (path: ConfigPath.Path, problem: string) =>
      Result.fail({ source: `variable ${variable}`, path: ConfigPath.format(path), problem })
    const parts = variable.slice(prefix.length).split("__")
    const path: Array<string> = []
    for (const [index, part] of parts.entries()) {
      if (isFree(path.at(-1))) {
        path.push(parts.slice(index).join("__"))
        break
      }
      if (index === 1 && ["services", "groups", "pools"].includes(path[0]!)) {
        const section = ConfigPath.isTree(tree) ? tree[path[0]!] : undefined
        const known = ConfigPath.isTree(section) ? Object.keys(section) : []
        const matches = known.filter((name) => plainName(name) === plainName(part))
        if (matches.length !== 1) {
          return fail(
            path,
            matches.length === 0
              ? `expected one of ${known.join(", ")} instead of ${part}`
              : `${part} may be any of ${matches.join(", ")}; use --set`
          )
        }
        path.push(matches[0]!)
        continue
      }
      const field = names.get(plainName(part))
      if (field === undefined) return fail(path, `there is no field ${part}`)
      path.push(field)
    }
    return Result.succeed(path)
  }
  return all(
    found.map(([name, text]) =>
      Result.flatMap(resolve(name), (path) => override(path, text, Origin.cases.Variable.make({ name })))
    )
  )
}
