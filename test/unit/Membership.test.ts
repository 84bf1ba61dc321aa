import { assert, describe, it } from "@effect/vitest"
import type { Entry } from "../../packages/platform-posix/src/internal/Entry.ts"
import {
  Attribution,
  type Key,
  type Remains,
  RemainsAttribution
} from "../../packages/platform-posix/src/internal/Membership.ts"

const host = { pid: 500, start: 123_456 }
const tree: Key = { tree: 7, leader: { pid: 600, start: 200_000 }, ownSession: true, reaped: false }
const other: Key = { tree: 8, leader: { pid: 700, start: 200_100 }, ownSession: true, reaped: false }

const entry = (fields: Partial<Entry>): Entry => ({
  pid: 1000,
  parent: 1,
  group: 1000,
  session: 1000,
  start: 200_200,
  state: "S",
  alive: true,
  command: "x",
  tag: undefined,
  mark: [],
  ...fields
})

const tagOf = (number: number, of = host) => ({ hostPid: of.pid, hostStart: of.start % 10_000, tree: number })

const make = () => {
  const attribution = new Attribution(host, 0)
  attribution.add(tree)
  attribution.add(other)
  return attribution
}

describe("Attribution", () => {
  it("finds members by session, group, tag and mark", () => {
    const attribution = make()
    assert.strictEqual(attribution.ownerOf(entry({ session: 600, group: 601 })), tree)
    assert.strictEqual(attribution.ownerOf(entry({ group: 600 })), tree)
    assert.strictEqual(attribution.ownerOf(entry({ tag: tagOf(8) })), other)
    assert.strictEqual(attribution.ownerOf(entry({ mark: [{ hostPid: 500, hostStart: 123_456, tree: 8 }] })), other)
    assert.strictEqual(attribution.ownerOf(entry({})), undefined)
  })

  it("a tag decides over the session", () => {
    assert.strictEqual(make().ownerOf(entry({ session: 600, tag: tagOf(8) })), other)
  })

  it("peer 22: a process that started before the leader is a stranger", () => {
    assert.strictEqual(make().ownerOf(entry({ session: 600, start: 199_999 })), undefined)
  })

  it("peer 22: when the leader's pid is a stranger's, session and group say nothing any more", () => {
    const attribution = make()
    assert.strictEqual(attribution.ownerOf(entry({ pid: 600, session: 600, group: 600, start: 300_000 })), undefined)
    assert.strictEqual(attribution.ownerOf(entry({ session: 600, start: 300_001 })), undefined)
    assert.isFalse(attribution.ownsNumber(tree))
    // what carries the tag is still found
    assert.strictEqual(attribution.ownerOf(entry({ session: 600, tag: tagOf(7) })), tree)
  })

  it("peer 22: a number that nothing of the tree holds may be given to anybody", () => {
    const attribution = make()
    attribution.retireNumber(tree)
    assert.strictEqual(attribution.ownerOf(entry({ session: 600 })), undefined)
  })

  it("peer 24: init, the host itself and guardians are never members", () => {
    const attribution = make()
    assert.strictEqual(attribution.ownerOf(entry({ pid: 1, session: 600 })), undefined)
    assert.strictEqual(attribution.ownerOf(entry({ pid: 0, session: 600 })), undefined)
    assert.strictEqual(attribution.ownerOf(entry({ pid: 500, session: 600 })), undefined)
    assert.strictEqual(attribution.ownerOf(entry({ session: 600, tag: tagOf(0) })), undefined)
  })

  it("the trees of a host inside the tree belong to it, by tag and by mark", () => {
    const attribution = make()
    const inner = { pid: 900, start: 223_456 }
    assert.strictEqual(attribution.ownerOf(entry({ tag: tagOf(3, inner) })), undefined)
    assert.strictEqual(attribution.ownerOf(entry({ pid: 900, start: 223_456, tag: tagOf(7) })), tree)
    assert.strictEqual(attribution.ownerOf(entry({ tag: tagOf(3, inner) })), tree)
    const chain = [{ hostPid: 500, hostStart: 123_456, tree: 8 }, { hostPid: 1, hostStart: 2, tree: 3 }]
    assert.strictEqual(attribution.ownerOf(entry({ mark: chain })), other)
  })

  it("a pid that was an inner host's and is a stranger's now claims nothing", () => {
    const attribution = make()
    attribution.ownerOf(entry({ pid: 900, start: 223_456, tag: tagOf(7) }))
    assert.strictEqual(attribution.ownerOf(entry({ tag: tagOf(3, { pid: 900, start: 223_999 }) })), undefined)
  })

  it("a tree that shares the host's session is found by tag and mark only", () => {
    const attribution = new Attribution(host, 0)
    const shared: Key = { ...tree, ownSession: false }
    attribution.add(shared)
    assert.strictEqual(attribution.ownerOf(entry({ session: 600, group: 600 })), undefined)
    assert.strictEqual(attribution.ownerOf(entry({ tag: tagOf(7) })), shared)
  })

  it("forgets a tree", () => {
    const attribution = make()
    attribution.delete(tree)
    assert.strictEqual(attribution.ownerOf(entry({ session: 600 })), undefined)
    assert.strictEqual(attribution.ownerOf(entry({ tag: tagOf(7) })), undefined)
    assert.strictEqual(attribution.size, 1)
  })
})

