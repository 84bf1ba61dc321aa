import { performance } from "node:perf_hooks"
import { all, type Contender } from "../Contenders.ts"
import { interleaved, median, ms, quantile, type Question, ratio } from "../Report.ts"

/** One `true`: until it runs, until its end and the end of its output are known, and how long the loop was busy. */
export const measure = async (contender: Contender) => {
  const before = performance.eventLoopUtilization()
  const startedAt = performance.now()
  let running = Number.NaN
  await contender.run("true", [], () => (running = performance.now() - startedAt))
  const ended = performance.now() - startedAt
  return { running, ended, busy: performance.eventLoopUtilization(before).active }
}

export const launch: Question = {
  name: "launch",
  run: async ({ progress, rounds }) => {
    progress("launch")
    const contenders = all()
    // The first launch also starts the guardian and warms up the code.
    for (const contender of contenders) for (let round = 0; round < 5; round++) await measure(contender)
    const answers = await interleaved(rounds * 10, contenders, measure)
    await Promise.all(contenders.map((contender) => contender.dispose()))
    const of = (at: number, key: "running" | "ended" | "busy") => median(answers[at]!.map((answer) => answer[key]))
    /** Of the faster half, so that what else the machine does hardly counts in what is judged. */
    const undisturbed = (at: number) => quantile(answers[at]!.map(({ busy }) => busy), 0.25)
    return {
      title: "Launching `true`, with all output read",
      text:
        `Until the launch is done (\`spawn\` event, or the effect's end); until exit and end of output are known, the
scope closed; and how long the event loop was busy with all that. Medians, in ms.`,
      columns: ["", "running", "ended", "of child_process", "loop busy", "of child_process"],
      rows: contenders.map(({ name }, at) => [
        name,
        ms(of(at, "running")),
        ms(of(at, "ended")),
        ratio(of(at, "ended"), of(0, "ended")),
        ms(of(at, "busy")),
        ratio(of(at, "busy"), of(0, "busy"))
      ]),
      figures: Object.fromEntries(
        contenders.map(({ name }, at) => [`${name}, loop busy / child_process`, undisturbed(at) / undisturbed(0)])
      )
    }
  }
}
