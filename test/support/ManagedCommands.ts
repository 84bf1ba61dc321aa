/** A managed install of a test, and the commands for it. */
import { assert, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as fs from "node:fs"
import { CommandReport } from "treeline"
import type { ServiceConfig } from "treeline/daemon"
import { answer } from "./Answers.ts"
import { eventually } from "./Eventually.ts"
import { identify, killIfAlive } from "./Processes.ts"
import * as Scratch from "./Scratch.ts"
import * as Command from "./TreelineCommand.ts"
import * as Up from "./Up.ts"

type Test = (scratch: Scratch.Scratch) => Effect.Effect<void, unknown, Scope.Scope>

/** Processes of this test: their command lines name its folder. */
export const processesOf = (
  scratch: Scratch.Scratch
): ReadonlyArray<{ readonly pid: number; readonly command: string }> =>
  fs.readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return []
    try {
      const command = fs.readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ")
      return command.includes(scratch.directory) ? [{ pid: Number(name), command }] : []
    } catch {
      return []
    }
  })

export const real = (name: string, test: Test, limit = 90_000) =>
  it.live.skipIf(process.platform !== "linux")(name, () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const { pid } of processesOf(scratch)) {
            const identity = identify(pid)
            if (identity !== undefined) killIfAlive(identity)
          }
        })
      )
      yield* test(scratch)
    }).pipe(Effect.scoped), limit)

/** What is fetched: a program that answers `--version`, and is this checkout's treeline for all else. */
export const publish = (scratch: Scratch.Scratch, version: string, run = `exec "$@"`): void => {
  const words = Command.treeline.map((word) => `'${word}'`).join(" ")
  fs.mkdirSync(scratch.file("source/bin"), { recursive: true })
  fs.writeFileSync(
    scratch.file("source/bin/app"),
    `#!/bin/sh\nif [ "$1" = --version ]; then echo "app ${version}"; exit; fi\nset -- ${words} "$@"\n${run}\n`,
    { mode: 0o755 }
  )
  fs.copyFileSync(scratch.file("source/bin/app"), scratch.file("source/bin/other"))
}

export const configure = (
  scratch: Scratch.Scratch,
  daemon: NonNullable<ServiceConfig.Input["daemon"]> = {},
  install: Partial<NonNullable<NonNullable<ServiceConfig.Input["daemon"]>["install"]>> = {}
): void =>
  Up.configure(scratch, {
    services: { web: Up.role(scratch, "plain") },
    daemon: {
      install: {
        program: "bin/app",
        fetch: { command: "cp", args: ["-R", `${scratch.file("source")}/.`, "."] },
        ...install
      },
      update: { first: "1 hour" },
      ...daemon
    }
  })

/** As a command over ssh: without a terminal, and with the input closed. */
export const detached = { program: ["setsid", "--wait", "sh", "-c", "exec \"$@\" <&-", "sh", ...Command.treeline] }

export const bootstrap = (scratch: Scratch.Scratch) =>
  answer(scratch, ["daemon", "bootstrap"], "DaemonBootstrap", CommandReport.DaemonBootstrap, detached)

export const daemon = (scratch: Scratch.Scratch, ...argv: ReadonlyArray<string>) =>
  answer(scratch, ["daemon", ...argv], "DaemonOutcome", CommandReport.DaemonOutcome)

export const update = (scratch: Scratch.Scratch, code = 0) =>
  answer(scratch, ["daemon", "update"], "DaemonUpdate", CommandReport.DaemonUpdate, { ...detached, code })

export const statusOf = (scratch: Scratch.Scratch, code = 0) =>
  answer(scratch, ["daemon", "status"], "DaemonStatus", CommandReport.DaemonStatus, { code })

export const log = (scratch: Scratch.Scratch): string => {
  const file = scratch.file(".treeline/updater.log")
  return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : ""
}

export const nothingLeft = (scratch: Scratch.Scratch) =>
  Effect.gen(function*() {
    yield* scratch.awaitNoneLiving()
    yield* eventually("no process is left", () => processesOf(scratch).length === 0, {
      detail: () => processesOf(scratch)
    })
    const stays = /^(install|settings\.json|update\.json|.*\.(err|log)(\.\w+)?)$/
    assert.deepStrictEqual(fs.readdirSync(scratch.file(".treeline")).filter((name) => !stays.test(name)), [])
  })