describe("RemainsAttribution", () => {
  const remains = (fields: Partial<Remains> = {}) =>
    new RemainsAttribution({
      host,
      groups: new Map([[600, 200_000]]),
      holderOf: () => 200_000,
      goneLeadersCount: false,
      tolerance: 0,
      kept: new Set(),
      only: undefined,
      ...fields
    })

  it("ends everything that carries the host's tag or mark, or is in a registered group", () => {
    const all = remains()
    assert.isTrue(all.isMember(entry({ tag: tagOf(7) })))
    assert.isTrue(all.isMember(entry({ mark: [{ hostPid: 500, hostStart: 123_456, tree: 9 }] })))
    assert.isTrue(all.isMember(entry({ session: 600 })))
    assert.isFalse(all.isMember(entry({})))
    assert.isFalse(all.isMember(entry({ tag: tagOf(0) })))
    assert.isFalse(all.isMember(entry({ tag: tagOf(7, { pid: 501, start: 123_456 }) })))
  })

  it("leaves what was released on purpose", () => {
    const kept = remains({ kept: new Set([7]) })
    assert.isFalse(kept.isMember(entry({ tag: tagOf(7) })))
    assert.isTrue(kept.isMember(entry({ tag: tagOf(8) })))
  })

  it("peer 44: of a host that lives, only the trees of the part that ended", () => {
    const worker = remains({ only: new Set([7]) })
    assert.isTrue(worker.isMember(entry({ tag: tagOf(7) })))
    assert.isFalse(worker.isMember(entry({ tag: tagOf(8) })))
  })

  it("peer 22: a stranger with the number of a registered leader is left alone, with all that is in its group", () => {
    const reused = remains({ holderOf: () => 300_000, goneLeadersCount: true })
    assert.isFalse(reused.isMember(entry({ pid: 600, session: 600, group: 600, start: 300_000 })))
    assert.isFalse(reused.isMember(entry({ pid: 601, session: 600, group: 600, start: 300_001 })))
    assert.isFalse(reused.isMember(entry({ pid: 602, session: 590, group: 600, start: 300_001 })))
    assert.isFalse(remains().isMember(entry({ session: 600, start: 199_000 })))
    // What carries the tag is a member, whoever has the number.
    assert.isTrue(reused.isMember(entry({ pid: 603, session: 600, tag: tagOf(7) })))
  })

  it("peer 22: the group of a leader that has gone counts when the host has just died, not later", () => {
    const member = entry({ session: 600, start: 300_000 })
    assert.isTrue(remains({ holderOf: () => undefined, goneLeadersCount: true }).isMember(member))
    assert.isFalse(remains({ holderOf: () => undefined }).isMember(member))
  })

  it("seed C20: start times that `ps` gives may lie a little apart", () => {
    const leader = entry({ pid: 600, session: 600, start: 199_999 })
    assert.isTrue(remains({ holderOf: () => 199_999, tolerance: 2 }).isMember(leader))
    assert.isFalse(remains({ holderOf: () => 199_999 }).isMember(leader))
  })
})
