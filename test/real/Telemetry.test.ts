/** What operators see of supervised children: metrics, spans, logs. */
import { assert, layer } from "@effect/vitest"
import { Child, Probe, ProcessPlatform, Restart, ShutdownPlan, Supervisor } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Logger, Metric, References, Tracer } from "effect"
import { ChildProcess } from "effect/process"
import { childOf, event, kill, pidOf, sh, soon } from "../support/Children.ts"
import { eventually } from "../support/Eventually.ts"
import { isNative } from "../support/Host.ts"
import * as Scratch from "../support/Scratch.ts"

/** All series, by name and attributes: counters and gauges as numbers, histograms as their number of values. */
const series = Effect.map(Metric.snapshot, (snapshots) =>
  Object.fromEntries(snapshots.map((snapshot) => {
    const attributes = Object.entries(snapshot.attributes ?? {}).map(([key, value]) => `${key}=${value}`).join(",")
    const value = snapshot.type === "Histogram"
      ? snapshot.state.count
      : snapshot.type === "Counter" || snapshot.type === "Gauge"
      ? Number(snapshot.type === "Counter" ? snapshot.state.count : snapshot.state.value)
      : Number.NaN
    return [attributes === "" ? snapshot.id : `${snapshot.id}{${attributes}}`, value]
  })))

const histogram = (id: string) =>
  Effect.map(Metric.snapshot, (snapshots) => {
    const found = snapshots.find((snapshot) => snapshot.id === id)
    assert(found?.type === "Histogram")
    return found.state
  })

const sleeper = ChildProcess.make("sleep", ["60"])

