/** A process that outlives its starter, on Windows: the look at the job before, and what it does not inherit. */
import { assert, describe, it } from "@effect/vitest"
import { PidRecord } from "@treeline/core/daemon"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import { NodeStateFolder } from "@treeline/platform-node"
import { WindowsDetached, WindowsPlatform } from "@treeline/platform-windows"
import { Effect, Option } from "effect"
import koffi from "koffi"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as SecurityDescriptor from "../../packages/platform-node/src/internal/SecurityDescriptor.ts"
import * as Kernel32 from "../../packages/platform-windows/src/internal/Kernel32.ts"
import { eventually } from "../support/Eventually.ts"
import { accountOfThisProcess } from "./support/Accounts.ts"
import { identify, type Identity, isAlive, killIfAlive } from "./support/Processes.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "treeline test "))),
  (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }))
)

const kernelOf = Effect.sync(() => {
  const kernel = Kernel32.load()
  if (kernel instanceof Error) throw kernel
  return kernel
})

const BREAKAWAY_FROM_JOB = 0x100_0000

/** The system, in a job with these flags; `created` are the flags of launches. Wine tells of no job what its flags are. */
const inJob = (kernel: Kernel32.Kernel32, flags: number) => {
  const created: Array<number> = []
  const changed: Kernel32.Kernel32 = {
    ...kernel,
    IsProcessInJob: (_process, _job, out) => (out[0] = 1),
    QueryInformationJobObject: (_job, _what, info) => {
      info.writeUInt32LE(flags, 16)
      return 1
    },
    CreateProcessW: (...all) => {
      created.push(all[5])
      return kernel.CreateProcessW(...all)
    }
  }
  return { kernel: changed, created }
}

const optionsIn = (directory: string, script: string): WindowsDetached.Options => ({
  command: process.execPath,
  args: ["-e", script],
  cwd: directory,
  output: path.join(directory, "err", "output")
})

const ends = (identity: Identity) => Effect.addFinalizer(() => Effect.sync(() => killIfAlive(identity)))

describe("a detached start", () => {
  it.live("C28: detached_launch_preflight_rejects_restrictive_job", () =>
    Effect.gen(function*() {
      const { created, kernel } = inJob(yield* kernelOf, 0x2000)
      const options = optionsIn(yield* folder, "0")
      const error = yield* Effect.flip(WindowsDetached.launch(options, kernel))
      assert.strictEqual(error._tag, "DetachUnavailable")
      assert.match(error.message, /lets none out: start it from a terminal/)
      assert.match(WindowsDetached.unavailable(kernel)!, /lets none out/)
      assert.deepStrictEqual(created, [])
      assert.isFalse(fs.existsSync(options.output))
    }).pipe(Effect.scoped))

  it.live("C28: detached_launch_preflight_allows_residual_job, and leaves one that may be left", () =>
    Effect.gen(function*() {
      const kernel = yield* kernelOf
      for (const [flags, breaksAway] of [[0, false], [0x3000, false], [0x3800, true]] as const) {
        const { created, kernel: changed } = inJob(kernel, flags)
        const launched = yield* WindowsDetached.launch(optionsIn(yield* folder, "process.exit(3)"), changed)
        assert.deepStrictEqual(yield* launched.ended, { _tag: "Exited", code: 3 })
        assert.deepStrictEqual(created.map((flags) => (flags & BREAKAWAY_FROM_JOB) !== 0), [breaksAway])
      }
    }).pipe(Effect.scoped))

  it.live("it has no console, its folder, and its output in a file; what an earlier one said is set aside (C27)", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const script = `const koffi = require(${JSON.stringify(import.meta.resolve("koffi").replace(/^file:\/\/\//, ""))})
        const console_ = koffi.load("kernel32.dll").func("uint32_t __stdcall GetConsoleCP()")() !== 0
        console.log(JSON.stringify({ console: console_, cwd: process.cwd(), own: process.env.OWN }))
        console.error("to stderr")
        setTimeout(() => {}, 60000)`
      const options = { ...optionsIn(directory, script), env: { ...process.env, OWN: "ünïcode" } }
      fs.mkdirSync(path.dirname(options.output))
      fs.writeFileSync(options.output, "earlier")
      const launched = yield* WindowsDetached.launch(options)
      const identity = identify(launched.pid)!
      yield* ends(identity)
      const text = () => fs.readFileSync(options.output, "utf8")
      yield* eventually("it has said all", () => text().includes("to stderr"), { within: 30_000, detail: text })
      const [line = ""] = text().split("\n")
      assert.deepStrictEqual(JSON.parse(line), { console: false, cwd: directory, own: "ünïcode" })
      const errors = yield* launched.errors
      assert.deepStrictEqual([Buffer.from(errors.bytes).toString(), errors.complete], [text(), true])
      assert.strictEqual(fs.readFileSync(`${options.output}.previous`, "utf8"), "earlier")
      assert.isTrue(isAlive(identity))
    }).pipe(Effect.scoped))

  it.live("one that can't be started is told, typed", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const missing = { ...optionsIn(directory, "0"), command: path.join(directory, "missing.exe") }
      const error = yield* Effect.flip(WindowsDetached.launch(missing))
      assert.deepStrictEqual([error._tag, error._tag === "LaunchError" && error.reason], ["LaunchError", "NotFound"])
      const batch = path.join(directory, "batch.cmd")
      fs.writeFileSync(batch, "@echo 1.0.0\r\n")
      const refused = yield* Effect.flip(WindowsDetached.launch({ ...optionsIn(directory, "0"), command: batch }))
      assert.match(refused.message, /a batch file can't be a daemon.*an \.exe \(NotExecutable\)/)
    }).pipe(Effect.scoped))
})

