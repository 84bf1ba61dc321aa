/**
 * An operating system in memory, on the Effect Clock: processes, groups and sessions, signals and traps, pipes, orphans,
 * zombies and reused pids. Under `TestClock` hours pass in no time, and everything happens in the same order each time.
 *
 * What runs on it are programs written as data (`Program`). Faults of the system are switched on and off in passing:
 * launches that fail, ends that take their time, processes that may not be signalled or do not end at all. The guide is
 * docs/test-lifecycles.md.
 *
 * @example
 * ```ts
 * import { ProcessPlatform } from "@treeline/core"
 * import { Program, SimulatedPlatform } from "@treeline/core/testing"
 * import { Effect } from "effect"
 * import { TestClock } from "effect/testing"
 * import { deepStrictEqual } from "node:assert"
 *
 * const stubborn = Program.make(Program.ignore("SIGTERM"), Program.fork(Program.endure), Program.endure)
 *
 * const program = Effect.gen(function*() {
 *   const platform = yield* ProcessPlatform.ProcessPlatform
 *   const tree = yield* platform.launch(SimulatedPlatform.command(stubborn))
 *   yield* Effect.forkChild(tree.shutdown())
 *   yield* TestClock.adjust("5 seconds")
 *   return yield* tree.exited
 * })
 * const layer = SimulatedPlatform.layer()
 * const status = await Effect.runPromise(
 *   program.pipe(Effect.scoped, Effect.provide(layer), Effect.provide(TestClock.layer()))
 * )
 * deepStrictEqual(status, { _tag: "Signaled", signal: "SIGKILL" })
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as ChildProcess from "effect/process/ChildProcess"
import type * as Scope from "effect/Scope"
import type { Level } from "../Containment.ts"
import type { LaunchRequest } from "../Engine.ts"
import type { LaunchReason } from "../Errors.ts"
import { describe } from "../ExitStatus.ts"
import type { ProcessInfo } from "../ProcessIdentity.ts"
import * as ProcessPlatform from "../ProcessPlatform.ts"
import { carried } from "./internal/command.ts"
import { Kernel, type KernelEvent, toInfo } from "./internal/Kernel.ts"
import type { Launch, Process } from "./internal/Process.ts"
import { random } from "./internal/Seed.ts"
import { type HostEngine, type Invocation, make as makeEngine, type Switches } from "./internal/SimulatedEngine.ts"
import { decodeAll } from "./internal/Text.ts"
import { Timers } from "./internal/Timers.ts"
import type { Program } from "./Program.ts"

export { command, type CommandOptions } from "./internal/command.ts"
export { programs } from "./internal/simulatedPrograms.ts"
export type { Invocation, KernelEvent as Event }

/** Faults that can be switched while the system runs. */
export interface Faults {
  /** ms that a launch takes. */
  readonly spawnTime: number
  /** ms from an exit or a deadly signal to the end of a process, where its program does not say. */
  readonly exitDelay: number
  /** ms until the host learns that a process has ended, as when notifications are lost and a poll finds it. */
  readonly noticeDelay: number
  /** The probability, 0 to 1, with which a launch fails for a reason drawn by the seed. */
  readonly launchFailureRate: number
  /** Why a launch fails, by the name of the program; takes a function too. */
  readonly launchFailures:
    | Readonly<Record<string, LaunchReason | undefined>>
    | ((request: LaunchRequest) => LaunchReason | undefined)
}

/** The system that is simulated. All are optional; the defaults are those of an ordinary Linux without faults. */
export interface Options extends Partial<Faults> {
  /** The level of an ordinary launch. Default: `tagged`. At `group` a daemon is not found, at `sealed` everything is. */
  readonly level?: Level | undefined
  /** The highest level that a launch can require. Default: `level`. */
  readonly highest?: Level | undefined
  /** Programs by the name of the executable; a function gets arguments, environment and directory. */
  readonly programs?: Readonly<Record<string, Program | ((invocation: Invocation) => Program)>> | undefined
  /** The host's environment. Default: empty. */
  readonly env?: Readonly<Record<string, string>> | undefined
  /** Directories that exist. Default: `/` and `/tmp`. */
  readonly directories?: ReadonlyArray<string> | undefined
  /** Whether pid 1 reaps orphans at once. Default: true; a container's often does not. */
  readonly reaps?: boolean | undefined
  /** The highest pid; a small one makes pids come again soon. Default: 32768. */
  readonly pidMax?: number | undefined
  /** Bytes that a pipe holds. Default: 65536. */
  readonly pipeCapacity?: number | undefined
  /** For faults that are drawn. Default: 1. */
  readonly seed?: number | undefined
  /** Events that the journal keeps. Default: 1000. */
  readonly journal?: number | undefined
  /** What a killed host's guardian does: SIGTERM, so many ms, SIGKILL. `none`: nobody. Default: SIGKILL at once. */
  readonly guardian?: { readonly grace: number } | "none" | undefined
  /** By what launches are counted as incarnations of the same thing. Default: the command's name. */
  readonly keyOf?: ((request: LaunchRequest) => string) | undefined
}

