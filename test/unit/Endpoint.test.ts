import { NodePath } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Child,
  type Child as ChildModule,
  Endpoint,
  Errors,
  type Network,
  Pool,
  Probe,
  ProcessPlatform,
  Restart
} from "@treeline/core"
import { Program, SimulatedPlatform } from "@treeline/core/testing"
import { Clock, Effect, Exit, FileSystem, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as AddressText from "../../packages/core/src/internal/AddressText.ts"
import { Announcement } from "../../packages/core/src/internal/Announcement.ts"
import { candidates, CurrentLedger, PortLedger, quietRange } from "../../packages/core/src/internal/PortLedger.ts"
import { advance, onSystem, passing, timed } from "../support/Actors.ts"

describe("addresses", () => {
  it("have their URLs", () => {
    const address = new Endpoint.TcpAddress({ host: "127.0.0.1", port: 4040 })
    const { authority, http, https, ws, wss } = address
    assert.deepStrictEqual([authority, http, https, ws, wss], [
      "127.0.0.1:4040",
      "http://127.0.0.1:4040",
      "https://127.0.0.1:4040",
      "ws://127.0.0.1:4040",
      "wss://127.0.0.1:4040"
    ])
    assert.strictEqual(new Endpoint.TcpAddress({ host: "::1", port: 80 }).http, "http://[::1]:80")
  })

  it("cross a wire and come back as what they were", () => {
    const codec = Schema.toCodecJson(Endpoint.Address)
    for (
      const address of [
        new Endpoint.TcpAddress({ host: "localhost", port: 1 }),
        new Endpoint.SocketAddress({ path: "/run/x" })
      ]
    ) {
      const back = Schema.decodeSync(codec)(Schema.encodeSync(codec)(address))
      assert.deepStrictEqual(back, address)
      assert.strictEqual(back.constructor, address.constructor)
    }
  })

  it("are no ports that there are not", () => {
    for (const port of [0, 65_536, 1.5, Number.NaN]) {
      assert.throws(() => new Endpoint.TcpAddress({ host: "127.0.0.1", port }))
    }
  })

  it("are read as programs write them", () => {
    const read = (text: string) => {
      const parsed = AddressText.parse(text)
      return parsed === undefined ? undefined : `${parsed.host} ${parsed.port}`
    }
    const texts: Record<string, string | undefined> = {
      "http://127.0.0.1:3000": "127.0.0.1 3000",
      "http://127.0.0.1:3000/": "127.0.0.1 3000",
      "ws://127.0.0.1:41234/rpc?token=x": "127.0.0.1 41234",
      "http://localhost": "localhost 80",
      "https://localhost/x": "localhost 443",
      "wss://example.test": "example.test 443",
      "tcp://127.0.0.1:5432": "127.0.0.1 5432",
      "http://[::1]:8080/": "::1 8080",
      "http://[::]:8080": "::1 8080",
      "http://0.0.0.0:8080": "127.0.0.1 8080",
      "0.0.0.0:8080": "127.0.0.1 8080",
      "[::]:8080": "::1 8080",
      "*:8080": "127.0.0.1 8080",
      ":8080": "127.0.0.1 8080",
      "8080": "127.0.0.1 8080",
      " 8080 ": "127.0.0.1 8080",
      "[::1]:1": "::1 1",
      "db.local:65535": "db.local 65535",
      "http://user:secret@127.0.0.1:80": "127.0.0.1 80",
      "": undefined,
      "0": undefined,
      "65536": undefined,
      "127.0.0.1:0": undefined,
      "127.0.0.1": undefined,
      "::1:80": undefined,
      "tcp://127.0.0.1": undefined,
      "a b:80": undefined,
      "/run/x:80": undefined,
      "user@host:80": undefined,
      "http://": undefined,
      "eighty": undefined
    }
    assert.deepStrictEqual(Object.fromEntries(Object.keys(texts).map((text) => [text, read(text)])), texts)
  })
})

describe("the choice of ports", () => {
  it("keeps away from those that outgoing connections take", () => {
    assert.deepStrictEqual(quietRange({ first: 32_768, last: 60_999 }), { first: 61_000, last: 65_535 })
    assert.deepStrictEqual(quietRange({ first: 49_152, last: 65_535 }), { first: 40_960, last: 49_151 })
    assert.deepStrictEqual(quietRange(), { first: 40_960, last: 49_151 })
    assert.deepStrictEqual(quietRange({ first: 5000, last: 65_535 }), { first: 1024, last: 4999 })
    assert.isUndefined(quietRange({ first: 1024, last: 65_535 }))
    assert.isUndefined(quietRange({ first: 2000, last: 65_000 }))
  })

  it("goes around once, past those that are used or rest", () => {
    const ledger = new PortLedger()
    ledger.take(11)
    ledger.rest(12, 100)
    const range = { first: 10, last: 14 }
    assert.deepStrictEqual([...candidates(ledger, range, 3, 99)], [13, 14, 10])
    assert.deepStrictEqual([...candidates(ledger, range, 0, 100)], [10, 12, 13, 14])
    ledger.putBack(11)
    assert.deepStrictEqual([...candidates(ledger, range, 1, 100)], [11, 12, 13, 14, 10])
  })
})

/** A machine on which some ports are taken. */
class Machine {
  readonly taken = new Map<string, Errors.ListenError["reason"]>()
  readonly tried: Array<number> = []
  ephemeral: Network.PortRange | undefined = { first: 32_768, last: 60_999 }
  private next = 40_000

  take(port: number, host = "127.0.0.1", reason: Errors.ListenError["reason"] = "InUse"): void {
    this.taken.set(`${host} ${port}`, reason)
  }

  get network(): Network.Network {
    return {
      connect: () => Effect.void,
      http: Effect.die("no client here"),
      listeners: undefined,
      tryListen: ({ host, port: wanted }) =>
        Effect.suspend(() => {
          const port = wanted === 0 ? this.next++ : wanted
          this.tried.push(port)
          const reason = this.taken.get(`${host} ${port}`) ?? this.taken.get(`${host} *`)
          // Others get their turn while a port is tried.
          return Effect.andThen(
            Effect.yieldNow,
            reason === undefined
              ? Effect.succeed(port)
              : Effect.fail(new Errors.ListenError({ address: `${host}:${port}`, reason, detail: reason }))
          )
        }),
      ephemeralPorts: Effect.sync(() => this.ephemeral)
    }
  }
}

const platformWith = (network: Network.Network | undefined): ProcessPlatform.ProcessPlatform["Service"] => ({
  launch: () => Effect.die("no processes here"),
  containment: Effect.die("no processes here"),
  find: () => Effect.succeedNone,
  identify: () => Effect.succeedNone,
  standing: () => Effect.succeed("Gone"),
  signalProcess: () => Effect.succeed("Gone"),
  processes: Effect.succeed([]),
  clock: Clock.Clock,
  network
})

const onMachine =
  (machine: Machine) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, ProcessPlatform.ProcessPlatform>> =>
    effect.pipe(
      Effect.provideService(ProcessPlatform.ProcessPlatform, platformWith(machine.network)),
      Effect.provideService(CurrentLedger, new PortLedger())
    )

const few: Network.PortRange = { first: 7001, last: 7004 }

describe("a port for a child", () => {
  it.effect("is nobody else's: a thousand at once are a thousand", () =>
    Effect.gen(function*() {
      const ports = yield* Effect.all(Array.from({ length: 1000 }, () => Endpoint.port()), { concurrency: "unbounded" })
      assert.strictEqual(new Set(ports.map(({ port }) => port)).size, 1000)
      for (const { host, port } of ports) {
        assert.strictEqual(host, "127.0.0.1")
        assert.isAtLeast(port, 61_000)
      }
    }).pipe(onMachine(new Machine())))

  it.effect("rests for a minute after its child has gone", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      yield* Scope.provide(Effect.all([few, few, few, few].map((ports) => Endpoint.port({ ports }))), scope)
      const another = Effect.exit(Effect.scoped(Endpoint.port({ ports: few })))
      assert.isTrue(Exit.isFailure(yield* another))
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust(59_999)
      assert.isTrue(Exit.isFailure(yield* another))
      yield* TestClock.adjust(1)
      assert.isTrue(Exit.isSuccess(yield* another))
    }).pipe(onMachine(new Machine())))

  it.effect("rests as long as it is told to", () =>
    Effect.gen(function*() {
      const one = Effect.scoped(Endpoint.port({ ports: { first: 7001, last: 7001 }, rest: "1 second" }))
      yield* one
      const error = yield* Effect.flip(one)
      assert.deepInclude(error, { _tag: "EndpointUnavailable", reason: "NoFreePort" })
      assert.include(error.message, "every port in the range is given to a child or rests")
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* one).port, 7001)
    }).pipe(onMachine(new Machine())))

  it.effect("is not one where somebody listens, at this name of the machine or the other", () => {
    const machine = new Machine()
    machine.take(7001)
    machine.take(7002, "::1")
    machine.take(7003, "127.0.0.1", "PermissionDenied")
    return Effect.gen(function*() {
      const { port } = yield* Endpoint.port({ ports: few })
      assert.strictEqual(port, 7004)
      const error = yield* Effect.flip(Endpoint.port({ ports: few }))
      assert.strictEqual(error._tag, "EndpointUnavailable")
      // What was refused is not marked as given.
      machine.taken.clear()
      assert.include([7001, 7002, 7003], (yield* Endpoint.port({ ports: few })).port)
    }).pipe(onMachine(machine))
  })

  it.effect("is found where the machine has no IPv6", () => {
    const machine = new Machine()
    machine.take(Number.NaN, "::1")
    machine.taken.set("::1 *", "Unavailable")
    return Effect.gen(function*() {
      assert.isAtLeast((yield* Endpoint.port()).port, 61_000)
    }).pipe(onMachine(machine))
  })

  it.effect("is the system's choice where every port may be taken by a connection", () => {
    const machine = new Machine()
    machine.ephemeral = { first: 1024, last: 65_535 }
    machine.take(40_001, "::1")
    return Effect.gen(function*() {
      const ports = yield* Effect.all([Endpoint.port(), Endpoint.port(), Endpoint.port()])
      assert.deepStrictEqual(ports.map(({ port }) => port), [40_000, 40_002, 40_003])
    }).pipe(onMachine(machine))
  })

  it.effect("is searched for a bounded time, and not at all where the host is another machine", () => {
    const machine = new Machine()
    machine.taken.set("127.0.0.1 *", "InUse")
    machine.taken.set("10.1.2.3 *", "Unavailable")
    return Effect.gen(function*() {
      const error = yield* Effect.flip(Endpoint.port())
      assert.deepInclude(error, { _tag: "EndpointUnavailable", reason: "NoFreePort" })
      assert.strictEqual(machine.tried.length, 64)
      machine.tried.length = 0
      const elsewhere = yield* Effect.flip(Endpoint.port({ host: "10.1.2.3" }))
      assert.deepInclude(elsewhere, { _tag: "EndpointUnavailable", reason: "HostUnavailable" })
      assert.strictEqual(machine.tried.length, 1)
    }).pipe(onMachine(machine))
  })

  it.effect("needs usable options and a network", () =>
    Effect.gen(function*() {
      const fieldOf = (options: Endpoint.PortOptions) =>
        Effect.map(Effect.flip(Endpoint.port(options)), (error) =>
          error._tag === "InvalidSpec" ? error.field : error._tag)
      assert.strictEqual(yield* fieldOf({ host: "" }), "host")
      assert.strictEqual(yield* fieldOf({ ports: { first: 0, last: 10 } }), "ports")
      assert.strictEqual(yield* fieldOf({ ports: { first: 10, last: 9 } }), "ports")
      assert.strictEqual(yield* fieldOf({ rest: Number.NaN }), "rest")
      assert.strictEqual(yield* fieldOf({ rest: "Infinity" }), "rest")
      const without = yield* Effect.flip(Endpoint.port()).pipe(
        Effect.provideService(ProcessPlatform.ProcessPlatform, platformWith(undefined))
      )
      assert.deepInclude(without, { _tag: "EndpointUnavailable", reason: "NoNetwork" })
    }).pipe(onMachine(new Machine())))
})

