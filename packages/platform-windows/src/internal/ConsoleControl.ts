/** Asks trees to end by events of their consoles, through one helper process for the whole host. */
import * as Result from "effect/Result"
import { fileURLToPath } from "node:url"
import * as CommandLine from "./CommandLine.ts"
import * as EnvironmentBlock from "./EnvironmentBlock.ts"
import { Job, JobProblem, type Means } from "./Job.ts"
import { type Launched, type Launcher, LaunchFailed } from "./Launch.ts"

/** Ctrl+Break, which every console program gets, or Ctrl+C, which a program may have been told to ignore. */
export type Event = "break" | "interrupt"

/** The helper beside this module: TypeScript in the sources, JavaScript when published. */
const helperPath = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "../consoleHelper.ts" : "../consoleHelper.js", import.meta.url)
)

/** How long the helper may take for one request, its start included, in ms. */
const patience = 5_000

/**
 * How long after the first launch the helper starts, in ms: a program that only runs a command and ends does not pay for
 * it, and for most others it runs long before the first tree is asked to end.
 */
const startAfter = 1_000

interface Helper {
  readonly job: Job
  readonly launched: Launched
  readonly stop: (() => void) | undefined
}

export class ConsoleControl {
  private readonly means: Means
  private readonly launcher: Launcher
  private helper: Helper | undefined = undefined
  private starting: NodeJS.Timeout | undefined = undefined
  private readonly waiting = new Map<string, (consoles: number) => void>()
  private last = 0

  constructor(means: Means, launcher: Launcher) {
    this.means = means
    this.launcher = launcher
  }

  private start(): Helper | undefined {
    const job = Job.make(this.means)
    if (job instanceof JobProblem) return undefined
    const line = CommandLine.ofProgram(process.execPath, [helperPath])
    const env = EnvironmentBlock.merge(process.env, { NODE_OPTIONS: undefined, ELECTRON_RUN_AS_NODE: "1" })
    const launched = Result.isFailure(line) ? undefined : this.launcher.launch({
      file: process.execPath,
      commandLine: line.success,
      environment: EnvironmentBlock.encode(env),
      cwd: this.means.systemDirectory,
      stdio: [{ _tag: "pipe", direction: "write" }, { _tag: "pipe", direction: "read" }, { _tag: "ignore" }],
      console: "none"
    }, job)
    if (launched === undefined || launched instanceof LaunchFailed) {
      job.close()
      return undefined
    }
    const stop = this.means.waits.add(launched.process, () => this.stop())
    for (const socket of launched.sockets) socket.unref()
    let rest = ""
    launched.sockets[1]!.setEncoding("latin1").on("data", (text: string) => {
      const lines = `${rest}${text}`.split("\n")
      rest = lines.pop()!
      for (const line of lines) {
        const [id = "", consoles] = line.split(" ")
        this.waiting.get(id)?.(Number(consoles))
      }
    })
    return { job, launched, stop }
  }

  /** Starts the helper before it is needed, once: Node takes some hundred ms. */
  startSoon(): void {
    this.starting ??= setTimeout(() => (this.helper ??= this.start()), startAfter).unref()
  }

  /** Ends the helper; the next event starts another one. */
  stop(): void {
    clearTimeout(this.starting)
    const { helper } = this
    if (helper === undefined) return
    this.helper = undefined
    helper.stop?.()
    for (const socket of helper.launched.sockets) socket.destroy()
    this.means.kernel.CloseHandle(helper.launched.process)
    helper.job.close()
    for (const answer of this.waiting.values()) answer(0)
  }

  /** Sends an event to the consoles that these processes are attached to, never to the host's; how many got it. */
  send(event: Event, pids: ReadonlyArray<number>): Promise<number> {
    this.helper ??= pids.length === 0 ? undefined : this.start()
    const input = this.helper?.launched.sockets[0]
    if (input === undefined || pids.length === 0) return Promise.resolve(0)
    const id = String(++this.last)
    return new Promise((resolve) => {
      this.means.keepAlive.reference()
      const timer = setTimeout(() => this.stop(), patience)
      this.waiting.set(id, (consoles) => {
        this.waiting.delete(id)
        clearTimeout(timer)
        this.means.keepAlive.unreference()
        resolve(consoles)
      })
      input.write(`${id} ${event} ${process.pid} ${pids.join(" ")}\n`)
    })
  }
}
