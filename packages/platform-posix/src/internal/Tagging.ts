/**
 * How the tag is put on a child without native code: a tiny program sets the limit and then becomes the command.
 *
 * `prlimit` (util-linux) leaves the environment as it is and is preferred; a shell does the same everywhere, but some
 * drop variables whose names are no identifiers and add PWD. Which one works is tried once.
 */
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as ProcTable from "./ProcTable.ts"

/** Wraps a command so that it starts with the tag. */
export interface Tagger {
  readonly name: string
  readonly wrap: (
    tag: string,
    file: string,
    args: ReadonlyArray<string>,
    env: Readonly<Record<string, string | undefined>>
  ) => { readonly file: string; readonly args: ReadonlyArray<string> }
}

const prlimit = (path: string): Tagger => ({
  name: path,
  wrap: (tag, file, args) => ({ file: path, args: [`--locks=${tag}:`, "--", file, ...args] })
})

/** Variables that shells set by themselves. */
export const shellVariables = ["PWD", "OLDPWD", "SHLVL", "_"]

const shell = (path: string): Tagger => ({
  name: path,
  wrap: (tag, file, args, env) => {
    const added = shellVariables.filter((name) => env[name] === undefined)
    const script = `ulimit -S -x ${tag} 2>/dev/null || ulimit -S -w ${tag}; ${
      added.length > 0 ? `unset ${added.join(" ")}; ` : ""
    }exec "$@"`
    return { file: path, args: ["-c", script, "sh", file, ...args] }
  }
})

const works = (tagger: Tagger): boolean => {
  const tag = "7999999999990000001"
  const { args, file } = tagger.wrap(tag, "/bin/cat", ["/proc/self/limits"], {})
  const result = child_process.spawnSync(file, args, { encoding: "utf8", timeout: 5000, env: {} })
  return result.status === 0 && ProcTable.parseLocks(result.stdout) === tag
}

/** The first tagger that works here; undefined where the limit can't be set (gVisor, a lowered hard limit, not Linux). */
export const detect = (sh: string): Tagger | undefined => {
  if (!ProcTable.isAvailable()) return undefined
  const paths = ["/usr/bin/prlimit", "/bin/prlimit"].filter((path) => fs.existsSync(path))
  return [...paths.slice(0, 1).map(prlimit), shell(sh)].find(works)
}
