/** The record of updates. */
import { assert, describe, it } from "@effect/vitest"
import { UpdateRecord } from "@treeline/core/daemon"
import { Effect } from "effect"
import { MemoryFolder } from "../support/MemoryFolder.ts"

describe("the record of updates", () => {
  it.effect("is read as it was written, and is empty where there is none", () =>
    Effect.gen(function*() {
      const files = new MemoryFolder()
      const folder = files.asSeen()
      assert.deepStrictEqual(yield* UpdateRecord.read(folder), UpdateRecord.empty)
      const record: UpdateRecord.UpdateRecord = {
        ...UpdateRecord.empty,
        phase: "restarting",
        to: "1".repeat(40),
        validated: { id: "0".repeat(40), daemon: { pid: 20, startTime: "7", boot: "b" } }
      }
      yield* UpdateRecord.write(folder, 10, UpdateRecord.empty)
      yield* UpdateRecord.write(folder, 10, record)
      assert.deepStrictEqual(yield* UpdateRecord.read(folder), record)
      assert.deepStrictEqual(files.names, ["update.json"])
    }))

  it.effect("C33: one that holds something else is told with what to do, and kept", () =>
    Effect.gen(function*() {
      const files = new MemoryFolder()
      for (const text of ["", "{}", "not JSON", "{\"phase\":\"resting\"}"]) {
        files.entries.set("update.json", text)
        const error = yield* Effect.flip(UpdateRecord.read(files.asSeen()))
        assert.strictEqual(error._tag, "UpdateRecordInvalid")
        assert.match(error.message, /^\/state\/update\.json: .* Remove it/)
        assert.strictEqual(files.entries.get("update.json"), text)
      }
    }))

  it.effect("stays small: the latest rejections, and the beginning of long texts", () =>
    Effect.gen(function*() {
      const files = new MemoryFolder()
      let record = UpdateRecord.empty
      for (let n = 0; n < 100; n++) record = UpdateRecord.reject(record, `v${n % 40}`, n, "x".repeat(5000))
      yield* UpdateRecord.write(files.asSeen(), 10, {
        ...record,
        reason: "y".repeat(100_000),
        lastError: "z".repeat(100_000)
      })
      assert.isBelow(files.entries.get("update.json")!.length, 32 * 1024)
      const read = yield* UpdateRecord.read(files.asSeen())
      assert.deepStrictEqual(read.rejected.map(({ at }) => at), Array.from({ length: 16 }, (_, n) => 84 + n))
    }))
})
