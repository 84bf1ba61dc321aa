/** `treeline up`: the services of a configuration in the foreground. */
import type { HostEvent, HostStatus, Progress } from "@treeline/core/daemon/HostStatus"
import type { ServiceHost } from "@treeline/core/daemon/ServiceHost"
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Up } from "../CommandReport.ts"
import * as Console from "./Console.ts"
import * as Ending from "./Ending.ts"
import { OperationFailed } from "./Failure.ts"
import * as Incoming from "./Incoming.ts"
import type * as Keys from "./Keys.ts"
import * as UpTerminal from "./UpTerminal.ts"
import * as Words from "./Words.ts"

export interface Options {
  readonly json: boolean
  /** No lines of the services. */
  readonly quiet: boolean
  /** Lines only, on a terminal too. */
  readonly plain: boolean
}

/** How often it is said what is waited for, where no table does, in s: for a start, for an end. */
const reminders = { start: 5, end: 2 }

/** How long the last events and lines of the services may take to be printed, in ms. */
const drainWithin = 3000

type Stop = "SIGINT" | "SIGTERM" | "SIGHUP" | "SIGQUIT"

/** Whether nothing runs, and nothing will unless somebody starts it; not when somebody has stopped all of it. */
export const isOver = ({ pools, services }: HostStatus): boolean =>
  pools.length === 0 &&
  services.every(({ child: { state } }) => state._tag === "Failed" || (state._tag === "Stopped" && state.end !== null))

/** What is not up, or not down yet. */
const waiting = ({ at, blocking, services }: HostStatus): Progress => ({
  _tag: "Waiting",
  at,
  blocking,
  starting: services.flatMap(({ child: { state }, name }) =>
    state._tag === "Waiting" || state._tag === "Starting" || state._tag === "Running" ? [{ service: name, state }] : []
  )
})

/** Which services have failed for good. */
const failuresOf = ({ services }: HostStatus) =>
  services.map(({ child: { state }, name }) => ({
    service: name,
    problem: state._tag === "Failed" ? state.error.message : null
  }))

/** Of which services something lives although all have ended. */
const survivorsOf = ({ services }: HostStatus) =>
  services.map(({ child: { state }, name }) => ({
    service: name,
    problem: state._tag === "Failed" && state.error.survivors.length > 0 ? state.error.message : null
  }))

/** Says now and then what is waited for, where no table shows it. */
const remind = (host: ServiceHost, terminal: UpTerminal.UpTerminal) =>
  Effect.gen(function*() {
    for (let seconds = 1;; seconds++) {
      yield* Effect.sleep("1 second")
      const status = yield* host.status
      const due = seconds % (status.phase === "running" ? reminders.start : reminders.end) === 0
      if (due && !terminal.hasTable()) yield* terminal.say(Words.progress(waiting(status)))
    }
  })

/** Does what signals and keys ask for, while the scope is open. */
const listen = Effect.fnUntraced(function*(
  incoming: Queue.Dequeue<NodeJS.Signals>,
  terminal: UpTerminal.UpTerminal,
  { reload, stop }: {
    readonly stop: (signal: Stop) => Effect.Effect<void, never, Scope.Scope>
    readonly reload: Effect.Effect<void, never, Scope.Scope>
  }
) {
  const inTerminal = Console.inTerminal()
  const onSignal = (signal: NodeJS.Signals) => {
    switch (signal) {
      case "SIGCONT":
        return terminal.resume
      case "SIGHUP":
        // What a closed terminal sends is no wish for another configuration.
        return process.platform === "win32" || (inTerminal && !Console.inTerminal())
          ? stop("SIGHUP")
          : Effect.forkScoped(reload)
      default:
        return stop(signal as Stop)
    }
  }
  const onKey = (key: Keys.Key) => {
    switch (key) {
      case "interrupt":
        return stop("SIGINT")
      case "quit":
        return stop("SIGQUIT")
      case "suspend":
        return process.platform === "win32" ? Effect.void : terminal.suspend
      case "enter":
        return Effect.forkScoped(terminal.newLine)
    }
  }
  yield* Effect.forkScoped(Effect.forever(Effect.flatMap(Queue.take(incoming), onSignal)))
  if (terminal.keys !== undefined) {
    yield* Effect.forkScoped(Effect.forever(Effect.flatMap(Queue.take(terminal.keys), onKey)))
  }
})

/**
 * Shows services while they run, and ends them when it is asked to. `start` runs them in a scope, `serve` lets others ask
 * for them until after they have ended; `file` is their configuration.
 */
