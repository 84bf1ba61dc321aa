/**
 * What only the engine of Linux does: native launches beside Node's own, adopted orphans, seals, and no growth.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Errors, ExitStatus, ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Context, Effect, Exit, Layer, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as child_process from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as v8 from "node:v8"
import * as vm from "node:vm"
import { Worker } from "node:worker_threads"
import { eventually, stays } from "../support/Eventually.ts"
import * as Host from "../support/Host.ts"
import { identify, isAlive, killIfAlive, stateOf } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"

const isRoot = process.getuid?.() === 0

const sh = (script: string, options?: ChildProcess.CommandOptions) =>
  ChildProcess.make("/bin/sh", ["-c", script], options)
const quiet = { stdin: "ignore", stdout: "ignore", stderr: "ignore" } as const
const soon = ShutdownPlan.terminate({ within: 300 })

/** One more platform in this process; it ends with the scope. */
const another = Effect.map(
  Layer.build(PosixPlatform.layerWith({ hostDeathGrace: 400 })),
  (context) => Context.get(context, ProcessPlatform.ProcessPlatform)
)

const textOf = (command: ChildProcess.StandardCommand, options?: ProcessPlatform.LaunchOptions) =>
  ProcessPlatform.ProcessPlatform.use((platform) => platform.launch(command, options)).pipe(
    Effect.flatMap((tree) => Stream.mkString(Stream.decodeText(tree.stdout.stream))),
    Effect.scoped
  )

const descriptors = () => fs.readdirSync("/proc/self/fd")

/** Every listener on the process object. */
const listeners = () => process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)

