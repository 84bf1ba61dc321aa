/**
 * The whole matrix: every shape of a tree against every end of its host, each in a host process of its own. Two
 * witnesses say that nothing is left: the reports of the tree's processes, and the kernel, by a reaper that all orphans
 * of the host come to.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { eventually, stays } from "../support/Eventually.ts"
import * as Host from "../support/Host.ts"
import { stateOf } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"

/** How often each cell runs, for each user; both engines do it. More: TREELINE_MATRIX_ROUNDS=10. */
const rounds = Number(process.env["TREELINE_MATRIX_ROUNDS"] ?? 1)

/** Processes that a cell may take to see die after the host, in ms: grace, sweep, and a busy machine. */
const deathLimit = 8000

/** Time for one cell, in ms: enough also for more rounds than the default. */
const cellLimit = Math.max(30_000, rounds * 3000)

interface Shape {
  readonly role: string
  /** How many processes report themselves before the tree is as it should be. */
  readonly reports: number
  readonly leaderEnds?: "Exited 0" | "Exited 3"
  readonly stopped?: boolean
  readonly count?: number
}

const shapes: Readonly<Record<string, Shape>> = {
  "plain": { role: "plain", reports: 1 },
  "grandchild": { role: "grandchild", reports: 3 },
  "20 wide": { role: "wide", reports: 21 },
  "TERM ignored": { role: "stubborn", reports: 2 },
  "setsid": { role: "session", reports: 3 },
  "double-fork daemon": { role: "daemon", reports: 2 },
  "env-cleared double-fork daemon": { role: "cleared", reports: 2 },
  "job-control shell": { role: "jobs", reports: 3 },
  "stopped": { role: "stopped", reports: 2, stopped: true },
  "spawner on TERM": { role: "respawner", reports: 1, count: 50 },
  "endless forker": { role: "forker", reports: 8 },
  "leader gone with code 0": { role: "gone", reports: 3, leaderEnds: "Exited 0" },
  "leader failed": { role: "failed", reports: 3, leaderEnds: "Exited 3" },
  "pipe held by a survivor": { role: "holder", reports: 2, leaderEnds: "Exited 0" }
}

const ends = ["scope close", "SIGTERM", "throw", "process.exit", "SIGKILL"] as const
type End = typeof ends[number]

const orders = { "throw": "throw", "process.exit": "exit" } as const

/** Runs one cell and returns the processes that were left when the end had been dealt with. */
const run = Effect.fn(function*(
  options: { readonly on: "treeline" | "node"; readonly shape: Shape; readonly end: End; readonly user: number }
) {
  const { end, on, shape, user } = options
  const scratch = yield* Scratch.make
  const host = yield* Host.start({
    on,
    user,
    scratch,
    spec: { command: Host.treeCommand(shape.role, scratch, shape.count), grace: 300 }
  })
  const tree = yield* scratch.awaitReported(shape.reports)
  if (shape.stopped === true) {
    yield* eventually("the tree is stopped", () => tree.every(({ pid }) => stateOf(pid) === "T"))
  }
  if (shape.leaderEnds !== undefined && on === "treeline") {
    const [tag, code] = shape.leaderEnds.split(" ")
    assert.deepStrictEqual(JSON.parse(yield* host.awaitLine("exited")), { _tag: tag, code: Number(code) })
  }

  if (end === "scope close") {
    host.order("close")
    yield* host.awaitLine("closed")
    const left = scratch.living()
    assert.isTrue(host.isAlive())
    host.order("finish")
    yield* host.awaitDead
    if (left.length > 0) return left
  } else if (end === "SIGTERM" || end === "SIGKILL") {
    host.signal(end)
  } else host.order(orders[end])
  yield* host.awaitDead
  if (end === "throw") {
    yield* eventually("the host has died of the exception", () => host.errors().includes("thrown on purpose"))
  }
  if (on === "node") {
    yield* stays("the tree lives", () => scratch.living().length > 0, 200)
    return scratch.living()
  }
  yield* host.awaitNoDescendants(deathLimit)
  if (!Host.hasReaper) yield* scratch.awaitNoneLiving(deathLimit)
  return scratch.living()
}, Effect.scoped)

const matrix = (user: number) => {
  for (const [name, shape] of Object.entries(shapes)) {
    for (const end of ends) {
      it.live(
        `${name} × ${end}: nothing is left${rounds === 1 ? "" : `, ${rounds} times`}`,
        () =>
          Effect.gen(function*() {
            const left = yield* Effect.forEach(
              Array.from({ length: rounds }),
              () => run({ on: "treeline", shape, end, user }),
              { concurrency: 5 }
            )
            assert.deepStrictEqual(left.flat(), [])
          }),
        cellLimit
      )
    }
  }
}

describe.runIf(process.platform === "linux")("the matrix (on Linux, whose programs its trees are made of)", () => {
  describe("as the user of the tests", () => {
    matrix(process.getuid?.() ?? 0)
  })

  const whyNot = Host.whyNotUnprivileged()
  describe.skipIf(whyNot !== undefined)(
    `as uid ${Host.unprivileged}${whyNot === undefined ? "" : ` (not here: ${whyNot})`}`,
    () => {
      matrix(Host.unprivileged)
    }
  )

  describe("negative control: on child_process", () => {
    for (const [name, shape] of Object.entries(shapes)) {
      it.live(`${name}: is left behind by SIGTERM, throw, process.exit and SIGKILL`, () =>
        Effect.gen(function*() {
          const user = process.getuid?.() ?? 0
          const left = yield* Effect.forEach(
            ends.filter((end) => end !== "scope close"),
            (end) => run({ on: "node", shape, end, user }),
            { concurrency: 4 }
          )
          for (const living of left) assert.isAbove(living.length, 0)
        }))
    }

    it.live("a close that kills the child leaves the rest of the tree behind", () =>
      Effect.gen(function*() {
        const left = yield* run({
          on: "node",
          shape: shapes["grandchild"]!,
          end: "scope close",
          user: process.getuid?.() ?? 0
        })
        assert.isAbove(left.length, 0)
      }))
  })
})
