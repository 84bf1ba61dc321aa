/** How a version gets into its folder: a fetch step, see `ManagedInstall.Fetch`. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as ChildProcess from "effect/process/ChildProcess"
import * as Process from "effect/process/ChildProcess"
import { type InvalidSpec, UpdateFetchFailed } from "../Errors.ts"
import * as ExitStatus from "../ExitStatus.ts"
import * as Tail from "../internal/Tail.ts"
import { millis } from "../internal/Time.ts"
import { ProcessPlatform } from "../ProcessPlatform.ts"
import type { Fetch } from "./ManagedInstall.ts"

export interface CommandOptions {
  /** How long it may take. Default: 10 minutes. */
  readonly within?: Duration.Input | undefined
}

/**
 * Fetches by a command, in the fresh folder as its working directory: what it leaves there is the version, byte for byte.
 *
 * It runs as a contained tree: the command and all that it has started end with it, after `within`, and when the fetch is
 * interrupted (seed C26). A code other than 0 is a failure (seed C16). No shell is used unless the command asks for one.
 *
 * @example
 * ```ts
 * import { UpdateFetch } from "@treeline/core/daemon"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect } from "effect"
 * import { ChildProcess } from "effect/process"
 * import { strictEqual } from "node:assert"
 * import * as fs from "node:fs"
 * import * as os from "node:os"
 * import * as path from "node:path"
 *
 * const directory = fs.mkdtempSync(path.join(os.tmpdir(), "version-"))
 * const program = Effect.gen(function*() {
 *   const fetch = yield* UpdateFetch.command(ChildProcess.make("sh", ["-c", "echo 1.2.3 > version"]), { within: "1 minute" })
 *   yield* fetch(directory)
 * })
 * await Effect.runPromise(Effect.provide(program, PosixPlatform.layer))
 * strictEqual(fs.readFileSync(path.join(directory, "version"), "utf8"), "1.2.3\n")
 * fs.rmSync(directory, { recursive: true })
 * ```
 */
export const command = (
  given: ChildProcess.StandardCommand,
  options: CommandOptions = {}
): Effect.Effect<Fetch, InvalidSpec> =>
  Effect.map(
    Effect.fromResult(millis("within", options.within ?? "10 minutes")),
    (within) => (directory) =>
      Effect.scoped(Effect.gen(function*() {
        const platform = yield* ProcessPlatform
        const clock = yield* platform.clock
        const failed = (
          reason: UpdateFetchFailed["reason"],
          more: Partial<Pick<UpdateFetchFailed, "status" | "detail" | "outputTail">>
        ) =>
          new UpdateFetchFailed({
            command: given.command,
            reason,
            within,
            status: null,
            detail: "",
            outputTail: "",
            ...more
          })
        const inFolder = Process.make(given.command, given.args, { stdin: "ignore", ...given.options, cwd: directory })
        const tree = yield* platform.launch(inFolder, { whenLeaderEnds: "end" }).pipe(
          Effect.mapError(({ message }) => failed("NotStarted", { detail: message }))
        )
        const ended = yield* Effect.raceFirst(
          Effect.tap(tree.exited, () => tree.drained),
          Effect.as(clock.sleep(Duration.millis(within)), undefined)
        )
        if (ended === undefined) {
          yield* Effect.ignore(tree.shutdown())
          return yield* failed("TimedOut", { outputTail: yield* Tail.ofTree(tree) })
        }
        if (!ExitStatus.isSuccess(ended)) {
          return yield* failed("Exited", { status: ended, outputTail: yield* Tail.ofTree(tree) })
        }
      }))
  )
