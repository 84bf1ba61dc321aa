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

/** The native engine where it can be had, else the portable one; `doctor` says which and why. */
const engineOf = (options: Options): Effect.Effect<Engine, never, Scope.Scope> => {
  const portable = options.engine === "portable" || options.table === "ps" || options.tag === false
  const native = portable ? undefined : LinuxEngine.make(options)
  return native ?? PortableEngine.make(options)
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
