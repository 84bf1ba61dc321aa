/**
 * All the ways in which a host on Windows dies, and what becomes of its tree.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { WindowsPlatform } from "@treeline/platform-windows"
import { Effect } from "effect"
import type { Scope } from "effect"
import { ChildProcess } from "effect/process"
import * as child_process from "node:child_process"
import * as readline from "node:readline"
import { fileURLToPath } from "node:url"
import { eventually, stays } from "../support/Eventually.ts"
import { identify, type Identity, isAlive, killIfAlive } from "./support/Processes.ts"
import { assertGone, familyOf, launch } from "./support/Trees.ts"

const rounds = 20

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))

/** The host, bundled by `npm run test:windows`, because from its sources it takes seconds to start under Wine. */
const hosts = process.env["TREELINE_HOSTS"]
const treelineHost = hosts === undefined ? fixture("windowsHost.ts") : `${hosts}/dist/bin/windowsHost.js`
const family = [process.execPath, fixture("windowsProgram.cjs"), "family"]

interface Host {
  readonly identity: Identity
  readonly family: ReadonlyArray<Identity>
  readonly errors: () => string
  readonly lines: ReadonlyArray<string>
  readonly order: (line: string) => void
}

/** A host with a family; what is left of both is ended with the test. */
const start = (on: "treeline" | "node"): Effect.Effect<Host, never, Scope.Scope> =>
  Effect.gen(function*() {
    const file = on === "treeline" ? treelineHost : fixture("windowsBareHost.ts")
    const lines: Array<string> = []
    let errors = ""
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = child_process.spawn(process.execPath, ["--conditions=source", file, ...family], {
          windowsHide: true
        })
        child.stdin.on("error", () => {})
        readline.createInterface({ input: child.stdout }).on("line", (line) => lines.push(line))
        child.stderr.on("data", (text) => (errors += String(text)))
        return child
      }),
      (child) => Effect.sync(() => void child.kill())
    )
    const options = { detail: () => ({ lines, errors }), within: 20_000 }
    const line = (word: string) =>
      eventually(`the host says ${word}`, () => lines.find((line) => line.startsWith(`${word} `)), options)
    const identity = identify(Number((yield* line("host")).split(" ")[1]))!
    const members = yield* Effect.acquireRelease(
      familyOf((yield* line("pids")).split(" ").slice(1).map(Number)),
      (members) => Effect.sync(() => [identity, ...members].forEach(killIfAlive))
    )
    return {
      identity,
      family: members,
      errors: () => errors,
      lines,
      order: (line) => void child.stdin.write(`${line}\n`)
    }
  })

const gone = (host: Host, within = 2_000) =>
  eventually("nothing is left", () => ![host.identity, ...host.family].some(isAlive), {
    within,
    detail: () => ({ living: host.family.filter(isAlive), errors: host.errors() })
  })

describe("the host dies", () => {
  it.live(
    `peer 36, peer 46: TerminateProcess: all of its tree is gone (${rounds} rounds)`,
    () =>
      Effect.gen(function*() {
        const round = Effect.scoped(Effect.gen(function*() {
          const host = yield* start("treeline")
          assert.isAtLeast(host.family.length, 5)
          const killedAt = performance.now()
          killIfAlive(host.identity)
          yield* gone(host)
          return performance.now() - killedAt
        }))
        const times = yield* Effect.all(Array.from({ length: rounds }, () => round), { concurrency: 2 })
        times.sort((a, b) => a - b)
        yield* Effect.sync(() =>
          console.log(`gone ${times[rounds >> 1]!.toFixed(1)} ms after the host (most ${times.at(-1)!.toFixed(1)})`)
        )
      }),
    180_000
  )

  it.live("peer 36, peer 46: control: with child_process something lives on", () =>
    Effect.gen(function*() {
      const host = yield* start("node")
      killIfAlive(host.identity)
      yield* eventually("the host is gone", () => !isAlive(host.identity))
      yield* stays("something lives", () => host.family.some(isAlive), 1_000)
    }))

  for (
    const [name, order, says] of [
      ["peer 37: process.exit(0) in a callback", "exit", ""],
      ["peer 38: an uncaught exception", "throw", "thrown on purpose"],
      ["peer 38: an unhandled rejection", "reject", "rejected on purpose"]
    ] as const
  ) {
    it.live(name, () =>
      Effect.gen(function*() {
        const host = yield* start("treeline")
        host.order(order)
        yield* gone(host, 5_000)
        yield* eventually("it has died of this", () => host.errors().includes(says))
      }))
  }
})

layer(WindowsPlatform.layer, { excludeTestServices: true })("a host in a job", (it) => {
  it.effect("peer 47, C28: a host inside of a job that lets nothing out has jobs of its own in it", () =>
    Effect.gen(function*() {
      const command = ChildProcess.make(process.execPath, ["--conditions=source", treelineHost, ...family])
      const { close, pids, tree } = yield* launch(command)
      const members = yield* familyOf(pids)
      const host = identify(tree.pid)!
      assert.include(new TextDecoder().decode(yield* tree.stdout.tail), `host ${tree.pid} sealed`)
      yield* close
      assertGone([host, ...members])
    }))
})
