/** Pools of real processes: one process for each key, its end with all that it started, state, tokens, many at once. */
import { assert, layer } from "@effect/vitest"
import { Child, Pool, Probe, ShutdownPlan } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Layer, Option, Redacted, References, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as fs from "node:fs"
import { kill, sh } from "../support/Children.ts"
import { eventually } from "../support/Eventually.ts"
import { identify, isAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import { assertNoneLiving } from "../support/Trees.ts"

const platform = Layer.mergeAll(PosixPlatform.layer, Layer.succeed(References.MinimumLogLevel, "None"))

/** TERM, then so many seconds, then the kill. */
const grace = (seconds: number) => ShutdownPlan.terminate({ within: `${seconds} seconds` })

interface Program {
  /** Runs before it says that it is up. */
  readonly before?: string
  /** What it does then; default: it lives until it is ended. */
  readonly work?: string
  readonly shutdown?: ShutdownPlan.ShutdownPlan
  readonly env?: Readonly<Record<string, string | Redacted.Redacted<string>>>
}

/** A child that reports itself under the name of its key. */
const worker = (
  key: string,
  scratch: Scratch.Scratch,
  { before = "", env = {}, shutdown, work = "exec sleep 60" }: Program = {}
) =>
  Child.make("worker", {
    command: ChildProcess.make("sh", [
      "-c",
      `${before}\necho "$2 $$" >>"$1"; echo up; ${work}`,
      "sh",
      scratch.report,
      key
    ], {
      env,
      extendEnv: true
    }),
    readiness: Probe.readiness(Probe.line("up"), { within: "20 seconds" }),
    shutdown: shutdown ?? grace(5)
  })

const poolOf = (scratch: Scratch.Scratch, program: Program = {}, options: Omit<Pool.Options, "build" | "hooks"> = {}) =>
  Pool.make({ ...options, build: (key) => Effect.succeed({ child: worker(key, scratch, program) }) })

/** The pid of the process that a key has now. */
const pidOf = <A, E>(pool: Pool.Pool<A, E>, key: string): Effect.Effect<number> =>
  Effect.map(pool.status, ({ keys }) => {
    const state = keys.find((one) => one.key === key)?.state
    if (state?._tag !== "Live" || state.pid === null) throw new Error(`${key} is ${state?._tag}`)
    return state.pid
  })

/** The states of a key up to the first one of this name, past ones included. */
const path = <A, E>(pool: Pool.Pool<A, E>, key: string, last: string) =>
  pool.events.pipe(
    Stream.filter((event) => event.key === key),
    Stream.map(({ change }) => change._tag === "State" ? change.to._tag : change._tag),
    Stream.takeUntil((tag) => tag === last),
    Stream.runCollect
  )

layer(platform, { excludeTestServices: true })("a pool", (it) => {
  it.effect("A10, peer 98: 1,000 ensures at once are one process", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const pool = yield* poolOf(scratch)
      const handles = yield* Effect.forEach(Array.from({ length: 1000 }), () => pool.ensure("a"), {
        concurrency: "unbounded"
      })
      assert.strictEqual(new Set(handles).size, 1)
      assert.deepStrictEqual(scratch.reported().map(({ pid }) => pid), [yield* pidOf(pool, "a")])
    }))

  it.effect(
    "A18, peer 103: 200 keys with 10 callers each are 200 processes, which end together in one grace period",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const scope = yield* Scope.make()
        // Deaf to TERM, and so is the sleep: a signal that is ignored stays so in the next program.
        const stubborn = { before: "trap '' TERM", shutdown: grace(3) }
        const pool = yield* Scope.provide(poolOf(scratch, stubborn, { startWithin: "2 minutes" }), scope)
        const keys = Array.from({ length: 2000 }, (_, index) => `key-${index % 200}`)
        const handles = yield* Effect.forEach(keys, (key) => Scope.provide(pool.lease(key), scope), {
          concurrency: "unbounded"
        })
        assert.strictEqual(new Set(handles).size, 200)
        const reported = scratch.reported()
        assert.strictEqual(reported.length, 200)
        assert.strictEqual(new Set(reported.map(({ name }) => name)).size, 200)
        const startedAt = performance.now()
        yield* Scope.close(scope, Exit.void)
        const took = performance.now() - startedAt
        console.log(`200 stubborn children were closed in ${Math.round(took)} ms, their grace is 3,000 ms`)
        assert.isAtLeast(took, 2_900)
        // One after another it would be ten minutes; the rest is the work of a machine that has others.
        assert.isBelow(took, 9_000)
        yield* assertNoneLiving(scratch)
      }),
    120_000
  )

  it.effect("A3, peer 100: a child that is killed leaves at once: who uses it is told, who asks next gets a new one", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      // A helper in the background, and one that leaves group and session.
      const pool = yield* poolOf(scratch, {
        before: "sleep 60 & (setsid sh -c 'echo \"daemon $$\" >>\"$0\"; exec sleep 60' \"$1\" &)"
      })
      const pids: Array<number> = []
      const error = yield* Effect.flip(pool.use("a", () =>
        Effect.gen(function*() {
          yield* scratch.awaitNamed("daemon")
          pids.push(yield* pidOf(pool, "a"))
          yield* kill(pids[0]!, "SIGKILL")
          return yield* Effect.never
        })))
      assert.strictEqual(error._tag, "ChildLost")
      assert.match(error.message, /killed by SIGKILL/)
      const first = scratch.reported().slice(0, 2)
      yield* pool.ensure("a")
      assert.deepStrictEqual(first.filter(isAlive), [], "nothing of the first is left when the second is there")
      assert.notStrictEqual(yield* pidOf(pool, "a"), pids[0])
      yield* pool.shutdownAll
      yield* assertNoneLiving(scratch)
    }))

  it.effect("A12: an ensure during the end waits for the whole tree, and gets another process", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const pool = yield* poolOf(scratch, {
        before: "sh -c 'trap \"\" TERM; echo \"helper $$\" >>\"$0\"; sleep 60' \"$1\" & ",
        shutdown: grace(1)
      })
      yield* pool.ensure("a")
      const helper = yield* scratch.awaitNamed("helper")
      const down = yield* Effect.forkChild(pool.shutdown("a"), { startImmediately: true })
      yield* pool.ensure("a")
      assert.isFalse(isAlive(helper))
      assert.strictEqual(down.pollUnsafe()?._tag, "Success")
      assert.strictEqual(scratch.reported().filter(({ name }) => name === "a").length, 2)
    }))

  it.effect("A16: a start that fails leaves no process and no zombie", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const pool = yield* Pool.make({
        build: (key) =>
          Effect.succeed({
            child: worker(key, scratch, { before: "sleep 60 &" }),
            endpoint: (child) => Effect.andThen(child.awaitReady, Effect.fail("no address" as const))
          })
      })
      assert.strictEqual(yield* Effect.flip(pool.ensure("a")), "no address")
      yield* path(pool, "a", "Absent")
      const [{ pid }] = scratch.reported() as [Scratch.Reported]
      assert.isUndefined(identify(pid))
      assert.isFalse(fs.existsSync(`/proc/${pid}`), "it was reaped")
      yield* assertNoneLiving(scratch)
    }))

  it.effect("A14: the start of a child that nobody waits for any more is given up, and nothing of it is left", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const pool = yield* Pool.make({
        build: (key) => Effect.succeed({ child: worker(key, scratch), endpoint: () => Effect.never })
      })
      const asked = yield* Effect.forEach([1, 2], () => Effect.forkChild(pool.ensure("a"), { startImmediately: true }))
      yield* scratch.awaitNamed("a")
      asked[0]!.interruptUnsafe()
      yield* Effect.sleep(50)
      assert.strictEqual(scratch.living().length, 1)
      asked[1]!.interruptUnsafe()
      yield* path(pool, "a", "Absent")
      yield* assertNoneLiving(scratch)
    }))

  it.effect("A4, A5: what a child leaves in its directory is there for the next one, in another pool too", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const [store, local] = [scratch.file("store"), scratch.file("local")]
      const tenants = Pool.make({
        hooks: {
          restore: () =>
            Effect.sync(() => {
              fs.rmSync(local, { recursive: true, force: true })
              fs.mkdirSync(local)
              if (fs.existsSync(store)) fs.copyFileSync(store, `${local}/visits`)
            }),
          // The last line is written when it is asked to end, so the tree has to be empty before it is saved.
          retire: () => Effect.sync(() => fs.copyFileSync(`${local}/visits`, store))
        },
        build: (key) =>
          Effect.succeed({
            child: worker(key, scratch, {
              env: { VISITS: `${local}/visits` },
              before: "echo hello >>\"$VISITS\"; trap 'sleep 0.2; echo bye >>\"$VISITS\"; exit 0' TERM",
              work: "sleep 60 & wait"
            })
          })
      })
      for (let pass = 0; pass < 2; pass++) {
        yield* Effect.scoped(Effect.gen(function*() {
          const pool = yield* tenants
          yield* pool.ensure("a")
          yield* pool.shutdown("a")
          yield* pool.ensure("a")
        }))
      }
      assert.strictEqual(fs.readFileSync(store, "utf8"), "hello\nbye\n".repeat(4))
    }))

  it.effect("A6, A7: an idle child is ended, one that is touched is not", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const pool = yield* poolOf(scratch, {}, { idle: { after: "300 millis" } })
      yield* pool.ensure("idle")
      yield* pool.ensure("used")
      const touching = yield* Effect.forkChild(Effect.forever(Effect.andThen(pool.touch("used"), Effect.sleep(20))))
      const ended = yield* path(pool, "idle", "Absent")
      assert.deepStrictEqual(ended, ["Building", "Building", "Live", "Retiring", "Absent"])
      yield* Effect.sleep(500)
      assert.deepStrictEqual(scratch.living().map(({ name }) => name), ["used"])
      touching.interruptUnsafe()
      yield* path(pool, "used", "Absent")
      yield* assertNoneLiving(scratch)
    }))

  it.effect("peer 101: no more processes than places, and every key gets its turn", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const pool = yield* poolOf(scratch, {}, { capacity: { max: 2, evictAfter: 0, within: "20 seconds" } })
      let most = 0
      const turn = (key: string) =>
        pool.use(key, () =>
          Effect.andThen(
            Effect.sync(() => {
              most = Math.max(most, scratch.living().length)
            }),
            Effect.sleep(20)
          ))
      const keys = ["a", "b", "c", "d", "e", "f", "g", "h"]
      yield* Effect.forEach(keys, turn, { concurrency: "unbounded" })
      assert.isAtMost(most, 2)
      // Two start side by side, and either may be the first to say so.
      const order = scratch.reported().map(({ name }) => keys.indexOf(name))
      assert.deepStrictEqual(order.toSorted((a, b) => a - b), [...keys.keys()])
      for (const [turn, key] of order.entries()) assert.isAtMost(Math.abs(turn - key), 1)
    }))

  it.effect("peer 102: a process is replaced after so many uses, never while it is used", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const pool = yield* poolOf(scratch, {}, { recycle: { uses: 5, jitter: 0 } })
      const broken: Array<number> = []
      for (let use = 0; use < 20; use++) {
        yield* pool.use("a", () =>
          Effect.gen(function*() {
            const pid = yield* pidOf(pool, "a")
            yield* Effect.sleep(10)
            if (identify(pid) === undefined) broken.push(use)
          }))
      }
      assert.deepStrictEqual(broken, [])
      assert.strictEqual(scratch.reported().length, 4)
    }))

  it.effect("a token is in the environment of its process and in no argument, and leads to its key", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const pool = yield* Pool.make({
        build: (key, { token }) =>
          Effect.succeed({
            child: worker(key, scratch, { env: { TOKEN: token }, before: "echo \"$TOKEN\" >\"$1.token\"" })
          })
      })
      const { token } = yield* pool.ensure("a")
      const seen = fs.readFileSync(`${scratch.report}.token`, "utf8").trim()
      assert.strictEqual(seen, Redacted.value(token))
      assert.deepStrictEqual(yield* pool.lookupToken(seen), Option.some({ key: "a", incarnation: 1 }))
      if (process.platform === "linux") {
        const pid = yield* pidOf(pool, "a")
        assert.notInclude(fs.readFileSync(`/proc/${pid}/cmdline`, "utf8"), seen)
      }
      yield* pool.shutdown("a")
      assert.isTrue(Option.isNone(yield* pool.lookupToken(seen)))
    }))

  it.effect(
    "500 lives of ten keys leave nothing: no process, no timer, no descriptor, no key",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const scope = yield* Scope.make()
        const pool = yield* Scope.provide(
          Pool.make({
            build: () => Effect.succeed({ child: Child.make("worker", { command: sh("exec sleep 60") }) }),
            idle: { after: "1 hour" },
            recycle: { age: "1 day" },
            capacity: { max: 10 }
          }),
          scope
        )
        const counts = () => ({
          handles: process.getActiveResourcesInfo().length,
          descriptors: process.platform === "linux" ? fs.readdirSync("/proc/self/fd").length : 0
        })
        const cycle = Effect.andThen(
          Effect.forEach(Array.from({ length: 10 }, (_, index) => `k${index}`), pool.ensure, {
            concurrency: "unbounded"
          }),
          pool.shutdownAll
        )
        yield* Effect.repeat(cycle, { times: 9 })
        const before = counts()
        yield* Effect.repeat(cycle, { times: 39 })
        // What closes with the next turn of the event loop is given it.
        const after = yield* eventually("as many as before", () => {
          const now = counts()
          return now.handles <= before.handles + 2 && now.descriptors <= before.descriptors + 2 ? now : undefined
        }, { within: 5_000, detail: () => [before, counts()] })
        assert.isAtMost(after.descriptors, before.descriptors + 2)
        assert.deepStrictEqual((yield* pool.status).keys, [])
        yield* Scope.close(scope, Exit.void)
        yield* assertNoneLiving(scratch)
      }),
    60_000
  )
})
