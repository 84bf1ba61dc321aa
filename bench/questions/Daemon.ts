import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import { performance } from "node:perf_hooks"
import { fileURLToPath } from "node:url"
import { identify, type Identity, isAlive } from "../../test/support/Processes.ts"
import { interleaved, median, ms, type Question, ratio } from "../Report.ts"
import * as Runtimes from "../Runtimes.ts"

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** The service of all contenders. */
const service = here("../listener.pl")

/** As users have it: compiled. */
const treeline = here("../../packages/treeline/dist/command/treeline.js")

/** A folder for one cold start. */
interface Place {
  readonly folder: string
  readonly port: number
}

type Words = ReadonlyArray<string>

interface Contender {
  readonly name: string
  /** Files that it needs. */
  readonly prepare: (place: Place) => void
  readonly start: (place: Place) => Words
  /** Undefined where the first process is sent SIGTERM. */
  readonly stop: ((place: Place) => Words) | undefined
}

const file = ({ folder }: Place, name: string): string => path.join(folder, name)

const alone: Contender = {
  name: "the service alone",
  prepare: () => {},
  start: ({ port }) => ["perl", service, String(port)],
  stop: undefined
}

const treelineDaemon = (name: string, more: object = {}): Contender => ({
  name,
  prepare: (place) => {
    const services = { web: { command: "perl", args: [service, String(place.port)], ...more } }
    fs.writeFileSync(file(place, "treeline.json"), JSON.stringify({ services }))
  },
  start: (place) => [process.execPath, treeline, "daemon", "start", "--config", file(place, "treeline.json")],
  stop: (place) => [process.execPath, treeline, "daemon", "stop", "--config", file(place, "treeline.json")]
})

const pm2 = (program: string): Contender => ({
  name: "pm2",
  prepare: () => {},
  start: ({ port }) => [process.execPath, program, "start", service, "--interpreter", "perl", "--", String(port)],
  stop: () => [process.execPath, program, "kill"]
})

const supervisord = (program: string, control: string): Contender => ({
  name: "supervisord",
  prepare: (place) => {
    const socket = file(place, "supervisor.sock")
    fs.writeFileSync(
      file(place, "supervisord.conf"),
      `[unix_http_server]
file=${socket}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://${socket}
[supervisord]
logfile=${file(place, "supervisord.log")}
pidfile=${file(place, "supervisord.pid")}
[program:web]
command=perl ${service} ${place.port}
`
    )
  },
  start: (place) => [program, "-c", file(place, "supervisord.conf")],
  stop: (place) => [control, "-c", file(place, "supervisord.conf"), "shutdown"]
})

const onPath = (name: string): string | undefined =>
  (process.env["PATH"] ?? "").split(path.delimiter).map((folder) => path.join(folder, name)).find((at) =>
    fs.existsSync(at)
  )

const freePort = async (): Promise<number> => {
  const server = net.createServer()
  await once(server.listen(0, "127.0.0.1"), "listening")
  const { port } = server.address() as net.AddressInfo
  server.close()
  await once(server, "close")
  return port
}

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1")
    socket.on("connect", () => resolve(true)).on("error", () => resolve(false)).on("close", () => socket.destroy())
    socket.resume()
  })

/** A look again, in ms. */
const pause = 2

/** No start and no end takes as long, in ms. */
const limit = 30_000

