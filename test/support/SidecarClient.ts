/**
 * A client of `treeline sidecar`, of a kind that can also misbehave: it says anything, reads when it likes, and keeps all
 * that it was told.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as child_process from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import { eventually } from "./Eventually.ts"
import { identify, type Identity, killIfAlive } from "./Processes.ts"
import type { Scratch } from "./Scratch.ts"
import * as Command from "./TreelineCommand.ts"

type Fields = Readonly<Record<string, unknown>>

/** An answer that says what went wrong. */
export interface Refusal {
  readonly code: number
  readonly message: string
  readonly data: Fields & { readonly _tag: string }
}

/** What was told of one process. */
export class Seen {
  readonly stdout: Array<Buffer> = []
  readonly stderr: Array<Buffer> = []
  /** Names of its events in their order; an output that follows an output of the same stream is not repeated. */
  readonly order: Array<string> = []
  readonly told = new Map<string, Fields>()
  readonly gaps: Array<number> = []
  bytes = 0
  /** Gets outputs instead of the lists above. */
  onOutput: ((bytes: Buffer, stream: string) => void) | undefined = undefined
  onTold: (() => void) | undefined = undefined
}

export class SidecarClient {
  readonly child: child_process.ChildProcess
  readonly identity: Identity
  /** Every message, for a look at their form; without outputs of more than 1,000 characters. */
  readonly messages: Array<unknown> = []
  /** Of lines that were no requests. */
  readonly refusals: Array<Refusal> = []
  readonly processes = new Map<number, Seen>()
  stderr = ""
  ended: { readonly code: number | null; readonly signal: NodeJS.Signals | null } | undefined = undefined
  private readonly waiting = new Map<number, (message: Fields) => void>()
  private parts: Array<Buffer> = []
  private last = 0

  constructor(argv: ReadonlyArray<string>, options: child_process.SpawnOptions) {
    const [file, ...args] = [...Command.treeline, "sidecar", ...argv]
    this.child = child_process.spawn(file!, args, { ...options, stdio: "pipe" })
    this.identity = identify(this.child.pid!) ?? { pid: this.child.pid!, start: "" }
    this.child.stdin!.on("error", () => {}) // it has ended
    this.child.stderr!.setEncoding("utf8").on("data", (text: string) => (this.stderr += text))
    this.child.stdout!.on("data", (chunk: Buffer) => this.feed(chunk))
    this.child.on("close", (code, signal) => (this.ended = { code, signal }))
  }

  private feed(chunk: Buffer): void {
    let from = 0
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      this.parts.push(chunk.subarray(from, at))
      const text = (this.parts.length === 1 ? this.parts[0]! : Buffer.concat(this.parts)).toString("utf8")
      this.parts = []
      from = at + 1
      if (Buffer.byteLength(text) !== text.length) throw new Error(`not ASCII: ${text}`)
      this.receive(JSON.parse(text) as Fields, text.length)
    }
    if (from < chunk.length) this.parts.push(chunk.subarray(from))
  }

  private receive(message: Fields, size: number): void {
    if (size < 1000) this.messages.push(message)
    if (typeof message["method"] === "string") return this.event(message["method"], message["params"] as Fields)
    const id = message["id"]
    const answer = typeof id === "number" ? this.waiting.get(id) : undefined
    if (answer === undefined) this.refusals.push(message["error"] as Refusal)
    else {
      this.waiting.delete(id as number)
      const result = message["result"] as Fields | undefined
      // Its events may be in the same chunk.
      if (typeof result?.["process"] === "number") this.seen(result["process"])
      answer(message)
    }
  }

  private event(method: string, params: Fields): void {
    const seen = this.seen(params["process"] as number)
    const stream = params["stream"] as "stdout" | "stderr" | undefined
    const name = stream === undefined ? method : `${method} ${stream}`
    if (seen.order.at(-1) !== name) seen.order.push(name)
    if (method !== "output") {
      seen.told.set(name, params)
      return seen.onTold?.()
    }
    const bytes = Buffer.from(params["data"] as string, "base64")
    seen.bytes += bytes.length
    if (params["lost"] !== undefined) seen.gaps.push(params["lost"] as number)
    if (seen.onOutput === undefined) seen[stream!].push(bytes)
    else seen.onOutput(bytes, stream!)
  }

  seen(process: number): Seen {
    let seen = this.processes.get(process)
    if (seen === undefined) this.processes.set(process, seen = new Seen())
    return seen
  }

  /** Anything, as it is. */
  raw(data: string | Uint8Array): void {
    this.child.stdin!.write(data)
  }

  notify(method: string, params: object): void {
    this.raw(`${JSON.stringify({ jsonrpc: "2.0", method, params })}\n`)
  }

  /** The whole answer. */
  ask(method: string, params: object): Promise<Fields> {
    const id = ++this.last
    const answer = new Promise<Fields>((resolve) => this.waiting.set(id, resolve))
    this.raw(`${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`)
    return answer
  }

  async request<A = Fields>(method: string, params: object): Promise<A> {
    const { error, result } = await this.ask(method, params)
    if (error !== undefined) throw new Error(`${method}: ${JSON.stringify(error)}`)
    return result as A
  }

  async refusal(method: string, params: object): Promise<Refusal> {
    const { error, result } = await this.ask(method, params)
    if (error === undefined) throw new Error(`${method} was done: ${JSON.stringify(result)}`)
    return error as Refusal
  }

  /** Closes the pipe. */
  close(): void {
    this.child.stdin!.end()
  }

  async awaitEnd(): Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }> {
    if (this.ended === undefined) await once(this.child, "close")
    return this.ended!
  }
}

