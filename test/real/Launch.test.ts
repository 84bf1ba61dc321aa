import { assert, layer } from "@effect/vitest"
import { ExitStatus, ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Fiber, Option, Scheduler, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import { eventually } from "../support/Eventually.ts"
import { isNative } from "../support/Host.ts"
import { stateOf } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import { assertNoneLiving } from "../support/Trees.ts"

const sh = (script: string, ...args: ReadonlyArray<string>) => ChildProcess.make("sh", ["-c", script, "sh", ...args])

const textOf = <E>(stream: Stream.Stream<Uint8Array, E>) => Stream.mkString(Stream.decodeText(stream))

/** Descriptors of this process. */
const descriptors = (): number => fs.readdirSync("/proc/self/fd").length

/** Descriptors above 2 that this process got from its own parent, and would pass on: those without O_CLOEXEC. */
const inherited = (): ReadonlyArray<number> =>
  fs.readdirSync("/proc/self/fdinfo").map(Number).filter((fd) => {
    try {
      const flags = /^flags:\s*([0-7]+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1]
      return fd > 2 && flags !== undefined && (Number.parseInt(flags, 8) & 0o2000000) === 0
    } catch {
      return false // the descriptor of this very look
    }
  })

/** Children of this process, living and dead. */
const children = (): ReadonlySet<number> =>
  new Set(
    fs.readdirSync("/proc/self/task").flatMap((task) => {
      try {
        return fs.readFileSync(`/proc/self/task/${task}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number)
      } catch {
        return [] // the thread has ended
      }
    })
  )

/** Processes whose environment has `cookie`, living ones only. */
const carriers = (cookie: string): ReadonlyArray<number> =>
  fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      return fs.readFileSync(`/proc/${pid}/environ`, "latin1").includes(cookie)
    } catch {
      return false // it has gone, or is a stranger's
    }
  })

/** Everything that a leak would leave in this process. */
const holdings = () => {
  const resources: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1
  const listeners: Record<string, number> = {}
  for (const event of process.eventNames()) listeners[String(event)] = process.listenerCount(event)
  return { descriptors: descriptors(), resources, listeners }
}

/** What `now` has more than `before`. */
const more = (now: Record<string, number>, before: Record<string, number>) =>
  Object.fromEntries(Object.entries(now).filter(([kind, count]) => count > (before[kind] ?? 0)))

/** What is held now and was not held before; what Node gives back late is awaited. */
const assertNothingMoreThan = (before: ReturnType<typeof holdings>) => {
  const surplus = () => {
    const now = holdings()
    return {
      descriptors: Math.max(0, now.descriptors - before.descriptors),
      resources: more(now.resources, before.resources),
      listeners: more(now.listeners, before.listeners)
    }
  }
  const none = { descriptors: 0, resources: {}, listeners: {} }
  return Effect.asVoid(eventually(
    "all is given back",
    () => JSON.stringify(surplus()) === JSON.stringify(none),
    { within: 3_000, detail: surplus }
  ))
}

/** A generator of numbers from 0 to 1 that can be run again: mulberry32. */
const random = (seed: number) => () => {
  seed = (seed + 0x6D2B79F5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

const { ProcessPlatform: Platform } = ProcessPlatform

/** The guardian and what starts with the first launch are not counted; what earlier tests held has been given back. */
const warmUp = Effect.gen(function*() {
  yield* Effect.scoped(
    Effect.flatMap(Platform.use((platform) => platform.launch(ChildProcess.make("true"))), (tree) => tree.exited)
  )
  yield* eventually("earlier children are gone", () => holdings().resources["ProcessWrap"] === undefined)
})

/** A scheduler that may switch fibers after every single step, so that an interruption can come between any two. */
const everyStep = (next: () => number): Scheduler.Scheduler => ({
  executionMode: "async",
  shouldYield: () => next() < 0.2,
  makeDispatcher: () => {
    let tasks: Array<() => void> = []
    let armed = false
    const flush = () => {
      armed = false
      const now = tasks
      tasks = []
      for (const task of now) task()
    }
    return {
      flush,
      scheduleTask: (task) => {
        tasks.push(task)
        if (armed) return
        armed = true
        setImmediate(flush)
      }
    }
  }
})

/** A scheduler that sends a fiber away, once, before the first step that comes after the start of a process. */
const rightAfterStart = (ms: number): Scheduler.Scheduler => {
  const familiar = children()
  let sentAway = false
  const away = (): boolean => {
    if (sentAway) return false
    sentAway = [...children()].some((pid) => !familiar.has(pid))
    return sentAway
  }
  return {
    executionMode: "async",
    shouldYield: away,
    makeDispatcher: () => ({
      flush: () => {},
      scheduleTask: (task) => void setTimeout(task, sentAway ? ms : 0)
    })
  }
}

layer(PosixPlatform.layer, { excludeTestServices: true })("a launch that fails", (it) => {
  it.effect("peer 65, P15, P26: each way has its reason, and leaves no zombie and no descriptor", () =>
    Effect.gen(function*() {
      yield* warmUp
      const scratch = yield* Scratch.make
      const plain = scratch.file("plain")
      fs.writeFileSync(plain, "echo hi\n", { mode: 0o644 })
      const binary = scratch.file("binary")
      fs.writeFileSync(binary, Buffer.from([0, 1, 2, 3]), { mode: 0o755 })
      const cut = scratch.file("cut")
      fs.writeFileSync(cut, "\x7fELF", { mode: 0o755 })
      const lost = scratch.file("lost")
      fs.writeFileSync(lost, "#!/no/such/interpreter\n", { mode: 0o755 })
      const uncaught: Array<unknown> = []
      const listen = (error: unknown) => void uncaught.push(error)
      const before = { descriptors: descriptors(), children: children() }
      process.on("uncaughtException", listen)
      process.on("unhandledRejection", listen)
      const failures: ReadonlyArray<readonly [ChildProcess.StandardCommand, string]> = [
        [ChildProcess.make("treeline-no-such-program"), "NotFound"],
        [ChildProcess.make("/no/such/program"), "NotFound"],
        [ChildProcess.make(lost), "NotFound"],
        [ChildProcess.make(plain), "PermissionDenied"],
        [ChildProcess.make(scratch.directory), "PermissionDenied"],
        [ChildProcess.make(binary), "NotExecutable"],
        [ChildProcess.make(cut), "NotExecutable"],
        [ChildProcess.make("true", ["x".repeat(200_000)]), "InvalidArgument"],
        [ChildProcess.make(""), "InvalidArgument"],
        [ChildProcess.make("true", ["a\0b"]), "InvalidArgument"],
        [ChildProcess.make("true", [], { cwd: "/no/such/directory" }), "BadWorkingDirectory"],
        [ChildProcess.make("true", [], { cwd: plain }), "BadWorkingDirectory"],
        [ChildProcess.make("true", [], { env: { PATH: "/no/such/directory" } }), "NotFound"]
      ]
      for (const [command, reason] of failures) {
        const error = yield* Effect.flip(Effect.scoped(Platform.use((platform) => platform.launch(command))))
        assert.strictEqual(error._tag === "LaunchError" ? error.reason : error._tag, reason, error.message)
      }
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 50)))
      process.off("uncaughtException", listen)
      process.off("unhandledRejection", listen)
      assert.deepStrictEqual(uncaught, [])
      assert.strictEqual(descriptors(), before.descriptors)
      assert.deepStrictEqual(children(), before.children)
    }))

  it.effect("a file of the PATH that can't be run is passed over (exec(3p))", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const folders = ["lost", "closed", "good"].map((name) => scratch.file(name))
      for (const folder of folders) fs.mkdirSync(folder)
      const [lost, closed, good] = folders.map((folder) => `${folder}/program`)
      fs.writeFileSync(lost!, "#!/no/such/interpreter\n", { mode: 0o755 })
      // Others may execute it, and its owner may not; root may execute both.
      fs.writeFileSync(closed!, "#!/bin/sh\necho closed\n", { mode: process.getuid?.() === 0 ? 0o644 : 0o001 })
      fs.writeFileSync(good!, "#!/bin/sh\necho good\n", { mode: 0o755 })
      const command = ChildProcess.make("program", [], { env: { PATH: folders.join(":") } })
      const tree = yield* Platform.use((platform) => platform.launch(command))
      assert.strictEqual(yield* textOf(tree.stdout.stream), "good\n")
    }))

  it("peer 65: no descriptor left is ResourceExhausted, at the first launch and later", () => {
    // A host of its own with a low limit: here it would hurt the test runner.
    const host = child_process.spawnSync("sh", [
      "-c",
      `ulimit -n 64; exec "$0" --conditions=source -e '${outOfDescriptors}'`,
      process.execPath
    ], { encoding: "utf8", cwd: fileURLToPath(new URL("..", import.meta.url)), timeout: 20_000 })
    // Before it is the warning that there is no guardian yet.
    assert.strictEqual(host.stdout.trim().split("\n").at(-1), "ResourceExhausted Exited ResourceExhausted", host.stderr)
  })
})

/**
 * A host that launches with two descriptors free, which is enough to begin with the start of its guardian, then as it
 * should, then with none, and prints what becomes of each.
 */
const outOfDescriptors = `
  Promise.all([import("effect"), import("effect/process"), import("@treeline/core"), import("@treeline/platform-posix"), import("node:fs")])
    .then(async ([{ Effect }, { ChildProcess }, { ProcessPlatform }, { PosixPlatform }, fs]) => {
      const program = Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        const launch = Effect.scoped(Effect.flatMap(platform.launch(ChildProcess.make("true")), (tree) => tree.exited))
        const files = []
        const exhaust = () => { try { while (true) files.push(fs.openSync("/dev/null", "r")) } catch {} }
        exhaust()
        for (const fd of files.splice(-2)) fs.closeSync(fd)
        const first = yield* Effect.flip(launch)
        for (const fd of files.splice(0)) fs.closeSync(fd)
        const second = yield* launch
        exhaust()
        const third = yield* Effect.flip(launch)
        return [first.reason, second._tag, third.reason].join(" ")
      })
      const text = await Effect.runPromise(program.pipe(Effect.provide(PosixPlatform.layer)))
      fs.writeSync(1, text)
      process.exit(0)
    })
`

layer(PosixPlatform.layer, { excludeTestServices: true })("an end is a value", (it) => {
  it.effect("peer 67, P17: codes 0, 1, 127, 255 and signals HUP, INT, TERM, KILL, SEGV are all different", () =>
    Effect.gen(function*() {
      const statuses: Array<ExitStatus.ExitStatus> = []
      for (const code of [0, 1, 127, 129, 143, 255]) {
        const tree = yield* Platform.use((platform) => platform.launch(sh(`exit ${code}`)))
        const status = yield* tree.exited
        assert.deepStrictEqual(status, ExitStatus.exited(code))
        statuses.push(status)
      }
      for (const signal of ["HUP", "INT", "TERM", "KILL", "SEGV"]) {
        const tree = yield* Platform.use((platform) => platform.launch(sh(`kill -${signal} $$; sleep 60`)))
        const status = yield* tree.exited
        assert.strictEqual(status._tag === "Signaled" ? status.signal : status._tag, `SIG${signal}`)
        statuses.push(status)
      }
      assert.strictEqual(new Set(statuses.map((status) => JSON.stringify(status))).size, 11)
    }))
})

layer(PosixPlatform.layer, { excludeTestServices: true })("interruption", (it) => {
  const endless = (cookie: string) =>
    ChildProcess.make("sh", ["-c", "setsid sleep 60 & exec sleep 60"], {
      env: { TREELINE_TEST_COOKIE: cookie },
      extendEnv: true
    })

  it.effect(
    "peer 69, P42: at 500 random instants of a launch: no survivor, no descriptor",
    () =>
      Effect.gen(function*() {
        yield* warmUp
        const cookie = `interrupt-${process.pid}-${Date.now()}`
        const before = holdings()
        const familiar = children()
        const next = random(581)
        let launched = 0
        const one = Effect.scoped(Effect.gen(function*() {
          const platform = yield* Platform
          yield* platform.launch(endless(cookie), { shutdown: ShutdownPlan.kill })
          launched++
          return yield* Effect.never
        }))
        for (let instant = 0; instant < 500; instant++) {
          const stepped = next() < 0.5 ? one : Effect.provideService(one, Scheduler.Scheduler, everyStep(next))
          const fiber = yield* Effect.forkChild(stepped, { startImmediately: next() < 0.5 })
          const kind = next()
          if (kind < 0.4) {
            for (let turn = Math.floor(next() * 12); turn > 0; turn--) yield* Effect.yieldNow
          } else if (kind < 0.7) {
            for (let turn = Math.floor(next() * 6); turn > 0; turn--) {
              yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
            }
          } else yield* Effect.sleep(next() * 8)
          yield* Fiber.interrupt(fiber)
          if (instant % 50 === 49) {
            assert.deepStrictEqual(carriers(cookie), [])
            assert.deepStrictEqual([...children()].filter((pid) => !familiar.has(pid)), [])
          }
        }
        assert.isAbove(launched, 20, "some were interrupted after the launch")
        assert.isBelow(launched, 480, "some were interrupted before its end")
        yield* assertNothingMoreThan(before)
      }),
    120_000
  )

  it.effect("a launch whose fiber has to wait right after the start sees the end and keeps the orphans", () =>
    Effect.gen(function*() {
      yield* warmUp
      const cookie = `yield-${process.pid}-${Date.now()}`
      const platform = yield* Platform
      const leaves = ChildProcess.make("sh", ["-c", "sleep 60 & exit 3"], {
        env: { TREELINE_TEST_COOKIE: cookie },
        extendEnv: true,
        stdout: "ignore",
        stderr: "ignore"
      })
      yield* Effect.scoped(Effect.gen(function*() {
        const tree = yield* Effect.provideService(
          platform.launch(leaves, { shutdown: ShutdownPlan.kill }),
          Scheduler.Scheduler,
          rightAfterStart(200)
        )
        assert.deepStrictEqual(yield* Effect.timeoutOption(tree.exited, 3000), Option.some(ExitStatus.exited(3)))
        assert.deepStrictEqual((yield* tree.members).map(({ pid }) => pid), [...carriers(cookie)])
        assert.strictEqual(carriers(cookie).length, 1)
      }))
      assert.deepStrictEqual(carriers(cookie), [])
    }))

  it.effect("control for peer 69: a spawn whose owner is interrupted before it could register an end lives on", () =>
    Effect.gen(function*() {
      const cookie = `control-${process.pid}-${Date.now()}`
      let child: child_process.ChildProcess | undefined = undefined
      const naive = Effect.gen(function*() {
        const started: child_process.ChildProcess = child_process.spawn("sleep", ["60"], {
          env: { ...process.env, TREELINE_TEST_COOKIE: cookie }
        })
        child = started
        yield* Effect.promise(() => new Promise((resolve) => started.once("spawn", resolve)))
        yield* Effect.addFinalizer(() => Effect.sync(() => started.kill("SIGKILL")))
        return yield* Effect.never
      })
      const fiber = yield* Effect.forkChild(Effect.scoped(naive), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      yield* eventually("it lives", () => carriers(cookie).length > 0)
      child!.kill("SIGKILL")
    }))

  it.effect("peer 70: a scope that is closed in the tick of the launch, 50 times", () =>
    Effect.gen(function*() {
      yield* warmUp
      const cookie = `close-${process.pid}-${Date.now()}`
      const before = holdings()
      const platform = yield* Platform
      for (let run = 0; run < 50; run++) {
        const scope = yield* Scope.make()
        const tree = yield* Scope.provide(platform.launch(endless(cookie), { shutdown: ShutdownPlan.kill }), scope)
        yield* Scope.close(scope, Exit.void)
        assert.isTrue(Option.isSome(yield* tree.exitStatus))
      }
      assert.deepStrictEqual(carriers(cookie), [])
      yield* assertNothingMoreThan(before)
    }))

  it.effect("peer 70: a launch into a scope that is closed already", () =>
    Effect.gen(function*() {
      yield* warmUp
      const cookie = `closed-${process.pid}-${Date.now()}`
      const platform = yield* Platform
      const scope = yield* Scope.make()
      yield* Scope.close(scope, Exit.void)
      yield* Effect.exit(Scope.provide(platform.launch(endless(cookie), { shutdown: ShutdownPlan.kill }), scope))
      assert.deepStrictEqual(carriers(cookie), [])
    }))
})

layer(PosixPlatform.layer, { excludeTestServices: true })("nothing leaks", (it) => {
  it.effect(
    "peer 64: 1,000 spawns and closes: descriptors, listeners, timers and handles are what they were",
    () =>
      Effect.gen(function*() {
        yield* warmUp
        const platform = yield* Platform
        const before = holdings()
        const known = children()
        const cycle = Effect.scoped(Effect.gen(function*() {
          const tree = yield* platform.launch(ChildProcess.make("true"))
          yield* Stream.runDrain(tree.stdout.stream)
          yield* tree.exited
        }))
        yield* Effect.all(Array.from({ length: 1_000 }, () => cycle), { concurrency: 8, discard: true })
        yield* assertNothingMoreThan(before)
        assert.deepStrictEqual(children(), known)
      }),
    120_000
  )

  it.effect("peer 64: a child has none of the host's descriptors, high numbers and other children's pipes included", () =>
    Effect.gen(function*() {
      const platform = yield* Platform
      const scratch = yield* Scratch.make
      const open = Array.from({ length: 300 }, () => fs.openSync(scratch.report, "r"))
      yield* Effect.addFinalizer(() => Effect.sync(() => open.forEach((fd) => fs.closeSync(fd))))
      assert.isAbove(Math.max(...open), 255)
      yield* platform.launch(sh("exec sleep 60"), { shutdown: ShutdownPlan.kill })
      const tree = yield* platform.launch(sh("exec sh -c 'ls /proc/$$/fd'"))
      // The shell opens nothing itself, and `ls` looks at its shell. What the host has inherited without close-on-exec
      // is passed on by Node; everything that the host has opened is not.
      const expected = ["0", "1", "2", ...isNative ? [] : inherited().map(String)].sort()
      assert.deepStrictEqual((yield* textOf(tree.stdout.stream)).trim().split("\n").sort(), expected)
      assert.notIncludeMembers([...inherited()], open)
    }))

  it.effect("a tree's pids are those that its processes see", () =>
    Effect.gen(function*() {
      const platform = yield* Platform
      const scratch = yield* Scratch.make
      const tree = yield* platform.launch(sh("echo \"leader $$\" >>\"$1\"; exec sleep 60", scratch.report), {
        shutdown: ShutdownPlan.kill
      })
      const leader = yield* scratch.awaitNamed("leader")
      assert.strictEqual(tree.pid, leader.pid)
      assert.strictEqual(tree.identity.startTime, leader.start)
      assert.match(stateOf(tree.pid) ?? "", /[RS]/)
      yield* tree.shutdown()
      yield* assertNoneLiving(scratch)
    }))
})
