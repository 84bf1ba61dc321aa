/** A managed install and its updater on Windows, where no process can become another program: it hands over. */
import { assert, describe, it } from "@effect/vitest"
import { Daemon, Updater } from "@treeline/core/daemon"
import { WindowsPlatform } from "@treeline/platform-windows"
import { Effect, Option } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { eventually } from "../support/Eventually.ts"
import * as Managed from "./support/Managed.ts"
import { identify, isAlive, killIfAlive } from "./support/Processes.ts"

const within = 60_000

const linesOf = (directory: string, name: string): ReadonlyArray<string> => {
  const file = path.join(directory, name)
  return fs.existsSync(file) ? fs.readFileSync(file, "utf8").split("\n").slice(0, -1) : []
}

/** A folder; whoever has reported itself in it ends with the scope. */
const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "treeline-"))),
  (folder) =>
    Effect.sync(() => {
      for (const line of linesOf(folder, "report")) {
        const identity = identify(Number(line.split(" ")[1]))
        if (identity !== undefined) killIfAlive(identity)
      }
      fs.rmSync(folder, { recursive: true, force: true, maxRetries: 40, retryDelay: 50 })
    })
)

/** The daemon of version 1.0.0 runs. */
const running = Effect.gen(function*() {
  const directory = yield* folder
  const options = yield* Managed.options(directory)
  Managed.publish(directory, "1.0.0")
  const { id } = yield* options.install.stage(options.fetch)
  yield* options.install.switchTo(id)
  const outcome = yield* Daemon.start(options.daemon, { readyWithin: "30 seconds" })
  assert.deepStrictEqual([outcome.status, outcome.version], ["started", "1.0.0"])
  return { directory, options }
})

/** The version that answers. */
const answering = (options: Updater.Options) =>
  Effect.map(options.daemon.ask, (answer) => Option.getOrThrow(answer).version)

const updaterOf = (directory: string, options: Updater.Options) =>
  Effect.gen(function*() {
    const current = Option.getOrThrow(yield* options.install.current)
    const launched = yield* Managed.launch(directory, "updater", { path: path.join(current.path, "app.cmd") }, {})
    const identity = identify(launched.pid)!
    const passes = () => linesOf(directory, "passes")
    yield* eventually("the first pass", () => passes().length > 0, { within, detail: passes })
    return { identity, passes }
  })

const successorOf = (directory: string) =>
  eventually("the successor is there", () => {
    const line = linesOf(directory, "report").find((line) => line.startsWith("updater-2.0.0 "))
    return line === undefined ? undefined : identify(Number(line.split(" ")[1])) ?? { pid: 0, start: "" }
  }, { within, detail: () => [linesOf(directory, "report"), linesOf(directory, "passes")] })

const claims = (directory: string) => fs.readdirSync(path.join(Managed.stateOf(directory), "updater"))

describe("an update", () => {
  it.live("C15: switches and restarts; a version that ends at once is taken back", () =>
    Effect.gen(function*() {
      const { directory, options } = yield* running
      // A junction can't be replaced in one step.
      assert.isTrue(fs.lstatSync(path.join(options.install.path, "current")).isFile())
      assert.strictEqual((yield* Updater.update(options)).status, "noUpdate")
      Managed.publish(directory, "2.0.0")
      assert.strictEqual((yield* Updater.update(options)).status, "updated")
      assert.strictEqual(yield* answering(options), "2.0.0")
      const good = Option.getOrThrow(yield* options.install.current)
      Managed.publish(directory, "3.0.0", "exits")
      assert.strictEqual((yield* Updater.update(options)).status, "rolledBack")
      assert.deepStrictEqual(Option.getOrThrow(yield* options.install.current), good)
      assert.strictEqual(yield* answering(options), "2.0.0")
      assert.strictEqual((yield* Daemon.stop(options.daemon)).status, "stopped")
    }).pipe(Effect.scoped, Effect.provide(WindowsPlatform.layer)), 120_000)
})

describe("a running updater", () => {
  it.live(
    "C28 updater_readiness: hands over to its new version, which acknowledges; the old one ends",
    () =>
      Effect.gen(function*() {
        const { directory, options } = yield* running
        const { identity } = yield* updaterOf(directory, options)
        Managed.publish(directory, "2.0.0")
        const successor = yield* successorOf(directory)
        yield* eventually("the old one ends", () => !isAlive(identity), { within })
        const status = yield* Updater.status(options.daemon)
        assert.deepStrictEqual([status.status, status.pid, status.version], ["running", successor.pid, "2.0.0"])
        assert.lengthOf(claims(directory), 1)
        assert.strictEqual(yield* answering(options), "2.0.0")
        assert.strictEqual((yield* Updater.stop(options.daemon)).pid, successor.pid)
        assert.isFalse(isAlive(successor))
      }).pipe(Effect.scoped, Effect.provide(WindowsPlatform.layer)),
    120_000
  )

  it.live(
    "C28 failed_updater_handoff_preserves_predecessor_record: a successor that fails is ended, the old one goes on",
    () =>
      Effect.gen(function*() {
        const { directory, options } = yield* running
        const { identity, passes } = yield* updaterOf(directory, options)
        const before = claims(directory)
        Managed.publish(directory, "2.0.0", "shy")
        const successor = yield* successorOf(directory)
        yield* eventually("the successor has ended", () => !isAlive(successor), { within })
        const made = passes().length
        yield* eventually("the old one goes on", () => passes().length > made, { within })
        assert.deepStrictEqual(claims(directory), before)
        const status = yield* Updater.status(options.daemon)
        assert.deepStrictEqual([status.status, status.pid], ["running", identity.pid])
        assert.strictEqual(yield* answering(options), "2.0.0")
        yield* Updater.stop(options.daemon)
        assert.isFalse(isAlive(identity))
      }).pipe(Effect.scoped, Effect.provide(WindowsPlatform.layer)),
    120_000
  )
})
