/** Values that outlive a command: their layer, their file, and what `treeline set` says of them. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConfigOrigin, ConfigSource, Settings } from "@treeline/core/daemon"
import { StateFolderError } from "@treeline/core/Errors"
import { Effect, Exit, Layer, Result, Schema } from "effect"
import { CliOutput, Command } from "effect/cli"
import * as fc from "fast-check"
import { CommandReport } from "treeline"
import * as ConfigPlace from "../../packages/treeline/src/internal/ConfigPlace.ts"
import { SettingNotApplied } from "../../packages/treeline/src/internal/Failure.ts"
import * as Help from "../../packages/treeline/src/internal/Help.ts"
import * as Setting from "../../packages/treeline/src/internal/Setting.ts"
import * as SettingCommands from "../../packages/treeline/src/internal/SettingCommands.ts"
import { load, type Sources } from "../support/Configs.ts"
import { MemoryFolder } from "../support/MemoryFolder.ts"

const settingsOf = (values: Readonly<Record<string, Schema.Json>>): Settings.Settings => new Map(Object.entries(values))

const file = "/srv/.treeline/settings.json"

const withSettings = (values: Readonly<Record<string, Schema.Json>>, sources: Omit<Sources, "settings">) =>
  load({ ...sources, settings: Settings.overrides(file, settingsOf(values)) })

const text = `{ "services": { "web": { "command": "node", "args": ["a"], "env": { "A": "file", "B": "file" } } } }`

describe("the layer of settings", () => {
  it.effect("C7: file < settings < environment < flags, and each value says where it came from", () =>
    Effect.gen(function*() {
      const { explained } = yield* withSettings({
        "services.web.env.A": "setting",
        "services.web.env.B": "setting",
        "services.web.env.C": "setting",
        "services.web.args": null,
        "services.web.restart.mode": "transient"
      }, {
        text,
        environment: { TREELINE_SERVICES__WEB__ENV__B: "variable", TREELINE_SERVICES__WEB__ENV__C: "variable" },
        flags: ["services.web.env.C=flag"]
      })
      const found = new Map(explained.map(({ origin, path, value }) => [path, [value, ConfigOrigin.describe(origin)]]))
      assert.deepStrictEqual(
        ["env.A", "env.B", "env.C", "args", "restart.mode"].map((name) => found.get(`services.web.${name}`)),
        [
          ["setting", "settings.json"],
          ["variable", "variable TREELINE_SERVICES__WEB__ENV__B"],
          ["flag", "--set services.web.env.C"],
          [[], "default"],
          ["transient", "settings.json"]
        ]
      )
    }))

  it.effect("a later setting wins, a variable may name a service that only a setting has", () =>
    Effect.gen(function*() {
      const { config } = yield* withSettings({
        "services.job.command": "first",
        "services.job": { command: "second" },
        "services.job.restart.mode": "temporary"
      }, { text, environment: { TREELINE_SERVICES__JOB__RESTART__RESET_AFTER: "1 minute" } })
      assert.deepInclude(config.services["job"], { command: "second" })
      assert.deepInclude(config.services["job"]?.restart, { mode: "temporary", resetAfter: 60_000 })
    }))

  it.effect("C31: what is wrong names the file, the field, and how to get rid of it", () =>
    Effect.gen(function*() {
      const messageOf = (values: Readonly<Record<string, Schema.Json>>) =>
        Effect.map(Effect.flip(withSettings(values, { text })), ({ message }) => message)
      assert.strictEqual(
        yield* messageOf({ "services.web.restart.mode": "sometimes" }),
        `${file}: services.web.restart.mode: expected "permanent" | "transient" | "temporary"; ` +
          `"treeline set --remove services.web.restart.mode" takes it away`
      )
      assert.strictEqual(
        yield* messageOf({ "services.gone.env.PORT": "80" }),
        `${file}: services.gone.command: is missing; "treeline set --remove services.gone.env.PORT" takes it away`
      )
      assert.include(
        yield* messageOf({ "daemon.directory": "/x" }),
        `${file}: daemon.directory: says where the settings`
      )
      for (const whole of [null, { stopWithin: "1 second" }]) {
        assert.include(yield* messageOf({ daemon: whole }), `${file}: daemon: can't be set as a whole`)
      }
      assert.include(yield* messageOf({ "a..b": 1 }), `${file}: a..b: expected a path`)
    }))

  it.effect("the folder that they are in is that of the other layers", () =>
    Effect.gen(function*() {
      const folderOf = (sources: Omit<Sources, "settings">) => {
        const asked: Array<string | undefined> = []
        const settings = (directory: string | undefined) => {
          asked.push(directory)
          return Result.succeed([])
        }
        return Effect.as(load({ ...sources, settings }), asked)
      }
      const named = `{ "daemon": { "directory": "state" } }`
      assert.deepStrictEqual(yield* folderOf({ text }), [undefined])
      assert.deepStrictEqual(yield* folderOf({ text: named }), ["/srv/state"])
      assert.deepStrictEqual(
        yield* folderOf({ text: named, environment: { TREELINE_DAEMON__DIRECTORY: "/run/t" } }),
        ["/run/t"]
      )
      assert.deepStrictEqual(
        yield* folderOf({
          text: named,
          environment: { TREELINE_DAEMON__DIRECTORY: "/run/t" },
          flags: ["daemon.directory=f"]
        }),
        ["/srv/f"]
      )
    }))
})

describe("settings", () => {
  const keys = ["a", "a.b", "a.b.c", "a.d", "services.web.env.A", "services.web.env.A.B", "services.web.env"]
  const entry = fc.tuple(fc.constantFrom(...keys), fc.constantFrom<Schema.Json>(1, "2", null, [3], { b: { c: 4 } }))

  it("put: the value holds, what was below it is gone, the same again changes nothing", () => {
    fc.assert(fc.property(fc.array(entry, { maxLength: 12 }), entry, (before, [key, value]) => {
      const settings = before.reduce<Settings.Settings>((all, [key, value]) => Settings.put(all, key, value), new Map())
      const after = Settings.put(settings, key, value)
      assert.deepStrictEqual([...after].at(after === settings ? [...after.keys()].indexOf(key) : -1), [key, value])
      for (const other of after.keys()) {
        const path = ConfigSource.pathOf(other)!
        const at = ConfigSource.pathOf(key)!
        assert.isFalse(path.length > at.length && at.every((part, index) => path[index] === part), `${other} in ${key}`)
      }
      assert.strictEqual(Settings.put(after, key, value), after)
      assert.isFalse(Settings.remove(after, key).has(key))
      assert.strictEqual(Settings.remove(after, "x"), after)
    }))
  })

  it("the name of a variable may have dots: it is beside another one, not below it", () => {
    const one = Settings.put(new Map(), "services.web.env.A.B", "x")
    assert.deepStrictEqual([...Settings.put(one, "services.web.env.A", "y").keys()], [
      "services.web.env.A.B",
      "services.web.env.A"
    ])
  })

  it.effect("are read as they were written, replace what was there, and leave no file when there are none", () =>
    Effect.gen(function*() {
      const memory = new MemoryFolder()
      const folder = memory.asSeen()
      assert.strictEqual((yield* Settings.read(folder)).size, 0)
      const settings = settingsOf({ "b.c": "x", "a": [1, null, { d: true }] })
      // What a killed command has left.
      memory.entries.set("settings.json.next", "{ half")
      yield* Settings.write(folder, settings)
      assert.deepStrictEqual([...yield* Settings.read(folder)], [...settings])
      yield* Settings.write(folder, new Map([...settings, ["e", 1]]))
      assert.deepStrictEqual(memory.names, ["settings.json"])
      yield* Settings.write(folder, new Map())
      assert.deepStrictEqual(memory.names, [])
      const large = settingsOf({ a: "x".repeat(70_000) })
      assert.include((yield* Effect.flip(Settings.write(folder, large))).message, "would have more than")
      assert.deepStrictEqual(memory.names, [])
    }))

  it.effect("what has no room is told by stage; it holds from the commit on, and leaves nothing when it is dropped", () =>
    Effect.gen(function*() {
      const memory = new MemoryFolder()
      const folder = memory.asSeen()
      yield* Settings.write(folder, settingsOf({ a: 1 }))
      const large = settingsOf({ a: "x".repeat(70_000) })
      assert.include((yield* Effect.flip(Settings.stage(folder, large))).message, "would have more than")
      const dropped = yield* Settings.stage(folder, settingsOf({ a: 2 }))
      assert.strictEqual((yield* Settings.read(folder)).get("a"), 1)
      yield* dropped.discard
      assert.deepStrictEqual(memory.names, ["settings.json"])
      yield* (yield* Settings.stage(folder, settingsOf({ a: 3 }))).commit
      assert.strictEqual((yield* Settings.read(folder)).get("a"), 3)
      yield* (yield* Settings.stage(folder, Settings.none)).commit
      assert.deepStrictEqual(memory.names, [])
      // A disk that is full.
      const full = {
        ...folder,
        write: () => Effect.fail(new StateFolderError({ path: "", operation: "write", detail: "" }))
      }
      memory.entries.set("settings.json.next", "{")
      yield* Effect.flip(Settings.stage(full, settingsOf({ a: 4 })))
      assert.deepStrictEqual(memory.names, [])
    }))

  it.effect("peer 114: a death at any step leaves the old settings or the new ones, and the next write succeeds", () =>
    Effect.gen(function*() {
      const [old, next] = [settingsOf({ a: "old" }), settingsOf({ a: "new", b: "x".repeat(100) })]
      const found = new Set<unknown>()
      for (let steps = 0, died = true; died; steps++) {
        const memory = new MemoryFolder()
        yield* Settings.write(memory.asSeen(), old)
        let left = steps
        const dying = memory.asSeen(() => left-- > 0 ? Promise.resolve() : Promise.reject(new Error("killed")))
        died = Exit.isFailure(yield* Effect.exit(Settings.write(dying, next)))
        const settings = yield* Settings.read(memory.asSeen())
        assert.include(["old", "new"], settings.get("a"))
        assert.deepStrictEqual([...settings], [...settings.get("a") === "old" ? old : next])
        found.add(settings.get("a"))
        yield* Settings.write(memory.asSeen(), next)
        assert.deepStrictEqual([...yield* Settings.read(memory.asSeen())], [...next])
      }
      assert.deepStrictEqual([...found], ["old", "new"])
    }))

  it.effect("C31: a file that is none is named with its place and what to do", () =>
    Effect.gen(function*() {
      const memory = new MemoryFolder()
      for (const [content, problem] of [["{ no", ":1:3: "], ["[1]", ": expected an object"], ["", ":1:1: "]] as const) {
        memory.entries.set("settings.json", content)
        const { message } = yield* Effect.flip(Settings.read(memory.asSeen()))
        assert.include(message, `/state/settings.json${problem}`)
        assert.include(message, "put it right or remove the file")
      }
    }))
})

describe("treeline set", () => {
  it.effect("--help: examples, exit codes, and no line beyond 80 columns", () =>
    Effect.gen(function*() {
      let help = ""
      const presenter = CliOutput.layerPresenter({
        present: (event) =>
          Effect.sync(() => {
            if (event._tag === "Help") help = Help.render(event.helpDoc, false)
          })
      })
      // Nothing is run here.
      const treeline = Command.make("treeline").pipe(
        Command.withSubcommands([SettingCommands.make({ ended: () => Effect.void })])
      )
      yield* Command.runWith(treeline, { version: "1.0.0" })(["set", "--help"]).pipe(
        Effect.exit,
        Effect.provide(Layer.mergeAll(NodeServices.layer, presenter))
      )
      for (const part of ["Usage: treeline set ", "Exit codes", "\n  0  ", "Examples:\n  treeline set "]) {
        assert.include(help, part)
      }
      for (const line of help.split("\n")) assert.isBelow(line.length, 80, line)
    }))

  it("touches services, the daemon, or the updater", () => {
    const touched = (key: string) =>
      Object.entries(Setting.touchedBy(ConfigSource.pathOf(key)!)).flatMap(([name, is]) => is === true ? [name] : [])
        .join()
    const expected: Readonly<Record<string, string>> = {
      "services.web.env.A": "services",
      "groups.all": "services",
      "pools.p.command": "services",
      "supervisor.order": "daemon",
      "daemon.stopWithin": "daemon",
      "daemon.install.program": "daemon,updater",
      "daemon.install": "daemon,updater",
      "daemon.install.fetch.command": "updater",
      "daemon.update.interval": "updater"
    }
    for (const [key, parts] of Object.entries(expected)) assert.strictEqual(touched(key), parts, key)
  })

  it.effect("a new value that is refused was never kept: nothing says to take it away", () =>
    Effect.gen(function*() {
      const key = "services.web.restart.mode"
      const error = yield* Effect.flip(withSettings({ [key]: "sometimes", "services.gone.cwd": "/" }, { text }))
      const { message } = Setting.refused(key, error)
      assert.include(message, "\"temporary\"; nothing was changed")
      assert.notInclude(message, `--remove ${key}`)
      assert.include(message, "\"treeline set --remove services.gone.cwd\" takes it away")
    }))

  it("variables of the daemon count in any case, as in the configuration", () => {
    assert.isTrue(ConfigPlace.hasVariables({ treeline_daemon__Directory: "/x" }))
    assert.isFalse(ConfigPlace.hasVariables({ TREELINE_DAEMON: "/x", TREELINE_CONFIG: "x" }))
  })

  it("a failure says of the settings and of what runs what is so", () => {
    const said = (unsaved: string | null, restored: boolean) =>
      new SettingNotApplied({ key: "a", problem: "p", unsaved, restored }).message
    assert.include(said(null, true), "The old settings are back, and what runs is as before")
    assert.include(said(null, false), "The old settings are back, but what runs is not as before")
    assert.include(said("no room", true), "could not be put back (no room)")
    assert.include(said("no room", false), "but what runs is not as before")
  })

  it("shows no value of a variable, a header, or a URL's user", () => {
    const secret = "hunter2"
    const values: ReadonlyArray<readonly [string, Schema.Json, string]> = [
      ["services.web.env.PORT", secret, "\"<redacted>\""],
      ["services.web.env", { A: secret, B: { fromEnv: "B" } }, "{\"A\":\"<redacted>\",\"B\":\"<redacted>\"}"],
      ["services.web", { env: { A: secret }, command: "x" }, "{\"env\":{\"A\":\"<redacted>\"},\"command\":\"x\"}"],
      ["services.web.readiness.http.headers.Authorization", secret, "\"<redacted>\""],
      [
        "services.web.readiness",
        { http: { headers: { A: secret } } },
        "{\"http\":{\"headers\":{\"A\":\"<redacted>\"}}}"
      ],
      ["services.web.args", [`http://me:${secret}@host/`], "[\"http://<redacted>@host/\"]"],
      ["services.web.env.A", null, "null"],
      ["daemon.stopWithin", "5 seconds", "\"5 seconds\""]
    ]
    for (const [key, value, text] of values) assert.strictEqual(JSON.stringify(Setting.shown(key, value)), text)
  })

  const change: CommandReport.SettingChange = {
    status: "set",
    key: "services.web.env.PORT",
    file,
    running: true,
    services: ["web"],
    daemon: null,
    updater: null,
    needsRestart: [],
    overriddenBy: null,
    milliseconds: 1234
  }

  it("C9, C13: the answer is one object without a tag, its names in camelCase", () => {
    const encoded: unknown = JSON.parse(Schema.encodeSync(Schema.fromJsonString(CommandReport.SettingChange))(change))
    assert.deepStrictEqual(encoded, JSON.parse(JSON.stringify(change)))
    assert.isTrue(Object.keys(change).every((name) => /^[a-z][A-Za-z]*$/.test(name) && name !== "_tag"))
  })

  it("C7: says for people what became of it", () => {
    const said = (more: Partial<CommandReport.SettingChange>) => Setting.render({ ...change, ...more })
    assert.strictEqual(said({}), "set services.web.env.PORT; restarted web (1.2 s)")
    assert.strictEqual(
      said({ services: [], daemon: 7 }),
      "set services.web.env.PORT; restarted the daemon, now process 7 (1.2 s)"
    )
    assert.strictEqual(
      said({ status: "alreadySet" }),
      "services.web.env.PORT is set to this already; nothing was restarted"
    )
    assert.include(said({ status: "alreadySet", running: false }), "is set to this already; nothing runs")
    assert.strictEqual(said({ status: "notSet" }), "services.web.env.PORT is not set; nothing was changed")
    assert.strictEqual(
      said({ status: "removed", running: false, services: [] }),
      "removed services.web.env.PORT; nothing runs, it holds from the next start"
    )
    assert.strictEqual(
      said({ services: [], needsRestart: ["daemon"], overriddenBy: "variable X" }),
      "set services.web.env.PORT; nothing was restarted; a restart is needed for daemon; variable X wins over it"
    )
  })
})
