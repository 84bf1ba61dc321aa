/** What the example prints: one line for each event. */
import type { PoolStatus } from "@treeline/core"
import { line } from "../Lines.ts"

export { action, begin, heading, left } from "../Lines.ts"

const reasons: Readonly<Record<string, string>> = {
  idle: "nobody has used it for a while",
  ended: "it has ended by itself",
  closed: "the pool closes"
}

/** Tells what has happened to a tenant. */
export const event = ({ at, change, key }: PoolStatus.PoolEvent): void => {
  if (change._tag !== "State") return line(at, key, change.problem, "red")
  const { from, to } = change
  switch (to._tag) {
    case "Building":
      if (to.step === "restore") line(at, key, `is wanted: incarnation ${to.incarnation}`)
      return
    case "Live":
      return line(at, key, `is up, pid ${to.pid}`, "green")
    case "Retiring":
      return line(at, key, `goes down: ${reasons[to.reason] ?? to.reason}`, "yellow")
    case "Absent":
      if (from._tag === "Retiring") line(at, key, "is gone, and its directory is an archive", "dim")
      return
    default:
      return line(at, key, to._tag)
  }
}
