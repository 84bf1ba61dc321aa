/**
 * What waits to be written to one connection. Answers are put into it without waiting, so that no end of a request ever
 * hangs at a client; whoever would go on producing waits until it is empty.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Socket from "effect/socket/Socket"

export class Outbox {
  private waiting: Array<string> = []
  private readonly some = Latch.makeUnsafe(false)
  private readonly none = Latch.makeUnsafe(true)
  private open = true

  /** Dropped when the connection is over. */
  post(text: string): void {
    if (!this.open) return
    this.waiting.push(text)
    this.none.closeUnsafe()
    this.some.openUnsafe()
  }

  /** Waits until the peer has taken so much that nothing waits. */
  readonly empty: Effect.Effect<void> = this.none.await

  /** Nothing is taken any more; what waits can still be written. */
  close(): void {
    this.open = false
  }

  /** Writes all that comes; ends when the peer has not taken what there was within `limit` ms, and when it is gone. */
  run(writer: Socket.Writer, limit: number): Effect.Effect<"stuck" | "lost"> {
    return Effect.gen({ self: this }, function*() {
      while (true) {
        yield* this.some.await
        const batch = this.waiting.join("")
        this.waiting = []
        this.some.closeUnsafe()
        const outcome = yield* writer.write(batch).pipe(
          Effect.as("taken" as const),
          Effect.catch(() => Effect.succeed("lost" as const)),
          Effect.timeoutOrElse({ duration: limit, orElse: () => Effect.succeed("stuck" as const) })
        )
        if (outcome !== "taken") return outcome
        if (this.waiting.length === 0) this.none.openUnsafe()
      }
    })
  }
}
