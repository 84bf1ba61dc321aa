/**
 * Versions of a program, of which one is current.
 *
 * A version is a folder that is named by the digest of its content and is there whole or not at all. Which one is current
 * is switched in one step, so at every instant, also after a death in the middle of anything, it is a whole one or none
 * was ever there.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import { LaunchError, type ManagedInstallError, ManagedProgramUnusable, type UpdateFetchFailed } from "../Errors.ts"
import * as ExitStatus from "../ExitStatus.ts"
import * as Tail from "../internal/Tail.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import type { Launched } from "./Daemon.ts"

/**
 * Fills a fresh, empty folder with the content of a version; see `UpdateFetch`. It may be interrupted, and then must leave
 * nothing that still writes there.
 */
export type Fetch = (directory: string) => Effect.Effect<void, UpdateFetchFailed, ProcessPlatform>

/** A version that is there. */
export interface Version {
  /** From the digest of its content. */
  readonly id: string
  /** Its folder, no link in the path. */
  readonly path: string
}

/** A program of the current version. */
export interface Program {
  /** The version that was current when this was asked. */
  readonly id: string
  /** The file, links resolved, so that it stays the same when another version becomes current (seed C22). */
  readonly path: string
}

/** Where versions are kept. */
export interface ManagedInstall {
  /** Where it is, for people. */
  readonly path: string
  /** The version that is current; none when none ever was. */
  readonly current: Effect.Effect<Option.Option<Version>, ManagedInstallError>
  /** The ids of all versions that are there, sorted. */
  readonly versions: Effect.Effect<ReadonlyArray<string>, ManagedInstallError>
  /** Fetches a version and keeps it whole, or nothing of it. Content that is there already is not kept twice. */
  readonly stage: (
    fetch: Fetch
  ) => Effect.Effect<Version, ManagedInstallError | UpdateFetchFailed, ProcessPlatform>
  /** Makes a version current in one step. It must be there. */
  readonly switchTo: (id: string) => Effect.Effect<void, ManagedInstallError>
  /** Removes all versions but the current one and these, and what dead processes have left; tells what was removed. */
  readonly prune: (keep: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>, ManagedInstallError>
  /** Removes what dead processes have left of their staging. */
  readonly sweep: Effect.Effect<void, ManagedInstallError>
  /** The file of a program in a version: a regular file inside it that this user may run. */
  readonly locate: (id: string, program: string) => Effect.Effect<string, ManagedInstallError | ManagedProgramUnusable>
  /** The version that a file, links resolved, is of; none when it is not in this install. */
  readonly versionOf: (file: string) => Option.Option<string>
}

/** How long a program may take to tell its version, in ms. */
export const answerWithin = 5000

/** The longest line that is read for a version, in characters. */
const longestLine = 256

/**
 * The first thing in a line that looks like a version: numbers with dots between them, and what may follow them by
 * semver.org. Undefined for more than one line, none, or a line without (seed C17).
 *
 * @example
 * ```ts
 * import { ManagedInstall } from "@treeline/core/daemon"
 * import { deepStrictEqual } from "node:assert"
 *
 * const texts = ["treeline 0.1.0\n", "app_server/1.2.3-beta.1 (Linux 6.1)", "usage: app", "1.0.0\n2.0.0\n"]
 * deepStrictEqual(texts.map(ManagedInstall.parseVersion), ["0.1.0", "1.2.3-beta.1", undefined, undefined])
 * ```
 */
export const parseVersion = (text: string): string | undefined => {
  const lines = text.split(/\r?\n/)
  if (lines.at(-1) === "") lines.pop()
  const [line = ""] = lines
  if (lines.length !== 1 || line.length > longestLine) return undefined
  return /(?<![\w.])v?(\d+(?:\.\d+)+(?:-[0-9A-Za-z]+(?:[.-][0-9A-Za-z]+)*)?(?:\+[0-9A-Za-z.-]*[0-9A-Za-z])?)(?![\w.])/
    .exec(line)?.[1]
}

/** What `check` has found. */
export interface Checked extends Program {
  /** As the program tells it. */
  readonly version: string
}

/**
 * Whether a version can be used: its program is there, may be run, and answers `--version` with one line within 5 s. It is
 * run as a contained tree, of which nothing is left.
 */
export const check = Effect.fn("ManagedInstall.check")(function*(
  install: ManagedInstall,
  id: string,
  program: string
): Effect.fn.Return<Checked, ManagedInstallError | ManagedProgramUnusable, ProcessPlatform> {
  const path = yield* install.locate(id, program)
  const platform = yield* ProcessPlatform
  const clock = yield* platform.clock
  const unusable = (reason: ManagedProgramUnusable["reason"], detail: string) =>
    new ManagedProgramUnusable({ program: path, reason, detail })
  return yield* Effect.scoped(Effect.gen(function*() {
    const tree = yield* platform.launch(ChildProcess.make(path, ["--version"], { stdin: "ignore" }), {
      shutdown: ShutdownPlan.kill,
      whenLeaderEnds: "end"
    }).pipe(Effect.mapError((error) => unusable("NotStarted", error.message)))
    const ended = yield* Effect.raceFirst(
      Effect.tap(tree.exited, () => tree.drained),
      Effect.as(clock.sleep(Duration.millis(answerWithin)), undefined)
    )
    if (ended === undefined) return yield* unusable("NoAnswer", `--version was not answered within ${answerWithin} ms`)
    if (!ExitStatus.isSuccess(ended)) {
      return yield* unusable(
        "Failed",
        `--version: ${ExitStatus.describe(ended)}\n${yield* Tail.ofTree(tree)}`.trimEnd()
      )
    }
    const text = Tail.lastLines(yield* tree.stdout.tail, 2 * longestLine, true)
    const version = parseVersion(text)
    if (version === undefined) {
      const said = JSON.stringify(text.slice(0, longestLine))
      return yield* unusable("NoVersion", `--version was answered with ${said}`)
    }
    return { id, path, version }
  }))
})

/**
 * The program of the version that is current now. A start asks for it when it has its turn, not before: what is current may
 * have been switched while it waited (seed C29).
 */
export const resolve = Effect.fn("ManagedInstall.resolve")(function*(
  install: ManagedInstall,
  program: string
): Effect.fn.Return<Program, ManagedInstallError | ManagedProgramUnusable> {
  const current = yield* install.current
  if (current._tag === "None") {
    return yield* new ManagedProgramUnusable({
      program,
      reason: "NothingInstalled",
      detail: `${install.path} has no version yet`
    })
  }
  const { id } = current.value
  return { id, path: yield* install.locate(id, program) }
})

/**
 * A `Daemon.launch` that starts the program of the version that is current then, links resolved (seeds C22, C29).
 *
 * @example
 * ```ts no-run
 * import { type Daemon, ManagedInstall } from "@treeline/core/daemon"
 * import { NodeDetached, type NodeManagedInstall } from "@treeline/platform-node"
 *
 * declare const install: ReturnType<typeof NodeManagedInstall.make>
 * export const launch: Daemon.Daemon["launch"] = ManagedInstall.launcher(install, "bin/app", ({ path }, variables) =>
 *   NodeDetached.launch({ command: path, args: ["serve"], env: { ...process.env, ...variables }, output: "/tmp/app.err" })
 * )
 * ```
 */
export const launcher = <E>(
  install: ManagedInstall,
  program: string,
  launch: (program: Program, variables: Readonly<Record<string, string>>) => Effect.Effect<Launched, E>
) =>
(variables: Readonly<Record<string, string>>): Effect.Effect<Launched, E | LaunchError> =>
  Effect.flatMap(
    Effect.mapError(
      resolve(install, program),
      ({ message }) => new LaunchError({ command: program, reason: "NotFound", detail: message })
    ),
    (resolved) => launch(resolved, variables)
  )
