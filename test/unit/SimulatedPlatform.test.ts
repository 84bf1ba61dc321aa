/** The rules of the simulated operating system, each on the test clock. */
import { assert, describe, it } from "@effect/vitest"
import {
  Containment,
  Errors,
  ExitStatus,
  Output,
  ProcessIdentity,
  ProcessPlatform,
  type ProcessTree,
  ShutdownPlan
} from "@treeline/core"
import { Program, SimulatedPlatform } from "@treeline/core/testing"
import { Deferred, Effect, Exit, Fiber, Option, Schema, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { TestClock } from "effect/testing"

const { command, Simulation } = SimulatedPlatform

/** A test on a system of its own. */
const on = <A, E>(
  options: SimulatedPlatform.Options,
  test: Effect.Effect<A, E, ProcessPlatform.ProcessPlatform | SimulatedPlatform.Simulation | Scope.Scope>
) => Effect.provide(Effect.scoped(test), SimulatedPlatform.layer(options))

/** Launches; what is left when the test ends is killed. */
const launch = (
  program: Program.Program,
  options: ProcessPlatform.LaunchOptions & { readonly command?: SimulatedPlatform.CommandOptions } = {}
) =>
  ProcessPlatform.ProcessPlatform.use((platform) =>
    platform.launch(command(program, options.command), { shutdown: ShutdownPlan.kill, ...options })
  )

const text = (output: Output.Output) => Stream.mkString(Stream.decodeText(output.stream))

/** What has been written up to now. */
const tail = (tree: ProcessTree.ProcessTree) => Effect.map(tree.stdout.tail, (bytes) => new TextDecoder().decode(bytes))

const entryOf = (pid: number) =>
  Simulation.use((simulation) =>
    Effect.map(simulation.processes, (processes) => processes.find((process) => process.pid === pid))
  )

/** The pids that a program printed, one in each line. */
const printed = (tree: ProcessTree.ProcessTree) =>
  Effect.map(tail(tree), (lines) => lines.trim().split("\n").map(Number))

const { close, daemonise, endure, exec, exit, fork, ignore, loop, print, raise, read, sleep, trap, write } = Program

describe("Program", () => {
  const sample = Program.make(
    trap("SIGTERM", [write("bye\n"), exit(3)]),
    trap("SIGHUP", "ignore"),
    ignore("SIGINT", "SIGUSR1"),
    fork(loop(2, sleep(1.5)), loop("forever", Program.copy(3, 4))),
    daemonise(),
    Program.listen(80, { status: 204, delay: 3 }),
    Program.listen("/run/x.sock"),
    Program.writeBytes(5, 2),
    endure
  )

  it("goes through its schema unchanged", () => {
    const encoded: unknown = JSON.parse(JSON.stringify(Schema.encodeSync(Program.Program)(sample)))
    assert.deepStrictEqual(Schema.decodeUnknownSync(Program.Program)(encoded), sample)
  })

  it("refuses what no program can mean", () => {
    const refused = (program: unknown) =>
      assert.throws(
        () => Schema.decodeUnknownSync(Program.Program)(program),
        undefined,
        undefined,
        JSON.stringify(program)
      )
    refused([{ _tag: "Sleep", ms: -1 }])
    refused([{ _tag: "Exit", code: 256 }])
    refused([{ _tag: "Raise", signal: "SIGNOT" }])
    refused([{ _tag: "Fork", program: [{ _tag: "Nothing" }] }])
  })

  it("is printed as one line", () => {
    assert.strictEqual(
      Program.script(sample),
      "trap TERM { write 1 \"bye\\n\"; exit 3 }; trap HUP ignore; ignore INT USR1; " +
        "fork { loop 2 { sleep 1.5 }; loop forever { copy 3 to 4 } }; daemonise { }; " +
        "listen 80 answering 204 after 3; listen /run/x.sock; write 2 5 bytes; endure"
    )
  })
})

describe("SimulatedPlatform: processes", () => {
  it.effect("the end of a program is exit 0; a code and a deadly signal are told apart", () =>
    on(
      {},
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* (yield* launch([])).exited, ExitStatus.exited(0))
        assert.deepStrictEqual(yield* (yield* launch([exit(143)])).exited, ExitStatus.exited(143))
        assert.deepStrictEqual(yield* (yield* launch([raise("SIGTERM")])).exited, ExitStatus.signaled("SIGTERM"))
      })
    ))

  it.effect("sleep takes the time that it says, to the ms", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([sleep(100), write("a"), loop(3, sleep(10)), exit(7)])
        yield* TestClock.adjust(99)
        assert.strictEqual(yield* tail(tree), "")
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* tail(tree), "a")
        yield* TestClock.adjust(29)
        assert.isTrue(Option.isNone(yield* tree.exitStatus))
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(yield* tree.exitStatus, Option.some(ExitStatus.exited(7)))
      })
    ))

  it.effect("a child is in its parent's group and session, until it leaves them", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([
          print("{pid}\n"),
          Program.setsid,
          Program.setpgid,
          fork(print("{pid}\n"), endure),
          fork(Program.setpgid, print("{pid}\n"), Program.setsid, endure),
          fork(Program.setsid, print("{pid}\n"), Program.setpgid, fork(print("{pid}\n"), endure), endure),
          endure
        ])
        const [leader, plain, grouped, session, inSession] = yield* printed(tree)
        const shape = (pid: number | undefined) =>
          Effect.map(entryOf(pid!), (entry) => [entry!.parent, entry!.group, entry!.session])
        assert.deepStrictEqual(yield* shape(leader), [2, leader, leader], "the child of the host leads its session")
        assert.deepStrictEqual(yield* shape(plain), [leader, leader, leader])
        assert.deepStrictEqual(yield* shape(grouped), [leader, grouped, leader], "a group's leader can't call setsid")
        assert.deepStrictEqual(yield* shape(session), [leader, session, session], "nor a session's leader setpgid")
        assert.deepStrictEqual(yield* shape(inSession), [session, session, session])
      })
    ))

  it.effect("an orphan belongs to pid 1, which reaps it at its end", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([fork(print("{pid}\n"), sleep(10)), exit(0)])
        const [child] = yield* printed(tree)
        assert.strictEqual((yield* entryOf(child!))?.parent, 1)
        yield* TestClock.adjust(10)
        assert.isUndefined(yield* entryOf(child!))
      })
    ))

  it.effect("pid 1 of a container may reap nobody: the dead stay zombies, and are not alive", () =>
    on(
      { reaps: false },
      Effect.gen(function*() {
        const tree = yield* launch([fork(print("{pid}\n"), sleep(10)), exit(0)])
        const [child] = yield* printed(tree)
        yield* TestClock.adjust(10)
        const entry = yield* entryOf(child!)
        assert.strictEqual(entry?.state, "Z")
        assert.strictEqual(entry?.alive, false)
        assert.deepStrictEqual(yield* tree.empty, [], "peer 24: a zombie does not hold a tree")
      })
    ))

  it.effect("a dead child is a zombie until its parent waits for it", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([fork(print("{pid}\n")), sleep(10), Program.waitChildren, write("waited\n"), endure])
        const [child] = yield* printed(tree)
        assert.strictEqual((yield* entryOf(child!))?.state, "Z")
        yield* TestClock.adjust(10)
        assert.isUndefined(yield* entryOf(child!))
        assert.include(yield* tail(tree), "waited")
      })
    ))

  it.effect("who ignores SIGCHLD has no zombies", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([ignore("SIGCHLD"), fork(print("{pid}\n")), Program.waitChildren, endure])
        const [child] = yield* printed(tree)
        assert.isUndefined(yield* entryOf(child!))
      })
    ))

  it.effect("waiting for children ends with the last of them", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([fork(sleep(10)), fork(sleep(20)), Program.waitChildren, exit(4)])
        yield* TestClock.adjust(19)
        assert.isTrue(Option.isNone(yield* tree.exitStatus))
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(4))
      })
    ))

  it.effect("peer 15: a daemon has a session of another process, and pid 1 as its parent", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([daemonise(print("{pid}\n"), endure), print("{pid}\n"), endure])
        const pids = yield* printed(tree)
        const daemon = (yield* entryOf(pids.find((pid) => pid !== tree.pid)!))!
        assert.strictEqual(daemon.parent, 1)
        assert.notInclude([tree.pid, daemon.pid], daemon.session)
        const { processes } = yield* Simulation
        assert.isTrue((yield* processes).every(({ alive }) => alive), "nobody is left as a zombie")
      })
    ))

  it.effect("exec keeps what is ignored and forgets traps", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([ignore("SIGHUP"), trap("SIGTERM", [exit(5)]), exec(endure)])
        yield* tree.signal("SIGHUP")
        assert.isTrue(Option.isNone(yield* tree.exitStatus))
        yield* tree.signal("SIGTERM")
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.signaled("SIGTERM"))
      })
    ))

  it.effect("a child has none of its parent's traps, and ignores what its parent ignores", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([
          trap("SIGUSR1", [write("trapped")]),
          ignore("SIGUSR2"),
          fork(Program.setpgid, endure),
          endure
        ])
        const simulation = yield* Simulation
        const child = (yield* simulation.alive).find(({ pid }) => pid !== tree.pid)!
        yield* simulation.kill(child.pid, "SIGUSR2")
        assert.strictEqual((yield* simulation.alive).length, 2)
        yield* simulation.kill(child.pid, "SIGUSR1")
        assert.strictEqual((yield* simulation.alive).length, 1)
        assert.strictEqual(yield* tail(tree), "")
      })
    ))

  it.effect("the number of a group is not given to a process while the group lives", () =>
    on(
      { pidMax: 8 },
      Effect.gen(function*() {
        const tree = yield* launch([
          fork(Program.setpgid, print("{pid}\n"), fork(endure)),
          Program.waitChildren,
          endure
        ])
        const [group] = yield* printed(tree)
        assert.isUndefined(yield* entryOf(group!), "its leader was reaped")
        for (let i = 0; i < 20; i++) assert.notStrictEqual((yield* Effect.scoped(launch([]))).pid, group)
      })
    ))

  it.effect("what is due at the same instant comes in the order in which it was set", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([
          fork(sleep(5), sleep(5), write("1")),
          fork(sleep(10), write("2")),
          fork(sleep(10), write("3")),
          fork(sleep(2), sleep(8), write("4")),
          Program.waitChildren
        ])
        yield* TestClock.adjust(10)
        // The first and the last set their second sleep later than the others, the last one first.
        assert.strictEqual(yield* tail(tree), "2341")
      })
    ))

  it.effect("peer 22: a number comes again after its process was reaped, and is another process then", () =>
    on(
      { pidMax: 6 },
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        const run = Effect.scoped(Effect.map(launch([]), (tree) => tree.identity))
        const first = yield* run
        let again = yield* run
        for (let i = 0; i < 4 && again.pid !== first.pid; i++) again = yield* run
        assert.strictEqual(again.pid, first.pid)
        assert.isFalse(ProcessIdentity.equals(first, again))
        assert.isTrue(Option.isNone(yield* platform.find(first)))
      })
    ))

  it.effect("peer 22: the number of a dead leader is not given away while its tree lives", () =>
    on(
      { pidMax: 6 },
      Effect.gen(function*() {
        const tree = yield* launch([fork(endure), exit(0)])
        for (let i = 0; i < 20; i++) {
          assert.notStrictEqual((yield* Effect.scoped(launch([]))).pid, tree.pid)
        }
        assert.strictEqual((yield* entryOf(tree.pid))?.state, "Z")
        assert.deepStrictEqual(yield* tree.shutdown(), [])
        assert.isUndefined(yield* entryOf(tree.pid))
      })
    ))

  it.effect("a table without free numbers refuses a launch, and a fork", () =>
    on(
      { pidMax: 4 },
      Effect.gen(function*() {
        yield* launch([fork(endure), fork(endure), write("on\n"), endure])
        const error = yield* Effect.flip(launch([endure]))
        assert.strictEqual(error._tag === "LaunchError" ? error.reason : error._tag, "ResourceExhausted")
        const { story } = yield* Simulation
        assert.include(yield* story, "fork failed (no free pid)")
      })
    ))

  it.effect("a program that never waits takes time, and does not stop the clock", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([loop("forever", loop(1, Program.stopListening(1)))])
        yield* TestClock.adjust(20)
        yield* tree.signal("SIGTERM")
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.signaled("SIGTERM"))
      })
    ))
})

