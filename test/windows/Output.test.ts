/**
 * Pipes between the host and its children on Windows.
 */
import { assert, layer } from "@effect/vitest"
import { ExitStatus, Output, ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { WindowsPlatform } from "@treeline/platform-windows"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as crypto from "node:crypto"
import { program, windowsPrograms } from "../fixtures/windowsPrograms.ts"
import { assertGone, launch, living } from "./support/Trees.ts"

const size = 10_000_000

const kill = { shutdown: ShutdownPlan.kill }

const digest = (bytes: Uint8Array) => crypto.createHash("sha256").update(bytes).digest("hex")

const digestOf = <E>(stream: Stream.Stream<Uint8Array, E>) =>
  Effect.gen(function*() {
    const hash = crypto.createHash("sha256")
    let length = 0
    yield* Stream.runForEach(stream, (chunk) =>
      Effect.sync(() => {
        length += chunk.length
        hash.update(chunk)
      }))
    return { length, hash: hash.digest("hex") }
  })

layer(WindowsPlatform.layer, { excludeTestServices: true })("output", (it) => {
  for (const [from, to] of [[0, 1], [0, 2], [3, 4]] as const) {
    it.effect(`10 MB in by descriptor ${from} and out by ${to} arrive intact`, () =>
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        const bytes = crypto.randomBytes(size)
        const command = windowsPrograms.copies(from, to)
        const tree = yield* platform.launch(
          ChildProcess.make(command.command, command.args, {
            additionalFds: { fd3: { type: "input" }, fd4: { type: "output" } }
          }),
          { ...kill, output: Output.backpressure(256 * 1024) }
        )
        const writing = yield* Effect.forkChild(
          Stream.run(Stream.make(new Uint8Array(bytes)), from === 0 ? tree.stdin : tree.input(from))
        )
        const output = to === 1 ? tree.stdout : to === 2 ? tree.stderr : tree.output(to)
        assert.deepStrictEqual(yield* digestOf(output.stream), { length: size, hash: digest(bytes) })
        yield* Fiber.join(writing)
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0))
      }))
  }

  it.effect("P3: a child that never reads its input does not hang a close in the middle of a write", () =>
    Effect.gen(function*() {
      const { close, pids, tree } = yield* launch(windowsPrograms.sleeper, kill)
      const identities = living(pids)
      const writing = yield* Effect.forkChild(Stream.run(Stream.make(new Uint8Array(size)), tree.stdin), {
        startImmediately: true
      })
      yield* Effect.timeout(close, "5 seconds")
      assertGone(identities)
      yield* Effect.timeout(Fiber.await(writing), "5 seconds")
    }))

  it.effect("peer 62: a child that ends while it is written to fails no one and hides no status", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const tree = yield* platform.launch(program("exit", "3"))
      const writing = yield* Effect.forkChild(Stream.run(Stream.make(new Uint8Array(size)), tree.stdin), {
        startImmediately: true
      })
      assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(3))
      yield* Effect.timeout(Fiber.await(writing), "5 seconds")
    }))

  for (const [number, fd] of [["peer 50", 1], ["peer 51", 2], ["peer 51", 0]] as const) {
    it.effect(`${number}: a grandchild that holds descriptor ${fd} delays neither exit nor drain`, () =>
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
        const tree = yield* Scope.provide(platform.launch(program("leavesHolder", String(fd)), kill), scope)
        assert.deepStrictEqual(yield* Effect.timeout(tree.exited, "5 seconds"), ExitStatus.exited(0))
        const { truncated } = yield* Effect.timeout(tree.drained, "5 seconds")
        assert.strictEqual(truncated, fd !== 0)
        const left = living((yield* tree.members).map(({ pid }) => pid))
        assert.strictEqual(left.length, 1)
        yield* Scope.close(scope, Exit.void)
        assertGone(left)
      }))
  }

  it.effect("P2, P5: what was written before the end arrives, and no drain holds up the end", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const tree = yield* platform.launch(windowsPrograms.floods, { ...kill, output: Output.backpressure(64 * 1024) })
      yield* Stream.runHead(tree.stdout.stream)
      yield* Effect.timeout(tree.shutdown(), "3 seconds")
      yield* Effect.timeout(tree.drained, "5 seconds")
      assertGone(living([tree.pid]))
    }))
})
