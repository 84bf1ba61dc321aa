/**
 * Programs of a simulated system, as data: a generator can make them, a failed test can print them, a wire can carry them.
 *
 * A program is a list of instructions. Everything between two waits happens in one instant of the clock. Reaching the end
 * is `exit(0)`. Descriptors 0, 1 and 2 are stdin, stdout and stderr.
 */
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Schema from "effect/Schema"

/**
 * One instruction. Times are in ms. A child that is forked, and what `Exec` becomes, starts as after fork and exec:
 * with the descriptors, environment and ignored signals of the process, and without its traps.
 */
export type Instruction =
  /** Waits. */
  | { readonly _tag: "Sleep"; readonly ms: number }
  /** Waits for ever, for signals only. */
  | { readonly _tag: "Endure" }
  /** Writes a text as UTF-8; blocks while the pipe is full. */
  | { readonly _tag: "Write"; readonly fd: number; readonly text: string }
  /** Writes so many bytes. */
  | { readonly _tag: "WriteBytes"; readonly fd: number; readonly bytes: number }
  /**
   * Writes a text in which `{pid}`, `{parent}`, `{child}` (the last one forked), `{leader}` (of the launch), `{cwd}` and
   * `{env:NAME}` (`unset` where it is not set) stand for what they are.
   */
  | { readonly _tag: "Print"; readonly fd: number; readonly text: string }
  /** Reads one line, or what there is up to the end. */
  | { readonly _tag: "Read"; readonly fd: number }
  /** Reads up to the end. */
  | { readonly _tag: "ReadToEnd"; readonly fd: number }
  /** Reads from one descriptor and writes to another, up to the end. */
  | { readonly _tag: "Copy"; readonly from: number; readonly to: number }
  | { readonly _tag: "Close"; readonly fd: number }
  /** Starts a child in the same group and session. */
  | { readonly _tag: "Fork"; readonly program: Program }
  /** Starts a daemon: two forks and a session of its own; its parent is gone before the next instruction. */
  | { readonly _tag: "Daemonise"; readonly program: Program }
  /** Becomes the leader of a new session and group; nothing for a leader of a group (`setsid(2)`). */
  | { readonly _tag: "Setsid" }
  /** Becomes the leader of a new group in the same session; nothing for a leader of a session (`setpgid(2)`). */
  | { readonly _tag: "Setpgid" }
  | { readonly _tag: "Exec"; readonly program: Program }
  /** Waits until every child has ended, and reaps them. */
  | { readonly _tag: "WaitChildren" }
  /**
   * From now on a signal runs a program, is ignored, or has its default action. What a trap interrupts goes on after it.
   * SIGKILL and SIGSTOP can't be trapped.
   */
  | { readonly _tag: "Trap"; readonly signal: ChildProcess.Signal; readonly program: Program | "ignore" | "default" }
  | { readonly _tag: "Ignore"; readonly signals: ReadonlyArray<ChildProcess.Signal> }
  /** Sends itself a signal. */
  | { readonly _tag: "Raise"; readonly signal: ChildProcess.Signal }
  /**
   * Listens at a TCP port, or at the path of a Unix socket, while the process lives. HTTP requests are answered with
   * `status` after `delay` ms; without a status they hang, and they wait while the process is stopped. A second `Listen`
   * of the same process changes the answer; where another process listens it fails, and the process exits with code 1.
   */
  | {
    readonly _tag: "Listen"
    readonly port: number | string
    readonly status?: number | undefined
    readonly delay?: number | undefined
  }
  | { readonly _tag: "StopListening"; readonly port: number | string }
  | { readonly _tag: "Loop"; readonly times: number | "forever"; readonly body: Program }
  | { readonly _tag: "Exit"; readonly code: number }
  /** From now on the host may not signal this process, as after a change of user. */
  | { readonly _tag: "Protect" }
  /** From now on its end takes so long, after an exit as after SIGKILL. */
  | { readonly _tag: "Linger"; readonly ms: number }
  /** Hangs in the kernel (state D), where not even SIGKILL ends it, until the simulation releases it. */
  | { readonly _tag: "Hang" }
  /** Loses what it can be found by: the mark, as `env -i` does, or the tag, as a program that resets its limits does. */
  | { readonly _tag: "Shed"; readonly what: "mark" | "tag" }

