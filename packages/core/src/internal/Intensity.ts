/** How often children are restarted, over a sliding window on a monotonic clock. Pure. */

export interface Intensity {
  readonly max: number
  /** ms. */
  readonly within: number
}

/** The window after one more restart at `now` (monotonic ms); a restart exactly `within` ms ago still counts, as in OTP. */
export const add = (restarts: ReadonlyArray<number>, now: number, { within }: Intensity): ReadonlyArray<number> => [
  ...restarts.filter((at) => now - at <= within),
  now
]

export const isExceeded = (restarts: ReadonlyArray<number>, { max }: Intensity): boolean => restarts.length > max
