/** What is decided of kept services, without any process. */
import { assert, describe, it } from "@effect/vitest"
import { ProcessPlatform, ShutdownPlan } from "@treeline/core"
import { type Claim, Kept, ServiceChild, ShimClient, ShimHost } from "@treeline/core/daemon"
import { ClaimUndecided } from "@treeline/core/Errors"
import type { ProcessIdentity } from "@treeline/core/ProcessIdentity"
import { SimulatedPlatform } from "@treeline/core/testing"
import { StateDirectory } from "@treeline/platform-node"
import { Clock, Effect, Exit, Result, Scope } from "effect"
import { ChildProcess } from "effect/process"
import { advance, lives, onSystem, passing, settle } from "../support/Actors.ts"
import { configOf } from "../support/Configs.ts"

const holder = { pid: 4711, startTime: "123", boot: "this boot" }
const launched = { digest: "same", leader: { ...holder, pid: 4712 }, grace: 1000 }

const held = (launchedNow: Kept.Facts["launched"]): Claim.State<Kept.Facts> => ({
  _tag: "Held",
  holding: {
    holder,
    since: 0,
    info: { service: "web", version: "1", program: "treeline", listens: true, launched: launchedNow }
  }
})

describe("a kept service", () => {
  it("peer 48, peer 49: adopted, ended first, swept, launched anew, or refused", () => {
    const error = new ClaimUndecided({ path: "/s/keep-web", pid: 4711, reason: "Unsure", detail: "" })
    const states: ReadonlyArray<readonly [Claim.State<Kept.Facts>, Kept.Decision["_tag"]]> = [
      [held(launched), "Adopt"],
      [held({ ...launched, digest: "other" }), "EndFirst"],
      [held(null), "EndFirst"],
      [{ _tag: "Stale", holding: null }, "Sweep"],
      [{ _tag: "Free" }, "Launch"],
      [{ _tag: "Undecided", error }, "Refuse"]
    ]
    for (const [state, wanted] of states) assert.strictEqual(Kept.decide(state, "same")._tag, wanted)
  })

  it("has a name of its own in every file system", () => {
    const names = ["web", "Web", "we_b", "con"].map(Kept.nameOf)
    assert.strictEqual(new Set(names.map((name) => name.toLowerCase())).size, names.length)
    for (const name of names) assert.match(name, /^keep-[a-z0-9_-]+$/)
    assert.deepStrictEqual([Kept.isKeepable("web"), Kept.isKeepable("w".repeat(300))], [true, false])
  })

  it("K18: its socket has a short path where the folder has a long one, and is a port on Windows", () => {
    const at = (directory: string, platform: NodeJS.Platform) =>
      StateDirectory.addressIn(directory, "keep-web", { environment: { XDG_RUNTIME_DIR: "/run/user/1" }, platform })
    assert.deepStrictEqual(at("/s", "linux"), { _tag: "Socket", path: "/s/keep-web.sock", link: null })
    const long = at(`/${"s".repeat(120)}`, "linux")
    assert.isTrue(long._tag === "Socket" && long.path.startsWith("/run/user/1/treeline-") && long.link !== null)
    assert.strictEqual(at("/s", "win32")._tag, "Port")
  })

  it.live("peer 49: a dead shim is gone when nothing of its tree is left: by records, or by its leader", () =>
    Effect.gen(function*() {
      const leader = { pid: 4712, startTime: "124", boot: "this boot" }
      const left = { parent: 1, group: 1, session: 1, state: "S", alive: true, command: "left", ...leader }
      let looks = 0
      const real = yield* Effect.provide(ProcessPlatform.ProcessPlatform, SimulatedPlatform.layer())
      const base: ProcessPlatform.ProcessPlatform["Service"] = {
        ...real,
        clock: Effect.succeed(yield* Clock.Clock),
        standing: ({ pid }) => Effect.sync(() => pid === leader.pid && ++looks < 3 ? "Alive" : "Gone")
      }
      assert.isTrue(yield* ShimClient.awaitGone({ platform: base, shim: holder, leader }, 0))
      assert.strictEqual(looks, 3, "where hosts have no records")
      const ended: Array<number> = []
      const platform: typeof base = {
        ...base,
        leftoversOf: (host) => Effect.sync(() => host === holder && ended.length < 2 ? [left] : []),
        endLeftovers: (pids) => Effect.sync(() => (ended.push(...pids), pids))
      }
      assert.isTrue(yield* ShimClient.awaitGone({ platform, shim: holder, leader }, 0))
      assert.deepStrictEqual(ended, [4712, 4712])
      const living: typeof base = { ...base, standing: () => Effect.succeed("Alive") }
      assert.isFalse(yield* ShimClient.awaitGone({ platform: living, shim: holder, leader }, 0))
    }))

  it.effect("a plan that runs code of the daemon can't be told to another process", () =>
    Effect.gen(function*() {
      const plan = ShutdownPlan.make([ShutdownPlan.signal("SIGINT", { target: "leader", within: 100 })], { cap: 50 })
      assert.deepStrictEqual(yield* ShimClient.planOf(plan), {
        steps: [{ action: "SIGINT", target: "leader", within: 100 }],
        cap: 50
      })
      const running = ShutdownPlan.make([ShutdownPlan.run("save", Effect.void, 100)])
      assert.strictEqual((yield* Effect.flip(ShimClient.planOf(running))).field, "shutdown")
    }))

  const hostOf = (isThere: () => boolean, starter: ProcessIdentity | undefined) =>
    Effect.gen(function*() {
      const facts: Kept.Facts = { service: "web", version: "1", program: "treeline", listens: true, launched: null }
      const claim: Claim.Claim<Kept.Facts> = {
        holder,
        tell: () => Effect.void,
        isThere: Effect.sync(isThere),
        setKept: () => Effect.void
      }
      const host = yield* ShimHost.make({ claim, facts, starter, launchWithin: 3_600_000 })
      let over = false
      yield* Effect.forkScoped(Effect.andThen(
        host.awaitEnd,
        Effect.sync(() => {
          over = true
        })
      ))
      return () => over
    })

  it.effect(
    "peer 49: a shim whose starter has gone before the launch ends, at once or within a second",
    onSystem(function*() {
      const late = yield* hostOf(() => true, { pid: 1_000_000, startTime: "1", boot: "this boot" })
      yield* settle
      assert.isTrue(late())
      const platform = yield* ProcessPlatform.ProcessPlatform
      const scope = yield* Scope.make()
      const { identity } = yield* Scope.provide(platform.launch(ChildProcess.make("lives"), {}), scope)
      const early = yield* hostOf(() => true, identity)
      yield* advance(60_000)
      assert.isFalse(early())
      yield* passing(Scope.close(scope, Exit.void))
      yield* advance(1000)
      assert.isTrue(early())
    }, { programs: { lives } })
  )

  it.effect(
    "a shim whose claim was removed by hand ends within 10 s",
    onSystem(function*() {
      let isThere = true
      const over = yield* hostOf(() => isThere, undefined)
      yield* advance(60_000)
      assert.isFalse(over())
      isThere = false
      yield* advance(10_000)
      assert.isTrue(over())
    })
  )

  it("is what the configuration says, for services and not for pools", () => {
    const { services } = configOf({ services: { web: { command: "w", whenDaemonEnds: "keep" }, db: { command: "d" } } })
    assert.deepStrictEqual([services["web"]!.whenDaemonEnds, services["db"]!.whenDaemonEnds], ["keep", "end"])
    assert.throws(() => configOf({ pools: { p: { command: "p", whenDaemonEnds: "keep" } as never } }), /whenDaemonEnds/)
    const kept: Array<string> = []
    const keeper = { find: () => Effect.die(""), launch: () => Effect.die(""), leaving: () => false }
    const keepers = {
      keeper: (service: string) => {
        kept.push(service)
        return keeper
      },
      unkept: () => keeper,
      kept: Effect.succeed([]),
      end: () => Effect.succeed([]),
      leave: Effect.void,
      stay: Effect.void
    }
    for (const [name, service] of Object.entries(services)) {
      assert.isTrue(Result.isSuccess(ServiceChild.make(name, service, {}, keepers)))
    }
    assert.deepStrictEqual(kept, ["web"])
  })
})
