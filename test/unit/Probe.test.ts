import { assert, describe, it } from "@effect/vitest"
import { Errors, type Network, Probe, type ProcessPlatform } from "@treeline/core"
import { Clock, Deferred, type Duration, Effect, Exit, Fiber, Option, Redacted, Result } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import { ChildProcess } from "effect/process"
import { TestClock } from "effect/testing"
import * as LineScan from "../../packages/core/src/internal/LineScan.ts"
import * as Tail from "../../packages/core/src/internal/Tail.ts"
import * as Listeners from "../../packages/platform-posix/src/internal/Listeners.ts"

/** A platform of which only the network is there. */
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

const target: Probe.Target = { platform: platformWith(undefined), tree: undefined }

const readiness = (probe: Probe.Probe, options?: Parameters<typeof Probe.readiness>[1]) =>
  Result.getOrThrow(Probe.validateReadiness(Probe.readiness(probe, options)))

const liveness = (probe: Probe.Probe, options?: Parameters<typeof Probe.liveness>[1]) =>
  Result.getOrThrow(Probe.validateLiveness(Probe.liveness(probe, options)))

/** A probe that gives these outcomes one after the other, then the last one again and again; it counts attempts. */
const scripted = (outcomes: string) => {
  const state = { attempts: 0, running: 0, most: 0 }
  const probe = Probe.effect(
    "scripted",
    Effect.suspend((): Effect.Effect<void, string> => {
      const outcome = outcomes[Math.min(state.attempts, outcomes.length - 1)]
      state.attempts++
      state.most = Math.max(state.most, ++state.running)
      return outcome === "S" ? Effect.void : outcome === "F" ? Effect.fail(`attempt ${state.attempts}`) : Effect.never
    }).pipe(Effect.ensuring(Effect.sync(() => state.running--)))
  )
  return { probe, state }
}

describe("thresholds", () => {
  const healths = (outcomes: string, thresholds: { readonly failure: number; readonly success: number }) => {
    let state = Probe.initial
    return outcomes.split("").map((outcome) => {
      state = Probe.step(state, outcome === "S" ? "success" : "failure", thresholds)
      return state.health
    })
  }

  it("peer 94: F F S F F F with a threshold of 3 fails once, at the sixth probe", () => {
    assert.deepStrictEqual(healths("FFSFFF", { failure: 3, success: 1 }), [
      "degraded",
      "degraded",
      "healthy",
      "degraded",
      "degraded",
      "failed"
    ])
  })

  it("K2: one failure is tolerated", () => {
    assert.deepStrictEqual(healths("SFSFS", { failure: 2, success: 1 }), [
      "healthy",
      "degraded",
      "healthy",
      "degraded",
      "healthy"
    ])
  })

  it("is unknown until enough has succeeded, and healthy again only after as much", () => {
    assert.deepStrictEqual(healths("SSFSS", { failure: 3, success: 2 }), [
      "unknown",
      "healthy",
      "degraded",
      "degraded",
      "healthy"
    ])
  })

  it("failed stays failed until it is healthy; a threshold of 1 knows no degraded", () => {
    assert.deepStrictEqual(healths("FFSFSS", { failure: 2, success: 2 }), [
      "degraded",
      "failed",
      "failed",
      "failed",
      "failed",
      "healthy"
    ])
    assert.deepStrictEqual(healths("F", { failure: 1, success: 1 }), ["failed"])
  })

  it("peer 97: a delay far beyond the timeout means that the host was suspended", () => {
    assert.isFalse(Probe.wasSuspended(100, 1099, 100))
    assert.isTrue(Probe.wasSuspended(100, 1100, 100))
    assert.isFalse(Probe.wasSuspended(5000, 9999, 5000))
    assert.isTrue(Probe.wasSuspended(5000, 10_000, 5000))
  })
})

