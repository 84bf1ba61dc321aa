/** A pipe with a finite buffer: who writes waits while it is full, who reads waits while it is empty. */

/** Writes of at most this many bytes are not split (`pipe(7)`, PIPE_BUF). */
const atomicBytes = 4096

const newline = 10

export class Pipe {
  /** Descriptors that are open at either end, the host's included. */
  readers = 0
  writers = 0
  size = 0
  private chunks: Array<Uint8Array> = []
  private readonly waiting = new Set<() => void>()
  /** The host's ends, told of every change. */
  onReadable: (() => void) | undefined = undefined
  onWritable: (() => void) | undefined = undefined
  readonly capacity: number

  constructor(capacity: number) {
    this.capacity = capacity
  }

  /** Wakes at the next change, once. */
  wait(wake: () => void): void {
    this.waiting.add(wake)
  }

  private changed(): void {
    if (this.waiting.size > 0) {
      const woken = [...this.waiting]
      this.waiting.clear()
      for (const wake of woken) wake()
    }
    this.onReadable?.()
    this.onWritable?.()
  }

  /** Takes what fits of `bytes` and returns how much that was. The bytes must not change afterwards. */
  write(bytes: Uint8Array): number {
    const room = this.capacity - this.size
    if (bytes.length > room && bytes.length <= Math.min(atomicBytes, this.capacity)) return 0
    const taken = Math.min(room, bytes.length)
    if (taken === 0) return 0
    this.chunks.push(taken === bytes.length ? bytes : bytes.subarray(0, taken))
    this.size += taken
    this.changed()
    return taken
  }

  /** Gives all that waits. */
  read(): Uint8Array {
    const { chunks, size } = this
    this.chunks = []
    this.size = 0
    this.changed()
    if (chunks.length === 1) return chunks[0]!
    const all = new Uint8Array(size)
    let offset = 0
    for (const chunk of chunks) {
      all.set(chunk, offset)
      offset += chunk.length
    }
    return all
  }

  /** Takes up to the end of a line; true when that end was found. */
  readLine(): boolean {
    let found = false
    while (this.chunks.length > 0 && !found) {
      const chunk = this.chunks[0]!
      const end = chunk.indexOf(newline)
      found = end >= 0
      if (found && end + 1 < chunk.length) this.chunks[0] = chunk.subarray(end + 1)
      else this.chunks.shift()
      this.size -= found ? end + 1 : chunk.length
    }
    this.changed()
    return found
  }

  closeReader(): void {
    this.readers--
    this.changed()
  }

  closeWriter(): void {
    this.writers--
    this.changed()
  }
}
