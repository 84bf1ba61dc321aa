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

/** How something ended: by itself, or because a signal asked for it. */
export type Outcome<A> = { readonly _tag: "Done"; readonly value: A } | {
  readonly _tag: "Asked"
  readonly signal: NodeJS.Signals
}

/** Those that ask for the end. */
export const endings = signals(["SIGHUP", "SIGINT", "SIGTERM"])

/** Runs something until it is done or a signal asks for its end; then it is interrupted, and what it ends with is awaited. */
export const untilAsked = <A, E, R>(
  body: Effect.Effect<A, E, R>,
  asked: Effect.Effect<Queue.Dequeue<NodeJS.Signals>> = endings
): Effect.Effect<Outcome<A>, E, R> =>
  Effect.flatMap(asked, (incoming) =>
    Effect.raceFirst(
      Effect.map(body, (value): Outcome<A> => ({ _tag: "Done", value })),
      Effect.map(Queue.take(incoming), (signal): Outcome<A> => ({ _tag: "Asked", signal }))
    ))
