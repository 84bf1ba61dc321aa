/**
 * Programs that tests start as processes of their own. Before the tests each of them is made one file, see
 * bundlePrograms.ts.
 */
import * as path from "node:path"
import { fileURLToPath } from "node:url"

export const root = fileURLToPath(new URL("../..", import.meta.url))

/** Below node_modules of this project, so that koffi is found from there as well. */
export const folder = path.join(root, "node_modules/.cache/treeline/programs")

/** Names and sources. */
export const sources: Readonly<Record<string, string>> = {
  treeline: "packages/treeline/src/bin.ts",
  ...Object.fromEntries(
    [
      "bareHost",
      "clusterRunner",
      "controlClient",
      "daemon",
      "daemonCommand",
      "environmentHost",
      "host",
      "launchLoop",
      "logHost",
      "managed",
      "plainServiceHost",
      "portHost",
      "probeHost",
      "reusedPid",
      "tenantHost",
      "watchdogHost",
      "workerHost"
    ].map((name) => [name, `test/fixtures/${name}.ts`])
  )
}

/** Programs that a package looks for beside its own modules. */
export const beside: ReadonlyArray<string> = [
  "packages/platform-posix/src/sweeper.ts",
  "packages/platform-posix/src/watchdog.ts"
]

/** What Node has to be given to run one of `sources`. */
export const program = (name: string): string => {
  if (sources[name] === undefined) throw new Error(`${name} is not in test/support/Programs.ts`)
  return path.join(folder, `${name}.js`)
}
