/** The tree that the demo starts again and again: what it consists of, and what of it lives. */
import { ProcessPlatform } from "@treeline/core"
import type { ProcessInfo } from "@treeline/core/ProcessIdentity"
import { Effect, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"

const program = (name: string) => fileURLToPath(new URL(`programs/${name}`, import.meta.url))

/** The leader of the tree; it starts the others. */
export const command = ChildProcess.make(process.execPath, [program("server.mjs")])

/** A host of its own for the tree, to be killed. */
export const hosts = { treeline: program("treelineHost.ts"), node: program("nodeHost.ts") }

/** What each program is, in the order in which they are shown. */
const notes: Readonly<Record<string, string>> = {
  "web server": "the leader",
  "worker": "its child",
  "stubborn": "ignores SIGTERM",
  "daemon": "has left (setsid)"
}

/** A process as it reported itself, found in the process table. */
export interface Member {
  readonly name: string
  readonly note: string
  readonly info: ProcessInfo
}

/** The running tree. */
export interface Running {
  readonly members: ReadonlyArray<Member>
  readonly port: number
}

interface Report {
  readonly name: string
  readonly pid: number
  readonly port?: number
}

/** The members that live: the same pid and the same start time, and no zombie. */
export const living = Effect.fn("living")(function*(members: ReadonlyArray<Member>) {
  const platform = yield* ProcessPlatform.ProcessPlatform
  const table = new Map((yield* platform.processes).map((info) => [info.pid, info]))
  return members.filter(({ info }) => {
    const now = table.get(info.pid)
    return now !== undefined && now.alive && now.startTime === info.startTime
  })
})

/** Waits until every program of the tree has reported itself, by the lines that it writes. */
export const running = Effect.fn("running")(function*<E>(lines: Stream.Stream<string, E>) {
  const platform = yield* ProcessPlatform.ProcessPlatform
  const reports = yield* lines.pipe(
    Stream.map((line): Report => JSON.parse(line)),
    Stream.take(Object.keys(notes).length),
    Stream.runCollect
  )
  const settled = Effect.gen(function*() {
    const table = new Map((yield* platform.processes).map((info) => [info.pid, info]))
    const members = Object.entries(notes).flatMap(([name, note]): ReadonlyArray<Member> => {
      const info = table.get(reports.find((report) => report.name === name)?.pid ?? 0)
      return info === undefined ? [] : [{ name, note, info }]
    })
    // The daemon is one when the process between it and the web server has gone.
    const leader = members.find(({ name }) => name === "web server")?.info.pid
    const daemon = members.find(({ name }) => name === "daemon")
    return daemon === undefined || table.get(daemon.info.parent)?.parent !== leader ? members : undefined
  })
  let members: ReadonlyArray<Member> | undefined = undefined
  while (members === undefined) {
    members = yield* settled
    if (members === undefined) yield* Effect.sleep("10 millis")
  }
  const port = reports.find((report) => report.port !== undefined)?.port ?? 0
  return { members, port } satisfies Running
})
