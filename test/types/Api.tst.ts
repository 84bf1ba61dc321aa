import {
  type ArchiveStore,
  Child,
  type ChildSpec,
  type Containment,
  DirectoryState,
  Endpoint,
  type Errors,
  ExitStatus,
  type Network,
  Pool,
  type ProcessPlatform,
  type ProcessTree,
  ShutdownPlan,
  Spawner,
  Supervisor
} from "@treeline/core"
import { PoolEntity, type ShardLease } from "@treeline/core/cluster"
import { Lifecycle, SimulatedPlatform } from "@treeline/core/testing"
import { PosixPlatform } from "@treeline/platform-posix"
import { Context, Effect, type FileSystem, type Layer, type Path, Schema, type Scope } from "effect"
import type { Sharding } from "effect/cluster"
import { ChildProcess, type ChildProcessSpawner } from "effect/process"
import { describe, expect, test } from "tstyche"

describe("ProcessPlatform", () => {
  test("launch is scoped and its errors are listed", () => {
    type Launch = ProcessPlatform.ProcessPlatform["Service"]["launch"]
    expect<ReturnType<Launch>>().type.toBe<
      Effect.Effect<
        ProcessTree.ProcessTree,
        Errors.LaunchError | Errors.ContainmentUnavailable | Errors.InvalidSpec,
        Scope.Scope
      >
    >()
  })

  test("a pipeline is no single process", () => {
    type Command = Parameters<ProcessPlatform.ProcessPlatform["Service"]["launch"]>[0]
    expect<Command>().type.toBeAssignableFrom(ChildProcess.make("a", []))
    expect<Command>().type.not.toBeAssignableFrom(
      ChildProcess.make("a", []).pipe(ChildProcess.pipeTo(ChildProcess.make("b", [])))
    )
  })

  test("the platform needs nothing and the spawner needs a platform", () => {
    expect(PosixPlatform.layer).type.toBe<Layer.Layer<ProcessPlatform.ProcessPlatform>>()
    expect(Spawner.layer).type.toBe<
      Layer.Layer<ChildProcessSpawner.ChildProcessSpawner, never, ProcessPlatform.ProcessPlatform>
    >()
  })
})

class Database extends Context.Service<Database, { readonly ask: Effect.Effect<string, "refused"> }>()("Database") {}

const command = ChildProcess.make("a", [])
const body = Effect.gen(function*() {
  const database = yield* Database
  yield* Effect.acquireRelease(database.ask, () => Effect.void)
})

describe("children", () => {
  test("a process needs a platform, an effect what its body needs, without the scope", () => {
    expect(Child.make("a", { command })).type.toBe<ChildSpec.ChildSpec<ProcessPlatform.ProcessPlatform>>()
    expect(Child.effect("a", Effect.never)).type.toBe<ChildSpec.ChildSpec>()
    expect(Child.effect("a", body)).type.toBe<ChildSpec.ChildSpec<Database>>()
    expect(Child.effect("a", (ready) => Effect.andThen(ready, body))).type.toBe<ChildSpec.ChildSpec<Database>>()
  })

  test("starting is scoped, needs what the specs need, and fails for a spec that is refused", () => {
    expect(Child.start(Child.effect("a", Effect.never))).type.toBe<
      Effect.Effect<Child.Child, Errors.InvalidSpec, Scope.Scope>
    >()
    expect(Child.start(Child.make("a", { command }))).type.toBe<
      Effect.Effect<Child.Child, Errors.InvalidSpec, ProcessPlatform.ProcessPlatform | Scope.Scope>
    >()
    expect(Supervisor.start([Child.make("a", { command }), Child.effect("b", body)])).type.toBe<
      Effect.Effect<
        Supervisor.Supervisor,
        Errors.InvalidSpec,
        ProcessPlatform.ProcessPlatform | Database | Scope.Scope
      >
    >()
    expect(Supervisor.child("inner", [Child.effect("b", body)])).type.toBe<ChildSpec.ChildSpec<Database>>()
  })

  test("the errors of the operations are listed", () => {
    expect<Child.Child["start"]>().type.toBe<
      Effect.Effect<void, Errors.Overtaken | Errors.ChildClosed | Errors.ChildFailed>
    >()
    expect<ReturnType<Child.Child["stop"]>>().type.toBe<Effect.Effect<void, Errors.ChildClosed | Errors.InvalidSpec>>()
    expect<Child.Child["awaitReady"]>().type.toBe<
      Effect.Effect<void, Errors.ChildFailed | Errors.ChildStopped | Errors.ChildClosed>
    >()
  })

  test("a process has a command, and a policy is one of three", () => {
    expect(Child.make).type.not.toBeCallableWith("a", {})
    expect(Child.effect).type.not.toBeCallableWith("a", Effect.never, { restart: "permanent" })
    expect(Child.make).type.not.toBeCallableWith("a", { command, dependsOn: [{ child: "b", until: "gone" }] })
  })
})

describe("the kit", () => {
  test("own specs need what the platform's layer does not give", () => {
    const children = () => [Child.make("a", { command }), Child.effect("b", body)]
    expect(Lifecycle.checkSpecs(children, SimulatedPlatform.layer())).type.toBe<
      Effect.Effect<Lifecycle.Report, Lifecycle.LifecycleViolation | Errors.InvalidSpec, Database>
    >()
    expect(Lifecycle.checkSpecs(() => [Child.make("a", { command })], PosixPlatform.layer)).type.toBe<
      Effect.Effect<Lifecycle.Report, Lifecycle.LifecycleViolation | Errors.InvalidSpec>
    >()
  })
})

