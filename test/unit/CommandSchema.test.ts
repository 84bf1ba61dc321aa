/** The published JSON Schema of what the commands print. */
import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import { file, render } from "../../tools/command-schema.ts"
import { failed, now, ready, service, status } from "../support/Statuses.ts"
import { whyNot } from "../support/Up.ts"

describe("packages/treeline/schema/commands.schema.json", () => {
  it("is what the Schemas give; else run `npm run command-schema`", () => {
    assert.strictEqual(fs.readFileSync(file, "utf8"), render())
  })

  it("knows every answer by its own name, and refuses what is none", () => {
    const snapshot = JSON.parse(
      JSON.stringify(status([service("db", ready(1, now)), service("web", failed("web", "why"))]))
    )
    assert.strictEqual(whyNot("Status", snapshot), undefined)
    assert.include(whyNot("Status", { ...snapshot, services: [{ name: "db" }] })!, "required")
    assert.include(whyNot("Status", { ...snapshot, at: "now" })!, "must be number")
    assert.include(whyNot("Failure", { error: { _tag: "Other" }, message: "", exitCode: 1 })!, "anyOf")
  })
})