/** The other side of the platform: what a test sees and does that the host can't. */
export class Simulation extends Context.Service<Simulation, {
  /** Every entry of the process table, the host, init and zombies included. */
  readonly processes: Effect.Effect<ReadonlyArray<ProcessInfo>>
  /** What lives, but for init and the hosts. Empty when nothing was left. */
  readonly alive: Effect.Effect<ReadonlyArray<ProcessInfo>>
  /** What lives of all that a leader ever brought about, what has escaped its level included. */
  readonly descendants: (leader: number) => Effect.Effect<ReadonlyArray<ProcessInfo>>
  /** Sends a signal as root; false when there is no such process. */
  readonly kill: (pid: number, signal?: ChildProcess.Signal) => Effect.Effect<boolean>
  /** Whether the host may not signal this process (EPERM). */
  readonly protect: (pid: number, value?: boolean) => Effect.Effect<void>
  /** Lets a process hang in the kernel, deaf to SIGKILL, or go on. */
  readonly hang: (pid: number, value?: boolean) => Effect.Effect<void>
  /** Changes faults; what is left out stays. */
  readonly setFaults: (faults: Partial<Faults>) => Effect.Effect<void>
  /** Lets the next launches fail, one for each reason, in this order. */
  readonly failNext: (...reasons: ReadonlyArray<LaunchReason>) => Effect.Effect<void>
  /**
   * The host dies by SIGKILL: its pipes close, the guardian ends its trees as far as their level reaches, and no call of
   * its platform ever returns again, the close of a scope included. So what is to die with the host runs in a detached
   * fiber that nobody waits for.
   */
  readonly killHost: Effect.Effect<void>
  /** Another host process on the same system, with a platform of its own; `killHost` is about the last one. */
  readonly newHost: Effect.Effect<ProcessPlatform.ProcessPlatform["Service"]>
  /** How many launches succeeded. */
  readonly launches: Effect.Effect<number>
  /** The most trees of one key that lived at the same time, escaped processes included. */
  readonly peakIncarnations: (key: string) => Effect.Effect<number>
  /** What happened, the oldest first, at most as much as the journal keeps. */
  readonly journal: Effect.Effect<ReadonlyArray<KernelEvent>>
  /** The same for people: `120 ms  7 worker ended (killed by SIGKILL)`. */
  readonly story: Effect.Effect<string>
  /** Calls back at each event while the scope is open. The callback must not call the platform. */
  readonly onEvent: (listener: (event: KernelEvent) => void) => Effect.Effect<void, never, Scope.Scope>
  /** The last 64 KiB that processes wrote to a descriptor inherited from the host. */
  readonly inherited: (fd: number) => Effect.Effect<string>
}>()("@treeline/core/testing/Simulation") {}

const failureReasons: ReadonlyArray<LaunchReason> = ["NotFound", "PermissionDenied", "ResourceExhausted"]

/** One line of a story. */
export const formatEvent = (event: KernelEvent): string => {
  const detail = event.detail === undefined || typeof event.detail === "string" ? event.detail : describe(event.detail)
  return `${Math.round(event.at * 1000) / 1000} ms  ${event.pid} ${event.command} ${event.what}${
    detail === undefined ? "" : ` (${detail})`
  }`
}

const inheritedBytes = 64 * 1024

