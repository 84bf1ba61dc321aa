/**
 * The `treeline` command as a separate process.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as child_process from "node:child_process"
import { fileURLToPath } from "node:url"
import { eventually } from "./Eventually.ts"
import { engine } from "./Host.ts"
import { identify, type Identity, killIfAlive } from "./Processes.ts"
import { program } from "./Programs.ts"
import type { Scratch } from "./Scratch.ts"

/** Program and first arguments. */
export const treeline: ReadonlyArray<string> = [
  process.execPath,
  "--conditions=source",
  program("treeline")
]

/** The environment of a command under test: records and caches are the test's own. */
export const environment = (scratch: Scratch): Record<string, string> => ({
  PATH: process.env["PATH"] ?? "/usr/bin:/bin",
  ...engine,
  HOME: scratch.directory,
  TMPDIR: scratch.directory,
  XDG_CACHE_HOME: fileURLToPath(new URL("../../node_modules/.cache/command", import.meta.url))
})

/** Why python3 can't be used; undefined when it can. */
export const whyNoPython = (): string | undefined =>
  child_process.spawnSync("python3", ["-c", "pass"]).status === 0 ? undefined : "python3 is not installed"

export interface Outcome {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface Started {
  readonly identity: Identity
  readonly stdout: () => string
  readonly stderr: () => string
  readonly signal: (signal: NodeJS.Signals) => void
  /** Standard input of the command. */
  readonly input: child_process.ChildProcess["stdin"]
  /** Waits for the end of the process and of its output. */
  readonly ended: Effect.Effect<Outcome>
  /** Waits until stdout contains `text`. */
  readonly awaitOutput: (text: string) => Effect.Effect<void>
}

export interface Options {
  readonly scratch: Scratch
  readonly env?: Readonly<Record<string, string>>
  /** Processes that others have started in the scratch folder are left alone when this command's scope closes. */
  readonly sparesOthers?: boolean
  /** Another program than `treeline`; `argv` are its arguments then. */
  readonly program?: ReadonlyArray<string>
  /** Descriptors for standard output and standard error instead of pipes; nothing of them is heard here then. */
  readonly output?: number
  readonly errors?: number
}

/** Starts the command with pipes; it and what its scratch folder knows of are killed when the test's scope closes. */
export const start = (argv: ReadonlyArray<string>, options: Options): Effect.Effect<Started, never, Scope.Scope> =>
  Effect.gen(function*() {
    const [file, ...args] = [...(options.program ?? treeline), ...argv]
    const { child, identity } = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = child_process.spawn(file!, args, {
          stdio: ["pipe", options.output ?? "pipe", options.errors ?? "pipe"],
          cwd: options.scratch.directory,
          env: { ...environment(options.scratch), ...options.env }
        })
        return { child, identity: identify(child.pid!) ?? { pid: child.pid!, start: "" } }
      }),
      ({ child, identity }) =>
        Effect.sync(() => {
          if (child.exitCode === null && child.signalCode === null) killIfAlive(identity)
          if (options.sparesOthers !== true) options.scratch.killLiving()
          for (const stream of child.stdio) stream?.destroy()
        })
    )
    let stdout = ""
    let stderr = ""
    child.stdout?.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk))
    child.stderr?.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk))
    child.stdin?.on("error", () => {}) // it has ended without reading
    let outcome: Outcome | undefined = undefined
    child.on("close", (code, signal) => (outcome = { code, signal, stdout, stderr }))
    const detail = () => ({ argv, stdout, stderr })
    return {
      identity,
      stdout: () => stdout,
      stderr: () => stderr,
      signal: (signal) => void child.kill(signal),
      input: child.stdin,
      ended: eventually("the command ends", () => outcome, { within: 20_000, detail }),
      awaitOutput: (text) =>
        Effect.asVoid(eventually(`the output has "${text}"`, () => stdout.includes(text), { within: 20_000, detail }))
    }
  })

/** Runs the command to its end, with `input` as its standard input. */
export const run = (
  argv: ReadonlyArray<string>,
  options: Options & { readonly input?: string }
): Effect.Effect<Outcome> =>
  Effect.scoped(Effect.gen(function*() {
    const started = yield* start(argv, options)
    started.input!.end(options.input ?? "")
    return yield* started.ended
  }))
