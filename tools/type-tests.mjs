// Runs the type tests (test/types/**/*.tst.ts) with tstyche, offline.
//
// tstyche needs a compiler with a JavaScript API. TypeScript 7 has none yet, and tstyche would download an older
// TypeScript at run time. So a private workspace (tools/compat) holds TypeScript 6, and tstyche is pointed at it. It
// must not stand at the root: its `tsc` would take the place of TypeScript 7's.
import { spawnSync } from "node:child_process"
import { createRequire } from "node:module"
import path from "node:path"
import { pathToFileURL } from "node:url"

const root = path.resolve(import.meta.dirname, "..")
const compiler = createRequire(path.join(root, "tools/compat/package.json")).resolve("typescript")
const result = spawnSync("tstyche", process.argv.slice(2), {
  cwd: root,
  stdio: "inherit",
  shell: process.platform === "win32",
  env: { ...process.env, TSTYCHE_TYPESCRIPT_MODULE: pathToFileURL(compiler).href }
})
if (result.error !== undefined) throw result.error
process.exitCode = result.status ?? 1
