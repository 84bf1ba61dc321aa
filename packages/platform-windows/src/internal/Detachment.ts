/** Whether what this process starts can outlive it: a job that it is in may end all of its processes when it is closed. */
import * as Kernel32 from "./Kernel32.ts"
import * as Structs from "./Structs.ts"

/** The flags of the nearest job that this process is in, undefined without one; or why they can't be told. */
export type Surroundings =
  | { readonly _tag: "NoJob" }
  | { readonly _tag: "Job"; readonly flags: number }
  | { readonly _tag: "Unknown"; readonly code: number }

/** `breaksAway`: it has to be asked for. `refused`: with what a person reads. */
export type Detachment =
  | { readonly _tag: "Plain" }
  | { readonly _tag: "BreaksAway" }
  | { readonly _tag: "Refused"; readonly reason: string }

const plain: Detachment = { _tag: "Plain" }

const instead =
  "start it from a terminal outside of that job, or let the system start it: treeline daemon install --manager windows"

/**
 * What to do there ("Job Objects", JOBOBJECT_BASIC_LIMIT_INFORMATION). A job that lets its processes break away is asked
 * for it. One that does not, and ends them with its last handle, would end the new one too. One that does neither is no
 * danger: it is only left over.
 */
export const decide = (surroundings: Surroundings): Detachment => {
  switch (surroundings._tag) {
    case "NoJob":
      return plain
    case "Unknown":
      return {
        _tag: "Refused",
        reason: `the system does not tell what becomes of processes in its job (error ${surroundings.code}): ${instead}`
      }
    case "Job": {
      const { flags } = surroundings
      if ((flags & Structs.LIMIT_BREAKAWAY_OK) !== 0) return { _tag: "BreaksAway" }
      // The system does it by itself.
      if ((flags & Structs.LIMIT_SILENT_BREAKAWAY_OK) !== 0) return plain
      return (flags & Structs.LIMIT_KILL_ON_JOB_CLOSE) === 0
        ? plain
        : { _tag: "Refused", reason: `its job ends all processes that are in it and lets none out: ${instead}` }
    }
  }
}

/** Asks the system. */
export const look = (kernel: Kernel32.Kernel32): Surroundings => {
  const word = new Uint32Array(1)
  // Without a job it is about any.
  if (kernel.IsProcessInJob(kernel.GetCurrentProcess(), 0, word) === 0) {
    return { _tag: "Unknown", code: kernel.lastError() }
  }
  if (word[0] === 0) return { _tag: "NoJob" }
  const info = Buffer.alloc(Structs.extendedLimitsSize)
  return kernel.QueryInformationJobObject(0, Kernel32.JobExtendedLimits, info, info.length, null) === 0
    ? { _tag: "Unknown", code: kernel.lastError() }
    : { _tag: "Job", flags: Structs.readExtendedLimits(info).flags }
}
