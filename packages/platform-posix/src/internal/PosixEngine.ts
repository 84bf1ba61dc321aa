/**
 * What every engine of a POSIX system does alike: finds the program, numbers and marks the tree, registers it with the
 * guardian, signals it, and gives everything back. Starting a process is a launcher's work, finding it a watcher's.
 */
import { atLeast, type Level, type Report } from "@treeline/core/Containment"
import type { Engine, EngineTree, LaunchRequest, SignalReport } from "@treeline/core/Engine"
import { ContainmentUnavailable, LaunchError } from "@treeline/core/Errors"
import type * as ExitStatus from "@treeline/core/ExitStatus"
import { isPid, judge, type ProcessIdentity, type ProcessInfo, type Standing } from "@treeline/core/ProcessIdentity"
import * as NodeNetwork from "@treeline/platform-node/NodeNetwork"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type Entry, toInfo } from "./Entry.ts"
import * as Environment from "./Environment.ts"
import * as Executable from "./Executable.ts"
import type { Guardian } from "./Guardian.ts"
import type { Launched, Launcher, Program } from "./Launcher.ts"
import * as Leftovers from "./Leftovers.ts"
import * as Listeners from "./Listeners.ts"
import * as Mark from "./Mark.ts"
import * as Numbers from "./Numbers.ts"
import * as ProcTable from "./ProcTable.ts"
import { type Seal, type Sealer, SealProblem } from "./Seal.ts"
import * as Signals from "./Signals.ts"
import * as Tag from "./Tag.ts"
import type { Watched, Watcher } from "./Watcher.ts"

/** The parts of an engine. */
export interface Parts {
  readonly host: Tag.TagHost
  readonly shell: string
  readonly launcher: Launcher
  readonly watcher: Watcher
  readonly guardian: Guardian
  /** The level of an ordinary launch. */
  readonly level: Level
  /** What holds a tree by the kernel, or why nothing does; asked when a launch needs it, and by `report`. */
  readonly sealer: () => Sealer | SealProblem
  readonly report: () => Report
}

/** A tree that has just been launched. */
interface Started {
  readonly tree: EngineTree
  readonly hasEnded: () => boolean
}

/** The host's working directory; it may have been removed. */
const currentDirectory = (): string => {
  try {
    return process.cwd()
  } catch {
    return "/"
  }
}

/** The program that a request means: the command itself, or a shell with a script. */
const programOf = (request: LaunchRequest, shell: string) =>
  request.shell === false
    ? { name: request.command, args: request.args, shown: request.command }
    : { name: request.shell === true ? shell : request.shell, args: ["-c", request.command], shown: "shell" }

/** What Node calls its first thread, and so its process, since version 23; for people it is the program. */
const nodeThread = "MainThread"

/** How often a kernel's container is looked at while its end is awaited, in ms. */
const sealPoll = 5

/** How often, and how long at most, a launch waits until its leader is inside the seal, in ms. */
const entryPoll = 1
const entryLimit = 5000

/** How long the end of one that is not is awaited, in ms. */
const killLimit = 1000

/** How often the members of a container are looked for that is not empty and shows none. */
const sealLooks = 10

