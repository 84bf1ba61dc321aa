/**
 * The `treeline` command on Windows, in a folder of the test's own with services of windowsService.cjs.
 */
import { assert } from "@effect/vitest"
import { Effect, Schema, type Scope } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { CommandReport } from "treeline"
import { eventually } from "../../support/Eventually.ts"
import { identify, type Identity, isAlive, killIfAlive } from "./Processes.ts"

const root = path.join(import.meta.dirname, "../../..")
const hosts = process.env["TREELINE_HOSTS"]

/** Bundled by `npm run test:windows`, because from its sources it takes seconds to start under Wine. */
export const command = hosts === undefined
  ? path.join(root, "packages/treeline/src/bin.ts")
  : `${hosts}/dist/bin/treeline.js`

const service = path.join(root, "test/fixtures/windowsService.cjs")

/** Wine may take long for the first look at a file. */
const within = 40_000

export interface Place {
  readonly directory: string
  readonly file: (name: string) => string
  /** A service that ends when it is asked to, or not. */
  readonly service: (name: string, mode: "polite" | "stubborn") => {
    readonly command: string
    readonly args: ReadonlyArray<string>
  }
  readonly configure: (config: object) => void
  /** What services have reported, in order. */
  readonly reports: () => ReadonlyArray<string>
  /** All processes of services that have reported themselves, by name; the child of each comes second. */
  readonly family: (name: string) => ReadonlyArray<Identity>
  /** The token of control. */
  readonly token: () => string
}

/** The pid in the record of the daemon. */
export const recorded = (place: Place): number | undefined => {
  try {
    return Number(/^(\d+)-/.exec(fs.readdirSync(place.file(".treeline/daemon"))[0]!)?.[1])
  } catch {
    return undefined
  }
}

/** A folder; its daemon, and what its services started, ends with the scope. */
export const place: Effect.Effect<Place, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "treeline-"))
    const file = (name: string) => path.join(directory, name)
    const report = file("report")
    fs.writeFileSync(report, "")
    const reports = () => fs.readFileSync(report, "utf8").split("\n").slice(0, -1)
    const known = new Map<string, Identity | undefined>()
    const family = (name: string) =>
      reports().flatMap((line) => {
        const [who, ...pids] = line.split(" ").slice(0, 3)
        if (who !== name || pids[0] === "ends") return []
        return pids.flatMap((pid) => {
          const key = `${line} ${pid}`
          if (!known.has(key)) known.set(key, identify(Number(pid)))
          return known.get(key) ?? []
        })
      })
    return {
      directory,
      file,
      service: (name: string, mode: string) => ({ command: process.execPath, args: [service, report, name, mode] }),
      configure: (config: object) => fs.writeFileSync(file("treeline.json"), JSON.stringify(config)),
      reports,
      family,
      token: () => JSON.parse(fs.readFileSync(file(".treeline/control.json"), "utf8")).token as string
    }
  }),
  (place) =>
    Effect.promise(async () => {
      const pid = recorded(place)
      const daemon = pid === undefined ? undefined : identify(pid)
      if (daemon !== undefined) killIfAlive(daemon)
      for (const name of new Set(place.reports().map((line) => line.split(" ")[0]!))) {
        place.family(name).forEach(killIfAlive)
      }
      fs.rmSync(place.directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
    })
)

/** Waits until a service has reported itself so often; its processes, those of its last life at the end. */
export const awaitFamily = (place: Place, name: string, lives = 1): Effect.Effect<ReadonlyArray<Identity>> =>
  eventually(`${name} runs`, () => {
    const family = place.family(name)
    return family.length >= 2 * lives && family
  }, { within, detail: place.reports })

export const awaitGone = (identities: ReadonlyArray<Identity>): Effect.Effect<void> =>
  Effect.asVoid(eventually("nothing is left", () => !identities.some(isAlive), {
    detail: () => identities.filter(isAlive)
  }))

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Started {
  readonly identity: Identity
  readonly stdout: () => string
  readonly ended: Effect.Effect<Outcome>
  readonly awaitOutput: (text: string) => Effect.Effect<void>
}

/** Starts it with pipes; it is killed with the scope. */
export const start = (
  place: Place,
  argv: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {}
): Effect.Effect<Started, never, Scope.Scope> =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        child_process.spawn(process.execPath, ["--conditions=source", command, ...argv], {
          cwd: place.directory,
          env: { ...process.env, ...env },
          windowsHide: true
        })
      ),
      (child) => Effect.sync(() => void child.kill())
    )
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
    child.stdin.on("error", () => {}).end()
    // Both outputs have ended: nothing that it has started holds them.
    let outcome: Outcome | undefined = undefined
    child.on("close", (code) => (outcome = { code, stdout, stderr }))
    const detail = () => ({ argv, stdout, stderr })
    return {
      identity: identify(child.pid!) ?? { pid: child.pid!, start: "" },
      stdout: () => stdout,
      ended: eventually("the command ends", () => outcome, { within, detail }),
      awaitOutput: (text) =>
        Effect.asVoid(eventually(`it says ${text}`, () => stdout.includes(text), { within, detail }))
    }
  })

/** Runs it to its end. */
export const run = (place: Place, ...argv: ReadonlyArray<string>): Effect.Effect<Outcome> =>
  Effect.scoped(Effect.flatMap(start(place, argv), ({ ended }) => ended))

/** A command with `--json`: its one object. */
export const asked = <S extends Schema.Codec<unknown, unknown>>(schema: S) =>
(
  place: Place,
  argv: ReadonlyArray<string>,
  code = 0
): Effect.Effect<S["Type"]> =>
  Effect.map(run(place, ...argv, "--json"), (outcome) => {
    assert.strictEqual(outcome.code, code, outcome.stdout + outcome.stderr)
    return Schema.decodeUnknownSync(Schema.fromJsonString(schema))(outcome.stdout || outcome.stderr)
  })

/** `treeline daemon start`, `stop` or `restart`. */
export const changed = (place: Place, ...argv: ReadonlyArray<string>) =>
  asked(CommandReport.DaemonOutcome)(place, ["daemon", ...argv])

/** `treeline daemon status`, with its exit code. */
export const statusOf = (place: Place, code: number) =>
  asked(CommandReport.DaemonStatus)(place, ["daemon", "status"], code)
