/** The texts that a configuration is read from. */
import { assert, describe, it } from "@effect/vitest"
import { ConfigOrigin, ConfigSource } from "@treeline/core/daemon"
import { Result } from "effect"
import * as fc from "fast-check"

const messageOf = <A>(result: Result.Result<A, { readonly message: string }>): string =>
  Result.isFailure(result) ? result.failure.message : "no error"

const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

describe("JSON", () => {
  it("every JSON text is read as JSON.parse reads it", () => {
    fc.assert(fc.property(fc.json(), (text) => {
      if (text.includes("__proto__")) return
      assert.deepStrictEqual(Result.getOrThrow(ConfigSource.json("f", text)).tree, JSON.parse(text))
    }))
  })

  it("a text that JSON.parse refuses is refused, but for comments and last commas", () => {
    fc.assert(
      fc.property(fc.json(), fc.nat(), fc.constantFrom("", "x", "\"", "}", "]", "{", ":", "1"), (text, seed, other) => {
        const at = seed % text.length
        const broken = text.slice(0, at) + other + text.slice(at + 1)
        if (/\/\/|\/\*|,\s*[\]}]|__proto__/.test(broken)) return
        const result = ConfigSource.json("f", broken)
        // A name that comes twice is refused here and not there.
        const isRefused = Result.isFailure(result) && !/only once/.test(result.failure.message)
        assert.strictEqual(isRefused, !isJson(broken) && !/only once/.test(messageOf(result)), broken)
      }),
      { numRuns: 1000 }
    )
  })

  it("comments, a mark at the beginning and a comma after the last item are no error", () => {
    const text = "\ufeff// a\n{ /* b\n */ \"a\": [1, 2,], // c\n \"b\": \"// no comment\", }\n// d"
    assert.deepStrictEqual(Result.getOrThrow(ConfigSource.json("f", text)).tree, { a: [1, 2], b: "// no comment" })
  })

  it.each([
    ["", "f:1:1: expected a value"],
    ["{", "f:1:2: expected a name in double quotes, or }"],
    ["{\n  \"a\": 1\n  \"b\": 2 }", "f:3:3: expected a comma or }"],
    ["{ \"a\" 1 }", "f:1:7: expected a colon"],
    ["[1 2]", "f:1:4: expected a comma or ]"],
    ["[01]", "f:1:3: expected a comma or ]"],
    ["{} {}", "f:1:4: expected the end of the file"],
    ["{ \"a\": 1, \"a\": 2 }", "f:1:11: expected each name only once"],
    ["{ \"__proto__\": {} }", "f:1:3: expected another name than __proto__"],
    ["\"a\nb\"", "f:1:1: expected a value"],
    ["{ \"a\": /* no end", "f:1:8: expected a value"],
    ["[".repeat(100), "f:1:66: expected at most 64 levels"]
  ])("an error has line, column and what was expected: %j", (text, message) => {
    assert.strictEqual(messageOf(ConfigSource.json("f", text)), message)
  })

  it("each value knows its place, and what is missing has the place of what is around it", () => {
    const { originOf } = Result.getOrThrow(ConfigSource.json("f", "{\n  \"a\": [ 1,\n 2 ] }"))
    const where = (...path: ReadonlyArray<string | number>) => ConfigOrigin.describe(originOf(path))
    assert.deepStrictEqual(
      [where("a"), where("a", 1), where("a", 7), where("b"), where()],
      ["f:2:8", "f:3:2", "f:2:8", "f:1:1", "f:1:1"]
    )
  })
})

describe(".env", () => {
  const read = (text: string) =>
    Result.getOrThrow(ConfigSource.dotEnv(".env", text)).map(({ name, origin, value }) => [
      name,
      value,
      ConfigOrigin.describe(origin)
    ])

  it.each([
    ["A=1", [["A", "1", ".env:1"]]],
    ["# c\n\n  export A = b c  # d\r\nB=", [["A", "b c", ".env:3"], ["B", "", ".env:4"]]],
    ["A='$X # \\n'\nB=\"a\\n\\\"b\\\" \\\\ # c\" # d", [["A", "$X # \\n", ".env:1"], [
      "B",
      "a\n\"b\" \\ # c",
      ".env:2"
    ]]],
    ["A=\"one\ntwo\"\nB=x#y", [["A", "one\ntwo", ".env:1"], ["B", "x#y", ".env:3"]]],
    ["A=it's\nB=# empty", [["A", "it's", ".env:1"], ["B", "", ".env:2"]]]
  ])("%j", (text, entries) => {
    assert.deepStrictEqual(read(text), entries)
  })

  it("what was quoted comes back", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: fc.constantFrom("a", "é", "\"", "'", "\\", "\n", "\r", "#", " ", "$", "=", "n") })),
        (values) => {
          const usable = values.map((value) => value.replaceAll(/\r+\n/g, "\n"))
          const text = usable.map((value, index) =>
            `V${index}="${value.replaceAll("\\", "\\\\").replaceAll("\"", "\\\"")}"`
          ).join("\n")
          assert.deepStrictEqual(read(text).map(([, value]) => value), usable)
        }
      )
    )
  })

  it.each([
    ["A=1\nnonsense", ".env:2: expected NAME=value, or # and a comment"],
    ["A='secret", ".env:1: expected a closing quote after the value of A"],
    ["A=\"secret\" more", ".env:1: expected the end of the line after the value of A"],
    ["1A=2", ".env:1: expected NAME=value, or # and a comment"]
  ])("an error has the line and never the value: %j", (text, message) => {
    assert.strictEqual(messageOf(ConfigSource.dotEnv(".env", text)), message)
  })
})

