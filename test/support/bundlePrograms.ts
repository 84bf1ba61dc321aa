/**
 * Makes each program of Programs.ts one file, before the tests of a project. From its sources a host is 300 modules whose
 * types Node has to take off, and the tests start hundreds of hosts.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { rolldown, type RolldownPluginOption } from "rolldown"
import { beside, folder, root, sources } from "./Programs.ts"

/** Of the sources, in the folder of the programs. */
const mirrored = (source: string): string => source.replace(/\.ts$/, ".js")

const besides = new Set(beside.map((source) => path.dirname(source)))

/**
 * A module finds what lies beside it where it lies in the sources: a worker, a script, its package. Only what is made here
 * is found here.
 */
const addresses: RolldownPluginOption = {
  name: "addresses",
  transform: (code, id) => {
    if (id.includes("/node_modules/") || !code.includes("import.meta.url")) return null
    const name = path.relative(root, id)
    const isMirrored = [...besides].some((place) => name.startsWith(`${place}/`))
    const address = pathToFileURL(isMirrored ? path.join(folder, mirrored(name)) : id).href
    return code.replaceAll("import.meta.url", JSON.stringify(address))
  }
}

const build = async (input: Record<string, string>): Promise<void> => {
  const bundle = await rolldown({
    cwd: root,
    input,
    platform: "node",
    resolve: { conditionNames: ["source", "import", "node", "default"] },
    plugins: [addresses],
    logLevel: "silent"
  })
  const { output } = await bundle.generate({
    format: "esm",
    entryFileNames: "[name].js",
    chunkFileNames: "chunks/[name].js"
  })
  await bundle.close()
  for (const item of output) {
    const file = path.join(folder, item.fileName)
    const content = item.type === "chunk" ? item.code : item.source
    if (fs.existsSync(file) && fs.readFileSync(file).equals(Buffer.from(content))) continue
    // Tests of another run may start it at this moment.
    fs.mkdirSync(path.dirname(file), { recursive: true })
    fs.writeFileSync(`${file}.${process.pid}`, content)
    fs.renameSync(`${file}.${process.pid}`, file)
  }
}

const make = async (): Promise<void> => {
  fs.mkdirSync(folder, { recursive: true })
  fs.writeFileSync(path.join(folder, "package.json"), `{ "type": "module" }\n`)
  await build(sources)
  // They begin faster without the chunks of the others.
  for (const source of beside) await build({ [mirrored(source).slice(0, -3)]: source })
}

/** Vitest evaluates this module for each project. */
const once = globalThis as { treelinePrograms?: Promise<void> }

export const setup = (): Promise<void> => once.treelinePrograms ??= make()
