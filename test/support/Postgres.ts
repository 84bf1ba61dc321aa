/**
 * A PostgreSQL of a test's own, as a child: in a temporary folder, on a free port of 127.0.0.1, as an account without
 * privileges, because it refuses to run as root.
 */
import { Child, type Errors, Probe, ShutdownPlan } from "@treeline/core"
import { Context, Effect, Layer } from "effect"
import { ChildProcess } from "effect/process"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { freePort } from "./Children.ts"
import { unprivileged } from "./Host.ts"
import * as Scratch from "./Scratch.ts"

/** Debian keeps the programs of each version in a folder that is in nobody's path. */
const folders = (): ReadonlyArray<string> => {
  const debian = "/usr/lib/postgresql"
  const versions = fs.existsSync(debian) ? fs.readdirSync(debian).map(Number).filter(Number.isFinite) : []
  return [
    ...versions.sort((a, b) => b - a).map((version) => `${debian}/${version}/bin`),
    ...(process.env["PATH"] ?? "").split(":")
  ]
}

const find = (program: string): string | undefined =>
  folders().map((folder) => path.join(folder, program)).find((file) => fs.existsSync(file))

/** Why there is no PostgreSQL here; undefined when there is. */
export const whyNot = (): string | undefined =>
  find("postgres") === undefined || find("initdb") === undefined ? "PostgreSQL is not installed" : undefined

/** Who runs it. */
const account = (program: string, ...args: ReadonlyArray<string>): readonly [string, ...ReadonlyArray<string>] =>
  process.getuid?.() === 0
    ? ["setpriv", "--reuid", `${unprivileged}`, "--regid", `${unprivileged}`, "--clear-groups", program, ...args]
    : [program, ...args]

/** One that runs, with an empty database `postgres` of the user `test`. */
export class Postgres extends Context.Service<Postgres, {
  readonly port: number
  /** Stops every process of it, so that nobody gets an answer, and lets them go on. */
  readonly signal: (signal: "SIGSTOP" | "SIGCONT") => Effect.Effect<unknown, Errors.NotRunning>
}>()("test/Postgres") {}

const start = Effect.gen(function*() {
  const scratch = yield* Scratch.make
  const port = yield* freePort
  const data = scratch.file("data")
  const [setup, ...setupArgs] = account(find("initdb")!, "-D", data, "-U", "test", "-A", "trust", "--no-sync")
  yield* Effect.sync(() => child_process.execFileSync(setup, setupArgs, { cwd: "/", stdio: "pipe" }))
  // What is not on disk when the machine fails is not missed here.
  const settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"].flatMap((one) => ["-c", one])
  const where = ["-D", data, "-k", scratch.directory, "-h", "127.0.0.1", "-p", String(port)]
  const [program, ...args] = account(find("postgres")!, ...where, ...settings)
  const child = yield* Child.start(Child.make("postgres", {
    command: ChildProcess.make(program, args, { cwd: "/" }),
    readiness: Probe.line(/ready to accept connections/),
    // Its fast shutdown.
    shutdown: ShutdownPlan.make([ShutdownPlan.signal("SIGINT", { target: "leader", within: "5 seconds" })])
  }))
  yield* child.awaitReady
  return Postgres.of({ port, signal: (signal) => child.signal(signal, "tree") })
})

export const layer = Layer.effect(Postgres, start)
