import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { ms, type Question } from "../Report.ts"

interface Row {
  readonly name: string
  readonly running: number
  readonly ended: number
  readonly busy: number
  readonly rate: number
}

const program = fileURLToPath(new URL("../loaded.ts", import.meta.url))

const share = (value: number, of: number): string => `${(value / of).toFixed(2)} x`

const sizes = [0, 512, 2048]

export const memory: Question = {
  name: "memory",
  run: async ({ progress, rounds }) => {
    const rows: Array<ReadonlyArray<string>> = []
    for (const size of sizes) {
      progress(`memory ${size} MiB`)
      const args = ["--conditions=source", program, String(size), String(rounds * (size === 0 ? 10 : 3))]
      const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 1 << 20 })
      const answers = JSON.parse(stdout) as ReadonlyArray<Row>
      const [first] = answers
      for (const answer of answers) {
        rows.push([
          `${answer.name}, ${size} MiB`,
          ms(answer.running),
          share(answer.running, first!.running),
          ms(answer.ended),
          share(answer.ended, first!.ended),
          ms(answer.busy),
          share(answer.busy, first!.busy),
          answer.rate.toFixed(0),
          share(answer.rate, first!.rate)
        ])
      }
    }
    return {
      title: "Launching from a host that holds buffers",
      text:
        `A host with 0, 512 and 2,048 MiB of buffers launches \`true\` with all output read: until it runs; until exit and
end of output; how long the event loop was busy; and launches per second, 16 at a time. Medians, in ms, and what they are
of child_process.`,
      columns: ["", "running", "", "ended", "", "loop busy", "", "per second", ""],
      rows
    }
  }
}
