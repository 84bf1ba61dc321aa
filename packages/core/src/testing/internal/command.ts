/** How a command carries a program, and how the simulated system reads it. */
import * as Option from "effect/Option"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Schema from "effect/Schema"
import { Program } from "../Program.ts"

const codec = Schema.fromJsonString(Program)
const encode = Schema.encodeSync(codec)
const decode = Schema.decodeUnknownOption(codec)

/** Programs by their text, so that one that is run often is read once. */
const known = new Map<string, Program>()
const knownMax = 1_000

const remember = (text: string, program: Program): Program => {
  if (known.size >= knownMax) known.clear()
  known.set(text, program)
  return program
}

const key = "--program"

/** The program that a command's arguments carry, if they do. */
export const carried = (args: ReadonlyArray<string>): Program | undefined => {
  const text = args[0] === key ? args[1] : undefined
  if (text === undefined) return undefined
  const found = known.get(text)
  return found ?? Option.getOrUndefined(Option.map(decode(text), (program) => remember(text, program)))
}

/** The options of `effect/process`, and the name under which the program is shown. */
export interface CommandOptions extends ChildProcess.CommandOptions {
  /** Default: `simulated`. */
  readonly name?: string | undefined
}

/**
 * A command that carries a program. Any layer of `SimulatedPlatform` runs it, under any name.
 *
 * @example
 * ```ts
 * import { Program, SimulatedPlatform } from "@treeline/core/testing"
 * import { strictEqual } from "node:assert"
 *
 * const worker = SimulatedPlatform.command([Program.write("ready\n"), Program.endure], { name: "worker" })
 * strictEqual(worker.command, "worker")
 * ```
 */
export const command = (program: Program, options: CommandOptions = {}): ChildProcess.StandardCommand => {
  const { name = "simulated", ...rest } = options
  const text = encode(program)
  remember(text, program)
  return ChildProcess.make(name, [key, text], rest)
}
