/**
 * The engine of Windows: every tree in a job object of its own, which the kernel ends with the last handle of it, so also
 * with this host. It calls the system through koffi, an optional dependency.
 */
import type { Report } from "@treeline/core/Containment"
import type { Engine, EngineTree, LaunchRequest } from "@treeline/core/Engine"
import { ContainmentUnavailable, LaunchError } from "@treeline/core/Errors"
import * as NodeNetwork from "@treeline/platform-node/NodeNetwork"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { isMainThread } from "node:worker_threads"
import * as Commands from "./internal/Commands.ts"
import { ConsoleControl } from "./internal/ConsoleControl.ts"
import * as EnvironmentBlock from "./internal/EnvironmentBlock.ts"
import * as Executable from "./internal/Executable.ts"
import { Job, JobProblem, type Means } from "./internal/Job.ts"
import * as JobTree from "./internal/JobTree.ts"
import * as Kernel32 from "./internal/Kernel32.ts"
import { type Console, type Launched, Launcher, LaunchFailed } from "./internal/Launch.ts"
import { Processes } from "./internal/Processes.ts"
import * as Structs from "./internal/Structs.ts"
import * as Waits from "./internal/Waits.ts"

/** Why the engine can't be had here; undefined when it can. */
export const unavailable = (): string | undefined => {
  // A job's handle is the process's: it would not be closed with the Worker, and its waits would call into nothing.
  if (!isMainThread) return "this is a Worker, which can be ended without its trees"
  const kernel = Kernel32.load()
  if (kernel instanceof Error) return `koffi could not be loaded: ${kernel.message.split("\n", 1)[0]}`
  const job = Job.make(meansOf(kernel))
  if (job instanceof JobProblem) return job.detail
  job.close()
  return undefined
}

const meansOf = (kernel: Kernel32.Kernel32): Means => {
  const directory = Buffer.alloc(2 * 260)
  const length = kernel.GetSystemDirectoryW(directory, 260)
  return {
    kernel,
    processes: new Processes(kernel),
    waits: Waits.get(kernel),
    keepAlive: new Waits.KeepAlive(),
    systemDirectory: Structs.fromUtf16(directory, 0, 2 * length)
  }
}

/** The files of the system, at less cost than by Node, and with the aliases of programs that Node can't look at. */
const filesOf = (kernel: Kernel32.Kernel32): Executable.Files => ({
  kind: (file) => {
    const attributes = kernel.GetFileAttributesW(Structs.utf16(file))
    if (attributes !== Kernel32.INVALID_FILE_ATTRIBUTES) {
      return (attributes & Kernel32.FILE_ATTRIBUTE_DIRECTORY) === 0 ? "file" : "directory"
    }
    return kernel.lastError() === Kernel32.ERROR_ACCESS_DENIED ? "denied" : "missing"
  },
  head: Executable.nodeFiles.head
})

/** What can be limited here, tried out. */
const limitsOf = (means: Means): Report["mechanisms"][number] => {
  const problems = [{ memory: 1e12 }, { processes: 1e6 }, { cpu: 0.5 }].flatMap((limits) => {
    const job = Job.make(means, limits)
    if (job instanceof JobProblem) return [`${Object.keys(limits).join("")}: ${job.detail}`]
    job.close()
    return []
  })
  return {
    name: "limits",
    available: problems.length === 0,
    detail: problems.length === 0 ? "memory, processes and processor time of a job" : problems.join("; ")
  }
}

/** `limits`: what can be limited. `console`: why no console event can be sent. */
const reportOf = (limits: Report["mechanisms"][number], console: string | undefined): Report => ({
  platform: "win32 (job objects)",
  level: "sealed",
  highest: "sealed",
  mechanisms: [
    { name: "job object", available: true, detail: "the kernel holds each tree, and ends it with this host" },
    { name: "native launch", available: true, detail: "CreateProcessW through koffi, inside the job from the start" },
    {
      name: "console events",
      available: console === undefined,
      detail: console ?? "Ctrl+Break and Ctrl+C, by a helper process"
    },
    limits
  ]
})

/**
 * A child that is given the host's console as a descriptor can only use it where it is attached to it. Where the host has
 * none there is nothing to share, and the system would open a new one with a window.
 */
const consoleOf = (request: LaunchRequest, launcher: Launcher, kernel: Kernel32.Kernel32): Console => {
  const inherits = request.stdio.some(({ _tag }, fd) => fd <= 2 && _tag === "inherit" && launcher.ends.isConsole(fd))
  if (inherits || (request.session === "shared" && kernel.GetConsoleCP() !== 0)) return "shared"
  return request.windowsHide ? "own" : "visible"
}

/**
 * Whether the system lets nothing start in a job of ours: this host's own image, suspended, so that nothing of it runs. A
 * job that this host is in may refuse to have further ones inside. Any other problem says nothing about that.
 */
