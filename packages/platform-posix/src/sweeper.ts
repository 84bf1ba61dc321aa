/**
 * Ends what a dead host has left, then exits. A program of its own, run by the guardian or by the next host; it imports
 * nothing but Node, so that it starts fast.
 *
 * Arguments: pid and start time of the host, grace in ms, path of a record of the host or `-`, and `told` where the
 * guardian gives its ledger by the standard input: there may be no record, or one that a full disk has cut short.
 */
import * as fs from "node:fs"
import type { Entry } from "./internal/Entry.ts"
import * as HostRecord from "./internal/HostRecord.ts"
import * as Ledger from "./internal/Ledger.ts"
import { RemainsAttribution } from "./internal/Membership.ts"
import * as ProcTable from "./internal/ProcTable.ts"
import * as PsTable from "./internal/PsTable.ts"
import { exists, sendTo } from "./internal/Signals.ts"
import { removeGroups } from "./linux/ControlGroups.ts"

const [hostPid, hostStart, grace] = process.argv.slice(2, 5).map(Number) as [number, number, number]
const record = process.argv[5] === "-" ? undefined : process.argv[5]
const told = process.argv[6] === "told"

const sleep = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
const now = (): number => performance.now()
const useProc = ProcTable.isAvailable()

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

const hostAlive = hostLives()

/** Of the platform that has ended, and of the others in its host: each has a record and a guardian. */
const own = told ? Ledger.parse(fs.readFileSync(0, "utf8")) : record === undefined ? undefined : HostRecord.read(record)
const others = () => record === undefined ? [] : HostRecord.besides(record)
const ledgersOf = (files: ReadonlyArray<string>) => files.flatMap((file) => HostRecord.read(file) ?? [])
const ownPart = Ledger.together(own === undefined ? [] : [own])
const whole = Ledger.together([...(own === undefined ? [] : [own]), ...ledgersOf(others())])
/** What a Worker has left is its own part only, for the rest of its host lives. */
const { folders, leaders } = hostAlive ? ownPart : whole

/** Start times of all processes, where they come from `ps`. */
let listed = new Map<number, number>()
const attribution = new RemainsAttribution({
  host: { pid: hostPid, start: hostStart },
  groups: leaders,
  holderOf: (leader) => useProc ? ProcTable.readStat(leader)?.start : listed.get(leader),
  goneLeadersCount: told,
  tolerance: useProc ? 0 : 2,
  kept: whole.kept,
  only: hostAlive ? new Set(own?.trees.keys()) : undefined
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
  if (useProc) return !ProcTable.scan({ since: hostStart, foreign }, visit) && living === 0
  const entries = PsTable.readSync()
  listed = new Map(entries.map(({ pid, start }) => [pid, start]))
  entries.forEach(visit)
  return living === 0
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
  if (told && ownPart.leaders.has(entry.group)) return
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
for (const folder of folders) removeGroups(folder, (tree) => attribution.ends(tree))

// What was kept is for the other sweepers of this host to know, so the record stays until the last of them.
const guards = (guardian: Ledger.Leader) => useProc ? ProcTable.stillLives(guardian) : exists(guardian.pid)
const rest = others()
const isLast = !hostAlive && !Ledger.together(ledgersOf(rest)).guardians.some(guards)
if (record !== undefined && (isLast || ownPart.kept.size === 0)) fs.rmSync(record, { force: true })
if (isLast) {
  for (const file of rest) fs.rmSync(file, { force: true })
}
