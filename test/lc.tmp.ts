import { Lifecycle } from "@treeline/core/testing"
import { Cause, Effect, Exit } from "effect"
const from = Number(process.argv[2] ?? 1),
  runs = Number(process.argv[3] ?? 200),
  shrinks = Number(process.argv[4] ?? 300)
const t = performance.now()
const exit = await Effect.runPromiseExit(Lifecycle.check({ seed: from, runs, shrinks }))
if (Exit.isFailure(exit)) console.log((Cause.squash(exit.cause) as Error).message.slice(0, 6000))
else console.log(exit.value)
console.log((performance.now() - t).toFixed(0), "ms")
