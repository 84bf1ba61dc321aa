/** The `treeline` command line. */
import type { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import * as Cause from "effect/Cause"
import * as Argument from "effect/cli/Argument"
import * as CliConfig from "effect/cli/CliConfig"
import type * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Terminal from "effect/Terminal"
import * as fs from "node:fs"
import * as Treeline from "../Treeline.ts"
import * as Console from "./Console.ts"
import * as DaemonCommands from "./DaemonCommands.ts"
import { doctor } from "./Doctor.ts"
import * as Ending from "./Ending.ts"
import { exitCodeOf, Failure, type FailureReason, InternalError, UsageError } from "./Failure.ts"
import * as Flags from "./Flags.ts"
import * as Grace from "./Grace.ts"
import { guard } from "./Guard.ts"
import * as Help from "./Help.ts"
import { run } from "./Run.ts"
import * as ServiceCommands from "./ServiceCommands.ts"
import * as SettingCommands from "./SettingCommands.ts"

const version: string = JSON.parse(fs.readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version

/** A descriptor that the parent has opened. */
const descriptor = (name: string, description: string) =>
  Flag.Int(name).pipe(Flag.withMetavar("N"), Flag.withDescription(description))

/** Loaded when needed: `treeline run` has no configuration, and starts sooner without the Schema of one. */
const configCommands = Effect.promise(() => import("./ConfigCommand.ts"))
const sidecarCommands = Effect.promise(() => import("./Sidecar.ts"))

/** The command tree; each handler hands over how the process ends. */
const commands = (ends: (ending: Ending.Ending) => void) => {
  const ended = <E>(effect: Effect.Effect<Ending.Ending, E>) => Effect.map(effect, ends)
  const on = <A, E>(effect: Effect.Effect<A, E, ProcessPlatform>, options: Treeline.Options = {}) =>
    Effect.provide(effect, Treeline.layerWith(options))

  const runCommand = Command.make(
    "run",
    {
      grace: Flags.time("grace", "From the first signal to the kill: 5s, 500ms, \"2 minutes\"; 0 kills at once (5s)")
        .pipe(
          Flag.withDefault(5000)
        ),
      require: Flags.requiredLevel,
      json: Flags.json("One JSON object on stdout at the end; the command's own stdout goes to stderr"),
      report: Flag.String("report").pipe(
        Flag.withMetavar("FILE"),
        Flag.withDescription("Write the same object to a file, such as /dev/fd/3; stdout stays the command's"),
        Flag.optional
      ),
      command: Argument.String("CMD").pipe(Argument.withDescription("The program, after --")),
      args: Argument.String("ARGS").pipe(Argument.variadic(), Argument.withDescription("Its arguments, as they are"))
    },
    ({ grace, report, require, ...options }) =>
      ended(on(
        run({
          ...options,
          grace,
          require,
          report: Option.getOrUndefined(report)
        }),
        { hostDeathGrace: grace }
      ))
  ).pipe(
    Command.withShortDescription("Run one command; its whole process tree ends with it"),
    Command.withDescription(`Runs a command with this terminal or these pipes, and ends its whole process
tree when it has ended, when this process is asked to end, or when this process
dies. What the command leaves behind is ended and named on stderr.

A first SIGTERM, SIGINT, SIGHUP or SIGQUIT is sent on to the tree, which is
killed after the grace time; a second one kills it at once. In a terminal,
Ctrl-C and Ctrl-Z are for the command; Ctrl-C twice within 1 s kills the tree.

Exit codes:
  the command's own     when it has ended
  128 + N               when signal N ended it; of SIGHUP, SIGINT and SIGTERM
                        treeline dies itself, so that a calling script stops
  2                     the arguments can't be used
  125                   containment is not available, or treeline has failed
  126, 127              the command can't be executed, or is not there`),
    Command.withExamples([
      { command: "treeline run -- npm test", description: "Nothing of it is left afterwards" },
      { command: "treeline run --grace 30s -- ./server --port 80", description: "30 s to stop, then the kill" },
      { command: "treeline run --require tagged -- ./untrusted.sh", description: "Or not at all" },
      { command: "treeline run --json -- make >result.json", description: "How it ended, for a script" }
    ])
  )

  const doctorCommand = Command.make(
    "doctor",
    { json: Flags.json("The report as one JSON object") },
    // A diagnosis ends nothing, not even what a dead host has left.
    (options) => ended(on(doctor({ ...options, version }), { sweepOrphaned: false }))
  ).pipe(
    Command.withShortDescription("Show what can be promised on this system"),
    Command.withDescription("Shows the containment level here, what it stands on, and what would raise it."),
    Command.withExamples([{ command: "treeline doctor", description: "For people" }])
  )

  const guardCommand = Command.make(
    "guard",
    {
      lifelineFd: descriptor("lifeline-fd", "Read end of a pipe; when it ends, the program's tree ends"),
      configFd: descriptor("config-fd", "Read to its end: {\"command\": [...], \"popen_kwargs\": {...}}"),
      statusFd: descriptor("status-fd", "Gets {\"ok\":true} or {\"ok\":false,\"error\":\"...\"} and is closed"),
      grace: Flag.String("termination-grace-period").pipe(
        Flag.withMetavar("SECONDS"),
        Flag.withDescription("From SIGTERM to SIGKILL; 0 kills at once (5.0)"),
        Flag.mapTryCatch(Grace.parseSeconds, Flags.reasonOf),
        Flag.withDefault(5000)
      )
    },
    (options) => ended(guard(options, Treeline.layerWith({ hostDeathGrace: options.grace })))
  ).pipe(
    Command.withShortDescription("Guard one program for a parent in another language"),
    Command.withDescription(`Starts the program that is described on one descriptor, reports on another
whether it runs, and ends its whole process tree when the lifeline ends: when the
parent has closed it or has died. What the program leaves behind ends with it.

popen_kwargs may have cwd, env (the whole environment), stdin, stdout and stderr
("inherit" or "devnull"). The program gets none of the three descriptors.

Exit codes:
  the program's own     when it has ended; 128 + N when signal N ended it
  2                     it was not started, or its tree could not be ended;
                        the status descriptor tells this from the program's 2`),
    Command.withExamples([
      {
        command: "treeline guard --lifeline-fd 3 --config-fd 4 --status-fd 5",
        description: "A client in Python is in examples/guard"
      }
    ])
  )

  const sidecarCommand = Command.make(
    "sidecar",
    {
      grace: Flags.time("grace", "From SIGTERM to SIGKILL where a spawn does not say: 5s, 500ms; 0 kills at once (5s)")
        .pipe(
          Flag.withDefault(5000)
        ),
      require: Flags.requiredLevel
    },
    ({ grace, require }) =>
      ended(on(
        Effect.flatMap(
          sidecarCommands,
          ({ sidecar }) => sidecar({ version, grace, require })
        ),
        { hostDeathGrace: grace }
      ))
  ).pipe(
    Command.withShortDescription("Process trees for a program in another language, by JSON lines"),
    Command.withDescription(`Starts, feeds, reads, signals and ends process trees for the program that holds its
stdin and stdout: JSON-RPC 2.0, one message in a line. stdout carries nothing else;
what is for people goes to stderr.

When stdin ends, when this process is asked to end, and when it or the program that
started it is killed, every tree ends: SIGTERM, the grace time, SIGKILL.

Exit codes:
  0                     stdin has ended, and so has every tree
  2                     the arguments can't be used
  3                     the client speaks another version of the protocol
  125                   containment is not available, a process could not be
                        ended, the client did not read, or treeline has failed

Of SIGHUP, SIGINT and SIGTERM it dies itself, after its trees; a second one kills
them at once.`),
    Command.withExamples([
      { command: "treeline sidecar --grace 2s", description: "The protocol is in docs/sidecar.md" },
      { command: "treeline sidecar --require tagged", description: "A client in Python is in examples/sidecar" }
    ])
  )

  const configCommand = Command.make(
    "config",
    {
      ...Flags.configuration,
      explain: Flag.Boolean("explain").pipe(
        Flag.withDescription("Each value and where it comes from"),
        Flag.withDefault(false)
      ),
      json: Flags.json("One JSON object")
    },
    (options) => ended(Effect.flatMap(configCommands, ({ config }) => config(options)))
  ).pipe(
    Command.withShortDescription("Check the configuration and show what holds"),
    Command.withDescription(`Reads treeline.config.ts, treeline.json or a Procfile, checks it, and shows what
holds: defaults < file < settings < environment < --set, where settings are what
"treeline set" has kept. Secrets are not shown.

A variable overrides a value by its path, with __ between the parts:
  TREELINE_SERVICES__WEB__RESTART__MODE=transient

Exit codes:
  0                     it can be used
  2                     it can't be; each error names file, path and what was
                        expected`),
    Command.withExamples([
      { command: "treeline config --explain", description: "What holds, and why" },
      { command: "treeline config --json --set services.web.env.PORT=80", description: "With one other value" }
    ])
  )

  const initCommand = Command.make(
    "init",
    {
      format: Flag.Literals("format", ["json", "ts", "procfile"]).pipe(
        Flag.withMetavar("FORMAT"),
        Flag.withDescription("json, ts or procfile (json)"),
        Flag.withDefault("json" as const)
      ),
      json: Flags.json("The file that was written, as one JSON object")
    },
    (options) => ended(Effect.flatMap(configCommands, ({ init }) => init(options)))
  ).pipe(
    Command.withShortDescription("Write a commented configuration to begin with"),
    Command.withDescription(
      "Writes treeline.json, treeline.config.ts or a Procfile with comments in this folder, unless it has one."
    ),
    Command.withExamples([{ command: "treeline init --format ts", description: "With types for an editor" }])
  )

  const serviceCommands = ServiceCommands.make({ ended, onPlatform: on, version })

  return Command.make("treeline").pipe(
    Command.withDescription("Runs programs and services so that their whole process trees end."),
    Command.withSubcommands([
      ...serviceCommands,
      DaemonCommands.make({ ended, version }),
      runCommand,
      configCommand,
      SettingCommands.make({ ended }),
      initCommand,
      doctorCommand,
      guardCommand,
      sidecarCommand
    ]),
    Command.withExamples([
      { command: "treeline up", description: "Run the services of treeline.json, until Ctrl-C" },
      { command: "treeline run -- npm test", description: "Run a command, leave nothing behind" },
      { command: "treeline doctor", description: "What is promised here" }
    ])
  )
}

/** No command reads a file or asks a question by itself; `process.stdin` must not even be looked at (see Console). */
const environment = Layer.mergeAll(
  FileSystem.layerNoop({}),
  Path.layer,
  Stdio.layerTest({}),
  Layer.succeed(
    Terminal.Terminal,
    Terminal.make({
      columns: Effect.succeed(80),
      rows: Effect.succeed(24),
      size: Effect.die("there is no prompt"),
      readInput: Effect.die("there is no prompt"),
      readLine: Effect.die("there is no prompt"),
      display: () => Effect.void
    })
  ),
  Layer.succeed(
    ChildProcessSpawner.ChildProcessSpawner,
    ChildProcessSpawner.make(() => Effect.die("commands are launched by the platform"))
  ),
  // What went wrong is said once, by the commands themselves; a log would go to stdout, which is the program's.
  Logger.layer([]),
  CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })
)

