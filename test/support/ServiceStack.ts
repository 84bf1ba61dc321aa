/** examples/services as a test runs it: in a scratch folder, by `treeline up` and the commands that talk to it. */
import type { ChildEvent } from "@treeline/core/ChildStatus"
import type { HostEvent } from "@treeline/core/daemon/HostStatus"
import { Effect, Schedule, Schema } from "effect"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { CommandReport } from "treeline"
import type { Settings } from "../../examples/services/Place.ts"
import * as Descendants from "./Descendants.ts"
import { eventually } from "./Eventually.ts"
import * as Host from "./Host.ts"
import { killIfAlive, signalIfAlive } from "./Processes.ts"
import type { Scratch } from "./Scratch.ts"
import * as Command from "./TreelineCommand.ts"

const config = fileURLToPath(new URL("../../examples/services/treeline.config.ts", import.meta.url))

const folderOf = (scratch: Scratch): string => scratch.file("services")

const settingsFile = (scratch: Scratch) => path.join(folderOf(scratch), "settings.json")

export const settings = (scratch: Scratch): Settings =>
  JSON.parse(fs.readFileSync(settingsFile(scratch), "utf8")) as Settings

export const change = (scratch: Scratch, change: Partial<Settings>): void =>
  fs.writeFileSync(settingsFile(scratch), JSON.stringify({ ...settings(scratch), ...change }))

/** The log file of a service. */
export const logOf = (scratch: Scratch, service: string): string =>
  fs.readFileSync(path.join(folderOf(scratch), `logs/${service}.log`), "utf8")

/** The pid in the lock file of postgres. */
export const lockOwner = (scratch: Scratch): number =>
  Number(fs.readFileSync(path.join(folderOf(scratch), "db/data/postmaster.pid"), "utf8").split("\n")[0])

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

const options = (scratch: Scratch) => ({
  scratch,
  env: {
    SERVICES_FOLDER: folderOf(scratch),
    TREELINE_CONFIG: config,
    NODE_COMPILE_CACHE: fileURLToPath(new URL("../../node_modules/.cache/treeline/services", import.meta.url))
  },
  sparesOthers: true
})

/** Runs a command that is to succeed; its answer. */
export const ask = Effect.fnUntraced(function*<A>(
  scratch: Scratch,
  report: Schema.Codec<A, unknown>,
  ...argv: ReadonlyArray<string>
) {
  const { code, stderr, stdout } = yield* Command.run([...argv, "--json"], options(scratch))
  if (code !== 0) throw new Error(`treeline ${argv.join(" ")}: ${code}: ${stderr}`)
  return Schema.decodeUnknownSync(Schema.fromJsonString(report))(stdout)
})

/** `treeline up`, when all services are ready. */
export interface Stack {
  /** The process of `treeline up`. */
  readonly signal: (signal: NodeJS.Signals) => void
  readonly guardian: number
  /** The process of postgres, as it was told. */
  readonly postgres: number
  readonly processes: Descendants.Descendants
  /** Waits until no process is left that descends from it: the kernel's word, see reaper.pl. */
  readonly awaitNoDescendants: Effect.Effect<unknown>
}

export const up = Effect.fnUntraced(function*(scratch: Scratch) {
  const reaper = ["perl", Host.fixture("reaper.pl")]
  const started = yield* Command.start(["up", "--quiet"], {
    ...options(scratch),
    program: [...reaper, ...Command.treeline]
  })
  const processes = yield* Descendants.watch(started.identity.pid)
  yield* Effect.addFinalizer(() => Effect.sync(() => processes.living().forEach(killIfAlive)))
  yield* eventually("all are ready", () => started.stdout().includes("proxy is ready"), {
    within: 45_000,
    detail: () => [started.stdout(), started.stderr()]
  })
  const [host = 0] = processes.children(started.identity.pid)
  const isGuardian = (pid: number) => fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("treeline-guardian")
  const stack: Stack = {
    signal: (signal) => signalIfAlive(host, signal),
    guardian: processes.children(host).find(isGuardian)!,
    postgres: Number(/db is ready \(pid (\d+)/.exec(started.stdout())?.[1]),
    processes,
    awaitNoDescendants: started.ended
  }
  return stack
})

export type Service = "setup" | "db" | "cache" | "web" | "proxy"

/** `setup` has ended. */
export type Pids = Readonly<Record<Exclude<Service, "setup">, number>>

/** What has happened, as `treeline events` tells it. */
export interface Story {
  readonly events: () => ReadonlyArray<ChildEvent>
  /** What the services went through, such as `db Ready`. */
  readonly states: () => ReadonlyArray<string>
  /** Waits until an incarnation of a service is ready; its pid. */
  readonly ready: (service: Service, incarnation: number) => Effect.Effect<number>
  /** Of each service the process that was ready last. */
  readonly pids: () => Pids
}

const event = Schema.decodeSync(Schema.fromJsonString(CommandReport.Event))

const childEvents = (event: HostEvent): ReadonlyArray<ChildEvent> =>
  event._tag === "Supervisor" && event.event._tag === "Child" ? [event.event.event] : []

/** From the beginning on. */
export const story = Effect.fnUntraced(function*(scratch: Scratch) {
  const started = yield* Command.start(["events", "--follow", "--json"], options(scratch))
  const events = () => {
    const lines = started.stdout().split("\n").slice(0, -1)
    return lines.flatMap((line) => childEvents(event(line)))
  }
  const readies = (service: Service) =>
    events().flatMap(({ change, child, incarnation }) =>
      child === service && change._tag === "State" && change.to._tag === "Ready" && change.to.pid !== null
        ? [{ incarnation, pid: change.to.pid }]
        : []
    )
  const pidOf = (service: Service) => readies(service).at(-1)?.pid ?? 0
  const story: Story = {
    events,
    states: () => events().flatMap(({ change, child }) => change._tag === "State" ? `${child} ${change.to._tag}` : []),
    ready: (service, incarnation) =>
      eventually(
        `${service} is ready, incarnation ${incarnation}`,
        () => readies(service).find((one) => one.incarnation === incarnation)?.pid,
        { within: 20_000, detail: () => ({ events: events().slice(-4), errors: started.stderr() }) }
      ),
    pids: () => ({ db: pidOf("db"), cache: pidOf("cache"), web: pidOf("web"), proxy: pidOf("proxy") })
  }
  yield* story.ready("proxy", 1)
  return story
})

/** The same on Node's child_process. */
export const startPlain = Effect.fnUntraced(function*(scratch: Scratch) {
  const host = yield* Host.startProgram({
    program: ["plainServiceHost", config],
    scratch,
    env: { SERVICES_FOLDER: folderOf(scratch) }
  })
  const processes = yield* Descendants.watch(host.identity.pid)
  // Before anything can fail: nobody else would end them.
  yield* Effect.addFinalizer(() => Effect.sync(() => processes.living().forEach(killIfAlive)))
  yield* eventually("all answer", () => host.lines.includes("ready"), { within: 45_000, detail: () => host.lines })
  return { host, processes }
})
