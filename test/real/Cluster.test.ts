/**
 * A pool across machines, as far as one machine can show it: runners that are processes of their own, sockets between
 * them, PostgreSQL. Every process of a key holds the key's lock in the kernel, so two at once are seen whenever they are.
 */
import { assert, describe, layer } from "@effect/vitest"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Layer, References } from "effect"
import { config } from "../fixtures/clusterSpec.ts"
import * as ClusterHosts from "../support/ClusterHosts.ts"
import { eventually, stays } from "../support/Eventually.ts"
import * as Postgres from "../support/Postgres.ts"
import { stateOf } from "../support/Processes.ts"

const shared = Postgres.layer.pipe(
  Layer.provide(PosixPlatform.layer),
  Layer.provideMerge(Layer.succeed(References.MinimumLogLevel, "None"))
)

/**
 * When all keys of a dead runner are up on the others, in ms after its death: its lease ends, the others notice that within
 * one look at the members and one at the locks, read what is kept, and start it; the rest is for a busy machine.
 */
const bound = config.shardLockExpiration + config.refreshAssignmentsInterval + 1000 + config.entityMessagePollInterval +
  4000

const tell = (lines: ReadonlyArray<readonly [ms: number, text: string]>) =>
  Effect.sync(() => console.log(lines.map(([ms, text]) => `${String(ms).padStart(7)} ms  ${text}`).join("\n")))

/** `one (20), two (19)` */
const spread = (lines: ReadonlyArray<ClusterHosts.Line>): string => {
  const counts = Map.groupBy(lines, ({ runner }) => runner)
  return [...counts].map(([runner, of]) => `${runner} (${of.length})`).sort().join(", ")
}

const last = (lines: ReadonlyArray<ClusterHosts.Line>) => Math.max(...lines.map(({ at }) => at))
const first = (lines: ReadonlyArray<ClusterHosts.Line>) => Math.min(...lines.map(({ at }) => at))

const keys = (count: number) => Array.from({ length: count }, (_, index) => `key-${index}`)

const missing = Postgres.whyNot()

