import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { type Engine, ExitStatus, ProcessPlatform, ShutdownPlan, Spawner } from "@treeline/core"
import { PortableEngine, PosixPlatform } from "@treeline/platform-posix"
import { Cause, Effect, Exit, Fiber, Layer, Logger, Option, Scope, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as child_process from "node:child_process"
import childProcessModule from "node:child_process"
import { once } from "node:events"
import { syncBuiltinESMExports } from "node:module"
import { vi } from "vitest"
import * as Signals from "../../packages/platform-posix/src/internal/Signals.ts"
import { posixPrograms } from "../fixtures/posixPrograms.ts"
import { eventually, stays } from "../support/Eventually.ts"
import { isNative } from "../support/Host.ts"
import { isAlive, killIfAlive, stateOf } from "../support/Processes.ts"
import { program } from "../support/Programs.ts"
import * as Scratch from "../support/Scratch.ts"
import {
  assertNoneLiving,
  commandOf,
  launch,
  type NodeEnd,
  nodeLeavesSomething,
  role,
  type Running,
  script,
  type Shape
} from "../support/Trees.ts"

const platformAndSpawner = Layer.provideMerge(Spawner.layer, PosixPlatform.layer)

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const startedAt = performance.now()
    return Effect.map(effect, () => performance.now() - startedAt)
  })

const grace = (within: string | number): ShutdownPlan.ShutdownPlan =>
  ShutdownPlan.terminate({ within: within as `${number} millis` })

/** A process of the leader's group that ignores what asks it to end; the leader obeys. */
const stubbornChild = script(
  "sh -c 'trap \"\" TERM HUP; echo \"child $$\" >>\"$1\"; exec sleep 60' sh \"$1\" & echo \"leader $$\" >>\"$1\"; wait",
  2
)

/** 200 processes, one after another as fast as they can be started. */
const storm = script(
  "echo \"leader $$\" >>\"$1\"; i=0; while [ $i -lt 200 ]; do sh -c 'echo \"f $$\" >>\"$1\"; exec sleep 60' sh \"$1\" & i=$((i + 1)); done; wait",
  20
)

/** A tree, what happens to it before its end, and how child_process leaves something of it. */
interface Case {
  readonly name: string
  readonly shape: Shape
  readonly before?: (running: Running) => Effect.Effect<unknown>
  readonly control: NodeEnd
  readonly repeats?: number
  readonly plan?: ShutdownPlan.ShutdownPlan
}

const cases: ReadonlyArray<Case> = [
  { name: "peer 1, P1: leader, child and grandchild", shape: role("grandchild", 3), control: "SIGTERM" },
  {
    name: "peer 2: a shell that waits for its server",
    shape: script("sh \"$2\" leaf \"$1\" & echo \"shell $$\" >>\"$1\"; wait", 2),
    control: "SIGTERM"
  },
  { name: "peer 3: a leader that obeys with a child that does not", shape: stubbornChild, control: "SIGTERM" },
  {
    name: "peer 4: a leader that ended with code 0",
    shape: role("gone", 3),
    before: ({ tree }) => tree.exited,
    control: "none"
  },
  {
    name: "peer 5: a leader that a stranger killed",
    shape: role("grandchild", 3),
    before: ({ tree }) => {
      process.kill(tree.pid, "SIGKILL")
      return Effect.map(tree.exited, (status) => assert.isTrue(ExitStatus.isSignaledBy(status, "SIGKILL")))
    },
    control: "SIGKILL"
  },
  {
    name: "peer 6: a leader that failed",
    shape: role("failed", 3),
    before: ({ tree }) => tree.exited,
    control: "none"
  },
  {
    name: "peer 8: a stopped tree",
    shape: role("stopped", 2),
    before: ({ reported }) =>
      Effect.forEach(reported, ({ pid }) => eventually(`${pid} is stopped`, () => stateOf(pid) === "T")),
    control: "SIGTERM"
  },
  { name: "peer 12: a fork storm, asked to end", shape: storm, control: "SIGTERM", repeats: 5 },
  { name: "peer 12: a fork storm, killed", shape: storm, control: "SIGKILL", repeats: 5, plan: ShutdownPlan.kill },
  {
    name: "peer 12: each process starts the next in a session of its own and ends",
    shape: role("forker", 10),
    control: "SIGKILL",
    plan: ShutdownPlan.kill
  },
  { name: "peer 13: groups of a job-control shell", shape: role("jobs", 3), control: "SIGTERM" },
  { name: "peer 14: a grandchild in a session of its own", shape: role("session", 3), control: "SIGTERM" },
  { name: "peer 15: a double-fork daemon", shape: role("daemon", 2), control: "SIGTERM" },
  {
    name: "peer 15, 18: a double-fork daemon that cleared its environment",
    shape: role("cleared", 2),
    control: "SIGTERM"
  },
  { name: "a tree of 20 children", shape: role("wide", 21), control: "SIGTERM" },
  { name: "a tree that answers SIGTERM with new processes", shape: role("respawner", 1, 3), control: "SIGTERM" },
  {
    name: "P9: a grandchild that ignores SIGHUP and SIGTERM",
    shape: script(
      "sh -c 'sh -c '\\''trap \"\" TERM HUP; echo \"leaf $$\" >>\"$1\"; exec sleep 60'\\'' sh \"$1\" & wait' sh \"$1\" & echo \"leader $$\" >>\"$1\"; wait",
      2
    ),
    control: "SIGTERM"
  },
  { name: "P19: a leader and child that ignore SIGTERM", shape: role("stubborn", 2), control: "SIGTERM" }
]

