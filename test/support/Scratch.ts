/**
 * A folder for one test, with a report that every process of a fixture writes its own pid to. When the test's scope
 * closes, reported processes that still live are killed and the folder is removed.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { eventually } from "./Eventually.ts"
import { identify, type Identity, isAlive, killIfAlive } from "./Processes.ts"

/** A process that has reported itself by a line `NAME PID`. `start` is empty when it was dead before it was seen. */
export interface Reported extends Identity {
  readonly name: string
}

export class Scratch {
  readonly directory: string
  /** Where fixtures append their lines. */
  readonly report: string
  private readonly seen: Array<Reported> = []
  private offset = 0

  constructor() {
    // Programs of other users report here, too.
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), "treeline-test-"))
    fs.chmodSync(this.directory, 0o777)
    this.report = this.file("report")
    fs.writeFileSync(this.report, "")
    fs.chmodSync(this.report, 0o666)
  }

  /** A path in the folder. */
  file(name: string): string {
    return path.join(this.directory, name)
  }

  /** Everything that was reported until now. */
  reported(): ReadonlyArray<Reported> {
    const text = fs.readFileSync(this.report, "utf8").slice(this.offset)
    const complete = text.slice(0, text.lastIndexOf("\n") + 1)
    this.offset += complete.length
    for (const line of complete.split("\n")) {
      const match = /^(\S+) (\d+)$/.exec(line)
      if (match === null) continue
      const pid = Number(match[2])
      this.seen.push({ name: match[1]!, pid, start: identify(pid)?.start ?? "" })
    }
    return this.seen
  }

  /** The reported processes that live now. */
  living(): ReadonlyArray<Reported> {
    return this.reported().filter(isAlive)
  }

  /** Waits until at least `count` processes have reported; returns those that have. */
  awaitReported(count: number): Effect.Effect<ReadonlyArray<Reported>> {
    return eventually(`${count} processes report themselves`, () => {
      const reported = this.reported()
      return reported.length >= count && reported
    }, { detail: () => this.reported().map(({ name }) => name) })
  }

  /** Waits until the first process of this name has reported. */
  awaitNamed(name: string): Effect.Effect<Reported> {
    return eventually(`${name} reports itself`, () => this.reported().find((reported) => reported.name === name))
  }

  /** Waits until no reported process lives. */
  awaitNoneLiving(within = 5000): Effect.Effect<void> {
    return Effect.asVoid(
      eventually("no process is left", () => this.living().length === 0, { within, detail: () => this.living() })
    )
  }

  /** Kills what still lives; processes that report late are killed, too. */
  killLiving(): void {
    for (let round = 0; round < 3; round++) this.living().forEach(killIfAlive)
  }
}

/** A scratch folder in the test's scope. */
export const make: Effect.Effect<Scratch, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => new Scratch()),
  (scratch) =>
    Effect.sync(() => {
      scratch.killLiving()
      // A process that passes the baton may report in this very moment.
      fs.rmSync(scratch.directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 20 })
    })
)
