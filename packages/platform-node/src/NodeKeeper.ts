/**
 * Keeps services in processes of their own, shims, which are found again by their claims in a state folder.
 *
 * A shim is launched detached, takes its claim, listens at a socket that only its user can reach, and is told over it what
 * to launch. So arguments, variables and secrets are in no file and in no argument of a helper.
 */
import * as Claim from "@treeline/core/daemon/Claim"
import type { Launched } from "@treeline/core/daemon/Daemon"
import type * as Keeper from "@treeline/core/daemon/Keeper"
import * as Kept from "@treeline/core/daemon/Kept"
import * as PidRecord from "@treeline/core/daemon/PidRecord"
import type * as Shim from "@treeline/core/daemon/Shim"
import * as ShimClient from "@treeline/core/daemon/ShimClient"
import type { StateFolder } from "@treeline/core/daemon/StateFolder"
import {
  type ClaimUndecided,
  type DetachUnavailable,
  InvalidSpec,
  KeeperFailed,
  type LaunchError,
  type StateFolderError
} from "@treeline/core/Errors"
import * as Output from "@treeline/core/Output"
import type { ProcessIdentity } from "@treeline/core/ProcessIdentity"
import { type LaunchOptions, ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as ShutdownPlan from "@treeline/core/ShutdownPlan"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import { createHash } from "node:crypto"
import * as path from "node:path"
import * as NodeControl from "./NodeControl.ts"
import * as NodeDetached from "./NodeDetached.ts"
import * as StateDirectory from "./StateDirectory.ts"

export interface Options {
  readonly folder: StateFolder
  /** The program of a shim and its arguments; the folder and the name of the service are put after them. */
  readonly shim: readonly [string, ...ReadonlyArray<string>]
  /** Starts a process that outlives this one. Default: `NodeDetached.launch`. */
  readonly launch?:
    | ((options: NodeDetached.Options) => Effect.Effect<Launched, LaunchError | DetachUnavailable>)
    | undefined
  /** How long a shim may take to come up, in ms. Default: 15,000. */
  readonly startWithin?: number | undefined
}

/** A look again whether a shim has come up, in ms. */
const poll = 10

/** How long an answer of a shim may take, in ms; it launches in that time. */
const answerWithin = 15_000

/** What a shim may take beyond the time that its plan has, in ms. */
const margin = 5000

/** What a reader of its output may be late, in bytes; a backlog of as much comes at once. */
const readAhead = 1024 * 1024

const unwrap = (value: string | Redacted.Redacted<string>): string =>
  Redacted.isRedacted(value) ? Redacted.value(value) : value

const invalid = (field: string, problem: string) => new InvalidSpec({ field, problem })

/** The command as data, without its digest. */
const requestOf = (
  command: ChildProcess.StandardCommand,
  options: LaunchOptions
): Effect.Effect<Omit<Shim.Launch, "digest">, InvalidSpec> =>
  Effect.gen(function*() {
    const { options: own } = command
    if (typeof own.stdin !== "object" || !("stream" in own.stdin) || own.stdin.stream !== "pipe") {
      return yield* invalid("command.stdin", "a child that is kept has a pipe")
    }
    for (const name of ["stdout", "stderr"] as const) {
      if (own[name] !== undefined && own[name] !== "pipe") {
        return yield* invalid(`command.${name}`, "a child that is kept has a pipe")
      }
    }
    const outputs: Array<number> = []
    for (const [name, config] of Object.entries(own.additionalFds ?? {})) {
      const fd = ChildProcess.parseFdName(name)
      if (fd === undefined) continue
      if (config.type !== "output" || config.sink !== undefined) {
        return yield* invalid(`command.${name}`, "further descriptors of a child that is kept are outputs")
      }
      outputs.push(fd)
    }
    const { idle, limit } = options.drain ?? Output.defaultDrain
    return {
      command: command.command,
      args: command.args.map(unwrap),
      cwd: own.cwd ?? null,
      env: Object.fromEntries(
        Object.entries(own.env ?? {}).map(([name, value]) => [name, value === undefined ? null : unwrap(value)])
      ),
      extendEnv: own.env === undefined || own.extendEnv === true,
      shell: own.shell ?? false,
      outputs: outputs.toSorted((a, b) => a - b),
      require: options.require ?? null,
      limits: options.limits === undefined
        ? null
        : Object.fromEntries(Object.entries(options.limits).filter(([, value]) => value !== undefined)),
      shutdown: yield* ShimClient.planOf(options.shutdown ?? ShutdownPlan.default),
      drain: {
        idle: Duration.toMillis(Duration.fromInputUnsafe(idle)),
        limit: Duration.toMillis(Duration.fromInputUnsafe(limit))
      }
    }
  })

/** Of what decides whether a tree is the one that is wanted: how it is ended and drained does not. */
const digestOf = (
  { args, command, cwd, env, extendEnv, limits, outputs, require, shell }: Omit<Shim.Launch, "digest">
) =>
  createHash("sha256").update(JSON.stringify([
    command,
    args,
    cwd,
    Object.entries(env).toSorted(([a], [b]) => a < b ? -1 : 1),
    extendEnv,
    shell,
    outputs,
    require,
    limits
  ])).digest("hex")

const reasonOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message.slice(0, 300) : "the connection has ended"
}

