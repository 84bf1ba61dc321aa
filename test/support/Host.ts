/**
 * A host program: a Node process of its own that launches a tree, through Treeline or through Node's child_process, and
 * can be ended in every way that a host can end.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import type { HostSpec } from "../fixtures/hostSpec.ts"
import { eventually } from "./Eventually.ts"
import { identify, type Identity, isAlive, killIfAlive, signalIfAlive } from "./Processes.ts"
import { program } from "./Programs.ts"
import type { Scratch } from "./Scratch.ts"

/** Path of a file in test/fixtures. */
export const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))

/** The command of a role of tree.sh. */
export const treeCommand = (role: string, scratch: Scratch, count = 0): ReadonlyArray<string> => [
  "sh",
  fixture("tree.sh"),
  role,
  scratch.report,
  String(count)
]

/** An account without any privilege: `nobody`. */
export const unprivileged = 65534

/** Why hosts can't be run as another user here; undefined when they can. */
export const whyNotUnprivileged = (): string | undefined => {
  if (process.getuid?.() !== 0) return "only root can start a program as another user"
  const asNobody = ["--reuid", String(unprivileged), "--regid", String(unprivileged), "--clear-groups"]
  const look = child_process.spawnSync("setpriv", [...asNobody, process.execPath, "--version"])
  if (look.error !== undefined || look.status !== 0) return "setpriv can't run this Node as uid 65534"
  const read = child_process.spawnSync("setpriv", [...asNobody, "test", "-r", program("host")])
  return read.status === 0 ? undefined : "uid 65534 may not read this project's folder"
}

/** The kernel's own word that nothing is left: see reaper.pl. */
export const hasReaper = process.platform === "linux" && child_process.spawnSync("perl", ["-e", "1"]).status === 0

/** Compiled modules of the hosts, so that hundreds of them start fast. */
const compileCache = (user: number): string => {
  const directory = fileURLToPath(new URL(`../../node_modules/.cache/treeline/hosts-${user}`, import.meta.url))
  fs.mkdirSync(directory, { recursive: true })
  if (process.getuid?.() === 0) fs.chownSync(directory, user, user)
  return directory
}

export interface ProgramOptions {
  /** A program of Programs.ts and its arguments. */
  readonly program: ReadonlyArray<string>
  readonly scratch: Scratch
  /** The user it runs as; default: the user of the test. */
  readonly user?: number | undefined
  /** A program that starts the host, with its arguments, such as one that gives it a terminal. */
  readonly through?: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
}

export interface StartOptions extends Omit<ProgramOptions, "program"> {
  /** `treeline`, or `node` for the negative control on child_process. */
  readonly on: "treeline" | "node"
  readonly spec: HostSpec
}

/** A running host. */
export interface Host {
  readonly identity: Identity
  /** Lines of its standard output until now. */
  readonly lines: ReadonlyArray<string>
  readonly errors: () => string
  /** Waits for a line that starts with `prefix` and returns its rest. */
  readonly awaitLine: (prefix: string) => Effect.Effect<string>
  /** Gives it an order, see host.ts. */
  readonly order: (line: string) => void
  readonly signal: (signal: NodeJS.Signals) => void
  readonly isAlive: () => boolean
  readonly awaitDead: Effect.Effect<void>
  /**
   * Waits until no process is left that descends from the host, the host included: the kernel's word. Where it can't be
   * had, until the host is dead.
   */
  readonly awaitNoDescendants: (within?: number) => Effect.Effect<void>
}

/** The engine that the tests of this run are held against goes on to their hosts. */
export const engine: Readonly<Record<string, string>> = process.env["TREELINE_ENGINE"] === undefined
  ? {}
  : { TREELINE_ENGINE: process.env["TREELINE_ENGINE"] }

/** The tests of this run are held against the engine that calls the system itself. */
export const isNative = process.platform === "linux" && process.env["TREELINE_ENGINE"] !== "portable"

/** Starts `host` or `bareHost`. */
export const start = ({ on, spec, ...options }: StartOptions): Effect.Effect<Host, never, Scope.Scope> =>
  startProgram({ ...options, program: [on === "treeline" ? "host" : "bareHost", JSON.stringify(spec)] })

/**
 * Starts a program that says `host PID` and then `launched`, and waits until it has; it is killed when the test's scope
 * closes.
 */
