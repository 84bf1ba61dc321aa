/**
 * PostgreSQL, Redis, a web server and nginx from a configuration (examples/services): one life of the whole with what goes
 * wrong in it, and the death of its host.
 */
import { assert, it, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { describe } from "vitest"
import * as Programs from "../../examples/services/Programs.ts"
import { eventually, stays } from "../support/Eventually.ts"
import { killIfAlive, signalIfAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import * as ServiceStack from "../support/ServiceStack.ts"

/** One host for the tests of a life, which follow each other. */
class Life extends Context.Service<Life, {
  readonly scratch: Scratch.Scratch
  readonly stack: ServiceStack.Stack
  /** Shared memory of every postgres that was ready. */
  readonly memory: Array<string>
}>()("test/ServiceStack/Life") {}

const life = Layer.effect(
  Life,
  Effect.gen(function*() {
    const scratch = yield* Scratch.make
    const stack = yield* ServiceStack.start(scratch)
    yield* stack.ready("proxy")
    return { scratch, stack, memory: [...ServiceStack.sharedMemoryOf(yield* stack.ready("db"))] }
  })
)

/** These came in this order. */
const inOrder = (story: ReadonlyArray<string>, ...wanted: ReadonlyArray<string>): void =>
  assert.deepStrictEqual(story.filter((what) => wanted.includes(what)), wanted)

const without = (record: ServiceStack.Pids, name: ServiceStack.Service) =>
  Object.fromEntries(Object.entries(record).filter(([key]) => key !== name))

const missing = Programs.missing()

describe.skipIf(process.platform !== "linux" || missing !== undefined)(
  `PostgreSQL, Redis, a web server and nginx${missing === undefined ? "" : ` (left out: ${missing})`}`,
  () => {
    layer(life, { excludeTestServices: true, timeout: 30_000 })("one life", (it) => {
      it.effect("comes up in the order of its dependencies, and answers through nginx from both stores", () =>
        Effect.gen(function*() {
          const { scratch, stack } = yield* Life
          for (const store of ["db", "cache"]) {
            inOrder(stack.story(), `${store} Starting`, `${store} Ready`, "web Starting", "web Ready")
          }
          inOrder(stack.story(), "setup Starting", "setup Stopped", "db Starting", "db Ready")
          inOrder(stack.story(), "web Starting", "web Ready", "proxy Starting", "proxy Ready")
          const first = yield* ServiceStack.visit(scratch)
          const second = yield* ServiceStack.visit(scratch)
          assert.deepStrictEqual([first, second], [
            { greeting: "hello", visits: 1, cached: 1 },
            { greeting: "hello", visits: 2, cached: 2 }
          ])
        }))

      it.effect(
        "a killed postgres comes back on its stale lock file when its old processes are gone",
        () =>
          Effect.gen(function*() {
            const { memory, scratch, stack } = yield* Life
            const before = stack.pids()
            const tree = stack.processes.tree(before.db)
            assert.isAbove(tree.length, 4)
            signalIfAlive(before.db, "SIGKILL")
            const pid = yield* stack.ready("db", 2)
            assert.deepStrictEqual(
              stack.processes.living().filter((one) => tree.some(({ pid }) => pid === one.pid)),
              []
            )
            memory.push(...ServiceStack.sharedMemoryOf(pid))
            const { cached, visits } = yield* ServiceStack.visit(scratch)
            assert.deepStrictEqual([visits, cached], [3, 3])
            assert.deepStrictEqual(without(stack.pids(), "db"), without(before, "db"))
          }),
        20_000
      )

      it.effect(
        "an nginx that hangs with its workers is found by its liveness and replaced",
        () =>
          Effect.gen(function*() {
            const { scratch, stack } = yield* Life
            const before = stack.pids()
            const tree = stack.processes.tree(before.proxy)
            assert.strictEqual(tree.length, 2)
            for (const { pid } of tree) signalIfAlive(pid, "SIGSTOP")
            yield* stack.ready("proxy", 2)
            const end = stack.events().flatMap(({ change, child }) =>
              child === "proxy" && change._tag === "Ended" ? [change.end?._tag] : []
            )
            assert.deepStrictEqual(end, ["Unhealthy"])
            yield* ServiceStack.visit(scratch)
            assert.deepStrictEqual(without(stack.pids(), "proxy"), without(before, "proxy"))
          }),
        20_000
      )

      it.effect("a reload restarts only what changed", () =>
        Effect.gen(function*() {
          const { scratch, stack } = yield* Life
          const before = stack.pids()
          const count = stack.story().length
          ServiceStack.change(scratch, { greeting: "good morning" })
          stack.host.order("reload")
          const report = JSON.parse(yield* stack.host.awaitLine("report ")) as unknown
          assert.deepStrictEqual(report, {
            unchanged: ["setup", "db", "cache", "proxy"],
            applied: [{ service: "web", change: "changed", fields: ["env"], problem: null }],
            needsRestart: []
          })
          yield* eventually("web is ready again", () => stack.story().slice(count).includes("web Ready"))
          assert.strictEqual((yield* ServiceStack.visit(scratch)).greeting, "good morning")
          const after = stack.pids()
          assert.notStrictEqual(after.web, before.web)
          assert.deepStrictEqual(without(after, "web"), without(before, "web"))
        }), 20_000)

      it.effect(
        "it goes down from the top, and leaves no process, port or shared memory",
        () =>
          Effect.gen(function*() {
            const { memory, scratch, stack } = yield* Life
            const count = stack.story().length
            stack.host.order("stop")
            yield* stack.host.awaitNoDescendants()
            const story = stack.story().slice(count)
            const down = ["proxy Stopping", "proxy Stopped", "web Stopping", "web Stopped"]
            for (const store of ["db", "cache"]) {
              inOrder([...new Set(story)], ...down, `${store} Stopping`, `${store} Stopped`)
            }
            assert.isAbove(stack.processes.seen().length, 15)
            assert.deepStrictEqual(stack.processes.living(), [])
            assert.deepStrictEqual(yield* ServiceStack.portsInUse(scratch), [])
            assert.isAtLeast(memory.length, 2)
            assert.deepStrictEqual(ServiceStack.sharedMemoryLeft(memory), [])
          }),
        20_000
      )
    })

    it.live(
      "SIGKILL of the host leaves nothing running, and the next one starts on the same database",
      () =>
        Effect.gen(function*() {
          const scratch = yield* Scratch.make
          const first = yield* ServiceStack.start(scratch)
          const db = yield* first.ready("db")
          yield* first.ready("proxy")
          assert.deepStrictEqual(yield* ServiceStack.visit(scratch), { greeting: "hello", visits: 1, cached: 1 })
          const memory = [...ServiceStack.sharedMemoryOf(db)]
          // Its postgres dies with it: one that can still end in order removes its lock file.
          first.host.signal("SIGSTOP")
          signalIfAlive(db, "SIGKILL")
          first.host.signal("SIGKILL")
          yield* first.host.awaitNoDescendants()
          assert.isAbove(first.processes.seen().length, 10)
          assert.deepStrictEqual(first.processes.living(), [])
          assert.deepStrictEqual(yield* ServiceStack.portsInUse(scratch), [])
          assert.strictEqual(ServiceStack.lockOwner(scratch), db)

          const second = yield* ServiceStack.start(scratch)
          yield* second.ready("proxy")
          memory.push(...ServiceStack.sharedMemoryOf(yield* second.ready("db")))
          assert.deepStrictEqual(second.story().filter((what) => what.endsWith("BackingOff")), [])
          assert.deepStrictEqual(yield* ServiceStack.visit(scratch), { greeting: "hello", visits: 2, cached: 1 })
          second.host.order("stop")
          yield* second.host.awaitNoDescendants()
          assert.deepStrictEqual(second.processes.living(), [])
          assert.deepStrictEqual(ServiceStack.sharedMemoryLeft(memory), [])
        }),
      30_000
    )

    it.live("the control: SIGKILL of a host on child_process leaves all of it running", () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const { host, processes } = yield* ServiceStack.startPlain(scratch)
        yield* Effect.addFinalizer(() => Effect.sync(() => processes.living().forEach(killIfAlive)))
        const pidOf = (service: string) =>
          Number(host.lines.find((line) => line.startsWith(`${service} `))?.split(" ")[1])
        const leaders = ["db", "cache", "web", "proxy"].map(pidOf)
        host.signal("SIGKILL")
        yield* host.awaitDead
        yield* stays(
          "they run on",
          () => leaders.every((leader) => processes.living().some(({ pid }) => pid === leader)),
          300
        )
        assert.deepStrictEqual(yield* ServiceStack.visit(scratch), { greeting: "hello", visits: 1, cached: 1 })
        // Only an orderly end gives the shared memory back.
        signalIfAlive(leaders[0]!, "SIGINT")
        yield* eventually("postgres has ended", () => processes.living().every(({ pid }) => pid !== leaders[0]))
        processes.living().forEach(killIfAlive)
        yield* host.awaitNoDescendants()
      }), 60_000)
  }
)
