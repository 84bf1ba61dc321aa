/** The pid record and its folder on a disk, held by real processes. */
import { assert, describe, it } from "@effect/vitest"
import { PidRecord } from "@treeline/core/daemon"
import { NodeStateFolder } from "@treeline/platform-node"
import { Effect, Option } from "effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { ProcessPlatform } from "treeline"
import * as Daemons from "../support/Daemons.ts"
import { eventually } from "../support/Eventually.ts"
import { identify, killIfAlive, stateOf } from "../support/Processes.ts"
import * as Scratch from "../support/Scratch.ts"

const facts: PidRecord.Facts = { version: "1.0.0", program: "/bin/treeline", control: null, config: null, grace: 5000 }

/** Rounds of two that begin at the same moment. */
const rounds = Number(process.env["TREELINE_DAEMON_ROUNDS"] ?? 20)

/** A process that waits to be told, then takes the record. */
const contender = (scratch: Scratch.Scratch) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const [file = "", ...args] = Daemons.commandOf(scratch, "claims")
      const child = child_process.spawn(file, args, { stdio: "pipe", env: Daemons.environment(scratch) })
      let said = ""
      child.stdout.setEncoding("utf8").on("data", (chunk: string) => (said += chunk))
      child.stderr.setEncoding("utf8").on("data", (chunk: string) => (said += chunk))
      child.stdin.on("error", () => {})
      return { child, identity: identify(child.pid!)!, lines: () => said.split("\n").slice(0, -1) }
    }),
    ({ child, identity }) =>
      Effect.sync(() => {
        killIfAlive(identity)
        for (const stream of child.stdio) stream?.destroy()
      })
  )

const setup = Effect.gen(function*() {
  const scratch = yield* Scratch.make
  const platform = yield* ProcessPlatform.ProcessPlatform
  const directory = Daemons.folderOf(scratch)
  const self = Option.getOrThrow(yield* platform.identify(process.pid))
  return { scratch, directory, platform, self, place: { folder: NodeStateFolder.make(directory), platform } }
})

