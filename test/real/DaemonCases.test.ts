/** `treeline daemon` in the cases that other systems of the kind were broken by: identity, turns, two copies, long paths. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { CommandReport } from "treeline"
import * as PsTable from "../../packages/platform-posix/src/internal/PsTable.ts"
import { freePort } from "../support/Children.ts"
import { asked, changed, changedWith, real, realWith, recorded, refused, statusOf } from "../support/DaemonCommand.ts"
import { eventually, stays } from "../support/Eventually.ts"
import { guardianAmongChildren } from "../support/Host.ts"
import { identify, type Identity, isAlive, killIfAlive, signalIfAlive } from "../support/Processes.ts"
import { program } from "../support/Programs.ts"
import type * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"
import * as Up from "../support/Up.ts"

const onLinux = process.platform === "linux"

/**
 * Reports `copy PID` when it has its lock and its port, `second PID` when another one still has one of them. It ends when
 * it is asked to only after a while, or never.
 */
const exclusive = (scratch: Scratch.Scratch, port: number, ends: "late" | "never") => {
  const server =
    `const say = (name) => require("node:fs").appendFileSync(process.argv[1], name + " " + process.pid + "\\n")
    process.on("SIGTERM", () => { if (process.argv[3] === "late") setTimeout(() => process.exit(0), 300) })
    require("node:net").createServer().on("error", () => { say("second"); process.exit(71) })
      .listen(Number(process.argv[2]), "127.0.0.1", () => say("copy"))`
  const script = `exec 9>>"$1.lock"; flock -n 9 || { echo "second $$" >>"$1"; exit 70; }
    exec "$2" -e "$3" "$1" "$4" "$5"`
  return {
    command: "sh",
    args: ["-c", script, "sh", scratch.report, process.execPath, server, String(port), ends]
  }
}

const copies = (scratch: Scratch.Scratch): ReadonlyArray<string> =>
  scratch.reported().filter(({ name }) => name === "copy" || name === "second").map(({ name }) => name)

const awaitCopies = (scratch: Scratch.Scratch, count: number) =>
  eventually(`${count} copies have begun`, () => copies(scratch).length >= count, { detail: () => copies(scratch) })

/** The guardian of a daemon, stopped: what the daemon leaves when it is killed stays until it is let go on. */
const stopGuardian = (pid: number) =>
  Effect.acquireRelease(
    Effect.map(
      eventually("it has a guardian", () => guardianAmongChildren({ identity: identify(pid)! })),
      (guardian): Identity => {
        signalIfAlive(guardian.pid, "SIGSTOP")
        return guardian
      }
    ),
    (guardian) => Effect.sync(() => isAlive(guardian) && signalIfAlive(guardian.pid, "SIGCONT"))
  )

