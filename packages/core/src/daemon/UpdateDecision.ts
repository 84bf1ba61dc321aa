/** What an updater does, and when: decisions without effects. */
import type { Phase } from "./UpdateRecord.ts"

/** What a pass has found. */
export interface Found {
  /** The version that is current. */
  readonly current: string | null
  /** The version that was fetched, and what its program answers to `--version`. */
  readonly staged: string
  readonly version: string
  /** It was tried before and did not hold. */
  readonly rejected: boolean
  /** The daemon that runs; `id` is the version that it is of, where that is known. */
  readonly running: { readonly id: string | null; readonly version: string } | null
}

/** `Restart`: what is current already; `Switch`: no daemon runs, so none is started. */
export type Step = "NothingNew" | "Rejected" | "Restart" | "Switch" | "SwitchAndRestart"

/**
 * What to do with what was fetched. Content decides: with other content the daemon is always restarted, even when the
 * version is the same (seed C15); with the same content only when the daemon that runs is of another version (C14). One
 * that does not run is not started.
 */
export const decide = ({ current, rejected, running, staged, version }: Found): Step => {
  if (staged !== current) {
    if (rejected) return "Rejected"
    return running === null ? "Switch" : "SwitchAndRestart"
  }
  if (running === null) return "NothingNew"
  const same = running.id === null ? running.version === version : running.id === staged
  return same ? "NothingNew" : "Restart"
}

/**
 * Whether an updater puts its new version in its own place: after a restart that was found to hold, and when it is of the
 * install and not of its current version (seeds C10, C11). A pass that was busy, found nothing, or found no daemon running
 * changes nothing about it.
 */
export const replacesItself = (
  outcome: { readonly restarted: boolean; readonly current: string | null },
  own: string | null
): boolean => outcome.restarted && own !== null && outcome.current !== null && outcome.current !== own

/**
 * What is left to do after a death.
 *
 * - `Forget`: nothing had been changed.
 * - `Keep`: the switch was made; nothing may be started, or nothing has to be.
 * - `Forward`: the daemon has to run as `to`, which is to be validated; else the way back.
 * - `Unlink`: somebody has stopped it before `to` was found to hold; `from` becomes current, and nothing is started.
 * - `Back`: to `from`.
 */
export type Recovery = "Nothing" | "Forget" | "Keep" | "Unlink" | "Forward" | "Back"

/** How often it is tried to go on forward: what kills the updater each time is not tried for ever. */
export const forwardTries = 3

/** From the record and the version that is current now. */
export const recovery = (
  record: {
    readonly phase: Phase
    readonly from: string | null
    readonly to: string | null
    readonly running: boolean
    readonly stopped: boolean
    readonly recoveries: number
  },
  current: string | null
): Recovery => {
  switch (record.phase) {
    case "done":
      return "Nothing"
    case "fetching":
    case "pausing":
      return "Forget"
    case "rollingBack":
      return "Back"
    case "switching":
    case "restarting":
    case "validating":
      if (record.to === null || current !== record.to) return "Forget"
      if (record.stopped) return record.from === null ? "Keep" : "Unlink"
      if (!record.running) return "Keep"
      return record.recoveries >= forwardTries ? "Back" : "Forward"
  }
}

/** When passes are made; ms, validated. */
export interface Timing {
  /** Before the first pass. */
  readonly first: number
  readonly interval: number
  /** The part of each time by which it may differ, from 0 to 1: many machines do not ask at the same moment. */
  readonly jitter: number
  /** After a failure; twice as long after each further one, at most `backoffCap`. */
  readonly backoff: number
  readonly backoffCap: number
}

/** The pause before the next pass, in ms. `random` is from 0 to 1. */
export const pause = (timing: Timing, passes: number, failures: number, random: number): number => {
  const base = failures > 0
    ? Math.min(timing.backoffCap, timing.backoff * 2 ** Math.min(failures - 1, 32))
    : passes === 0
    ? timing.first
    : timing.interval
  return Math.round(base * (1 + timing.jitter * (2 * random - 1)))
}
