import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { ExitStatus, Output, ProcessPlatform, ShutdownPlan, Spawner } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Fiber, Layer, Option, PlatformError, Scope, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as child_process from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import { eventually, stays } from "../support/Eventually.ts"
import { isNative } from "../support/Host.ts"
import { isAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import { assertNoneLiving } from "../support/Trees.ts"

const Spawn = ChildProcessSpawner.ChildProcessSpawner
const platformAndSpawner = Layer.provideMerge(Spawner.layer, PosixPlatform.layer)

const sh = (script: string, ...args: ReadonlyArray<string>) => ChildProcess.make("sh", ["-c", script, "sh", ...args])

/** A command with further options. */
const having = (command: ChildProcess.StandardCommand, options: ChildProcess.CommandOptions) =>
  ChildProcess.make(command.command, command.args, { ...command.options, ...options })

const launch = (command: ChildProcess.StandardCommand, options?: ProcessPlatform.LaunchOptions) =>
  ProcessPlatform.ProcessPlatform.use((platform) =>
    platform.launch(command, { shutdown: ShutdownPlan.terminate({ within: "300 millis" }), ...options })
  )

const sizeOf = <E>(stream: Stream.Stream<Uint8Array, E>) =>
  Stream.runFold(stream, () => 0, (sum, chunk) => sum + chunk.length)

const textOf = <E>(stream: Stream.Stream<Uint8Array, E>) => Stream.mkString(Stream.decodeText(stream))

const bytesOf = (...texts: ReadonlyArray<string>) => Stream.encodeText(Stream.fromIterable(texts))

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const startedAt = performance.now()
    return Effect.map(effect, () => performance.now() - startedAt)
  })

/** A background process that holds descriptor `fd` of its ended leader, and no other. */
const holder = (fd: 0 | 1 | 2) => {
  const others = [0, 1, 2].filter((other) => other !== fd).map((other) => `${other}${other === 0 ? "<" : ">"}/dev/null`)
  return `sh -c 'echo "holder $$" >>"$1"; exec sleep 60' sh "$1" ${fd === 0 ? "<&3" : ""} ${others.join(" ")} &`
}

layer(platformAndSpawner, { excludeTestServices: true })("a pipe that outlives the leader", (it) => {
  for (const fd of [1, 2] as const) {
    it.effect(`peer ${fd === 1 ? "50, P37" : "51"}: a survivor holds ${fd === 1 ? "stdout" : "stderr"}`, () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const tree = yield* launch(sh(`${holder(fd)} echo said >&${fd}; exit 3`, scratch.report), {
          drain: { idle: "100 millis", limit: "1 second" }
        })
        const holding = yield* scratch.awaitNamed("holder")
        const output = fd === 1 ? tree.stdout : tree.stderr
        const text = yield* textOf(output.stream)
        assert.strictEqual(text, "said\n")
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(3))
        assert.deepStrictEqual(yield* tree.drained, { bytes: 5, truncated: true })
        assert.isTrue(isAlive(holding), "the drain ends nobody")
      }))
  }

  it.effect("control for peer 50: Node's child does not close while the pipe is held", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const child = child_process.spawn("sh", ["-c", `${holder(1)} exit 3`, "sh", scratch.report])
      let closed = false
      child.once("close", () => closed = true)
      const exited = once(child, "exit")
      yield* scratch.awaitNamed("holder")
      yield* Effect.promise(() => exited)
      yield* stays("the child is not closed", () => !closed, 300)
      scratch.killLiving()
      yield* eventually("the child closes", () => closed)
    }))

  it.effect("peer 51: a survivor holds stdin: neither the end nor the close waits for it", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const tree = yield* launch(
        // It ends when the survivor has given up the output.
        sh(`exec 3<&0; ${holder(0)} until grep -q holder "$1"; do sleep 0.02; done; exit 0`, scratch.report)
      )
      yield* scratch.awaitNamed("holder")
      assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0))
      assert.isFalse((yield* tree.drained).truncated, "no output is held")
      // Node closes a child's input when the leader has gone; a pipe of our own stays open for who still reads.
      const written = yield* Effect.exit(Stream.run(bytesOf("to the survivor"), tree.stdin))
      assert.strictEqual(Exit.isSuccess(written), isNative)
      assert.deepStrictEqual(yield* tree.shutdown(), [])
      yield* assertNoneLiving(scratch)
    }))

  it.effect("P38: a survivor that goes on writing is neither held nor killed by the end of its leader's turn", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const writer =
        "sh -c 'echo \"writer $$\" >>\"$1\"; i=0; while [ $i -lt 2000 ]; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; echo $i >\"$2\"; i=$((i + 1)); sleep 0.005; done' sh \"$1\" \"$2\" &"
      const progress = scratch.file("progress")
      const tree = yield* launch(sh(`${writer} exit 0`, scratch.report, progress), {
        drain: { idle: "50 millis", limit: "200 millis" }
      })
      const writing = yield* scratch.awaitNamed("writer")
      assert.isTrue((yield* tree.drained).truncated, "the limit ends the drain although bytes still come")
      const count = () => fs.existsSync(progress) ? Number(fs.readFileSync(progress, "utf8")) : 0
      const reached = count()
      yield* eventually("it writes on", () => count() > reached + 5)
      assert.isTrue(isAlive(writing))
    }))

  it.effect("P2: a timeout is not held up by a drain", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const spawner = yield* Spawn
      const command = having(sh(`${holder(1)} sleep 60`, scratch.report), { forceKillAfter: "100 millis" })
      const took = yield* elapsed(Effect.exit(Effect.timeout(spawner.string(command), "300 millis")))
      assert.isBelow(took, 2_000)
      yield* assertNoneLiving(scratch)
    }))
})

