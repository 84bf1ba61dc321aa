/**
 * From what was read to a configuration that can be used: merged, checked, with its secrets looked up. Nothing is started.
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as ChildSpec from "../ChildSpec.ts"
import { type ConfigIssue, InvalidConfig, type InvalidSpec } from "../Errors.ts"
import * as Dependencies from "../internal/Dependencies.ts"
import * as ConfigMerge from "./ConfigMerge.ts"
import * as ConfigOrigin from "./ConfigOrigin.ts"
import * as ConfigPath from "./ConfigPath.ts"
import * as ConfigSource from "./ConfigSource.ts"
import * as ServiceChild from "./ServiceChild.ts"
import { Config } from "./ServiceConfig.ts"
import * as Settings from "./Settings.ts"

/** A configuration that can be used, and where each of its values came from. */
export interface Loaded {
  readonly config: Config
  readonly explained: ReadonlyArray<ConfigOrigin.Explained>
}

export interface Options {
  /** The file. */
  readonly file: ConfigSource.Layer
  /**
   * Values between the file and the variables (see `Settings`), for the state folder that the other layers mean: its
   * absolute path, undefined where none of them says so.
   */
  readonly settings?:
    | ((directory: string | undefined) => Effect.Effect<ReadonlyArray<ConfigSource.Override>, InvalidConfig>)
    | undefined
  /** Variables of this program, for overrides and for values `{"fromEnv": NAME}`. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** `PATH=VALUE`; they win over all. */
  readonly flags: ReadonlyArray<string>
  /** The absolute path of one that is seen from the file's folder. */
  readonly resolvePath: (path: string) => string
  /** The text of a file, by its absolute path; the error says why there is none. */
  readonly readText: (path: string) => Effect.Effect<string, string>
}

interface Problem {
  readonly path: ConfigPath.Path
  readonly problem: string
}

const located = (problems: ReadonlyArray<Problem>, merged: ConfigMerge.Merged): InvalidConfig => {
  const issues = problems.map(({ path, problem }): ConfigIssue => {
    const origin = ConfigMerge.originOf(merged.origins, path) ?? ConfigOrigin.Origin.cases.Default.make({})
    const at = ConfigPath.format(path)
    return origin._tag === "Setting"
      ? { source: origin.file, path: at, problem: `${problem}; ${Settings.removal(origin.key)}` }
      : { source: ConfigOrigin.describe(origin), path: at, problem }
  })
  const [first, ...others] = issues
  return new InvalidConfig({ issues: [first!, ...others] })
}

/** What the Schema would say in its own words. */
const leafHook: SchemaIssue.LeafHook = (issue) => {
  switch (issue._tag) {
    case "MissingKey":
      return "is missing"
    case "UnexpectedKey":
      return "is not known here; is it misspelt?"
    default:
      return SchemaIssue.defaultLeafHook(issue)
  }
}

const formatter = SchemaIssue.makeFormatterStandardSchemaV1({ leafHook })

const sections = new Set<string | number>(["services", "groups", "pools"])

const problemsOf = (issue: SchemaIssue.Issue): ReadonlyArray<Problem> =>
  formatter(issue).issues.map(({ message, path = [] }) => {
    const parts = path.map((part) => {
      const key = typeof part === "object" ? part.key : part
      return typeof key === "number" ? key : String(key)
    })
    const named = parts.length === 2 && sections.has(parts[0]!) && message.startsWith("is not known")
    return {
      path: parts,
      problem: named ? "expected a name of letters, digits, _ and -" : message.replace(/^Expected/, "expected")
    }
  })

const decode = Schema.decodeUnknownResult(Config)

/** Whether a path stays in the folder that it begins in, on every system. */
const isInside = (path: string): boolean =>
  !/^(?:[\\/]|[A-Za-z]:)/.test(path) && !path.split(/[\\/]/).some((part) => part === ".." || part === "")

/** A loop that fetches more often than this fetches all the time, in ms. */
const shortestInterval = 1000

