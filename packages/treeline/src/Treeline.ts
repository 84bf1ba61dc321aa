/**
 * `ProcessPlatform` for the system that the program runs on.
 */
import type * as ProcessPlatform from "@treeline/core/ProcessPlatform"
import type * as PosixPlatform from "@treeline/platform-posix/PosixPlatform"
import type * as WindowsPlatform from "@treeline/platform-windows/WindowsPlatform"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** Options of both platforms; each takes those that it knows. */
export type Options = PosixPlatform.Options & WindowsPlatform.Options

/** The platform with options of its own. Only the one for this system is loaded. */
export const layerWith = (options: Options): Layer.Layer<ProcessPlatform.ProcessPlatform> =>
  Layer.unwrap(
    process.platform === "win32"
      ? Effect.map(
        Effect.promise(() => import("@treeline/platform-windows/WindowsPlatform")),
        (platform) => platform.layerWith(options)
      )
      : Effect.map(
        Effect.promise(() => import("@treeline/platform-posix/PosixPlatform")),
        (platform) => platform.layerWith(options)
      )
  )

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