describe("validation", () => {
  const problem = (result: Result.Result<unknown, Errors.InvalidSpec>): string =>
    Result.isFailure(result) ? result.failure.message : "valid"
  const ofProbe = (probe: Probe.Probe) => problem(Probe.validateReadiness(Probe.readiness(probe)))
  const url = "http://127.0.0.1/"

  it("defaults", () => {
    const probe = Probe.tcp(80)
    assert.deepStrictEqual(readiness(probe), {
      probe,
      within: 30_000,
      interval: 100,
      timeout: 1000,
      initialDelay: 0,
      successThreshold: 1
    })
    assert.deepStrictEqual(liveness(probe, { interval: "3 seconds" }), {
      probe,
      interval: 3000,
      timeout: 1000,
      initialDelay: 3000,
      failureThreshold: 3,
      successThreshold: 1
    })
    assert.deepStrictEqual(probe, { _tag: "Tcp", address: { host: "127.0.0.1", port: 80 } })
  })

  it("times are finite and above 0, thresholds whole and at least 1", () => {
    const time = (within: Duration.Input) =>
      problem(Probe.validateReadiness(Probe.readiness(Probe.tcp(80), { within })))
    assert.strictEqual(time(0), "readiness.within: must be above 0")
    assert.match(time(-1), /^readiness\.within: must not be negative/)
    assert.match(time(Number.POSITIVE_INFINITY), /must be finite/)
    const live = (options: Parameters<typeof Probe.liveness>[1]) =>
      problem(Probe.validateLiveness(Probe.liveness(Probe.tcp(80), options)))
    assert.match(live({ interval: 0 }), /^liveness\.interval/)
    assert.match(live({ timeout: 0 }), /^liveness\.timeout/)
    assert.strictEqual(live({ initialDelay: 0 }), "valid")
    for (const value of [0, 1.5, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      assert.match(live({ failureThreshold: value }), /^liveness\.failureThreshold/)
      assert.match(live({ successThreshold: value }), /^liveness\.successThreshold/)
    }
  })

  it("a line or a descriptor is no liveness", () => {
    for (const probe of [Probe.line("up"), Probe.fd(3)]) {
      assert.match(problem(Probe.validateLiveness(Probe.liveness(probe))), /^liveness\.probe: /)
    }
  })

  it("each kind of probe", () => {
    const invalid: ReadonlyArray<readonly [Probe.Probe, string]> = [
      [Probe.line(""), "pattern"],
      [Probe.line("two\nlines"), "pattern"],
      [Probe.line(5 as never), "pattern"],
      [Probe.line("x", { stream: "stdin" as never }), "stream"],
      [Probe.fd(0), "fd"],
      [Probe.fd(2.5), "fd"],
      [Probe.tcp(0), "address"],
      [Probe.tcp(65536), "address"],
      [Probe.tcp(80.5), "address"],
      [Probe.tcp({ host: "", port: 80 }), "address"],
      [Probe.tcp({ path: "" }), "address"],
      [Probe.tcp({ path: "a\0b" }), "address"],
      [Probe.http("127.0.0.1/health"), "url"],
      [Probe.http("ftp://127.0.0.1/"), "url"],
      [Probe.http("http://127.0.0.1:0/"), "url"],
      [Probe.http("http://127.0.0.1:65536/"), "url"],
      [Probe.http({ url, status: { min: 300, max: 200 } }), "status"],
      [Probe.http({ url, status: { min: 1, max: 200 } }), "status"],
      [Probe.http({ url, headers: { "a b": "c" } }), "headers"],
      [Probe.http({ url, headers: { authorization: Redacted.make("a\nb") } }), "headers.authorization"],
      [Probe.http({ url, body: "text" as never }), "body"],
      [Probe.exec(ChildProcess.make("")), "command"],
      [
        Probe.exec(ChildProcess.make("a").pipe(ChildProcess.pipeTo(ChildProcess.make("b"))) as never),
        "command"
      ],
      [Probe.effect("", Effect.void), "name"]
    ]
    for (const [probe, field] of invalid) assert.include(ofProbe(probe), `readiness.probe.${field}: `)
    const valid = [
      Probe.line("up"),
      Probe.line(/^up/),
      Probe.fd(3),
      Probe.tcp(65535),
      Probe.tcp({ path: "/run/socket" }),
      Probe.http("https://[::1]:8443/health"),
      Probe.http({ url, status: () => true, body: /ok/, headers: { authorization: Redacted.make("Bearer x") } }),
      Probe.exec(ChildProcess.make("true")),
      Probe.effect("check", Effect.void)
    ]
    for (const probe of valid) assert.strictEqual(ofProbe(probe), "valid")
    assert.notInclude(ofProbe(Probe.http({ url, headers: { a: "secret\n" } })), "secret")
  })

  it("a description holds no secret", () => {
    const description = (probe: Probe.Probe) => Probe.describe(probe)
    assert.strictEqual(
      description(Probe.http("http://user:secret@host:81/health?token=secret#x")),
      "http://host:81/health"
    )
    assert.strictEqual(description(Probe.exec(ChildProcess.make("curl", ["secret"]))), "exec curl")
    assert.strictEqual(description(Probe.exec(ChildProcess.make("curl secret", { shell: true }))), "exec shell")
    assert.strictEqual(description(Probe.tcp({ host: "::1", port: 80 })), "tcp [::1]:80")
    assert.strictEqual(description(Probe.line(/up/, { stream: "stderr" })), "line /up/ on stderr")
    assert.strictEqual(description(Probe.fd(3)), "newline on descriptor 3")
  })
})

describe("lines", () => {
  const find = (texts: ReadonlyArray<string>, pattern: string | RegExp): number => {
    const matches = LineScan.matcher(pattern)
    let state: LineScan.State = ""
    return texts.findIndex((text) => {
      const fed = LineScan.feed(state, text, matches)
      state = fed.state
      return fed.found
    })
  }

  it("P47: a line counts when its newline has come", () => {
    assert.strictEqual(find(["listening on 80"], "listening"), -1)
    assert.strictEqual(find(["listening on 80", "80", "\n"], /^listening on 8080$/), 2)
    assert.strictEqual(find(["port 1\nport 2\r\nport 3\n"], /^port 2$/), 0)
    assert.strictEqual(find(["liste", "ning\r", "\n"], /^listening$/), 2)
  })

  it("an expression that remembers where it was is asked from the start each time", () => {
    const pattern = /up/g
    assert.strictEqual(find(["up up\nnot\n", "it is up\n"], pattern), 0)
    pattern.lastIndex = 0
    assert.strictEqual(find(["no\n", "up\n"], pattern), 1)
    assert.strictEqual(pattern.lastIndex, 0, "the caller's own is left alone")
    assert.strictEqual(find(["it is up\n", "up\n"], /up/y), 1)
  })

  it("peer 89: a long line is one line, and what is kept of an endless one is bounded", () => {
    assert.strictEqual(find([`${"x".repeat(200_000)} up ${"y".repeat(200_000)}`, "\n"], /^x+ up y+$/), 1)
    let state: LineScan.State = ""
    for (let count = 0; count < 100; count++) state = LineScan.feed(state, "x".repeat(64 * 1024), () => true).state
    assert.strictEqual(state.length, LineScan.maxLine)
    assert.deepStrictEqual(LineScan.feed(state, "tail\nnext", (line) => line.includes("tail")), {
      state: "next",
      found: false
    })
  })
})

describe("the tail of an error", () => {
  const bytes = (text: string) => new TextEncoder().encode(text)

  it("holds whole lines and whole characters", () => {
    assert.strictEqual(Tail.lastLines(bytes("one\ntwo\n"), 100, true), "one\ntwo\n")
    assert.strictEqual(Tail.lastLines(bytes("ne\ntwo\n"), 100, false), "two\n")
    assert.strictEqual(Tail.lastLines(bytes("one\ntwo\nthree\n"), 8, true), "three\n")
    assert.strictEqual(Tail.lastLines(bytes("one\nthree\n"), 6, true), "three\n", "cut right after a newline")
    assert.strictEqual(Tail.lastLines(bytes("ääää"), 5, true), "ää")
    assert.strictEqual(Tail.lastLines(bytes("ä\nöü").subarray(0, 6), 100, true), "ä\nö")
    assert.strictEqual(Tail.lastLines(bytes(""), 100, true), "")
  })
})

describe("awaitReady", () => {
  it.effect("asks after the initial delay, pauses for the interval, and wants its successes in a row", () =>
    Effect.gen(function*() {
      const { probe, state } = scripted("FSFSS")
      const waiting = yield* Effect.forkChild(
        Probe.awaitReady(readiness(probe, { initialDelay: 500, interval: 100, successThreshold: 2 }), target),
        { startImmediately: true }
      )
      yield* TestClock.adjust(499)
      assert.strictEqual(state.attempts, 0)
      yield* TestClock.adjust(1)
      assert.strictEqual(state.attempts, 1)
      yield* TestClock.adjust(399)
      assert.strictEqual(state.attempts, 4)
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust(1)
      yield* Fiber.join(waiting)
      assert.strictEqual(state.attempts, 5)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(state.attempts, 5, "P31: ready once, and asked no more")
    }))

  it.effect("fails after the limit with the last failure, and leaves no attempt running", () =>
    Effect.gen(function*() {
      const { probe, state } = scripted("FFN")
      const waiting = yield* Effect.forkChild(
        Effect.flip(Probe.awaitReady(readiness(probe, { within: "3 seconds", timeout: "10 seconds" }), target)),
        { startImmediately: true }
      )
      yield* TestClock.adjust(2999)
      assert.strictEqual(state.running, 1)
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust(1)
      const failure = yield* Fiber.join(waiting)
      assert(failure._tag === "NotReady")
      assert.strictEqual(failure.within, 3000)
      assert.strictEqual(failure.message, "not ready within 3000 ms: scripted: attempt 2 (Failed)")
      assert.strictEqual(state.running, 0)
    }))

  it.effect("peer 91: an attempt that hangs is a failure at its timeout, and the next one waits for its end", () =>
    Effect.gen(function*() {
      const { probe, state } = scripted("NNS")
      const waiting = yield* Effect.forkChild(
        Probe.awaitReady(readiness(probe, { timeout: "1 second", interval: 100 }), target),
        { startImmediately: true }
      )
      yield* TestClock.adjust(2199)
      assert.strictEqual(state.attempts, 2)
      yield* TestClock.adjust(1)
      yield* Fiber.join(waiting)
      assert.strictEqual(state.most, 1)
    }))

  it.effect("a limit that ends the first attempt still says what was going on", () =>
    Effect.gen(function*() {
      const { probe } = scripted("N")
      const waiting = yield* Effect.forkChild(
        Effect.flip(Probe.awaitReady(readiness(probe, { within: 500 }), target)),
        { startImmediately: true }
      )
      yield* TestClock.adjust(500)
      const failure = yield* Fiber.join(waiting)
      assert(failure._tag === "NotReady")
      assert.strictEqual(failure.lastFailure.reason, "TimedOut")
    }))
})

describe("watch", () => {
  /** Watches a scripted probe and notes each change with its time in ms. */
  const watching = Effect.fn(function*(outcomes: string, options?: Parameters<typeof Probe.liveness>[1]) {
    const script = scripted(outcomes)
    const changes: Array<string> = []
    const fiber = yield* Effect.forkChild(
      Probe.watch(
        liveness(script.probe, options),
        target,
        (health, failure) =>
          Effect.map(Clock.currentTimeMillis, (now) => {
            changes.push(`${now} ${health}${failure === undefined ? "" : ` ${failure.reason}`}`)
          })
      ),
      { startImmediately: true }
    )
    return { ...script, changes, fiber }
  })

  it.effect("peer 94: F F S F F F restarts once, at the right probe", () =>
    Effect.gen(function*() {
      const { changes } = yield* watching("FFSFFFFF")
      yield* TestClock.adjust("80 seconds")
      assert.deepStrictEqual(changes, [
        "10000 degraded Failed",
        "30000 healthy",
        "40000 degraded Failed",
        "60000 failed Failed"
      ])
    }))

  it.effect("a timeout and a defect are failures; interruption leaves nothing running", () =>
    Effect.gen(function*() {
      const { changes, fiber, state } = yield* watching("N", { interval: 1000, timeout: 500, failureThreshold: 2 })
      yield* TestClock.adjust(3100)
      assert.deepStrictEqual(changes, ["1500 degraded TimedOut", "3000 failed TimedOut"])
      yield* TestClock.adjust(900)
      assert.strictEqual(state.running, 1)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(state.running, 0)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(state.attempts, 3)
      assert.strictEqual(state.most, 1)
      const defect = yield* Effect.flip(
        Probe.check(Probe.effect("dies", Effect.die(new Error("a defect"))), 100, target)
      )
      assert.strictEqual(defect.message, "dies: a defect (Failed)")
      const interrupts = yield* Effect.flip(Probe.check(Probe.effect("interrupts", Effect.interrupt), 100, target))
      assert.strictEqual(interrupts._tag, "ProbeFailure")
    }))

  /**
   * The clock of the test, and how the host's own sleep puts it forward by an hour: all of it when the host was stopped,
   * only the time of day when the machine slept.
   */
  const suspendable = (kind: "stopped" | "asleep") =>
    Effect.map(Clock.Clock, (clock) => {
      let hours = 0
      const millis = () => clock.currentTimeMillisUnsafe() + hours * 3_600_000
      const nanos = () => clock.currentTimeNanosUnsafe() + BigInt(hours) * 3_600_000_000_000n
      const monotonic = () => kind === "stopped" ? nanos() : clock.monotonicTimeNanosUnsafe()
      const jumping: Clock.Clock = {
        currentTimeMillisUnsafe: millis,
        currentTimeMillis: Effect.sync(millis),
        currentTimeNanosUnsafe: nanos,
        currentTimeNanos: Effect.sync(nanos),
        sleep: (duration) => clock.sleep(duration),
        monotonicTimeNanosUnsafe: monotonic,
        monotonicTimeNanos: Effect.sync(monotonic)
      }
      return { clock: jumping, suspend: () => hours++ }
    })

  /** Watches with a threshold of 1; `ask` is told the number of the attempt and returns whether it succeeds. */
  const watchingOn = Effect.fn(function*(clock: Clock.Clock, ask: (attempt: number) => boolean) {
    const state = { attempts: 0, changes: [] as Array<string> }
    const probe = Probe.effect(
      "asks",
      Effect.suspend(() => ask(++state.attempts) ? Effect.void : Effect.fail("cut off"))
    )
    yield* Effect.forkChild(
      Effect.provideService(
        Probe.watch(
          liveness(probe, { failureThreshold: 1 }),
          target,
          (health) => Effect.sync(() => void state.changes.push(`${state.attempts} ${health}`))
        ),
        Clock.Clock,
        clock
      ),
      { startImmediately: true }
    )
    return state
  })

  for (const kind of ["stopped", "asleep"] as const) {
    it.effect(`peer 97: a failure during which the host was ${kind} is not counted, but repeated at once`, () =>
      Effect.gen(function*() {
        const { clock, suspend } = yield* suspendable(kind)
        const state = yield* watchingOn(clock, (attempt) => {
          if (attempt === 1 || attempt === 3) suspend()
          return attempt === 2
        })
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(state, { attempts: 2, changes: ["2 healthy"] })
        // So is the third; the fourth fails with the host awake.
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(state, { attempts: 4, changes: ["2 healthy", "4 failed"] })
      }))
  }

  it.effect("peer 97: nor is the first failure after the host was suspended", () =>
    Effect.gen(function*() {
      const { clock, suspend } = yield* suspendable("stopped")
      const state = yield* watchingOn(clock, (attempt) => attempt !== 2 && attempt < 4)
      yield* TestClock.adjust("15 seconds")
      suspend()
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(state, { attempts: 3, changes: ["1 healthy"] })
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(state, { attempts: 4, changes: ["1 healthy", "4 failed"] })
    }))
})

describe("the network", () => {
  const url = "http://127.0.0.1:8080/health"
  const fake = (parts: Partial<Network.Network>): Probe.Target => ({
    platform: platformWith({
      connect: () => Effect.void,
      http: Effect.die("no client"),
      listeners: () => Effect.succeedNone,
      ...parts
    }),
    tree: undefined
  })
  const answering = (status: number, body: string) =>
    fake({
      http: Effect.succeed(
        HttpClient.make((request) =>
          Effect.succeed(HttpClientResponse.fromWeb(request, new Response(body, { status })))
        )
      )
    })
  const outcome = (probe: Probe.Probe, target: Probe.Target) =>
    Effect.map(Effect.exit(Probe.check(probe, 1000, target)), (exit) => {
      if (Exit.isSuccess(exit)) return "success"
      const error = Option.getOrThrow(Exit.findErrorOption(exit))
      return error._tag === "ProbeFailure" ? error.reason : `${error._tag} ${error.field}`
    })

  it.effect("what a probe needs and the target has not is an InvalidSpec", () =>
    Effect.gen(function*() {
      for (const probe of [Probe.tcp(80), Probe.http(url), Probe.line("up"), Probe.fd(3)]) {
        assert.strictEqual(yield* outcome(probe, target), "InvalidSpec probe")
      }
      const ready = yield* Effect.flip(Probe.awaitReady(readiness(Probe.tcp(80)), target))
      assert.strictEqual(ready._tag, "InvalidSpec")
      const watched = yield* Effect.forkChild(
        Effect.flip(Probe.watch(liveness(Probe.tcp(80), { initialDelay: 0 }), target, () => Effect.void)),
        { startImmediately: true }
      )
      assert.strictEqual((yield* Fiber.join(watched))._tag, "InvalidSpec")
    }))

  it.effect("tcp: each way in which a connection fails", () =>
    Effect.gen(function*() {
      const failing = (reason: Errors.ConnectError["reason"]) =>
        fake({ connect: () => Effect.fail(new Errors.ConnectError({ address: "a", reason, detail: "d" })) })
      assert.strictEqual(yield* outcome(Probe.tcp(80), failing("Refused")), "Refused")
      assert.strictEqual(yield* outcome(Probe.tcp(80), failing("Unreachable")), "Unreachable")
      assert.strictEqual(yield* outcome(Probe.tcp(80), failing("NotFound")), "Unreachable")
      assert.strictEqual(yield* outcome(Probe.tcp({ path: "/s" }), failing("NotFound")), "Refused")
      assert.strictEqual(yield* outcome(Probe.tcp(80), failing("PermissionDenied")), "Failed")
      assert.strictEqual(yield* outcome(Probe.tcp(80), fake({})), "success")
    }))

  it.effect("http: status and body", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* outcome(Probe.http(url), answering(200, "")), "success")
      assert.strictEqual(yield* outcome(Probe.http(url), answering(404, "")), "WrongStatus")
      assert.strictEqual(
        yield* outcome(Probe.http({ url, status: { min: 404, max: 404 } }), answering(404, "")),
        "success"
      )
      const pattern = /^ok$/g
      for (let count = 0; count < 2; count++) {
        assert.strictEqual(yield* outcome(Probe.http({ url, body: pattern }), answering(200, "ok")), "success")
      }
      assert.strictEqual(yield* outcome(Probe.http({ url, body: pattern }), answering(200, "not ok")), "WrongBody")
    }))

  it.effect("an interrupted attempt interrupts the connection", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      let interrupted = false
      const hanging = fake({
        connect: () =>
          Deferred.succeed(started, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Effect.sync(() => (interrupted = true)))
          )
      })
      const fiber = yield* Effect.forkChild(Probe.check(Probe.tcp(80), 1000, hanging))
      yield* Deferred.await(started)
      yield* Fiber.interrupt(fiber)
      assert.isTrue(interrupted)
    }))
})

