/** A host of services as real processes: recovery, pauses, ends, logs, pools, and what must not grow. */
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { type HostStatus, LogFile, ServiceHost } from "@treeline/core/daemon"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Fiber, Layer, References, Stream } from "effect"
import * as fs from "node:fs"
import { ConfigFile } from "treeline/daemon"
import { freePort } from "../support/Children.ts"
import { eventually, stays } from "../support/Eventually.ts"
import { fixture } from "../support/Host.ts"
import { identify, isAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import { assertNoneLiving } from "../support/Trees.ts"

const platform = Layer.mergeAll(
  PosixPlatform.layer,
  NodeServices.layer,
  Layer.succeed(References.MinimumLogLevel, "None")
)

type Config = Readonly<Record<string, unknown>>

/** A folder with a configuration, and a host of it. */
const inFolder = Effect.map(Scratch.make, (scratch) => {
  const file = scratch.file("treeline.json")
  const write = (config: Config) => fs.writeFileSync(file, JSON.stringify(config))
  const start = (config: Config) => {
    write(config)
    const load = ConfigFile.load({
      folder: scratch.directory,
      environment: { ...process.env, REPORT: scratch.report, API_KEY: "correct-horse-battery" }
    })
    return ServiceHost.make({ load, file, version: "1.0.0", pid: process.pid })
  }
  return { scratch, write, start, text: (name: string) => fs.readFileSync(scratch.file(name), "utf8") }
})

const sh = (script: string, more: Config = {}) => ({ command: script, shell: true, ...more })

/** Says that it is up. */
const plain = sh("echo up; exec sleep 60", { readiness: { line: "up" } })

const stateOf = (host: ServiceHost.ServiceHost, name: string) =>
  Effect.map(host.status, ({ services }) => services.find((service) => service.name === name)!.child)

const pidOf = (host: ServiceHost.ServiceHost, name: string) =>
  Effect.map(stateOf(host, name), ({ state }) => "pid" in state ? state.pid ?? 0 : 0)

/** Waits for a state by the host's own events. */
const awaitState = (host: ServiceHost.ServiceHost, name: string, tag: string, incarnation: number) =>
  host.events.pipe(
    Stream.filter((event) =>
      event._tag === "Supervisor" && event.event._tag === "Child" && event.event.event.child === name &&
      event.event.event.incarnation >= incarnation && event.event.event.change._tag === "State" &&
      event.event.event.change.to._tag === tag
    ),
    Stream.runHead,
    Effect.timeout("10 seconds")
  )

const done = <E>(operation: Stream.Stream<HostStatus.Progress, E>) =>
  Effect.map(Stream.runCollect(operation), (all) => {
    const last = all.at(-1)
    assert(last?._tag === "Done")
    return { ...last, waits: all.flatMap((one) => one._tag === "Waiting" ? [one] : []) }
  })

layer(platform, { excludeTestServices: true })("a host", (it) => {
  it.effect(
    "K1, K4: alive with an open port is healthy whatever HTTP says; a port that is lost brings it back",
    () =>
      Effect.gen(function*() {
        const { scratch, start } = yield* inFolder
        const port = yield* freePort
        fs.writeFileSync(scratch.file("answers"), "500")
        const host = yield* start({
          services: {
            web: {
              command: process.execPath,
              args: [fixture("service.mjs"), String(port), scratch.file("answers")],
              readiness: { tcp: port },
              liveness: [{ tcp: port, interval: "30 millis", failureThreshold: 2 }],
              restart: { backoff: { first: "10 millis" } }
            }
          }
        })
        assert.deepStrictEqual((yield* done(host.start([]))).outcomes, [{ service: "web", problem: null }])
        const first = yield* pidOf(host, "web")
        assert.strictEqual((yield* Effect.promise(() => fetch(`http://127.0.0.1:${port}/`))).status, 500)
        yield* stays("it is the same process", () => identify(first) !== undefined, 200)
        assert.strictEqual((yield* stateOf(host, "web")).health, "healthy")
        process.kill(first, "SIGUSR2")
        yield* awaitState(host, "web", "Ready", 2)
        assert.strictEqual((yield* stateOf(host, "web")).lastEnd?._tag, "Unhealthy")
        assert.notStrictEqual(yield* pidOf(host, "web"), first)
      }),
    20_000
  )

  it.effect(
    "K2, K3: one failure is tolerated; a pause really stops restarts and probes, and leaves the others alone",
    () =>
      Effect.gen(function*() {
        const { scratch, start, write } = yield* inFolder
        const port = yield* freePort
        fs.writeFileSync(scratch.file("answers"), "200 503 200")
        const services = {
          web: {
            command: process.execPath,
            args: [fixture("service.mjs"), String(port), scratch.file("answers")],
            ports: [port],
            readiness: { line: "listening" },
            liveness: [{ http: `http://127.0.0.1:${port}/`, interval: "30 millis", failureThreshold: 2 }]
          },
          job: { ...plain, restart: { backoff: { first: "10 millis" } } }
        }
        const host = yield* start({ services })
        yield* done(host.start([]))
        const asked = () => {
          const log = scratch.file("answers.log")
          return fs.existsSync(log) ? fs.readFileSync(log, "utf8").split("\n").length - 1 : 0
        }
        const web = yield* pidOf(host, "web")
        yield* eventually("it was asked again after the failure", () => asked() >= 4)
        assert.strictEqual(yield* pidOf(host, "web"), web)

        yield* host.pause([])
        const job = identify(yield* pidOf(host, "job"))!
        process.kill(job.pid, "SIGKILL")
        yield* awaitState(host, "job", "Waiting", 1)
        // An attempt that had begun may still have been counted.
        yield* eventually("nobody asks any more", () => asked())
        yield* Effect.sleep(50)
        const count = asked()
        write({ services: { ...services, later: plain } })
        yield* done(host.reload)
        yield* stays("nobody asks", () => asked() === count, 300)
        assert.deepStrictEqual((yield* stateOf(host, "job")).state, { _tag: "Waiting", on: ["resume"] })
        assert.deepStrictEqual((yield* stateOf(host, "later")).state, { _tag: "Waiting", on: ["resume"] })
        assert.strictEqual(yield* pidOf(host, "web"), web)

        yield* host.resume([])
        yield* awaitState(host, "job", "Ready", 2)
        yield* awaitState(host, "later", "Ready", 1)
        yield* eventually("it is asked again", () => asked() > count)
        assert.strictEqual(yield* pidOf(host, "web"), web)
      }),
    20_000
  )

  it.effect(
    "K5: the leader has gone and its group lives: the group still gets its signal",
    () =>
      Effect.gen(function*() {
        const { scratch, start } = yield* inFolder
        const member =
          "trap 'echo \"asked $$\" >>\"$REPORT\"; exit' TERM; echo \"member $$\" >>\"$REPORT\"; while :; do sleep 0.05; done"
        const host = yield* start({
          services: {
            web: sh(
              `(sh -c '${member.replaceAll("'", "'\\''")}' &) ; until grep -q member "$REPORT"; do sleep 0.01; done`,
              {
                env: { REPORT: { fromEnv: "REPORT" } },
                restart: { mode: "transient" }
              }
            )
          }
        })
        yield* awaitState(host, "web", "Stopped", 1)
        assert.deepStrictEqual(scratch.reported().map(({ name }) => name), ["member", "asked"])
        yield* assertNoneLiving(scratch)
      }),
    20_000
  )

  it.effect(
    "K10: a start whose probe fails is rolled back, told with its reason, and its last words are without secrets",
    () =>
      Effect.gen(function*() {
        const { scratch, start } = yield* inFolder
        const host = yield* start({
          services: {
            web: sh("echo \"web $$\" >>\"$REPORT\"; echo \"no $KEY\" >&2; exec sleep 60", {
              env: { REPORT: { fromEnv: "REPORT" }, KEY: { fromEnv: "API_KEY" } },
              readiness: { line: "never", within: "300 millis" },
              restart: { mode: "temporary" }
            }),
            shop: { ...plain, dependsOn: ["web"] }
          }
        })
        const { outcomes } = yield* done(host.start([]))
        assert.match(String(outcomes[0]?.problem), /not ready: .*300 ms/)
        assert.match(String(outcomes[1]?.problem), /web/)
        yield* assertNoneLiving(scratch)
        const { state } = yield* stateOf(host, "web")
        assert.strictEqual(state._tag === "Failed" && state.error.outputTail, "stderr:\nno <redacted>\n")
        assert.notInclude(JSON.stringify(yield* host.status), "correct-horse")
      }),
    20_000
  )

  it.effect(
    "peer 112: who refuses to end is told with pid, step and time; then all is killed, pools too",
    () =>
      Effect.gen(function*() {
        const { scratch, start } = yield* inFolder
        const stubborn = sh("trap '' TERM; echo \"$NAME $$\" >>\"$REPORT\"; echo up; while :; do sleep 1; done", {
          readiness: { line: "up" },
          env: { REPORT: { fromEnv: "REPORT" }, NAME: "web" },
          shutdown: { steps: [{ action: "SIGTERM", within: "1 hour" }] }
        })
        const host = yield* start({
          services: { web: stubborn, other: plain },
          pools: { tenants: { ...stubborn, env: { ...stubborn["env" as never] as object, NAME: "{key}" } } },
          daemon: { stopWithin: "2500 millis" }
        })
        yield* done(host.start([]))
        yield* (yield* host.pools).get("tenants")!.ensure("acme")
        const pids = Object.fromEntries(scratch.reported().map(({ name, pid }) => [name, pid]))
        const { at, outcomes, waits } = yield* done(host.shutdown())
        assert.isAtLeast(waits.length, 1)
        const told = waits[0]!.blocking.map(({ child, pid, step }) => ({ child, pid, step }))
        assert.deepStrictEqual(told, [
          { child: "web", pid: pids["web"]!, step: "SIGTERM" },
          { child: "tenants/acme", pid: pids["acme"]!, step: "SIGTERM" }
        ])
        for (const { at, blocking } of waits) {
          for (const { since } of blocking) assert.isAtLeast(at - since, 900)
        }
        assert.deepStrictEqual(outcomes.map(({ problem }) => problem), [null, null])
        assert.deepStrictEqual(yield* host.awaitEnd, { _tag: "Stopped" })
        assert.isBelow(at - (waits[0]!.at - 1000), 6000)
        yield* assertNoneLiving(scratch)
      }),
    20_000
  )

  it.effect(
    "logs: a file for each service, rotated by size, opened anew on demand or when it has gone, without secrets",
    () =>
      Effect.gen(function*() {
        const { scratch, start, text } = yield* inFolder
        const speaker = sh("n=0; echo up; while read -r line; do n=$((n+1)); echo \"$n $KEY\"; done <pipe", {
          readiness: { line: "up" },
          env: { KEY: { fromEnv: "API_KEY" } },
          logs: { file: "logs/web.log", maxSize: 200, keep: 2, timestamps: false }
        })
        const { status } = yield* Effect.promise(async () => {
          const { spawnSync } = await import("node:child_process")
          return spawnSync("mkfifo", [scratch.file("pipe")])
        })
        assert.strictEqual(status, 0)
        yield* Effect.scoped(Effect.gen(function*() {
          const host = yield* start({ services: { web: { ...speaker, restart: { mode: "transient" } }, quiet: plain } })
          yield* Effect.forkScoped(done(host.start([])))
          // The pipe is open until the first speaker has said all.
          const writer = fs.openSync(scratch.file("pipe"), "r+")
          fs.writeSync(writer, "x\n".repeat(3))
          const lines = (file: string) => fs.existsSync(scratch.file(file)) ? text(file).split("\n").length - 1 : 0
          yield* eventually("three lines", () => lines("logs/web.log") === 4)
          assert.strictEqual(
            text("logs/web.log"),
            "stdout up\nstdout 1 <redacted>\nstdout 2 <redacted>\nstdout 3 <redacted>\n"
          )
          // As logrotate does.
          fs.renameSync(scratch.file("logs/web.log"), scratch.file("logs/moved"))
          yield* host.reopenLogs
          assert.strictEqual(text("logs/web.log"), "")
          fs.writeSync(writer, "x\n")
          yield* eventually("a line in the new one", () => lines("logs/web.log") === 1)
          fs.rmSync(scratch.file("logs/web.log"))
          fs.writeSync(writer, "x\n".repeat(20))
          yield* eventually("rotated", () => fs.existsSync(scratch.file("logs/web.log.1")) && lines("logs/web.log") > 0)
          for (const name of fs.readdirSync(scratch.file("logs"))) {
            assert.isAtMost(fs.statSync(scratch.file(`logs/${name}`)).size, 200)
            assert.notInclude(text(`logs/${name}`), "correct-horse")
          }
          const kept = yield* host.logs.read({ children: ["web"], from: { lines: 1 } })
          assert.strictEqual(kept[0]?._tag === "Line" && kept[0].text, "24 <redacted>")
          fs.writeSync(writer, "x\n")
          fs.closeSync(writer)
          yield* awaitState(host, "web", "Stopped", 1)
        }))
        // K16: the last words are in the files when there is no host any more.
        const [last] = yield* LogFile.tail(scratch.file("logs/web.log"), { lines: 1 })
        assert.strictEqual(last, "stdout 25 <redacted>")
        assert.isFalse(fs.existsSync(scratch.file("logs/quiet.log")))
      }),
    20_000
  )

  it.effect(
    "each child of a pool has a log of its own, whatever its key, in the folder of the logs",
    () =>
      Effect.gen(function*() {
        const { scratch, start } = yield* inFolder
        const host = yield* start({
          pools: {
            tenants: sh("echo \"I am $TENANT\"; exec sleep 60", {
              env: { TENANT: "{key}" },
              readiness: { line: "I am" },
              logs: { file: "logs/{key}.log", timestamps: false }
            })
          }
        })
        const pool = (yield* host.pools).get("tenants")!
        yield* pool.ensure("..")
        yield* eventually("it is in a file", () => fs.existsSync(scratch.file("logs/_2e_2e.log")))
        const [line] = yield* host.logs.read({ children: ["tenants/.."] })
        assert.strictEqual(line?._tag === "Line" && line.text, "I am ..")
        assert.deepStrictEqual(fs.readdirSync(scratch.file("logs")), ["_2e_2e.log"])
        const second = (yield* pool.ensure("..")).incarnation
        yield* pool.shutdown("..")
        assert.isAbove((yield* pool.ensure("..")).incarnation, second)
        yield* eventually(
          "it goes on in the same file",
          () => fs.readFileSync(scratch.file("logs/_2e_2e.log"), "utf8") === "stdout I am ..\n".repeat(2)
        )
      }),
    20_000
  )

  it.effect(
    "nothing grows over many reloads and operations, also where their readers go away",
    () =>
      Effect.gen(function*() {
        const { start, write } = yield* inFolder
        const config = (round: number) => ({
          services: {
            web: {
              command: "sleep",
              args: ["60"],
              env: { ROUND: String(round) },
              logs: { file: `web-${round % 2}.log` }
            },
            same: { command: "sleep", args: ["60"] }
          },
          pools: { [`pool${round % 3}`]: { command: "sleep", args: ["60"] } }
        })
        const host = yield* start(config(0))
        yield* done(host.start([]))
        const same = yield* pidOf(host, "same")
        const round = Effect.fnUntraced(function*(number: number) {
          write(config(number))
          yield* done(host.reload)
          const reader = yield* Effect.forkChild(Stream.runDrain(host.restart(["web"])), { startImmediately: true })
          yield* Effect.yieldNow
          yield* Fiber.interrupt(reader)
          yield* host.pause(["web"])
          yield* done(host.start(["web"]))
          yield* host.status
        })
        const counts = () => ({
          descriptors: fs.readdirSync("/proc/self/fd").length,
          resources: process.getActiveResourcesInfo().length
        })
        for (let number = 1; number <= 3; number++) yield* round(number)
        const before = counts()
        for (let number = 4; number <= 12; number++) yield* round(number)
        const after = counts()
        assert.isAtMost(after.descriptors, before.descriptors + 2)
        assert.isAtMost(after.resources, before.resources + 4)
        const { logs, pools, services } = yield* host.status
        assert.deepStrictEqual([services.length, pools.length, logs.length], [2, 1, 2])
        assert.strictEqual(yield* host.logs.waiting, 0)
        assert.strictEqual(yield* pidOf(host, "same"), same)
        assert.isTrue(isAlive(identify(same)!))
      }),
    30_000
  )
})
