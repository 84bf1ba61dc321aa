/** What commands print with `--json`, checked against the published schema. */
import { assert } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { CommandReport } from "treeline"
import type { Scratch } from "./Scratch.ts"
import * as Command from "./TreelineCommand.ts"
import * as Up from "./Up.ts"

type Options = Omit<Command.Options, "scratch" | "sparesOthers">

/** The one object of a command that does what was asked: on stdout, in one line, and nothing on stderr. */
export const answer = <S extends Schema.Codec<unknown, unknown>>(
  scratch: Scratch,
  argv: ReadonlyArray<string>,
  kind: keyof typeof CommandReport,
  schema: S,
  options: Options & { readonly code?: number } = {}
): Effect.Effect<S["Type"]> =>
  Effect.map(Command.run([...argv, "--json"], { scratch, sparesOthers: true, ...options }), (outcome) => {
    assert.strictEqual(outcome.code, options.code ?? 0, outcome.stdout + outcome.stderr)
    assert.match(outcome.stdout, /^\{.*\}\n$/, "exactly one line")
    assert.isUndefined(Up.whyNot(kind, JSON.parse(outcome.stdout)))
    return Schema.decodeUnknownSync(Schema.fromJsonString(schema))(outcome.stdout)
  })

/** The one object of a command that does not: on stderr, and nothing on stdout. */
export const failure = (
  scratch: Scratch,
  argv: ReadonlyArray<string>,
  code: number,
  options: Options = {}
): Effect.Effect<CommandReport.Failure> =>
  Effect.map(Command.run([...argv, "--json"], { scratch, sparesOthers: true, ...options }), (outcome) => {
    assert.deepStrictEqual([outcome.code, outcome.stdout], [code, ""], outcome.stderr)
    assert.match(outcome.stderr, /^\{.*\}\n$/, "exactly one line")
    assert.isUndefined(Up.whyNot("Failure", JSON.parse(outcome.stderr)))
    return Schema.decodeUnknownSync(Schema.fromJsonString(CommandReport.Failure))(outcome.stderr)
  })
