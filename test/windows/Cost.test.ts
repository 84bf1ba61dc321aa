/**
 * What launches and closes cost. These run alone: see vitest.config.ts.
 */
import { assert, layer } from "@effect/vitest"
import { ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { WindowsPlatform } from "@treeline/platform-windows"
import { Effect, Exit, Scope } from "effect"
import * as child_process from "node:child_process"
import { program, windowsPrograms } from "../fixtures/windowsPrograms.ts"
import { assertGone, launch, living } from "./support/Trees.ts"

const rounds = 40

const kill = { shutdown: ShutdownPlan.kill }

const median = (values: ReadonlyArray<number>): number => values.toSorted((a, b) => a - b)[values.length >> 1]!

layer(WindowsPlatform.layer, { excludeTestServices: true })("cost", (it) => {
  it.effect("a launch costs what one of Node's child_process costs", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const { args, command } = windowsPrograms.exit(0)
      const words = args.map(String)
      /** From the call to the end that is seen. */
      const ours = Effect.gen(function*() {
        const scope = yield* Scope.make()
        const startedAt = performance.now()
        const tree = yield* Scope.provide(platform.launch(windowsPrograms.exit(0), kill), scope)
        yield* tree.exited
        const took = performance.now() - startedAt
        yield* tree.drained
        yield* Scope.close(scope, Exit.void)
        return took
      })
      const nodes = Effect.promise(async () => {
        const startedAt = performance.now()
        const child = child_process.spawn(command, words, { windowsHide: true })
        const closed = new Promise((resolve) => child.on("close", resolve))
        await new Promise((resolve) => child.on("exit", resolve))
        const took = performance.now() - startedAt
        await closed
        return took
      })
      const times = yield* Effect.forEach(Array.from({ length: rounds }), (_, round) =>
        // By turns, so that neither always comes second.
        round % 2 === 0
          ? Effect.all([ours, nodes])
          : Effect.map(Effect.all([nodes, ours]), ([node, own]) => [own, node] as const))
      const [own, node] = [median(times.map(([own]) => own)), median(times.map(([, node]) => node))]
      yield* Effect.sync(() =>
        console.log(
          `launch and exit: ${own.toFixed(1)} ms, child_process ${node.toFixed(1)} ms, ${(own / node).toFixed(2)}x`
        )
      )
      // A bound for a busy machine; the figure is what counts.
      assert.isBelow(own / node, 1.5)
    }), 180_000)

  it.effect("a tree of ten ends in a moment", () =>
    Effect.gen(function*() {
      const times: Array<number> = []
      for (let round = 0; round < 5; round++) {
        const { close, pids } = yield* launch(program("siblings", "9"), kill)
        const identities = living(pids)
        assert.strictEqual(identities.length, 10)
        const startedAt = performance.now()
        yield* close
        times.push(performance.now() - startedAt)
        assertGone(identities)
      }
      const least = Math.min(...times)
      yield* Effect.sync(() =>
        console.log(`close of a tree of ten: ${median(times).toFixed(1)} ms (best ${least.toFixed(1)})`)
      )
      assert.isBelow(least, 100)
    }))
})
