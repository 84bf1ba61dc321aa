import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { median, ms, type Question } from "../Report.ts"

interface Answer {
  readonly started: number
  readonly restarted: number
  readonly stopped: number
  readonly each: number
}

const program = fileURLToPath(new URL("../supervised.ts", import.meta.url))

const counts = [500, 1000, 5000]

export const supervision: Question = {
  name: "supervision",
  run: async ({ progress }) => {
    const rows: Array<ReadonlyArray<string>> = []
    for (const count of counts) {
      progress(`supervision ${count}`)
      const answers: Array<Answer> = []
      for (let round = 0; round < 3; round++) {
        const { stdout } = await promisify(execFile)(process.execPath, ["--conditions=source", program, String(count)])
        answers.push(JSON.parse(stdout) as Answer)
      }
      const of = (key: keyof Answer) => median(answers.map((answer) => answer[key]))
      const total = of("started") + of("restarted") + of("stopped")
      rows.push([
        String(count),
        ms(of("started")),
        ms(of("restarted")),
        ms(of("stopped")),
        ms(total / count),
        of("each").toFixed(1)
      ])
    }
    return {
      title: "Many children under one supervisor (Treeline)",
      text:
        `Children on the simulated system, so that only supervision is measured, and the simulation itself: starting them
all until they are ready; all crash at once, until they are restarted and ready; stopping them all; and all of it for one
child. CPU time of the host in ms, then what a child costs in heap (KiB, its simulated process included). Medians of
three hosts.`,
      columns: ["children", "start", "crash, restart", "stop", "ms each", "KiB each"],
      rows
    }
  }
}
