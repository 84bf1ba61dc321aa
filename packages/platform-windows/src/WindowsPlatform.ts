/**
 * `ProcessPlatform` for Windows. Job objects are not built yet, so every launch is refused, typed; nothing is started
 * that could not be ended.
 */
import { ContainmentUnavailable } from "@treeline/core/Errors"
import * as ProcessPlatform from "@treeline/core/ProcessPlatform"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"

const reason = "the Windows platform is not built yet; see the README for the systems that are supported"

/** Refuses every launch with `ContainmentUnavailable`. */
export const layer: Layer.Layer<ProcessPlatform.ProcessPlatform> = Layer.succeed(
  ProcessPlatform.ProcessPlatform,
  ProcessPlatform.ProcessPlatform.of({
    launch: (_command, options) =>
      Effect.fail(new ContainmentUnavailable({ required: options?.require ?? "group", available: null, reason })),
    containment: Effect.succeed({
      platform: "win32",
      level: "group",
      highest: "group",
      mechanisms: [{ name: "job object", available: false, detail: reason }],
      raise: reason
    }),
    find: () => Effect.succeed(Option.none()),
    processes: Effect.succeed([]),
    clock: Effect.succeed(Clock.Clock.defaultValue()),
    network: undefined
  })
)
