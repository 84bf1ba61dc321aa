/** A host with many live children: prints what they cost as JSON. Argument: how many. */
import { ProcessPlatform } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect, Exit, Scope } from "effect"
import { ChildProcess } from "effect/process"
import { monitorEventLoopDelay, performance } from "node:perf_hooks"
import * as v8 from "node:v8"
import { collect } from "./Garbage.ts"

const count = Number(process.argv[2])

/**
 * KiB: the JavaScript heap, and what is resident without V8's young generation. That one is empty after a collection, but
 * V8 keeps its 20 to 60 MiB after a burst of any kind of work.
 */
const memory = () => {
  collect()
  const { heapUsed, rss } = process.memoryUsage()
  const young = v8.getHeapSpaceStatistics().find((space) => space.space_name === "new_space")!
  return { heap: heapUsed / 1024, resident: (rss - young.physical_space_size) / 1024 }
}

const program = Effect.gen(function*() {
  const platform = yield* ProcessPlatform.ProcessPlatform
  const command = ChildProcess.make("/bin/sleep", ["60"])
  const start = (number: number, scope: Scope.Scope) =>
    Effect.forEach(Array.from({ length: number }), () => Scope.provide(platform.launch(command), scope))
  // The first hundred warm up the code and the heap.
  const warm = yield* Scope.make()
  yield* start(100, warm)
  yield* Scope.close(warm, Exit.void)

  const scope = yield* Scope.make()
  const before = memory()
  const startedAt = performance.now()
  yield* start(count, scope)
  const started = performance.now() - startedAt
  yield* Effect.sleep(200)
  const after = memory()
  const heap = (after.heap - before.heap) / count
  const resident = (after.resident - before.resident) / count
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const closingAt = performance.now()
  yield* Scope.close(scope, Exit.void)
  const closed = performance.now() - closingAt
  delay.disable()
  return { started, heap, resident, closed, stall: delay.max / 1e6 }
})

console.log(JSON.stringify(await Effect.runPromise(program.pipe(Effect.provide(PosixPlatform.layer)))))
