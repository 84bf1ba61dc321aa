import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as CommandLine from "../../packages/platform-windows/src/internal/CommandLine.ts"

const line = (result: Result.Result<string, CommandLine.CommandLineProblem>): string =>
  Result.match(result, { onSuccess: (text) => text, onFailure: ({ detail }) => `refused: ${detail}` })

/** The C runtime's own rules, written down apart from the quoting: "Parsing C command-line arguments". */
const parse = (text: string): ReadonlyArray<string> => {
  const args: Array<string> = []
  let at = text.indexOf("\"", 1) + 1 // the program's name
  while (at < text.length) {
    while (text[at] === " " || text[at] === "\t") at++
    if (at >= text.length) break
    let argument = ""
    let quoted = false
    while (at < text.length && (quoted || (text[at] !== " " && text[at] !== "\t"))) {
      let backslashes = 0
      while (text[at] === "\\") {
        backslashes++
        at++
      }
      if (text[at] !== "\"") {
        argument += "\\".repeat(backslashes)
        if (at < text.length && (quoted || (text[at] !== " " && text[at] !== "\t"))) argument += text[at++]
        else if (!quoted) break
        continue
      }
      argument += "\\".repeat(Math.floor(backslashes / 2))
      if (backslashes % 2 === 1) argument += "\""
      else quoted = !quoted
      at++
    }
    args.push(argument)
  }
  return args
}

const corpus = [
  "",
  " ",
  "plain",
  "two words",
  "tab\there",
  "line\nbreak",
  "vertical\vtab",
  "\"",
  "\"\"",
  "a\"b",
  "\\",
  "\\\\",
  "a\\",
  "a b\\",
  "a b\\\\",
  "a\\b",
  "a\\\\b c",
  "\\\"",
  "\\\\\"",
  "a\\\"b c\\\"",
  "C:\\Program Files\\x\\",
  "\\\\server\\share name\\",
  "%PATH%",
  "^&|<>()!",
  "'single'",
  "emoji \u{1f333}",
  "ünï cöde",
  "--a=\"b c\"",
  "{\"json\": \"va\\\\lue\"}",
  ";,=",
  "*.txt",
  "-",
  "/?"
]

describe("CommandLine", () => {
  it("arguments come back from the C runtime's rules", () => {
    assert.deepStrictEqual(parse(line(CommandLine.ofProgram("C:\\x\\y z.exe", corpus))), corpus)
    for (const one of corpus) {
      for (const other of corpus) {
        assert.deepStrictEqual(parse(line(CommandLine.ofProgram("x", [one, other]))), [one, other])
      }
    }
  })

  it("an argument is quoted only where it must be", () => {
    assert.strictEqual(
      line(CommandLine.ofProgram("node", ["a\\b\\", "", "c d\\", "e\"f"])),
      "\"node\" a\\b\\ \"\" \"c d\\\\\" \"e\\\"f\""
    )
  })

  it("a name with a quote is refused", () => {
    assert.strictEqual(line(CommandLine.ofProgram("a\" b", [])), "refused: the name of the program contains a quote")
  })

  it("the length is checked: 32,766 characters pass, one more does not", () => {
    const overhead = "\"x\" ".length
    const most = "a".repeat(CommandLine.longest - overhead)
    assert.strictEqual(line(CommandLine.ofProgram("x", [most])).length, 32_766)
    assert.match(line(CommandLine.ofProgram("x", [`${most}a`])), /^refused: the command line has 32767 characters/)
    assert.match(line(CommandLine.ofBatch("C:\\x.bat", ["a".repeat(8_191)])), /^refused: .* at most 8191/)
  })

  it("peer 117: arguments of a batch file are never commands (CVE-2024-24576)", () => {
    const batch = (...args: ReadonlyArray<string>) => line(CommandLine.ofBatch("C:\\a b\\x.bat", args))
    const around = (args: string) => `cmd.exe /e:ON /v:OFF /d /c ""C:\\a b\\x.bat"${args}"`
    assert.strictEqual(batch(), around(""))
    assert.strictEqual(batch("plain", "a/b:c"), around(" plain a/b:c"))
    assert.strictEqual(batch("", "two words"), around(" \"\" \"two words\""))
    assert.strictEqual(batch("a&calc", "a|b", "<x>", "^"), around(" \"a&calc\" \"a|b\" \"<x>\" \"^\""))
    assert.strictEqual(batch("\"&calc.exe"), around(" \"\"\"&calc.exe\""))
    assert.strictEqual(batch("\\\"&calc"), around(" \"\\\\\"\"&calc\""))
    assert.strictEqual(batch("%PATH%"), around(" \"%%cd:~,%PATH%%cd:~,%\""))
    assert.strictEqual(batch("!x!", "(y)", "a,b", "a;b", "a=b"), around(" \"!x!\" \"(y)\" \"a,b\" \"a;b\" \"a=b\""))
    assert.strictEqual(batch("end\\", "a b\\"), around(" \"end\\\\\" \"a b\\\\\""))
    assert.strictEqual(batch("ünïcode", "\u{1f333}"), around(" ünïcode \u{1f333}"))
    assert.strictEqual(batch("tab\t", "\u007f\u0085"), around(" \"tab\t\" \"\u007f\u0085\""))
  })

  it("peer 117: what no quoting protects is refused, and not shown", () => {
    for (const secret of ["a\nsecret", "a\rsecret", "a\0secret"]) {
      const outcome = line(CommandLine.ofBatch("C:\\x.bat", ["ok", secret]))
      assert.match(outcome, /^refused: argument 2 contains a line break/)
      assert.notInclude(outcome, "secret")
    }
    for (const script of ["C:\\x\".bat", "C:\\x\\", "C:\\x\n.bat"]) {
      assert.match(line(CommandLine.ofBatch(script, [])), /^refused: /)
    }
  })

  it("peer 117: a percent sign in the path of the batch file is no variable", () => {
    assert.include(line(CommandLine.ofBatch("C:\\%TEMP%\\x.cmd", [])), "\"C:\\%%cd:~,%TEMP%%cd:~,%\\x.cmd\"")
  })

  it("trailing dots and spaces hide no batch file (CVE-2024-43402)", () => {
    for (const name of ["x.bat", "X.BAT", "x.cmd", "x.bat.", "x.bat ", "x.bat. .", "C:\\d.exe\\x.Cmd . ", "a/x.bat"]) {
      assert.isTrue(CommandLine.isBatch(name), name)
    }
    for (const name of ["x.exe", "x", "bat", "x.bat.exe", "C:\\x.bat\\y", ".", ""]) {
      assert.isFalse(CommandLine.isBatch(name), name)
    }
  })

  it("cmd.exe is known by its name", () => {
    for (const shell of ["cmd", "cmd.exe", "C:\\Windows\\System32\\CMD.EXE"]) assert.isTrue(CommandLine.isCmd(shell))
    for (const shell of ["bash", "powershell.exe", "xcmd.exe", "cmd.bat"]) assert.isFalse(CommandLine.isCmd(shell))
  })
})
