/** Services of a configuration as real processes: files, order, reload. */
import { assert, layer } from "@effect/vitest"
import { Services } from "@treeline/core/daemon"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Layer, References } from "effect"
import * as fs from "node:fs"
import * as net from "node:net"
import { ConfigFile } from "treeline/daemon"
import { eventually } from "../support/Eventually.ts"
import { identify } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"
import { assertNoneLiving } from "../support/Trees.ts"

const platform = Layer.mergeAll(PosixPlatform.layer, Layer.succeed(References.MinimumLogLevel, "None"))

/** Reports `NAME-up`, the value of `GREETING`, and `NAME-down` when it is asked to end. */
const script = (name: string) =>
  `trap 'echo "${name}-down $$" >>"$REPORT"; kill $!; exit 0' TERM; echo "${name}-up $$" >>"$REPORT"; echo "$GREETING" >>"$REPORT.${name}"; echo up; sleep 60 & wait`

type Fields = Readonly<Record<string, unknown>>

/** A configuration of a folder, written and read as a person's would be. */
const inFolder = Effect.map(Scratch.make, (scratch) => {
  const file = scratch.file("treeline.json")
  const environment = { ...process.env, REPORT: scratch.report }
  return {
    scratch,
    /** Services that report themselves, with these fields more. */
    write: (services: Readonly<Record<string, Fields>>) =>
      fs.writeFileSync(
        file,
        JSON.stringify({
          services: Object.fromEntries(
            Object.entries(services).map(([name, { env, ...fields }]) => [name, {
              command: script(name),
              shell: true,
              readiness: { line: "up" },
              env: { REPORT: { fromEnv: "REPORT" }, GREETING: "hello", ...env as object },
              ...fields
            }])
          )
        })
      ),
    writeText: (text: string) => fs.writeFileSync(file, text),
    load: Effect.map(ConfigFile.load({ folder: scratch.directory, environment }), ({ config }) => config),
    story: () => scratch.reported().map(({ name }) => name),
    greetings: (name: string) => fs.readFileSync(`${scratch.report}.${name}`, "utf8").trim().split("\n")
  }
})

const pidsOf = ({ supervisor }: Services.Services) =>
  Effect.map(
    supervisor.children,
    (children) => Object.fromEntries(children.map(({ id, state }) => [id, "pid" in state ? state.pid : null]))
  )

