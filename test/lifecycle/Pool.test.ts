/** Drawn lifecycles of pools, and bugs planted in a copy of the core that they have to find. */
import { assert, describe, it } from "@effect/vitest"
import { PoolLifecycle } from "@treeline/core/testing"
import { Effect } from "effect"
import { checkAll, poolKit } from "../support/Lifecycles.ts"
import { poolScenarioOf } from "../support/OwnSpecs.ts"
import { type Change, find, isFound } from "../support/PlantedBugs.ts"

/** Lifecycles in all. */
const total = Number(process.env["TREELINE_POOL_LIFECYCLES"] ?? 2000)
const first = Number(process.env["TREELINE_SEED"] ?? 1)

it.live(
  `A10 to A14, A18, peer 98, 100 to 103: ${total} drawn lifecycles of pools from seed ${first} on keep every promise`,
  () => checkAll(poolKit, first, total),
  300_000
)

it.effect("the same scenario runs the same way again", () =>
  Effect.gen(function*() {
    for (const seed of [3, 14, 159, 265]) {
      const one = yield* PoolLifecycle.run(PoolLifecycle.scenario(seed))
      const again = yield* PoolLifecycle.run(PoolLifecycle.scenario(seed))
      assert.strictEqual(one.story, again.story)
    }
  }))

const actor = "internal/PoolActor.ts"

/** Each with the changes that plant it; a `from` must be there exactly once. */
const bugs: Readonly<Record<string, ReadonlyArray<Change>>> = {
  "A12: the next incarnation begins before the tree of the last one is empty": [
    {
      file: actor,
      from: "        yield* actor.close\n        const { problem, survivors }",
      to: "        yield* Effect.forkDetach(actor.close)\n        const { problem, survivors }"
    },
    { file: actor, from: "yield* Effect.ignore(actor.stop(life.leaving?.plan))", to: "" }
  ],
  "A12: the next incarnation begins before the state of the last one is saved": [
    {
      file: actor,
      from: "const problem = yield* this.save(life, repeat)",
      to: "yield* Effect.forkDetach(this.save(life, repeat))\n      const problem = undefined as string | undefined"
    }
  ],
  "A13: a touch while a probe is asked is lost": [
    { file: actor, from: "if (life.stamp === stamp && life.leases === 0", to: "if (life.leases === 0" },
    { file: actor, from: "if (Policy.judge(life.limits, life, now)._tag === \"Idle\")", to: "if (!evict)" }
  ],
  "A14: a build goes on for nobody": [
    { file: actor, from: "if (request.callers === 0 && entry.request === request) this.abandon(entry)", to: "" }
  ],
  "A10: who asks during a build builds too": [
    {
      file: actor,
      from: "const life = this.entries.get(key)?.life\n    if (life?.isLive !== true || (",
      to:
        "const life = this.entries.get(key)?.life\n    if (life !== undefined) life.isLive = true\n    if (life?.isLive !== true || ("
    }
  ],
  "A2: a build that fails leaves those who wait": [
    {
      file: actor,
      from: "this.leave(life, \"failed\", problem, { answer })",
      to: "this.leave(life, \"failed\", problem)"
    }
  ],
  "A3: a child that has ended stays in the pool": [
    { file: actor, from: "if (life.isLive) this.leave(life, \"ended\", why)", to: "if (life.isLive) return" }
  ],
  "A6: a child is idle from its first use on": [
    {
      file: "internal/PoolPolicy.ts",
      from: "usage.usedAt + limits.idle",
      to: "usage.readyAt + limits.idle"
    }
  ],
  "A7: a lease does not pin": [
    { file: "internal/PoolPolicy.ts", from: "if (usage.leases > 0) return", to: "if (usage.leases > 9) return" },
    { file: actor, from: "life.stamp === stamp && life.leases === 0", to: "life.stamp === stamp" }
  ],
  "peer 101: a leased child makes room": [
    {
      file: actor,
      from: "if (life?.isLive === true && life.leases === 0 && !life.unwanted)",
      to: "if (life?.isLive === true && !life.unwanted)"
    },
    { file: actor, from: "life.stamp === stamp && life.leases === 0", to: "life.stamp === stamp" }
  ],
  "peer 101: who comes last is first": [
    { file: actor, from: "for (const entry of this.queue) {", to: "for (const entry of [...this.queue].reverse()) {" }
  ],
  "peer 101: a dying child takes no place": [
    { file: actor, from: "this.counts.Live + this.counts.Retiring +", to: "this.counts.Live +" }
  ],
  "peer 101: nobody is told when a place is free": [
    {
      file: actor,
      from: "this.tell(() => Deferred.doneUnsafe(over, Exit.succeed(undefined)))\n    this.admit()",
      to: "this.tell(() => Deferred.doneUnsafe(over, Exit.succeed(undefined)))"
    }
  ],
  "a shutdown does not overtake those who wait": [
    { file: actor, from: "this.answer(entry, Exit.fail(refusal))", to: "void refusal" }
  ],
  "unsaved state is dropped": [
    {
      file: actor,
      from: "if (problem !== undefined) {\n        const { incarnation } = life",
      to: "if (problem === \"never\") {\n        const { incarnation } = life"
    }
  ],
  "a token outlives its incarnation": [
    { file: actor, from: "      life.revoke()\n      const problem", to: "      const problem" }
  ],
  "the scope of an incarnation stays open": [
    { file: actor, from: "yield* Guest.close(life.scope, (fiber) => life.leaveBehind(\"release\", fiber))", to: "" }
  ]
}

describe.concurrent("planted bugs", () => {
  for (const [name, changes] of Object.entries(bugs)) {
    it.live(
      `is found within 2,000 lifecycles: ${name}`,
      () => isFound(name, changes, poolKit),
      300_000
    )
  }
})

describe("a planted bug shrinks to a short script that fails again", () => {
  for (const name of ["A7: a lease does not pin", "a shutdown does not overtake those who wait"]) {
    it.live(
      name,
      () =>
        Effect.gen(function*() {
          const { again, invariant, script } = yield* find(bugs[name]!, poolKit, 500)
          const { commands, pool } = poolScenarioOf(script)
          console.log(`${pool.keys.length} keys, ${commands.length} commands: ${JSON.stringify(commands)}`)
          assert.isAtMost(pool.keys.length, 2, script)
          assert.isAtMost(commands.length, 3, script)
          assert.strictEqual(again, invariant)
          // Without the bug it keeps its promises.
          yield* PoolLifecycle.replay(poolScenarioOf(script))
        }),
      120_000
    )
  }
})
