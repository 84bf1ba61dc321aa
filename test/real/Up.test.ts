/** `treeline up` and the commands for services, as separate processes in pipes. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { CommandReport } from "treeline"
import { eventually } from "../support/Eventually.ts"
import { isAlive, killIfAlive } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"
import { configure, role, start, whyNot } from "../support/Up.ts"

/** Runs a command beside others. */
const run = (scratch: Scratch.Scratch, argv: ReadonlyArray<string>) =>
  Command.run(argv, { scratch, sparesOthers: true })

/** Runs a command that is to succeed; its only line is valid by the published schema and by the Schema. */
const ask = Effect.fnUntraced(function*(
  scratch: Scratch.Scratch,
  definition: keyof typeof CommandReport,
  argv: ReadonlyArray<string>
) {
  const { code, stderr, stdout } = yield* run(scratch, [...argv, "--json"])
  assert.strictEqual(code, 0, `${argv.join(" ")}: ${stderr}`)
  const value: unknown = JSON.parse(stdout)
  assert.strictEqual(stdout.split("\n").length, 2, stdout)
  assert.strictEqual(whyNot(definition, value), undefined, stdout)
  return value as Readonly<Record<string, unknown>>
})

/** Runs a command that is to fail: nothing on stdout, and stderr is a `Failure`; of `up` its last line. */
const refuse = Effect.fnUntraced(function*(scratch: Scratch.Scratch, argv: ReadonlyArray<string>) {
  const { code, stderr, stdout } = yield* run(scratch, [...argv, "--json"])
  assert.strictEqual(stdout, "")
  const value: unknown = JSON.parse(argv[0] === "up" ? stderr.trim().split("\n").at(-1)! : stderr)
  assert.strictEqual(whyNot("Failure", value), undefined, stderr)
  const failure = Schema.decodeUnknownSync(CommandReport.Failure)(value)
  assert.strictEqual(failure.exitCode, code)
  return failure
})

const stateOf = (status: Readonly<Record<string, unknown>>, name: string): string =>
  (status as unknown as CommandReport.Status).services.find((service) => service.name === name)!.child.state._tag

const talker = "echo hello; while :; do sleep 0.1; done"

