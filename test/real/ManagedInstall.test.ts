/** A managed install with real programs: how they are fetched by a command, and what they answer. */
import { assert, describe, it } from "@effect/vitest"
import { ManagedInstall, UpdateFetch } from "@treeline/core/daemon"
import { NodeManagedInstall } from "@treeline/platform-node"
import { Effect, Fiber, Option, type Scope } from "effect"
import { ChildProcess } from "effect/process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { ProcessPlatform } from "treeline"
import * as Daemons from "../support/Daemons.ts"
import * as Scratch from "../support/Scratch.ts"

interface Place {
  readonly scratch: Scratch.Scratch
  readonly install: ManagedInstall.ManagedInstall
}

const test = (
  name: string,
  body: (place: Place) => Effect.Effect<void, unknown, ProcessPlatform.ProcessPlatform | Scope.Scope>
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const platform = yield* ProcessPlatform.ProcessPlatform
      const self = Option.getOrThrow(yield* platform.identify(process.pid))
      const install = NodeManagedInstall.make({ directory: scratch.file("install"), self, platform })
      yield* body({ scratch, install })
    }).pipe(Effect.scoped, Effect.provide(Daemons.layer)))

const shell = (script: string, within: number | string = "20 seconds") =>
  UpdateFetch.command(ChildProcess.make("sh", ["-c", script]), { within: within as "20 seconds" })

const tree = fileURLToPath(new URL("../fixtures/tree.sh", import.meta.url))

/** A script for the shell as a program of a version. */
const program = (script: string): ManagedInstall.Fetch => (folder) =>
  Effect.sync(() => fs.writeFileSync(path.join(folder, "app"), `#!/bin/sh\n${script}\n`, { mode: 0o755 }))

describe("a fetch by a command", () => {
  test("C16: fills the version, byte for byte; only the same bytes are the same version", ({ install, scratch }) =>
    Effect.gen(function*() {
      const source = scratch.file("source")
      const bytes = Uint8Array.from({ length: 300_000 }, (_, at) => (at * 31) & 255)
      fs.writeFileSync(source, bytes)
      const fetch = yield* shell(`cp '${source}' data && ln -s data link`)
      const first = yield* install.stage(fetch)
      assert.isTrue(fs.readFileSync(path.join(first.path, "link")).equals(bytes))
      assert.strictEqual((yield* install.stage(fetch)).id, first.id)
      fs.appendFileSync(source, "\0")
      assert.notStrictEqual((yield* install.stage(fetch)).id, first.id)
    }))

  test("C16: a code other than 0 is refused, with the last that was said", ({ install }) =>
    Effect.gen(function*() {
      const fetch = yield* shell("echo half > data; echo no such release >&2; exit 22")
      const error = yield* Effect.flip(install.stage(fetch))
      assert.strictEqual(error._tag, "UpdateFetchFailed")
      assert.strictEqual(error.message, "no version was fetched by sh: exited with code 22:\nstderr:\nno such release")
      assert.deepStrictEqual(yield* install.versions, [])
    }))

  test("one that can't be started is told", ({ install }) =>
    Effect.gen(function*() {
      const fetch = yield* UpdateFetch.command(ChildProcess.make("treeline-no-such-program", []))
      assert.match((yield* Effect.flip(install.stage(fetch))).message, /could not start treeline-no-such-program/)
    }))

  test("no shell reads the arguments", ({ install }) =>
    Effect.gen(function*() {
      const fetch = yield* UpdateFetch.command(ChildProcess.make("touch", ["a; touch b", "$HOME"]))
      const version = yield* install.stage(fetch)
      assert.deepStrictEqual(fs.readdirSync(version.path).toSorted(), ["$HOME", "a; touch b"])
    }))

  test("C26: all that it has started ends with it, after its time, and when the update is stopped", ({ install, scratch }) =>
    Effect.gen(function*() {
      const command = `sh '${tree}' grandchild '${scratch.report}'`
      // Ends, and leaves something behind.
      yield* install.stage(yield* shell(`setsid sleep 60 & echo "left $!" >> '${scratch.report}'; echo 1 > data`))
      yield* scratch.awaitNamed("left")
      yield* scratch.awaitNoneLiving()
      const late = yield* Effect.flip(install.stage(yield* shell(command, 300)))
      assert.deepStrictEqual([late._tag, late._tag === "UpdateFetchFailed" && late.reason], [
        "UpdateFetchFailed",
        "TimedOut"
      ])
      yield* scratch.awaitNoneLiving(0)
      const before = scratch.reported().length
      const fiber = yield* Effect.forkChild(install.stage(yield* shell(command)))
      yield* scratch.awaitReported(before + 2)
      yield* Fiber.interrupt(fiber)
      yield* scratch.awaitNoneLiving(0)
      assert.deepStrictEqual(fs.readdirSync(scratch.file("install/staging")), [])
    }))
})

describe("the preflight of a version", () => {
  const checking = (install: ManagedInstall.ManagedInstall, script: string) =>
    Effect.flatMap(install.stage(program(script)), ({ id }) => ManagedInstall.check(install, id, "app"))

  test("C17: the program answers --version with one line", ({ install }) =>
    Effect.gen(function*() {
      const checked = yield* checking(install, "[ \"$1\" = --version ] && echo app/1.2.3 '(test)'")
      assert.strictEqual(checked.version, "1.2.3")
      assert.strictEqual(checked.path, fs.realpathSync(path.join(install.path, "versions", checked.id, "app")))
    }))

  for (
    const [reason, script] of [
      ["NoVersion", "echo usage: app; echo no version"],
      ["NoVersion", "true"],
      ["Failed", "echo 1.2.3; exit 3"],
      ["NoAnswer", "exec sleep 60"]
    ] as const
  ) {
    test(`C17: one that answers by ${JSON.stringify(script)} is unusable: ${reason}`, ({ install }) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(checking(install, script))
        assert.deepStrictEqual([error._tag, error._tag === "ManagedProgramUnusable" && error.reason], [
          "ManagedProgramUnusable",
          reason
        ])
      }))
  }

  test("C22, C29: a program is resolved when it is asked for, and stays the same when another becomes current", ({ install }) =>
    Effect.gen(function*() {
      const nothing = yield* Effect.flip(ManagedInstall.resolve(install, "app"))
      assert.strictEqual(nothing._tag === "ManagedProgramUnusable" && nothing.reason, "NothingInstalled")
      const one = yield* install.stage(program("echo 1.0.0"))
      const two = yield* install.stage(program("echo 2.0.0"))
      yield* install.switchTo(one.id)
      const resolve = ManagedInstall.resolve(install, "app")
      const first = yield* resolve
      yield* install.switchTo(two.id)
      assert.deepStrictEqual([first.id, (yield* resolve).id], [one.id, two.id])
      assert.match(fs.readFileSync(first.path, "utf8"), /1\.0\.0/)
    }))
})