layer(platformAndSpawner, { excludeTestServices: true })("a whole tree ends with its scope", (it) => {
  for (const { before, control, name, plan, repeats = 1, shape } of cases) {
    it.effect(`${name}${repeats > 1 ? `, ${repeats} times` : ""}`, () =>
      Effect.gen(function*() {
        for (let run = 0; run < repeats; run++) {
          yield* Effect.scoped(Effect.gen(function*() {
            const scratch = yield* Scratch.make
            const running = yield* launch(shape, scratch, { shutdown: plan ?? grace("300 millis") })
            yield* before?.(running) ?? Effect.void
            assert.isAbove(scratch.living().length, 0)
            yield* running.close
            yield* assertNoneLiving(scratch)
            assert.deepStrictEqual(yield* running.tree.empty, [])
          }))
        }
      }))

    it.effect(`control: child_process leaves something of: ${name}`, () =>
      Effect.gen(function*() {
        yield* nodeLeavesSomething(shape, yield* Scratch.make, control)
      }))
  }
})

layer(platformAndSpawner, { excludeTestServices: true })("stops", (it) => {
  it.effect("peer 3: the kill comes after the grace and the stop returns only then", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { tree } = yield* launch(stubbornChild, scratch, { shutdown: grace("1 second") })
      const child = yield* scratch.awaitNamed("child")
      const stopping = yield* Effect.forkChild(elapsed(tree.shutdown()), { startImmediately: true })
      yield* tree.exited
      yield* stays("the child lives during its grace", () => isAlive(child), 150)
      assert.isAtLeast(yield* Fiber.join(stopping), 999)
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 5, peer 6: one exit, and what is left is ended at once where the caller wants it", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { tree } = yield* launch(role("failed", 3), scratch, {
        whenLeaderEnds: "endIfFailed",
        shutdown: grace("300 millis")
      })
      const [first, second] = yield* Effect.all([tree.exited, tree.exited], { concurrency: "unbounded" })
      assert.deepStrictEqual(first, ExitStatus.exited(3))
      assert.strictEqual(first, second, "one and the same event")
      assert.deepStrictEqual(yield* tree.empty, [])
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 7: a close is bounded by default: 5 s, then the kill", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { close } = yield* launch(role("stubborn", 2), scratch)
      const took = yield* elapsed(close)
      assert.isAtLeast(took, 4_990)
      assert.isBelow(took, 6_500)
      yield* assertNoneLiving(scratch)
    }), 20_000)

  it.effect("control for peer 7: Effect's own layer still waits for what ignores SIGTERM", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const scope = yield* Scope.make()
      yield* Scope.provide(commandOf(role("stubborn", 2), scratch).pipe(Effect.provide(NodeServices.layer)), scope)
      yield* scratch.awaitReported(2)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* stays("both live", () => scratch.living().length === 2, 500)
      assert.isUndefined(closing.pollUnsafe())
      scratch.killLiving()
      yield* Fiber.join(closing)
    }))

  it.effect("P8, P41: a running process is gone in less than a second", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { tree } = yield* launch(role("plain", 1), scratch)
      assert.isBelow(yield* elapsed(tree.shutdown()), 1_000)
      assert.isTrue(ExitStatus.isSignaledBy(yield* tree.exited, "SIGTERM"))
      yield* assertNoneLiving(scratch)
    }))

  it.effect("P11: the grace is honoured although nobody waits for the leader", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { tree } = yield* launch(role("stubborn", 2), scratch)
      const stopping = yield* Effect.forkChild(tree.shutdown(grace("250 millis")), { startImmediately: true })
      yield* Fiber.interrupt(stopping)
      const living = scratch.living()
      yield* stays("both live during the grace", () => living.every(isAlive), 150)
      // Nobody waits, the caller was interrupted, and the teardown goes on.
      yield* scratch.awaitNoneLiving(3_000)
    }))

  it.effect("P20: a timeout ends the command and its tree", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
      const command = commandOf(stubbornChild, scratch, { forceKillAfter: "100 millis" })
      const waiting = yield* Effect.forkChild(Effect.exit(Effect.timeout(spawner.string(command), "300 millis")))
      yield* scratch.awaitReported(2)
      const exit = yield* Fiber.join(waiting)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasFails(exit.cause))
      yield* assertNoneLiving(scratch)
    }))

  it.effect("P14, P44: handle.kill, shutdown and the scope's close are one teardown", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const handle = yield* Scope.provide(
        posixPrograms.polite(4).pipe(Effect.provide(Spawner.layer.pipe(Layer.provide(PosixPlatform.layer)))),
        scope
      )
      const [tree] = Spawner.trees(handle)
      const lines = yield* Effect.forkChild(Stream.mkString(Stream.decodeText(handle.stdout)))
      yield* eventually("it has reported itself", () => Effect.runSync(tree!.stdout.bytes) > 0)
      yield* Effect.all([handle.kill(), tree!.shutdown(), Scope.close(scope, Exit.void), handle.kill()], {
        concurrency: "unbounded"
      })
      assert.strictEqual(yield* handle.exitCode, ChildProcessSpawner.ExitCode(4))
      assert.strictEqual((yield* Fiber.join(lines)).split("\n").filter((line) => line === "ended").length, 1)
    }))

  it.effect("peer 25: two stops send one SIGTERM", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { tree } = yield* launch(role("plain", 1), scratch)
      const kill = vi.spyOn(process, "kill")
      yield* Effect.addFinalizer(() => Effect.sync(() => kill.mockRestore()))
      yield* Effect.all([tree.shutdown(), tree.shutdown()], { concurrency: "unbounded" })
      const sent = kill.mock.calls.filter(([, signal]) => signal === "SIGTERM")
      assert.deepStrictEqual(sent, [[-tree.pid, "SIGTERM"]])
    }))

  it.effect("peer 26: a stop with a shorter grace moves the kill nearer, one with a longer grace does not", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { tree } = yield* launch(role("stubborn", 2), scratch)
      const both = Effect.all([
        tree.shutdown(grace("20 seconds")),
        tree.shutdown(grace("300 millis")),
        tree.shutdown(grace("10 seconds"))
      ], { concurrency: "unbounded" })
      const took = yield* elapsed(both)
      assert.isAtLeast(took, 299)
      assert.isBelow(took, 3_000)
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 27: nothing is sent after a natural end", () =>
    Effect.gen(function*() {
      const kill = vi.spyOn(process, "kill")
      yield* Effect.addFinalizer(() => Effect.sync(() => kill.mockRestore()))
      const platform = yield* ProcessPlatform.ProcessPlatform
      const scope = yield* Scope.make()
      const tree = yield* Scope.provide(platform.launch(ChildProcess.make("true")), scope)
      yield* tree.exited
      yield* tree.shutdown()
      yield* tree.signal("SIGTERM", "group")
      yield* tree.signal("SIGTERM", "leader")
      yield* tree.signal("SIGTERM", "tree")
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(kill.mock.calls, [])
    }))

  it.effect("peer 29: a stop reaches every stage of a pipeline", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const stage = commandOf(role("grandchild", 3), scratch)
      const pipeline = stage.pipe(ChildProcess.pipeTo(stage), ChildProcess.pipeTo(stage))
      const handle = yield* pipeline
      yield* scratch.awaitReported(9)
      yield* handle.kill()
      yield* assertNoneLiving(scratch)
      const { decides, stages } = yield* Spawner.pipeStatus(handle)
      assert.deepStrictEqual(stages.map(({ _tag }) => _tag), ["Signaled", "Signaled", "Signaled"])
      assert.strictEqual(decides, stages[0])
    }))

  it.effect("peer 30: 50 stubborn children share one grace", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const platform = yield* ProcessPlatform.ProcessPlatform
      const scope = yield* Scope.make()
      const one = script("trap '' TERM; echo \"child $$\" >>\"$1\"; exec sleep 60", 1)
      for (let child = 0; child < 50; child++) {
        yield* Scope.provide(platform.launch(commandOf(one, scratch), { shutdown: grace("400 millis") }), scope)
      }
      yield* scratch.awaitReported(50)
      const took = yield* elapsed(Scope.close(scope, Exit.void))
      yield* assertNoneLiving(scratch)
      assert.isAtLeast(took, 399)
      assert.isBelow(took, 2_000, "one grace, not 50")
    }))

  it.effect("peer 31: children of an inner scope end before those of the outer one, each once", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const platform = yield* ProcessPlatform.ProcessPlatform
      const says = (name: string) =>
        ChildProcess.make("sh", [
          "-c",
          "trap 'echo \"ended-$2 $$\" >>\"$1\"; exit 0' TERM; echo \"up-$2 $$\" >>\"$1\"; while :; do sleep 0.02; done",
          "sh",
          scratch.report,
          name
        ])
      yield* Effect.scoped(Effect.gen(function*() {
        yield* platform.launch(says("outer"))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* platform.launch(says("inner"))
          yield* scratch.awaitReported(2)
        }))
        assert.strictEqual(scratch.reported().at(-1)?.name, "ended-inner")
        assert.strictEqual(scratch.living().length, 1)
      }))
      assert.deepStrictEqual(scratch.reported().slice(2).map(({ name }) => name), ["ended-inner", "ended-outer"])
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 31: in one scope, a finalizer between two launches keeps its place", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const platform = yield* ProcessPlatform.ProcessPlatform
      const between: Array<number> = []
      yield* Effect.scoped(Effect.gen(function*() {
        const first = yield* platform.launch(commandOf(role("plain", 1), scratch))
        yield* scratch.awaitReported(1)
        yield* Effect.addFinalizer(() => Effect.sync(() => between.push(...scratch.living().map(({ pid }) => pid))))
        yield* platform.launch(commandOf(role("plain", 1), scratch))
        yield* scratch.awaitReported(2)
        return first
      }))
      assert.deepStrictEqual(between, [scratch.reported()[0]!.pid], "the second had ended, the first had not")
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 32: a second request while a close runs kills now", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { close, tree } = yield* launch(role("stubborn", 2), scratch, { shutdown: grace("20 seconds") })
      const closing = yield* Effect.forkDetach(close, { startImmediately: true })
      yield* eventually("the close has begun", () => Option.isSome(Effect.runSync(tree.teardown)))
      assert.strictEqual(Option.getOrThrow(yield* tree.teardown).step, "SIGTERM")
      const took = yield* elapsed(tree.shutdown(ShutdownPlan.kill))
      assert.isBelow(took, 3_000)
      yield* Fiber.join(closing)
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 33: the end of its input, where the plan says so, before any signal", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { tree } = yield* launch(
        script("trap '' TERM; echo \"child $$\" >>\"$1\"; cat >/dev/null; exit 6", 1),
        scratch,
        { shutdown: ShutdownPlan.make([ShutdownPlan.closeStdin("10 seconds"), ShutdownPlan.signal("SIGTERM")]) }
      )
      const kill = vi.spyOn(process, "kill")
      yield* Effect.addFinalizer(() => Effect.sync(() => kill.mockRestore()))
      yield* tree.shutdown()
      assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(6))
      assert.deepStrictEqual(kill.mock.calls, [])
    }))

  it.effect("peer 35: a process that ends just before its signal is no error, 40 times", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const kill = vi.spyOn(process, "kill")
      yield* Effect.addFinalizer(() => Effect.sync(() => kill.mockRestore()))
      for (let run = 0; run < 40; run++) {
        yield* Effect.scoped(Effect.gen(function*() {
          const tree = yield* platform.launch(ChildProcess.make("true"))
          // It ends while this thread is blocked, so nobody has been told yet.
          const until = Date.now() + 5000
          for (let state = stateOf(tree.pid); state !== "Z" && state !== undefined; state = stateOf(tree.pid)) {
            assert.isBelow(Date.now(), until, "it ends")
          }
          yield* tree.signal("SIGTERM", "group")
          assert.deepStrictEqual(yield* tree.shutdown(), [])
          assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0))
        }))
      }
      assert.isAbove(kill.mock.calls.length, 0, "signals were sent to processes that had ended")
    }))

  it("peer 35: a signal to a process that has gone says so", async () => {
    const child = child_process.spawn("true")
    await once(child, "exit")
    assert.strictEqual(Signals.sendTo(child.pid, "SIGTERM"), "gone")
    assert.strictEqual(Signals.sendToGroup(child.pid, "SIGTERM"), "gone")
  })

  it("peer 23, peer 24: no signal for no pid, 0, 1, the host, or what is no pid", () => {
    const kill = vi.spyOn(process, "kill").mockReturnValue(true)
    try {
      for (const pid of [undefined, 0, 1, -1, process.pid, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
        assert.strictEqual(Signals.sendTo(pid, "SIGTERM"), "refused")
        assert.strictEqual(Signals.sendToGroup(pid, "SIGTERM"), "refused")
      }
      assert.deepStrictEqual(kill.mock.calls, [])
    } finally {
      kill.mockRestore()
    }
  })

  it.effect("peer 23: a launch that failed sends no signal", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const kill = vi.spyOn(process, "kill")
      yield* Effect.addFinalizer(() => Effect.sync(() => kill.mockRestore()))
      for (
        const command of [
          posixPrograms.missing,
          ChildProcess.make("/"),
          ChildProcess.make("true", ["x".repeat(200_000)])
        ]
      ) {
        assert.strictEqual((yield* Effect.flip(Effect.scoped(platform.launch(command))))._tag, "LaunchError")
      }
      assert.deepStrictEqual(kill.mock.calls, [])
    }))
})

