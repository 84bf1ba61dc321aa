import { assert, describe, it } from "@effect/vitest"
import * as Ledger from "../../packages/platform-posix/src/internal/Ledger.ts"

describe("Ledger", () => {
  it("is what its lines add up to; a half-written last line is left out", () => {
    const ledger = Ledger.parse("G 50 7\n+ 1 600 10\n+ 2 601 11\n- 1\n= 1\n+ 3 0 0\nC /sys/fs/cgroup/a b\n= 2")
    assert.deepStrictEqual([...ledger.trees], [[2, { pid: 601, start: 11 }], [3, { pid: 0, start: 0 }]])
    assert.deepStrictEqual([...ledger.kept], [1])
    assert.deepStrictEqual(ledger.guardian, { pid: 50, start: 7 })
    assert.strictEqual(ledger.groups, "/sys/fs/cgroup/a b")
  })

  it("what several platforms of one host keep is kept for all of them", () => {
    const together = Ledger.together([
      Ledger.parse("G 50 7\n= 5\nC /a\n"),
      Ledger.parse("G 51 8\n+ 6 600 10\n+ 7 0 0\n= 8\n")
    ])
    assert.deepStrictEqual([...together.kept], [5, 8])
    assert.deepStrictEqual([...together.leaders], [[600, 10]])
    assert.deepStrictEqual(together.guardians.map(({ pid }) => pid), [50, 51])
    assert.deepStrictEqual(together.folders, ["/a"])
  })

  it("a number that is used again by another platform is kept no more", () => {
    const together = Ledger.together([Ledger.parse("= 5\n"), Ledger.parse("+ 5 600 10\n")])
    assert.deepStrictEqual([...together.kept], [])
  })
})