describe("SimulatedPlatform: signals", () => {
  for (
    const [signals, ends] of [
      [["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGPIPE", "SIGQUIT", "SIGALRM", "SIGKILL"], true],
      [["SIGCHLD", "SIGWINCH", "SIGURG", "SIGCONT"], false]
    ] as const
  ) {
    it.effect(`${signals.join(" ")} ${ends ? "end a process" : "do nothing"} by default`, () =>
      on(
        {},
        Effect.gen(function*() {
          for (const signal of signals) {
            const tree = yield* launch([endure])
            assert.deepStrictEqual(yield* tree.signal(signal), { delivered: 1, denied: [] })
            assert.deepStrictEqual(
              yield* tree.exitStatus,
              ends ? Option.some(ExitStatus.signaled(signal)) : Option.none()
            )
          }
        })
      ))
  }

  it.effect("a trap interrupts a sleep, which goes on to its own end", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([trap("SIGUSR1", [write("t"), sleep(20), write("T")]), sleep(100), write("s")])
        yield* TestClock.adjust(50)
        yield* tree.signal("SIGUSR1")
        assert.strictEqual(yield* tail(tree), "t")
        yield* TestClock.adjust(49)
        assert.strictEqual(yield* tail(tree), "tT")
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* tail(tree), "tTs")
      })
    ))

  it.effect("a signal whose trap is running waits for its end; another one does not", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([
          trap("SIGUSR1", [write("a"), sleep(10), write("A")]),
          trap("SIGUSR2", [write("b")]),
          endure
        ])
        yield* tree.signal("SIGUSR1")
        yield* tree.signal("SIGUSR1")
        yield* tree.signal("SIGUSR1")
        yield* tree.signal("SIGUSR2")
        assert.strictEqual(yield* tail(tree), "ab")
        yield* TestClock.adjust(10)
        assert.strictEqual(yield* tail(tree), "abAa", "those that wait are one")
        yield* TestClock.adjust(10)
        assert.strictEqual(yield* tail(tree), "abAaA")
      })
    ))

  it.effect("a trap can be taken back, and SIGKILL has none", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([
          ignore("SIGTERM", "SIGKILL", "SIGSTOP"),
          trap("SIGUSR1", [trap("SIGTERM", "default")]),
          endure
        ])
        yield* tree.signal("SIGTERM")
        assert.isTrue(Option.isNone(yield* tree.exitStatus))
        yield* tree.signal("SIGUSR1")
        yield* tree.signal("SIGTERM")
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.signaled("SIGTERM"))
        const deaf = yield* launch([ignore("SIGKILL"), endure])
        yield* deaf.signal("SIGKILL")
        assert.deepStrictEqual(yield* deaf.exited, ExitStatus.signaled("SIGKILL"))
      })
    ))

  it.effect("SIGSTOP suspends: a sleep that has passed ends with SIGCONT", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([sleep(100), write("woke"), endure])
        yield* TestClock.adjust(50)
        yield* tree.signal("SIGSTOP")
        assert.strictEqual((yield* entryOf(tree.pid))?.state, "T")
        yield* TestClock.adjust(1_000)
        assert.strictEqual(yield* tail(tree), "")
        yield* tree.signal("SIGCONT")
        assert.strictEqual(yield* tail(tree), "woke")
      })
    ))

  it.effect("a stopped sleeper that is continued in time sleeps on", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([sleep(100), write("woke"), endure])
        yield* tree.signal("SIGSTOP")
        yield* TestClock.adjust(50)
        yield* tree.signal("SIGCONT")
        yield* TestClock.adjust(49)
        assert.strictEqual(yield* tail(tree), "")
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* tail(tree), "woke")
      })
    ))

  it.effect("peer 8: a stopped process gets its signals when it is continued, but SIGKILL at once", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([trap("SIGUSR1", [write("u")]), trap("SIGCONT", [write("c")]), endure])
        yield* tree.signal("SIGSTOP")
        yield* tree.signal("SIGUSR1")
        yield* tree.signal("SIGTERM")
        assert.strictEqual(yield* tail(tree), "")
        assert.isTrue(Option.isNone(yield* tree.exitStatus))
        yield* tree.signal("SIGCONT")
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.signaled("SIGTERM"))
        const killed = yield* launch([endure])
        yield* killed.signal("SIGSTOP")
        yield* killed.signal("SIGKILL")
        assert.deepStrictEqual(yield* killed.exited, ExitStatus.signaled("SIGKILL"))
      })
    ))

  it.effect("SIGTSTP stops no orphaned group, which nobody could continue", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([fork(Program.setpgid, print("{pid}\n"), endure), endure])
        const [child] = yield* printed(tree)
        yield* tree.signal("SIGTSTP", "tree")
        assert.strictEqual((yield* entryOf(tree.pid))?.state, "S")
        assert.strictEqual((yield* entryOf(child!))?.state, "T")
      })
    ))

  it.effect("a signal goes to the leader, the group or the tree, and each counts as kill(2) does", () =>
    on(
      {},
      Effect.gen(function*() {
        const said = (signal: ChildProcess.Signal, text: string) => trap(signal, [write(text)])
        const tree = yield* launch([
          fork(said("SIGUSR1", "c"), endure),
          fork(Program.setsid, said("SIGUSR1", "e"), endure),
          said("SIGUSR1", "l"),
          endure
        ])
        assert.deepStrictEqual(yield* tree.signal("SIGUSR1", "leader"), { delivered: 1, denied: [] })
        assert.strictEqual(yield* tail(tree), "l")
        assert.deepStrictEqual(yield* tree.signal("SIGUSR1", "group"), { delivered: 1, denied: [] })
        assert.strictEqual((yield* tail(tree)).split("").sort().join(""), "cll")
        assert.deepStrictEqual(yield* tree.signal("SIGUSR1", "tree"), { delivered: 2, denied: [] })
        assert.strictEqual((yield* tail(tree)).split("").sort().join(""), "ccelll")
      })
    ))
})

