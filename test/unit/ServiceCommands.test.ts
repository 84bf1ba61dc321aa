/** The command line of `treeline up` and the commands for services: help and what can't be used. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { CliOutput, Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Help from "../../packages/treeline/src/internal/Help.ts"
import * as ServiceCommands from "../../packages/treeline/src/internal/ServiceCommands.ts"

const commands = Command.make("treeline").pipe(Command.withSubcommands(ServiceCommands.make({
  // Nothing is run here.
  ended: () => Effect.void,
  onPlatform: () => Effect.die("nothing is run"),
  version: "1.0.0"
})))

/** What a command line shows. */
const shown = (line: string) => {
  let help = ""
  const presenter = CliOutput.layerPresenter({
    present: (event) =>
      Effect.sync(() => {
        if (event._tag === "Help") help = Help.render(event.helpDoc, false)
      })
  })
  return Command.runWith(commands, { version: "1.0.0" })(line.split(" ")).pipe(
    Effect.exit,
    Effect.provide(Layer.mergeAll(NodeServices.layer, presenter)),
    Effect.map((exit) => ({ exit, help }))
  )
}

const verbs = [
  "up",
  "status",
  "start",
  "stop",
  "restart",
  "pause",
  "resume",
  "logs",
  "events",
  "signal",
  "reload",
  "down",
  "pool ensure",
  "pool shutdown"
]

describe("the commands for services", () => {
  it.effect.each(verbs)(
    "treeline %s --help: examples, exit codes, and no line beyond 80 columns",
    (verb) =>
      Effect.gen(function*() {
        const { help } = yield* shown(`${verb} --help`)
        for (const part of [`Usage: treeline ${verb} `, "Exit codes:\n  0  ", "Examples:\n  treeline ", "--json"]) {
          assert.include(help, part)
        }
        for (const line of help.split("\n")) assert.isBelow(line.length, 80, line)
      })
  )

  it.effect("a signal has a name, with or without SIG, in any case", () =>
    Effect.gen(function*() {
      for (const name of ["HUP", "sighup", "SIGUSR1", "term"]) {
        assert.strictEqual((yield* shown(`signal web ${name}`)).exit._tag, "Success", name)
      }
      for (const name of ["SIGNOTHING", "9", "SIG"]) {
        assert.strictEqual((yield* shown(`signal web ${name}`)).exit._tag, "Failure", name)
      }
    }))

  it.effect("a number of lines is not negative", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* shown("logs -n 0")).exit._tag, "Success")
      assert.strictEqual((yield* shown("logs --lines=-1")).exit._tag, "Failure")
    }))
})