describe("Procfile", () => {
  it("each line is a command for the shell, with a port of its own as foreman gives it", () => {
    const { originOf, tree } = Result.getOrThrow(
      ConfigSource.procfile("Procfile", "# all\nweb:   bundle exec x: y  \r\n\njob: rake\n", {
        port: 7000,
        envFile: [".env"]
      })
    )
    assert.deepStrictEqual(tree, {
      services: {
        web: { command: "bundle exec x: y", shell: true, env: { PORT: "7000" }, envFile: [".env"] },
        job: { command: "rake", shell: true, env: { PORT: "7100" }, envFile: [".env"] }
      }
    })
    assert.strictEqual(ConfigOrigin.describe(originOf(["services", "job", "command"])), "Procfile:4:1")
  })

  it.each([
    ["", "P: expected at least one line \"name: command\""],
    ["web npm", "P:1: expected \"name: command\""],
    ["web:", "P:1: expected \"name: command\""],
    ["a.b: c", "P:1: expected a name of letters, digits, _ and -"],
    ["a: b\na: c", "P:2: services.a: expected each name only once"]
  ])("an error has its line: %j", (text, message) => {
    assert.strictEqual(messageOf(ConfigSource.procfile("P", text)), message)
  })
})

describe("flags and variables", () => {
  const flag = (text: string) => {
    const [found] = Result.getOrThrow(ConfigSource.flags([text]))
    return [found!.path.join("/"), found!.value]
  }

  it.each([
    ["services.web.cwd=/tmp", "services/web/cwd", "/tmp"],
    ["services.web.cwd=a=b", "services/web/cwd", "a=b"],
    ["services.web.shell=true", "services/web/shell", true],
    ["services.web.restart.backoff.factor=1.5", "services/web/restart/backoff/factor", 1.5],
    ["services.web.args=[\"a\", 1]", "services/web/args", ["a", 1]],
    ["services.web.readiness=null", "services/web/readiness", null],
    ["services.web.command=\"true\"", "services/web/command", "true"],
    ["services.web.env.PORT=0080", "services/web/env/PORT", "0080"],
    ["services.web.env.DEBUG=true", "services/web/env/DEBUG", "true"],
    ["services.web.env.a.b=[x]", "services/web/env/a.b", "[x]"],
    ["services.web.env.JSON={\"a\": 1", "services/web/env/JSON", "{\"a\": 1"],
    ["services.web.env.KEY={\"fromEnv\": \"X\"}", "services/web/env/KEY", { fromEnv: "X" }]
  ])("%s", (text, path, value) => {
    assert.deepStrictEqual(flag(text), [path, value])
  })

  it.each([
    ["services", "--set services: expected PATH=VALUE, such as services.web.restart.mode=transient"],
    ["=x", "--set : expected PATH=VALUE, such as services.web.restart.mode=transient"],
    ["services..x=secret", "--set services..x: expected PATH=VALUE, such as services.web.restart.mode=transient"],
    ["services.a.args=[1", "--set services.a.args: services.a.args: expected a comma or ] at character 3 of the JSON"]
  ])("an error names the flag and never the value: %s", (text, message) => {
    assert.strictEqual(messageOf(ConfigSource.flags([text])), message)
  })

  const tree = { services: { "my-api": {}, web: {}, "a-b": {}, a_b: {} } }
  const variable = (name: string, value = "x") => ConfigSource.variables({ [name]: value, HOME: "/" }, tree)

  it.each([
    ["TREELINE_SERVICES__MY_API__DEPENDS_ON", ["services", "my-api", "dependsOn"]],
    ["TREELINE_services__web__envFile", ["services", "web", "envFile"]],
    ["TREELINE_SERVICES__WEB__ENV__MY__VAR", ["services", "web", "env", "MY__VAR"]],
    ["TREELINE_SUPERVISOR__INTENSITY__MAX", ["supervisor", "intensity", "max"]]
  ])("%s", (name, path) => {
    assert.deepStrictEqual(Result.getOrThrow(variable(name))[0]?.path, path)
  })

  it("other variables of ours are no overrides", () => {
    assert.deepStrictEqual(Result.getOrThrow(variable("TREELINE_ENGINE")), [])
    assert.deepStrictEqual(Result.getOrThrow(variable("TREELINE_CONFIG")), [])
  })

  it.each([
    ["TREELINE_SERVICES__WBE__CWD", "services: expected one of my-api, web, a-b, a_b instead of WBE"],
    ["TREELINE_SERVICES__WEB__CDW", "services.web: there is no field CDW"],
    ["TREELINE_SERVICES__A_B__CWD", "services: A_B may be any of a-b, a_b; use --set"]
  ])("an error names the variable: %s", (name, problem) => {
    assert.strictEqual(messageOf(variable(name)), `variable ${name}: ${problem}`)
  })
})
