/** Chance that can be had again: a failing test says its seed, and TREELINE_SEED sets it. */

import * as Seed from "../../packages/core/src/testing/internal/Seed.ts"

/** The seed of this run. */
export const seed = Number(process.env["TREELINE_SEED"] ?? Math.floor(Math.random() * 2 ** 32))

/** Numbers in [0, 1) that follow from the seed. */
export const make = (from = seed): () => number => Seed.random(from)

/** The same items in another order. */
export const shuffle = <A>(items: ReadonlyArray<A>, random: () => number): ReadonlyArray<A> =>
  items.map((item) => ({ item, key: random() })).sort((a, b) => a.key - b.key).map(({ item }) => item)
