/** The command line of `treeline daemon`, and what it says of a daemon. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Daemon, type PidRecord } from "@treeline/core/daemon"
import { CliOutput, Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { CommandReport } from "treeline"
import * as Bootstrap from "../../packages/treeline/src/internal/Bootstrap.ts"
import * as DaemonCommands from "../../packages/treeline/src/internal/DaemonCommands.ts"
import * as DaemonVerbs from "../../packages/treeline/src/internal/DaemonVerbs.ts"
import * as Help from "../../packages/treeline/src/internal/Help.ts"
import * as Update from "../../packages/treeline/src/internal/Update.ts"
import * as UpdaterProcess from "../../packages/treeline/src/internal/UpdaterProcess.ts"

const commands = Command.make("treeline").pipe(
  // Nothing is run here.
  Command.withSubcommands([DaemonCommands.make({ ended: () => Effect.void, version: "1.0.0" })])
)

/** What a command line shows. */
const shown = (...argv: ReadonlyArray<string>) => {
  let help = ""
  const presenter = CliOutput.layerPresenter({
    present: (event) =>
      Effect.sync(() => {
        if (event._tag === "Help") help = Help.render(event.helpDoc, false)
      })
  })
  return Command.runWith(commands, { version: "1.0.0" })(["daemon", ...argv]).pipe(
    Effect.exit,
    Effect.provide(Layer.mergeAll(NodeServices.layer, presenter)),
    Effect.map((exit) => ({ exit, help }))
  )
}

const record: PidRecord.PidRecord = {
  identity: { pid: 7, startTime: "1", boot: "" },
  startedAt: 0,
  version: "1.0.0",
  program: "/bin/treeline",
  control: "/s/control.sock",
  config: "/treeline.json",
  grace: 1000,
  readyAt: 5
}

const nobody = Option.none<Daemon.Answer>()

