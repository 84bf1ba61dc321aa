/** The `Engine` of one host process on a simulated system. */
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { atLeast, type Level, type Report } from "../../Containment.ts"
import type { Engine, EngineTree, LaunchRequest, Pipe as HostPipe, SignalReport } from "../../Engine.ts"
import { ContainmentUnavailable, LaunchError, type LaunchReason } from "../../Errors.ts"
import type { ExitStatus } from "../../ExitStatus.ts"
import { judge, type ProcessIdentity, type Standing } from "../../ProcessIdentity.ts"
import type { Program } from "../Program.ts"
import * as HostPipes from "./HostPipes.ts"
import { type Host, isEmpty, type Kernel, membersOf, toInfo } from "./Kernel.ts"
import * as Network from "./Network.ts"
import type { File, Launch, Process } from "./Process.ts"

const boot = "simulated"

/** What a launch asks for, resolved. */
export interface Invocation {
  readonly name: string
  readonly args: ReadonlyArray<string>
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
}

/** Faults that are switched while the system runs. */
export interface Switches {
  spawnTime: number
  noticeDelay: number
}

export interface EngineOptions {
  readonly kernel: Kernel
  readonly clock: Clock.Clock
  readonly level: Level
  readonly highest: Level
  readonly env: Readonly<Record<string, string>>
  readonly hasDirectory: (path: string) => boolean
  /** The program of a name, or none. */
  readonly find: (invocation: Invocation) => Program | undefined
  /** Why this launch is to fail, if it is. */
  readonly fault: (request: LaunchRequest) => LaunchReason | undefined
  readonly switches: Switches
  /** Takes what a process writes to a descriptor that it inherited from the host. */
  readonly inherited: (fd: number, bytes: Uint8Array) => void
  readonly onLaunch: (launch: Launch, request: LaunchRequest) => void
}

/** An engine, and what becomes of its trees when its host is killed. */
export interface HostEngine {
  readonly engine: Engine
  readonly host: Host
  /** The host ends by SIGKILL; unless `guardian` is undefined, its trees get SIGTERM, so many ms, and SIGKILL. */
  readonly end: (guardian: { readonly grace: number } | undefined) => void
}

interface Tree {
  readonly launch: Launch
  readonly closePipes: () => void
  referenced: boolean
}

const bytesPerProcess = 1024 * 1024

