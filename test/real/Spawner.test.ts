import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { ExitStatus, Spawner } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Fiber, Layer, Option, Redacted, Schedule, Scope, Sink, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as child_process from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as os from "node:os"
import { fileURLToPath } from "node:url"
import { stays } from "../support/Eventually.ts"
import { identify, isAlive, killIfAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import { assertNoneLiving, commandOf, role, script } from "../support/Trees.ts"

const { ChildProcessSpawner: Spawn, ExitCode } = ChildProcessSpawner

const treeline = Spawner.layer.pipe(Layer.provide(PosixPlatform.layer))

const sh = (script: string, ...args: ReadonlyArray<string>) => ChildProcess.make("sh", ["-c", script, "sh", ...args])

const having = (command: ChildProcess.StandardCommand, options: ChildProcess.CommandOptions) =>
  ChildProcess.make(command.command, command.args, { ...command.options, ...options })

const string = (command: ChildProcess.Command) => Spawn.use((spawner) => spawner.string(command))

const textOf = <E>(stream: Stream.Stream<Uint8Array, E>) => Stream.mkString(Stream.decodeText(stream))

const bytesOf = (...texts: ReadonlyArray<string>) => Stream.encodeText(Stream.fromIterable(texts))

const encode = (text: string): Uint8Array => new TextEncoder().encode(text)

/** One element: how many bytes came. */
const count = Sink.map(
  Sink.reduce(() => 0, (sum: number, chunk: Uint8Array) => sum + chunk.length),
  (sum) => encode(`${sum} bytes`)
)

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const startedAt = performance.now()
    return Effect.map(effect, () => performance.now() - startedAt)
  })

