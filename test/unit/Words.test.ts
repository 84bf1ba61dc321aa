/** What is told of services, in words, and what their names mean. */
import { assert, describe, it } from "@effect/vitest"
import { ChildEnd, type ChildState, type ChildStatus, ExitStatus } from "@treeline/core"
import type { HostStatus } from "@treeline/core/daemon"
import { Result } from "effect"
import * as Keys from "../../packages/treeline/src/internal/Keys.ts"
import * as Selection from "../../packages/treeline/src/internal/Selection.ts"
import { isOver } from "../../packages/treeline/src/internal/Up.ts"
import * as Words from "../../packages/treeline/src/internal/Words.ts"
import { configOf } from "../support/Configs.ts"
import { failed, now, ready, service, status } from "../support/Statuses.ts"

describe("Words", () => {
  it.each([
    [0, "0.0 s"],
    [-5, "0.0 s"],
    [440, "0.4 s"],
    [12_300, "12 s"],
    [59_900, "1 min 0 s"],
    [125_000, "2 min 5 s"],
    [3_725_000, "1 h 2 min"]
  ])(
    "%i ms are %s",
    (ms, text) => assert.strictEqual(Words.duration(ms), text)
  )

  it.each([[999, "0s"], [59_999, "59s"], [125_000, "2m05s"], [3_725_000, "1h02m"], [1_036_800_000, "12d00h"]])(
    "%i ms are %s in a table",
    (ms, text) => assert.strictEqual(Words.age(ms), text)
  )

  it.each([[0, "0K"], [1023, "1K"], [900 * 1024, "900K"], [48 * 1024 ** 2, "48.0M"], [512 * 1024 ** 2, "512M"], [
    3 * 1024 ** 3,
    "3.0G"
  ], [2 ** 50, "1024.0T"]])(
    "%i bytes are %s",
    (bytes, text) => assert.strictEqual(Words.size(bytes), text)
  )

  const exited = (code: number) => ChildEnd.ChildEnd.cases.Exited.make({ status: ExitStatus.exited(code) })
  const said = (change: ChildStatus.Change): string | undefined => {
    const event: HostStatus.HostEvent = {
      _tag: "Supervisor",
      at: now,
      event: { _tag: "Child", event: { child: "web", incarnation: 2, at: now, change } }
    }
    return Words.event(event)
  }
  const stopping = (why: string, step = "SIGTERM"): ChildState.ChildState => ({
    _tag: "Stopping",
    incarnation: 2,
    pid: 7,
    since: now,
    why,
    step
  })
  const running: ChildState.ChildState = { _tag: "Running", incarnation: 2, pid: 7, since: now - 1200 }

  it("a start, an end and a restart are one line each", () => {
    const lines = [
      said({ _tag: "State", from: { _tag: "Starting", incarnation: 2, since: now }, to: running }),
      said({ _tag: "State", from: running, to: ready(7, now) }),
      said({ _tag: "State", from: ready(7, now), to: stopping("exited with code 1") }),
      said({
        _tag: "State",
        from: stopping("exited with code 1"),
        to: { _tag: "BackingOff", until: now + 400, attempt: 2, end: exited(1) }
      }),
      said({
        _tag: "State",
        from: { _tag: "BackingOff", until: now, attempt: 2, end: exited(1) },
        to: { _tag: "Starting", incarnation: 2, since: now }
      })
    ]
    assert.deepStrictEqual(lines, [
      undefined,
      "web is ready (pid 7, after 1.2 s)",
      undefined,
      "web exited with code 1; restart 2 in 0.4 s",
      "web starts again"
    ])
  })

  it("an end that was asked for is told once, whatever its steps", () => {
    assert.strictEqual(said({ _tag: "State", from: ready(7, now), to: stopping("stop") }), "web is being ended: stop")
    assert.strictEqual(said({ _tag: "State", from: stopping("stop"), to: stopping("stop", "kill") }), undefined)
    assert.strictEqual(
      said({ _tag: "State", from: stopping("stop"), to: { _tag: "Stopped", end: null } }),
      "web is stopped"
    )
  })

  it("what needs a person's eye is told", () => {
    assert.strictEqual(
      said({ _tag: "Health", health: "degraded", detail: "tcp 80: refused" }),
      "web is degraded: tcp 80: refused"
    )
    assert.strictEqual(
      said({ _tag: "State", from: running, to: failed("web", "its restarts are used up") }),
      "web has failed: its restarts are used up"
    )
    const survivor = { pid: 9, parent: 1, group: 9, session: 9, command: "x", state: "D", start: 1 } as never
    assert.strictEqual(
      said({ _tag: "Ended", end: null, survivors: [survivor], outputTail: "" }),
      "1 process of web could not be ended: 9 (x)"
    )
  })
})

describe("names", () => {
  const config = configOf({
    services: {
      db: { command: "db" },
      cache: { command: "cache" },
      web: { command: "web", dependsOn: ["stores"] },
      job: { command: "job", dependsOn: ["db"] }
    },
    groups: { stores: ["db", "cache"], jobs: ["job"] }
  })
  const selected = (...names: ReadonlyArray<string>) => Result.getOrThrow(Selection.select(config, names))

  it("a name stands for a service and what it needs, a group for all of its services, no name for everything", () => {
    assert.deepStrictEqual(Object.keys(selected("job").services), ["db", "job"])
    assert.deepStrictEqual(Object.keys(selected("web").services), ["db", "cache", "web"])
    assert.deepStrictEqual(Object.keys(selected("jobs", "stores").services), ["db", "cache", "job"])
    assert.deepStrictEqual(selected(), config)
    assert.deepStrictEqual(selected("job").groups, { stores: ["db"], jobs: ["job"] })
  })

  it("an unknown one is an error that says what there is", () => {
    const wrong = Selection.select(config, ["db", "constructor"])
    assert.strictEqual(
      Result.isFailure(wrong) && wrong.failure.message,
      "there is no service or group constructor; there is db, cache, web, job, stores, jobs"
    )
  })
})

describe("whether nothing is left to run", () => {
  const done: ChildState.ChildState = {
    _tag: "Stopped",
    end: ChildEnd.ChildEnd.cases.Exited.make({ status: ExitStatus.exited(0) })
  }

  it("when all are done or have failed for good; not when somebody has stopped one, or one is up, or there are pools", () => {
    assert.isTrue(isOver(status([service("a", done), service("b", failed("b", "why"))])))
    assert.isFalse(isOver(status([service("a", done), service("b", { _tag: "Stopped", end: null })])))
    assert.isFalse(isOver(status([service("a", done), service("b", ready(1, now))])))
    assert.isFalse(
      isOver(status([service("a", done)], { pools: [{ pool: "p", open: true, capacity: null, keys: [] }] }))
    )
  })
})

describe("keys", () => {
  it("Ctrl-C, Ctrl-\\, Ctrl-Z and Enter mean something, all others nothing", () => {
    assert.deepStrictEqual(Keys.meaningsOf(Buffer.from("a\u0003\u001b[A\u001c\r\n\u001aé")), [
      "interrupt",
      "quit",
      "enter",
      "enter",
      "suspend"
    ])
  })
})
