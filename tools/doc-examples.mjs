// Proves the examples: every ```ts block in the JSDoc of packages/*/src and in README.md and docs/ is type-checked
// with the options of the tests, and run as a program. A block that opens with ```ts no-run is only type-checked.
//
// A block is written to .doc-examples/ at the line on which it stands in its source, under as many blank lines. So the
// line numbers of compiler errors and stack traces are already right, and only the file name is put back.
import { spawn, spawnSync } from "node:child_process"
import fs from "node:fs"
import path from "node:path"

const runLimit = 20_000
const runsAtOnce = 2

const root = path.resolve(import.meta.dirname, "..")
const folder = path.join(root, ".doc-examples")

/** The blocks of a Markdown text, in which a line may stand behind a prefix (JSDoc's asterisk). */
const blocksOf = (lines) => {
  const blocks = []
  let open
  for (const [index, line] of lines.entries()) {
    if (line === undefined) {
      // Outside of any comment: a block that its comment does not close ends here.
      open = undefined
    } else if (open === undefined) {
      const fence = /^(\s*)(`{3,}|~{3,})\s*(\S*)\s*(.*)$/.exec(line)
      if (fence === null) continue
      open = {
        fence: fence[2],
        indent: fence[1].length,
        wanted: fence[3] === "ts" || fence[3] === "typescript",
        run: !fence[4].split(/\s+/).includes("no-run"),
        line: index + 1,
        code: []
      }
    } else if (line.trim().startsWith(open.fence) && /^(`+|~+)$/.test(line.trim())) {
      if (open.wanted) blocks.push(open)
      open = undefined
    } else {
      open.code.push(line.slice(Math.min(open.indent, line.length - line.trimStart().length)))
    }
  }
  return blocks
}

/** Lines of the JSDoc comments without their asterisks; undefined for the lines between them. */
const commentLines = (text) => {
  let inside = false
  return text.split(/\r?\n/).map((line) => {
    if (!inside) {
      inside = /^\s*\/\*\*/.test(line) && !line.includes("*/")
      return undefined
    }
    if (/^\s*\*\/|[^\\]\*\/\s*$/.test(line)) {
      inside = false
      return undefined
    }
    // `*\/` is how a comment inside an example has to be written.
    return line.replace(/^\s*\* ?/, "").replaceAll("*\\/", "*/")
  })
}

const filesIn = (directory, pattern) =>
  fs.existsSync(path.join(root, directory))
    ? fs.readdirSync(path.join(root, directory), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && pattern.test(entry.name))
      .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)))
      .sort()
    : []

const sources = fs.readdirSync(path.join(root, "packages")).flatMap((name) => filesIn(`packages/${name}/src`, /\.ts$/))
const pages = [...(fs.existsSync(path.join(root, "README.md")) ? ["README.md"] : []), ...filesIn("docs", /\.md$/)]

const examples = [...sources, ...pages].flatMap((file) => {
  const text = fs.readFileSync(path.join(root, file), "utf8")
  const lines = file.endsWith(".md") ? text.split(/\r?\n/) : commentLines(text)
  return blocksOf(lines).map((block) => ({
    ...block,
    source: file,
    file: `${file.replaceAll(/[^A-Za-z0-9]+/g, "_")}_L${block.line}.ts`
  }))
})

fs.rmSync(folder, { recursive: true, force: true })
if (examples.length === 0) {
  console.log("doc examples: none")
  process.exit(0)
}
fs.mkdirSync(folder)
for (const example of examples) {
  fs.writeFileSync(path.join(folder, example.file), `${"\n".repeat(example.line)}${example.code.join("\n")}\n`)
}
fs.writeFileSync(
  path.join(folder, "tsconfig.json"),
  JSON.stringify({
    extends: "../test/tsconfig.json",
    compilerOptions: { tsBuildInfoFile: "./.tsbuildinfo" },
    include: ["*.ts"],
    exclude: [],
    references: fs.readdirSync(path.join(root, "packages")).map((name) => ({ path: `../packages/${name}` }))
  })
)

/** The output of a tool, with the names of the files that the examples come from. */
const withSources = (output) =>
  examples.reduce(
    (text, example) =>
      text.replaceAll(path.join(folder, example.file), example.source)
        .replaceAll(`.doc-examples/${example.file}`, example.source),
    output
  )

const checked = spawnSync("tsc", ["-b", ".doc-examples", "--pretty", "false"], {
  cwd: root,
  encoding: "utf8",
  shell: process.platform === "win32"
})
if (checked.error !== undefined) throw checked.error
if (checked.status !== 0) {
  console.error(withSources(`${checked.stdout}${checked.stderr}`))
  console.error("doc examples: the type check failed")
  process.exit(1)
}

const run = (example) =>
  new Promise((resolve) => {
    // A group of its own, so that an example that hangs is ended with what it started.
    const child = spawn(process.execPath, ["--conditions=source", path.join(folder, example.file)], {
      cwd: folder,
      // They load the same modules.
      env: { ...process.env, NODE_COMPILE_CACHE: path.join(root, "node_modules/.cache/treeline/compiled") },
      detached: process.platform !== "win32",
      stdio: ["ignore", "pipe", "pipe"]
    })
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text) => (output += text))
    child.stderr.setEncoding("utf8").on("data", (text) => (output += text))
    const kill = () => {
      try {
        if (process.platform === "win32") child.kill("SIGKILL")
        else process.kill(-child.pid, "SIGKILL")
      } catch {
        // It has ended meanwhile.
      }
    }
    let late = false
    const timer = setTimeout(() => {
      late = true
      kill()
    }, runLimit)
    child.once("error", (error) => {
      clearTimeout(timer)
      resolve({ problem: error.message, output })
    })
    child.once("exit", (code, signal) => {
      clearTimeout(timer)
      // What an example left running may hold its output open; the leader's end is what counts.
      kill()
      const problem = late
        ? `still running after ${runLimit / 1000} s`
        : code === 0
        ? undefined
        : `ended with ${signal ?? `exit code ${code}`}`
      setTimeout(() => {
        child.stdout.destroy()
        child.stderr.destroy()
        resolve({ problem, output })
      }, 20)
    })
  })

const queue = examples.filter((example) => example.run)
const total = queue.length
let failed = 0
await Promise.all(Array.from({ length: runsAtOnce }, async () => {
  for (let example = queue.shift(); example !== undefined; example = queue.shift()) {
    const { output, problem } = await run(example)
    if (problem === undefined) continue
    failed++
    console.error(`${example.source}:${example.line}: the example ${problem}\n${withSources(output)}`)
  }
}))
console.log(
  `doc examples: ${examples.length} type-checked, ${total - failed} ran${failed === 0 ? "" : `, ${failed} failed`}`
)
process.exitCode = failed === 0 ? 0 : 1
