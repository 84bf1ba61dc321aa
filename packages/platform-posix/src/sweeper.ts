/**
 * Ends what a dead host has left, then exits. A program of its own, run by the guardian or by the next host; it imports
 * nothing but Node, so that it starts fast.
 *
 * Arguments: pid and start time of the host, grace in ms, path of the host's record or `-`.
 */
import * as fs from "node:fs"
import type { Entry } from "./internal/Entry.ts"
import * as Ledger from "./internal/Ledger.ts"
import { RemainsAttribution } from "./internal/Membership.ts"
import * as ProcTable from "./internal/ProcTable.ts"
import * as PsTable from "./internal/PsTable.ts"
import { sendTo } from "./internal/Signals.ts"
import { removeGroups } from "./linux/ControlGroups.ts"

const [hostPid, hostStart, grace] = process.argv.slice(2, 5).map(Number) as [number, number, number]
const record = process.argv[5]

const sleep = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
const now = (): number => performance.now()
const useProc = ProcTable.isAvailable()

const ledger = Ledger.parse(
  record === undefined || record === "-" ? "" : (() => {
    try {
      return fs.readFileSync(record, "utf8")
    } catch {
      return ""
    }
  })()
)

/** The descriptors of a dying process are closed before it is gone, so it may be seen for a moment. */
const hostLives = (): boolean => {
  if (!useProc) {
    return PsTable.readSync().some((entry) => entry.pid === hostPid && entry.alive && entry.start <= hostStart + 2)
  }
  for (let waited = 0; waited < 300; waited += 10) {
    const stat = ProcTable.readStat(hostPid)
    if (stat === undefined || stat.start !== hostStart || !ProcTable.isAlive(stat)) return false
    sleep(10)
  }
  return true
}

const groups = new Map([...ledger.trees.values()].filter(({ pid }) => pid > 1).map(({ pid, start }) => [pid, start]))
const attribution = new RemainsAttribution({
  host: { pid: hostPid, start: hostStart },
  groups,
  kept: ledger.kept,
  only: hostLives() ? new Set(ledger.trees.keys()) : undefined
})

let foreign = new Set<number>()
let foreignSince = now()

/** Calls `found` for each living member at once; returns whether the pass shows that there is none. */
const pass = (found: (entry: Entry) => void): boolean => {
  // Pids come round in time; what was nobody's may be somebody's then.
  if (now() - foreignSince > 500) {
    foreign = new Set()
    foreignSince = now()
  }
  let living = 0
  const visit = (entry: Entry): boolean => {
    if (entry.pid === process.pid || !attribution.isMember(entry)) return false
    if (entry.alive) {
      living++
      found(entry)
    }
    return true
  }
  const vanished = useProc
    ? ProcTable.scan({ since: hostStart, foreign }, visit)
    : PsTable.readSync().filter(visit).length < 0
  return living === 0 && !vanished
}

/** Passes in a row that found nothing and the time they must span before the tree counts as gone. */
const quietPasses = useProc ? 25 : 2
const quietMs = 60
const capMs = 10_000

const asked = new Set<string>()
const ask = (entry: Entry): void => {
  const key = `${entry.pid}.${entry.start}`
  if (asked.has(key)) return
  asked.add(key)
  // The guardian has already asked the groups that it knows.
  if (groups.has(entry.group)) return
  sendTo(entry.pid, "SIGTERM")
  sendTo(entry.pid, "SIGCONT")
}

const graceEnds = now() + grace
let quiet = 0
while (now() < graceEnds && quiet < 2) {
  quiet = pass(ask) ? quiet + 1 : 0
  if (quiet < 2) sleep(Math.min(10, Math.max(1, graceEnds - now())))
}

const capEnds = now() + capMs
let passes = 0
let quietSince = now()
while (now() < capEnds && (passes < quietPasses || now() - quietSince < quietMs)) {
  if (pass((entry) => void sendTo(entry.pid, "SIGKILL"))) {
    passes++
    if (passes > 3) sleep(2)
  } else {
    passes = 0
    quietSince = now()
  }
}
// Whoever has shaken off everything else is still in the control group of its tree.
if (ledger.groups !== undefined) removeGroups(ledger.groups, (tree) => attribution.ends(tree))
if (record !== undefined && record !== "-") fs.rmSync(record, { force: true })
