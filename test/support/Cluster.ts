/**
 * A cluster of several runners in one process: `Sharding` of effect/cluster on a store that holds its locks as a SQL store
 * with leases does, messages in memory, calls from runner to runner by hand. Each runner has a host of its own on one
 * simulated system. Everything is on the test clock. A store can be taken away from a single runner, and a runner can be
 * stopped: none of its timers fires then, until it goes on or its watchdog has ended it.
 */
import { ProcessPlatform } from "@treeline/core"
import { ShardLease, Watchdog } from "@treeline/core/cluster"
import { SimulatedPlatform } from "@treeline/core/testing"
import { Clock, Context, Deferred, Duration, Effect, Exit, Layer, Option, Schema, Scope } from "effect"
import {
  ClusterError,
  Message,
  MessageStorage,
  Reply,
  RunnerAddress,
  RunnerHealth,
  Runners,
  RunnerStorage,
  Sharding,
  ShardingConfig,
  Snowflake
} from "effect/cluster"

/** Fast, and with few shards; a stop may take 3 s here. */
export const config = {
  shardsPerGroup: 12,
  shardLockDisableAdvisory: true,
  shardLockExpiration: 10_000,
  shardLockRefreshInterval: 2000,
  entityTerminationTimeout: 8000,
  refreshAssignmentsInterval: 500,
  entityMessagePollInterval: 500,
  entityReplyPollInterval: 100,
  sendRetryInterval: 100,
  simulateRemoteSerialization: false
} satisfies Partial<typeof ShardingConfig.ShardingConfig.Service>

/** How a runner reaches the store. */
export interface Link {
  /** ms that each call and its answer take. */
  latency: number
  /** What becomes of calls: they never arrive, or they are carried out and the answer is lost. */
  broken: "requests" | "answers" | undefined
  /** The runner is stopped or dead. */
  cut: boolean
}

const expiration = Duration.toMillis(config.shardLockExpiration)

/** As `SqlRunnerStorage` with leases: a lock is another's when it was not renewed for longer than the expiration. */
class Store {
  private readonly runners = new Map<string, { readonly encoded: string; healthy: boolean; heartbeat: number }>()
  private readonly locks = new Map<string, { address: string; at: number }>()
  private readonly clock: Clock.Clock
  private machines = 0

  constructor(clock: Clock.Clock) {
    this.clock = clock
  }

  private get now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  private holderOf(shard: string): string | undefined {
    const lock = this.locks.get(shard)
    return lock !== undefined && lock.at >= this.now - expiration ? lock.address : undefined
  }

  /** Whose a shard is by the store, whichever life of the runner it is; undefined when it is free. */
  ownerOf(shard: string): string | undefined {
    return this.holderOf(shard)?.replace(/#[^:]*/, "")
  }

  encoded(link: Link): RunnerStorage.Encoded {
    const call = <A>(run: () => A): Effect.Effect<A, ClusterError.PersistenceError> =>
      Effect.gen(function*() {
        // A call without an answer ends by the deadline of the SQL storage.
        const away = Effect.andThen(
          Effect.sleep(expiration / 3),
          Effect.fail(new ClusterError.PersistenceError({ cause: "no answer" }))
        )
        if (link.cut || link.broken === "requests") return yield* away
        if (link.latency > 0) yield* Effect.sleep(link.latency)
        const answer = run()
        if (link.latency > 0) yield* Effect.sleep(link.latency)
        return link.cut || link.broken !== undefined ? yield* away : answer
      })
    return {
      getRunners: call(() =>
        [...this.runners.values()].filter(({ heartbeat }) => heartbeat > this.now - expiration)
          .map(({ encoded, healthy }) => [encoded, healthy] as const)
      ),
      register: (address, encoded, healthy) =>
        call(() => {
          this.runners.set(address, { encoded, healthy, heartbeat: this.now })
          return ++this.machines
        }),
      unregister: (address) => call(() => void this.runners.delete(address)),
      setRunnerHealth: (address, healthy) =>
        call(() => {
          const runner = this.runners.get(address)
          if (runner !== undefined) runner.healthy = healthy
        }),
      acquire: (address, shards) =>
        call(() =>
          shards.filter((shard) => {
            const owner = this.holderOf(shard)
            if (owner !== undefined && owner !== address) return false
            this.locks.set(shard, { address, at: this.now })
            return true
          })
        ),
      refresh: (address, shards) =>
        call(() => {
          const runner = this.runners.get(address)
          if (runner !== undefined) runner.heartbeat = this.now
          return shards.filter((shard) => {
            const lock = this.locks.get(shard)
            if (lock?.address !== address) return false
            lock.at = this.now
            return true
          })
        }),
      release: (address, shard) =>
        call(() => {
          if (this.locks.get(shard)?.address === address) this.locks.delete(shard)
        }),
      releaseAll: (address) =>
        call(() => {
          for (const [shard, lock] of this.locks) if (lock.address === address) this.locks.delete(shard)
        })
    }
  }

  /** Takes a lock from its owner, as somebody with a hand in the database would. */
  steal(shard: string): void {
    this.locks.delete(shard)
  }
}

/** A runner's process: what SIGSTOP, SIGCONT and SIGKILL do to it, as far as that can be seen from outside. */
class Host {
  readonly clock: Clock.Clock
  readonly pids: Array<number> = []
  state: "running" | "stopped" | "dead" = "running"
  sharding: typeof Sharding.Sharding.Service | undefined = undefined
  private changed = Deferred.makeUnsafe<void>()

