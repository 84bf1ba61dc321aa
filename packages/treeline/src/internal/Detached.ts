/** A process that outlives this one, as the system has it. */
import type { Launched } from "@treeline/core/daemon/Daemon"
import type { DetachUnavailable, LaunchError } from "@treeline/core/Errors"
import * as NodeDetached from "@treeline/platform-node/NodeDetached"
import * as Effect from "effect/Effect"

const windows = Effect.promise(() => import("@treeline/platform-windows/WindowsDetached"))

/** Starts it. On Windows it is refused where a job would end it with this process. */
export const launch = (options: NodeDetached.Options): Effect.Effect<Launched, DetachUnavailable | LaunchError> =>
  process.platform === "win32"
    ? Effect.flatMap(windows, ({ launch }) => launch(options))
    : NodeDetached.launch(options)

/** Why what this process starts, or what has just been started to live on, would not; undefined when it would. */
export const unavailable: Effect.Effect<string | undefined> = process.platform === "win32"
  ? Effect.map(windows, ({ unavailable }) => unavailable())
  : Effect.undefined
