/**
 * Services with their logs and pools, and everything that somebody may want of them while they run: what `treeline up`
 * shows, and what the control API asks for.
 */
import type * as Effect from "effect/Effect"
import type * as ChildProcess from "effect/process/ChildProcess"
import type * as Stream from "effect/Stream"
import type { SignalReport } from "../Engine.ts"
import type {
  InvalidConfig,
  InvalidSpec,
  IntensityExceeded,
  NotRunning,
  ReopenFailed,
  UnknownChild
} from "../Errors.ts"
import type * as Pool from "../Pool.ts"
import type { Target } from "../ShutdownPlan.ts"
import type { SupervisorEnd } from "../Supervisor.ts"
import type { HostEvent, HostStatus, Progress } from "./HostStatus.ts"
import type { Logs } from "./Logs.ts"

/** Names of services and groups; none means all services. */
export type Names = ReadonlyArray<string>

/**
 * Services that run. The operations that take time are streams: they begin when the stream is run, tell how far they are,
 * and end with `Done`. What was begun goes to its end when nobody reads any more. Names are checked first; an unknown one
 * fails with `UnknownChild`, and nothing is done.
 */
export interface ServiceHost {
  /** A snapshot; never waits for anything, also not for a slow start. */
  readonly status: Effect.Effect<HostStatus>
  /** The last events and then all that come; a reader that is slower than 1,024 events loses the oldest. */
  readonly events: Stream.Stream<HostEvent>
  readonly logs: Logs
  /** By their names; a reload may add and remove some. */
  readonly pools: Effect.Effect<ReadonlyMap<string, Pool.Pool<void, InvalidSpec>>>
  /** Starts them in their order, and is done when they are up or have failed. */
  readonly start: (names: Names) => Stream.Stream<Progress, UnknownChild>
  /** Ends them, those that depend on others first. */
  readonly stop: (names: Names) => Stream.Stream<Progress, UnknownChild>
  readonly restart: (names: Names) => Stream.Stream<Progress, UnknownChild>
  /** No restarts and no probes; what runs goes on. With no names it holds for services that are added later, too. */
  readonly pause: (names: Names) => Effect.Effect<void, UnknownChild>
  readonly resume: (names: Names) => Effect.Effect<void, UnknownChild>
  readonly signal: (
    name: string,
    signal: ChildProcess.Signal,
    target?: Target
  ) => Effect.Effect<SignalReport, UnknownChild | NotRunning>
  /** Reads the configuration anew and applies the difference. One that can't be used changes nothing. */
  readonly reload: Stream.Stream<Progress, InvalidConfig | InvalidSpec>
  /** Opens the log files anew. */
  readonly reopenLogs: Effect.Effect<void, ReopenFailed>
  /** Ends all services and pools, and the host with them; `force` kills, also while an orderly end is going on. */
  readonly shutdown: (options?: { readonly force?: boolean | undefined }) => Stream.Stream<Progress>
  /** Waits for the end of all. */
  readonly awaitEnd: Effect.Effect<SupervisorEnd, IntensityExceeded>
}