/** An orphan of a test stays a zombie where process 1 is no good parent. */
const initReaps = await (async () => {
  const { stdout } = child_process.spawnSync("sh", ["-c", "sleep 0.01 >/dev/null 2>&1 & echo $!"], { encoding: "utf8" })
  const pid = Number(stdout)
  const deadline = performance.now() + 2_000
  while (performance.now() < deadline) {
    const state = stateOf(pid)
    if (state === undefined) return true
    if (state === "Z") {
      await new Promise((resolve) => setTimeout(resolve, 100))
      return stateOf(pid) === undefined
    }
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  return true
})()

layer(platformAndSpawner, { excludeTestServices: true })("peer 10: zombies that nobody reaps", (it) => {
  const because = "process 1 reaps orphans here, so there are no such zombies"
  const none = initReaps ? because : isNative ? "this engine reaps orphans itself" : undefined

  it.effect.skipIf(none !== undefined)(
    `peer 10: are not waited for${none === undefined ? "" : ` [left out: ${none}]`}`,
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const { close, reported } = yield* launch(role("grandchild", 3), scratch)
        const took = yield* elapsed(close)
        yield* assertNoneLiving(scratch)
        assert.isTrue(reported.some(({ pid }) => stateOf(pid) === "Z"), "there is a zombie of the tree")
        assert.isBelow(took, 500)
      })
  )

  it.effect.skipIf(initReaps)(
    `control: Effect's own layer waits for the zombies${initReaps ? ` [left out: ${because}]` : ""}`,
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const scope = yield* Scope.make()
        yield* Scope.provide(commandOf(role("grandchild", 3), scratch).pipe(Effect.provide(NodeServices.layer)), scope)
        yield* scratch.awaitReported(3)
        assert.isAtLeast(yield* elapsed(Scope.close(scope, Exit.void)), 900)
      })
  )
})

