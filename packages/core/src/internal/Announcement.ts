/** Looks for the first whole line of a child's output that says something. */
import type { Chunk } from "../Child.ts"
import * as LineScan from "./LineScan.ts"
import * as Web from "./Web.ts"

/** The most of the output that is kept for a report, in UTF-16 units. */
const tailSize = 2000

/** One output of one incarnation. */
class Scanner {
  private readonly decoder = Web.textDecoder()
  private state: LineScan.State = ""

  feed(bytes: Uint8Array, matches: (line: string) => boolean): string {
    const text = this.decoder.decode(bytes, { stream: true })
    this.state = LineScan.feed(this.state, text, matches).state
    return text
  }
}

/** What `match` makes of the first line for which it gives something; lines of an earlier incarnation don't count. */
export class Announcement<A> {
  private readonly match: (line: string) => A | undefined
  private readonly streams: ReadonlySet<Chunk["stream"]>
  private scanners = { stdout: new Scanner(), stderr: new Scanner() }
  private incarnation = 0
  found: A | undefined = undefined
  tail = ""

  constructor(match: (line: string) => A | undefined, streams: ReadonlySet<Chunk["stream"]>) {
    this.match = match
    this.streams = streams
  }

  feed({ bytes, incarnation, stream }: Chunk): void {
    if (this.found !== undefined) return
    if (incarnation !== this.incarnation) {
      this.incarnation = incarnation
      this.scanners = { stdout: new Scanner(), stderr: new Scanner() }
    }
    const counts = this.streams.has(stream)
    const text = this.scanners[stream].feed(bytes, (line) => {
      if (counts) this.found = this.match(line)
      return this.found !== undefined
    })
    this.tail = (this.tail + text).slice(-tailSize)
  }
}
