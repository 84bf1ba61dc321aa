/** `treeline daemon install`: the daemon as a service of the system's own manager. */
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Reports from "../CommandReport.ts"
import * as ConfigFile from "../ConfigFile.ts"
import * as Console from "./Console.ts"
import * as Ending from "./Ending.ts"
import { InternalError, UsageError } from "./Failure.ts"
import * as OwnProcess from "./OwnProcess.ts"
import * as ServiceUnits from "./ServiceUnits.ts"

export interface Options {
  readonly file: string | undefined
  readonly flags: ReadonlyArray<string>
  readonly json: boolean
  readonly manager: ServiceUnits.Manager | undefined
  readonly name: string | undefined
  readonly dryRun: boolean
}

/** What the daemon itself and its killed services may take beyond the time of an orderly end, in ms. */
const margin = 10_000

/** Exit codes of `treeline daemon run` that another start would only repeat. */
const permanentFailures = [2, 4]

/** A name from the folder of the configuration. */
const nameOf = (file: string): string => {
  const folder = path.basename(path.dirname(file)).toLowerCase().replaceAll(/[^a-z0-9]+/g, "-").replaceAll(/^-|-$/g, "")
  return folder === "" ? "treeline" : `treeline-${folder}`
}

/** Who runs this, as the task scheduler of Windows names people. */
const ownUser = (): string | undefined => {
  const { USERDOMAIN, USERNAME } = process.env
  return USERDOMAIN === undefined || USERNAME === undefined ? USERNAME : `${USERDOMAIN}\\${USERNAME}`
}

const canNotify = Effect.promise(async () =>
  process.platform === "linux" && (await import("@treeline/platform-posix/ServiceNotify")).isAvailable()
)

/** Writes it where nothing else is; false when the same is there already. */
const write = (file: string, text: string): Effect.Effect<boolean, InternalError | UsageError> =>
  Effect.try({
    try: () => {
      const there = fs.existsSync(file) ? fs.readFileSync(file, "utf8") : undefined
      if (there === text) return false
      if (there !== undefined) {
        throw new UsageError({ problem: `${file} is there and says something else: remove it, or give another --name` })
      }
      fs.mkdirSync(path.dirname(file), { recursive: true })
      fs.writeFileSync(file, text, { flag: "wx" })
      return true
    },
    catch: (error) =>
      error instanceof UsageError
        ? error
        : new InternalError({
          detail: `could not write ${file}: ${error instanceof Error ? error.message : String(error)}`
        })
  })

export const install = Effect.fn("treeline daemon install")(function*(options: Options) {
  const { config, file } = yield* ConfigFile.load(options)
  const { directory } = yield* StateDirectory.locate({ file, daemon: config.daemon })
  const name = options.name ?? nameOf(file)
  if (!/^[A-Za-z0-9][A-Za-z0-9-]*$/.test(name)) {
    return yield* new UsageError({ problem: "--name: expected letters, digits and dashes" })
  }
  const manager = options.manager ?? ServiceUnits.managerOf(process.platform)
  const command = (verb: string) => [
    process.execPath,
    ...process.execArgv,
    fs.realpathSync(process.argv[1] ?? ""),
    ...OwnProcess.daemonArguments(verb, file, options.flags)
  ]
  const unit = ServiceUnits.unitOf(manager, {
    name,
    command: command("run"),
    stop: command("stop"),
    directory: path.dirname(file),
    config: file,
    user: ownUser(),
    errors: path.join(directory, "daemon.err"),
    grace: config.daemon.stopWithin + margin,
    notifies: yield* canNotify,
    keeps: Object.values(config.services).some(({ whenDaemonEnds }) => whenDaemonEnds === "keep"),
    permanentFailures
  })
  const to = path.join(os.homedir(), unit.file)
  const written = options.dryRun ? false : yield* write(to, unit.text)
  const report: Reports.DaemonUnit = { manager, name, file: to, text: unit.text, written, next: unit.next }
  const text = options.json
    ? Schema.encodeSync(Schema.fromJsonString(Reports.DaemonUnit))(report)
    : options.dryRun
    ? `${unit.text}\nThis would be written to ${to}`
    : [`${written ? "wrote" : "there already:"} ${to}`, "Now:", ...unit.next.map((line) => `  ${line}`)].join("\n")
  yield* Effect.promise(() => Console.print(1, text))
  return Ending.code(0)
})
