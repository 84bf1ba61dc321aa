/** Moments between two steps of an actor at which somebody else comes. No real time passes. */
import { assert, describe, it } from "@effect/vitest"
import { Child } from "@treeline/core"
import { Effect, Exit, Fiber, Scope } from "effect"
import { lives, onSystem, passing, process, settle } from "../support/Actors.ts"

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(Effect.exit(self), { startImmediately: true })

describe("a scope that closes", () => {
  it.effect(
    "answers everybody, also those for whom the mailbox has no room",
    onSystem(function*() {
      const scope = yield* Scope.make()
      const child = yield* Scope.provide(Child.start(process("a", lives)), scope)
      yield* passing(child.stop())
      const closing = yield* fork(Scope.close(scope, Exit.void))
      const asked = yield* Effect.forEach(Array.from({ length: 300 }), () => fork(child.pause))
      yield* passing(Fiber.join(closing))
      yield* settle
      assert.strictEqual(asked.filter((fiber) => fiber.pollUnsafe() === undefined).length, 0)
    })
  )
})
