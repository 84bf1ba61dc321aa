/**
 * `treeline config` and `treeline init` as a separate process.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { CommandReport } from "treeline"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"

const decodeConfig = Schema.decodeUnknownSync(Schema.fromJsonString(CommandReport.Config), {
  onExcessProperty: "error"
})
const decodeExplained = Schema.decodeUnknownSync(Schema.fromJsonString(CommandReport.ConfigExplained), {
  onExcessProperty: "error"
})
const decodeFailure = Schema.decodeUnknownSync(Schema.fromJsonString(CommandReport.Failure), {
  onExcessProperty: "error"
})

const noPython = Command.whyNoPython()

interface Services {
  readonly services: Readonly<Record<string, Readonly<Record<string, Schema.Json>>>>
}

/** The services that `treeline config --json` tells. */
const servicesOf = (stdout: string) => (decodeConfig(stdout).config as unknown as Services).services

/** A folder with these files. */
const folder = (files: Readonly<Record<string, string>>) =>
  Effect.map(Scratch.make, (scratch) => {
    for (const [name, text] of Object.entries(files)) {
      fs.mkdirSync(path.dirname(scratch.file(name)), { recursive: true })
      fs.writeFileSync(scratch.file(name), text)
    }
    return scratch
  })

const web = (fields = "") => `{ "services": { "web": { "command": "node"${fields} } } }\n`

describe("treeline config: which file", () => {
  it.live("the one in a folder above, seen from below; a named one wins, and a variable names one too", () =>
    Effect.gen(function*() {
      const scratch = yield* folder({ "treeline.json": web(), "a/b/x": "", "other/o.json": web(", \"cwd\": \"work\"") })
      const cwd = (argv: ReadonlyArray<string>, env: Record<string, string> = {}) =>
        Effect.map(
          Command.run([
            "-c",
            `cd ${scratch.file("a/b")} && exec "$@"`,
            "sh",
            ...Command.treeline,
            "config",
            "--json",
            ...argv
          ], {
            scratch,
            program: ["sh"],
            env
          }),
          ({ stdout }) => [decodeConfig(stdout).file, servicesOf(stdout)["web"]?.["cwd"]]
        )
      assert.deepStrictEqual(yield* cwd([]), [scratch.file("treeline.json"), scratch.directory])
      const named = [scratch.file("other/o.json"), scratch.file("other/work")]
      assert.deepStrictEqual(yield* cwd(["--config", "../../other/o.json"]), named)
      assert.deepStrictEqual(yield* cwd([], { TREELINE_CONFIG: "../../other/o.json" }), named)
    }))

  it.live("none, and two that may both be meant, are errors with code 2", () =>
    Effect.gen(function*() {
      const none = yield* Command.run(["config"], { scratch: yield* folder({}) })
      assert.deepStrictEqual([none.code, none.stdout], [2, ""])
      assert.match(
        none.stderr,
        /there is no treeline\.config\.ts, treeline\.json or Procfile here .*"treeline init" writes one\n$/
      )
      const two = yield* Command.run(["config"], {
        scratch: yield* folder({ "treeline.json": web(), "treeline.config.ts": "export default {}" })
      })
      assert.strictEqual(two.code, 2)
      assert.include(two.stderr, "treeline.config.ts and treeline.json are both here; choose one with --config\n")
    }))

  it.live.skipIf(process.getuid?.() !== 0)(
    "one of another user in a folder above is not used (needs root)",
    () =>
      Effect.gen(function*() {
        const scratch = yield* folder({ "treeline.config.js": "export default {}" })
        fs.chownSync(scratch.file("treeline.config.js"), 12_345, 12_345)
        const found = yield* Command.run(["config"], { scratch })
        assert.deepStrictEqual([found.code, found.stdout], [2, ""])
        assert.include(found.stderr, "it belongs to another user; if you trust it, name it with --config")
        const named = yield* Command.run(["config", "--json", "-c", "treeline.config.js"], { scratch })
        assert.deepStrictEqual([named.code, named.stderr], [0, ""])
      })
  )
})

