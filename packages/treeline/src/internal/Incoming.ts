/** Signals to this process, as a queue. */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"

/** Signals that wait to be taken; one that comes when so many wait says nothing new. */
const capacity = 64

/**
 * From now until the end of this process these signals come in here and have no other effect: a Ctrl-C more while the
 * command is ending must not change how it ends. `Ending.end` takes back the one that it ends by.
 */
export const signals = (names: ReadonlyArray<NodeJS.Signals>): Effect.Effect<Queue.Dequeue<NodeJS.Signals>> =>
  Effect.map(Queue.dropping<NodeJS.Signals>(capacity), (queue) => {
    for (const name of names) process.on(name, () => void Queue.offerUnsafe(queue, name))
    return queue
  })
