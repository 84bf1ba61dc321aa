/**
 * Whole trees, ended by their job.
 */
import { assert, layer } from "@effect/vitest"
import { ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { WindowsPlatform } from "@treeline/platform-windows"
import { Effect, Exit, Scope } from "effect"
import { ChildProcess } from "effect/process"
import { program, windowsPrograms } from "../fixtures/windowsPrograms.ts"
import { eventually } from "../support/Eventually.ts"
import { handleCount, killIfAlive } from "./support/Processes.ts"
import { assertGone, familyOf, launch, living } from "./support/Trees.ts"

const rounds = 20

const kill = { shutdown: ShutdownPlan.kill }

const cmd = (script: string) => ChildProcess.make("cmd.exe", ["/d", "/c", script])

layer(WindowsPlatform.layer, { excludeTestServices: true })("trees", (it) => {
  it.effect(
    `peer 1, P1, P13: grandchild, detached grandchild, great-grandchild and breakaway are gone when the close returns (${rounds} rounds)`,
    () =>
      Effect.gen(function*() {
        for (let round = 0; round < rounds; round++) {
          yield* Effect.scoped(Effect.gen(function*() {
            const { close, pids } = yield* launch(program("family"), kill)
            const family = yield* familyOf(pids)
            assert.strictEqual(family.length, pids.filter((pid) => pid !== 0).length + 1, "all of them live")
            yield* close
            assertGone(family)
          }))
        }
      }),
    120_000
  )

  it.effect("peer 115: found by the job when the leader has ended long before", () =>
    Effect.gen(function*() {
      const { close, pids, tree } = yield* launch(program("familyLeft"), kill)
      yield* tree.exited
      const left = yield* eventually("only what outlives the leader is left", () => {
        const left = living(pids)
        return left.length > 0 && !left.some(({ pid }) => pid === tree.pid) && left
      })
      assert.isAtLeast((yield* tree.members).length, left.length)
      yield* close
      assertGone(left)
    }))

  it.effect("peer 118: what the program detached outlives the scope only when it is released", () =>
    Effect.gen(function*() {
      const held = yield* launch(program("detaches"), kill)
      const identities = living(held.pids)
      assert.strictEqual(identities.length, 2)
      yield* held.close
      assertGone(identities)

      const free = yield* launch(program("detaches"), kill)
      yield* free.tree.setReferenced(false)
      yield* free.close
      assert.strictEqual(living(free.pids).length, 2)
    }))

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
      const [least, , median] = times.sort((a, b) => a - b)
      yield* Effect.sync(() =>
        console.log(`close of a tree of ten: ${median!.toFixed(1)} ms (best ${least!.toFixed(1)})`)
      )
      assert.isBelow(least!, 500)
    }))

  it.effect("200 launches leave no handle and no pipe behind", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const once = Effect.scoped(Effect.gen(function*() {
        const tree = yield* platform.launch(cmd("exit 3"))
        assert.strictEqual((yield* tree.exited)._tag, "Exited")
        yield* tree.drained
      }))
      const some = (count: number) => Effect.all(Array.from({ length: count }, () => once), { concurrency: 4 })
      const resources = () => process.getActiveResourcesInfo().filter((name) => name.startsWith("Pipe")).length
      yield* some(20)
      const [handles, pipes] = [handleCount(), resources()]
      const { heapUsed } = process.memoryUsage()
      yield* some(200)
      const settled = yield* Effect.exit(
        eventually("handles are back", () => handleCount() <= handles + 4, { within: 3_000 })
      )
      assert.isTrue(Exit.isSuccess(settled), `${handles} handles before, ${handleCount()} after`)
      assert.isAtMost(resources(), pipes)
      yield* Effect.sync(() =>
        console.log(
          `200 launches: handles ${handles} -> ${handleCount()}, pipes ${pipes} -> ${resources()}, heap ${
            ((process.memoryUsage().heapUsed - heapUsed) / 1024).toFixed(0)
          } KiB more`
        )
      )
    }), 60_000)

  it.effect("400 exits at once are all seen", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
      const waiting = ChildProcess.make("ping.exe", ["-n", "120", "127.0.0.1"], { stdout: "ignore", stderr: "ignore" })
      const trees = yield* Scope.provide(
        Effect.forEach(Array.from({ length: Number(process.env["TREELINE_EXITS"] ?? 400) }), () =>
          platform.launch(waiting, kill)),
        scope
      )
      const identities = living(trees.map(({ pid }) =>
        pid
      ))
      assert.strictEqual(identities.length, trees.length)
      for (const identity of identities) killIfAlive(identity)
      const seen = yield* Effect.forEach(trees, (tree) => tree.exited, { concurrency: "unbounded" }).pipe(
        Effect.timeout("10 seconds")
      )
      assert.deepStrictEqual(new Set(seen.map(({ _tag }) => _tag)), new Set(["Exited"]))
    }), 120_000)

  it.effect("a launch costs what one of Node's child_process costs", () =>
    Effect.gen(function*() {
      const { spawn } = yield* Effect.promise(() => import("node:child_process"))
      const platform = yield* ProcessPlatform.ProcessPlatform
      const ours: Array<number> = []
      const nodes: Array<number> = []
      for (let round = 0; round < 30; round++) {
        const startedAt = performance.now()
        yield* Effect.scoped(Effect.andThen(platform.launch(windowsPrograms.exit(0)), (tree) => tree.exited))
        const between = performance.now()
        yield* Effect.promise(() =>
          new Promise((resolve) =>
            spawn("cmd.exe", ["/d", "/c", "exit", "0"], { windowsHide: true }).on("exit", resolve)
          )
        )
        ours.push(between - startedAt)
        nodes.push(performance.now() - between)
      }
      const median = (values: Array<number>) => values.sort((a, b) => a - b)[values.length >> 1]!
      const ratio = median(ours) / median(nodes)
      yield* Effect.sync(() =>
        console.log(
          `launch and exit: ${median(ours).toFixed(1)} ms, child_process ${median(nodes).toFixed(1)} ms, ${
            ratio.toFixed(2)
          }x`
        )
      )
      // A bound for a busy machine; the figure is what counts.
      assert.isBelow(ratio, 2)
    }), 60_000)
})
