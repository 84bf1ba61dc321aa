/** Copies of the core with bugs that were planted in them: what checks it has to find them. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

/** A change to a file of the core; `from` must be there exactly once. */
export interface Change {
  readonly file: string
  readonly from: string
  readonly to: string
}

const root = fileURLToPath(new URL("../..", import.meta.url))
const source = path.join(root, "packages/core/src")

/** The module of the core at `module`, in a copy with the changes, inside the workspace, so that it finds `effect`. */
export const plant = (changes: ReadonlyArray<Change>, module: string) =>
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
