/** What share of a processor each service uses, from snapshots that follow each other. */
import type { HostStatus, ServiceStatus } from "@treeline/core/daemon/HostStatus"
import type * as Screen from "./Screen.ts"

/** `cpu` (ms) as it was seen first at `at`, and the share of a processor before that. */
interface Sample {
  readonly incarnation: number
  readonly cpu: number
  readonly at: number
  readonly share: number | undefined
}

export type Samples = ReadonlyMap<string, Sample>

/** A figure that did not change for so long is no old measurement: nothing is used. In ms. */
const stale = 2500

const sampleOf = (before: Sample | undefined, { child, usage }: ServiceStatus, at: number): Sample | undefined => {
  if (usage === null) return undefined
  const { incarnation } = child
  const { cpu } = usage
  // Processes that have ended may take their figures with them.
  if (before === undefined || before.incarnation !== incarnation || cpu < before.cpu) {
    return { incarnation, cpu, at, share: undefined }
  }
  if (cpu === before.cpu) return at - before.at < stale || before.share === 0 ? before : { ...before, at, share: 0 }
  return at === before.at ? before : { incarnation, cpu, at, share: (cpu - before.cpu) / (at - before.at) }
}

/** Takes the next snapshot into account. */
export const sample = (before: Samples, { at, services }: HostStatus): Samples =>
  new Map(
    services.flatMap((service) => {
      const next = sampleOf(before.get(service.name), service, at)
      return next === undefined ? [] : [[service.name, next] as const]
    })
  )

/** As a column: `12%`, more than 100% for more than one processor. */
export const column = (samples: Samples): Screen.Processor => ({
  title: "CPU",
  text: ({ name }) => {
    const share = samples.get(name)?.share
    return share === undefined ? "" : `${Math.round(share * 100)}%`
  }
})
