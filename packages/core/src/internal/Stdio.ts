/**
 * The stdio options of an Effect command, resolved. Defaults are those of `effect/process`.
 */
import type * as PlatformError from "effect/PlatformError"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { Descriptor } from "../Engine.ts"

type Bytes = Stream.Stream<Uint8Array, PlatformError.PlatformError>
type Transducer = Sink.Sink<Uint8Array, Uint8Array, never, PlatformError.PlatformError>

/** Everything about one descriptor of the child. */
export interface Resolved {
  readonly fd: number
  readonly descriptor: Descriptor
  /** Runs into the descriptor from the start on. */
  readonly source: Bytes | undefined
  /** Output is transduced through this as it is consumed. */
  readonly transducer: Transducer | undefined
  readonly endOnDone: boolean
  readonly encoding: ChildProcess.Encoding
}

// Shared by all launches, which keep them for as long as their trees live.
const pipes = {
  read: { _tag: "pipe", direction: "read" },
  write: { _tag: "pipe", direction: "write" },
  duplex: { _tag: "pipe", direction: "duplex" }
} as const

const pipe = (direction: "read" | "write" | "duplex"): Descriptor => pipes[direction]

const simple = (
  config: "pipe" | "overlapped" | "inherit" | "ignore",
  direction: "read" | "write"
): Descriptor => config === "inherit" || config === "ignore" ? { _tag: config } : pipe(direction)

const plain = { source: undefined, transducer: undefined, endOnDone: true, encoding: "utf-8" } as const

const defaultInput: Resolved = { ...plain, fd: 0, descriptor: pipes.write }
const defaultOutputs: Readonly<Record<1 | 2, Resolved>> = {
  1: { ...plain, fd: 1, descriptor: pipes.read },
  2: { ...plain, fd: 2, descriptor: pipes.read }
}

const input = (config: ChildProcess.CommandOptions["stdin"]): Resolved => {
  if (config === undefined) return defaultInput
  const full: ChildProcess.StdinConfig = typeof config === "string" || Stream.isStream(config)
    ? { stream: config }
    : config
  const source = Stream.isStream(full.stream) ? full.stream as Bytes : undefined
  return {
    ...plain,
    fd: 0,
    descriptor: Stream.isStream(full.stream) ? pipe("write") : simple(full.stream, "write"),
    source,
    endOnDone: full.endOnDone ?? true,
    encoding: full.encoding ?? "utf-8"
  }
}

const output = (fd: 1 | 2, config: ChildProcess.CommandOptions["stdout"]): Resolved => {
  if (config === undefined) return defaultOutputs[fd]
  const stream = typeof config === "string" || Sink.isSink(config) ? config : config.stream ?? "pipe"
  return Sink.isSink(stream)
    ? { ...plain, fd, descriptor: pipe("read"), transducer: stream }
    : { ...plain, fd, descriptor: simple(stream, "read") }
}

const additional = (fd: number, config: ChildProcess.AdditionalFdConfig): Resolved => {
  switch (config.type) {
    case "input":
      return { ...plain, fd, descriptor: pipe("write"), source: config.stream }
    case "output":
      return { ...plain, fd, descriptor: pipe("read"), transducer: config.sink }
    case "duplex":
      return { ...plain, fd, descriptor: pipe("duplex"), source: config.stream, transducer: config.sink }
  }
}

/** The descriptors of a command, in order of their numbers; a name that is no `fdN` with N of 3 or more is left out. */
export const resolve = (options: ChildProcess.CommandOptions): ReadonlyArray<Resolved> => {
  const resolved = [input(options.stdin), output(1, options.stdout), output(2, options.stderr)]
  for (const [name, config] of Object.entries(options.additionalFds ?? {})) {
    const fd = ChildProcess.parseFdName(name)
    if (fd !== undefined) resolved.push(additional(fd, config))
  }
  return resolved.sort((a, b) => a.fd - b.fd)
}

/** The descriptor table of a launch: gaps are ignored. */
export const table = (resolved: ReadonlyArray<Resolved>): ReadonlyArray<Descriptor> => {
  const out: Array<Descriptor> = []
  for (const { descriptor, fd } of resolved) {
    while (out.length < fd) out.push({ _tag: "ignore" })
    out[fd] = descriptor
  }
  return out
}
