import { assert, describe, it } from "@effect/vitest"
import { type Bound, bounds, broken } from "../../bench/Bounds.ts"

const among: ReadonlyArray<Bound> = [
  { figure: "busy", atMost: 1.2, native: true },
  { figure: "rate", atLeast: 0.7 }
]

describe("the bounds of the short benchmark", () => {
  it("a figure on its bound is right, beyond it is not", () => {
    assert.deepStrictEqual(broken({ busy: 1.2, rate: 0.7 }, true, among), [])
    assert.deepStrictEqual(broken({ busy: 1.21, rate: 0.69 }, true, among), [
      "busy: 1.21, but at most 1.2 is right",
      "rate: 0.69, but at least 0.7 is right"
    ])
  })

  it("what holds for the native engine is not asked of another", () => {
    assert.deepStrictEqual(broken({ busy: 9, rate: 1 }, false, among), [])
  })

  it("a figure that is missing or no number breaks its bound", () => {
    assert.deepStrictEqual(broken({ busy: 1 }, true, among), ["rate: NaN, but at least 0.7 is right"])
    assert.strictEqual(broken({}, true).length, bounds.length)
  })
})
