import { ProcessPlatform } from "@treeline/core"
import { PosixPlatform } from "@treeline/platform-posix"
import { Effect } from "effect"
import { ChildProcess } from "effect/process"
import { performance } from "node:perf_hooks"
import { interleaved, median, ms, quantile, type Question, ratio } from "../Report.ts"

/** Idle processes that make the table longer, in one tree. */
const extra = 300

export const scan: Question = {
  name: "scan",
  run: ({ progress, rounds }) =>
    Effect.gen(function*() {
      progress("scan")
      const platform = yield* ProcessPlatform.ProcessPlatform
      const byPs = yield* Effect.provide(ProcessPlatform.ProcessPlatform, PosixPlatform.layerWith({ table: "ps" }))
      const few = yield* platform.launch(ChildProcess.make("sleep", ["60"]))
      const fewByPs = yield* byPs.launch(ChildProcess.make("sleep", ["60"]))
      const looks: ReadonlyArray<readonly [string, Effect.Effect<ReadonlyArray<unknown>>]> = [
        ["members of a tree of one, /proc", few.members],
        ["all processes, /proc", platform.processes],
        ["members of a tree of one, ps", fewByPs.members],
        ["all processes, ps", byPs.processes]
      ]
      const measure = Effect.gen(function*() {
        const size = (yield* platform.processes).length
        const answers = yield* Effect.promise(() =>
          interleaved(rounds * 2, looks, async ([, look]) => {
            const startedAt = performance.now()
            await Effect.runPromise(look)
            return performance.now() - startedAt
          })
        )
        return { size, answers }
      })
      const small = yield* measure
      const script = `i=0; while [ $i -lt ${extra} ]; do sleep 60 & i=$((i + 1)); done; wait`
      const many = yield* platform.launch(ChildProcess.make("sh", ["-c", script]))
      while ((yield* many.members).length <= extra) yield* Effect.sleep("20 millis")
      const large = yield* measure
      return {
        title: "One look at the process table",
        text:
          `With the processes that there are anyway, and with ${extra} more, all of them members of a second tree. A look at
the whole table is made when all members that were known have ended; until then only one of them is asked for.`,
        columns: ["ms", `${small.size} processes`, "p90", `${large.size} processes`, "p90", "ratio"],
        rows: looks.map(([name], at) => [
          name,
          ms(median(small.answers[at]!)),
          ms(quantile(small.answers[at]!, 0.9)),
          ms(median(large.answers[at]!)),
          ms(quantile(large.answers[at]!, 0.9)),
          ratio(median(large.answers[at]!), median(small.answers[at]!))
        ])
      }
    }).pipe(Effect.scoped, Effect.provide(PosixPlatform.layer), Effect.runPromise)
}
