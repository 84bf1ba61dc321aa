// Removes everything that the scripts make, but not node_modules.
import fs from "node:fs"
import path from "node:path"

const root = path.resolve(import.meta.dirname, "..")
const made = [".doc-examples", ".reports", ".windows", "node_modules/.cache/treeline"]
for (const name of fs.readdirSync(path.join(root, "packages"))) made.push(`packages/${name}/dist`)
for (const entry of made) fs.rmSync(path.join(root, entry), { recursive: true, force: true })
