/** docs/child-states.md says what the table says. */
import { assert, describe, it } from "@effect/vitest"
import { ChildState } from "@treeline/core"
import * as fs from "node:fs"
import { file, render } from "../../tools/child-states.ts"

describe("docs/child-states.md", () => {
  const page = fs.readFileSync(file, "utf8")

  it("is what the table gives; else run `npm run child-states`", () => {
    assert.strictEqual(page, render(page))
    assert.include(page, ChildState.toMermaid())
  })

  it("a page that has lost its marks is refused", () => {
    assert.throws(() => render("# States\n"), /marks/)
  })
})