describe.skipIf(process.platform !== "linux" || missing !== undefined)(
  `a cluster of real runners on PostgreSQL${missing === undefined ? "" : ` (left out: ${missing})`}`,
  () => {
    layer(shared, { excludeTestServices: true })((it) => {
      it.effect(
        "SIGKILL of one of three runners with 60 keys: never two, all up again in time, and it rejoins",
        () =>
          Effect.gen(function*() {
            const { port } = yield* Postgres.Postgres
            const { awaitUp, ensure, savedOf, start, witnesses } = yield* ClusterHosts.make(port, "sixty")
            const all = keys(60)
            const names = ["one", "two", "three"]
            const [one] = yield* Effect.all(names.map((name) => start(name)), { concurrency: "unbounded" })
            yield* ensure(one!, 60)
            // Shards may still be on their way to the last runner that came.
            yield* eventually("each runner has some", () => new Set(witnesses.living.map((of) => of.runner)).size === 3)
            yield* awaitUp(all, names, 20_000)
            const before = witnesses.living
            const lost = before.filter(({ runner }) => runner === "one").map(({ key }) => key)

            const killedAt = ClusterHosts.now()
            one!.signal("SIGKILL")
            yield* one!.awaitNoDescendants()
            const emptyAt = ClusterHosts.now()
            assert.deepStrictEqual(witnesses.living.filter(({ runner }) => runner === "one"), [])
            const back = yield* awaitUp(lost, ["two", "three"], bound)
            const settled = yield* awaitUp(all, ["two", "three"], bound)
            assert.isBelow(last(back) - killedAt, bound)
            assert.isAbove(first(back), emptyAt)

            const rejoinedAt = ClusterHosts.now()
            yield* start("one")
            yield* eventually("it has keys again", () => witnesses.living.some((of) => of.runner === "one"), {
              within: 15_000
            })
            const again = yield* awaitUp(all, names, 15_000)
            assert.deepStrictEqual(witnesses.twice, [])
            // A move saves the state.
            const moved = witnesses.lines.filter(({ at, what }) => what === "stop" && at > rejoinedAt)
            assert.isNotEmpty(moved)
            for (const { key } of moved) assert.isAtLeast(savedOf(key), 1, key)
            yield* tell([
              [0, `SIGKILL to runner one, of ${spread(before)}`],
              [emptyAt - killedAt, "nothing of it is left: its guardian has ended its trees"],
              [first(back) - killedAt, "the first of its keys is up on another runner"],
              [last(back) - killedAt, `all ${lost.length} are up (bound ${bound} ms): ${spread(back)}`],
              [last(settled) - killedAt, `all 60 are up: ${spread(settled)}`],
              [rejoinedAt - killedAt, "runner one is started again"],
              [last(again) - killedAt, `all 60 are up: ${spread(again)}; no key had two processes at any time`]
            ])
          }),
        90_000
      )

      it.effect(
        "runners that are stopped for longer than their lease: with a watchdog never two, without one two",
        () =>
          Effect.gen(function*() {
            const { port } = yield* Postgres.Postgres
            const { awaitUp, ensure, start, witnesses } = yield* ClusterHosts.make(port, "stopped")
            const names = ["guarded", "bare", "other"]
            const [guarded, bare, other] = yield* Effect.all(names.map((name) => start(name, name !== "bare")), {
              concurrency: "unbounded"
            })
            yield* ensure(other!, 24)
            yield* eventually("each runner has some", () => new Set(witnesses.living.map((of) => of.runner)).size === 3)
            yield* awaitUp(keys(24), names, 20_000)
            const before = witnesses.living
            const of = (name: string) => before.filter(({ runner }) => runner === name).map(({ key }) => key)

            const stoppedAt = ClusterHosts.now()
            guarded!.signal("SIGSTOP")
            bare!.signal("SIGSTOP")
            yield* eventually(
              "both are stopped",
              () => stateOf(guarded!.identity.pid) === "T" && stateOf(bare!.identity.pid) === "T"
            )
            yield* guarded!.awaitNoDescendants()
            const killedAt = ClusterHosts.now()
            assert.isBelow(killedAt - stoppedAt, config.shardLockExpiration)
            const back = yield* awaitUp(of("guarded"), ["other"], bound)
            yield* eventually(
              "a second process of a key of the other stopped one is seen",
              () => witnesses.twice.length > 0
            )
            const twice = witnesses.lines.filter(({ what }) => what === "two")
            assert.deepStrictEqual(twice.filter(({ key }) => !of("bare").includes(key)), [])
            assert.isTrue(bare!.isAlive())
            yield* tell([
              [0, `SIGSTOP to the runners guarded and bare, of ${spread(before)}`],
              [
                killedAt - stoppedAt,
                `nothing of guarded is left; its leases end at ${config.shardLockExpiration} ms at the latest`
              ],
              [first(back) - stoppedAt, "the first of its keys is up on the other one"],
              [last(back) - stoppedAt, `all ${back.length} are up; none of them had two processes at any time`],
              [first(twice) - stoppedAt, "without a watchdog: a key of bare has two processes, as the control expects"]
            ])
          }),
        90_000
      )

      it.effect(
        "a store that stops answering: all children are ended by their plans in time, and come back with it",
        () =>
          Effect.gen(function*() {
            const { port, signal } = yield* Postgres.Postgres
            const { awaitUp, ensure, start, witnesses } = yield* ClusterHosts.make(port, "away")
            const names = ["one", "two"]
            const [one, two] = yield* Effect.all(names.map((name) => start(name)), { concurrency: "unbounded" })
            yield* ensure(one!, 20)
            yield* awaitUp(keys(20), names, 20_000)

            const stoppedAt = ClusterHosts.now()
            yield* signal("SIGSTOP")
            yield* eventually("all children have gone", () => witnesses.living.length === 0)
            const goneAt = ClusterHosts.now()
            // Two refresh intervals and the plan, if the machine is not busy; in any case before the lease ends.
            assert.isBelow(goneAt - stoppedAt, config.shardLockExpiration)
            assert.lengthOf(witnesses.lines.filter(({ at, what }) => what === "stop" && at > stoppedAt), 20)
            yield* stays("the runners live", () => one!.isAlive() && two!.isAlive(), 1000)

            const backAt = ClusterHosts.now()
            yield* signal("SIGCONT")
            const back = yield* awaitUp(keys(20), names, bound)
            assert.deepStrictEqual(witnesses.twice, [])
            yield* tell([
              [0, "SIGSTOP to PostgreSQL, with 20 keys on two runners"],
              [goneAt - stoppedAt, "all 20 children have ended by their plans"],
              [backAt - stoppedAt, "PostgreSQL goes on"],
              [last(back) - stoppedAt, `all 20 are up: ${spread(back)}; no key had two processes at any time`]
            ])
          }),
        90_000
      )
    })
  }
)