/** What no Schema can say: names that must exist, circles, and fields that exclude each other. */
const conflictsOf = (config: Config): ReadonlyArray<Problem> => {
  const problems: Array<Problem> = []
  const { daemon, groups, pools, services } = config
  const say = (path: ConfigPath.Path, problem: string) => void problems.push({ path, problem })
  for (const [group, members] of Object.entries(groups)) {
    if (Object.hasOwn(services, group)) say(["groups", group], "a service has this name already")
    for (const [index, member] of members.entries()) {
      if (!Object.hasOwn(services, member)) say(["groups", group, index], "expected the name of a service")
    }
  }
  const owners = new Map<number, string>()
  const logOwners = new Map<string, string>()
  for (const [name, service] of Object.entries(services)) {
    const path = ["services", name]
    for (const [index, dependency] of service.dependsOn.entries()) {
      const on = typeof dependency === "string" ? dependency : dependency.service
      if (on === name) say([...path, "dependsOn", index], "expected another service")
      else if (!Object.hasOwn(services, on) && !Object.hasOwn(groups, on)) {
        say([...path, "dependsOn", index], "expected the name of a service or a group")
      }
    }
    for (const port of ServiceChild.portsOf(service)) {
      if (typeof port !== "number") continue
      const owner = owners.get(port)
      if (owner !== undefined) say(path, `port ${port} is the port of ${owner} too; a port has one service`)
      owners.set(port, name)
    }
  }
  for (const [section, all] of [["services", services], ["pools", pools]] as const) {
    for (const [name, { args, logs, shell }] of Object.entries(all)) {
      if (logs !== undefined) {
        const owner = logOwners.get(logs.file)
        if (owner !== undefined) say([section, name, "logs", "file"], `expected another file than that of ${owner}`)
        logOwners.set(logs.file, name)
        if (section === "pools" && !logs.file.includes("{key}")) {
          say([section, name, "logs", "file"], "expected a path with {key}: each child has a file of its own")
        }
      }
      if (shell && args.length > 0) say([section, name, "args"], "expected none: the shell's line has its arguments")
    }
  }
  if (daemon.install !== undefined && !isInside(daemon.install.program)) {
    say(["daemon", "install", "program"], "expected a path inside a version, such as bin/treeline")
  }
  if (daemon.update.interval < shortestInterval) {
    say(["daemon", "update", "interval"], "expected a time of at least 1 second")
  }
  if (problems.length > 0) return problems
  const specs: Array<ChildSpec.ChildSpec<unknown>> = []
  const refuse = (section: string, name: string, { field, problem }: InvalidSpec) => {
    const own = field.startsWith(`${name}.`) ? field.slice(name.length + 1) : field
    say([section, name, ...own.split(".")], problem)
  }
  for (const [name, service] of Object.entries(services)) {
    const valid = Result.flatMap(ServiceChild.make(name, service, groups), ChildSpec.validate)
    if (Result.isFailure(valid)) refuse("services", name, valid.failure)
    else specs.push(valid.success.spec)
  }
  for (const [name, pool] of Object.entries(pools)) {
    const valid = ServiceChild.validatePool(name, pool)
    if (Result.isFailure(valid)) refuse("pools", name, valid.failure)
  }
  if (problems.length > 0) return problems
  const ordered = Dependencies.validate(specs, config.supervisor.order)
  if (Result.isFailure(ordered)) {
    const { field, problem } = ordered.failure
    say(["services", ...field.split(".")], problem)
  }
  return problems
}

/**
 * Checks what was merged. Every error names the source, the path and what was expected.
 *
 * @example
 * ```ts
 * import { ConfigLoad, ConfigMerge, ConfigSource } from "@treeline/core/daemon"
 * import { Result } from "effect"
 * import { strictEqual } from "node:assert"
 *
 * const file = ConfigSource.json("treeline.json", `{
 *   "services": { "web": { "command": "node", "restart": { "mode": "sometimes" } } }
 * }`)
 * const checked = ConfigLoad.check(ConfigMerge.merge([Result.getOrThrow(file)]))
 * strictEqual(
 *   Result.isFailure(checked) && checked.failure.message,
 *   `treeline.json:2:66: services.web.restart.mode: expected "permanent" | "transient" | "temporary"`
 * )
 * ```
 */
