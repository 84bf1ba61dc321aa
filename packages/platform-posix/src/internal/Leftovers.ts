/** What hosts that have died have left in the way of a child. */
import * as Effect from "effect/Effect"
import type { Entry } from "./Entry.ts"
import { sweepOrphaned } from "./Guardian.ts"
import * as HostRecord from "./HostRecord.ts"
import { isGuardian, RemainsAttribution } from "./Membership.ts"
import * as ProcTable from "./ProcTable.ts"
import * as Tag from "./Tag.ts"
import type { TagHost } from "./Tag.ts"

const attributionOf = ({ host, ledger: { kept, leaders } }: HostRecord.Dead): RemainsAttribution =>
  new RemainsAttribution({
    host,
    groups: leaders,
    holderOf: (leader) => ProcTable.readStat(leader)?.start,
    goneLeadersCount: false,
    tolerance: 0,
    kept,
    only: undefined
  })

/**
 * See `Engine.leftoversOf`. The guardian is known by its tag, also where the record is not found because this process has
 * another folder for temporary files; what else is left, by the record only, which says what lives on by intention.
 */
export const of = (host: TagHost): ReadonlyArray<Entry> => {
  if (ProcTable.stillLives(host)) return []
  const dead = HostRecord.ofDead().find((dead) => dead.host.pid === host.pid && dead.host.start === host.start)
  const attribution = dead && attributionOf(dead)
  const guards = (entry: Entry): boolean =>
    (isGuardian(entry) && entry.tag !== undefined && Tag.isOf(entry.tag, host)) ||
    dead?.ledger.guardians.some(({ pid, start }) => entry.pid === pid && entry.start === start) === true
  const found: Array<Entry> = []
  ProcTable.scan({ since: host.start, foreign: new Set() }, (entry) => {
    if (entry.alive && (guards(entry) || attribution?.isMember(entry) === true)) found.push(entry)
    return true
  })
  return found
}

/** What the processes of a dead host have between SIGTERM and SIGKILL, in ms. */
const grace = 500

/**
 * See `Engine.endLeftovers`. Only a host with a record counts: its mark and the start times in the record say that a
 * process is of one of its trees, and the record says which trees live on by intention. While its guardian lives, that one
 * ends them.
 */
export const end = (pids: ReadonlyArray<number>): Effect.Effect<ReadonlyArray<number>> =>
  Effect.gen(function*() {
    const entries = pids.flatMap((pid) => ProcTable.find(pid) ?? [])
    const found = HostRecord.ofDead().map((dead) => {
      const attribution = attributionOf(dead)
      return { dead, pids: entries.filter((entry) => attribution.isMember(entry)).map(({ pid }) => pid) }
    }).filter(({ pids }) => pids.length > 0)
    const orphaned = found.map(({ dead }) => dead).filter(({ guarded }) => !guarded)
    const problems = orphaned.length === 0 ? [] : yield* Effect.promise(() => sweepOrphaned(orphaned, grace))
    for (const problem of problems) yield* Effect.logWarning(problem)
    return [...new Set(found.flatMap(({ pids }) => pids))]
  })
