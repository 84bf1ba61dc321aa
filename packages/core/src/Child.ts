/**
 * The actor: one supervised child.
 *
 * A child is a process tree or any effect that is started, watched, ended and started again by its policies. Its scope
 * owns it: when the scope closes the child is stopped, and nothing of it is left.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as PlatformError from "effect/PlatformError"
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ChildSpec from "./ChildSpec.ts"
import type { ChildState } from "./ChildState.ts"
import type { ChildEvent, ChildStatus } from "./ChildStatus.ts"
import type { Keeper } from "./daemon/Keeper.ts"
import type { SignalReport } from "./Engine.ts"
import {
  type ChildClosed,
  type ChildFailed,
  type ChildStopped,
  type InvalidSpec,
  NotRunning,
  type Overtaken
} from "./Errors.ts"
import { ChildActor, noOwner } from "./internal/ChildActor.ts"
import * as EffectBody from "./internal/EffectBody.ts"
import * as ProcessBody from "./internal/ProcessBody.ts"
import * as Siblings from "./internal/Siblings.ts"
import type { Usage } from "./Limits.ts"
import type { Output } from "./Output.ts"
import * as Probe from "./Probe.ts"
import type { LaunchOptions, ProcessPlatform } from "./ProcessPlatform.ts"
import * as Restart from "./Restart.ts"
import * as ShutdownPlan from "./ShutdownPlan.ts"

/** The policies of a child. All are optional. */
export interface Policies {
  /** Default: `Restart.permanent()`. */
  readonly restart?: Restart.Policy | undefined
  /** How it is ended. Default: SIGTERM to the tree, 5 s, kill; an effect is interrupted and has as long. */
  readonly shutdown?: ShutdownPlan.ShutdownPlan | undefined
  /** What makes it ready. Without it a child is ready as soon as it was launched. */
  readonly readiness?: Probe.Probe | Probe.Readiness | undefined
  /** What is asked while it is ready; a probe that fails ends it, and the restart policy decides. */
  readonly liveness?: Probe.Liveness | ReadonlyArray<Probe.Liveness> | undefined
  /** In a supervisor: the children that have to come first; a name alone means until it is ready. */
  readonly dependsOn?: ReadonlyArray<string | ChildSpec.Dependency> | undefined
  /** In a supervisor: whether its end by itself counts for `autoShutdown`. Default: false. */
  readonly significant?: boolean | undefined
}

/** A port of this machine at all its addresses, or at one of them. */
export type Port = number | { readonly host: string; readonly port: number }

/** A process tree as a child. `launch` options are those of `ProcessPlatform.launch`. */
export interface Options extends Policies, Pick<LaunchOptions, "require" | "limits" | "output" | "drain"> {
  readonly command: ChildProcess.StandardCommand
  /**
   * The ports at which it is to listen. While somebody else listens at one of them it is not launched: its start fails
   * with `PortInUse`, which says who, and the restart policy decides. Whoever is about to end is waited for up to 2 s; what
   * a host that has died has left there is ended first; nobody else is touched.
   */
  readonly ports?: ReadonlyArray<Port> | undefined
  /**
   * Who hosts its tree instead of this process, so that it can go on when this process ends. An `output` that holds the
   * child back holds the reading here only.
   */
  readonly keeper?: Keeper | undefined
}

const policiesOf = (policies: Policies): Omit<ChildSpec.ChildSpec, "id" | "body"> => ({
  restart: policies.restart ?? Restart.permanent(),
  shutdown: policies.shutdown ?? ShutdownPlan.default,
  readiness: policies.readiness === undefined
    ? undefined
    : "probe" in policies.readiness
    ? policies.readiness
    : Probe.readiness(policies.readiness),
  liveness: policies.liveness === undefined
    ? []
    : "probe" in policies.liveness
    ? [policies.liveness]
    : policies.liveness,
  dependsOn: (policies.dependsOn ?? []).map((dependency) =>
    typeof dependency === "string" ? { child: dependency, until: "ready" } : dependency
  ),
  significant: policies.significant ?? false
})

/** A spec from any body; what `make`, `effect` and `Supervisor.child` are built on. */
export const custom = <R>(id: string, body: ChildSpec.Body<R>, policies: Policies = {}): ChildSpec.ChildSpec<R> => ({
  id,
  body,
  ...policiesOf(policies)
})

