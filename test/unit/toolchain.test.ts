import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"

it.effect("tests run on a Node that the project supports", () =>
  Effect.sync(() => {
    const [major, minor] = process.versions.node.split(".").map(Number) as [number, number]
    assert.isTrue(major > 22 || (major === 22 && minor >= 19), process.version)
  }))
