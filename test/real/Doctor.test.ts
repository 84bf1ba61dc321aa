/**
 * `treeline doctor`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Containment } from "@treeline/core"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { render } from "../../packages/treeline/src/internal/Doctor.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"

const decode = Schema.decodeUnknownSync(Schema.fromJsonString(Containment.Report), { onExcessProperty: "error" })

/** Runs its arguments with a terminal as all three descriptors and copies what comes out of it. */
const withTerminal = [
  "python3",
  "-c",
  "import pty,sys,os; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
]

const noPython = Command.whyNoPython()

describe("treeline doctor", () => {
  it.live("says the level, each mechanism and what would raise it, in 80 columns and without colours", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const report = decode((yield* Command.run(["doctor", "--json"], { scratch })).stdout)
      const { code, stderr, stdout } = yield* Command.run(["doctor"], { scratch })
      assert.deepStrictEqual([code, stderr], [0, ""])
      assert.include(stdout, `Containment here: ${report.level}\n`)
      for (const { available, name } of report.mechanisms) {
        assert.match(stdout, new RegExp(`^  ${available ? "yes" : "no "}  ${name} `, "m"))
      }
      if (report.raise !== undefined) assert.include(stdout.replaceAll(/\s+/g, " "), report.raise)
      assert.notInclude(stdout, "\x1b")
      for (const line of stdout.split("\n")) assert.isBelow(line.length, 80)
    }))

  it.live.skipIf(noPython !== undefined)(
    "has colours in a terminal, unless NO_COLOR is set (needs python3)",
    () =>
      Effect.gen(function*() {
        const scratch = yield* Scratch.make
        const look = (env: Record<string, string>) =>
          Command.run([...Command.treeline, "doctor"], {
            scratch,
            program: withTerminal,
            env: { TERM: "xterm", ...env }
          })
        const colored = yield* look({})
        assert.include(colored.stdout, "\x1b[32myes\x1b[0m")
        const plain = yield* look({ NO_COLOR: "1" })
        assert.include(plain.stdout, "yes")
        assert.notInclude(plain.stdout, "\x1b")
      })
  )

  it("what is missing is shown with its reason, however long", () => {
    const text = render(
      {
        platform: "elsewhere",
        level: "group",
        highest: "group",
        mechanisms: [
          { name: "session", available: true, detail: "its own" },
          { name: "a mechanism with a name", available: false, detail: "because it is not there ".repeat(10).trim() }
        ]
      },
      "1.2.3",
      false
    )
    assert.include(text, "  no   a mechanism with a name  because it is not there")
    assert.include(text, "[group]  marked  tagged  sealed")
    assert.notInclude(text, "To raise it")
    for (const line of text.split("\n")) assert.isBelow(line.length, 80)
  })
})