const limited = 0x1000 | 0x10_0000

/**
 * A process that grants this account so much and nobody anything else; ended with the scope by the handle of its start. It
 * has no console: under Wine the one of a process that is killed early stays, and holds the output of this one.
 */
const guarded = (kernel: Kernel32.Kernel32, mask: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const descriptor = SecurityDescriptor.onlyFor(Buffer.from(accountOfThisProcess(), "hex"))
      descriptor.writeUInt32LE(mask, 32)
      const security = SecurityDescriptor.securityAttributes(koffi.address(descriptor))
      const startup = Buffer.alloc(104)
      startup.writeUInt32LE(104, 0)
      const information = Buffer.alloc(24)
      const text = (words: string) => Buffer.from(`${words}\0`, "utf16le")
      const program = path.join(process.env["SystemRoot"] ?? "C:\\windows", "system32", "ping.exe")
      const line = text("ping.exe -n 60 127.0.0.1")
      const create = koffi.load("kernel32.dll").func(
        "int __stdcall CreateProcessW(void*, void*, void*, void*, int, uint32_t, void*, void*, void*, void*)"
      )
      assert.strictEqual(
        create(text(program), line, security, null, 0, Kernel32.DETACHED_PROCESS, null, null, startup, information),
        1
      )
      kernel.CloseHandle(information.readBigUInt64LE(8))
      return { handle: information.readBigUInt64LE(0), pid: information.readUInt32LE(16), descriptor }
    }),
    ({ handle }) =>
      Effect.sync(() => {
        kernel.TerminateProcess(handle, 1)
        kernel.CloseHandle(handle)
      })
  )

describe("identity", () => {
  it.live("C28: identity_queries_do_not_require_termination_access", () =>
    Effect.gen(function*() {
      const kernel = yield* kernelOf
      const platform = yield* ProcessPlatform
      const { pid } = yield* guarded(kernel, limited)
      assert.strictEqual(kernel.OpenProcess(limited | 1, 0, pid), 0, "it may not be ended")
      const identity = Option.getOrThrow(yield* platform.identify(pid))
      assert.strictEqual(yield* platform.standing(identity), "Alive")
      assert.strictEqual(yield* platform.standing({ ...identity, startTime: "1" }), "Gone")
      assert.strictEqual(yield* platform.signalProcess(identity, "SIGKILL"), "Denied")
    }).pipe(Effect.scoped, Effect.provide(WindowsPlatform.layer)))

  it.live("C28: inaccessible_pid_preserves_identity_check_error: a record that can't be judged is told and kept", () =>
    Effect.gen(function*() {
      const kernel = yield* kernelOf
      const platform = yield* ProcessPlatform
      const { pid } = yield* guarded(kernel, 0)
      const directory = path.join(yield* folder, "state")
      const place = { folder: NodeStateFolder.make(directory), platform }
      const holder = { pid, startTime: "133000000000000000", boot: "" }
      const info = { version: "1", program: "node", control: null, config: null, grace: 5000, readyAt: 1 }
      yield* place.folder.makeFolder("daemon")
      yield* place.folder.write(`daemon/${pid}-ab.json`, JSON.stringify({ holder, since: 0, info }))
      assert.strictEqual(yield* platform.standing(holder), "Unsure")
      const state = yield* PidRecord.read(place)
      assert.deepStrictEqual([state._tag, state._tag === "Unsure" && state.pid], ["Unsure", pid])
      const self = Option.getOrThrow(yield* platform.identify(process.pid))
      const { readyAt: _, ...facts } = info
      const error = yield* Effect.flip(Effect.scoped(PidRecord.take(place, self, facts)))
      assert.strictEqual(error._tag === "ClaimUndecided" && error.reason, "Unsure")
      assert.lengthOf(fs.readdirSync(path.join(directory, "daemon")), 1)
    }).pipe(Effect.scoped, Effect.provide(WindowsPlatform.layer)))
})
