/** What `treeline up` and `treeline status` draw. */
import { assert, describe, it } from "@effect/vitest"
import { ChildEnd, ExitStatus } from "@treeline/core"
import type { HostStatus, LogLine } from "@treeline/core/daemon"
import * as fc from "fast-check"
import * as Cells from "../../packages/treeline/src/internal/Cells.ts"
import * as Processor from "../../packages/treeline/src/internal/Processor.ts"
import * as Screen from "../../packages/treeline/src/internal/Screen.ts"
import { failed, now, ready, service, status } from "../support/Statuses.ts"

const view = (columns: number, rows = 24, more: Partial<Screen.View> = {}): Screen.View => ({
  columns,
  rows,
  colors: false,
  unicode: true,
  ...more
})

const panel = (
  snapshot: HostStatus.HostStatus,
  at: Screen.View,
  interrupt: Screen.Interrupt = "stops"
): ReadonlyArray<string> => Screen.panel(snapshot, at, { interrupt, processor: Screen.processorTime })

const exited = ChildEnd.ChildEnd.cases.Exited.make({ status: ExitStatus.exited(1) })

const mixed = status([
  service("db", ready(1234, now - 3_725_000), {
    health: "healthy",
    restarts: 2,
    usage: { processes: 3, memory: 48 * 1024 * 1024, cpu: 1234 }
  }),
  service("web", { _tag: "Running", incarnation: 1, pid: 1240, since: now - 4200 }, {
    usage: { processes: 1, memory: 900 * 1024, cpu: 70 }
  }),
  service("worker", { _tag: "Waiting", on: ["db", "web"] }),
  service("job", { _tag: "BackingOff", until: now + 1500, attempt: 2, end: exited }, { restarts: 1 }),
  service("mail", failed("mail", "exited with code 1; its restarts are used up"), { restarts: 5 }),
  service("old", { _tag: "Stopping", incarnation: 1, pid: 99, since: now - 3200, why: "asked to", step: "SIGTERM" }),
  service("migrate", { _tag: "Stopped", end: ChildEnd.ChildEnd.cases.Exited.make({ status: ExitStatus.exited(0) }) }),
  service("off", { _tag: "Stopped", end: null })
])

