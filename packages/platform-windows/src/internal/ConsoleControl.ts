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

/** Set for the helper. A program that finds it is one, whatever it was meant to be, and starts no other. */
const helperVariable = "TREELINE_CONSOLE_HELPER"

/** How long the helper may take to start, in ms. */
const startsWithin = 10_000

/** How long the helper may take for one request, in ms. */
const patience = 3_000

/** How long a tree waits for an answer, with the helper's start and the requests before its own, in ms. */
const waitsAtMost = 10_000

/**
 * How long after the first launch the helper starts, in ms: a program that only runs a command and ends does not pay for
 * it, and for most others it runs long before the first tree is asked to end.
 */
const startAfter = 1_000

interface Helper {
  readonly job: Job
  readonly launched: Launched
  readonly stopWaiting: (() => void) | undefined
  isReady: boolean
  hasAnswered: boolean
  /** Runs out when it is not ready in time, then when it has not answered in time. */
  timer: NodeJS.Timeout
}

interface Request {
  readonly id: string
  readonly text: string
  readonly answer: (consoles: number) => void
  /** How many helpers were given it. */
  tries: number
}

/** Why what `process.execPath` starts would not be Node; undefined where it is. */
const notNode = (): string | undefined => {
  if (process.env[helperVariable] !== undefined) return `${helperVariable} is set, so this is a helper itself`
  return process.getBuiltinModule("node:sea").isSea()
    ? "this is a single executable application, which would start itself in place of Node"
    : undefined
}

export class ConsoleControl {
  private readonly means: Means
  private readonly launcher: Launcher
  private helper: Helper | undefined = undefined
  private starting: NodeJS.Timeout | undefined = undefined
  private readonly requests: Array<Request> = []
  /** The one that the helper has: what becomes of it has nothing to do with the others. */
  private current: Request | undefined = undefined
  private last = 0
  private whyNot = notNode()

  constructor(means: Means, launcher: Launcher) {
    this.means = means
    this.launcher = launcher
  }

  /** Why no event can be sent; undefined where nothing is known against it. */
  get problem(): string | undefined {
    return this.whyNot
  }

  private start(): Helper | undefined {
    if (this.whyNot !== undefined) return undefined
    const job = Job.make(this.means)
    if (job instanceof JobProblem) return undefined
    const line = CommandLine.ofProgram(process.execPath, [helperPath])
    const env = EnvironmentBlock.merge(process.env, {
      NODE_OPTIONS: undefined,
      ELECTRON_RUN_AS_NODE: "1",
      [helperVariable]: "1"
    })
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
    for (const socket of launched.sockets) socket.unref()
    let rest = ""
    launched.sockets[1]!.setEncoding("latin1").on("data", (text: string) => {
      const lines = `${rest}${text}`.split("\n")
      rest = lines.pop()!
      for (const line of lines) this.heard(line)
    })
    return {
      job,
      launched,
      stopWaiting: this.means.waits.add(launched.process, () => this.lost("ended")),
      isReady: false,
      hasAnswered: false,
      timer: setTimeout(() => this.lost("late"), startsWithin).unref()
    }
  }

  private heard(line: string): void {
    const { current, helper } = this
    if (helper === undefined) return
    const [word = "", consoles] = line.split(" ")
    if (!helper.isReady && word === "ready") helper.isReady = true
    else if (current?.id === word) {
      this.current = undefined
      helper.hasAnswered = true
      current.answer(Number(consoles))
    } else return
    clearTimeout(helper.timer)
    this.next()
  }

  /** Gives the helper the first request, if it has none. */
  private next(): void {
    const [request] = this.requests
    if (request === undefined || this.current !== undefined) return
    const helper = this.helper ??= this.start()
    if (helper === undefined) return this.answerAll()
    if (!helper.isReady) return
    this.current = request
    request.tries++
    helper.timer = setTimeout(() => this.lost("late"), patience).unref()
    helper.launched.sockets[0]!.write(request.text)
  }

  /** Starts the helper before it is needed, once: Node takes some hundred ms. */
  startSoon(): void {
    this.starting ??= setTimeout(() => (this.helper ??= this.start()), startAfter).unref()
  }

  /** The helper ended or took too long. Another one takes over, unless this one was none to begin with. */
  private lost(how: "ended" | "late"): void {
    const { current, helper } = this
    if (helper === undefined) return
    this.end(helper)
    if (!helper.isReady) {
      const what = how === "ended" ? "ended at once" : `was not ready after ${startsWithin / 1000} s`
      this.whyNot = `the helper (${helperPath}, run by ${process.execPath}) ${what}`
      return this.answerAll()
    }
    // A request that takes too long may be for a console that never answers.
    if (current !== undefined && (how === "late" || current.tries > 1)) current.answer(0)
    this.next()
    // It ends with a console that is ended while it is on it. The next request need not wait for the start of Node.
    if (helper.hasAnswered) this.helper ??= this.start()
  }

  private end(helper: Helper): void {
    this.helper = undefined
    this.current = undefined
    clearTimeout(helper.timer)
    helper.stopWaiting?.()
    for (const socket of helper.launched.sockets) socket.destroy()
    this.means.kernel.CloseHandle(helper.launched.process)
    helper.job.close()
  }

  private answerAll(): void {
    while (this.requests.length > 0) this.requests[0]!.answer(0)
  }

  /** Ends the helper; the next event starts another one. */
  stop(): void {
    clearTimeout(this.starting)
    if (this.helper !== undefined) this.end(this.helper)
    this.answerAll()
  }

  /** Sends an event to the consoles that these processes are attached to, never to the host's; how many got it. */
  send(event: Event, pids: ReadonlyArray<number>): Promise<number> {
    if (pids.length === 0) return Promise.resolve(0)
    const id = String(++this.last)
    return new Promise((resolve) => {
      this.means.keepAlive.reference()
      const answer = (consoles: number) => {
        const at = this.requests.indexOf(request)
        if (at < 0) return
        this.requests.splice(at, 1)
        clearTimeout(timer)
        this.means.keepAlive.unreference()
        resolve(consoles)
      }
      const request: Request = { id, text: `${id} ${event} ${process.pid} ${pids.join(" ")}\n`, answer, tries: 0 }
      const timer = setTimeout(() => answer(0), waitsAtMost)
      this.requests.push(request)
      this.next()
    })
  }
}
