/**
 * The shutdown plan on Windows: stdin, console events, the end of the job. Under Wine only Ctrl+C exists.
 */
import { assert, layer } from "@effect/vitest"
import { ExitStatus, ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { WindowsPlatform } from "@treeline/platform-windows"
import { Effect, Stream } from "effect"
import { program, windowsPrograms } from "../fixtures/windowsPrograms.ts"
import { assertGone, launch, living } from "./support/Trees.ts"

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

  it.effect("a window is asked to close, and a program without one is not", () =>
    Effect.gen(function*() {
      const shutdown = ShutdownPlan.make([ShutdownPlan.requestClose("20 seconds")])
      const shown = yield* launch(program("window"), { shutdown })
      yield* shown.tree.shutdown()
      assert.deepStrictEqual(yield* shown.tree.exited, ExitStatus.exited(6))

      const hidden = yield* launch(windowsPrograms.stubborn, {
        shutdown: ShutdownPlan.make([ShutdownPlan.requestClose("100 millis")])
      })
      yield* hidden.tree.shutdown()
      assert.isTrue(ExitStatus.isSignaledBy(yield* hidden.tree.exited, "SIGKILL"))
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
