/**
 * A systemd of the test's own, as a user's: in a private mount namespace, where /run says that the system was booted with
 * systemd, and below a control group of its own. Needs root and a control group that can be written.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { eventually } from "./Eventually.ts"
import type { Scratch } from "./Scratch.ts"
import * as Command from "./TreelineCommand.ts"

const program = "/lib/systemd/systemd"

/** Where version 2 of control groups is, by mountinfo(5): all of them, or the unified part beside version 1. */
const groups = (): string | undefined => {
  const line = fs.readFileSync("/proc/self/mountinfo", "utf8").split("\n").find((line) => / - cgroup2 /.test(line))
  return line?.split(" ")[4]
}

const canWrite = (folder: string): boolean => {
  const probe = path.join(folder, `treeline-test-probe-${process.pid}`)
  try {
    fs.mkdirSync(probe)
    fs.rmdirSync(probe)
    return true
  } catch {
    return false
  }
}

/** Why there can't be one here; undefined when there can. */
export const whyNot = (): string | undefined => {
  if (process.platform !== "linux" || !fs.existsSync(program)) return "systemd is not installed"
  if (process.getuid?.() !== 0) return "only root can have a systemd of its own"
  if (child_process.spawnSync("unshare", ["--mount", "--cgroup", "true"]).status !== 0) {
    return "unshare(1) is not allowed"
  }
  const folder = groups()
  return folder !== undefined && canWrite(folder) ? undefined : "control groups can't be written"
}

/**
 * $1 is the manager, $2 the control group. Runs each line of its input, and says how it went. Without a group of its own the
 * manager would take all processes of the machine into one, so that is looked at: the topmost has no cgroup.events.
 */
const script = `
echo $$ >"$2/cgroup.procs" || exit 1
exec unshare --mount --cgroup --propagation private sh -c '
  mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && mkdir -m 700 "$1" || exit 1
  mount -t cgroup2 cgroup2 /sys/fs/cgroup && test -e /sys/fs/cgroup/cgroup.events || exit 1
  export XDG_RUNTIME_DIR="$1" SYSTEMD_LOG_TARGET=console
  "$0" --user </dev/null >&2 &
  while read -r line; do sh -c "$line" </dev/null; echo "done $?"; done
  systemctl --user exit; wait
' "$1" /run/test`

export interface Systemd {
  /** `systemctl --user WORDS`: its exit code and what it said. */
  readonly ask: (...words: ReadonlyArray<string>) => Effect.Effect<{ readonly code: number; readonly said: string }>
  /** A property of a unit. */
  readonly property: (unit: string, name: string) => Effect.Effect<string>
}

/** Until the scope closes. Units are found below the home of the scratch folder. */
export const start = (scratch: Scratch): Effect.Effect<Systemd, never, Scope.Scope> =>
  Effect.gen(function*() {
    const group = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const folder = path.join(groups()!, `treeline-test-${process.pid}-${path.basename(scratch.directory)}`)
        fs.mkdirSync(folder)
        return folder
      }),
      (folder) =>
        Effect.ignore(eventually("its control groups are empty", () => {
          fs.writeFileSync(path.join(folder, "cgroup.kill"), "1")
          const inner = fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter((at) =>
            at.isDirectory()
          )
          const folders = inner.map(({ name, parentPath }) => path.join(parentPath, name)).toSorted().toReversed()
          try {
            for (const one of [...folders, folder]) fs.rmdirSync(one)
            return true
          } catch {
            return false // what was killed is not gone yet
          }
        }))
    )
    const shell = yield* Command.start([], {
      scratch,
      program: ["sh", "-c", script, "sh", program, group],
      sparesOthers: true
    })
    const run = (line: string) =>
      Effect.gen(function*() {
        const from = shell.stdout().length
        shell.input!.write(`${line}\n`)
        const [said, code] = yield* eventually(line, () => {
          const match = /^([^]*?)done (\d+)\n$/.exec(shell.stdout().slice(from))
          return match === null ? undefined : [match[1]!, Number(match[2])] as const
        }, { within: 20_000, detail: () => [shell.stdout(), shell.stderr()] })
        return { code, said: said.trim() }
      })
    const ask: Systemd["ask"] = (...words) => run(["systemctl", "--user", ...words, "2>&1"].join(" "))
    yield* Effect.addFinalizer(() => Effect.sync(() => shell.input!.end()))
    yield* run(
      "for i in $(seq 200); do systemctl --user is-system-running >/dev/null 2>&1 && exit 0; sleep 0.05; done; exit 1"
    )
    return {
      ask,
      property: (unit, name) => Effect.map(ask("show", unit, "-p", name, "--value"), ({ said }) => said)
    }
  })
