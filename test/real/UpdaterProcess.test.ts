/** The process of an updater: its record, its end, and how a new version of it takes its place. */
import { assert, describe } from "@effect/vitest"
import { Updater } from "@treeline/core/daemon"
import { Effect } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Daemons from "../support/Daemons.ts"
import { eventually } from "../support/Eventually.ts"
import * as Managed from "../support/Managed.ts"
import { isAlive, signalIfAlive, stateOf } from "../support/Processes.ts"
import type * as Scratch from "../support/Scratch.ts"
import { kill, passes, real, running, runs, spawn } from "../support/Updaters.ts"

/** Times that an updater replaces itself. */
const replacements = Number(process.env["TREELINE_UPDATER_REPLACEMENTS"] ?? 2)

describe("a running updater", () => {
  const updater = (
    scratch: Scratch.Scratch,
    options: Updater.Options,
    settings: { readonly way: "execve" | "handOver"; readonly interval?: number }
  ) => spawn(scratch, options, "updater", { TEST_UPDATER: JSON.stringify(settings) })

  const descriptors = (pid: number): number => fs.readdirSync(`/proc/${pid}/fd`).length
  const children = (pid: number): ReadonlyArray<string> =>
    fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter((child) => child !== "")
  const signals = (pid: number): ReadonlyArray<string> =>
    fs.readFileSync(`/proc/${pid}/status`, "utf8").split("\n").filter((line) => /^Sig(Blk|Ign|Cgt)/.test(line))

  real(
    `C10: becomes its new version after the daemon does, pid and record kept, nothing leaks; ${replacements} times`,
    (scratch) =>
      Effect.gen(function*() {
        const { options } = yield* running(scratch)
        const { identity } = yield* updater(scratch, options, { way: "execve" })
        yield* eventually("the first pass", () => passes(scratch).length > 0)
        const seen: Array<
          { readonly fds: number; readonly signals: ReadonlyArray<string> }
        > = []
        for (let n = 1; n <= replacements; n++) {
          const version = `2.${n}.0`
          Managed.publish(scratch, version)
          yield* eventually(
            `${version} has made a pass`,
            () => passes(scratch).includes(`noUpdate ${identity.pid} ${version}`),
            { within: 15_000, detail: () => passes(scratch) }
          )
          assert.isTrue(isAlive(identity), "the same process, by its start time too")
          const status = yield* Updater.status(options.daemon)
          assert.deepStrictEqual([status.status, status.pid, status.version], ["running", identity.pid, version])
          assert.strictEqual(yield* runs(options), version)
          yield* Effect.sleep(50)
          seen.push({
            fds: descriptors(identity.pid),
            signals: signals(identity.pid)
          })
        }
        const [first] = seen
        for (const later of seen) assert.deepStrictEqual(later.signals, first!.signals)
        // At rest it has no more than the first of them had at any time.
        yield* eventually("no descriptor was left", () => descriptors(identity.pid) <= first!.fds, {
          detail: () => [first!.fds, descriptors(identity.pid)]
        })
        // The daemon and a guardian or a fetch; those before are reaped although an earlier image has started them. Without
        // the native engine nobody reaps them before the updater ends.
        if (process.env["TREELINE_ENGINE"] !== "portable") {
          yield* eventually("no zombies are left", () => children(identity.pid).length <= 3, {
            within: 15_000,
            detail: () => children(identity.pid).map((pid) => fs.readFileSync(`/proc/${pid}/stat`, "utf8"))
          })
        }
        const stopped = yield* Updater.stop(options.daemon)
        assert.deepStrictEqual([stopped.status, stopped.pid, stopped.forced], ["stopped", identity.pid, false])
        assert.deepStrictEqual(
          fs.readdirSync(Daemons.folderOf(scratch)).filter((name) => name.startsWith("updater")),
          []
        )
      }),
    30_000 + replacements * 5000
  )

  real("C28: hands over to its new version, which acknowledges; the old one ends", (scratch) =>
    Effect.gen(function*() {
      const { options } = yield* running(scratch)
      const { identity } = yield* updater(scratch, options, { way: "handOver" })
      yield* eventually("the first pass", () => passes(scratch).length > 0)
      Managed.publish(scratch, "2.0.0")
      const successor = yield* scratch.awaitNamed("updater-2.0.0")
      yield* eventually("the old one ends", () => !isAlive(identity))
      const status = yield* Updater.status(options.daemon)
      assert.deepStrictEqual([status.status, status.pid, status.version], ["running", successor.pid, "2.0.0"])
      assert.strictEqual(fs.readdirSync(path.join(Daemons.folderOf(scratch), "updater")).length, 1)
      assert.strictEqual((yield* Updater.stop(options.daemon)).pid, successor.pid)
      assert.isFalse(isAlive(successor))
    }))

  real(
    "C28: a successor that fails is ended, and the old one goes on with its record",
    (scratch) =>
      Effect.gen(function*() {
        const { options } = yield* running(scratch)
        const { identity } = yield* updater(scratch, options, { way: "handOver" })
        yield* eventually("the first pass", () => passes(scratch).length > 0)
        const before = fs.readdirSync(path.join(Daemons.folderOf(scratch), "updater"))
        Managed.publish(scratch, "2.0.0", "shy")
        const successor = yield* scratch.awaitNamed("updater-2.0.0")
        yield* eventually("the successor has ended", () => !isAlive(successor))
        const made = passes(scratch).length
        yield* eventually("the old one goes on", () => passes(scratch).length > made)
        assert.deepStrictEqual(fs.readdirSync(path.join(Daemons.folderOf(scratch), "updater")), before)
        const status = yield* Updater.status(options.daemon)
        assert.deepStrictEqual([status.status, status.pid], ["running", identity.pid])
        assert.strictEqual(yield* runs(options), "2.0.0")
        yield* Updater.stop(options.daemon)
      })
  )

  real(
    "C24, C33: a second one is refused, a dead one is replaced, an invalid record is told",
    (scratch) =>
      Effect.gen(function*() {
        const { options } = yield* running(scratch)
        const first = yield* updater(scratch, options, { way: "execve" })
        yield* eventually("the first pass", () => passes(scratch).length > 0)
        const second = yield* updater(scratch, options, { way: "execve" })
        yield* second.ended
        assert.match(second.said(), new RegExp(`already running \\(pid ${first.identity.pid}\\)`))
        yield* kill(first.identity)
        assert.strictEqual((yield* Updater.status(options.daemon)).status, "stale")
        const made = passes(scratch).length
        const third = yield* updater(scratch, options, { way: "execve" })
        yield* eventually("it makes a pass", () => passes(scratch).length > made)
        signalIfAlive(third.identity.pid, "SIGTERM")
        yield* third.ended
        assert.strictEqual((yield* Updater.status(options.daemon)).status, "notRunning")
        assert.strictEqual((yield* Updater.stop(options.daemon)).status, "notRunning")
        fs.mkdirSync(path.join(Daemons.folderOf(scratch), "updater"))
        fs.writeFileSync(path.join(Daemons.folderOf(scratch), "updater", "7-aa.json"), "rubbish")
        assert.strictEqual((yield* Updater.status(options.daemon)).status, "unreadable")
        assert.strictEqual((yield* Effect.flip(Updater.stop(options.daemon)))._tag, "ClaimUndecided")
        const fourth = yield* updater(scratch, options, { way: "execve" })
        yield* fourth.ended
        assert.match(fourth.said(), /its content is no claim; nothing was done/)
      })
  )

  real("C24: one that has ended and is reaped by nobody is dead, and replaced", (scratch) =>
    Effect.gen(function*() {
      const { id, options } = yield* running(scratch)
      const app = yield* options.install.locate(id, "app")
      // sleep(1) waits for no child.
      const holder = yield* Effect.acquireRelease(
        Effect.sync(() =>
          child_process.spawn("sh", ["-c", "\"$0\" updater \"$1\" & exec sleep 60", app, scratch.directory], {
            stdio: "ignore",
            env: { ...Daemons.environment(scratch), TEST_UPDATER: JSON.stringify({ way: "execve" }) }
          })
        ),
        (holder) => Effect.sync(() => void holder.kill("SIGKILL"))
      )
      const first = yield* scratch.awaitNamed("updater-1.0.0")
      yield* eventually("the first pass", () => passes(scratch).length > 0)
      signalIfAlive(first.pid, "SIGKILL")
      yield* eventually("it is a zombie, all threads ended", () => stateOf(first.pid) === "Z" && !isAlive(first))
      assert.strictEqual((yield* Updater.status(options.daemon)).status, "stale")
      const second = yield* updater(scratch, options, { way: "execve" })
      yield* eventually("the second makes a pass", () => passes(scratch).at(-1)?.includes(` ${second.identity.pid} `))
      assert.strictEqual(stateOf(first.pid), "Z")
      assert.strictEqual((yield* Updater.stop(options.daemon)).pid, second.identity.pid)
      holder.kill("SIGKILL")
    }))

  real("C26: when it is stopped, all that its fetch has started ends", (scratch) =>
    Effect.gen(function*() {
      const tree = fileURLToPath(new URL("../fixtures/tree.sh", import.meta.url))
      Managed.publish(scratch, "1.0.0")
      const options = yield* Managed.options(scratch)
      yield* Updater.update(options)
      fs.writeFileSync(scratch.file("fetch"), `exec sh '${tree}' grandchild '${scratch.report}'\n`)
      const { identity } = yield* spawn(scratch, options, "updater", {
        TEST_UPDATER: JSON.stringify({ way: "execve" }),
        [Managed.fetchVariable]: scratch.file("fetch")
      })
      yield* scratch.awaitNamed("leaf")
      const stopped = yield* Updater.stop(options.daemon)
      assert.deepStrictEqual([stopped.pid, stopped.forced], [identity.pid, false])
      yield* scratch.awaitNoneLiving(0)
      assert.deepStrictEqual(fs.readdirSync(scratch.file("install/staging")), [])
    }))
})
