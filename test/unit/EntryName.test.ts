import { assert, describe, it } from "@effect/vitest"
import * as EntryName from "../../packages/core/src/internal/EntryName.ts"

describe("names of entries", () => {
  it("are without what tools write around them", () => {
    const names = ["./", ".", "./a", "a/", "././a/b//", "a", ".a/.b"].map(EntryName.normalize)
    assert.deepStrictEqual(names, ["", "", "a", "a", "a/b", "a", ".a/.b"])
  })

  it("have the folder that they stand in", () => {
    assert.deepStrictEqual(["a", "a/b", "a/b/c"].map(EntryName.parentOf), ["", "a", "a/b"])
  })

  const problems = (separator: string, ...names: ReadonlyArray<string>) =>
    names.filter((name) => EntryName.problemOf(name, separator) !== undefined)

  it("that lead out, are absolute or empty are refused", () => {
    const bad = ["", "/a", "..", "../a", "a/..", "a/../b", "a//b", "a/./b", "a\0b"]
    assert.deepStrictEqual(problems("/", ...bad), bad)
  })

  it("that only look strange are taken", () => {
    assert.deepStrictEqual(problems("/", "...", "a..b", "..a", "C:", "a\\..\\b", "a\nb", "con", "~", "-rf"), [])
  })

  it("that mean something else on Windows are refused there", () => {
    const bad = ["a\\b", "..\\a", "C:", "C:a", "a:b", "a.", "a ", "con", "d/NUL.txt", "com1", "a?", "a|b"]
    assert.deepStrictEqual(problems("\\", ...bad), bad)
    assert.deepStrictEqual(problems("\\", "a/b", "console", "a.b", ".a", "com10"), [])
  })
})
