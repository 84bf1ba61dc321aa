/** What a child inherits of its host's environment. */
import { assert, describe, it } from "@effect/vitest"
import * as child_process from "node:child_process"
import type { Change } from "../fixtures/environmentHostSpec.ts"
import { engine, isNative } from "../support/Host.ts"
import { program } from "../support/Programs.ts"

const nothing: Change = { set: {} }

/** An environment as the system has it: not all of it can be said in JavaScript. */
type Raw = ReadonlyArray<string>

/** Executes a program with exactly these variables, in Latin-1. */
const execute = `
import ctypes, json, sys
def strings(texts, encoding):
    return (ctypes.c_char_p * (len(texts) + 1))(*[text.encode(encoding) for text in texts], None)
argv, env = json.load(sys.stdin)
ctypes.CDLL(None).execve(argv[0].encode(), strings(argv, "utf-8"), strings(env, "latin-1"))
`

/** What the children of a host with these variables get, in Latin-1, sorted; without the mark. */
const inherited = (raw: Raw, changes: ReadonlyArray<Change>): ReadonlyArray<ReadonlyArray<string>> => {
  const argv = [process.execPath, program("environmentHost"), JSON.stringify(changes)]
  const own = Object.entries({ ...engine, PATH: process.env["PATH"] }).map(([name, value]) => `${name}=${value}`)
  const { status, stderr, stdout } = child_process.spawnSync("python3", ["-c", execute], {
    input: JSON.stringify([argv, [...raw, ...own]]),
    encoding: "utf8",
    timeout: 20_000,
    maxBuffer: 1 << 24
  })
  assert.strictEqual(status, 0, stderr)
  return (JSON.parse(stdout) as ReadonlyArray<string>).map((answer) =>
    Buffer.from(answer, "base64").toString("latin1").split("\0")
      .filter((variable) => variable !== "" && !/^(TREELINE_(TREE|ENGINE)|PATH)=/.test(variable))
      .sort()
  )
}

const hasPython = child_process.spawnSync("python3", ["-c", "import ctypes"]).status === 0

describe.skipIf(!hasPython)("the environment of the host (needs python3)", () => {
  it("is what it is at the launch, with what the command lays over it and takes away", () => {
    const [first, changed, unset, over, away] = inherited(["ONE=1", "TWO=2=2", "EMPTY="], [
      nothing,
      { set: { ONE: "changed", THREE: "ünïcode" } },
      { unset: ["TWO"] },
      { set: {}, over: { ONE: "own", FOUR: "4" } },
      { set: { TWO: "again" }, without: ["ONE", "EMPTY", "NONE"] }
    ])
    const three = `THREE=${Buffer.from("ünïcode").toString("latin1")}`
    assert.deepStrictEqual(first, ["EMPTY=", "ONE=1", "TWO=2=2"])
    assert.deepStrictEqual(changed, ["EMPTY=", "ONE=changed", three, "TWO=2=2"])
    assert.deepStrictEqual(unset, ["EMPTY=", "ONE=changed", three])
    assert.deepStrictEqual(over, ["EMPTY=", "FOUR=4", "ONE=own", three])
    assert.deepStrictEqual(away, [three, "TWO=again"])
  })

  it.skipIf(!isNative)("is handed on byte by byte, also what is no UTF-8 (Node's child_process replaces it)", () => {
    const raw = ["LATIN=caf\xe9", "\xffNAME=1"]
    assert.deepStrictEqual(inherited(raw, [nothing, { set: {}, over: { OWN: "1" } }]), [raw, [
      raw[0]!,
      "OWN=1",
      raw[1]!
    ]])
  })

  it("with a name that stands twice has the first one", () => {
    const [inheriting, over, away] = inherited(["TWICE=1", "OTHER=1", "TWICE=2"], [
      nothing,
      { set: {}, over: { TWICE: "own" } },
      { set: {}, without: ["TWICE"] }
    ])
    assert.deepStrictEqual(inheriting, ["OTHER=1", "TWICE=1"])
    assert.deepStrictEqual(over, ["OTHER=1", "TWICE=own"])
    assert.deepStrictEqual(away, ["OTHER=1"])
  })

  it("may be another object than Node's", () => {
    const [first, replaced, changed] = inherited(["ONE=1"], [
      nothing,
      { replace: { TWO: "2" } },
      { set: { ONE: "changed" } }
    ])
    assert.deepStrictEqual(first, ["ONE=1"])
    assert.deepStrictEqual(replaced, ["ONE=1", "TWO=2"])
    assert.deepStrictEqual(changed, ["ONE=changed", "TWO=2"])
  })

  it("may be empty, and long", () => {
    const [empty, many, more] = inherited([], [nothing, { fill: 2000 }, { fill: 9000 }])
    assert.deepStrictEqual(empty, [])
    for (const [variables, count] of [[many!, 2000], [more!, 9000]] as const) {
      assert.deepStrictEqual(variables, Array.from({ length: count }, (_, index) => `FILL_${index}=1`).sort())
    }
  })
})
