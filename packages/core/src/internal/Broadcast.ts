/** Events for everybody who listens, and the last ones for those who come late. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

/** Somebody who is told of events, and that there will be no more. Called synchronously, must not throw. */
export interface Listener<A> {
  readonly onEvent: (event: A) => void
  readonly onOver: () => void
}

/** A listener of a user; it is called in the middle of a transition, which its errors must not end. */
export const guarded = <A>(listener: (event: A) => void, services: Context.Context<never>): Listener<A> => ({
  onEvent: (event) => {
    try {
      listener(event)
    } catch (error) {
      Effect.runForkWith(services)(Effect.logError("a listener of events has thrown", error))
    }
  },
  onOver: () => {}
})

export class Broadcast<A> {
  private readonly kept: number
  private readonly history: Array<A> = []
  private readonly listeners = new Set<Listener<A>>()
  private over = false

  /** `kept`: how many past events a late listener is given. */
  constructor(kept: number) {
    this.kept = kept
  }

  publish(event: A): void {
    this.history.push(event)
    if (this.history.length > this.kept) this.history.shift()
    for (const listener of this.listeners) listener.onEvent(event)
  }

  /** The last events. */
  get recent(): ReadonlyArray<A> {
    return [...this.history]
  }

  /** The last events, and from now on each new one, until it is over; returns how to stop listening. */
  listen(listener: Listener<A>): () => void {
    for (const event of this.history) listener.onEvent(event)
    if (this.over) listener.onOver()
    else this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  end(): void {
    this.over = true
    for (const listener of this.listeners) listener.onOver()
    this.listeners.clear()
  }

  /** What a listener puts into a queue; a reader for whom `capacity` elements wait loses the oldest. */
  streamOf<B>(capacity: number, listener: (queue: Queue.Enqueue<B>) => (event: A) => void): Stream.Stream<B> {
    return Stream.callback<B>(
      (queue) =>
        Effect.acquireRelease(
          Effect.sync(() => this.listen({ onEvent: listener(queue), onOver: () => void Queue.endUnsafe(queue) })),
          (stop) => Effect.sync(stop)
        ),
      { bufferSize: capacity, strategy: "sliding" }
    )
  }

  stream(capacity: number): Stream.Stream<A> {
    return this.streamOf<A>(capacity, (queue) => (event) => void Queue.offerUnsafe(queue, event))
  }
}