/** What Effect documents: held against Effect's own layer and against the drop-in. */
const contract = (name: string, services: Layer.Layer<ChildProcessSpawner.ChildProcessSpawner>) =>
  layer(services, { excludeTestServices: true })(name, (it) => {
    describe("stdin", () => {
      it.effect("a stream", () =>
        Effect.gen(function*() {
          assert.strictEqual(yield* string(ChildProcess.make("cat", [], { stdin: bytesOf("a", "b") })), "ab")
        }))

      it.effect("a stream in a config, with the end of the input after it", () =>
        Effect.gen(function*() {
          const command = ChildProcess.make("cat", [], { stdin: { stream: bytesOf("config") } })
          assert.strictEqual(yield* string(command), "config")
        }))

      it.effect("endOnDone false leaves the input open for more", () =>
        Effect.gen(function*() {
          const handle = yield* ChildProcess.make("cat", [], { stdin: { stream: bytesOf("first "), endOnDone: false } })
          const reading = yield* Effect.forkChild(textOf(Stream.take(handle.stdout, 1)))
          assert.strictEqual(yield* Fiber.join(reading), "first ")
          yield* stays("it reads on", () => fs.existsSync(`/proc/${handle.pid}`), 100)
          assert.isTrue(yield* handle.isRunning)
          yield* handle.kill()
        }))

      it.effect("written by the handle's sink", () =>
        Effect.gen(function*() {
          const handle = yield* ChildProcess.make("cat")
          yield* Stream.run(bytesOf("by ", "hand"), handle.stdin)
          assert.strictEqual(yield* textOf(handle.stdout), "by hand")
          assert.strictEqual(yield* handle.exitCode, ExitCode(0))
        }))

      it.effect("2 MB through a pipe in both directions", () =>
        Effect.gen(function*() {
          const chunks = Stream.fromIterable(Array.from({ length: 32 }, () => new Uint8Array(65_536).fill(120)))
          const handle = yield* ChildProcess.make("cat", [], { stdin: chunks })
          const size = yield* Stream.runFold(handle.stdout, () => 0, (sum, chunk) => sum + chunk.length)
          assert.strictEqual(size, 32 * 65_536)
        }))

      it.effect("ignore", () =>
        Effect.gen(function*() {
          assert.strictEqual(yield* string(ChildProcess.make("cat", [], { stdin: "ignore" })), "")
        }))

      it.effect("an encoding does not change bytes", () =>
        Effect.gen(function*() {
          for (const encoding of ["latin1", "hex", "utf-16le"] as const) {
            const command = ChildProcess.make("cat", [], { stdin: { stream: bytesOf("ünï"), encoding } })
            assert.strictEqual(yield* string(command), "ünï")
          }
        }))
    })

    describe("stdout and stderr", () => {
      it.effect("P24: apart, and both together", () =>
        Effect.gen(function*() {
          const handle = yield* sh("echo out; echo err >&2")
          assert.strictEqual(yield* textOf(handle.stdout), "out\n")
          assert.strictEqual(yield* textOf(handle.stderr), "err\n")
          const both = yield* sh("echo out; echo err >&2")
          assert.deepStrictEqual((yield* textOf(both.all)).trim().split("\n").sort(), ["err", "out"])
        }))

      it.effect("a sink transforms what the handle gives, for each of them", () =>
        Effect.gen(function*() {
          const handle = yield* having(sh("printf 12345; printf 123 >&2"), { stdout: count, stderr: { stream: count } })
          assert.strictEqual(yield* textOf(handle.stdout), "5 bytes")
          assert.strictEqual(yield* textOf(handle.stderr), "3 bytes")
        }))

      it.effect("ignore gives an empty stream", () =>
        Effect.gen(function*() {
          const handle = yield* having(sh("echo out; echo err >&2"), { stdout: "ignore", stderr: "ignore" })
          assert.strictEqual(yield* textOf(handle.all), "")
        }))

      it.effect("can be read after the exit", () =>
        Effect.gen(function*() {
          const handle = yield* sh("echo late")
          yield* handle.exitCode
          assert.strictEqual(yield* textOf(handle.stdout), "late\n")
        }))

      it.effect("lines, and strings with stderr included", () =>
        Effect.gen(function*() {
          const spawner = yield* Spawn
          assert.deepStrictEqual(yield* spawner.lines(sh("printf 'a\\nb\\nc'")), ["a", "b", "c"])
          const both = yield* spawner.string(sh("echo out; echo err >&2"), { includeStderr: true })
          assert.deepStrictEqual(both.trim().split("\n").sort(), ["err", "out"])
          const lines = yield* Stream.runCollect(spawner.streamLines(sh("echo 1; echo 2")))
          assert.deepStrictEqual(lines, ["1", "2"])
        }))
    })

    describe("further descriptors", () => {
      it.effect("output, with and without a sink", () =>
        Effect.gen(function*() {
          const handle = yield* having(sh("printf three >&3; printf four >&4"), {
            additionalFds: { fd3: { type: "output" }, fd4: { type: "output", sink: count } }
          })
          assert.strictEqual(yield* textOf(handle.getOutputFd(3)), "three")
          assert.strictEqual(yield* textOf(handle.getOutputFd(4)), "4 bytes")
        }))

      it.effect("input, from a stream and from the handle", () =>
        Effect.gen(function*() {
          const handle = yield* having(sh("cat <&3; cat <&4"), {
            additionalFds: { fd3: { type: "input", stream: bytesOf("three ") }, fd4: { type: "input" } }
          })
          yield* Stream.run(bytesOf("four"), handle.getInputFd(4))
          assert.strictEqual(yield* textOf(handle.stdout), "three four")
        }))

      it.effect("a gap, and a number that was not configured", () =>
        Effect.gen(function*() {
          const handle = yield* having(sh("printf five >&5"), { additionalFds: { fd5: { type: "output" } } })
          assert.strictEqual(yield* textOf(handle.getOutputFd(5)), "five")
          assert.strictEqual(yield* textOf(handle.getOutputFd(9)), "")
        }))

      it.effect("duplex: requests and answers on one descriptor, and a half-close", () =>
        Effect.gen(function*() {
          const handle = yield* having(sh("cat <&3 >&3"), { additionalFds: { fd3: { type: "duplex" } } })
          yield* Stream.run(bytesOf("there and back"), handle.getInputFd(3))
          assert.strictEqual(yield* textOf(handle.getOutputFd(3)), "there and back")
        }))

      it.effect("duplex with a stream and a sink", () =>
        Effect.gen(function*() {
          const handle = yield* having(sh("cat <&3 >&3"), {
            additionalFds: { fd3: { type: "duplex", stream: bytesOf("123456"), sink: count } }
          })
          assert.strictEqual(yield* textOf(handle.getOutputFd(3)), "6 bytes")
        }))
    })

    describe("pipelines", () => {
      it.effect("P27: three stages", () =>
        Effect.gen(function*() {
          const pipeline = sh("printf 'b\\na\\nc\\n'").pipe(
            ChildProcess.pipeTo(ChildProcess.make("sort")),
            ChildProcess.pipeTo(ChildProcess.make("head", ["-n", "2"]))
          )
          assert.strictEqual(yield* string(pipeline), "a\nb\n")
        }))

      it.effect("P27: from stderr, from all, from a descriptor", () =>
        Effect.gen(function*() {
          const source = having(sh("printf o; printf e >&2; printf t >&3"), {
            additionalFds: { fd3: { type: "output" } }
          })
          const cat = ChildProcess.make("cat")
          assert.strictEqual(yield* string(ChildProcess.pipeTo(source, cat, { from: "stderr" })), "e")
          assert.strictEqual(
            Array.from(yield* string(ChildProcess.pipeTo(source, cat, { from: "all" }))).sort().join(""),
            "eo"
          )
          assert.strictEqual(yield* string(ChildProcess.pipeTo(source, cat, { from: "fd3" })), "t")
        }))

      it.effect("P27: to a descriptor; a duplex one stays duplex", () =>
        Effect.gen(function*() {
          const source = sh("printf over")
          assert.strictEqual(yield* string(ChildProcess.pipeTo(source, sh("cat <&3"), { to: "fd3" })), "over")
          const duplex = having(sh("cat <&3 >&3"), { additionalFds: { fd3: { type: "duplex" } } })
          const handle = yield* ChildProcess.pipeTo(source, duplex, { to: "fd3" })
          assert.strictEqual(yield* textOf(handle.getOutputFd(3)), "over")
        }))

      it.effect("a pipeline of pipelines", () =>
        Effect.gen(function*() {
          const cat = ChildProcess.make("cat")
          const left = ChildProcess.pipeTo(sh("printf nested"), cat)
          const right = ChildProcess.pipeTo(cat, sh("tr a-z A-Z"))
          assert.strictEqual(yield* string(ChildProcess.pipeTo(left, right)), "NESTED")
        }))

      it.effect("the exit code is the last stage's", () =>
        Effect.gen(function*() {
          const handle = yield* ChildProcess.pipeTo(sh("exit 3"), sh("cat; exit 4"))
          assert.strictEqual(yield* handle.exitCode, ExitCode(4))
        }))
    })

    describe("the child's surroundings", () => {
      it.effect("shell: true, and a shell by its path", () =>
        Effect.gen(function*() {
          assert.strictEqual(yield* string(ChildProcess.make("echo $((1 + 2))", { shell: true })), "3\n")
          const bash = ChildProcess.make("printf %s \"${BASH_VERSION:+bash}\"", { shell: "/bin/bash" })
          assert.strictEqual(yield* string(bash), "bash")
        }))

      it.effect("shell with arguments is a BadArgument", () =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(Effect.scoped(ChildProcess.make("echo", ["a"], { shell: true })))
          assert.strictEqual(error.reason._tag, "BadArgument")
        }))

      it.effect("detached: a session of its own by default, the host's group when false", () =>
        Effect.gen(function*() {
          const groupOf = (pid: number) => {
            const stat = fs.readFileSync(`/proc/${pid}/stat`, "latin1")
            return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[2])
          }
          const own = yield* ChildProcess.make("sleep", ["60"])
          assert.strictEqual(groupOf(own.pid), Number(own.pid))
          const scope = yield* Scope.make()
          const shared = yield* Scope.provide(ChildProcess.make("sleep", ["60"], { detached: false }), scope)
          assert.strictEqual(groupOf(shared.pid), groupOf(process.pid))
          const identity = identify(shared.pid)!
          yield* Scope.close(scope, Exit.void)
          assert.isFalse(isAlive(identity))
        }))

      it.effect("cwd", () =>
        Effect.gen(function*() {
          const cwd = fs.realpathSync(os.tmpdir())
          assert.strictEqual(yield* string(having(sh("pwd -P"), { cwd })), `${cwd}\n`)
        }))

      it.effect("env replaces the environment, extendEnv lays it over, undefined removes", () =>
        Effect.gen(function*() {
          const PATH = process.env["PATH"]
          yield* Effect.acquireRelease(
            Effect.sync(() => {
              process.env["TREELINE_TEST_HOST"] = "host"
            }),
            () =>
              Effect.sync(() => {
                delete process.env["TREELINE_TEST_HOST"]
              })
          )
          const show = sh("printf '%s,%s' \"${TREELINE_TEST_HOST-unset}\" \"${TREELINE_TEST_OWN-unset}\"")
          const own = { TREELINE_TEST_OWN: "own value" }
          assert.strictEqual(yield* string(show), "host,unset")
          assert.strictEqual(yield* string(having(show, { env: { ...own, PATH } })), "unset,own value")
          assert.strictEqual(yield* string(having(show, { env: own, extendEnv: true })), "host,own value")
          const removed = { ...own, TREELINE_TEST_HOST: undefined }
          assert.strictEqual(yield* string(having(show, { env: removed, extendEnv: true })), "unset,own value")
        }))

      it.effect("Redacted arguments and variables reach the child and no error", () =>
        Effect.gen(function*() {
          const secret = Redacted.make("hunter2")
          const show = ChildProcess.make("sh", ["-c", "printf '%s %s' \"$1\" \"$SECRET\"", "sh", secret], {
            env: { SECRET: secret },
            extendEnv: true
          })
          assert.strictEqual(yield* string(show), "hunter2 hunter2")
          const missing = ChildProcess.make("treeline-no-such-program", [secret], { env: { SECRET: secret } })
          const killed = ChildProcess.make("sh", ["-c", "kill -KILL $$", "sh", secret], { env: { SECRET: secret } })
          const nul = ChildProcess.make("true", [Redacted.make("hunter2\0")])
          const errors = [
            yield* Effect.flip(Effect.scoped(missing)),
            yield* Effect.flip(Effect.flatMap(killed, (handle) => handle.exitCode)),
            yield* Effect.flip(Effect.scoped(nul))
          ]
          for (const error of errors) {
            assert.notInclude(
              `${error.message} ${String(error.stack)} ${JSON.stringify(error)} ${String(error)}`,
              "hunter2"
            )
          }
        }))

      it.effect("NUL characters are a BadArgument", () =>
        Effect.gen(function*() {
          for (
            const command of [
              ChildProcess.make("tr\0ue"),
              ChildProcess.make("true", ["a\0b"]),
              ChildProcess.make("true", [], { cwd: "/tm\0p" }),
              ChildProcess.make("true", [], { env: { A: "a\0b" } })
            ]
          ) {
            assert.strictEqual((yield* Effect.flip(Effect.scoped(command))).reason._tag, "BadArgument")
          }
        }))

      it.effect("P26: a missing program and a bad cwd are a NotFound", () =>
        Effect.gen(function*() {
          const missing = yield* Effect.flip(Effect.scoped(ChildProcess.make("treeline-no-such-program")))
          assert.strictEqual(missing.reason._tag, "NotFound")
          const lost = yield* Effect.flip(Effect.scoped(ChildProcess.make("true", [], { cwd: "/no/such/directory" })))
          assert.strictEqual(lost.reason._tag, "NotFound")
        }))
    })

    describe("life and death", () => {
      it.effect("P25: isRunning", () =>
        Effect.gen(function*() {
          const handle = yield* ChildProcess.make("sleep", ["60"])
          assert.isTrue(yield* handle.isRunning)
          yield* handle.kill()
          assert.isFalse(yield* handle.isRunning)
        }))

      it.effect("P22: the process ends with its scope", () =>
        Effect.gen(function*() {
          const scratch = yield* Scratch.make
          yield* Effect.scoped(Effect.andThen(commandOf(role("plain", 1), scratch), scratch.awaitReported(1)))
          yield* assertNoneLiving(scratch)
        }))

      it.effect("killSignal is the signal of the close and of kill", () =>
        Effect.gen(function*() {
          const trapping = (scratch: Scratch.Scratch) =>
            having(
              sh(
                "trap 'echo \"usr1 $$\" >>\"$1\"; exit 0' USR1; echo \"up $$\" >>\"$1\"; while :; do sleep 0.02; done",
                scratch.report
              ),
              { killSignal: "SIGUSR1", forceKillAfter: "10 seconds" }
            )
          const closed = yield* Scratch.make
          yield* Effect.scoped(Effect.andThen(trapping(closed), closed.awaitReported(1)))
          assert.strictEqual(closed.reported().at(-1)?.name, "usr1")
          const killed = yield* Scratch.make
          const handle = yield* trapping(killed)
          yield* killed.awaitReported(1)
          yield* handle.kill({ killSignal: "SIGUSR1", forceKillAfter: "10 seconds" })
          assert.strictEqual(killed.reported().at(-1)?.name, "usr1")
        }))

      it.effect("P23: forceKillAfter escalates, for the close and for kill, in less than a second", () =>
        Effect.gen(function*() {
          const scratch = yield* Scratch.make
          const stubborn = commandOf(role("stubborn", 2), scratch, { forceKillAfter: "100 millis" })
          const handle = yield* stubborn
          yield* scratch.awaitReported(2)
          const kill = yield* elapsed(handle.kill({ forceKillAfter: "100 millis" }))
          yield* assertNoneLiving(scratch)
          const scope = yield* Scope.make()
          yield* Scope.provide(stubborn, scope)
          yield* scratch.awaitReported(4)
          const close = yield* elapsed(Scope.close(scope, Exit.void))
          yield* assertNoneLiving(scratch)
          assert.isAtLeast(Math.min(kill, close), 99)
        }))

      it.effect("unref lets it outlive its scope, and the effect that it returns takes it back", () =>
        Effect.gen(function*() {
          const scratch = yield* Scratch.make
          yield* Effect.scoped(Effect.gen(function*() {
            const handle = yield* commandOf(role("plain", 1), scratch)
            yield* handle.unref
            yield* scratch.awaitReported(1)
          }))
          const [free] = scratch.reported()
          yield* stays("it lives on", () => isAlive(free!), 150)
          yield* Effect.scoped(Effect.gen(function*() {
            const handle = yield* commandOf(role("plain", 1), scratch)
            yield* Effect.flatten(handle.unref)
            yield* scratch.awaitReported(2)
          }))
          assert.isFalse(isAlive(scratch.reported()[1]!))
          killIfAlive(free!)
        }))

      it.effect("P17: codes are values, a death by signal is an error", () =>
        Effect.gen(function*() {
          const spawner = yield* Spawn
          assert.strictEqual(yield* spawner.exitCode(sh("exit 7")), ExitCode(7))
          const killed = yield* sh("kill -KILL $$")
          assert.strictEqual((yield* Effect.flip(killed.exitCode)).reason._tag, "Unknown")
        }))

      it.effect("a command can be run again: it is a description", () =>
        Effect.gen(function*() {
          const command = sh("printf x")
          assert.strictEqual(yield* Effect.repeat(string(command), Schedule.recurs(2)).pipe(Effect.as("done")), "done")
          assert.strictEqual(yield* string(command), "x")
        }))
    })
  })

