/**
 * `ProcessPlatform` for the system that the program runs on.
 */
import type * as ProcessPlatform from "@treeline/core/ProcessPlatform"
import * as PosixPlatform from "@treeline/platform-posix/PosixPlatform"
import * as WindowsPlatform from "@treeline/platform-windows/WindowsPlatform"
import type * as Layer from "effect/Layer"

/** Options of the POSIX platform; of these `engine` is for Windows too. */
export type Options = PosixPlatform.Options

/** The platform with options of its own. */
export const layerWith = (options: Options): Layer.Layer<ProcessPlatform.ProcessPlatform> =>
  process.platform === "win32"
    ? WindowsPlatform.layerWith({ engine: options.engine })
    : PosixPlatform.layerWith(options)

/**
 * The platform as this system offers it.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { ChildProcess } from "effect/process"
 * import { strictEqual } from "node:assert"
 * import { ExitStatus, ProcessPlatform, Treeline } from "treeline"
 *
 * const program = Effect.gen(function*() {
 *   const platform = yield* ProcessPlatform.ProcessPlatform
 *   const tree = yield* platform.launch(ChildProcess.make("sh", ["-c", "exit 3"]))
 *   return yield* tree.exited
 * })
 * const status = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Treeline.layer)))
 * strictEqual(ExitStatus.describe(status), "exited with code 3")
 * ```
 */
export const layer: Layer.Layer<ProcessPlatform.ProcessPlatform> = layerWith({})
