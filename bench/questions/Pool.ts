import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { interleaved, median, type Question, ratio } from "../Report.ts"

const program = fileURLToPath(new URL("../pool.ts", import.meta.url))

const thousands = (value: number): string => (value / 1000).toFixed(0)

export const pool: Question = {
  name: "pool",
  run: async ({ progress }) => {
    progress("pool")
    const [answers] = await interleaved(3, [program], async (program) => {
      const { stdout } = await promisify(execFile)(process.execPath, ["--conditions=source", program])
      return JSON.parse(stdout) as Record<string, number>
    })
    const of = (name: string) => median(answers!.map((answer) => answer[name] ?? Number.NaN))
    const row = (what: string, name: string, against: string) => [
      what,
      thousands(of(name)),
      against === "" ? "-" : ratio(of(name), of(against))
    ]
    return {
      title: "Asking for a key that is there (Treeline and RcMap)",
      text:
        `A pool and Effect's RcMap with 1,000 keys that are there, asked for one after another by one fiber: thousands
per second, and how many times as many as RcMap. RcMap.get takes a scope, as a lease does; an ensure takes none. A look-up
of a token reads all 1,000 tokens, whichever is asked for. Medians of three hosts.`,
      columns: ["operation", "1,000 per s", "of RcMap"],
      rows: [
        row("RcMap.get in a scope", "get", ""),
        row("pool.ensure", "ensure", "get"),
        row("pool.lease in a scope", "lease", "get"),
        row("pool.use", "use", "get"),
        row("RcMap.touch", "mapTouch", ""),
        row("pool.touch", "touch", "mapTouch"),
        row("pool.lookupToken", "lookup", "")
      ],
      figures: { "pool ensure per s": of("ensure") }
    }
  }
}