describe("SimulatedPlatform: descriptors", () => {
  it.effect("peer 53: a full pipe holds its writer until somebody reads", () =>
    on(
      { pipeCapacity: 10 },
      Effect.gen(function*() {
        const tree = yield* launch([Program.writeBytes(25), write("written", 2), endure], {
          output: Output.backpressure(10)
        })
        yield* TestClock.adjust(100)
        assert.strictEqual((yield* tree.stderr.tail).length, 0)
        const reading = yield* Effect.forkChild(Stream.runCount(tree.stdout.stream), { startImmediately: true })
        yield* TestClock.adjust(100)
        assert.strictEqual((yield* tree.stderr.tail).length, 7)
        yield* tree.signal("SIGKILL")
        yield* Fiber.join(reading)
        assert.strictEqual(yield* tree.stdout.bytes, 25)
      })
    ))

  it.effect("a short write is not split", () =>
    on(
      { pipeCapacity: 10 },
      Effect.gen(function*() {
        const tree = yield* launch([write("1234567"), write("abcdefg"), endure], { output: Output.backpressure(1) })
        const chunks: Array<string> = []
        yield* Effect.forkChild(
          Stream.runForEach(Stream.decodeText(tree.stdout.stream), (chunk) => Effect.sync(() => chunks.push(chunk))),
          { startImmediately: true }
        )
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(chunks, ["1234567", "abcdefg"])
      })
    ))

  it.effect("peer 50: a pipe ends when the last of its writers has gone", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([
          fork(sleep(50), write("late")),
          fork(close(1), endure),
          write("early "),
          close(1),
          endure
        ])
        const reading = yield* Effect.forkChild(text(tree.stdout), { startImmediately: true })
        yield* TestClock.adjust(49)
        assert.isUndefined(reading.pollUnsafe(), "a child holds it")
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* Fiber.join(reading), "early late")
      })
    ))

  it.effect("peer 56: who writes to a pipe without readers gets SIGPIPE, or an error where that is ignored", () =>
    on(
      {},
      Effect.gen(function*() {
        const output = Output.backpressure(100, { onReaderGone: "close" })
        const tree = yield* launch([write("one"), sleep(10), write("two"), exit(0)], { output })
        const deaf = yield* launch([ignore("SIGPIPE"), write("one"), sleep(10), write("two"), exit(6)], { output })
        yield* Stream.runHead(tree.stdout.stream)
        yield* Stream.runHead(deaf.stdout.stream)
        yield* TestClock.adjust(10)
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.signaled("SIGPIPE"))
        assert.deepStrictEqual(yield* deaf.exited, ExitStatus.exited(6))
      })
    ))

  it.effect("lines of the input are read one by one, and its end is seen", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([read(), write("1"), read(), write("2"), read(), write("3"), exit(0)])
        yield* Effect.forkChild(
          Stream.run(Stream.concat(Stream.encodeText(Stream.make("a\nb", "c\n")), Stream.never), tree.stdin),
          { startImmediately: true }
        )
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* tail(tree), "12")
        yield* Stream.run(Stream.empty, tree.stdin)
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0))
        assert.strictEqual(yield* tail(tree), "123")
      })
    ))

  it.effect("a write to the input waits while the pipe is full, and fails when nobody reads any more", () =>
    on(
      { pipeCapacity: 4 },
      Effect.gen(function*() {
        const tree = yield* launch([sleep(10), read(), sleep(10), exit(0)])
        const writing = yield* Effect.forkChild(
          Effect.exit(Stream.run(Stream.encodeText(Stream.make("ab\ndefghijkl")), tree.stdin)),
          { startImmediately: true }
        )
        yield* TestClock.adjust(19)
        assert.isUndefined(writing.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(writing)))
      })
    ))

  it.effect("further descriptors, one that goes both ways included", () =>
    on(
      {},
      Effect.gen(function*() {
        const tree = yield* launch([Program.copy(3, 3)], {
          command: {
            additionalFds: { fd3: { type: "input", stream: Stream.encodeText(Stream.make("there ", "and back")) } }
          }
        })
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0), "one that only reads takes no answer")
        const both = yield* launch([read(5), write("back", 5)], {
          command: { additionalFds: { fd5: { type: "duplex", stream: Stream.encodeText(Stream.make("there\n")) } } }
        })
        assert.strictEqual(yield* text(both.output(5)), "back")
      })
    ))

  it.effect("what is ignored leads nowhere, what is inherited to the host", () =>
    on(
      {},
      Effect.gen(function*() {
        const { inherited } = yield* Simulation
        const tree = yield* launch([read(), write("nowhere"), write("ünd", 2), exit(0)], {
          command: { stdin: "ignore", stdout: "ignore", stderr: "inherit" }
        })
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.exited(0))
        assert.strictEqual(yield* inherited(2), "ünd")
        assert.strictEqual(yield* inherited(1), "")
      })
    ))
})

