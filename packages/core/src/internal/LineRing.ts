/** The last entries of one log, in bounded memory. */

/** What has a place among all entries. */
interface Ordered {
  readonly order: number
}

/** What an entry weighs beside its text, in bytes. */
const overhead = 96

/** Entries that are gone are given back in blocks of this many. */
const block = 1024

interface Slot<A> {
  readonly entry: A
  readonly bytes: number
}

export class LineRing<A extends Ordered> {
  private readonly limit: number
  private slots: Array<Slot<A> | undefined> = []
  /** Of the oldest one in `slots`. */
  private head = 0
  /** Index of the oldest entry that is kept; the first ever was 0. */
  first = 0
  /** Index of the entry that comes next. */
  end = 0
  bytes = 0
  /** The order of the newest entry that is not kept any more. */
  droppedUpTo = 0

  /** `limit` in bytes; the newest entry is kept whatever it weighs. */
  constructor(limit: number) {
    this.limit = limit
  }

  /** `length`: of its text, in characters. */
  push(entry: A, length: number): void {
    const bytes = overhead + length * 2
    this.slots.push({ entry, bytes })
    this.end++
    this.bytes += bytes
    while (this.bytes > this.limit && this.first < this.end - 1) this.drop()
  }

  private drop(): void {
    const slot = this.slots[this.head]!
    this.slots[this.head] = undefined
    this.head++
    this.first++
    this.bytes -= slot.bytes
    this.droppedUpTo = slot.entry.order
    if (this.head >= block && this.head * 2 >= this.slots.length) {
      this.slots = this.slots.slice(this.head)
      this.head = 0
    }
  }

  /** An entry that is kept. */
  at(index: number): A {
    return this.slots[this.head + index - this.first]!.entry
  }

  /** The index of the first entry that is kept and comes after `order`. */
  after(order: number): number {
    let low = this.first
    let high = this.end
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      if (this.at(middle).order > order) high = middle
      else low = middle + 1
    }
    return low
  }

  /** The orders of the last `count` entries at most. */
  lastOrders(count: number): Array<number> {
    const out: Array<number> = []
    for (let index = Math.max(this.first, this.end - Math.max(0, Math.trunc(count))); index < this.end; index++) {
      out.push(this.at(index).order)
    }
    return out
  }
}
