/** `treeline daemon`: the commands as processes of their own, on a daemon with real services. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { CommandReport } from "treeline"
import {
  asked,
  changed,
  log,
  real,
  realWith,
  recorded,
  refused,
  stateFolder,
  statusOf
} from "../support/DaemonCommand.ts"
import { eventually } from "../support/Eventually.ts"
import { hasReaper, isNative } from "../support/Host.ts"
import { identify, killIfAlive, signalIfAlive } from "../support/Processes.ts"
import * as Random from "../support/Random.ts"
import * as Command from "../support/TreelineCommand.ts"
import * as Up from "../support/Up.ts"

const deaths = Number(process.env["TREELINE_DAEMON_DEATHS"] ?? 1)

describe("treeline daemon", () => {
  real(
    "C9, C13, C31, C34: start, start again, restart, and a stop whose configuration can't be read",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: Up.role(scratch, "grandchild") } })
        assert.strictEqual((yield* statusOf(scratch, 3)).status, "notRunning")
        const first = yield* changed(scratch, "start")
        assert.deepStrictEqual([first.status, first.managed], ["started", true])
        assert.strictEqual(recorded(scratch), first.pid)
        yield* scratch.awaitNamed("leaf")
        const again = yield* changed(scratch, "start")
        assert.deepStrictEqual([again.status, again.pid], ["alreadyRunning", first.pid])
        const versions = yield* asked(scratch, ["version"], "DaemonVersion", CommandReport.DaemonVersion)
        assert.deepStrictEqual([versions.daemon, versions.pid], [versions.command, first.pid])
        const second = yield* changed(scratch, "restart")
        assert.strictEqual(second.status, "restarted")
        assert.notStrictEqual(second.pid, first.pid)
        assert.isUndefined(identify(first.pid!), "the old one has gone")
        fs.writeFileSync(scratch.file("treeline.json"), "{ not a configuration")
        const status = yield* statusOf(scratch, 0)
        assert.deepStrictEqual([status.status, status.pid, status.answers], ["running", second.pid, true])
        const stopped = yield* changed(scratch, "stop")
        assert.deepStrictEqual([stopped.status, stopped.pid, stopped.forced], ["stopped", second.pid, false])
        yield* scratch.awaitNoneLiving(0)
        assert.deepStrictEqual(fs.readdirSync(stateFolder(scratch)).toSorted(), [
          "daemon.err",
          "daemon.err.previous",
          "daemon.log"
        ])
        const failure = yield* refused(scratch, ["start"], 2)
        assert.strictEqual(failure.error._tag, "InvalidConfig")
      })
  )

  real(
    "peer 104: killed by SIGKILL it leaves no service, and the next start cleans up",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: Up.role(scratch, "session") } })
        const first = yield* changed(scratch, "start")
        yield* scratch.awaitNamed("leaf")
        killIfAlive(identify(first.pid!)!)
        yield* scratch.awaitNoneLiving()
        assert.deepStrictEqual((yield* statusOf(scratch, 1)).status, "stale")
        const second = yield* changed(scratch, "start")
        assert.strictEqual(second.status, "started")
        assert.strictEqual((yield* changed(scratch, "stop", "--grace", "10s")).status, "stopped")
        yield* scratch.awaitNoneLiving()
      })
  )

  real(
    "C32: services of treeline up are told by a start and left alone by a stop",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        const up = yield* Up.start(scratch, "web")
        yield* scratch.awaitNamed("plain")
        const found = yield* changed(scratch, "start")
        assert.deepStrictEqual([found.status, found.managed, found.pid], ["alreadyRunning", false, up.identity.pid])
        const failure = yield* refused(scratch, ["stop"], 4)
        assert.deepStrictEqual(failure.error._tag === "Unmanaged" && failure.error.pid, up.identity.pid)
        assert.strictEqual((yield* statusOf(scratch, 4)).status, "unmanaged")
        up.signal("SIGTERM")
        yield* up.ended
      })
  )

  real("HUP reads the configuration anew, TERM ends in order, a second one kills", (scratch) =>
    Effect.gen(function*() {
      const stubborn = Up.role(scratch, "stubborn")
      Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
      const run = yield* Command.start(["daemon", "run"], { scratch })
      yield* scratch.awaitNamed("plain")
      const started = yield* eventually(
        "it is ready",
        () => recorded(scratch) === run.identity.pid && log(scratch).includes(" runs "),
        { within: 20_000 }
      )
      assert.isTrue(started)
      Up.configure(scratch, {
        services: { stubborn: { ...stubborn, shutdown: { steps: [{ action: "SIGTERM", within: "1 minute" }] } } }
      })
      run.signal("SIGHUP")
      yield* scratch.awaitNamed("leaf")
      yield* eventually("the old service has gone", () => scratch.living().every(({ name }) => name !== "plain"))
      run.signal("SIGTERM")
      yield* eventually("the end has begun", () => log(scratch).includes("SIGTERM: all services are being ended"))
      assert.isNotEmpty(scratch.living())
      const second = yield* Command.run(["daemon", "run"], { scratch })
      assert.strictEqual(second.code, 4, "there is one already")
      assert.include(second.stderr, `pid ${run.identity.pid}`)
      signalIfAlive(run.identity.pid, "SIGINT")
      assert.strictEqual((yield* run.ended).code, 0)
      yield* scratch.awaitNoneLiving(0)
      assert.isUndefined(recorded(scratch))
    }))

  real(
    "install writes a unit once, shows it with --dry-run, and leaves another one alone",
    (scratch) =>
      Effect.gen(function*() {
        Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
        const ask = (...argv: ReadonlyArray<string>) =>
          asked(
            scratch,
            ["install", "--manager", "systemd", "--name", "shop", ...argv],
            "DaemonUnit",
            CommandReport.DaemonUnit
          )
        const shown = yield* ask("--dry-run")
        assert.strictEqual(shown.file, scratch.file(".config/systemd/user/shop.service"))
        assert.isFalse(shown.written || fs.existsSync(shown.file))
        const written = yield* ask()
        assert.isTrue(written.written)
        assert.strictEqual(fs.readFileSync(shown.file, "utf8"), shown.text)
        assert.include(shown.text, JSON.stringify(scratch.file("treeline.json")))
        fs.appendFileSync(shown.file, "# mine\n")
        const refused = yield* Command.run(["daemon", "install", "--manager", "systemd", "--name", "shop"], { scratch })
        assert.strictEqual(refused.code, 2)
        assert.include(refused.stderr, "says something else")
      })
  )

  realWith(!isNative || !hasReaper)(
    "sd_notify: ready, alive, reloading, ending; its services are told nothing of it",
    (scratch) =>
      Effect.gen(function*() {
        const socket = scratch.file("notify")
        const receive =
          `my $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die; $| = 1; print "here\\n";
        while (defined $s->recv(my $m, 4096)) { $m =~ s/\\n/;/g; print "$m\\n" }`
        const program = ["perl", "-MIO::Socket::UNIX", "-e", receive, socket]
        const manager = yield* Command.start([], { scratch, program })
        yield* manager.awaitOutput("here")
        const line = `echo "notify=$NOTIFY_SOCKET." > "$0"; exec sh "$1" plain "$2"`
        const [tree = "", , report = ""] = Up.role(scratch, "plain").args
        Up.configure(scratch, {
          services: { web: { command: "sh", args: ["-c", line, scratch.file("environment"), tree, report] } }
        })
        const env = { NOTIFY_SOCKET: socket, WATCHDOG_USEC: "300000" }
        const run = yield* Command.start(["daemon", "run"], { scratch, env })
        yield* manager.awaitOutput(`READY=1;STATUS=runs ${scratch.file("treeline.json")}`)
        yield* scratch.awaitNamed("plain")
        assert.strictEqual(fs.readFileSync(scratch.file("environment"), "utf8"), "notify=.\n")
        const alive = () => manager.stdout().split("WATCHDOG=1").length - 1
        const before = alive()
        yield* eventually("it says that it is alive, again and again", () => alive() > before + 2)
        run.signal("SIGHUP")
        yield* manager.awaitOutput("RELOADING=1;MONOTONIC_USEC=")
        run.signal("SIGTERM")
        yield* manager.awaitOutput("STOPPING=1;")
        assert.strictEqual((yield* run.ended).code, 0)
      })
  )

  real(`peer 114: SIGKILL at a random instant of a reload; ${deaths} deaths`, (scratch) =>
    Effect.gen(function*() {
      const random = Random.make()
      const plain = { web: Up.role(scratch, "plain") }
      Up.configure(scratch, { services: plain })
      let { pid } = yield* changed(scratch, "start")
      for (let death = 0; death < deaths; death++) {
        Up.configure(scratch, {
          services: { web: Up.role(scratch, "grandchild"), [`other${death}`]: Up.role(scratch, "session") }
        })
        signalIfAlive(pid!, "SIGHUP")
        const at = performance.now() + random() * 300
        yield* eventually("the moment comes", () => performance.now() >= at)
        killIfAlive(identify(pid!)!)
        yield* scratch.awaitNoneLiving()
        Up.configure(scratch, { services: plain })
        const next = yield* changed(scratch, "start")
        assert.strictEqual(next.status, "started", `seed ${Random.seed}, death ${death}`)
        pid = next.pid
      }
      yield* changed(scratch, "stop")
      yield* scratch.awaitNoneLiving(0)
      assert.isUndefined(recorded(scratch))
    }), 60_000 + 10_000 * deaths)

  real("C8: a daemon that fails tells why", (scratch) =>
    Effect.gen(function*() {
      Up.configure(scratch, { services: { web: Up.role(scratch, "plain") } })
      // Something else is where its socket should be.
      fs.mkdirSync(stateFolder(scratch), { mode: 0o700 })
      fs.writeFileSync(path.join(stateFolder(scratch), "control.sock"), "")
      const failure = yield* refused(scratch, ["start"], 1)
      assert.strictEqual(failure.error._tag, "DaemonNotReady")
      assert.include(failure.message, "is no socket")
      yield* scratch.awaitNoneLiving(0)
    }))
})
