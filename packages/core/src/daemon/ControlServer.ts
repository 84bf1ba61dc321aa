/**
 * Answers the control API for a `ServiceHost`, over any `RpcServer.Protocol`: `ControlProtocol` for sockets.
 *
 * Nothing here waits for a service but the calls that are asked to: a status is a snapshot. Nothing here keeps more for a
 * subscriber than its bounds say, and one that takes nothing is told so and not served any more.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as RpcServer from "effect/rpc/RpcServer"
import * as Stream from "effect/Stream"
import { InvalidSpec, SubscriberDropped, UnknownChild, UnknownPool } from "../Errors.ts"
import { versionProblem } from "../internal/ControlFrames.ts"
import * as ControlToken from "../internal/ControlToken.ts"
import { monotonic } from "../internal/Time.ts"
import { Control, Gate, type LogQuery, protocol, Subscriber, tokenHeader, versionHeader } from "./Control.ts"
import type { HostStatus } from "./HostStatus.ts"
import type { Entry } from "./LogLine.ts"
import type { From } from "./Logs.ts"
import type { ServiceHost } from "./ServiceHost.ts"

export interface Options {
  /** Without it nobody is asked for one: for a socket that only its user can reach. 64 hexadecimal digits. */
  readonly token?: Redacted.Redacted<string> | undefined
  /** How many events wait for a subscriber, default 4,096. */
  readonly events?: number | undefined
  /** How long a subscriber may take to take what it was given, in ms, default 30,000. */
  readonly takeWithin?: number | undefined
}

/** `Watch` takes no snapshots in shorter intervals, in ms. */
const shortestInterval = 20

/** Entries that are sent at once where there are many. */
const batch = 256

/** How long the server waits at its end until whoever asked for that has heard it, in ms. */
const farewell = 2000

// ------------------------------------------------------------------------------------------------------- the gate

/** Counts who has asked for a shutdown and has not heard yet how it went. */
class Leaving {
  private count = 0
  private readonly none = Latch.makeUnsafe(true)

  /** Around the whole of a request: its answer is on its way when this is over. */
  readonly through = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      this.count++
      this.none.closeUnsafe()
      return Effect.ensuring(
        effect,
        Effect.sync(() => {
          if (--this.count === 0) this.none.openUnsafe()
        })
      )
    })

  readonly wait = Effect.suspend(() => this.none.await).pipe(
    Effect.interruptible,
    Effect.timeoutOption(farewell),
    // Whoever opened the latch sends its answer in this very turn.
    Effect.andThen(Effect.yieldNow)
  )
}

/** Looks at the token and at the version of each request. */
export const gate = (token?: Redacted.Redacted<string>): Layer.Layer<Gate, InvalidSpec> => gateOf(token, new Leaving())

const gateOf = (token: Redacted.Redacted<string> | undefined, leaving: Leaving): Layer.Layer<Gate, InvalidSpec> =>
  Layer.effect(
    Gate,
    Effect.suspend(() => {
      if (token !== undefined && !/^[0-9a-f]{64}$/i.test(Redacted.value(token))) {
        return new InvalidSpec({ field: "token", problem: "must be 64 hexadecimal digits" })
      }
      const check = ControlToken.check(token)
      const refusal = (headers: Readonly<Record<string, string | undefined>>, tag: string) =>
        check(headers[tokenHeader]) ??
          (tag === "Hello" ? undefined : versionProblem(headers[versionHeader], protocol))
      return Effect.succeed(Gate.of((effect, { headers, rpc }) => {
        const error = refusal(headers, rpc._tag)
        if (error !== undefined) return Effect.fail(error)
        return Effect.suspend(() => {
          const dropped = Deferred.makeUnsafe<never, SubscriberDropped>()
          const drop = (error: SubscriberDropped) => Effect.asVoid(Deferred.fail(dropped, error))
          // Also one that hangs at the client: the error is in the answer of every subscription.
          const over = Deferred.await(dropped) as Effect.Effect<never>
          const served = Effect.raceFirst(Effect.provideService(effect, Subscriber, { drop }), over)
          return rpc._tag === "Shutdown" ? leaving.through(served) : served
        })
      }))
    })
  )

// -------------------------------------------------------------------------------------------------- subscriptions

/** A stream whose reader has `takeWithin` ms to take what it was given. */
const taken = <A, E, R>(
  subscription: string,
  takeWithin: number,
  stream: Stream.Stream<A, E, R>
): Stream.Stream<A, E, R | Subscriber> =>
  Stream.unwrap(Effect.gen(function*() {
    const { drop } = yield* Subscriber
    const clock = yield* Clock.Clock
    const pull = yield* Stream.toPull(stream)
    let given: { readonly at: number; readonly count: number } | undefined = undefined as typeof given
    const watch = Effect.gen(function*() {
      while (true) {
        yield* Effect.sleep(given === undefined ? takeWithin : Math.max(1, given.at + takeWithin - monotonic(clock)))
        if (given === undefined || monotonic(clock) - given.at < takeWithin) continue
        return yield* drop(new SubscriberDropped({ subscription, missed: given.count }))
      }
    })
    yield* Effect.forkScoped(watch)
    const next = Effect.suspend(() => {
      // Whoever asks for more has taken what was there.
      given = undefined
      return Effect.tap(pull, (chunk) => Effect.sync(() => (given = { at: monotonic(clock), count: chunk.length })))
    })
    return Stream.fromPull(Effect.succeed(next))
  }))

