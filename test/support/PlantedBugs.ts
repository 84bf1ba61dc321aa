/** Copies of the core with bugs that were planted in them: what checks it has to find them. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { check } from "./Lifecycles.ts"

/** A change to a file of the core; `from` must be there exactly once. */
export interface Change {
  readonly file: string
  readonly from: string
  readonly to: string
}

const root = fileURLToPath(new URL("../..", import.meta.url))
const source = path.join(root, "packages/core/src")

/** The module of the core at `module`, in a copy with the changes, inside the workspace, so that it finds `effect`. */
const plant = (changes: ReadonlyArray<Change>, module: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        fs.mkdirSync(path.join(root, ".reports"), { recursive: true })
        const copy = fs.mkdtempSync(path.join(root, ".reports/planted-"))
        fs.cpSync(source, copy, { recursive: true })
        for (const { file, from, to } of changes) {
          const text = fs.readFileSync(path.join(copy, file), "utf8")
          assert.strictEqual(text.split(from).length, 2, `${file} has this exactly once: ${from}`)
          fs.writeFileSync(path.join(copy, file), text.replace(from, () => to))
        }
        return copy
      }),
      (copy) => Effect.sync(() => fs.rmSync(copy, { recursive: true, force: true }))
    ),
    (copy) => path.join(copy, path.relative(source, module))
  )

/** Plants a bug and checks until it is found, within 2,000 lifecycles; its script is made smaller in `shrinks` steps. */
export const find = (changes: ReadonlyArray<Change>, module: string, shrinks: number) =>
  Effect.gen(function*() {
    const answer = yield* check(yield* plant(changes, module), 1, 2000, shrinks)
    if (!("found" in answer)) return assert.fail(`not found in ${answer.runs} lifecycles`)
    return { ...answer.found, ms: answer.ms }
  }).pipe(Effect.scoped)

/** Plants a bug and sees it found, and found again by its script. */
export const isFound = (name: string, changes: ReadonlyArray<Change>, module: string) =>
  Effect.map(find(changes, module, 0), ({ again, detail, invariant, ms, runs, script }) => {
    assert.isAbove(runs, 0, detail)
    assert.strictEqual(again, invariant, script)
    console.log(`${name}: run ${runs}, ${ms} ms, "${invariant}"`)
  })
