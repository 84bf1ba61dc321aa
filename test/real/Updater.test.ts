/** The updater with a real daemon of a managed install: updates, the way back, deaths at each step, and its own image. */
import { assert, describe, it } from "@effect/vitest"
import { Daemon, PidRecord, Updater, UpdateRecord } from "@treeline/core/daemon"
import { Deferred, Effect, Fiber, Option, type Scope } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { ProcessPlatform } from "treeline"
import * as Daemons from "../support/Daemons.ts"
import { eventually } from "../support/Eventually.ts"
import * as Managed from "../support/Managed.ts"
import { identify, type Identity, isAlive, killIfAlive, signalIfAlive } from "../support/Processes.ts"
import * as Random from "../support/Random.ts"
import * as Scratch from "../support/Scratch.ts"

/** Deaths at random instants, and times that an updater replaces itself. */
const deaths = Number(process.env["TREELINE_UPDATER_DEATHS"] ?? 2)
const replacements = Number(process.env["TREELINE_UPDATER_REPLACEMENTS"] ?? 2)

type Needs = ProcessPlatform.ProcessPlatform | Scope.Scope

const real = (
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
const running = (scratch: Scratch.Scratch, version = "1.0.0", more: Partial<Updater.Options> = {}) =>
  Effect.gen(function*() {
    Managed.publish(scratch, version)
    const options = yield* Managed.options(scratch, more)
    const first = yield* Updater.update(options)
    assert.deepStrictEqual([first.status, first.version, first.restarted], ["updated", version, false])
    const { pid } = yield* Daemon.start(options.daemon)
    return { options, pid: pid!, id: first.current! }
  })

const recordOf = (options: Updater.Options) =>
  Effect.flatMap(
    ProcessPlatform.ProcessPlatform,
    (platform) => PidRecord.read({ folder: options.daemon.folder, platform })
  )

/** The version of the daemon that runs. */
const runs = (options: Updater.Options) =>
  Effect.map(recordOf(options), (state) => state._tag === "Running" ? state.record.version : state._tag)

/** What holds in every state between. */
const assertWhole = (options: Updater.Options) =>
  Effect.gen(function*() {
    const current = Option.getOrThrow(yield* options.install.current)
    for (const name of ["app", "version", "behaviour"]) assert.isTrue(fs.existsSync(path.join(current.path, name)))
    yield* UpdateRecord.read(options.daemon.folder)
    return current.id
  })

/** Nothing of a dead process is left in the folders, but its logs. */
const assertClean = (scratch: Scratch.Scratch) => {
  const inState = fs.readdirSync(Daemons.folderOf(scratch)).filter((name) => !/^(daemon|updater)\.err/.test(name))
  assert.deepStrictEqual(inState.toSorted(), ["control.sock", "daemon", "update.json"])
  assert.deepStrictEqual(fs.readdirSync(scratch.file("install")).toSorted(), ["current", "staging", "versions"])
  assert.deepStrictEqual(fs.readdirSync(scratch.file("install/staging")), [])
  assert.isAtMost(fs.readdirSync(scratch.file("install/versions")).length, 2)
}

/** A process of the current version: an updater, or one pass. */
const spawn = (
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

const kill = (identity: Identity) =>
  Effect.suspend(() => {
    killIfAlive(identity)
    return eventually("it is dead", () => !isAlive(identity))
  })

const passes = (scratch: Scratch.Scratch): ReadonlyArray<string> =>
  fs.existsSync(scratch.file("passes")) ? fs.readFileSync(scratch.file("passes"), "utf8").trim().split("\n") : []

describe("an update", () => {
  real(
    "C14, C15, C22: new content restarts the daemon as it, the same content does not; two versions are kept",
    (scratch) =>
      Effect.gen(function*() {
        const { id, options, pid } = yield* running(scratch)
        const same = yield* Updater.update(options)
        assert.deepStrictEqual([same.status, same.current, same.detail], ["noUpdate", id, ""])
        assert.strictEqual((yield* Daemon.status(options.daemon)).pid, pid)
        Managed.publish(scratch, "2.0.0")
        const second = yield* Updater.update(options)
        assert.deepStrictEqual(
          [second.status, second.from, second.version, second.restarted],
          ["updated", id, "2.0.0", true]
        )
        const status = yield* Daemon.status(options.daemon)
        assert.deepStrictEqual([status.pid, status.version], [second.pid, "2.0.0"])
        assert.notStrictEqual(status.pid, pid)
        assert.strictEqual(status.program, yield* options.install.locate(second.current!, "app"))
        Managed.publish(scratch, "3.0.0")
        const third = yield* Updater.update(options)
        assert.strictEqual(third.status, "updated")
        assert.deepStrictEqual(yield* options.install.versions, [second.current!, third.current!].toSorted())
        assertClean(scratch)
      })
  )

  real("C12: the same content, but a daemon of another version: it is restarted", (scratch) =>
    Effect.gen(function*() {
      const { options, pid } = yield* running(scratch)
      Managed.publish(scratch, "2.0.0")
      // Switched by hand, while the old one runs.
      const { id } = yield* options.install.stage(options.fetch)
      yield* options.install.switchTo(id)
      const outcome = yield* Updater.update(options)
      assert.deepStrictEqual([outcome.status, outcome.current, outcome.restarted], ["updated", id, true])
      assert.notStrictEqual(outcome.pid, pid)
      assert.strictEqual(yield* runs(options), "2.0.0")
    }))

  for (const behaviour of ["hangs", "exits", "failing"] as const) {
    real(`a version that ${behaviour} is taken back, and is not tried again`, (scratch) =>
      Effect.gen(function*() {
        const calls: Array<string> = []
        const call = (name: string) => Effect.sync(() => void calls.push(name))
        const { id, options } = yield* running(scratch, "1.0.0", {
          readyWithin: 1200,
          validateWithin: 300,
          supervision: { pause: call("pause"), resume: call("resume") }
        })
        calls.length = 0
        Managed.publish(scratch, "2.0.0", behaviour)
        const outcome = yield* Updater.update(options)
        assert.deepStrictEqual([outcome.status, outcome.current], ["rolledBack", id])
        assert.match(
          outcome.detail,
          { hangs: /was not ready within/, exits: /the new version has a defect/, failing: /its answers are wrong/ }[
            behaviour
          ]
        )
        assert.deepStrictEqual(calls, ["pause", "resume"])
        assert.strictEqual(yield* assertWhole(options), id)
        const { pid, version } = yield* Daemon.status(options.daemon)
        assert.deepStrictEqual([pid, version], [outcome.pid, "1.0.0"])
        const again = yield* Updater.update(options)
        assert.strictEqual(again.status, "noUpdate")
        assert.match(again.detail, /did not hold before/)
        assert.strictEqual((yield* Daemon.status(options.daemon)).pid, pid)
        Managed.publish(scratch, "3.0.0")
        assert.strictEqual((yield* Updater.update(options)).version, "3.0.0")
        assertClean(scratch)
      }))
  }

  real(
    "C17: a version that does not answer --version is refused before anything is switched",
    (scratch) =>
      Effect.gen(function*() {
        const { id, options, pid } = yield* running(scratch)
        Managed.publish(scratch, "2.0.0", "rubbish")
        assert.strictEqual((yield* Effect.flip(Updater.update(options)))._tag, "ManagedProgramUnusable")
        assert.strictEqual(yield* assertWhole(options), id)
        assert.strictEqual((yield* Daemon.status(options.daemon)).pid, pid)
        assert.match((yield* Updater.update(options)).detail, /did not hold before/)
        assert.strictEqual((yield* Updater.status(options.daemon)).phase, "done")
      })
  )

  real("C10: a daemon that does not run is not started, and the switch is made", (scratch) =>
    Effect.gen(function*() {
      const { options } = yield* running(scratch)
      yield* Daemon.stop(options.daemon)
      Managed.publish(scratch, "2.0.0")
      const outcome = yield* Updater.update(options)
      assert.deepStrictEqual([outcome.status, outcome.version, outcome.restarted], ["updated", "2.0.0", false])
      assert.strictEqual((yield* Daemon.status(options.daemon)).status, "notRunning")
      yield* Daemon.start(options.daemon)
      assert.strictEqual(yield* runs(options), "2.0.0")
    }))

  real(
    "C10, C29: while another command is at work a pass is busy, and changes nothing",
    (scratch) =>
      Effect.gen(function*() {
        const { id, options, pid } = yield* running(scratch, "1.0.0", { lockWithin: 200 })
        Managed.publish(scratch, "2.0.0")
        const done = yield* Deferred.make<void>()
        const begun = yield* Deferred.make<void>()
        const other = yield* Effect.forkChild(
          Daemon.exclusively(
            options.daemon,
            "other",
            () => Effect.andThen(Deferred.succeed(begun, undefined), Deferred.await(done))
          )
        )
        yield* Deferred.await(begun)
        const outcome = yield* Updater.update(options)
        assert.deepStrictEqual([outcome.status, outcome.current], ["busy", id])
        assert.match(outcome.detail, /the other of process/)
        yield* Deferred.succeed(done, undefined)
        yield* Fiber.join(other)
        assert.strictEqual((yield* Daemon.status(options.daemon)).pid, pid)
        assert.strictEqual((yield* Updater.update(options)).status, "updated")
      })
  )

  real(
    "K17: a supervision that can't be paused, and a kill switch, change nothing",
    (scratch) =>
      Effect.gen(function*() {
        const { id, options, pid } = yield* running(scratch)
        Managed.publish(scratch, "2.0.0")
        let resumed = 0
        const outcome = yield* Updater.update({
          ...options,
          supervision: { pause: Effect.fail({ message: "no answer" }), resume: Effect.sync(() => void resumed++) }
        })
        assert.deepStrictEqual([outcome.status, outcome.current], ["rolledBack", id])
        assert.strictEqual(resumed, 1)
        assert.strictEqual((yield* Updater.update({ ...options, enabled: Effect.succeed(false) })).status, "disabled")
        let asked = 0
        const late = Effect.sync(() => ++asked < 4)
        assert.strictEqual((yield* Updater.update({ ...options, enabled: late })).status, "disabled")
        assert.strictEqual(asked, 4, "asked before each step")
        assert.deepStrictEqual([yield* assertWhole(options), (yield* Daemon.status(options.daemon)).pid], [id, pid])
      })
  )

  real(
    "K17: an update that is stopped after the old daemon has ended starts nothing, and takes the switch back",
    (scratch) =>
      Effect.gen(function*() {
        const { id, options } = yield* running(scratch)
        Managed.publish(scratch, "2.0.0")
        const restarting = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkChild(Updater.update({
          ...options,
          onPhase: (phase) => phase === "restarting" ? Deferred.succeed(restarting, undefined) : Effect.void
        }))
        yield* Deferred.await(restarting)
        yield* Fiber.interrupt(fiber)
        const left = yield* runs(options)
        assert.include(["1.0.0", "Missing"], left, "the old one, or nothing")
        assert.strictEqual(yield* assertWhole(options), id)
        assert.strictEqual((yield* UpdateRecord.read(options.daemon.folder)).phase, "done")
      })
  )
})

describe("an updater that dies", () => {
  for (const phase of ["fetching", "pausing", "switching", "restarting", "validating", "rollingBack"] as const) {
    real(`while it is ${phase}: a start succeeds, and the next pass finishes it`, (scratch) =>
      Effect.gen(function*() {
        const { id, options } = yield* running(scratch)
        Managed.publish(scratch, "2.0.0", phase === "rollingBack" ? "exits" : "well")
        const process = yield* spawn(scratch, options, "update", { [Managed.stopVariable]: phase })
        yield* scratch.awaitNamed(`at-${phase}`)
        assert.strictEqual((yield* UpdateRecord.read(options.daemon.folder)).phase, phase)
        yield* kill(process.identity)
        const between = yield* assertWhole(options)
        const started = yield* Effect.result(Daemon.start(options.daemon))
        if (phase !== "rollingBack") assert.strictEqual(started._tag, "Success")
        const recovered = yield* Updater.recover(options)
        const after = yield* assertWhole(options)
        switch (phase) {
          case "fetching":
          case "pausing":
          case "switching":
            assert.deepStrictEqual([between, after, Option.isNone(recovered)], [id, id, true])
            break
          case "restarting":
          case "validating":
            assert.notStrictEqual(after, id)
            assert.strictEqual(Option.getOrThrow(recovered).status, "updated")
            break
          case "rollingBack":
            assert.strictEqual(after, id)
            assert.strictEqual(Option.getOrThrow(recovered).status, "rolledBack")
        }
        assert.strictEqual(yield* runs(options), after === id ? "1.0.0" : "2.0.0")
        const next = yield* Updater.update(options)
        assert.strictEqual(next.status, after === id && phase !== "rollingBack" ? "updated" : "noUpdate")
        assert.strictEqual((yield* UpdateRecord.read(options.daemon.folder)).phase, "done")
        assertClean(scratch)
      }))
  }

  real(
    "K17: after the switch, and the daemon is then ended by a user: it is not started again",
    (scratch) =>
      Effect.gen(function*() {
        const { options } = yield* running(scratch)
        Managed.publish(scratch, "2.0.0")
        const process = yield* spawn(scratch, options, "update", { [Managed.stopVariable]: "restarting" })
        yield* scratch.awaitNamed("at-restarting")
        yield* kill(process.identity)
        yield* Updater.stop(options.daemon)
        yield* Daemon.stop(options.daemon)
        assert.isTrue(Option.isNone(yield* Updater.recover(options)))
        assert.strictEqual((yield* Daemon.status(options.daemon)).status, "notRunning")
        yield* Daemon.start(options.daemon)
        assert.strictEqual(yield* runs(options), "2.0.0")
      })
  )

  real(
    `at ${deaths} random instants, or its daemon: the next start always succeeds and nothing is left`,
    (scratch) =>
      Effect.gen(function*() {
        const { options } = yield* running(scratch)
        const random = Random.make()
        for (let round = 0; round < deaths; round++) {
          Managed.publish(scratch, `2.${round}.0`, random() < 0.2 ? "exits" : "well")
          const updater = yield* spawn(scratch, options, "update")
          const waits = Math.round(random() * 1200)
          yield* Effect.sleep(waits)
          const state = yield* recordOf(options)
          const victim = random() < 0.3 && state._tag === "Running"
            ? identify(state.record.identity.pid)
            : updater.identity
          if (victim !== undefined) yield* kill(victim)
          if (victim !== updater.identity) yield* updater.ended
          yield* assertWhole(options)
          const started = yield* Effect.result(Daemon.start(options.daemon))
          const { phase } = yield* UpdateRecord.read(options.daemon.folder)
          // Only a version that can't start, and whose way back was cut off, may not.
          if (started._tag === "Failure") {
            assert.include(["restarting", "rollingBack", "validating", "switching"], phase)
          }
          yield* Updater.recover(options)
          yield* Daemon.start(options.daemon)
          yield* assertWhole(options)
          assert.match(yield* runs(options), /^\d/)
        }
        assertClean(scratch)
      }),
    30_000 + deaths * 8000
  )
})

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
        for (const later of seen) {
          assert.isAtMost(later.fds, first!.fds + 4)
          assert.deepStrictEqual(later.signals, first!.signals)
        }
        // The daemon and a guardian or a fetch; those before are reaped although an earlier image has started them.
        yield* eventually("no zombies are left", () => children(identity.pid).length <= 3, {
          within: 15_000,
          detail: () => children(identity.pid).map((pid) => fs.readFileSync(`/proc/${pid}/stat`, "utf8"))
        })
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