/** A running sidecar; it and what its scratch folder knows of are killed when the test's scope closes. */
export const start = (
  scratch: Scratch,
  argv: ReadonlyArray<string> = [],
  options: { readonly hello?: boolean; readonly env?: Readonly<Record<string, string>> } = {}
): Effect.Effect<SidecarClient, never, Scope.Scope> =>
  Effect.gen(function*() {
    const client = yield* Effect.acquireRelease(
      Effect.sync(() =>
        new SidecarClient(argv, {
          cwd: scratch.directory,
          env: { ...Command.environment(scratch), ...options.env }
        })
      ),
      (client) =>
        Effect.sync(() => {
          if (client.ended === undefined) killIfAlive(client.identity)
          scratch.killLiving()
          for (const stream of client.child.stdio) stream?.destroy()
        })
    )
    if (options.hello ?? true) yield* Effect.promise(() => client.request("hello", { protocol: 1 }))
    return client
  })

/** A process and what is told of it. */
export interface Running {
  readonly process: number
  readonly pid: number
  readonly seen: Seen
  readonly awaitEvent: (name: string) => Effect.Effect<Fields>
  /** Waits until stdout has this text. */
  readonly awaitOutput: (text: string) => Effect.Effect<void>
  readonly stdout: () => string
}

/** As much output as there may be. */
export const plenty = { stdout: 2 ** 40, stderr: 2 ** 40 }

/** Starts a command; all its output is wanted unless `params` says otherwise. */
export const spawn = (
  client: SidecarClient,
  command: ReadonlyArray<string>,
  params: object = {}
): Effect.Effect<Running> =>
  Effect.gen(function*() {
    const [program, ...args] = command
    const { pid, process } = yield* Effect.promise(() =>
      client.request<{ process: number; pid: number }>("spawn", { command: program, args, credit: plenty, ...params })
    )
    const seen = client.seen(process)
    const detail = () => ({ order: seen.order, stderr: client.stderr })
    const stdout = () => Buffer.concat(seen.stdout).toString("utf8")
    return {
      process,
      pid,
      seen,
      awaitEvent: (name) => eventually(`the sidecar tells ${name}`, () => seen.told.get(name), { detail }),
      awaitOutput: (text) => Effect.asVoid(eventually(`stdout has ${text}`, () => stdout().includes(text), { detail })),
      stdout
    }
  })

/** The memory of a process that lives, in MiB (proc_pid_status(5), VmRSS). */
export const memoryOf = (pid: number): number =>
  Number(/VmRSS:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))![1]) / 1024

/** The bytes that a process that lives has written (proc_pid_io(5), wchar). */
export const writtenBy = (pid: number): number =>
  Number(/wchar: (\d+)/.exec(fs.readFileSync(`/proc/${pid}/io`, "utf8"))![1])
