/** A process tree that is kept by a process of its own, as a program of one's own would have it. */
import { assert, describe, it } from "@effect/vitest"
import { NodeKeeper, NodeStateFolder } from "@treeline/platform-node"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Fiber, type Layer, Logger, Option, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as fs from "node:fs"
import * as net from "node:net"
import { ExitStatus, type ProcessPlatform } from "treeline"
import { openDescriptors } from "../support/Directories.ts"
import { eventually } from "../support/Eventually.ts"
import { fixture } from "../support/Host.ts"
import { identify, isAlive, killIfAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"

const platform: Layer.Layer<ProcessPlatform.ProcessPlatform> = PosixPlatform.layerWith({ sweepOrphaned: false })

const [program = "", ...args] = Command.treeline

const keepersOf = (scratch: Scratch.Scratch) =>
  NodeKeeper.make({ folder: NodeStateFolder.make(scratch.file("state")), shim: [program, ...args, "shim"] })

const real = (
  name: string,
  test: (scratch: Scratch.Scratch) => Effect.Effect<void, unknown, ProcessPlatform.ProcessPlatform | Scope.Scope>
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      yield* Effect.addFinalizer(() =>
        Effect.gen(function*() {
          for (const { host } of yield* Effect.orDie((yield* keepersOf(scratch)).kept)) {
            const shim = identify(host)
            if (shim !== undefined) killIfAlive(shim)
          }
        })
      )
      yield* test(scratch)
    }).pipe(Effect.scoped, Effect.provide([platform, Logger.layer([])])))

const pipe = { stdin: { stream: "pipe", endOnDone: false } } as const

const sh = (script: string, ...rest: ReadonlyArray<string>) =>
  ChildProcess.make("sh", ["-c", script, "sh", ...rest], pipe)

const textOf = (stream: Stream.Stream<Uint8Array, unknown>) =>
  Stream.runFold(Stream.decodeText(stream), () => "", (all, text) => all + text)