describe("the tables of listeners", () => {
  it("net/tcp: rows of the port that listen", () => {
    const text = [
      "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
      "   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1597 1 0000 100 0 0 10 0",
      "   1: 0100007F:07E8 0100007F:8FA5 01 00000000:00000000 00:00000000 00000000     0        0 1598 1 0000 20 4 30 10 -1",
      "  10: 0100007F:B410 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1599 1 0000 100 0 0 10 0"
    ].join("\n")
    assert.deepStrictEqual(Listeners.parseTcp(text, 0x7e8), [{ bound: "00000000", inode: "1597" }])
    assert.deepStrictEqual(Listeners.parseTcp(text, 0xb410), [{ bound: "0100007F", inode: "1599" }])
    assert.deepStrictEqual(Listeners.parseTcp(text, 80), [])
  })

  it("net/unix: sockets that accept connections at the path", () => {
    const text = [
      "Num       RefCount Protocol Flags    Type St Inode Path",
      "0000000057188f25: 00000002 00000000 00000000 0001 03 962443 /run/a b",
      "0000000057188f26: 00000002 00000000 00010000 0001 01 962444 /run/a b",
      "0000000057188f27: 00000002 00000000 00010000 0001 01    12 b",
      "0000000057188f28: 00000002 00000000 00000000 0001 03 962445"
    ].join("\n")
    assert.deepStrictEqual(Listeners.parseUnix(text, "/run/a b"), ["962444"])
    assert.deepStrictEqual(Listeners.parseUnix(text, "b"), ["12"])
    assert.deepStrictEqual(Listeners.parseUnix(text, "/run/a"), [])
  })
})
