/**
 * The engine that runs wherever Node runs on POSIX: Node's own child_process underneath, a session of its own for each
 * child, and everything that the system offers to find a tree's processes again.
 *
 * It is the engine of macOS, the BSDs, of Workers, and of Linux without native code.
 */
import type { Level, Report } from "@treeline/core/Containment"
import type { Engine, EngineTree, LaunchRequest, Pipe, SignalReport } from "@treeline/core/Engine"
import { LaunchError } from "@treeline/core/Errors"
import * as ExitStatus from "@treeline/core/ExitStatus"
import type { ProcessIdentity, ProcessInfo } from "@treeline/core/ProcessIdentity"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as child_process from "node:child_process"
import type { Socket } from "node:net"
import { type Entry, toInfo } from "./internal/Entry.ts"
import * as Executable from "./internal/Executable.ts"
import { Guardian, sweepOrphaned } from "./internal/Guardian.ts"
import * as HostRecord from "./internal/HostRecord.ts"
import * as Mark from "./internal/Mark.ts"
import * as NodePipes from "./internal/NodePipes.ts"
import * as Numbers from "./internal/Numbers.ts"
import * as ProcTable from "./internal/ProcTable.ts"
import * as PsTable from "./internal/PsTable.ts"
import * as Signals from "./internal/Signals.ts"
import * as Tag from "./internal/Tag.ts"
import * as Tagging from "./internal/Tagging.ts"
import { type TableKind, type Watched, Watcher } from "./internal/Watcher.ts"

/** What can be chosen; everything has a default. */
export interface Options {
  /** How long the trees of a host that died have between SIGTERM and SIGKILL, in ms. Default 500. */
  readonly hostDeathGrace?: number | undefined
  /** The shell of the guardian and of `shell: true`. Default `/bin/sh`. */
  readonly shell?: string | undefined
  /** Where processes are looked up. Default: /proc where it is Linux's, else `ps`. */
  readonly table?: TableKind | undefined
  /** Whether the unclearable tag is used where it can be. Default true. */
  readonly tag?: boolean | undefined
  /** Whether trees that a killed host and guardian left behind are ended at the start. Default true. */
  readonly sweepOrphaned?: boolean | undefined
}

type Env = Record<string, string | undefined>

/** Node's description of one descriptor. */
const stdioOption = (
  descriptor: LaunchRequest["stdio"][number]
): child_process.StdioNull | child_process.StdioPipe | "inherit" => descriptor._tag

const environmentOf = (request: LaunchRequest): Env => {
  const env: Env = request.extendEnv ? { ...process.env } : {}
  for (const [name, value] of Object.entries(request.env)) {
    if (value === undefined) delete env[name]
    else env[name] = value
  }
  return env
}