describe("the table", () => {
  it("80 columns: figures where there are some, a sentence where there is something to say", () => {
    assert.deepStrictEqual(Screen.services(mixed, view(80)), [
      "NAME     STATE     HEALTH        PID  RESTARTS     CPU     MEM   UPTIME",
      "db       ready     healthy      1234         2    1.2s   48.0M    1h02m",
      "web      running   -            1240         0    0.1s    900K       4s",
      "worker   waiting   for db, web",
      "job      backoff   restart 2 in 1.5 s: exited with code 1",
      "mail     failed    exited with code 1; its restarts are used up",
      "old      stopping  pid 99, SIGTERM for 3.2 s",
      "migrate  done      exited with code 0",
      "off      stopped"
    ])
  })

  it("100 columns: there is room to say that a service is not ready yet", () => {
    assert.include(Screen.services(mixed, view(100))[2]!, "4s  not ready yet")
  })

  it("narrow: figures go one after the other, the process last; then sentences are cut", () => {
    assert.deepStrictEqual(Screen.services(mixed, view(40)).slice(0, 4), [
      "NAME     STATE         PID   UPTIME",
      "db       ready        1234    1h02m",
      "web      running      1240       4s",
      "worker   waiting   for db, web"
    ])
    assert.deepStrictEqual(Screen.services(mixed, view(24)).slice(0, 5), [
      "NAME     STATE",
      "db       ready",
      "web      running",
      "worker   waiting   for …",
      "job      backoff   rest…"
    ])
  })

  it("few lines: what needs attention is shown, the rest is counted", () => {
    assert.deepStrictEqual(Screen.services(mixed, view(80), 5).map((line) => line.split(" ")[0]), [
      "NAME",
      "job",
      "mail",
      "old",
      "and"
    ])
    assert.strictEqual(
      Screen.services(mixed, view(80), 5).at(-1),
      "and 5 more: 1 ready, 1 running, 1 waiting, 1 done, 1 stopped"
    )
  })

  it("the panel says how it stands and what Ctrl-C does", () => {
    const [rule] = panel(status(mixed.services.slice(0, 3)), view(60))
    assert.strictEqual(rule, "─ treeline: 1 ready, 1 running, 1 waiting,…  Ctrl-C stops ─")
    const [wide] = panel(mixed, view(120, 30))
    assert.match(wide!, /^─ treeline: 1 ready, 1 running, .*, 2m05s ─+ Ctrl-C stops ─$/)
    assert.strictEqual(Cells.width(wide!), 119)
  })

  it("peer complaint 19: an end that waits names who it waits for, at which step, and for how long", () => {
    const stopping = status(mixed.services, {
      phase: "stopping",
      blocking: [{ child: "old", pid: 99, step: "SIGTERM", since: now - 3200 }]
    })
    const lines = panel(stopping, view(80), "kills")
    assert.match(lines[0]!, /stopping/)
    assert.match(lines[0]!, /Ctrl-C kills/)
    assert.strictEqual(lines.at(-1), "waits for the end of old (pid 99, SIGTERM for 3.2 s)")
  })

  it("pools and log files that can't be written are told", () => {
    const snapshot = status([service("db", ready(1, now))], {
      pools: [{
        pool: "tenants",
        open: true,
        capacity: 10,
        keys: [{
          key: "a",
          state: { _tag: "Live", since: now, incarnation: 1, pid: 5 },
          callers: 0,
          leases: 0,
          uses: 1,
          usedAt: now,
          due: false
        }]
      }],
      logs: [{
        child: "db",
        open: true,
        lines: 1,
        bytes: 1,
        kept: { lines: 1, bytes: 1 },
        missing: 0,
        leftOut: 0,
        file: {
          path: "/x",
          size: 0,
          written: 0,
          waiting: 0,
          rotations: 0,
          failing: "ENOSPC",
          lostLines: 0,
          lostBytes: 0
        }
      }]
    })
    assert.deepStrictEqual(panel(snapshot, view(80)).slice(-2), [
      "pool tenants: 1 live of at most 10",
      "the log of db can't be written: ENOSPC"
    ])
  })

  it("colours don't change what is said, and there are none where none are wanted", () => {
    const colored = panel(mixed, view(80, 24, { colors: true })).join("\n")
    assert.include(colored, "\u001b[32mready\u001b[0m")
    assert.include(colored, "\u001b[31mfailed\u001b[0m")
    // oxlint-disable-next-line no-control-regex
    assert.strictEqual(colored.replaceAll(/\u001b\[\d*m/g, ""), panel(mixed, view(80)).join("\n"))
    assert.notInclude(panel(mixed, view(80)).join("\n"), "\u001b")
  })

  it("a terminal that shows only ASCII gets only ASCII", () => {
    assert.match(panel(mixed, view(40, 24, { unicode: false })).join(""), /^[\u0020-\u007e]*$/)
  })

  it("any services in any window: no line is too wide, the table takes at most half of it, and a small one has none", () => {
    const reason = fc.string({ unit: "grapheme", maxLength: 60 })
    const state = fc.oneof(
      fc.constant(ready(4_194_304, now - 9e9)),
      fc.constant(mixed.services[1]!.child.state),
      reason.map((reason) => failed("x", reason)),
      fc.array(fc.constantFrom("db", "ドキュメント"), { maxLength: 9 }).map((on) => ({ _tag: "Waiting" as const, on }))
    )
    const services = fc.array(fc.tuple(fc.constantFrom("a", "worker-12", "x".repeat(60), "ドキュメント検索"), state), {
      maxLength: 40
    })
      .map((all) =>
        all.map(([name, state]) => service(name, state, { usage: { processes: 1, memory: 9e11, cpu: 9e9 } }))
      )
    fc.assert(
      fc.property(
        services,
        fc.integer({ min: 1, max: 200 }),
        fc.integer({ min: 1, max: 60 }),
        fc.boolean(),
        (services, columns, rows, colors) => {
          const lines = panel(status(services), view(columns, rows, { colors }))
          for (const line of lines) assert.isBelow(Cells.width(line), columns)
          assert.isAtMost(lines.length, Math.max(4, Math.floor(rows / 2)))
          assert.strictEqual(lines.length === 0, columns < Screen.smallest.columns || rows < Screen.smallest.rows)
        }
      )
    )
  })
})

describe("lines", () => {
  const line = (child: string, text: string): LogLine.Entry => ({
    _tag: "Line",
    child,
    incarnation: 1,
    stream: "stdout",
    at: now,
    order: 1,
    text
  })
  const prefix = Screen.prefixOf(["web", "worker"])

  it("texts stand below each other, whoever wrote them", () => {
    const options = { colors: false, terminal: true }
    assert.strictEqual(Screen.logLine(line("web", "GET /\t200"), prefix, options), "web      | GET /   200")
    assert.strictEqual(Screen.logLine(line("worker", "日本語"), prefix, options), "worker   | 日本語")
    assert.strictEqual(Screen.ownLine("web is ready", prefix, false), "treeline | web is ready")
  })

  it("a pipe gets what was written, a terminal nothing that it would act on", () => {
    const nasty = line("web", "a\tb\u001b[2J")
    assert.strictEqual(Screen.logLine(nasty, prefix, { colors: false, terminal: false }), "web      | a\tb\u001b[2J")
    assert.strictEqual(Screen.logLine(nasty, prefix, { colors: false, terminal: true }), "web      | a       b␛[2J")
  })

  it("what is missing is told", () => {
    const gap: LogLine.Entry = { _tag: "Gap", child: "web", at: now, order: 1, cause: "reader", lines: 12, bytes: 0 }
    assert.strictEqual(
      Screen.logLine(gap, prefix, { colors: false, terminal: true }),
      "web      | (12 lines are missing: the reader was too slow)"
    )
  })
})

/** A terminal with the commands that frames use: a screen, a cursor, and what has scrolled out. */
class Terminal {
  readonly screen: Array<string> = [""]
  readonly scrolled: Array<string> = []
  private row = 0
  private readonly rows: number
  hidden = false

  constructor(rows: number) {
    this.rows = rows
  }

  write(text: string): void {
    // oxlint-disable-next-line no-control-regex
    for (const [part] of text.matchAll(/\u001b\[[?\d]*[a-zA-Z]|\r\n|\r|[^\u001b\r]+/g)) {
      if (part === "\r\n") {
        this.row++
        if (this.row === this.rows) {
          this.scrolled.push(this.screen.shift()!)
          this.row--
        }
        this.screen[this.row] ??= ""
      } else if (part === "\u001b[0J") this.screen.splice(this.row, Infinity, "")
      else if (part.endsWith("A")) this.row = Math.max(0, this.row - Number(part.slice(2, -1)))
      else if (part === Screen.hideCursor) this.hidden = true
      else if (part === Screen.showCursor) this.hidden = false
      else if (part !== "\r" && !part.startsWith("\u001b")) this.screen[this.row] += part
    }
  }

  get all(): ReadonlyArray<string> {
    return [...this.scrolled, ...this.screen]
  }
}

describe("frames", () => {
  it("lines go above the table, the table stays, and all lines are kept by the terminal", () => {
    const terminal = new Terminal(10)
    let drawn = Screen.nothingDrawn
    for (let n = 0; n < 20; n++) {
      const frame = Screen.frame(drawn, [`line ${n}`], ["top", `table ${n}`], 80)
      terminal.write(frame.text)
      drawn = frame.drawn
    }
    assert.deepStrictEqual(terminal.all, [...Array.from({ length: 20 }, (_, n) => `line ${n}`), "top", "table 19"])
    assert.strictEqual(terminal.hidden, true)
    terminal.write(Screen.farewell(drawn, 80))
    assert.deepStrictEqual(terminal.all, [...Array.from({ length: 20 }, (_, n) => `line ${n}`), ""])
    assert.strictEqual(terminal.hidden, false)
  })

  it("a table that grows and shrinks leaves nothing of itself", () => {
    const terminal = new Terminal(12)
    let drawn = Screen.nothingDrawn
    for (const height of [2, 5, 1, 3, 0, 4]) {
      const frame = Screen.frame(drawn, [`height ${height}`], Array.from({ length: height }, (_, n) => `row ${n}`), 80)
      terminal.write(frame.text)
      drawn = frame.drawn
    }
    assert.deepStrictEqual(terminal.all, [
      ...[2, 5, 1, 3, 0, 4].map((height) => `height ${height}`),
      "row 0",
      "row 1",
      "row 2",
      "row 3"
    ])
  })

  it("a window that became narrower: the lines that the terminal has wrapped are taken away as well", () => {
    const before = Screen.frame(Screen.nothingDrawn, [], ["x".repeat(79), "y".repeat(30)], 80).drawn
    assert.include(Screen.frame(before, [], [], 40).text, "\r\u001b[2A\u001b[0J")
    assert.include(Screen.frame(before, [], [], 80).text, "\r\u001b[1A\u001b[0J")
  })
})

describe("the share of a processor", () => {
  const at = (ms: number, cpu: number, incarnation = 1) => ({
    ...status([service("web", ready(1, now), { incarnation, usage: { processes: 1, memory: 0, cpu } })]),
    at: now + ms
  })
  const shown = (...snapshots: ReadonlyArray<HostStatus.HostStatus>) => {
    const samples = snapshots.reduce(Processor.sample, new Map() as Processor.Samples)
    return Processor.column(samples).text(snapshots.at(-1)!.services[0]!)
  }

  it("comes from what changed between two looks, and stays until the next one", () => {
    assert.strictEqual(shown(at(0, 100)), "")
    assert.strictEqual(shown(at(0, 100), at(1000, 350)), "25%")
    assert.strictEqual(shown(at(0, 100), at(1000, 350), at(1500, 350)), "25%")
    assert.strictEqual(shown(at(0, 100), at(1000, 350), at(1500, 350), at(2000, 2350)), "200%")
  })

  it("goes to 0 when nothing is used any more, and begins anew with another incarnation or less than before", () => {
    assert.strictEqual(shown(at(0, 100), at(1000, 350), at(4000, 350)), "0%")
    assert.strictEqual(shown(at(0, 100), at(1000, 350), at(2000, 360, 2)), "")
    assert.strictEqual(shown(at(0, 100), at(1000, 350), at(2000, 50)), "")
  })
})