describe("treeline up in a pipe", () => {
  it.live("lines only, each with the name of its service; SIGTERM ends all in order", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, {
        services: {
          db: { command: talker, shell: true },
          web: { ...role(scratch, "grandchild"), dependsOn: ["db"] }
        }
      })
      const up = yield* start(scratch, "web is ready")
      yield* scratch.awaitReported(3)
      up.signal("SIGTERM")
      const { code, signal, stderr, stdout } = yield* up.ended
      assert.deepStrictEqual([code, signal, stderr], [0, null, ""])
      assert.match(stdout, /^db       \| hello$/m)
      assert.notInclude(stdout, "\u001b")
      const order = ["SIGTERM: all are being ended", "web is stopped", "db is stopped", "all have ended"]
      assert.deepStrictEqual(
        order.map((text) => stdout.indexOf(text)).toSorted((a, b) => a - b),
        order.map((text) => stdout.indexOf(text))
      )
      for (const text of order) assert.include(stdout, text)
      assert.deepStrictEqual(scratch.living(), [])
      assert.strictEqual(fs.existsSync(scratch.file(".treeline/control.sock")), false)
    }))

  it.live("peer complaint 19: it says what the end waits for, and a second signal kills", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, {
        services: {
          slow: { ...role(scratch, "stubborn"), shutdown: { steps: [{ action: "SIGTERM", within: "1 minute" }] } }
        }
      })
      const up = yield* start(scratch, "slow is ready", ["--json"].slice(1))
      const slow = yield* scratch.awaitNamed("stubborn")
      yield* scratch.awaitNamed("leaf")
      up.signal("SIGINT")
      yield* up.awaitOutput(`waits for the end of slow (pid ${slow.pid}, SIGTERM for `)
      up.signal("SIGINT")
      const { signal, stdout } = yield* up.ended
      assert.strictEqual(signal, "SIGINT")
      assert.include(stdout, "SIGINT: all are killed")
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("--json: one object at the end, what happens is text on stderr; --quiet leaves out the services' lines", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, { services: { db: { command: talker, shell: true } } })
      const up = yield* Command.start(["up", "--json", "--quiet"], { scratch })
      yield* eventually("it is up", () => up.stderr().includes("db is ready"))
      up.signal("SIGTERM")
      const { code, stderr, stdout } = yield* up.ended
      assert.strictEqual(code, 0)
      assert.notInclude(stderr, "hello")
      const value: unknown = JSON.parse(stdout)
      assert.strictEqual(whyNot("Up", value), undefined)
      const { forced, services, stoppedBy } = Schema.decodeUnknownSync(CommandReport.Up)(value)
      assert.deepStrictEqual([stoppedBy, forced, services], ["SIGTERM", false, [{ name: "db", restarts: 0 }]])
    }))

  it.live("it ends by itself when all is done; with code 1 when something has failed for good", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const once = (code: number) => ({ command: `exit ${code}`, shell: true, restart: { mode: "temporary" as const } })
      configure(scratch, { services: { one: once(0), two: once(0) } })
      const done = yield* run(scratch, ["up"])
      assert.strictEqual(done.code, 0)
      assert.include(done.stdout, "two is done: exited with code 0")
      configure(scratch, {
        services: { one: once(0), two: { ...once(3), restart: { mode: "transient", permanentFailureCodes: [3] } } }
      })
      const failure = yield* refuse(scratch, ["up"])
      assert.strictEqual(failure.exitCode, 1)
      assert.match(failure.message, /two: .*exited with code 3/)
    }))

  it.live("more restarts than may be: all are ended, and the causes are told", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, {
        services: {
          bad: { command: "exit 7", shell: true, restart: { backoff: { first: 1, max: 1 } } },
          ok: role(scratch, "leaf")
        },
        supervisor: { intensity: { max: 2, within: "1 minute" } }
      })
      const failure = yield* refuse(scratch, ["up"])
      assert.deepStrictEqual([failure.error._tag, failure.exitCode], ["IntensityExceeded", 1])
      assert.include(failure.message, "exited with code 7")
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("named services run with what they depend on, and no others", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const service = { command: talker, shell: true }
      configure(scratch, { services: { db: service, other: service, web: { ...service, dependsOn: ["db"] } } })
      const up = yield* start(scratch, "web is ready", ["web"])
      assert.notInclude(up.stdout(), "other")
      up.signal("SIGTERM")
      yield* up.ended
      const failure = yield* refuse(scratch, ["up", "nobody"])
      assert.deepStrictEqual([failure.exitCode, failure.message], [
        2,
        "there is no service or group nobody; there is db, other, web"
      ])
    }))

  it.live("killed by SIGKILL it leaves nothing, and the next one starts", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, {
        services: { db: role(scratch, "session"), web: { ...role(scratch, "cleared"), dependsOn: ["db"] } }
      })
      const up = yield* start(scratch, "web is ready")
      yield* scratch.awaitReported(5)
      killIfAlive(up.identity)
      yield* scratch.awaitNoneLiving(15_000)
      const absent = yield* refuse(scratch, ["status"])
      assert.strictEqual(absent.exitCode, 3)
      const next = yield* start(scratch, "web is ready")
      next.signal("SIGTERM")
      assert.strictEqual((yield* next.ended).code, 0)
    }))

  it.live("K11: a second one for the same configuration starts nothing and names the first", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, { services: { db: role(scratch, "leaf") } })
      const up = yield* start(scratch, "db is ready")
      yield* scratch.awaitReported(1)
      const failure = yield* refuse(scratch, ["up"])
      assert.deepStrictEqual([failure.error._tag, failure.exitCode], ["AlreadyRunning", 4])
      assert.strictEqual("pid" in failure.error && failure.error.pid, up.identity.pid)
      const { stderr } = yield* run(scratch, ["up"])
      assert.include(stderr, `(pid ${up.identity.pid})`)
      assert.include(stderr, "treeline down")
      assert.strictEqual(scratch.reported().length, 1, up.stdout())
      assert.strictEqual(isAlive(up.identity), true)
    }))

  it.live("SIGHUP reads the configuration anew; one that can't be used changes nothing", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const service = { command: talker, shell: true }
      configure(scratch, { services: { db: service } })
      const up = yield* start(scratch, "db is ready")
      fs.writeFileSync(scratch.file("treeline.json"), "{ \"services\": 1 }")
      up.signal("SIGHUP")
      yield* up.awaitOutput("nothing was changed: treeline.json:1:15: services: ")
      configure(scratch, { services: { db: service, web: service } })
      up.signal("SIGHUP")
      yield* up.awaitOutput("the configuration was read anew: added web; 1 unchanged")
      yield* up.awaitOutput("web is ready")
    }))
})

