/**
 * Services with their logs and pools, and everything that somebody may want of them while they run: what `treeline up`
 * shows, and what the control API asks for.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import type * as Path from "effect/Path"
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { Child } from "../Child.ts"
import type { SignalReport } from "../Engine.ts"
import {
  type ChildClosed,
  type IntensityExceeded,
  type InvalidConfig,
  InvalidSpec,
  type NotRunning,
  type ReopenFailed,
  UnknownChild
} from "../Errors.ts"
import { Broadcast } from "../internal/Broadcast.ts"
import { secretsOf } from "../internal/ConfigSecrets.ts"
import * as Operation from "../internal/HostOperation.ts"
import { HostPools } from "../internal/HostPools.ts"
import * as SafeName from "../internal/SafeName.ts"
import * as Tail from "../internal/Tail.ts"
import * as UsageSampler from "../internal/UsageSampler.ts"
import type { Usage } from "../Limits.ts"
import type * as Pool from "../Pool.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import type { SupervisorEnd, SupervisorEvent } from "../Supervisor.ts"
import * as ConfigDiff from "./ConfigDiff.ts"
import type * as ConfigLoad from "./ConfigLoad.ts"
import type { HostEvent, HostStatus, Progress } from "./HostStatus.ts"
import type { Keepers } from "./Keeper.ts"
import * as LogLine from "./LogLine.ts"
import * as Logs from "./Logs.ts"
import type { Config } from "./ServiceConfig.ts"
import * as Services from "./Services.ts"

/** Names of services and groups; none means all services. */
export type Names = ReadonlyArray<string>

/**
 * Services that run. The operations that take time are streams: they begin when the stream is run, tell how far they are,
 * and end with `Done`. What was begun goes to its end when nobody reads any more. Names are checked first; an unknown one
 * fails with `UnknownChild`, and nothing is done.
 */
export interface ServiceHost {
  /**
   * A snapshot; never waits for a service, also not for a slow start. The first one in a while waits for up to 100 ms for
   * what the trees use.
   */
  readonly status: Effect.Effect<HostStatus>
  /** The last events: 256 at most. */
  readonly recent: Effect.Effect<ReadonlyArray<HostEvent>>
  /** The last events and then all that come; a reader that is slower than 1,024 events loses the oldest. */
  readonly events: Stream.Stream<HostEvent>
  readonly logs: Logs.Logs
  /** By their names; a reload may add and remove some. */
  readonly pools: Effect.Effect<ReadonlyMap<string, Pool.Pool<void, InvalidSpec>>>
  /** Starts them in their order, and is done when they are up or have failed. */
  readonly start: (names: Names) => Stream.Stream<Progress, UnknownChild>
  /** Ends them, those that depend on others first. */
  readonly stop: (names: Names) => Stream.Stream<Progress, UnknownChild>
  readonly restart: (names: Names) => Stream.Stream<Progress, UnknownChild>
  /**
   * No restarts and no probes; what runs goes on. With no names it holds for services that are added later, too, and for the
   * children that pools have now; what somebody asks a pool for is started nevertheless.
   */
  readonly pause: (names: Names) => Effect.Effect<void, UnknownChild>
  readonly resume: (names: Names) => Effect.Effect<void, UnknownChild>
  readonly signal: (
    name: string,
    signal: ChildProcess.Signal,
    target?: ShutdownPlan.Target
  ) => Effect.Effect<SignalReport, UnknownChild | NotRunning>
  /** Reads the configuration anew and applies the difference. One that can't be used changes nothing. */
  readonly reload: Stream.Stream<Progress, InvalidConfig | InvalidSpec>
  /** Opens the log files anew. */
  readonly reopenLogs: Effect.Effect<void, ReopenFailed>
  /**
   * Ends all services and pools, and the host with them; `force` kills, also while an orderly end is going on. With `keep`
   * the services that are to go on do.
   */
  readonly shutdown: (options?: ShutdownOptions) => Stream.Stream<Progress>
  /** Waits for the end of all. */
  readonly awaitEnd: Effect.Effect<SupervisorEnd, IntensityExceeded>
}

export interface ShutdownOptions {
  readonly force?: boolean | undefined
  readonly keep?: boolean | undefined
}

