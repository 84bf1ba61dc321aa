/** The pid record on a disk of Windows, where a folder does not replace another one and an open file is not replaced. */
import { assert, describe, it } from "@effect/vitest"
import { PidRecord } from "@treeline/core/daemon"
import { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import { NodeStateFolder } from "@treeline/platform-node"
import { WindowsPlatform } from "@treeline/platform-windows"
import { Effect, Exit, Option, Scope } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

const facts: PidRecord.Facts = { version: "1.0.0", program: "node", control: null, config: null, grace: 5000 }

describe("the pid record", () => {
  it.live("C4, C5, C34: taken, told, refused to a second one, given back, and taken from a dead one", () =>
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform
      const top = fs.mkdtempSync(path.join(os.tmpdir(), "treeline-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => fs.rmSync(top, { recursive: true, force: true })))
      const directory = path.join(top, "state")
      const place = { folder: NodeStateFolder.make(directory), platform }
      const self = Option.getOrThrow(yield* platform.identify(process.pid))
      const stateTag = Effect.map(PidRecord.read(place), ({ _tag }) => _tag)
      for (let round = 0; round < 3; round++) {
        assert.strictEqual(yield* stateTag, "Missing")
        const scope = yield* Scope.make()
        const held = yield* Scope.provide(PidRecord.take(place, self, facts), scope)
        assert.strictEqual(yield* stateTag, "Starting")
        yield* held.ready("127.0.0.1:1")
        yield* held.ready("127.0.0.1:2")
        const state = yield* PidRecord.read(place)
        assert.strictEqual(state._tag === "Running" && state.record.control, "127.0.0.1:2")
        const error = yield* Effect.flip(Effect.scoped(PidRecord.take(place, self, facts)))
        assert.strictEqual(error._tag === "AlreadyRunning" && error.pid, process.pid)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(fs.readdirSync(directory), [])
        // An empty folder, as a death in the middle of giving back leaves it.
        fs.mkdirSync(path.join(directory, "daemon"))
      }
      const dead = { ...self, startTime: "1" }
      const entry = path.join(directory, "daemon", `${process.pid}-ab.json`)
      fs.writeFileSync(entry, JSON.stringify({ holder: dead, since: 0, info: { ...facts, readyAt: 1 } }))
      assert.strictEqual(yield* stateTag, "Stale")
      yield* PidRecord.take(place, self, facts)
      assert.strictEqual(yield* stateTag, "Starting")
      assert.isFalse(fs.existsSync(entry))
    }).pipe(Effect.scoped, Effect.provide(WindowsPlatform.layer)))
})
