/**
 * Configuration files: which one holds, and what is in it. `treeline.config.ts` (or `.mts`, `.js`, `.mjs`), `treeline.json`
 * or a `Procfile`, in a folder or in one above it.
 */
import * as ConfigLoad from "@treeline/core/daemon/ConfigLoad"
import * as ConfigMerge from "@treeline/core/daemon/ConfigMerge"
import * as ConfigPath from "@treeline/core/daemon/ConfigPath"
import * as ConfigSource from "@treeline/core/daemon/ConfigSource"
import * as Settings from "@treeline/core/daemon/Settings"
import { InvalidConfig } from "@treeline/core/Errors"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as fs from "node:fs"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { Worker } from "node:worker_threads"
import * as ConfigPlace from "./internal/ConfigPlace.ts"
import type { Answer } from "./internal/configWorker.ts"
import * as Console from "./internal/Console.ts"

export { find, locate, names } from "./internal/ConfigPlace.ts"

/** How long a module may take, in ms. */
const moduleLimit = 10_000

/** A larger file is no configuration, in bytes. */
const sizeLimit = 4 * 1024 * 1024

const invalid = (source: string, problem: string, at: ConfigPath.Path = []) =>
  new InvalidConfig({ issues: [{ source, path: ConfigPath.format(at), problem }] })

const reasonOf = (error: unknown): string => {
  switch ((error as NodeJS.ErrnoException).code) {
    case "ENOENT":
      return "it is not there"
    case "EACCES":
      return "permission denied"
    case "EISDIR":
      return "it is a folder"
    default:
      return error instanceof Error ? error.message : String(error)
  }
}

/** The text of a file, or why there is none. */
const readText = (file: string): Effect.Effect<string, string> =>
  Effect.try({
    try: () => {
      const stat = fs.statSync(file)
      // A pipe or a device may never come to its end.
      if (!stat.isFile()) throw new Error(stat.isDirectory() ? "it is a folder" : "it is no regular file")
      if (stat.size > sizeLimit) throw new Error(`it has more than ${sizeLimit / 1024 / 1024} MiB`)
      return fs.readFileSync(file, "utf8")
    },
    catch: reasonOf
  })

/** A file by its name as a person in `folder` would say it. */
const shownName = (file: string, folder: string): string => {
  const relative = path.relative(folder, file)
  return relative !== "" && !relative.startsWith("..") && !path.isAbsolute(relative) ? relative : file
}

/** The thread beside this module: TypeScript in the sources, JavaScript when published. */
const workerUrl = new URL(
  import.meta.url.endsWith(".ts") ? "./internal/configWorker.ts" : "./internal/configWorker.js",
  import.meta.url
)

const answerOf = (worker: Worker): Effect.Effect<Answer> =>
  Effect.callback<Answer>((resume) => {
    const answer = (answer: Answer) => resume(Effect.succeed(answer))
    const failed = (problem: string) => answer({ _tag: "Refused", path: [], problem })
    // What the module prints must not mix with what the command prints.
    worker.stdout.on("data", (chunk: Buffer) => void Console.writeAll(2, chunk))
    worker.once("message", answer)
    worker.once("error", (error) => failed(`the module failed: ${reasonOf(error)}`))
    worker.once("exit", (code) => failed(`the module ended with code ${code} and without a configuration`))
  })

const readModule = (file: string, shown: string): Effect.Effect<ConfigSource.Layer, InvalidConfig> =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Worker(workerUrl, { workerData: pathToFileURL(file).href, stdout: true })),
    answerOf,
    (worker) => Effect.promise(() => worker.terminate())
  ).pipe(
    Effect.timeoutOrElse({
      duration: moduleLimit,
      orElse: () =>
        Effect.succeed<Answer>({
          _tag: "Refused",
          path: [],
          problem: `the module was not done within ${moduleLimit / 1000} seconds`
        })
    }),
    Effect.flatMap((answer) => {
      if (answer._tag === "Refused") return Effect.fail(invalid(shown, answer.problem, answer.path))
      const layer = ConfigSource.values(shown, answer.tree)
      const secrets = answer.secrets.map(([at, secret]) => [at, Redacted.make(secret)] as const)
      return Effect.succeed({ ...layer, tree: ConfigMerge.withValues(layer.tree, secrets) })
    })
  )

/** The port that foreman would begin with: `PORT` of `.env`, or of the environment. */
const portOf = (env: ReadonlyArray<ConfigSource.EnvEntry>, environment: Environment): number | undefined => {
  const text = env.findLast(({ name }) => name === "PORT")?.value ?? environment["PORT"]
  return text !== undefined && /^\d{1,5}$/.test(text) ? Number(text) : undefined
}

type Environment = Readonly<Record<string, string | undefined>>