describe.runIf(Host.isNative)("the engine of Linux", () => {
  layer(PosixPlatform.layer, { excludeTestServices: true })((it) => {
    it.effect("is what PosixPlatform.layer gives here", () =>
      Effect.gen(function*() {
        const report = yield* ProcessPlatform.ProcessPlatform.use((platform) => platform.containment)
        assert.match(report.platform, /native engine/)
        assert.strictEqual(report.level, "tagged")
      }))

    it.effect("a child can open /dev/stdout, /dev/stderr and /dev/stdin by name, because its pipes are pipes", () =>
      Effect.gen(function*() {
        const text = yield* textOf(
          sh("echo one >/dev/stdout; cat /dev/stdin >/dev/stdout; echo two | tee /dev/stdout", {
            stdin: Stream.make(new TextEncoder().encode("typed\n"))
          })
        )
        assert.strictEqual(text, "one\ntyped\ntwo\ntwo\n")
        // The control: Node's pipes are sockets, which can't be opened.
        const node = child_process.spawn("/bin/sh", ["-c", "echo one >/dev/stdout"], { stdio: "pipe" })
        assert.notStrictEqual((yield* Effect.promise(() => once(node, "exit")))[0], 0)
      }))

    it.effect("a program sees the name it was called by, its arguments and exactly the environment it was given", () =>
      Effect.gen(function*() {
        const env = { "a.b": "dotted", "PLAIN": "x", "EMPTY": "" }
        const text = yield* textOf(ChildProcess.make("env", [], { env: { ...env, PATH: process.env["PATH"] } }))
        const seen = Object.fromEntries(text.trim().split("\n").map((line) => line.split(/=(.*)/s).slice(0, 2)))
        delete seen["TREELINE_TREE"]
        assert.deepStrictEqual(seen, { ...env, PATH: process.env["PATH"] })
        const name = yield* textOf(ChildProcess.make("sh", ["-c", "tr '\\0' ' ' </proc/$$/cmdline", "a b", "c"]))
        assert.strictEqual(name, "sh -c tr '\\0' ' ' </proc/$$/cmdline a b c ")
      }))

    it.effect("signals are as at login: nothing ignored, nothing blocked", () =>
      Effect.gen(function*() {
        const text = yield* textOf(ChildProcess.make("/bin/cat", ["/proc/self/status"]))
        assert.match(text, /^SigBlk:\s+0+$/m)
        // glibc keeps two signals of its threads to itself (bits 32 and 33).
        const ignored = BigInt(`0x${/^SigIgn:\s+(\w+)$/m.exec(text)![1]!}`) & ~(0b11n << 31n)
        assert.strictEqual(ignored, 0n)
      }))

    it.effect("peer 64: no descriptor but those that were asked for, not even one that the host inherited", () =>
      Effect.gen(function*() {
        const script = "import fs from \"node:fs\"; import { ProcessPlatform } from \"@treeline/core\";" +
          "import { PosixPlatform } from \"@treeline/platform-posix\"; import { Effect, Stream } from \"effect\";" +
          "import { ChildProcess } from \"effect/process\"; import * as Libc from \"./packages/platform-posix/src/linux/Libc.ts\";" +
          // As in musl, and in glibc before 2.34.
          "if (process.argv[1] === \"without\") Libc.load().actionsAddCloseFrom = undefined;" +
          "const text = ProcessPlatform.ProcessPlatform.use((p) => p.launch(ChildProcess.make(\"ls\", [\"/proc/self/fd\"])))" +
          ".pipe(Effect.flatMap((t) => Stream.mkString(Stream.decodeText(t.stdout.stream))), Effect.scoped, Effect.provide(PosixPlatform.layer));" +
          "console.log((await Effect.runPromise(text)).trim().split(/\\s+/).join(\" \"))"
        for (const closeFrom of ["with", "without"]) {
          const run = child_process.spawnSync("bash", [
            "-c",
            "exec 200</dev/null; exec \"$@\"",
            "bash",
            process.execPath,
            "--conditions=source",
            "--input-type=module",
            "-e",
            script,
            closeFrom
          ], { encoding: "utf8" })
          // 3 is the folder that ls reads.
          assert.strictEqual(run.stdout, "0 1 2 3\n", `${closeFrom} addclosefrom_np: ${run.stderr}`)
        }
      }))

    it.effect("peer 65: errors are exact: a script without #!, a cut-off program, a missing interpreter", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const file = (name: string, content: string | Uint8Array, mode = 0o755) => {
          fs.writeFileSync(scratch.file(name), content, { mode })
          return ChildProcess.make(scratch.file(name))
        }
        assert.strictEqual(yield* textOf(file("script", "echo $0 ran\n")), `${scratch.file("script")} ran\n`)
        const reasonOf = (command: ChildProcess.StandardCommand) =>
          Effect.map(
            Effect.flip(textOf(command)),
            (error) => error instanceof Errors.LaunchError ? error.reason : error._tag
          )
        assert.strictEqual(yield* reasonOf(file("cut", "\x7fELF")), "NotExecutable")
        assert.strictEqual(yield* reasonOf(file("bytes", new Uint8Array(64))), "NotExecutable")
        assert.strictEqual(yield* reasonOf(file("lost", "#!/no/such/interpreter\n")), "NotFound")
        assert.strictEqual(yield* reasonOf(file("closed", "#!/bin/sh\n", 0o644)), "PermissionDenied")
        assert.strictEqual(yield* reasonOf(ChildProcess.make("/")), "PermissionDenied")
        assert.strictEqual(yield* reasonOf(ChildProcess.make("/no/such/program")), "NotFound")
        assert.strictEqual(
          yield* reasonOf(ChildProcess.make("true", [], { cwd: "/no/such/folder" })),
          "BadWorkingDirectory"
        )
        assert.strictEqual(yield* reasonOf(ChildProcess.make("true", ["x".repeat(4_000_000)])), "InvalidArgument")
      }))

    it.effect("peer 67: a death with a core is told from one without", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const status = (script: string) =>
          ProcessPlatform.ProcessPlatform.use((platform) =>
            platform.launch(sh(script, { ...quiet, cwd: scratch.directory }))
          ).pipe(Effect.flatMap((tree) => tree.exited), Effect.scoped)
        assert.deepStrictEqual(yield* status("ulimit -c 0; kill -SEGV $$"), ExitStatus.signaled("SIGSEGV", false))
        assert.deepStrictEqual(yield* status("kill -TERM $$"), ExitStatus.signaled("SIGTERM", false))
      }))

    it.effect(
      "200 launches mixed with Node's own: every exit of both is seen, with its own code",
      () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform.ProcessPlatform
          const outcomes = yield* Effect.forEach(
            Array.from({ length: 200 }, (_, index) => index),
            (index) =>
              index % 2 === 0
                ? Effect.promise(async () => {
                  const child = child_process.spawn("/bin/sh", ["-c", `exit ${index}`], { stdio: "ignore" })
                  return (await once(child, "exit"))[0] === index
                })
                : Effect.scoped(Effect.gen(function*() {
                  const tree = yield* platform.launch(sh(`exit ${index}`, quiet))
                  const status = yield* tree.exited
                  return status._tag === "Exited" && status.code === index
                })),
            { concurrency: 32 }
          )
          assert.isTrue(outcomes.every((good) => good))
          assert.strictEqual(child_process.spawnSync("/bin/sh", ["-c", "exit 9"]).status, 9)
        }),
      60_000
    )

    it.effect(
      "peer 122: 1,000 children that exit in one burst are all seen, and none stays a zombie",
      () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform.ProcessPlatform
          const scratch = yield* Scratch.make
          const gate = scratch.file("gate")
          child_process.execFileSync("mkfifo", [gate])
          yield* Effect.scoped(Effect.gen(function*() {
            const trees = yield* Effect.forEach(
              Array.from({ length: 1000 }),
              // The read ends for all of them at once, when the writer goes.
              () => platform.launch(sh(`read x <"${gate}"; exit 7`, quiet))
            )
            const writer = yield* Effect.promise(() => fs.promises.open(gate, "w"))
            yield* eventually("all wait at the gate", () => trees.every(({ pid }) => stateOf(pid) === "S"), {
              within: 20_000
            })
            yield* Effect.promise(() => writer.close())
            const statuses = yield* Effect.forEach(trees, (tree) => tree.exited, { concurrency: "unbounded" })
            assert.isTrue(statuses.every((status) => status._tag === "Exited" && status.code === 7))
            yield* Effect.forEach(trees, (tree) => tree.empty, { concurrency: "unbounded" })
            assert.deepStrictEqual(trees.filter(({ pid }) => stateOf(pid) === "Z"), [])
          }))
        }),
      60_000
    )

    it.effect(
      "peer 124: 300 long-lived children: closed within a second, and the loop never stalls",
      () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform.ProcessPlatform
          const scope = yield* Scope.make()
          const trees = yield* Effect.forEach(
            Array.from({ length: 300 }),
            () => Scope.provide(platform.launch(ChildProcess.make("/bin/sleep", ["60"])), scope)
          )
          const delay = monitorEventLoopDelay({ resolution: 5 })
          delay.enable()
          const startedAt = performance.now()
          yield* Scope.close(scope, Exit.void)
          const took = performance.now() - startedAt
          delay.disable()
          assert.deepStrictEqual(trees.filter(({ pid }) => fs.existsSync(`/proc/${pid}`)), [])
          assert.isBelow(took, 1000)
          assert.isBelow(delay.max / 1e6, 250)
        }),
      60_000
    )

    it.effect("peer 125: exits while the event loop is blocked for 500 ms are not lost", () =>
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        yield* Effect.scoped(Effect.gen(function*() {
          const trees = yield* Effect.forEach(Array.from({ length: 100 }), (_, i) =>
            platform.launch(sh(`exit ${i}`, quiet)))
          const until = performance.now() + 500
          while (performance.now() < until);
          const statuses = yield* Effect.forEach(trees, (tree) =>
            tree.exited, { concurrency: "unbounded" })
          assert.deepStrictEqual(statuses, trees.map((_, i) => ExitStatus.exited(i)))
        }))
      }))

    it.effect("orphans come to the host, are seen as members, and leave no zombies", () =>
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        const scratch = yield* Scratch.make
        const [file, ...args] = Host.treeCommand("cleared", scratch)
        const scope = yield* Scope.make()
        const tree = yield* Scope.provide(
          platform.launch(ChildProcess.make(file!, args, quiet), { shutdown: soon }),
          scope
        )
        const reported = yield* scratch.awaitReported(2)
        const daemon = reported.find(({ name }) => name === "quiet")!
        yield* eventually("it is adopted", () =>
          /^PPid:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${daemon.pid}/status`, "utf8"))![1] === String(process.pid))
        assert.include(
          (yield* tree.members).map(({ pid }) =>
            pid
          ),
          daemon.pid
        )
        yield* Scope.close(scope, Exit.void)
        for (const { pid } of reported) assert.isFalse(fs.existsSync(`/proc/${pid}`))
      }))

    it.effect("two platforms in one process leave each other's children alone", () =>
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        const leave = sh("sleep 60 & exit 0", quiet)
        yield* Effect.scoped(Effect.gen(function*() {
          const here = yield* platform.launch(leave, { shutdown: soon })
          yield* Effect.scoped(Effect.gen(function*() {
            const second = yield* another
            const there = yield* second.launch(leave, { shutdown: soon })
            const held = () => stateOf(here.pid) === "Z" && stateOf(there.pid) === "Z"
            yield* eventually("both leaders have ended", held)
            // Both leaders are held while something of their trees lives, longer than an unclaimed zombie would be.
            yield* stays("both are held", held, 3500)
            assert.strictEqual((yield* there.members).length, 1)
          }))
          assert.strictEqual((yield* here.members).length, 1)
        }))
      }))

    it.effect("a tree that outlives the scope of its platform is ended all the same", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const [file, ...args] = Host.treeCommand("stubborn", scratch)
        yield* Effect.scoped(Effect.gen(function*() {
          const scope = yield* Effect.scope
          const launch = Effect.flatMap(another, (platform) =>
            Scope.provide(platform.launch(ChildProcess.make(file!, args, quiet), { shutdown: soon }), scope))
          yield* Effect.scoped(launch)
          yield* scratch.awaitReported(2)
        }))
        assert.deepStrictEqual(scratch.living(), [])
      }))

    it.effect("a tree that was let go is given back when the last of it has ended, long after its leader", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const before = listeners()
        const pid = yield* Effect.scoped(Effect.gen(function*() {
          const platform = yield* another
          const command = sh(`setsid sleep 300 & echo $! > ${scratch.report}; exit 0`, quiet)
          const tree = yield* Effect.scoped(
            Effect.tap(platform.launch(command, { shutdown: soon }), (tree) => tree.setReferenced(false))
          )
          yield* tree.exited
          return tree.pid
        }))
        yield* eventually("it has reported", () => fs.readFileSync(scratch.report, "utf8").trim() !== "")
        const daemon = identify(Number(fs.readFileSync(scratch.report, "utf8")))!
        yield* Effect.addFinalizer(() => Effect.sync(() => killIfAlive(daemon)))
        assert.isTrue(isAlive(daemon))
        assert.strictEqual(stateOf(pid), "Z", "the number of its leader is held")
        process.kill(daemon.pid, "SIGKILL")
        yield* eventually(
          "both numbers are free",
          () => ![pid, daemon.pid].some((pid) => fs.existsSync(`/proc/${pid}`))
        )
        yield* eventually("the watch has ended", () => listeners() === before)
      }))

    it.effect("platforms that close over a released tree hold no descriptor any more", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const [file, ...args] = Host.treeCommand("plain", scratch)
        const release = Effect.flatMap(another, (platform) => platform.launch(ChildProcess.make(file!, args, quiet)))
          .pipe(Effect.flatMap((tree) => tree.setReferenced(false)), Effect.scoped)
        const records = () =>
          descriptors().filter((fd) => {
            try {
              return fs.readlinkSync(`/proc/self/fd/${fd}`).endsWith(".host")
            } catch {
              return false // closed since the folder was read
            }
          }).length
        const before = [records(), listeners()]
        for (let round = 0; round < 3; round++) yield* release
        yield* scratch.awaitReported(3)
        assert.strictEqual(records(), before[0])
        scratch.killLiving()
        yield* eventually("the watch has ended", () => listeners() === before[1])
      }))

    it.effect("a daemon of the user that comes to the host is left alone, and reaped when it has ended", () =>
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        // So is an orphan of the portable engine, which has this host's tag and nobody who reaps it.
        const orphan = yield* Effect.scoped(Effect.gen(function*() {
          const context = yield* Layer.build(PosixPlatform.layerWith({ engine: "portable" }))
          const portable = Context.get(context, ProcessPlatform.ProcessPlatform)
          const leaves = sh("sleep 60 >/dev/null 2>&1 & echo $!", { stdin: "ignore" })
          const tree = yield* portable.launch(leaves, { shutdown: ShutdownPlan.kill })
          return Number(yield* Stream.mkString(Stream.decodeText(tree.stdout.stream)))
        }))
        assert.strictEqual(stateOf(orphan), "Z")
        const out = child_process.execFileSync("/bin/sh", ["-c", "sleep 0.4 >/dev/null 2>&1 & echo $!"], {
          encoding: "utf8"
        })
        const stranger = identify(Number(out))!
        yield* Effect.scoped(Effect.gen(function*() {
          yield* platform.launch(ChildProcess.make("/bin/sleep", ["60"]), { shutdown: soon })
        }))
        assert.isTrue(isAlive(stranger))
        yield* eventually(
          "both are reaped",
          () => [stranger.pid, orphan].every((pid) => !fs.existsSync(`/proc/${pid}`)),
          { within: 15_000 }
        )
      }))

    it("a host that may not be a subreaper has the portable engine, and says why", () => {
      const run = child_process.spawnSync(process.execPath, [
        "--conditions=source",
        "--input-type=module",
        "-e",
        `import * as Libc from "./packages/platform-posix/src/linux/Libc.ts"
        import * as LinuxEngine from "./packages/platform-posix/src/LinuxEngine.ts"
        console.log(LinuxEngine.unavailable())
        Libc.load().prctl = () => -1
        console.log(LinuxEngine.unavailable())`
      ], { encoding: "utf8" })
      assert.strictEqual(run.stdout, "undefined\nprctl(2) refuses PR_SET_CHILD_SUBREAPER\n", run.stderr)
    })

    it("orphans come to a host while it has a platform, and to nobody of it afterwards", () => {
      const run = child_process.spawnSync(process.execPath, [
        "--conditions=source",
        "--input-type=module",
        "-e",
        adopter
      ], { encoding: "utf8" })
      assert.strictEqual(run.stdout, "false true true false\n", run.stderr)
    })

    it.effect("10,000 launches: no descriptor, listener or memory more", () =>
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        const launches = (count: number) =>
          Effect.forEach(
            Array.from({ length: count }),
            () =>
              Effect.scoped(Effect.flatMap(platform.launch(ChildProcess.make("/bin/true")), (tree) => tree.drained)),
            { concurrency: 8, discard: true }
          )
        const state = () => {
          collectGarbage()
          return {
            descriptors: descriptors().length,
            listeners: listeners(),
            heap: process.memoryUsage().heapUsed / 1024 / 1024
          }
        }
        yield* launches(2000)
        const before = state()
        yield* launches(8000)
        const after = state()
        assert.isAtMost(after.descriptors, before.descriptors + 2)
        assert.isAtMost(after.listeners, before.listeners)
        assert.isBelow(after.heap - before.heap, 4)
      }), 120_000)

    it.effect("a tree's usage is what its processes use", () =>
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        yield* Effect.scoped(Effect.gen(function*() {
          const tree = yield* platform.launch(sh("while :; do :; done & sleep 60", quiet), { shutdown: soon })
          yield* Effect.promise(async () => {
            for (;;) if ((await Effect.runPromise(tree.usage)).cpu >= 50) return
          })
          const usage = yield* tree.usage
          assert.strictEqual(usage.processes, 3)
          assert.isAbove(usage.memory, 100_000)
        }))
      }))
  })

  describe("sealed", () => {
    for (const seal of ["cgroup", "pid-namespace"] as const) {
      const sealed = PosixPlatform.layerWith({ seal })
      layer(sealed, { excludeTestServices: true })((it) => {
        const whenSealed = (body: Effect.Effect<void, unknown, ProcessPlatform.ProcessPlatform | Scope.Scope>) =>
          Effect.gen(function*() {
            const { highest, raise } = yield* ProcessPlatform.ProcessPlatform.use((platform) => platform.containment)
            // Some machines allow neither; then the level has to say so, and nothing is started.
            if (highest === "sealed") return yield* body
            const platform = yield* ProcessPlatform.ProcessPlatform
            const error = yield* Effect.flip(Effect.scoped(platform.launch(sh("exit 0"), { require: "sealed" })))
            assert.strictEqual(error._tag, "ContainmentUnavailable", raise)
          })

        it.effect(`peer 18: ${seal}: a member that sheds tag, environment, session and parents ends all the same`, () =>
          whenSealed(Effect.gen(function*() {
            const platform = yield* ProcessPlatform.ProcessPlatform
            const scratch = yield* Scratch.make
            const [file, ...args] = Host.treeCommand("shed", scratch)
            const scope = yield* Scope.make()
            const command = ChildProcess.make(file!, args, quiet)
            const tree = yield* Scope.provide(platform.launch(command, { require: "sealed", shutdown: soon }), scope)
            assert.strictEqual(tree.level, "sealed")
            yield* eventually("all have reported", () => scratch.reported().length >= 2)
            yield* Scope.close(scope, Exit.void)
            // Inside a pid namespace programs report the numbers that they see, so the kernel's list is asked.
            yield* eventually(
              "none runs tree.sh any more",
              () => !commandLines().some((line) => line.includes(scratch.report))
            )
          })))

        it.effect(`peer 20: ${seal}: SIGTERM reaches a program without handlers, codes and signals come through`, () =>
          whenSealed(Effect.gen(function*() {
            const platform = yield* ProcessPlatform.ProcessPlatform
            const run = (script: string, stop: boolean) =>
              Effect.scoped(Effect.gen(function*() {
                const tree = yield* platform.launch(sh(`echo ready; ${script}`, { stdin: "ignore" }), {
                  require: "sealed"
                })
                yield* Stream.runHead(tree.stdout.stream)
                const startedAt = performance.now()
                if (stop) yield* tree.shutdown()
                const status = yield* tree.exited
                return { code: ExitStatus.toShellCode(status), took: performance.now() - startedAt, pid: tree.pid }
              }))
            const stopped = yield* run("exec sleep 60", true)
            assert.strictEqual(stopped.code, 143)
            assert.isBelow(stopped.took, 2000)
            assert.strictEqual((yield* run("exit 3", false)).code, 3)
            assert.strictEqual((yield* run("kill -KILL $$", false)).code, 137)
          })))

        for (const env of [{}, { TMPDIR: "/dev/null" }]) {
          const record = "TMPDIR" in env ? ", also without a record" : ""
          it.effect(`peer 15: ${seal}: a host that is killed leaves nothing sealed behind${record}`, () =>
            whenSealed(Effect.gen(function*() {
              const scratch = yield* Scratch.make
              const spec = { command: Host.treeCommand("shed", scratch), require: "sealed" as const, seal }
              const host = yield* Host.start({ on: "treeline", scratch, spec, env })
              yield* eventually("all have reported", () => scratch.reported().length >= 2)
              host.signal("SIGKILL")
              yield* host.awaitDead
              yield* eventually(
                "none runs tree.sh any more",
                () => !commandLines().some((line) => line.includes(scratch.report)),
                {
                  within: 10_000
                }
              )
              yield* eventually(
                "its group is removed",
                () => !hostGroups().some((name) => name.includes(`-${host.identity.pid}-`))
              )
            })))
        }

        it.effect(`peer 21: ${seal}: limits that can't be kept are refused, and nothing is started`, () =>
          whenSealed(Effect.gen(function*() {
            const platform = yield* ProcessPlatform.ProcessPlatform
            const scratch = yield* Scratch.make
            const [file, ...args] = Host.treeCommand("plain", scratch)
            const outcome = yield* Effect.exit(
              Effect.scoped(platform.launch(ChildProcess.make(file!, args), { limits: { memory: 50_000_000 } }))
            )
            if (Exit.isSuccess(outcome)) return // the memory controller is here
            const error = yield* Effect.flip(outcome)
            assert.strictEqual(error._tag, "ContainmentUnavailable")
            yield* stays("nothing runs", () => scratch.reported().length === 0, 200)
          })))
      })
    }

    layer(PosixPlatform.layerWith({ seal: "cgroup" }), { excludeTestServices: true })((it) => {
      const canSeal = Effect.map(
        ProcessPlatform.ProcessPlatform.use((platform) => platform.containment),
        ({ highest }) => highest === "sealed"
      )
      const busy = "trap 'exit 7' TERM; echo ready; while :; do :; done"

      it.effect("a frozen tree does nothing, and goes on when it is let", () =>
        Effect.gen(function*() {
          if (!(yield* canSeal)) return
          const platform = yield* ProcessPlatform.ProcessPlatform
          const tree = yield* platform.launch(sh(`(${busy}) & ${busy}`), { require: "sealed", shutdown: soon })
          yield* Stream.runHead(tree.stdout.stream)
          yield* tree.setFrozen(true)
          const { cpu } = yield* tree.usage
          for (let look = 0; look < 20; look++) {
            yield* Effect.sleep(10)
            assert.strictEqual((yield* tree.usage).cpu, cpu)
          }
          yield* tree.setFrozen(false)
          while ((yield* tree.usage).cpu <= cpu) yield* Effect.sleep(5)
        }))

      it.effect("a frozen tree that is to end sees the signals of its plan", () =>
        Effect.gen(function*() {
          if (!(yield* canSeal)) return
          const platform = yield* ProcessPlatform.ProcessPlatform
          const tree = yield* platform.launch(sh(busy), { require: "sealed" })
          yield* Stream.runHead(tree.stdout.stream)
          yield* tree.setFrozen(true)
          assert.deepStrictEqual(yield* tree.shutdown(), [])
          assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(7))
        }))

      it.effect("a tree without a group can't be frozen, and says what to do", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform.ProcessPlatform
          const tree = yield* platform.launch(sh("sleep 60"), { shutdown: soon })
          const error = yield* Effect.flip(tree.setFrozen(true))
          assert.strictEqual(error._tag, "ContainmentUnavailable")
          assert.match(error.message, /launch it with `require: "sealed"`/)
        }))

      it.effect.runIf(isRoot)(
        "peer 21: where no group can be made, requiring one fails with the reason",
        () =>
          Effect.gen(function*() {
            const scratch = yield* Scratch.make
            const spec = {
              command: Host.treeCommand("plain", scratch),
              require: "sealed" as const,
              seal: "cgroup" as const
            }
            const host = yield* Effect.exit(Host.start({ on: "treeline", scratch, spec, user: Host.unprivileged }))
            assert.isTrue(Exit.isFailure(host))
            assert.match(String(host), /no group can be made|ContainmentUnavailable/)
            yield* stays("nothing runs", () => scratch.reported().length === 0, 200)
          })
      )
    })
  })

  layer(PosixPlatform.layer, { excludeTestServices: true })((it) => {
    it.effect("a Worker has the portable engine, at the same level, and says why", () =>
      Effect.gen(function*() {
        const worker = new Worker(new URL("../fixtures/workerReport.ts", import.meta.url), {
          execArgv: ["--conditions=source"]
        })
        const [report] = yield* Effect.promise(() => once(worker, "message"))
        yield* Effect.promise(() => worker.terminate())
        assert.match(report.platform, /portable engine/)
        assert.strictEqual(report.level, "tagged")
        assert.match(JSON.stringify(report.mechanisms), /a Worker sees no SIGCHLD/)
      }))

    it.effect("without koffi the portable engine takes over, visibly, and ends the tree as well", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const hook = scratch.file("no-koffi.cjs")
        fs.writeFileSync(
          hook,
          "const Module = require('node:module'); const load = Module._load;" +
            "Module._load = function (name, ...rest) { if (name === 'koffi') throw new Error('no koffi here'); return load.call(this, name, ...rest) }"
        )
        const host = yield* Host.start({
          on: "treeline",
          scratch,
          env: { NODE_OPTIONS: `--require=${hook}` },
          spec: { command: Host.treeCommand("cleared", scratch), say: "containment" }
        })
        yield* scratch.awaitReported(2)
        const line = yield* host.awaitLine("containment")
        assert.match(line, /portable engine/)
        assert.match(line, /koffi could not be loaded/)
        host.signal("SIGKILL")
        yield* host.awaitDead
        yield* scratch.awaitNoneLiving(10_000)
      }))
  })
})

