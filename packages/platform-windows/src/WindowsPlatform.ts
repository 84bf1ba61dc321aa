/**
 * `ProcessPlatform` for Windows: each tree in a job object.
 */
import * as ProcessPlatform from "@treeline/core/ProcessPlatform"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Options } from "./internal/Options.ts"
import * as JobEngine from "./JobEngine.ts"
import * as PortableEngine from "./PortableEngine.ts"

/** See the fields; everything has a default. */
export type { Options }

/** Why there are no job objects; undefined when there are. */
const whyPortable = (options: Options): string | undefined =>
  (options.engine ?? process.env["TREELINE_ENGINE"]) === "portable"
    ? "the engine without native code was asked for"
    : JobEngine.unavailable()

/**
 * The platform with options of its own.
 *
 * @example
 * ```ts
 * import type { ProcessPlatform } from "@treeline/core"
 * import { WindowsPlatform } from "@treeline/platform-windows"
 * import type { Layer } from "effect"
 *
 * const layer: Layer.Layer<ProcessPlatform.ProcessPlatform> = WindowsPlatform.layerWith({ withoutJobs: "group" })
 * if (layer === undefined) throw new Error("no layer")
 * ```
 */
export const layerWith = (options: Options): Layer.Layer<ProcessPlatform.ProcessPlatform> =>
  Layer.effect(
    ProcessPlatform.ProcessPlatform,
    Effect.suspend(() => {
      const reason = whyPortable(options)
      return Effect.map(
        reason === undefined ? JobEngine.make : Effect.succeed(PortableEngine.make(options, reason)),
        ProcessPlatform.make
      )
    })
  )

/** The platform as this system offers it: job objects, or a refusal of every launch that could leave something behind. */
export const layer: Layer.Layer<ProcessPlatform.ProcessPlatform> = layerWith({})
