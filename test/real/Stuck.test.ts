/** `treeline up` whose output nobody takes: a pipe that is full. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as child_process from "node:child_process"
import * as fs from "node:fs"
import { eventually } from "../support/Eventually.ts"
import * as Scratch from "../support/Scratch.ts"
import * as Command from "../support/TreelineCommand.ts"
import { configure, role } from "../support/Up.ts"

/** The descriptor of a pipe that is full, and that nobody reads. */
const fullPipe = (scratch: Scratch.Scratch) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const name = scratch.file("full")
      child_process.spawnSync("mkfifo", [name])
      const filling = fs.openSync(name, fs.constants.O_RDWR | fs.constants.O_NONBLOCK)
      for (const size of [4096, 1]) fill(filling, Buffer.alloc(size))
      // Opened anew: that one blocks, as the pipes do that programs are given.
      return { filling, full: fs.openSync(name, fs.constants.O_WRONLY) }
    }),
    ({ filling, full }) =>
      Effect.sync(() => {
        fs.closeSync(filling)
        fs.closeSync(full)
      })
  )

const fill = (descriptor: number, bytes: Buffer): void => {
  try {
    for (;;) fs.writeSync(descriptor, bytes)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error
  }
}

const chatty = { command: "while :; do echo hello; sleep 0.01; done", shell: true }

/** Runs `up` with an output that takes nothing, ends it when its service is there, and looks what is left. */
const ended = Effect.fnUntraced(
  function*(end: (up: Command.Started, scratch: Scratch.Scratch) => Effect.Effect<unknown>) {
    const scratch = yield* Scratch.make
    configure(scratch, { services: { db: role(scratch, "leaf"), web: chatty } })
    const { full } = yield* fullPipe(scratch)
    const up = yield* Command.start(["up"], { scratch, output: full })
    yield* scratch.awaitNamed("leaf")
    yield* eventually("control is there", () => fs.existsSync(scratch.file(".treeline/control.sock")))
    yield* end(up, scratch)
    const { code, signal } = yield* up.ended
    assert.deepStrictEqual(scratch.living(), [])
    assert.strictEqual(fs.existsSync(scratch.file(".treeline/control.sock")), false)
    return { code, signal }
  }
)

describe.skipIf(process.platform === "win32")("treeline up whose output nobody reads", () => {
  it.live("ends after SIGTERM, with its code", () =>
    Effect.gen(function*() {
      const end = (up: Command.Started) => Effect.sync(() => up.signal("SIGTERM"))
      assert.deepStrictEqual(yield* ended(end), { code: 0, signal: null })
    }))

  it.live("ends after treeline down, which does not wait for it", () =>
    Effect.gen(function*() {
      const end = (_: Command.Started, scratch: Scratch.Scratch) =>
        Effect.map(Command.run(["down"], { scratch, sparesOthers: true }), ({ code }) => assert.strictEqual(code, 0))
      assert.deepStrictEqual(yield* ended(end), { code: 0, signal: null })
    }))

  it.live("has the code of a failure that nobody reads of", () =>
    Effect.gen(function*() {
      const scratch = yield* Scratch.make
      configure(scratch, { services: {} })
      const { full } = yield* fullPipe(scratch)
      const { code } = yield* (yield* Command.start(["up"], { scratch, errors: full })).ended
      assert.strictEqual(code, 2)
    }))
})
