/** The signals of POSIX that a person sends, by their names (signal(7)). */
import * as Schema from "effect/Schema"

export const Signal = Schema.Literals([
  "SIGABRT",
  "SIGALRM",
  "SIGCONT",
  "SIGHUP",
  "SIGINT",
  "SIGKILL",
  "SIGPIPE",
  "SIGQUIT",
  "SIGTERM",
  "SIGTSTP",
  "SIGUSR1",
  "SIGUSR2",
  "SIGWINCH"
])
export type Signal = typeof Signal.Type
