import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { all } from "../Contenders.ts"
import { median, ms, type Question, share } from "../Report.ts"
import * as Runtimes from "../Runtimes.ts"

/** What `loaded.ts` and `foreign.mjs` say of one contender: ms, and launches per second. */
interface Row {
  readonly name: string
  readonly running: number
  readonly ended: number
  /** null where the runtime does not tell. */
  readonly busy: number | null
  readonly rate: number
}

const script = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url))

/** A host of its own, which ends before this returns. */
const ask = async (
  file: string,
  before: ReadonlyArray<string>,
  mebibytes: number,
  rounds: number,
  place = 0
): Promise<ReadonlyArray<Row>> => {
  const args = [...before, String(mebibytes), String(rounds), String(place)]
  const { stdout } = await promisify(execFile)(file, args, { maxBuffer: 1 << 20 })
  const answer = JSON.parse(stdout) as Row | ReadonlyArray<Row>
  return Array.isArray(answer) ? answer : [answer as Row]
}

/** `turns` hosts for each contender, in turn with the others; of each the middle answer. */
const askNode = async (
  file: string,
  mebibytes: number,
  rounds: number,
  turns: number
): Promise<ReadonlyArray<Row>> => {
  const hosts: Array<ReadonlyArray<Row>> = []
  for (let turn = 0; turn < turns; turn++) {
    const rows: Array<Row> = []
    for (const place of all().keys()) {
      const before = ["--conditions=source", script("loaded.ts")]
      rows.push(...await ask(file, before, mebibytes, Math.ceil(rounds / turns), place))
    }
    hosts.push(rows)
  }
  return middle(hosts)
}

/** Fewer rounds where each takes long. */
const roundsFor = (mebibytes: number, rounds: number): number => rounds * (mebibytes === 0 ? 10 : 3)

const cells = (row: Row, first: Row): ReadonlyArray<string> => [
  ms(row.running),
  share(row.running, first.running),
  ms(row.ended),
  share(row.ended, first.ended),
  ms(row.busy ?? Number.NaN),
  share(row.busy ?? Number.NaN, first.busy ?? Number.NaN),
  row.rate.toFixed(0),
  share(row.rate, first.rate)
]

const columns = ["running", "", "ended", "", "loop busy", "", "per second", ""]

/** The middle answer of several hosts, figure by figure. */
const middle = (hosts: ReadonlyArray<ReadonlyArray<Row>>): ReadonlyArray<Row> =>
  hosts[0]!.map((row, at) => ({
    name: row.name,
    running: median(hosts.map((rows) => rows[at]!.running)),
    ended: median(hosts.map((rows) => rows[at]!.ended)),
    busy: row.busy === null ? null : median(hosts.map((rows) => rows[at]!.busy ?? Number.NaN)),
    rate: median(hosts.map((rows) => rows[at]!.rate))
  }))

export const memory: Question = {
  name: "memory",
  run: async ({ progress, rounds, short }) => {
    const rows: Array<ReadonlyArray<string>> = []
    const figures: Record<string, number> = {}
    for (const size of short ? [512] : [0, 512, 2048]) {
      progress(`memory ${size} MiB`)
      const answers = await askNode(process.execPath, size, roundsFor(size, rounds), short ? 1 : 3)
      const [first] = answers
      for (const answer of answers) {
        rows.push([`${answer.name}, ${size} MiB`, ...cells(answer, first!)])
        figures[`${answer.name}, ${size} MiB, loop busy / child_process`] = answer.busy! / first!.busy!
      }
    }
    return {
      title: "Launching from a host that holds buffers",
      text: `A host with ${
        short ? "512" : "0, 512 and 2,048"
      } MiB of buffers launches \`true\` with all output read: until it runs; until exit and
end of output; how long the event loop was busy; and launches per second, 16 at a time. Medians, in ms, and what they are
of child_process.`,
      columns: ["", ...columns],
      rows,
      figures
    }
  }
}

/** Hosts of each runtime, one after another, round by round. */
export const runtimes: Question = {
  name: "runtimes",
  run: async ({ progress, rounds }) => {
    const scripted = [
      ...Runtimes.bun().map((runtime) => ({ ...runtime, before: [script("foreign.mjs")] })),
      ...Runtimes.deno().map((runtime) => ({
        ...runtime,
        before: ["run", "--quiet", "--no-config", "--allow-run", "--allow-env", "--allow-read", script("foreign.mjs")]
      }))
    ]
    if (scripted.length === 0) return undefined
    const rows: Array<ReadonlyArray<string>> = []
    for (const size of [0, 512]) {
      const own: Array<ReadonlyArray<Row>> = []
      const others: ReadonlyArray<Array<ReadonlyArray<Row>>> = scripted.map(() => [])
      for (let round = 0; round < 3; round++) {
        progress(`runtimes ${size} MiB, round ${round + 1}`)
        const times = roundsFor(size, rounds)
        own.push(await askNode(process.execPath, size, times, 1))
        for (const [at, { before, file }] of scripted.entries()) others[at]!.push(await ask(file, before, size, times))
      }
      const mine = middle(own)
      const [first] = mine
      const shown = [
        ...mine.map((row) => [row, `Node ${process.versions.node}`] as const),
        ...scripted.flatMap(({ name }, at) => middle(others[at]!).map((row) => [row, name] as const))
      ].filter(([row]) => row.name !== "execa" && row.name !== "Effect's layer")
      for (const [row, name] of shown) rows.push([`${row.name} (${name}), ${size} MiB`, ...cells(row, first!)])
    }
    return {
      title: "Other runtimes",
      text:
        `As before, with Bun's and Deno's own way to start programs, each in hosts of its own: three hosts of each, in turn.
Neither tells how long its loop was busy. Medians, in ms, and what they are of child_process.`,
      columns: ["", ...columns],
      rows
    }
  }
}

export const nodes: Question = {
  name: "nodes",
  run: async ({ progress, rounds }) => {
    const versions = Runtimes.nodes()
    if (versions.length === 0) return undefined
    const answers: ReadonlyArray<Record<number, Array<ReadonlyArray<Row>>>> = versions.map(() => ({ 0: [], 512: [] }))
    for (let round = 0; round < 3; round++) {
      for (const [at, { file, name }] of versions.entries()) {
        progress(`${name}, round ${round + 1}`)
        for (const size of [0, 512]) {
          answers[at]![size]!.push(await askNode(file, size, Math.ceil(roundsFor(size, rounds) / 2), 1))
        }
      }
    }
    const rows = versions.flatMap(({ name }, at) => {
      const [none, loaded] = [middle(answers[at]![0]!), middle(answers[at]![512]!)]
      return none.map((row, which) => {
        const held = loaded[which]!
        const [first, firstHeld] = [none[0]!, loaded[0]!]
        return [
          `${row.name}, ${name}`,
          ms(row.ended),
          share(row.ended, first.ended),
          share(row.busy!, first.busy!),
          share(row.rate, first.rate),
          share(held.ended, firstHeld.ended),
          share(held.busy!, firstHeld.busy!),
          share(held.rate, firstHeld.rate)
        ]
      })
    })
    return {
      title: "Versions of Node",
      text:
        `The same launches under each version: until exit and end of output, in ms, and what that, the time that the loop was
busy and the launches per second are of the same version's child_process; then in a host with 512 MiB of buffers. Medians
of three hosts.`,
      columns: ["", "ended", "", "loop busy", "per second", "ended, 512 MiB", "loop busy", "per second"],
      rows
    }
  }
}