describe("treeline daemon", () => {
  it.effect.each(["start", "stop", "restart", "status", "version", "bootstrap", "update", "run", "install"])(
    "%s --help: examples, exit codes, and no line beyond 80 columns",
    (verb) =>
      Effect.gen(function*() {
        const { help } = yield* shown(verb, "--help")
        for (
          const part of [`Usage: treeline daemon ${verb} `, "Exit codes", "\n  0  ", "Examples:\n  treeline daemon "]
        ) {
          assert.include(help, part)
        }
        for (const line of help.split("\n")) assert.isBelow(line.length, 80, line)
      })
  )

  it.effect("C6: the loop of the updater is a command of its own, which the help leaves out", () =>
    Effect.gen(function*() {
      const { help } = yield* shown("--help")
      assert.match(help, /^ {2}update +Update the managed install/m)
      assert.match(help, /^ {2}bootstrap +/m)
      assert.notMatch(help, /^ {2}updater\b/m)
      assert.strictEqual((yield* shown("updater")).exit._tag, "Success")
      assert.deepStrictEqual(UpdaterProcess.argumentsOf({ args: ["treeline"] }, "/srv/t.json", ["a=b"]), [
        "treeline",
        "daemon",
        "updater",
        "--config",
        "/srv/t.json",
        "--set",
        "a=b"
      ])
    }))

  it.effect("C25: a time is finite and not negative", () =>
    Effect.gen(function*() {
      for (const time of ["0", "10s", "5 minutes"]) {
        assert.strictEqual((yield* shown("stop", "--grace", time)).exit._tag, "Success", time)
      }
      for (const time of ["-5s", "inf", "nan", "soon"]) {
        assert.strictEqual((yield* shown("stop", `--grace=${time}`)).exit._tag, "Failure", time)
      }
      assert.strictEqual(yield* Daemon.grace("5 minutes"), 300_000)
      assert.strictEqual((yield* Effect.flip(Daemon.grace(300_001)))._tag, "InvalidSpec")
    }))

  it("C32, C19: what there is, from the record and from who answers", () => {
    const states: ReadonlyArray<readonly [PidRecord.State, Option.Option<Daemon.Answer>, string, number]> = [
      [{ _tag: "Missing" }, nobody, "notRunning", 3],
      [{ _tag: "Missing" }, Option.some({ pid: 9, version: "1" }), "unmanaged", 4],
      [{ _tag: "Starting", record }, nobody, "starting", 0],
      [{ _tag: "Running", record }, nobody, "running", 0],
      [{ _tag: "Stale", record }, nobody, "stale", 1],
      [{ _tag: "Stale", record: null }, Option.some({ pid: null, version: "1" }), "unmanaged", 4],
      [{ _tag: "Unreadable", path: "/s/x", detail: "d" }, nobody, "unreadable", 4],
      [{ _tag: "Unsure", path: "/s/x", pid: 7, detail: "d" }, nobody, "unsure", 4]
    ]
    for (const [state, answer, status, code] of states) {
      const found = Daemon.statusOf("/s", state, answer)
      assert.strictEqual(found.status, status)
      assert.strictEqual(DaemonVerbs.statusCodes[found.status], code)
      assert.include(DaemonVerbs.renderStatus(found), "/s")
    }
    assert.strictEqual(Daemon.statusOf("/s", { _tag: "Running", record }, nobody).detail, "control does not answer")
  })

  it("C10: how an update went, for people and as an exit code", () => {
    const outcome = {
      status: "updated",
      from: "a1",
      current: "b2",
      version: "1.1.0",
      restarted: true,
      pid: 7,
      detail: ""
    } as const
    const said = [
      [{}, 0, "updated to 1.1.0; the daemon is process 7"],
      [{ pid: null, restarted: false }, 0, "updated to 1.1.0; no daemon runs"],
      [{ status: "noUpdate" }, 0, "nothing new: 1.1.0 is current"],
      [
        { status: "noUpdate", detail: "version c3 did not hold before" },
        0,
        "nothing new: version c3 did not hold before"
      ],
      [{ status: "rolledBack", detail: "it did not answer" }, 1, "rolled back to 1.1.0: it did not answer"],
      [{ status: "busy", detail: "process 9 updates already" }, 75, "nothing was done: process 9 updates already"],
      [{ status: "disabled" }, 0, "nothing was done: daemon.update.enabled is false"]
    ] as const
    for (const [change, code, text] of said) {
      const update = { ...outcome, ...change }
      assert.strictEqual(Update.render(update), text)
      assert.strictEqual(Update.codes[update.status], code)
    }
  })

  it("what an updater does, for people", () => {
    const updater: CommandReport.DaemonStatus["updater"] = {
      status: "notRunning",
      pid: null,
      since: null,
      version: null,
      phase: "done",
      last: null,
      lastAt: null,
      detail: ""
    }
    assert.deepStrictEqual(DaemonVerbs.renderUpdater(updater), [])
    assert.deepStrictEqual(DaemonVerbs.renderUpdater({ ...updater, status: "running", pid: 7, phase: "fetching" }), [
      "updater: process 7, fetching"
    ])
    assert.deepStrictEqual(DaemonVerbs.renderUpdater({ ...updater, status: "stale", pid: 7, lastAt: 0, detail: "d" }), [
      "updater: dead, it was process 7",
      "  last     failed at 1970-01-01T00:00:00.000Z",
      "  note     d"
    ])
  })

  it("what bootstrap has set up, for people", () => {
    const report: CommandReport.DaemonBootstrap = {
      status: "bootstrapped",
      install: { status: "fetched", folder: "/s/install", current: "a1", version: "1.0.0", program: "/s/app" },
      daemon: { status: "started", pid: 7, version: "1.0.0", control: null },
      updater: { status: "started", pid: 8 },
      folder: "/s",
      milliseconds: 2100
    }
    assert.strictEqual(
      Bootstrap.render(report),
      "set up in 2.1 s\n  version  1.0.0, fetched: /s/app\n  daemon   started: process 7\n  updater  started: process 8"
    )
    const again = Bootstrap.render({
      ...report,
      status: "alreadyBootstrapped",
      install: { ...report.install, status: "present" },
      daemon: { ...report.daemon, status: "alreadyRunning" },
      updater: { status: "disabled", pid: null }
    })
    assert.strictEqual(
      again,
      "all was set up already\n  version  1.0.0, was there: /s/app\n  daemon   ran already: process 7\n  updater  not wanted"
    )
  })

  it("an outcome for people says who, how long, and what it waited for", () => {
    const outcome: Daemon.Outcome = {
      status: "stopped",
      pid: 7,
      managed: true,
      version: "1.0.0",
      control: null,
      folder: "/s",
      milliseconds: 1234,
      forced: true,
      blocking: ["web (pid 8) in SIGTERM"],
      ended: []
    }
    assert.strictEqual(
      DaemonVerbs.render(outcome),
      "ended process 7 (treeline 1.0.0) in 1.2 s, killed: it waited for web (pid 8) in SIGTERM"
    )
    assert.strictEqual(
      DaemonVerbs.render({ ...outcome, status: "alreadyRunning", managed: false }),
      "the services run already, not as a daemon: process 7 (treeline 1.0.0)"
    )
  })
})
