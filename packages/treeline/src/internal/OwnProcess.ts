/** What only this process was told, and how this program is called to be another process. */

/** A variable that is for this process only: what it starts does not have it. */
export const takeVariable = (name: string): string | undefined => {
  const value = process.env[name]
  delete process.env[name]
  return value
}

/** The variable by which a daemon or an updater is told which file it was started as; see `ManagedDaemon.programOf`. */
export const programVariable = "TREELINE_PROGRAM"

/** What this program is called with to be a daemon, or what belongs to one. */
export const daemonArguments = (verb: string, file: string, flags: ReadonlyArray<string>): ReadonlyArray<string> => [
  "daemon",
  verb,
  "--config",
  file,
  ...flags.flatMap((flag) => ["--set", flag])
]
