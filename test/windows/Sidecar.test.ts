/** `treeline sidecar` on Windows: its pipes, a tree in a job, and its end. */
import { assert, describe, it } from "@effect/vitest"
import * as child_process from "node:child_process"
import { once } from "node:events"
import * as path from "node:path"
import { identify, isAlive } from "./support/Processes.ts"

const command = path.join(import.meta.dirname, "../../packages/treeline/src/bin.ts")

/** Says its own pid and that of a child, and what it reads. */
const parent = `
const child = require("node:child_process").spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" })
console.log("pids " + process.pid + " " + child.pid)
process.stdin.on("data", (data) => console.log("read " + data))
`

describe("treeline sidecar", () => {
  it("P1: starts, feeds and reads a tree, and ends it when the pipe is closed", async () => {
    const sidecar = child_process.spawn(process.execPath, ["--conditions=source", command, "sidecar", "--grace", "0"])
    try {
      let stdout = ""
      let stderr = ""
      let wake = () => {}
      sidecar.stdout.setEncoding("utf8").on("data", (text: string) => {
        stdout += text
        wake()
      })
      sidecar.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
      const closed = once(sidecar, "close").then(wake)
      const say = (id: number, method: string, params: object) =>
        sidecar.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`)
      const messages = () => stdout.split("\n").slice(0, -1).map((line) => JSON.parse(line) as Record<string, any>)
      const output = () =>
        messages().filter(({ method }) => method === "output").map(({ params }) =>
          Buffer.from(params.data as string, "base64").toString()
        ).join("")
      const until = async <A>(what: string, look: () => A | undefined): Promise<A> => {
        while (true) {
          const found = look()
          if (found !== undefined) return found
          if (sidecar.exitCode !== null) throw new Error(`${what}: the sidecar has ended: ${stdout} ${stderr}`)
          await new Promise<void>((resolve) => (wake = resolve))
        }
      }

      say(1, "hello", { protocol: 1 })
      const credit = { stdout: 1000, stderr: 1000 }
      say(2, "spawn", { command: process.execPath, args: ["-e", parent], stdin: "pipe", credit })
      const spawned = await until("the tree runs", () => messages().find(({ id }) => id === 2))
      assert.strictEqual(spawned["result"].process, 1)
      const pids = await until("it says its pids", () => /pids (\d+) (\d+)/.exec(output())?.slice(1).map(Number))
      assert.strictEqual(pids[0], spawned["result"].pid)
      say(3, "write", { process: 1, data: Buffer.from("input").toString("base64") })
      await until("it has read", () => /read input/.exec(output()) ?? undefined)
      const identities = pids.map((pid) => identify(pid)!)
      assert.deepStrictEqual(identities.map(isAlive), [true, true])

      say(4, "no such method", {})
      sidecar.stdin.end()
      await closed
      assert.deepStrictEqual(identities.map(isAlive), [false, false])
      assert.deepStrictEqual([sidecar.exitCode, stderr], [0, ""])
      const told = messages().map(({ error, method }) => method ?? error?.data._tag)
      assert.includeMembers(told, ["UnknownMethod", "exited", "empty", "drained"])
    } finally {
      sidecar.kill("SIGKILL")
    }
  })
})
