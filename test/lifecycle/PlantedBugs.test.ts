/**
 * The kit against bugs that were planted in a copy of the core: each must be found within 2,000 lifecycles. So a promise
 * that is no longer checked is seen here, and not when it is broken.
 */
import { assert, describe, it } from "@effect/vitest"
import { Lifecycle } from "@treeline/core/testing"
import { Effect } from "effect"
import { kit } from "../support/Lifecycles.ts"
import { scenarioOf } from "../support/OwnSpecs.ts"
import { type Change, find, isFound } from "../support/PlantedBugs.ts"

/** Each with the changes that plant it; a `from` must be there exactly once. */
const bugs: Readonly<Record<string, ReadonlyArray<Change>>> = {
  "a restart begins before the old tree is empty": [
    {
      file: "internal/ChildActor.ts",
      from: "const remainder = yield* this.stopBody(incarnation, plan)",
      to: "yield* Effect.forkDetach(this.stopBody(incarnation, plan), { startImmediately: true })\n" +
        "      const remainder = nothingLeft"
    },
    {
      file: "internal/ChildActor.ts",
      from: "yield* Scope.close(incarnation.scope, Exit.void)\n      yield* Fiber.interrupt(draining)",
      to: "yield* Effect.forkDetach(Scope.close(incarnation.scope, Exit.void))\n      yield* Fiber.interrupt(draining)"
    }
  ],
  "what an old incarnation says counts": [
    {
      file: "internal/ChildActor.ts",
      from: "return message.of === this.current ? this.onIncarnation(message) : Effect.void",
      to: "return this.onIncarnation(message)"
    },
    // Without this an old one is silent before the next one begins.
    {
      file: "internal/ChildActor.ts",
      from: "incarnation.fiber === undefined ? Effect.void : Fiber.interrupt(incarnation.fiber)",
      to: "incarnation.running !== undefined ? Effect.void : Fiber.interrupt(incarnation.fiber!)"
    }
  ],
  "a stop loses to a restart from before it": [
    {
      file: "internal/ChildActor.ts",
      from: "if (epoch !== this.epoch) return refuse()",
      to: "if (epoch < 0) return refuse()"
    },
    {
      file: "internal/ChildActor.ts",
      from: "if (this.state._tag === \"Stopping\" && this.intent === \"stop\") return refuse()",
      to: ""
    }
  ],
  "one restart too few is allowed": [
    { file: "internal/Intensity.ts", from: "restarts.length > max", to: "restarts.length >= max" }
  ],
  "one restart too many is allowed": [
    { file: "internal/Intensity.ts", from: "restarts.length > max", to: "restarts.length > max + 1" }
  ],
  "the window ends one instant too early": [
    { file: "internal/Intensity.ts", from: "now - at <= within", to: "now - at < within" }
  ],
  "no finalizer when a spawn is interrupted": [
    {
      file: "ProcessPlatform.ts",
      from: "const tree = yield* Effect.uninterruptible(Effect.gen(function*() {",
      to: "const tree = yield* Effect.interruptible(Effect.gen(function*() {"
    },
    {
      file: "internal/ChildActor.ts",
      from: "return Effect.uninterruptibleMask((restore) =>",
      to: "return loose((restore) =>"
    },
    {
      file: "internal/ChildActor.ts",
      from: "/** Between the end of a process's output and its own, in ms. */",
      to: "const loose = <A, E, R>(f: (restore: <B, F, S>(e: Effect.Effect<B, F, S>) => Effect.Effect<B, F, S>) => " +
        "Effect.Effect<A, E, R>) => f((effect) => effect)\n\n/** Between the end of a process's output and its own, in ms. */"
    }
  ],
  "a round starts temporary siblings again": [
    {
      file: "internal/SupervisorActor.ts",
      from: "Effect.ignore(child.spec.restart.mode === \"temporary\" ? actor.stop() : actor.halt)",
      to: "Effect.ignore(child.spec.id === \"\" ? actor.stop() : actor.halt)"
    }
  ],
  "rest_for_one takes earlier siblings along": [
    {
      file: "internal/SupervisorActor.ts",
      from: "ids.slice(ids.indexOf(origin))",
      to: "ids.slice(Math.max(0, ids.indexOf(origin) - 1))"
    }
  ],
  "children do not wait for what they depend on": [
    {
      file: "internal/Dependencies.ts",
      from: "return state._tag === \"Ready\" || hasSucceeded(state)",
      to: "return true"
    }
  ],
  "what others depend on is stopped first": [
    {
      file: "internal/SupervisorActor.ts",
      from: "const before = this.dependentsOf(id).flatMap((dependent) => done.get(dependent) ?? [])",
      to:
        "const before = this.dependentsOf(id).flatMap((dependent) => dependent === \"\" ? done.get(dependent) ?? [] : [])"
    }
  ],
  "probes go on while the child is being stopped": [
    {
      file: "internal/ChildActor.ts",
      from: "incarnation.stopProbes()\n      return Effect.asVoid(Effect.forkDetach(this.teardown",
      to: "return Effect.asVoid(Effect.forkDetach(this.teardown"
    }
  ],
  "a permanent failure code is a failure like any other": [
    {
      file: "Restart.ts",
      from: "if (status !== undefined && has(policy.permanentFailureCodes, status)) return \"fail\"",
      to: ""
    }
  ],
  "a paused child is restarted": [
    {
      file: "internal/ChildActor.ts",
      from: "return this.paused ? [\"resume\", ...this.owner.blockers()] : this.owner.blockers()",
      to: "return this.owner.blockers()"
    }
  ],
  "the kill waits for the leader and not for the tree": [
    {
      file: "internal/Teardown.ts",
      from: "end(this.tree.awaitEmpty, \"empty\")",
      to: "end(this.tree.exited, \"empty\")"
    }
  ],
  "the backoff never begins anew": [
    {
      file: "internal/ChildActor.ts",
      from: "incarnation.readyFor >= resetAfter",
      to: "incarnation.readyFor >= resetAfter * 1000"
    }
  ],
  "the first significant end counts for all": [
    {
      file: "internal/SupervisorActor.ts",
      from: "this.settings.autoShutdown === \"any\" || others.length === 0",
      to: "this.settings.autoShutdown === \"any\" && others.length === 0"
    }
  ]
}

describe.concurrent("planted bugs", () => {
  for (const [name, changes] of Object.entries(bugs)) {
    it.live(
      `is found within 2,000 lifecycles: ${name}`,
      () => isFound(name, changes, kit),
      300_000
    )
  }
})

describe("a planted bug shrinks to a short script that fails again", () => {
  for (
    const name of [
      "what others depend on is stopped first",
      "the kill waits for the leader and not for the tree",
      "a paused child is restarted"
    ]
  ) {
    it.live(
      name,
      () =>
        Effect.gen(function*() {
          const { again, invariant, script } = yield* find(bugs[name]!, kit, 500)
          const { commands, supervisor } = scenarioOf(script)
          console.log(
            `${supervisor.children.length} children, ${commands.length} commands: ${JSON.stringify(commands)}`
          )
          assert.isAtMost(supervisor.children.length, 2, script)
          assert.isAtMost(commands.length, 3, script)
          assert.isAtMost(Math.max(...script.split("\n").map((line) => line.length)), 120)
          assert.strictEqual(again, invariant)
          // Without the bug it keeps its promises.
          yield* Lifecycle.replay(scenarioOf(script))
        }),
      120_000
    )
  }
})