describe("a socket for a child on Windows", () => {
  it.effect("is a named pipe, and no two have one name", () =>
    Effect.gen(function*() {
      const [one, other] = yield* Effect.all([Endpoint.socket({ name: "api" }), Endpoint.socket({ name: "api" })])
      assert.match(one.path, /^\\\\\.\\pipe\\treeline-[0-9a-f]{32}-api$/)
      assert.notStrictEqual(one.path, other.path)
    }).pipe(Effect.provide([NodePath.layerWin32, FileSystem.layerNoop({})])))
})

describe("an announcement", () => {
  const encoder = new TextEncoder()
  const looking = (streams: ReadonlyArray<"stdout" | "stderr"> = ["stdout", "stderr"]) => {
    const announcement = new Announcement((line) => /^port (.*)$/.exec(line)?.[1], new Set(streams))
    const feed = (text: string | Uint8Array, stream: "stdout" | "stderr" = "stdout", incarnation = 1) => {
      announcement.feed({ bytes: typeof text === "string" ? encoder.encode(text) : text, stream, incarnation })
      return announcement.found
    }
    return { announcement, feed }
  }

  it("peer 89: is found in pieces of one byte each", () => {
    const { feed } = looking()
    const bytes = encoder.encode("starting ✓\r\nport 8ü80\r\nport 9090\n")
    let found: string | undefined = undefined
    for (let at = 0; at < bytes.length && found === undefined; at++) found = feed(bytes.subarray(at, at + 1))
    assert.strictEqual(found, "8ü80")
  })

  it("P47: counts only when its line is whole", () => {
    const { feed } = looking()
    assert.isUndefined(feed("port 80"))
    assert.strictEqual(feed("80\n"), "8080")
  })

  it("peer 89: is found behind and in a line of more than 64 KiB, and memory stays bounded", () => {
    const { announcement, feed } = looking()
    for (let sent = 0; sent < 64; sent++) assert.isUndefined(feed("x".repeat(64 * 1024)))
    assert.isAtMost(announcement.tail.length, 2000)
    assert.strictEqual(feed(`\nport ${"9".repeat(100_000)}\n`)?.length, 100_000)
  })

  it("is not put together from two outputs or two incarnations", () => {
    const { feed } = looking()
    assert.isUndefined(feed("por"))
    assert.isUndefined(feed("t 1\n", "stderr"))
    assert.isUndefined(feed("t 2\n", "stdout", 2))
    assert.strictEqual(feed("port 3\n", "stderr", 2), "3")
  })

  it("is only looked for where it is to be", () => {
    const { announcement, feed } = looking(["stderr"])
    assert.isUndefined(feed("port 1\n"))
    assert.strictEqual(feed("port 2\n", "stderr"), "2")
    assert.include(announcement.tail, "port 1")
  })
})

