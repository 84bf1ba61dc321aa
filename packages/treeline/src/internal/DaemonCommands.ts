/**
 * `treeline daemon` as the command line has it: arguments, help, examples. What its commands do is loaded when one of them
 * is called.
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Ending from "./Ending.ts"
import * as Flags from "./Flags.ts"

/** How a command ends the process. */
export interface Runner {
  readonly ended: <E>(effect: Effect.Effect<Ending.Ending, E>) => Effect.Effect<void, E>
  readonly version: string
}

const verbs = Effect.promise(() => import("./DaemonVerbs.ts"))

const options = { ...Flags.configuration, json: Flags.answerAsJson }

const time = (name: string, description: string) =>
  Flags.time(name, description).pipe(Flag.optional, Flag.map(Option.getOrUndefined))

const readyWithin = time("wait", "How long it may take until it answers (10s)")

const grace = time("grace", "From SIGTERM to SIGKILL, at most 5m; 0 kills at once (what it was started with)")

const codes = `Exit codes:
  0                     done; also when there was nothing to do
  1                     it did not get ready, or could not be ended; a managed
                        program can't be used, or could not be fetched
  2                     the configuration or the arguments can't be used
  4                     something answers that is not this daemon; left alone
  75                    another command is at work on it for too long`

/** All of them. */
export const make = ({ ended, version }: Runner) => {
  const start = Command.make(
    "start",
    { ...options, readyWithin },
    (options) => ended(Effect.flatMap(verbs, ({ start }) => start({ ...options, version })))
  ).pipe(
    Command.withShortDescription("Start it, and wait until it answers"),
    Command.withDescription(`Starts the daemon in the background and returns when it answers. It keeps no
terminal, pipe or descriptor of this command. One that runs is left as it is.
When it does not get ready it is ended, and the last lines of its stderr are
told.

${codes}`),
    Command.withExamples([{ command: "treeline daemon start", description: "Then: treeline status, treeline logs -f" }])
  )

  const stop = Command.make(
    "stop",
    { ...options, grace },
    (options) => ended(Effect.flatMap(verbs, ({ stop }) => stop({ ...options, version })))
  ).pipe(
    Command.withShortDescription("End it and all its services"),
    Command.withDescription(`Ends the services in their order and then the daemon. When that takes longer
than the grace it is killed, and its services with it; what it waited for is
told. Works with a configuration that can't be read.

${codes}`),
    Command.withExamples([{ command: "treeline daemon stop --grace 10s", description: "10 s, then the kill" }])
  )

  const restart = Command.make(
    "restart",
    { ...options, grace, readyWithin },
    (options) => ended(Effect.flatMap(verbs, ({ restart }) => restart({ ...options, version })))
  ).pipe(
    Command.withShortDescription("End it and start it anew, also when it does not run"),
    Command.withDescription(`Ends the daemon and its services and starts it anew, with no other command in
between. The configuration is checked before anything is ended.

${codes}`),
    Command.withExamples([{ command: "treeline daemon restart", description: "After an update of treeline" }])
  )

  const status = Command.make(
    "status",
    options,
    (options) => ended(Effect.flatMap(verbs, ({ status }) => status({ ...options, version })))
  ).pipe(
    Command.withShortDescription("Show whether it runs"),
    Command.withDescription(`Looks at the record of the daemon and asks who answers. Changes nothing and
never waits for another command.

Exit codes, as the LSB has them:
  0                     it runs, or is starting
  1                     it has died and left its record; a start cleans up
  3                     it does not run
  4                     that can't be told, see the message
  2                     the configuration or the arguments can't be used`),
    Command.withExamples([{ command: "treeline daemon status --json", description: "For a script" }])
  )

  const versionCommand = Command.make(
    "version",
    options,
    (options) => ended(Effect.flatMap(verbs, ({ versions }) => versions({ ...options, version })))
  ).pipe(
    Command.withShortDescription("Show the version of this command and of the daemon that runs"),
    Command.withDescription(`Shows the version of this command, and that of the daemon that runs, if one does.

Exit codes:
  0                     told, also when none runs
  2                     the configuration or the arguments can't be used`),
    Command.withExamples([{ command: "treeline daemon version", description: "Is a restart needed?" }])
  )

  const run = Command.make(
    "run",
    Flags.configuration,
    (options) =>
      ended(Effect.flatMap(Effect.promise(() => import("./DaemonRun.ts")), ({ run }) => run({ ...options, version })))
  ).pipe(
    Command.withShortDescription("Be the daemon, in the foreground: for systemd and the like"),
    Command.withDescription(`What "treeline daemon start" starts. SIGTERM and SIGINT end it in order, a second
one kills the services. SIGHUP reads the configuration anew and opens the log
files anew. What happens is told in daemon.log in its folder.

Exit codes:
  0                     it was asked to end
  1                     restarts were too many, and all was ended
  2                     the configuration or the arguments can't be used
  4                     it runs already
  125                   treeline has failed`),
    Command.withExamples([{ command: "treeline daemon run -c /srv/shop/treeline.json", description: "In a unit file" }])
  )

  const update = Command.make(
    "update",
    options,
    (options) =>
      ended(
        Effect.flatMap(Effect.promise(() => import("./Update.ts")), ({ update }) => update({ ...options, version }))
      )
  ).pipe(
    Command.withShortDescription("Update the managed install once, now"),
    Command.withDescription(`Fetches a version by daemon.install.fetch. When its content is new it becomes the
current one, the daemon is restarted, and when that does not get ready the old
version comes back. What the updater does each hour, in the foreground.

Exit codes:
  0                     updated, nothing new, or daemon.update.enabled is false
  1                     rolled back, or it failed; the daemon is as it was
                        unless the message says otherwise
  2                     the configuration or the arguments can't be used
  4                     a record of the daemon or of updates can't be judged
  75                    another command or update is at work`),
    Command.withExamples([{ command: "treeline daemon update --json", description: "From another scheduler" }])
  )

  const bootstrap = Command.make(
    "bootstrap",
    { ...options, readyWithin },
    (options) =>
      ended(
        Effect.flatMap(
          Effect.promise(() => import("./Bootstrap.ts")),
          ({ bootstrap }) => bootstrap({ ...options, version })
        )
      )
  ).pipe(
    Command.withShortDescription("Set up the managed install, the daemon and the updater"),
    Command.withDescription(`Fetches a first version by daemon.install.fetch when there is none, checks that its
program answers --version, and starts the daemon and the updater from it. What is
there already is left as it is, and told; a daemon that runs from elsewhere is
restarted from the managed install.

${codes}`),
    Command.withExamples([{ command: "treeline daemon bootstrap", description: "May be repeated" }])
  )

  // Not in the help: what "start" and "bootstrap" launch (seed C6).
  const updaterCommand = Command.make(
    "updater",
    Flags.configuration,
    (options) =>
      ended(Effect.flatMap(Effect.promise(() => import("./UpdaterRun.ts")), ({ run }) => run({ ...options, version })))
  ).pipe(Command.withDescription("Updates the managed install again and again, until SIGTERM."))

  const install = Command.make(
    "install",
    {
      ...options,
      manager: Flag.Literals("manager", ["systemd", "launchd", "windows"]).pipe(
        Flag.withMetavar("KIND"),
        Flag.withDescription("systemd, launchd or windows (the one of this system)"),
        Flag.optional,
        Flag.map(Option.getOrUndefined)
      ),
      name: Flag.String("name").pipe(
        Flag.withMetavar("NAME"),
        Flag.withDescription("Of the service (treeline- and the folder of the configuration)"),
        Flag.optional,
        Flag.map(Option.getOrUndefined)
      ),
      dryRun: Flag.Boolean("dry-run").pipe(
        Flag.withDescription("Show it, and where it would be written"),
        Flag.withDefault(false)
      )
    },
    (options) =>
      ended(Effect.flatMap(Effect.promise(() => import("./DaemonInstall.ts")), ({ install }) => install(options)))
  ).pipe(
    Command.withShortDescription("Write a service for systemd, launchd or Windows"),
    Command.withDescription(`Writes a systemd user unit, a launchd agent or a task of Windows that runs
"treeline daemon run", and says how it is switched on. Nothing is started, and
nothing that says something else is overwritten.

systemd is told when the daemon is ready and that it is alive (sd_notify(3)),
where native code can be had.

Exit codes:
  0                     done, or there already
  2                     the configuration or the arguments can't be used, or
                        something else is in its place`),
    Command.withExamples([{ command: "treeline daemon install --dry-run", description: "See it first" }])
  )

  return Command.make("daemon").pipe(
    Command.withShortDescription("Run the services in the background"),
    Command.withDescription("Starts, ends and shows the daemon that runs the services of a configuration."),
    Command.withSubcommands([
      start,
      stop,
      restart,
      status,
      versionCommand,
      bootstrap,
      update,
      run,
      install,
      updaterCommand
    ]),
    Command.withExamples([{ command: "treeline daemon start", description: "And then: treeline status" }])
  )
}
