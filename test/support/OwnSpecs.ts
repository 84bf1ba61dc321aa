/** Children as a user of the kit has them, and one with a defect. */
import { Child, ProcessPlatform } from "@treeline/core"
import { type Lifecycle, PoolScenario, Scenario } from "@treeline/core/testing"
import { Effect, Exit, Schema, Scope } from "effect"
import type { ChildProcess } from "effect/process"

/** An effect that launches a process in a scope of its own, and closes that only when it ends by itself: never. */
export const leaking = (id: string, command: ChildProcess.StandardCommand) =>
  Child.effect(
    id,
    Effect.gen(function*() {
      const platform = yield* ProcessPlatform.ProcessPlatform
      const scope = yield* Scope.make()
      yield* platform.launch(command).pipe(Scope.provide(scope))
      yield* Effect.never
      yield* Scope.close(scope, Exit.void)
    })
  )

/** What a script calls, with the arguments it gives; the script is run as JavaScript, as it stands. */
export interface Pasted {
  readonly call: "replay" | "replaySpecs"
  readonly parameters: ReadonlyArray<unknown>
}

/** Runs a script with these names; what it calls is noted and not done. */
export const paste = (script: string, names: Readonly<Record<string, unknown>> = {}): Pasted => {
  let pasted: Pasted | undefined
  const noting = (call: Pasted["call"]) => (...parameters: ReadonlyArray<unknown>) => {
    pasted = { call, parameters }
  }
  const all = {
    it: { effect: (_name: string, body: () => void) => body() },
    Lifecycle: { replay: noting("replay"), replaySpecs: noting("replaySpecs") },
    PoolLifecycle: { replay: noting("replay") },
    ...names
  }
  // oxlint-disable-next-line typescript/no-implied-eval
  new Function(...Object.keys(all), script)(...Object.values(all))
  if (pasted === undefined) throw new Error(`the script calls nothing: ${script}`)
  return pasted
}

/** The scenario of a script. */
export const scenarioOf = (script: string): Scenario.Scenario =>
  Schema.decodeUnknownSync(Scenario.Scenario)(paste(script).parameters[0])

/** The same of a script for a pool. */
export const poolScenarioOf = (script: string): PoolScenario.PoolScenario =>
  Schema.decodeUnknownSync(PoolScenario.PoolScenario)(paste(script).parameters[0])

const Replay = Schema.Struct({ seed: Schema.Int, commands: Schema.Array(Scenario.Command) })

/** What a script of one's own specs replays. */
export const replayOf = (script: string, names: Readonly<Record<string, unknown>>): Lifecycle.SpecReplay => {
  const { call, parameters } = paste(script, { children: undefined, platform: undefined, ...names })
  if (call !== "replaySpecs") throw new Error(call)
  return Schema.decodeUnknownSync(Replay)(parameters[2])
}