contract("the contract of effect/process on Treeline", treeline)
contract("the same on Effect's own layer, so that the contract is Effect's", NodeServices.layer)

layer(treeline, { excludeTestServices: true })("what Treeline does otherwise than Effect", (it) => {
  it.effect(
    "difference: a close is bounded by default: what ignores SIGTERM is killed after 5 s (Effect waits for ever)",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const scope = yield* Scope.make()
        yield* Scope.provide(commandOf(role("stubborn", 2), scratch), scope)
        yield* scratch.awaitReported(2)
        const took = yield* elapsed(Scope.close(scope, Exit.void))
        assert.isAtLeast(took, 4_990)
        assert.isBelow(took, 6_500)
        yield* assertNoneLiving(scratch)
      }),
    20_000
  )

  it.effect("difference: the default of 5 s is the layer's to choose", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const handle = yield* commandOf(role("stubborn", 2), scratch).pipe(
        Effect.provide(Spawner.layerWith({ forceKillAfter: "100 millis" }).pipe(Layer.provide(PosixPlatform.layer)))
      )
      yield* scratch.awaitReported(2)
      assert.isBelow(yield* elapsed(handle.kill()), 2_000)
      yield* assertNoneLiving(scratch)
    }))

  it.effect("difference: what has left the process group ends too (Effect leaves it)", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      yield* Effect.scoped(Effect.andThen(commandOf(role("daemon", 2), scratch), scratch.awaitReported(2)))
      yield* assertNoneLiving(scratch)
    }))

  it.effect("difference: output ends soon after the leader although a survivor holds the pipe (Effect waits for it)", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const handle = yield* sh(
        "sh -c 'echo \"holder $$\" >>\"$1\"; exec sleep 60' sh \"$1\" & echo said",
        scratch.report
      )
      const holder = yield* scratch.awaitNamed("holder")
      assert.strictEqual(yield* textOf(handle.stdout), "said\n")
      assert.isTrue(isAlive(holder))
    }))

  it.effect("difference: a pipeline's stage whose reader has gone loses its pipe, as in a shell (Effect holds it for ever)", () =>
    Effect.gen(function*() {
      const handle = yield* ChildProcess.pipeTo(ChildProcess.make("yes"), ChildProcess.make("head", ["-n", "3"]))
      assert.strictEqual(yield* textOf(handle.stdout), "y\ny\ny\n")
      const { decides, stages } = yield* Effect.timeout(Spawner.pipeStatus(handle), 5_000)
      assert.isFalse(ExitStatus.isSuccess(stages[0]!))
      assert.strictEqual(decides, stages[0])
    }))

  it.effect("difference: a negative or endless time is a BadArgument, and never \"kill now\" or \"never\"", () =>
    Effect.gen(function*() {
      for (const forceKillAfter of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
        const error = yield* Effect.flip(Effect.scoped(ChildProcess.make("true", [], { forceKillAfter })))
        assert.strictEqual(error.reason._tag, "BadArgument")
      }
      const handle = yield* ChildProcess.make("sleep", ["60"])
      const error = yield* Effect.flip(handle.kill({ forceKillAfter: -1 }))
      assert.strictEqual(error.reason._tag, "BadArgument")
      assert.isTrue(yield* handle.isRunning)
    }))
})