describe("a keeper", () => {
  real("what is launched is fed, read, measured, signalled and ended as any tree", (scratch) =>
    Effect.gen(function*() {
      const keeper = (yield* keepersOf(scratch)).keeper("one")
      const scope = yield* Scope.make()
      const { tree } = yield* Scope.provide(
        keeper.launch(sh("trap 'echo usr >&2' USR1; read line; echo \"got $line\"; read line; exit 5"), {}),
        scope
      )
      const stdout = yield* Effect.forkChild(textOf(tree.stdout.stream), { startImmediately: true })
      const stderr = yield* Effect.forkChild(textOf(tree.stderr.stream), { startImmediately: true })
      const write = (text: string) => Stream.run(Stream.encodeText(Stream.succeed(text)), tree.stdin)
      assert.strictEqual((yield* tree.members).length, 1)
      assert.strictEqual((yield* tree.usage).processes, 1)
      yield* write("something\n")
      yield* tree.stdout.stream.pipe(Stream.take(1), Stream.runDrain)
      assert.strictEqual((yield* tree.signal("SIGUSR1")).delivered, 1)
      yield* tree.stderr.stream.pipe(Stream.take(1), Stream.runDrain)
      yield* write("the end\n")
      assert.strictEqual(ExitStatus.describe(yield* tree.exited), "exited with code 5")
      assert.deepStrictEqual([yield* Fiber.join(stdout), yield* Fiber.join(stderr)], ["got something\n", "usr\n"])
      assert.isFalse((yield* tree.drained).truncated)
      assert.deepStrictEqual(yield* tree.empty, [])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(fs.readdirSync(scratch.file("state")), ["keep-one.err"])
    }))

  real("a launch that fails says why, as on any platform, and leaves nothing", (scratch) =>
    Effect.gen(function*() {
      const keepers = yield* keepersOf(scratch)
      const keeper = keepers.keeper("one")
      const missing = yield* Effect.flip(keeper.launch(ChildProcess.make("/no/such/program", [], pipe), {}))
      assert.deepStrictEqual([missing._tag, missing._tag === "LaunchError" && missing.reason], [
        "LaunchError",
        "NotFound"
      ])
      const inherited = yield* Effect.flip(
        keeper.launch(ChildProcess.make("true", [], { ...pipe, stdout: "inherit" }), {})
      )
      assert.strictEqual(inherited._tag, "InvalidSpec")
      assert.deepStrictEqual(yield* keepers.kept, [])
      assert.deepStrictEqual(fs.readdirSync(scratch.file("state")).filter((name) => !name.includes(".err")), [])
      // Peer 49: of two at once only one is launched.
      const two = [keeper.launch(sh("exec sleep 60"), {}), keeper.launch(sh("exec sleep 60"), {})]
      const outcomes = yield* Effect.all(two.map(Effect.result), { concurrency: 2 })
      assert.deepStrictEqual(outcomes.map(({ _tag }) => _tag).toSorted(), ["Failure", "Success"])
      const failure = outcomes.find(({ _tag }) => _tag === "Failure")
      assert.include(failure?._tag === "Failure" ? failure.failure.message : "", "keeps it already")
    }))

  real(
    "what is written while nobody reads waits up to its bound, and the loss before it is counted",
    (scratch) =>
      Effect.gen(function*() {
        const keepers = yield* keepersOf(scratch)
        const scope = yield* Scope.make()
        const script =
          "until [ -e \"$1\" ]; do sleep 0.02; done; head -c 3000000 /dev/zero | tr '\\0' x; echo end; exec sleep 60"
        const command = sh(script, scratch.file("go"))
        const { tree } = yield* Scope.provide(keepers.keeper("one").launch(command, {}), scope)
        yield* keepers.leave
        yield* Scope.close(scope, Exit.void)
        assert.isTrue(isAlive(identify(tree.pid)!))
        fs.writeFileSync(scratch.file("go"), "")
        yield* eventually(
          "it has written all",
          () => fs.readFileSync(`/proc/${tree.pid}/cmdline`, "utf8").startsWith("sleep")
        )
        const found = yield* (yield* keepersOf(scratch)).keeper("one").find(command, {})
        const again = Option.getOrThrow(found).tree
        assert.deepStrictEqual(again.identity, tree.identity)
        let first: number | undefined = undefined as number | undefined
        let bytes = 0
        yield* Stream.runForEachWhile(again.stdout.pieces(4_000_000), (piece) =>
          Effect.sync(() => {
            first ??= piece.offset
            bytes += piece.bytes.length
            return piece.offset + piece.bytes.length < 3_000_004
          }))
        assert.strictEqual(first! + bytes, 3_000_004)
        assert.isAtLeast(bytes, 1024 * 1024)
        assert.isBelow(bytes, 1024 * 1024 + 200_000)
      })
  )

  real(
    "a connection that is lost is made anew, and not a byte is lost or told twice",
    (scratch) =>
      Effect.gen(function*() {
        const command = ChildProcess.make(
          "perl",
          [fixture("single.pl"), "one", scratch.report, scratch.file("lock")],
          pipe
        )
        const first = yield* keepersOf(scratch)
        const scope = yield* Scope.make()
        yield* Scope.provide(first.keeper("one").launch(command, {}), scope)
        yield* first.leave
        yield* Scope.close(scope, Exit.void)
        // Somebody in the middle, who hangs up.
        const socket = scratch.file("state/keep-one.sock")
        fs.renameSync(socket, scratch.file("behind"))
        const lines = new Set<net.Socket>()
        const proxy = net.createServer((line) => {
          const onward = net.connect(scratch.file("behind"))
          lines.add(line)
          line.pipe(onward).pipe(line)
          line.on("error", () => {}).on("close", () => onward.destroy())
          onward.on("error", () => {}).on("close", () => line.destroy())
        }).listen(socket)
        yield* Effect.addFinalizer(() => Effect.sync(() => proxy.close()))
        yield* eventually("it listens", () => fs.existsSync(socket))
        const keepers = yield* keepersOf(scratch)
        const { tree } = Option.getOrThrow(yield* keepers.keeper("one").find(command, {}))
        let hangUps = 0
        let text = ""
        yield* Stream.runForEachWhile(Stream.decodeText(tree.stdout.stream), (more) =>
          Effect.sync(() => {
            text += more
            if (hangUps < 5 && text.length > 100 * (hangUps + 1)) {
              hangUps++
              for (const line of lines) line.destroy()
            }
            return text.length < 1000
          }))
        const [head, ...numbers] = text.trimEnd().split("\n")
        assert.deepStrictEqual([hangUps, head], [5, "begins"])
        assert.deepStrictEqual(numbers.slice(0, -1).map(Number), numbers.slice(1).map((_, index) => index + 1))
        assert.isAtLeast(lines.size, 6)
        assert.deepStrictEqual(yield* tree.shutdown(), [])
        assert.strictEqual((yield* tree.exited)._tag, "Signaled")
      })
  )

  real(
    "peer 49: what is not to be kept any more has ended before it is launched here; a wait for that can be given up",
    (scratch) =>
      Effect.gen(function*() {
        const first = yield* keepersOf(scratch)
        const scope = yield* Scope.make()
        const stubborn = sh("trap '' TERM; echo up; while :; do sleep 0.05; done")
        const { tree } = yield* Scope.provide(first.keeper("one").launch(stubborn, {}), scope)
        yield* tree.stdout.stream.pipe(Stream.take(1), Stream.runDrain)
        yield* first.leave
        yield* Scope.close(scope, Exit.void)
        const old = identify(tree.pid)!
        const unkept = (yield* keepersOf(scratch)).unkept("one")
        const waits = yield* Effect.forkChild(Effect.uninterruptible(Effect.scoped(unkept.find(stubborn, {}))))
        const host = (yield* first.kept)[0]!.host
        yield* eventually(
          "its end has begun",
          () => fs.readFileSync(scratch.file("state/keep-one.err"), "utf8").includes("the end")
        )
        const asked = performance.now()
        yield* Fiber.interrupt(waits)
        assert.isBelow(performance.now() - asked, 2000)
        assert.isTrue(isAlive(old))
        killIfAlive(identify(host)!)
        assert.isTrue(Option.isNone(yield* unkept.find(stubborn, {})))
        assert.isFalse(isAlive(old))
        const { tree: here } = yield* unkept.launch(sh("exec sleep 60"), {})
        assert.deepStrictEqual([isAlive(identify(here.pid)!), yield* first.kept], [true, []])
      })
  )

  real("one whose end was asked for is not left", (scratch) =>
    Effect.gen(function*() {
      const keepers = yield* keepersOf(scratch)
      const scope = yield* Scope.make()
      const { tree } = yield* Scope.provide(keepers.keeper("one").launch(sh("exec sleep 60"), {}), scope)
      yield* tree.shutdown()
      yield* keepers.leave
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* keepers.kept, [])
    }))

  real(
    "what was heard before a death is told again: half a line, and all when nobody saw it ready",
    (scratch) =>
      Effect.gen(function*() {
        const command = sh("printf 'whole\nhalf'; exec sleep 60")
        const heardAgain = (service: string, isReady: boolean) =>
          Effect.gen(function*() {
            const keepers = yield* keepersOf(scratch)
            const { ready, tree } = yield* keepers.keeper(service).launch(command, {})
            yield* tree.stdout.stream.pipe(Stream.take(1), Stream.runDrain)
            if (isReady) yield* ready
            const at = performance.now() + 3500
            yield* eventually("it has told the shim what it took", () => performance.now() >= at)
            // As if it had died: it tells nothing more before the next one is there.
            const found = Option.getOrThrow(yield* (yield* keepersOf(scratch)).keeper(service).find(command, {}))
            const [first] = yield* found.tree.stdout.pieces(1000).pipe(Stream.take(1), Stream.runCollect)
            yield* keepers.leave
            return new TextDecoder().decode(first!.bytes)
          })
        const both = [heardAgain("one", true), heardAgain("two", false)]
        assert.deepStrictEqual(yield* Effect.all(both, { concurrency: 2 }), ["half", "whole\nhalf"])
      })
  )

  real("nothing grows, here or there, when it is found and left again and again", (scratch) =>
    Effect.gen(function*() {
      const command = sh("exec sleep 60")
      const once = Effect.gen(function*() {
        const keepers = yield* keepersOf(scratch)
        const keeper = keepers.keeper("one")
        const scope = yield* Scope.make()
        const found = yield* Scope.provide(keeper.find(command, {}), scope)
        if (Option.isNone(found)) yield* Scope.provide(keeper.launch(command, {}), scope)
        yield* keepers.leave
        yield* Scope.close(scope, Exit.void)
        const [kept] = yield* keepers.kept
        return { host: kept!.host, there: fs.readdirSync(`/proc/${kept!.host}/fd`).length, here: openDescriptors() }
      })
      yield* once
      const before = yield* once
      for (let round = 0; round < 20; round++) yield* once
      yield* eventually("the descriptors are as many as before", () => {
        const there = fs.readdirSync(`/proc/${before.host}/fd`).length
        return there <= before.there && openDescriptors() <= before.here
      })
      const keepers = yield* keepersOf(scratch)
      assert.deepStrictEqual(yield* keepers.end(() => true), ["one"])
      assert.deepStrictEqual(yield* keepers.kept, [])
    }))
})
