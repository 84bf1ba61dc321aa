/** What an updater decides, without any effect. */
import { assert, describe, it } from "@effect/vitest"
import { ManagedInstall, UpdateDecision } from "@treeline/core/daemon"

const old = "0".repeat(40)
const next = "1".repeat(40)

const found = (more: Partial<UpdateDecision.Found>): UpdateDecision.Found => ({
  current: old,
  staged: old,
  version: "1.0.0",
  rejected: false,
  running: { id: null, version: "1.0.0" },
  ...more
})

describe("what to do with what was fetched", () => {
  const cases: Readonly<Record<string, [found: UpdateDecision.Found, step: UpdateDecision.Step]>> = {
    "C14: the same content and the same version: nothing": [found({}), "NothingNew"],
    "C14: the same content, but another version runs: a restart": [
      found({ running: { id: null, version: "0.9.0" } }),
      "Restart"
    ],
    "C14: a daemon that is known to be of this content runs it, whatever it says": [
      found({ running: { id: old, version: "0.9.0" } }),
      "NothingNew"
    ],
    "C14: a daemon that is known to be of other content does not run it, whatever it says": [
      found({ running: { id: next, version: "1.0.0" } }),
      "Restart"
    ],
    "C15: other content forces a restart although the version is the same": [
      found({ staged: next }),
      "SwitchAndRestart"
    ],
    "C12: other content forces a restart although the daemon runs it by chance": [
      found({ staged: next, running: { id: next, version: "1.0.0" } }),
      "SwitchAndRestart"
    ],
    "C12: other content while nothing runs: only a switch": [found({ staged: next, running: null }), "Switch"],
    "C12: the same content while nothing runs: nothing": [found({ running: null }), "NothingNew"],
    "C12: the first version while something unmanaged by the install runs": [
      found({ current: null, staged: next }),
      "SwitchAndRestart"
    ],
    "content that was rejected is not tried again": [found({ staged: next, rejected: true }), "Rejected"],
    "content that was rejected and is current all the same is judged as any other": [
      found({ rejected: true, running: { id: next, version: "1.0.0" } }),
      "Restart"
    ]
  }
  for (const [name, [given, step]] of Object.entries(cases)) {
    it(`decision ${name}`, () => assert.strictEqual(UpdateDecision.decide(given), step))
  }
})

describe("whether an updater replaces itself", () => {
  const replaces = (restarted: boolean, current: string | null, own: string | null) =>
    UpdateDecision.replacesItself({ restarted, current }, own)

  it("C10: only after a restart that was found to hold", () => {
    assert.isTrue(replaces(true, next, old))
    for (const why of ["busy", "not ready", "current", "not running"]) assert.isFalse(replaces(false, next, old), why)
  })
  it("C11: one whose own program did not change never does", () => {
    assert.isFalse(replaces(true, old, old))
    assert.isFalse(replaces(true, next, null), "one that is not of the install")
    assert.isFalse(replaces(true, null, old))
  })
})

describe("what is left to do after a death", () => {
  const after = (phase: Parameters<typeof UpdateDecision.recovery>[0]["phase"], current: string | null, more = {}) =>
    UpdateDecision.recovery(
      { phase, from: old, to: next, running: true, stopped: false, recoveries: 0, ...more },
      current
    )

  it("before the switch nothing was changed", () => {
    for (const phase of ["fetching", "pausing", "switching", "restarting"] as const) {
      assert.strictEqual(after(phase, old), "Forget", phase)
    }
    assert.strictEqual(after("done", old), "Nothing")
  })
  it("after the switch: forward, a bounded number of times, then back", () => {
    for (const phase of ["switching", "restarting", "validating"] as const) {
      assert.strictEqual(after(phase, next), "Forward", phase)
      assert.strictEqual(after(phase, next, { recoveries: UpdateDecision.forwardTries }), "Back", phase)
    }
    assert.strictEqual(after("rollingBack", next), "Back")
    assert.strictEqual(after("rollingBack", old), "Back")
  })
  it("K17: what was stopped, and what did not run, is not started", () => {
    for (const phase of ["switching", "restarting", "validating"] as const) {
      assert.strictEqual(after(phase, next, { stopped: true }), "Unlink", "it was never found to hold")
      assert.strictEqual(after(phase, next, { stopped: true, from: null }), "Keep", "there is no other")
      assert.strictEqual(after(phase, next, { running: false }), "Keep")
    }
  })
})

describe("when a pass is made", () => {
  const timing: UpdateDecision.Timing = {
    first: 300_000,
    interval: 3_600_000,
    jitter: 0.1,
    backoff: 300_000,
    backoffCap: 2_000_000
  }
  it("first, then at the interval, each within the jitter", () => {
    assert.strictEqual(UpdateDecision.pause(timing, 0, 0, 0.5), 300_000)
    assert.strictEqual(UpdateDecision.pause(timing, 1, 0, 0.5), 3_600_000)
    assert.strictEqual(UpdateDecision.pause(timing, 1, 0, 0), 3_240_000)
    assert.strictEqual(UpdateDecision.pause(timing, 1, 0, 1), 3_960_000)
  })
  it("after failures twice as long each time, up to the cap", () => {
    const pauses = [1, 2, 3, 4, 5, 1000].map((failures) => UpdateDecision.pause(timing, 9, failures, 0.5))
    assert.deepStrictEqual(pauses, [300_000, 600_000, 1_200_000, 2_000_000, 2_000_000, 2_000_000])
  })
})

describe("a version", () => {
  const cases: ReadonlyArray<[text: string, version: string | undefined]> = [
    ["treeline 0.1.0\n", "0.1.0"],
    ["v22.15.0\r\n", "22.15.0"],
    ["codex_cli_rs/0.5.0 (Linux 6.1.0; x86_64) term/1.2", "0.5.0"],
    ["git version 2.39.2 (Apple Git-143)", "2.39.2"],
    ["app 1.2.3-beta.1+build.7", "1.2.3-beta.1+build.7"],
    ["app 1.2", "1.2"],
    ["", undefined],
    ["\n", undefined],
    ["app", undefined],
    ["app 12", undefined],
    ["app x1.2.3", undefined],
    ["app 1.2.3x", undefined],
    ["app 1.2.3\nCopyright 1.0", undefined],
    ["\napp 1.2.3", undefined],
    [`${"x".repeat(300)} 1.2.3`, undefined]
  ]
  it("C17: is the first thing that looks like one, in a single line", () => {
    for (const [text, version] of cases) assert.strictEqual(ManagedInstall.parseVersion(text), version, text)
  })
})