describe("an address that the child tells", () => {
  const start = (...program: ReadonlyArray<Program.Instruction>) =>
    Child.start(Child.make("server", { command: SimulatedPlatform.command(Program.make(...program)) }))

  const ask = (child: ChildModule.Child, pattern: RegExp, options?: Endpoint.LineOptions) =>
    Endpoint.fromLine(pattern, options)(child)

  it.effect(
    "A17: is seen on one output when the other has ended before",
    onSystem(function*() {
      const child = yield* start(
        Program.close(1),
        Program.sleep(1000),
        Program.write("listening on ws://127.0.0.1:4040\n", 2),
        Program.endure
      )
      const { result, took } = yield* timed(ask(child, /(ws:\/\/\S+)/))
      assert.strictEqual(Exit.isSuccess(result) && result.value.ws, "ws://127.0.0.1:4040")
      assert.isAtMost(took, 1020)
    })
  )

  it.effect(
    "comes from the first line that matches, and the same for whoever asks later",
    onSystem(function*() {
      const child = yield* start(
        Program.write("port=no\nhttp://127.0.0.1:1/ http://127.0.0.1:2/\nhttp://127.0.0.1:3/\n"),
        Program.endure
      )
      assert.strictEqual((yield* passing(ask(child, /(http:\S+)/))).port, 1)
      yield* advance(10_000)
      assert.strictEqual((yield* passing(ask(child, /(http:\S+)/g))).port, 1)
    })
  )

  it.effect(
    "is in groups by name, in the first group, or all of the match",
    onSystem(function*() {
      const child = yield* start(Program.write("serving at host box.local port 90, admin 91\n"), Program.endure)
      const read = (pattern: RegExp) => Effect.map(passing(ask(child, pattern)), ({ authority }) => authority)
      assert.strictEqual(yield* read(/host (?<host>\S+) port (?<port>\d+)/), "box.local:90")
      assert.strictEqual(yield* read(/port (?<port>\d+)/), "127.0.0.1:90")
      assert.strictEqual(yield* read(/admin (\d+)/), "127.0.0.1:91")
      assert.strictEqual(yield* read(/\d+/), "127.0.0.1:90")
    })
  )

  it.effect(
    "is whatever a function makes of the line",
    onSystem(function*() {
      const child = yield* start(Program.write("{\"level\":\"info\"}\n{\"socket\":\"/run/x\"}\n"), Program.endure)
      const read = Endpoint.fromLine((line) => {
        const { socket } = JSON.parse(line) as { readonly socket?: string }
        return socket === undefined ? undefined : new Endpoint.SocketAddress({ path: socket })
      })
      assert.strictEqual((yield* passing(read(child))).path, "/run/x")
    })
  )

  it.effect(
    "fails in time when it does not come, and shows what did",
    onSystem(function*() {
      const child = yield* start(Program.write("compiling\n"), Program.endure)
      const { result, took } = yield* timed(Effect.flip(ask(child, /listening/, { within: "5 seconds" })))
      assert.isTrue(Exit.isSuccess(result))
      if (Exit.isFailure(result) || result.value._tag !== "NotAnnounced") throw new Error("no NotAnnounced")
      assert.deepInclude(result.value, {
        reason: "TimedOut",
        within: 5000,
        outputTail: "compiling\n",
        pattern: "/listening/"
      })
      assert.isAtMost(took, 5010)
    })
  )

  it.effect(
    "fails when the child has ended for good without it",
    onSystem(function*() {
      const child = yield* Child.start(Child.make("server", {
        command: SimulatedPlatform.command(Program.make(Program.write("EADDRINUSE\n", 2), Program.exit(1))),
        restart: Restart.temporary()
      }))
      const error = yield* passing(Effect.flip(ask(child, /listening/)))
      assert.deepInclude(error, { _tag: "NotAnnounced", reason: "Ended", outputTail: "EADDRINUSE\n" })
    })
  )

  it.effect(
    "fails when the line has none",
    onSystem(function*() {
      const child = yield* start(Program.write("listening on fire\n"), Program.endure)
      const error = yield* passing(Effect.flip(ask(child, /listening on (\S+)/)))
      assert.deepInclude(error, { _tag: "NotAnnounced", reason: "Unusable" })
      assert.include(error.message, "no address in \"fire\"")
      const thrown = yield* passing(Effect.flip(Endpoint.fromLine((line) => JSON.parse(line) as string)(child)))
      assert.deepInclude(thrown, { _tag: "NotAnnounced", reason: "Unusable" })
      const invalid = yield* passing(Effect.flip(ask(child, /x/, { within: Number.NaN })))
      assert.deepInclude(invalid, { _tag: "InvalidSpec", field: "within" })
    })
  )

  it.effect(
    "is the handle's endpoint in a pool",
    onSystem(function*() {
      const pool = yield* Pool.make({
        build: (key) =>
          Effect.succeed({
            child: Child.make("server", {
              command: SimulatedPlatform.command([
                Program.sleep(200),
                Program.write(`${key} at 127.0.0.1:${key === "a" ? 1 : 2}\n`),
                Program.endure
              ])
            }),
            endpoint: Endpoint.fromLine(/at (\S+)/)
          })
      })
      const ensure = (key: string) => Effect.map(passing(pool.ensure(key)), ({ endpoint }) => endpoint.http)
      assert.deepStrictEqual([yield* ensure("a"), yield* ensure("b")], ["http://127.0.0.1:1", "http://127.0.0.1:2"])
    })
  )

  it.effect(
    "A16: fails a start in a pool when it does not come, and nothing of the child is left",
    onSystem(function*() {
      const simulation = yield* SimulatedPlatform.Simulation
      const pool = yield* Pool.make({
        build: () =>
          Effect.succeed({
            child: Child.make("server", { command: SimulatedPlatform.command([Program.endure]) }),
            endpoint: Endpoint.fromLine(/at (\S+)/, { within: "2 seconds" })
          })
      })
      const error = yield* passing(Effect.flip(pool.ensure("a")))
      assert.deepInclude(error, { _tag: "NotAnnounced", reason: "TimedOut" })
      yield* advance(6000)
      assert.deepStrictEqual(yield* simulation.alive, [])
    })
  )
})

