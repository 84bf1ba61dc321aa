/**
 * Windows without native code: Node's child_process starts, and taskkill ends what still hangs together. What a parent
 * that has gone has left behind is not found, and what leaders have started outlives this host's death, so this engine
 * promises level `group`, and only to those who allow it.
 */
import type { Report } from "@treeline/core/Containment"
import type { Engine, EngineTree, LaunchRequest, Pipe, SignalReport } from "@treeline/core/Engine"
import { ContainmentUnavailable, LaunchError } from "@treeline/core/Errors"
import * as ExitStatus from "@treeline/core/ExitStatus"
import { isPid, type ProcessInfo } from "@treeline/core/ProcessIdentity"
import * as NodeNetwork from "@treeline/platform-node/NodeNetwork"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as child_process from "node:child_process"
import type { Socket } from "node:net"
import { win32 as path } from "node:path"
import * as Commands from "./internal/Commands.ts"
import * as ExitCode from "./internal/ExitCode.ts"
import type { Options } from "./internal/Options.ts"
import * as Pipes from "./internal/Pipes.ts"

const clock = Clock.Clock.defaultValue()

const nobody: SignalReport = { delivered: 0, denied: [] }

/** How long taskkill may take, in ms. */
const taskkillLimit = 5_000

/**
 * Ends a process and what its living descendants are; otherwise why taskkill did not. It knows a pid only, which is
 * another's if the process ends meanwhile and its number is given out again.
 */
const taskkill = (pid: number): Promise<string | undefined> =>
  new Promise((resolve) => {
    const program = path.join(Commands.systemDirectory(), "taskkill.exe")
    const options = { windowsHide: true, timeout: taskkillLimit }
    child_process.execFile(
      program,
      ["/T", "/F", "/PID", String(pid)],
      options,
      (error) => resolve(error === null ? undefined : `taskkill failed (${error.code ?? "timed out"})`)
    )
  })

const treeOf = (
  child: child_process.ChildProcess,
  pid: number,
  command: string,
  request: LaunchRequest
): EngineTree => {
  const exited = Deferred.makeUnsafe<ExitStatus.ExitStatus>()
  const pipes = new Map<number, Pipe>()
  const sockets: Array<Socket> = []
  let ended = false
  let killed = false
  child.on("error", () => {}) // a failed kill; the outcome is read elsewhere
  child.once("exit", (code, signal) => {
    ended = true
    const status = code !== null
      ? ExitCode.toStatus(code, false)
      : signal !== null
      ? ExitStatus.signaled("SIGKILL")
      : ExitStatus.unknown
    // taskkill ends a process with code 1.
    Deferred.doneUnsafe(exited, Effect.succeed(killed && code === 1 ? ExitStatus.signaled("SIGKILL") : status))
  })
  for (const [fd, descriptor] of request.stdio.entries()) {
    const socket = child.stdio[fd] as Socket | null | undefined
    if (descriptor._tag !== "pipe" || socket === null || socket === undefined) continue
    sockets.push(socket)
    pipes.set(fd, Pipes.pipeOf(socket, fd, descriptor.direction))
  }
  const leader: ProcessInfo = {
    pid,
    parent: process.pid,
    group: pid,
    session: 0,
    startTime: "",
    state: "R",
    alive: true,
    command: path.basename(command)
  }
  const members = Effect.sync(() => ended ? [] : [leader])
  const killLeader = (): SignalReport => {
    if (ended) return nobody
    killed = true
    return child.kill("SIGKILL") ? { delivered: 1, denied: [] } : { delivered: 0, denied: [leader] }
  }
  return {
    identity: { pid, startTime: "", boot: "" },
    level: "group",
    pipes,
    exited: Deferred.await(exited),
    awaitEmpty: Effect.asVoid(Deferred.await(exited)),
    members,
    usage: Effect.sync(() => ({ processes: ended ? 0 : 1, memory: 0, cpu: 0 })),
    // What Node calls a signal ends the process here, so only the one that says so is sent.
    signal: (name) => Effect.sync(() => name === "SIGKILL" ? killLeader() : nobody),
    requestClose: Effect.succeed(false),
    kill: (cap) =>
      Effect.gen(function*() {
        if (ended) return []
        killed = true
        const problem = yield* Effect.promise(() => taskkill(pid))
        if (problem !== undefined && !ended) {
          yield* Effect.logWarning(`${problem}: only the first process of the tree is ended`)
          killLeader()
        }
        yield* Effect.raceFirst(Deferred.await(exited), clock.sleep(Duration.millis(cap)))
        return yield* members
      }),
    setReferenced: (referenced) =>
      Effect.sync(() => {
        const change = referenced ? "ref" : "unref"
        child[change]()
        for (const socket of sockets) socket[change]()
      }),
    release: Effect.void
  }
}

