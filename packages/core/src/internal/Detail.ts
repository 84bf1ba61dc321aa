/** What an error of somebody else says to a person. */
import * as PlatformError from "effect/PlatformError"

const causeOf = (error: object): string | undefined =>
  "cause" in error && error.cause instanceof Error ? error.cause.message : undefined

/**
 * The system's own words where there are any (`ENOSPC: no space left on device, write`), because Effect has no name for
 * most errors; of another error its words and those of its cause (`fetch failed: connect ECONNREFUSED`).
 */
export const of = (error: { readonly message: string }): string => {
  if (error instanceof PlatformError.PlatformError) return causeOf(error.reason) ?? error.message
  const cause = causeOf(error)
  return cause === undefined ? error.message : `${error.message}: ${cause}`
}