const make = (options: Options) =>
  Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const context = yield* Effect.context<never>()
    const kernel = new Kernel(
      {
        pidMax: options.pidMax ?? 32_768,
        pipeCapacity: options.pipeCapacity ?? 65_536,
        reaps: options.reaps ?? true,
        journal: options.journal ?? 1_000
      },
      (after) => new Timers(clock, context, after)
    )
    yield* Effect.addFinalizer(() => kernel.timers.close)

    const draw = random(options.seed ?? 1)
    const failing: Array<LaunchReason> = []
    const switches: Switches = { spawnTime: options.spawnTime ?? 0, noticeDelay: options.noticeDelay ?? 0 }
    let failureRate = options.launchFailureRate ?? 0
    let failures = options.launchFailures ?? {}
    kernel.exitDelay = options.exitDelay ?? 0

    const programs = new Map(Object.entries(options.programs ?? {}))
    const directories = new Set(options.directories ?? ["/", "/tmp"])
    const inherited = new Map<number, Array<Uint8Array>>()
    const keyOf = options.keyOf ?? ((request: LaunchRequest) => request.command)
    let launches = 0
    /** The launches of a key of which something lives. */
    const incarnations = new Map<string, Set<Launch>>()
    const peaks = new Map<string, number>()
    const hosts: Array<HostEngine> = []

    const engineOptions = {
      kernel,
      clock,
      level: options.level ?? "tagged",
      highest: options.highest ?? options.level ?? "tagged",
      env: options.env ?? {},
      hasDirectory: (path: string) => directories.has(path),
      find: (invocation: Invocation): Program | undefined => {
        const program = carried(invocation.args)
        if (program !== undefined) return program
        const found = programs.get(invocation.name)
        return typeof found === "function" ? found(invocation) : found
      },
      fault: (request: LaunchRequest): LaunchReason | undefined => {
        const next = failing.shift()
        if (next !== undefined) return next
        const named = typeof failures === "function" ? failures(request) : failures[request.command]
        if (named !== undefined) return named
        if (failureRate > 0 && draw() < failureRate) return failureReasons[Math.floor(draw() * failureReasons.length)]
        return undefined
      },
      switches,
      inherited: (fd: number, bytes: Uint8Array) => {
        const chunks = inherited.get(fd) ?? []
        inherited.set(fd, chunks)
        chunks.push(bytes)
        let size = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
        while (chunks.length > 1 && size - chunks[0]!.length >= inheritedBytes) size -= chunks.shift()!.length
      },
      onLaunch: (launch: Launch, request: LaunchRequest) => {
        launches++
        const key = keyOf(request)
        const living = incarnations.get(key) ?? new Set()
        incarnations.set(key, living)
        for (const other of living) if (other.living.size === 0) living.delete(other)
        living.add(launch)
        peaks.set(key, Math.max(peaks.get(key) ?? 0, living.size))
      }
    }
    const newHost = () => {
      const host = makeEngine(engineOptions)
      hosts.push(host)
      return ProcessPlatform.make(host.engine)
    }
    const platform = newHost()

    const isHost = (process: Process) => hosts.some(({ host }) => host.process === process)
    const act = <A>(run: () => A): Effect.Effect<A> =>
      Effect.sync(() => {
        const answer = run()
        kernel.settle()
        return answer
      })
    const withProcess = (pid: number, run: (process: Process) => void) => {
      const process = kernel.table.get(pid)
      if (process !== undefined) run(process)
      return process !== undefined
    }
    const journal = Effect.sync(() => kernel.journal.slice(-kernel.options.journal))

    const simulation = Simulation.of({
      processes: Effect.sync(() => [...kernel.table.values()].map(toInfo)),
      alive: Effect.sync(() =>
        [...kernel.table.values()]
          .filter((process) => process.status === undefined && process !== kernel.init && !isHost(process))
          .map(toInfo)
      ),
      descendants: (leader) =>
        Effect.sync(() => {
          const found: Array<ProcessInfo> = []
          for (const process of kernel.table.values()) {
            if (process.launch?.leader.pid === leader && process.status === undefined) found.push(toInfo(process))
          }
          return found
        }),
      kill: (pid, signal = "SIGKILL") => act(() => withProcess(pid, (process) => kernel.send(process, signal, false))),
      protect: (pid, value = true) =>
        act(() => {
          withProcess(pid, (process) => {
            process.protected = value
          })
        }),
      hang: (pid, value = true) =>
        act(() => {
          withProcess(pid, (process) => value ? kernel.hang(process) : kernel.release(process))
        }),
      setFaults: (faults) =>
        Effect.sync(() => {
          switches.spawnTime = faults.spawnTime ?? switches.spawnTime
          switches.noticeDelay = faults.noticeDelay ?? switches.noticeDelay
          kernel.exitDelay = faults.exitDelay ?? kernel.exitDelay
          failureRate = faults.launchFailureRate ?? failureRate
          failures = faults.launchFailures ?? failures
        }),
      failNext: (...reasons) => Effect.sync(() => void failing.push(...reasons)),
      killHost: Effect.sync(() => {
        const { guardian = { grace: 0 } } = options
        hosts.at(-1)!.end(guardian === "none" ? undefined : guardian)
      }),
      newHost: act(newHost),
      launches: Effect.sync(() => launches),
      peakIncarnations: (key) => Effect.sync(() => peaks.get(key) ?? 0),
      journal,
      story: Effect.map(journal, (events) => events.map(formatEvent).join("\n")),
      onEvent: (listener) =>
        Effect.asVoid(Effect.acquireRelease(
          Effect.sync(() => kernel.observers.add(listener)),
          () => Effect.sync(() => kernel.observers.delete(listener))
        )),
      inherited: (fd) => Effect.sync(() => decodeAll(inherited.get(fd) ?? []))
    })
    return Context.make(ProcessPlatform.ProcessPlatform, platform).pipe(Context.add(Simulation, simulation))
  })

/** The platform, and the hand that holds it. It runs on the Clock of the one who builds the layer. */
export const layer = (
  options: Options = {}
): Layer.Layer<ProcessPlatform.ProcessPlatform | Simulation> => Layer.effectContext(make(options))