/** Instructions, in their order. */
export type Program = ReadonlyArray<Instruction>

/** What programs are sent by. */
export const Signal: Schema.Codec<ChildProcess.Signal> = Schema.Literals(
  [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGUNUSED",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGBREAK",
    "SIGLOST",
    "SIGINFO"
  ] as const satisfies ReadonlyArray<ChildProcess.Signal>
)

const Natural = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Millis = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))
const Nested: Schema.Codec<Program> = Schema.suspend((): Schema.Codec<Program> => Program)
const Port = Schema.Union([Natural, Schema.String])

/** The schema of an instruction. */
export const Instruction: Schema.Codec<Instruction> = Schema.TaggedUnion({
  Sleep: { ms: Millis },
  Endure: {},
  Write: { fd: Natural, text: Schema.String },
  WriteBytes: { fd: Natural, bytes: Natural },
  Print: { fd: Natural, text: Schema.String },
  Read: { fd: Natural },
  ReadToEnd: { fd: Natural },
  Copy: { from: Natural, to: Natural },
  Close: { fd: Natural },
  Fork: { program: Nested },
  Daemonise: { program: Nested },
  Setsid: {},
  Setpgid: {},
  Exec: { program: Nested },
  WaitChildren: {},
  Trap: { signal: Signal, program: Schema.Union([Nested, Schema.Literals(["ignore", "default"])]) },
  Ignore: { signals: Schema.Array(Signal) },
  Raise: { signal: Signal },
  Listen: {
    port: Port,
    status: Schema.optional(Schema.Int.check(Schema.isBetween({ minimum: 200, maximum: 599 }))),
    delay: Schema.optional(Millis)
  },
  StopListening: { port: Port },
  Loop: { times: Schema.Union([Natural, Schema.Literal("forever")]), body: Nested },
  Exit: { code: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })) },
  Protect: {},
  Linger: { ms: Millis },
  Hang: {},
  Shed: { what: Schema.Literals(["mark", "tag"]) }
})

/** The schema of a program. */
export const Program: Schema.Codec<Program> = Schema.Array(Instruction)

/**
 * A program from its instructions.
 *
 * @example
 * ```ts
 * import { Program } from "@treeline/core/testing"
 * import { strictEqual } from "node:assert"
 *
 * const program = Program.make(
 *   Program.trap("SIGTERM", [Program.write("bye\n"), Program.exit(3)]),
 *   Program.fork(Program.sleep(500)),
 *   Program.endure
 * )
 * strictEqual(Program.script(program), "trap TERM { write 1 \"bye\\n\"; exit 3 }; fork { sleep 500 }; endure")
 * ```
 */
export const make = (...program: Program): Program => program

/** Waits `ms`. */
export const sleep = (ms: number): Instruction => ({ _tag: "Sleep", ms })

/** Waits for ever. */
export const endure: Instruction = { _tag: "Endure" }

/** Writes a text, to stdout by default. */
export const write = (text: string, fd: number = 1): Instruction => ({ _tag: "Write", fd, text })

/** Writes so many bytes (the letter `x`), to stdout by default. */
export const writeBytes = (bytes: number, fd: number = 1): Instruction => ({ _tag: "WriteBytes", fd, bytes })

/** Writes a text with `{pid}`, `{parent}`, `{child}`, `{leader}`, `{cwd}` and `{env:NAME}` filled in. */
export const print = (text: string, fd: number = 1): Instruction => ({ _tag: "Print", fd, text })

/** Reads a line, from stdin by default. */
export const read = (fd: number = 0): Instruction => ({ _tag: "Read", fd })

/** Reads up to the end, from stdin by default. */
export const readToEnd = (fd: number = 0): Instruction => ({ _tag: "ReadToEnd", fd })

/** Copies up to the end, from stdin to stdout by default. */
export const copy = (from: number = 0, to: number = 1): Instruction => ({ _tag: "Copy", from, to })

/** Closes a descriptor. */
export const close = (fd: number): Instruction => ({ _tag: "Close", fd })

/** Starts a child in the same group. */
export const fork = (...program: Program): Instruction => ({ _tag: "Fork", program })

/** Starts a daemon. */
export const daemonise = (...program: Program): Instruction => ({ _tag: "Daemonise", program })