export interface Options {
  /** Reads the configuration: at the start, and at each reload. */
  readonly load: Effect.Effect<ConfigLoad.Loaded, InvalidConfig>
  /** What was read for the start already. */
  readonly loaded?: ConfigLoad.Loaded | undefined
  /** Where it is read, for the status. */
  readonly file?: string | undefined
  /** Who keeps the services that are to go on when this process ends. Without them these end with it, too. */
  readonly keepers?: Keepers | undefined
  /** The version of the program, and its process, for the status. */
  readonly version: string
  readonly pid: number
}

/** Past events that a late reader is given, and events that wait for a slow one. */
const historySize = 256
const eventsCapacity = 1024

/** Progress that waits for a slow reader. */
const progressCapacity = 1024

/** How long nothing changes before it is said what an operation waits for, in ms. */
const quiet = 1000

/** How long the log of a child may need for the last words of the one before, in ms. */
const lastWords = 5000

/** A change of state of a service. */
type Changed = Extract<Progress, { readonly _tag: "Changed" }>

interface Times {
  readonly since: number
  readonly readySince: number | null
}

/** What a log needs to know of a configuration: the logs of a service, or of a child of a pool. */
const logsOf = (config: Config, child: string) => {
  const [name = "", key] = child.split(/\/(.*)/s)
  if (key === undefined) return config.services[name]?.logs
  const logs = config.pools[name]?.logs
  const safe = SafeName.encode(key)
  return logs === undefined || safe === undefined
    ? undefined
    : { ...logs, file: logs.file.replaceAll("{key}", () => safe) }
}

const sinkOf = (config: Config, child: string) => {
  const logs = logsOf(config, child)
  if (logs === undefined) return Effect.undefined
  const { file, keep, maxAge, maxSize, timestamps } = logs
  return Logs.fileAt(file, child, { maxBytes: maxSize, maxAge, keep, layout: { timestamps } })
}

/**
 * What an earlier process kept of services that are not `wanted`. What can't be ended is told, and left. What was kept of
 * a service that is wanted is ended or found before its launch, by its own body.
 */
const endUnwanted = (keepers: Keepers | undefined, wanted: (service: string) => boolean): Effect.Effect<void> =>
  keepers === undefined
    ? Effect.void
    : keepers.end((service) => !wanted(service)).pipe(
      Effect.flatMap((ended) =>
        Effect.forEach(
          ended,
          (service) => Effect.logInfo(`${service} was kept, and is ended: it is not wanted any more`),
          {
            discard: true
          }
        )
      ),
      Effect.catch((error) => Effect.logWarning(error.message))
    )

/**
 * Starts what a configuration says; all of it is ended when the scope closes, within `daemon.stopWithin`.
 *
 * Each service that has `logs` in its configuration has a rotating file, and the last lines of all are in memory. Secrets
 * of the configuration of 6 characters or more are taken out of logs, and of the last output in errors and events.
 *
 * @example
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { ConfigLoad, ConfigSource, ServiceHost } from "@treeline/core/daemon"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect, Result, Stream } from "effect"
 * import { deepStrictEqual } from "node:assert"
 *
 * const text = `{ "services": { "db": { "command": "sleep", "args": ["60"] } } }`
 * const load = ConfigLoad.load({
 *   file: Result.getOrThrow(ConfigSource.json("treeline.json", text)),
 *   environment: process.env,
 *   flags: [],
 *   resolvePath: (path) => path,
 *   readText: () => Effect.fail("there are no other files")
 * })
 * const program = Effect.gen(function*() {
 *   const host = yield* ServiceHost.make({ load, version: "1.0.0", pid: process.pid })
 *   const last = yield* Stream.runLast(host.stop(["db"]))
 *   const { services } = yield* host.status
 *   return [last._tag, services.map(({ child }) => child.state._tag)]
 * })
 * const found = await Effect.runPromise(
 *   program.pipe(Effect.scoped, Effect.provide([PosixPlatform.layer, NodeServices.layer]))
 * )
 * deepStrictEqual(found, ["Some", ["Stopped"]])
 * ```
 */
