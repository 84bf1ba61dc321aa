/**
 * A server for each tenant behind one proxy: started when somebody asks, ended when nobody does, and its directory comes
 * and goes with it.
 *
 * Exit code 0 means that nothing is left.
 */
import { NodeHttpClient, NodeRuntime, NodeServices } from "@effect/platform-node"
import { ProcessPlatform } from "@treeline/core"
import type { ProcessInfo } from "@treeline/core/ProcessIdentity"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Fiber, FileSystem, References, Scope, Stream } from "effect"
import * as Proxy from "./Proxy.ts"
import * as Screen from "./Screen.ts"
import * as Tenants from "./Tenants.ts"

/** What a shop tells of itself. */
interface Shop {
  readonly tenant: string
  readonly pid: number
  readonly orders: number
}

const example = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const platform = yield* ProcessPlatform.ProcessPlatform
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "treeline-tenants-" })
  const scope = yield* Scope.make()
  const tenants = yield* Scope.provide(Tenants.make(folder), scope)
  const url = yield* Scope.provide(Proxy.serve(tenants), scope)
  const seen: Array<ProcessInfo> = []

  /** Prints what happens, and remembers every process that was up, as the process table had it. */
  const watch = Stream.runForEach(tenants.events, (event) =>
    Effect.gen(function*() {
      Screen.event(event)
      if (event.change._tag !== "State" || event.change.to._tag !== "Live") return
      const { pid } = event.change.to
      const info = (yield* platform.processes).find((info) => info.pid === pid)
      if (info !== undefined) seen.push(info)
    }))

  const get = (path: string) => Effect.promise(async () => (await fetch(url + path)).text())
  const shop = (tenant: string, init?: RequestInit) =>
    Effect.promise(async () => await (await fetch(`${url}/${tenant}/`, init)).json() as Shop)
  const order = (tenant: string, what: string) => shop(tenant, { method: "POST", body: what })

  /** Waits until no server is left, and a moment for the reader. */
  const allGone = Effect.gen(function*() {
    while ((yield* tenants.status).keys.length > 0) yield* Effect.sleep("20 millis")
    yield* Effect.sleep("200 millis")
  })

  Screen.begin()
  const watching = yield* Effect.forkChild(watch, { startImmediately: true })
  Screen.heading("20 customers of acme at once, and one of globex")
  const twenty = Effect.all(Array.from({ length: 20 }, () => shop("acme")), { concurrency: "unbounded" })
  const [answers] = yield* Effect.all([twenty, shop("globex")], { concurrency: "unbounded" })
  const pids = new Set(answers.map(({ pid }) => pid))
  Screen.action(`20 answers from ${pids.size} process${pids.size === 1 ? "" : "es"}`)

  Screen.heading("they order; then nobody asks any more")
  for (const what of ["tea", "cups", "honey"]) yield* order("acme", what)
  yield* order("globex", "rope")
  Screen.action("acme has 3 orders, globex has 1")
  yield* allGone
  const kept = yield* fs.readDirectory(`${folder}/archives`)
  Screen.action(
    `archives: ${kept.sort().join(", ")}; directories: ${(yield* fs.readDirectory(`${folder}/running`)).length}`
  )

  Screen.heading("acme comes back, and listens longer than it may be idle")
  const back = yield* shop("acme")
  Screen.action(`the same ${back.orders} orders, from ${pids.has(back.pid) ? "the same" : "another"} process`)
  const news = yield* get("/acme/news")
  Screen.action(
    `${news.trim().split("\n").length} news, one every 200 ms; idle is who is not used for ${Tenants.idleAfter} ms`
  )

  Screen.heading("its server is killed; whoever asks next gets another")
  const fourth = yield* order("acme", "sugar")
  Screen.action(`SIGKILL to ${fourth.pid}`)
  process.kill(fourth.pid, "SIGKILL")
  const after = yield* Effect.andThen(Effect.sleep("100 millis"), shop("acme"))
  Screen.action(`all ${after.orders} orders are there`)

  Screen.heading("the pool closes")
  yield* shop("globex")
  yield* Scope.close(scope, Exit.void)
  yield* Fiber.join(watching)
  const table = yield* platform.processes
  const alive = seen.filter(({ pid, startTime }) =>
    table.some((info) => info.alive && info.pid === pid && info.startTime === startTime)
  )
  Screen.heading("and then")
  Screen.left(alive.length, seen.length)
  Screen.action(`directories: ${(yield* fs.readDirectory(`${folder}/running`)).length}`)
  if (alive.length > 0) process.exitCode = 1
})

NodeRuntime.runMain(
  example.pipe(
    Effect.scoped,
    Effect.provide([PosixPlatform.layer, NodeServices.layer, NodeHttpClient.layerUndici]),
    // What happens is on the screen in other words.
    Effect.provideService(References.MinimumLogLevel, "Error")
  )
)
