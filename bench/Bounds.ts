/** What `--ci` holds a run against: far from what is normal, because a busy machine must not fail it. */

export interface Bound {
  /** The name of a figure; see `Table`. */
  readonly figure: string
  readonly atMost?: number
  readonly atLeast?: number
  /** Holds only for the engine that calls the system itself. */
  readonly native?: boolean
}

export const bounds: ReadonlyArray<Bound> = [
  { figure: "Treeline launch, loop busy / child_process", atMost: 1.2, native: true },
  { figure: "Treeline drop-in, loop busy / child_process", atMost: 1.2, native: true },
  { figure: "Treeline launch, 512 MiB, loop busy / child_process", atMost: 0.3, native: true },
  { figure: "one pipe, launch / child_process", atLeast: 0.7 },
  { figure: "one pipe, drop-in / Effect's layer", atLeast: 0.7 },
  { figure: "50 pipes, launch / child_process", atLeast: 0.4 },
  { figure: "pool ensure per s", atLeast: 200_000 }
]

/** Says for each bound that is broken by how much; a figure that is missing breaks its bound. */
export const broken = (
  figures: Readonly<Record<string, number>>,
  native: boolean,
  among: ReadonlyArray<Bound> = bounds
): ReadonlyArray<string> =>
  among.flatMap((bound) => {
    if (bound.native === true && !native) return []
    const value = figures[bound.figure] ?? Number.NaN
    const { atLeast = -Infinity, atMost = Infinity } = bound
    if (value >= atLeast && value <= atMost) return []
    const limit = bound.atMost === undefined ? `at least ${bound.atLeast}` : `at most ${bound.atMost}`
    return [`${bound.figure}: ${value.toFixed(2)}, but ${limit} is right`]
  })