export const make = (options: EngineOptions): HostEngine => {
  const { clock, kernel, switches } = options
  const host: Host = {
    process: kernel.create("host", kernel.init, { cwd: "/", env: options.env })!,
    alive: true
  }
  host.process.group = host.process.pid
  host.process.session = host.process.pid
  const trees = new Set<Tree>()
  let launches = 0

  /** A host that is dead asks nothing and is told nothing. */
  const whileAlive = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => host.alive ? effect : Effect.never)
  const ask = <A>(look: () => A): Effect.Effect<A> =>
    Effect.suspend(() => {
      // In one go: a fiber may give way between two effects, and the host may die then.
      if (!host.alive) return Effect.never
      const answer = look()
      kernel.settle()
      return Effect.succeed(answer)
    })

  const count = (sent: ReadonlyArray<readonly [Process, "sent" | "denied" | "gone"]>): SignalReport => ({
    delivered: sent.filter(([, outcome]) => outcome === "sent").length,
    denied: sent.flatMap(([process, outcome]) => outcome === "denied" ? [toInfo(process)] : [])
  })

  const treeOf = (launch: Launch, leader: Process, pipes: ReadonlyMap<number, HostPipe>): EngineTree => {
    const exited = Deferred.makeUnsafe<ExitStatus>()
    const waiters = new Set<() => void>()
    let noticed = false
    const tree: Tree = {
      launch,
      referenced: true,
      closePipes: () => {
        for (const pipe of pipes.values()) {
          pipe.reader?.close()
          pipe.writer?.close()
        }
      }
    }
    trees.add(tree)

    const settle = () => {
      if (launch.settled) return
      launch.settled = true
      trees.delete(tree)
      kernel.reap(leader)
    }
    const isOver = () => leader.status !== undefined && isEmpty(launch)
    /** Says what has become known; a lost notification is found by a later look. */
    const notice = (run: () => void) => {
      if (switches.noticeDelay <= 0) return kernel.post(host, run)
      kernel.timers.set(kernel.now() + switches.noticeDelay, () => kernel.post(host, run))
    }
    const tellEmpty = () => {
      noticed = false
      if (!isOver()) return
      settle()
      for (const waiter of waiters) waiter()
      waiters.clear()
    }
    launch.onChange = () => {
      if (noticed || waiters.size === 0 || !isOver()) return
      noticed = true
      notice(tellEmpty)
    }
    launch.onLeaderEnd = (status) => notice(() => Deferred.doneUnsafe(exited, Effect.succeed(status)))

    const members = (): Array<Process> => {
      if (launch.settled) return []
      const found = membersOf(launch)
      if (found.length === 0 && leader.status !== undefined) settle()
      return found
    }

    const sendGroup = (signal: Parameters<EngineTree["signal"]>[0]): SignalReport => {
      if (!launch.ownSession) return sendLeader(signal)
      if (!kernel.same(leader)) return count([])
      const sent = kernel.group(leader.pid).map((process) => [process, kernel.send(process, signal, true)] as const)
      // kill(2): a group counts once, and as delivered when one member could be signalled.
      return sent.some(([, outcome]) => outcome === "sent") ? { delivered: 1, denied: [] } : count(sent)
    }
    const sendLeader = (signal: Parameters<EngineTree["signal"]>[0]): SignalReport =>
      count(leader.status === undefined ? [[leader, kernel.send(leader, signal, true)]] : [])

    const signal: EngineTree["signal"] = (name, target) =>
      ask(() => {
        if (typeof target !== "string") {
          const process = kernel.table.get(target.pid)
          return count(
            process !== undefined && String(process.start) === target.startTime
              ? [[process, kernel.send(process, name, true)]]
              : []
          )
        }
        if (target === "leader") return sendLeader(name)
        if (target === "group") return sendGroup(name)
        const others = members().filter((process) =>
          launch.ownSession ? process.group !== leader.pid : process !== leader
        )
        const group = sendGroup(name)
        const rest = count(others.map((process) => [process, kernel.send(process, name, true)]))
        return { delivered: group.delivered + rest.delivered, denied: [...group.denied, ...rest.denied] }
      })

    const awaitEmpty = whileAlive(Effect.callback<void>((resume) => {
      if (launch.settled) return resume(Effect.void)
      const waiter = () => resume(Effect.void)
      waiters.add(waiter)
      if (isOver()) {
        kernel.post(host, tellEmpty)
        kernel.settle()
      }
      return Effect.sync(() => {
        waiters.delete(waiter)
      })
    }))

    /** Kills what is found; looks again when something may have changed, ever more rarely. */
    const kill = (cap: number) =>
      Effect.gen(function*() {
        const endsAt = kernel.now() + cap
        let pause = 5
        while (true) {
          const left = yield* ask(() => {
            for (const process of members()) kernel.send(process, "SIGKILL", true)
            return members()
          })
          const rest = endsAt - kernel.now()
          if (left.length === 0 || rest <= 0) return left.map(toInfo)
          yield* Effect.raceFirst(awaitEmpty, clock.sleep(Duration.millis(Math.min(pause, rest))))
          pause = Math.min(2 * pause, 500)
        }
      })

    return {
      identity: { pid: leader.pid, startTime: String(leader.start), boot },
      level: launch.level,
      pipes,
      exited: Deferred.await(exited),
      awaitEmpty,
      members: ask(() => members().map(toInfo)),
      usage: ask(() => {
        const processes = members().length
        return { processes, memory: processes * bytesPerProcess, cpu: 0 }
      }),
      signal,
      requestClose: Effect.succeed(false),
      kill: (cap) => whileAlive(kill(cap)),
      setReferenced: (referenced) =>
        ask(() => {
          tree.referenced = referenced
        }),
      release: ask(settle)
    }
  }

  const invocationOf = (request: LaunchRequest): Invocation => {
    const env: Record<string, string> = request.extendEnv ? { ...options.env } : {}
    for (const [name, value] of Object.entries(request.env)) {
      if (value === undefined) delete env[name]
      else env[name] = value
    }
    const shell = request.shell === true ? "sh" : request.shell
    return {
      name: shell === false ? request.command : shell,
      args: shell === false ? request.args : ["-c", request.command],
      cwd: request.cwd ?? "/",
      env
    }
  }

  const start = (request: LaunchRequest): Effect.Effect<EngineTree, LaunchError | ContainmentUnavailable> =>
    Effect.suspend((): Effect.Effect<EngineTree, LaunchError | ContainmentUnavailable> => {
      if (!host.alive) return Effect.never
      const invocation = invocationOf(request)
      const fail = (reason: LaunchReason, detail: string) => {
        kernel.note("launch failed", { pid: 0, command: invocation.name }, reason)
        return Effect.fail(new LaunchError({ command: invocation.name, reason, detail }))
      }
      if (!options.hasDirectory(invocation.cwd)) return fail("BadWorkingDirectory", "there is no such directory")
      const fault = options.fault(request)
      if (fault !== undefined) return fail(fault, "the simulation was asked to fail here")
      const program = options.find(invocation)
      if (program === undefined) return fail("NotFound", "there is no such program")
      const sealed = request.limits !== undefined ||
        (request.require !== undefined && !atLeast(options.level, request.require))
      const level = sealed ? "sealed" : options.level
      if (!atLeast(options.highest, level)) {
        return Effect.fail(
          new ContainmentUnavailable({
            required: level,
            available: options.highest,
            reason: "the simulation has no seal"
          })
        )
      }
      const ownSession = request.session === "own"
      const leader = kernel.create(invocation.name, host.process, {
        cwd: invocation.cwd,
        env: invocation.env,
        launch: (leader) => ({
          number: ++launches,
          level,
          leader,
          living: new Set(),
          ownSession,
          maxProcesses: request.limits?.processes ?? Number.POSITIVE_INFINITY,
          settled: false,
          onChange: undefined,
          onLeaderEnd: undefined
        })
      })
      if (leader === undefined) return fail("ResourceExhausted", "no free pid")
      if (ownSession) {
        leader.group = leader.pid
        leader.session = leader.pid
      }
      const pipes = new Map<number, HostPipe>()
      for (const [fd, descriptor] of request.stdio.entries()) {
        if (descriptor._tag === "ignore") continue
        if (descriptor._tag === "inherit") {
          kernel.open(leader, fd, {
            reads: undefined,
            writes: undefined,
            host: (bytes) => options.inherited(fd, bytes)
          })
          continue
        }
        const reads = descriptor.direction === "read" ? undefined : kernel.pipe()
        const writes = descriptor.direction === "write" ? undefined : kernel.pipe()
        const file: File = { reads, writes, host: undefined }
        kernel.open(leader, fd, file)
        pipes.set(fd, {
          reader: writes === undefined ? undefined : HostPipes.reader(kernel, host, writes),
          writer: reads === undefined ? undefined : HostPipes.writer(kernel, host, reads, fd)
        })
      }
      const launch = leader.launch!
      const tree = treeOf(launch, leader, pipes)
      options.onLaunch(launch, request)
      kernel.note("launched", leader)
      kernel.begin(leader, program)
      kernel.settle()
      return Effect.succeed(tree)
    })

  const spawn: Engine["spawn"] = (request) =>
    whileAlive(
      switches.spawnTime > 0
        ? Effect.andThen(clock.sleep(Duration.millis(switches.spawnTime)), start(request))
        : start(request)
    )

  const report: Report = {
    platform: "simulated",
    level: options.level,
    highest: options.highest,
    mechanisms: [{ name: "simulation", available: true, detail: "an operating system in memory" }],
    ...(options.highest === "sealed" ? {} : { raise: "the simulation was made so; give it a higher level" })
  }

  const identityOf = ({ pid, start }: Process): ProcessIdentity => ({ pid, startTime: String(start), boot })

  const standing = (identity: ProcessIdentity): Standing => {
    const process = kernel.table.get(identity.pid)
    return judge(identity, {
      found: process === undefined
        ? undefined
        : { identity: identityOf(process), alive: process.status === undefined },
      exists: process !== undefined,
      boot,
      tolerance: 0
    })
  }

  const engine: Engine = {
    report: ask(() => report),
    clock: Effect.succeed(clock),
    spawn: (request) => Effect.suspend(() => spawn(request)),
    find: (identity) =>
      ask(() => {
        const process = identity.boot === boot ? kernel.table.get(identity.pid) : undefined
        return process !== undefined && process.status === undefined && String(process.start) === identity.startTime
          ? Option.some(toInfo(process))
          : Option.none()
      }),
    identify: (pid) => ask(() => Option.map(Option.fromUndefinedOr(kernel.table.get(pid)), identityOf)),
    standing: (identity) => ask(() => standing(identity)),
    signalProcess: (identity, signal) =>
      ask(() => {
        const process = standing(identity) === "Alive" ? kernel.table.get(identity.pid) : undefined
        const outcome = process === undefined ? "gone" : kernel.send(process, signal, true)
        return outcome === "sent" ? "Sent" : outcome === "gone" ? "Gone" : "Denied"
      }),
    processes: ask(() => [...kernel.table.values()].map(toInfo)),
    network: Network.make({ kernel, clock, host })
  }

  const end = (guardian: { readonly grace: number } | undefined) => {
    if (!host.alive) return
    const left = [...trees]
    kernel.note("host ended", host.process)
    kernel.endHost(host)
    for (const { closePipes, launch } of left) {
      closePipes()
      launch.onChange = undefined
      launch.onLeaderEnd = undefined
      // pid 1 inherits the leaders.
      launch.settled = true
    }
    const guarded = left.filter(({ referenced }) => referenced)
    const each = (signal: "SIGTERM" | "SIGCONT" | "SIGKILL") => {
      for (const { launch } of guarded) for (const process of membersOf(launch)) kernel.send(process, signal, true)
    }
    if (guardian !== undefined) {
      if (guardian.grace > 0) {
        each("SIGTERM")
        each("SIGCONT")
        kernel.timers.set(kernel.now() + guardian.grace, () => each("SIGKILL"))
      } else each("SIGKILL")
    }
    kernel.settle()
  }

  return { engine, host, end }
}
