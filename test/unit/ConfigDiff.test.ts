/** What a new configuration changes, and in which order. */
import { assert, describe, it } from "@effect/vitest"
import { ConfigDiff } from "@treeline/core/daemon"
import { Redacted } from "effect"
import * as fc from "fast-check"
import { configOf } from "../support/Configs.ts"

const names = ["a", "b", "c", "d", "e", "f"]

/** Services of which each depends only on ones with a lower rank, so that there is no circle. */
const services = fc.shuffledSubarray(names, { minLength: 0 }).chain((order) =>
  fc.record(Object.fromEntries(order.map((name, rank) => [
    name,
    fc.record({
      command: fc.constantFrom("x", "y"),
      env: fc.constantFrom<Record<string, string>>({}, { A: "1", B: "2" }, { B: "2", A: "1" }),
      dependsOn: fc.subarray(order.slice(0, rank))
    })
  ])))
)

const listing = fc.shuffledSubarray(names, { minLength: names.length })

/** Under `sequence` the list itself has to agree with the dependencies; otherwise it is in any order. */
const config = fc.tuple(services, listing, fc.constantFrom("dependencies", "dependencies", "sequence")).map(
  ([services, listing, order]) => {
    if (order === "sequence") return configOf({ services, supervisor: { order } })
    const listed = listing.flatMap((name) => services[name] === undefined ? [] : [[name, services[name]] as const])
    return configOf({ services: Object.fromEntries(listed) })
  }
)

/** The services that have to be up before one, near and far. */
const before = (plan: ConfigDiff.Plan, name: string, seen = new Set<string>()): ReadonlySet<string> => {
  for (const other of plan.get(name)?.after ?? []) {
    if (seen.has(other)) continue
    seen.add(other)
    before(plan, other, seen)
  }
  return seen
}

describe("the difference of two configurations", () => {
  it("any two: applied to the old one it gives the new one, and what is the same is not touched", () => {
    fc.assert(fc.property(config, config, (first, second) => {
      const [old, next] = [ConfigDiff.plan(first), ConfigDiff.plan(second)]
      const diff = ConfigDiff.between(old, next)
      const running = new Map(old)
      for (const name of diff.stops.flat()) assert.isTrue(running.delete(name), `${name} runs and is stopped once`)
      for (const name of diff.starts) {
        assert.isFalse(running.has(name), `${name} is started when it is down`)
        running.set(name, next.get(name)!)
      }
      assert.deepStrictEqual(
        Object.fromEntries([...running].map(([name, { service }]) => [name, service])),
        Object.fromEntries([...next].map(([name, { service }]) => [name, service]))
      )
      const changed = diff.changed.map(({ service }) => service)
      assert.deepStrictEqual([...diff.unchanged, ...changed, ...diff.added].sort(), [...next.keys()].sort())
      assert.deepStrictEqual([...diff.unchanged, ...changed, ...diff.removed].sort(), [...old.keys()].sort())
      assert.deepStrictEqual([...changed, ...diff.removed].sort(), diff.stops.flat().sort())
    }))
  })

  it("any two: those that others depend on are stopped later and started earlier, however far away they are", () => {
    fc.assert(fc.property(config, config, (first, second) => {
      const [old, next] = [ConfigDiff.plan(first), ConfigDiff.plan(second)]
      const { starts, stops } = ConfigDiff.between(old, next)
      const level = new Map(stops.flatMap((names, index) => names.map((name) => [name, index] as const)))
      for (const name of level.keys()) {
        for (const other of before(old, name)) {
          if (level.has(other)) assert.isAbove(level.get(other)!, level.get(name)!, `${name} stops before ${other}`)
        }
      }
      for (const [index, name] of starts.entries()) {
        for (const other of before(next, name)) {
          assert.isFalse(starts.indexOf(other, index) > index, `${other} before ${name}`)
        }
      }
    }))
  })

  it("any one: there is no difference to itself, written in another order", () => {
    fc.assert(fc.property(config, (one) => {
      const other = { ...one, services: Object.fromEntries(Object.entries(one.services).toReversed()) }
      const diff = ConfigDiff.between(ConfigDiff.plan(one), ConfigDiff.plan(other))
      assert.deepStrictEqual([diff.changed, diff.added, diff.removed, diff.stops, diff.starts], [[], [], [], [], []])
    }))
  })

  const diffOf = (old: Parameters<typeof configOf>[0], next: Parameters<typeof configOf>[0]) =>
    ConfigDiff.between(ConfigDiff.plan(configOf(old)), ConfigDiff.plan(configOf(next)))

  it("names the fields that differ; another spelling of the same is none", () => {
    const diff = diffOf(
      { services: { a: { command: "x", shutdown: { cap: "1 minute" } }, b: { command: "x" } } },
      { services: { a: { command: "x", shutdown: { cap: 60_000 } }, b: { command: "y", cwd: "/" } } }
    )
    assert.deepStrictEqual([diff.unchanged, diff.changed], [["a"], [{ service: "b", fields: ["command", "cwd"] }]])
  })

  it("another secret is a change, the same one is none", () => {
    const secret = (value: string) => ({ services: { a: { command: "x", env: { KEY: Redacted.make(value) } } } })
    assert.deepStrictEqual(diffOf(secret("1"), secret("1")).changed, [])
    assert.deepStrictEqual(diffOf(secret("1"), secret("2")).changed, [{ service: "a", fields: ["env"] }])
  })

  it("a group that gets another member changes those that depend on it", () => {
    const all = { a: { command: "x" }, b: { command: "x" }, web: { command: "x", dependsOn: ["data"] } }
    const diff = diffOf({ services: all, groups: { data: ["a"] } }, { services: all, groups: { data: ["a", "b"] } })
    assert.deepStrictEqual(diff.changed, [{ service: "web", fields: ["dependsOn"] }])
  })

  it("a chain of 5,000 is ordered, and so is a circle of what is left of a failed reload, somehow", () => {
    const all = Object.fromEntries(Array.from({ length: 5000 }, (_, index) => [
      `s${index}`,
      { command: "x", dependsOn: index < 4999 ? [`s${index + 1}`] : [] }
    ]))
    const { starts } = ConfigDiff.between(new Map(), ConfigDiff.plan(configOf({ services: all })))
    assert.deepStrictEqual(starts, Object.keys(all).toReversed())
    const circle = ConfigDiff.plan(configOf({
      services: { a: { command: "x", dependsOn: ["b"] }, b: { command: "x", dependsOn: ["a"] } }
    }))
    assert.deepStrictEqual(ConfigDiff.between(circle, new Map()).stops.flat().toSorted(), ["a", "b"])
  })

  it("what failed half-way is tried again", () => {
    const { services, ...rest } = configOf({ services: { a: { command: "x" } } })
    const plan = ConfigDiff.plan({ services, ...rest })
    const diff = ConfigDiff.between(new Map([["a", undefined], ["b", undefined]]), plan)
    assert.deepStrictEqual([diff.changed, diff.removed, diff.starts], [[{ service: "a", fields: [] }], ["b"], ["a"]])
  })
})