export const check = (merged: ConfigMerge.Merged): Result.Result<Config, InvalidConfig> =>
  Result.flatMap(
    Result.mapError(
      decode(merged.tree, { errors: "all", onExcessProperty: "error" }),
      ({ issue }) => located(problemsOf(issue), merged)
    ),
    (config) => {
      const conflicts = conflictsOf(config)
      return conflicts.length === 0 ? Result.succeed(config) : Result.fail(located(conflicts, merged))
    }
  )

/** The parts of a configuration that are services or the like of them. */
const runnable = (tree: unknown): ReadonlyArray<readonly [path: ConfigPath.Path, value: unknown]> =>
  ["services", "pools"].flatMap((section) => {
    const all = ConfigMerge.at(tree, [section])
    return ConfigPath.isTree(all) ? Object.entries(all).map(([name, value]) => [[section, name], value] as const) : []
  })

const textsAt = (tree: unknown, path: ConfigPath.Path): ReadonlyArray<string> => {
  const value = ConfigMerge.at(tree, path)
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : []
}

/** A secret that is found elsewhere, and how it is written there. */
const referenceOf = (value: unknown): { readonly from: "fromEnv" | "fromFile"; readonly name: string } | undefined => {
  if (!ConfigPath.isTree(value) || Object.keys(value).length !== 1) return undefined
  for (const from of ["fromEnv", "fromFile"] as const) {
    const name = value[from]
    if (typeof name === "string" && name !== "") return { from, name }
  }
  return undefined
}

/** Variables for the daemon only: they name no service, so none has to be known. */
const daemonVariables = (environment: Options["environment"]): Options["environment"] =>
  Object.fromEntries(Object.entries(environment).filter(([name]) => /^TREELINE_DAEMON__/i.test(name)))

/** Where a daemon is to be found. The paths are absolute. */
export interface Place {
  readonly directory?: string | undefined
  readonly socket?: string | undefined
  readonly port?: number | undefined
}

/** What the layers say of the place; of anything else nothing is checked. */
const placeIn = (
  below: ConfigMerge.Merged,
  { environment, flags, resolvePath }: Pick<Options, "environment" | "flags" | "resolvePath">
): Result.Result<Place, InvalidConfig> =>
  Result.gen(function*() {
    const { tree } = ConfigMerge.override(below, [
      ...yield* ConfigSource.variables(daemonVariables(environment), below.tree),
      ...yield* ConfigSource.flags(flags)
    ])
    const path = (name: string) => {
      const value = ConfigMerge.at(tree, ["daemon", name])
      return typeof value === "string" ? resolvePath(value) : undefined
    }
    const port = ConfigMerge.at(tree, ["daemon", "port"])
    return { directory: path("directory"), socket: path("socket"), port: typeof port === "number" ? port : undefined }
  })

/** The file with the settings over it. */
const withSettings = (options: Omit<Options, "readText">) =>
  Effect.gen(function*() {
    const file = ConfigMerge.merge([options.file])
    if (options.settings === undefined) return file
    const { directory } = yield* Effect.fromResult(placeIn(file, options))
    return ConfigMerge.override(file, yield* options.settings(directory))
  })

/**
 * Where the daemon is, although the rest of the configuration or the settings can't be used: so that it can be ended all
 * the same (seed C31).
 */
export const place = Effect.fn("ConfigLoad.place")(function*(
  options: Omit<Options, "readText">
): Effect.fn.Return<Place, InvalidConfig> {
  const file = ConfigMerge.merge([options.file])
  const base = yield* Effect.orElseSucceed(withSettings(options), () => file)
  return yield* Effect.fromResult(placeIn(base, options))
})

