/** Runners of a cluster as processes of their own, and what their children tell of themselves. */
import { Effect, type Scope } from "effect"
import * as fs from "node:fs"
import type { RunnerSpec } from "../fixtures/clusterSpec.ts"
import { freePort } from "./Children.ts"
import { eventually } from "./Eventually.ts"
import * as Host from "./Host.ts"
import { identify, type Identity, isAlive } from "./Processes.ts"
import * as Scratch from "./Scratch.ts"

/** A line of a witness; `at` is ms of the monotonic clock of the machine. */
export interface Line extends Identity {
  readonly what: "start" | "stop" | "two"
  readonly key: string
  readonly runner: string
  readonly at: number
}

/** ms of the same clock. */
export const now = (): number => Number(process.hrtime.bigint() / 1_000_000n)

export class Witnesses {
  private readonly file: string
  private offset = 0
  private readonly seen: Array<Line> = []

  constructor(file: string) {
    this.file = file
    fs.writeFileSync(file, "")
  }

  get lines(): ReadonlyArray<Line> {
    const text = fs.readFileSync(this.file, "utf8").slice(this.offset)
    const complete = text.slice(0, text.lastIndexOf("\n") + 1)
    this.offset += complete.length
    for (const line of complete.split("\n")) {
      const [what, key, pid, runner, at] = line.split(" ")
      if (at === undefined) continue
      this.seen.push({
        what: what as Line["what"],
        key: key!,
        pid: Number(pid),
        start: identify(Number(pid))?.start ?? "",
        runner: runner!,
        at: Number(at)
      })
    }
    return this.seen
  }

  /** Those that live now. */
  get living(): ReadonlyArray<Line> {
    return this.lines.filter((line) => line.what === "start" && isAlive(line))
  }

  /** Keys of which a second process was seen beside the first. */
  get twice(): ReadonlyArray<string> {
    return [...new Set(this.lines.filter(({ what }) => what === "two").map(({ key }) => key))]
  }
}

/** A cluster without runners. */
export const make = (postgres: number, prefix: string) =>
  Effect.gen(function*() {
    const scratch = yield* Scratch.make
    const witnesses = new Witnesses(scratch.file("log"))
    const ports = new Map<string, number>()
    const start = (name: string, watchdog = true): Effect.Effect<Host.Host, never, Scope.Scope> =>
      Effect.gen(function*() {
        const port = ports.get(name) ?? (yield* freePort)
        ports.set(name, port)
        const spec: RunnerSpec = { name, port, postgres, prefix, directory: scratch.directory, watchdog }
        return yield* Host.startProgram({ program: ["clusterRunner", JSON.stringify(spec)], scratch })
      })
    /** How often the state of a key was saved, one life after the other. */
    const savedOf = (key: string): number => Number(fs.readFileSync(scratch.file(`${key}.saved`), "utf8"))
    /** Has a runner ask for keys, all at once. */
    const ensure = (host: Host.Host, count: number) =>
      Effect.suspend(() => {
        host.order(`ensure ${count}`)
        return eventually(`${count} keys are answered`, () => host.lines.includes(`ensured ${count}`), {
          within: 30_000,
          detail: () => [host.lines, host.errors()]
        })
      })
    /** Waits until each of the keys has one living process and all are on these runners; when the last one was there. */
    const awaitUp = (keys: ReadonlyArray<string>, runners: ReadonlyArray<string>, within: number) =>
      eventually(`${keys.length} keys are up on ${runners.join()}`, () => {
        const { living } = witnesses
        const mine = living.filter(({ key }) => keys.includes(key))
        const distinct = new Set(mine.map(({ key }) => key))
        return mine.length === keys.length && distinct.size === keys.length &&
          mine.every(({ runner }) => runners.includes(runner)) && mine
      }, { within, detail: () => ({ living: witnesses.living.map(({ key, runner }) => `${key}@${runner}`) }) })
    return { scratch, witnesses, start, ensure, savedOf, awaitUp }
  })
