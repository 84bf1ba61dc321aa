/**
 * `treeline up` and the commands that talk to it, as the command line has them: arguments, help, examples. What they do is
 * loaded when one of them is called.
 */
import type { ProcessPlatform } from "@treeline/core/ProcessPlatform"
import { Signal } from "@treeline/core/Signal"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import type * as Ending from "./Ending.ts"
import * as Flags from "./Flags.ts"

/** How a command ends the process. */
export interface Runner {
  readonly ended: <E>(effect: Effect.Effect<Ending.Ending, E>) => Effect.Effect<void, E>
  readonly onPlatform: <A, E>(effect: Effect.Effect<A, E, ProcessPlatform>) => Effect.Effect<A, E>
  readonly version: string
}

const services = Effect.promise(() => import("./Services.ts"))

const client = { ...Flags.configuration, json: Flags.answerAsJson }

const names = Argument.String("NAMES").pipe(
  Argument.withDescription("Services or groups; none means all"),
  Argument.variadic()
)

const follow = (description: string) =>
  Flag.Boolean("follow").pipe(Flag.withAlias("f"), Flag.withDescription(description), Flag.withDefault(false))

/** The codes that all commands for running services share. */
const codes = `Exit codes:
  0                     done
  2                     the arguments or a name can't be used, or another
                        configuration runs at this place; nothing was done
  3                     nothing runs here: "treeline up" runs the configuration
  5                     what runs here can't be talked to: no answer in time,
                        not allowed, or another version of treeline`

/** The same where something may go wrong with a service. */
const codesOf = (wrong: string) => codes.replace("  2   ", `  1                     ${wrong}\n  2   `)

const signalNames = "A name such as HUP or SIGHUP"

/** Throws what is expected. */
const signalOf = (text: string): Signal => {
  const name = text.toUpperCase()
  const found = Signal.literals.find((signal) => signal === name || signal === `SIG${name}`)
  if (found === undefined) throw new Error(`one of ${Signal.literals.map((signal) => signal.slice(3)).join(", ")}`)
  return found
}

