/**
 * The decisions of a job, on a system made of a few maps. What the real one does is in test/windows.
 */
import { assert, describe, it } from "@effect/vitest"
import { Job, JobProblem } from "../../packages/platform-windows/src/internal/Job.ts"
import type * as Kernel32 from "../../packages/platform-windows/src/internal/Kernel32.ts"
import { Processes } from "../../packages/platform-windows/src/internal/Processes.ts"
import type * as Structs from "../../packages/platform-windows/src/internal/Structs.ts"
import * as Waits from "../../packages/platform-windows/src/internal/Waits.ts"

interface Fake {
  alive: boolean
  readonly image?: string
  readonly created?: bigint
}

const consoleHost = { alive: true, image: "c:\\windows\\System32\\CONHOST.EXE" }

/** A job whose list is `lists`, one after the other and then the last one again and again. */
const systemOf = (
  table: Record<number, Fake>,
  lists: ReadonlyArray<ReadonlyArray<number> | { readonly error: number }>
) => {
  const open = new Map<number, number>()
  const waits = new Map<number, number>()
  let next = 1
  let looks = 0
  let error = 0
  let fire: (id: number) => void = () => {}
  const processOf = (handle: Structs.Handle) => table[open.get(Number(handle))!]!
  const kernel: Partial<Kernel32.Kernel32> = {
    lastError: () => error,
    CloseHandle: (handle) => Number(open.delete(Number(handle))),
    CreateJobObjectW: () => 1000,
    SetInformationJobObject: () => 1,
    QueryInformationJobObject: (_job, _what, info) => {
      const list = lists[Math.min(looks++, lists.length - 1)]!
      if ("error" in list) {
        error = list.error
        return 0
      }
      info.writeUInt32LE(list.length, 0)
      info.writeUInt32LE(list.length, 4)
      for (const [index, pid] of list.entries()) info.writeBigUInt64LE(BigInt(pid), 8 + 8 * index)
      return 1
    },
    IsProcessInJob: (_process, _job, out) => (out[0] = 1),
    OpenProcess: (_access, _inherit, pid) => {
      error = 87
      if (table[pid] === undefined) return 0
      open.set(next, pid)
      return next++
    },
    WaitForSingleObject: (handle) => processOf(handle).alive ? 0x102 : 0,
    GetProcessTimes: (handle, created) => {
      created[0] = processOf(handle).created ?? 1n
      return 1
    },
    QueryFullProcessImageNameW: (handle, _flags, name, size) => {
      const image = processOf(handle).image ?? "C:\\program.exe"
      name.write(image, "utf16le")
      size[0] = image.length
      return 1
    },
    RegisterWaitForSingleObject: (_out, handle, _callback, context) => {
      waits.set(open.get(Number(handle))!, context)
      return 1
    },
    UnregisterWaitEx: () => 1,
    onWait: (listener) => {
      fire = listener
      return 0n
    }
  }
  const whole = kernel as Kernel32.Kernel32
  const job = Job.make({
    kernel: whole,
    processes: new Processes(whole),
    waits: new Waits.Waits(whole),
    keepAlive: new Waits.KeepAlive(),
    systemDirectory: "C:\\Windows\\System32"
  })
  if (job instanceof JobProblem) throw new Error(job.detail)
  const end = (pid: number) => {
    table[pid]!.alive = false
    const wait = waits.get(pid)
    if (wait !== undefined) fire(wait)
  }
  return { job, open, end, looks: () => looks }
}

describe("Job", () => {
  it("is not empty while a member lives that was started between the list and the look", () => {
    const { job, open } = systemOf({ 10: { alive: false }, 11: { alive: true } }, [[10], [10, 11]])
    assert.isFalse(job.isEmpty)
    assert.strictEqual(open.size, 0, "nothing is left open")
  })

  it("is empty when a second list names nobody new", () => {
    const { job, looks } = systemOf({ 10: { alive: false } }, [[10, 9]])
    assert.isTrue(job.isEmpty)
    assert.strictEqual(looks(), 2)
  })

  it("a console host is no member", () => {
    const { job, open } = systemOf({ 10: consoleHost }, [[10]])
    assert.isTrue(job.isEmpty)
    assert.deepStrictEqual(job.members(1), [])
    assert.strictEqual(open.size, 0)
  })

  it("one that does not tell its members does not pass for an empty one", () => {
    const { job } = systemOf({}, [{ error: 6 }])
    assert.throws(() => job.isEmpty, /error 6/)
  })

  it("waits for one member after another, and says once that none is left", () => {
    const table = { 10: { alive: true }, 11: { alive: true }, 12: { alive: true } }
    const { end, job, open } = systemOf(table, [[10, 11], [11, 12]])
    let empty = 0
    job.onEmpty(() => void empty++)
    assert.deepStrictEqual([...open.values()], [10])
    end(10)
    assert.deepStrictEqual([...open.values()], [11])
    end(11)
    assert.deepStrictEqual([...open.values()], [12])
    assert.strictEqual(empty, 0)
    end(12)
    assert.strictEqual(empty, 1)
    assert.strictEqual(open.size, 0)
  })

  it("a wait that is cancelled gives back what it held, and says nothing", () => {
    const { end, job, open } = systemOf({ 10: { alive: true } }, [[10]])
    let empty = 0
    const cancel = job.onEmpty(() => void empty++)
    cancel()
    assert.strictEqual(open.size, 0)
    end(10)
    assert.strictEqual(empty, 0)
  })

  it("members are held until they are released, and a pid that is somebody else's by now is not", () => {
    const table = { 10: { alive: true, created: 5n }, 11: { alive: true }, 12: { alive: false } }
    const { job, open } = systemOf(table, [[10, 11, 12]])
    const all = job.hold()
    assert.deepStrictEqual(all.pids, [10, 11])
    assert.strictEqual(open.size, 2)
    all.release()
    assert.strictEqual(open.size, 0)
    const one = job.hold({ pid: 10, startTime: "5" })
    assert.deepStrictEqual(one.pids, [10])
    one.release()
    assert.deepStrictEqual(job.hold({ pid: 10, startTime: "4" }).pids, [])
    assert.strictEqual(open.size, 0)
  })
})