describe("SimulatedPlatform: containment", () => {
  /** What an escaped process has lost, and the least level that finds it all the same. */
  const losses = [
    [["mark"], "tagged"],
    [["tag"], "marked"],
    [["mark", "tag"], "sealed"]
  ] as const
  for (const level of ["group", "marked", "tagged", "sealed"] as const) {
    it.effect(`${level} finds an escaped process by what it has left`, () =>
      on(
        { level },
        Effect.gen(function*() {
          const { descendants, kill } = yield* Simulation
          for (const [shed, least] of losses) {
            const tree = yield* launch([fork(Program.setsid, ...shed.map(Program.shed), endure), endure])
            assert.deepStrictEqual(yield* tree.shutdown(), [])
            const left = yield* descendants(tree.pid)
            assert.strictEqual(left.length, Containment.atLeast(level, least) ? 0 : 1, `${shed.join()} at ${level}`)
            for (const { pid } of left) yield* kill(pid)
          }
        })
      ))
  }

  it.effect("a level above the highest is refused, one up to it given", () =>
    on(
      { level: "group", highest: "sealed" },
      Effect.gen(function*() {
        assert.strictEqual((yield* launch([endure])).level, "group")
        const sealed = yield* launch([loop(4, fork(endure)), endure], { limits: { processes: 3 } })
        assert.strictEqual(sealed.level, "sealed")
        assert.strictEqual((yield* sealed.members).length, 3)
        assert.strictEqual((yield* sealed.usage).processes, 3)
      })
    ))

  it.effect("without a seal limits are refused", () =>
    on(
      {},
      Effect.gen(function*() {
        const error = yield* Effect.flip(launch([endure], { limits: { processes: 3 } }))
        assert.strictEqual(error._tag, "ContainmentUnavailable")
      })
    ))
})

