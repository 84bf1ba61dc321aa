/** The pure decisions of a pool: the table, limits, who makes room; and the look-up of tokens. */
import { assert, describe, it } from "@effect/vitest"
import { PoolState } from "@treeline/core"
import * as fs from "node:fs"
import * as Policy from "../../packages/core/src/internal/PoolPolicy.ts"
import * as Tokens from "../../packages/core/src/internal/Tokens.ts"
import { make as random } from "../support/Random.ts"

const none: Policy.Limits = { idle: undefined, age: undefined, uses: undefined }
const unused: Policy.Usage = { readyAt: 0, usedAt: 0, uses: 1, leases: 0, busyUntil: Number.NEGATIVE_INFINITY }
const ever: Policy.Verdict = { _tag: "Keep", ms: Number.POSITIVE_INFINITY }

describe("PoolState", () => {
  const tags = Object.keys(PoolState.table) as ReadonlyArray<PoolState.Tag>

  it("an incarnation begins only where there is none, and what ends is gone before the next one", () => {
    const sources = tags.filter((tag) => tag !== "Building" && Object.values(PoolState.table[tag]).includes("Building"))
    assert.deepStrictEqual(sources.map(PoolState.isOccupied), [false, false])
    for (const tag of tags.filter(PoolState.isOccupied)) {
      const out = Object.entries(PoolState.table[tag]).filter(([, to]) => !PoolState.isOccupied(to))
      assert.deepStrictEqual(out.map(([event]) => [tag, event]), tag === "Retiring" ? [["Retiring", "gone"]] : [])
    }
  })

  it("the guide shows the table as it is", () => {
    const guide = fs.readFileSync(new URL("../../docs/pools.md", import.meta.url), "utf8")
    assert.include(guide, `\`\`\`mermaid\n${PoolState.toMermaid()}\`\`\``)
  })

  it("every state can be left and reached", () => {
    for (const tag of tags) {
      assert.isTrue(Object.values(PoolState.table[tag]).some((to) => to !== tag), `${tag} can be left`)
      assert.isTrue(
        tags.some((from) => from !== tag && Object.values(PoolState.table[from]).includes(tag)),
        `${tag} can be reached`
      )
    }
  })
})

describe("limits", () => {
  it("A6, A7: a child is idle when it was not used for so long, to the millisecond", () => {
    const limits = { ...none, idle: 1000 }
    assert.deepStrictEqual(Policy.judge(limits, { ...unused, usedAt: 500 }, 1499), { _tag: "Keep", ms: 1 })
    assert.deepStrictEqual(Policy.judge(limits, { ...unused, usedAt: 500 }, 1500), { _tag: "Idle" })
    assert.deepStrictEqual(Policy.judge(none, unused, 1e9), ever)
  })

  it("A8: one that said that it is at work is left in peace for a while, even where idle is no time at all", () => {
    assert.deepStrictEqual(Policy.judge({ ...none, idle: 0 }, unused, 0), { _tag: "Idle" })
    assert.deepStrictEqual(Policy.judge({ ...none, idle: 0 }, { ...unused, busyUntil: 1000 }, 1), {
      _tag: "Keep",
      ms: 999
    })
  })

  it("a lease pins a child whatever its limits", () => {
    const limits = { idle: 0, age: 0, uses: 1 }
    assert.deepStrictEqual(Policy.judge(limits, { ...unused, leases: 1 }, 5000), ever)
  })

  it("peer 102: age comes before idleness, and the nearer of both is waited for", () => {
    const limits = { ...none, idle: 1000, age: 3000 }
    assert.deepStrictEqual(Policy.judge(limits, { ...unused, usedAt: 2500 }, 2900), { _tag: "Keep", ms: 100 })
    assert.deepStrictEqual(Policy.judge(limits, { ...unused, usedAt: 100 }, 400), { _tag: "Keep", ms: 700 })
    assert.deepStrictEqual(Policy.judge(limits, unused, 3000), { _tag: "Retire", reason: "recycled" })
  })

  it("peer 102: limits are spread below the maximum, and each child can be used at least once", () => {
    const limits = { idle: 7, age: 1000, uses: 10 }
    assert.deepStrictEqual(Policy.spread(limits, 0.2, () => 0), limits)
    assert.deepStrictEqual(Policy.spread(limits, 0.2, () => 0.5), { idle: 7, age: 900, uses: 9 })
    assert.deepStrictEqual(Policy.spread({ ...none, uses: 1 }, 1, () => 0.999), { ...none, uses: 1 })
    assert.deepStrictEqual(Policy.spread({ ...none, age: 500 }, 0.2, () => 0.001), { ...none, age: 499 })
    const draw = random(1)
    const ages = Array.from({ length: 200 }, () => Policy.spread({ ...none, age: 3600 }, 0.2, draw).age ?? 0)
    // In no minute of the twelve in which they fall due do more than a quarter of them.
    const perMinute = Array.from(
      { length: 12 },
      (_, minute) => ages.filter((age) => age >= 2880 + minute * 60 && age < 2940 + minute * 60).length
    )
    assert.strictEqual(perMinute.reduce((sum, count) => sum + count), 200)
    assert.isBelow(Math.max(...perMinute), 50)
  })

  it("a child is used up at its limit and not before", () => {
    assert.isFalse(Policy.isUsedUp({ ...none, uses: 3 }, { uses: 2 }))
    assert.isTrue(Policy.isUsedUp({ ...none, uses: 3 }, { uses: 3 }))
    assert.isFalse(Policy.isUsedUp(none, { uses: 1e9 }))
  })
})

