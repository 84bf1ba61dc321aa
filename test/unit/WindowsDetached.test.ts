/** What a detached start on Windows decides, and who may open a file there. What the system does is in test/windows. */
import { assert, describe, it } from "@effect/vitest"
import * as SecurityDescriptor from "../../packages/platform-node/src/internal/SecurityDescriptor.ts"
import * as Detachment from "../../packages/platform-windows/src/internal/Detachment.ts"
import type * as Kernel32 from "../../packages/platform-windows/src/internal/Kernel32.ts"
import { Processes } from "../../packages/platform-windows/src/internal/Processes.ts"

const [DIE, BREAKAWAY, SILENT, KILL] = [0x400, 0x800, 0x1000, 0x2000]

describe("Detachment", () => {
  const decided = (flags: number) => Detachment.decide({ _tag: "Job", flags })

  it("C28: detached_launch_preflight_rejects_restrictive_job", () => {
    for (const flags of [KILL, KILL | DIE]) {
      const refused = decided(flags)
      assert(refused._tag === "Refused")
      assert.match(refused.reason, /lets none out: start it from a terminal outside .* treeline daemon install/)
    }
  })

  it("C28: detached_launch_preflight_allows_residual_job", () => {
    assert.strictEqual(Detachment.decide({ _tag: "NoJob" })._tag, "Plain")
    for (const flags of [0, DIE]) assert.strictEqual(decided(flags)._tag, "Plain")
  })

  it("C28: a job that may be left is asked for it, unless the system does it by itself", () => {
    // The one that Node puts itself in with the first child that is not detached.
    assert.strictEqual(decided(BREAKAWAY | SILENT | DIE | KILL)._tag, "BreaksAway")
    assert.strictEqual(decided(BREAKAWAY | KILL)._tag, "BreaksAway")
    assert.strictEqual(decided(SILENT | KILL)._tag, "Plain")
  })

  it("C28: what can't be told is refused, with the error of the system", () => {
    const refused = Detachment.decide({ _tag: "Unknown", code: 5 })
    assert.match(refused._tag === "Refused" ? refused.reason : refused._tag, /error 5/)
  })

  const kernelOf = (answers: { readonly inJob: number | undefined; readonly flags: number | undefined }) =>
    ({
      lastError: () => 5,
      GetCurrentProcess: () => -1,
      IsProcessInJob: (_process, job, out) => {
        assert.strictEqual(job, 0)
        out[0] = answers.inJob ?? 0
        return Number(answers.inJob !== undefined)
      },
      QueryInformationJobObject: (job, what, info) => {
        assert.deepStrictEqual([job, what, info.length], [0, 9, 144], "its own job, all limits")
        info.writeUInt32LE(answers.flags ?? 0, 16)
        return Number(answers.flags !== undefined)
      }
    }) as Partial<Kernel32.Kernel32> as Kernel32.Kernel32

  it("C28: the job is this process's own", () => {
    assert.deepStrictEqual(Detachment.look(kernelOf({ inJob: 0, flags: 7 })), { _tag: "NoJob" })
    assert.deepStrictEqual(Detachment.look(kernelOf({ inJob: 1, flags: KILL })), { _tag: "Job", flags: KILL })
    assert.deepStrictEqual(Detachment.look(kernelOf({ inJob: 1, flags: undefined })), { _tag: "Unknown", code: 5 })
    assert.deepStrictEqual(Detachment.look(kernelOf({ inJob: undefined, flags: 0 })), { _tag: "Unknown", code: 5 })
  })
})

describe("Processes", () => {
  /** One process, of pid 8, that grants so much. */
  const systemOf = (granted: number) => {
    const asked: Array<number> = []
    let error = 0
    let open = 0
    const kernel: Partial<Kernel32.Kernel32> = {
      lastError: () => error,
      OpenProcess: (access, _inherit, pid) => {
        asked.push(access)
        error = pid !== 8 ? 87 : (access & ~granted) === 0 ? 0 : 5
        if (error === 0) open++
        return error === 0 ? 100 : 0
      },
      CloseHandle: () => {
        open--
        return 1
      },
      WaitForSingleObject: () => 0x102,
      GetProcessTimes: (_handle, created) => {
        created[0] = 1234n
        return 1
      }
    }
    return { processes: new Processes(kernel as Kernel32.Kernel32), asked, open: () => open }
  }
  const limited = 0x1000 | 0x10_0000
  const PROCESS_TERMINATE = 1
  const identity = { pid: 8, startTime: "1234", boot: "" }

  it("C28: identity_queries_do_not_require_termination_access", () => {
    const { asked, open, processes } = systemOf(limited)
    assert.deepStrictEqual(processes.identify(8), identity)
    assert.strictEqual(processes.standing(identity), "Alive")
    assert.strictEqual(processes.standing({ ...identity, startTime: "1" }), "Gone")
    assert.deepStrictEqual(new Set(asked), new Set([limited]))
    assert.strictEqual(processes.signal(identity, "SIGKILL"), "Denied")
    assert.strictEqual(asked.at(-2)! & PROCESS_TERMINATE, PROCESS_TERMINATE)
    assert.strictEqual(open(), 0)
  })

  it("C28: inaccessible_pid_preserves_identity_check_error", () => {
    const { processes } = systemOf(0)
    assert.isUndefined(processes.identify(8))
    assert.strictEqual(processes.standing(identity), "Unsure", "it exists, and may be the one")
    assert.strictEqual(processes.signal(identity, "SIGKILL"), "Denied")
    assert.strictEqual(processes.standing({ ...identity, pid: 9 }), "Gone", "nobody has this pid")
  })
})