describe("SimulatedPlatform: the host's death", () => {
  const escaping = Program.make(fork(Program.setsid, endure), fork(endure), endure)

  /** Launches in a fiber that dies with the host, which nobody waits for. */
  const inHost = Effect.fnUntraced(function*(
    program: Program.Program,
    use: (tree: ProcessTree.ProcessTree) => Effect.Effect<void> = () => Effect.void
  ) {
    const launched = yield* Deferred.make<ProcessTree.ProcessTree>()
    const { launch } = yield* ProcessPlatform.ProcessPlatform
    yield* Effect.forkDetach(Effect.scoped(
      Effect.gen(function*() {
        const tree = yield* launch(command(program))
        yield* use(tree)
        yield* Deferred.succeed(launched, tree)
        yield* Effect.never
      })
    ))
    return yield* Deferred.await(launched)
  })

  for (const level of ["group", "marked"] as const) {
    it.effect(`K1: the guardian ends what ${level} reaches`, () =>
      on(
        { level },
        Effect.gen(function*() {
          const simulation = yield* Simulation
          yield* inHost(escaping)
          assert.strictEqual((yield* simulation.alive).length, 3)
          yield* simulation.killHost
          assert.strictEqual((yield* simulation.alive).length, level === "group" ? 1 : 0)
        })
      ))
  }

  it.effect("without a guardian everything lives on, as an orphan", () =>
    on(
      { guardian: "none" },
      Effect.gen(function*() {
        const simulation = yield* Simulation
        const { pid } = yield* inHost(escaping)
        yield* simulation.killHost
        assert.strictEqual((yield* simulation.alive).length, 3)
        assert.strictEqual((yield* entryOf(pid))?.parent, 1)
      })
    ))

  it.effect("the guardian asks first, and kills after its grace", () =>
    on(
      { guardian: { grace: 100 } },
      Effect.gen(function*() {
        const simulation = yield* Simulation
        yield* inHost([fork(ignore("SIGTERM"), endure), endure])
        yield* simulation.killHost
        assert.strictEqual((yield* simulation.alive).length, 1)
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(yield* simulation.alive, [])
      })
    ))

  it.effect("the host itself dies at once, also where ends take their time", () =>
    on(
      { guardian: "none", exitDelay: 1_000 },
      Effect.gen(function*() {
        const simulation = yield* Simulation
        const { pid } = yield* inHost([endure])
        yield* simulation.killHost
        assert.strictEqual((yield* entryOf(pid))?.parent, 1)
      })
    ))

  it.effect("a released tree outlives its host; its pipes do not", () =>
    on(
      {},
      Effect.gen(function*() {
        const simulation = yield* Simulation
        yield* inHost([sleep(10), write("to nobody"), endure], (tree) => tree.setReferenced(false))
        yield* simulation.killHost
        assert.strictEqual((yield* simulation.alive).length, 1)
        yield* TestClock.adjust(10)
        assert.deepStrictEqual(yield* simulation.alive, [], "SIGPIPE")
      })
    ))

  it.effect("no call of a dead host returns, and a new one is another host", () =>
    on(
      {},
      Effect.gen(function*() {
        const simulation = yield* Simulation
        const platform = yield* ProcessPlatform.ProcessPlatform
        const tree = yield* inHost([sleep(10)])
        const pending = [tree.exited, tree.empty].map((call) => Effect.runFork<unknown, never>(call))
        yield* simulation.killHost
        // Nothing can interrupt a launch, so it must not be waited for.
        const late = [
          Effect.scoped(platform.launch(command([]))),
          platform.processes,
          platform.containment,
          platform.find(tree.identity)
        ].map((call) => Effect.runFork<unknown, unknown>(call))
        yield* TestClock.adjust(100)
        for (const call of [...pending, ...late]) assert.isUndefined(call.pollUnsafe())
        const next = yield* simulation.newHost
        const again = yield* next.launch(command([exit(9)]))
        assert.deepStrictEqual(yield* again.exited, ExitStatus.exited(9))
      })
    ))
})