layer(platform, { excludeTestServices: true })("services", (it) => {
  it.effect(
    "K11: a changed environment restarts that one; the others keep their pids; all end with the scope",
    () =>
      Effect.gen(function*() {
        const folder = yield* inFolder
        yield* Effect.scoped(Effect.gen(function*() {
          folder.write({ db: {}, web: { dependsOn: ["db"] }, job: {} })
          const services = yield* Services.start(yield* folder.load)
          yield* services.supervisor.awaitReady
          const before = yield* pidsOf(services)
          folder.write({ db: { env: { GREETING: "good morning" } }, web: { dependsOn: ["db"] }, job: {} })
          const report = yield* services.reload(yield* folder.load)
          yield* services.supervisor.awaitReady
          const after = yield* pidsOf(services)
          assert.deepStrictEqual(report.applied, [{ service: "db", change: "changed", fields: ["env"], problem: null }])
          assert.deepStrictEqual([after["web"], after["job"]], [before["web"], before["job"]])
          assert.notStrictEqual(after["db"], before["db"])
          assert.deepStrictEqual(folder.greetings("db"), ["hello", "good morning"])
          assert.deepStrictEqual(folder.story().slice(-2), ["db-down", "db-up"])
        }))
        yield* assertNoneLiving(folder.scratch)
      }),
    20_000
  )

  it.effect(
    "removed ones stop from the top down, new ones start from the bottom up, and an own name is free at once",
    () =>
      Effect.gen(function*() {
        const folder = yield* inFolder
        folder.write({ db: {}, api: { dependsOn: ["db"] }, web: { dependsOn: ["api"] }, other: {} })
        const services = yield* Services.start(yield* folder.load)
        yield* services.supervisor.awaitReady
        const { other } = yield* pidsOf(services)
        const count = folder.story().length
        folder.write({ other: {}, site: { dependsOn: ["store"] }, store: {} })
        const report = yield* services.reload(yield* folder.load)
        yield* services.supervisor.awaitReady
        assert.deepStrictEqual(report.applied.map(({ change, service }) => `${service} ${change}`), [
          "db removed",
          "api removed",
          "web removed",
          "site added",
          "store added"
        ])
        assert.deepStrictEqual(folder.story().slice(count), ["web-down", "api-down", "db-down", "store-up", "site-up"])
        assert.deepStrictEqual(Object.keys(yield* pidsOf(services)).sort(), ["other", "site", "store"])
        assert.strictEqual((yield* pidsOf(services))["other"], other)
      }),
    20_000
  )

  it.effect("a changed .env file is a change of the services that have it", () =>
    Effect.gen(function*() {
      const folder = yield* inFolder
      const services = { a: { envFile: ["a.env"] }, b: {} }
      fs.writeFileSync(folder.scratch.file("a.env"), "KEY=1\n")
      folder.write(services)
      const started = yield* Services.start(yield* folder.load)
      yield* started.supervisor.awaitReady
      fs.writeFileSync(folder.scratch.file("a.env"), "KEY=2\n")
      const report = yield* started.reload(yield* folder.load)
      assert.deepStrictEqual([report.unchanged, report.applied.map(({ fields, service }) => [service, fields])], [
        ["b"],
        [["a", ["env"]]]
      ])
      assert.notInclude(JSON.stringify(report), "2")
    }), 20_000)

  it.effect("a file that can't be used changes nothing, whatever is wrong with it", () =>
    Effect.gen(function*() {
      const folder = yield* inFolder
      folder.write({ db: {}, web: { dependsOn: ["db"] } })
      const services = yield* Services.start(yield* folder.load)
      yield* services.supervisor.awaitReady
      const before = yield* pidsOf(services)
      const story = folder.story()
      const wrong = [
        () => folder.writeText("{ \"services\": {"),
        () => folder.write({ db: { restart: { mode: "hunter2" } }, web: {} }),
        () => folder.write({ db: { dependsOn: ["web"] }, web: { dependsOn: ["db"] } }),
        () => folder.write({ db: { envFile: ["none.env"] }, web: {} }),
        () => fs.rmSync(folder.scratch.file("treeline.json"))
      ]
      for (const write of wrong) {
        write()
        const error = yield* Effect.flip(Effect.flatMap(folder.load, services.reload))
        assert.strictEqual(error._tag, "InvalidConfig")
        assert.notInclude(error.message, "hunter2")
      }
      assert.deepStrictEqual([yield* pidsOf(services), folder.story()], [before, story])
    }), 20_000)

  it.effect(
    "a program that is missing after a reload fails alone; the next reload puts it right",
    () =>
      Effect.gen(function*() {
        const folder = yield* inFolder
        folder.write({ db: {}, web: {} })
        const services = yield* Services.start(yield* folder.load)
        yield* services.supervisor.awaitReady
        const { db } = yield* pidsOf(services)
        const missing = { command: "treeline-no-such-program", shell: false, restart: { mode: "temporary" } }
        folder.write({ db: {}, web: missing })
        yield* services.reload(yield* folder.load)
        const web = yield* services.supervisor.child("web")
        assert.strictEqual((yield* web.awaitEnd)._tag, "Failed")
        assert.strictEqual(identify(db!)?.pid, db)
        folder.write({ db: {}, web: {} })
        yield* services.reload(yield* folder.load)
        yield* services.supervisor.awaitReady
        assert.strictEqual((yield* pidsOf(services))["db"], db)
      }),
    20_000
  )

  it.effect("K9: a service whose port somebody else holds is not started", () =>
    Effect.gen(function*() {
      const server = yield* Effect.acquireRelease(
        Effect.callback<net.Server>((resume) => {
          const server = net.createServer((socket) => socket.destroy())
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.promise(() => new Promise((resolve) => server.close(resolve)))
      )
      const { port } = server.address() as net.AddressInfo
      const folder = yield* inFolder
      folder.write({ web: { readiness: { tcp: port, within: "500 millis" }, restart: { mode: "temporary" } } })
      const services = yield* Services.start(yield* folder.load)
      const error = yield* Effect.flip(services.supervisor.awaitReady)
      assert.include(error.message, `port ${port}, which web needs, is in use by`)
      assert.include(error.message, `(pid ${process.pid})`)
      assert.deepStrictEqual(folder.story(), [])
    }), 20_000)

  it.effect(
    "a service has what its configuration says: folder, environment, arguments, shell, probes",
    () =>
      Effect.gen(function*() {
        const folder = yield* inFolder
        const out = folder.scratch.file("out")
        fs.mkdirSync(folder.scratch.file("work"))
        folder.writeText(JSON.stringify({
          services: {
            plain: {
              command: "sh",
              args: ["-c", "pwd >\"$1\"; env >>\"$1\"; exec sleep 60", "sh", out],
              cwd: "work",
              inheritEnv: false,
              env: { PATH: process.env["PATH"] ?? "", A: "1" },
              readiness: { exec: ["sh", "-c", "test \"$A\" = 1 && test \"$(basename \"$PWD\")\" = work"] },
              shutdown: { steps: [{ action: "SIGINT", within: "1 second" }] }
            }
          }
        }))
        const services = yield* Services.start(yield* folder.load)
        yield* services.supervisor.awaitReady
        const text = yield* eventually("it has written", () => {
          const found = fs.existsSync(out) ? fs.readFileSync(out, "utf8") : ""
          return /^A=1$/m.test(found) && found
        })
        assert.include(text, `${folder.scratch.file("work")}\n`)
        assert.notMatch(text, /^HOME=/m)
      }),
    20_000
  )
})
