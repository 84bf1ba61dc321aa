/**
 * `treeline run` in a real terminal, as a person uses it: tmux is the terminal, an interactive bash is the shell.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { eventually, stays } from "../support/Eventually.ts"
import { isAlive, stateOf } from "../support/Processes.ts"
import { isHere, open } from "../support/Terminal.ts"

describe.skipIf(!isHere())("treeline run in a terminal (needs tmux and bash)", () => {
  it.live("peer 126: Ctrl-C reaches the program exactly once, and the program decides", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      terminal.enter("tl run -- node counter.mjs")
      yield* terminal.awaitScreen("ready")
      terminal.type("C-c")
      yield* terminal.awaitScreen("got 1")
      yield* stays("once", () => !terminal.screen().includes("got 2"), 500)
      // More than a second later it is a first one again.
      yield* stays("treeline leaves it alone", () => terminal.scratch.living().length === 2, 700)
      terminal.type("C-c")
      yield* terminal.awaitScreen("got 2")
      yield* stays("once", () => !terminal.screen().includes("got 3"), 300)
      terminal.enter("q")
      terminal.enter("echo rc=$?")
      yield* terminal.awaitScreen("rc=5")
      assert.notInclude(terminal.screen(), "treeline:")
    }))

  it.live("Ctrl-C on a program that knows nothing of it: both end, as the shell expects", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      terminal.enter("for i in 1 2; do tl run -- sh -c 'echo run; sleep 60; :'; done; echo after-$?")
      yield* terminal.awaitScreen(/^run$/m)
      terminal.type("C-c")
      // Bash ends the whole loop only when the command has died of SIGINT itself.
      terminal.enter("echo rc=$?")
      yield* terminal.awaitScreen("rc=130")
      assert.notInclude(terminal.screen(), "after-1")
      assert.notInclude(terminal.screen(), "treeline:")
      assert.strictEqual(terminal.screen().match(/^run$/gm)?.length, 1)
    }))

  it.live("what does not end by Ctrl-C, as a shell's background jobs, is ended and named", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      terminal.enter("tl run -- tree grandchild")
      yield* terminal.scratch.awaitReported(3)
      terminal.type("C-c")
      terminal.enter("echo rc=$?")
      yield* terminal.awaitScreen("rc=130")
      assert.include(terminal.screen(), "treeline: ended 2 processes that tree left behind: ")
      assert.deepStrictEqual(terminal.scratch.living(), [])
    }))

  it.live("peer 126: Ctrl-Z stops the program and treeline, fg continues both", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      terminal.enter("tl run -- node counter.mjs")
      yield* terminal.awaitScreen("ready")
      const both = yield* terminal.scratch.awaitReported(2)
      for (let round = 0; round < 2; round++) {
        terminal.type("C-z")
        yield* eventually("both are stopped", () => both.every(({ pid }) => stateOf(pid) === "T"))
        terminal.enter(`echo shell-${round}`)
        yield* terminal.awaitScreen(new RegExp(`^shell-${round}$`, "m"))
        terminal.enter("fg")
        yield* eventually("both go on", () => both.every(({ pid }) => /^[RS]$/.test(stateOf(pid) ?? "")))
        yield* stays("and are not stopped again", () => both.every(({ pid }) => stateOf(pid) !== "T"), 300)
      }
      terminal.type("C-c")
      yield* terminal.awaitScreen("got 1")
      terminal.enter("q")
      terminal.enter("echo rc=$?")
      yield* terminal.awaitScreen("rc=5")
      assert.deepStrictEqual(terminal.scratch.living(), [])
    }))

  it.live("a stopped tree that is let go of (kill %1) leaves nothing", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      terminal.enter("tl run --grace 300ms -- tree grandchild")
      yield* terminal.scratch.awaitReported(3)
      terminal.type("C-z")
      yield* eventually("it is stopped", () => terminal.scratch.living().every(({ pid }) => stateOf(pid) === "T"))
      terminal.enter("kill %1; fg")
      terminal.enter("echo rc=$?")
      yield* terminal.awaitScreen("rc=143")
      assert.deepStrictEqual(terminal.scratch.living(), [])
    }))

  it.live("a program that ignores SIGINT and SIGTERM lives through one Ctrl-C and is killed by two", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      terminal.enter("tl run --grace 60s -- tree stubborn")
      yield* terminal.scratch.awaitReported(2)
      const stubborn = yield* terminal.scratch.awaitNamed("stubborn")
      terminal.type("C-c")
      yield* stays("one is not enough", () => isAlive(stubborn), 1200)
      // Signals that come faster than they are taken are one signal (signal(7)), so the keys are pressed until it helps.
      yield* eventually("two within a second end it", () => {
        terminal.type("C-c")
        return !isAlive(stubborn)
      })
      terminal.enter("echo rc=$?")
      yield* terminal.awaitScreen("rc=137")
      assert.deepStrictEqual(terminal.scratch.living(), [])
    }))

  it.live.each(["stubborn", "session", "daemon"])(
    "closing the terminal ends the tree: %s",
    (role) =>
      Effect.gen(function*() {
        const terminal = yield* open
        terminal.enter(`tl run --grace 300ms -- tree ${role}`)
        yield* terminal.scratch.awaitReported(role === "session" ? 3 : 2)
        yield* eventually("the tree lives", () => terminal.scratch.living().length >= 2)
        terminal.close()
        yield* terminal.scratch.awaitNoneLiving(10_000)
      })
  )

  it.live("control: without treeline a part of the tree survives the terminal", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      terminal.enter("tree session")
      yield* terminal.scratch.awaitReported(3)
      terminal.close()
      yield* eventually("the leader has gone", () => terminal.scratch.living().length < 3)
      yield* stays("the session lives", () => terminal.scratch.living().length === 2, 500)
    }))

  it.live("an interactive shell has its job control, and what it leaves in the background ends with it", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      const { scratch } = terminal
      terminal.enter("tl run -- env 'PS1=inner ' bash --norc --noprofile -i")
      yield* terminal.awaitScreen(/^inner/m)
      terminal.enter("tree leaf &")
      yield* scratch.awaitReported(1)
      terminal.enter("tree quiet")
      const quiet = yield* scratch.awaitNamed("quiet")
      terminal.type("C-z")
      yield* eventually("the job is stopped", () => stateOf(quiet.pid) === "T")
      terminal.enter("fg %2")
      yield* eventually("the job goes on", () => stateOf(quiet.pid) === "S")
      terminal.type("C-c")
      yield* eventually("the job has ended", () => !isAlive(quiet))
      const leaf = yield* scratch.awaitNamed("leaf")
      assert.strictEqual(isAlive(leaf), true)
      terminal.enter("exit 3")
      yield* terminal.awaitScreen(`treeline: ended 1 process that env left behind: ${leaf.pid} (sleep)`)
      terminal.enter("echo rc=$?")
      yield* terminal.awaitScreen("rc=3")
      assert.deepStrictEqual(scratch.living(), [])
    }))

  it.live("a shell inside that suspends itself gives the terminal back, and fg continues it", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      terminal.enter("tl run -- env 'PS1=inner ' bash --norc --noprofile -i")
      yield* terminal.awaitScreen(/^inner/m)
      terminal.enter("suspend")
      yield* terminal.awaitScreen("Stopped")
      terminal.enter("echo outer-$((1 + 1))")
      yield* terminal.awaitScreen("outer-2")
      terminal.enter("fg")
      terminal.enter("echo inner-$((1 + 1)); exit 4")
      yield* terminal.awaitScreen("inner-2")
      terminal.enter("echo rc=$?")
      yield* terminal.awaitScreen("rc=4")
    }))

  it.live("peer 126: in the background it does not steal the terminal", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      terminal.enter("tl run -- cat &")
      yield* terminal.awaitScreen(/\[1\] \d+/)
      yield* eventually("it waits for the terminal", () => {
        terminal.type("Enter")
        return terminal.screen().includes("Stopped")
      }, { within: 15_000 })
      terminal.enter("echo typed-$((1 + 1))")
      yield* terminal.awaitScreen("typed-2")
      terminal.enter("fg")
      terminal.enter("for-cat")
      yield* terminal.awaitScreen(/^for-cat\nfor-cat$/m)
      terminal.type("C-d")
      terminal.enter("echo rc=$?")
      yield* terminal.awaitScreen("rc=0")
    }))

  it.live("a program whose stdin is a pipe still has the terminal", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      terminal.enter("echo piped | tl run -- sh -c 'cat; echo ask; read answer </dev/tty; echo got-$answer'")
      yield* terminal.awaitScreen(/^ask$/m)
      terminal.enter("yes")
      yield* terminal.awaitScreen("got-yes")
      assert.match(terminal.screen(), /^piped$/m)
    }))
})