export const up = Effect.fnUntraced(function*<E, R, E2, R2>(
  options: Options & { readonly file: string },
  start: Effect.Effect<ServiceHost, E, R | Scope.Scope>,
  serve: (host: ServiceHost) => Effect.Effect<unknown, E2, R2>
) {
  // Before anything runs, so that no signal falls between the two.
  const incoming = yield* Incoming.signals(["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGCONT"])
  const startedAt = performance.now()
  const running = yield* Scope.fork(yield* Scope.Scope)
  const host = yield* Scope.provide(start, running)
  // Closed after the services: who follows their logs sees the end of them, and who asked for the end hears of it.
  yield* serve(host)

  let stoppedBy: Stop | undefined = undefined
  let forced = false
  const first = yield* host.status
  const terminal = yield* UpTerminal.make({
    fd: options.json ? 2 : 1,
    plain: options.plain,
    names: first.services.map(({ name }) => name),
    status: host.status,
    interrupt: () => forced ? "none" : stoppedBy === undefined ? "stops" : "kills"
  })

  // ---------------------------------------------------------------------------------------------- what happens

  const over = yield* Deferred.make<HostStatus>()
  const onEvent = (event: HostEvent) =>
    Effect.gen(function*() {
      yield* terminal.touch
      const status = yield* host.status
      if (stoppedBy === undefined && status.phase === "running" && isOver(status)) yield* Deferred.succeed(over, status)
      // An end that was asked for here has been told already.
      const known = stoppedBy !== undefined && event._tag === "Supervisor" && event.event._tag === "Stopping"
      if (!known) yield* terminal.say(Words.event(event))
    })
  const events = yield* Effect.forkScoped(Stream.runForEach(host.events, onEvent))
  const entries = options.quiet ? Stream.empty : host.logs.follow()
  const logs = yield* Effect.forkScoped(Effect.ignore(Stream.runForEach(entries, terminal.log)))
  yield* Effect.forkScoped(remind(host, terminal))

  // ---------------------------------------------------------------------------------------------- what is asked

  /** In a fiber of its own: a terminal that takes nothing must not hold up the end. */
  const tell = (text: string | undefined) => Effect.forkScoped(terminal.say(text))

  const stop = (signal: Stop) =>
    Effect.gen(function*() {
      const again = stoppedBy !== undefined
      stoppedBy ??= signal
      if (forced) return
      forced = again || signal === "SIGQUIT"
      yield* Effect.forkScoped(Stream.runDrain(host.shutdown({ force: forced })))
      yield* tell(forced ? `${signal}: all are killed` : `${signal}: all are being ended; once more kills them`)
      yield* terminal.touch
    })

  const reload = Effect.gen(function*() {
    yield* tell("SIGHUP: the configuration is read anew")
    yield* host.reopenLogs.pipe(Effect.catch(({ message }) => tell(message)))
    yield* Stream.runDrain(host.reload).pipe(Effect.catch(({ message }) => tell(`nothing was changed: ${message}`)))
  })

  yield* listen(incoming, terminal, { stop, reload })

  // ---------------------------------------------------------------------------------------------- the end

  const finished = yield* Effect.raceFirst(
    Effect.as(Effect.exit(host.awaitEnd), Option.none<HostStatus>()),
    Effect.asSome(Deferred.await(over))
  )
  if (Option.isSome(finished)) yield* Stream.runDrain(host.shutdown())
  const end = yield* Effect.exit(host.awaitEnd)
  const last = yield* host.status
  yield* Scope.close(running, Exit.void)
  // Both end with the services: what they said last, and what became of them, is printed.
  yield* Effect.timeoutOption(Fiber.awaitAll([logs, events]), drainWithin)
  if (end._tag === "Failure") return yield* Effect.failCause(end.cause as Cause.Cause<never>)
  const failed = Option.match(finished, { onNone: () => survivorsOf(last), onSome: failuresOf })
  if (failed.some(({ problem }) => problem !== null)) {
    return yield* new OperationFailed({ operation: "up", outcomes: failed })
  }
  return {
    ending: stoppedBy === "SIGINT" ? Ending.signal("SIGINT") : Ending.code(0),
    report: Schema.encodeSync(Schema.fromJsonString(Up))({
      file: options.file,
      milliseconds: Math.round(performance.now() - startedAt),
      stoppedBy: stoppedBy ?? null,
      forced,
      end: end.value,
      services: last.services.map(({ child, name }) => ({ name, restarts: child.restarts }))
    })
  }
})
