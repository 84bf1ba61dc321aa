/** Random numbers that are the same everywhere for the same seed. */

/** Mulberry32: numbers from 0 to 1, 1 not included. */
export const random = (seed: number): () => number => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** What generators draw. */
export class Draw {
  private readonly next: () => number

  constructor(seed: number) {
    this.next = random(seed)
  }

  /** A whole number from `min` to `max`, both included. */
  int(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1))
  }

  /** True with this probability. */
  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<A>(values: ReadonlyArray<A>): A {
    return values[this.int(0, values.length - 1)]!
  }

  /** One of the values, by weight. */
  weighted<A>(...values: ReadonlyArray<readonly [weight: number, value: A]>): A {
    let rest = this.next() * values.reduce((sum, [weight]) => sum + weight, 0)
    for (const [weight, value] of values) {
      rest -= weight
      if (rest < 0) return value
    }
    return values.at(-1)![1]
  }
}
