import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Ledger from "../../packages/platform-posix/src/internal/Ledger.ts"
import * as Mark from "../../packages/platform-posix/src/internal/Mark.ts"
import * as ProcTable from "../../packages/platform-posix/src/internal/ProcTable.ts"
import * as PsTable from "../../packages/platform-posix/src/internal/PsTable.ts"
import * as Tag from "../../packages/platform-posix/src/internal/Tag.ts"

const Natural = (max: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: max }))

describe("Tag", () => {
  it.prop("what is encoded is decoded", {
    pid: Natural(4_194_304),
    start: Natural(2 ** 40),
    tree: Natural(Tag.maxTree)
  }, ({ pid, start, tree }) => {
    const host = { pid, start }
    const digits = Tag.encode(host, tree)
    assert.strictEqual(digits.length, 19)
    assert.isTrue(BigInt(digits) < 2n ** 63n)
    assert.isTrue(digits.startsWith(Tag.prefix(host)))
    const tag = Tag.decode(digits)!
    assert.strictEqual(tag.tree, tree)
    assert.isTrue(Tag.isOf(tag, host))
    assert.isFalse(Tag.isOf(tag, { pid: pid + 1, start }))
  })

  it("reads nothing into other limits", () => {
    for (const text of ["unlimited", "0", "18446744073709551615", "8000012300010000001", "700001230001000000x"]) {
      assert.strictEqual(Tag.decode(text), undefined)
    }
  })
})

describe("Mark", () => {
  it("a chain grows from the outermost tree", () => {
    const one = Mark.extend(undefined, { hostPid: 1, hostStart: 2, tree: 3 })
    const two = Mark.extend(one, { hostPid: 4, hostStart: 5, tree: 6 })
    assert.strictEqual(two, "1.2.3/4.5.6")
    assert.deepStrictEqual(Mark.parse(two).map((segment) => segment.tree), [3, 6])
  })

  it("is found at the start, in the middle and at the end, and nowhere else", () => {
    assert.strictEqual(Mark.find("TREELINE_TREE=a\0B=c", "\0"), "a")
    assert.strictEqual(Mark.find("B=c\0TREELINE_TREE=a\0D=e", "\0"), "a")
    assert.strictEqual(Mark.find("B=c\0TREELINE_TREE=a", "\0"), "a")
    assert.strictEqual(Mark.find("B=c\0NOT_TREELINE_TREE=a", "\0"), undefined)
    assert.strictEqual(Mark.find("", "\0"), undefined)
  })

  it("what is no segment is left out", () => {
    assert.deepStrictEqual(Mark.parse("x/1.2/1.2.3.4/-1.2.3/1.2.3"), [{ hostPid: 1, hostStart: 2, tree: 3 }])
  })
})

describe("ProcTable", () => {
  const line = (name: string, state: string, threads: number) =>
    `42 (${name}) ${state} 7 8 9 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 ${threads} 0 68113 3133440 406 0`

  it("a program may put spaces and parentheses into its name", () => {
    const stat = ProcTable.parseStat(line("a) b (c", "S", 1))!
    assert.deepStrictEqual(
      [stat.command, stat.parent, stat.group, stat.session, stat.start, stat.threads],
      ["a) b (c", 7, 8, 9, 68113, 1]
    )
  })

  it("peer 10: a zombie is dead, unless another thread of it still runs", () => {
    assert.isFalse(ProcTable.isAlive(ProcTable.parseStat(line("x", "Z", 1))!))
    assert.isTrue(ProcTable.isAlive(ProcTable.parseStat(line("x", "Z", 2))!))
    assert.isTrue(ProcTable.isAlive(ProcTable.parseStat(line("x", "T", 1))!))
  })

  it("cut-off text is no process", () => {
    assert.strictEqual(ProcTable.parseStat(""), undefined)
    assert.strictEqual(ProcTable.parseStat("42 (x"), undefined)
    assert.strictEqual(ProcTable.parseStat("42 (x) S 1"), undefined)
  })
})

describe("PsTable", () => {
  it("reads the columns, the start time in UTC, and the mark", () => {
    const entries = PsTable.parse([
      " 2794  2753  2753 S    Sat Nov 21 06:37:57 2026 tail -2 SHELL=/bin/bash TREELINE_TREE=1.2.3 PWD=/",
      "    1     0     0 Ss   Thu Jan  1 00:00:09 1970 init",
      "nonsense"
    ].join("\n"))
    assert.deepStrictEqual(entries.map((entry) => [entry.pid, entry.parent, entry.group, entry.command]), [
      [2794, 2753, 2753, "tail"],
      [1, 0, 0, "init"]
    ])
    assert.strictEqual(entries[0]!.start, Date.UTC(2026, 10, 21, 6, 37, 57) / 1000)
    assert.strictEqual(entries[1]!.start, 9)
    assert.deepStrictEqual(entries[0]!.mark, [{ hostPid: 1, hostStart: 2, tree: 3 }])
  })

  it("peer 10: a zombie is dead", () => {
    assert.isFalse(PsTable.parse(" 5  1  5 Z+   Sat Nov 21 06:37:57 2026 [x] <defunct>")[0]!.alive)
  })
})

describe("Ledger", () => {
  it("adds up to what is running", () => {
    const text = Ledger.started(1, { pid: 10, start: 100 }) + Ledger.started(2, { pid: 20, start: 200 }) +
      Ledger.started(3, undefined) + Ledger.ended(1) + Ledger.released(2) + Ledger.guardedBy({ pid: 9, start: 90 })
    const ledger = Ledger.parse(text)
    assert.deepStrictEqual([...ledger.trees], [[2, { pid: 20, start: 200 }], [3, { pid: 0, start: 0 }]])
    assert.deepStrictEqual([...ledger.kept], [2])
    assert.deepStrictEqual(ledger.guardian, { pid: 9, start: 90 })
    assert.strictEqual(Ledger.parse(text + Ledger.takenBack(2)).kept.size, 0)
  })

  it("peer 114: a half-written line, and lines that mean nothing, are left out", () => {
    assert.strictEqual(Ledger.parse("+ 1 10 1").trees.size, 0)
    assert.strictEqual(Ledger.parse("+ 1 10\n+ x y z\n+ -1 2 3\nrubbish\n\n").trees.size, 0)
  })
})
