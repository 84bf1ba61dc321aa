/** Events for everybody who listens, and the last ones for those who come late. */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

/** Somebody who is told of events, and that there will be no more. Called synchronously, must not throw. */
export interface Listener<A> {
  readonly onEvent: (event: A) => void
  readonly onOver: () => void
}

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