const until = async (what: string, look: () => boolean | Promise<boolean>): Promise<void> => {
  const deadline = performance.now() + limit
  while (!await look()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${limit} ms`)
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
}

/** The processes that carry the variable of a round, and all below them. */
const marked = (mark: string): ReadonlyArray<Identity> => {
  const parents = new Map<number, number>()
  const found = new Set<number>()
  for (const name of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = fs.readFileSync(`/proc/${name}/stat`, "latin1")
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]))
      if (fs.readFileSync(`/proc/${name}/environ`, "latin1").includes(mark)) found.add(Number(name))
    } catch {
      // it has gone
    }
  }
  for (let size = -1; size !== found.size;) {
    size = found.size
    for (const [pid, parent] of parents) if (found.has(parent)) found.add(pid)
  }
  return [...found].flatMap((pid) => identify(pid) ?? [])
}

interface Times {
  /** From the command until the port answers, and until the command has ended. */
  readonly ready: number
  readonly started: number
  /** From the command until no process is left, and until the command has ended. */
  readonly gone: number
  readonly stopped: number
}

let count = 0

const measure = async ({ prepare, start, stop }: Contender): Promise<Times> => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "treeline-bench-"))
  const mark = `TREELINE_BENCH_ROUND=${process.pid}-${count++}.`
  const [variable = "", value = ""] = mark.split("=")
  const place: Place = { folder, port: await freePort() }
  const run = (words: Words): ChildProcess =>
    spawn(words[0]!, words.slice(1), {
      cwd: folder,
      stdio: "ignore",
      env: { PATH: process.env["PATH"], HOME: folder, PM2_HOME: folder, XDG_CACHE_HOME: cache, [variable]: value }
    })
  try {
    prepare(place)
    let startedAt = performance.now()
    const starter = run(start(place))
    const ended = once(starter, "exit")
    await until("it answers", () => answers(place.port))
    const ready = performance.now() - startedAt
    if (stop !== undefined) await ended
    const started = performance.now() - startedAt
    const processes = marked(mark)
    startedAt = performance.now()
    const stopper = stop === undefined ? starter : run(stop(place))
    if (stop === undefined) starter.kill("SIGTERM")
    let stopped = Number.NaN
    const over = once(stopper, "exit").then(() => (stopped = performance.now() - startedAt))
    await until("all have gone", () => !processes.some(isAlive))
    const gone = performance.now() - startedAt
    await over
    const left = marked(mark)
    if (left.length > 0) throw new Error(`left: ${left.map(({ pid }) => pid).join(", ")}`)
    return {
      ready,
      started: stop === undefined ? Number.NaN : started,
      gone,
      stopped: stop === undefined ? Number.NaN : stopped
    }
  } finally {
    for (const process_ of marked(mark)) process.kill(process_.pid, "SIGKILL")
    fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 20 })
  }
}

/** Compiled modules stay from one round to the next, as a user's do. */
const cache = path.join(os.tmpdir(), `treeline-bench-cache-${process.pid}`)

const build = (): void => {
  const npm = process.env["npm_execpath"]
  if (npm === undefined) throw new Error("start it through npm: npm run bench -- daemon")
  execFileSync(process.execPath, [npm, "run", "-s", "build"], { stdio: "inherit" })
}

export const daemon: Question = {
  name: "daemon",
  run: async ({ progress, rounds }) => {
    if (process.platform !== "linux") return undefined
    progress("daemon: build")
    build()
    const others: ReadonlyArray<Contender> = [
      ...Runtimes.pm2().map(pm2),
      ...[onPath("supervisord")].flatMap((program) => {
        const control = onPath("supervisorctl")
        return program === undefined || control === undefined ? [] : [supervisord(program, control)]
      })
    ]
    const kept = treelineDaemon("the same, the service kept", { whenDaemonEnds: "keep" })
    const contenders = [treelineDaemon("treeline daemon"), kept, ...others, alone]
    for (const name of ["pm2", "supervisord"]) {
      if (!others.some((other) => other.name === name)) progress(`daemon: ${name} is left out: not installed`)
    }
    try {
      for (const contender of contenders) await measure(contender)
      progress("daemon: rounds")
      const answers = await interleaved(rounds, contenders, measure)
      const of = (index: number, key: keyof Times) => median(answers[index]!.map((times) => times[key]))
      return {
        title: "A daemon with one service, started and stopped",
        text:
          `The same service, a listener in Perl, under each of them, from a machine where none of it runs: from the command
until the port answers, and until the command has ended; then from the command that ends all, the manager included, until no
process of it is left, and until that command has ended. Medians, in ms, and what they are of Treeline's.`,
        columns: ["", "ready", "", "start returns", "", "gone", "", "stop returns", ""],
        rows: contenders.map(({ name }, index) => [
          name,
          ...(["ready", "started", "gone", "stopped"] as const).flatMap((key) => [
            ms(of(index, key)),
            ratio(of(index, key), of(0, key))
          ])
        ])
      }
    } finally {
      fs.rmSync(cache, { recursive: true, force: true })
    }
  }
}