describe("SimulatedPlatform: faults", () => {
  const reasonOf = (error: ProcessPlatform.LaunchFailure) => error._tag === "LaunchError" ? error.reason : error._tag

  it.effect("launches fail: the next ones, by name, by a rate", () =>
    on(
      {},
      Effect.gen(function*() {
        const { failNext, launches, setFaults } = yield* Simulation
        yield* failNext("PermissionDenied", "NotExecutable")
        assert.strictEqual(reasonOf(yield* Effect.flip(launch([]))), "PermissionDenied")
        assert.strictEqual(reasonOf(yield* Effect.flip(launch([]))), "NotExecutable")
        yield* launch([])
        yield* setFaults({ launchFailures: { bad: "ResourceExhausted" } })
        assert.strictEqual(reasonOf(yield* Effect.flip(launch([], { command: { name: "bad" } }))), "ResourceExhausted")
        yield* launch([])
        yield* setFaults({ launchFailureRate: 1 })
        assert.instanceOf(yield* Effect.flip(launch([])), Errors.LaunchError)
        assert.strictEqual(yield* launches, 2)
      })
    ))

  it.effect("a seed draws the same faults each time, another one others", () =>
    Effect.gen(function*() {
      const outcomes = (seed: number) =>
        on(
          { seed, launchFailureRate: 0.5 },
          Effect.forEach(
            Array.from({ length: 40 }),
            () => Effect.match(launch([]), { onFailure: reasonOf, onSuccess: () => "launched" })
          )
        )
      const first = yield* outcomes(7)
      assert.deepStrictEqual(yield* outcomes(7), first)
      assert.notDeepEqual(yield* outcomes(8), first)
      assert.include(first, "launched")
    }))

  it.effect("what may not be signalled is said, and left when the cap has passed", () =>
    on(
      {},
      Effect.gen(function*() {
        const simulation = yield* Simulation
        const tree = yield* launch([Program.protect, fork(endure), endure], {
          shutdown: ShutdownPlan.make([], { cap: "1 second" })
        })
        const report = yield* tree.signal("SIGTERM", "group")
        assert.strictEqual(report.delivered, 0)
        assert.strictEqual(report.denied.length, 2)
        yield* simulation.protect(tree.pid, false)
        const partly = yield* tree.signal("SIGWINCH", "group")
        assert.deepStrictEqual(
          partly,
          { delivered: 1, denied: [] },
          "one that could be signalled is enough for kill(2)"
        )
        const stopping = yield* Effect.forkChild(tree.shutdown(), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        const survivors = yield* Fiber.join(stopping)
        assert.strictEqual(survivors.length, 1)
        assert.isTrue(yield* simulation.kill(survivors[0]!.pid), "root may")
        assert.deepStrictEqual(yield* simulation.alive, [])
      })
    ))

  it.effect("a slow end: the process lives on for its time after the kill, and runs nothing", () =>
    on(
      { exitDelay: 50 },
      Effect.gen(function*() {
        const tree = yield* launch([loop("forever", write("."), sleep(10))])
        const quick = yield* launch([Program.linger(5), endure])
        yield* quick.signal("SIGKILL")
        yield* tree.signal("SIGKILL")
        yield* TestClock.adjust(5)
        assert.deepStrictEqual(yield* quick.exitStatus, Option.some(ExitStatus.signaled("SIGKILL")))
        yield* TestClock.adjust(44)
        assert.isTrue((yield* entryOf(tree.pid))?.alive)
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.signaled("SIGKILL"))
        assert.strictEqual(yield* tail(tree), ".")
      })
    ))

  it.effect("what hangs in the kernel does not end by SIGKILL, until it is released", () =>
    on(
      {},
      Effect.gen(function*() {
        const simulation = yield* Simulation
        const tree = yield* launch([Program.hang, write("on")], {
          shutdown: ShutdownPlan.make([], { cap: "1 second" })
        })
        const stopping = yield* Effect.forkChild(tree.shutdown(), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(stopping))[0]?.state, "D")
        yield* simulation.hang(tree.pid, false)
        assert.deepStrictEqual(yield* tree.exited, ExitStatus.signaled("SIGKILL"))
        assert.strictEqual(yield* tail(tree), "")
        const other = yield* launch([endure])
        yield* simulation.hang(other.pid)
        yield* other.signal("SIGTERM")
        assert.isTrue(Option.isNone(yield* other.exitStatus))
        yield* simulation.hang(other.pid, false)
        assert.deepStrictEqual(yield* other.exited, ExitStatus.signaled("SIGTERM"))
      })
    ))

  it.effect("a lost notification: the end is real at once, and known later", () =>
    on(
      { noticeDelay: 100 },
      Effect.gen(function*() {
        const tree = yield* launch([exit(2)])
        const empty = yield* Effect.forkChild(tree.empty, { startImmediately: true })
        yield* TestClock.adjust(99)
        assert.isTrue(Option.isNone(yield* tree.exitStatus))
        assert.isTrue((yield* entryOf(tree.pid))?.alive !== true)
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(yield* tree.exitStatus, Option.some(ExitStatus.exited(2)))
        assert.deepStrictEqual(yield* Fiber.join(empty), [])
      })
    ))

  it.effect("an input that takes no notice of its interruption holds a close for the cap, and no longer", () =>
    on(
      {},
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const stdin = Stream.fromEffect(Effect.uninterruptible(Effect.never))
        const options = { command: { stdin }, shutdown: ShutdownPlan.make([], { cap: 700 }) }
        yield* Scope.provide(launch([endure], options), scope)
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
        yield* TestClock.adjust(699)
        assert.isUndefined(closing.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(closing.pollUnsafe(), Exit.void)
      })
    ))

  it.effect("a launch that takes its time", () =>
    on(
      { spawnTime: 30 },
      Effect.gen(function*() {
        const { launches } = yield* Simulation
        const starting = yield* Effect.forkChild(launch([endure]), { startImmediately: true })
        yield* TestClock.adjust(29)
        assert.strictEqual(yield* launches, 0)
        yield* TestClock.adjust(1)
        yield* Fiber.join(starting)
        assert.strictEqual(yield* launches, 1)
      })
    ))
})

