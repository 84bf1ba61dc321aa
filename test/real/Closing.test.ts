/**
 * How long a close takes, on the trees of the benchmark. Nothing is compared with the clock alone: the tree's own dying
 * time, or Effect's own layer, is measured beside it.
 */
import { strictEqual } from "node:assert"
import { afterAll, describe, expect, it } from "vitest"
import { type Contender, effectLayer, treeline } from "../../bench/Contenders.ts"
import { median } from "../../bench/Report.ts"
import * as Trees from "../../bench/Trees.ts"
import { stateOf } from "../support/Processes.ts"

const contenders = treeline()
const control = effectLayer()
afterAll(() => Promise.all([...contenders, control].map((contender) => contender.dispose())))

/** Closes one tree and shows that nothing of it lives. */
const close = async (contender: Contender, tree: Trees.Tree, count = 1, grace = 5000): Promise<number> => {
  const { left, ms } = await Trees.measureClose(await contender.open(grace), tree, count)
  strictEqual(left, 0)
  return ms
}

/** A limit in ms is about a machine that has nothing else to do, so it is tried again and again for this time, in ms. */
const patience = 20_000

/** The least of what `ask` gives: other work on the machine only adds to it. Asks until it is `enough`. */
const least = async (enough: number, ask: () => Promise<number>): Promise<number> => {
  const startedAt = performance.now()
  let least = Number.POSITIVE_INFINITY
  while (least > enough && performance.now() - startedAt < patience) least = Math.min(least, await ask())
  return least
}

/** How much longer closes take than the tree itself, in ms: the medians of closes and own deaths, measured in turn. */
const measureAbove = async (contender: Contender, tree: Trees.Tree): Promise<number> => {
  const own: Array<number> = []
  const closed: Array<number> = []
  for (let round = 0; round < 5; round++) {
    own.push(await Trees.measureOwnDyingTime(tree))
    closed.push(await close(contender, tree))
  }
  return median(closed) - median(own)
}

/**
 * Closes `count` children, one process each, and shows that they are gone. Meanwhile a timer of 1 ms ticks: how often,
 * and how long the event loop worked at most between two ticks, in ms. That is time of the clock or of the processor,
 * whichever is less, because a busy machine also stops a program that does nothing.
 */
const closeMany = async (contender: Contender, count: number) => {
  const group = await contender.open(5000)
  const pids: Array<number> = []
  for (let index = 0; index < count; index++) pids.push(await group.launch("sleep", ["60"]))
  let ticks = 0
  let stall = 0
  let at = performance.now()
  let used = process.cpuUsage()
  const tick = () => {
    const { system, user } = process.cpuUsage(used)
    stall = Math.max(stall, Math.min(performance.now() - at, (system + user) / 1000))
    at = performance.now()
    used = process.cpuUsage()
    ticks++
  }
  const timer = setInterval(tick, 1)
  await group.close()
  tick()
  clearInterval(timer)
  strictEqual(pids.filter((pid) => stateOf(pid) !== undefined).length, 0)
  return { ticks, stall }
}

describe.each(contenders)("$name", (contender) => {
  it("peer 10: a tree whose zombies nobody collects closes at most 40 ms after it is dead", async () => {
    expect(await least(40, () => measureAbove(contender, Trees.orphaning))).toBeLessThanOrEqual(40)
  })

  it("peer 10: a tree that collects its own zombies closes at most 40 ms after it is dead", async () => {
    expect(await least(40, () => measureAbove(contender, Trees.obedient))).toBeLessThanOrEqual(40)
  })

  it("peer 12: what the tree starts when it is told to end is told as well, and not left for the kill", async () => {
    for (let round = 0; round < 8; round++) {
      expect(await close(contender, Trees.startsOnSignal, 1, 5000)).toBeLessThan(4000)
    }
  })

  it("what a program runs to clean up when it is told to end is left alone", async () => {
    const { left, said } = await Trees.measureClose(await contender.open(5000), Trees.cleansUp)
    expect({ left, said }).toEqual({ left: 0, said: ["leader", "cleaned"] })
  })

  it("peer 30: 20 children that ignore SIGTERM for 300 ms close together in at most 450 ms", async () => {
    const ms = await least(450, () => close(contender, Trees.stubborn, 20, 300))
    // Less than the grace period would mean that the children were not given it.
    expect(ms).toBeGreaterThanOrEqual(295)
    expect(ms).toBeLessThanOrEqual(450)
  })

  // What Node itself does about each child is more than that in the portable engine.
  it.skipIf(process.env["TREELINE_ENGINE"] === "portable")(
    // 15 to 30 ms on a calm machine; without portions it is more than 100.
    "600 children that close together leave the event loop to others: it never works for more than 75 ms",
    async () => {
      let ticks = 0
      const stall = await least(75, async () => {
        const closed = await closeMany(contender, 600)
        ticks = Math.max(ticks, closed.ticks)
        return closed.stall
      })
      expect(stall).toBeLessThanOrEqual(75)
      expect(ticks).toBeGreaterThanOrEqual(6)
    }
  )
})

describe("Effect's own layer, the control", () => {
  // Where the first process collects orphans at once there is nothing to see.
  it("peer 10: waits for zombies that nobody collects", async ({ skip }) => {
    if (!await Trees.leavesZombies(Trees.orphaning)) skip("the first process of this system collects orphans at once")
    expect(await close(control, Trees.orphaning)).toBeGreaterThanOrEqual(900)
  })

  it("peer 30: closes children that ignore SIGTERM one after another", async () => {
    expect(await close(control, Trees.stubborn, 3, 300)).toBeGreaterThanOrEqual(880)
  })
})
