/** The daemon as a service of a real systemd. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { CommandReport } from "treeline"
import { asked, realWith, recorded } from "../support/DaemonCommand.ts"
import { eventually } from "../support/Eventually.ts"
import { isNative } from "../support/Host.ts"
import { identify, isAlive, signalIfAlive } from "../support/Processes.ts"
import type * as Scratch from "../support/Scratch.ts"
import * as Systemd from "../support/Systemd.ts"
import * as Up from "../support/Up.ts"

const installed = (scratch: Scratch.Scratch) =>
  asked(scratch, ["install", "--manager", "systemd", "--name", "shop"], "DaemonUnit", CommandReport.DaemonUnit)

const noAnalyze = child_process.spawnSync("systemd-analyze", ["--version"]).status !== 0

describe("treeline daemon install (needs systemd-analyze)", () => {
  realWith(noAnalyze)(
    "systemd finds nothing wrong with the unit, whatever is in its paths",
    (scratch) =>
      Effect.gen(function*() {
        const folder = scratch.file("100% of $HOME \"x\" and 'y'")
        fs.mkdirSync(folder)
        fs.writeFileSync(`${folder}/treeline.json`, "{}")
        const { file } = yield* asked(
          scratch,
          ["install", "--manager", "systemd", "--name", "shop", "--config", `${folder}/treeline.json`],
          "DaemonUnit",
          CommandReport.DaemonUnit
        )
        const runtime = scratch.file("run")
        fs.mkdirSync(runtime, { mode: 0o700 })
        const verify = (unit: string) =>
          child_process.spawnSync("systemd-analyze", ["verify", "--user", unit], {
            encoding: "utf8",
            env: { PATH: process.env["PATH"], HOME: scratch.directory, XDG_RUNTIME_DIR: runtime }
          })
        const { status, stderr } = verify(file)
        assert.deepStrictEqual([status, stderr], [0, ""])
        const other = scratch.file("other.service")
        fs.writeFileSync(other, fs.readFileSync(file, "utf8").replace("KillMode=mixed", "KillMode=mixd"))
        assert.include(verify(other).stderr, "kill mode")
      })
  )
})

const whyNot = Systemd.whyNot() ?? (isNative ? undefined : "sd_notify needs native code")

describe(`under systemd (${whyNot ?? "here"})`, () => {
  realWith(whyNot !== undefined)(
    "started when it is ready, reloaded, killed and started again when it says nothing, ended in order",
    (scratch) =>
      Effect.gen(function*() {
        const services = { web: Up.role(scratch, "grandchild") }
        Up.configure(scratch, { services })
        const unit = yield* installed(scratch)
        // Its watchdog in a time that a test can wait for.
        fs.mkdirSync(`${unit.file}.d`)
        fs.writeFileSync(`${unit.file}.d/soon.conf`, "[Service]\nWatchdogSec=1\n")
        const systemd = yield* Systemd.start(scratch)
        const started = yield* systemd.ask("start", "shop")
        assert.deepStrictEqual(started, { code: 0, said: "" })
        const readyAt = performance.now()
        const pid = recorded(scratch)!
        assert.strictEqual(yield* systemd.property("shop", "MainPID"), String(pid))
        assert.strictEqual(yield* systemd.property("shop", "ActiveState"), "active")
        assert.strictEqual(yield* systemd.property("shop", "StatusText"), `runs ${scratch.file("treeline.json")}`)
        const leaf = yield* scratch.awaitNamed("leaf")

        Up.configure(scratch, { services: { ...services, other: Up.role(scratch, "plain") } })
        assert.deepStrictEqual(yield* systemd.ask("reload", "shop"), { code: 0, said: "" })
        yield* scratch.awaitNamed("plain")
        assert.strictEqual(recorded(scratch), pid)

        // It says that it is alive for longer than the watchdog waits, and then no more.
        yield* eventually("a watchdog's time has gone", () => performance.now() > readyAt + 1500)
        assert.isTrue(isAlive(leaf))
        signalIfAlive(pid, "SIGSTOP")
        const next = yield* eventually("systemd has started another one", () => {
          const other = recorded(scratch)
          return other !== pid && other !== undefined && identify(pid) === undefined && other
        }, { within: 20_000 })
        yield* eventually("its services, too", () =>
          scratch.reported().filter(({ name }) => name === "leaf").length === 2)
        assert.isFalse(isAlive(leaf), "of two copies of a service there is one")
        assert.strictEqual(yield* systemd.property("shop", "NRestarts"), "1")

        assert.deepStrictEqual(yield* systemd.ask("stop", "shop"), { code: 0, said: "" })
        assert.strictEqual(yield* systemd.property("shop", "Result"), "success")
        assert.isUndefined(identify(next))
        yield* scratch.awaitNoneLiving(0)
      })
  )
})