describe("ports in a pool", () => {
  const listening = (port: number, after: number) =>
    SimulatedPlatform.command([
      Program.sleep(after),
      Program.listen(port, { status: 200 }),
      Program.endure
    ])

  it.effect(
    "taken by somebody else between the finding and the child's own binding fail the start, and the next has another",
    onSystem(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const given: Array<number> = []
      const pool = yield* Pool.make({
        build: Effect.fnUntraced(function*() {
          const port = yield* Endpoint.port()
          given.push(port.port)
          // The first two times a stranger is faster.
          if (given.length < 3) yield* platform.launch(listening(port.port, 0))
          return {
            child: Child.make("server", { command: listening(port.port, 100), readiness: Probe.tcp(port) }),
            endpoint: () => Effect.succeed(port)
          }
        })
      })
      const error = yield* passing(Effect.flip(pool.ensure("a")))
      assert.strictEqual(error._tag, "ChildFailed")
      const { endpoint } = yield* passing(Effect.retry(pool.ensure("a"), { times: 2 }))
      assert.strictEqual(new Set(given).size, 3)
      assert.strictEqual(endpoint.port, given[2])
    })
  )

  it.effect(
    "are different for all keys that start at once, and rest when their children have gone",
    onSystem(function*() {
      const pool = yield* Pool.make({
        build: Effect.fnUntraced(function*() {
          const port = yield* Endpoint.port({ ports: { first: 7001, last: 7020 } })
          return {
            child: Child.make("server", { command: listening(port.port, 10), readiness: Probe.tcp(port) }),
            endpoint: () => Effect.succeed(port)
          }
        })
      })
      const keys = Array.from({ length: 20 }, (_, index) => String(index))
      const ensureAll = Effect.all(keys.map((key) => pool.ensure(key)), { concurrency: "unbounded" })
      const handles = yield* passing(ensureAll)
      assert.strictEqual(new Set(handles.map(({ endpoint }) => endpoint.port)).size, 20)
      assert.strictEqual((yield* passing(Effect.flip(pool.ensure("more"))))._tag, "EndpointUnavailable")
      yield* passing(pool.shutdown("7"))
      assert.strictEqual((yield* passing(Effect.flip(pool.ensure("more"))))._tag, "EndpointUnavailable")
      yield* advance(60_000)
      assert.strictEqual((yield* passing(pool.ensure("more"))).endpoint.port, handles[7]?.endpoint.port)
    })
  )
})