describe("the pid record", () => {
  it.live(
    `peer 105: of two that begin at the same moment one takes it, the other is told who did; ${rounds} rounds`,
    () =>
      Effect.gen(function*() {
        const { directory, scratch } = yield* setup
        const both = [yield* contender(scratch), yield* contender(scratch)]
        const awaitLine = (at: number) =>
          eventually("both have said it", () => {
            const said = both.map(({ lines }) => lines()[at])
            return said.every((line) => line !== undefined) && said
          }, { within: 20_000, detail: () => both.map(({ lines }) => lines()) })
        const tell = () => both.forEach(({ child }) => child.stdin.write("go\n"))
        assert.deepStrictEqual(yield* awaitLine(0), ["here", "here"])
        const wins = [0, 0]
        for (let round = 0; round < rounds; round++) {
          tell()
          const said = yield* awaitLine(1 + 2 * round)
          const winner = said.indexOf("took it")
          assert.isAtLeast(winner, 0, said.join("; "))
          assert.strictEqual(said[1 - winner], `AlreadyRunning ${both[winner]!.child.pid}`)
          wins[winner]!++
          tell()
          yield* awaitLine(2 + 2 * round)
          assert.deepStrictEqual(fs.readdirSync(directory), [], "nothing is left")
        }
        if (process.env["TREELINE_DAEMON_ROUNDS"] !== undefined) yield* Effect.logInfo(`wins: ${wins.join(", ")}`)
      }).pipe(Effect.scoped, Effect.provide(Daemons.layer)),
    60_000
  )

  it.live("C4, K8, peer 114: that of a killed process is stale and is replaced", () =>
    Effect.gen(function*() {
      const { directory, place, scratch, self } = yield* setup
      const holder = yield* contender(scratch)
      yield* eventually("it is here", () => holder.lines()[0] === "here", { within: 20_000 })
      holder.child.stdin.write("go\n")
      yield* eventually("it took it", () => holder.lines()[1] === "took it")
      const before = yield* PidRecord.read(place)
      assert.strictEqual(before._tag, "Running")
      killIfAlive(holder.identity)
      yield* eventually("it is dead", () => holder.child.signalCode !== null)
      assert.strictEqual((yield* PidRecord.read(place))._tag, "Stale")
      const held = yield* PidRecord.take(place, self, facts)
      yield* held.ready()
      const after = yield* PidRecord.read(place)
      assert.strictEqual(after._tag === "Running" && after.record.identity.pid, process.pid)
      assert.strictEqual(fs.readdirSync(path.join(directory, "daemon")).length, 1)
    }).pipe(Effect.scoped, Effect.provide(Daemons.layer)))

  it.live("C18, K8: a record with another start time or boot is nobody's, and the process of its pid is not touched", () =>
    Effect.gen(function*() {
      const { directory, place, platform, self } = yield* setup
      const stranger = yield* Effect.acquireRelease(
        Effect.sync(() => child_process.spawn("sleep", ["60"], { stdio: "ignore" })),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      const known = Option.getOrThrow(yield* platform.identify(stranger.pid!))
      for (const other of [{ ...known, startTime: "1" }, { ...known, boot: "00000000-0000-4000-8000-000000000000" }]) {
        fs.mkdirSync(path.join(directory, "daemon"), { recursive: true, mode: 0o700 })
        fs.writeFileSync(
          path.join(directory, "daemon", `${known.pid}-ab.json`),
          JSON.stringify({ holder: other, since: 0, info: { ...facts, readyAt: 1 } })
        )
        assert.strictEqual((yield* PidRecord.read(place))._tag, "Stale")
        assert.strictEqual(yield* platform.signalProcess(other, "SIGKILL"), "Gone")
        yield* Effect.scoped(PidRecord.take(place, self, facts))
        assert.deepStrictEqual(fs.readdirSync(directory), [])
        assert.isDefined(identify(known.pid))
      }
    }).pipe(Effect.scoped, Effect.provide(Daemons.layer)))

  it.live("C24: a zombie is dead", () =>
    Effect.gen(function*() {
      const { platform } = yield* setup
      const parent = yield* Effect.acquireRelease(
        Effect.sync(() => child_process.spawn("sh", ["-c", "sleep 0.01 & echo $!; exec sleep 60"], { stdio: "pipe" })),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      let line = ""
      parent.stdout.setEncoding("utf8").on("data", (chunk: string) => (line += chunk))
      const pid = Number(yield* eventually("the parent has said it", () => line.includes("\n") && line.trim()))
      yield* eventually("it is a zombie", () => stateOf(pid)?.startsWith("Z") === true)
      const zombie = Option.getOrThrow(yield* platform.identify(pid))
      assert.strictEqual(yield* platform.standing(zombie), "Gone")
      assert.strictEqual(yield* platform.signalProcess(zombie, "SIGKILL"), "Gone")
    }).pipe(Effect.scoped, Effect.provide(Daemons.layer)))

  it.live("C33, K8: rubbish in its place is told and kept, and so is a folder of others", () =>
    Effect.gen(function*() {
      const { directory, place, self } = yield* setup
      const file = path.join(directory, "daemon", "7-ab.json")
      fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 })
      fs.writeFileSync(file, "not a record")
      assert.strictEqual((yield* PidRecord.read(place))._tag, "Unreadable")
      const error = yield* Effect.flip(Effect.scoped(PidRecord.take(place, self, facts)))
      assert.strictEqual(error._tag, "ClaimUndecided")
      assert.include(error.message, file)
      assert.strictEqual(fs.readFileSync(file, "utf8"), "not a record")
      fs.rmSync(path.dirname(file), { recursive: true })
      fs.chmodSync(directory, 0o777)
      const open = yield* Effect.flip(Effect.scoped(PidRecord.take(place, self, facts)))
      assert.deepStrictEqual([open._tag, open.message.includes("may be entered by others")], ["StateFolderError", true])
    }).pipe(Effect.scoped, Effect.provide(Daemons.layer)))

  it.live("C30: the folder and those above it are made, for their user only", () =>
    Effect.gen(function*() {
      const { platform, scratch, self } = yield* setup
      const directory = scratch.file("a/b/state")
      const place = { folder: NodeStateFolder.make(directory), platform }
      yield* Effect.scoped(PidRecord.read(place))
      assert.isFalse(fs.existsSync(scratch.file("a")), "a look makes nothing")
      yield* PidRecord.take(place, self, facts)
      assert.strictEqual(fs.statSync(directory).mode & 0o777, 0o700)
      const [entry = ""] = fs.readdirSync(path.join(directory, "daemon"))
      assert.strictEqual(fs.statSync(path.join(directory, "daemon", entry)).mode & 0o777, 0o600)
    }).pipe(Effect.scoped, Effect.provide(Daemons.layer)))
})
