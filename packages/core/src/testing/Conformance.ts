/**
 * The behaviours of a platform and of the drop-in, as a suite that any platform can be held against.
 *
 * `suite` registers tests with `@effect/vitest`. A platform says what it has and brings the programs: on POSIX they are
 * shell scripts, a simulated platform has data of its own. What a platform does not have is listed as skipped, with the
 * reason in the name of the test. Names quote the numbers of the cases that they prove.
 */
import { assert, describe, layer as withLayer } from "@effect/vitest"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import * as Containment from "../Containment.ts"
import * as ExitStatus from "../ExitStatus.ts"
import * as Output from "../Output.ts"
import { type LaunchOptions, ProcessPlatform } from "../ProcessPlatform.ts"
import * as ShutdownPlan from "../ShutdownPlan.ts"
import * as Spawner from "../Spawner.ts"
import { elapsed, needing, pidsOf, quickly } from "./internal/Suite.ts"

type Program = ChildProcess.StandardCommand

/** How a program leaves its leader: only the group, the whole session, or by two forks and a session of its own. */
export type Escape = "group" | "session" | "daemon"

/**
 * The programs that the suite runs. One that *reports* writes the line `pids P1 P2 ...` to its standard output as soon
 * as all of it runs, the leader first, and then runs on until it is ended, for at most a minute.
 */
export interface Programs {
  /** Writes `text`, exactly, and ends with code 0. */
  readonly echo: (text: string) => Program
  /** Writes `out` to stdout and `error` to stderr, exactly, and ends with code 0. */
  readonly echoBoth: (out: string, error: string) => Program
  /** Copies stdin to stdout until its end and ends with code 0. */
  readonly cat: Program
  /** Ends with `code`, without reading or writing. */
  readonly exit: (code: number) => Program
  /** Ends itself by `signal`. */
  readonly signalSelf: (signal: ChildProcess.Signal) => Program
  /** Reports; ends on the polite request to end. */
  readonly sleeper: Program
  /** Reports; on SIGTERM it writes the line `ended` and ends with `code`. */
  readonly polite: (code: number) => Program
  /** Reports; takes no notice of SIGTERM, SIGINT and SIGHUP. */
  readonly stubborn: Program
  /** As `stubborn`, but ends with code 0 at the end of its stdin. */
  readonly endsWithInput: Program
  /** Reports three generations of one group, each waiting for the next. */
  readonly generations: Program
  /** Reports itself, which ends on SIGTERM at once, and a child of its group that ignores it. */
  readonly stubbornChild: Program
  /** Reports itself and a child that lives on and holds no pipe, then ends with `code`. */
  readonly leavesChild: (code: number) => Program
  /** Reports itself and a child that lives on and holds its stdout, writes the line `text`, then ends with code 0. */
  readonly leavesWriter: (text: string) => Program
  /** Reports itself and a process that has escaped from it. */
  readonly escapes: (how: Escape) => Program
  /** Writes `bytes` bytes and ends with code 0. */
  readonly writes: (bytes: number) => Program
  /** Writes without end. */
  readonly floods: Program
  /** Copies descriptor `from` to descriptor `to` until its end and ends with code 0. */
  readonly copies: (from: number, to: number) => Program
  /** Writes the value of a variable, or `unset`. */
  readonly variable: (name: string) => Program
  /** Writes its working directory. */
  readonly directory: Program
  /** A command with the `shell` option that writes `text`, exactly; undefined where there is no shell. */
  readonly shell: ((text: string) => Program) | undefined
  /** A program that does not exist. */
  readonly missing: Program
}

