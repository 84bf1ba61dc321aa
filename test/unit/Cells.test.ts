/** Text as a terminal shows it. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Cells from "../../packages/treeline/src/internal/Cells.ts"

describe("Cells", () => {
  it.each([["web", 3], ["ファイル", 8], ["é", 1], ["e\u0301", 1], ["👩‍👩‍👧", 2], ["\u001b[31mred\u001b[0m", 3], ["", 0]])(
    "%j takes %i cells",
    (text, cells) => assert.strictEqual(Cells.width(text), cells)
  )

  it.each([
    ["worker", 10, "worker"],
    ["worker", 6, "worker"],
    ["worker", 4, "wor…"],
    ["データベース", 7, "データ…"],
    ["データベース", 6, "デー…"],
    ["worker", 0, ""]
  ])("%j in %i cells is %j", (text, cells, shown) => assert.strictEqual(Cells.truncate(text, cells), shown))

  it("any text: what was cut is never wider than its room, and nothing is cut that fits", () => {
    const text = fc.string({ unit: "grapheme", maxLength: 30 }).map((text) => Cells.clean(text))
    fc.assert(fc.property(text, fc.nat(40), (text, cells) => {
      const shown = Cells.truncate(text, cells)
      assert.isAtMost(Cells.width(shown), cells)
      if (Cells.width(text) <= cells) assert.strictEqual(shown, text)
    }))
  })

  it("tabs become spaces up to the next stop, after wide characters too", () => {
    assert.strictEqual(Cells.clean("a\tb"), "a       b")
    assert.strictEqual(Cells.clean("日本\t|"), "日本    |")
    assert.strictEqual(Cells.clean("12345678\t|"), "12345678        |")
  })

  it("what moves the cursor, sets a title or turns text around is a visible sign", () => {
    assert.strictEqual(Cells.clean("10%\r20%\b"), "10%␍20%␈")
    assert.strictEqual(Cells.clean("\u001b[2J\u001b]0;title\u0007\u009b1A"), "␛[2J␛]0;title␇�1A")
    assert.strictEqual(Cells.clean("a\u202eb\u2028c"), "a�b�c")
  })

  it("colours stay where they may, and end with the line", () => {
    const red = "\u001b[31mred\ttext"
    assert.strictEqual(Cells.clean(red, true), "\u001b[31mred     text\u001b[0m")
    assert.strictEqual(Cells.clean(red), "red     text")
  })

  it("any text: nothing that a terminal would act on is left", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
      // oxlint-disable-next-line no-control-regex
      assert.notMatch(Cells.clean(text), /[\u0000-\u001f\u007f-\u009f]/)
    }))
  })
})
