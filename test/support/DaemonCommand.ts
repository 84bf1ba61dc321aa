/** `treeline daemon` on a configuration in a scratch folder: its verbs as processes of their own, and what they leave. */
import { it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs"
import * as path from "node:path"
import { CommandReport } from "treeline"
import * as Answers from "./Answers.ts"
import { identify, killIfAlive } from "./Processes.ts"
import * as Scratch from "./Scratch.ts"

export type Test = (scratch: Scratch.Scratch) => Effect.Effect<void, unknown, Scope.Scope>

const bodyOf = (test: Test) => () =>
  Effect.gen(function*() {
    const scratch = yield* Scratch.make
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        const pid = recorded(scratch)
        const daemon = pid === undefined ? undefined : identify(pid)
        if (daemon !== undefined) killIfAlive(daemon)
      })
    )
    yield* test(scratch)
  }).pipe(Effect.scoped)

/** A test with a scratch folder, whose daemon is killed at the end if it lives. */
export const real = (name: string, test: Test, limit = 60_000) => it.live(name, bodyOf(test), limit)

/** Only where the test has what it needs. */
export const realWith = (missing: boolean) => (name: string, test: Test) =>
  it.live.skipIf(missing)(name, bodyOf(test), 60_000)

export const stateFolder = (scratch: Scratch.Scratch): string => scratch.file(".treeline")

/** The pid in the record. */
export const recorded = (scratch: Scratch.Scratch): number | undefined => {
  try {
    const folder = path.join(stateFolder(scratch), "daemon")
    return Number(/^(\d+)-/.exec(fs.readdirSync(folder)[0]!)?.[1])
  } catch {
    return undefined
  }
}

/** What it has logged until now. */
export const log = (scratch: Scratch.Scratch): string => {
  const file = path.join(stateFolder(scratch), "daemon.log")
  return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : ""
}

/** A command with `--json` that does what it is asked. */
export const asked = <S extends Schema.Codec<unknown, unknown>>(
  scratch: Scratch.Scratch,
  argv: ReadonlyArray<string>,
  kind: keyof typeof CommandReport,
  schema: S,
  options: NonNullable<Parameters<typeof Answers.answer>[4]> = {}
): Effect.Effect<S["Type"]> => Answers.answer(scratch, ["daemon", ...argv], kind, schema, options)

/** `start`, `stop` or `restart` that succeeds. */
export const changed = (scratch: Scratch.Scratch, ...argv: ReadonlyArray<string>) =>
  asked(scratch, argv, "DaemonOutcome", CommandReport.DaemonOutcome)

/** The same with other variables. */
export const changedWith = (scratch: Scratch.Scratch, env: Readonly<Record<string, string>>, verb: string) =>
  asked(scratch, [verb], "DaemonOutcome", CommandReport.DaemonOutcome, { env })

/** Any of them that fails with this exit code. */
export const refused = (scratch: Scratch.Scratch, argv: ReadonlyArray<string>, code: number) =>
  Answers.failure(scratch, ["daemon", ...argv], code)

export const statusOf = (scratch: Scratch.Scratch, code: number, env: Readonly<Record<string, string>> = {}) =>
  asked(scratch, ["status"], "DaemonStatus", CommandReport.DaemonStatus, { code, env })