layer(PosixPlatform.layer, { excludeTestServices: true })("telemetry", (it) => {
  it.effect("metrics: children by state, starts, steps, times; a closed child's series are gone", () =>
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const supervisor = yield* Supervisor.start([
          Child.make("web", { command: sleeper, restart: Restart.permanent({ backoff: soon() }) }),
          Child.make("job", { command: sh("exit 0"), restart: Restart.transient() }),
          Child.make("stubborn", {
            command: sh("trap '' TERM; echo up; sleep 60"),
            readiness: Probe.line("up"),
            shutdown: ShutdownPlan.make([ShutdownPlan.signal("SIGTERM", { within: "50 millis" })])
          })
        ])
        const web = yield* childOf(supervisor, "web")
        yield* kill(yield* pidOf(web, 1), "SIGKILL")
        yield* pidOf(web, 2)
        yield* event(yield* childOf(supervisor, "job"), "Stopped")
        yield* pidOf(yield* childOf(supervisor, "stubborn"), 1)
        const running = yield* series
        assert.strictEqual(running["treeline_children{state=Ready}"], 2)
        assert.strictEqual(running["treeline_children{state=Stopped}"], 1)
        assert.strictEqual(running["treeline_children{state=Starting}"], 0)
        assert.strictEqual(running["treeline_child_starts_total{child=web}"], 2)
        assert.strictEqual(running["treeline_child_starts_total{child=job}"], 1)
        assert.strictEqual(running["treeline_child_restarts_total{child=web}"], 1)
        assert.strictEqual(running["treeline_teardown_steps_total{step=none}"], 2)
        assert.strictEqual(running["treeline_spawn_ms"], 4)
        assert.strictEqual(running["treeline_drain_ms"], 2)
      }))
      const over = yield* series
      for (const [name, value] of Object.entries(over)) {
        if (name.startsWith("treeline_children")) assert.strictEqual(value, 0, name)
        assert.notMatch(name, /child=/)
      }
      assert.strictEqual(over["treeline_teardown_steps_total{step=SIGTERM}"], 1)
      assert.strictEqual(over["treeline_teardown_steps_total{step=kill}"], 1)
      assert.strictEqual(over["treeline_drain_ms"], 4)
      const spawn = yield* histogram("treeline_spawn_ms")
      assert.isAbove(spawn.min, 0)
      assert.isBelow(spawn.max, 10_000)
      assert.isBelow((yield* histogram("treeline_drain_ms")).max, 10_000)
    }).pipe(
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.provideService(References.MinimumLogLevel, "None")
    ))

  it.effect.skipIf(!isNative)(
    "treeline_drain_ms counts the time for which output goes on after the tree is empty",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        // A process of another tree writes to this one's output, through the link in /proc.
        const child = yield* Child.start(Child.make("app", {
          command: sh("echo up; exec sleep 60"),
          readiness: Probe.line("up"),
          shutdown: ShutdownPlan.kill,
          drain: { idle: "300 millis", limit: "2 seconds" }
        }))
        const pid = yield* pidOf(child, 1)
        const platform = yield* ProcessPlatform.ProcessPlatform
        yield* platform.launch(
          sh("exec 9>/proc/$2/fd/1; echo \"holder $$\" >>\"$1\"; exec sleep 60", scratch.report, String(pid)),
          { shutdown: ShutdownPlan.kill }
        )
        yield* scratch.awaitNamed("holder")
        yield* child.stop()
        const { count, max, min } = yield* histogram("treeline_drain_ms")
        assert.strictEqual(count, 1)
        assert.strictEqual(min, max)
        assert.isAtLeast(min, 10)
        assert.isBelow(max, 2_500)
      }).pipe(
        Effect.provideService(Metric.MetricRegistry, new Map()),
        Effect.provideService(References.MinimumLogLevel, "None")
      )
  )

  it.effect("spans: Child.start, Child.launch, Child.restart, Child.stop, with child, incarnation and pid", () => {
    const spans: Array<Tracer.NativeSpan> = []
    const tracer = Tracer.make({
      span(options) {
        const span = new Tracer.NativeSpan(options)
        spans.push(span)
        return span
      }
    })
    return Effect.gen(function*() {
      const child = yield* Child.start(Child.make("app", { command: sleeper }))
      const first = yield* pidOf(child, 1)
      yield* child.restart
      const second = yield* pidOf(child, 2)
      yield* child.stop()
      const seen = spans.filter(({ name }) => name.startsWith("Child.")).map(({ attributes, name, status }) => [
        name,
        status._tag,
        Object.fromEntries(attributes)
      ])
      assert.deepStrictEqual(seen, [
        ["Child.start", "Ended", { child: "app", incarnation: 1 }],
        ["Child.launch", "Ended", { child: "app", incarnation: 1, pid: first }],
        ["Child.restart", "Ended", { child: "app", incarnation: 1, pid: first }],
        ["Child.launch", "Ended", { child: "app", incarnation: 2, pid: second }],
        ["Child.stop", "Ended", { child: "app", incarnation: 2, pid: second }]
      ])
    }).pipe(Effect.provideService(Tracer.Tracer, tracer), Effect.provideService(References.MinimumLogLevel, "None"))
  })

  it.effect("logs: an info at a restart, a warning at the end for good, with child, incarnation and pid", () => {
    const logs: Array<readonly [string, string, Record<string, unknown>]> = []
    const logger = Logger.make(({ fiber, logLevel, message }) => {
      logs.push([logLevel, String(message), { ...fiber.getRef(References.CurrentLogAnnotations) }])
    })
    return Effect.gen(function*() {
      const bad = Child.make("bad", {
        command: sh("echo up; exit 3"),
        readiness: Probe.line("up"),
        restart: Restart.permanent({ backoff: soon({ times: 1 }) })
      })
      yield* Supervisor.start([Supervisor.child("inner", [bad])])
      yield* eventually("it has failed for good", () => logs.some(([level]) => level === "Warn"))
      const told = logs.filter(([, , { child }]) => child === "inner/bad")
      assert.deepStrictEqual(told.map(([level, message]) => [level, message.replace(/\d+ ms/, "N ms")]), [
        ["Debug", "launched"],
        ["Debug", "ready"],
        ["Info", "exited with code 3; restart 1 in a row, after N ms"],
        ["Debug", "launched"],
        ["Debug", "ready"],
        ["Warn", "bad has failed: exited with code 3; it was restarted 1 times in a row"]
      ])
      assert.deepStrictEqual(told.map(([, , { incarnation }]) => incarnation), [1, 1, 1, 2, 2, 2])
      assert.strictEqual(new Set(told.map(([, , { pid }]) => pid)).size, 2)
      for (const [, , { pid }] of told) assert.isAbove(Number(pid), 1)
    }).pipe(
      Effect.provide(Logger.layer([logger])),
      Effect.provideService(References.MinimumLogLevel, "Debug")
    )
  })
})
