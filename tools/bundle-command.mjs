/**
 * Makes the `treeline` command, as it is published, a few files instead of 400 modules: a command starts in half the time.
 * The packages stay as they are for programs.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { rolldown } from "rolldown"

const packages = fileURLToPath(new URL("../packages", import.meta.url))
const out = path.join(packages, "treeline/dist/command")

/** A module finds what lies beside it, and native code, where its package is installed. */
const addresses = {
  name: "addresses",
  transform: (code, id) => {
    const within = path.relative(packages, id)
    if (within.startsWith("..") || !code.includes("import.meta.url")) return null
    const [folder, ...file] = within.split(path.sep)
    const { name } = JSON.parse(fs.readFileSync(path.join(packages, folder, "package.json"), "utf8"))
    const address = `new URL("./${file.join("/")}", import.meta.resolve("${name}/package.json")).href`
    return code.replaceAll("import.meta.url", address)
  }
}

fs.rmSync(out, { recursive: true, force: true })
const bundle = await rolldown({
  input: { treeline: path.join(packages, "treeline/dist/bin.js") },
  platform: "node",
  plugins: [addresses],
  logLevel: "warn"
})
await bundle.write({ dir: out, format: "esm", entryFileNames: "[name].js", chunkFileNames: "[name]-[hash].js" })
await bundle.close()
