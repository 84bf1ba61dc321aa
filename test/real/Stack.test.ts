import { strictEqual } from "node:assert"
import { describe, expect, it } from "vitest"
import { inOrder, run, sectionsOf } from "../support/Example.ts"
import { identify } from "../support/Processes.ts"

describe("the supervised stack", () => {
  it("starts in order, is put right again and again, stops in reverse, and leaves nothing", async () => {
    const { code, output } = await run("stack")
    const sections = sectionsOf(output)
    strictEqual(sections.length, 5, output)
    const [started, killed, ill, stopped, end] = sections as [string, string, string, string, string]
    inOrder(started, "web starts", "web is ready", "worker starts", "worker is ready", "job starts")
    inOrder(
      started,
      "job goes down: exited with code 1",
      "job backs off for",
      "restart 1 in a row",
      "job starts again, incarnation 2",
      "job goes down: exited with code 1",
      "restart 2 in a row",
      "incarnation 3",
      "job is done: exited with code 0"
    )
    inOrder(
      killed,
      "SIGKILL to web",
      "web goes down: killed by SIGKILL",
      "web takes along: worker\n",
      "worker goes down: restart of siblings",
      "at the step: SIGTERM",
      "web starts again, incarnation 2",
      "web is ready",
      "worker starts again, incarnation 2",
      "worker is ready"
    )
    inOrder(
      ill,
      "GET /spoil",
      "web is degraded: http://127.0.0.1:",
      "WrongStatus",
      "web goes down: unhealthy: ",
      "at the step: GET /finish",
      "web starts again, incarnation 3",
      "web is ready",
      "worker is ready"
    )
    inOrder(
      stopped,
      "worker is asked to stop",
      "at the step: SIGTERM",
      "worker is stopped",
      "web is asked to stop",
      "at the step: GET /finish",
      "web is stopped"
    )
    // Three of web, three of the worker, three of the job.
    expect(end).toContain("nothing is left: 0 of 9 processes")
    for (const section of [killed, ill, stopped]) expect(section).not.toContain("job starts")

    expect(output).not.toContain("\u001B")
    expect(Math.max(...output.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80)
    const pids = [...output.matchAll(/is up, pid (\d+)/g)].map(([, pid]) => Number(pid))
    strictEqual(pids.length, 9)
    expect(pids.filter((pid) => identify(pid) !== undefined)).toEqual([])
    strictEqual(code, 0)
  }, 60_000)
})
