/** Supervisors of real processes: order, isolation, rounds, intensity, nesting, and many at once. */
import { assert, layer } from "@effect/vitest"
import { Child, Probe, Restart, ShutdownPlan, Supervisor } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Fiber, Layer, References, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { brief, childOf, event, kill, nameOf, names, pidOf, sh, soon } from "../support/Children.ts"
import { identify } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import { assertNoneLiving } from "../support/Trees.ts"

const platform = Layer.mergeAll(PosixPlatform.layer, Layer.succeed(References.MinimumLogLevel, "None"))

/** Says `NAME-up`, and, `pause` seconds after it was asked to end, `NAME-down`. */
const polite = (name: string, scratch: Scratch.Scratch, policies: Child.Policies = {}, pause = 0) =>
  Child.make(name, {
    command: sh(
      `trap 'sleep ${pause}; echo "${name}-down $$" >>"$1"; kill $!; exit 0' TERM; echo "${name}-up $$" >>"$1"; echo up; sleep 60 & wait`,
      scratch.report
    ),
    readiness: Probe.line("up"),
    ...policies
  })

const reportOf = (scratch: Scratch.Scratch) => scratch.reported().map(({ name }) => name)

layer(platform, { excludeTestServices: true })("a supervisor", (it) => {
  it.effect("P28: a child that keeps failing leaves the others as they are", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const supervisor = yield* Supervisor.start([
        polite("good", scratch),
        Child.make("bad", { command: sh("exit 1"), restart: Restart.permanent({ backoff: soon({ times: 5 }) }) })
      ], { intensity: { max: 10, within: "1 minute" } })
      const good = yield* childOf(supervisor, "good")
      const pid = yield* pidOf(good, 1)
      const bad = yield* childOf(supervisor, "bad")
      yield* event(bad, "Failed")
      assert.strictEqual((yield* bad.status).incarnation, 6)
      assert.isDefined(identify(pid))
      assert.deepStrictEqual(yield* names(good, "Ready"), ["Starting", "Running", "Ready"])
      assert.strictEqual((yield* supervisor.status).phase, "running")
      yield* supervisor.stopAll
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 76: an exit loop: as many restarts as allowed, then all are stopped and the failure has its causes", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const supervisor = yield* Supervisor.start([
        polite("good", scratch),
        Child.make("bad", {
          command: sh("echo \"bad $$\" >>\"$1\"; exit 9", scratch.report),
          restart: Restart.permanent({ backoff: soon() }),
          dependsOn: ["good"]
        })
      ], { intensity: { max: 3, within: "1 minute" } })
      const error = yield* Effect.flip(supervisor.awaitEnd)
      assert.strictEqual(error._tag, "IntensityExceeded")
      assert.strictEqual(error.child, "bad")
      assert.deepStrictEqual(error.causes, [{ child: "bad", incarnation: 4, reason: "exited with code 9" }])
      assert.strictEqual(reportOf(scratch).filter((name) => name === "bad").length, 4)
      assert.deepStrictEqual(reportOf(scratch).at(-1), "good-down")
      const { children, phase } = yield* supervisor.status
      assert.strictEqual(phase, "ended")
      assert.deepStrictEqual(children.map(({ state }) => state._tag), ["Stopped", "Stopped"])
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 79: a program that is missing counts like a crash", () =>
    Effect.gen(function*() {
      const supervisor = yield* Supervisor.start([
        Child.make("missing", {
          command: ChildProcess.make("treeline-no-such-program"),
          restart: Restart.permanent({ backoff: soon() })
        })
      ], { intensity: { max: 2, within: "1 minute" } })
      const error = yield* Effect.flip(supervisor.awaitEnd)
      assert.strictEqual(error.causes[0]?.incarnation, 3)
      assert.match(error.message, /did not start: .*treeline-no-such-program.*NotFound/)
    }))

  it.effect("a reader of events that comes late is told how it began", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const supervisor = yield* Supervisor.start([polite("db", scratch), polite("web", scratch, { dependsOn: ["db"] })])
      yield* supervisor.awaitReady
      const began = yield* supervisor.events.pipe(
        Stream.map((event) => event._tag === "Child" ? `${event.event.child} ${nameOf(event.event)}` : event._tag),
        Stream.takeUntil((name) => name === "web Ready"),
        Stream.runCollect
      )
      assert.deepStrictEqual(began, [
        "db Starting",
        "web Waiting",
        "db Running",
        "db Ready",
        "web Starting",
        "web Running",
        "web Ready"
      ])
    }))

  it.effect("rest_for_one: those after the one that fell are stopped in reverse and started in order; the first stays", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const restart = Restart.permanent({ backoff: soon() })
      const supervisor = yield* Supervisor.start(
        ["a", "b", "c", "d"].map((name) => polite(name, scratch, { restart }, name === "d" ? 0.2 : 0)),
        { strategy: "rest_for_one", order: "sequence" }
      )
      yield* supervisor.awaitReady
      yield* kill(yield* pidOf(yield* childOf(supervisor, "b"), 1), "SIGKILL")
      yield* event(yield* childOf(supervisor, "d"), "Ready", 2)
      assert.deepStrictEqual(reportOf(scratch), [
        "a-up",
        "b-up",
        "c-up",
        "d-up",
        "d-down",
        "c-down",
        "b-up",
        "c-up",
        "d-up"
      ])
      assert.strictEqual((yield* supervisor.status).restartsInWindow, 1)
    }))

  it.effect("rest_for_one: the last one backs off by itself", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const supervisor = yield* Supervisor.start([
        polite("a", scratch),
        polite("b", scratch, { restart: Restart.permanent({ backoff: soon() }) })
      ], { strategy: "rest_for_one" })
      yield* supervisor.awaitReady
      const last = yield* childOf(supervisor, "b")
      yield* kill(yield* pidOf(last, 1), "SIGKILL")
      const all = yield* names(last, "Ready", { in: 2 })
      assert.deepStrictEqual(all.slice(-4), ["BackingOff", "Starting", "Running", "Ready"])
      assert.deepStrictEqual(reportOf(scratch).toSorted(), ["a-up", "b-up", "b-up"])
    }))

  it.effect("peer 31: the children of an inner supervisor end before those that it depends on, each once", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const scope = yield* Scope.make()
      const inner = Supervisor.child("inner", [
        polite("db", scratch),
        polite("web", scratch, { dependsOn: ["db"] })
      ], { dependsOn: ["base"] })
      const supervisor = yield* Scope.provide(Supervisor.start([polite("base", scratch), inner]), scope)
      yield* supervisor.awaitReady
      const [base, nested] = (yield* supervisor.status).children
      assert.strictEqual(base?.state._tag, "Ready")
      assert.deepStrictEqual(nested?.children.map(({ id, state }) => `${id} ${state._tag}`), ["db Ready", "web Ready"])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(reportOf(scratch), ["base-up", "db-up", "web-up", "web-down", "db-down", "base-down"])
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 85: failures go up with their causes, and restarts are bounded by the product of the intensities", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const restart = Restart.permanent({ backoff: soon() })
      const inner = Supervisor.child("inner", [
        Child.make("bad", { command: sh("echo \"bad $$\" >>\"$1\"; exit 9", scratch.report), restart })
      ], { intensity: { max: 2, within: "1 minute" }, restart })
      const supervisor = yield* Supervisor.start([polite("good", scratch), inner], {
        intensity: { max: 1, within: "1 minute" }
      })
      const error = yield* Effect.flip(supervisor.awaitEnd)
      assert.deepStrictEqual(error.causes.map(({ child, incarnation }) => `${child} ${incarnation}`), [
        "bad 3",
        "inner 2"
      ])
      assert.match(error.causes[0]!.reason, /code 9/)
      assert.strictEqual(reportOf(scratch).filter((name) => name === "bad").length, (2 + 1) * (1 + 1))
      yield* assertNoneLiving(scratch)
    }))

  it.effect("P35: removing a child that ignores everything is bounded by its plan, and the others stay", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const supervisor = yield* Supervisor.start([
        polite("good", scratch),
        Child.make("stubborn", {
          command: sh("trap '' TERM INT HUP; echo \"stubborn $$\" >>\"$1\"; echo up; sleep 60", scratch.report),
          readiness: Probe.line("up"),
          shutdown: brief
        })
      ])
      yield* supervisor.awaitReady
      const stubborn = yield* childOf(supervisor, "stubborn")
      const removing = yield* Effect.forkChild(supervisor.removeChild("stubborn"), { startImmediately: true })
      yield* event(stubborn, "Stopping")
      const { blocking } = yield* supervisor.status
      assert.deepStrictEqual(blocking.map(({ child }) => child), ["stubborn"])
      yield* Fiber.join(removing)
      assert.deepStrictEqual(scratch.living().map(({ name }) => name), ["good-up"])
      assert.deepStrictEqual((yield* supervisor.children).map(({ id }) => id), ["good"])
      assert.strictEqual((yield* Effect.flip(supervisor.child("stubborn")))._tag, "UnknownChild")
    }))
})

