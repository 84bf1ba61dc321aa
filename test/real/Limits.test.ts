/**
 * What this engine can't do, where it can be built: each is reported, by the level of the tree or by its survivors, and
 * never passed over in silence. The documentation lists the same limits.
 */
import { assert, describe, it } from "@effect/vitest"
import { Errors, ProcessPlatform } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import * as Effect from "effect/Effect"
import { ChildProcess } from "effect/process"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { eventually, stays } from "../support/Eventually.ts"
import * as Host from "../support/Host.ts"
import { identify, isAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"

/** How long what must survive is observed, in ms. */
const window = 300

/** A leader of the user's own with a member of root. */
const foreign = "become=$1; shift; \"$become\" --reuid 0 --regid 0 --clear-groups \"$@\" & wait"

const hasPrlimit = child_process.spawnSync("prlimit", ["--version"]).status === 0
const whyNotUnprivileged = Host.whyNotUnprivileged()

describe.runIf(process.platform === "linux" && hasPrlimit)("what stays impossible (on Linux, with prlimit)", () => {
  it.live("a member that sheds its tag, mark, session and parents escapes a close, and a level says so beforehand", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const host = yield* Host.start({ on: "treeline", scratch, spec: { command: Host.treeCommand("shed", scratch) } })
      yield* scratch.awaitReported(2)
      assert.match(yield* host.awaitLine("launched"), / tagged$/)
      host.order("close")
      yield* host.awaitLine("closed")
      yield* stays("it lives", () => scratch.living().map(({ name }) => name).join() === "quiet", window)
    }))

  it.live("the same after the death of the host", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const host = yield* Host.start({ on: "treeline", scratch, spec: { command: Host.treeCommand("shed", scratch) } })
      yield* scratch.awaitReported(2)
      const guardian = yield* Host.awaitGuardian(host, scratch)
      host.signal("SIGKILL")
      yield* eventually("the guardian has done its work", () => !isAlive(guardian))
      yield* stays("it lives", () => scratch.living().map(({ name }) => name).join() === "quiet", window)
    }))

  it.live("who needs more than this engine has is refused before anything runs", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const [file, ...args] = Host.treeCommand("shed", scratch)
      const error = yield* Effect.flip(
        ProcessPlatform.ProcessPlatform.use((platform) =>
          platform.launch(ChildProcess.make(file!, args), { require: "sealed" })
        ).pipe(Effect.provide(PosixPlatform.layerWith({ engine: "portable" })))
      )
      assert.instanceOf(error, Errors.ContainmentUnavailable)
      assert.strictEqual(error.available, "tagged")
      assert.deepStrictEqual(scratch.reported(), [])
    }))

  describe.skipIf(whyNotUnprivileged !== undefined)(
    `as an unprivileged user${whyNotUnprivileged === undefined ? "" : ` (not here: ${whyNotUnprivileged})`}`,
    () => {
      it.live("where the tag is refused, the level is lower, and a daemon without environment escapes", () =>
        Effect.gen(function*() {
          const scratch = yield* Scratch.make
          const host = yield* Host.start({
            on: "treeline",
            scratch,
            spec: { command: Host.treeCommand("cleared", scratch) },
            user: Host.unprivileged,
            through: ["prlimit", "--locks=5:5", "--"]
          })
          yield* scratch.awaitReported(2)
          assert.match(yield* host.awaitLine("launched"), / marked$/)
          host.order("close")
          yield* host.awaitLine("closed")
          yield* stays("it lives", () => scratch.living().map(({ name }) => name).join() === "quiet", window)
        }))

      it.live("peer 17: a member of another user can't be ended, and is reported as survivor", (context) =>
        Effect.gen(function*() {
          const scratch = yield* Scratch.make
          // A copy of setpriv that belongs to root and becomes root altogether.
          const becomeRoot = scratch.file("become-root")
          fs.copyFileSync(child_process.execFileSync("which", ["setpriv"], { encoding: "utf8" }).trim(), becomeRoot)
          fs.chmodSync(becomeRoot, 0o4755)
          const tried = child_process.spawnSync(becomeRoot, ["--reuid", "0", "true"], { uid: Host.unprivileged })
          if (tried.status !== 0) context.skip("the temporary folder gives no program another user (nosuid)")
          const host = yield* Host.start({
            on: "treeline",
            scratch,
            user: Host.unprivileged,
            spec: { command: ["sh", "-c", foreign, "sh", becomeRoot, ...Host.treeCommand("leaf", scratch)] }
          })
          const [member] = yield* scratch.awaitReported(1)
          const owner = fs.statSync(`/proc/${member!.pid}`).uid
          assert.strictEqual(owner, 0)
          const leader = Number((yield* host.awaitLine("launched")).split(" ")[0])
          host.order("close")
          assert.strictEqual(yield* host.awaitLine("closed"), String(member!.pid))
          assert.isTrue(isAlive(member!))
          // The other members are ended all the same.
          assert.isUndefined(identify(leader))
        }))
    }
  )
})
