/** Chance that can be had again: a failing test says its seed, and TREELINE_SEED sets it. */

/** The seed of this run. */
export const seed = Number(process.env["TREELINE_SEED"] ?? Math.floor(Math.random() * 2 ** 32))

/** Numbers in [0, 1) that follow from the seed (mulberry32). */
export const make = (from = seed): () => number => {
  let state = from >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** The same items in another order. */
export const shuffle = <A>(items: ReadonlyArray<A>, random: () => number): ReadonlyArray<A> =>
  items.map((item) => ({ item, key: random() })).sort((a, b) => a.key - b.key).map(({ item }) => item)
