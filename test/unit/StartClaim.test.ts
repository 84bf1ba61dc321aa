/** Which of several starters goes on: also when one of them sleeps, or was killed. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { once } from "node:events"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { Worker } from "node:worker_threads"
import * as StartClaim from "../../packages/platform-node/src/internal/StartClaim.ts"

const place = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "treeline-claim-"))),
    (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
  ),
  (directory) => ({ directory, folder: path.join(directory, ".c") })
)

const take = (folder: string): StartClaim.StartClaim => {
  const claim = StartClaim.attempt(folder)
  if (claim === undefined) throw new Error("somebody else has it")
  return claim
}

const makeOld = (folder: string) => {
  const then = new Date(Date.now() - StartClaim.stale - 1000)
  fs.utimesSync(folder, then, then)
}

/** A thread that tries to have a claim, once each time that it is asked. */
const starter = (folder: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => new Worker(program, { eval: true, workerData: { folder, module: moduleUrl } })),
      (worker) => Effect.promise(() => worker.terminate())
    ),
    (worker) =>
      Effect.promise(async () => {
        const answer = once(worker, "message")
        // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
        worker.postMessage("try")
        const [result] = await answer
        return String(result)
      })
  )

const moduleUrl = new URL("../../packages/platform-node/src/internal/StartClaim.ts", import.meta.url).href

const program = `
  const { parentPort, workerData } = require("node:worker_threads")
  const loaded = import(workerData.module)
  parentPort.on("message", async () => {
    const { attempt } = await loaded
    try {
      const claim = attempt(workerData.folder)
      claim?.release()
      parentPort.postMessage(claim === undefined ? "lost it" : "had it")
    } catch (error) {
      parentPort.postMessage(String(error))
    }
  })
`

describe("the claim of a starter", () => {
  it.effect("peer 105: is one starter's at a time, and leaves nothing", () =>
    Effect.gen(function*() {
      const { directory, folder } = yield* place
      const first = take(folder)
      assert.isUndefined(StartClaim.attempt(folder))
      fs.writeFileSync(path.join(first.room, "s"), "")
      first.release()
      const second = take(folder)
      assert.deepStrictEqual([first.holds, second.holds], [false, true])
      second.release()
      assert.deepStrictEqual(fs.readdirSync(directory), [])
    }))

  it.effect("peer 105: whoever sleeps until another one takes it neither publishes nor takes that one's away", () =>
    Effect.gen(function*() {
      const { directory, folder } = yield* place
      const sleeper = take(folder)
      makeOld(sleeper.room)
      const successor = take(folder)
      fs.writeFileSync(path.join(successor.room, "s"), "successor")
      assert.deepStrictEqual([sleeper.holds, successor.holds], [false, true])
      // What it would do when it wakes up: bind, rename, give back.
      assert.throws(() => fs.writeFileSync(path.join(sleeper.room, "s"), "sleeper"), "ENOENT")
      assert.throws(() => fs.renameSync(path.join(sleeper.room, "s"), path.join(directory, "socket")), "ENOENT")
      sleeper.release()
      assert.strictEqual(fs.readFileSync(path.join(successor.room, "s"), "utf8"), "successor")
      successor.release()
      assert.deepStrictEqual(fs.readdirSync(directory), [])
    }))

  it.effect("peer 105: what killed starters have left is taken away", () =>
    Effect.gen(function*() {
      const { directory, folder } = yield* place
      makeOld(take(folder).room)
      fs.mkdirSync(`${folder}-dead`)
      makeOld(`${folder}-dead`)
      take(folder).release()
      assert.deepStrictEqual(fs.readdirSync(directory), [])
      // Killed while it gave it back.
      fs.mkdirSync(folder)
      take(folder).release()
      assert.deepStrictEqual(fs.readdirSync(directory), [])
    }))

  it.effect("peer 105: of many that find one that was left behind one has it, and the others fail with nothing", () =>
    Effect.gen(function*() {
      const { directory, folder } = yield* place
      const starters = yield* Effect.forEach(Array.from({ length: 3 }), () => starter(folder))
      let lost = 0
      for (let round = 0; round < 200; round++) {
        makeOld(take(folder).room)
        const results = yield* Effect.forEach(starters, (attempt) => attempt, { concurrency: "unbounded" })
        // One that begins when another one is done may have it, too.
        for (const result of results) assert.include(["had it", "lost it"], result)
        assert.include(results, "had it")
        lost += results.filter((result) => result === "lost it").length
        assert.deepStrictEqual(fs.readdirSync(directory), [])
      }
      assert.isAbove(lost, 0, "they were at it at once")
    }))

  it("waits longer for another one than until what was left behind is stale", () => {
    assert.isAbove(StartClaim.within, StartClaim.stale)
  })
})