/** One clear line for each thing that is wrong, and where to read on. */
const usage = (path: ReadonlyArray<string>, errors: ReadonlyArray<CliError.CliError>): string => {
  const unknown = errors.filter(({ _tag }) => _tag === "UnrecognizedOption")
  const hint = path.includes("run") && unknown.length > 0 ? " (options of the command go after --)" : ""
  return `${errors.map(({ message }) => message.replaceAll(/\s*\n\s*/g, " ")).join("; ")}${hint}`
}

const presenter = CliOutput.layerPresenter({
  present: (event) => {
    switch (event._tag) {
      case "Help":
        return Effect.promise(() => {
          const fd = event.reason === "Requested" ? 1 : 2
          return Console.print(fd, Help.render(event.helpDoc, Console.canColor(fd)))
        })
      case "Version":
        return Effect.promise(() => Console.print(1, `${event.name} ${event.version}`))
      // Told with every other failure, in `failed`.
      case "InvalidInvocation":
        return Effect.void
    }
  }
})

const failed = async (argv: ReadonlyArray<string>, error: unknown): Promise<Ending.Ending> => {
  let path: ReadonlyArray<string> = []
  let reason: FailureReason
  if (error instanceof Error && "_tag" in error && error._tag === "ShowHelp") {
    const help = error as CliError.ShowHelp
    path = help.commandPath
    if (help.errors.length === 0) return Ending.code(2) // a command is missing; the help has been shown
    reason = new UsageError({ problem: usage(path, help.errors) })
  } else reason = error as FailureReason
  const guarding = argv[0] === "guard"
  const exitCode = guarding ? 2 : exitCodeOf(reason)
  const ownArguments = argv.includes("--") ? argv.slice(0, argv.indexOf("--")) : argv
  if (ownArguments.includes("--json")) {
    const text = Schema.encodeSync(Schema.fromJsonString(Failure))({ error: reason, message: reason.message, exitCode })
    await Console.printLast(2, text)
  } else {
    const more = path.length > 0
      ? `\nSee: ${path.join(" ")} --help`
      : reason._tag === "AlreadyRunning"
      ? "\n\"treeline status\" shows what runs, \"treeline down\" ends it"
      : ""
    await Console.printLast(2, `treeline: ${reason.message}${more}`)
  }
  return Ending.code(exitCode)
}

/** Does what the arguments say, then ends the process. */
export const main = async (argv: ReadonlyArray<string>): Promise<never> => {
  let ending: Ending.Ending = Ending.code(0)
  const program = Command.runWith(commands((value) => ending = value), { version })(
    Grace.joinNegative(argv, new Set(["--grace", "--termination-grace-period"]))
  )
  const exit = await Effect.runPromiseExit(Effect.provide(program, Layer.mergeAll(environment, presenter)))
  if (exit._tag === "Failure") {
    const error = Option.getOrElse(
      Cause.findErrorOption(exit.cause),
      () => new InternalError({ detail: Cause.pretty(exit.cause) })
    )
    ending = await failed(argv, error)
  }
  return Ending.end(ending)
}