describe("treeline daemon", () => {
  real(
    "C3: a stop waits for a start that is at work, and ends what that has started",
    (scratch) =>
      Effect.gen(function*() {
        // The first reader is the start itself; the second one, its daemon, waits until it may go on.
        const service = JSON.stringify(Up.role(scratch, "grandchild"))
        fs.writeFileSync(
          scratch.file("treeline.config.mjs"),
          `import * as fs from "node:fs"
        const made = (name) => { try { fs.mkdirSync(import.meta.dirname + "/" + name); return true } catch { return false } }
        if (!made("first") && made("second")) {
          while (!fs.existsSync(import.meta.dirname + "/go")) await new Promise((resolve) => setTimeout(resolve, 10))
        }
        export default { services: { web: ${service} } }`
        )
        const start = yield* Command.start(["daemon", "start", "--json"], { scratch })
        yield* eventually("the daemon is on its way", () => fs.existsSync(scratch.file("second")), { within: 20_000 })
        const stop = yield* Command.start(["daemon", "stop", "--json"], { scratch })
        yield* stays("the start is at work", () => isAlive(start.identity), 1000)
        assert.strictEqual(stop.stdout() + stop.stderr(), "", "the stop waits")
        fs.writeFileSync(scratch.file("go"), "")
        const [started, stopped] = [yield* start.ended, yield* stop.ended].map(({ code, stderr, stdout }) => {
          assert.strictEqual(code, 0, stderr)
          return JSON.parse(stdout) as CommandReport.DaemonOutcome
        })
        assert.deepStrictEqual([started!.status, stopped!.status], ["started", "stopped"])
        assert.deepStrictEqual([stopped!.pid, stopped!.forced], [started!.pid, false])
        yield* scratch.awaitNoneLiving(0)
        assert.isUndefined(recorded(scratch))
      })
  )

  real(
    "C20: who it is does not depend on the locale and the time zone of a command",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        const first = yield* changedWith(scratch, { LC_ALL: "C", TZ: "Asia/Tokyo" }, "start")
        const elsewhere = { LC_ALL: "tr_TR.UTF-8", LANG: "de_DE.UTF-8", TZ: "America/St_Johns" }
        const status = yield* statusOf(scratch, 0, elsewhere)
        assert.deepStrictEqual([status.status, status.pid], ["running", first.pid])
        const again = yield* changedWith(scratch, elsewhere, "start")
        assert.deepStrictEqual([again.status, again.pid], ["alreadyRunning", first.pid])
        const stopped = yield* changedWith(scratch, { LC_ALL: "ja_JP.UTF-8", TZ: "UTC" }, "stop")
        assert.deepStrictEqual([stopped.status, stopped.pid, stopped.forced], ["stopped", first.pid, false])
        yield* scratch.awaitNoneLiving(0)
      })
  )

  realWith(process.platform === "win32")(
    "C20: nor does it where ps tells when a process was started",
    () =>
      Effect.gen(function*() {
        const startOf = Effect.promise(() => PsTable.read()).pipe(
          Effect.map((entries) => entries.find(({ pid }) => pid === process.pid)?.start)
        )
        const before = { LC_ALL: process.env["LC_ALL"], TZ: process.env["TZ"] }
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            for (const [name, value] of Object.entries(before)) {
              if (value === undefined) delete process.env[name]
              else process.env[name] = value
            }
          })
        )
        const start = yield* startOf
        assert.isDefined(start)
        for (const env of [{ LC_ALL: "tr_TR.UTF-8", TZ: "Asia/Tokyo" }, { LC_ALL: "C", TZ: "America/St_Johns" }]) {
          Object.assign(process.env, env)
          assert.strictEqual(yield* startOf, start)
        }
      })
  )

  real("C22: the record has the file that runs, wherever the link leads later", (scratch) =>
    Effect.gen(function*() {
      Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
      const link = scratch.file("current.js")
      const target = fs.realpathSync(program("treeline"))
      fs.symlinkSync(target, link)
      const linked = { program: [process.execPath, "--conditions=source", link] }
      const started = yield* asked(scratch, ["start"], "DaemonOutcome", CommandReport.DaemonOutcome, linked)
      fs.rmSync(link)
      fs.symlinkSync(scratch.file("nothing.js"), link)
      const status = yield* statusOf(scratch, 0)
      assert.deepStrictEqual([status.status, status.program], ["running", target])
      const versions = yield* asked(scratch, ["version"], "DaemonVersion", CommandReport.DaemonVersion)
      assert.strictEqual(versions.program, target)
      const stopped = yield* changed(scratch, "stop")
      assert.deepStrictEqual([stopped.status, stopped.pid], ["stopped", started.pid])
    }))

  real(
    "C31: it is found where its record says that control is, also when the configuration can't be read",
    (scratch) =>
      Effect.gen(function*() {
        const services = { web: Up.role(scratch, "plain") }
        // At a port: see the token's test.
        Up.configure(scratch, { daemon: { socket: "elsewhere/control.sock" }, services })
        const first = yield* changed(scratch, "start")
        const again = yield* changed(scratch, "start")
        assert.deepStrictEqual([again.status, again.pid], ["alreadyRunning", first.pid])
        fs.writeFileSync(scratch.file("treeline.json"), "{ not a configuration")
        const status = yield* statusOf(scratch, 0)
        assert.deepStrictEqual([status.status, status.pid, status.answers], ["running", first.pid, true])
        const stopped = yield* changed(scratch, "stop")
        assert.deepStrictEqual([stopped.status, stopped.pid, stopped.forced], ["stopped", first.pid, false])
        yield* scratch.awaitNoneLiving(0)
      })
  )

  realWith(!onLinux)(
    "K7: its own group is never signalled: not when leftovers are ended, and not when it is killed",
    (scratch) =>
      Effect.gen(function*() {
        const restart = { mode: "temporary" as const }
        Up.configure(scratch, {
          services: { gone: { ...Up.role(scratch, "gone"), restart }, web: Up.role(scratch, "session") }
        })
        // A stranger in the daemon's group, session and children: no service of it.
        const script = `sleep 60 & echo "bystander $!" >>"$0"; exec "$@"`
        const run = yield* Command.start(["daemon", "run"], {
          scratch,
          program: ["setsid", "sh", "-c", script, scratch.report, ...Command.treeline]
        })
        const bystander = yield* scratch.awaitNamed("bystander")
        const groupOf = (pid: number) =>
          fs.readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\) /s, "").split(" ")[2]
        yield* scratch.awaitNamed("leaf")
        assert.deepStrictEqual(
          [groupOf(bystander.pid), groupOf(run.identity.pid)],
          Array(2).fill(`${run.identity.pid}`)
        )
        const quiet = () => scratch.reported().filter(({ name }) => name === "quiet")
        yield* eventually(
          "what the leader left has been ended",
          () => scratch.reported().some(({ name }) => name === "gone") && quiet().length === 2 && !quiet().some(isAlive)
        )
        assert.isTrue(isAlive(bystander) && isAlive(run.identity), "after leftovers")
        killIfAlive(run.identity)
        const of = (names: ReadonlyArray<string>) => scratch.living().filter(({ name }) => names.includes(name))
        yield* eventually("its services end with it", () => of(["session", "middle", "leaf"]).length === 0)
        assert.isTrue(isAlive(bystander), "after the kill")
      })
  )

  real(
    "K18, peer 108: in a folder whose path is too long for a socket, by commands with other variables",
    (scratch) =>
      Effect.gen(function*() {
        const deep = scratch.file("x".repeat(120))
        fs.mkdirSync(deep)
        const config = path.join(deep, "treeline.json")
        fs.writeFileSync(config, JSON.stringify({ services: { web: Up.role(scratch, "plain") } }))
        const env = (name: string) => {
          fs.mkdirSync(scratch.file(name), { mode: 0o700 })
          return { XDG_RUNTIME_DIR: scratch.file(name), TREELINE_CONFIG: config }
        }
        const started = yield* changedWith(scratch, env("one"), "start")
        const other = env("other")
        const status = yield* statusOf(scratch, 0, other)
        assert.deepStrictEqual([status.status, status.pid, status.answers], ["running", started.pid, true])
        assert.isBelow(Buffer.byteLength(status.control!), 104)
        const again = yield* changedWith(scratch, other, "start")
        assert.deepStrictEqual([again.status, again.pid], ["alreadyRunning", started.pid])
        const stopped = yield* changedWith(scratch, other, "stop")
        assert.deepStrictEqual([stopped.status, stopped.pid], ["stopped", started.pid])
        yield* scratch.awaitNoneLiving(0)
        assert.deepStrictEqual(fs.readdirSync(scratch.file("one/treeline-" + process.getuid!())), [])
        // Where somebody asks for such a path it is an error.
        Up.configure(scratch, { daemon: { socket: "y".repeat(110) } })
        const { error } = yield* refused(scratch, ["start"], 2)
        assert.deepStrictEqual([error._tag, error._tag === "InvalidSpec" && error.field], [
          "InvalidSpec",
          "daemon.socket"
        ])
      })
  )

  realWith(!onLinux)(
    "peer 49: a service that is restarted, and a daemon that is, never have two copies of it",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: exclusive(scratch, yield* freePort, "late") } })
        yield* changed(scratch, "start")
        yield* awaitCopies(scratch, 1)
        const restarted = yield* Command.run(["restart", "web"], { scratch, sparesOthers: true })
        assert.strictEqual(restarted.code, 0, restarted.stderr)
        yield* awaitCopies(scratch, 2)
        yield* changed(scratch, "restart")
        yield* awaitCopies(scratch, 3)
        yield* changed(scratch, "stop")
        yield* scratch.awaitNoneLiving(0)
        assert.deepStrictEqual(copies(scratch), ["copy", "copy", "copy"])
      })
  )

  for (const verb of ["start", "restart"]) {
    realWith(!onLinux)(
      `peer 49: a ${verb} after SIGKILL waits for what the dead daemon had started, which its guardian is ending`,
      (scratch) =>
        Effect.gen(function*() {
          Up.configure(scratch, { services: { web: exclusive(scratch, yield* freePort, "never") } })
          const first = yield* changed(scratch, "start")
          yield* awaitCopies(scratch, 1)
          const guardian = yield* stopGuardian(first.pid!)
          if (verb === "start") killIfAlive(identify(first.pid!)!)
          const grace = verb === "start" ? [] : ["--grace", "0"]
          // Its own folder for temporary files is not the one that the record of the dead host is in.
          const env = { TMPDIR: fs.mkdtempSync(scratch.file("tmp-")) }
          const next = yield* Command.start(["daemon", verb, ...grace, "--json"], { scratch, env })
          yield* eventually("the old one is dead", () => identify(first.pid!) === undefined)
          yield* stays("it waits", () => isAlive(next.identity) && copies(scratch).length === 1, 1500)
          signalIfAlive(guardian.pid, "SIGCONT")
          const { code, stderr } = yield* next.ended
          assert.strictEqual(code, 0, stderr)
          yield* awaitCopies(scratch, 2)
          // As the services have no end of their own: when it returns, nothing is left.
          yield* changed(scratch, "stop", "--grace", "0")
          yield* scratch.awaitNoneLiving(0)
          assert.deepStrictEqual(copies(scratch), ["copy", "copy"])
        })
    )
  }
})
