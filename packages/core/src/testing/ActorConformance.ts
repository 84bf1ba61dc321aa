/**
 * The behaviours of supervised children, as a suite that any platform can be held against; see `Conformance`, whose
 * programs and capabilities it takes.
 */
import { assert, describe, layer as withLayer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Child from "../Child.ts"
import type { ChildSpec } from "../ChildSpec.ts"
import type { ChildStatus } from "../ChildStatus.ts"
import * as Containment from "../Containment.ts"
import * as ExitStatus from "../ExitStatus.ts"
import * as Probe from "../Probe.ts"
import type { ProcessPlatform } from "../ProcessPlatform.ts"
import * as Restart from "../Restart.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import * as Supervisor from "../Supervisor.ts"
import type { Capabilities } from "./Conformance.ts"
import { elapsed, needing, pidsOf, quickly } from "./internal/Suite.ts"

const backoff = Restart.exponential({ first: "20 millis", factor: 1, jitter: 0 })
const permanent = Restart.permanent({ backoff })
const temporary = Restart.temporary()

/** Waits until the child is as `test` wants it. */
const until = (child: Child.Child, test: (status: ChildStatus) => boolean) =>
  Effect.andThen(
    Stream.runForEachWhile(child.events, () => Effect.map(child.status, (status) => !test(status))),
    child.status
  )

/** The pids that the given incarnation reports. */
const reported = (child: Child.Child, incarnation: number) =>
  pidsOf(child.output.pipe(
    Stream.filter((chunk) => chunk.incarnation === incarnation && chunk.stream === "stdout"),
    Stream.map(({ bytes }) => bytes)
  ))

/** The states that the child has been in since its start. */
const path = (child: Child.Child, last: string) =>
  Effect.gen(function*() {
    const tags: Array<string> = []
    yield* Stream.runForEachWhile(child.events, ({ change }) =>
      Effect.sync(() => {
        if (change._tag === "State" && change.from._tag !== change.to._tag) tags.push(change.to._tag)
        return tags.at(-1) !== last
      }))
    return tags
  })

/**
 * Registers the suite.
 *
 * @example
 * ```ts
 * import type { ProcessPlatform } from "@treeline/core"
 * import { ActorConformance, type Conformance } from "@treeline/core/testing"
 * import type { Layer } from "effect"
 *
 * export const holdAgainst = (
 *   layer: Layer.Layer<ProcessPlatform.ProcessPlatform>,
 *   capabilities: Conformance.Capabilities
 * ) => ActorConformance.suite("my platform", layer, capabilities)
 * ```
 */
export const suite = <R = never>(
  name: string,
  layer: Layer.Layer<ProcessPlatform | R>,
  capabilities: Capabilities<R>
): void => {
  const { programs, time = "real" } = capabilities

  const alive = (pids: ReadonlyArray<number>) => Effect.filter(pids, capabilities.isAlive)

  const assertGone = (pids: ReadonlyArray<number>) =>
    Effect.map(alive(pids), (left) => assert.deepStrictEqual(left, [], "has ended"))

  /** What a broken actor leaves is ended with the test. */
  const cleaned = (pids: ReadonlyArray<number>) =>
    Effect.addFinalizer(() => Effect.flatMap(alive(pids), (left) => Effect.forEach(left, capabilities.kill)))

  const spec = (id: string, command: ChildProcess.StandardCommand, policies: Omit<Child.Options, "command"> = {}) =>
    Child.make(id, { command, restart: permanent, shutdown: quickly, ...policies })

  /** A child that reports its pids and is ready then. */
  const reporting = (
    id: string,
    command: ChildProcess.StandardCommand = programs.sleeper,
    policies: Omit<Child.Options, "command"> = {}
  ) => spec(id, command, { readiness: Probe.line(/^pids /), ...policies })

  const pidsAt = Effect.fnUntraced(function*(child: Child.Child, incarnation: number) {
    yield* until(child, (status) => status.state._tag === "Ready" && status.incarnation === incarnation)
    const pids = yield* reported(child, incarnation)
    yield* cleaned(pids)
    return pids
  })

  const supervise = Effect.fnUntraced(function*(
    children: ReadonlyArray<ChildSpec<ProcessPlatform>>,
    options: Supervisor.Options = {}
  ) {
    const supervisor = yield* Supervisor.start(children, options)
    yield* supervisor.awaitReady
    const pids = yield* Effect.forEach(
      children,
      ({ id }) => Effect.flatMap(supervisor.child(id), (child) => pidsAt(child, 1))
    )
    return { supervisor, pids }
  })

  /** The incarnation of each child when all of them are ready and `id` is in its second one. */
  const afterCrash = Effect.fnUntraced(function*(supervisor: Supervisor.Supervisor, id: string) {
    const child = yield* supervisor.child(id)
    yield* until(child, (status) => status.state._tag === "Ready" && status.incarnation === 2)
    yield* supervisor.awaitReady
    return (yield* supervisor.children).map(({ incarnation }) => incarnation)
  })

  // oxlint-disable-next-line vitest/valid-title -- the title is the caller's
  describe(name, () => {
    withLayer(layer, { excludeTestServices: time === "real" })("actors", (tests) => {
      const needs = needing(tests, time)
      const it = { effect: needs(true, "") }

      it.effect("a child goes from start to stop through every state, and its whole tree with it", () =>
        Effect.gen(function*() {
          const child = yield* Child.start(reporting("worker", programs.generations))
          const pids = yield* pidsAt(child, 1)
          yield* child.stop()
          yield* assertGone(pids)
          assert.deepStrictEqual(yield* path(child, "Stopped"), [
            "Starting",
            "Running",
            "Ready",
            "Stopping",
            "Stopped"
          ])
          assert.deepStrictEqual((yield* child.status).state, { _tag: "Stopped", end: null })
        }))

      it.effect("peer 5: after a crash the leftovers are gone before the next incarnation", () =>
        Effect.gen(function*() {
          const child = yield* Child.start(reporting("worker", programs.generations))
          const pids = yield* pidsAt(child, 1)
          yield* capabilities.kill(pids[0]!)
          const next = yield* pidsAt(child, 2)
          yield* assertGone(pids)
          assert.deepStrictEqual(yield* alive(next), next)
          assert.strictEqual((yield* child.status).restarts, 1)
        }))

      needs(
        capabilities.escapes && Containment.atLeast(capabilities.level, "marked"),
        "what escapes is not found here"
      )(
        "peer 15: and so is what has escaped",
        () =>
          Effect.gen(function*() {
            const child = yield* Child.start(reporting("worker", programs.escapes("daemon")))
            const pids = yield* pidsAt(child, 1)
            yield* capabilities.kill(pids[0]!)
            yield* pidsAt(child, 2)
            yield* assertGone(pids)
          })
      )

      for (
        const [mode, code, outcome] of [
          ["transient", 0, "Stopped"],
          ["transient", 3, "Stopped"],
          ["transient", 1, "restart"],
          ["transient", 125, "Failed"],
          ["temporary", 0, "Stopped"],
          ["temporary", 1, "Failed"],
          ["permanent", 0, "restart"],
          ["permanent", 125, "Failed"]
        ] as const
      ) {
        it.effect(`peer 80, peer 81: ${mode}, code ${code}: ${outcome}`, () =>
          Effect.gen(function*() {
            const restart = { ...permanent, mode, successCodes: [0, 3], permanentFailureCodes: [125] }
            const child = yield* Child.start(spec("worker", programs.exit(code), { restart }))
            const { lastEnd } = yield* until(child, ({ incarnation, state }) =>
              outcome === "restart" ? incarnation === 3 : state._tag === outcome)
            assert.deepStrictEqual(lastEnd, { _tag: "Exited", status: ExitStatus.exited(code) })
          }))
      }

      needs(capabilities.signals, "the platform has no signals of POSIX")(
        "peer 80: a death by signal is a failure",
        () =>
          Effect.gen(function*() {
            const child = yield* Child.start(spec("worker", programs.signalSelf("SIGTERM"), { restart: temporary }))
            const { state } = yield* until(child, ({ state }) => state._tag === "Failed")
            assert.include(state._tag === "Failed" ? state.error.reason : "", "SIGTERM")
          })
      )

      it.effect("peer 79, peer 81: a launch that fails counts like a crash", () =>
        Effect.gen(function*() {
          const restart = Restart.permanent({ backoff: Restart.exponential({ first: 10, jitter: 0, times: 2 }) })
          const child = yield* Child.start(spec("worker", programs.missing, { restart }))
          const state = yield* child.awaitEnd
          assert.match(state._tag === "Failed" ? state.error.reason : "", /did not start.*2 times in a row/)
          const { incarnation, lastEnd } = yield* child.status
          assert.deepStrictEqual([incarnation, lastEnd?._tag], [3, "StartFailed"])
        }))

      it.effect("P51: an exit before readiness is an exit, with its code", () =>
        Effect.gen(function*() {
          const restart = Restart.permanent({ backoff, permanentFailureCodes: [125] })
          const child = yield* Child.start(reporting("worker", programs.exit(125), { restart }))
          assert.strictEqual((yield* child.awaitEnd)._tag, "Failed")
          const { incarnation, lastEnd } = yield* child.status
          assert.deepStrictEqual([incarnation, lastEnd?._tag], [1, "Exited"])
        }))

      it.effect("peer 87: a readiness that was announced just before the end is seen before it", () =>
        Effect.gen(function*() {
          const child = yield* Child.start(
            spec("worker", programs.echo("pids\n"), { readiness: Probe.line("pids"), restart: temporary })
          )
          assert.deepStrictEqual(yield* path(child, "Stopped"), [
            "Starting",
            "Running",
            "Ready",
            "Stopping",
            "Stopped"
          ])
        }))

      it.effect("peer 90: what is not ready in time is torn down and has failed to start", () =>
        Effect.gen(function*() {
          const readiness = Probe.readiness(Probe.line("never"), { within: capabilities.reportsWithin ?? 300 })
          const child = yield* Child.start(
            spec("worker", programs.generations, { readiness, restart: temporary })
          )
          const pids = yield* reported(child, 1)
          yield* cleaned(pids)
          assert.strictEqual((yield* child.awaitEnd)._tag, "Failed")
          assert.strictEqual((yield* child.status).lastEnd?._tag, "NotReady")
          yield* assertGone(pids)
        }))

      it.effect("peer 71: a stop during the backoff ends at once, and nothing comes later", () =>
        Effect.gen(function*() {
          const restart = Restart.permanent({ backoff: Restart.exponential({ first: "150 millis", jitter: 0 }) })
          const child = yield* Child.start(spec("worker", programs.exit(1), { restart }))
          yield* until(child, ({ state }) => state._tag === "BackingOff")
          yield* child.stop()
          yield* Effect.sleep("300 millis")
          const { incarnation, state } = yield* child.status
          assert.deepStrictEqual([incarnation, state._tag], [1, "Stopped"])
        }))

      it.effect("peer 73, peer 74: restarts at the same time make one incarnation, and a stop beats them", () =>
        Effect.gen(function*() {
          const child = yield* Child.start(reporting("worker"))
          const first = yield* pidsAt(child, 1)
          const numbers = yield* Effect.all([child.restart, child.restart, child.restart], {
            concurrency: "unbounded"
          })
          assert.deepStrictEqual(numbers, [2, 2, 2])
          yield* assertGone(first)
          const second = yield* pidsAt(child, 2)
          const restarting = yield* Effect.forkChild(Effect.exit(child.restart), { startImmediately: true })
          yield* child.stop()
          yield* Fiber.await(restarting)
          yield* assertGone(second)
          yield* Effect.sleep("100 millis")
          assert.strictEqual((yield* child.status).state._tag, "Stopped")
        }))

      it.effect("peer 26: a stubborn child is killed after its grace, sooner by a second stop", () =>
        Effect.gen(function*() {
          const shutdown = ShutdownPlan.terminate({ within: "1 minute" })
          const child = yield* Child.start(reporting("worker", programs.stubborn, { shutdown }))
          const pids = yield* pidsAt(child, 1)
          const stopping = yield* Effect.forkChild(child.stop(), { startImmediately: true })
          yield* until(child, ({ state }) => state._tag === "Stopping")
          yield* child.stop(ShutdownPlan.kill)
          yield* Fiber.join(stopping)
          yield* assertGone(pids)
        }))

      it.effect("P43: what is written reaches the child, and its output is there over incarnations", () =>
        Effect.gen(function*() {
          const child = yield* Child.start(spec("worker", programs.cat))
          for (const incarnation of [1, 2]) {
            yield* until(child, (status) => status.state._tag === "Ready" && status.incarnation === incarnation)
            yield* child.write(`pids ${incarnation}\n`)
            assert.deepStrictEqual(yield* reported(child, incarnation), [incarnation])
            if (incarnation === 1) yield* child.restart
          }
        }))

      it.effect("K3: paused, a child that crashes stays down until it is resumed", () =>
        Effect.gen(function*() {
          const child = yield* Child.start(reporting("worker"))
          const pids = yield* pidsAt(child, 1)
          yield* child.pause
          yield* capabilities.kill(pids[0]!)
          const { state } = yield* until(child, ({ state }) => state._tag === "Waiting")
          assert.deepStrictEqual(state, { _tag: "Waiting", on: ["resume"] })
          yield* child.resume
          yield* pidsAt(child, 2)
        }))

      it.effect("peer 93, peer 94: a liveness probe that fails so often restarts the child, once", () =>
        Effect.gen(function*() {
          let attempts = 0
          const probe = Probe.effect("flaky", Effect.suspend(() => ++attempts <= 2 ? Effect.fail("down") : Effect.void))
          const liveness = Probe.liveness(probe, { interval: "20 millis", failureThreshold: 2 })
          const child = yield* Child.start(reporting("worker", programs.sleeper, { liveness }))
          const { lastEnd, restarts } = yield* until(
            child,
            ({ health, incarnation }) => incarnation === 2 && health === "healthy"
          )
          assert.deepStrictEqual([restarts, lastEnd?._tag], [1, "Unhealthy"])
          const missing = Probe.liveness(Probe.exec(programs.missing), { interval: "20 millis", failureThreshold: 1 })
          const other = yield* Child.start(spec("other", programs.sleeper, { liveness: missing, restart: temporary }))
          const end = yield* other.awaitEnd
          assert.include(end._tag === "Failed" ? end.error.reason : "", "CommandMissing")
        }))

      for (
        const [strategy, expected] of [
          ["one_for_one", [1, 2, 1]],
          ["one_for_all", [2, 2, 2]],
          ["rest_for_one", [1, 2, 2]]
        ] as const
      ) {
        it.effect(`peer 82: ${strategy}`, () =>
          Effect.gen(function*() {
            const { pids, supervisor } = yield* supervise(["a", "b", "c"].map((id) => reporting(id)), { strategy })
            yield* capabilities.kill(pids[1]![0]!)
            assert.deepStrictEqual(yield* afterCrash(supervisor, "b"), [...expected])
            const replaced = pids.filter((_, index) => expected[index] === 2).flat()
            yield* assertGone(replaced)
            assert.deepStrictEqual(yield* alive(pids.flat()), pids.flat().filter((pid) => !replaced.includes(pid)))
          }))
      }

      it.effect("peer 76: more restarts than allowed end the supervisor and all its children", () =>
        Effect.gen(function*() {
          const { pids, supervisor } = yield* supervise([reporting("a")], { intensity: { max: 2, within: "1 minute" } })
          yield* supervisor.startChild(spec("loop", programs.exit(1)))
          const error = yield* Effect.flip(supervisor.awaitEnd)
          assert.deepStrictEqual(error.causes, [{ child: "loop", incarnation: 3, reason: "exited with code 1" }])
          yield* assertGone(pids.flat())
        }))

      it.effect("what depends on others starts after them and stops before them", () =>
        Effect.gen(function*() {
          const log: Array<string> = []
          const { pids, supervisor } = yield* supervise([
            reporting("web", programs.sleeper, { dependsOn: ["db"] }),
            reporting("db")
          ], {
            onEvent: (event) => {
              if (event._tag !== "Child" || event.event.change._tag !== "State") return
              const { from, to } = event.event.change
              if (from._tag !== to._tag) log.push(`${event.event.child} ${to._tag}`)
            }
          })
          yield* supervisor.stopAll
          yield* assertGone(pids.flat())
          assert.deepStrictEqual(
            log.filter((line) => /Starting|Ready|Stopped/.test(line)),
            ["db Starting", "db Ready", "web Starting", "web Ready", "web Stopped", "db Stopped"]
          )
        }))

      it.effect("peer 30: independent stubborn children end together", () =>
        Effect.gen(function*() {
          const shutdown = ShutdownPlan.terminate({ within: "1 second" })
          const { pids, supervisor } = yield* supervise(
            ["a", "b", "c", "d", "e"].map((id) => reporting(id, programs.stubborn, { shutdown }))
          )
          assert.isBelow(yield* elapsed(supervisor.stopAll), 4_500, "one grace, not five")
          yield* assertGone(pids.flat())
        }))

      it.effect("P22: the end of the scope ends nested supervisors and dynamic children too", () =>
        Effect.gen(function*() {
          const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
          const supervisor = yield* Scope.provide(
            Supervisor.start([Supervisor.child("inner", [spec("leaf", programs.sleeper)])]),
            scope
          )
          yield* supervisor.awaitReady
          const leaf = (yield* supervisor.children)[0]!.children[0]!.state
          const dynamic = yield* supervisor.startChild(reporting("dynamic"))
          const pids = [...yield* pidsAt(dynamic, 1), "pid" in leaf ? leaf.pid! : 0]
          yield* cleaned(pids)
          assert.deepStrictEqual(yield* alive(pids), pids)
          yield* Scope.close(scope, Exit.void)
          yield* assertGone(pids)
          assert.strictEqual((yield* Effect.flip(dynamic.start))._tag, "ChildClosed")
        }))
    })
  })
}
