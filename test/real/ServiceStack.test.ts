/**
 * PostgreSQL, Redis, a web server and nginx from a configuration (examples/services), by the commands of `treeline`: one
 * life of the whole with what goes wrong in it, and the death of its host.
 */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { CommandReport } from "treeline"
import { describe } from "vitest"
import * as Programs from "../../examples/services/Programs.ts"
import { eventually, stays } from "../support/Eventually.ts"
import { isAlive, killIfAlive, signalIfAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import * as ServiceStack from "../support/ServiceStack.ts"

/** One folder with one database for all of it: the tests follow each other. */
class Folder extends Context.Service<Folder, Scratch.Scratch>()("test/ServiceStack/Folder") {}

/** One `treeline up` for the tests of a life. */
class Life extends Context.Service<Life, {
  readonly stack: ServiceStack.Stack
  readonly story: ServiceStack.Story
  /** Shared memory of every postgres that was ready. */
  readonly memory: Array<string>
}>()("test/ServiceStack/Life") {}

const life = Layer.effect(
  Life,
  Effect.gen(function*() {
    const scratch = yield* Folder
    const stack = yield* ServiceStack.up(scratch)
    const story = yield* ServiceStack.story(scratch)
    return { stack, story, memory: [...ServiceStack.sharedMemoryOf(stack.postgres)] }
  })
)

/** These came in this order. */
const inOrder = (story: ReadonlyArray<string>, ...wanted: ReadonlyArray<string>): void =>
  assert.deepStrictEqual(story.filter((what) => wanted.includes(what)), wanted)

const without = (pids: ServiceStack.Pids, service: ServiceStack.Service) =>
  Object.fromEntries(Object.entries(pids).filter(([name]) => name !== service))

const missing = Programs.missing()

describe.skipIf(process.platform !== "linux" || missing !== undefined)(
  `PostgreSQL, Redis, a web server and nginx${missing === undefined ? "" : ` (left out: ${missing})`}`,
  () => {
    layer(Layer.effect(Folder, Scratch.make), { excludeTestServices: true })((it) => {
      it.layer(life, { timeout: 100_000 })("one life", (it) => {
        it.effect(
          "comes up in the order of its dependencies, and answers through nginx from both stores",
          () =>
            Effect.gen(function*() {
              const scratch = yield* Folder
              const { story } = yield* Life
              const states = story.states()
              for (const store of ["db", "cache"]) {
                inOrder(states, `${store} Starting`, `${store} Ready`, "web Starting", "web Ready")
              }
              inOrder(states, "setup Starting", "setup Stopped", "db Starting", "db Ready")
              inOrder(states, "web Starting", "web Ready", "proxy Starting", "proxy Ready")
              const first = yield* ServiceStack.visit(scratch)
              const second = yield* ServiceStack.visit(scratch)
              assert.deepStrictEqual([first, second], [
                { greeting: "hello", visits: 1, cached: 1 },
                { greeting: "hello", visits: 2, cached: 2 }
              ])
              const { services } = yield* ServiceStack.ask(scratch, CommandReport.Status, "status")
              assert.deepStrictEqual(
                services.map(({ child: { state }, name }) => [name, state._tag, "pid" in state ? state.pid : null]),
                [["setup", "Stopped", null], ...Object.entries(story.pids()).map(([name, pid]) => [name, "Ready", pid])]
              )
            }),
          40_000
        )

        it.effect(
          "a killed postgres comes back on its stale lock file when its old processes are gone",
          () =>
            Effect.gen(function*() {
              const scratch = yield* Folder
              const { memory, stack, story } = yield* Life
              const before = story.pids()
              const tree = stack.processes.tree(before.db)
              assert.isAbove(tree.length, 4)
              signalIfAlive(before.db, "SIGKILL")
              const pid = yield* story.ready("db", 2)
              assert.deepStrictEqual(
                stack.processes.living().filter((one) => tree.some(({ pid }) => pid === one.pid)),
                []
              )
              memory.push(...ServiceStack.sharedMemoryOf(pid))
              const { cached, visits } = yield* ServiceStack.visit(scratch)
              assert.deepStrictEqual([visits, cached], [3, 3])
              assert.deepStrictEqual(without(story.pids(), "db"), without(before, "db"))
              // It says so itself, in memory and in its file.
              const recovery = "automatic recovery in progress"
              const { entries } = yield* ServiceStack.ask(scratch, CommandReport.Logs, "logs", "db")
              assert.isTrue(entries.some((entry) => "text" in entry && entry.text.includes(recovery)))
              assert.include(ServiceStack.logOf(scratch, "db"), recovery)
            }),
          40_000
        )

        it.effect(
          "an nginx that hangs with its workers is found by its liveness and replaced",
          () =>
            Effect.gen(function*() {
              const scratch = yield* Folder
              const { stack, story } = yield* Life
              const before = story.pids()
              const tree = stack.processes.tree(before.proxy)
              assert.strictEqual(tree.length, 2)
              for (const { pid } of tree) signalIfAlive(pid, "SIGSTOP")
              yield* story.ready("proxy", 2)
              const ends = story.events().flatMap(({ change, child }) =>
                child === "proxy" && change._tag === "Ended" ? [change.end?._tag] : []
              )
              assert.deepStrictEqual(ends, ["Unhealthy"])
              yield* ServiceStack.visit(scratch)
              assert.deepStrictEqual(without(story.pids(), "proxy"), without(before, "proxy"))
            }),
          40_000
        )

        it.effect("a reload restarts only what changed", () =>
          Effect.gen(function*() {
            const scratch = yield* Folder
            const { story } = yield* Life
            const before = story.pids()
            ServiceStack.change(scratch, { greeting: "good morning" })
            const { report } = yield* ServiceStack.ask(scratch, CommandReport.Operation, "reload")
            assert.deepStrictEqual(report, {
              unchanged: ["setup", "db", "cache", "proxy"],
              applied: [{ service: "web", change: "changed", fields: ["env"], problem: null }],
              needsRestart: []
            })
            yield* eventually("another web is ready", () => story.pids().web !== before.web)
            assert.strictEqual((yield* ServiceStack.visit(scratch)).greeting, "good morning")
            assert.deepStrictEqual(without(story.pids(), "web"), without(before, "web"))
          }), 40_000)

        it.effect(
          "a restart of the cache forgets what it held, and nobody else is touched",
          () =>
            Effect.gen(function*() {
              const scratch = yield* Folder
              const { story } = yield* Life
              const before = story.pids()
              const { outcomes } = yield* ServiceStack.ask(scratch, CommandReport.Operation, "restart", "cache")
              assert.deepInclude(outcomes, { service: "cache", problem: null })
              assert.strictEqual((yield* ServiceStack.visit(scratch)).cached, 1)
              yield* eventually("another cache is ready", () => story.pids().cache !== before.cache)
              assert.deepStrictEqual(without(story.pids(), "cache"), without(before, "cache"))
            }),
          40_000
        )

        it.effect(
          "it goes down from the top, and leaves no process, port or shared memory",
          () =>
            Effect.gen(function*() {
              const scratch = yield* Folder
              const { memory, stack, story } = yield* Life
              const count = story.states().length
              yield* ServiceStack.ask(scratch, CommandReport.Operation, "down")
              yield* stack.awaitNoDescendants
              yield* eventually("the end is told", () => story.states().slice(count).includes("db Stopped"))
              const states = [...new Set(story.states().slice(count))]
              const down = ["proxy Stopping", "proxy Stopped", "web Stopping", "web Stopped"]
              for (const store of ["db", "cache"]) inOrder(states, ...down, `${store} Stopping`, `${store} Stopped`)
              assert.isAbove(stack.processes.seen().length, 15)
              assert.deepStrictEqual(stack.processes.living(), [])
              assert.deepStrictEqual(yield* ServiceStack.portsInUse(scratch), [])
              assert.isAtLeast(memory.length, 2)
              assert.deepStrictEqual(ServiceStack.sharedMemoryLeft(memory), [])
            }),
          40_000
        )
      })

      it.effect(
        "SIGKILL of host and guardian at once: the next host ends what is left; SIGKILL of that host: nothing is left",
        () =>
          Effect.gen(function*() {
            const scratch = yield* Folder
            const first = yield* ServiceStack.up(scratch)
            const { visits } = yield* ServiceStack.visit(scratch)
            first.signal("SIGSTOP")
            signalIfAlive(first.guardian, "SIGKILL")
            first.signal("SIGKILL")
            // Nobody is there to act, and the site goes on.
            assert.deepInclude(yield* ServiceStack.visit(scratch), { visits: visits + 1, cached: 2 })

            const second = yield* ServiceStack.up(scratch)
            yield* first.awaitNoDescendants
            assert.isAbove(first.processes.seen().length, 10)
            assert.deepStrictEqual(first.processes.living(), [])
            assert.deepInclude(yield* ServiceStack.visit(scratch), { visits: visits + 2, cached: 1 })

            // Its postgres dies with it: one that can still end in order removes its lock file.
            second.signal("SIGSTOP")
            signalIfAlive(second.postgres, "SIGKILL")
            second.signal("SIGKILL")
            yield* second.awaitNoDescendants
            assert.isAbove(second.processes.seen().length, 10)
            assert.deepStrictEqual(second.processes.living(), [])
            assert.deepStrictEqual(yield* ServiceStack.portsInUse(scratch), [])
            assert.strictEqual(ServiceStack.lockOwner(scratch), second.postgres)
          }).pipe(Effect.scoped),
        100_000
      )

      it.effect(
        "the control: SIGKILL of a host on child_process leaves all of it running",
        () =>
          Effect.gen(function*() {
            const scratch = yield* Folder
            const { host, processes } = yield* ServiceStack.startPlain(scratch)
            const pidOf = (service: string) =>
              Number(host.lines.find((line) => line.startsWith(`${service} `))?.split(" ")[1])
            const pids = ["db", "cache", "web", "proxy"].map(pidOf)
            const leaders = processes.living().filter(({ pid }) => pids.includes(pid))
            assert.strictEqual(leaders.length, 4)
            host.signal("SIGKILL")
            yield* host.awaitDead
            yield* stays("they run on", () => leaders.every(isAlive), 300)
            assert.deepInclude(yield* ServiceStack.visit(scratch), { cached: 1 })
            // Only an orderly end gives the shared memory back.
            signalIfAlive(pids[0]!, "SIGINT")
            yield* eventually("postgres has ended", () => leaders.every((one) => one.pid !== pids[0] || !isAlive(one)))
            processes.living().forEach(killIfAlive)
            yield* host.awaitNoDescendants()
          }).pipe(Effect.scoped),
        100_000
      )
    })
  }
)