layer(platformAndSpawner, { excludeTestServices: true })("bytes", (it) => {
  it.effect("peer 53: 10 MB of a leader that ended at once, read slowly: every byte before the drain is over", () =>
    Effect.gen(function*() {
      const size = 10_000_000
      const tree = yield* launch(sh("head -c \"$1\" /dev/zero", String(size)), {
        output: Output.backpressure(256 * 1024)
      })
      const drained = yield* Effect.forkChild(tree.drained, { startImmediately: true })
      let seen = 0
      yield* Stream.runForEach(tree.stdout.stream, (chunk) => {
        if (seen < size / 2) assert.isUndefined(drained.pollUnsafe(), "not drained while half of it is unread")
        seen += chunk.length
        return Effect.sleep(1)
      })
      assert.strictEqual(seen, size)
      assert.deepStrictEqual(yield* Fiber.join(drained), { bytes: size, truncated: false })
    }))

  it.effect("peer 53: the drop-in gives every byte too, after the end as well", () =>
    Effect.gen(function*() {
      const handle = yield* sh("head -c 10000000 /dev/zero")
      assert.strictEqual(yield* sizeOf(handle.stdout), 10_000_000)
      const small = yield* sh("head -c 50000 /dev/zero")
      yield* small.exitCode
      assert.strictEqual(yield* sizeOf(small.stdout), 50_000)
    }))

  it.effect("peer 54, P39, P40: 5 MB that nobody reads, kept in a ring: the child ends, the last bytes are kept", () =>
    Effect.gen(function*() {
      const tree = yield* launch(sh("head -c 5000000 /dev/zero; printf end"), { output: Output.ring(100) })
      assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0))
      assert.strictEqual((yield* tree.drained).bytes, 5_000_003)
      const tail = yield* tree.stdout.tail
      assert.strictEqual(tail.length, 100)
      assert.strictEqual(decode(tail.slice(-3)), "end")
    }))

  it.effect("peer 54: 5 MB that nobody reads, with backpressure: the child is held, and a stop has no deadlock", () =>
    Effect.gen(function*() {
      const tree = yield* launch(sh("exec head -c 5000000 /dev/zero"), { output: Output.backpressure(64 * 1024) })
      yield* eventually("it fills what may be read ahead", () => Effect.runSync(tree.stdout.bytes) >= 64 * 1024)
      yield* stays("it is held", () => Option.isNone(Effect.runSync(tree.exitStatus)), 200)
      assert.isBelow(yield* tree.stdout.bytes, 1_000_000)
      assert.isBelow(yield* elapsed(tree.shutdown()), 2_000)
      assert.isBelow(yield* elapsed(tree.drained), 2_000)
    }))

  it.effect("peer 55: a flood: memory stays bounded, and a stop is done within its grace", () =>
    Effect.gen(function*() {
      const memory = () => process.memoryUsage().external + process.memoryUsage().heapUsed
      const before = memory()
      const tree = yield* launch(ChildProcess.make("yes"))
      yield* eventually("100 MB have come", () => Effect.runSync(tree.stdout.bytes) > 100_000_000, { within: 20_000 })
      assert.isBelow(memory() - before, 80_000_000)
      assert.isBelow(yield* elapsed(tree.shutdown()), 1_000)
      assert.isBelow(yield* elapsed(tree.drained), 1_000)
    }))

  it.effect("peer 56: a reader that leaves costs the child its pipe only where the policy says so", () =>
    Effect.gen(function*() {
      const held = yield* launch(sh("exec head -c 3000000 /dev/zero"), { output: Output.backpressure(64 * 1024) })
      yield* Stream.runHead(held.stdout.stream)
      assert.deepStrictEqual(yield* held.exited, ExitStatus.exited(0), "the rest is read and dropped")
      const closed = yield* launch(sh("echo first; read go; echo more; exit 0"), {
        output: Output.backpressure(64 * 1024, { onReaderGone: "close" })
      })
      yield* Stream.runHead(closed.stdout.stream)
      yield* Stream.run(bytesOf("go\n"), closed.stdin)
      assert.isTrue(ExitStatus.isSignaledBy(yield* closed.exited, "SIGPIPE"))
      // Pipes are socket pairs here (Node), and one that is closed over unread bytes fails the next write with ECONNRESET.
      const flooding = yield* launch(ChildProcess.make("yes"), {
        output: Output.backpressure(64 * 1024, { onReaderGone: "close" })
      })
      yield* Stream.runHead(flooding.stdout.stream)
      assert.isFalse(ExitStatus.isSuccess(yield* flooding.exited))
    }))

  it.effect("peer 57: a child that closes its stdout runs on", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const tree = yield* launch(
        sh("printf before; exec >&-; echo \"closed $$\" >>\"$1\"; exec sleep 60", scratch.report)
      )
      assert.strictEqual(yield* textOf(tree.stdout.stream), "before")
      const closed = yield* scratch.awaitNamed("closed")
      yield* stays("it lives", () => isAlive(closed) && Option.isNone(Effect.runSync(tree.exitStatus)), 150)
    }))

  it.effect("P24: both streams are drained side by side: neither blocks the other", () =>
    Effect.gen(function*() {
      const handle = yield* sh("head -c 900000 /dev/zero >&2; head -c 900000 /dev/zero; head -c 900000 /dev/zero >&2")
      const [out, error] = yield* Effect.all([sizeOf(handle.stdout), sizeOf(handle.stderr)], { concurrency: 2 })
      assert.deepStrictEqual([out, error], [900_000, 1_800_000])
    }))

  it.effect("P5, P18: what a child had written before it was stopped is delivered before the drain is over", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const tree = yield* launch(
        sh(
          "trap 'printf last; exit 0' TERM; head -c 300000 /dev/zero; echo \"written $$\" >>\"$1\"; while :; do sleep 0.02; done 2>/dev/null",
          scratch.report
        ),
        { output: Output.backpressure() }
      )
      yield* scratch.awaitNamed("written")
      const [text, drained] = yield* Effect.all([
        textOf(tree.stdout.stream),
        Effect.andThen(tree.shutdown(), tree.drained)
      ], { concurrency: 2 })
      assert.strictEqual(text.length, 300_004)
      assert.strictEqual(text.slice(-4), "last")
      assert.deepStrictEqual(drained, { bytes: 300_004, truncated: false })
    }))

  it.effect("P18: the output of an aborted command can still be read", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const scratch = yield* Scratch.make
      const handle = yield* Scope.provide(
        sh("echo kept; echo \"written $$\" >>\"$1\"; exec sleep 60", scratch.report),
        scope
      )
      yield* scratch.awaitNamed("written")
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* textOf(handle.stdout), "kept\n")
    }))

  it.effect("P21: what a person sees is cut to the last bytes, the whole goes to a file", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const file = fs.openSync(scratch.file("whole"), "w")
      const tree = yield* launch(sh("i=0; while [ $i -lt 3000 ]; do echo \"line $i\"; i=$((i + 1)); done"), {
        output: Output.ring(20_000)
      })
      yield* Stream.runForEach(tree.stdout.stream, (chunk) => Effect.sync(() => void fs.writeSync(file, chunk)))
      fs.closeSync(file)
      const whole = fs.readFileSync(scratch.file("whole"), "utf8")
      const tail = decode(yield* tree.stdout.tail)
      assert.strictEqual(tail.length, 20_000)
      assert.isTrue(whole.endsWith(tail))
      assert.strictEqual(whole.split("\n").length, 3_001)
    }))
})

