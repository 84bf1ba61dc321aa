/**
 * `treeline up` in a real terminal, as a person uses it.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { eventually, stays } from "../support/Eventually.ts"
import { isAlive, stateOf } from "../support/Processes.ts"
import { isHere, open, type Terminal } from "../support/Terminal.ts"
import { configure, role } from "../support/Up.ts"

const ticking = (pause: string) => ({
  command: `n=0; while :; do n=$((n + 1)); echo "tick $n"; sleep ${pause}; done`,
  shell: true
})

const tableOf = (terminal: Terminal): ReadonlyArray<string> => {
  const lines = terminal.visible().split("\n")
  return lines.slice(lines.findIndex((line) => line.startsWith("─ treeline: ")))
}

const stubborn = (terminal: Terminal) => ({
  ...role(terminal.scratch, "stubborn"),
  shutdown: { steps: [{ action: "SIGTERM" as const, within: "1 minute" }] }
})

describe.skipIf(!isHere())("treeline up in a terminal (needs tmux and bash)", () => {
  it.live("a table below the lines; Ctrl-C says what it waits for, a second one kills, the terminal is as it was", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      configure(terminal.scratch, { services: { db: stubborn(terminal), web: ticking("0.2") } })
      terminal.enter("stty -g >before; tl up")
      yield* terminal.awaitScreen(/^web +ready/m)
      const { pid } = yield* terminal.scratch.awaitNamed("stubborn")
      yield* terminal.scratch.awaitNamed("leaf")
      yield* terminal.awaitScreen(/^web {6}\| tick 5$/m)
      const table = tableOf(terminal)
      assert.match(table[0]!, /^─ treeline: 2 ready, \d+s ─+ Ctrl-C stops ─$/)
      assert.match(table[1]!, /^NAME +STATE +HEALTH +PID +RESTARTS +CPU +MEM +UPTIME$/)
      assert.match(table[2]!, new RegExp(`^db +ready +- +${pid} +0 .*\\d+s$`))
      assert.strictEqual(table.length, 4)
      assert.strictEqual(terminal.isCursorVisible(), false)
      // What is typed has no echo, and does not move the table.
      terminal.type("x", "y", "Enter", "Enter")
      yield* terminal.awaitScreen(/^web {6}\| tick 12$/m)
      assert.strictEqual(terminal.screen().match(/─ treeline:/g)?.length, 1)
      assert.notInclude(terminal.screen(), "xy")
      terminal.type("C-c")
      yield* terminal.awaitScreen(new RegExp(`^waits for the end of db \\(pid ${pid}, SIGTERM for \\d`, "m"))
      assert.match(tableOf(terminal)[0]!, /stopping.* Ctrl-C kills ─$/)
      terminal.type("C-c")
      yield* terminal.awaitScreen("all have ended")
      terminal.enter("echo rc=$?; stty -g | diff - before && echo the same")
      yield* terminal.awaitScreen(/^the same$/m)
      const screen = terminal.screen()
      assert.include(screen, "rc=130")
      assert.notInclude(screen, "^C")
      assert.notInclude(screen, "NAME ")
      assert.strictEqual(terminal.isCursorVisible(), true)
      assert.deepStrictEqual(terminal.scratch.living(), [])
    }))

  it.live("the terminal keeps every line once and in order, however fast they come", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      configure(terminal.scratch, {
        services: {
          fast: {
            command: "i=0; while [ $i -lt 600 ]; do i=$((i + 1)); echo \"line $i\"; done; echo 日本語 wide; sleep 60",
            shell: true
          }
        }
      })
      terminal.enter("tl up")
      yield* terminal.awaitScreen("日本語 wide")
      terminal.type("C-c")
      yield* terminal.awaitScreen("all have ended")
      const numbers = [...terminal.screen().matchAll(/^fast {5}\| line (\d+)$/gm)].map(([, n]) => Number(n))
      assert.deepStrictEqual(numbers, Array.from({ length: 600 }, (_, n) => n + 1))
    }))

  it.live("a window of another size: the table follows, and what is too small has lines only", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      configure(terminal.scratch, { services: { web: ticking("0.3"), db: role(terminal.scratch, "leaf") } })
      terminal.enter("tl up")
      yield* terminal.awaitScreen(/^db +ready/m)
      terminal.resize(40, 16)
      yield* eventually("it is narrow", () => tableOf(terminal)[1] === "NAME  STATE         PID   UPTIME", {
        detail: terminal.visible
      })
      // Nothing of the wide table is left.
      assert.notInclude(terminal.visible(), "RESTARTS")
      assert.strictEqual(terminal.visible().match(/─ treeline:/g)?.length, 1)
      terminal.resize(20, 16)
      yield* eventually("there is none", () => !terminal.visible().includes("NAME"), { detail: terminal.visible })
      terminal.resize(100, 30)
      yield* eventually("it is back", () => tableOf(terminal)[1]?.includes("RESTARTS") === true, {
        detail: terminal.visible
      })
      terminal.type("C-c")
      yield* terminal.awaitScreen("all have ended")
    }))

  it.live("NO_COLOR has no colours; TERM=dumb and a pipe have lines only", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      configure(terminal.scratch, { services: { web: ticking("0.2") } })
      const run = (line: string, until: RegExp) =>
        Effect.gen(function*() {
          yield* terminal.clear
          terminal.enter(line)
          yield* terminal.awaitScreen(until)
          const screen = terminal.visible(true)
          terminal.type("C-c")
          yield* terminal.awaitScreen(/all have ended\n+\$/)
          return screen
        })
      assert.include(yield* run("tl up", /^web +ready/m), "\u001b[32mready")
      const plain = yield* run("NO_COLOR=1 tl up", /^web +ready/m)
      assert.notInclude(plain, "\u001b")
      for (const line of ["TERM=dumb tl up", "tl up --plain", "tl up | (trap '' INT; cat)"]) {
        const screen = yield* run(line, /^web {6}\| tick 3$/m)
        assert.notInclude(screen, "NAME ", line)
        assert.include(screen, "web is ready", line)
      }
    }), 60_000)

  it.live("peer 126: Ctrl-Z gives the terminal back while the services go on; fg takes it again, Enter makes a gap", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      configure(terminal.scratch, { services: { db: role(terminal.scratch, "leaf") } })
      terminal.enter("tl up")
      yield* terminal.awaitScreen(/^db +ready/m)
      const leaf = yield* terminal.scratch.awaitNamed("leaf")
      terminal.type("C-z")
      yield* terminal.awaitScreen("Stopped")
      assert.strictEqual(terminal.isCursorVisible(), true)
      terminal.enter("echo typed-$((1 + 1))")
      yield* terminal.awaitScreen(/^typed-2$/m)
      assert.deepStrictEqual([isAlive(leaf), stateOf(leaf.pid)], [true, "S"])
      terminal.enter("fg")
      yield* eventually("the table is back", () => tableOf(terminal).length === 3 && !terminal.isCursorVisible(), {
        detail: terminal.visible
      })
      terminal.type("Enter", "Enter")
      yield* eventually("two empty lines above the table", () => /\n\n\n─ treeline/.test(terminal.visible()), {
        detail: terminal.visible
      })
      terminal.type("C-c")
      yield* terminal.awaitScreen("all have ended")
      assert.strictEqual(isAlive(leaf), false)
    }))

  it.live("in the background it writes lines and does not touch the terminal", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      configure(terminal.scratch, { services: { db: role(terminal.scratch, "leaf") } })
      terminal.enter("tl up &")
      yield* terminal.awaitScreen("db is ready")
      yield* stays("there is no table", () => !terminal.screen().includes("NAME "), 500)
      terminal.enter("echo typed-$((1 + 1)); kill %1")
      yield* terminal.awaitScreen(/^typed-2$/m)
      yield* terminal.awaitScreen("all have ended")
    }))

  it.live("closing the terminal ends the services", () =>
    Effect.gen(function*() {
      const terminal = yield* open
      configure(terminal.scratch, { services: { db: role(terminal.scratch, "session") } })
      terminal.enter("tl up")
      yield* terminal.scratch.awaitReported(3)
      yield* terminal.awaitScreen(/^db +ready/m)
      terminal.close()
      yield* terminal.scratch.awaitNoneLiving(15_000)
    }))
})
