/** The pure decisions of supervision: the window, the graph, the table. */
import { assert, describe, it } from "@effect/vitest"
import { ChildState } from "@treeline/core"
import { Result } from "effect"
import * as Dependencies from "../../packages/core/src/internal/Dependencies.ts"
import * as Intensity from "../../packages/core/src/internal/Intensity.ts"

describe("Intensity", () => {
  const after = (times: ReadonlyArray<number>, intensity: Intensity.Intensity) =>
    Intensity.isExceeded(
      times.reduce<ReadonlyArray<number>>((window, at) => Intensity.add(window, at, intensity), []),
      intensity
    )

  it("peer 76: max restarts are allowed, one more is not", () => {
    assert.isFalse(after([0, 1, 2], { max: 3, within: 1000 }))
    assert.isTrue(after([0, 1, 2, 3], { max: 3, within: 1000 }))
    assert.isTrue(after([0], { max: 0, within: 1000 }))
  })

  it("peer 77: a restart exactly one window ago still counts, one ms later it does not", () => {
    assert.isTrue(after([0, 1000], { max: 1, within: 1000 }))
    assert.isFalse(after([0, 1001], { max: 1, within: 1000 }))
  })

  it("the window slides: what has left it is forgotten", () => {
    const window = Intensity.add([0, 400, 900], 1401, { max: 5, within: 1000 })
    assert.deepStrictEqual(window, [900, 1401])
  })
})

describe("Dependencies", () => {
  const node = (id: string, ...dependsOn: ReadonlyArray<string>) => ({
    id,
    dependsOn: dependsOn.map((child) => ({ child, until: "ready" as const }))
  })
  const problem = (nodes: Parameters<typeof Dependencies.validate>[0], order: Dependencies.Order = "dependencies") => {
    const result = Dependencies.validate(nodes, order)
    return Result.isFailure(result) ? result.failure.message : undefined
  }

  it("names are unique and known", () => {
    assert.match(problem([node("a"), node("b"), node("a")]) ?? "", /^a\.id: /)
    assert.match(problem([node("a", "x")]) ?? "", /^a\.dependsOn: there is no child "x"/)
    assert.isUndefined(problem([node("b", "a"), node("a")]))
  })

  it("a circle is refused and shown", () => {
    assert.match(problem([node("a", "b"), node("b", "c"), node("c", "a")]) ?? "", /a -> b -> c -> a/)
    assert.match(problem([node("a", "a")]) ?? "", /a -> a/)
    assert.match(problem([node("a", "b"), node("b")], "sequence") ?? "", /circle/)
  })

  it("a graph whose branches meet again is no circle", () => {
    assert.isUndefined(problem([node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c")]))
  })

  it("in a sequence each child depends on the one before it, once", () => {
    const edges = Dependencies.edges([node("a"), node("b", "a"), node("c")], "sequence")
    assert.deepStrictEqual([...edges.values()].map((dependencies) => dependencies.map(({ child }) => child)), [
      [],
      ["a"],
      ["b"]
    ])
  })

  it("what a dependency asks for holds in these states", () => {
    const done: ChildState.ChildState = { _tag: "Stopped", end: { _tag: "Completed" } }
    const stopped: ChildState.ChildState = { _tag: "Stopped", end: null }
    const ready: ChildState.ChildState = { _tag: "Ready", incarnation: 1, pid: 1, since: 0 }
    const running: ChildState.ChildState = { _tag: "Running", incarnation: 1, pid: 1, since: 0 }
    const holds = (until: "ready" | "started" | "succeeded") =>
      [running, ready, done, stopped].map((state) => Dependencies.isSatisfied(until, state))
    assert.deepStrictEqual(holds("ready"), [false, true, true, false])
    assert.deepStrictEqual(holds("started"), [true, true, true, false])
    assert.deepStrictEqual(holds("succeeded"), [false, false, true, false])
  })
})

describe("ChildState", () => {
  const tags = Object.keys(ChildState.table) as ReadonlyArray<ChildState.Tag>

  it("every state can be left and reached, and a stop never leads up", () => {
    for (const tag of tags) {
      const targets = Object.values(ChildState.table[tag])
      assert.isTrue(targets.some((target) => target !== tag), `${tag} can be left`)
      const stop = ChildState.next(tag, "stop")
      assert.include(["Stopping", "Stopped", "Failed"], stop, `stop in ${tag}`)
    }
    const reached = new Set(tags.flatMap((tag) => Object.values(ChildState.table[tag]).filter((to) => to !== tag)))
    assert.deepStrictEqual([...tags].filter((tag) => !reached.has(tag)), [])
  })

  it("an incarnation begins only where none can be", () => {
    for (const tag of tags) {
      for (const [event, to] of Object.entries(ChildState.table[tag])) {
        if (to !== "Starting" || to === tag) continue
        assert.isTrue(!ChildState.isUp(tag) || (tag === "Stopping" && event === "startAgain"), `${tag} by ${event}`)
      }
    }
  })
})