/** One snapshot at once, then one after changes, and a last one when there will be no more. */
const snapshots = (host: ServiceHost, every: number): Stream.Stream<HostStatus> =>
  Stream.unwrap(Effect.gen(function*() {
    const changed = Latch.makeUnsafe(true)
    let over = false
    yield* Stream.runForEachArray(host.events, () => changed.open).pipe(
      Effect.ensuring(Effect.sync(() => {
        over = true
        changed.openUnsafe()
      })),
      Effect.forkScoped
    )
    let first = true
    let last = false
    const next = Effect.gen(function*() {
      if (last) return yield* Cause.done()
      if (!first) yield* Effect.sleep(Math.max(shortestInterval, every))
      first = false
      yield* changed.await
      changed.closeUnsafe()
      last = over
      return [yield* host.status] as const
    })
    return Stream.fromPull(Effect.succeed(next))
  }))

/** The events, of which at most `capacity` wait. */
const events = (host: ServiceHost, capacity: number) =>
  Stream.unwrap(Effect.gen(function*() {
    const { drop } = yield* Subscriber
    const queue = yield* Queue.bounded<Stream.Success<ServiceHost["events"]>, Cause.Done>(capacity)
    yield* Stream.runForEach(host.events, (event) =>
      Queue.offerUnsafe(queue, event)
        ? Effect.void
        : drop(new SubscriberDropped({ subscription: "events", missed: Queue.sizeUnsafe(queue) + 1 }))).pipe(
        Effect.ensuring(Effect.sync(() => Queue.endUnsafe(queue))),
        Effect.forkScoped
      )
    return Stream.fromQueue(queue)
  }))

const logs = (host: ServiceHost, query: LogQuery): Stream.Stream<Entry, UnknownChild> =>
  Stream.unwrap(Effect.gen(function*() {
    const { services } = yield* host.status
    // A group stands for its services; a service that has the name of a group is meant itself.
    const children: Array<string> = []
    for (const name of query.services) {
      const found = services.some((service) => service.name === name)
        ? [name]
        : services.filter(({ groups }) => groups.includes(name)).map((service) => service.name)
      if (found.length === 0) return yield* new UnknownChild({ child: name })
      children.push(...found)
    }
    const asked = {
      ...(query.services.length === 0 ? {} : { children }),
      ...(query.stream === undefined ? {} : { stream: query.stream }),
      from: query.from satisfies From
    }
    return query.follow
      ? host.logs.follow(asked)
      : Stream.rechunk(Stream.fromArray(yield* host.logs.read(asked)), batch)
  }))

// ------------------------------------------------------------------------------------------------------ the calls

const poolOf = (host: ServiceHost, name: string) =>
  Effect.flatMap(host.pools, (pools) => {
    const pool = pools.get(name)
    return pool === undefined ? new UnknownPool({ pool: name }) : Effect.succeed(pool)
  })

const answers = (host: ServiceHost, options: Options) => {
  const takeWithin = options.takeWithin ?? 30_000
  return Control.of({
    Hello: () =>
      Effect.map(
        host.status,
        ({ host: { file, pid, startedAt, version } }) => ({ protocol, version, pid, startedAt, file })
      ),
    Status: () => host.status,
    Watch: ({ every }) => taken("status", takeWithin, snapshots(host, every)),
    Events: ({ follow }) =>
      taken(
        "events",
        takeWithin,
        follow ? events(host, options.events ?? 4096) : Stream.unwrap(Effect.map(host.recent, Stream.fromArray))
      ),
    Logs: (query) => taken("logs", takeWithin, logs(host, query)),
    Start: ({ names }) => host.start(names),
    Stop: ({ names }) => host.stop(names),
    Restart: ({ names }) => host.restart(names),
    Pause: ({ names }) => host.pause(names),
    Resume: ({ names, reload }) =>
      Effect.andThen(reload ? Stream.runDrain(host.reload) : Effect.void, host.resume(names)),
    Signal: ({ name, signal, target }) => host.signal(name, signal, target),
    Reload: () => host.reload,
    ReopenLogs: () => host.reopenLogs,
    Shutdown: ({ force, keep }) => host.shutdown({ force, keep }),
    PoolEnsure: ({ key, pool }) =>
      Effect.gen(function*() {
        const { child, incarnation } = yield* Effect.flatMap(poolOf(host, pool), ({ ensure }) => ensure(key))
        const { state } = yield* child.status
        return { incarnation, pid: "pid" in state ? state.pid : null }
      }),
    PoolShutdown: ({ key, pool }) =>
      Effect.flatMap(poolOf(host, pool), ({ shutdown }) => shutdown(key)).pipe(
        // Of a plan, and none is given.
        Effect.catchTag("InvalidSpec", Effect.die)
      )
  })
}

/** The answers to all calls, for `RpcTest` and servers of one's own. */
export const handlers = (host: ServiceHost, options: Options = {}) => Control.toLayer(answers(host, options))

/**
 * Serves a host over the protocol that is given, for as long as the layer lives. At its end it waits, shortly, until
 * whoever asked for a shutdown has heard how it went.
 */
export const layer = (
  host: ServiceHost,
  options: Options = {}
): Layer.Layer<never, InvalidSpec, RpcServer.Protocol> =>
  Layer.suspend(() => {
    const leaving = new Leaving()
    const serve = Effect.andThen(
      Effect.forkScoped(RpcServer.make(Control, { disableFatalDefects: true })),
      Effect.addFinalizer(() => leaving.wait)
    )
    return Layer.effectDiscard(serve).pipe(
      Layer.provide([handlers(host, options), gateOf(options.token, leaving)])
    )
  })
