/**
 * `treeline daemon` on Windows: real commands, a real daemon without a console, real services in jobs, control over a port.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Command from "./support/Command.ts"
import { startedWith } from "./support/Memory.ts"
import { identify, isAlive, killIfAlive } from "./support/Processes.ts"

const real = (name: string, test: (place: Command.Place) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(Command.place, test)), 120_000)

const last = <A>(all: ReadonlyArray<A>, count: number): ReadonlyArray<A> => all.slice(-count)

const left = (place: Command.Place) => fs.readdirSync(place.file(".treeline")).toSorted()

/** Every file in the folder, as text. */
const texts = (folder: string, except: string): string =>
  fs.readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== except)
    .map((entry) => fs.readFileSync(path.join(entry.parentPath, entry.name), "latin1"))
    .join("\n")

describe("treeline daemon", () => {
  real(
    "C9, C34, C28 managed_children_launch_in_workdir: start, start again, restart, stop in order by control",
    (place) =>
      Effect.gen(function*() {
        place.configure({
          services: {
            db: place.service("db", "polite"),
            web: { ...place.service("web", "polite"), dependsOn: ["db"], readiness: { line: "web listens" } }
          }
        })
        assert.strictEqual((yield* Command.statusOf(place, 3)).status, "notRunning")
        // It returns, and with it both of its outputs, while the daemon lives: nothing is inherited (peer 113).
        const first = yield* Command.changed(place, "start", "--wait", "30s")
        assert.deepStrictEqual([first.status, first.managed], ["started", true])
        assert.match(first.control!, /^127\.0\.0\.1:\d+$/)
        const daemon = identify(first.pid!)!
        const [entry = ""] = fs.readdirSync(place.file(".treeline/daemon"))
        const record = JSON.parse(fs.readFileSync(place.file(`.treeline/daemon/${entry}`), "utf8"))
        assert.deepStrictEqual(record.holder, { pid: daemon.pid, startTime: daemon.start, boot: "" })
        const web = yield* Command.awaitFamily(place, "web")
        const db = yield* Command.awaitFamily(place, "db")
        for (const line of place.reports()) {
          assert.strictEqual(line.split(" ").slice(3).join(" ").toLowerCase(), place.directory.toLowerCase())
        }
        const again = yield* Command.changed(place, "start")
        assert.deepStrictEqual([again.status, again.pid], ["alreadyRunning", first.pid])
        const status = yield* Command.statusOf(place, 0)
        assert.deepStrictEqual([status.status, status.pid, status.answers], ["running", first.pid, true])

        const second = yield* Command.changed(place, "restart", "--wait", "30s")
        assert.deepStrictEqual([second.status, second.forced], ["restarted", false])
        assert.notStrictEqual(second.pid, first.pid)
        assert.deepStrictEqual([daemon, ...web, ...db].filter(isAlive), [])
        const next = [
          ...last(yield* Command.awaitFamily(place, "web", 2), 2),
          ...last(yield* Command.awaitFamily(place, "db", 2), 2)
        ]
        const stopped = yield* Command.changed(place, "stop")
        assert.deepStrictEqual([stopped.status, stopped.pid, stopped.forced], ["stopped", second.pid, false])
        assert.deepStrictEqual(next.filter(isAlive), [])
        // No signal can end it in order here: it was asked by control, and its services in their order.
        assert.deepStrictEqual(last(place.reports(), 2), ["web ends", "db ends"])
        assert.deepStrictEqual(left(place), ["daemon.err", "daemon.err.previous", "daemon.log"])
        assert.strictEqual((yield* Command.changed(place, "stop")).status, "notRunning")
      })
  )

  real(
    "peer 104, C31: killed it leaves no service; the next start cleans up; stop needs no settings",
    (place) =>
      Effect.gen(function*() {
        place.configure({ services: { web: place.service("web", "stubborn") } })
        const first = yield* Command.changed(place, "start", "--wait", "30s")
        const family = yield* Command.awaitFamily(place, "web")
        const token = place.token()
        killIfAlive(identify(first.pid!)!)
        yield* Command.awaitGone(family)
        assert.strictEqual((yield* Command.statusOf(place, 1)).status, "stale")
        assert.include(left(place), "control.json", "what a killed one leaves")
        const second = yield* Command.changed(place, "start", "--wait", "30s")
        assert.strictEqual(second.status, "started")
        assert.notStrictEqual(place.token(), token)
        const next = last(yield* Command.awaitFamily(place, "web", 2), 2)

        fs.writeFileSync(place.file("treeline.json"), "{ not a configuration")
        const status = yield* Command.statusOf(place, 0)
        assert.deepStrictEqual([status.pid, status.answers], [second.pid, true])
        // The service does not end when it is asked to, so all of it is killed with the daemon.
        const stopped = yield* Command.changed(place, "stop", "--grace", "2s")
        assert.deepStrictEqual([stopped.status, stopped.pid, stopped.forced], ["stopped", second.pid, true])
        assert.match(stopped.blocking.join(), /^web \(pid \d+\) in /)
        yield* Command.awaitGone(next)
        assert.isUndefined(Command.recorded(place))
        assert.strictEqual((yield* Command.run(place, "daemon", "start")).code, 2)
      })
  )

  real("peer 105: of two starts at once one starts it, the other finds it", (place) =>
    Effect.gen(function*() {
      place.configure({ services: { web: place.service("web", "polite") } })
      const start = Command.changed(place, "start", "--wait", "30s")
      const both = yield* Effect.all([start, start], { concurrency: 2 })
      assert.deepStrictEqual(both.map(({ status }) => status).toSorted(), ["alreadyRunning", "started"])
      assert.strictEqual(both[0].pid, both[1].pid)
      yield* Command.awaitFamily(place, "web")
      assert.strictEqual((yield* Command.changed(place, "stop")).forced, false)
    }))

  real("K14: the token is in its file and nowhere else", (place) =>
    Effect.gen(function*() {
      place.configure({ services: { web: place.service("web", "polite") } })
      const { pid } = yield* Command.changed(place, "start", "--wait", "30s")
      const [service, child] = yield* Command.awaitFamily(place, "web")
      const token = place.token()
      assert.match(token, /^[0-9a-f]{64}$/)
      const said: Array<string> = []
      for (const argv of [["status", "--json"], ["daemon", "status"], ["logs"]]) {
        const { stderr, stdout } = yield* Command.run(place, ...argv)
        said.push(stdout, stderr)
      }
      for (const each of [pid!, service!.pid, child!.pid]) said.push(startedWith(each))
      assert.include(said.join(), "daemon run --config", "the command line of the daemon was seen")
      said.push(texts(place.directory, "control.json"))
      // Refused: another token, in a file of its own.
      const other = `${token.startsWith("0") ? "1" : "0"}${token.slice(1)}`
      const control = place.file(".treeline/control.json")
      const known = fs.readFileSync(control, "utf8")
      fs.writeFileSync(control, known.replace(token, other))
      const refused = yield* Command.run(place, "status")
      fs.writeFileSync(control, known)
      assert.deepStrictEqual([refused.code, refused.stderr.includes("BadToken")], [5, true], refused.stderr)
      said.push(refused.stdout, refused.stderr, texts(place.directory, "control.json"))
      assert.notInclude(said.join("\n"), token)
      yield* Command.changed(place, "stop")
    }))

  real("the commands for services, and treeline up, over the port", (place) =>
    Effect.gen(function*() {
      place.configure({
        services: { web: { ...place.service("web", "polite"), readiness: { line: "web listens" } } }
      })
      const up = yield* Command.start(place, ["up"])
      const [first] = yield* Command.awaitFamily(place, "web")
      const asked = (...argv: ReadonlyArray<string>) =>
        Effect.map(Command.run(place, ...argv), (outcome) => {
          assert.strictEqual(outcome.code, 0, `${argv.join(" ")}: ${outcome.stdout}${outcome.stderr}`)
          return outcome.stdout
        })
      assert.include(yield* asked("logs"), "web listens")
      const status = JSON.parse(yield* asked("status", "--json"))
      assert.strictEqual(status.services[0].child.state._tag, "Ready")
      yield* asked("restart", "web")
      assert.isFalse(isAlive(first!))
      const [, , second] = yield* Command.awaitFamily(place, "web", 2)
      // Neither a start nor a stop takes it for a daemon (C32).
      const found = yield* Command.changed(place, "start")
      assert.deepStrictEqual([found.status, found.managed, found.pid], ["alreadyRunning", false, up.identity.pid])
      assert.strictEqual((yield* Command.run(place, "daemon", "stop")).code, 4)
      yield* asked("down")
      assert.strictEqual((yield* up.ended).code, 0)
      assert.isFalse(isAlive(second!))
      assert.isFalse(fs.existsSync(place.file(".treeline/control.json")))
    }))

  real("install shows a task of Windows", (place) =>
    Effect.gen(function*() {
      place.configure({ services: { web: place.service("web", "polite") } })
      const { code, stderr, stdout } = yield* Command.run(
        place,
        "daemon",
        "install",
        "--manager",
        "windows",
        "--dry-run"
      )
      assert.strictEqual(code, 0, stderr)
      assert.include(stdout, `<Command>${process.execPath}</Command>`)
      assert.match(stdout, /<UserId>[^<]+<\/UserId>/)
      assert.include(stdout, `<WorkingDirectory>${place.directory}</WorkingDirectory>`)
      assert.match(stdout, /This would be written to .*AppData[\\/]Local[\\/]treeline[\\/]treeline-\S+\.xml/)
    }))
})