/** `S-1-5-...` as bytes. */
const sidOf = (text: string): Buffer => {
  const [, , authority = "", ...parts] = text.split("-")
  const sid = Buffer.alloc(8 + 4 * parts.length)
  sid.set([1, parts.length])
  sid.writeUIntBE(Number(authority), 2, 6)
  for (const [index, part] of parts.entries()) sid.writeUInt32LE(Number(part), 8 + 4 * index)
  return sid
}

interface Entry {
  readonly sid: string
  readonly kind?: number
  readonly flags?: number
  readonly mask?: number
}

/** A descriptor with this owner and list; null is no list. */
const descriptorOf = (owner: string, entries: ReadonlyArray<Entry> | null): Buffer => {
  const head = Buffer.alloc(20)
  const ownerSid = sidOf(owner)
  const list = (entries ?? []).map(({ flags = 0, kind = 0, mask = 0x1f_01ff, sid }) => {
    const bytes = sidOf(sid)
    const entry = Buffer.alloc(8 + bytes.length)
    entry.set([kind, flags])
    entry.writeUInt16LE(entry.length, 2)
    entry.writeUInt32LE(mask, 4)
    bytes.copy(entry, 8)
    return entry
  })
  const acl = Buffer.alloc(8)
  acl.writeUInt8(2, 0)
  acl.writeUInt16LE(8 + Buffer.concat(list).length, 2)
  acl.writeUInt16LE(list.length, 4)
  head.writeUInt16LE(entries === null ? 0x8000 : 0x8004, 2)
  head.writeUInt32LE(20, 4)
  if (entries !== null) head.writeUInt32LE(20 + ownerSid.length, 16)
  return Buffer.concat([head, ownerSid, ...entries === null ? [] : [acl, ...list]])
}

describe("SecurityDescriptor", () => {
  const me = "S-1-5-21-1-2-3-1001"
  const exposure = (owner: string, entries: ReadonlyArray<Entry> | null) =>
    SecurityDescriptor.exposure(descriptorOf(owner, entries), sidOf(me))

  it("K14: what this user has alone, beside the system and its administrators, is safe", () => {
    assert.strictEqual(SecurityDescriptor.sidText(sidOf(me)), me)
    for (const owner of [me, "S-1-5-32-544", "S-1-5-18"]) {
      assert.isUndefined(exposure(owner, [{ sid: me }, { sid: "S-1-5-18" }, { sid: "S-1-5-32-544" }]))
    }
    assert.isUndefined(exposure(me, []), "nobody may")
    // Denied, without a right, for what will be made in it, and for whoever the owner is.
    const harmless = [
      { sid: "S-1-1-0", kind: 1 },
      { sid: "S-1-1-0", mask: 0 },
      { sid: "S-1-3-0", flags: 0xb },
      { sid: "S-1-3-4" }
    ]
    assert.isUndefined(exposure(me, [...harmless, { sid: me }]))
    const own = SecurityDescriptor.onlyFor(sidOf(me), { inherited: true })
    assert.isUndefined(SecurityDescriptor.exposure(own, sidOf(me)))
    assert.strictEqual(own.readUInt8(29), 3, "also what will be in it")
  })

  it("K14: what others may open is not, whatever kind the entry is", () => {
    assert.match(exposure(me, null)!, /by everybody/)
    assert.match(exposure("S-1-5-21-1-2-3-1002", [{ sid: me }])!, /another user \(S-1-5-21-1-2-3-1002\)/)
    assert.match(exposure(me, [{ sid: me }, { sid: "S-1-1-0", flags: 0xb }])!, /S-1-1-0/, "what will be in it")
    for (const kind of [0, 9]) {
      assert.match(exposure(me, [{ sid: me }, { sid: "S-1-5-32-545", kind, mask: 1 }])!, /others \(S-1-5-32-545\)/)
    }
    assert.match(SecurityDescriptor.exposure(SecurityDescriptor.onlyFor(sidOf("S-1-1-0")), sidOf(me))!, /S-1-1-0/)
  })
})