/** The same platform without the tag: what clears its environment and leaves the session is not found. */
layer(PosixPlatform.layerWith({ tag: false }), { excludeTestServices: true })("levels", (it) => {
  it.effect("peer 18: below \"tagged\" a daemon that cleared its environment outlives its tree, which says so", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { close, tree } = yield* launch(role("cleared", 2), scratch)
      assert.strictEqual(tree.level, "marked")
      yield* close
      const living = scratch.living()
      assert.deepStrictEqual(living.map(({ name }) => name), ["quiet"])
      yield* stays("the daemon lives", () => living.every(isAlive), 150)
    }))

  it.effect("peer 14, 15: at \"marked\" sessions and daemons that keep their environment end with the tree", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const daemon = yield* launch(role("daemon", 2), scratch)
      const session = yield* launch(role("session", 3), scratch)
      yield* Effect.all([daemon.close, session.close], { concurrency: "unbounded" })
      yield* assertNoneLiving(scratch)
    }))
})

layer(PosixPlatform.layer, { excludeTestServices: true })("peer 11: a group that may not be signalled", (it) => {
  it.effect("peer 11: EPERM for the group, as macOS says of zombies: each member is asked, and the tree is empty", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { close, tree } = yield* launch(role("grandchild", 3), scratch, { shutdown: grace("10 seconds") })
      const kill = process.kill.bind(process)
      let denied = 0
      const mock = vi.spyOn(process, "kill").mockImplementation((pid, signal) => {
        if (pid >= 0) return kill(pid, signal)
        denied++
        throw Object.assign(new Error("kill EPERM"), { code: "EPERM" })
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => mock.mockRestore()))
      assert.isBelow(yield* elapsed(close), 5_000)
      yield* assertNoneLiving(scratch)
      assert.deepStrictEqual(yield* tree.empty, [])
      assert.isAbove(denied, 0)
    }))
})