  constructor(clock: Clock.Clock) {
    this.clock = Object.assign(Object.create(clock) as Clock.Clock, {
      sleep: (duration: Duration.Duration) => Effect.andThen(clock.sleep(duration), this.awaitRunning)
    })
  }

  set(state: Host["state"]): void {
    if (this.state === "dead") return
    this.state = state
    Deferred.doneUnsafe(this.changed, Exit.void)
    this.changed = Deferred.makeUnsafe()
  }

  get awaitChange(): Effect.Effect<void> {
    return Deferred.await(this.changed)
  }

  readonly awaitRunning: Effect.Effect<void> = Effect.suspend(() =>
    // What is left of a dead one is closed at the end of the test.
    this.state === "stopped" ? Effect.andThen(this.awaitChange, this.awaitRunning) : Effect.void
  )
}

const codecFor = Schema.toCodecJson as never

/** Hands messages from runner to runner. */
const transport = (hosts: ReadonlyMap<string, Host>) =>
  Effect.flatMap(Snowflake.makeGenerator, (generator) =>
    Effect.provideService(
      Runners.make({
        codecFor,
        ping: () => Effect.void,
        onRunnerUnavailable: () => Effect.void,
        notify: ({ address }) => {
          const host = Option.isSome(address) ? hosts.get(String(address.value)) : undefined
          return host?.state === "running" ? host.sharding?.pollStorage ?? Effect.void : Effect.void
        },
        send: ({ address, message }) =>
          Effect.gen(function*() {
            const host = hosts.get(String(address))
            if (host !== undefined) yield* host.awaitRunning
            const target = host?.state === "running" ? host.sharding : undefined
            if (host === undefined || target === undefined) {
              return yield* new ClusterError.RunnerUnavailable({ address })
            }
            if (message._tag === "OutgoingEnvelope") {
              return yield* target.send(new Message.IncomingEnvelope({ envelope: message.envelope }))
            }
            const reply = yield* Deferred.make<Reply.Encoded>()
            const envelope = yield* Effect.orDie(Message.serializeRequest(message, codecFor))
            yield* target.send(
              new Message.IncomingRequest({
                envelope,
                lastSentReply: Option.none(),
                codecFor,
                respond: (answer) =>
                  Effect.asVoid(Deferred.into(Effect.orDie(Reply.serialize(answer, codecFor)), reply))
              })
            )
            const decode = Schema.decodeEffect(Reply.Reply(message.rpc, codecFor) as Schema.Codec<never, unknown>)
            const dies = Effect.suspend(function again(): Effect.Effect<never, ClusterError.RunnerUnavailable> {
              return host.state === "dead"
                ? Effect.fail(new ClusterError.RunnerUnavailable({ address }))
                : Effect.andThen(host.awaitChange, Effect.suspend(again))
            })
            yield* message.respond(yield* Effect.orDie(decode(yield* Effect.raceFirst(Deferred.await(reply), dies))))
          }) as never
      }),
      Snowflake.Generator,
      generator
    ))

/** A runner. */
export interface Runner {
  readonly address: string
  readonly link: Link
  /** What code on this runner runs in. */
  readonly context: Context.Context<Sharding.Sharding | ProcessPlatform.ProcessPlatform>
  readonly lease: typeof ShardLease.ShardLease.Service
  /** When its watchdog would kill it; undefined: never. */
  readonly deadline: () => number | undefined
  /** Stops it: what it has launched goes on. */
  readonly stop: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  readonly isDead: () => boolean
  /** Ends it in good order. */
  readonly close: Effect.Effect<void>
}

/** What a runner is without, to see what becomes of it. */
export interface RunnerOptions {
  readonly without?: "lease" | "watchdog" | undefined
}

export interface Cluster {
  readonly store: Store
  /** Requests in storage that wait for an answer: `Keep key`. */
  readonly unanswered: () => ReadonlyArray<string>
  /** Starts a runner with what runs on it. */
  readonly runner: <E>(
    port: number,
    live: Layer.Layer<never, E, Sharding.Sharding | ShardLease.ShardLease | ProcessPlatform.ProcessPlatform>,
    options?: RunnerOptions
  ) => Effect.Effect<Runner, E, Scope.Scope>
}

/** A cluster without runners. */
export const make = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const simulation = yield* SimulatedPlatform.Simulation
  const store = new Store(clock)
  const messages = yield* MessageStorage.MemoryDriver.pipe(
    Effect.provide(MessageStorage.MemoryDriver.layer)
  )
  const hosts = new Map<string, Host>()