/**
 * A process tree as a child. `id` names it in status, events, logs and metrics: not empty, no slash.
 *
 * @example
 * ```ts
 * import { Child, Probe, Restart } from "@treeline/core"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect } from "effect"
 * import { ChildProcess } from "effect/process"
 *
 * const worker = Child.make("worker", {
 *   command: ChildProcess.make("sh", ["-c", "echo ready; exec sleep 60"]),
 *   readiness: Probe.line("ready"),
 *   restart: Restart.transient({ successCodes: [0, 3] })
 * })
 * const program = Effect.gen(function*() {
 *   const child = yield* Child.start(worker)
 *   yield* child.awaitReady
 *   return (yield* child.status).state._tag
 * })
 * const state = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(PosixPlatform.layer)))
 * if (state !== "Ready") throw new Error(state)
 * ```
 */
export const make = (id: string, options: Options): ChildSpec.ChildSpec<ProcessPlatform> => {
  const { command, drain, keeper, limits, output, ports = [], require } = options
  const policies = policiesOf(options)
  const { readiness, shutdown } = policies
  return {
    id,
    body: ProcessBody.make(command, { require, limits, output, drain }, shutdown, readiness?.probe, ports, keeper),
    ...policies
  }
}

/**
 * An effect as a child, each incarnation in a scope of its own; it is interrupted to end it. Given as a function, it says
 * itself when it is ready, by running what it is given; how often does not matter.
 *
 * @example
 * ```ts
 * import { Child } from "@treeline/core"
 * import { Effect } from "effect"
 *
 * const ticker = Child.effect("ticker", (ready) => Effect.andThen(ready, Effect.never))
 * const program = Effect.flatMap(Child.start(ticker), (child) => child.awaitReady)
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 */
export const effect = <E, R>(
  id: string,
  body: Effect.Effect<unknown, E, R> | ((ready: Effect.Effect<void>) => Effect.Effect<unknown, E, R>),
  policies: Policies = {}
): ChildSpec.ChildSpec<Exclude<R, Scope.Scope>> =>
  custom(id, typeof body === "function" ? EffectBody.make(body, true) : EffectBody.make(() => body, false), policies)

/** A piece of what a child wrote. */
export interface Chunk {
  readonly incarnation: number
  readonly stream: "stdout" | "stderr"
  readonly bytes: Uint8Array
}

/** What one incarnation writes. */
export interface Outputs {
  readonly incarnation: number
  readonly stdout: Output
  readonly stderr: Output
}

/** A started child. */
export interface Child {
  readonly id: string
  /** Wants it up, and forgives earlier failures; returns when it is starting, waits for something, or is up already. */
  readonly start: Effect.Effect<void, Overtaken | ChildClosed | ChildFailed>
  /**
   * Ends it and returns when its tree is empty. A stop beats every start and restart that was asked for before it. A
   * second stop with a shorter plan shortens the first.
   */
  readonly stop: (plan?: ShutdownPlan.ShutdownPlan) => Effect.Effect<void, ChildClosed | InvalidSpec>
  /** Ends it and starts it again when its tree is empty; returns the new incarnation's number. */
  readonly restart: Effect.Effect<number, Overtaken | ChildClosed | ChildFailed>
  /** No restarts and no probes until `resume`, `start` or `restart`; what runs goes on. */
  readonly pause: Effect.Effect<void, ChildClosed>
  readonly resume: Effect.Effect<void, ChildClosed>
  /** Sends a signal to its group (or another target), and nothing else. */
  readonly signal: (
    signal: ChildProcess.Signal,
    target?: ShutdownPlan.Target
  ) => Effect.Effect<SignalReport, NotRunning>
  /** Writes to its standard input. */
  readonly write: (input: string | Uint8Array) => Effect.Effect<void, NotRunning | PlatformError.PlatformError>
  readonly status: Effect.Effect<ChildStatus>
  /** What its processes use now; null while it has none. */
  readonly usage: Effect.Effect<Usage | null>
  /** The last events and then all that come until the scope ends; a reader that is slower than 256 events loses the oldest. */
  readonly events: Stream.Stream<ChildEvent>
  /** What it writes, over all incarnations: what is still kept of the current one, then all that comes. */
  readonly output: Stream.Stream<Chunk, PlatformError.PlatformError>
  /** The same, one incarnation after another, so that the end of each is seen. A child that is an effect has none. */
  readonly outputs: Stream.Stream<Outputs>
  /** Waits until it is ready; fails when it has failed or was stopped. The caller bounds the wait. */
  readonly awaitReady: Effect.Effect<void, ChildFailed | ChildStopped | ChildClosed>
  /** Waits until it is down and not coming back: the state it is in then. */
  readonly awaitEnd: Effect.Effect<Extract<ChildState, { readonly _tag: "Stopped" | "Failed" }>, ChildClosed>
}

