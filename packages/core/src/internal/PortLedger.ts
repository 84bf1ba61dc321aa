/** Which ports were given to children, so that no two get the same, and none gets one that was another's just now. */
import * as Context from "effect/Context"
import type { PortRange } from "../Network.ts"

export class PortLedger {
  /** Until when a port rests: monotonic ms; without an end while it is in use. */
  private readonly until = new Map<number, number>()

  isFree(port: number, now: number): boolean {
    const until = this.until.get(port)
    if (until === undefined) return true
    if (until > now) return false
    this.until.delete(port)
    return true
  }

  take(port: number): void {
    this.until.set(port, Number.POSITIVE_INFINITY)
  }

  rest(port: number, until: number): void {
    this.until.set(port, until)
  }

  /** It was taken, and not given to anybody. */
  putBack(port: number): void {
    this.until.delete(port)
  }
}

/** One for the whole process: ports belong to the machine, whoever gives them. */
export const CurrentLedger = Context.Reference<PortLedger>("@treeline/core/PortLedger", {
  defaultValue: () => new PortLedger()
})

const lastPort = 65_535

/** Ports up to here are for the system's own services. */
const lastSystemPort = 1023

/** Fewer are not worth a range of their own. */
const enough = 1000

/** How many ports below the ephemeral ones are used. */
const share = 8192

/** What the IANA has for outgoing connections (RFC 6335, 6). */
const dynamic: PortRange = { first: 49_152, last: lastPort }

/**
 * Where to look for a port that no outgoing connection can take between the finding and the child's own binding: above
 * the ephemeral ports (Linux leaves 61,000 to 65,535) or else right below. Undefined where the system uses all.
 */
export const quietRange = (ephemeral: PortRange = dynamic): PortRange | undefined => {
  if (lastPort - ephemeral.last >= enough) return { first: ephemeral.last + 1, last: lastPort }
  const first = Math.max(lastSystemPort + 1, ephemeral.first - share)
  return ephemeral.first - first >= enough ? { first, last: ephemeral.first - 1 } : undefined
}

/** The ports of a range once around from one of them, without those that rest or are in use. */
export function* candidates(
  ledger: PortLedger,
  { first, last }: PortRange,
  start: number,
  now: number
): Generator<number> {
  const size = last - first + 1
  for (let step = 0; step < size; step++) {
    const port = first + (start + step) % size
    if (ledger.isFree(port, now)) yield port
  }
}
