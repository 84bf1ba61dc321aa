// Writes packages/treeline/schema/treeline.schema.json from the Schema of the configuration.
import { ConfigJsonSchema } from "@treeline/core/daemon"
import fs from "node:fs"
import path from "node:path"

/** The published file. */
export const file = path.resolve(import.meta.dirname, "../packages/treeline/schema/treeline.schema.json")

/** Its text. */
export const render = (): string => `${JSON.stringify(ConfigJsonSchema.make(), null, 2)}\n`

if (import.meta.main) {
  fs.mkdirSync(path.dirname(file), { recursive: true })
  fs.writeFileSync(file, render())
}
