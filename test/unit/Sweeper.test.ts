import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import { sweeperPath } from "../../packages/platform-posix/src/internal/Guardian.ts"

/** What a module loads when it runs, itself and its own modules included; types are gone by then. */
const imports = (file: string, seen = new Set<string>()): ReadonlySet<string> => {
  if (seen.has(file)) return seen
  seen.add(file)
  for (const [, type, name] of fs.readFileSync(file, "utf8").matchAll(/^import (type )?(?:[^"]*? from )?"([^"]+)"/gm)) {
    if (type !== undefined) continue
    if (name!.startsWith(".")) imports(new URL(name!, `file://${file}`).pathname, seen)
    else seen.add(name!)
  }
  return seen
}

describe("the sweeper", () => {
  it("loads nothing but Node: it has to start fast, and to run where nothing was built", () => {
    const loaded = [...imports(sweeperPath)]
    assert.include(loaded, "node:fs")
    assert.deepStrictEqual(loaded.filter((name) => !name.startsWith("/") && !name.startsWith("node:")), [])
  })
})
