import { assert, describe, it } from "@effect/vitest"
import * as SecurityDescriptor from "../../packages/platform-node/src/internal/SecurityDescriptor.ts"
import * as EnvironmentBlock from "../../packages/platform-windows/src/internal/EnvironmentBlock.ts"
import * as Executable from "../../packages/platform-windows/src/internal/Executable.ts"
import * as ExitCode from "../../packages/platform-windows/src/internal/ExitCode.ts"
import * as Structs from "../../packages/platform-windows/src/internal/Structs.ts"

/** Files by their path in lower case: the first two bytes, or a directory. */
const filesOf = (entries: Record<string, string | { readonly directory: true }>): Executable.Files => ({
  kind: (file) => {
    const entry = entries[file.toLowerCase()]
    return entry === undefined ? "missing" : typeof entry === "string" ? "file" : "directory"
  },
  head: (file) => {
    const entry = entries[file.toLowerCase()]
    return typeof entry === "string" ? entry : ""
  }
})

const files = filesOf({
  "c:\\bin\\node.exe": "MZ",
  "c:\\bin\\npm": "#!",
  "c:\\bin\\npm.cmd": "@e",
  "c:\\bin\\tool.v2.exe": "MZ",
  "c:\\bin\\only.js": "#!",
  "c:\\quoted;dir\\here.exe": "MZ",
  "d:\\work\\local.exe": "MZ",
  "d:\\work\\run.sh": "#!",
  "d:\\work\\script": "#!",
  "d:\\work\\image": "MZ",
  "d:\\work\\notes.txt": "he",
  "d:\\work\\task.ps1": "pa",
  "d:\\work\\x.bat": "@e",
  "d:\\work\\x.bat. .": "@e",
  "d:\\work\\folder": { directory: true }
})

const env = { Path: "C:\\bin;;\"C:\\quoted;dir\"" }

const resolve = (command: string, environment: EnvironmentBlock.Environment = env) =>
  Executable.resolve(command, "D:\\work", environment, files)

describe("Executable", () => {
  it("a name is looked up in the PATH of the child, in any case, with the extensions that can be run", () => {
    assert.deepStrictEqual(resolve("node"), { _tag: "Image", file: "C:\\bin\\node.exe" })
    assert.deepStrictEqual(resolve("node.exe"), { _tag: "Image", file: "C:\\bin\\node.exe" })
    assert.deepStrictEqual(resolve("tool.v2"), { _tag: "Image", file: "C:\\bin\\tool.v2.exe" })
    assert.deepStrictEqual(resolve("here"), { _tag: "Image", file: "C:\\quoted;dir\\here.exe" })
  })

  it("beside a script for other systems the batch file is taken", () => {
    assert.deepStrictEqual(resolve("npm"), { _tag: "Batch", file: "C:\\bin\\npm.cmd" })
    assert.deepStrictEqual(resolve("npm", { ...env, PATHEXT: ".EXE;.CMD" }), {
      _tag: "Batch",
      file: "C:\\bin\\npm.cmd"
    })
  })

  it("the working directory is not searched for a bare name", () => {
    const outcome = resolve("local")
    assert.strictEqual(outcome._tag === "Failed" ? outcome.reason : outcome._tag, "NotFound")
    assert.deepStrictEqual(resolve(".\\local"), { _tag: "Image", file: "D:\\work\\local.exe" })
    assert.deepStrictEqual(resolve("./local"), { _tag: "Image", file: "D:\\work\\local.exe" })
    assert.deepStrictEqual(resolve("D:local"), { _tag: "Image", file: "D:\\work\\local.exe" })
  })

  it("peer 65: what is no program is refused with a reason and a hint", () => {
    const reasons: Record<string, readonly [string, RegExp]> = {
      "nothing": ["NotFound", /not in the PATH/],
      ".\\nothing": ["NotFound", /does not exist/],
      "only.js": ["NotExecutable", /interpreter, such as "node"/],
      ".\\task.ps1": ["NotExecutable", /powershell/],
      ".\\run.sh": ["NotExecutable", /bash/],
      ".\\script": ["NotExecutable", /"#!"/],
      ".\\notes.txt": ["NotExecutable", /not a program/],
      ".\\folder": ["PermissionDenied", /directory/],
      "x.bat::$DATA": ["InvalidArgument", /character/],
      "a\"b": ["InvalidArgument", /character/]
    }
    for (const [command, [reason, detail]] of Object.entries(reasons)) {
      const outcome = resolve(command)
      assert.strictEqual(outcome._tag === "Failed" ? outcome.reason : outcome._tag, reason, command)
      if (outcome._tag === "Failed") assert.match(outcome.detail, detail)
    }
  })

  it("an image needs no extension, a batch file never passes for one (CVE-2024-43402)", () => {
    assert.deepStrictEqual(resolve(".\\image"), { _tag: "Image", file: "D:\\work\\image" })
    assert.strictEqual(resolve(".\\x.bat")._tag, "Batch")
    assert.strictEqual(resolve(".\\x.bat. .")._tag, "Batch")
  })

  it("peer 65: errors of the system have reasons", () => {
    const reasons: Record<number, string> = {
      2: "NotFound",
      5: "PermissionDenied",
      193: "NotExecutable",
      206: "InvalidArgument",
      267: "BadWorkingDirectory",
      1450: "ResourceExhausted",
      1453: "ResourceExhausted",
      1455: "ResourceExhausted",
      9999: "Unknown"
    }
    for (const [code, reason] of Object.entries(reasons)) {
      assert.strictEqual(Executable.reasonOf(Number(code)).reason, reason)
    }
  })
})

