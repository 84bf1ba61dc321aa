/** Bytes to lines of bounded length. */

/** `undefined` for a line that is too long, told as soon as it is. */
export type Line = Uint8Array | undefined

const newline = 10

/** One line that grows; never more than `most` bytes of it are kept. */
export class SidecarLines {
  private parts: Array<Uint8Array> = []
  private size = 0
  private tooLong = false
  private readonly most: number

  constructor(most: number) {
    this.most = most
  }

  /** The lines that `chunk` ends, without their ends and without empty ones. */
  feed(chunk: Uint8Array): ReadonlyArray<Line> {
    const lines: Array<Line> = []
    let from = 0
    while (from < chunk.length) {
      const at = chunk.indexOf(newline, from)
      const end = at < 0 ? chunk.length : at
      if (this.add(chunk.subarray(from, end))) lines.push(undefined)
      if (at < 0) break
      const line = this.take()
      if (line !== undefined && line.length > 0) lines.push(line)
      from = at + 1
    }
    return lines
  }

  /** True when the line has become too long by this. */
  private add(part: Uint8Array): boolean {
    if (this.tooLong) return false
    this.size += part.length
    if (this.size <= this.most) {
      if (part.length > 0) this.parts.push(part)
      return false
    }
    this.parts = []
    return this.tooLong = true
  }

  private take(): Uint8Array | undefined {
    const { parts, tooLong } = this
    this.parts = []
    this.size = 0
    this.tooLong = false
    if (tooLong) return undefined
    const line = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    // A client may end its lines as Windows does.
    return line.at(-1) === 13 ? line.subarray(0, -1) : line
  }
}
