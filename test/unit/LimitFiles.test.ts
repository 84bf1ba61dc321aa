import { assert, describe, it } from "@effect/vitest"
import { limitFiles } from "@treeline/platform-posix/linux/Cgroup"

describe("limits of a control group", () => {
  it("a limit of memory is one of memory and swap together, where the kernel counts swap", () => {
    const limits = { memory: 50_000_000 }
    const memory = [["memory.max", "50000000"], ["memory.oom.group", "1"]] as const
    assert.deepStrictEqual(limitFiles(limits, () => true), [...memory, ["memory.swap.max", "0"]])
    assert.deepStrictEqual(limitFiles(limits, () => false), memory)
  })

  it("without a limit of memory swap is left alone", () => {
    assert.deepStrictEqual(limitFiles({ processes: 9, cpu: 0.5 }, () => true), [
      ["pids.max", "9"],
      ["cpu.max", "50000 100000"]
    ])
  })
})
