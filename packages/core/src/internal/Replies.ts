/** Those who wait for the same answer. Bounded by those who still wait: one who was interrupted is not kept. */
import * as Deferred from "effect/Deferred"
import type * as Exit from "effect/Exit"

export class Replies<A, E> {
  private waiting: Array<Deferred.Deferred<A, E>> = []

  get size(): number {
    return this.waiting.length
  }

  add(reply: Deferred.Deferred<A, E>): void {
    this.waiting = this.waiting.filter((other) => !Deferred.isDoneUnsafe(other))
    if (!Deferred.isDoneUnsafe(reply)) this.waiting.push(reply)
  }

  answer(exit: Exit.Exit<A, E>): void {
    const answered = this.waiting
    this.waiting = []
    for (const reply of answered) Deferred.doneUnsafe(reply, exit)
  }
}