/** Events that wait for a slow reader. */
const eventsCapacity = 256

/** Incarnations whose output waits for a slow reader; each keeps at most what its output policy says. */
const outputCapacity = 16

const outputsOf = (actor: ChildActor): Stream.Stream<Outputs> =>
  actor.events.streamOf<Outputs>(outputCapacity, (queue) => {
    let last = 0
    // Taken when it is launched, because the reader may come to it when there is a newer one.
    const offer = () => {
      const tree = actor.latest?.tree
      if (tree === undefined || actor.incarnation === last) return
      last = actor.incarnation
      Queue.offerUnsafe(queue, { incarnation: last, stdout: tree.stdout, stderr: tree.stderr })
    }
    offer()
    return ({ change, incarnation }) => {
      // Past events come first, and are of trees that have gone.
      if (change._tag === "State" && change.to._tag === "Running" && incarnation === actor.incarnation) offer()
    }
  })

const outputOf = (outputs: Stream.Stream<Outputs>): Stream.Stream<Chunk, PlatformError.PlatformError> =>
  Stream.flatMap(outputs, (output) => {
    const { incarnation } = output
    const chunks = (stream: Chunk["stream"]) =>
      Stream.map(output[stream].stream, (bytes): Chunk => ({ incarnation, stream, bytes }))
    return Stream.merge(chunks("stdout"), chunks("stderr"))
  })

/** The public face of an actor; internal. */
export const fromActor = (actor: ChildActor): Child => {
  const running = Effect.suspend(() => {
    const found = treeOf(actor)
    return found === undefined
      ? Effect.fail(new NotRunning({ child: actor.id, state: actor.tag }))
      : Effect.succeed(found)
  })
  const outputs = outputsOf(actor)
  return {
    id: actor.id,
    start: actor.start,
    stop: (plan) =>
      plan === undefined
        ? actor.stop()
        : Effect.flatMap(Effect.fromResult(ShutdownPlan.validate(plan)), (validated) => actor.stop(validated)),
    restart: actor.restart,
    pause: actor.pause,
    resume: actor.resume,
    signal: (signal, target) => Effect.flatMap(running, (tree) => tree.signal(signal, target)),
    write: (input) =>
      Effect.flatMap(running, (tree) =>
        Stream.run(
          typeof input === "string" ? Stream.encodeText(Stream.succeed(input)) : Stream.succeed(input),
          tree.stdin
        )),
    status: actor.status,
    usage: Effect.suspend(() => treeOf(actor)?.usage ?? Effect.succeed(null)),
    events: actor.events.stream(eventsCapacity),
    output: outputOf(outputs),
    outputs,
    awaitReady: actor.awaitReady(false),
    awaitEnd: actor.awaitState((state) =>
      state._tag === "Stopped" || state._tag === "Failed" ? Exit.succeed(state) : undefined
    )
  }
}

const treeOf = (actor: ChildActor) => actor.running?.tree

/**
 * Starts a child; it lives until the scope closes. A launch that fails counts like a crash, so it is no error here: see
 * `awaitReady`, `status` and `events`. Children that were started one after another in one scope are stopped together.
 */
// The span `Child.start` is the actor's, as for the children of a supervisor.
export const start = Effect.fnUntraced(function*<R>(spec: ChildSpec.ChildSpec<R>) {
  const validated = yield* Effect.fromResult(ChildSpec.validate(spec))
  const scope = yield* Effect.scope
  const actor = yield* Effect.uninterruptible(Effect.gen(function*() {
    const actor = yield* ChildActor.make(validated, noOwner)
    yield* Siblings.addClose(scope, actor.close)
    return actor
  }))
  yield* Effect.ignore(actor.start)
  return fromActor(actor)
})