const exists = (pid: number): boolean => {
  if (!isPid(pid)) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** The engine; `reason` says why there are no job objects. */
export const make = (options: Options, reason: string): Engine => {
  const allowed = options.withoutJobs === "group"
  const report: Report = {
    platform: "win32 (without native code)",
    level: "group",
    highest: "group",
    mechanisms: [
      { name: "job object", available: false, detail: reason },
      {
        name: "taskkill",
        available: true,
        detail: allowed ? "ends what still hangs together" : "only for launches that require no more than \"group\""
      }
    ],
    raise: `there are no job objects here: ${reason}`
  }

  const spawn = (request: LaunchRequest): Effect.Effect<EngineTree, LaunchError | ContainmentUnavailable> =>
    Effect.gen(function*() {
      if ((!allowed && request.require !== "group") || request.limits !== undefined) {
        return yield* new ContainmentUnavailable({
          required: request.require ?? "sealed",
          available: "group",
          reason:
            `${reason}; without job objects a tree can only be promised level "group", which has to be allowed: withoutJobs`
        })
      }
      const command = yield* Effect.fromResult(Commands.resolve(request, {
        env: process.env,
        directory: process.cwd(),
        systemDirectory: Commands.systemDirectory()
      }))
      return yield* Effect.callback<EngineTree, LaunchError>((resume) => {
        const fail = (error: NodeJS.ErrnoException) =>
          resume(Effect.fail(
            new LaunchError({
              command: Commands.nameOf(request),
              reason: error.code === "ENOENT" ? "NotFound" : error.code === "EACCES" ? "PermissionDenied" : "Unknown",
              detail: error.code ?? "the system refused"
            })
          ))
        try {
          // The command line is complete: its first word is the program's name, the rest is passed as it is.
          const [first = "", ...rest] = splitName(command.commandLine)
          const child = child_process.spawn(command.file, rest, {
            argv0: first,
            cwd: command.cwd,
            env: command.env,
            stdio: request.stdio.map((descriptor) => descriptor._tag),
            windowsHide: request.windowsHide,
            windowsVerbatimArguments: true
          })
          if (child.pid === undefined) child.once("error", fail)
          else resume(Effect.succeed(treeOf(child, child.pid, command.file, request)))
        } catch (error) {
          fail(error as NodeJS.ErrnoException)
        }
      })
    })

  return {
    report: Effect.succeed(report),
    clock: Effect.succeed(clock),
    spawn,
    find: () => Effect.succeed(Option.none()),
    // Without a start time a pid says little: a living one may be anybody's.
    identify: (pid) => Effect.sync(() => exists(pid) ? Option.some({ pid, startTime: "", boot: "" }) : Option.none()),
    standing: ({ pid }) => Effect.sync(() => exists(pid) ? "Unsure" : "Gone"),
    signalProcess: ({ pid }) => Effect.sync(() => exists(pid) ? "Denied" : "Gone"),
    processes: Effect.succeed([]),
    network: NodeNetwork.make(undefined)
  }
}

/** The quoted or plain first word of a command line, and what follows it. */
const splitName = (commandLine: string): ReadonlyArray<string> => {
  const [, name = "", rest] = /^("[^"]*"|\S+)(?: (.*))?$/s.exec(commandLine) ?? []
  return rest === undefined ? [name] : [name, rest]
}
