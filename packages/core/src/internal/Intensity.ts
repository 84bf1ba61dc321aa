/** How often children are restarted, over a sliding window on a monotonic clock. Pure. */

export interface Intensity {
  readonly max: number
  /** ms. */
  readonly within: number
}

/** The restarts that count at `now` (monotonic ms); one exactly `within` ms ago still does, as in OTP. */
export const inWindow = (restarts: ReadonlyArray<number>, now: number, { within }: Intensity): ReadonlyArray<number> =>
  restarts.filter((at) => now - at <= within)

/** The same after one more restart at `now`. */
export const add = (restarts: ReadonlyArray<number>, now: number, intensity: Intensity): ReadonlyArray<number> => [
  ...inWindow(restarts, now, intensity),
  now
]

export const isExceeded = (restarts: ReadonlyArray<number>, { max }: Intensity): boolean => restarts.length > max
