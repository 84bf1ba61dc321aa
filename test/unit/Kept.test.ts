/** What is decided of kept services, without any process. */
import { assert, describe, it } from "@effect/vitest"
import { ShutdownPlan } from "@treeline/core"
import { type Claim, Kept, ServiceChild, ShimClient } from "@treeline/core/daemon"
import { ClaimUndecided } from "@treeline/core/Errors"
import { StateDirectory } from "@treeline/platform-node"
import { Effect, Result } from "effect"
import { configOf } from "../support/Configs.ts"

const holder = { pid: 4711, startTime: "123", boot: "this boot" }
const launched = { digest: "same", leader: { ...holder, pid: 4712 }, grace: 1000 }

const held = (launchedNow: Kept.Facts["launched"]): Claim.State<Kept.Facts> => ({
  _tag: "Held",
  holding: { holder, since: 0, info: { service: "web", version: "1", listens: true, launched: launchedNow } }
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
    const names = ["web", "Web", "we_b", "con", "w".repeat(300)].map(Kept.nameOf)
    assert.strictEqual(new Set(names.map((name) => name.toLowerCase())).size, names.length)
    for (const name of names) assert.match(name, /^keep-[a-z0-9_-]+$/)
  })

  it("K18: its socket has a short path where the folder has a long one, and is a port on Windows", () => {
    const at = (directory: string, platform: NodeJS.Platform) =>
      StateDirectory.addressIn(directory, "keep-web", { environment: { XDG_RUNTIME_DIR: "/run/user/1" }, platform })
    assert.deepStrictEqual(at("/s", "linux"), { _tag: "Socket", path: "/s/keep-web.sock", link: null })
    const long = at(`/${"s".repeat(120)}`, "linux")
    assert.isTrue(long._tag === "Socket" && long.path.startsWith("/run/user/1/treeline-") && long.link !== null)
    assert.strictEqual(at("/s", "win32")._tag, "Port")
  })

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

  it("is what the configuration says, for services and not for pools", () => {
    const { services } = configOf({ services: { web: { command: "w", whenDaemonEnds: "keep" }, db: { command: "d" } } })
    assert.deepStrictEqual([services["web"]!.whenDaemonEnds, services["db"]!.whenDaemonEnds], ["keep", "end"])
    assert.throws(() => configOf({ pools: { p: { command: "p", whenDaemonEnds: "keep" } as never } }), /whenDaemonEnds/)
    const kept: Array<string> = []
    const keepers = {
      keeper: (service: string) => {
        kept.push(service)
        return { find: () => Effect.die(""), launch: () => Effect.die(""), leaving: () => false }
      },
      kept: Effect.succeed([]),
      end: () => Effect.succeed([]),
      leave: Effect.void
    }
    for (const [name, service] of Object.entries(services)) {
      assert.isTrue(Result.isSuccess(ServiceChild.make(name, service, {}, keepers)))
    }
    assert.deepStrictEqual(kept, ["web"])
  })
})
