/** Which services a command asks: those of its configuration, and no others that are controlled at the same place. */
import { assert, describe, it } from "@effect/vitest"
import type { HostStatus } from "@treeline/core/daemon"
import { NodeControl, StateDirectory } from "@treeline/platform-node"
import { Effect, Layer, Schema, Stream } from "effect"
import * as fs from "node:fs"
import { CommandReport } from "treeline"
import * as Connection from "../../packages/treeline/src/internal/Connection.ts"
import * as Scratch from "../support/Scratch.ts"
import * as ScriptedHost from "../support/ScriptedHost.ts"
import { ready } from "../support/Statuses.ts"
import * as Command from "../support/TreelineCommand.ts"

type Daemon = NonNullable<StateDirectory.Options["daemon"]>

const write = (scratch: Scratch.Scratch, name: string, daemon: Daemon = {}) => {
  fs.writeFileSync(scratch.file(name), JSON.stringify({ daemon, services: {} }))
  return scratch.file(name)
}

/** Services of a configuration, or of none that they tell, where it says; they run until the scope closes. */
const serve = Effect.fnUntraced(function*(
  file: string,
  daemon: Daemon = {},
  told: string | null = file,
  parts: Parameters<typeof ScriptedHost.make>[0] = {}
) {
  const { host } = ScriptedHost.make(parts)
  const { control } = yield* StateDirectory.locate({ file, daemon })
  const listener = yield* NodeControl.listen(control)
  const status = Effect.map(host.status, (status) => ({ ...status, host: { ...status.host, file: told } }))
  yield* Layer.build(NodeControl.serve({ ...host, status }, listener))
})

/** Whose services answer, or why none do. */
const open = (file: string) =>
  Connection.open({ file, flags: [] }).pipe(
    Effect.map(({ client }) => client.server.file),
    Effect.catch((error) => Effect.succeed(error)),
    Effect.scoped
  )

const tagOf = (file: string) =>
  Effect.map(open(file), (found) => found !== null && typeof found === "object" ? found._tag : found)

describe("a command", () => {
  it.live("does not take the services of another configuration for its own", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const a = write(scratch, "a.json")
      const elsewhere: Daemon = { directory: "state-b" }
      const b = write(scratch, "b.json", elsewhere)
      const c = write(scratch, "c.json")
      yield* serve(a)
      assert.strictEqual(yield* tagOf(a), a)
      assert.strictEqual(yield* tagOf(b), "NothingRuns")
      const other = yield* open(c)
      if (other === null || typeof other === "string" || other._tag !== "OtherConfiguration") {
        throw new Error(String(other))
      }
      assert.deepStrictEqual([other.file, other.other, other.pid], [c, a, 7])
      for (const part of [a, "process 7", "daemon.directory"]) assert.include(other.message, part)
      yield* serve(b, elsewhere)
      assert.strictEqual(yield* tagOf(b), b)
      // Nor where its own configuration leads.
      const d = write(scratch, "d.json", elsewhere)
      assert.strictEqual(yield* tagOf(d), "OtherConfiguration")
      fs.writeFileSync(c, "{ broken")
      assert.strictEqual(yield* tagOf(c), "InvalidConfig")
    }))

  it.live("knows its configuration by another name, and under a path that leads to another file now", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const a = write(scratch, "a.json")
      const link = scratch.file("link.json")
      fs.symlinkSync(a, link)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* serve(a)
        assert.strictEqual(yield* tagOf(link), a)
        fs.rmSync(a)
        assert.strictEqual(yield* tagOf(a), a)
      }))
      const b = write(scratch, "b.json")
      yield* serve(link)
      fs.rmSync(link)
      fs.symlinkSync(b, link)
      assert.strictEqual(yield* tagOf(link), link)
    }))

  it.live("asks services that tell no configuration", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const a = write(scratch, "a.json")
      yield* serve(a, {}, null)
      assert.strictEqual(yield* tagOf(a), null)
    }))

  it.live("looks where its configuration says when what is at the usual place is no control", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const a = write(scratch, "a.json")
      const b = write(scratch, "b.json", { directory: "state-b" })
      fs.mkdirSync(scratch.file(".treeline"))
      fs.writeFileSync(scratch.file(".treeline/control.sock"), "")
      assert.strictEqual(yield* tagOf(a), "ControlUnavailable")
      assert.strictEqual(yield* tagOf(b), "NothingRuns")
      yield* serve(b, { directory: "state-b" })
      assert.strictEqual(yield* tagOf(b), b)
    }))

  it.live("with --json tells a failure and nothing else on stderr; without it also how far it got", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      const file = write(scratch, "treeline.json")
      const restart = () =>
        Stream.make<Array<HostStatus.Progress>>(
          { _tag: "Changed", at: 1, service: "db", incarnation: 2, state: ready(20, 1) },
          { _tag: "Done", at: 2, outcomes: [{ service: "db", problem: "it went wrong" }], report: null }
        )
      yield* serve(file, {}, file, { restart })
      const options = { scratch, sparesOthers: true }
      const { code, stderr, stdout } = yield* Command.run(["restart", "db", "--json"], options)
      assert.deepStrictEqual([code, stdout], [1, ""])
      const failure = Schema.decodeUnknownSync(Schema.fromJsonString(CommandReport.Failure))(stderr)
      assert.strictEqual(failure.error._tag, "OperationFailed")
      const plain = yield* Command.run(["restart", "db"], options)
      assert.match(
        plain.stderr,
        /^db is ready.*\ntreeline: restart failed for 1 of 1 services:\n {2}db: it went wrong\n$/
      )
    }))
})