/** A host of its own, which says whether orphans come to it: before, with two platforms, with one, and after the last. */
const adopter = `
  import { PosixPlatform } from "@treeline/platform-posix"
  import { Effect, Exit, Layer, Scope } from "effect"
  import * as child_process from "node:child_process"
  import * as fs from "node:fs"
  const adopts = () => {
    const script = "(sleep 60 >/dev/null 2>&1 & echo $!)"
    const orphan = Number(child_process.execFileSync("/bin/sh", ["-c", script], { encoding: "utf8" }))
    const parent = /^PPid:\\s+(\\d+)/m.exec(fs.readFileSync("/proc/" + orphan + "/status", "utf8"))[1]
    process.kill(orphan, "SIGKILL")
    return Number(parent) === process.pid
  }
  const build = async () => {
    const scope = Scope.makeUnsafe()
    await Effect.runPromise(Layer.buildWithScope(PosixPlatform.layerWith({ sweepOrphaned: false }), scope))
    return () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
  const answers = [adopts()]
  const first = await build()
  const second = await build()
  answers.push(adopts())
  await first()
  answers.push(adopts())
  await second()
  answers.push(adopts())
  console.log(answers.join(" "))
`

/** A full collection, so that what is left of the heap is in use. */
const collectGarbage = (): void => {
  v8.setFlagsFromString("--expose-gc")
  vm.runInNewContext("gc")()
}

/** The command lines of all living processes. */
const commandLines = (): ReadonlyArray<string> =>
  fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((pid) => {
    try {
      return [fs.readFileSync(`/proc/${pid}/cmdline`, "utf8")]
    } catch {
      return []
    }
  })

/** The control groups of hosts. */
const hostGroups = (): ReadonlyArray<string> => {
  const mount = /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(fs.readFileSync("/proc/self/mountinfo", "utf8"))?.[1]
  return mount === undefined ? [] : fs.readdirSync(mount).filter((name) => name.startsWith("treeline-"))
}