const refusesJobs = (means: Means, launcher: Launcher): boolean => {
  const job = Job.make(means)
  if (job instanceof JobProblem) return false
  try {
    const launched = launcher.launch({
      file: process.execPath,
      commandLine: `"${process.execPath}"`,
      environment: EnvironmentBlock.encode({}),
      cwd: undefined,
      stdio: [{ _tag: "ignore" }, { _tag: "ignore" }, { _tag: "ignore" }],
      console: "none",
      suspended: true
    }, job)
    if (launched instanceof LaunchFailed) return launched.code === Kernel32.ERROR_ACCESS_DENIED
    means.kernel.CloseHandle(launched.process)
    return false
  } finally {
    job.close()
  }
}

/**
 * The engine, where `unavailable` has nothing to say against it; its helper ends with the scope. `withoutJobs` takes over
 * where a launch shows that the system refuses jobs here. `kernel` is how the system is called.
 */
export const make = (
  withoutJobs: (reason: string) => Engine,
  kernel: Kernel32.Kernel32 | Error = Kernel32.load()
): Effect.Effect<Engine, never, Scope.Scope> =>
  Effect.gen(function*() {
    if (kernel instanceof Error) return yield* Effect.die(kernel)
    const means = meansOf(kernel)
    const launcher = new Launcher(kernel)
    const consoleControl = new ConsoleControl(means, launcher)
    yield* Effect.addFinalizer(() => Effect.sync(() => consoleControl.stop()))
    const files = filesOf(kernel)
    let limits: Report["mechanisms"][number] | undefined = undefined
    let substitute: Engine | undefined = undefined

    /**
     * Starts it in its job. What could not be started, or whose end can't be seen (undefined), leaves nothing, also when
     * something is thrown.
     */
    const start = (request: LaunchRequest, command: Commands.Command, job: Job, console: Console) => {
      let launched: Launched | LaunchFailed | undefined = undefined
      let tree: EngineTree | undefined = undefined
      try {
        launched = launcher.launch({
          file: command.file,
          commandLine: command.commandLine,
          environment: EnvironmentBlock.encode(command.env),
          cwd: command.cwd,
          stdio: request.stdio,
          console
        }, job)
        if (launched instanceof LaunchFailed) return launched
        return tree = JobTree.make({ means, job, launched, console, consoleControl })
      } finally {
        if (tree === undefined) {
          job.close()
          if (launched !== undefined && !(launched instanceof LaunchFailed)) {
            kernel.CloseHandle(launched.process)
            for (const socket of launched.sockets) socket.destroy()
          }
        }
      }
    }

    const spawn = (request: LaunchRequest): Effect.Effect<EngineTree, LaunchError | ContainmentUnavailable> =>
      Effect.gen(function*() {
        if (substitute !== undefined) return yield* substitute.spawn(request)
        const command = yield* Effect.fromResult(Commands.resolve(request, {
          env: process.env,
          directory: process.cwd(),
          systemDirectory: means.systemDirectory,
          files
        }))
        const job = Job.make(means, request.limits)
        if (job instanceof JobProblem) {
          return yield* new ContainmentUnavailable({ required: "sealed", available: "sealed", reason: job.detail })
        }
        const console = consoleOf(request, launcher, kernel)
        const started = start(request, command, job, console)
        if (started instanceof LaunchFailed) {
          if (started.code === Kernel32.ERROR_ACCESS_DENIED && refusesJobs(means, launcher)) {
            substitute = withoutJobs("this host is in a job that lets no further job be made inside of it")
            return yield* substitute.spawn(request)
          }
          return yield* new LaunchError({ command: Commands.nameOf(request), ...Executable.reasonOf(started.code) })
        }
        if (started === undefined) {
          return yield* new LaunchError({
            command: Commands.nameOf(request),
            reason: "ResourceExhausted",
            detail: "the system has no room for one more wait"
          })
        }
        if (console !== "shared") consoleControl.startSoon()
        return started
      })

    return {
      report: Effect.suspend(() =>
        substitute?.report ?? Effect.sync(() => reportOf(limits ??= limitsOf(means), consoleControl.problem))
      ),
      // The live clock, also under TestClock: real processes take real time.
      clock: Effect.succeed(Clock.Clock.defaultValue()),
      spawn,
      find: (identity) =>
        Effect.sync(() =>
          identity.boot === "" ? Option.fromUndefinedOr(means.processes.find(identity)) : Option.none()
        ),
      identify: (pid) => Effect.sync(() => Option.fromUndefinedOr(means.processes.identify(pid))),
      standing: (identity) => Effect.sync(() => means.processes.standing(identity)),
      signalProcess: (identity, signal) => Effect.sync(() => means.processes.signal(identity, signal)),
      processes: Effect.sync(() => means.processes.all()),
      network: NodeNetwork.make(undefined)
    }
  })
