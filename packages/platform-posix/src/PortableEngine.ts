/**
 * The engine that runs wherever Node runs on POSIX: Node's own child_process underneath, a session of its own for each
 * child, and everything that the system offers to find a tree's processes again.
 *
 * It is the engine of macOS, the BSDs, of Workers, and of Linux without native code.
 */
import type { Level, Mechanism, Report } from "@treeline/core/Containment"
import type { Engine } from "@treeline/core/Engine"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Base from "./internal/Base.ts"
import type { Guardian } from "./internal/Guardian.ts"
import * as Mark from "./internal/Mark.ts"
import * as NodeLauncher from "./internal/NodeLauncher.ts"
import type { Options } from "./internal/Options.ts"
import * as PosixEngine from "./internal/PosixEngine.ts"
import * as ProcTable from "./internal/ProcTable.ts"
import * as PsTable from "./internal/PsTable.ts"
import { SealProblem } from "./internal/Seal.ts"
import * as Table from "./internal/Table.ts"
import * as Tagging from "./internal/Tagging.ts"
import { Watcher } from "./internal/Watcher.ts"

const raise: Readonly<Record<Level, string>> = {
  group: "higher levels need Linux; on this system the process group is what the kernel offers",
  marked: "\"tagged\" needs a settable RLIMIT_LOCKS (setrlimit(2)) and prlimit or a shell",
  tagged: "\"sealed\" needs the kernel's own containers (cgroup v2, pid namespace), which this engine does not use",
  sealed: ""
}

const reportOf = (parts: {
  readonly level: Level
  readonly guardian: Guardian
  readonly table: Table.Table
  readonly marksReadable: boolean
  readonly tagger: string | undefined
  readonly whyNotNative: string
}): Report => {
  const mark: Mechanism = {
    name: "mark",
    available: parts.marksReadable,
    detail: parts.marksReadable
      ? `${Mark.variable} in the environment of every process of a tree`
      : "this system does not show the environment of other processes"
  }
  const tag: Mechanism = parts.tagger !== undefined
    ? { name: "tag", available: true, detail: `RLIMIT_LOCKS, set by ${parts.tagger}` }
    : {
      name: "tag",
      available: false,
      detail: parts.table === Table.proc
        ? "RLIMIT_LOCKS can't be set here (a lowered hard limit, a sandbox, or switched off)"
        : "RLIMIT_LOCKS exists on Linux only"
    }
  return {
    platform: `${process.platform} (portable engine)`,
    level: parts.level,
    highest: parts.level,
    mechanisms: [
      { name: "session", available: true, detail: "each child leads a session and process group of its own" },
      parts.guardian.mechanism,
      { name: "process table", available: true, detail: parts.table.name },
      mark,
      tag,
      { name: "native launch", available: false, detail: parts.whyNotNative }
    ],
    raise: raise[parts.level]
  }
}

/** Starts the engine; its guardian ends with the scope. */
export const make = Effect.fn("PortableEngine.make")(function*(
  options: Options = {},
  whyNotNative = "the portable engine was asked for"
): Effect.fn.Return<Engine, never, Scope.Scope> {
  const table = (options.table ?? (ProcTable.isAvailable() ? "proc" : "ps")) === "proc" ? Table.proc : Table.ps
  const linux = table === Table.proc
  const tagger = options.tag === false || !linux ? undefined : Tagging.detect(options.shell ?? "/bin/sh")
  const marksReadable = linux || (yield* Effect.promise(PsTable.showsEnvironment))
  const { guardian, host, shell } = yield* Base.make(options, { linux, tagged: tagger !== undefined })
  // macOS shows the environment of the user's programs, but of none that came with the system, so it promises nothing.
  const marked = marksReadable && process.platform !== "darwin"
  const level: Level = tagger !== undefined ? "tagged" : marked ? "marked" : "group"
  return PosixEngine.make({
    host,
    shell,
    guardian,
    launcher: NodeLauncher.make(tagger),
    watcher: new Watcher(table, Watcher.attribution(host, table), undefined),
    level,
    sealer: () => new SealProblem("the portable engine has no part in the kernel's own containers"),
    report: () => reportOf({ level, guardian, table, marksReadable, tagger: tagger?.name, whyNotNative })
  })
})
