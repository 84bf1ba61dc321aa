/**
 * The shutdown plan on Windows: stdin, console events, the end of the job. Under Wine only Ctrl+C exists.
 */
import { assert, layer } from "@effect/vitest"
import { ExitStatus, ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { WindowsPlatform } from "@treeline/platform-windows"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { program, windowsPrograms } from "../fixtures/windowsPrograms.ts"
import { assertGone, launch, living, pidsIn } from "./support/Trees.ts"

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const startedAt = performance.now()
    yield* effect
    return performance.now() - startedAt
  })

layer(WindowsPlatform.layer, { excludeTestServices: true })("shutdown", (it) => {
  it.effect("P4, peer 116: a console event reaches the child, not its siblings and not the host", () =>
    Effect.gen(function*() {
      let heard = 0
      const listener = () => void heard++
      for (const signal of ["SIGINT", "SIGBREAK"] as const) {
        yield* Effect.acquireRelease(
          Effect.sync(() => process.on(signal, listener)),
          () => Effect.sync(() => process.off(signal, listener))
        )
      }
      const shutdown = ShutdownPlan.terminate({ within: "20 seconds" })
      const sibling = yield* launch(windowsPrograms.polite(5), { shutdown: ShutdownPlan.kill })
      const asked = yield* launch(windowsPrograms.polite(4), { shutdown })
      yield* asked.tree.shutdown()
      assert.deepStrictEqual(yield* asked.tree.exited, ExitStatus.exited(4))
      assert.strictEqual(living(sibling.pids).length, 1)
      assert.strictEqual(heard, 0)
    }))

  it.effect("a step that closes the input lets a child end by itself", () =>
    Effect.gen(function*() {
      const { tree } = yield* launch(windowsPrograms.endsWithInput, {
        shutdown: ShutdownPlan.make([ShutdownPlan.closeStdin("20 seconds")])
      })
      yield* tree.shutdown()
      assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0))
    }))

  it.effect("P10, peer 26: what takes no notice is killed after the grace, sooner by a second stop", () =>
    Effect.gen(function*() {
      const first = yield* launch(windowsPrograms.stubborn, {
        shutdown: ShutdownPlan.terminate({ within: "1 second" })
      })
      const identities = living(first.pids)
      assert.isAtLeast(yield* elapsed(first.tree.shutdown()), 995)
      assertGone(identities)
      assert.isTrue(ExitStatus.isSignaledBy(yield* first.tree.exited, "SIGKILL"))

      const second = yield* launch(windowsPrograms.stubborn)
      const slow = yield* Effect.forkChild(second.tree.shutdown(ShutdownPlan.terminate({ within: "1 minute" })), {
        startImmediately: true
      })
      yield* Effect.timeout(second.tree.shutdown(ShutdownPlan.kill), "5 seconds")
      yield* Fiber.join(slow)
      assertGone(living(second.pids))
    }))

  it.effect("peer 30: stubborn children of one scope share their grace", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
      const shutdown = ShutdownPlan.terminate({ within: "2 seconds" })
      const trees = yield* Scope.provide(
        Effect.forEach(Array.from({ length: 6 }), () => platform.launch(windowsPrograms.stubborn, { shutdown })),
        scope
      )
      const identities = living((yield* Effect.forEach(trees, (tree) => pidsIn(tree.stdout.stream))).flat())
      assert.strictEqual(identities.length, 6)
      const took = yield* elapsed(Scope.close(scope, Exit.void))
      assertGone(identities)
      assert.isAtLeast(took, 1_995)
      assert.isBelow(took, 8_000, "one grace, not six")
    }))

  it.effect("peer 119: a child has a console, and nobody sees it", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const tree = yield* platform.launch(program("console"))
      const text = yield* Stream.mkString(Stream.decodeText(tree.stdout.stream))
      assert.deepStrictEqual(JSON.parse(text), { console: true, seen: false })
    }))
})

const portable = WindowsPlatform.layerWith({ engine: "portable", withoutJobs: "group" })

layer(portable, { excludeTestServices: true })("without native code", (it) => {
  it.effect("peer 120: the leader ends also where taskkill refuses, and the level says what that is worth", () =>
    Effect.gen(function*() {
      const { close, pids, tree } = yield* launch(windowsPrograms.sleeper, { shutdown: ShutdownPlan.kill })
      assert.strictEqual(tree.level, "group")
      const identities = living(pids)
      yield* Effect.timeout(close, "10 seconds")
      assertGone(identities)
    }))
})

layer(WindowsPlatform.layerWith({ engine: "portable" }), { excludeTestServices: true })("not allowed", (it) => {
  it.effect("peer 120: where jobs can't be had a launch is refused, typed, unless level \"group\" is allowed", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const error = yield* Effect.flip(Effect.scoped(platform.launch(windowsPrograms.exit(0))))
      assert.strictEqual(error._tag, "ContainmentUnavailable")
    }))
})
