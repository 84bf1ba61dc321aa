import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { median, ms, type Question } from "../Report.ts"

interface Answer {
  readonly started: number
  readonly heap: number
  readonly resident: number
  readonly closed: number
  readonly stall: number
}

const program = fileURLToPath(new URL("../live.ts", import.meta.url))

const counts = [1, 100, 300, 1000]

export const live: Question = {
  name: "live",
  run: async ({ progress }) => {
    const rows: Array<ReadonlyArray<string>> = []
    for (const count of counts) {
      progress(`live ${count}`)
      const answers: Array<Answer> = []
      for (let round = 0; round < 3; round++) {
        const { stdout } = await promisify(execFile)(process.execPath, ["--conditions=source", program, String(count)])
        answers.push(JSON.parse(stdout) as Answer)
      }
      const of = (key: keyof Answer) => median(answers.map((answer) => answer[key]))
      rows.push([
        String(count),
        ms(of("started")),
        count < 100 ? "-" : of("heap").toFixed(1),
        count < 100 ? "-" : of("resident").toFixed(1),
        ms(of("closed")),
        ms(of("stall"))
      ])
    }
    return {
      title: "Many live children (Treeline)",
      text:
        `Children with three pipes each, in one scope: starting them all one after another, what each costs the host in KiB
(JavaScript heap, and resident without V8's young generation, both after a collection), closing the scope (they obey
SIGTERM), and the longest time that the event loop stood still meanwhile. Medians of three hosts, in ms.`,
      columns: ["children", "start", "heap each", "resident each", "close", "stall"],
      rows
    }
  }
}
