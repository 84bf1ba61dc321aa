/** The kit on real processes: time is live, and signals reach real leaders. */
import { assert, it } from "@effect/vitest"
import { Child, Probe, Restart, ShutdownPlan } from "@treeline/core"
import { Lifecycle } from "@treeline/core/testing"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect } from "effect"
import { brief, sh, soon } from "../support/Children.ts"
import { leaking, replayOf } from "../support/OwnSpecs.ts"
import * as Scratch from "../support/Scratch.ts"
import { assertNoneLiving } from "../support/Trees.ts"

const children = (scratch: Scratch.Scratch) => () => [
  Child.make("db", {
    command: sh("echo \"db $$\" >>\"$1\"; echo up; exec sleep 60", scratch.report),
    readiness: Probe.line("up"),
    restart: Restart.permanent({ backoff: soon() }),
    shutdown: brief
  }),
  Child.make("web", {
    command: sh(
      "trap '' TERM; echo \"web $$\" >>\"$1\"; sleep 60 & echo \"job $!\" >>\"$1\"; setsid sleep 60 & wait",
      scratch.report
    ),
    dependsOn: ["db"],
    restart: Restart.transient({ backoff: soon() }),
    shutdown: brief
  })
]

it.effect("10 lifecycles of real processes keep every promise", () =>
  Effect.gen(function*() {
    const scratch = yield* Scratch.make
    const startedAt = performance.now()
    const report = yield* Lifecycle.checkSpecs(children(scratch), PosixPlatform.layer, { seed: 1, runs: 10 })
    const seconds = (performance.now() - startedAt) / 1000
    console.log(`${report.runs} lifecycles, ${report.starts} incarnations, ${seconds.toFixed(1)} s`)
    assert.strictEqual(report.runs, 10)
    assert.isAbove(report.starts, 10)
    assert.isBelow(seconds, 20)
    yield* assertNoneLiving(scratch)
  }).pipe(Effect.scoped))

it.effect("Crash, Freeze and Thaw reach the real leader", () =>
  Effect.gen(function*() {
    const scratch = yield* Scratch.make
    const up = Array.from({ length: 20 }, () => ({ _tag: "Step", ms: 50 }) as const)
    const { story } = yield* Lifecycle.replaySpecs(children(scratch), PosixPlatform.layer, {
      seed: 1,
      commands: [
        ...up,
        { _tag: "Freeze", child: "db" },
        // Of two signals that wait at once the kernel takes the one with the lower number first.
        { _tag: "Step", ms: 50 },
        // Stays pending while it is frozen, and ends it then.
        { _tag: "Crash", child: "db", signal: "SIGTERM" },
        { _tag: "Step", ms: 50 },
        { _tag: "Start", child: "db" },
        { _tag: "Step", ms: 50 },
        { _tag: "Thaw", child: "db" },
        ...up
      ]
    })
    const lines = story.split("\n").map((line) => line.replace(/^ *\d+ ms {2}/, ""))
    const ended = lines.findIndex((line) => line.startsWith("db#1 ended: Exited"))
    assert.isAbove(ended, lines.findIndex((line) => line.startsWith("[1] ok")), story)
    assert.include(lines, "db#2 Running -> Ready", story)
    yield* assertNoneLiving(scratch)
  }).pipe(Effect.scoped))

it.effect("a process that an effect leaks is found, and ended afterwards", () =>
  Effect.gen(function*() {
    const scratch = yield* Scratch.make
    const leak = () => [
      leaking("leaking", sh("echo \"leaked $$\" >>\"$1\"; exec sleep 60", scratch.report)),
      Child.make("good", { command: sh("exec sleep 60"), shutdown: ShutdownPlan.kill })
    ]
    const found = yield* Effect.flip(Lifecycle.checkSpecs(leak, PosixPlatform.layer, { runs: 1, commands: 1 }))
    assert.include(found, { _tag: "LifecycleViolation", invariant: "nothing is left" })
    assert.match(found.message, /nothing is left: process \d+ /)
    yield* assertNoneLiving(scratch)
    const replay = replayOf("script" in found ? found.script : "", {})
    const again = yield* Effect.flip(Lifecycle.replaySpecs(leak, PosixPlatform.layer, replay))
    assert.include(again, { _tag: "LifecycleViolation", invariant: "nothing is left" })
    yield* assertNoneLiving(scratch)
  }).pipe(Effect.scoped))

it.effect("an incarnation that is launched while a process of the last one lives is found at the launch", () =>
  Effect.gen(function*() {
    const scratch = yield* Scratch.make
    const leak = () => [leaking("leaking", sh("echo \"leaked $$\" >>\"$1\"; exec sleep 60", scratch.report))]
    const found = yield* Effect.flip(Lifecycle.replaySpecs(leak, PosixPlatform.layer, {
      seed: 1,
      commands: [{ _tag: "Step", ms: 50 }, { _tag: "Restart", child: "leaking" }]
    }))
    assert.include(found, { _tag: "LifecycleViolation", invariant: "one incarnation at a time" })
    assert.match(found.message, /leaking#2 is launched while process \d+ .+ of #1 lives/)
    yield* assertNoneLiving(scratch)
  }).pipe(Effect.scoped))