describe("EnvironmentBlock", () => {
  it("a name in another case is the same variable", () => {
    const merged = EnvironmentBlock.merge({ Path: "a", Other: "1", gone: "x" }, { PATH: "b", GONE: undefined })
    assert.deepStrictEqual(merged, { Other: "1", PATH: "b" })
    assert.strictEqual(EnvironmentBlock.get({ Path: "a" }, "PATH"), "a")
  })

  it("is sorted by the name in upper case and ends with two NULs", () => {
    const block = EnvironmentBlock.encode({ b: "2", A: "1", _z: "ü", C: "", a: "9" })
    assert.strictEqual(block.toString("utf16le"), "a=9\0b=2\0C=\0_z=ü\0\0")
    assert.strictEqual(EnvironmentBlock.encode({}).toString("utf16le"), "\0\0")
  })

  it("what the system needs is added, unless it was removed on purpose", () => {
    const host = { SystemRoot: "C:\\Windows", TEMP: "T", USERNAME: "u", OTHER: "o" }
    assert.deepStrictEqual(EnvironmentBlock.withRequired({ temp: "mine" }, host, { UserName: undefined }), {
      temp: "mine",
      SYSTEMROOT: "C:\\Windows"
    })
  })
})

describe("ExitCode", () => {
  const status = (code: number, killed = false) => ExitCode.toStatus(code, killed)

  it("peer 68: NTSTATUS values are no exit codes", () => {
    for (const ntstatus of [0xc000013a, 0xc0000005, 0xc0000409, 0xe0434352, 0xe06d7363]) {
      assert.deepStrictEqual(status(ntstatus), { _tag: "Terminated", ntstatus })
    }
  })

  it("everything else is one, also -1", () => {
    for (const code of [0, 1, 255, 256, 259, 0x8000_0003, 0xffff_ffff]) {
      assert.deepStrictEqual(status(code), { _tag: "Exited", code })
    }
  })

  it("a kill by this host is told from everything else", () => {
    assert.deepStrictEqual(status(ExitCode.killed, true), { _tag: "Signaled", signal: "SIGKILL" })
    assert.deepStrictEqual(status(ExitCode.killed), { _tag: "Terminated", ntstatus: ExitCode.killed })
    assert.deepStrictEqual(status(7, true), { _tag: "Exited", code: 7 }, "it ended before the kill reached it")
  })
})

