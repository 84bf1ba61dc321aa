/** The command as it is published: a few files, which find what they need in the packages. */
import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { afterEach, beforeEach } from "vitest"
import { program } from "../support/Programs.ts"

const published = fileURLToPath(new URL("../../packages/treeline/dist/command/treeline.js", import.meta.url))

let folder = ""
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "treeline-published-"))
})
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }))

const write = (name: string, text: string) => fs.writeFileSync(path.join(folder, name), text)

const start = (file: string, args: ReadonlyArray<string>) =>
  new Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }>((resolve) => {
    execFile(process.execPath, [file, ...args], { cwd: folder, timeout: 30_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr })
    })
  })

const run = (...args: ReadonlyArray<string>) => start(published, args)

describe.skipIf(!fs.existsSync(published))("the published command (needs npm run build)", () => {
  it("contains a program, and ends by its exit code", async () => {
    const { code, stdout } = await run("run", "--", "sh", "-c", "echo out; exit 3")
    assert.deepStrictEqual([code, stdout], [3, "out\n"])
  })

  it("finds native code and all else of its platform", async () => {
    assert.deepStrictEqual(await run("doctor"), await start(program("treeline"), ["doctor"]))
  })

  it("finds the worker that reads a configuration that is a module", async () => {
    write("treeline.config.ts", `export default { services: { web: { command: "sleep", args: ["60"] } } }`)
    const { code, stderr, stdout } = await run("config")
    assert.deepStrictEqual([code, stderr], [0, ""])
    assert.include(stdout, `"web"`)
  })

  it("starts itself as a daemon, and ends it", async () => {
    write("treeline.json", `{ "services": { "web": { "command": "sleep", "args": ["60"] } } }`)
    const started = await run("daemon", "start", "--json")
    assert.strictEqual(started.code, 0, started.stderr)
    const stopped = await run("daemon", "stop", "--json")
    assert.deepInclude(JSON.parse(stopped.stdout), { status: "stopped", forced: false })
  })
})
