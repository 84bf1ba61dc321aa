/** The standard input of one child: what the client writes, in its order, each answered when it was taken. */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import { InputClosed, LimitReached } from "../SidecarProtocol.ts"

/** Bytes that wait in all inputs of a session, and how many may. */
export interface Waiting {
  bytes: number
  readonly most: number
}

interface Item {
  /** None for the end of the input. */
  readonly bytes: Uint8Array | undefined
  readonly taken: Deferred.Deferred<void, InputClosed>
}

export class SidecarInput {
  private readonly process: number
  private readonly waiting: Waiting
  private queue: Array<Item> = []
  /** Given to the pipe, which has not asked for more since. */
  private given: Item | undefined = undefined
  private closed: InputClosed["reason"] | undefined = undefined
  private readonly more = Latch.makeUnsafe(false)

  constructor(process: number, waiting: Waiting) {
    this.process = process
    this.waiting = waiting
  }

  private refuse(reason: InputClosed["reason"]): InputClosed {
    return new InputClosed({ process: this.process, reason })
  }

  /** Completes when the pipe has taken the bytes, and when it is closed where that is asked. */
  write(bytes: Uint8Array, end: boolean): Effect.Effect<void, InputClosed | LimitReached> {
    return Effect.suspend((): Effect.Effect<void, InputClosed | LimitReached> => {
      if (this.closed !== undefined) return Effect.fail(this.refuse(this.closed))
      const { most } = this.waiting
      if (this.waiting.bytes + bytes.length > most) return Effect.fail(new LimitReached({ limit: "input", most }))
      this.waiting.bytes += bytes.length
      const taken = Deferred.makeUnsafe<void, InputClosed>()
      if (bytes.length > 0 || !end) this.queue.push({ bytes, taken })
      if (end) {
        this.queue.push({ bytes: undefined, taken })
        this.closed = "Closed"
      }
      this.more.openUnsafe()
      return Deferred.await(taken)
    })
  }

  private settle(outcome: Effect.Effect<void, InputClosed>): void {
    const item = this.given
    this.given = undefined
    if (item === undefined) return
    this.waiting.bytes -= item.bytes?.length ?? 0
    // With an end after it, the bytes are not answered alone.
    if (this.queue[0]?.taken !== item.taken) Deferred.doneUnsafe(item.taken, outcome)
  }

  private next(): Effect.Effect<[Uint8Array], Cause.Done> {
    return Effect.suspend(() => {
      if (this.given?.bytes !== undefined) this.settle(Effect.void)
      const item = this.queue.shift()
      if (item === undefined) {
        this.more.closeUnsafe()
        return Effect.andThen(this.more.await, Effect.suspend(() => this.next()))
      }
      this.given = item
      return item.bytes === undefined ? Cause.done() : Effect.succeed([item.bytes])
    })
  }

  /** Writes until the input is closed, nobody reads it any more, or this is interrupted. */
  run<E>(sink: Sink.Sink<void, Uint8Array, never, E>): Effect.Effect<void> {
    return Stream.run(Stream.fromPull(Effect.succeed(this.next())), sink).pipe(
      Effect.onExit((exit) =>
        Effect.sync(() => {
          this.settle(exit._tag === "Success" ? Effect.void : Effect.fail(this.refuse("Gone")))
          this.closed ??= "Gone"
          for (const item of this.queue) {
            this.waiting.bytes -= item.bytes?.length ?? 0
            Deferred.doneUnsafe(item.taken, Effect.fail(this.refuse("Gone")))
          }
          this.queue = []
        })
      ),
      Effect.ignore
    )
  }
}
