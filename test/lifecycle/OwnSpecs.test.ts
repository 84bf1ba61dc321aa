/** The kit on somebody's own children, on the simulated platform. */
import { assert, it } from "@effect/vitest"
import { Child, Probe, ProcessPlatform, Restart, ShutdownPlan, type Supervisor } from "@treeline/core"
import { Lifecycle, Program, SimulatedPlatform } from "@treeline/core/testing"
import { Effect } from "effect"
import { leaking, replayOf } from "../support/OwnSpecs.ts"

const platform = SimulatedPlatform.layer()

const db = Child.make("db", {
  command: SimulatedPlatform.command([Program.sleep(50), Program.write("accepting\n"), Program.endure]),
  readiness: Probe.line("accepting")
})

const web = Child.make("web", {
  command: SimulatedPlatform.command([Program.fork(Program.ignore("SIGTERM"), Program.endure), Program.endure]),
  dependsOn: ["db"],
  restart: Restart.transient(),
  shutdown: ShutdownPlan.terminate({ within: "2 seconds" })
})

const ticker = Child.effect("ticker", Effect.forever(Effect.sleep("1 second")))

/** Reports that it cannot be ended 10 ms after the kill, and its end takes a minute. */
const impatient = () => [
  db,
  Child.make("impatient", {
    command: SimulatedPlatform.command([Program.linger(60_000), Program.endure]),
    shutdown: ShutdownPlan.terminate({ within: "100 millis", cap: "10 millis" })
  })
]

it.effect(
  "own specs keep every promise on the simulated platform, on no clock of the test",
  () =>
    Effect.gen(function*() {
      const supervisor: Supervisor.Options = { strategy: "rest_for_one", intensity: { max: 50, within: "1 minute" } }
      const report = yield* Lifecycle.checkSpecs(() => [db, web, ticker], platform, { runs: 200, supervisor })
      assert.strictEqual(report.runs, 200)
      assert.isAbove(report.starts, 600)
    }),
  60_000
)

it.effect(
  "a shutdown plan whose cap is too short is found, made small, and its script fails again",
  () =>
    Effect.gen(function*() {
      const options = { seed: 2, runs: 50, commands: 20 }
      const long = yield* Effect.flip(Lifecycle.checkSpecs(impatient, platform, { ...options, shrinks: 0 }))
      const found = yield* Effect.flip(Lifecycle.checkSpecs(impatient, platform, options))
      if (found._tag !== "LifecycleViolation" || long._tag !== "LifecycleViolation") return assert.fail(found.message)
      assert.strictEqual(found.invariant, "nothing is left")
      assert.isAbove(replayOf(long.script, {}).commands.length, 2, long.script)
      const replay = replayOf(found.script, {})
      assert.deepStrictEqual(replay.commands, [], found.script)
      const again = yield* Effect.flip(Lifecycle.replaySpecs(impatient, platform, replay))
      assert.include(again, { invariant: found.invariant, detail: found.detail, script: found.script })
    }),
  60_000
)

it.effect("an effect that leaks a process is found", () =>
  Effect.gen(function*() {
    const children = () => [db, leaking("leaking", SimulatedPlatform.command([Program.endure], { name: "leaked" }))]
    const found = yield* Effect.flip(Lifecycle.checkSpecs(children, platform, { runs: 1, commands: 1 }))
    assert.include(found, { _tag: "LifecycleViolation", invariant: "nothing is left" })
    assert.match(found.message, /process \d+ leaked/)
  }))

it.effect("an effect whose next incarnation meets what the last one launched is found at the launch", () =>
  Effect.gen(function*() {
    const children = () => [leaking("leaking", SimulatedPlatform.command([Program.endure], { name: "leaked" }))]
    const found = yield* Effect.flip(Lifecycle.replaySpecs(children, platform, {
      seed: 1,
      commands: [{ _tag: "Step", ms: 10 }, { _tag: "Restart", child: "leaking" }]
    }))
    assert.include(found, { _tag: "LifecycleViolation", invariant: "one incarnation at a time" })
    assert.match(found.message, /leaking#2 is launched while process \d+ leaked of #1 lives/)
  }))

it.effect("a crash reaches the leader that an effect launched, and a supervisor's options are in the script", () =>
  Effect.gen(function*() {
    const runner = Child.effect(
      "runner",
      Effect.gen(function*() {
        const service = yield* ProcessPlatform.ProcessPlatform
        const tree = yield* service.launch(SimulatedPlatform.command([Program.endure]))
        return yield* tree.exited
      })
    )
    const supervisor: Supervisor.Options = { intensity: { max: 0, within: "1 minute" } }
    const { story } = yield* Lifecycle.replaySpecs(() => [runner], platform, {
      seed: 1,
      supervisor,
      commands: [{ _tag: "Step", ms: 100 }, { _tag: "Crash", child: "runner", signal: "SIGKILL" }]
    })
    assert.match(story, /runner#1 ended: Completed/)
    assert.match(story, /supervisor {2}Stopping/)
    const found = yield* Effect.flip(
      Lifecycle.checkSpecs(impatient, platform, { seed: 3, runs: 50, shrinks: 0, supervisor })
    )
    assert.include(found.message, "\n    supervisor,\n")
    assert.isAtLeast(replayOf("script" in found ? found.script : "", { supervisor }).seed, 3)
  }))

it.effect("a spec that is refused is an error of the call", () =>
  Effect.gen(function*() {
    const refused = yield* Effect.flip(Lifecycle.checkSpecs(() => [Child.effect("a/b", Effect.never)], platform))
    assert.strictEqual(refused._tag, "InvalidSpec")
  }))
