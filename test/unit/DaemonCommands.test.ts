/** The command line of `treeline daemon`, and what it says of a daemon. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Daemon, type PidRecord } from "@treeline/core/daemon"
import { CliOutput, Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as DaemonCommands from "../../packages/treeline/src/internal/DaemonCommands.ts"
import * as DaemonVerbs from "../../packages/treeline/src/internal/DaemonVerbs.ts"
import * as Help from "../../packages/treeline/src/internal/Help.ts"

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
  it.effect.each(["start", "stop", "restart", "status", "version", "run", "install"])(
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