  const runner: Cluster["runner"] = (port, live, { without } = {}) =>
    Effect.gen(function*() {
      const address = RunnerAddress.make("localhost", port)
      const link: Link = { latency: 0, broken: undefined, cut: false }
      const host = new Host(clock)
      let deadline: number | undefined
      const system = yield* simulation.newHost
      const platform = ProcessPlatform.ProcessPlatform.of({
        ...system,
        launch: (command, options) =>
          Effect.tap(system.launch(command, options), ({ pid }) => Effect.sync(() => host.pids.push(pid)))
      })
      const storage = Layer.effect(
        MessageStorage.MessageStorage,
        Effect.flatMap(Snowflake.makeGenerator, (generator) =>
          Effect.provideService(MessageStorage.makeEncoded(messages.encoded), Snowflake.Generator, generator))
      )
      const locks = Layer.succeed(RunnerStorage.RunnerStorage, RunnerStorage.makeEncoded(store.encoded(link)))
      const watchdog = Layer.succeed(Watchdog.Watchdog, {
        start: Effect.succeed({
          set: (at: number | undefined) =>
            Effect.sync(() =>
              void (deadline = at)
            )
        })
      })
      const layer = Sharding.layer.pipe(
        Layer.provide(Layer.effect(Runners.Runners, transport(hosts))),
        Layer.provide([storage, RunnerHealth.layerNoop]),
        Layer.provideMerge(
          without === "lease"
            ? Layer.merge(ShardLease.layerNone, locks)
            : Layer.provide(ShardLease.layer(), [locks, watchdog])
        ),
        Layer.provide(ShardingConfig.layer({ ...config, runnerAddress: Option.some(address) })),
        Layer.provideMerge(Layer.succeed(ProcessPlatform.ProcessPlatform, platform))
      )
      const scope = yield* Scope.fork(yield* Effect.scope)
      const onHost = Effect.provideService(Clock.Clock, host.clock)
      const context = yield* Effect.orDie(Scope.provide(onHost(Layer.build(layer)), scope))
      host.sharding = Context.get(context, Sharding.Sharding)
      hosts.set(String(address), host)
      yield* Scope.addFinalizer(
        scope,
        Effect.sync(() => {
          if (hosts.get(String(address)) === host) hosts.delete(String(address))
        })
      )
      yield* Scope.provide(onHost(Effect.provideContext(Layer.build(live), context)), scope)

      /** What the watchdog does, and then the guardian. */
      const die = Effect.gen(function*() {
        host.set("dead")
        for (const pid of host.pids) yield* simulation.kill(pid)
      })
      const stop = Effect.gen(function*() {
        if (host.state !== "running") return
        host.set("stopped")
        link.cut = true
        const watch = Effect.suspend(function again(): Effect.Effect<void> {
          if (without !== undefined) return Effect.never
          const left = deadline === undefined ? 1000 : deadline - clock.currentTimeMillisUnsafe()
          return left <= 0 ? die : Effect.andThen(clock.sleep(Duration.millis(left)), Effect.suspend(again))
        })
        const resumed = Effect.suspend(function again(): Effect.Effect<void> {
          return host.state === "running" ? Effect.void : Effect.andThen(host.awaitChange, Effect.suspend(again))
        })
        yield* Effect.forkDetach(Effect.raceFirst(watch, Effect.andThen(resumed, Effect.sync(() => link.cut = false))))
      })
      return {
        address: `localhost:${port}`,
        link,
        context,
        lease: Context.get(context, ShardLease.ShardLease),
        deadline: () => deadline,
        stop,
        resume: Effect.sync(() => host.set("running")),
        isDead: () => host.state === "dead",
        close: Effect.andThen(
          Effect.sync(() => host.set("running")),
          Scope.close(scope, Exit.void)
        )
      }
    })

  const cluster: Cluster = {
    store,
    unanswered: () =>
      [...messages.unprocessed].flatMap((envelope) =>
        envelope._tag === "Request" ? [`${envelope.tag} ${envelope.address.entityId}`] : []
      ),
    runner
  }
  return cluster
})