layer(platform, { excludeTestServices: true })("many at once", (it) => {
  /** Children that are killed in one instant; how their restarts are spread, and how the event loop bears it. */
  const storm = Effect.fn(function*(count: number) {
    const first = 400
    const delay = monitorEventLoopDelay({ resolution: 5 })
    const supervisor = yield* Supervisor.start(
      Array.from({ length: count }, (_, index) =>
        Child.make(`c${index}`, {
          command: ChildProcess.make("sleep", ["60"]),
          restart: Restart.permanent({ backoff: Restart.exponential({ first, jitter: 0.2 }) }),
          shutdown: ShutdownPlan.kill
        })),
      { intensity: { max: count, within: "1 minute" } }
    )
    yield* supervisor.awaitReady
    const children = yield* Effect.forEach(
      Array.from({ length: count }, (_, index) => `c${index}`),
      (id) => childOf(supervisor, id)
    )
    const pids = yield* Effect.forEach(children, (child) => pidOf(child, 1))
    delay.enable()
    for (const pid of pids) process.kill(pid, "SIGKILL")
    const later = yield* Effect.forEach(children, (child) => pidOf(child, 2), { concurrency: "unbounded" })
    delay.disable()
    assert.strictEqual(new Set(later).size, count)
    for (const pid of later) assert.isDefined(identify(pid))
    // What each child was told to wait, and when it began again.
    const waits: Array<number> = []
    const starts: Array<number> = []
    for (const child of children) {
      const { at, change } = yield* event(child, "BackingOff")
      assert(change._tag === "State" && change.to._tag === "BackingOff")
      waits.push(change.to.until - at)
      starts.push((yield* event(child, "Starting", 2)).at)
    }
    for (const wait of waits) assert.isTrue(wait >= first * 0.8 - 2 && wait <= first * 1.2 + 2, `${wait} ms`)
    const spread = (times: ReadonlyArray<number>) => Math.max(...times) - Math.min(...times)
    const p99 = delay.percentile(99) / 1e6
    console.log(
      `${count} restarts: waits spread over ${spread(waits)} ms, starts over ${spread(starts)} ms, ` +
        `event-loop delay p99 ${p99.toFixed(1)} ms, max ${(delay.max / 1e6).toFixed(1)} ms`
    )
    assert.isAbove(spread(waits), first * 0.2)
    assert.isAbove(spread(starts), first * 0.2)
    yield* supervisor.stopAll
    for (const pid of later) assert.isUndefined(identify(pid))
    return p99
  }, Effect.scoped)

  it.effect("peer 86: 50 children that share a cause are spread by jitter, and the event loop goes on", () =>
    Effect.gen(function*() {
      assert.isBelow(yield* storm(50), 500)
    }))

  it.effect("peer 86: 200 real children crash together: all back, spread by jitter", () =>
    Effect.gen(function*() {
      assert.isBelow(yield* storm(200), 2_000)
    }))
})