/** Leaves the session and group for new ones. */
export const setsid: Instruction = { _tag: "Setsid" }

/** Leaves the group for a new one. */
export const setpgid: Instruction = { _tag: "Setpgid" }

/** Becomes another program. */
export const exec = (...program: Program): Instruction => ({ _tag: "Exec", program })

/** Waits for the children. */
export const waitChildren: Instruction = { _tag: "WaitChildren" }

/** Sets what a signal does. */
export const trap = (signal: ChildProcess.Signal, program: Program | "ignore" | "default"): Instruction => ({
  _tag: "Trap",
  signal,
  program
})

/** Ignores signals. */
export const ignore = (...signals: ReadonlyArray<ChildProcess.Signal>): Instruction => ({ _tag: "Ignore", signals })

/** Sends itself a signal. */
export const raise = (signal: ChildProcess.Signal): Instruction => ({ _tag: "Raise", signal })

/** Listens at a TCP port or the path of a Unix socket; HTTP is answered with `status` (200 to 599), or hangs. */
export const listen = (
  port: number | string,
  options?: { readonly status?: number | undefined; readonly delay?: number | undefined }
): Instruction => ({ _tag: "Listen", port, ...options })

/** Stops listening. */
export const stopListening = (port: number | string): Instruction => ({ _tag: "StopListening", port })

/** Runs instructions again and again. */
export const loop = (times: number | "forever", ...body: Program): Instruction => ({ _tag: "Loop", times, body })

/** Ends with `code`. */
export const exit = (code: number): Instruction => ({ _tag: "Exit", code })

/** From now on the host may not signal this process. */
export const protect: Instruction = { _tag: "Protect" }

/** From now on the end takes `ms`. */
export const linger = (ms: number): Instruction => ({ _tag: "Linger", ms })

/** Hangs in the kernel, deaf to SIGKILL, until the simulation releases it. */
export const hang: Instruction = { _tag: "Hang" }

/** Loses the environment mark or the inherited tag. */
export const shed = (what: "mark" | "tag"): Instruction => ({ _tag: "Shed", what })

const words = (instruction: Instruction): string => {
  switch (instruction._tag) {
    case "Sleep":
      return `sleep ${instruction.ms}`
    case "Write":
    case "Print":
      return `${instruction._tag.toLowerCase()} ${instruction.fd} ${JSON.stringify(instruction.text)}`
    case "WriteBytes":
      return `write ${instruction.fd} ${instruction.bytes} bytes`
    case "Read":
    case "Close":
      return `${instruction._tag.toLowerCase()} ${instruction.fd}`
    case "ReadToEnd":
      return `read ${instruction.fd} to end`
    case "Copy":
      return `copy ${instruction.from} to ${instruction.to}`
    case "Fork":
    case "Daemonise":
    case "Exec":
      return `${instruction._tag.toLowerCase()} ${block(instruction.program)}`
    case "WaitChildren":
      return "wait"
    case "Trap":
      return `trap ${short(instruction.signal)} ${
        typeof instruction.program === "string" ? instruction.program : block(instruction.program)
      }`
    case "Ignore":
      return `ignore ${instruction.signals.map(short).join(" ")}`
    case "Raise":
      return `raise ${short(instruction.signal)}`
    case "Listen":
      return `listen ${instruction.port}${instruction.status === undefined ? "" : ` answering ${instruction.status}`}${
        instruction.delay === undefined ? "" : ` after ${instruction.delay}`
      }`
    case "StopListening":
      return `stop listening ${instruction.port}`
    case "Loop":
      return `loop ${instruction.times} ${block(instruction.body)}`
    case "Exit":
      return `exit ${instruction.code}`
    case "Linger":
      return `linger ${instruction.ms}`
    case "Shed":
      return `shed ${instruction.what}`
    case "Endure":
    case "Setsid":
    case "Setpgid":
    case "Protect":
    case "Hang":
      return instruction._tag.toLowerCase()
  }
}

const short = (signal: ChildProcess.Signal): string => signal.slice(3)

const block = (program: Program): string => program.length === 0 ? "{ }" : `{ ${script(program)} }`

/** The program as one readable line, for messages. */
export const script = (program: Program): string => program.map(words).join("; ")
