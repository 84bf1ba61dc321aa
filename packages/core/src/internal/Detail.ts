/** What an error of the platform says to a person. */
import type * as PlatformError from "effect/PlatformError"

/** The system's own words where there are any (`ENOSPC: no space left on device, write`): Effect's have no code for most. */
export const of = (error: PlatformError.PlatformError): string => {
  const cause = "cause" in error.reason ? error.reason.cause : undefined
  return cause instanceof Error ? cause.message : error.message
}