/** What a platform has. What is false or absent is left out, and the test output says so. */
export interface Capabilities<R = never> {
  /** `simulated` where the platform runs on the ambient clock: the suite turns it then, and takes no real time. */
  readonly time?: "real" | "simulated" | undefined
  readonly programs: Programs
  /** The containment that an ordinary launch must have. */
  readonly level: Containment.Level
  /** Whether processes have the signals of POSIX: can end by one, and be stopped and continued. */
  readonly signals: boolean
  /** Whether a process can be asked to end, by SIGTERM or what stands for it, and may refuse. Default: as `signals`. */
  readonly politeRequests?: boolean | undefined
  /** Whether a program can leave its group or session. */
  readonly escapes: boolean
  /** Whether children can have descriptors above 2. */
  readonly additionalFds: boolean
  /** Whether a child can be released from its scope. */
  readonly release: boolean
  /** A directory that exists and that is not the current one, as the child shows it; undefined where there is none. */
  readonly directory: string | undefined
  /** Whether a process lives, by other means than the platform that is tested. A zombie does not. */
  readonly isAlive: (pid: number) => Effect.Effect<boolean, never, R>
  /** How long the slowest program takes until it reports, in ms, on a machine that has other work. Default 300. */
  readonly reportsWithin?: number | undefined
  /** Ends one process, for cleaning up what a level below `tagged` leaves behind. */
  readonly kill: (pid: number) => Effect.Effect<void, never, R>
}

/** The command with further options. */
const having = (program: Program, options: ChildProcess.CommandOptions): Program =>
  ChildProcess.make(program.command, program.args, { ...program.options, ...options })

const bytesOf = (...texts: ReadonlyArray<string>) => Stream.encodeText(Stream.fromIterable(texts))

const ascii = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0))

const textOf = <E>(stream: Stream.Stream<Uint8Array, E>): Effect.Effect<string, E> =>
  Stream.mkString(Stream.decodeText(stream))