describe("Structs", () => {
  it("STARTUPINFOEXW", () => {
    const info = Structs.startupInfo({
      std: [0x11, 0x22, 0x33n],
      descriptors: { address: 0x1234_5678_9abcn, size: 40 },
      attributes: 0xdef0n
    })
    assert.strictEqual(info.length, 112)
    assert.strictEqual(info.readUInt32LE(0), 112)
    assert.strictEqual(info.readUInt32LE(60), 0x100)
    assert.strictEqual(info.readUInt16LE(66), 40)
    assert.strictEqual(info.readBigUInt64LE(72), 0x1234_5678_9abcn)
    assert.deepStrictEqual([80, 88, 96, 104].map((at) => Number(info.readBigUInt64LE(at))), [0x11, 0x22, 0x33, 0xdef0])
  })

  it("the table of descriptors", () => {
    const table = Structs.descriptorTable([{ handle: 5, flags: 9 }, { handle: 0x1_0000_0000n, flags: 0x41 }])
    assert.strictEqual(table.length, 4 + 2 * 9)
    assert.strictEqual(table.readUInt32LE(0), 2)
    assert.deepStrictEqual([...table.subarray(4, 6)], [9, 0x41])
    assert.deepStrictEqual([table.readBigUInt64LE(6), table.readBigUInt64LE(14)], [5n, 0x1_0000_0000n])
  })

  it("a descriptor of rights for one account", () => {
    // S-1-5-21-1-2-3-1001
    const sid = Buffer.alloc(28)
    sid.set([1, 5, 0, 0, 0, 0, 0, 5])
    for (const [index, part] of [21, 1, 2, 3, 1001].entries()) sid.writeUInt32LE(part, 8 + 4 * index)
    const user = Buffer.alloc(256)
    sid.copy(user, 16)
    assert.deepStrictEqual(SecurityDescriptor.userSid(user), sid)

    const descriptor = SecurityDescriptor.onlyFor(sid)
    assert.strictEqual(descriptor.readUInt8(0), 1, "revision")
    assert.strictEqual(descriptor.readUInt16LE(2), 0x9004, "self-relative, protected, with a list")
    assert.deepStrictEqual([4, 8, 12, 16].map((at) => descriptor.readUInt32LE(at)), [0, 0, 0, 20])
    const list = descriptor.subarray(20)
    assert.deepStrictEqual([list.readUInt8(0), list.readUInt16LE(2), list.readUInt16LE(4)], [2, 44, 1])
    const entry = list.subarray(8)
    assert.deepStrictEqual([entry.readUInt8(0), entry.readUInt8(1), entry.readUInt16LE(2)], [0, 0, 36])
    assert.strictEqual(entry.readUInt32LE(4), 0x1f_01ff)
    assert.deepStrictEqual(entry.subarray(8), sid)

    const attributes = SecurityDescriptor.securityAttributes(0x1234n)
    assert.deepStrictEqual(
      [attributes.readUInt32LE(0), attributes.readBigUInt64LE(8), attributes.readUInt32LE(16)],
      [24, 0x1234n, 0]
    )
  })

  it("a job ends with its handle, and nothing may break away", () => {
    const limits = Structs.extendedLimits({ killOnClose: true, limits: {} })
    assert.strictEqual(limits.length, 144)
    assert.deepStrictEqual(Structs.readExtendedLimits(limits), { flags: 0x2400, processes: 0, memory: 0n })
    assert.strictEqual(
      Structs.readExtendedLimits(Structs.extendedLimits({ killOnClose: false, limits: {} })).flags,
      0x400
    )
  })

  it("limits are in the bytes that are sent", () => {
    const limits = Structs.extendedLimits({ killOnClose: true, limits: { memory: 6e9, processes: 12 } })
    assert.deepStrictEqual(Structs.readExtendedLimits(limits), { flags: 0x2608, processes: 12, memory: 6_000_000_000n })
    const half = Structs.cpuRate(0.5, 4)
    assert.deepStrictEqual([half.readUInt32LE(0), half.readUInt32LE(4)], [5, 1250])
    assert.strictEqual(Structs.cpuRate(9, 4).readUInt32LE(4), 10_000)
    assert.strictEqual(Structs.cpuRate(0.000_001, 64).readUInt32LE(4), 1)
  })

  it("what jobs and processes tell is read at its place", () => {
    const list = Buffer.alloc(Structs.pidListSize(3))
    list.writeUInt32LE(5, 0)
    list.writeUInt32LE(3, 4)
    for (const [index, pid] of [8, 12, 400].entries()) list.writeBigUInt64LE(BigInt(pid), 8 + 8 * index)
    assert.deepStrictEqual(Structs.pidList(list), { assigned: 5, pids: [8, 12, 400] })
    const counts = Buffer.alloc(Structs.accountingSize)
    counts.writeBigUInt64LE(15_000n, 0)
    counts.writeBigUInt64LE(5_000n, 8)
    counts.writeUInt32LE(2, 40)
    assert.deepStrictEqual(Structs.accounting(counts), { cpu: 2, active: 2 })
    const entry = Buffer.alloc(Structs.processEntrySize)
    entry.writeUInt32LE(44, 8)
    entry.writeUInt32LE(8, 32)
    Structs.utf16("node.exe").copy(entry, 44)
    assert.deepStrictEqual(Structs.processEntry(entry), { pid: 44, parent: 8, name: "node.exe" })
  })

  it("handles are 8 bytes each", () => {
    assert.strictEqual(
      Structs.handleArray([1, 0xffff_ffff_ffff_ffffn]).toString("hex"),
      "0100000000000000ffffffffffffffff"
    )
  })
})
