/** What hosts that have died have left in the way of a child. */
import * as Effect from "effect/Effect"
import { sweepOrphaned } from "./Guardian.ts"
import * as HostRecord from "./HostRecord.ts"
import { RemainsAttribution } from "./Membership.ts"
import * as ProcTable from "./ProcTable.ts"

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
    const found = HostRecord.ofDead().map((record) => {
      const { host, ledger: { kept, trees } } = record
      const groups = new Map([...trees.values()].filter(({ pid }) => pid > 1).map(({ pid, start }) => [pid, start]))
      const attribution = new RemainsAttribution({ host, groups, kept, only: undefined })
      return { record, pids: entries.filter((entry) => attribution.isMember(entry)).map(({ pid }) => pid) }
    }).filter(({ pids }) => pids.length > 0)
    const orphaned = found.map(({ record }) => record).filter(({ guarded }) => !guarded)
    const problems = orphaned.length === 0 ? [] : yield* Effect.promise(() => sweepOrphaned(orphaned, grace))
    for (const problem of problems) yield* Effect.logWarning(problem)
    return [...new Set(found.flatMap(({ pids }) => pids))]
  })
