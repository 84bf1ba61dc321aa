import { it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { strictEqual } from "node:assert"
import * as fs from "node:fs"
import * as Host from "../support/Host.ts"
import * as Scratch from "../support/Scratch.ts"

/** What the descriptors of a process refer to. */
const targets = (pid: number): ReadonlyArray<string> =>
  fs.readdirSync(`/proc/${pid}/fd`).map((fd) => fs.readlinkSync(`/proc/${pid}/fd/${fd}`))

it.live.runIf(process.platform === "linux")(
  "the guardian holds no descriptor of its host, not even one that the host was started with",
  () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const lock = scratch.file("lock")
      const host = yield* Host.start({
        on: "treeline",
        scratch,
        through: ["bash", "-c", `exec 30>"${lock}"; exec "$@"`, "bash"],
        spec: { command: Host.treeCommand("plain", scratch) }
      })
      const [leader] = yield* scratch.awaitReported(1)
      const guardian = yield* Host.awaitGuardian(host, scratch)
      // The control: the host was started with the lock, and Node hands it on to its children.
      strictEqual(targets(host.identity.pid).includes(lock), true)
      strictEqual(targets(leader!.pid).includes(lock), !Host.isNative)
      const ofHost = new Set(targets(host.identity.pid).filter((target) => target !== "/dev/null"))
      strictEqual(targets(guardian.pid).find((target) => ofHost.has(target)), undefined)
    })
)