layer(treeline, { excludeTestServices: true })("what Treeline adds", (it) => {
  it.effect("exitStatus: the typed end in the error of a death by signal, and none in other errors", () =>
    Effect.gen(function*() {
      for (const signal of ["HUP", "INT", "TERM", "KILL", "SEGV"]) {
        const handle = yield* sh(`kill -${signal} $$; sleep 60`)
        const status = Spawner.exitStatus(yield* Effect.flip(handle.exitCode))
        assert.strictEqual(Option.getOrThrow(status)._tag, "Signaled")
        assert.include(JSON.stringify(Option.getOrThrow(status)), `SIG${signal}`)
      }
      const missing = yield* Effect.flip(Effect.scoped(ChildProcess.make("treeline-no-such-program")))
      assert.isTrue(Option.isNone(Spawner.exitStatus(missing)))
    }))

  it.effect("P4: signal: reaches the group, returns at once, and ends nothing that handles it", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const reloads =
        "trap 'echo \"reload $$\" >>\"$1\"' HUP; echo \"up $$\" >>\"$1\"; i=0; while [ $i -lt 2000 ]; do sleep 0.02; i=$((i + 1)); done"
      const handle = yield* sh(reloads, scratch.report)
      yield* scratch.awaitNamed("up")
      assert.deepStrictEqual(yield* Spawner.signal(handle, "SIGHUP"), { delivered: 1, denied: [] })
      yield* scratch.awaitNamed("reload")
      assert.isTrue(yield* handle.isRunning)
    }))

  it.effect("trees: one for a command, one for each stage of a pipeline, none for a handle of another spawner", () =>
    Effect.gen(function*() {
      const one = yield* ChildProcess.make("true")
      assert.deepStrictEqual(Spawner.trees(one).map(({ pid }) => pid), [Number(one.pid)])
      const two = yield* ChildProcess.pipeTo(sh("exit 0"), ChildProcess.make("cat"))
      assert.strictEqual(Spawner.trees(two).length, 2)
      assert.strictEqual(Spawner.trees(two)[1]!.pid, Number(two.pid))
      const foreign = yield* ChildProcess.make("true").pipe(Effect.provide(NodeServices.layer))
      assert.deepStrictEqual(Spawner.trees(foreign), [])
    }))

  it.effect("peer 29: pipeStatus: the first stage that failed decides", () =>
    Effect.gen(function*() {
      const handle = yield* sh("exit 0").pipe(
        ChildProcess.pipeTo(sh("cat; exit 5")),
        ChildProcess.pipeTo(sh("cat; exit 6")),
        ChildProcess.pipeTo(sh("cat"))
      )
      const { decides, stages } = yield* Spawner.pipeStatus(handle)
      assert.deepStrictEqual(stages, [0, 5, 6, 0].map(ExitStatus.exited))
      assert.deepStrictEqual(decides, ExitStatus.exited(5))
    }))

  it.effect("require: a level that can't be had is a BadArgument with the reason, and nothing runs", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const sealed = Spawner.layerWith({ require: "sealed" }).pipe(
        Layer.provide(PosixPlatform.layerWith({ engine: "portable" }))
      )
      const error = yield* Effect.flip(
        Effect.scoped(commandOf(role("plain", 1), scratch)).pipe(Effect.provide(sealed))
      )
      assert.strictEqual(error.reason._tag, "BadArgument")
      assert.include(error.message, "sealed")
      assert.deepStrictEqual(scratch.reported(), [])
    }))

  it.effect("peer 6: the rest of a failed leader's tree ends at once", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const handle = yield* commandOf(role("failed", 3), scratch)
      assert.strictEqual(yield* handle.exitCode, ExitCode(3))
      yield* scratch.awaitReported(3)
      yield* scratch.awaitNoneLiving()
    }))
})