describe("peer 9: what can't be ended", () => {
  /** The portable engine on real processes, with a tree that no signal reaches. */
  const untouchable = Layer.effect(
    ProcessPlatform.ProcessPlatform,
    Effect.map(PortableEngine.make(), (engine) =>
      ProcessPlatform.make({
        ...engine,
        spawn: (request) =>
          Effect.map(engine.spawn(request), (tree): Engine.EngineTree => ({
            ...tree,
            signal: () => Effect.succeed({ delivered: 0, denied: [] }),
            kill: (cap) => Effect.andThen(Effect.sleep(cap), tree.members)
          }))
      }))
  )
  const spawner = Layer.provide(Spawner.layerWith({}), untouchable)

  it.live("is reported by the stop, and the close ends all the same, with a line in the log", () =>
    Effect.gen(function*() {
      const logged: Array<unknown> = []
      const scratch = yield* Scratch.make
      const plan = ShutdownPlan.terminate({ within: "100 millis", cap: "200 millis" })
      const { close, reported, tree } = yield* launch(role("plain", 1), scratch, {
        shutdown: plan,
        drain: { idle: 50, limit: 100 }
      })
      const took = yield* elapsed(
        Effect.map(tree.shutdown(), (survivors) => assert.strictEqual(survivors[0]?.pid, reported[0]!.pid))
      )
      assert.isAtLeast(took, 299)
      assert.isBelow(took, 2_000)
      yield* Effect.provide(close, Logger.layer([Logger.make(({ message }) => void logged.push(message))]))
      assert.include(JSON.stringify(logged), "Unkillable")
    }).pipe(Effect.provide(untouchable)))

  it.live("is a TimedOut with the survivors from the drop-in's kill", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const scope = yield* Scope.make()
      const handle = yield* Scope.provide(commandOf(role("plain", 1), scratch), scope)
      yield* scratch.awaitReported(1)
      const killing = yield* Effect.forkChild(Effect.flip(handle.kill({ forceKillAfter: 50 })))
      const error = yield* Fiber.join(killing)
      assert.strictEqual(error.reason._tag, "TimedOut")
      scratch.living().forEach(killIfAlive)
      // It reports the same survivor in the log, which the test before has seen.
      yield* Effect.provide(Scope.close(scope, Exit.void), Logger.layer([]))
    }).pipe(Effect.provide(spawner)), 20_000)
})

