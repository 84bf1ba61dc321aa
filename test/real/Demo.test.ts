import { strictEqual } from "node:assert"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { identify } from "../support/Processes.ts"

const demo = fileURLToPath(new URL("../../examples/demo/main.ts", import.meta.url))

/** Runs the demo without a terminal. */
const run = () =>
  new Promise<{ readonly code: number | null; readonly output: string; readonly ms: number }>((resolve) => {
    const startedAt = performance.now()
    const child = spawn(process.execPath, ["--conditions=source", demo], {
      stdio: ["ignore", "pipe", "inherit"],
      timeout: 25_000
    })
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text))
    child.once("close", (code) => resolve({ code, output, ms: performance.now() - startedAt }))
  })

describe("the demo", () => {
  it("ends everything through Treeline, shows what child_process leaves, and leaves nothing itself", async () => {
    let result = await run()
    // The limit in time is about the demo and not about what else the machine does.
    if (result.ms > 20_000) result = await run()
    const { code, ms, output } = result
    const sections = output.split("\n── ").slice(1)
    strictEqual(sections.length, 5, output)
    const [treelineStop, nodeStop, treelineKill, nodeKill, summary] = sections as [
      string,
      string,
      string,
      string,
      string
    ]

    // All four programs are drawn in each section, the daemon as the orphan that it is.
    for (const section of [treelineStop, nodeStop, treelineKill, nodeKill]) {
      for (const name of ["├─ web server", "│  ├─ worker", "│  └─ stubborn", "└╌ daemon"]) {
        expect(section).toContain(name)
      }
    }
    // The steps come in their order, and the stubborn one ends by the last.
    expect(treelineStop).toContain("answer: goodbye, 2 requests answered")
    expect(treelineStop).toMatch(
      / HTTP GET \/finish\n[^]* SIGTERM\n[^]* SIGKILL\n[^]*ended: .*stubborn\n.* the tree is empty\n/
    )
    for (const section of [treelineStop, treelineKill]) expect(section).toContain("nothing is left: 0 of 4")
    // The control: the same programs outlive their host without Treeline.
    expect(nodeStop).toContain("left running: 3 of 4: worker, stubborn, daemon")
    expect(nodeKill).toContain("left running: 4 of 4")
    expect(summary).toMatch(/stopped by its host +0 +3\n +host killed with SIGKILL +0 +4\n/)

    expect(output).not.toContain("\u001B")
    expect(Math.max(...output.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80)
    const pids = [...output.matchAll(/[─╌] (?:web server|worker|stubborn|daemon) +(\d+) /g)].map(([, pid]) =>
      Number(pid)
    )
    strictEqual(pids.length, 16)
    expect(pids.filter((pid) => identify(pid) !== undefined)).toEqual([])
    strictEqual(code, 0)
    expect(ms).toBeLessThan(20_000)
  }, 60_000)
})
