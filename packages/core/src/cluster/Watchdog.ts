/**
 * Ends this host when it can't end its own children in time.
 *
 * A host that is stopped (SIGSTOP, a debugger) or whose event loop is blocked keeps its children running, and nothing in it
 * can end them. A watchdog is a process of its own that knows a deadline. Unless the host moves it in time, it kills the
 * host, and then the host's trees end as they do whenever a host dies. Watchdog timers of machines and `WatchdogSec` of
 * systemd do the same for what they watch.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { WatchdogUnavailable } from "./Errors.ts"

/** A watchdog that runs. */
export interface Running {
  /**
   * The host is killed at this time unless it is set again before: ms of the machine's monotonic clock
   * (`Clock.monotonicTimeNanos`). Undefined: never. What was set holds when this returns, whatever becomes of the host.
   */
  readonly set: (deadline: number | undefined) => Effect.Effect<void>
}

/** Starts watchdogs; each ends with its scope, and with the host. */
export class Watchdog extends Context.Service<Watchdog, {
  readonly start: Effect.Effect<Running, WatchdogUnavailable, Scope.Scope>
}>()("@treeline/core/cluster/Watchdog") {}

/**
 * No watchdog: a host that is stopped for longer than its shards are leased goes on running the children of keys that
 * another runner has taken over. For tests, and for a host that is being debugged.
 */
export const layerNone: Layer.Layer<Watchdog> = Layer.succeed(Watchdog, {
  start: Effect.succeed({ set: () => Effect.void })
})
