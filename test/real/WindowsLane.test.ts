/**
 * The runner of the Windows tests itself: what a program under Wine says and how it ends comes back as it is.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import * as Scratch from "../support/Scratch.ts"

const runner = fileURLToPath(new URL("../../tools/windows/run.mjs", import.meta.url))

interface Outcome {
  readonly pid: number
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program by the runner, for at most so many seconds. */
const run = (file: string, args: ReadonlyArray<string>, seconds: number) =>
  Effect.callback<Outcome>((resume) => {
    const child = child_process.spawn(process.execPath, [runner, "--script", file, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, TREELINE_WINDOWS_LIMIT: String(seconds) }
    })
    let stdout = ""
    let stderr = ""
    child.stdout.on("data", (text) => (stdout += String(text)))
    child.stderr.on("data", (text) => (stderr += String(text)))
    child.once("close", (code) => resume(Effect.succeed({ pid: child.pid!, code, stdout, stderr })))
    return Effect.sync(() => void child.kill())
  })

/** What runs in the prefix that a runner made for itself. */
const processesOf = (runner: number): ReadonlyArray<string> =>
  fs.readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && fs.readFileSync(`/proc/${pid}/environ`, "latin1").includes(`/run-${runner}-`)
    } catch {
      return false
    }
  })

describe("the Windows lane", () => {
  it.live(
    "output and exit code come back, and a run that hangs is ended and reported",
    (test) =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const program = scratch.file("program.cjs")
        fs.writeFileSync(
          program,
          `
          console.log(process.platform, JSON.stringify(process.argv.slice(3)), "ünïcode")
          console.error("to stderr")
          if (process.argv[2] === "hang") require("node:child_process").spawn("ping.exe", ["-n", "600", "127.0.0.1"])
          else process.exit(7)
        `
        )
        const ended = yield* run(program, ["exit", "two words", "a\"b"], 100)
        if (ended.stdout.includes("Wine is not installed")) return test.skip("Wine is not installed")
        assert.strictEqual(ended.stdout, `win32 ["two words","a\\"b"] ünïcode\n`)
        assert.match(ended.stderr, /^to stderr$/m)
        assert.strictEqual(ended.code, 7)

        const hung = yield* run(program, ["hang"], 5)
        assert.strictEqual(hung.stdout, "win32 [] ünïcode\n")
        assert.match(hung.stderr, /still running after 5 s: all of it is ended/)
        assert.strictEqual(hung.code, 124)
        assert.deepStrictEqual(processesOf(hung.pid), [])
      }),
    150_000
  )
})