describe("SimulatedPlatform: programs and network", () => {
  it.effect("executables by name, with arguments, environment and directory; a shell is one of them", () =>
    on(
      {
        env: { HOME: "/root" },
        directories: ["/", "/srv"],
        programs: {
          server: [exit(3)],
          show: ({ args, cwd, env }) => [write(`${args.join()} ${cwd} ${env["HOME"]} ${env["A"]}`)],
          sh: ({ args }) => [write(args.join(" "))]
        }
      },
      Effect.gen(function*() {
        const platform = yield* ProcessPlatform.ProcessPlatform
        assert.deepStrictEqual(
          yield* (yield* platform.launch(ChildProcess.make("server"))).exited,
          ExitStatus.exited(3)
        )
        const show = ChildProcess.make("show", ["a", "b"], { cwd: "/srv", env: { A: "1" }, extendEnv: true })
        assert.strictEqual(yield* text((yield* platform.launch(show)).stdout), "a,b /srv /root 1")
        const shell = ChildProcess.make("echo hi", { cwd: "/srv", shell: true })
        assert.strictEqual(yield* text((yield* platform.launch(shell)).stdout), "-c echo hi")
      })
    ))

  it.effect("TCP is accepted while a living process listens; HTTP is answered while it runs", () =>
    on(
      {},
      Effect.gen(function*() {
        const network = (yield* ProcessPlatform.ProcessPlatform).network!
        const at = { host: "127.0.0.1", port: 80 }
        const http = yield* network.http
        const status = Effect.map(http.get("http://127.0.0.1/health"), (r) => r.status)
        assert.strictEqual((yield* Effect.flip(network.connect(at))).reason, "Refused")
        const tree = yield* launch([
          sleep(10),
          Program.listen(80, { status: 503 }),
          sleep(10),
          Program.listen(80, { status: 200, delay: 5 }),
          endure
        ])
        yield* TestClock.adjust(10)
        yield* network.connect(at)
        assert.strictEqual(yield* status, 503)
        assert.deepStrictEqual(yield* network.listeners!(at), Option.some([tree.pid]))
        yield* TestClock.adjust(10)
        const slow = yield* Effect.forkChild(status, { startImmediately: true })
        yield* TestClock.adjust(4)
        assert.isUndefined(slow.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* Fiber.join(slow), 200)
        yield* tree.signal("SIGSTOP")
        yield* network.connect(at)
        const held = yield* Effect.forkChild(status, { startImmediately: true })
        yield* TestClock.adjust(1_000)
        assert.isUndefined(held.pollUnsafe(), "a stopped server answers nobody")
        yield* tree.signal("SIGCONT")
        yield* TestClock.adjust(100)
        assert.strictEqual(yield* Fiber.join(held), 200)
        yield* tree.signal("SIGKILL")
        assert.strictEqual((yield* Effect.flip(network.connect(at))).reason, "Refused")
        assert.strictEqual((yield* Effect.flip(status)).reason._tag, "TransportError")
        assert.deepStrictEqual(yield* network.listeners!(at), Option.some([]))
      })
    ))

  it.effect("a port has one listener; a socket has a path", () =>
    on(
      {},
      Effect.gen(function*() {
        const network = (yield* ProcessPlatform.ProcessPlatform).network!
        const first = yield* launch([Program.listen(80), Program.listen("/run/a"), endure])
        const second = yield* launch([Program.listen(80), endure])
        assert.deepStrictEqual(yield* second.exited, ExitStatus.exited(1))
        assert.deepStrictEqual(yield* network.listeners!({ path: "/run/a" }), Option.some([first.pid]))
        assert.strictEqual((yield* Effect.flip(network.connect({ path: "/run/b" }))).reason, "NotFound")
      })
    ))
})

