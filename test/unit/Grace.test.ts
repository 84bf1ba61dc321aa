/** Times on the command line. */
import { assert, describe, it } from "@effect/vitest"
import * as Grace from "../../packages/treeline/src/internal/Grace.ts"

describe("Grace", () => {
  it.each([
    ["5s", 5000],
    ["500ms", 500],
    ["2 minutes", 120_000],
    ["1 second", 1000],
    ["1.5h", 5_400_000],
    [".5s", 500],
    ["3", 3000],
    ["0", 0],
    ["0ms", 0]
  ])("reads \"%s\" as %i ms", (text, ms) => assert.strictEqual(Grace.parse(text), ms))

  it.each(["", "s", "5 apples", "1s2", "five", "0x10", "1e3s", "--"])("F12: refuses \"%s\"", (text) => {
    assert.throws(() => Grace.parse(text), /a time such as/)
  })

  it.each(["-1s", "-0.5", "inf", "-inf", "NaN", "Infinity s", "25 h".repeat(2), "577h"])(
    "F12: refuses \"%s\", which is no bounded wait",
    (text) => assert.throws(() => Grace.parse(text))
  )

  it("reads seconds as Python writes them", () => {
    assert.deepStrictEqual(["5.0", "0", "1e-1", ".25"].map(Grace.parseSeconds), [5000, 0, 100, 250])
    for (const text of ["-1", "nan", "inf", "-inf", "5s", "", "0x1"]) {
      assert.throws(() => Grace.parseSeconds(text), undefined, undefined, text)
    }
  })

  it("F12: a negative time is joined to its option, and nothing after -- is touched", () => {
    const join = (line: string) => Grace.joinNegative(line.split(" "), new Set(["--grace"])).join(" ")
    assert.strictEqual(join("run --grace -5s -- x --grace -5s"), "run --grace=-5s -- x --grace -5s")
    assert.strictEqual(join("run --grace -inf x"), "run --grace=-inf x")
    assert.strictEqual(join("run --grace 5s --json -- x"), "run --grace 5s --json -- x")
    assert.strictEqual(join("run --grace --json"), "run --grace --json")
    assert.strictEqual(join("run --grace -- -5"), "run --grace -- -5")
  })
})
