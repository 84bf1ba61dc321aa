/** Tests of the updater: the install of a test, its daemon, and processes that update it. */
import { assert, it } from "@effect/vitest"
import { Daemon, PidRecord, Updater, UpdateRecord } from "@treeline/core/daemon"
import { Effect, Option, type Scope } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { ProcessPlatform } from "treeline"
import * as Daemons from "./Daemons.ts"
import { eventually } from "./Eventually.ts"
import * as Managed from "./Managed.ts"
import { identify, type Identity, isAlive, killIfAlive } from "./Processes.ts"
import * as Scratch from "./Scratch.ts"

type Needs = ProcessPlatform.ProcessPlatform | Scope.Scope

export const real = (
  name: string,
  test: (scratch: Scratch.Scratch) => Effect.Effect<void, unknown, Needs>,
  limit = 30_000
) =>
  it.live(
    name,
    () =>
      Effect.flatMap(Scratch.make, (scratch) =>
        Effect.ensuring(
          test(scratch),
          Effect.ignore(Effect.flatMap(Managed.options(scratch), ({ daemon }) => Daemon.stop(daemon, { grace: 0 })))
        )).pipe(Effect.scoped, Effect.provide(Daemons.layer)),
    limit
  )

/** A version runs as the daemon. */
export const running = (scratch: Scratch.Scratch, version = "1.0.0", more: Partial<Updater.Options> = {}) =>
  Effect.gen(function*() {
    Managed.publish(scratch, version)
    const options = yield* Managed.options(scratch, more)
    const first = yield* Updater.update(options)
    assert.deepStrictEqual([first.status, first.version, first.restarted], ["updated", version, false])
    const { pid } = yield* Daemon.start(options.daemon)
    return { options, pid: pid!, id: first.current! }
  })

export const recordOf = (options: Updater.Options) =>
  Effect.flatMap(
    ProcessPlatform.ProcessPlatform,
    (platform) => PidRecord.read({ folder: options.daemon.folder, platform })
  )

/** The version of the daemon that runs. */
export const runs = (options: Updater.Options) =>
  Effect.map(recordOf(options), (state) => state._tag === "Running" ? state.record.version : state._tag)

/** What holds in every state between. */
export const assertWhole = (options: Updater.Options) =>
  Effect.gen(function*() {
    const current = Option.getOrThrow(yield* options.install.current)
    for (const name of ["app", "version", "behaviour"]) assert.isTrue(fs.existsSync(path.join(current.path, name)))
    yield* UpdateRecord.read(options.daemon.folder)
    return current.id
  })

/** Nothing of a dead process is left in the folders, but its logs. */
export const assertClean = (scratch: Scratch.Scratch) => {
  const inState = fs.readdirSync(Daemons.folderOf(scratch)).filter((name) => !/^(daemon|updater)\.err/.test(name))
  assert.deepStrictEqual(inState.toSorted(), ["control.sock", "daemon", "update.json"])
  assert.deepStrictEqual(fs.readdirSync(scratch.file("install")).toSorted(), ["current", "staging", "versions"])
  assert.deepStrictEqual(fs.readdirSync(scratch.file("install/staging")), [])
  assert.isAtMost(fs.readdirSync(scratch.file("install/versions")).length, 2)
}

/** A process of the current version: an updater, or one pass. */
export const spawn = (
  scratch: Scratch.Scratch,
  options: Updater.Options,
  role: "update" | "updater",
  env: Readonly<Record<string, string>> = {}
) =>
  Effect.acquireRelease(
    Effect.map(options.install.current, (current) => {
      const app = path.join(Option.getOrThrow(current).path, "app")
      const child = child_process.spawn(app, [role, scratch.directory], {
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...Daemons.environment(scratch), ...env }
      })
      let said = ""
      for (const output of [child.stdout, child.stderr]) {
        output.setEncoding("utf8").on("data", (chunk: string) => (said += chunk))
      }
      const identity = identify(child.pid!)!
      let closed = false
      child.on("close", () => (closed = true))
      return {
        identity,
        said: () => said.trim(),
        ended: eventually(`the ${role} ends`, () => closed, { within: 20_000, detail: () => said })
      }
    }),
    ({ identity }) => Effect.sync(() => killIfAlive(identity))
  )

export const kill = (identity: Identity) =>
  Effect.suspend(() => {
    killIfAlive(identity)
    return eventually("it is dead", () => !isAlive(identity))
  })

export const passes = (scratch: Scratch.Scratch): ReadonlyArray<string> =>
  fs.existsSync(scratch.file("passes")) ? fs.readFileSync(scratch.file("passes"), "utf8").trim().split("\n") : []
