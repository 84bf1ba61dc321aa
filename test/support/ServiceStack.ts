/** examples/services as a test runs it: in a scratch folder, by a host that can die. */
import type { ChildEvent } from "@treeline/core/ChildStatus"
import { SupervisorEvent } from "@treeline/core/Supervisor"
import { Effect, Schedule, Schema } from "effect"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import type { Settings } from "../../examples/services/Place.ts"
import * as Descendants from "./Descendants.ts"
import { eventually } from "./Eventually.ts"
import * as Host from "./Host.ts"
import type { Scratch } from "./Scratch.ts"

const config = fileURLToPath(new URL("../../examples/services/treeline.config.ts", import.meta.url))

/** The folder of the services. */
export const folderOf = (scratch: Scratch): string => scratch.file("services")

const settingsFile = (scratch: Scratch) => path.join(folderOf(scratch), "settings.json")

export const settings = (scratch: Scratch): Settings =>
  JSON.parse(fs.readFileSync(settingsFile(scratch), "utf8")) as Settings

export const change = (scratch: Scratch, change: Partial<Settings>): void =>
  fs.writeFileSync(settingsFile(scratch), JSON.stringify({ ...settings(scratch), ...change }))

/** What a visit is answered with. */
export interface Visit {
  readonly greeting: string
  readonly visits: number
  readonly cached: number
}

/** One request through nginx; its answer once it is good. */
export const visit = (scratch: Scratch): Effect.Effect<Visit> =>
  Effect.tryPromise(async () => {
    const response = await fetch(`http://127.0.0.1:${settings(scratch).ports.proxy}/`, {
      signal: AbortSignal.timeout(15_000)
    })
    if (!response.headers.get("server")?.startsWith("nginx")) throw new Error("not from nginx")
    if (!response.ok) throw new Error(`status ${response.status}`)
    return await response.json() as Visit
  }).pipe(Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 200 }), Effect.orDie)

/** Ports of the services that somebody listens on. */
export const portsInUse = (scratch: Scratch): Effect.Effect<ReadonlyArray<number>> =>
  Effect.promise(async () => {
    const used = (port: number) =>
      new Promise<ReadonlyArray<number>>((resolve) => {
        const server = net.createServer().once("error", () => resolve([port]))
        server.listen(port, "127.0.0.1", () => server.close(() => resolve([])))
      })
    return (await Promise.all(Object.values(settings(scratch).ports).map(used))).flat()
  })

/** The memory that a postgres shares with its processes: segments of System V by their ids, and files. */
export const sharedMemoryOf = (pid: number): ReadonlyArray<string> =>
  fs.readFileSync(`/proc/${pid}/maps`, "utf8").split("\n").flatMap((line) => {
    const [, inode, name] = /(\d+)\s+(\/SYSV\S+|\/dev\/shm\/\S+)/.exec(line) ?? []
    return name === undefined ? [] : [name.startsWith("/SYSV") ? `segment ${inode}` : name]
  })

/** Those of them that are still there. */
export const sharedMemoryLeft = (memory: ReadonlyArray<string>): ReadonlyArray<string> => {
  const lines = fs.readFileSync("/proc/sysvipc/shm", "utf8").split("\n")
  const segments = new Set(lines.map((line) => `segment ${line.trim().split(/\s+/)[1]}`))
  return memory.filter((name) => name.startsWith("/") ? fs.existsSync(name) : segments.has(name))
}

/** The pid in the lock file of postgres. */
export const lockOwner = (scratch: Scratch): number =>
  Number(fs.readFileSync(path.join(folderOf(scratch), "db/data/postmaster.pid"), "utf8").split("\n")[0])

export type Service = "setup" | "db" | "cache" | "web" | "proxy"

/** `setup` has ended. */
export type Pids = Readonly<Record<Exclude<Service, "setup">, number>>

/** Services that run in a host of their own. */
export interface Stack {
  readonly host: Host.Host
  readonly processes: Descendants.Descendants
  readonly events: () => ReadonlyArray<ChildEvent>
  /** What the services went through, such as `db Ready`. */
  readonly story: () => ReadonlyArray<string>
  /** Waits until an incarnation of a service is ready; its pid. */
  readonly ready: (service: Service, incarnation?: number) => Effect.Effect<number>
  /** Of each service the process that was ready last. */
  readonly pids: () => Pids
}

const decode = Schema.decodeSync(Schema.fromJsonString(SupervisorEvent))

export const start = Effect.fn(function*(scratch: Scratch) {
  const host = yield* Host.startProgram({
    program: ["serviceHost", config],
    scratch,
    env: { SERVICES_FOLDER: folderOf(scratch) }
  })
  const processes = yield* Descendants.watch(host.identity.pid)
  const events = () =>
    host.lines.filter((line) => line.startsWith("event ")).flatMap((line) => {
      const event = decode(line.slice(6))
      return event._tag === "Child" ? [event.event] : []
    })
  const readies = (service: Service) =>
    events().flatMap(({ change, child, incarnation }) =>
      child === service && change._tag === "State" && change.to._tag === "Ready" && change.to.pid !== null
        ? [{ incarnation, pid: change.to.pid }]
        : []
    )
  const pidOf = (service: Service) => readies(service).at(-1)?.pid ?? 0
  const stack: Stack = {
    host,
    processes,
    events,
    story: () => events().flatMap(({ change, child }) => change._tag === "State" ? `${child} ${change.to._tag}` : []),
    ready: (service, incarnation = 1) =>
      eventually(
        `${service} is ready, incarnation ${incarnation}`,
        () => readies(service).find((one) => one.incarnation === incarnation)?.pid,
        { within: 20_000, detail: () => ({ lines: host.lines.slice(-4), errors: host.errors() }) }
      ),
    pids: () => ({ db: pidOf("db"), cache: pidOf("cache"), web: pidOf("web"), proxy: pidOf("proxy") })
  }
  return stack
})

/** The same on Node's child_process. */
export const startPlain = Effect.fn(function*(scratch: Scratch) {
  const host = yield* Host.startProgram({
    program: ["plainServiceHost", config],
    scratch,
    env: { SERVICES_FOLDER: folderOf(scratch) }
  })
  const processes = yield* Descendants.watch(host.identity.pid)
  yield* eventually("all answer", () => host.lines.includes("ready"), { within: 45_000, detail: () => host.lines })
  return { host, processes }
})