/**
 * Merges, looks up and checks: defaults < `envFile` < file < settings < environment < flags. A folder that is not given is
 * the file's own.
 */
export const load = Effect.fn("ConfigLoad.load")(function*(
  options: Options
): Effect.fn.Return<Loaded, InvalidConfig> {
  const base = yield* withSettings(options)
  const overrides = [
    ...yield* Effect.fromResult(ConfigSource.variables(options.environment, base.tree)),
    ...yield* Effect.fromResult(ConfigSource.flags(options.flags))
  ]
  const written = ConfigMerge.override(base, overrides)
  const problems: Array<Problem> = []
  const lookedUp: Array<ConfigSource.Override> = []
  /** Problems of the reading and the text, which is empty then. */
  const read = (path: ConfigPath.Path, name: string) =>
    options.readText(options.resolvePath(name)).pipe(
      Effect.catch((reason) =>
        Effect.sync(() => {
          problems.push({ path, problem: `expected a file that can be read: ${reason}` })
          return ""
        })
      )
    )
  /** A path seen from the file's folder; where it comes from does not change. */
  const absolute = (path: ConfigPath.Path, name: string) => {
    const origin = ConfigMerge.originOf(written.origins, path)
    lookedUp.push({ path, value: options.resolvePath(name), origin: origin! })
  }
  for (const at of [["directory"], ["socket"], ["install", "directory"]]) {
    const value = ConfigMerge.at(written.tree, ["daemon", ...at])
    if (typeof value === "string") absolute(["daemon", ...at], value)
  }
  const fetcher = ["daemon", "install", "fetch", "command"]
  const command = ConfigMerge.at(written.tree, fetcher)
  // A name is looked for in PATH; the folder that it runs in is an empty one.
  if (typeof command === "string" && /[\\/]/.test(command)) absolute(fetcher, command)
  for (const [path, value] of runnable(written.tree)) {
    const env = ConfigMerge.at(value, ["env"])
    for (const [index, name] of textsAt(value, ["envFile"]).entries()) {
      const text = yield* read([...path, "envFile", index], name)
      for (const entry of yield* Effect.fromResult(ConfigSource.dotEnv(name, text))) {
        if (ConfigPath.isTree(env) && Object.hasOwn(env, entry.name)) continue
        const at = [...path, "env", entry.name]
        lookedUp.push({ path: at, value: Redacted.make(entry.value), origin: entry.origin })
      }
    }
    const references: Array<readonly [ConfigPath.Path, NonNullable<ReturnType<typeof referenceOf>>]> = []
    ConfigPath.walk(value, (inner, item) => {
      const free = inner.at(-2) === "env" || inner.at(-2) === "headers"
      const reference = free ? referenceOf(item) : undefined
      if (reference !== undefined) references.push([[...path, ...inner], reference])
    })
    for (const [at, { from, name }] of references) {
      const origin = ConfigMerge.originOf(written.origins, at)
      const found = from === "fromEnv" ? options.environment[name] : (yield* read(at, name)).replace(/\r?\n$/, "")
      if (found === undefined) problems.push({ path: at, problem: `expected the variable ${name}, which is not set` })
      else lookedUp.push({ path: at, value: Redacted.make(found), origin: origin! })
    }
    const logs = ConfigMerge.at(value, ["logs", "file"])
    if (typeof logs === "string") absolute([...path, "logs", "file"], logs)
    const cwd = ConfigMerge.at(value, ["cwd"])
    if (typeof cwd === "string") absolute([...path, "cwd"], cwd)
    else if (cwd === undefined && ConfigPath.isTree(value)) {
      const origin = ConfigOrigin.Origin.cases.Default.make({})
      lookedUp.push({ path: [...path, "cwd"], value: options.resolvePath("."), origin })
    }
  }
  if (problems.length > 0) return yield* located(problems, written)
  const merged = ConfigMerge.override(written, lookedUp)
  const config = yield* Effect.fromResult(check(merged))
  return { config, explained: ConfigMerge.explain(config, merged.origins) }
})
