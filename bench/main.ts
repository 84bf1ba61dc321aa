/**
 * `npm run bench`: Treeline beside Node's child_process, execa and Effect's own layer, in one run.
 *
 * `npm run bench -- --quick` repeats less; `npm run bench -- close scan` asks only these questions. A run of all
 * questions writes its tables to docs/performance.md.
 */
import * as fs from "node:fs"
import * as os from "node:os"
import { fileURLToPath } from "node:url"
import { close, lingering, orphans } from "./questions/Close.ts"
import { guardian, hostDeath } from "./questions/Guardian.ts"
import { launch } from "./questions/Launch.ts"
import { live } from "./questions/Live.ts"
import { memory } from "./questions/Memory.ts"
import { scan } from "./questions/Scan.ts"
import { stubborn } from "./questions/Stubborn.ts"
import { pipes, throughput } from "./questions/Throughput.ts"
import { render } from "./Report.ts"

const questions = [close, orphans, lingering, stubborn, launch, memory, throughput, pipes, live, hostDeath, guardian, scan]

const words = process.argv.slice(2)
const quick = words.includes("--quick")
const names = words.filter((word) => word !== "--quick")
const unknown = names.filter((name) => !questions.some((question) => question.name === name))
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(", ")}; there are --quick, ${questions.map(({ name }) => name).join(", ")}`)
  process.exit(2)
}

const rounds = quick ? 5 : 11
const chosen = questions.filter(({ name }) => names.length === 0 || names.includes(name))
const tables: Array<string> = []
for (const question of chosen) {
  const table = render(await question.run({ rounds, short: false, progress: (text) => console.error(`... ${text}`) }))
  console.log(`\n${table}`)
  tables.push(table)
}

const document = fileURLToPath(new URL("../docs/performance.md", import.meta.url))
const [begin, end] = ["<!-- figures: begin -->", "<!-- figures: end -->"]
if (names.length === 0) {
  const text = fs.readFileSync(document, "utf8")
  const machine =
    `Node ${process.versions.node}, ${process.platform} ${process.arch}, ${os.availableParallelism()} processors, ${rounds} rounds.`
  const figures = [begin, "", machine, "", tables.join("\n"), end].join("\n")
  fs.writeFileSync(document, text.slice(0, text.indexOf(begin)) + figures + text.slice(text.indexOf(end) + end.length))
  console.error(`written to docs/performance.md`)
}
