/** The way from a command to the process that runs the services of a configuration. */
import * as ControlClient from "@treeline/core/daemon/ControlClient"
import { UnknownChild, UnknownPool } from "@treeline/core/Errors"
import * as NodeControl from "@treeline/platform-node/NodeControl"
import * as NodeStateFolder from "@treeline/platform-node/NodeStateFolder"
import * as StateDirectory from "@treeline/platform-node/StateDirectory"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as ConfigPlace from "./ConfigPlace.ts"
import { NothingRuns, OtherConfiguration, UnknownName } from "./Failure.ts"

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

/** How `daemon` of the configuration reads where the configuration can't: services can be ended all the same (seed C31). */
type Daemon = NonNullable<StateDirectory.Options["daemon"]>

/** The place of a configuration, and whether another one comes to the same: by a path, also where that leads to a port. */
const placeOf = (file: string, daemon: Daemon) =>
  Effect.map(StateDirectory.locate({ file, daemon }), ({ control, directory }) => ({
    control,
    directory,
    path: control._tag === "Socket" ? control.path : control.file
  }))

/** The services that go on in a state folder without a daemon. What is needed to judge them is loaded where there may be any. */
const keptIn = (directory: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function*() {
    const folder = NodeStateFolder.make(directory)
    if (!(yield* folder.list(".")).some((name) => /^keep-[^.]*$/.test(name))) return []
    const [{ keepersOf }, Treeline] = yield* Effect.promise(() =>
      Promise.all([import("./Keeping.ts"), import("../Treeline.ts")])
    )
    const kept = yield* Effect.flatMap(keepersOf(folder), (keepers) => keepers.kept).pipe(
      Effect.provide(Treeline.layerWith({ sweepOrphaned: false }))
    )
    return kept.map(({ service }) => service)
  }).pipe(Effect.orElseSucceed(() => []))

/** Connects to who serves this configuration at a place that is known, and to nobody else; see `open`. */
export const attempt = (
  file: string,
  { control, directory }: Pick<StateDirectory.StateDirectory, "control" | "directory">
) =>
  Effect.gen(function*() {
    const options = yield* NodeControl.reach(control)
    const client = yield* ControlClient.make(options)
    const { file: other, pid } = client.server
    if (other !== null && !ConfigPlace.isSame(file, other)) {
      return yield* new OtherConfiguration({ file, other, pid, address: options.address })
    }
    const awaitGone = ControlClient.hello(options).pipe(
      // Another one may take the place at once.
      Effect.repeat({ schedule: Schedule.spaced("50 millis"), while: (server) => server.pid === pid }),
      Effect.ignore,
      Effect.timeoutOption(goneWithin),
      Effect.asVoid
    )
    const connection: Connection = { client, file, awaitGone }
    return connection
  }).pipe(Effect.catchIf(isAbsent, () => Effect.flatMap(keptIn(directory), (kept) => new NothingRuns({ file, kept }))))

/**
 * Connects to who serves this configuration, and to nobody else. First where control is unless the configuration says
 * otherwise: then it need not be read at all. Fails with `NothingRuns`, with `OtherConfiguration`, or with what is wrong in a
 * configuration that might say where to look.
 */
export const open = (options: Options) =>
  Effect.gen(function*() {
    const file = yield* ConfigPlace.locate(options)
    const asked = options.flags.length === 0 && !ConfigPlace.hasVariables()
    const usual = asked ? yield* placeOf(file, {}) : undefined
    const found = usual === undefined ? undefined : yield* Effect.result(attempt(file, usual))
    if (found !== undefined && Result.isSuccess(found)) return found.success
    if (found !== undefined && !mayBeElsewhere(found.failure)) return yield* Effect.fail(found.failure)
    const ConfigFile = yield* Effect.promise(() => import("../ConfigFile.ts"))
    const { config } = yield* ConfigFile.load({ ...options, file })
    const own = yield* placeOf(file, config.daemon)
    if (found !== undefined && own.path === usual?.path) return yield* Effect.fail(found.failure)
    return yield* attempt(file, own)
  })

type Refusal = { readonly _tag: string; readonly reason?: unknown }

const isAbsent = (error: Refusal): boolean => error._tag === "ControlUnavailable" && error.reason === "NotRunning"

/** What is at the usual place is not what is looked for. */
const mayBeElsewhere = ({ _tag, reason }: Refusal): boolean =>
  _tag === "NothingRuns" || _tag === "OtherConfiguration" || (_tag === "ControlUnavailable" && reason === "Foreign")

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
