/**
 * Kills its host at a deadline. A program of its own, run by PosixWatchdog; it imports nothing but Node.
 *
 * It reads deadlines from its standard input, whose other end only the host holds: a line with ms of the monotonic clock,
 * which is the same for all processes of a machine, or `-` for none. End of file means that the host has gone.
 *
 * Arguments: pid and start time of the host.
 */
import * as ProcTable from "./internal/ProcTable.ts"
import * as PsTable from "./internal/PsTable.ts"

const [pid, start] = process.argv.slice(2, 4).map(Number) as [number, number]

/** The host itself, and not a process that has got its number. */
const isHost = (): boolean =>
  ProcTable.isAvailable()
    ? ProcTable.stillLives({ pid, start })
    : PsTable.readSync().some((entry) => entry.pid === pid && entry.alive && entry.start <= start + 2)

/** The longest time that a timer of Node takes. */
const longest = 2 ** 31 - 1

let timer: NodeJS.Timeout | undefined = undefined

const set = (deadline: number): void => {
  clearTimeout(timer)
  const left = deadline - Number(process.hrtime.bigint() / 1_000_000n)
  timer = left > 0 ? setTimeout(() => set(deadline), Math.min(left, longest)) : undefined
  if (left > 0 || !isHost()) return
  console.error(`treeline: the host ${pid} has not moved its deadline in time and is killed`)
  process.kill(pid, "SIGKILL")
}

// A terminal's signals are the host's business.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP"] as const) process.on(signal, () => {})

let partial = ""
process.stdin.setEncoding("utf8")
process.stdin.on("data", (text: string) => {
  const lines = (partial + text).split("\n")
  partial = lines.pop()!
  const latest = lines.at(-1)
  if (latest === undefined) return
  if (latest === "-") clearTimeout(timer)
  else set(Number(latest))
})
process.stdin.on("end", () => process.exit(0))
process.stdout.write("ready\n")
