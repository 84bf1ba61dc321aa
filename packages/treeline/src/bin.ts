#!/usr/bin/env node
/** The `treeline` command. */
import * as fs from "node:fs"
import * as module from "node:module"
import * as os from "node:os"
import * as path from "node:path"

/** Compiled modules of earlier runs make the start a sixth faster. Only a folder that is the user's own is trusted. */
const useCompileCache = (): void => {
  try {
    const directory = path.join(process.env["XDG_CACHE_HOME"] || path.join(os.homedir(), ".cache"), "treeline")
    fs.mkdirSync(directory, { mode: 0o700, recursive: true })
    const stat = fs.lstatSync(directory)
    if (stat.isDirectory() && stat.uid === process.getuid?.() && (stat.mode & 0o022) === 0) {
      module.enableCompileCache(directory)
    }
  } catch {
    // without a home the command works as well
  }
}

useCompileCache()
const [command, ...rest] = process.argv.slice(2)
// Without the command line, which it does not need: one runs for each service that is kept.
if (command === "shim") await (await import("./internal/Shim.ts")).main(rest)
const { main } = await import("./internal/Main.ts")
await main(process.argv.slice(2))
