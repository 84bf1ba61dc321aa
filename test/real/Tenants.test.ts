import { NodeHttpClient, NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Layer, Schedule } from "effect"
import * as http from "node:http"
import * as Proxy from "../../examples/tenants/Proxy.ts"
import * as Tenants from "../../examples/tenants/Tenants.ts"
import * as Directories from "../support/Directories.ts"
import { inOrder, run, sectionsOf } from "../support/Example.ts"
import { identify } from "../support/Processes.ts"

const services = Layer.mergeAll(PosixPlatform.layer, NodeServices.layer, NodeHttpClient.layerUndici)

describe("the tenants behind their proxy", () => {
  it.live(
    "A1, A4 to A7, A10: come when they are asked for, go when they are idle, and keep what is theirs",
    () =>
      Effect.gen(function*() {
        const { code, output } = yield* Effect.promise(() => run("tenants"))
        const sections = sectionsOf(output)
        assert.strictEqual(sections.length, 6, output)
        const [first, idle, back, killed, closed, end] = sections as [string, string, string, string, string, string]
        inOrder(first, "acme is wanted: incarnation 1", "acme is up", "20 answers from 1 process\n")
        inOrder(idle, "acme has 3 orders", "archives: acme.tar.gz, globex.tar.gz; directories: 0")
        for (const tenant of ["acme", "globex"]) {
          inOrder(idle, `${tenant} goes down: nobody has used it for a while`, `${tenant} is gone`, "archives:")
          inOrder(closed, `${tenant} goes down: the pool closes`, `${tenant} is gone`)
        }
        inOrder(back, "acme is up", "the same 3 orders, from another process", "8 news")
        inOrder(
          killed,
          "SIGKILL to",
          "acme goes down: it has ended by itself",
          "acme is gone",
          "acme is up",
          "all 4 orders"
        )

        const pids = [...output.matchAll(/is up, pid (\d+)/g)].map(([, pid]) => Number(pid))
        // More of them on a machine that is so slow that somebody is idle between two requests.
        assert.isAtLeast(pids.length, 5)
        inOrder(end, `nothing is left: 0 of ${pids.length} processes`, "directories: 0")
        assert.deepStrictEqual(pids.filter((pid) => identify(pid) !== undefined), [])
        assert.notInclude(output, "\u001B")
        assert.isAtMost(Math.max(...output.split("\n").map((line) => line.length)), 80)
        assert.strictEqual(code, 0)
      }),
    60_000
  )

  const setUp = Effect.gen(function*() {
    const tenants = yield* Tenants.make(yield* Directories.temporary)
    return { tenants, url: yield* Proxy.serve(tenants) }
  })

  it.live("no server is started for a name that is none", () =>
    Effect.gen(function*() {
      const { tenants, url } = yield* setUp
      for (const path of ["/", "/a%2fb/", "/ACME/", `/${"a".repeat(41)}/`, "/a_b/"]) {
        assert.strictEqual((yield* Effect.promise(() => fetch(url + path))).status, 404, path)
      }
      assert.deepStrictEqual((yield* tenants.status).keys, [])
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("a server answers nobody but the proxy", () =>
    Effect.gen(function*() {
      const { tenants, url } = yield* setUp
      const forged = { headers: { "x-token": "0".repeat(64) } }
      assert.strictEqual((yield* Effect.promise(() => fetch(`${url}/acme/`, forged))).status, 200)
      const { endpoint } = yield* tenants.ensure("acme")
      assert.strictEqual((yield* Effect.promise(() => fetch(endpoint.http))).status, 403)
      assert.strictEqual((yield* Effect.promise(() => fetch(endpoint.http, forged))).status, 403)
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("large bodies pass, and each piece of an answer as it comes", () =>
    Effect.gen(function*() {
      const { url } = yield* setUp
      const body = "x".repeat(8 * 1024 * 1024)
      const posted = yield* Effect.promise(() => fetch(`${url}/acme/`, { method: "POST", body }))
      assert.strictEqual(posted.status, 200)
      const startedAt = performance.now()
      const response = yield* Effect.promise(() => fetch(`${url}/acme/news`))
      const reader = response.body!.getReader()
      const first = yield* Effect.promise(() => reader.read())
      assert.include(new TextDecoder().decode(first.value), "acme: 8 more")
      // All of it takes 1,600 ms.
      assert.isBelow(performance.now() - startedAt, 1000)
      yield* Effect.promise(() => reader.cancel())
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("who goes away in the middle of an answer holds nothing", () =>
    Effect.gen(function*() {
      const { tenants, url } = yield* setUp
      const request = http.get(`${url}/acme/news`)
      yield* Effect.callback<void>((resume) => {
        request.once("response", (response) => response.once("data", () => resume(Effect.void)))
      })
      const leases = Effect.map(tenants.status, ({ keys }) => keys[0]?.leases)
      assert.strictEqual(yield* leases, 1)
      request.once("error", () => {}).destroy()
      yield* leases.pipe(
        Effect.repeat({ until: (count) => count !== 1, schedule: Schedule.spaced("5 millis") }),
        Effect.timeout("5 seconds")
      )
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.live("a server that dies in the middle of an answer ends the answer, and the next one is another's", () =>
    Effect.gen(function*() {
      const { tenants, url } = yield* setUp
      const response = yield* Effect.promise(() => fetch(`${url}/acme/news`))
      const reader = response.body!.getReader()
      yield* Effect.promise(() => reader.read())
      const { child } = yield* tenants.ensure("acme")
      yield* child.signal("SIGKILL")
      const rest = yield* Effect.promise(async () => {
        try {
          while (!(await reader.read()).done);
          return "ended"
        } catch {
          return "cut"
        }
      })
      assert.strictEqual(rest, "cut")
      assert.strictEqual((yield* Effect.promise(() => fetch(`${url}/acme/`))).status, 200)
    }).pipe(Effect.scoped, Effect.provide(services)))
})