/** Starts the engine; its guardian ends with the scope. */
export const make = Effect.fn("PortableEngine.make")(function*(
  options: Options = {}
): Effect.fn.Return<Engine, never, Scope.Scope> {
  const shell = options.shell ?? "/bin/sh"
  const kind: TableKind = options.table ?? (ProcTable.isAvailable() ? "proc" : "ps")
  const ownStat = kind === "proc" ? ProcTable.readStat(process.pid) : undefined
  const host: Tag.TagHost = {
    pid: process.pid,
    start: ownStat?.start ?? Math.floor((Date.now() - process.uptime() * 1000) / 1000)
  }
  const boot = ProcTable.bootId()
  const tagger = options.tag === false || kind !== "proc" ? undefined : Tagging.detect(shell)
  const outerMark = process.env[Mark.variable]
  const watcher = new Watcher(host, kind)
  const instance = Numbers.instance()
  const guardian = new Guardian({
    shell,
    host,
    tagged: tagger !== undefined,
    grace: options.hostDeathGrace ?? 500,
    openRecord: () => HostRecord.HostRecord.open(host, instance)
  })
  yield* Effect.addFinalizer(() => Effect.sync(() => guardian.close()))

  if (options.sweepOrphaned !== false && kind === "proc") {
    // A zombie is dead: where process 1 does not reap, a killed guardian stays one.
    const records = HostRecord.orphaned((pid) => {
      const stat = ProcTable.readStat(pid)
      return stat !== undefined && ProcTable.isAlive(stat) ? stat.start : undefined
    })
    if (records.length > 0) yield* Effect.promise(() => sweepOrphaned(records, options.hostDeathGrace ?? 500))
  }

  const marksReadable = kind === "proc" ? true : yield* Effect.promise(PsTable.showsEnvironment)
  // macOS shows the environment of the user's programs, but of none that came with the system, so it promises nothing.
  const marked = marksReadable && process.platform !== "darwin"
  const level: Level = tagger !== undefined ? "tagged" : marked ? "marked" : "group"

  const report: Effect.Effect<Report> = Effect.sync(() => {
    return {
      platform: `${process.platform} (portable engine)`,
      level,
      mechanisms: [
        { name: "session", available: true, detail: "each child leads a session and process group of its own" },
        { name: "guardian", available: true, detail: `${shell} ends every tree when the host has gone` },
        {
          name: "process table",
          available: true,
          detail: kind === "proc" ? "/proc" : "one call of ps for each look"
        },
        {
          name: "mark",
          available: marksReadable,
          detail: marksReadable
            ? `${Mark.variable} in the environment of every process of a tree`
            : "this system does not show the environment of other processes"
        },
        tagger === undefined
          ? {
            name: "tag",
            available: false,
            detail: kind === "proc"
              ? "RLIMIT_LOCKS can't be set here (a lowered hard limit, or a sandbox)"
              : "RLIMIT_LOCKS exists on Linux only"
          }
          : { name: "tag", available: true, detail: `RLIMIT_LOCKS, set by ${tagger.name}` }
      ],
      raise: level === "tagged"
        ? "\"sealed\" needs the kernel's own containers (cgroup v2, pid namespace), which this engine does not use"
        : level === "marked"
        ? "\"tagged\" needs a settable RLIMIT_LOCKS (setrlimit(2)) and prlimit or a shell"
        : "higher levels need Linux; on this system the process group is what the kernel offers"
    }
  })

  const spawn = (request: LaunchRequest): Effect.Effect<EngineTree, LaunchError> =>
    Effect.suspend(() => {
      const name = request.shell === false ? request.command : "shell"
      const fail = (reason: LaunchError["reason"], detail: string) =>
        Effect.fail(new LaunchError({ command: name, reason, detail }))

      if (request.cwd !== undefined) {
        const problem = Executable.checkDirectory(request.cwd)
        if (problem?._tag === "Failed") return fail(problem.reason, problem.detail)
      }
      const env = environmentOf(request)
      const file = request.shell === false
        ? request.command
        : typeof request.shell === "string"
        ? request.shell
        : shell
      const args = request.shell === false ? request.args : ["-c", request.command]
      const resolution = Executable.resolve(file, request.cwd ?? process.cwd(), env["PATH"])
      if (resolution._tag === "Failed") return fail(resolution.reason, resolution.detail)

      const tree = Numbers.take()
      if (tree === undefined) return fail("ResourceExhausted", "too many living trees in one process")
      guardian.ensure()
      env[Mark.variable] = Mark.extend(outerMark, { hostPid: host.pid, hostStart: host.start, tree })
      const tagged = tagger?.wrap(Tag.encode(host, tree), file, args, env) ?? { file, args }
      const ownSession = request.session === "own"
      const failed = (error: NodeJS.ErrnoException) => {
        Numbers.giveBack(tree)
        // What Node says of its arguments may quote them.
        const detail = error.code?.startsWith("ERR_") === true
          ? "an argument or option can't be used"
          : error.code ?? "unknown"
        return fail(Executable.reasonOf(error.code), detail)
      }

      let child: child_process.ChildProcess
      try {
        child = child_process.spawn(tagged.file, tagged.args, {
          cwd: request.cwd,
          env,
          detached: ownSession,
          stdio: request.stdio.map(stdioOption)
        })
      } catch (error) {
        return failed(error as NodeJS.ErrnoException)
      }
      if (child.pid === undefined) {
        return Effect.callback<never, NodeJS.ErrnoException>((resume) => {
          child.once("error", (error) => resume(Effect.fail(error)))
        }).pipe(Effect.catch(failed))
      }
      return Effect.succeed(treeOf(child, child.pid, tree, request))
    })

  const treeOf = (
    child: child_process.ChildProcess,
    pid: number,
    number: number,
    request: LaunchRequest
  ): EngineTree => {
    const ownSession = request.session === "own"
    // Nothing has been reaped since the spawn: this is the child, living or not.
    const start = kind === "proc"
      ? ProcTable.readStat(pid)?.start ?? 0
      : Math.floor(Date.now() / 1000)
    const watched: Watched = { tree: number, leader: { pid, start }, ownSession, leaderGone: false }
    watcher.attribution.add(watched)
    const guarded = ownSession ? watched.leader : undefined
    guardian.started(number, guarded)
    const exited = Deferred.makeUnsafe<ExitStatus.ExitStatus>()
    child.once("exit", (code, signal) => {
      watched.leaderGone = true
      watcher.hurry()
      Deferred.doneUnsafe(
        exited,
        Effect.succeed(
          code !== null ? ExitStatus.exited(code) : signal !== null ? ExitStatus.signaled(signal) : ExitStatus.unknown
        )
      )
    })
    child.on("error", () => {}) // a failed kill or message; the outcome is read elsewhere

    const pipes = new Map<number, Pipe>()
    const sockets: Array<Socket> = []
    for (const [fd, descriptor] of request.stdio.entries()) {
      const socket = child.stdio[fd] as Socket | null | undefined
      if (descriptor._tag !== "pipe" || socket === null || socket === undefined) continue
      const { direction } = descriptor
      // A duplex descriptor stays writable after the child has closed its side.
      if (direction === "duplex") socket.allowHalfOpen = true
      sockets.push(socket)
      pipes.set(fd, {
        reader: direction === "write" ? undefined : NodePipes.reader(socket, fd),
        writer: direction === "read" ? undefined : NodePipes.writer(socket, fd)
      })
    }

    const members: Effect.Effect<ReadonlyArray<Entry>> = Effect.promise(() => watcher.members(watched))
    const infos = Effect.map(members, (entries) => entries.map(toInfo))

    const count = (outcomes: ReadonlyArray<readonly [Entry | undefined, Signals.Outcome]>): SignalReport => ({
      delivered: outcomes.filter(([, outcome]) => outcome === "sent").length,
      denied: outcomes.flatMap(([entry, outcome]) => outcome === "denied" && entry !== undefined ? [toInfo(entry)] : [])
    })

    const signalGroup = (signal: NodeJS.Signals) => (entries: ReadonlyArray<Entry>): SignalReport => {
      if (!watcher.ownsGroup(watched, entries)) return count([])
      const outcome = Signals.sendToGroup(pid, signal)
      if (outcome !== "denied") return count([[undefined, outcome]])
      // One member that the host may not signal, or only zombies (macOS): ask each one.
      return count(
        entries.filter((entry) => entry.group === pid).map((entry) =>
          [entry, Signals.sendTo(entry.pid, signal)] as const
        )
      )
    }

    const signal: EngineTree["signal"] = (signal, target) => {
      const name: NodeJS.Signals = signal
      if (typeof target !== "string") {
        return Effect.sync(() => {
          const known = { pid: target.pid, start: Number(target.startTime) }
          return count([[
            undefined,
            kind === "proc" ? Signals.sendVerified(known, name) : Signals.sendTo(known.pid, name)
          ]])
        })
      }
      if (target === "leader" || (target === "group" && !ownSession)) {
        return Effect.sync(() => count(watched.leaderGone ? [] : [[undefined, Signals.sendTo(pid, name)]]))
      }
      if (target === "group") {
        return Effect.suspend(() => {
          if (!watched.leaderGone) {
            const outcome = Signals.sendToGroup(pid, name)
            if (outcome !== "denied") return Effect.succeed(count([[undefined, outcome]]))
          }
          // Whose the number is, or who may not be signalled, is told by the table.
          return Effect.map(members, signalGroup(name))
        })
      }
      return Effect.map(members, (entries) => {
        const group = ownSession ? signalGroup(name)(entries) : count([])
        const others = entries.filter((entry) => !ownSession || entry.group !== pid)
        const rest = count(others.map((entry) => [entry, Signals.sendTo(entry.pid, name)] as const))
        return { delivered: group.delivered + rest.delivered, denied: [...group.denied, ...rest.denied] }
      })
    }

    return {
      identity: { pid, startTime: String(start), boot },
      level,
      pipes,
      exited: Deferred.await(exited),
      awaitEmpty: Effect.callback<void>((resume) => {
        const stop = watcher.onEmpty(watched, () => resume(Effect.void))
        return Effect.sync(stop)
      }),
      members: infos,
      signal,
      requestClose: Effect.succeed(false),
      kill: (cap) => Effect.map(Effect.promise(() => watcher.kill(watched, cap)), (entries) => entries.map(toInfo)),
      setReferenced: (referenced) =>
        Effect.sync(() => {
          const change = referenced ? "ref" : "unref"
          child[change]()
          for (const socket of sockets) socket[change]()
          if (referenced) guardian.takenBack(number, guarded)
          else guardian.released(number)
        }),
      release: Effect.sync(() => {
        watcher.attribution.delete(watched)
        guardian.ended(number)
        Numbers.giveBack(number)
        child.removeAllListeners("exit")
      })
    }
  }

  const processes: Effect.Effect<ReadonlyArray<ProcessInfo>> = Effect.promise(async () => {
    if (kind === "ps") return (await PsTable.read()).map(toInfo)
    const entries: Array<ProcessInfo> = []
    ProcTable.scan({ since: 0, foreign: new Set() }, (entry) => {
      entries.push(toInfo(entry))
      return true
    })
    return entries
  })

  const find = (identity: ProcessIdentity): Effect.Effect<Option.Option<ProcessInfo>> => {
    if (identity.boot !== boot) return Effect.succeed(Option.none())
    const same = (info: ProcessInfo) =>
      info.pid === identity.pid && info.alive &&
      Math.abs(Number(info.startTime) - Number(identity.startTime)) <= (kind === "proc" ? 0 : 2)
    if (kind === "proc") {
      return Effect.sync(() => {
        const stat = ProcTable.readStat(identity.pid)
        return Option.filter(
          Option.map(Option.fromUndefinedOr(stat), (stat) => toInfo(ProcTable.entryOf(stat))),
          same
        )
      })
    }
    return Effect.map(processes, (infos) => Option.fromUndefinedOr(infos.find(same)))
  }

  return {
    report,
    // The live clock, also under TestClock: real processes take real time.
    clock: Effect.succeed(Clock.Clock.defaultValue()),
    spawn,
    find,
    processes
  }
})