/** All of them. */
export const make = ({ ended, onPlatform, version }: Runner) => {
  const up = Command.make(
    "up",
    {
      ...Flags.configuration,
      json: Flags.json("One JSON object on stdout at the end; what happens goes to stderr as text"),
      quiet: Flag.Boolean("quiet").pipe(
        Flag.withAlias("q"),
        Flag.withDescription("No lines of the services; what happens to them is still told"),
        Flag.withDefault(false)
      ),
      plain: Flag.Boolean("plain").pipe(
        Flag.withDescription("Lines without a table, as in a pipe"),
        Flag.withDefault(false)
      ),
      names
    },
    (options) =>
      ended(Effect.flatMap(
        Effect.promise(() => import("./UpCommand.ts")),
        ({ upCommand }) => onPlatform(upCommand({ ...options, version }))
      ))
  ).pipe(
    Command.withShortDescription("Run the services here, until Ctrl-C"),
    Command.withDescription(`Runs the services of the configuration, or the named ones and what they
depend on. A terminal shows a table of them below their lines; a pipe gets the
lines. "treeline status" and the like work meanwhile from anywhere else.

Ctrl-C and SIGTERM end the services in their order, and it says what it waits
for; a second one kills them. SIGHUP reads the configuration anew and opens the
log files anew. Ctrl-Z gives the terminal back, the services go on. However this
process ends, by SIGKILL too, nothing of the services is left.

It ends by itself when every service is done or has failed for good.

Exit codes:
  0                     all have ended as they were asked to, or are done
  130                   the same after Ctrl-C: it dies of SIGINT, so that a
                        calling script stops
  1                     services have failed for good, or restarted too often
  2                     the configuration or the arguments can't be used, or
                        another configuration runs at this place
  4                     the services of this configuration run already
  125                   containment is not available, or treeline has failed`),
    Command.withExamples([
      { command: "treeline up", description: "All services, with a table" },
      { command: "treeline up web", description: "One service and what it depends on" },
      { command: "treeline up 2>&1 | tee up.log", description: "Lines only" },
      { command: "treeline up --json --quiet >result.json", description: "How it ended, for a script" }
    ])
  )

  const status = Command.make(
    "status",
    client,
    (options) => ended(Effect.flatMap(services, ({ status }) => status(options)))
  ).pipe(
    Command.withShortDescription("Show the services that run"),
    Command.withDescription(`Shows each service: its state, health, process, restarts, and what it uses. It
answers at once, also while a service starts or stops slowly.

${codes}`),
    Command.withExamples([
      { command: "treeline status", description: "As a table" },
      { command: "treeline status --json | jq '.services[].child.state'", description: "For a script" }
    ])
  )

  const verb = (name: "start" | "stop" | "restart", short: string, description: string, example: string) =>
    Command.make(
      name,
      { ...client, names },
      (options) => ended(Effect.flatMap(services, ({ change }) => change(name, options)))
    ).pipe(
      Command.withShortDescription(short),
      Command.withDescription(
        `${description} Progress goes to stderr.\n\n${codesOf("it failed for a service; the others are done")}`
      ),
      Command.withExamples([
        { command: `treeline ${name} web`, description: example },
        { command: `treeline ${name}`, description: "All services" }
      ])
    )

  const start = verb(
    "start",
    "Start services that are down",
    "Starts services with what they depend on, and waits until they are up or have\nfailed.",
    "One service; a group works as well"
  )
  const stop = verb(
    "stop",
    "Stop services; they stay known",
    "Ends services by their shutdown plans, those that depend on others first, and\nwaits until nothing of them is left.",
    "One service; \"treeline start web\" brings it back"
  )
  const restart = verb(
    "restart",
    "Stop services and start them again",
    "Ends services and starts them again when nothing of them is left, and waits\nuntil they are up or have failed.",
    "One service"
  )

  const pause = Command.make(
    "pause",
    { ...client, names },
    (options) => ended(Effect.flatMap(services, ({ pause }) => pause(options)))
  ).pipe(
    Command.withShortDescription("No restarts and no probes for a while"),
    Command.withDescription(`What runs goes on; what ends meanwhile stays down, and no probe is sent. For work
on a service by hand.

${codes}`),
    Command.withExamples([{ command: "treeline pause db", description: "Until \"treeline resume db\"" }])
  )

  const resume = Command.make(
    "resume",
    {
      ...client,
      reload: Flag.Boolean("reload").pipe(
        Flag.withDescription("Read the configuration anew first; when it can't be used, nothing is resumed"),
        Flag.withDefault(false)
      ),
      names
    },
    (options) => ended(Effect.flatMap(services, ({ resume }) => resume(options)))
  ).pipe(
    Command.withShortDescription("Restarts and probes again"),
    Command.withDescription(`Ends a pause: what has ended meanwhile is started by its restart policy.

${codes}`),
    Command.withExamples([
      { command: "treeline resume", description: "All services" },
      { command: "treeline resume --reload db", description: "With the configuration as it is now" }
    ])
  )

  const logs = Command.make(
    "logs",
    {
      ...client,
      follow: follow("Go on with each new line; with --json one object in each line"),
      lines: Flag.Int("lines").pipe(
        Flag.withAlias("n"),
        Flag.withMetavar("N"),
        Flag.withDescription("How many of the last lines (100)"),
        Flag.filter((n) => n >= 0, () => "a number that is not negative"),
        Flag.withDefault(100)
      ),
      stdout: Flag.Boolean("stdout").pipe(Flag.withDescription("Standard output only"), Flag.withDefault(false)),
      stderr: Flag.Boolean("stderr").pipe(Flag.withDescription("Standard error only"), Flag.withDefault(false)),
      names
    },
    ({ stderr, stdout, ...options }) =>
      ended(
        Effect.flatMap(services, ({ logs }) =>
          logs({ ...options, stream: stdout === stderr ? undefined : stdout ? "stdout" : "stderr" }))
      )
  ).pipe(
    Command.withShortDescription("Show what services have written"),
    Command.withDescription(`Shows the last lines of services in the order of time. When nothing runs they are
read from the log files, for services that have one.

${codes}`),
    Command.withExamples([
      { command: "treeline logs -f web", description: "The last 100 lines and all that come" },
      { command: "treeline logs --stderr -n 20", description: "Of all services" },
      { command: "treeline logs -f --json | jq -r .text", description: "One object for each line" }
    ])
  )

  const events = Command.make(
    "events",
    { ...client, follow: follow("Go on with each new event; with --json one object in each line") },
    (options) => ended(Effect.flatMap(services, ({ events }) => events(options)))
  ).pipe(
    Command.withShortDescription("Show what has happened to services"),
    Command.withDescription(`Shows starts, ends, restarts, probes that changed their mind, and reloads.

${codes}`),
    Command.withExamples([{ command: "treeline events -f", description: "The last ones and all that come" }])
  )

  const signal = Command.make(
    "signal",
    {
      ...client,
      target: Flag.Literals("target", ["leader", "group", "tree"]).pipe(
        Flag.withMetavar("WHO"),
        Flag.withDescription("leader, group or tree: its first process, its process group, all (leader)"),
        Flag.withDefault("leader" as const)
      ),
      name: Argument.String("NAME").pipe(Argument.withDescription("A service")),
      signal: Argument.String("SIGNAL").pipe(
        Argument.withDescription(signalNames),
        Argument.mapTryCatch(signalOf, Flags.reasonOf)
      )
    },
    (options) => ended(Effect.flatMap(services, ({ signal }) => signal(options)))
  ).pipe(
    Command.withShortDescription("Send a signal to a service"),
    Command.withDescription(`Sends a signal, by its name with or without SIG. What ends a process of it counts
as an end by itself: the restart policy applies. To stop it use "treeline stop".

${codesOf("the service has no process")}`),
    Command.withExamples([{ command: "treeline signal nginx HUP", description: "As its own reload wants it" }])
  )

  const reload = Command.make(
    "reload",
    client,
    (options) => ended(Effect.flatMap(services, ({ reload }) => reload(options)))
  ).pipe(
    Command.withShortDescription("Read the configuration anew and apply the difference"),
    Command.withDescription(`Only services that differ are stopped and started; all others go on. A
configuration that can't be used changes nothing.

${codesOf("it failed for a service; the others are done")}`),
    Command.withExamples([{ command: "treeline reload", description: "After a change of treeline.json" }])
  )

  const down = Command.make(
    "down",
    {
      ...client,
      force: Flag.Boolean("force").pipe(
        Flag.withDescription("Kill them, also while an orderly end is going on"),
        Flag.withDefault(false)
      )
    },
    (options) => ended(Effect.flatMap(services, ({ down }) => down(options)))
  ).pipe(
    Command.withShortDescription("End all services, and the process that runs them"),
    Command.withDescription(`Ends the services in their order, by their shutdown plans, then the process that
runs them. Progress goes to stderr: what it waits for, and for how long.

${codesOf("something could not be ended")}`),
    Command.withExamples([
      { command: "treeline down", description: "In order" },
      { command: "treeline down --force", description: "At once" }
    ])
  )

  const key = {
    ...client,
    pool: Argument.String("POOL").pipe(Argument.withDescription("The pool")),
    key: Argument.String("KEY").pipe(Argument.withDescription("The key"))
  }
  const pool = Command.make("pool").pipe(
    Command.withShortDescription("Start and end children of a pool"),
    Command.withDescription("Starts and ends the children of a pool, one for each key."),
    Command.withSubcommands([
      Command.make("ensure", key, (options) => ended(Effect.flatMap(services, ({ ensure }) => ensure(options)))).pipe(
        Command.withShortDescription("Bring the child of a key up"),
        Command.withDescription(`Starts the child of a key unless it is up, waits until it is ready, and counts as
a use of it.

${codesOf("it did not come up, or there is no room")}`),
        Command.withExamples([{ command: "treeline pool ensure tenants acme", description: "The child for acme" }])
      ),
      Command.make(
        "shutdown",
        key,
        (options) => ended(Effect.flatMap(services, ({ shutdownKey }) => shutdownKey(options)))
      ).pipe(
        Command.withShortDescription("End the child of a key"),
        Command.withDescription(`Ends the child of a key and saves its state; does nothing when there is none.

${codesOf("it could not be ended, or its state could not be saved")}`),
        Command.withExamples([{
          command: "treeline pool shutdown tenants acme",
          description: "The next use starts it"
        }])
      )
    ])
  )

  return [up, status, start, stop, restart, pause, resume, logs, events, signal, reload, down, pool] as const
}
