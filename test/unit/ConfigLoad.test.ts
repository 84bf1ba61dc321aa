/** Which value holds, where it came from, and what is wrong with a configuration. */
import { assert, describe, it } from "@effect/vitest"
import { ConfigLoad, ConfigMerge, ConfigOrigin, ConfigPath, ConfigSource } from "@treeline/core/daemon"
import { Effect, Equal, Redacted, Result, Schema } from "effect"
import * as fc from "fast-check"
import { load, type Sources } from "../support/Configs.ts"

const failureOf = (sources: Sources) => Effect.map(Effect.flip(load(sources)), ({ message }) => message)

/** The value and the origin of each path. */
const explanationOf = (sources: Sources) =>
  Effect.map(
    load(sources),
    ({ explained }) =>
      new Map(explained.map(({ origin, path, value }) => [path, [value, ConfigOrigin.describe(origin)]]))
  )

const web = (fields: string) =>
  `{\n"services": { "web": { "command": "node"${fields === "" ? "" : `, ${fields}`} } }\n}`

describe("precedence", () => {
  it.effect("defaults < envFile < file < environment < flags, and each value says where it came from", () =>
    Effect.gen(function*() {
      const explained = yield* explanationOf({
        text: web(
          "\n\"envFile\": [\"base.env\", \"local.env\"],\n\"env\": { \"C\": \"file\", \"D\": \"file\", \"E\": \"file\" }"
        ),
        files: { "/srv/base.env": "A=base\nB=base\nC=base", "/srv/local.env": "\nB=local" },
        environment: {
          TREELINE_SERVICES__WEB__ENV__D: "variable",
          TREELINE_SERVICES__WEB__ENV__E: "variable",
          TREELINE_SERVICES__WEB__RESTART__MODE: "transient"
        },
        flags: ["services.web.env.E=flag", "supervisor.intensity.max=1", "supervisor.intensity.max=2"]
      })
      assert.deepStrictEqual(
        ["env.A", "env.B", "env.C", "env.D", "env.E", "restart.mode", "restart.resetAfter", "args", "cwd"].map((name) =>
          explained.get(`services.web.${name}`)
        ),
        [
          ["<redacted>", "base.env:1"],
          ["<redacted>", "local.env:2"],
          ["file", "treeline.json:4:15"],
          ["variable", "variable TREELINE_SERVICES__WEB__ENV__D"],
          ["flag", "--set services.web.env.E"],
          ["transient", "variable TREELINE_SERVICES__WEB__RESTART__MODE"],
          ["30 seconds", "default"],
          [[], "default"],
          ["/srv", "default"]
        ]
      )
      assert.deepStrictEqual(explained.get("supervisor.intensity.max"), [2, "--set supervisor.intensity.max"])
    }))

  it.effect("null takes away what lower layers say, and the default comes back", () =>
    Effect.gen(function*() {
      const explained = yield* explanationOf({
        text: web("\"args\": [\"-v\"], \"readiness\": { \"tcp\": 80, \"within\": \"5 seconds\" }"),
        environment: { TREELINE_SERVICES__WEB__READINESS: "null" },
        flags: ["services.web.args=null", "services.web.logs.file=null"]
      })
      assert.deepStrictEqual(explained.get("services.web.args"), [[], "default"])
      assert.deepStrictEqual([...explained.keys()].filter((path) => /readiness|logs/.test(path)), [])
    }))

  it.effect("another kind of probe replaces the one below, and keeps its times", () =>
    Effect.gen(function*() {
      const { config } = yield* load({
        text: web("\"readiness\": { \"tcp\": 80, \"within\": \"5 seconds\" }"),
        flags: ["services.web.readiness.line=up"]
      })
      assert.deepInclude(config.services["web"]?.readiness, { line: "up", within: 5000 })
      assert.isFalse(Object.hasOwn(config.services["web"]!.readiness!, "tcp"))
    }))

  const paths = ["a", "b.a", "b.b", "c.a.a", "c.a.b"].map((path) => path.split("."))
  const layer = fc.record({
    chosen: fc.subarray(paths),
    value: fc.oneof(fc.integer(), fc.string(), fc.array(fc.integer(), { maxLength: 2 }))
  })

  it("any layers: each value is that of the highest layer that has one, and nothing else is there", () => {
    fc.assert(fc.property(fc.array(layer, { minLength: 1, maxLength: 5 }), (all) => {
      const treeOf = ({ chosen, value }: { chosen: ReadonlyArray<ReadonlyArray<string>>; value: unknown }) =>
        ConfigMerge.override(
          { tree: {}, origins: new Map() },
          chosen.map((path) => ({
            path,
            value,
            origin: ConfigOrigin.Origin.cases.Default.make({})
          }))
        ).tree
      const { origins, tree } = ConfigMerge.merge(
        all.map((one, index) => ConfigSource.values(`layer ${index}`, treeOf(one)))
      )
      for (const path of paths) {
        const owner = all.findLastIndex(({ chosen }) => chosen.includes(path))
        assert.deepStrictEqual(ConfigMerge.at(tree, path), all[owner]?.value)
        const origin = origins.get(ConfigPath.format(path))
        assert.strictEqual(origin === undefined ? -1 : Number(ConfigOrigin.describe(origin).slice(6)), owner)
      }
      for (const path of origins.keys()) {
        assert.isDefined(
          ConfigMerge.at(
            tree,
            path === "" ? [] : path.split(/[.[]/).map((part) => part.endsWith("]") ? Number(part.slice(0, -1)) : part)
          )
        )
      }
    }))
  })

  it.effect("a managed install: paths from the folder of the file, a program inside a version, and no busy loop", () =>
    Effect.gen(function*() {
      const daemon = (fields: string) => load({ text: `{ "daemon": { ${fields} } }` })
      const { config } = yield* daemon(
        `"install": { "directory": "apps", "program": "bin/app", "fetch": { "command": "./fetch.sh" } }`
      )
      assert.deepStrictEqual(config.daemon.install, {
        directory: "/srv/apps",
        program: "bin/app",
        fetch: { command: "/srv/./fetch.sh", args: [], within: 600_000 }
      })
      assert.deepStrictEqual(config.daemon.update, {
        enabled: true,
        first: 300_000,
        interval: 3_600_000,
        jitter: 0.1,
        validateWithin: 10_000
      })
      for (const program of ["/bin/app", "../app", "bin/../../app", "C:\\\\app", "bin//app"]) {
        const { message } = yield* Effect.flip(daemon(`"install": { "program": "${program}" }`))
        assert.include(message, "daemon.install.program: expected a path inside a version", program)
      }
      const { message } = yield* Effect.flip(daemon(`"update": { "interval": "0 s" }`))
      assert.include(message, "daemon.update.interval: expected a time of at least 1 second")
    }))

  it.effect("paths are seen from the folder of the file", () =>
    Effect.gen(function*() {
      const { config } = yield* load({
        text:
          "{ \"services\": { \"web\": { \"command\": \"x\", \"cwd\": \"site\", \"logs\": { \"file\": \"web.log\" } } }, " +
          "\"daemon\": { \"socket\": \"run/s\", \"directory\": \"/run/treeline\" } }"
      })
      assert.deepInclude(config.services["web"], { cwd: "/srv/site" })
      assert.strictEqual(config.services["web"]?.logs?.file, "/srv/web.log")
      assert.deepInclude(config.daemon, { socket: "/srv/run/s", directory: "/run/treeline" })
    }))

  it("a merge leaves the layers as they were", () => {
    const base = { a: { b: 1 } }
    ConfigMerge.merge([ConfigSource.values("x", base), ConfigSource.values("y", { a: { b: 2, c: 3 } })])
    assert.deepStrictEqual(base, { a: { b: 1 } })
  })
})

describe("secrets", () => {
  const text = web(
    "\"env\": { \"URL\": \"postgres://me:hunter2@db/x\", \"API_TOKEN\": \"hunter2\", \"A\": { \"fromEnv\": \"SECRET\" }, " +
      "\"B\": { \"fromFile\": \"/run/secret\" } }, \"readiness\": { \"http\": { \"url\": \"http://me:hunter2@h/\", \"headers\": { \"Authorization\": { \"fromEnv\": \"SECRET\" } } } }"
  )
  const files = { "/run/secret": "hunter2\n", "/srv/.env": "PLAIN=hunter2" }
  const environment = { SECRET: "hunter2" }

  it.effect("are looked up, given to the service, and never shown", () =>
    Effect.gen(function*() {
      const { config, explained } = yield* load({
        text,
        files,
        environment,
        flags: ["services.web.envFile=[\".env\"]"]
      })
      const { env } = config.services["web"]!
      for (const name of ["A", "B", "PLAIN"]) {
        const value = env[name]
        assert.strictEqual(Redacted.isRedacted(value) ? Redacted.value<unknown>(value) : "", "hunter2", name)
      }
      assert.notInclude(JSON.stringify(explained), "hunter2")
      assert.notInclude(JSON.stringify(ConfigMerge.redact(config)), "hunter2")
      assert.include(JSON.stringify(explained), "postgres://<redacted>@db/x")
    }))

  it.effect("one that can't be found is an error with its path", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(
        (yield* failureOf({ text, flags: ["services.web.envFile=[\"no.env\"]"] })).split("\n").slice(1),
        [
          "  --set services.web.envFile: services.web.envFile[0]: expected a file that can be read: it is not there",
          "  treeline.json:2:118: services.web.env.A: expected the variable SECRET, which is not set",
          "  treeline.json:2:148: services.web.env.B: expected a file that can be read: it is not there",
          "  treeline.json:2:267: services.web.readiness.http.headers.Authorization: expected the variable SECRET, which is not set"
        ]
      )
    }))

  it("a module's own secret is kept", () => {
    const layer = ConfigSource.values("treeline.config.ts", {
      services: { web: { command: "node", env: { A: Redacted.make("hunter2") } } }
    })
    const config = Result.getOrThrow(ConfigLoad.check(ConfigMerge.merge([layer])))
    assert.isTrue(Equal.equals(config.services["web"]?.env["A"], Redacted.make("hunter2")))
    assert.notInclude(JSON.stringify(ConfigMerge.redact(config)), "hunter2")
  })
})