export const startProgram = (options: ProgramOptions): Effect.Effect<Host, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { scratch } = options
    const [name, ...args] = options.program
    const user = options.user ?? process.getuid?.() ?? 0
    const words = [...(options.through ?? []), process.execPath, program(name!), ...args]
    const reaped = hasReaper ? ["perl", fixture("reaper.pl"), ...words] : words
    const command = user === process.getuid?.()
      ? reaped
      : ["setpriv", "--reuid", String(user), "--regid", String(user), "--clear-groups", ...reaped]
    const started = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = child_process.spawn(command[0]!, command.slice(1), {
          stdio: "pipe",
          detached: true,
          cwd: scratch.directory,
          // Records of hosts go to the temporary folder: each test has its own.
          env: {
            PATH: process.env["PATH"],
            ...engine,
            TMPDIR: scratch.directory,
            HOME: scratch.directory,
            NODE_COMPILE_CACHE: compileCache(user),
            ...options.env
          }
        })
        const lines: Array<string> = []
        let partial = ""
        let errors = ""
        let gone = false
        child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
          const parts = (partial + chunk).split("\n")
          partial = parts.pop()!
          // A terminal ends its lines with a carriage return as well.
          lines.push(...parts.map((line) => line.replace(/\r$/, "")))
        })
        child.stderr.setEncoding("utf8").on("data", (chunk: string) => (errors += chunk))
        child.stdin.on("error", () => {}) // the host has gone
        child.on("exit", () => (gone = true))
        child.on("error", (error) => {
          gone = true
          errors += String(error)
        })
        return { child, lines, errors: () => errors, gone: () => gone, outer: identify(child.pid ?? 0) }
      }),
      ({ child, gone, lines, outer }) =>
        Effect.sync(() => {
          const pid = Number(lines.find((line) => line.startsWith("host "))?.slice(5))
          const inner = pid > 1 ? identify(pid) : undefined
          if (inner !== undefined) killIfAlive(inner)
          scratch.killLiving()
          if (!gone() && outer !== undefined) killIfAlive(outer)
          child.stdin.destroy()
          child.stdout.destroy()
          child.stderr.destroy()
        })
    )
    const { child, errors, gone, lines } = started
    const detail = () => ({ lines, errors: errors() })
    const awaitLine = (prefix: string) =>
      eventually(`the host says "${prefix}"`, () => lines.find((line) => line.startsWith(prefix)), { detail }).pipe(
        Effect.map((line) => line.slice(prefix.length).trim())
      )
    const pid = Number(yield* awaitLine("host "))
    const identity = identify(pid) ?? { pid, start: "" }
    yield* awaitLine("launched")
    const alive = () => isAlive(identity)
    const awaitDead = Effect.asVoid(eventually("the host is dead", () => !alive(), { detail }))
    return {
      identity,
      lines,
      errors,
      awaitLine,
      order: (line) => void child.stdin.write(`${line}\n`),
      signal: (signal) => signalIfAlive(pid, signal),
      isAlive: alive,
      awaitDead,
      awaitNoDescendants: (within = 10_000) =>
        hasReaper
          ? Effect.asVoid(
            eventually("no descendant of the host is left", gone, {
              within,
              detail: () => ({ ...detail(), living: scratch.living() })
            })
          )
          : awaitDead
    }
  })

/** A record that a Treeline host keeps on disk, with its guardian's identity. */
export interface HostRecord {
  readonly path: string
  readonly text: string
  readonly guardian: Identity | undefined
}

/** The records of a host: one for each platform in it. */
export const recordsOf = (
  host: Host,
  scratch: Scratch,
  user = process.getuid?.() ?? 0
): ReadonlyArray<HostRecord> => {
  const directory = path.join(scratch.directory, `treeline-${user}`)
  const names = fs.existsSync(directory) ? fs.readdirSync(directory) : []
  return names.filter((name) => name.includes(`-${host.identity.pid}-`) && name.endsWith(".host")).map((name) => {
    const file = path.join(directory, name)
    const text = fs.readFileSync(file, "utf8")
    const last = text.split("\n").findLast((line) => line.startsWith("G "))
    const pid = Number(last?.split(" ")[1])
    return { path: file, text, guardian: pid > 1 ? identify(pid) : undefined }
  })
}

/** The record of a host with one platform; undefined when there is none. */
export const recordOf = (host: Host, scratch: Scratch, user?: number): HostRecord | undefined =>
  recordsOf(host, scratch, user)[0]

/** The guardian of a host, as soon as it runs. */
export const awaitGuardian = (host: Host, scratch: Scratch): Effect.Effect<Identity> =>
  eventually("the host has a guardian", () => recordOf(host, scratch)?.guardian)

/** The guardian by the kernel's list of the host's children, for a host without a record. */
export const guardianAmongChildren = ({ identity: { pid } }: Pick<Host, "identity">): Identity | undefined => {
  return fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number)
    .filter((child) => child > 1 && fs.readFileSync(`/proc/${child}/cmdline`, "utf8").includes("treeline-guardian"))
    .map(identify)[0]
}
