/** What can go wrong with a pool across machines, beside what can go wrong with a pool. */
import * as Schema from "effect/Schema"

/** The shard of a key is not this runner's for certain any more, so nothing of it may be started here. */
export class LeaseLost extends Schema.TaggedError<LeaseLost>()("LeaseLost", {
  shard: Schema.String
}) {
  override get message(): string {
    return `the shard ${this.shard} may be another runner's by now`
  }
}

/** The key is on its way to another runner: ask again, and the new one answers. */
export class KeyMoving extends Schema.TaggedError<KeyMoving>()("KeyMoving", {
  key: Schema.String,
  runner: Schema.String
}) {
  override get message(): string {
    return `${this.key} is leaving the runner ${this.runner}; ask again`
  }
}

/** A runner has no watchdog, so it must not hold shards. */
export class WatchdogUnavailable extends Schema.TaggedError<WatchdogUnavailable>()("WatchdogUnavailable", {
  reason: Schema.String
}) {
  override get message(): string {
    return `the watchdog of this host could not be started: ${this.reason}`
  }
}