/** How long the kernel may take to stop everything in a group, in ms. */
const freezeLimit = 1000

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** The engine from its parts. */
export const make = (parts: Parts): Engine => {
  const { guardian, host, launcher, shell, watcher } = parts
  const { table } = watcher
  const boot = ProcTable.bootId()
  const outerMark = process.env[Mark.variable]

  /** A launch needs a seal by its level, or because limits are the kernel's to keep. */
  const needsSeal = (request: LaunchRequest): boolean =>
    request.limits !== undefined || (request.require !== undefined && !atLeast(parts.level, request.require))

  const sealOf = (request: LaunchRequest, number: number): Seal | SealProblem => {
    const sealer = parts.sealer()
    return sealer instanceof SealProblem ? sealer : sealer.seal(number, request.limits ?? {})
  }

  const spawn = (request: LaunchRequest): Effect.Effect<EngineTree, LaunchError | ContainmentUnavailable> =>
    Effect.suspend((): Effect.Effect<EngineTree, LaunchError | ContainmentUnavailable> => {
      const { args, name, shown } = programOf(request, shell)
      const fail = (reason: LaunchError["reason"], detail: string) =>
        Effect.fail(new LaunchError({ command: shown, reason, detail }))

      if (request.cwd !== undefined) {
        const problem = Executable.checkDirectory(request.cwd)
        if (problem?._tag === "Failed") return fail(problem.reason, problem.detail)
      }
      const sealed = needsSeal(request)
      const directory = request.cwd ?? currentDirectory()
      const searchPath = Environment.get({ inherits: request.extendEnv, changes: request.env }, "PATH")
      const found = (sealed ? Executable.resolve : launcher.find)(name, directory, searchPath)
      if (found._tag === "Failed") return fail(found.reason, found.detail)
      const number = Numbers.take()
      if (number === undefined) return fail("ResourceExhausted", "too many living trees in one process")
      const seal = sealed ? sealOf(request, number) : undefined
      if (seal instanceof SealProblem) {
        Numbers.giveBack(number)
        return Effect.fail(
          new ContainmentUnavailable({ required: "sealed", available: parts.level, reason: seal.detail })
        )
      }
      guardian.ensure()
      const mark = Mark.extend(outerMark, { hostPid: host.pid, hostStart: host.start, tree: number })
      const program: Program = {
        name,
        file: found.file,
        args,
        env: { inherits: request.extendEnv, changes: { ...request.env, [Mark.variable]: mark } },
        cwd: request.cwd,
        stdio: request.stdio,
        ownSession: request.session === "own",
        tag: launcher.tagging === undefined ? undefined : Tag.encode(host, number)
      }
      const start = (
        program: Program,
        last: boolean
      ): Effect.Effect<EngineTree, LaunchError | ContainmentUnavailable> => {
        // A fiber may be sent to another turn of the event loop between any two operations, so this is one.
        const outcome = launcher.launch(seal?.wrap(program) ?? program)
        if ("pid" in outcome) {
          const started = treeOf(outcome, number, program.ownSession, seal)
          return seal?.entered === undefined ? Effect.succeed(started.tree) : inside(started, seal)
        }
        return outcome.pipe(Effect.catch(({ code }) => {
          // A look at the file often tells more than the error code.
          const looked = Executable.resolve(name, directory, searchPath)
          // The system has refused the first file of this name, and a later one in the PATH can be run (exec(3p)).
          if (!last && looked._tag === "Found" && !Executable.isSame(looked.file, program.file)) {
            return start({ ...program, file: looked.file }, true)
          }
          seal?.remove()
          Numbers.giveBack(number)
          if (looked._tag === "Failed") return fail(looked.reason, looked.detail)
          // What Node says of its arguments may quote them.
          const detail = code?.startsWith("ERR_") === true ? "an argument or option can't be used" : code ?? "unknown"
          return fail(Executable.reasonOf(code), detail)
        }))
      }
      return start(program, false)
    })

  /** A tree that did not get into its seal is none: what was to run there has not been run. */
  const inside = ({ hasEnded, tree }: Started, seal: Seal): Effect.Effect<EngineTree, ContainmentUnavailable> =>
    Effect.gen(function*() {
      const endsAt = performance.now() + entryLimit
      const isIn = yield* Effect.promise(async () => {
        for (;;) {
          // Asked before, because it may enter and end between two questions.
          const over = hasEnded() || performance.now() >= endsAt
          if (seal.entered?.() === true) return true
          if (over) return false
          await pause(entryPoll)
        }
      })
      if (isIn) return tree
      yield* tree.kill(killLimit)
      for (const pipe of tree.pipes.values()) {
        pipe.reader?.close()
        pipe.writer?.close()
      }
      yield* tree.release
      const reason = "the tree's process could not be moved into its control group"
      return yield* new ContainmentUnavailable({ required: "sealed", available: parts.level, reason })
    })

  const treeOf = (
    launched: Launched,
    number: number,
    ownSession: boolean,
    seal: Seal | undefined
  ): Started => {
    const { pid } = launched
    // Nothing has been reaped since the spawn: this is the child, living or not.
    const leader = { pid, start: table.startOf(pid) }
    const watched: Watched = { tree: number, leader, ownSession, ended: false, reaped: false }
    watcher.attribution.add(watched)
    const guarded = ownSession ? leader : undefined
    guardian.started(number, guarded)

    let settled = false
    /** Nothing of the tree lives: nobody has to look for it any more. */
    const settle = () => {
      if (settled) return
      settled = true
      launched.reap()
      watched.reaped = true
      watcher.attribution.delete(watched)
      seal?.remove()
      guardian.ended(number)
      Numbers.giveBack(number)
    }

    const exited = Deferred.makeUnsafe<ExitStatus.ExitStatus>()
    launched.onExit((status, held) => {
      watched.ended = true
      watched.reaped = !held
      Deferred.doneUnsafe(exited, Effect.succeed(status))
      watcher.hurry(watched)
    })

    /** Living processes that only the seal still holds: they have shaken off everything else. */
    const onlySealed = async (found: ReadonlyArray<Entry>): Promise<ReadonlyArray<Entry>> => {
      const known = new Set(found.map((entry) => entry.pid))
      const entries: Array<Entry> = []
      // Who forks or changes groups may be missed by one look.
      for (let looks = 0; looks < sealLooks && seal?.populated() === true; looks++) {
        if (looks > 0) await pause(sealPoll)
        for (const pid of seal.pids()) {
          const entry = known.has(pid) ? undefined : await table.find(pid)
          if (entry?.alive === true) entries.push(entry)
        }
        if (found.length > 0 || entries.length > 0) break
      }
      return entries
    }

    /** While the kernel knows of somebody inside, the tree is not empty: the leader stands for whom no look has found. */
    const unseen = (): ReadonlyArray<Entry> =>
      seal?.populated() === true
        ? [{
          ...leader,
          parent: 0,
          group: pid,
          session: pid,
          state: "?",
          alive: true,
          command: "",
          tag: undefined,
          mark: []
        }]
        : []

    const withSealed = async (found: ReadonlyArray<Entry>): Promise<ReadonlyArray<Entry>> => {
      const entries = [...found, ...await onlySealed(found)]
      return entries.length > 0 ? entries : unseen()
    }

    /** What was found of the tree, with what only the seal holds. */
    const allOf = async (found: ReadonlyArray<Entry>): Promise<ReadonlyArray<Entry>> => {
      const entries = seal === undefined ? found : await withSealed(found)
      if (watched.ended && entries.length === 0) settle()
      return entries
    }

    const isEmpty = (): boolean => {
      if (!settled && seal === undefined && watcher.isEmptyExactly(watched) === true) settle()
      return settled
    }

    const look = Effect.promise(async (): Promise<ReadonlyArray<Entry>> => {
      return allOf(await watcher.members(watched))
    })

    const members = Effect.suspend(() => isEmpty() ? Effect.succeed<ReadonlyArray<Entry>>([]) : look)

    const kill = async (cap: number): Promise<ReadonlyArray<Entry>> => {
      if (settled) return []
      const endsAt = performance.now() + cap
      seal?.kill()
      const entries = await watcher.kill(watched, cap)
      while (seal?.populated() === true && performance.now() < endsAt) {
        seal.kill()
        await pause(sealPoll)
      }
      return allOf(entries)
    }

    const awaitEmpty = Effect.callback<void>((resume) => {
      if (settled) return resume(Effect.void)
      const stop = watcher.onEmpty(watched, () => resume(Effect.void))
      return Effect.sync(stop)
    }).pipe(
      Effect.andThen(Effect.promise(async (signal) => {
        while (seal?.populated() === true && !signal.aborted) await pause(sealPoll)
        if (!signal.aborted) settle()
      }))
    )

    const freeze = (frozen: boolean) =>
      Effect.promise(async () => {
        seal?.setFrozen?.(frozen)
        const endsAt = performance.now() + freezeLimit
        while (seal?.isFrozen?.() !== frozen && seal?.populated() === true && performance.now() < endsAt) {
          await pause(sealPoll)
        }
      })

    const count = (outcomes: ReadonlyArray<readonly [Entry | undefined, Signals.Outcome]>): SignalReport => ({
      delivered: outcomes.filter(([, outcome]) => outcome === "sent").length,
      denied: outcomes.flatMap(([entry, outcome]) => outcome === "denied" && entry !== undefined ? [toInfo(entry)] : [])
    })

    const signalGroup = (signal: NodeJS.Signals) => (entries: ReadonlyArray<Entry>): SignalReport => {
      if (settled || !watcher.ownsGroup(watched, entries)) return count([])
      const outcome = Signals.sendToGroup(pid, signal)
      if (outcome !== "denied") return count([[undefined, outcome]])
      // One member that the host may not signal, or only zombies (macOS): ask each one.
      const inGroup = entries.filter((entry) => entry.group === pid)
      return count(inGroup.map((entry) => [entry, Signals.sendTo(entry.pid, signal)] as const))
    }

    const signal: EngineTree["signal"] = (signal, target) => {
      const name: NodeJS.Signals = signal
      if (typeof target !== "string") {
        return Effect.sync(() =>
          count(
            table.isSame(target.pid, Number(target.startTime)) ? [[undefined, Signals.sendTo(target.pid, name)]] : []
          )
        )
      }
      if (target === "leader" || (target === "group" && !ownSession)) {
        return Effect.sync(() => count(watched.ended ? [] : [[undefined, Signals.sendTo(pid, name)]]))
      }
      if (target === "group") {
        return Effect.suspend(() => {
          if (!watched.reaped) {
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

    const tree: EngineTree = {
      identity: { pid, startTime: String(leader.start), boot },
      level: seal === undefined ? parts.level : "sealed",
      pipes: launched.pipes,
      exited: Deferred.await(exited),
      awaitEmpty,
      members: Effect.map(members, (entries) => entries.map(toInfo)),
      signal,
      requestClose: Effect.succeed(false),
      kill: (cap) => Effect.map(Effect.promise(() => kill(cap)), (entries) => entries.map(toInfo)),
      usage: Effect.flatMap(members, (entries) =>
        Effect.promise(async () => {
          const living = await table.usageOf(entries.map((entry) => entry.pid))
          const counted = seal?.usage()
          return {
            processes: entries.length,
            memory: counted?.memory ?? living.memory,
            cpu: counted?.cpu ?? living.cpu
          }
        })),
      setReferenced: (referenced) =>
        Effect.sync(() => {
          launched.setReferenced(referenced)
          if (settled) return
          if (referenced) guardian.takenBack(number, guarded)
          else guardian.released(number)
        }),
      setFrozen: seal?.setFrozen === undefined ? undefined : freeze,
      release: Effect.sync(settle),
      releaseWhenEmpty: watcher.adopts ? Effect.sync(() => void watcher.onEmpty(watched, settle)) : undefined
    }
    return { tree, hasEnded: () => watched.ended }
  }

  const processes: Effect.Effect<ReadonlyArray<ProcessInfo>> = Effect.promise(async () => {
    const entries: Array<ProcessInfo> = []
    await table.scan({ since: 0, foreign: new Set() }, (entry) => {
      const command = entry.command === nodeThread ? ProcTable.programOf(entry.pid) ?? entry.command : entry.command
      return entries.push({ ...toInfo(entry), command }) > 0
    })
    return entries
  })

  const find = (identity: ProcessIdentity): Effect.Effect<Option.Option<ProcessInfo>> =>
    Effect.promise(async () => {
      const entry = identity.boot === boot ? await table.find(identity.pid) : undefined
      return entry !== undefined && entry.alive &&
          Math.abs(entry.start - Number(identity.startTime)) <= table.tolerance
        ? Option.some(toInfo(entry))
        : Option.none()
    })

  const hostOf = ({ pid, startTime }: ProcessIdentity) => ({ pid, start: Number(startTime) })

  const identityOf = ({ pid, start }: Entry): ProcessIdentity => ({ pid, startTime: String(start), boot })

  /** A table that can't be read says nothing. */
  const entryOf = (pid: number): Effect.Effect<Entry | undefined> =>
    Effect.promise(async () => {
      try {
        return isPid(pid) ? await table.find(pid) : undefined
      } catch {
        return undefined
      }
    })

  const standing = (identity: ProcessIdentity): Effect.Effect<Standing> =>
    Effect.map(entryOf(identity.pid), (entry) =>
      judge(identity, {
        found: entry === undefined ? undefined : { identity: identityOf(entry), alive: entry.alive },
        exists: isPid(identity.pid) && Signals.exists(identity.pid),
        boot,
        tolerance: table.tolerance
      }))

  return {
    report: Effect.sync(parts.report),
    // The live clock, also under TestClock: real processes take real time.
    clock: Effect.succeed(Clock.Clock.defaultValue()),
    spawn,
    find,
    identify: (pid) =>
      Effect.map(entryOf(pid), (entry) => entry === undefined ? Option.none() : Option.some(identityOf(entry))),
    standing,
    signalProcess: (identity, signal) =>
      Effect.map(standing(identity), (standing) => {
        if (standing !== "Alive") return standing === "Gone" ? "Gone" : "Denied"
        const outcome = Signals.sendTo(identity.pid, signal)
        return outcome === "sent" ? "Sent" : outcome === "gone" ? "Gone" : "Denied"
      }),
    processes,
    endLeftovers: ProcTable.isAvailable() ? Leftovers.end : undefined,
    leftoversOf: ProcTable.isAvailable()
      ? (host) => Effect.sync(() => host.boot === boot ? Leftovers.of(hostOf(host)).map(toInfo) : [])
      : undefined,
    network: NodeNetwork.make(Listeners.make())
  }
}