/** A host whose only child inherits all its descriptors. */
const inheriting = `
  Promise.all([import("effect"), import("effect/process"), import("@treeline/core"), import("@treeline/platform-posix")])
    .then(async ([{ Effect, Layer }, { ChildProcess, ChildProcessSpawner }, { Spawner }, { PosixPlatform }]) => {
      const command = ChildProcess.make("sh", ["-c", "cat; echo err >&2"], { stdin: "inherit", stdout: "inherit", stderr: "inherit" })
      const program = ChildProcessSpawner.ChildProcessSpawner.use((spawner) => spawner.exitCode(command))
      await Effect.runPromise(program.pipe(Effect.provide(Spawner.layer.pipe(Layer.provide(PosixPlatform.layer)))))
    })
`

describe("inherit", () => {
  it("the child reads and writes the host's own stdin, stdout and stderr, and the host ends with its work", () => {
    const host = child_process.spawnSync(process.execPath, ["--conditions=source", "-e", inheriting], {
      cwd: fileURLToPath(new URL("..", import.meta.url)),
      input: "from the host",
      encoding: "utf8",
      timeout: 20_000
    })
    assert.deepStrictEqual([host.stdout, host.stderr, host.status], ["from the host", "err\n", 0])
  })
})

describe("controls", () => {
  it.live("control: Effect's own layer leaves what has left the group", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      yield* Effect.scoped(Effect.andThen(commandOf(role("daemon", 2), scratch), scratch.awaitReported(2)))
      const living = scratch.living()
      assert.isAbove(living.length, 0)
      yield* stays("the daemon lives on", () => living.some(isAlive), 150)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("control: Effect's own layer keeps an endless stage whose reader has gone", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const source = script("echo \"yes $$\" >>\"$1\"; exec yes", 1)
      const handle = yield* ChildProcess.pipeTo(
        commandOf(source, scratch),
        ChildProcess.make("head", ["-n", "3"])
      )
      assert.strictEqual(yield* textOf(handle.stdout), "y\ny\ny\n")
      yield* handle.exitCode
      const living = scratch.living()
      yield* stays("`yes` is held", () => living.length === 1 && living.every(isAlive), 200)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("control: a child of Node's child_process outlives what closed it", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const [program, ...args] = role("stubborn", 2).command(scratch)
      const child = child_process.spawn(program, args, { stdio: "ignore" })
      yield* scratch.awaitReported(2)
      child.kill()
      const living = scratch.living()
      yield* stays("both live", () => living.every(isAlive), 200)
      scratch.killLiving()
      yield* Effect.promise(() => once(child, "exit"))
    }))
})
