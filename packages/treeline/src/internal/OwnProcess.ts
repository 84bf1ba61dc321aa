/** What only this process was told, which file it runs, and how this program is called to be another process. */
import * as fs from "node:fs"

/** A variable that is for this process only: what it starts does not have it. */
export const takeVariable = (name: string): string | undefined => {
  const value = process.env[name]
  delete process.env[name]
  return value
}

/** The file that runs, links resolved. */
export const ownFile = (): string => {
  try {
    return fs.realpathSync(process.argv[1] ?? process.execPath)
  } catch {
    return process.execPath
  }
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
