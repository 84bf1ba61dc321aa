/**
 * The engine of Linux: native launches, orphans adopted and reaped, and a tag that no descendant shakes off.
 *
 * It calls the C library through koffi, an optional dependency. Without it, in a Worker, or where the tag can't be set,
 * there is no such engine and the portable one takes over.
 */
import type { Report } from "@treeline/core/Containment"
import type { Engine } from "@treeline/core/Engine"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { isMainThread } from "node:worker_threads"
import * as Base from "./internal/Base.ts"
import type { Guardian } from "./internal/Guardian.ts"
import * as Mark from "./internal/Mark.ts"
import type { Options } from "./internal/Options.ts"
import * as PosixEngine from "./internal/PosixEngine.ts"
import * as ProcTable from "./internal/ProcTable.ts"
import { type Sealer, SealProblem } from "./internal/Seal.ts"
import type { TagHost } from "./internal/Tag.ts"
import { Watcher } from "./internal/Watcher.ts"
import { HostGroup } from "./linux/Cgroup.ts"
import * as Libc from "./linux/Libc.ts"
import * as NativeLauncher from "./linux/NativeLauncher.ts"
import * as NativeTable from "./linux/NativeTable.ts"
import * as PidNamespace from "./linux/PidNamespace.ts"
import { Reaper } from "./linux/Reaper.ts"
import * as Subreaper from "./linux/Subreaper.ts"

/** Why the engine can't be had here; undefined when it can. */
export const unavailable = (): string | undefined => {
  if (process.platform !== "linux") return "it is for Linux"
  if (!isMainThread) return "a Worker sees no SIGCHLD"
  if (!ProcTable.isAvailable()) return "there is no /proc"
  const libc = Libc.load()
  if (libc instanceof Error) return `koffi could not be loaded: ${libc.message.split("\n", 1)[0]}`
  if (!Reaper.isAvailable()) return "the kernel does not list children (CONFIG_PROC_CHILDREN)"
  if (!Subreaper.isAvailable(libc)) return "prctl(2) refuses PR_SET_CHILD_SUBREAPER"
  return canTag(libc) ? undefined : "RLIMIT_LOCKS can't be set"
}

/** Sets the tag on this process, reads it back, and restores what was there. */
const canTag = (libc: Libc.Libc): boolean => {
  const before = new BigUint64Array(2)
  const after = new BigUint64Array(2)
  if (libc.prlimit(0, Libc.RLIMIT_LOCKS, null, before) !== 0) return false
  const probe = new BigUint64Array([7_999_999_999_990_000_001n, before[1]!])
  const set = libc.prlimit(0, Libc.RLIMIT_LOCKS, probe, null) === 0
  libc.prlimit(0, Libc.RLIMIT_LOCKS, null, after)
  libc.prlimit(0, Libc.RLIMIT_LOCKS, before, null)
  return set && after[0] === probe[0]
}

const reportOf = (guardian: Guardian, sealer: Sealer | SealProblem): Report => {
  const sealed = !(sealer instanceof SealProblem)
  const report: Report = {
    platform: "linux (native engine)",
    level: "tagged",
    highest: sealed ? "sealed" : "tagged",
    mechanisms: [
      { name: "session", available: true, detail: "each child leads a session and process group of its own" },
      guardian.mechanism,
      { name: "process table", available: true, detail: "/proc and prlimit(2)" },
      { name: "mark", available: true, detail: `${Mark.variable} in the environment of every process of a tree` },
      { name: "tag", available: true, detail: "RLIMIT_LOCKS, set by setrlimit(2)" },
      { name: "native launch", available: true, detail: "posix_spawn(3) through koffi" },
      { name: "subreaper", available: true, detail: "orphans come to the host and are reaped" },
      {
        name: "seal",
        available: sealed,
        detail: sealed ? `${sealer.name}, for launches that require "sealed" or have limits` : sealer.detail
      }
    ]
  }
  return {
    ...report,
    raise: sealed
      ? "require \"sealed\" at a launch that needs it; it costs about two milliseconds"
      : "\"sealed\" needs a cgroup v2 group that this user may make groups in (root, systemd with Delegate=yes) or namespaces"
  }
}

/** What seals: as asked, or the first that can be had; with the reasons of all when none can. */
const sealerOf = (wanted: Options["seal"], host: TagHost, instance: number): Sealer | SealProblem => {
  const group = wanted === "pid-namespace" ? undefined : HostGroup.make(host, instance)
  if (group !== undefined && (!(group instanceof SealProblem) || wanted === "cgroup")) return group
  const namespace = PidNamespace.make()
  return namespace instanceof SealProblem && group !== undefined
    ? new SealProblem(`${group.detail}; ${namespace.detail}`)
    : namespace
}

/** The engine, where `unavailable` has nothing to say against it; its guardian ends with the scope. */
export const make = (options: Options): Effect.Effect<Engine, never, Scope.Scope> =>
  Effect.gen(function*() {
    const libc = Libc.load()
    if (libc instanceof Error) return yield* Effect.die(libc)
    const { guardian, host, instance, shell } = yield* Base.make(options, { linux: true, tagged: true })
    const table = NativeTable.make(libc)
    const attribution = Watcher.attribution(host, table)
    const reaper = new Reaper(libc, host, attribution, (tree) => watcher.hurry(tree))
    const watcher: Watcher = new Watcher(table, attribution, reaper)
    let sealer: Sealer | SealProblem | undefined = undefined
    const getSealer = (): Sealer | SealProblem => {
      if (sealer === undefined) {
        sealer = sealerOf(options.seal, host, instance)
        if (!(sealer instanceof SealProblem) && sealer.folder !== undefined) guardian.sealedIn(sealer.folder)
      }
      return sealer
    }
    yield* Effect.addFinalizer(() =>
      Effect.promise(async () => {
        if (sealer !== undefined && !(sealer instanceof SealProblem)) await sealer.remove()
      })
    )
    yield* Effect.acquireRelease(Effect.sync(() => reaper.start()), () => Effect.sync(() => reaper.stop()))
    return PosixEngine.make({
      host,
      shell,
      guardian,
      launcher: NativeLauncher.make(libc, reaper),
      watcher,
      level: "tagged",
      sealer: getSealer,
      report: () => reportOf(guardian, getSealer())
    })
  })
