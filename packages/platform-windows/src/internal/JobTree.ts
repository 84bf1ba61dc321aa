/** One tree in its job. */
import type { EngineTree, SignalReport } from "@treeline/core/Engine"
import type { ExitStatus } from "@treeline/core/ExitStatus"
import * as ExitStatuses from "@treeline/core/ExitStatus"
import type { ProcessIdentity, ProcessInfo } from "@treeline/core/ProcessIdentity"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as ChildProcess from "effect/process/ChildProcess"
import type { ConsoleControl, Event } from "./ConsoleControl.ts"
import * as ExitCode from "./ExitCode.ts"
import type { Job, Means } from "./Job.ts"
import * as Kernel32 from "./Kernel32.ts"
import type { Console, Launched } from "./Launch.ts"
import * as Windows from "./Windows.ts"

/** What the signals of POSIX are here. All others have no meaning and are delivered to nobody. */
const events: Partial<Record<ChildProcess.Signal, Event>> = {
  SIGTERM: "break",
  SIGBREAK: "break",
  SIGINT: "interrupt"
}

const nobody: SignalReport = { delivered: 0, denied: [] }
const one: SignalReport = { delivered: 1, denied: [] }

const clock = Clock.Clock.defaultValue()

/** How often a kill is repeated while something of the tree still lives, in ms. */
const killAgain = 50

/** What a tree is made of. */
export interface Parts {
  readonly means: Means
  readonly job: Job
  readonly launched: Launched
  readonly console: Console
  readonly consoleControl: ConsoleControl
}

/** Undefined when the system has no room for one more wait, so that the end of the leader could not be seen. */
export const make = ({ console, consoleControl, job, launched, means }: Parts): EngineTree | undefined => {
  const { keepAlive, kernel, processes, waits } = means
  const { pid, process } = launched
  const identity: ProcessIdentity = { pid, startTime: String(processes.timesOf(process)?.created ?? ""), boot: "" }
  const exited = Deferred.makeUnsafe<ExitStatus>()
  let ended = false
  let killed = false
  let referenced = true
  let released = false

  /** The leader has ended. */
  const settle = () => {
    if (ended) return
    ended = true
    stopWaiting?.()
    if (referenced) keepAlive.unreference()
    const code = processes.exitCode(process)
    Deferred.doneUnsafe(
      exited,
      Effect.succeed(code === undefined ? ExitStatuses.unknown : ExitCode.toStatus(code, killed))
    )
  }
  const stopWaiting = waits.add(process, settle)
  if (stopWaiting === undefined) return undefined
  // A wait alone does not keep the host's event loop alive.
  keepAlive.reference()

  /** Whoever learns that the tree is empty must find its leader ended, though the wait may not have told it yet. */
  const observe = () => {
    if (!ended && !released && !processes.isAlive(process)) settle()
  }

  const awaitEmpty = Effect.callback<void>((resume) => {
    keepAlive.reference()
    let waiting = true
    const done = () => {
      if (waiting) keepAlive.unreference()
      waiting = false
    }
    const cancel = job.onEmpty(() => {
      done()
      observe()
      resume(Effect.void)
    })
    return Effect.sync(() => {
      cancel()
      done()
    })
  })

  const members = Effect.sync(() => {
    observe()
    return job.members(pid)
  })

  /** Ends everything; a process that the kernel is about to end is a member until it has gone. */
  const kill = (cap: number): Effect.Effect<ReadonlyArray<ProcessInfo>> =>
    Effect.gen(function*() {
      const endsAt = performance.now() + cap
      while (true) {
        killed = true
        job.terminate()
        const rest = Math.max(0, Math.min(killAgain, endsAt - performance.now()))
        const empty = yield* Effect.raceFirst(
          Effect.as(awaitEmpty, true),
          Effect.as(clock.sleep(Duration.millis(rest)), false)
        )
        if (empty) return []
        if (performance.now() >= endsAt) return yield* members
      }
    })

  const leaderFirst = (pids: ReadonlyArray<number>): ReadonlyArray<number> =>
    pids.includes(pid) ? [pid, ...pids.filter((other) => other !== pid)] : pids

  /** To the consoles of the living members; the leader's first, which is mostly the only one. */
  const send = (event: Event, wanted?: Pick<ProcessInfo, "pid" | "startTime">): Effect.Effect<SignalReport> =>
    // A console that is the host's too can't be given an event without the host.
    console === "own" || console === "visible"
      ? Effect.map(
        Effect.promise(() => {
          // The helper knows a console by a pid only, and has the request also when nobody waits for the answer any more.
          const { pids, release } = job.hold(wanted)
          return consoleControl.send(event, leaderFirst(pids)).finally(release)
        }),
        (delivered) => ({ delivered, denied: [] })
      )
      : Effect.succeed(nobody)

  const terminateLeader = (): SignalReport => {
    if (ended) return nobody
    killed = true
    return kernel.TerminateProcess(process, ExitCode.killed) === 0 ? nobody : one
  }

  const terminateMember = (target: ProcessInfo): SignalReport => {
    if (target.pid === pid) return terminateLeader()
    const outcome = processes.withSame(
      target,
      Kernel32.PROCESS_TERMINATE | Kernel32.PROCESS_QUERY_INFORMATION,
      (handle) => job.has(handle) && kernel.TerminateProcess(handle, ExitCode.killed) !== 0
    )
    if (outcome !== undefined) return outcome ? one : nobody
    // It may have ended, or be somebody's whom this host may only look at.
    return processes.find({ ...target, boot: "" }) === undefined ? nobody : { delivered: 0, denied: [target] }
  }

  const signal: EngineTree["signal"] = (name, target) =>
    Effect.suspend(() => {
      if (released) return Effect.succeed(nobody)
      if (name === "SIGKILL") {
        if (typeof target !== "string") return Effect.succeed(terminateMember(target))
        if (target === "leader") return Effect.succeed(terminateLeader())
        killed = true
        return Effect.succeed(!job.isEmpty && job.terminate() ? one : nobody)
      }
      const event = events[name]
      if (event === undefined) return Effect.succeed(nobody)
      if (typeof target !== "string") return send(event, target)
      return target === "leader" ? send(event, identity) : send(event)
    })

  return {
    identity,
    level: "sealed",
    pipes: launched.pipes,
    exited: Deferred.await(exited),
    awaitEmpty,
    members,
    usage: Effect.sync(() => job.usage()),
    signal,
    requestClose: Effect.sync(() => {
      // Windows are known by pids only.
      const { pids, release } = job.hold()
      try {
        return Windows.requestClose(kernel, new Set(pids))
      } finally {
        release()
      }
    }),
    kill,
    setReferenced: (next) =>
      Effect.sync(() => {
        if (next === referenced || released) return
        const problem = job.setKillOnClose(next)
        // The tree would end with this host although it was let go, or outlive it although it was taken back.
        if (problem !== undefined) throw new Error(problem.detail)
        referenced = next
        for (const socket of launched.sockets) socket[next ? "ref" : "unref"]()
        if (!ended) keepAlive[next ? "reference" : "unreference"]()
      }),
    release: Effect.sync(() => {
      if (released) return
      released = true
      if (!ended) {
        stopWaiting()
        if (referenced) keepAlive.unreference()
      }
      kernel.CloseHandle(process)
      job.close()
    })
  }
}