/**
 * Keepers of a state folder.
 *
 * @example
 * ```ts
 * import { NodeKeeper, NodeStateFolder } from "@treeline/platform-node"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect } from "effect"
 * import { deepStrictEqual } from "node:assert"
 * import * as fs from "node:fs"
 * import * as os from "node:os"
 * import * as path from "node:path"
 *
 * const directory = fs.mkdtempSync(path.join(os.tmpdir(), "kept-"))
 * const program = Effect.gen(function*() {
 *   const keepers = yield* NodeKeeper.make({
 *     folder: NodeStateFolder.make(path.join(directory, "state")),
 *     shim: ["treeline", "shim"]
 *   })
 *   return yield* keepers.kept
 * })
 * deepStrictEqual(await Effect.runPromise(Effect.provide(program, PosixPlatform.layer)), [])
 * fs.rmSync(directory, { recursive: true })
 * ```
 */
export const make = Effect.fn("NodeKeeper.make")(function*(
  { folder, launch: detach = NodeDetached.launch, shim, startWithin = 15_000 }: Options
): Effect.fn.Return<Keeper.Keepers, never, ProcessPlatform> {
  const platform = yield* ProcessPlatform
  const clock = yield* platform.clock
  const place: Kept.Place = { folder, platform }
  let left = false
  const leaving = () => left

  const failed = (service: string, reason: KeeperFailed["reason"], pid: number | null, detail: string) =>
    new KeeperFailed({ service, reason, pid, detail })

  const reachOf = (service: string, host: ProcessIdentity, leader?: ProcessIdentity): ShimClient.Reach => ({
    shim: host,
    leader,
    platform,
    address: NodeControl.reach(StateDirectory.addressIn(folder.path, Kept.nameOf(service)))
  })

  /** One call on a connection of its own. */
  const ask = <A, E>(
    service: string,
    host: ProcessIdentity,
    call: (calls: ShimClient.Calls) => Effect.Effect<A, E>,
    within = answerWithin
  ): Effect.Effect<A, Cause.Cause<unknown>> =>
    Effect.flatMap(ShimClient.connect(reachOf(service, host).address), call).pipe(
      Effect.scoped,
      Effect.catchCause((cause) => Effect.fail(cause as Cause.Cause<unknown>)),
      Effect.raceFirst(
        Effect.andThen(clock.sleep(Duration.millis(within)), Effect.fail(Cause.fail(new Error("no answer in time"))))
      )
    )

  /** In order, then by the kill; what it hosted is gone when this is done. */
  const endHost = (
    service: string,
    host: ProcessIdentity,
    grace: number,
    leader?: ProcessIdentity
  ): Effect.Effect<void, KeeperFailed> =>
    Effect.gen(function*() {
      const reach = reachOf(service, host, leader)
      const asked = (yield* platform.signalProcess(host, "SIGTERM")) !== "Denied" ||
        (yield* Effect.isSuccess(ask(service, host, (calls) => calls.End(), grace + margin)))
      if (asked && (yield* ShimClient.awaitGone(reach, grace + margin))) return
      if (yield* ShimClient.kill(reach)) return
      return yield* failed(service, "NotEnded", host.pid, "it outlived the kill")
    })

  /** Nothing is owned meanwhile, so whoever waits for it may give up. */
  const endHolding = ({ holder, info }: Claim.Holding<Kept.Facts>) =>
    Effect.interruptible(endHost(info.service, holder, info.launched?.grace ?? 0, info.launched?.leader))

  /** What a dead shim hosted has to be gone; its guardian is at it. */
  const sweep = (claim: Claim.Place<Kept.Facts>, service: string, holding: Claim.Holding<Kept.Facts> | null) =>
    Effect.gen(function*() {
      if (holding !== null) {
        const { holder, info } = holding
        if (!(yield* ShimClient.awaitGone(reachOf(service, holder, info.launched?.leader), 0))) {
          return yield* failed(service, "NotEnded", holder.pid, "it has died, and something that it hosted lives")
        }
      }
      yield* Claim.clean(claim)
    }).pipe(Effect.interruptible)

  const attach = (
    service: string,
    host: ProcessIdentity,
    hosted: Shim.Hosted,
    request: Omit<Shim.Launch, "digest">,
    options: LaunchOptions
  ) => {
    const { bytes, ...policy } = options.output ?? Output.ring()
    return ShimClient.attach(hosted, {
      ...reachOf(service, host, hosted.identity),
      service,
      shutdown: request.shutdown,
      onStep: options.onStep ?? (() => {}),
      output: { ...policy, bytes: Math.max(bytes, readAhead) },
      drain: request.drain.limit + margin,
      leaving
    })
  }

  const find = (service: string): Keeper.Keeper["find"] => (command, options) =>
    Effect.gen(function*() {
      if (!Kept.isKeepable(service)) return yield* invalid("whenDaemonEnds", "the name is too long for a file")
      const request = yield* requestOf(command, options)
      const claim = Kept.claimOf(place, service)
      const decision = Kept.decide(yield* Claim.look(claim), digestOf(request))
      switch (decision._tag) {
        case "Launch":
          return Option.none()
        case "Refuse":
          return yield* decision.error
        case "Sweep":
          yield* sweep(claim, service, decision.holding)
          return Option.none()
        case "EndFirst":
          yield* endHolding(decision.holding)
          return Option.none()
        case "Adopt": {
          const { holder } = decision.holding
          // One that can't be talked to, as of another version, is no use: it is ended as one that is not wanted.
          const hosted = yield* Effect.orElseSucceed(ask(service, holder, (calls) => calls.Look()), () => null)
          if (hosted === null) {
            yield* endHolding(decision.holding)
            return Option.none()
          }
          yield* Effect.logInfo(
            `${service} was found again: process ${hosted.identity.pid}, kept by process ${holder.pid}`
          )
          return Option.some(yield* attach(service, holder, hosted, request, options))
        }
      }
    })

  /** Starts a shim and waits until it listens. */
  const startShim = (
    service: string
  ): Effect.Effect<
    ProcessIdentity,
    LaunchError | DetachUnavailable | KeeperFailed | ClaimUndecided | StateFolderError
  > =>
    Effect.gen(function*() {
      const [program, ...args] = shim
      const self = yield* platform.identify(process.pid)
      const launched = yield* detach({
        command: program,
        args: [...args, folder.path, service],
        env: {
          ...process.env,
          ...Option.isSome(self) && { [PidRecord.starterVariable]: PidRecord.encodeStarter(self.value) }
        },
        output: path.join(folder.path, `${Kept.nameOf(service)}.err`)
      })
      const claim = Kept.claimOf(place, service)
      const endsAt = performance.now() + startWithin
      const ended = Effect.raceFirst(Effect.as(launched.ended, true), Effect.as(Effect.yieldNow, false))
      while (true) {
        const over = yield* ended
        const state = yield* Claim.look(claim)
        if (state._tag === "Held") {
          const { holder, info } = state.holding
          if (holder.pid === launched.pid && info.listens) return holder
        }
        if (over && state._tag === "Held" && state.holding.holder.pid !== launched.pid) {
          const detail = `process ${state.holding.holder.pid} keeps it already`
          return yield* failed(service, "NotStarted", launched.pid, detail)
        }
        if (over) {
          const { bytes } = yield* launched.errors
          const last = new TextDecoder().decode(bytes).trim().split("\n").slice(-5).join("\n")
          return yield* failed(service, "NotStarted", launched.pid, last === "" ? "it ended at once" : last)
        }
        if (performance.now() >= endsAt) {
          const identity = yield* platform.identify(launched.pid)
          if (Option.isSome(identity)) yield* ShimClient.kill({ platform, shim: identity.value, leader: undefined })
          return yield* failed(service, "NotStarted", launched.pid, `it was not there within ${startWithin} ms`)
        }
        yield* clock.sleep(Duration.millis(poll))
      }
    })

  const launch = (service: string): Keeper.Keeper["launch"] => (command, options) =>
    Effect.gen(function*() {
      const request = yield* requestOf(command, options)
      const host = yield* startShim(service)
      const hosted = yield* ask(
        service,
        host,
        (calls) => calls.Launch({ ...request, digest: digestOf(request) })
      ).pipe(Effect.catch((cause) =>
        Effect.gen(function*() {
          // Whether it runs or not: nothing may be left of a launch that has failed.
          yield* endHost(service, host, 0)
          const error = Cause.squash(cause)
          return yield* isLaunchFailure(error) ? error : failed(service, "NoAnswer", host.pid, reasonOf(cause))
        })
      ))
      return yield* attach(service, host, hosted, request, options)
    })

  /** The name of what was ended. */
  const endOne = ({ name, state }: Kept.Found, which: (service: string) => boolean) =>
    Effect.gen(function*() {
      switch (state._tag) {
        case "Free":
          return undefined
        case "Undecided":
          return yield* state.error
        case "Stale": {
          const service = state.holding?.info.service ?? name
          if (state.holding === null || which(service)) {
            yield* sweep({ ...place, name, info: Kept.Facts }, service, state.holding)
          }
          return undefined
        }
        case "Held": {
          const { service } = state.holding.info
          if (!which(service)) return undefined
          yield* endHolding(state.holding)
          return service
        }
      }
    })

  const unkept = (service: string): Keeper.Keeper => ({
    find: () =>
      Effect.gen(function*() {
        // Nothing is kept under a name that is too long for a file.
        if (Kept.isKeepable(service)) {
          const claim = Kept.claimOf(place, service)
          const ended = yield* endOne({ name: claim.name, state: yield* Claim.look(claim) }, () => true)
          if (ended !== undefined) {
            yield* Effect.logInfo(`${service} was kept, and is ended: it is not to be kept any more`)
          }
        }
        return Option.none()
      }),
    launch: (command, options) =>
      Effect.map(platform.launch(command, options), (tree) => ({ tree, wasReady: false, ready: Effect.void })),
    leaving: () => false
  })

  return {
    keeper: (service) => ({ find: find(service), launch: launch(service), leaving }),
    unkept,
    kept: Kept.list(place),
    end: (which) =>
      Effect.gen(function*() {
        const found = yield* Kept.look(place)
        // One that can't be ended keeps no other from its end.
        const outcomes = yield* Effect.forEach(found, (one) => Effect.exit(endOne(one, which)), {
          concurrency: "unbounded"
        })
        const failure = outcomes.find(Exit.isFailure)
        if (failure !== undefined) return yield* Effect.failCause(failure.cause)
        return outcomes.flatMap((outcome) =>
          Exit.isSuccess(outcome) && outcome.value !== undefined ? [outcome.value] : []
        )
      }),
    leave: Effect.sync(() => {
      left = true
    }),
    stay: Effect.sync(() => {
      left = false
    })
  }
})

const launchFailures: ReadonlySet<unknown> = new Set(["LaunchError", "ContainmentUnavailable", "InvalidSpec"])

const isLaunchFailure = (error: unknown): error is LaunchError | InvalidSpec =>
  typeof error === "object" && error !== null && "_tag" in error && launchFailures.has(error._tag)
