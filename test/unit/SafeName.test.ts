import { assert, describe, it } from "@effect/vitest"
import * as SafeName from "../../packages/core/src/internal/SafeName.ts"

describe("keys as names", () => {
  it("are themselves where every system takes them", () => {
    assert.strictEqual(SafeName.encode("tenant-42"), "tenant-42")
  })

  it("never lead anywhere, and differ also where capitals don't count", () => {
    const keys = [
      "",
      ".",
      "..",
      "../x",
      "/etc",
      "a/b",
      "a\\b",
      "A",
      "a",
      "_",
      "_41",
      "a.b",
      "ä",
      "🌲",
      "a\0",
      "con",
      " "
    ]
    const names = keys.map((key) => SafeName.encode(key) ?? "")
    for (const name of names) assert.match(name, /^[a-z0-9_-]+$/)
    assert.strictEqual(new Set(names.map((name) => name.toLowerCase())).size, keys.length)
    assert.strictEqual(SafeName.encode("../x"), "_2e_2e_2fx")
    assert.strictEqual(SafeName.encode("A"), "_41")
    assert.strictEqual(SafeName.encode("con"), "_63on")
    assert.strictEqual(SafeName.encode("console"), "console")
  })

  it("that would be too long are refused", () => {
    assert.strictEqual(SafeName.encode("a".repeat(200))?.length, 200)
    assert.isUndefined(SafeName.encode("a".repeat(201)))
    assert.isUndefined(SafeName.encode("Ä".repeat(40)))
  })
})