describe("Simulation", () => {
  it.effect("counts launches, and the incarnations of a key that lived at once", () =>
    on(
      {},
      Effect.gen(function*() {
        const { launches, peakIncarnations } = yield* Simulation
        const named = { command: { name: "a" } }
        for (let i = 0; i < 3; i++) yield* Effect.scoped(launch([endure], named))
        assert.strictEqual(yield* peakIncarnations("a"), 1)
        yield* launch([daemonise(endure)], named)
        yield* launch([endure], named)
        assert.strictEqual(yield* peakIncarnations("a"), 2, "a daemon that is left counts")
        assert.strictEqual(yield* peakIncarnations("b"), 0)
        assert.strictEqual(yield* launches, 5)
      })
    ))

  it.effect("the journal is bounded and readable, and events can be followed", () =>
    on(
      { journal: 3 },
      Effect.gen(function*() {
        const { journal, onEvent, story } = yield* Simulation
        const seen: Array<string> = []
        const scope = yield* Scope.make()
        yield* Scope.provide(onEvent(({ what }) => seen.push(what)), scope)
        yield* Effect.scoped(
          launch([fork(exit(3)), sleep(5), raise("SIGTERM")]).pipe(
            Effect.tap(() => TestClock.adjust(5)),
            Effect.tap(({ empty }) => empty)
          )
        )
        yield* Scope.close(scope, Exit.void)
        yield* launch([])
        assert.deepStrictEqual(seen, ["launched", "forked", "ended", "signalled", "reaped", "ended", "reaped"])
        assert.strictEqual((yield* journal).length, 3)
        assert.match(
          yield* story,
          /^5 ms {2}\d+ simulated launched\n5 ms {2}\d+ simulated ended \(exited with code 0\)\n5 ms .* reaped$/
        )
      })
    ))

  it.effect("the same programs give the same story", () =>
    Effect.gen(function*() {
      const story = on(
        { pidMax: 50, exitDelay: 3 },
        Effect.gen(function*() {
          const trees = yield* Effect.forEach(Array.from({ length: 8 }), (_, i) =>
            launch([loop(5, fork(sleep(10), write("x")), sleep(i % 3 === 0 ? 10 : 5)), Program.waitChildren, exit(i)]))
          yield* TestClock.adjust(200)
          yield* Effect.forEach(trees, (tree) =>
            tree.empty)
          return yield* Effect.flatMap(Simulation, (simulation) =>
            simulation.story)
        })
      )
      const [first, second] = [yield* story, yield* Effect.andThen(TestClock.setTime(0), story)]
      assert.isAbove(first.split("\n").length, 100)
      const untimed = (text: string) => text.replace(/^.* ms/gm, "")
      assert.strictEqual(untimed(second), untimed(first))
    }))
})
