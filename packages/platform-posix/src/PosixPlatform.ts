/**
 * `ProcessPlatform` for Linux, macOS and other POSIX systems.
 */
import * as ProcessPlatform from "@treeline/core/ProcessPlatform"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PortableEngine from "./PortableEngine.ts"

/** See the fields; everything has a default. */
export type Options = PortableEngine.Options

/**
 * The platform with options of its own.
 *
 * @example
 * ```ts
 * import { ProcessPlatform } from "@treeline/core"
 * import { PosixPlatform } from "@treeline/platform-posix"
 * import { Effect } from "effect"
 *
 * const layer = PosixPlatform.layerWith({ hostDeathGrace: 2000 })
 * const containment = ProcessPlatform.ProcessPlatform.use((platform) => platform.containment)
 * const report = await Effect.runPromise(containment.pipe(Effect.provide(layer)))
 * if (report.mechanisms.length === 0) throw new Error("no mechanism")
 * ```
 */
export const layerWith = (options: Options): Layer.Layer<ProcessPlatform.ProcessPlatform> =>
  Layer.effect(ProcessPlatform.ProcessPlatform, Effect.map(PortableEngine.make(options), ProcessPlatform.make))

/** The platform as this system offers it. Its guardian starts with the first launch and ends with the layer. */
export const layer: Layer.Layer<ProcessPlatform.ProcessPlatform> = layerWith({})
