/** `treeline up` on a configuration in a scratch folder, and the commands that talk to it. */
import { Ajv, type ValidateFunction } from "ajv"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import * as path from "node:path"
import type { CommandReport } from "treeline"
import type { ServiceConfig } from "treeline/daemon"
import { fixture } from "./Host.ts"
import type * as Scratch from "./Scratch.ts"
import * as Command from "./TreelineCommand.ts"

/** A service that is one role of tree.sh. */
export const role = (scratch: Scratch.Scratch, name: string) => ({
  command: "sh",
  args: [fixture("tree.sh"), name, scratch.report]
})

export const configure = (scratch: Scratch.Scratch, config: ServiceConfig.Input): void =>
  fs.writeFileSync(scratch.file("treeline.json"), JSON.stringify(config))

/** Starts it and waits until its output has `text`. */
export const start = (scratch: Scratch.Scratch, text: string, argv: ReadonlyArray<string> = []) =>
  Effect.tap(Command.start(["up", ...argv], { scratch }), (up) => up.awaitOutput(text))

/** The commands' answers as another program sees them: by the published JSON Schema. */
const document = JSON.parse(
  fs.readFileSync(path.resolve(import.meta.dirname, "../../packages/treeline/schema/commands.schema.json"), "utf8")
) as { readonly definitions: Readonly<Record<string, unknown>> }

const ajv = new Ajv({ strict: true, strictTypes: false, strictTuples: false, allErrors: true })
ajv.addSchema({ ...document, anyOf: undefined }, "commands")

const validators = new Map<string, ValidateFunction>()

/** Why a value is no answer of this kind; undefined when it is one. */
export const whyNot = (definition: keyof typeof CommandReport, value: unknown): string | undefined => {
  const known = validators.get(definition) ?? ajv.compile({ $ref: `commands#/definitions/${definition}` })
  validators.set(definition, known)
  return known(value) ? undefined : JSON.stringify(known.errors)
}