describe("treeline config: what holds", () => {
  it.live("defaults < file < environment < flags, in JSON and for people", () =>
    Effect.gen(function*() {
      const scratch = yield* folder({
        "treeline.json": web(",\n\"env\": { \"A\": \"file\", \"B\": \"file\", \"C\": \"file\" }")
      })
      const options = {
        scratch,
        env: { TREELINE_SERVICES__WEB__ENV__B: "variable", TREELINE_SERVICES__WEB__ENV__C: "variable" }
      }
      const argv = ["config", "--explain", "--set", "services.web.env.C=flag"]
      const { values } = decodeExplained((yield* Command.run([...argv, "--json"], options)).stdout)
      const of = (name: string) => values.find(({ path }) => path === `services.web.${name}`)
      assert.deepStrictEqual(["env.A", "env.B", "env.C", "restart.mode"].map(of), [
        {
          path: "services.web.env.A",
          value: "file",
          origin: { _tag: "File", file: "treeline.json", line: 2, column: 15 }
        },
        {
          path: "services.web.env.B",
          value: "variable",
          origin: { _tag: "Variable", name: "TREELINE_SERVICES__WEB__ENV__B" }
        },
        { path: "services.web.env.C", value: "flag", origin: { _tag: "Flag", text: "services.web.env.C" } },
        { path: "services.web.restart.mode", value: "permanent", origin: { _tag: "Default" } }
      ])
      const { code, stderr, stdout } = yield* Command.run(argv, options)
      assert.deepStrictEqual([code, stderr], [0, ""])
      assert.match(stdout, /^ {2}env\.A +"file" +treeline\.json:2:15$/m)
      assert.match(stdout, /^ {2}env\.C +"flag" +--set services\.web\.env\.C$/m)
      assert.notInclude(stdout, "\x1b")
    }))

  it.live("what is printed without flags can be used as a configuration", () =>
    Effect.gen(function*() {
      const scratch = yield* folder({ "treeline.json": web(", \"readiness\": { \"tcp\": 3000 }") })
      const first = yield* Command.run(["config"], { scratch })
      fs.writeFileSync(scratch.file("treeline.json"), first.stdout)
      const second = yield* Command.run(["config"], { scratch })
      assert.deepStrictEqual([second.code, second.stdout], [0, first.stdout])
    }))

  it.live("no secret is shown, wherever it is from", () =>
    Effect.gen(function*() {
      const env =
        "\"env\": { \"A\": { \"fromEnv\": \"KEY\" }, \"B\": { \"fromFile\": \"key\" }, \"API_KEY\": \"hunter2\" }"
      const scratch = yield* folder({
        "treeline.json": web(`, ${env}, "envFile": ["x.env"]`),
        "x.env": "X=hunter2",
        key: "hunter2"
      })
      for (const flags of [[], ["--json"], ["--explain"], ["--explain", "--json"]]) {
        const { code, stdout } = yield* Command.run(["config", ...flags], { scratch, env: { KEY: "hunter2" } })
        assert.strictEqual(code, 0)
        assert.notInclude(stdout, "hunter2")
        assert.strictEqual(stdout.split("<redacted>").length, 5)
      }
    }))

  it.live.skipIf(noPython !== undefined)(
    "in a terminal defaults are weaker, unless NO_COLOR is set (needs python3)",
    () =>
      Effect.gen(function*() {
        const scratch = yield* folder({ "treeline.json": web() })
        const look = (env: Record<string, string>) =>
          Command.run([...Command.treeline, "config", "--explain"], {
            scratch,
            program: [
              "python3",
              "-c",
              "import pty,sys,os; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
            ],
            env: { TERM: "xterm", ...env }
          })
        assert.match((yield* look({})).stdout, /\[2m {2}restart\.mode +"permanent" +default.\[0m/)
        assert.notInclude((yield* look({ NO_COLOR: "1" })).stdout, "\x1b")
      })
  )
})

describe("treeline config: what is wrong", () => {
  it.live("an error names file, line, path and what was expected; as JSON on stderr, too", () =>
    Effect.gen(function*() {
      const scratch = yield* folder({ "treeline.json": web(",\n  \"restart\": { \"mode\": \"hunter2\" }") })
      const problem = "expected \"permanent\" | \"transient\" | \"temporary\""
      const plain = yield* Command.run(["config"], { scratch })
      assert.deepStrictEqual(plain, {
        code: 2,
        signal: null,
        stdout: "",
        stderr: `treeline: treeline.json:2:24: services.web.restart.mode: ${problem}\n`
      })
      const { code, stderr, stdout } = yield* Command.run(["config", "--json"], { scratch })
      assert.deepStrictEqual([code, stdout], [2, ""])
      const { error } = decodeFailure(stderr)
      assert.deepInclude(error, {
        _tag: "InvalidConfig",
        issues: [{ source: "treeline.json:2:24", path: "services.web.restart.mode", problem }]
      })
    }))

  it.live.each(
    [
      ["syntax", "export default {", /^treeline: treeline\.config\.ts: the module failed: /],
      ["a throw", "throw new Error('no luck')", /^treeline: treeline\.config\.ts: the module failed: no luck\n$/],
      [
        "no export",
        "export const a = 1",
        /: expected a default export: the configuration, or a function that returns it\n$/
      ],
      [
        "a function in it",
        "export default { services: { a: { command: () => 1 } } }",
        /: services\.a\.command: expected plain data, not a function\n$/
      ],
      ["an end", "process.exit(3)", /: the module ended with code 3 and without a configuration\n$/],
      [
        "a module that waits for ever",
        "await new Promise(() => setInterval(() => {}, 1000))",
        /: the module was not done within 10 seconds\n$/
      ],
      [
        "a field",
        "export default { services: { a: { comand: 'x' } } }",
        /treeline\.config\.ts: services\.a\.comand: is not known here/
      ]
    ] as const
  )("a module with %s", ([, text, message]) =>
    Effect.gen(function*() {
      const scratch = yield* folder({ "treeline.config.ts": text })
      const { code, stderr, stdout } = yield* Command.run(["config"], { scratch })
      assert.deepStrictEqual([code, stdout], [2, ""])
      assert.match(stderr, message)
    }))

  it.live("a file that is none: a folder, a pipe, and one that can't be read", () =>
    Effect.gen(function*() {
      const scratch = yield* folder({ "folder/x": "" })
      const stderr = (file: string) =>
        Effect.map(Command.run(["config", "-c", file], { scratch }), ({ stderr }) => stderr)
      assert.match(
        yield* stderr("none.json"),
        /^treeline: none\.json: expected a file that can be read: it is not there\n$/
      )
      assert.match(yield* stderr("folder"), /^treeline: folder: expected a file that can be read: it is a folder\n$/)
      assert.match(
        yield* stderr("/dev/zero"),
        /^treeline: \/dev\/zero: expected a file that can be read: it is no regular file\n$/
      )
    }))
})

describe("treeline config: modules and Procfiles", () => {
  it.live("a module has types, imports and secrets, may be a function, and prints to stderr", () =>
    Effect.gen(function*() {
      const effect = JSON.stringify(import.meta.resolve("effect"))
      const scratch = yield* folder({
        "port.ts": "export const port: number = 3000",
        "treeline.config.ts": `
          import { Redacted } from ${effect}
          import { port } from "./port.ts"
          console.log("thinking")
          export default async (): Promise<unknown> => ({
            services: {
              web: { command: "node", cwd: undefined, readiness: { tcp: port }, env: { A: Redacted.make("hunter2") } }
            }
          })
          setInterval(() => {}, 1000)`
      })
      const { code, stderr, stdout } = yield* Command.run(["config", "--json"], { scratch })
      assert.deepStrictEqual([code, stderr], [0, "thinking\n"])
      assert.deepInclude(servicesOf(stdout)["web"], { env: { A: "<redacted>" }, cwd: scratch.directory })
    }))

  it.live("a Procfile has the ports of foreman and the variables of .env", () =>
    Effect.gen(function*() {
      const scratch = yield* folder({ Procfile: "web: npm start\njob: make\n", ".env": "PORT=7000\nKEY=hunter2\n" })
      const { stdout } = yield* Command.run(["config", "--json"], { scratch })
      assert.deepInclude(servicesOf(stdout)["job"], {
        command: "make",
        shell: true,
        env: { PORT: "7100", KEY: "<redacted>" },
        envFile: [".env"]
      })
    }))
})

describe("treeline init", () => {
  it.live.each(["json", "ts", "procfile"])("what it writes can be used: %s", (format) =>
    Effect.gen(function*() {
      const scratch = yield* folder({})
      const written = yield* Command.run(["init", "--format", format], { scratch })
      assert.deepStrictEqual([written.code, written.stderr], [0, ""])
      assert.match(written.stdout, /^wrote (?:treeline\.json|treeline\.config\.ts|Procfile); /)
      const { code, stdout } = yield* Command.run(["config", "--json"], { scratch })
      assert.strictEqual(code, 0)
      assert.deepStrictEqual(Object.keys(servicesOf(stdout)), ["web", "worker"])
    }))

  it.live("a configuration that is there stays as it is, whatever its format", () =>
    Effect.gen(function*() {
      const scratch = yield* folder({ Procfile: "web: mine\n" })
      for (const format of ["json", "procfile"]) {
        const { code, stderr, stdout } = yield* Command.run(["init", "--format", format, "--json"], { scratch })
        assert.deepStrictEqual([code, stdout], [2, ""])
        assert.strictEqual(decodeFailure(stderr).message, "Procfile is here already; nothing was written")
      }
      assert.strictEqual(fs.readFileSync(scratch.file("Procfile"), "utf8"), "web: mine\n")
      assert.isFalse(fs.existsSync(scratch.file("treeline.json")))
    }))
})