describe("values", () => {
  test("a level is one of four", () => {
    expect<Containment.Level>().type.toBe<"group" | "marked" | "tagged" | "sealed">()
  })

  test("an exit status is folded by all of its cases", () => {
    expect(ExitStatus.match).type.not.toBeCallableWith(ExitStatus.unknown, { Exited: () => 1 })
  })

  test("a plan is made of known signals", () => {
    expect(ShutdownPlan.signal).type.toBeCallableWith("SIGTERM", { target: "group", within: "1 second" })
    expect(ShutdownPlan.signal).type.not.toBeCallableWith("SIGNOTHING")
    expect(ShutdownPlan.signal).type.not.toBeCallableWith("SIGTERM", { target: "everybody" })
  })
})

describe("pools", () => {
  class Store extends Context.Service<Store, { readonly load: (key: string) => Effect.Effect<void, "offline"> }>()(
    "Store"
  ) {}
  const build = () => Effect.succeed({ child: Child.make("a", { command }) })

  test("without an endpoint there is none, and a build that can't fail adds no error", () => {
    expect(Pool.make({ build })).type.toBe<
      Effect.Effect<Pool.Pool, Errors.InvalidSpec, ProcessPlatform.ProcessPlatform | Scope.Scope>
    >()
  })

  test("a handle has what the endpoint resolves to; all errors and requirements are in the types", () => {
    const pool = Pool.make({
      build: (key, { token }) =>
        Effect.gen(function*() {
          if (key === "") return yield* Effect.fail("no key" as const)
          return {
            child: Child.make("a", { command: ChildProcess.make("a", [], { env: { TOKEN: token } }) }),
            endpoint: (child: Child.Child) =>
              child.status.pipe(Effect.andThen(Effect.fail("mute" as const)), Effect.as(80))
          }
        }),
      hooks: {
        restore: ({ key }) => Store.use((store) => store.load(key)),
        retire: () => Effect.addFinalizer(() => Effect.void)
      },
      idle: { after: "1 minute", activity: ({ endpoint }) => endpoint > 0 ? Effect.succeed("busy") : Effect.fail("x") }
    })
    expect(pool).type.toBe<
      Effect.Effect<
        Pool.Pool<number, "no key" | "mute" | "offline">,
        Errors.InvalidSpec,
        ProcessPlatform.ProcessPlatform | Store | Scope.Scope
      >
    >()
  })
})

describe("Endpoint", () => {
  test("what a child tells is an address, or what a function makes of a line", () => {
    expect(Endpoint.fromLine(/x/)).type.toBe<
      (child: Child.Child) => Effect.Effect<Endpoint.TcpAddress, Errors.NotAnnounced | Errors.InvalidSpec>
    >()
    expect(Endpoint.fromLine((line) => line === "" ? undefined : { line })).type.toBe<
      (child: Child.Child) => Effect.Effect<{ line: string }, Errors.NotAnnounced | Errors.InvalidSpec>
    >()
  })

  test("a handle carries the type of its endpoint, and failures of both are listed", () => {
    const pool = Pool.make({
      build: Effect.fnUntraced(function*() {
        const port = yield* Endpoint.port()
        const child = Child.make("server", { command: ChildProcess.make("server", []) })
        return { child, endpoint: () => Effect.succeed(port) }
      })
    })
    expect<Effect.Success<typeof pool>>().type.toBe<
      Pool.Pool<Endpoint.TcpAddress, Errors.EndpointUnavailable | Errors.InvalidSpec>
    >()
  })

  test("addresses are what probes take", () => {
    expect<Network.Address>().type.toBeAssignableFrom<Endpoint.Address>()
  })
})

describe("DirectoryState", () => {
  test("is what a pool takes as hooks; it needs a file system when it is made, and none later", () => {
    const made = DirectoryState.make({ directory: "/", store: null as unknown as ArchiveStore.ArchiveStore })
    expect<Effect.Services<typeof made>>().type.toBe<FileSystem.FileSystem | Path.Path>()
    expect<Effect.Success<typeof made>>().type.toBeAssignableTo<Pool.Hooks<DirectoryState.Failure, Scope.Scope>>()
  })
})

describe("pools across machines", () => {
  class NoRoom extends Schema.TaggedError<NoRoom>()("NoRoom", { key: Schema.String }) {}
  const Work = PoolEntity.make("Work", { endpoint: Schema.Int, error: NoRoom })
  const child = Child.make("a", { command })

  test("a client has the endpoint and the failure of the pool", () => {
    expect(PoolEntity.client(Work)).type.toBe<
      Effect.Effect<(key: string) => PoolEntity.Client<number, NoRoom>, never, Sharding.Sharding>
    >()
  })

  test("what crosses the wire is checked where the pool is run, and a lease is needed", () => {
    const build = () => Effect.succeed({ child, endpoint: () => Effect.succeed(80) })
    expect(PoolEntity.layer(Work, { build })).type.toBe<
      Layer.Layer<
        never,
        Errors.InvalidSpec,
        Sharding.Sharding | ShardLease.ShardLease | ProcessPlatform.ProcessPlatform
      >
    >()
    const wrong = () => Effect.succeed({ child, endpoint: () => Effect.succeed("80") })
    expect(PoolEntity.layer).type.not.toBeCallableWith(Work, { build: wrong })
    const failing = () => Effect.fail("unknown to the wire" as const)
    expect(PoolEntity.layer).type.not.toBeCallableWith(Work, { build: failing })
  })
})
