/** The way from a command to the process that runs the services of a configuration. */
import * as ControlClient from "@treeline/core/daemon/ControlClient"
import { UnknownChild, UnknownPool } from "@treeline/core/Errors"
import * as NodeControl from "@treeline/platform-node/NodeControl"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as ConfigPlace from "./ConfigPlace.ts"
import { NothingRuns, UnknownName } from "./Failure.ts"

export interface Options {
  /** The configuration file that was named. */
  readonly file: string | undefined
  readonly flags: ReadonlyArray<string>
}

export interface Connection {
  readonly client: ControlClient.Client
  readonly file: string
  /** Waits, within bounds, until nobody answers any more. */
  readonly awaitGone: Effect.Effect<void>
}

/** How long the process that ran the services may take to go when all has ended, in ms. */
const goneWithin = 10_000

/** Variables that say where control is; see `daemon` of the configuration. */
const hasVariables = (): boolean => Object.keys(process.env).some((name) => name.startsWith("TREELINE_DAEMON__"))

/** How `daemon` of the configuration reads where the configuration can't: services can be ended all the same (seed C31). */
type Daemon = NonNullable<StateDirectory.Options["daemon"]>

const attempt = (file: string, daemon: Daemon) =>
  Effect.gen(function*() {
    const { control } = yield* StateDirectory.locate({ file, daemon })
    const options = yield* NodeControl.reach(control)
    const client = yield* ControlClient.make(options)
    const awaitGone = ControlClient.hello(options).pipe(
      Effect.repeat(Schedule.spaced("50 millis")),
      Effect.ignore,
      Effect.timeoutOption(goneWithin),
      Effect.asVoid
    )
    return { client, file, awaitGone }
  })

/**
 * Connects. First where control is unless the configuration says otherwise: then it need not be read at all. Fails with
 * `NothingRuns`, or with what is wrong in a configuration that might say where to look.
 */
export const open = (options: Options) =>
  Effect.gen(function*() {
    const file = yield* ConfigPlace.locate(options)
    if (options.flags.length === 0 && !hasVariables()) {
      const found = yield* attempt(file, {}).pipe(
        Effect.map((connection): Connection | undefined => connection),
        Effect.catchIf(isAbsent, () => Effect.undefined)
      )
      if (found !== undefined) return found
    }
    const ConfigFile = yield* Effect.promise(() => import("../ConfigFile.ts"))
    const { config } = yield* ConfigFile.load({ ...options, file })
    const connection: Connection = yield* attempt(file, config.daemon).pipe(
      Effect.catchIf(isAbsent, () => new NothingRuns({ file }))
    )
    return connection
  })

const isAbsent = (error: { readonly _tag: string; readonly reason?: unknown }): boolean =>
  error._tag === "ControlUnavailable" && error.reason === "NotRunning"

type Unknown = UnknownChild | UnknownPool

const isUnknown = <E>(error: E): error is Extract<E, Unknown> =>
  error instanceof UnknownChild || error instanceof UnknownPool

/** What there is instead. */
const known = (client: ControlClient.Client) => (error: Unknown) =>
  Effect.flatMap(client.status, ({ pools, services }) =>
    error._tag === "UnknownPool"
      ? new UnknownName({ kind: "pool", name: error.pool, known: pools.map(({ pool }) => pool) })
      : new UnknownName({
        kind: "service",
        name: error.child,
        known: [...new Set([...services.map(({ name }) => name), ...services.flatMap(({ groups }) => groups)])]
      }))

/** An effect over names of services or pools: of an unknown one it says what there is. */
export const named = <A, E, R>(client: ControlClient.Client, effect: Effect.Effect<A, E, R>) =>
  Effect.catchIf(effect, isUnknown<E>, known(client))

export const namedStream = <A, E, R>(client: ControlClient.Client, stream: Stream.Stream<A, E, R>) =>
  Stream.catchIf(stream, isUnknown<E>, (error) => Stream.fromEffect(known(client)(error)))