const namespaces = child_process.spawnSync("unshare", [
  "-Urpf",
  "--mount-proc",
  "sh",
  "-c",
  "echo 300 > /proc/sys/kernel/ns_last_pid"
]).status === 0

describe("peer 22: a number that has passed to a stranger", () => {
  const run = (way: string) =>
    Effect.promise(async () => {
      const { stderr, stdout } = await new Promise<{ stdout: string; stderr: string }>((resolve) => {
        const args = ["-Urpf", "--mount-proc", process.execPath, program("reusedPid"), way]
        child_process.execFile("unshare", args, { timeout: 25_000 }, (_, stdout, stderr) => resolve({ stdout, stderr }))
      })
      assert.notStrictEqual(stdout, "", stderr)
      return JSON.parse(stdout) as { leader: number; stranger: number; strangerLives: boolean; leftLives: boolean }
    })
  const note = namespaces ? "" : " [left out: no pid namespace can be had here]"

  it.live.skipIf(!namespaces)(`is not signalled, and the rest of the tree ends${note}`, () =>
    Effect.gen(function*() {
      const outcome = yield* run("treeline")
      assert.strictEqual(outcome.stranger, outcome.leader)
      assert.isTrue(outcome.strangerLives)
      assert.isFalse(outcome.leftLives)
    }))

  it.live.skipIf(!namespaces || !isNative)(
    `nor where somebody else has reaped a leader that the engine holds${note}`,
    () =>
      Effect.gen(function*() {
        const outcome = yield* run("taken")
        assert.strictEqual(outcome.stranger, outcome.leader)
        assert.isTrue(outcome.strangerLives)
        assert.isFalse(outcome.leftLives)
      })
  )

  it.live.skipIf(!namespaces)(
    `control: a signal to the remembered group ends the stranger${note}`,
    () =>
      Effect.gen(function*() {
        const outcome = yield* run("naive")
        assert.strictEqual(outcome.stranger, outcome.leader)
        assert.isFalse(outcome.strangerLives)
        assert.isTrue(outcome.leftLives)
      })
  )
})

