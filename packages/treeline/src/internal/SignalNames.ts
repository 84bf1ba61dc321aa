/** The signals that a person sends; as `Signal` of the configuration, which is not loaded for every command. */
import type { Signal } from "@treeline/core/daemon/ServiceConfig"

const known: Readonly<Record<typeof Signal.Type, true>> = {
  SIGABRT: true,
  SIGALRM: true,
  SIGCONT: true,
  SIGHUP: true,
  SIGINT: true,
  SIGKILL: true,
  SIGPIPE: true,
  SIGQUIT: true,
  SIGTERM: true,
  SIGTSTP: true,
  SIGUSR1: true,
  SIGUSR2: true,
  SIGWINCH: true
}

export const signals = Object.keys(known) as ReadonlyArray<typeof Signal.Type>