/** Errors that nobody has caught while `effect` ran. */
const uncaughtDuring = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<ReadonlyArray<unknown>, E, R> =>
  Effect.suspend(() => {
    const caught: Array<unknown> = []
    const listen = (error: unknown) => void caught.push(error)
    process.on("uncaughtException", listen)
    process.on("unhandledRejection", listen)
    return effect.pipe(
      Effect.andThen(Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 50)))),
      Effect.as(caught),
      Effect.ensuring(Effect.sync(() => {
        process.off("uncaughtException", listen)
        process.off("unhandledRejection", listen)
      }))
    )
  })

layer(platformAndSpawner, { excludeTestServices: true })("input", (it) => {
  it.effect("peer 62: a child that ends without reading its input: no error, and the status is its own", () =>
    Effect.gen(function*() {
      const spawner = yield* Spawn
      const uncaught = yield* uncaughtDuring(Effect.gen(function*() {
        const command = having(sh("exit 9"), { stdin: bytesOf("x".repeat(1_000_000)) })
        assert.strictEqual(yield* spawner.exitCode(command), ChildProcessSpawner.ExitCode(9))
      }))
      assert.deepStrictEqual(uncaught, [])
    }))

  it.effect("control for peer 62: on a bare child of Node the same write is an uncaught error", () =>
    Effect.gen(function*() {
      const failed = yield* Effect.promise(() => {
        const child = child_process.spawn("sh", ["-c", "exit 9"])
        const failed = once(child.stdin, "error").then(([error]) => error as NodeJS.ErrnoException)
        child.stdin.write("x".repeat(1_000_000))
        return failed
      })
      assert.include(["EPIPE", "ECONNRESET"], failed.code)
    }))

  it.effect("peer 63: an input stream that fails is told to who waits for the end, and the tree ends with its scope", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const failure = PlatformError.systemError({ _tag: "BadResource", module: "test", method: "input" })
      const input = Stream.concat(bytesOf("half\n"), Stream.fail(failure))
      const scope = yield* Scope.make()
      const handle = yield* Scope.provide(
        having(sh("read line; echo \"$line $$\" >>\"$1\"; cat", scratch.report), { stdin: input }),
        scope
      )
      assert.strictEqual(yield* Effect.flip(handle.exitCode), failure)
      yield* scratch.awaitNamed("half")
      yield* Scope.close(scope, Exit.void)
      yield* assertNoneLiving(scratch)
    }))

  it.effect("P3: an end in the middle of a write", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const uncaught = yield* uncaughtDuring(Effect.gen(function*() {
        const tree = yield* launch(sh("echo \"reader $$\" >>\"$1\"; exec sleep 60", scratch.report))
        yield* scratch.awaitNamed("reader")
        const writing = yield* Effect.forkChild(
          Effect.exit(Stream.run(bytesOf("x".repeat(2_000_000), "y".repeat(2_000_000)), tree.stdin)),
          { startImmediately: true }
        )
        yield* stays("the write is under way", () => writing.pollUnsafe() === undefined, 50)
        assert.isBelow(yield* elapsed(tree.shutdown()), 1_000)
        yield* assertNoneLiving(scratch)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(writing)), "the writer is told")
      }))
      assert.deepStrictEqual(uncaught, [])
    }))

  it.effect("P43: a command that reads its input ends when there is none", () =>
    Effect.gen(function*() {
      const spawner = yield* Spawn
      const command = ChildProcess.make("cat", [], { stdin: "ignore" })
      assert.strictEqual(yield* spawner.exitCode(command), ChildProcessSpawner.ExitCode(0))
      const ended = ChildProcess.make("cat", [], { stdin: Stream.empty })
      assert.strictEqual(yield* spawner.exitCode(ended), ChildProcessSpawner.ExitCode(0))
    }))
})

layer(NodeServices.layer, { excludeTestServices: true })("controls on Effect's own layer", (it) => {
  it.effect("control for peer 54: a child that nobody reads is held for ever", () =>
    Effect.gen(function*() {
      const handle = yield* having(sh("exec head -c 5000000 /dev/zero"), { forceKillAfter: "50 millis" })
      const ended = yield* Effect.forkChild(handle.exitCode)
      yield* stays("it is held", () => ended.pollUnsafe() === undefined, 300)
    }))

  it.effect("control for peer 50: its stdout does not end while a survivor holds the pipe", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const handle = yield* sh(`${holder(1)} exit 0`, scratch.report)
      yield* handle.exitCode
      const reading = yield* Effect.forkChild(textOf(handle.stdout))
      yield* stays("it is not at its end", () => reading.pollUnsafe() === undefined, 300)
      scratch.killLiving()
      yield* Fiber.join(reading)
    }))
})
