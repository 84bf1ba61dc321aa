import { assert, describe, it } from "@effect/vitest"
import type { LaunchRequest } from "@treeline/core/Engine"
import * as Result from "effect/Result"
import * as Commands from "../../packages/platform-windows/src/internal/Commands.ts"
import type * as Executable from "../../packages/platform-windows/src/internal/Executable.ts"

const images = new Set(["c:\\bin\\node.exe", "c:\\bin\\bash.exe"])
const batches = new Set(["c:\\bin\\npm.cmd"])

const files: Executable.Files = {
  kind: (file) => {
    const name = file.toLowerCase()
    return images.has(name) || batches.has(name) ? "file" : name === "d:\\work" ? "directory" : "missing"
  },
  head: () => "MZ"
}

const request = (fields: Partial<LaunchRequest>): LaunchRequest => ({
  command: "node",
  args: [],
  cwd: undefined,
  env: {},
  extendEnv: true,
  shell: false,
  stdio: [{ _tag: "ignore" }, { _tag: "ignore" }, { _tag: "ignore" }],
  session: "own",
  windowsHide: true,
  require: undefined,
  limits: undefined,
  ...fields
})

const resolve = (fields: Partial<LaunchRequest>) =>
  Commands.resolve(request(fields), {
    env: { Path: "C:\\bin", SystemRoot: "C:\\Windows", SECRET: "host" },
    directory: "D:\\work",
    systemDirectory: "C:\\Windows\\System32",
    files
  })

const resolved = (fields: Partial<LaunchRequest>) => Result.getOrThrow(resolve(fields))

const failure = (fields: Partial<LaunchRequest>) => Result.getOrThrow(Result.flip(resolve(fields)))

describe("Commands", () => {
  it("an image is started by its path, under the name it was called by", () => {
    const { commandLine, cwd, file } = resolved({ args: ["-e", "1 + 1"] })
    assert.deepStrictEqual([file, commandLine, cwd], ["C:\\bin\\node.exe", "\"node\" -e \"1 + 1\"", undefined])
  })

  it("peer 117, P16: a batch file is run by the system's cmd.exe, whatever COMSPEC says", () => {
    const { commandLine, file } = resolved({ command: "npm", args: ["a&b"], env: { COMSPEC: "D:\\evil.exe" } })
    assert.strictEqual(file, "C:\\Windows\\System32\\cmd.exe")
    assert.strictEqual(commandLine, "cmd.exe /e:ON /v:OFF /d /c \"\"C:\\bin\\npm.cmd\" \"a&b\"\"")
  })

  it("a shell: cmd.exe by default, another one with -c", () => {
    for (const shell of [true, "cmd", "CMD.EXE"] as const) {
      const { commandLine, file } = resolved({ command: "echo \"a b\" & exit 3", shell })
      assert.strictEqual(file, "C:\\Windows\\System32\\cmd.exe")
      assert.strictEqual(commandLine, "cmd.exe /d /s /c \"echo \"a b\" & exit 3\"")
    }
    const { commandLine, file } = resolved({ command: "echo \"a b\"", shell: "bash" })
    assert.deepStrictEqual([file, commandLine], ["C:\\bin\\bash.exe", "\"bash\" -c \"echo \\\"a b\\\"\""])
  })

  it("the environment is the host's with changes, or its own with what the system needs", () => {
    const over = resolved({ env: { PATH: "C:\\bin;C:\\more", SECRET: undefined } }).env
    assert.deepStrictEqual(over, { PATH: "C:\\bin;C:\\more", SystemRoot: "C:\\Windows" })
    const own = resolved({ command: "C:\\bin\\node.exe", env: { ONE: "1", path: undefined }, extendEnv: false }).env
    assert.deepStrictEqual(own, { ONE: "1", SYSTEMROOT: "C:\\Windows" })
  })

  it("peer 65: a directory that can't be entered is told first", () => {
    assert.strictEqual(failure({ command: "nothing", cwd: "X:\\nowhere" }).reason, "BadWorkingDirectory")
    assert.strictEqual(resolved({ cwd: "." }).cwd, "D:\\work")
  })

  it("errors show no argument and no script", () => {
    const long = failure({ args: ["secret".repeat(10_000)] })
    assert.strictEqual(long.reason, "InvalidArgument")
    assert.notInclude(long.message, "secret")
    for (const lines of ["echo secret\r\nexit 3", "echo secret\nexit 3", "echo secret\rexit 3"]) {
      const { command, detail, reason } = failure({ command: lines, shell: true })
      assert.deepStrictEqual([reason, command], ["InvalidArgument", "shell"])
      assert.match(detail, /line break, and cmd.exe runs only the first line/)
      assert.notInclude(detail, "secret")
    }
    const script = failure({ command: `echo secret ${"x".repeat(9_000)}`, shell: true })
    assert.deepStrictEqual([script.reason, script.command], ["InvalidArgument", "shell"])
    assert.notInclude(script.message, "secret")
    assert.strictEqual(failure({ command: "npm", args: ["a\nsecret"] }).reason, "InvalidArgument")
  })
})
