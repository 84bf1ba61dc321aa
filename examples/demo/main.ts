/**
 * The demo: one tree of processes, ended in two ways by Treeline, and beside it what Node's child_process leaves.
 *
 * Exit code 0 means that Treeline left nothing.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Output, ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Clock, Effect, Fiber, Option, Stream } from "effect"
import { type ChildProcess as NodeProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import * as Screen from "./Screen.ts"
import { command, hosts, living, type Member, running } from "./Tree.ts"

const pause = "10 millis"

/** How long processes are watched before they count as left, in ms: Treeline's, which end, and the others. */
const watchFor = { treeline: 6000, node: 1500 }

/** Starts a clock: the effect that it gives tells the ms since then. */
const stopwatch = Effect.map(
  Clock.monotonicTimeNanos,
  (start) => Effect.map(Clock.monotonicTimeNanos, (now) => Number(now - start) / 1e6)
)

/** Tells which members have ended since the last look. */
const watcher = (members: ReadonlyArray<Member>, elapsed: Effect.Effect<number>) => {
  let alive = members
  return Effect.gen(function*() {
    const now = yield* living(alive)
    const ms = yield* elapsed
    const ended = alive.filter((member) => !now.includes(member))
    if (ended.length > 0) Screen.effect(ms, `ended: ${Screen.names(ended)}`)
    alive = now
    return alive
  })
}

/** Tells each end of a member until all have ended or `limit` ms have passed, and who is left. */
const watch = Effect.fn("watch")(function*(
  members: ReadonlyArray<Member>,
  elapsed: Effect.Effect<number>,
  limit: number
) {
  const look = watcher(members, elapsed)
  let alive = yield* look
  while (alive.length > 0 && (yield* elapsed) < limit) {
    yield* Effect.sleep(pause)
    alive = yield* look
  }
  Screen.left(alive, members.length)
  return alive
})

/** A process started by Node alone. */
const startByNode = (args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [...process.execArgv, ...args], { stdio: ["ignore", "pipe", "inherit"] })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

const lines = (child: NodeProcess) =>
  Stream.fromAsyncIterable(createInterface({ input: child.stdout! }), () => new Error("the output has ended"))

const ended = (child: NodeProcess) =>
  Effect.callback<void>((resume) => {
    child.once("exit", () => resume(Effect.void))
    if (child.exitCode !== null || child.signalCode !== null) resume(Effect.void)
  })

/** Ends what was left, by pid. */
const endByPid = Effect.fn("endByPid")(function*(members: ReadonlyArray<Member>) {
  for (const { info } of yield* living(members)) process.kill(info.pid, "SIGKILL")
  while ((yield* living(members)).length > 0) yield* Effect.sleep(pause)
})

/** The tree of a host that Node started, drawn; what is left of it at the end of the scope is ended by pid. */
const shown = Effect.fn("shown")(function*(name: string, child: NodeProcess, parent: number) {
  const { members } = yield* running(lines(child))
  yield* Effect.addFinalizer(() => endByPid(members))
  Screen.tree({ name, pid: parent }, members)
  return members
})

const get = (port: number, path: string) =>
  Effect.tryPromise(async () => (await fetch(`http://127.0.0.1:${port}${path}`)).text())

const stopWithTreeline = Effect.gen(function*() {
  Screen.heading("1. Treeline: a tree is started, and stopped in order")
  const platform = yield* ProcessPlatform.ProcessPlatform
  const tree = yield* platform.launch(command)
  const { members, port } = yield* running(Output.lines(tree.stdout.stream))
  Screen.tree({ name: "this demo", pid: process.pid }, members)
  Screen.say(`GET / was answered: ${yield* get(port, "/")}`)
  Screen.say("Its shutdown plan: finish by HTTP, 500 ms; SIGTERM, 500 ms; then kill.")
  const elapsed = yield* stopwatch
  const finish = Effect.gen(function*() {
    const answer = yield* get(port, "/finish")
    Screen.effect(yield* elapsed, `answer: ${answer}`)
  })
  const plan = ShutdownPlan.make([
    ShutdownPlan.run("HTTP GET /finish", finish, "500 millis"),
    ShutdownPlan.signal("SIGTERM", { within: "500 millis" }),
    // The kill that ends every plan is over too soon to be seen; a step before it tells that it comes.
    ShutdownPlan.run("announce", Effect.map(elapsed, (ms) => Screen.action(ms, "SIGKILL")), "0 millis")
  ])
  const lookAtMembers = watcher(members, elapsed)
  let step = ""
  const look = Effect.gen(function*() {
    const state = Option.getOrUndefined(yield* tree.teardown)
    if (state !== undefined && state.step !== step && state.step !== "kill") {
      step = state.step
      Screen.action(yield* elapsed, step)
    }
    return yield* lookAtMembers
  })
  const observer = yield* Effect.forkChild(Effect.forever(Effect.andThen(look, Effect.sleep(pause))))
  yield* tree.shutdown(plan)
  yield* Fiber.interrupt(observer)
  const alive = yield* look
  Screen.action(yield* elapsed, "the tree is empty")
  Screen.left(alive, members.length)
  return alive.length
}).pipe(Effect.scoped)

const stopWithNode = Effect.gen(function*() {
  Screen.heading("2. Node's child_process: the same tree, child.kill()")
  const child = yield* startByNode(command.args.map(String))
  const members = yield* shown("this demo", child, process.pid)
  const elapsed = yield* stopwatch
  child.kill()
  yield* ended(child)
  Screen.action(yield* elapsed, "child.kill() has worked: the exit event has come")
  return (yield* watch(members, elapsed, watchFor.node)).length
}).pipe(Effect.scoped)

const killHost = Effect.fn("killHost")(function*(heading: string, by: "treeline" | "node") {
  Screen.heading(heading)
  const child = yield* startByNode([hosts[by]])
  const members = yield* shown("host", child, child.pid!)
  const elapsed = yield* stopwatch
  child.kill("SIGKILL")
  yield* ended(child)
  Screen.action(yield* elapsed, "SIGKILL to the host")
  return (yield* watch(members, elapsed, watchFor[by])).length
}, Effect.scoped)

const demo = Effect.gen(function*() {
  const total = yield* stopwatch
  Screen.say("One tree of processes: a web server, a worker, one that ignores SIGTERM, and")
  Screen.say("a daemon that has left the tree's session. It is ended in two ways.")
  const stopped = { treeline: yield* stopWithTreeline, node: yield* stopWithNode }
  const killed = {
    treeline: yield* killHost("3. Treeline: a host of its own starts it, and is killed", "treeline"),
    node: yield* killHost("4. Node's child_process: the same, and its host is killed", "node")
  }
  Screen.heading("Processes left, of 4")
  Screen.result("", "Treeline", "child_process")
  Screen.result("stopped by its host", `${stopped.treeline}`, `${stopped.node}`)
  Screen.result("host killed with SIGKILL", `${killed.treeline}`, `${killed.node}`)
  Screen.say("")
  Screen.say(`What child_process left was ended by pid. ${((yield* total) / 1000).toFixed(1)} s in all.`)
  if (stopped.treeline + killed.treeline > 0) process.exitCode = 1
})

demo.pipe(Effect.timeout("60 seconds"), Effect.provide(PosixPlatform.layer), NodeRuntime.runMain)
