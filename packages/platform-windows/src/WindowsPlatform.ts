/**
 * `ProcessPlatform` for Windows: each tree in a job object, level `sealed`. Whatever a process of it starts is in the
 * job, also `detached`, and the kernel ends all of it with the job's last handle: at the close, or with the host. No
 * member may break away: a program that asks for it with CREATE_BREAKAWAY_FROM_JOB fails to start that child.
 *
 * - Signals: SIGTERM and SIGBREAK are Ctrl+Break, SIGINT is Ctrl+C, for everything on the consoles of the tree; SIGKILL
 *   terminates. All others are delivered to nobody. Each tree has a console of its own without a window, so nobody else
 *   gets the event. A tree that shares the host's console (`session: "shared"`, or an inherited console) gets none.
 *   Events are sent by a helper that `process.execPath` runs: where that is not Node, as in a single executable
 *   application, none is delivered, and `containment` says so.
 * - Exit: `Signaled` by SIGKILL where this host ended it, `Terminated` where the code is an NTSTATUS such as 0xC0000005,
 *   else `Exited`.
 * - Programs are looked for in the child's PATH by its PATHEXT, not in the working directory. Batch files are run by the
 *   system's cmd.exe with arguments that can't become commands; scripts with an interpreter are refused, `NotExecutable`.
 * - `limits` are the job's: beyond `memory` an allocation fails, beyond `processes` a start.
 * - A descriptor for both directions is overlapped at the child's end, because a blocking one could not do both at once.
 *
 * Tested under Wine, which has no Ctrl+Break (Ctrl+C is sent in its place), keeps no limit of a job and does not let a
 * breakaway fail: these three, and exit codes after console events, come from Microsoft's documentation.
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
      const withoutJobs = (reason: string) => PortableEngine.make(options, reason)
      const reason = whyPortable(options)
      return Effect.map(
        reason === undefined ? JobEngine.make(withoutJobs) : Effect.succeed(withoutJobs(reason)),
        ProcessPlatform.make
      )
    })
  )

/** The platform as this system offers it: job objects, or a refusal of every launch that could leave something behind. */
export const layer: Layer.Layer<ProcessPlatform.ProcessPlatform> = layerWith({})
