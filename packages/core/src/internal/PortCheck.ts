/** Whether the ports that a child needs are free, before anything of it is launched. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { Port } from "../Child.ts"
import { InvalidSpec, PortInUse } from "../Errors.ts"
import { format, type Network } from "../Network.ts"
import type { ProcessPlatform } from "../ProcessPlatform.ts"
import { monotonic } from "./Time.ts"

/** A place at which nobody else may listen: a port of this machine, or one of its addresses only. */
interface Place {
  readonly host: string
  readonly port: number
}

/** Both loopback addresses, and a listener at any address has them too. */
const anyHost = "0.0.0.0"

const loopbacks = ["127.0.0.1", "::1"]

const placeOf = (port: Port): Place => typeof port === "number" ? { host: anyHost, port } : port

const shown = ({ host, port }: Place): string => host === anyHost ? `port ${port}` : format({ host, port })

/** Checks the numbers. */
export const validate = (ports: ReadonlyArray<Port>): Result.Result<void, InvalidSpec> => {
  for (const [index, port] of ports.entries()) {
    const number = typeof port === "number" ? port : port.port
    if (!Number.isSafeInteger(number) || number < 1 || number > 65_535) {
      return Result.fail(new InvalidSpec({ field: `ports[${index}]`, problem: "must be a port from 1 to 65535" }))
    }
  }
  return Result.succeed(undefined)
}

/** Somebody who ends needs a moment (peer case 49); how long it is waited for, and how often it is looked, in ms. */
const patience = 2000
const poll = 50

/** How long processes of a host that has died may take to end, in ms. */
const leftoverPatience = 10_000

/** Whoever does not take a connection within this time has his queue full, in ms. */
const connectLimit = 1000

/** Where the system lists no listeners: whether a connection is taken, for another program's end leaves ports busy. */
const answers = (network: Network, { host, port }: Place): Effect.Effect<boolean> =>
  Effect.map(
    Effect.forEach(host === anyHost ? loopbacks : [host], (host) =>
      network.connect({ host, port }).pipe(
        Effect.as(true),
        Effect.catch(() => Effect.succeed(false)),
        Effect.timeoutOrElse({ duration: connectLimit, orElse: () => Effect.succeed(true) })
      ), { concurrency: "unbounded" }),
    (answered) => answered.includes(true)
  )

/** Where it can be listened at nobody is: that costs less than the system's list of all listeners. */
const isFree = (network: Network, { host, port }: Place): Effect.Effect<boolean> =>
  Effect.map(
    Effect.forEach(host === anyHost ? loopbacks : [host], (host) =>
      network.tryListen === undefined
        ? Effect.succeed(false)
        : Effect.match(network.tryListen({ host, port }), {
          // No address of this machine: IPv6 is off, or it is another machine's.
          onFailure: ({ reason }) => reason === "Unavailable",
          onSuccess: () => true
        })),
    (free) => !free.includes(false)
  )

/** The pids that hold a place, none where that is not known; undefined when nobody does. */
const holdersOf = (network: Network, place: Place): Effect.Effect<ReadonlyArray<number> | undefined> =>
  Effect.gen(function*() {
    if (network.listeners === undefined) return (yield* answers(network, place)) ? [] : undefined
    if (yield* isFree(network, place)) return undefined
    const told = yield* network.listeners(place)
    if (Option.isNone(told)) return []
    return told.value.length === 0 ? undefined : told.value
  })

const refusalOf = (
  platform: ProcessPlatform["Service"],
  child: string,
  place: Place,
  pids: ReadonlyArray<number>
): Effect.Effect<PortInUse> =>
  Effect.map(pids.length === 0 ? Effect.succeed([]) : platform.processes, (processes) =>
    new PortInUse({
      child,
      address: shown(place),
      holders: processes.filter(({ pid }) => pids.includes(pid)).map(({ command, pid }) => ({ pid, command }))
    }))

/** One place: what a dead host has left there is ended, whoever else is there is waited for a moment. */
const checkOne = (
  platform: ProcessPlatform["Service"],
  network: Network,
  child: string,
  place: Place
): Effect.Effect<void, PortInUse> =>
  Effect.gen(function*() {
    const clock = yield* platform.clock
    const began = monotonic(clock)
    let within = patience
    while (true) {
      const pids = yield* holdersOf(network, place)
      if (pids === undefined) return
      if (pids.length > 0 && platform.endLeftovers !== undefined) {
        const left = yield* platform.endLeftovers(pids)
        if (left.length > 0) within = leftoverPatience
      }
      if (monotonic(clock) - began >= within) return yield* yield* refusalOf(platform, child, place, pids)
      yield* clock.sleep(Duration.millis(poll))
    }
  })

/** Succeeds when nobody listens at any of the ports. */
export const check = (
  platform: ProcessPlatform["Service"],
  child: string,
  ports: ReadonlyArray<Port>
): Effect.Effect<void, PortInUse> => {
  const { network } = platform
  return network === undefined
    ? Effect.void
    : Effect.forEach(ports, (port) => checkOne(platform, network, child, placeOf(port)), {
      concurrency: "unbounded",
      discard: true
    })
}