describe("room", () => {
  it("as many are ended as there are keys that nothing else makes room for", () => {
    const full = { max: 4, occupied: 4, leaving: 0, wanted: 2 }
    assert.strictEqual(Policy.shortage(full), 2)
    assert.strictEqual(Policy.shortage({ ...full, leaving: 1 }), 1)
    assert.strictEqual(Policy.shortage({ ...full, leaving: 3 }), 0)
    assert.strictEqual(Policy.shortage({ ...full, occupied: 3 }), 1)
    assert.strictEqual(Policy.free({ max: 4, occupied: 5 }), 0)
  })

  const candidate = (name: string, usedAt: number, busyUntil = Number.NEGATIVE_INFINITY) => ({
    name,
    usedAt,
    busyUntil
  })
  const choose = (candidates: ReadonlyArray<ReturnType<typeof candidate>>, count: number, now: number) => {
    const { chosen, lookAgainIn } = Policy.chooseIdle(candidates, count, 1000, now)
    return [chosen.map(({ name }) => name).join(), lookAgainIn]
  }

  it("those go first that were used longest ago", () => {
    assert.deepStrictEqual(choose([candidate("a", 30), candidate("b", 10), candidate("c", 20)], 2, 5000), [
      "b,c",
      undefined
    ])
  })

  it("who was used or busy just now stays, and the time is told when that is over", () => {
    const candidates = [candidate("a", 4000), candidate("b", 4200), candidate("c", 100, 5300)]
    assert.deepStrictEqual(choose(candidates, 2, 5000), ["a", 200])
    assert.deepStrictEqual(choose(candidates, 1, 5000), ["a", undefined])
    assert.deepStrictEqual(choose(candidates, 3, 5300), ["c,a,b", undefined])
    assert.deepStrictEqual(choose([], 1, 0), ["", undefined])
  })
})

describe("Tokens", () => {
  const draw = random(7)
  const token = () => Tokens.toHex(Uint8Array.from({ length: Tokens.size }, () => Math.floor(draw() * 256)))

  it("whose token it is, until it is revoked", () => {
    const tokens = new Tokens.Tokens<string>()
    const known = Array.from({ length: 100 }, (_, index) => [token(), `owner ${index}`] as const)
    const revokes = known.map(([hex, owner]) => tokens.add(hex, owner))
    for (const [hex, owner] of known) assert.strictEqual(tokens.find(hex), owner)
    assert.strictEqual(tokens.find(known[3]![0].toUpperCase()), "owner 3")
    revokes.forEach((revoke, index) => index % 2 === 0 && revoke())
    revokes[0]!()
    assert.strictEqual(tokens.count, 50)
    known.forEach(([hex, owner], index) => assert.strictEqual(tokens.find(hex), index % 2 === 0 ? undefined : owner))
    const next = token()
    tokens.add(next, "later")
    assert.strictEqual(tokens.find(next), "later")
    // What revoked the former owner of the row means nothing to the next one.
    for (const revoke of revokes) revoke()
    assert.strictEqual(tokens.find(next), "later")
  })

  it("what is no token, or differs in one digit, is nobody's", () => {
    const tokens = new Tokens.Tokens<string>()
    const hex = token()
    const revoke = tokens.add(hex, "me")
    for (let at = 0; at < hex.length; at++) {
      const other = `${hex.slice(0, at)}${hex[at] === "0" ? "1" : "0"}${hex.slice(at + 1)}`
      assert.isUndefined(tokens.find(other))
    }
    for (const text of ["", hex.slice(1), `${hex}0`, hex.replace(/.$/, "g"), `${hex.slice(0, -1)} `, "é".repeat(64)]) {
      assert.isUndefined(tokens.find(text))
    }
    revoke()
    assert.isUndefined(tokens.find("0".repeat(64)), "the row of a revoked token")
  })

  it("a look-up takes as long for a token that nobody has, wherever others are", () => {
    const tokens = new Tokens.Tokens<number>()
    const known = Array.from({ length: 2000 }, (_, index) => {
      const hex = token()
      tokens.add(hex, index)
      return hex
    })
    const asked = { first: known[0]!, last: known.at(-1)!, unknown: token() }
    const times: Record<string, Array<number>> = { first: [], last: [], unknown: [] }
    for (let round = 0; round < 300; round++) {
      for (const [name, hex] of Object.entries(asked)) {
        const start = performance.now()
        tokens.find(hex)
        times[name]!.push(performance.now() - start)
      }
    }
    const medians = Object.values(times).map((all) => all.sort((a, b) => a - b)[150]!)
    // A look-up that stopped where it finds, or at the first difference, would differ by a factor of hundreds, or of eight.
    assert.isBelow(Math.max(...medians) / Math.min(...medians), 2, JSON.stringify(medians))
  })
})
