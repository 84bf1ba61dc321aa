/** `treeline set` as the command line has it. What it does is loaded when it is called. */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Ending from "./Ending.ts"
import * as Flags from "./Flags.ts"

/** How a command ends the process. */
export interface Runner {
  readonly ended: <E>(effect: Effect.Effect<Ending.Ending, E>) => Effect.Effect<void, E>
}

const given = (name: string, description: string) =>
  Argument.String(name).pipe(
    Argument.withDescription(description),
    Argument.optional,
    Argument.map(Option.getOrUndefined)
  )

export const make = ({ ended }: Runner) =>
  Command.make(
    "set",
    {
      file: Flags.configuration.file,
      remove: Flag.String("remove").pipe(
        Flag.withMetavar("KEY"),
        Flag.withDescription("Take a setting away, so that the configuration holds again"),
        Flag.optional,
        Flag.map(Option.getOrUndefined)
      ),
      noRestart: Flag.Boolean("no-restart").pipe(
        Flag.withDescription("Keep it only; it holds from the next reload or restart"),
        Flag.withDefault(false)
      ),
      json: Flags.answerAsJson,
      key: given("KEY", "The path of a value, such as services.web.restart.mode"),
      value: given("VALUE", "The value, as --set has it; after -- when it begins with a dash")
    },
    (options) => ended(Effect.flatMap(Effect.promise(() => import("./Setting.ts")), ({ set }) => set(options)))
  ).pipe(
    Command.withShortDescription("Keep a value beside the configuration, and apply it at once"),
    Command.withDescription(`Keeps a value in settings.json in the daemon's folder. It wins over the
configuration file, and variables and --set win over it. Without arguments it
shows what is set.

The configuration is checked with the new value before anything is written. Then
what it touches is restarted: services by a reload, all others go on; the daemon
for most of "daemon", after its old process has ended; the updater for
"daemon.update". When that fails the old settings come back. What is set already
restarts nothing.

A secret is not set, it is looked up: '{"fromEnv":"NAME"}' or
'{"fromFile":"PATH"}'. Values of env and headers are never shown.

Exit codes:
  0                     done; also when it was set already
  1                     it could not be applied, and the old settings are back;
                        or the daemon could not be ended, and nothing was
                        changed: the message says which
  2                     the path, the value, the settings or the configuration
                        can't be used, or another configuration has the
                        folder; nothing was done
  4, 5                  what runs can't be judged, or can't be talked to
  75                    another command is at work on the daemon for too long
  125                   the settings can't be kept; nothing was done`),
    Command.withExamples([
      { command: "treeline set services.web.env.PORT 8080", description: "Restarts web" },
      { command: "treeline set daemon.stopWithin 30s", description: "Restarts the daemon" },
      { command: "treeline set --remove services.web.env.PORT", description: "As the configuration says again" },
      { command: "treeline set", description: "What is set" }
    ])
  )
