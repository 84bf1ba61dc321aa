/**
 * `npm run bench`: Treeline beside Node's child_process, execa and Effect's own layer, in one run.
 *
 * `npm run bench -- --quick` repeats less; `npm run bench -- close scan` asks only these questions. `--runtimes` installs
 * Bun, Deno, other versions of Node and pm2 into a folder that git ignores, to be asked as well. A run of all questions writes
 * its tables to docs/performance.md; with `--write` a run of some puts its tables in the place of theirs. `--ci` asks in
 * short what a change may spoil, and fails where a figure is far off.
 */
import { ProcessPlatform } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { bounds, broken } from "./Bounds.ts"
import { isCalm } from "./Calm.ts"
import { close, lingering, orphans } from "./questions/Close.ts"
import { control } from "./questions/Control.ts"
import { daemon } from "./questions/Daemon.ts"
import { guardian, hostDeath } from "./questions/Guardian.ts"
import { launch } from "./questions/Launch.ts"
import { live } from "./questions/Live.ts"
import { logs } from "./questions/Logs.ts"
import { memory, nodes, runtimes } from "./questions/Memory.ts"
import { pool } from "./questions/Pool.ts"
import { scan } from "./questions/Scan.ts"
import { sidecar } from "./questions/Sidecar.ts"
import { stubborn } from "./questions/Stubborn.ts"
import { supervision } from "./questions/Supervision.ts"
import { pipes, throughput } from "./questions/Throughput.ts"
import { type Options, type Question, render } from "./Report.ts"
import * as Runtimes from "./Runtimes.ts"

const questions = [
  close,
  orphans,
  lingering,
  stubborn,
  launch,
  memory,
  runtimes,
  nodes,
  throughput,
  pipes,
  sidecar,
  logs,
  live,
  hostDeath,
  guardian,
  scan,
  supervision,
  pool,
  control,
  daemon
]

const say = (text: string): void => console.error(`... ${text}`)

/** Asks, prints every table as soon as it is there, and returns the tables as text with all figures. */
const ask = async (chosen: ReadonlyArray<Question>, options: Omit<Options, "progress">) => {
  const tables: Array<string> = []
  const figures: Record<string, number> = {}
  for (const question of chosen) {
    const table = await question.run({ ...options, progress: say })
    if (table === undefined) {
      say(`${question.name} is left out: not installed, see --runtimes`)
      continue
    }
    tables.push(render(table))
    Object.assign(figures, table.figures)
    console.log(`\n${tables.at(-1)}`)
  }
  return { tables, figures }
}

/** No run of the short form takes as long, in ms. */
const checkLimit = 240_000

/**
 * The short form: false when a figure is far off in two runs of a calm machine. Where other work takes the processors,
 * nothing can be said, and that is no failure.
 */
const check = async (): Promise<boolean> => {
  const limit = setTimeout(() => {
    console.log(`bench: not done after ${checkLimit / 1000} s`)
    process.exit(1)
  }, checkLimit)
  limit.unref()
  const report = await Effect.runPromise(
    ProcessPlatform.ProcessPlatform.use((platform) => platform.containment).pipe(Effect.provide(PosixPlatform.layer))
  )
  const native = report.mechanisms.some(({ available, name }) => available && name === "native launch")
  for (let attempt = 1; attempt <= 2; attempt++) {
    if (!await isCalm(5)) break
    const { figures } = await ask([launch, memory, throughput, pipes, pool], { rounds: 3, short: true })
    const problems = broken(figures, native)
    if (problems.length === 0) {
      console.log(
        `bench: ${bounds.filter((bound) => native || bound.native !== true).length} figures are within bounds`
      )
      return true
    }
    for (const problem of problems) console.log(`bench, run ${attempt} of 2: ${problem}`)
    if (attempt === 2 && await isCalm(1)) return false
  }
  console.log("bench: not judged, because the machine is busy with something else")
  return true
}

/** The first line of a table names it. */
const titleOf = (table: string): string => table.slice(0, table.indexOf("\n"))

/** Puts tables into the documentation: all that there are, or each in the place of the one that has its title. */
const write = (tables: ReadonlyArray<string>, rounds: number, whole: boolean): void => {
  const document = fileURLToPath(new URL("../docs/performance.md", import.meta.url))
  const [begin, end] = ["<!-- figures: begin -->", "<!-- figures: end -->"]
  const text = fs.readFileSync(document, "utf8")
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`docs/performance.md has no ${begin} before ${end}`)
  const machine = [
    `Node ${process.versions.node}`,
    `${process.platform} ${process.arch}`,
    `${os.availableParallelism()} processors`,
    `${Math.round(os.totalmem() / 2 ** 30)} GiB`,
    `${rounds} rounds`
  ]
  const note = "Written by `npm run bench`; not to be edited."
  const [head = "", ...before] = text.slice(from, to).split(/^(?=### )/mu)
  const later = new Map(tables.map((table) => [titleOf(table), table]))
  const kept = before.map((table) => {
    const title = titleOf(table)
    const newer = later.get(title)
    later.delete(title)
    return newer === undefined ? table : `${newer}\n`
  })
  const figures = whole
    ? [begin, "", `${note} ${machine.join(", ")}.`, "", tables.join("\n"), ""].join("\n")
    : head + [...kept, ...[...later.values()].map((table) => `${table}\n`)].join("")
  fs.writeFileSync(document, text.slice(0, from) + figures + text.slice(to))
  say("written to docs/performance.md")
}

const { positionals: names, values } = parseArgs({
  allowPositionals: true,
  options: {
    ci: { type: "boolean" },
    quick: { type: "boolean" },
    runtimes: { type: "boolean" },
    write: { type: "boolean" }
  }
})
const unknown = names.filter((name) => !questions.some((question) => question.name === name))
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(", ")}; there are ${questions.map(({ name }) => name).join(", ")}`)
  process.exit(2)
}

if (values.runtimes === true) Runtimes.install(say)
if (values.ci === true) {
  process.exitCode = await check() ? 0 : 1
} else {
  const rounds = values.quick === true ? 5 : 11
  const chosen = questions.filter(({ name }) => names.length === 0 || names.includes(name))
  const { tables } = await ask(chosen, { rounds, short: false })
  if (names.length === 0 || values.write === true) write(tables, rounds, names.length === 0)
}