const within = <A, E, R>(limit: number, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | Cause.TimeoutError, R> =>
  Effect.timeout(effect, limit)

/**
 * Registers the suite.
 *
 * @example
 * ```ts
 * import type { ProcessPlatform } from "@treeline/core"
 * import { Conformance } from "@treeline/core/testing"
 * import type { Layer } from "effect"
 *
 * export const holdAgainst = (
 *   layer: Layer.Layer<ProcessPlatform.ProcessPlatform>,
 *   capabilities: Conformance.Capabilities
 * ) => Conformance.suite("my platform", layer, capabilities)
 * ```
 */
export const suite = <R = never>(
  name: string,
  layer: Layer.Layer<ProcessPlatform | R>,
  capabilities: Capabilities<R>
): void => {
  const { escapes, programs, signals, politeRequests = signals, time = "real" } = capabilities
  const excludeTestServices = time === "real"
  const spawnerLayer = Layer.provideMerge(Spawner.layerWith({ forceKillAfter: "200 millis" }), layer)

  const assertAllAlive = (pids: ReadonlyArray<number>) =>
    Effect.forEach(
      pids,
      (pid) => Effect.map(capabilities.isAlive(pid), (alive) => assert.isTrue(alive, `${pid} lives`)),
      { discard: true }
    )
  const assertNoneAlive = (pids: ReadonlyArray<number>) =>
    Effect.forEach(
      pids,
      (pid) => Effect.map(capabilities.isAlive(pid), (alive) => assert.isFalse(alive, `${pid} has ended`)),
      { discard: true }
    )

  const cleanUp = (pids: ReadonlyArray<number>) =>
    Effect.forEach(
      pids,
      (pid) => Effect.flatMap(capabilities.isAlive(pid), (alive) => alive ? capabilities.kill(pid) : Effect.void),
      {
        discard: true
      }
    )

  /** Launches in a scope of its own and waits for the report; whatever a broken platform leaves is ended with the test. */
  const start = Effect.fnUntraced(function*(program: Program, options?: LaunchOptions) {
    const platform = yield* ProcessPlatform
    const pids: Array<number> = []
    yield* Effect.addFinalizer(() => cleanUp(pids))
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
    const tree = yield* Scope.provide(platform.launch(program, { shutdown: quickly, ...options }), scope)
    pids.push(...(yield* pidsOf(tree.stdout.stream)))
    assert.strictEqual(pids[0], tree.pid, "the leader is reported first")
    return { tree, pids, close: Scope.close(scope, Exit.void) }
  })

  /** The same through the drop-in. */
  const spawn = Effect.fnUntraced(function*(command: ChildProcess.Command) {
    const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
    const pids: Array<number> = []
    yield* Effect.addFinalizer(() => cleanUp(pids))
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
    const handle = yield* Scope.provide(spawner.spawn(command), scope)
    pids.push(...(yield* pidsOf(handle.stdout)))
    return { handle, pids, close: Scope.close(scope, Exit.void) }
  })

  const noSignals = "the platform has no signals of POSIX"
  const noRequests = "processes can't be asked to end here"
  const noEscapes = "programs can't leave their group here"
  const noDescriptors = "the platform has no further descriptors"
  const noRelease = "children can't be released here"

  // oxlint-disable-next-line vitest/valid-title -- the title is the caller's
  describe(name, () => {
    withLayer(spawnerLayer, { excludeTestServices })("platform", (tests) => {
      const needs = needing(tests, time)
      const it = { effect: needs(true, "") }

      it.effect("containment: a tree has the level that the platform reports", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          assert.strictEqual((yield* platform.containment).level, capabilities.level)
          const tree = yield* platform.launch(programs.exit(0), { require: capabilities.level })
          assert.strictEqual(tree.level, capabilities.level)
        }))

      it.effect("containment: what is said to be the highest level is given, and one above it refused, at a launch", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const { highest } = yield* platform.containment
          const required = Effect.scoped(platform.launch(programs.exit(0), { require: "sealed" }))
          if (highest === "sealed") assert.strictEqual((yield* required).level, "sealed")
          else assert.strictEqual((yield* Effect.flip(required))._tag, "ContainmentUnavailable")
        }))

      it.effect("peer 67: exit codes are values", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          for (const code of [0, 1, 127, 255]) {
            const tree = yield* platform.launch(programs.exit(code))
            assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(code))
            assert.deepStrictEqual(yield* tree.exitStatus, Option.some(ExitStatus.exited(code)))
            assert.deepStrictEqual(yield* tree.empty, [])
          }
        }))

      needs(signals, noSignals)("peer 67: a death by signal is no exit code", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          for (const signal of ["SIGTERM", "SIGKILL", "SIGINT"] as const) {
            const tree = yield* platform.launch(programs.signalSelf(signal))
            const status = yield* tree.exited
            assert.strictEqual(status._tag, "Signaled")
            assert.strictEqual(status._tag === "Signaled" ? status.signal : "", signal)
          }
        }))

      it.effect("P24: both output streams arrive, apart and whole", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const tree = yield* platform.launch(programs.echoBoth("to stdout, ünïcode\n", "to stderr\n"))
          const [out, error] = yield* Effect.all([textOf(tree.stdout.stream), textOf(tree.stderr.stream)], {
            concurrency: "unbounded"
          })
          assert.strictEqual(out, "to stdout, ünïcode\n")
          assert.strictEqual(error, "to stderr\n")
          assert.isFalse((yield* tree.drained).truncated)
          assert.strictEqual((yield* tree.drained).bytes, 21 + 10)
        }))

      it.effect("output can be read after the end", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const tree = yield* platform.launch(programs.echo("late\n"))
          yield* tree.exited
          yield* tree.drained
          assert.strictEqual(yield* textOf(tree.stdout.stream), "late\n")
          assert.deepStrictEqual(yield* tree.stdout.tail, ascii("late\n"))
        }))

      it.effect("P43: a program that reads its input ends with the input", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const tree = yield* platform.launch(programs.cat)
          yield* Stream.run(bytesOf("one ", "two\n"), tree.stdin)
          assert.strictEqual(yield* textOf(tree.stdout.stream), "one two\n")
          assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0))
        }))

      it.effect("peer 62: input that nobody reads fails no one and hides no status", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const tree = yield* platform.launch(programs.exit(3))
          yield* tree.exited
          yield* Effect.exit(Stream.run(bytesOf("x".repeat(200_000)), tree.stdin))
          assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(3))
        }))

      it.effect("peer 65: a missing program and a missing directory are typed errors", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const missing = yield* Effect.flip(Effect.scoped(platform.launch(programs.missing)))
          assert.strictEqual(missing._tag === "LaunchError" ? missing.reason : missing._tag, "NotFound")
          const nowhere = having(programs.exit(0), { cwd: "/no/such/directory" })
          const lost = yield* Effect.flip(Effect.scoped(platform.launch(nowhere)))
          assert.strictEqual(lost._tag === "LaunchError" ? lost.reason : lost._tag, "BadWorkingDirectory")
        }))

      it.effect("NUL characters in a command are refused and not shown", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const error = yield* Effect.flip(
            Effect.scoped(platform.launch(ChildProcess.make(programs.echo("").command, ["sec\0ret"])))
          )
          assert.strictEqual(error._tag === "LaunchError" ? error.reason : error._tag, "InvalidArgument")
          assert.notInclude(error.message, "ret")
        }))

      it.effect("F12: a time that is negative or endless is refused, and never read as \"at once\"", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          for (const within of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
            const error = yield* Effect.flip(Effect.scoped(
              platform.launch(programs.sleeper, { shutdown: ShutdownPlan.terminate({ within }) })
            ))
            assert.strictEqual(error._tag, "InvalidSpec")
          }
        }))

      it.effect("environment: laid over the host's, replaced, and removed", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const read = (options: ChildProcess.CommandOptions, name = "TREELINE_CONFORMANCE") =>
            Effect.scoped(Effect.flatMap(
              platform.launch(having(programs.variable(name), options)),
              (tree) => Effect.map(textOf(tree.stdout.stream), (text) => text.trim())
            ))
          assert.strictEqual(yield* read({}), "unset")
          assert.strictEqual(yield* read({ env: { TREELINE_CONFORMANCE: "a b" }, extendEnv: true }), "a b")
          assert.strictEqual(
            yield* read({ env: { TREELINE_CONFORMANCE: undefined }, extendEnv: true }),
            "unset"
          )
        }))

      needs(capabilities.directory !== undefined, "the platform has no directories")(
        "working directory",
        () =>
          Effect.gen(function*() {
            const platform = yield* ProcessPlatform
            const tree = yield* platform.launch(having(programs.directory, { cwd: capabilities.directory }))
            assert.strictEqual((yield* textOf(tree.stdout.stream)).trim(), capabilities.directory)
          })
      )

      it.effect("identity: a tree is found while it lives, and not after", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const { close, tree } = yield* start(programs.sleeper)
          const found = yield* platform.find(tree.identity)
          assert.strictEqual(Option.getOrThrow(found).pid, tree.pid)
          assert.isTrue((yield* platform.processes).some(({ alive, pid }) => pid === tree.pid && alive))
          const other = yield* platform.find({ ...tree.identity, startTime: "1" })
          assert.isTrue(Option.isNone(other), "the same pid with another start time is another process")
          const known = Option.getOrThrow(yield* platform.identify(tree.pid))
          assert.strictEqual(yield* platform.standing(known), "Alive")
          assert.strictEqual(yield* platform.standing({ ...known, startTime: "1" }), "Gone")
          assert.strictEqual(yield* platform.standing({ ...known, startTime: "" }), "Unsure")
          assert.strictEqual(yield* platform.signalProcess({ ...known, startTime: "1" }, "SIGKILL"), "Gone")
          assert.isTrue(Option.isSome(yield* platform.find(known)), "nobody was signalled")
          assert.strictEqual(yield* platform.signalProcess(known, "SIGKILL"), "Sent")
          // Where there are no signals, only the tree that sent a kill knows the end for one.
          assert.strictEqual((yield* tree.exited)._tag, signals ? "Signaled" : "Terminated")
          yield* close
          assert.isTrue(Option.isNone(yield* platform.find(tree.identity)))
          assert.strictEqual(yield* platform.standing(known), "Gone")
        }))

      it.effect("members: every generation", () =>
        Effect.gen(function*() {
          const { pids, tree } = yield* start(programs.generations)
          const members = yield* tree.members
          for (const pid of pids) assert.isTrue(members.some((member) => member.pid === pid), `${pid} is a member`)
        }))

      it.effect("P22: a child ends with its scope", () =>
        Effect.gen(function*() {
          const { close, pids } = yield* start(programs.sleeper)
          yield* assertAllAlive(pids)
          yield* close
          yield* assertNoneAlive(pids)
        }))

      it.effect("peer 1, P1: three generations are gone before the stop returns", () =>
        Effect.gen(function*() {
          const { pids, tree } = yield* start(programs.generations)
          assert.strictEqual(pids.length, 3)
          yield* assertAllAlive(pids)
          assert.deepStrictEqual(yield* tree.shutdown(), [])
          yield* assertNoneAlive(pids)
          assert.deepStrictEqual(yield* tree.empty, [])
        }))

      it.effect("peer 4: a leader that ended with code 0 leaves nothing behind its scope", () =>
        Effect.gen(function*() {
          const { close, pids, tree } = yield* start(programs.leavesChild(0))
          assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0))
          yield* assertAllAlive(pids.slice(1))
          yield* close
          yield* assertNoneAlive(pids)
        }))

      it.effect("peer 6: what a failed leader left is ended at once where that is asked for", () =>
        Effect.gen(function*() {
          const { pids, tree } = yield* start(programs.leavesChild(9), { whenLeaderEnds: "endIfFailed" })
          assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(9))
          assert.deepStrictEqual(yield* within(5_000, tree.empty), [])
          yield* assertNoneAlive(pids)
        }))

      needs(politeRequests, noRequests)(
        "peer 3: escalation looks at the tree, not at the leader",
        () =>
          Effect.gen(function*() {
            const { pids, tree } = yield* start(programs.stubbornChild)
            const took = yield* elapsed(tree.shutdown())
            yield* assertNoneAlive(pids)
            assert.isAtLeast(took, 195, "the child had its grace")
          })
      )

      needs(signals, noSignals)("peer 8: a stopped leader ends within the grace", () =>
        Effect.gen(function*() {
          const { pids, tree } = yield* start(programs.polite(0), {
            shutdown: ShutdownPlan.terminate({ within: "10 seconds" })
          })
          yield* tree.signal("SIGSTOP")
          yield* within(5_000, tree.shutdown())
          assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0), "it was continued and ended by itself")
          yield* assertNoneAlive(pids)
        }))

      needs(politeRequests, noRequests)(
        "P10, P19, P23: what ignores SIGTERM is killed after the grace",
        () =>
          Effect.gen(function*() {
            const { pids, tree } = yield* start(programs.stubborn)
            const took = yield* elapsed(tree.shutdown())
            assert.isAtLeast(took, 195)
            assert.isTrue(ExitStatus.isSignaledBy(yield* tree.exited, "SIGKILL"))
            yield* assertNoneAlive(pids)
          })
      )

      needs(politeRequests, noRequests)(
        "peer 25, P44: stops at the same time are one teardown",
        () =>
          Effect.gen(function*() {
            const { tree } = yield* start(programs.polite(4), {
              shutdown: ShutdownPlan.terminate({ within: "10 seconds" })
            })
            const outcomes = yield* Effect.all([tree.shutdown(), tree.shutdown(), tree.shutdown()], {
              concurrency: "unbounded"
            })
            assert.deepStrictEqual(outcomes, [[], [], []])
            assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(4))
            const ended = (yield* textOf(tree.stdout.stream)).split("\n").filter((line) => line === "ended")
            assert.strictEqual(ended.length, 1, "it was asked once")
          })
      )

      needs(politeRequests, noRequests)(
        "peer 26: a later stop shortens the grace, and never lengthens it",
        () =>
          Effect.gen(function*() {
            const shorter = yield* start(programs.stubborn)
            const first = yield* Effect.forkChild(
              shorter.tree.shutdown(ShutdownPlan.terminate({ within: "20 seconds" })),
              { startImmediately: true }
            )
            yield* within(5_000, shorter.tree.shutdown(ShutdownPlan.kill))
            assert.deepStrictEqual(yield* Fiber.join(first), [])
            yield* assertNoneAlive(shorter.pids)

            const longer = yield* start(programs.stubborn)
            const quick = yield* Effect.forkChild(longer.tree.shutdown(quickly), { startImmediately: true })
            yield* within(5_000, longer.tree.shutdown(ShutdownPlan.terminate({ within: "20 seconds" })))
            yield* Fiber.join(quick)
            yield* assertNoneAlive(longer.pids)
          })
      )

      needs(politeRequests, noRequests)(
        "peer 30: stubborn children of one scope share their grace",
        () =>
          Effect.gen(function*() {
            const platform = yield* ProcessPlatform
            const scope = yield* Scope.make()
            const trees = yield* Scope.provide(
              Effect.forEach(
                Array.from({ length: 6 }),
                () => platform.launch(programs.stubborn, { shutdown: ShutdownPlan.terminate({ within: "1 second" }) })
              ),
              scope
            )
            const pids = (yield* Effect.forEach(trees, (tree) => pidsOf(tree.stdout.stream))).flat()
            yield* Effect.addFinalizer(() => cleanUp(pids))
            const took = yield* elapsed(Scope.close(scope, Exit.void))
            yield* assertNoneAlive(pids)
            assert.isAtLeast(took, 995)
            assert.isBelow(took, 5_500, "one grace, not six")
          })
      )

      needs(politeRequests, noRequests)(
        "peer 33: a step that closes the input comes before signals",
        () =>
          Effect.gen(function*() {
            const { pids, tree } = yield* start(programs.endsWithInput, {
              shutdown: ShutdownPlan.make([
                ShutdownPlan.closeStdin("10 seconds"),
                ShutdownPlan.signal("SIGTERM", { within: "10 seconds" })
              ])
            })
            yield* within(8_000, tree.shutdown())
            assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0))
            yield* assertNoneAlive(pids)
          })
      )

      needs(politeRequests, noRequests)(
        "a signal is sent to the leader, its group or the tree, and nothing else happens",
        () =>
          Effect.gen(function*() {
            const { tree } = yield* start(programs.polite(5))
            const report = yield* tree.signal("SIGTERM", "leader")
            assert.deepStrictEqual(report, { delivered: 1, denied: [] })
            assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(5))
            assert.deepStrictEqual(yield* tree.empty, [])
            assert.deepStrictEqual(yield* tree.signal("SIGTERM"), { delivered: 0, denied: [] }, "peer 27: it has ended")
          })
      )

      for (
        const [number, how, least] of [
          ["peer 13", "group", "group"],
          ["peer 14", "session", "marked"],
          ["peer 15", "daemon", "marked"]
        ] as const
      ) {
        needs(escapes, noEscapes)(
          Containment.atLeast(capabilities.level, least)
            ? `${number}: what leaves its ${how === "daemon" ? "session and its parents" : how} ends with the tree`
            : `${number}: level "${capabilities.level}" promises nothing for a ${how} escape, but the close is bounded`,
          () =>
            Effect.gen(function*() {
              const { close, pids } = yield* start(programs.escapes(how))
              assert.strictEqual(pids.length, 2)
              yield* assertAllAlive(pids)
              yield* within(8_000, close)
              yield* assertNoneAlive(Containment.atLeast(capabilities.level, least) ? pids : pids.slice(0, 1))
            })
        )
      }

      it.effect("peer 50, P37: a survivor that holds the pipe delays neither the exit nor the drain", () =>
        Effect.gen(function*() {
          const { pids, tree } = yield* start(programs.leavesWriter("said"))
          assert.deepStrictEqual(yield* within(5_000, tree.exited), ExitStatus.exited(0))
          const text = yield* within(8_000, textOf(tree.stdout.stream))
          assert.strictEqual(text.split("\n").at(-2), "said")
          assert.isTrue((yield* within(8_000, tree.drained)).truncated, "the pipe was still held")
          yield* assertAllAlive(pids.slice(1))
        }))

      it.effect("peer 53: a slow reader gets every byte that a dead leader left", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const size = 3_000_000
          const tree = yield* platform.launch(programs.writes(size), { output: Output.backpressure(64 * 1024) })
          let seen = 0
          yield* Stream.runForEach(tree.stdout.stream, (chunk) => {
            seen += chunk.length
            return Effect.yieldNow
          })
          assert.strictEqual(seen, size)
          assert.deepStrictEqual(yield* tree.drained, { bytes: size, truncated: false })
        }))

      it.effect("peer 54: output that nobody reads holds nobody", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const tree = yield* platform.launch(programs.writes(2_000_000), { output: Output.ring(1_000) })
          assert.deepStrictEqual(yield* within(10_000, tree.exited), ExitStatus.exited(0))
          assert.strictEqual((yield* tree.drained).bytes, 2_000_000)
          assert.strictEqual((yield* tree.stdout.tail).length, 1_000)
        }))

      it.effect("peer 55: a flood is stopped within its grace", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const tree = yield* platform.launch(programs.floods, { shutdown: quickly })
          yield* Stream.runHead(tree.stdout.stream)
          assert.deepStrictEqual(yield* within(5_000, tree.shutdown()), [])
          yield* within(5_000, tree.drained)
          yield* assertNoneAlive([tree.pid])
        }))

      it.effect("peer 69, P42: a launch that is interrupted at any moment leaves nothing", () =>
        Effect.gen(function*() {
          const platform = yield* ProcessPlatform
          const before = new Set((yield* platform.processes).map(({ pid }) => pid))
          const launched: Array<number> = []
          for (let yields = 0; yields < 30; yields++) {
            const fiber = yield* Effect.forkChild(Effect.scoped(Effect.gen(function*() {
              const tree = yield* platform.launch(programs.sleeper, { shutdown: ShutdownPlan.kill })
              launched.push(tree.pid)
              return yield* Effect.never
            })))
            for (let turn = 0; turn < yields; turn++) yield* Effect.yieldNow
            yield* Fiber.interrupt(fiber)
          }
          yield* assertNoneAlive(launched.filter((pid) => !before.has(pid)))
        }))

      needs(capabilities.additionalFds, noDescriptors)(
        "further descriptors: written by the host, read by the host",
        () =>
          Effect.gen(function*() {
            const platform = yield* ProcessPlatform
            const tree = yield* platform.launch(having(programs.copies(3, 4), {
              additionalFds: { fd3: { type: "input" }, fd4: { type: "output" } }
            }))
            yield* Stream.run(bytesOf("through ", "3 and 4"), tree.input(3))
            assert.strictEqual(yield* textOf(tree.output(4).stream), "through 3 and 4")
          })
      )

      needs(capabilities.release, noRelease)("a released tree outlives its scope", () =>
        Effect.gen(function*() {
          const { close, pids, tree } = yield* start(programs.sleeper)
          yield* tree.setReferenced(false)
          yield* close
          yield* assertAllAlive(pids)
        }))
    })

    withLayer(spawnerLayer, { excludeTestServices })("drop-in", (tests) => {
      const needs = needing(tests, time)
      const it = { effect: needs(true, "") }
      const Spawn = ChildProcessSpawner.ChildProcessSpawner

      it.effect("string, lines and exitCode", () =>
        Effect.gen(function*() {
          const spawner = yield* Spawn
          assert.strictEqual(yield* spawner.string(programs.echo("a\nb\n")), "a\nb\n")
          assert.deepStrictEqual(yield* spawner.lines(programs.echo("a\nb\n")), ["a", "b"])
          assert.strictEqual(yield* spawner.exitCode(programs.exit(12)), ChildProcessSpawner.ExitCode(12))
        }))

      it.effect("P17: a code other than 0 is a value, not an error", () =>
        Effect.gen(function*() {
          const handle = yield* programs.exit(7)
          assert.strictEqual(yield* handle.exitCode, ChildProcessSpawner.ExitCode(7))
        }))

      it.effect("P24: stdout, stderr and both together", () =>
        Effect.gen(function*() {
          const handle = yield* programs.echoBoth("out\n", "err\n")
          assert.strictEqual(yield* textOf(handle.stdout), "out\n")
          assert.strictEqual(yield* textOf(handle.stderr), "err\n")
          const both = yield* programs.echoBoth("out\n", "err\n")
          assert.deepStrictEqual((yield* textOf(both.all)).split("\n").sort(), ["", "err", "out"])
        }))

      it.effect("P25: isRunning tells the state of the process", () =>
        Effect.gen(function*() {
          const { handle } = yield* spawn(programs.sleeper)
          assert.isTrue(yield* handle.isRunning)
          yield* handle.kill()
          assert.isFalse(yield* handle.isRunning)
        }))

      it.effect("P26, P15: a missing program is a NotFound", () =>
        Effect.gen(function*() {
          const spawner = yield* Spawn
          const error = yield* Effect.flip(Effect.scoped(spawner.spawn(programs.missing)))
          assert.strictEqual(error.reason._tag, "NotFound")
        }))

      it.effect("a stream as stdin", () =>
        Effect.gen(function*() {
          const spawner = yield* Spawn
          assert.strictEqual(yield* spawner.string(having(programs.cat, { stdin: bytesOf("in ", "out") })), "in out")
        }))

      it.effect("a sink as stdout transforms what the handle gives", () =>
        Effect.gen(function*() {
          const count = Sink.map(
            Sink.reduce(() => 0, (sum: number, chunk: Uint8Array) => sum + chunk.length),
            (sum) => ascii(`${sum} bytes`)
          )
          const handle = yield* having(programs.echo("12345"), { stdout: count })
          assert.strictEqual(yield* textOf(handle.stdout), "5 bytes")
        }))

      it.effect("P27: a pipeline of three stages", () =>
        Effect.gen(function*() {
          const spawner = yield* Spawn
          const pipeline = programs.echo("along\n").pipe(
            ChildProcess.pipeTo(programs.cat),
            ChildProcess.pipeTo(programs.cat)
          )
          assert.strictEqual(yield* spawner.string(pipeline), "along\n")
        }))

      it.effect("P27: a pipeline from stderr, and from all", () =>
        Effect.gen(function*() {
          const spawner = yield* Spawn
          const source = programs.echoBoth("out\n", "err\n")
          assert.strictEqual(
            yield* spawner.string(ChildProcess.pipeTo(source, programs.cat, { from: "stderr" })),
            "err\n"
          )
          const all = yield* spawner.string(ChildProcess.pipeTo(source, programs.cat, { from: "all" }))
          assert.deepStrictEqual(all.split("\n").sort(), ["", "err", "out"])
        }))

      it.effect("peer 29: the first stage that failed decides", () =>
        Effect.gen(function*() {
          const pipeline = programs.exit(3).pipe(
            ChildProcess.pipeTo(programs.cat),
            ChildProcess.pipeTo(programs.exit(4))
          )
          const handle = yield* pipeline
          assert.strictEqual(yield* handle.exitCode, ChildProcessSpawner.ExitCode(4), "the last stage's, as in Effect")
          const { decides, stages } = yield* Spawner.pipeStatus(handle)
          assert.strictEqual(stages.length, 3)
          assert.deepStrictEqual(decides, ExitStatus.exited(3))
        }))

      needs(signals, noSignals)(
        "a death by signal is an error that carries the typed status",
        () =>
          Effect.gen(function*() {
            const handle = yield* programs.signalSelf("SIGKILL")
            const error = yield* Effect.flip(handle.exitCode)
            const status = Option.getOrElse(Spawner.exitStatus(error), () => ExitStatus.unknown)
            assert.isTrue(ExitStatus.isSignaledBy(status, "SIGKILL"))
          })
      )

      needs(politeRequests, noRequests)("P23: forceKillAfter escalates", () =>
        Effect.gen(function*() {
          const { handle, pids } = yield* spawn(programs.stubborn)
          const took = yield* elapsed(handle.kill({ forceKillAfter: 100 }))
          yield* assertNoneAlive(pids)
          assert.isAtLeast(took, 95)
        }))

      needs(politeRequests, noRequests)(
        "Spawner.signal sends a signal and does not wait",
        () =>
          Effect.gen(function*() {
            const { handle } = yield* spawn(programs.stubborn)
            assert.deepStrictEqual(yield* Spawner.signal(handle, "SIGTERM"), { delivered: 1, denied: [] })
            assert.isTrue(yield* handle.isRunning)
          })
      )

      it.effect("P22: the scope ends the whole tree", () =>
        Effect.gen(function*() {
          const { close, pids } = yield* spawn(programs.generations)
          yield* assertAllAlive(pids)
          yield* close
          yield* assertNoneAlive(pids)
        }))

      needs(capabilities.release, noRelease)(
        "unref lets a child outlive its scope, and what it returns takes it back",
        () =>
          Effect.gen(function*() {
            const free = yield* spawn(programs.sleeper)
            yield* free.handle.unref
            yield* free.close
            yield* assertAllAlive(free.pids)
            const back = yield* spawn(programs.sleeper)
            yield* Effect.flatten(back.handle.unref)
            yield* back.close
            yield* assertNoneAlive(back.pids)
          })
      )

      needs(programs.shell !== undefined, "the platform has no shell")(
        "shell: the command is a script",
        () =>
          Effect.gen(function*() {
            const spawner = yield* Spawn
            const script = programs.shell!("from a script\n")
            assert.strictEqual(yield* spawner.string(script), "from a script\n")
            const withArguments = ChildProcess.make(script.command, ["extra"], script.options)
            const error = yield* Effect.flip(Effect.scoped(spawner.spawn(withArguments)))
            assert.strictEqual(error.reason._tag, "BadArgument")
          })
      )
    })
  })
}