describe("errors name the source, the path and what was expected", () => {
  it.effect.each<readonly [string, string]>([
    [web("\"cwdd\": \"x\""), "services.web.cwdd: is not known here; is it misspelt?"],
    [web("\"args\": \"-v\""), "services.web.args: expected array"],
    [web("\"env\": { \"A\": 3 }"), "services.web.env.A: expected a text, {\"fromEnv\": NAME} or {\"fromFile\": PATH}"],
    [
      web("\"readiness\": { \"tcp\": 80, \"within\": \"soon\" }"),
      "services.web.readiness.within: expected a time such as \"5 seconds\" or \"500 millis\", or a number of ms, of at most 24 days"
    ],
    [
      web("\"readiness\": { \"tcp\": 80, \"within\": -1 }"),
      "services.web.readiness.within: expected a time such as \"5 seconds\" or \"500 millis\", or a number of ms, of at most 24 days"
    ],
    [web("\"readiness\": {}"), "services.web.readiness: expected one of line, fd, tcp, http, exec, and no more"],
    [
      web("\"readiness\": { \"tcp\": 1, \"fd\": 3 }"),
      "services.web.readiness: expected one of line, fd, tcp, http, exec, and no more"
    ],
    [web("\"readiness\": { \"tcp\": 70000 }"), "services.web.readiness.tcp: expected a port from 1 to 65535"],
    [
      web("\"readiness\": { \"http\": \"ftp://x\" }"),
      "services.web.readiness.probe.url: must be a URL of http or https"
    ],
    [
      web("\"readiness\": { \"line\": { \"pattern\": \"(\" } }"),
      "services.web.readiness.line.pattern: expected a regular expression"
    ],
    [
      web("\"limits\": { \"memory\": \"much\" }"),
      "services.web.limits.memory: expected a size such as \"10 MiB\", or a whole number of bytes above 0"
    ],
    [web("\"shell\": true, \"args\": [\"a\"]"), "services.web.args: expected none: the shell's line has its arguments"],
    [web("\"dependsOn\": [\"db\"]"), "services.web.dependsOn[0]: expected the name of a service or a group"],
    [web("\"dependsOn\": [\"web\"]"), "services.web.dependsOn[0]: expected another service"],
    [
      web("\"significant\": true"),
      "services.web.significant: a permanent child never ends by itself; make it transient or temporary"
    ],
    [
      web("\"restart\": { \"permanentFailureCodes\": [0] }"),
      "services.web.restart.permanentFailureCodes: 0 is a success code too; an end is either good or bad"
    ],
    [
      "{ \"services\": { \"a b\": { \"command\": \"x\" } } }",
      "services[\"a b\"]: expected a name of letters, digits, _ and -"
    ],
    ["{ \"services\": { \"a\": {} } }", "services.a.command: is missing"],
    ["{ \"services\": { \"a\": null } }", "services.a: expected object"],
    ["[]", "expected object"],
    [
      "{ \"services\": { \"a\": { \"command\": \"x\", \"dependsOn\": [\"b\"] }, \"b\": { \"command\": \"x\", \"dependsOn\": [\"a\"] } } }",
      "services.a.dependsOn: children wait for each other in a circle: a -> b -> a"
    ],
    [
      "{ \"services\": { \"a\": { \"command\": \"x\" } }, \"groups\": { \"a\": [\"b\"] } }",
      "groups.a: a service has this name already"
    ],
    ["{ \"groups\": { \"g\": [\"b\"] } }", "groups.g[0]: expected the name of a service"],
    [
      "{ \"services\": { \"a\": { \"command\": \"x\", \"ports\": [80] }, \"b\": { \"command\": \"x\", \"readiness\": { \"tcp\": 80 } } } }",
      "services.b: port 80 is the port of a too; a port has one service"
    ],
    [
      "{ \"services\": { \"a\": { \"command\": \"x\", \"ports\": [0] } } }",
      "services.a.ports[0]: expected a port from 1 to 65535"
    ],
    [
      "{ \"services\": { \"a\": { \"command\": \"x\", \"logs\": { \"file\": \"a.log\" } }, \"b\": { \"command\": \"x\", \"logs\": { \"file\": \"a.log\" } } } }",
      "services.b.logs.file: expected another file than that of a"
    ],
    [
      "{ \"pools\": { \"a\": { \"command\": \"x\", \"logs\": { \"file\": \"a.log\" } } } }",
      "pools.a.logs.file: expected a path with {key}: each child has a file of its own"
    ],
    [
      "{ \"pools\": { \"a\": { \"command\": \"x\", \"startWithin\": 0 } } }",
      "pools.a.startWithin: must be above 0"
    ]
  ])("%s", ([text, problem]) =>
    Effect.gen(function*() {
      const message = yield* failureOf({ text })
      assert.match(message, /^(?:the configuration has \d errors:\n {2})?treeline\.json:\d+:\d+: /)
      assert.include(message, `: ${problem}`)
    }))

  it.effect("K9: two services that are asked on one port: only one of them can have it", () =>
    Effect.gen(function*() {
      const text = "{ \"services\": { \"a\": { \"command\": \"x\", \"readiness\": { \"tcp\": 80 } },\n" +
        "\"b\": { \"command\": \"x\", \"liveness\": [{ \"tcp\": 80 }] } } }"
      assert.strictEqual(
        yield* failureOf({ text }),
        "treeline.json:2:6: services.b: port 80 is the port of a too; a port has one service"
      )
    }))

  it.effect("all errors are told at once, each with its own source", () =>
    Effect.gen(function*() {
      assert.strictEqual(
        yield* failureOf({
          text: web("\"cwdd\": \"x\""),
          flags: ["services.web.shell=maybe"],
          environment: { TREELINE_SUPERVISOR__INTENSITY__MAX: "-1" }
        }),
        `the configuration has 3 errors:
  treeline.json:2:51: services.web.cwdd: is not known here; is it misspelt?
  --set services.web.shell: services.web.shell: expected boolean
  variable TREELINE_SUPERVISOR__INTENSITY__MAX: supervisor.intensity.max: expected a value greater than or equal to 0`
      )
    }))

  it("what is written is what comes back: a configuration that is encoded is decoded to the same", () => {
    const text = web("\"readiness\": { \"tcp\": 80, \"within\": 1500 }, \"limits\": { \"memory\": \"1.5 GiB\" }")
    const read = (layer: ConfigSource.Layer) => Result.getOrThrow(ConfigLoad.check(ConfigMerge.merge([layer])))
    const config = read(Result.getOrThrow(ConfigSource.json("x", text)))
    assert.strictEqual(config.services["web"]?.limits.memory, 1.5 * 1024 ** 3)
    const again = read(ConfigSource.values("y", ConfigMerge.redact(config)))
    assert.deepStrictEqual(again, config)
    assert.isTrue(Schema.is(Schema.Json)(ConfigMerge.redact(config)))
  })
})
