/**
 * `ProcessPlatform` for Linux, macOS and other POSIX systems.
 */
import type { Engine } from "@treeline/core/Engine"
import * as ProcessPlatform from "@treeline/core/ProcessPlatform"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Options } from "./internal/Options.ts"
import * as LinuxEngine from "./LinuxEngine.ts"
import * as PortableEngine from "./PortableEngine.ts"

/** See the fields; everything has a default. */
export type { Options }

/** Why the portable engine was chosen although there may be a native one; undefined when it was not. */
const whyPortable = (options: Options): string | undefined => {
  const wanted = options.engine ?? process.env["TREELINE_ENGINE"]
  if (wanted === "portable") return "the portable engine was asked for"
  return options.table === "ps" || options.tag === false ? "an option is for the portable engine only" : undefined
}

/** The native engine where it can be had, else the portable one; its report says why. */
const engineOf = (options: Options): Effect.Effect<Engine, never, Scope.Scope> => {
  const reason = whyPortable(options) ?? LinuxEngine.unavailable()
  return reason === undefined ? LinuxEngine.make(options) : PortableEngine.make(options, reason)
}

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
  Layer.effect(ProcessPlatform.ProcessPlatform, Effect.map(engineOf(options), ProcessPlatform.make))

/** The platform as this system offers it. Its guardian starts with the first launch and ends with the layer. */
export const layer: Layer.Layer<ProcessPlatform.ProcessPlatform> = layerWith({})