describe("P12: without a process table", () => {
  it.live("the group is still ended, and its end is seen", () =>
    Effect.gen(function*() {
      const { execFile } = child_process
      let asked = 0
      const failing = (
        _file: string,
        _args: unknown,
        _options: unknown,
        done: (error: Error, stdout: string) => void
      ) => {
        asked++
        setImmediate(done, new Error("no ps"), "")
      }
      Object.assign(childProcessModule, { execFile: failing })
      syncBuiltinESMExports()
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          Object.assign(childProcessModule, { execFile })
          syncBuiltinESMExports()
        })
      )
      const scratch = yield* Scratch.make
      // The leader reaps its child, since a zombie can't be told from a living member here.
      const shape = script(
        "trap : TERM; sh -c 'echo \"child $$\" >>\"$1\"; exec sleep 60' sh \"$1\" & echo \"leader $$\" >>\"$1\"; wait; wait",
        2
      )
      const { close, tree } = yield* launch(shape, scratch, { shutdown: grace("10 seconds") }).pipe(
        Effect.provide(PosixPlatform.layerWith({ table: "ps", tag: false }))
      )
      assert.strictEqual(tree.level, "group")
      assert.isBelow(yield* elapsed(close), 2_000)
      yield* assertNoneLiving(scratch)
      assert.isAbove(asked, 0)
    }))
})