/** What is in a file, by its name: a module, JSON, or else a Procfile, to which a `.env` beside it belongs. */
export const read = Effect.fn("ConfigFile.read")(function*(
  file: string,
  options: { readonly folder?: string | undefined; readonly environment?: Environment | undefined } = {}
): Effect.fn.Return<ConfigSource.Layer, InvalidConfig> {
  const shown = shownName(file, options.folder ?? process.cwd())
  const unreadable = (reason: string) => invalid(shown, `expected a file that can be read: ${reason}`)
  if (/\.[cm]?[jt]s$/.test(file)) {
    // The error of an import would hold the path only, and name the thread.
    yield* Effect.mapError(readText(file), unreadable)
    return yield* readModule(file, shown)
  }
  const text = yield* Effect.mapError(readText(file), unreadable)
  if (file.endsWith(".json") || file.endsWith(".jsonc")) return yield* Effect.fromResult(ConfigSource.json(shown, text))
  const beside = path.join(path.dirname(file), ".env")
  const hasEnv = fs.existsSync(beside)
  const env = hasEnv
    ? yield* Effect.fromResult(
      ConfigSource.dotEnv(".env", yield* Effect.mapError(readText(beside), (reason) => invalid(".env", reason)))
    )
    : []
  return yield* Effect.fromResult(ConfigSource.procfile(shown, text, {
    port: portOf(env, options.environment ?? process.env),
    envFile: hasEnv ? [".env"] : undefined
  }))
})

/** A configuration that can be used, and the file it came from. */
export interface Loaded extends ConfigLoad.Loaded {
  readonly file: string
}

export interface Options extends ConfigPlace.Options {
  /** `PATH=VALUE`. */
  readonly flags?: ReadonlyArray<string> | undefined
  /** Instead of those that `treeline set` has kept. */
  readonly settings?: Settings.Settings | undefined
}

/** What `treeline set` has kept in a state folder. One that has no settings may be anybody's. */
const kept = (directory: string): Effect.Effect<Settings.Settings, InvalidConfig> =>
  Effect.suspend(() =>
    fs.existsSync(path.join(directory, Settings.name))
      ? Settings.read(NodeStateFolder.make(directory))
      : Effect.succeed(Settings.none)
  )

/** What `ConfigLoad` needs for a file. */
const sourcesOf = (file: string, layer: ConfigSource.Layer, options: Options): ConfigLoad.Options => ({
  file: layer,
  settings: (named) => {
    const directory = StateDirectory.directoryOf(file, named)
    return Effect.flatMap(
      options.settings === undefined ? kept(directory) : Effect.succeed(options.settings),
      (settings) => Effect.fromResult(Settings.overrides(path.join(directory, Settings.name), settings))
    )
  },
  environment: options.environment ?? process.env,
  flags: options.flags ?? [],
  resolvePath: (name) => path.resolve(path.dirname(file), name),
  readText
})

/**
 * Where the daemon of a configuration is, although its services or its settings can't be used; and although the file can't
 * be read, where a variable or a flag says it.
 */
export const place = Effect.fn("ConfigFile.place")(
  function*(options: Options = {}): Effect.fn.Return<ConfigLoad.Place & { readonly file: string }, InvalidConfig> {
    const folder = path.resolve(options.folder ?? process.cwd())
    const file = yield* ConfigPlace.locate(options)
    const layer = yield* Effect.result(read(file, { folder, environment: options.environment }))
    const usable = Result.getOrElse(layer, () => ConfigSource.values(file, {}))
    const found = yield* ConfigLoad.place(sourcesOf(file, usable, options))
    if (Result.isFailure(layer) && found.directory === undefined) return yield* layer.failure
    return { ...found, file }
  }
)

/**
 * Finds, reads, merges and checks: defaults < file < settings < environment < flags. Nothing is started.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { strictEqual } from "node:assert"
 * import * as fs from "node:fs"
 * import * as os from "node:os"
 * import * as path from "node:path"
 * import { ConfigFile } from "treeline/daemon"
 *
 * const folder = fs.mkdtempSync(path.join(os.tmpdir(), "example-"))
 * fs.writeFileSync(path.join(folder, "Procfile"), "web: npm start\n")
 * const { config } = await Effect.runPromise(ConfigFile.load({ folder, flags: ["services.web.restart.mode=transient"] }))
 * strictEqual(config.services["web"]?.restart.mode, "transient")
 * fs.rmSync(folder, { recursive: true })
 * ```
 */
export const load = Effect.fn("ConfigFile.load")(
  function*(options: Options = {}): Effect.fn.Return<Loaded, InvalidConfig> {
    const folder = path.resolve(options.folder ?? process.cwd())
    const file = yield* ConfigPlace.locate(options)
    const layer = yield* read(file, { folder, environment: options.environment })
    const loaded = yield* ConfigLoad.load(sourcesOf(file, layer, options))
    return { ...loaded, file }
  }
)