describe("the commands for services", () => {
  it.live("each answers with one object that the published schema knows", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, {
        services: {
          db: { command: "echo to-stdout; echo to-stderr >&2; while :; do sleep 0.1; done", shell: true },
          web: { ...role(scratch, "leaf"), dependsOn: ["db"] }
        },
        groups: { all: ["db", "web"] },
        pools: { tenants: { command: talker, shell: true } }
      })
      const up = yield* start(scratch, "web is ready")
      yield* scratch.awaitReported(1)
      const status = () => ask(scratch, "Status", ["status"])
      const first = yield* status()
      assert.deepStrictEqual([stateOf(first, "db"), stateOf(first, "web")], ["Ready", "Ready"])
      assert.strictEqual((first as unknown as CommandReport.Status).host.pid, up.identity.pid)

      yield* ask(scratch, "Operation", ["stop", "web"])
      assert.strictEqual(stateOf(yield* status(), "web"), "Stopped")
      const started = yield* ask(scratch, "Operation", ["start", "web"])
      assert.deepInclude(started["outcomes"], { service: "web", problem: null })
      yield* ask(scratch, "Operation", ["restart", "all"])
      assert.strictEqual(stateOf(yield* status(), "web"), "Ready")

      // These have nothing to do with each other.
      const pausing = Effect.gen(function*() {
        const paused = yield* ask(scratch, "Paused", ["pause", "db"])
        assert.deepInclude(paused["services"], { name: "db", paused: true })
        const resumed = yield* ask(scratch, "Paused", ["resume", "--reload", "db"])
        assert.deepInclude(resumed["services"], { name: "db", paused: false })
        yield* ask(scratch, "Operation", ["reload"])
      })
      const telling = Effect.gen(function*() {
        const logs = yield* ask(scratch, "Logs", ["logs", "db", "--stderr"])
        const texts = (logs as unknown as CommandReport.Logs).entries.map((entry) =>
          entry._tag === "Gap" ? "" : entry.text
        )
        assert.deepStrictEqual([logs["source"], [...new Set(texts)]], ["running", ["to-stderr"]])
        const events = yield* ask(scratch, "Events", ["events"])
        assert.isAbove((events as unknown as CommandReport.Events).events.length, 5)
        const sent = yield* ask(scratch, "Signal", ["signal", "web", "usr1"])
        assert.deepInclude(sent, { service: "web", signal: "SIGUSR1", delivered: 1 })
      })
      const pooling = Effect.gen(function*() {
        const key = yield* ask(scratch, "PoolKey", ["pool", "ensure", "tenants", "acme"])
        assert.deepInclude(key, { pool: "tenants", key: "acme", incarnation: 1 })
        yield* ask(scratch, "PoolKeyDown", ["pool", "shutdown", "tenants", "acme"])
        const pool = yield* refuse(scratch, ["pool", "ensure", "nobody", "x"])
        assert.deepStrictEqual([pool.exitCode, pool.message], [2, "there is no pool nobody; there is tenants"])
      })
      const refusing = Effect.forEach([["stop", "nobody"], ["logs", "nobody"]], (argv) =>
        Effect.map(refuse(scratch, argv), ({ exitCode, message }) =>
          assert.deepStrictEqual(
            [exitCode, message],
            [2, "there is no service or group nobody; there is db, web, all"]
          )))
      yield* Effect.all([pausing, telling, pooling, refusing], { concurrency: "unbounded", discard: true })

      yield* ask(scratch, "Operation", ["stop", "web"])
      assert.deepInclude(yield* refuse(scratch, ["signal", "web", "HUP"]), {
        exitCode: 1,
        message: "web is not running, it is Stopped"
      })

      const down = yield* ask(scratch, "Operation", ["down"])
      assert.deepInclude(down["outcomes"], { service: "db", problem: null })
      assert.strictEqual((yield* up.ended).code, 0)
      assert.deepStrictEqual(scratch.living(), [])
    }), 60_000)

  it.live("logs and events that are followed: one object in each line, by the published schema", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, { services: { db: { command: "while :; do echo tick; sleep 0.1; done", shell: true } } })
      yield* start(scratch, "tick")
      const logs = yield* Command.start(["logs", "-f", "-n", "1", "--json"], { scratch })
      const events = yield* Command.start(["events", "-f", "--json"], { scratch })
      yield* eventually("lines come", () => logs.stdout().split("\n").length > 5)
      yield* ask(scratch, "Operation", ["stop", "db"])
      yield* eventually("the stop is told", () => events.stdout().includes("\"Stopped\""))
      for (const [definition, started] of [["LogEntry", logs], ["Event", events]] as const) {
        const lines = started.stdout().trim().split("\n")
        assert.isAbove(lines.length, 3)
        for (const line of lines) assert.strictEqual(whyNot(definition, JSON.parse(line)), undefined, line)
      }
      yield* run(scratch, ["down"])
      assert.strictEqual((yield* logs.ended).code, 0)
    }))

  it.live("nothing runs: they say what to do, with a code of its own", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, { services: { db: role(scratch, "leaf") } })
      for (const argv of [["logs"], ["down"]]) {
        const failure = yield* refuse(scratch, argv)
        assert.deepStrictEqual([failure.error._tag, failure.exitCode], ["NothingRuns", 3])
      }
      const { code, stderr, stdout } = yield* run(scratch, ["status"])
      assert.deepStrictEqual([code, stdout], [3, ""])
      assert.include(stderr, "nothing runs here: \"treeline up\" runs what ")
    }))

  it.live("K16: logs come from the files when nothing runs", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const service = (text: string) => ({
        command: `echo ${text}; echo ${text}-problem >&2`,
        shell: true,
        restart: { mode: "temporary" as const },
        logs: { file: `${text}.log` }
      })
      configure(scratch, { services: { one: service("one"), two: service("two") } })
      yield* run(scratch, ["up"])
      const { entries, source } = (yield* ask(scratch, "Logs", ["logs"])) as unknown as CommandReport.Logs
      assert.strictEqual(source, "files")
      assert.deepStrictEqual(entries.map(({ child }) => child).toSorted(), ["one", "one", "two", "two"])
      const plain = yield* run(scratch, ["logs", "one", "--stderr"])
      assert.match(plain.stdout, /^one      \| \S+ stderr one-problem\n$/)
      assert.include(plain.stderr, "nothing runs here")
    }))

  it.live("C31: a configuration that was broken meanwhile does not keep anybody from ending its services", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, { services: { db: role(scratch, "leaf") } })
      const up = yield* start(scratch, "db is ready")
      fs.writeFileSync(scratch.file("treeline.json"), "{ broken")
      yield* ask(scratch, "Status", ["status"])
      yield* ask(scratch, "Operation", ["down"])
      assert.strictEqual((yield* up.ended).code, 0)
      // Now it may say where to look, so what is wrong with it is what there is to say.
      assert.strictEqual((yield* refuse(scratch, ["status"])).error._tag, "InvalidConfig")
    }))

  it.live("another configuration with the same place: its services are named, and left alone", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, { services: { db: role(scratch, "leaf") } })
      fs.copyFileSync(scratch.file("treeline.json"), scratch.file("other.json"))
      const up = yield* start(scratch, "db is ready")
      for (const verb of ["up", "down"]) {
        const failure = yield* refuse(scratch, [verb, "-c", "other.json"])
        assert.deepStrictEqual([failure.error._tag, failure.exitCode], ["OtherConfiguration", 2], verb)
        for (const part of ["treeline.json run", `process ${up.identity.pid} `, "daemon.directory"]) {
          assert.include(failure.message, part)
        }
      }
      assert.strictEqual(isAlive(up.identity), true)
    }))

  it.live("bash completes commands, options and commands of commands", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const { stdout } = yield* run(scratch, ["--completions", "bash"])
      const complete = (words: string, index: number) =>
        child_process.spawnSync("bash", [
          "-c",
          `${stdout}
COMP_WORDS=(${words}); COMP_CWORD=${index}; COMP_LINE="${words}"
eval "$(complete -p treeline | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "\${COMPREPLY[@]}"`
        ], { encoding: "utf8" }).stdout.trim().split("\n").toSorted()
      assert.deepStrictEqual(complete("treeline re", 1), ["reload", "restart", "resume"])
      assert.include(complete("treeline logs --f", 2), "--follow")
      assert.deepStrictEqual(complete("treeline pool e", 2), ["ensure"])
    }))
})
