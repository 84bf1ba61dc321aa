import { Effect } from "effect"
import * as child_process from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Guardian } from "../../packages/platform-posix/src/internal/Guardian.ts"
import { identify, isAlive } from "../../test/support/Processes.ts"
import type { Scratch } from "../../test/support/Scratch.ts"
import { all } from "../Contenders.ts"
import { interleaved, median, ms, type Options, type Question, type Table } from "../Report.ts"
import { awaitDead, withScratch } from "../Trees.ts"

const hostFile = fileURLToPath(new URL("../host.ts", import.meta.url))

/** How long the processes of a dead host are watched before they count as left, in ms. */
const watchFor = 1500

/** Starts a host with `count` trees and gives it to `body` once all run; the host is dead afterwards. */
const withHost = <A>(
  name: string,
  count: number,
  body: (host: child_process.ChildProcess, launches: ReadonlyArray<number>, scratch: Scratch) => Promise<A>
): Promise<A> =>
  withScratch(async (scratch) => {
    const host = child_process.spawn(
      process.execPath,
      [...process.execArgv, hostFile, name, String(count), scratch.report],
      { stdio: ["ignore", "pipe", "inherit"] }
    )
    try {
      const [line] = await once(createInterface({ input: host.stdout }), "line") as [string]
      await Effect.runPromise(scratch.awaitReported(count))
      return await body(host, JSON.parse(line), scratch)
    } finally {
      host.kill("SIGKILL")
    }
  })

/** Kills a host; gives the ms until its last process was dead, and how many lived after `watchFor`. */
const reaction = (name: string, count: number) =>
  withHost(name, count, async (host, _launches, scratch) => {
    const processes = scratch.living()
    const startedAt = performance.now()
    host.kill("SIGKILL")
    const left = awaitDead(processes, watchFor)
    return { ms: performance.now() - startedAt, left: left.length, of: processes.length }
  })

export const hostDeath: Question = {
  name: "host-death",
  run: async ({ progress, rounds }) => {
    progress("host death")
    const names = all().map(({ name }) => name)
    const ask = (count: number, rounds: number) => interleaved(rounds, names, (name) => reaction(name, count))
    const one = await ask(1, Math.min(rounds, 7))
    const hundred = await ask(100, Math.min(rounds, 3))
    const row = (answers: Awaited<ReturnType<typeof ask>>[number]) => {
      const left = Math.max(...answers.map(({ left }) => left))
      return [left > 0 ? "never" : ms(median(answers.map(({ ms }) => ms))), `${left} of ${answers[0]!.of}`]
    }
    return {
      title: "Host killed with SIGKILL",
      text:
        `A host of its own launches 1 or 100 children that end on SIGTERM, and is killed. Time until the last of them is dead,
and how many run ${watchFor} ms later.`,
      columns: ["", "1 child, ms", "left", "100 children, ms", "left"],
      rows: names.map((name, at) => [name, ...row(one[at]!), ...row(hundred[at]!)])
    }
  }
}

const childrenOf = (pid: number): ReadonlyArray<number> =>
  fs.readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    fs.readFileSync(`/proc/${pid}/task/${task}/children`, "latin1").split(" ").filter((child) => child !== "").map(
      Number
    )
  )

const fieldOf = (text: string, name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1])

const targets = (pid: number): ReadonlyArray<string> =>
  fs.readdirSync(`/proc/${pid}/fd`).map((fd) => fs.readlinkSync(`/proc/${pid}/fd/${fd}`))

/** What the guardian of a host with `count` trees costs; Linux only. */
const cost = (count: number) =>
  withHost("Treeline launch", count, async (host, launches) => {
    const guardian = childrenOf(host.pid!).find((pid) =>
      fs.readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("treeline-guardian")
    )
    if (guardian === undefined) throw new Error("the host has no guardian")
    const identity = identify(guardian)!
    const memory = fs.readFileSync(`/proc/${guardian}/smaps_rollup`, "latin1")
    const own = targets(guardian)
    const shared = targets(host.pid!)
    host.kill("SIGKILL")
    const startedAt = performance.now()
    while (isAlive(identity) && performance.now() - startedAt < 5000) await new Promise((wake) => setTimeout(wake, 1))
    return {
      rss: fieldOf(memory, "Rss"),
      pss: fieldOf(memory, "Pss"),
      private: fieldOf(memory, "Private_Dirty") + fieldOf(memory, "Private_Clean"),
      first: launches[0]!,
      later: median(launches.slice(1)),
      descriptors: own.length,
      ofHost: own.filter((target) => target !== "/dev/null" && shared.includes(target)).length,
      gone: performance.now() - startedAt
    }
  })

/** Starts a guardian alone and ends it at once: how long the host is blocked, and when the guardian has done its work. */
const start = async () => {
  const guardian = new Guardian({
    shell: "/bin/sh",
    host: { pid: process.pid, start: 0 },
    tagged: true,
    grace: 500,
    warn: () => {},
    openRecord: () => undefined
  })
  const startedAt = performance.now()
  guardian.ensure()
  const blocked = performance.now() - startedAt
  const identity = identify(guardian.pid!)!
  guardian.close()
  while (isAlive(identity)) await new Promise((wake) => setImmediate(wake))
  return { blocked, whole: performance.now() - startedAt }
}

export const guardian: Question = {
  name: "guardian",
  run: async ({ progress, rounds }: Options): Promise<Table> => {
    progress("guardian")
    const counts = [1, 100]
    const answers = await interleaved(Math.min(rounds, 3), counts, cost)
    const starts = (await interleaved(rounds, [undefined], start))[0]!
    type Cost = Awaited<ReturnType<typeof cost>>
    const row = (label: string, of: (cost: Cost) => number, format: (value: number) => string) => [
      label,
      ...answers.map((costs) => format(median(costs.map(of))))
    ]
    return {
      title: "The guardian of a host",
      text:
        `One shell for the whole host, started with the first launch. Memory by /proc/PID/smaps_rollup: proportional (PSS)
counts what it shares with other shells by its share. Started alone, it blocks its host for
${ms(median(starts.map(({ blocked }) => blocked)))} ms; start, first order and end together take ${
          ms(median(starts.map(({ whole }) => whole)))
        } ms (medians).`,
      columns: ["", ...counts.map((count) => count === 1 ? "1 child" : `${count} children`)],
      rows: [
        row("resident memory, KiB", ({ rss }) => rss, String),
        row("proportional memory, KiB", ({ pss }) => pss, String),
        row("private memory, KiB", (cost) => cost.private, String),
        row("open descriptors", ({ descriptors }) => descriptors, String),
        row("descriptors shared with the host", ({ ofHost }) => ofHost, String),
        row("first launch, with the start of platform and guardian, ms", ({ first }) => first, ms),
        row("each further launch, ms", ({ later }) => later, ms),
        row("guardian gone after its host, ms", ({ gone }) => gone, ms)
      ]
    }
  }
}