export const make = Effect.fn("ServiceHost.make")(function*(
  options: Options
): Effect.fn.Return<
  ServiceHost,
  InvalidConfig | InvalidSpec,
  ProcessPlatform | FileSystem.FileSystem | Path.Path | Scope.Scope
> {
  const clock = yield* Clock.Clock
  const platform = yield* ProcessPlatform
  const now = () => clock.currentTimeMillisUnsafe()
  const startedAt = now()
  const { config: first } = options.loaded ?? (yield* options.load)
  /** What was asked for last. */
  let config = first
  let reloadedAt = startedAt
  let paused = false

  // ------------------------------------------------------------------------------------------------ logs and secrets

  const rulesOf = (secrets: ReadonlySet<string>): Logs.LineOptions => ({
    redact: [...secrets],
    colours: (child) => logsOf(config, child)?.colours
  })
  let secrets = secretsOf(first)
  /** Of texts that are no log. */
  let rules = yield* Effect.fromResult(LogLine.validate({ redact: [...secrets], colours: "keep" }))
  const logs = yield* Logs.make({ ...rulesOf(secrets), file: (child) => sinkOf(config, child) })
  const redaction = Context.make(Tail.CurrentRedaction, (text: string) => LogLine.clean(rules, text))

  const hide = Effect.fnUntraced(function*(secrets: ReadonlySet<string>) {
    yield* logs.setRules(rulesOf(secrets))
    rules = yield* Effect.fromResult(LogLine.validate({ redact: [...secrets], colours: "keep" }))
  })

  const addLog = (child: Child): Effect.Effect<void> =>
    logs.awaitClosed(child.id).pipe(
      Effect.timeoutOption(lastWords),
      Effect.andThen(logs.add(child)),
      Effect.catch((error) => Effect.logWarning(`a child has no log: ${error.message}`))
    )

  // ------------------------------------------------------------------------------------------------ events

  const events = new Broadcast<HostEvent>(historySize)
  yield* Effect.addFinalizer(() => Effect.sync(() => events.end()))
  const times = new Map<string, Times>()
  const listeners = new Set<(changed: Changed) => void>()
  /** Done at the next change of a state. */
  let changed = Deferred.makeUnsafe<void>()

  const onEvent = (event: SupervisorEvent): void => {
    const at = event._tag === "Child" ? event.event.at : now()
    events.publish({ _tag: "Supervisor", at, event })
    if (event._tag === "Child" && event.event.change._tag === "State" && !event.event.child.includes("/")) {
      const { change: { from, to }, child, incarnation } = event.event
      if (from._tag !== to._tag) times.set(child, { since: at, readySince: to._tag === "Ready" ? at : null })
      for (const listener of listeners) listener({ _tag: "Changed", at, service: child, incarnation, state: to })
    }
    const waiting = changed
    changed = Deferred.makeUnsafe<void>()
    Deferred.doneUnsafe(waiting, Exit.void)
  }

  // ------------------------------------------------------------------------------------------------ what runs

  const context = Context.merge(yield* Effect.context<ProcessPlatform | Scope.Scope>(), redaction)
  const pools = new HostPools(context, {
    onEvent: (pool, event) => events.publish({ _tag: "Pool", pool, event }),
    onChild: addLog
  })
  yield* Effect.addFinalizer(() => pools.close)
  for (const [name, pool] of Object.entries(first.pools)) yield* pools.add(name, pool)
  // However long that takes, it holds up nothing.
  yield* Effect.forkScoped(endUnwanted(options.keepers, (service) => Object.hasOwn(config.services, service)))
  const services = yield* Effect.provide(
    Services.start(first, { onEvent, onChild: addLog, paused: Effect.sync(() => paused), keepers: options.keepers }),
    redaction
  )
  const { supervisor } = services

  const over = Deferred.makeUnsafe<SupervisorEnd, IntensityExceeded>()
  const killAll = Effect.all([Effect.orDie(supervisor.shutdown(ShutdownPlan.kill)), pools.kill], {
    concurrency: "unbounded",
    discard: true
  })

  /** In order, and killed when that takes too long. Once; it goes on whoever waits for it. */
  let ending: Deferred.Deferred<void> | undefined = undefined
  const endAll: Effect.Effect<void> = Effect.suspend(() => {
    if (ending !== undefined) return Deferred.await(ending)
    const done = ending = Deferred.makeUnsafe<void>()
    return Effect.gen(function*() {
      const processClock = yield* platform.clock
      const impatient = Effect.andThen(processClock.sleep(Duration.millis(config.daemon.stopWithin)), killAll)
      const killer = yield* Effect.forkDetach(impatient, { startImmediately: true })
      yield* Effect.all([supervisor.stopAll, pools.close], { concurrency: "unbounded", discard: true })
      yield* Fiber.interrupt(killer)
    }).pipe(
      Effect.ensuring(Deferred.succeed(done, undefined)),
      Effect.forkDetach({ startImmediately: true }),
      Effect.andThen(Deferred.await(done))
    )
  })

  yield* Effect.forkScoped(
    Effect.flatMap(Effect.exit(supervisor.awaitEnd), (exit) => Effect.andThen(endAll, Deferred.done(over, exit))),
    { startImmediately: true }
  )
  yield* Effect.addFinalizer(() => Effect.andThen(endAll, Effect.exit(Deferred.await(over))))

  // ------------------------------------------------------------------------------------------------ status

  const usages = Effect.gen(function*() {
    const found = new Map<string, Usage>()
    for (const { id } of yield* supervisor.children) {
      const child = yield* Effect.option(supervisor.child(id))
      const usage = child._tag === "Some" ? yield* child.value.usage : null
      if (usage !== null) found.set(id, usage)
    }
    return found
  })
  const sampler = yield* UsageSampler.make(usages, yield* platform.clock)

  const groupsOf = (name: string): ReadonlyArray<string> =>
    Object.entries(config.groups).flatMap(([group, members]) => members.includes(name) ? [group] : [])

  const status: Effect.Effect<HostStatus> = Effect.gen(function*() {
    const usages = yield* sampler.last
    const { blocking, children, phase, restartsInWindow } = yield* supervisor.status
    return {
      at: now(),
      host: {
        pid: options.pid,
        version: options.version,
        startedAt,
        file: options.file ?? null,
        reloadedAt,
        paused
      },
      phase,
      restartsInWindow,
      services: children.map((child) => ({
        name: child.id,
        groups: groupsOf(child.id),
        child,
        ...times.get(child.id) ?? { since: startedAt, readySince: null },
        usage: usages.get(child.id) ?? null
      })),
      pools: yield* pools.status,
      logs: yield* logs.status,
      blocking: [...blocking, ...yield* pools.blocking]
    }
  })

  // ------------------------------------------------------------------------------------------------ operations

  /** The services that are meant, in their order; first those that others need. */
  const resolve = (names: Names): Effect.Effect<ReadonlyArray<string>, UnknownChild> =>
    Effect.flatMap(supervisor.children, (children) => {
      const known = new Set(children.map(({ id }) => id))
      const wanted = new Set<string>()
      for (const name of names) {
        const members = Object.hasOwn(config.groups, name) ? config.groups[name] : known.has(name) ? [name] : undefined
        if (members === undefined) return Effect.fail(new UnknownChild({ child: name }))
        for (const member of members) wanted.add(member)
      }
      const order = new Set([...ConfigDiff.levels(ConfigDiff.plan(config)).flat(), ...known])
      return Effect.succeed([...order].filter((name) => known.has(name) && (names.length === 0 || wanted.has(name))))
    })

  interface Work<E> {
    /** Goes to its end, whoever reads. */
    readonly begin: Effect.Effect<unknown, E>
    /** What is reported in the end; waits for it. */
    readonly finish: Effect.Effect<Pick<Extract<Progress, { readonly _tag: "Done" }>, "outcomes" | "report">>
    /** Of which services; undefined for all. */
    readonly of: ReadonlySet<string> | undefined
  }

  const waiting = (of: ReadonlySet<string> | undefined, up: boolean): Effect.Effect<Progress> =>
    Effect.gen(function*() {
      const { blocking, children } = yield* supervisor.status
      const all = [...blocking, ...yield* pools.blocking]
      return {
        _tag: "Waiting",
        at: now(),
        blocking: all.filter(({ child }) => of === undefined || of.has(child.split("/", 1)[0]!)),
        starting: up && of !== undefined ? Operation.starting(of, children) : []
      }
    })

  const operation = <E>(work: Effect.Effect<Work<E>, E>, up: boolean): Stream.Stream<Progress, E> =>
    Stream.callback<Progress, E>((queue) =>
      Effect.gen(function*() {
        const { begin, finish, of } = yield* work
        let told = now()
        const tell = (progress: Progress) => {
          told = now()
          Queue.offerUnsafe(queue, progress)
        }
        const listener = (changed: Changed) => {
          if (of === undefined || of.has(changed.service)) tell(changed)
        }
        yield* Effect.acquireRelease(
          Effect.sync(() => listeners.add(listener)),
          () => Effect.sync(() => listeners.delete(listener))
        )
        yield* Effect.forkScoped(Effect.forever(Effect.gen(function*() {
          // Never longer, also when somebody puts the clock back.
          yield* Effect.sleep(Math.min(quiet, Math.max(1, told + quiet - now())))
          if (now() - told >= quiet) tell(yield* waiting(of, up))
        })))
        const fiber = yield* Effect.forkDetach(begin, { startImmediately: true })
        yield* Fiber.join(fiber)
        tell({ _tag: "Done", ...yield* finish, at: now() })
        Queue.endUnsafe(queue)
      }), { bufferSize: progressCapacity, strategy: "sliding" })

  /** Looks after each change until something is found. */
  const awaitChange = <A>(look: Effect.Effect<A | undefined>): Effect.Effect<A> =>
    Effect.suspend(() => {
      const next = changed
      return Effect.flatMap(look, (found) =>
        found === undefined ? Effect.andThen(Deferred.await(next), awaitChange(look)) : Effect.succeed(found))
    })

  /** How often each service was asked to stop, so that a stop in the middle of a restart wins. */
  const stops = new Map<string, number>()
  const countStop = (name: string) => stops.set(name, (stops.get(name) ?? 0) + 1)

  type Problems = Map<string, string>

  const startAll = (names: ReadonlyArray<string>, problems: Problems): Effect.Effect<void> =>
    Effect.forEach(names, (name) =>
      Effect.flatMap(supervisor.child(name), (child) => child.start).pipe(
        Effect.catch((error) => Effect.sync(() => void problems.set(name, error.message)))
      ), { discard: true })

  const stopAll = (names: ReadonlyArray<string>): Effect.Effect<void> => {
    const levels = ConfigDiff.levels(ConfigDiff.plan(config))
    const rest = names.filter((name) => !levels.some((level) => level.includes(name)))
    return Effect.forEach([rest, ...levels.toReversed()], (level) =>
      Effect.forEach(
        level.filter((name) => names.includes(name)),
        (name) => Effect.ignore(supervisor.terminateChild(name)),
        { concurrency: "unbounded", discard: true }
      ), { discard: true })
  }

  const awaitUp = (names: ReadonlyArray<string>, problems: Problems) =>
    Effect.map(
      awaitChange(Effect.map(supervisor.children, (children) =>
        Operation.settled(
          names.filter((name) => !problems.has(name)),
          children
        ))),
      (settled) => {
        const found = new Map(settled.map(({ problem, service }) => [service, problem]))
        const outcomes = names.map((service) => ({
          service,
          problem: problems.get(service) ?? found.get(service) ?? null
        }))
        return { outcomes, report: null }
      }
    )

  const start: ServiceHost["start"] = (names) =>
    operation(
      Effect.gen(function*() {
        const targets = yield* resolve(names)
        const found = Operation.needed(targets, yield* supervisor.children, ConfigDiff.plan(config))
        const all = yield* resolve([...found])
        const problems: Problems = new Map()
        return { of: new Set(all), begin: startAll(all, problems), finish: awaitUp(all, problems) }
      }),
      true
    )

  const stop: ServiceHost["stop"] = (names) =>
    operation(
      Effect.map(resolve(names), (of) => ({
        of: new Set(of),
        begin: Effect.suspend(() => {
          of.forEach(countStop)
          return stopAll(of)
        }),
        finish: Effect.map(
          supervisor.children,
          (children) => ({ outcomes: Operation.ended(of, children), report: null })
        )
      })),
      false
    )

  const restart: ServiceHost["restart"] = (names) =>
    operation(
      Effect.map(resolve(names), (of) => {
        const problems: Problems = new Map()
        return {
          of: new Set(of),
          begin: Effect.suspend(() => {
            const before = of.map((name) => stops.get(name))
            return Effect.andThen(
              stopAll(of),
              Effect.suspend(() => {
                const wanted = of.filter((name, index) => stops.get(name) === before[index])
                for (const name of of) if (!wanted.includes(name)) problems.set(name, "it was stopped")
                return startAll(wanted, problems)
              })
            )
          }),
          finish: awaitUp(of, problems)
        }
      }),
      true
    )

  /** Tells each of them; one that is closed is on its way out. */
  const tellAll = (names: Names, tell: (child: Child) => Effect.Effect<void, ChildClosed>) =>
    Effect.flatMap(
      resolve(names),
      (targets) =>
        Effect.forEach(targets, (name) =>
          Effect.flatMap(supervisor.child(name), tell).pipe(
            Effect.catchTag(["ChildClosed", "UnknownChild"], () => Effect.void)
          ), { concurrency: "unbounded", discard: true })
    )

  const setPaused = (value: boolean, names: Names) =>
    Effect.sync(() => {
      if (names.length > 0 || paused === value) return
      paused = value
      events.publish({ _tag: value ? "Paused" : "Resumed", at: now() })
    })

  // ------------------------------------------------------------------------------------------------ reload

  const reloading = yield* Semaphore.make(1)
  const unreloadable = ["directory", "socket", "port"] as const

  const apply = Effect.fnUntraced(function*(next: Config) {
    if (ending !== undefined) {
      return yield* new InvalidSpec({ field: "services", problem: "can't be changed any more: all are being ended" })
    }
    yield* Effect.fromResult(HostPools.check(next.pools))
    const before = config
    config = next
    const nextSecrets = secretsOf(next)
    // Those of before are hidden until the next reload: what was started with them may still say them.
    yield* hide(new Set([...secrets, ...nextSecrets]))
    const report = yield* Effect.onError(services.reload(next), () =>
      Effect.sync(() => {
        config = before
      }))
    secrets = nextSecrets
    const changes = yield* pools.apply(next.pools)
    for (const name of times.keys()) if (!Object.hasOwn(next.services, name)) times.delete(name)
    for (const name of stops.keys()) if (!Object.hasOwn(next.services, name)) stops.delete(name)
    // How an install is fetched concerns its updater only.
    const daemon = unreloadable.some((field) => !Equal.equals(first.daemon[field], next.daemon[field])) ||
      first.daemon.install?.directory !== next.daemon.install?.directory ||
      first.daemon.install?.program !== next.daemon.install?.program
    reloadedAt = now()
    const whole: Services.Report = {
      unchanged: [...report.unchanged, ...changes.unchanged],
      applied: [...report.applied, ...changes.applied],
      needsRestart: daemon ? [...report.needsRestart, "daemon"] : report.needsRestart
    }
    events.publish({ _tag: "Reloaded", at: reloadedAt, report: whole })
    return whole
  })

  const reload: ServiceHost["reload"] = Stream.suspend(() => {
    let report: Services.Report = { unchanged: [], applied: [], needsRestart: [] }
    const begin = options.load.pipe(
      Effect.flatMap((loaded) => Effect.uninterruptible(apply(loaded.config))),
      Effect.map((applied) => {
        report = applied
      }),
      Semaphore.withPermits(reloading, 1)
    )
    const finish = Effect.sync(() => ({
      outcomes: report.applied.map(({ problem, service }) => ({ service, problem })),
      report
    }))
    return operation<InvalidConfig | InvalidSpec>(Effect.succeed({ of: undefined, begin, finish }), false)
  })

  return {
    status,
    recent: Effect.sync(() => events.recent),
    events: events.stream(eventsCapacity),
    logs,
    pools: Effect.sync(() => pools.all),
    start,
    stop,
    restart,
    pause: Effect.fn("ServiceHost.pause")((names: Names) =>
      Effect.andThen(
        Effect.andThen(setPaused(true, names), tellAll(names, (child) => child.pause)),
        names.length === 0 ? pools.tell((child) => child.pause) : Effect.void
      )
    ),
    resume: Effect.fn("ServiceHost.resume")((names: Names) =>
      Effect.andThen(
        Effect.andThen(setPaused(false, names), tellAll(names, (child) => child.resume)),
        names.length === 0 ? pools.tell((child) => child.resume) : Effect.void
      )
    ),
    signal: Effect.fn("ServiceHost.signal")((name, signal, target) =>
      Effect.flatMap(supervisor.child(name), (child) => child.signal(signal, target))
    ),
    reload,
    reopenLogs: logs.reopen,
    shutdown: ({ force = false, keep = false } = {}) =>
      operation(
        Effect.map(resolve([]).pipe(Effect.orDie), (of) => ({
          of: undefined,
          begin: Effect.andThen(
            keep && !force && options.keepers !== undefined ? options.keepers.leave : Effect.void,
            force ? Effect.all([killAll, endAll], { concurrency: "unbounded", discard: true }) : endAll
          ),
          finish: Effect.map(
            supervisor.children,
            (children) => ({ outcomes: Operation.ended(of, children), report: null })
          )
        })),
        false
      ),
    awaitEnd: Deferred.await(over)
  }
})
